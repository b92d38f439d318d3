//! Graphs that grow until their memory is built anew in the background, and a hub that is deleted while others write.
//!
//! At full size: `LARDER_HUB_FACTS=20000 cargo test --release --test it graph::large -- --nocapture`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::StreamExt;
use larder::protocol::change::Notice;
use larder::protocol::graph::{RemoveSource, SourceRemoval};
use larder::protocol::{SourceId, StoreName};
use larder::{Graph, Larder};

use super::{assert_sound, fact};
use crate::support::{number_from_environment, within};

const BATCH: usize = 2_000;

/// Puts facts between the hub and so many others, from `first` on.
async fn grow(graph: &Graph, first: usize, count: usize) {
    let numbers: Vec<usize> = (first..first + count).collect();
    for batch in numbers.chunks(BATCH) {
        let facts = batch.iter().map(|number| fact("hub", "has", &format!("spoke {number}")));
        graph.upsert_relations(facts).await.unwrap();
    }
}

async fn spokes(graph: &Graph) -> BTreeSet<String> {
    let found = graph.neighborhood(["hub"], 1).limit(100_000).await.unwrap();
    found.into_iter().map(|reached| reached.entity.name.as_str().to_owned()).collect()
}

/// A memory is built anew after 10,000 changes; two come with each spoke. The unit tests of `memory` see it taken over.
#[tokio::test(flavor = "multi_thread")]
async fn answers_stay_right_while_memory_is_built_anew_and_after_a_reopening_in_its_middle() {
    let folder = tempfile::tempdir().unwrap();
    let open = async || Larder::open(folder.path()).await.unwrap();
    let mut larder = open().await;
    grow(&larder.graph(), 0, 10).await;
    assert_eq!(spokes(&larder.graph()).await.len(), 10);
    let mut expected: BTreeSet<String> = (0..10).map(|number| format!("spoke {number}")).collect();
    for round in 0..4 {
        let graph = larder.graph();
        let first = expected.len() + round;
        grow(&graph, first, BATCH).await;
        expected.extend((first..first + BATCH).map(|number| format!("spoke {number}")));
        // The walk that begins the building, then some beside it, each behind a change.
        for number in first..first + 5 {
            assert_eq!(spokes(&graph).await, expected, "round {round}, spoke {number}");
            let gone = format!("spoke {number}");
            graph.delete([&gone]).await.unwrap();
            expected.remove(&gone);
            let (renamed, another) = (format!("spoke {}", number + 10), format!("other {number}"));
            graph.rename(&renamed, &another).without_alias().await.unwrap();
            expected.remove(&renamed);
            expected.insert(another);
        }
        assert_eq!(spokes(&graph).await, expected, "round {round}");
        if round == 2 {
            assert!(larder.close().await.is_clean());
            larder = open().await;
            assert_eq!(spokes(&larder.graph()).await, expected, "reopened");
        }
    }
    assert_sound(&larder).await;
}

/// A hub's facts go in slices, between which other writes are committed.
#[tokio::test(flavor = "multi_thread")]
async fn others_write_on_while_a_hub_is_deleted() {
    let fact_count = usize::try_from(number_from_environment("LARDER_HUB_FACTS", 3_000)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let builder =
        Larder::builder(folder.path()).settings(|settings| settings.maintenance_interval = Duration::from_millis(10));
    let larder = builder.open().await.unwrap();
    let graph = larder.graph();
    grow(&graph, 0, fact_count).await;
    let position = graph.sequence().await.unwrap();
    let mut notices = graph.subscribe(position).await.unwrap();
    let began = Instant::now();
    assert_eq!(graph.delete(["hub"]).await.unwrap(), 1);
    let deleted = began.elapsed();
    assert!(graph.neighbors("spoke 0").await.unwrap().is_empty());
    // One write after another until a second slice was heard of; one commit may hold several. How many writes come between two is
    // a matter of luck; that no slice takes all is not.
    let (mut slices, mut between, mut number, mut longest) = (0, 0, 0, Duration::ZERO);
    while slices < 2 {
        assert!(number < 5_000, "it went in {slices} slices");
        let began = Instant::now();
        graph.upsert_relations([fact("other", "has", &format!("thing {number}"))]).await.unwrap();
        (number, longest) = (number + 1, longest.max(began.elapsed()));
        let written = graph.sequence().await.unwrap();
        loop {
            let notice = within(notices.next()).await.unwrap().unwrap();
            let Notice::Commit(commit) = notice else { panic!("{notice:?}") };
            slices += usize::from(commit.changes.iter().any(|change| change.kind == "sweep"));
            between += usize::from(slices > 0 && commit.changes.iter().any(|change| change.kind == "insert"));
            if commit.sequence >= written {
                break;
            }
        }
    }
    println!(
        "{fact_count} facts: deleted in {deleted:?}, {slices} slices, {between} writes between them, longest {longest:?}"
    );
    assert_eq!(graph.neighbors("other").limit(10_000).await.unwrap().len(), number.min(10_000));
    larder.compact(StoreName::Graph).await.unwrap();
    assert_sound(&larder).await;
    assert!(larder.close().await.is_clean());
    assert_eq!(rows_of(folder.path(), "relation"), number);
}

#[expect(clippy::disallowed_methods, reason = "a look from outside at a folder that is closed")]
fn rows_of(folder: &std::path::Path, table: &str) -> usize {
    let connection = rusqlite::Connection::open(folder.join("graph.db")).unwrap();
    connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

/// Facts with more earlier versions than a slice removes, of an entity that has them still and one that gave them away.
#[tokio::test]
async fn history_of_deleted_entities_goes_in_slices() {
    const VERSIONS: u32 = 1_200;
    let folder = tempfile::tempdir().unwrap();
    let larder = Larder::open(folder.path()).await.unwrap();
    let graph = larder.graph();
    let versions = |subject: &'static str| {
        (0..VERSIONS).map(move |version| fact(subject, "knows", "bob").with_weight(f64::from(version) + 2.0))
    };
    graph.upsert_relations(versions("ann")).await.unwrap();
    graph.upsert_relations(versions("twin")).await.unwrap();
    graph.merge("twin", "ann").await.unwrap();
    assert_eq!(graph.counts().await.unwrap().past_relations, u64::from(2 * VERSIONS - 1));
    graph.delete(["ann"]).await.unwrap();
    larder.compact(StoreName::Graph).await.unwrap();
    assert_sound(&larder).await;
    assert_eq!(graph.counts().await.unwrap().past_relations, 0);
    assert!(larder.close().await.is_clean());
    for (table, left) in [("relation", 0), ("relation_past", 0), ("merge", 0), ("entity", 1)] {
        assert_eq!(rows_of(folder.path(), table), left, "{table}");
    }
}

/// A source that said 20,000 facts held the writer until all were gone.
#[tokio::test]
async fn source_of_many_facts_goes_in_slices() {
    const FACTS: u64 = 1_250;
    let folder = tempfile::tempdir().unwrap();
    let larder = Larder::open(folder.path()).await.unwrap();
    let graph = larder.graph();
    let said = |number| fact("hub", "has", &format!("spoke {number}")).with_source("book").unwrap();
    graph.upsert_relations((0..FACTS).map(said)).await.unwrap();
    graph.upsert_relations((0..10).map(|number| said(number).with_source("letter").unwrap())).await.unwrap();
    let message = || RemoveSource { source: SourceId::new("book").unwrap(), removes_lone_entities: true };
    let first = larder.ask(message()).await.unwrap();
    assert!(!first.is_last && first.removal == SourceRemoval { deleted: 490, kept: 10, deleted_entities: 490 });
    // Between two slices it says the rest.
    assert_eq!(graph.counts().await.unwrap().relations, FACTS - 490);
    let rest = graph.remove_source("book").with_lone_entities().await.unwrap();
    assert_eq!(rest, SourceRemoval { deleted: FACTS - 500, kept: 0, deleted_entities: FACTS - 500 });
    let again = larder.ask(message()).await.unwrap();
    assert!(again.is_last && again.removal == SourceRemoval::default());
    assert_eq!(graph.neighbors("hub").limit(1_000).await.unwrap().len(), 10);
    larder.compact(StoreName::Graph).await.unwrap();
    assert_sound(&larder).await;
    assert_eq!(graph.counts().await.unwrap().entities, 11);
}
