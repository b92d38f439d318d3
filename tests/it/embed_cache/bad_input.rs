//! Input and results that cannot be used, and such as are only unusual.

use larder::protocol::embed_cache::{CachedValue, ClaimValues, GetValues, Producer, PutValues, ValuePut};
use larder::{Class, Eviction, OpenError};

use super::*;
use crate::support::{assert_refused, assert_serves, within};

#[tokio::test]
async fn empty_and_megabyte_inputs_are_inputs_like_others() {
    let larder = Larder::temporary().await.unwrap();
    let (cache, runs) = (larder.embed_cache(), AtomicU64::new(0));
    let huge = "x".repeat(3 << 20);
    for text in ["", " ", huge.as_str()] {
        for _ in 0..2 {
            let computed = cache.get_or_compute(MODEL, text, || async {
                runs.fetch_add(1, Ordering::Relaxed);
                Ok::<_, Infallible>(vector(text.len() as u64))
            });
            assert_eq!(computed.await.unwrap().as_slice(), vector(text.len() as u64));
        }
    }
    assert_eq!(runs.load(Ordering::Relaxed), 3);
    larder.close().await;
}

#[tokio::test]
async fn result_that_is_no_vector_of_the_model_is_refused_and_not_cached() {
    let larder = Larder::temporary().await.unwrap();
    let cache = larder.embed_cache();
    put(&cache, 0).await;
    let bad: [(Vec<f32>, &str); 5] = [
        (vec![1.0, f32::NAN, 2.0], "component 1"),
        (vec![1.0, 2.0, f32::NEG_INFINITY], "component 2"),
        (vec![], "no components"),
        (vec![1.0], "has 3 dimensions, and this one 1"),
        (vec![1.0; 4], "has 3 dimensions, and this one 4"),
    ];
    for (vector, says) in bad {
        assert_refused(cache.put(MODEL, "x", vector.clone()).await, Class::InvalidInput, &[says]);
        let computed = cache.get_or_compute(MODEL, "x", || async { Ok::<_, Infallible>(vector.clone()) }).await;
        assert_refused(computed, Class::InvalidInput, &[says]);
        let many = cache.get_or_compute_many(MODEL, ["x", "y"], |_| async {
            Ok::<_, Infallible>(vec![vec![1.0, 2.0, 3.0], vector.clone()])
        });
        assert_refused(many.await, Class::InvalidInput, &[says]);
        assert_eq!(cache.get(MODEL, "x").await.unwrap(), None);
    }
    assert_refused(cache.put(MODEL, "x", vec![1.0; 10_000]).await, Class::InvalidInput, &["too large"]);
    // The first batch of a model must be of one length as well, and leaves no trace of another.
    let mixed = cache.put_many("new", [("a", vec![1.0]), ("b", vec![1.0, 2.0])]).await;
    assert_refused(mixed, Class::InvalidInput, &["has 1 dimensions, and this one 2"]);
    cache.put("new", "a", vec![1.0, 2.0]).await.unwrap();
    // And the next caller is not in anybody's way.
    let next = within(cache.get_or_compute(MODEL, "x", || async { Ok::<_, Infallible>(vector(1)) })).await;
    assert_eq!(next.unwrap().as_slice(), vector(1));
    assert_sound(&larder).await;
    larder.close().await;
}

#[tokio::test]
async fn batch_of_another_length_is_refused() {
    let larder = Larder::temporary().await.unwrap();
    let cache = larder.embed_cache();
    for count in [0, 1, 3] {
        let many = cache
            .get_or_compute_many(MODEL, ["x", "y"], |_| async move { Ok::<_, Infallible>(vec![vector(1); count]) });
        assert_refused(many.await, Class::InvalidInput, &[&format!("{count} values for 2 inputs")]);
    }
    assert_eq!(cache.statistics().await.unwrap().entry_count, 0);
    larder.close().await;
}

#[tokio::test]
async fn names_tags_and_messages_over_their_limits_are_refused() {
    let larder = Larder::temporary().await.unwrap();
    let cache = larder.embed_cache();
    let long = "m".repeat(300);
    for name in ["", "a\0b", long.as_str()] {
        assert_refused(cache.get(name, "x").await, Class::InvalidInput, &["producer name"]);
        assert_refused(cache.put(name, "x", vec![1.0]).await, Class::InvalidInput, &["producer name"]);
    }
    let many: Vec<String> = (0..65).map(|tag| tag.to_string()).collect();
    assert_refused(cache.clone().tags(&many).put(MODEL, "x", vec![1.0]).await, Class::InvalidInput, &["65 tags"]);
    assert_refused(cache.clone().tags([""]).put(MODEL, "x", vec![1.0]).await, Class::InvalidInput, &["tag"]);
    assert_refused(cache.remove_tagged("").await, Class::InvalidInput, &["tag"]);
    assert_refused(cache.list(None, 0).await, Class::InvalidInput, &["limit"]);
    let keys = vec![Producer::model(MODEL).unwrap().key("x"); 100_001];
    assert_refused(larder.ask(GetValues { keys: keys.clone() }).await, Class::InvalidInput, &["100001 items"]);
    assert_refused(larder.ask(ClaimValues { keys, duration: HOUR }).await, Class::InvalidInput, &["100001 items"]);
    // A message may say what no handle does.
    let producer = Producer::model(MODEL).unwrap();
    let value = CachedValue::Encoded(vec![1].into());
    let put = ValuePut { key: producer.key("x"), value, compute_time: Duration::ZERO, claim: None };
    let message = PutValues { producer, puts: vec![put], time_to_live: None, tags: Vec::new() };
    assert_refused(larder.ask(message).await, Class::InvalidInput, &["must be a vector"]);
    assert_serves(&larder).await;
    larder.close().await;
}

#[tokio::test]
async fn settings_out_of_range_are_refused_by_name() {
    type Change = fn(&mut EmbedCacheSettings);
    let bad: [(&str, Change); 6] = [
        ("bytes_max", |own| own.bytes_max = Some(1)),
        ("entries_max", |own| own.entries_max = Some(0)),
        ("compute_time_max", |own| own.compute_time_max = Duration::ZERO),
        ("value_bytes_max", |own| own.value_bytes_max = 0),
        ("backend", |own| (own.backend, own.eviction) = (larder::Backend::Memory, Eviction::None)),
        ("backend", |own| (own.backend, own.entries_max) = (larder::Backend::Memory, Some(1))),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (name, change) in bad {
        let refused = Larder::builder(folder.path()).embed_cache(|cache| change(&mut cache.own)).open().await;
        let OpenError::Settings(error) = refused.unwrap_err() else { panic!("{name}") };
        assert!(error.to_string().contains(&format!("embed_cache.own.{name}")), "{error}");
    }
}

/// A claim ends with its value, its caller or its process, and only then by the clock: one that steps back delays the key of a
/// computation that hangs, and nothing else.
#[tokio::test]
async fn clock_that_steps_back_keeps_nobody_beyond_a_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let larder = open(folder.path(), |own| own.compute_time_max = Duration::from_secs(1)).await;
    let cache = larder.embed_cache();
    let key = Producer::model(MODEL).unwrap().key("x");
    // A claim of this process whose caller is gone, taken when the clock was an hour ahead.
    larder.ask(ClaimValues { keys: vec![key], duration: HOUR + Duration::from_secs(1) }).await.unwrap();
    let impatient = cache.clone().deadline(Duration::from_millis(50));
    let waits = within(impatient.get_or_compute(MODEL, "x", || async { Ok::<_, Infallible>(vector(1)) })).await;
    assert_refused(waits, Class::Deadline, &["another caller"]);
    // Nothing but the key's computation waits: reads, puts and other keys go on.
    assert_eq!(cache.get(MODEL, "x").await.unwrap(), None);
    assert_eq!(compute(&cache, 1, &AtomicU64::new(0)).await.unwrap(), vector(1));
    cache.put(MODEL, "x", vector(2)).await.unwrap();
    let found = within(cache.get_or_compute(MODEL, "x", || async { Err::<Vec<f32>, _>("it is there") })).await;
    assert_eq!(found.unwrap().as_slice(), vector(2));
    larder.close().await;
}
