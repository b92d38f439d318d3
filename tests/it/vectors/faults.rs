//! Searches beside deletes, drops, closes and panics, and without memory for an index.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use larder::protocol::StoreName;
use larder::{Class, Failpoint, FailpointAction, Larder, Metric, VectorCollection, field};

use super::oracle::Random;
use super::{assert_sound, collection, json, point};
use crate::support::within;

const DIMENSIONS: usize = 64;

async fn fill(notes: &VectorCollection, count: usize) {
    let mut random = Random::new(5);
    let made =
        |n: usize| point(&n.to_string(), &random.vector(DIMENSIONS)).with_metadata(json(&format!(r#"{{"n": {n}}}"#)));
    notes.upsert((0..count).map(made).collect::<Vec<_>>()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_point_is_in_no_answer_that_began_after_the_delete() {
    let larder = Larder::temporary().await.unwrap();
    let notes = collection(&larder, DIMENSIONS, Metric::Cosine).await;
    fill(&notes, 3_000).await;
    let deleted: Arc<Mutex<HashSet<String>>> = Arc::default();
    let is_over = Arc::new(AtomicBool::new(false));
    let searchers = (0..3_u64).map(|seed| {
        let (notes, deleted, is_over) = (notes.clone(), Arc::clone(&deleted), Arc::clone(&is_over));
        tokio::spawn(async move {
            let mut random = Random::new(seed + 1);
            let mut search_count = 0;
            while !is_over.load(Ordering::Relaxed) {
                let gone = deleted.lock().unwrap().clone();
                let search = notes.search(random.vector(DIMENSIONS)).k(50);
                // With a filter every other time: its columns must follow as well.
                let search = if search_count % 2 == 0 { search.filter(field("n").gte(0)) } else { search };
                let hits = search.await.unwrap();
                assert_eq!(hits.len(), 50, "there are always more than that");
                assert!(hits.iter().all(|hit| !gone.contains(hit.id.as_str())));
                search_count += 1;
            }
            search_count
        })
    });
    let searchers: Vec<_> = searchers.collect();
    for first in (0..2_800).step_by(40) {
        let ids: Vec<String> = (first..first + 40).map(|n| n.to_string()).collect();
        assert_eq!(notes.delete(&ids).await.unwrap(), 40);
        deleted.lock().unwrap().extend(ids);
    }
    is_over.store(true, Ordering::Relaxed);
    for searcher in searchers {
        assert!(within(searcher).await.unwrap() > 0);
    }
    assert_sound(&larder).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_that_is_dropped_while_searched_is_there_or_not() {
    let larder = Larder::temporary().await.unwrap();
    for round in 0..5 {
        let notes = collection(&larder, DIMENSIONS, Metric::Cosine).await;
        fill(&notes, 1_500).await;
        let answered = Arc::new(AtomicUsize::new(0));
        let searcher = tokio::spawn({
            let (notes, answered) = (notes.clone(), Arc::clone(&answered));
            async move {
                let mut random = Random::new(round + 1);
                loop {
                    let search = notes.search(random.vector(DIMENSIONS)).filter(field("n").lt(1_000));
                    match search.await {
                        Ok(hits) => assert_eq!(hits.len(), 10),
                        Err(error) => return error,
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        while answered.load(Ordering::Relaxed) < 3 {
            tokio::task::yield_now().await;
        }
        assert!(larder.vectors().drop_collection("notes").await.unwrap());
        assert_eq!(within(searcher).await.unwrap().class(), Class::NotFound);
    }
    assert_sound(&larder).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_ends_searches_with_their_answers_or_says_that_it_shuts_down() {
    let folder = tempfile::tempdir().unwrap();
    let larder = Larder::open(folder.path()).await.unwrap();
    let notes = collection(&larder, DIMENSIONS, Metric::Cosine).await;
    fill(&notes, 3_000).await;
    let searchers = (0..4_u64).map(|seed| {
        let notes = notes.clone();
        tokio::spawn(async move {
            let mut random = Random::new(seed + 1);
            loop {
                match notes.search(random.vector(DIMENSIONS)).filter(field("n").gte(10)).exact().await {
                    Ok(hits) => assert_eq!(hits.len(), 10),
                    Err(error) => return error,
                }
            }
        })
    });
    let searchers: Vec<_> = searchers.collect();
    notes.search(vec![1.0; DIMENSIONS]).await.unwrap();
    within(larder.close()).await;
    for searcher in searchers {
        assert_eq!(within(searcher).await.unwrap().class(), Class::ShuttingDown);
    }
    let larder = Larder::open(folder.path()).await.unwrap();
    assert_eq!(larder.vectors().collection("notes").open().await.unwrap().count().await.unwrap(), 3_000);
    assert_sound(&larder).await;
}

#[tokio::test]
async fn a_panic_in_a_search_is_its_callers_alone() {
    let larder = Larder::temporary().await.unwrap();
    let notes = collection(&larder, DIMENSIONS, Metric::Cosine).await;
    fill(&notes, 500).await;
    let search = || notes.search(vec![1.0; DIMENSIONS]);
    let expected = search().await.unwrap();
    let on_thread = || search().k(100);
    for point in [Failpoint::ReadInPlace, Failpoint::ReadOnThread] {
        larder.set_failpoint(StoreName::Vectors, point, FailpointAction::Panic, 1);
        let failed = match point {
            Failpoint::ReadInPlace => search().await.unwrap_err(),
            _ => on_thread().await.unwrap_err(),
        };
        assert_eq!(failed.class(), Class::Internal, "{failed}");
        assert_eq!(search().await.unwrap(), expected);
        assert_eq!(on_thread().await.unwrap().len(), 100);
    }
}

#[tokio::test]
async fn an_index_over_its_memory_is_refused_and_others_give_way() {
    let folder = tempfile::tempdir().unwrap();
    let builder = Larder::builder(folder.path()).vectors(|vectors| {
        vectors.own.index_bytes_max = 1 << 20;
        vectors.own.vector_bytes_max = 0;
    });
    let larder = builder.open().await.unwrap();
    let mut random = Random::new(8);
    let mut fill = async |name: &str, count: usize| {
        let notes = larder.vectors().collection(name).dimensions(256).open().await.unwrap();
        let points = (0..count).map(|n| point(&n.to_string(), &random.vector(256))).collect::<Vec<_>>();
        notes.upsert(points).await.unwrap();
        notes
    };
    // Any two together take more than there is.
    let small = [fill("a", 2_000).await, fill("b", 2_000).await, fill("c", 2_000).await];
    let large = fill("large", 5_000).await;
    for _ in 0..2 {
        for notes in &small {
            assert_eq!(notes.search(vec![1.0; 256]).await.unwrap().len(), 10);
        }
        let failed = large.search(vec![1.0; 256]).await.unwrap_err();
        assert_eq!(failed.class(), Class::InvalidInput, "{failed}");
        assert_eq!(large.count().await.unwrap(), 5_000);
    }
    // With fewer points it can be searched.
    assert_eq!(large.delete((2_000..5_000).map(|n| n.to_string())).await.unwrap(), 3_000);
    assert_eq!(large.search(vec![1.0; 256]).await.unwrap().len(), 10);
}
