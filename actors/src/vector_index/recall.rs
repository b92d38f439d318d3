//! Answers beside those of comparing with every vector, over sets that are hard in different ways.

#![expect(clippy::cast_sign_loss, reason = "slots count from 0 here")]

use super::testing::Random;
use super::*;

/// More in a release build, where it takes no longer.
const VECTORS: usize = if cfg!(debug_assertions) { 2_500 } else { 20_000 };
const QUERIES: usize = if cfg!(debug_assertions) { 12 } else { 100 };
const K: usize = 10;
/// Every vector is wanted, or every so many-th.
const STEPS: &[Slot] = if cfg!(debug_assertions) { &[1, 10] } else { &[1, 2, 10, 100, 1_000] };

fn settings(dimensions: usize, metric: Metric) -> IndexSettings {
    IndexSettings { dimensions, metric, vector_bytes_max: 4 * dimensions * VECTORS / 2 }
}

fn index(vectors: &[Vec<f32>], metric: Metric) -> VectorIndex {
    let mut index = VectorIndex::new(settings(vectors[0].len(), metric));
    for (slot, vector) in (0..).zip(vectors) {
        index.push(slot, vector);
    }
    while index.tidy() {}
    index
}

fn search(snapshot: &Snapshot, vectors: &[Vec<f32>], query: &[f32], is_exact: bool, k: usize) -> Found {
    search_among(None, snapshot, vectors, query, is_exact, k)
}

fn search_among(
    wanted: Option<&[ChunkBits]>,
    snapshot: &Snapshot,
    vectors: &[Vec<f32>],
    query: &[f32],
    is_exact: bool,
    k: usize,
) -> Found {
    let search = Search { query, k, is_exact, wanted, thread_count_max: 2, is_called_off: &|| false };
    snapshot.search::<()>(&search, |slot| Ok(vectors[slot as usize].clone())).expect("every vector can be read")
}

/// All hits of comparing with every vector, the nearest first.
fn compare_all(vectors: &[Vec<f32>], metric: Metric, query: &[f32]) -> Vec<Hit> {
    let turn = |vector: &[f32]| if metric == Metric::Cosine { normalized(vector) } else { vector.to_vec() };
    let query = turn(query);
    let mut hits: Vec<Hit> =
        (0..).zip(vectors).map(|(slot, vector)| Hit { slot, score: metric.score(&query, &turn(vector)) }).collect();
    hits.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.slot.cmp(&b.slot)));
    hits
}

/// The places of the slots that are wanted.
fn bits(snapshot: &Snapshot, is_wanted: impl Fn(Slot) -> bool) -> Vec<ChunkBits> {
    let of_chunk = |chunk: &Chunk| {
        let mut bits = [0; CHUNK_LEN / 64];
        for (place, slot) in chunk.slots().iter().enumerate() {
            bits[place / 64] |= u64::from(is_wanted(*slot)) << (place % 64);
        }
        bits
    };
    snapshot.chunks().map(of_chunk).collect()
}

/// Checks exact answers bit for bit, and returns how many of the ten nearest are found by default, at the share of wanted
/// vectors where it is least.
fn recall(vectors: &[Vec<f32>], queries: &[Vec<f32>], metric: Metric) -> f64 {
    let snapshot = index(vectors, metric).snapshot();
    let of_step = |step: &Slot| {
        let wanted = (*step > 1).then(|| bits(&snapshot, |slot| slot % step == 0));
        let (mut found_count, mut nearest_count) = (0, 0);
        for query in queries {
            let mut all = compare_all(vectors, metric, query);
            all.retain(|hit| hit.slot % step == 0);
            let nearest = K.min(all.len());
            let least = all[nearest - 1].score;
            let exact = search_among(wanted.as_deref(), &snapshot, vectors, query, true, K);
            assert_eq!(exact.hits, all.into_iter().take_while(|hit| hit.score >= least).collect::<Vec<_>>());
            let found = search_among(wanted.as_deref(), &snapshot, vectors, query, false, K);
            assert!(found.hits.len() >= nearest, "never fewer than k");
            nearest_count += nearest;
            found_count += found.hits.iter().take(K).filter(|hit| hit.score >= least).count();
        }
        found_count as f64 / nearest_count as f64
    };
    STEPS.iter().map(of_step).fold(1.0, f64::min)
}

fn check(name: &str, metric: Metric, mut vector: impl FnMut(&mut Random) -> Vec<f32>) {
    let mut random = Random::new(name.len() as u64);
    let vectors: Vec<_> = (0..VECTORS).map(|_| vector(&mut random)).collect();
    let queries: Vec<_> = (0..QUERIES).map(|_| vector(&mut random)).collect();
    let recall = recall(&vectors, &queries, metric);
    assert!(recall >= 0.99, "{name}: {recall}");
}

#[test]
fn ten_nearest_are_found_whatever_the_dimensions() {
    for dimensions in [1, 2, 8, 32, 63, 64, 65, 200] {
        check("normal", Metric::L2, |random| random.vector(dimensions));
        check("normal", Metric::Cosine, |random| random.vector(dimensions));
    }
}

#[test]
fn ten_nearest_are_found_in_clusters_and_among_near_duplicates() {
    for spread in [0.3, 0.01] {
        check("clusters", Metric::Cosine, |random| {
            let mut cluster = Random::new(random.below(20) as u64);
            cluster.vector(128).iter().map(|value| value + spread * random.normal()).collect()
        });
    }
}

#[test]
fn ten_nearest_are_found_with_heavy_tails_and_unequal_lengths() {
    for metric in [Metric::Dot, Metric::L2] {
        check("heavy tails", metric, |random| {
            let length = random.normal().exp();
            random.vector(100).iter().map(|value| length * value.powi(3)).collect()
        });
    }
}

#[test]
fn ten_nearest_are_found_far_from_the_origin_and_in_few_components() {
    check("far", Metric::Cosine, |random| random.vector(96).iter().map(|value| value + 5.0).collect());
    check("sparse", Metric::Dot, |random| {
        let mut vector = vec![0.0; 256];
        (0..6).for_each(|_| vector[random.below(256)] = random.normal());
        vector
    });
}

#[test]
fn equal_vectors_are_all_found_even_past_k() {
    let vectors = vec![vec![0.5; 64]; 3_000];
    let snapshot = index(&vectors, Metric::Cosine).snapshot();
    assert_eq!(search(&snapshot, &vectors, &vectors[0], false, 3).hits.len(), 3_000);
}

#[test]
fn extreme_numbers_keep_their_order() {
    for size in [1e-38, 1e-20, 1.0, 1e15] {
        let mut random = Random::new(7);
        let vectors: Vec<Vec<f32>> =
            (0..1_500).map(|_| random.vector(70).iter().map(|value| value * size).collect()).collect();
        for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
            assert!(recall(&vectors, &vectors[..5], metric) >= 0.98, "{size}, {metric:?}");
        }
    }
}

#[test]
fn asking_for_none_or_for_all_is_answered() {
    let mut random = Random::new(3);
    let vectors: Vec<_> = (0..2_500).map(|_| random.vector(80)).collect();
    let snapshot = index(&vectors, Metric::Dot).snapshot();
    assert_eq!(search(&snapshot, &vectors, &vectors[0], false, 0).hits, []);
    let all = search(&snapshot, &vectors, &vectors[0], false, 10_000);
    assert_eq!(all.hits, compare_all(&vectors, Metric::Dot, &vectors[0]));
    let empty = VectorIndex::new(settings(80, Metric::Dot)).snapshot();
    assert_eq!(search(&empty, &vectors, &vectors[0], false, 3).hits, []);
}

#[test]
fn a_search_that_is_called_off_ends() {
    let vectors = vec![vec![1.0; 8]; 10];
    let called_off = Search {
        query: &vectors[0],
        k: 1,
        is_exact: false,
        wanted: None,
        thread_count_max: 1,
        is_called_off: &|| true,
    };
    let answer = index(&vectors, Metric::Dot).snapshot().search::<()>(&called_off, |_| Err(()));
    assert_eq!(answer, Err(SearchError::CalledOff));
}

/// One thread of many panics; there are as many vectors as several threads are worth.
#[test]
fn a_panic_in_a_scan_is_the_search_s_alone() {
    let vectors: Vec<Vec<f32>> = (0..70_000_u32).map(|n| vec![n as f32]).collect();
    let snapshot = index(&vectors, Metric::L2).snapshot();
    let caller = std::thread::current().id();
    let panicking = Search {
        query: &[7.0],
        k: 1,
        is_exact: false,
        wanted: None,
        thread_count_max: 2,
        is_called_off: &|| {
            assert_eq!(std::thread::current().id(), caller, "told to panic");
            false
        },
    };
    let search_once = || snapshot.search::<()>(&panicking, |slot| Ok(vectors[slot as usize].clone()));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(search_once)).is_err());
    assert_eq!(search(&snapshot, &vectors, &[7.0], false, 1).hits, [Hit { slot: 7, score: 0.0 }]);
}

/// Random changes beside a plain list.
#[test]
fn changes_are_in_the_next_snapshot_and_in_no_earlier_one() {
    let mut random = Random::new(11);
    let mut index = VectorIndex::new(settings(72, Metric::L2));
    let mut vectors: Vec<Vec<f32>> = Vec::new();
    let mut live: Vec<bool> = Vec::new();
    for round in 0..40 {
        let before = (index.snapshot(), index.len());
        for _ in 0..random.below(600) {
            index.push(vectors.len() as Slot, &{
                vectors.push(random.vector(72));
                live.push(true);
                vectors[vectors.len() - 1].clone()
            });
        }
        let remove_count = if round % 5 == 4 { vectors.len() * 3 / 4 } else { random.below(200) };
        for _ in 0..remove_count.min(vectors.len()) {
            let slot = random.below(vectors.len());
            assert_eq!(index.remove(slot as Slot), std::mem::take(&mut live[slot]), "slot {slot}");
        }
        for _ in 0..random.below(10) {
            index.tidy();
        }
        assert_eq!(before.0.len(), before.1);
        check_live(&index, &vectors, &live, &mut random);
    }
    while index.tidy() {}
    check_live(&index, &vectors, &live, &mut random);
}

fn check_live(index: &VectorIndex, vectors: &[Vec<f32>], live: &[bool], random: &mut Random) {
    assert_eq!(index.len(), live.iter().filter(|live| **live).count());
    let query = random.vector(72);
    let is_wanted = |slot: Slot| slot % 3 == 0;
    let wanted = bits(&index.snapshot(), is_wanted);
    let mut expected = compare_all(vectors, Metric::L2, &query);
    expected.retain(|hit| live[hit.slot as usize] && is_wanted(hit.slot));
    expected.truncate(5);
    let search = Search {
        query: &query,
        k: 5,
        is_exact: true,
        wanted: Some(&wanted),
        thread_count_max: 1,
        is_called_off: &|| false,
    };
    let found = index.snapshot().search::<()>(&search, |slot| Ok(vectors[slot as usize].clone()));
    assert_eq!(found.expect("every vector can be read").hits, expected);
}

#[test]
fn an_index_that_was_kept_answers_the_same() {
    let mut random = Random::new(13);
    let vectors: Vec<_> = (0..VECTORS).map(|_| random.vector(100)).collect();
    let kept = index(&vectors, Metric::L2);
    let chunks: Vec<_> = kept.snapshot().chunks().map(|chunk| chunk.to_bytes(Metric::L2)).collect();
    let centre = kept.snapshot().chunks().next().and_then(Chunk::centre);
    let mut live: Vec<Slot> = (0..VECTORS as Slot).collect();
    let mut read = VectorIndex::new(settings(100, Metric::L2));
    for (number, bytes) in chunks.iter().enumerate() {
        assert!(
            read.append_kept(bytes, centre.as_ref(), &[&[-1], live.as_slice()].concat()).is_err(),
            "one is missing"
        );
        let count = read.append_kept(bytes, centre.as_ref(), &live).expect("these are its chunks");
        assert_eq!(count, CHUNK_LEN.min(VECTORS - number * CHUNK_LEN));
        live.drain(..count);
    }
    let read = read.snapshot();
    for query in &vectors[..10] {
        let hits = |snapshot: &Snapshot| search(snapshot, &vectors, query, false, K).hits;
        assert_eq!(hits(&read), hits(&kept.snapshot()));
    }
    let mut twice = VectorIndex::new(settings(100, Metric::L2));
    let all: Vec<Slot> = (0..VECTORS as Slot).collect();
    assert!(twice.append_kept(&chunks[0], centre.as_ref(), &all).is_ok());
    assert!(twice.append_kept(&chunks[0], centre.as_ref(), &all).is_err());
}

/// What makes the checks above worth something: a code that says less than it should loses neighbours.
#[test]
fn a_bound_that_is_too_low_is_caught() {
    let mut random = Random::new(5);
    let vectors: Vec<_> = (0..VECTORS).map(|_| random.vector(128)).collect();
    let mut index = index(&vectors, Metric::Cosine);
    index.sabotage();
    let snapshot = index.snapshot();
    let mut found_count = 0;
    for query in &vectors[..QUERIES] {
        let least = compare_all(&vectors, Metric::Cosine, query)[K - 1].score;
        let found = search(&snapshot, &vectors, query, false, K);
        found_count += found.hits.iter().take(K).filter(|hit| hit.score >= least).count();
    }
    assert!((found_count as f64) < 0.99 * (QUERIES * K) as f64, "{found_count}");
}
