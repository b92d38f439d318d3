//! What a collection takes on the disk once half of it was deleted here and there.

use std::path::Path;
use std::time::Duration;

use larder::protocol::StoreName;
use larder::{Larder, Metric, VectorCollection, field};

use super::oracle::Random;
use super::{assert_sound, json, point};

const DIMENSIONS: usize = 128;

async fn open(folder: &Path) -> (Larder, VectorCollection) {
    let larder = Larder::builder(folder)
        // Every collection is a large one, of which chunks are kept.
        .vectors(|vectors| vectors.own.vector_bytes_max = 0)
        .settings(|settings| settings.maintenance_interval = Duration::from_millis(10))
        .open()
        .await
        .unwrap();
    let notes = super::collection(&larder, DIMENSIONS, Metric::Cosine).await;
    (larder, notes)
}

async fn fill(notes: &VectorCollection, numbers: impl Iterator<Item = usize>) {
    let made = |n: usize| {
        let vector = Random::new(n as u64 + 1).vector(DIMENSIONS);
        point(&format!("{n:05}"), &vector).with_metadata(json(&format!(r#"{{"n": {}}}"#, n % 9))).with_text("word")
    };
    notes.upsert(numbers.map(made).collect::<Vec<_>>()).await.unwrap();
}

fn file_bytes(folder: &Path) -> u64 {
    folder.join("vectors.db").metadata().unwrap().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compacted_file_is_as_large_as_what_is_left_and_answers_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (larder, notes) = open(folder.path()).await;
    fill(&notes, 0..6_000).await;
    // Every other one, so that no page becomes free altogether.
    let odd: Vec<String> = (0..6_000).filter(|n| n % 2 == 1).map(|n| format!("{n:05}")).collect();
    assert_eq!(notes.delete(odd).await.unwrap(), 3_000);
    let query = Random::new(77).vector(DIMENSIONS);
    let search = || notes.search(&query).k(20).filter(field("n").lt(5)).exact();
    let expected = search().await.unwrap();
    let compacted = larder.compact(StoreName::Vectors).await.unwrap();
    assert_eq!(search().await.unwrap(), expected);
    // What was put and read beside it, and after it.
    fill(&notes, 6_000..6_010).await;
    assert_eq!(notes.count().await.unwrap(), 3_010);
    assert_eq!(notes.search_text("word").k(5_000).await.unwrap().len(), 3_010);
    assert_sound(&larder).await;
    larder.close().await;

    let fresh = tempfile::tempdir().unwrap();
    let (larder, notes) = open(fresh.path()).await;
    fill(&notes, (0..6_000).step_by(2)).await;
    let least = larder.compact(StoreName::Vectors).await.unwrap();
    larder.close().await;
    assert!(compacted.bytes_before > least.bytes_after * 3 / 2, "{compacted:?} {least:?}");
    assert!(compacted.bytes_after * 5 < least.bytes_after * 6, "{compacted:?} {least:?}");
    assert!(file_bytes(folder.path()) * 5 < file_bytes(fresh.path()) * 6);

    let (larder, notes) = open(folder.path()).await;
    let found = notes.search(&query).k(20).filter(field("n").lt(5)).exclude(["06000", "06001", "06002"]).exact();
    let found: Vec<_> = found.await.unwrap().into_iter().filter(|hit| hit.id.as_str() < "06000").collect();
    assert_eq!(found[..15], expected[..15]);
    larder.close().await;
}
