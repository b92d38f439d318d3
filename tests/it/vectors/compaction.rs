//! What a collection takes on the disk once half of it was deleted here and there.

use std::path::Path;
use std::time::Duration;

use larder::protocol::StoreName;
use larder::{Larder, Metric, VectorCollection, field};

use super::oracle::Random;
use super::{assert_sound, json, point};

const DIMENSIONS: usize = 512;
const COUNT: usize = 5_000;

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
async fn a_compacted_file_is_about_as_large_as_what_is_left_and_answers_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (larder, notes) = open(folder.path()).await;
    fill(&notes, 0..COUNT).await;
    // Every other one, so that no page becomes free altogether.
    let odd: Vec<String> = (0..COUNT).filter(|n| n % 2 == 1).map(|n| format!("{n:05}")).collect();
    assert_eq!(notes.delete(odd).await.unwrap(), (COUNT / 2) as u64);
    let query = Random::new(77).vector(DIMENSIONS);
    let search = |notes: &VectorCollection| notes.search(&query).k(20).filter(field("n").lt(5)).exact();
    let expected = search(&notes).await.unwrap();
    let compacted = larder.compact(StoreName::Vectors).await.unwrap();
    assert_eq!(search(&notes).await.unwrap(), expected);
    assert_eq!(notes.search_text("word").k(5_000).await.unwrap().len(), COUNT / 2);
    assert_sound(&larder).await;
    larder.close().await;

    // Vectors as they are, in 8 bits, and in one.
    let live_bytes = (COUNT / 2 * (4 * DIMENSIONS + DIMENSIONS + DIMENSIONS / 8)) as u64;
    assert!(compacted.bytes_before > live_bytes * 3 / 2, "{compacted:?} for {live_bytes}");
    assert!(compacted.bytes_after < live_bytes * 6 / 5, "{compacted:?} for {live_bytes}");
    assert!(file_bytes(folder.path()) < live_bytes * 6 / 5);

    let (larder, notes) = open(folder.path()).await;
    assert_eq!(search(&notes).await.unwrap(), expected);
    fill(&notes, COUNT..COUNT + 10).await;
    assert_eq!(notes.count().await.unwrap(), (COUNT / 2 + 10) as u64);
    assert_sound(&larder).await;
}
