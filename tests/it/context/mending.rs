//! What does not agree between stores is found and mended.

use larder::{ContextIssue, Point};

use super::*;
use crate::support::within;

async fn filled() -> (Larder, Context, Corpus) {
    let larder = Larder::temporary().await.unwrap();
    let context = open(&larder).await;
    let mut corpus = Corpus::new();
    for id in ["a", "b", "c"] {
        context.put(document(id, 3), version(id, 3)).await.unwrap();
        corpus.insert(id.to_owned(), version(id, 3));
    }
    assert_none(&disagreements(&context, &corpus).await);
    (larder, context, corpus)
}

async fn found(context: &Context) -> Vec<String> {
    context.check().await.unwrap().iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn points_that_are_missing_or_too_many_are_mended() {
    let (larder, context, corpus) = filled().await;
    let points = larder.vectors().collection("notes").open().await.unwrap();
    points.delete(["a#0", "c#4"]).await.unwrap();
    let strays = [Point::new("b#9", [1.0; 8]).unwrap().with_document("b").unwrap(), Point::new("x", [1.0; 8]).unwrap()];
    points.upsert(strays).await.unwrap();
    points.upsert([Point::new("gone#0", [1.0; 8]).unwrap().with_document("gone").unwrap()]).await.unwrap();
    let expected = [
        "the point \"b#9\" has no node",
        "the point \"gone#0\" has no node",
        "the point \"x\" has no node",
        "the node \"a#0\" of document \"a\" has no point",
        "the node \"c#4\" of document \"c\" has no point",
    ];
    assert_eq!(found(&context).await, expected);
    assert_eq!(within(context.repair()).await.unwrap().len(), expected.len());
    assert_none(&disagreements(&context, &corpus).await);
}

#[tokio::test]
async fn documents_that_others_put_or_deleted_are_mended() {
    let (larder, context, mut corpus) = filled().await;
    larder.documents().put(document("a", 4), version("a", 4)).await.unwrap();
    corpus.insert("a".to_owned(), version("a", 4));
    larder.documents().delete_document("b").await.unwrap();
    corpus.remove("b");
    let issues = context.check().await.unwrap();
    let changed = ContextIssue::ChangedDocument { document: larder::protocol::DocumentId::new("a").unwrap() };
    assert!(issues.contains(&changed), "{issues:?}");
    assert!(issues.iter().any(|issue| matches!(issue, ContextIssue::OrphanedSource { .. })), "{issues:?}");
    within(context.repair()).await.unwrap();
    assert_none(&disagreements(&context, &corpus).await);
}

#[tokio::test]
async fn collection_that_somebody_dropped_is_made_again() {
    let (larder, context, mut corpus) = filled().await;
    larder.vectors().drop_collection("notes").await.unwrap();
    assert_eq!(context.check().await.unwrap().len(), 15);
    context.put(document("d", 1), version("d", 1)).await.unwrap();
    corpus.insert("d".to_owned(), version("d", 1));
    within(context.repair()).await.unwrap();
    assert_none(&disagreements(&context, &corpus).await);
}

/// A program's own facts have other sources than passages: they are none of the context's business.
#[tokio::test]
async fn facts_of_the_program_s_own_are_left_alone() {
    let (larder, context, corpus) = filled().await;
    let own = NewRelation::new("ann", "said", "so").unwrap().with_source("message 7").unwrap();
    let stray = NewRelation::new("ann", "wrote", "it").unwrap().with_source("node:gone#1").unwrap();
    larder.graph().upsert_relations([own, stray]).await.unwrap();
    assert_eq!(found(&context).await, ["the source \"node:gone#1\" of facts is no node"]);
    within(context.repair()).await.unwrap();
    assert_none(&disagreements(&context, &corpus).await);
    let left = larder.graph().relations().await.unwrap().relations;
    assert!(left.iter().any(|fact| fact.label.as_str() == "said"));
    assert!(!left.iter().any(|fact| fact.label.as_str() == "wrote"));
}

/// A snapshot is of one instant, and may have an ingest in its middle: opening the context finishes it.
#[tokio::test]
async fn context_in_a_snapshot_is_finished_when_it_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let larder = Larder::open(folder.path()).await.unwrap();
    let context = open(&larder).await;
    let writer = {
        let context = context.clone();
        tokio::spawn(async move {
            for n in 1..40 {
                for id in ["a", "b", "c"] {
                    context.put(document(id, n), version(id, n)).await.unwrap();
                }
            }
        })
    };
    let snapshots = tempfile::tempdir().unwrap();
    let mut taken = Vec::new();
    while !writer.is_finished() && taken.len() < 5 {
        taken.push(larder.snapshot(snapshots.path()).await.unwrap());
    }
    writer.await.unwrap();
    larder.close().await;
    assert!(!taken.is_empty());
    for snapshot in taken {
        let restored = tempfile::tempdir().unwrap();
        let target = restored.path().join("restored");
        larder::backup::restore(&snapshot.path, &target).unwrap();
        let larder = Larder::open(&target).await.unwrap();
        let context = open(&larder).await;
        assert_eq!(context.check().await.unwrap(), []);
        let stored = stored(&larder).await;
        for id in stored.nodes.keys() {
            let as_some_version = (1..40).any(|n| disagreement(&stored, id, &version(id, n)).is_none());
            assert!(as_some_version, "{id} is as in no version");
        }
        larder.close().await;
    }
}
