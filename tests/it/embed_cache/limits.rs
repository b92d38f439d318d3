//! Limits and policies, against a reference that is as simple as can be; and the size of the file.
//!
//! Start at [`each_policy_keeps_what_its_reference_keeps`].

use larder::protocol::embed_cache::Producer;
use larder::{Class, Eviction, Model};

use super::*;
use crate::support::{assert_refused, number_from_environment, within};
use crate::torture::Random;

/// Keys that the model test draws from, and how many of them fit.
const KEYS: u64 = 40;
const FIT: u64 = 10;

/// What is in the cache, the next to be evicted first.
#[derive(Debug)]
struct Reference {
    policy: Eviction,
    turns: Vec<u64>,
}

impl Reference {
    fn contains(&self, key: u64) -> bool {
        self.turns.contains(&key)
    }

    fn remove(&mut self, key: u64) {
        self.turns.retain(|other| *other != key);
    }

    /// Answers whether there was room.
    fn put(&mut self, keys: &[u64]) -> bool {
        let new: std::collections::BTreeSet<_> = keys.iter().filter(|key| !self.contains(**key)).collect();
        if self.policy == Eviction::None && !new.is_empty() && (self.turns.len() + new.len()) as u64 > FIT {
            return false;
        }
        for key in keys {
            self.remove(*key);
            self.turns.push(*key);
        }
        let surplus = self.turns.len().saturating_sub(usize::try_from(FIT).unwrap());
        self.turns.drain(..surplus);
        true
    }

    fn use_of(&mut self, key: u64) {
        if self.policy == Eviction::LeastRecentlyUsed && self.contains(key) {
            self.remove(key);
            self.turns.push(key);
        }
    }
}

/// Runs random operations on a cache of one policy beside a reference of another; answers where they first differ.
async fn first_difference(policy: Eviction, reference: Eviction, operations: u64, seed: u64) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let change = |own: &mut EmbedCacheSettings| {
        (own.eviction, own.entries_max) = (policy, Some(FIT));
        // What is in memory is answered though it was evicted.
        own.memory_bytes = 0;
    };
    let mut larder = open(folder.path(), change).await;
    let mut reference = Reference { policy: reference, turns: Vec::new() };
    let producer = Producer::model(MODEL).unwrap();
    let keys: Vec<_> = (0..KEYS).map(|number| producer.key(&input(number))).collect();
    for step in 0..operations {
        let mut random = Random::of(seed, step);
        let (cache, key) = (larder.embed_cache(), random.below(KEYS));
        let what = match random.below(100) {
            0..45 => {
                let put = cache.put(MODEL, &input(key), vector(key)).await;
                if put.is_ok() != reference.put(&[key]) {
                    return Some(format!("step {step}: put {key}: {put:?}"));
                }
                "put"
            }
            45..55 => {
                let keys: Vec<u64> = (0..1 + random.below(14)).map(|at| (key + at) % KEYS).collect();
                let inputs: Vec<String> = keys.iter().map(|key| input(*key)).collect();
                let puts = inputs.iter().zip(&keys).map(|(input, key)| (input, vector(*key)));
                let put = cache.put_many(MODEL, puts).await;
                if put.is_ok() != reference.put(&keys) {
                    return Some(format!("step {step}: put {keys:?}: {put:?}"));
                }
                "put many"
            }
            55..85 => {
                let found = get(&cache, key).await;
                if found != reference.contains(key).then(|| vector(key)) {
                    return Some(format!("step {step}: get {key}: {found:?}"));
                }
                reference.use_of(key);
                "get"
            }
            85..93 => {
                cache.remove(MODEL, [input(key).as_str()]).await.unwrap();
                reference.remove(key);
                "remove"
            }
            93..99 => {
                cache.touch(MODEL, [input(key).as_str()]).await.unwrap();
                reference.use_of(key);
                "touch"
            }
            _ if policy == Eviction::LeastRecentlyUsed => "nothing, since uses that were not written are forgotten",
            _ => {
                larder.close().await;
                larder = open(folder.path(), change).await;
                "reopen"
            }
        };
        let held = larder.ask(larder::protocol::embed_cache::ContainsValues { keys: keys.clone() }).await.unwrap();
        let expected: Vec<bool> = (0..KEYS).map(|key| reference.contains(key)).collect();
        if held != expected {
            let differs = held.iter().zip(&expected).position(|(held, expected)| held != expected);
            return Some(format!("step {step}: after {what} {key}: key {differs:?}, {reference:?}"));
        }
    }
    assert_sound(&larder).await;
    larder.close().await;
    None
}

const POLICIES: [Eviction; 3] = [Eviction::LeastRecentlyStored, Eviction::LeastRecentlyUsed, Eviction::None];

#[tokio::test]
async fn each_policy_keeps_what_its_reference_keeps() {
    let operations = number_from_environment("LARDER_MODEL_OPERATIONS", 1_500);
    let seed = number_from_environment("LARDER_SEED", 1);
    for policy in POLICIES {
        let difference = first_difference(policy, policy, operations, seed).await;
        assert_eq!(difference, None, "{policy:?}, seed {seed}");
    }
}

#[tokio::test]
async fn control_another_policy_than_the_reference_s_is_caught() {
    for policy in POLICIES {
        for reference in POLICIES.into_iter().filter(|other| *other != policy) {
            let difference = first_difference(policy, reference, 1_500, 1).await;
            assert!(difference.is_some(), "{policy:?} passed for {reference:?}");
        }
    }
}

/// A larger limit is kept by slices in the background, and puts take a hand only past it by a sixteenth.
#[tokio::test]
async fn background_keeps_a_larger_limit_and_the_newest_values() {
    let folder = tempfile::tempdir().unwrap();
    let larder = open(folder.path(), |own| (own.entries_max, own.memory_bytes) = (Some(1_000), 0)).await;
    let cache = larder.embed_cache();
    for number in 0..4_000 {
        put(&cache, number).await;
        if number % 100 == 0 {
            let count = cache.statistics().await.unwrap().entry_count;
            assert!(count <= 1_062, "{count} of 1,000");
        }
    }
    let statistics = settled(&larder, 1_000).await;
    assert!(statistics.entry_count >= 980, "{statistics:?}");
    assert_eq!(statistics.evicted + statistics.entry_count, 4_000);
    for number in 0..4_000 {
        let is_new = number >= 4_000 - statistics.entry_count;
        assert_eq!(get(&cache, number).await.is_some(), is_new, "{number} {statistics:?}");
    }
    assert_sound(&larder).await;
    larder.close().await;
}

/// Waits until at most `entries_max` entries are there.
async fn settled(larder: &Larder, entries_max: u64) -> larder::CacheStatistics {
    within(async {
        loop {
            let statistics = larder.embed_cache().statistics().await.unwrap();
            if statistics.entry_count <= entries_max {
                return statistics;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

const LIMIT: u64 = 8 << 20;

/// Puts vectors of 384 components from 64 callers, and answers how large the file has been at most, in parts of the limit.
#[expect(clippy::cast_precision_loss, reason = "numbers below 2^20, and a ratio")]
async fn largest_file(policy: Eviction, bytes_max: Option<u64>, puts: u64) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let larder = open(folder.path(), |own| {
        (own.eviction, own.bytes_max) = (policy, bytes_max);
        own.memory_bytes = 1 << 20;
    })
    .await;
    let file = folder.path().join("embed_cache.db");
    let (model, mut largest) = (Model::new(MODEL).unwrap(), 0);
    for first in (0..puts).step_by(64) {
        let calls = (first..first + 64).map(|number| {
            let (cache, model) = (larder.embed_cache(), &model);
            async move {
                let mut random = Random::of(7, number);
                // Some again, which leaves holes; and under the least recently used, some are used.
                let number = if random.percent(10) { number / 2 } else { number };
                let components: Vec<f32> = (0..384).map(|_| random.below(1 << 20) as f32).collect();
                cache.put(model, &input(number), components).await.unwrap();
                if policy == Eviction::LeastRecentlyUsed {
                    cache.get(model, &input(number - number % 7)).await.unwrap();
                }
            }
        });
        futures::future::join_all(calls).await;
        largest = largest.max(file.metadata().unwrap().len());
    }
    let statistics = larder.embed_cache().statistics().await.unwrap();
    largest = largest.max(statistics.file_bytes);
    if bytes_max.is_some() {
        assert!(statistics.evicted > 0);
        // A limit that is kept by throwing everything away would be easy.
        assert!(statistics.value_bytes > LIMIT / 3, "{policy:?} {statistics:?}");
    }
    assert_sound(&larder).await;
    larder.close().await;
    largest.max(file.metadata().unwrap().len()) as f64 / LIMIT as f64
}

#[tokio::test(flavor = "multi_thread")]
async fn file_stays_within_a_tenth_over_its_limit() {
    let puts = number_from_environment("LARDER_PUTS", 16_000);
    for policy in [Eviction::LeastRecentlyStored, Eviction::LeastRecentlyUsed] {
        let largest = largest_file(policy, Some(LIMIT), puts).await;
        println!("{policy:?}: {puts} puts, the file was at most {largest:.3} of its limit");
        assert!(largest <= 1.1, "{policy:?}: {largest}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn control_file_without_a_limit_is_caught() {
    assert!(largest_file(Eviction::LeastRecentlyStored, None, 8_000).await > 1.1);
}

#[tokio::test]
async fn cache_that_evicts_none_refuses_what_does_not_fit_and_computes_nothing_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let larder = open(folder.path(), |own| (own.eviction, own.entries_max) = (Eviction::None, Some(3))).await;
    let (cache, runs) = (larder.embed_cache(), AtomicU64::new(0));
    for number in 0..3 {
        compute(&cache, number, &runs).await.unwrap();
    }
    assert_refused(cache.put(MODEL, "more", vector(9)).await, Class::Full, &["3 entries", "at most 3"]);
    assert_refused(compute(&cache, 9, &runs).await, Class::Full, &["evict none"]);
    assert_eq!(runs.load(Ordering::Relaxed), 3, "nothing is computed that would not be kept");
    // What is there can be read, replaced and removed, and what has expired makes room.
    put(&cache, 1).await;
    assert_eq!(compute(&cache, 2, &runs).await.unwrap(), vector(2));
    cache.remove(MODEL, [input(0).as_str()]).await.unwrap();
    put(&cache.clone().ttl(Duration::ZERO), 5).await;
    compute(&cache, 9, &runs).await.unwrap();
    assert_refused(cache.put(MODEL, "more", vector(9)).await, Class::Full, &[]);
    larder.close().await;
}

#[tokio::test]
async fn bytes_limit_of_a_cache_that_evicts_none_refuses_too() {
    let folder = tempfile::tempdir().unwrap();
    let larder = open(folder.path(), |own| (own.eviction, own.bytes_max) = (Eviction::None, Some(1 << 20))).await;
    let cache = larder.embed_cache();
    let mut stored = 0;
    let refused = loop {
        match cache.put(MODEL, &input(stored), vec![1.0; 384]).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 1_000);
    };
    assert_eq!(refused.class(), Class::Full);
    assert!(stored > 300, "{stored}");
    for number in 0..stored {
        assert!(cache.get(MODEL, &input(number)).await.unwrap().is_some());
    }
    larder.close().await;
}

#[tokio::test]
async fn limit_lowered_below_what_is_stored_is_reached_in_the_background() {
    for policy in POLICIES {
        let folder = tempfile::tempdir().unwrap();
        let larder = open(folder.path(), |_| ()).await;
        for number in 0..1_500 {
            put(&larder.embed_cache(), number).await;
        }
        larder.close().await;
        let builder = Larder::builder(folder.path()).embed_cache(|cache| {
            (cache.own.eviction, cache.own.entries_max) = (policy, Some(100));
        });
        let builder = builder.settings(|settings| settings.maintenance_interval = Duration::from_millis(10));
        let larder = builder.open().await.unwrap();
        let cache = larder.embed_cache();
        if policy == Eviction::None {
            assert_refused(cache.put(MODEL, "more", vector(1)).await, Class::Full, &["1500 entries"]);
            assert_eq!(get(&cache, 0).await, Some(vector(0)));
        } else {
            settled(&larder, 100).await;
            assert_eq!(get(&cache, 1_499).await, Some(vector(1_499)));
            assert!(!cache.contains(MODEL, &input(0)).await.unwrap());
        }
        assert_sound(&larder).await;
        larder.close().await;
    }
}
