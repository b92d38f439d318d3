//! What an index keeps in the file: it is used when the folder is opened again, made anew where it is damaged, and never
//! missed.

use std::path::Path;
use std::time::Duration;

use futures::TryStreamExt;
use larder::{Larder, Metric, Notice, Point, Sequence, VectorCollection, field};

use super::oracle::{Oracle, Random};
use super::{assert_sound, json, point};
use crate::support::within;

const DIMENSIONS: usize = 64;

/// Without memory for vectors as they are, every collection is a large one.
async fn open(folder: &Path) -> Larder {
    Larder::builder(folder)
        .vectors(|vectors| vectors.own.vector_bytes_max = 0)
        .settings(|settings| settings.maintenance_interval = Duration::from_millis(10))
        .open()
        .await
        .unwrap()
}

async fn notes(larder: &Larder) -> VectorCollection {
    super::collection(larder, DIMENSIONS, Metric::L2).await
}

/// Waits until maintenance has written something after a commit, and for more until `is_done`: several slices may be in one
/// commit.
async fn wait_for_sweeps(larder: &Larder, after: Sequence, is_done: impl Fn() -> bool) {
    let mut notices = larder.vectors().subscribe(after).await.unwrap();
    loop {
        let Some(Notice::Commit(commit)) = within(notices.try_next()).await.unwrap() else { panic!("a commit") };
        if commit.changes.iter().any(|change| change.kind == "sweep") && is_done() {
            return;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a look from outside, through SQLite")]
fn in_file<T>(folder: &Path, look: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T>) -> T {
    let connection = rusqlite::Connection::open(folder.join("vectors.db")).unwrap();
    look(&connection).unwrap()
}

fn kept_count(folder: &Path) -> u64 {
    in_file(folder, |connection| connection.query_row("SELECT count(*) FROM chunk", [], |row| row.get(0)))
}

async fn assert_answers(notes: &VectorCollection, oracle: &Oracle, random: &mut Random) {
    for _ in 0..5 {
        let query = random.vector(DIMENSIONS);
        let hits = notes.search(&query).exact().await.unwrap();
        let found: Vec<_> = hits.iter().map(|hit| (hit.id.to_string(), hit.score)).collect();
        assert_eq!(found, oracle.nearest(&query, 10, |_| true));
        let filtered = notes.search(&query).filter(field("n").eq(3)).exact().await.unwrap();
        let found: Vec<_> = filtered.iter().map(|hit| (hit.id.to_string(), hit.score)).collect();
        let is_wanted = |point: &Point| point.metadata.as_ref().unwrap().as_str() == r#"{"n": 3}"#;
        assert_eq!(found, oracle.nearest(&query, 10, is_wanted));
    }
}

async fn fill(notes: &VectorCollection, oracle: &mut Oracle, random: &mut Random, ids: std::ops::Range<usize>) {
    let made = |id| {
        let metadata = json(&format!(r#"{{"n": {}}}"#, id % 7));
        point(&format!("{id}"), &random.vector(DIMENSIONS)).with_metadata(metadata)
    };
    let points: Vec<_> = ids.map(made).collect();
    notes.upsert(points.clone()).await.unwrap();
    oracle.upsert(points);
}

/// Makes a folder with 2,500 points of which two chunks are kept.
async fn filled(folder: &Path) -> (Oracle, Random) {
    let (mut oracle, mut random) = (Oracle::new(Metric::L2), Random::new(3));
    let larder = open(folder).await;
    let notes = notes(&larder).await;
    let before = larder.vectors().sequence().await.unwrap();
    fill(&notes, &mut oracle, &mut random, 0..2_500).await;
    // Nobody searches.
    wait_for_sweeps(&larder, before, || kept_count(folder) == 2).await;
    larder.close().await;
    assert_eq!(kept_count(folder), 2);
    (oracle, random)
}

#[tokio::test]
async fn what_is_kept_answers_as_the_points_do_after_changes() {
    let folder = tempfile::tempdir().unwrap();
    let (mut oracle, mut random) = filled(folder.path()).await;
    // Points of kept chunks go and come while no index is in memory.
    let larder = open(folder.path()).await;
    let collection = notes(&larder).await;
    fill(&collection, &mut oracle, &mut random, 100..300).await;
    let gone: Vec<String> = (1_000..1_200).map(|id| id.to_string()).collect();
    oracle.points.retain(|id, _| !gone.contains(id));
    assert_eq!(collection.delete(gone).await.unwrap(), 200);
    assert_answers(&collection, &oracle, &mut random).await;
    larder.close().await;
    let larder = open(folder.path()).await;
    assert_answers(&notes(&larder).await, &oracle, &mut random).await;
    assert_sound(&larder).await;
}

#[tokio::test]
async fn a_damaged_chunk_is_reported_and_made_anew_from_the_points() {
    for damage in [
        "UPDATE chunk SET content = zeroblob(10) WHERE key = (SELECT min(key) FROM chunk)",
        "UPDATE chunk SET content = CAST(substr(content, 1, 5000) || x'ff' || substr(content, 5002) AS BLOB)",
        "UPDATE chunk SET columns = CAST(substr(columns, 1, 50) || x'ff' || substr(columns, 52) AS BLOB)",
        "DELETE FROM chunk WHERE key = (SELECT min(key) FROM chunk)",
        "DELETE FROM centre",
        "DELETE FROM chunk",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (oracle, mut random) = filled(folder.path()).await;
        in_file(folder.path(), |connection| connection.execute_batch(damage));
        let larder = open(folder.path()).await;
        let findings = larder.check(larder::CheckDepth::Full).await.unwrap().findings;
        assert_eq!(findings.is_empty(), !damage.starts_with("UPDATE"), "{damage}: {findings:?}");
        let before = larder.vectors().sequence().await.unwrap();
        assert_answers(&notes(&larder).await, &oracle, &mut random).await;
        if damage.starts_with("UPDATE chunk SET content") {
            // The search has found it, or the check has said so.
            wait_for_sweeps(&larder, before, || true).await;
        }
        larder.close().await;
        // Whatever was made anew by then, it answers the same.
        let larder = open(folder.path()).await;
        assert_answers(&notes(&larder).await, &oracle, &mut random).await;
        larder.close().await;
    }
}

#[tokio::test]
async fn a_flipped_bit_in_a_vector_is_an_error_and_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (_, mut random) = filled(folder.path()).await;
    in_file(folder.path(), |connection| {
        connection.execute_batch("UPDATE point SET vector = zeroblob(256) WHERE id = '7'; DELETE FROM chunk;")
    });
    let larder = open(folder.path()).await;
    let notes = notes(&larder).await;
    let query = random.vector(DIMENSIONS);
    let failed = notes.search(&query).await.unwrap_err();
    assert_eq!(failed.class(), larder::Class::Corrupt, "{failed}");
    assert_eq!(notes.get("7").await.unwrap_err().class(), larder::Class::Corrupt);
    assert!(notes.get("8").await.unwrap().is_some());
    assert_eq!(larder.check(larder::CheckDepth::Full).await.unwrap().findings.len(), 1);
    // Put again, it is well.
    notes.upsert([point("7", &query)]).await.unwrap();
    assert_eq!(notes.search(&query).await.unwrap()[0].id.as_str(), "7");
    assert_sound(&larder).await;
}
