//! Ingestion: what is planned, what is recorded, and what a failure or a crash leaves.

use std::sync::{Arc, Mutex};

use larder::protocol::documents::{IngestionDecision, IngestionState};
use larder::{Class, Document, IngestionStrategy, Larder, Node};

use super::{assert_sound, document, node, nodes_of, texts};
use crate::support::assert_refused;

fn source(id: &str, text: &str) -> Document {
    document(id).with_text(text)
}

/// Cuts a text at its blanks; a text with `bad` in it cannot be cut.
async fn cut(document: &Document) -> Result<Vec<Node>, String> {
    let text = document.text.as_deref().unwrap_or_default();
    if text.contains("bad") {
        return Err("it is bad".to_owned());
    }
    Ok(text.split(' ').enumerate().map(|(n, word)| node(&format!("{}#{n}", document.id), word)).collect())
}

async fn document_ids(larder: &Larder) -> Vec<String> {
    larder.documents().documents().await.unwrap().into_iter().map(|one| one.id.to_string()).collect()
}

#[tokio::test]
async fn only_what_changed_is_ingested_again() {
    let larder = Larder::temporary().await.unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let run = |sources: Vec<Document>, strategy| {
        let (larder, asked) = (larder.clone(), Arc::clone(&asked));
        async move {
            let ingestion = larder.documents().ingest(sources).strategy(strategy);
            let report = ingestion.run(async |document: &Document| {
                asked.lock().unwrap().push(document.id.to_string());
                cut(document).await
            });
            let report = report.await.unwrap();
            (report, std::mem::take(&mut *asked.lock().unwrap()))
        }
    };
    let upsert = IngestionStrategy::Upsert;
    let (report, asked) = run(vec![source("a", "one two"), source("b", "three")], upsert).await;
    assert_eq!((report.inserted, report.nodes.inserted, asked), (2, 3, vec!["a".to_owned(), "b".to_owned()]));
    let (report, asked) = run(vec![source("a", "one two"), source("b", "three four")], upsert).await;
    assert_eq!((report.unchanged, report.updated, report.nodes.inserted, asked), (1, 1, 1, vec!["b".to_owned()]));
    assert_eq!(texts(&nodes_of(&larder, "b").await), ["three", "four"]);
    // `a` is no source any more: it stays, unless the strategy says otherwise.
    let (report, _) = run(vec![source("b", "three four")], upsert).await;
    assert_eq!((report.unchanged, report.deleted), (1, vec![]));
    let (report, asked) = run(vec![source("b", "three four")], IngestionStrategy::UpsertAndDeleteMissing).await;
    assert_eq!((report.deleted[0].as_str(), asked.len()), ("a", 0));
    assert_eq!(document_ids(&larder).await, ["b"]);
    assert_sound(&larder).await;
}

#[tokio::test]
async fn copies_are_left_out_where_that_is_the_strategy() {
    let larder = Larder::temporary().await.unwrap();
    let run = |sources: Vec<Document>| {
        larder.documents().ingest(sources).strategy(IngestionStrategy::DuplicatesOnly).run(cut)
    };
    let report = run(vec![source("a", "same"), source("b", "same"), source("c", "other")]).await.unwrap();
    assert_eq!((report.inserted, report.duplicates), (2, 1));
    let report = run(vec![source("d", "same"), source("a", "same"), source("c", "changed")]).await.unwrap();
    assert_eq!((report.duplicates, report.unchanged, report.updated), (1, 1, 1));
    assert_eq!(document_ids(&larder).await, ["a", "c"]);
    let plan = larder.documents().plan(&[source("e", "same")], IngestionStrategy::DuplicatesOnly).await.unwrap();
    assert_eq!(plan.decisions, [IngestionDecision::Duplicate("a".try_into().unwrap())]);
}

#[tokio::test]
async fn missing_documents_go_only_below_the_prefix() {
    let larder = Larder::temporary().await.unwrap();
    let all = ["x/1", "x/2", "x%", "x0", "y/1"].map(|id| source(id, id));
    larder.documents().ingest(all).run(cut).await.unwrap();
    let ingestion = larder.documents().ingest([source("x/2", "x/2")]).below("x/");
    let report = ingestion.strategy(IngestionStrategy::UpsertAndDeleteMissing).run(cut).await.unwrap();
    assert_eq!(report.deleted.iter().map(|id| id.as_str()).collect::<Vec<_>>(), ["x/1"]);
    assert_eq!(document_ids(&larder).await, ["x%", "x/2", "x0", "y/1"]);
    let deleted = larder.documents().delete_missing(["y/1"]).await.unwrap();
    assert_eq!(deleted.len(), 3);
    assert_eq!(larder.documents().delete_missing(["y/1"]).await.unwrap(), []);
    assert_eq!(larder.documents().count().await.unwrap(), 1);
}

#[tokio::test]
async fn a_failure_is_recorded_and_what_was_there_stays() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    documents.ingest([source("a", "one two")]).run(cut).await.unwrap();
    for failure_count in 1..=2 {
        let sources = [source("a", "bad"), source("new", "bad"), source("fine", "three")];
        let seen = Arc::new(Mutex::new(Vec::new()));
        let ingestion = {
            let seen = Arc::clone(&seen);
            documents.ingest(sources).on_progress(move |progress| {
                let line = format!("{}/{} {} {:?}", progress.at, progress.of, progress.document, progress.failure);
                seen.lock().unwrap().push(line);
            })
        };
        let report = ingestion.run(cut).await.unwrap();
        assert_eq!((report.failed.len(), report.failed[0].1.as_str()), (2, "it is bad"));
        assert_eq!(seen.lock().unwrap()[0], "1/3 a Some(\"it is bad\")");
        assert_eq!(seen.lock().unwrap()[2], "3/3 fine None");
        let said = documents.document("a").await.unwrap().unwrap();
        let hash = source("a", "bad").hash();
        assert_eq!(said.state, IngestionState::Failed { hash, reason: "it is bad".to_owned(), failure_count });
        assert_eq!((said.hash, said.node_count), (Some(source("a", "one two").hash()), 2));
        assert_eq!(texts(&nodes_of(&larder, "a").await), ["one", "two"]);
        let said = documents.document("new").await.unwrap().unwrap();
        assert_eq!((said.hash, said.node_count), (None, 0));
        let open: Vec<_> = documents.documents().done(false).await.unwrap();
        assert_eq!(open.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["a", "new"]);
    }
    // The old content again: nothing is to be made anew, but the document must become done.
    let report = documents.ingest([source("a", "one two"), source("new", "good")]).run(cut).await.unwrap();
    assert_eq!((report.updated, report.nodes.unchanged, report.nodes.inserted), (2, 2, 1));
    assert_eq!(documents.count_documents().done(false).await.unwrap(), 0);
    assert_sound(&larder).await;
}

#[tokio::test]
async fn what_was_begun_is_planned_again_after_a_reopen() {
    let folder = tempfile::tempdir().unwrap();
    let larder = Larder::open(folder.path()).await.unwrap();
    let documents = larder.documents();
    documents.ingest([source("a", "one"), source("b", "two")]).run(cut).await.unwrap();
    assert!(documents.mark_begun(&source("a", "new")).await.unwrap());
    assert!(!documents.mark_begun(&source("a", "new")).await.unwrap());
    assert!(documents.mark_begun(&source("c", "three")).await.unwrap());
    assert!(!documents.mark_begun(&source("b", "two")).await.unwrap());
    drop(larder);

    let larder = Larder::open(folder.path()).await.unwrap();
    let documents = larder.documents();
    let sources =
        [source("a", "new"), source("b", "two"), source("c", "three"), source("d", "four"), source("b2", "x")];
    let plan = documents.plan(&sources, IngestionStrategy::Upsert).await.unwrap();
    use IngestionDecision::{Insert, Retry, Unchanged};
    assert_eq!(plan.decisions, [Retry, Unchanged, Retry, Insert, Insert]);
    assert_eq!(texts(&nodes_of(&larder, "a").await), ["one"]);
    let report = documents.ingest(sources).run(cut).await.unwrap();
    assert_eq!((report.inserted, report.updated, report.unchanged), (2, 2, 1));
    assert_eq!(texts(&nodes_of(&larder, "a").await), ["new"]);
}

#[tokio::test]
async fn long_reasons_are_cut_between_characters() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    documents.mark_failed(&source("a", "x"), "é".repeat(10_000)).await.unwrap();
    let IngestionState::Failed { reason, .. } = documents.document("a").await.unwrap().unwrap().state else { panic!() };
    assert_eq!(reason, "é".repeat(2_048));
}

#[tokio::test]
async fn sources_with_one_id_are_refused() {
    let larder = Larder::temporary().await.unwrap();
    let twice = larder.documents().ingest([source("a", "1"), source("a", "2")]).run(cut).await;
    assert_refused(twice, Class::InvalidInput, &["\"a\"", "twice"]);
    assert_eq!(larder.documents().count_documents().await.unwrap(), 0);
}
