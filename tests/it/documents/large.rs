//! Large documents: they come and go whole, and hold nobody up.

use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use larder::{Durability, Larder, field};

use super::{assert_sound, document, found, json, node, nodes_of};
use crate::support::{number_from_environment, within};

const NODE_COUNT: usize = 100_000;

async fn relaxed(folder: &std::path::Path) -> Larder {
    let builder = Larder::builder(folder).documents(|documents| {
        documents.common.durability = Durability::Relaxed;
        documents.common.deadline = Duration::from_secs(120);
    });
    builder.settings(|settings| settings.maintenance_interval = Duration::from_millis(10)).open().await.unwrap()
}

fn nodes(count: usize, word: &'static str) -> impl Iterator<Item = larder::Node> {
    (0..count).map(move |n| {
        let text = format!("{word} number {n} of a large document");
        node(&format!("n{n:06}"), &text).with_metadata(json(&format!(r#"{{"n": {n}}}"#)))
    })
}

#[tokio::test]
async fn a_document_of_100_000_nodes_comes_and_goes_whole() {
    let folder = tempfile::tempdir().unwrap();
    let larder = relaxed(folder.path()).await;
    let documents = larder.documents();
    let put = documents.put(document("large"), nodes(NODE_COUNT, "first")).await.unwrap();
    assert_eq!(put.nodes.inserted, NODE_COUNT as u64);
    let again = documents.put(document("large"), nodes(NODE_COUNT, "first")).await.unwrap();
    assert_eq!(again.nodes.unchanged, NODE_COUNT as u64);
    let streamed: Vec<_> = documents.nodes("large").limit(10_000).stream().try_collect().await.unwrap();
    assert_eq!(streamed.len(), NODE_COUNT);
    assert!(streamed.iter().zip(0..).all(|(stored, position)| stored.position == position));
    assert_eq!(documents.count().matching(field("n").lt(10)).await.unwrap(), 10);
    assert_eq!(documents.search("first").limit(5).await.unwrap().len(), 5);

    // Nearly all of it goes at once, a few nodes stay, and some are new under old ids.
    let outcome =
        documents.put(document("large"), nodes(10, "first").chain(nodes(20, "second").skip(10))).await.unwrap();
    assert_eq!(
        (outcome.nodes.unchanged, outcome.nodes.updated, outcome.nodes.deleted),
        (10, 10, NODE_COUNT as u64 - 20)
    );
    assert_eq!(found(&larder, "number").await.len(), 20);
    assert_eq!(documents.count().await.unwrap(), 20);
    assert_eq!(documents.page().limit(100).await.unwrap().nodes.len(), 20);

    assert!(documents.delete_document("large").await.unwrap());
    assert_eq!(found(&larder, "number").await, [""; 0]);
    assert_eq!(documents.count().await.unwrap(), 0);
    // The rows go bit by bit; a check is content at any moment of that.
    assert_sound(&larder).await;
}

/// A reader never sees part of a document that is being deleted, replaced or put.
#[tokio::test]
async fn nobody_sees_half_a_document() {
    let folder = tempfile::tempdir().unwrap();
    let larder = relaxed(folder.path()).await;
    let documents = larder.documents();
    const WHOLE: usize = 3_000;
    let writer = {
        let documents = documents.clone();
        tokio::spawn(async move {
            for round in 0..6 {
                let word = if round % 2 == 0 { "even" } else { "odd" };
                documents.put(document("a"), nodes(WHOLE, word)).await.unwrap();
                if round % 3 == 2 {
                    documents.delete_document("a").await.unwrap();
                }
            }
        })
    };
    let mut seen = std::collections::BTreeSet::new();
    while !writer.is_finished() {
        let page = within(documents.nodes("a").limit(10_000)).await.unwrap();
        seen.insert(page.nodes.len());
        let words: std::collections::BTreeSet<_> =
            page.nodes.iter().map(|stored| stored.node.content.text().unwrap().split(' ').next().unwrap()).collect();
        assert!(words.len() <= 1, "{words:?}");
        let hits = within(documents.search("number").limit(10_000)).await.unwrap().len();
        let counted = within(documents.count().matching(field("n").gte(0))).await.unwrap();
        for count in [page.nodes.len(), hits, usize::try_from(counted).unwrap()] {
            assert!(count == 0 || count == WHOLE, "{count} of {WHOLE}");
        }
    }
    writer.await.unwrap();
    assert_eq!(documents.count().await.unwrap(), 0);
    assert_sound(&larder).await;
}

/// A large put holds the writer for as long as it takes; whoever writes beside it waits, and is answered. The figures are for
/// decision 0010: `LARDER_NODES=100000 cargo test --release --test it documents::large::small -- --nocapture`.
#[tokio::test]
async fn small_writes_wait_for_a_large_one_and_are_answered() {
    let count = usize::try_from(number_from_environment("LARDER_NODES", 5_000)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let larder = relaxed(folder.path()).await;
    let documents = larder.documents();
    let beside = async |what: &str, large: BoxFuture<'static, ()>| {
        let (began, large, mut waits) = (Instant::now(), tokio::spawn(large), Vec::new());
        while !large.is_finished() {
            let asked = Instant::now();
            let text = format!("{what} {}", waits.len());
            within(documents.put(document("small"), [node("s", &text)])).await.unwrap();
            waits.push(asked.elapsed());
        }
        large.await.unwrap();
        let (took, longest) = (began.elapsed(), waits.iter().max().copied().unwrap_or_default());
        println!(
            "{what}, {count} nodes: {took:.1?}; of {} small puts beside it the longest took {longest:.1?}",
            waits.len()
        );
    };
    for (what, word) in [("put", "first"), ("put again", "first"), ("replace", "second")] {
        let put = documents.put(document("large"), nodes(count, word)).into_future();
        beside(what, put.map(|outcome| _ = outcome.unwrap()).boxed()).await;
    }
    let delete = documents.delete_document("large").into_future();
    beside("delete", delete.map(|outcome| assert!(outcome.unwrap())).boxed()).await;
    assert_eq!(nodes_of(&larder, "small").await.len(), 1);
    assert_eq!(documents.count().await.unwrap(), 1);
    assert_sound(&larder).await;
}
