//! What each operation does, whatever the backend.

use larder::protocol::embed_cache::{CachedValue, GetValue, Producer};
use larder::{Backend, Durability, Input, Model, StoreState};

use super::*;
use crate::support::within;

/// Every backend that keeps something.
const BACKENDS: [Backend; 2] = [Backend::Sqlite, Backend::Memory];

async fn with_backend(backend: Backend) -> (tempfile::TempDir, Larder) {
    let folder = tempfile::tempdir().unwrap();
    let larder = open(folder.path(), |own| own.backend = backend).await;
    (folder, larder)
}

#[tokio::test]
async fn what_is_put_is_there_until_it_is_removed() {
    for backend in BACKENDS {
        let (_folder, larder) = with_backend(backend).await;
        let cache = larder.embed_cache();
        assert_eq!(get(&cache, 1).await, None);
        put(&cache, 1).await;
        put(&cache, 2).await;
        assert_eq!(get(&cache, 1).await, Some(vector(1)));
        assert!(cache.contains(MODEL, &input(2)).await.unwrap());
        assert!(!cache.contains(MODEL, &input(3)).await.unwrap());
        // Another value in its place is another value at once, in memory too.
        cache.put(MODEL, &input(1), vector(7)).await.unwrap();
        assert_eq!(get(&cache, 1).await, Some(vector(7)));
        let inputs = [input(1), input(2), input(3)];
        assert_eq!(cache.remove(MODEL, inputs.iter().map(String::as_str)).await.unwrap(), 2, "{backend:?}");
        assert_eq!(get(&cache, 1).await, None);
        assert!(!cache.contains(MODEL, &input(2)).await.unwrap());
        assert_eq!(cache.remove(MODEL, [input(1).as_str()]).await.unwrap(), 0);
        larder.close().await;
    }
}

#[tokio::test]
async fn many_are_put_and_found_at_once_in_order() {
    for backend in BACKENDS {
        let (_folder, larder) = with_backend(backend).await;
        let cache = larder.embed_cache();
        let inputs: Vec<String> = (0..2_500).map(input).collect();
        let even = inputs.iter().zip(0..).filter(|(_, number)| number % 2 == 0);
        cache.put_many(MODEL, even.map(|(input, number)| (input, vector(number)))).await.unwrap();
        let found = cache.get_many(MODEL, &inputs).await.unwrap();
        for (number, vector) in (0..).zip(found) {
            let expected = (number % 2 == 0).then(|| super::vector(number));
            assert_eq!(vector.map(|vector| vector.as_slice().to_vec()), expected, "{backend:?} {number}");
        }
        assert_eq!(cache.statistics().await.unwrap().entry_count, 1_250);
        larder.close().await;
    }
}

#[tokio::test]
async fn values_survive_a_reopen_and_are_verified() {
    let folder = tempfile::tempdir().unwrap();
    let larder = open(folder.path(), |_| ()).await;
    put(&larder.embed_cache(), 1).await;
    assert_sound(&larder).await;
    larder.close().await;
    let larder = open(folder.path(), |own| own.memory_bytes = 0).await;
    assert_eq!(get(&larder.embed_cache(), 1).await, Some(vector(1)));
    let statistics = larder.embed_cache().statistics().await.unwrap();
    assert_eq!((statistics.file_hits, statistics.memory_hits, statistics.misses), (1, 0, 0));
    assert_sound(&larder).await;
    larder.close().await;
}

#[tokio::test]
async fn cache_is_relaxed_unless_it_is_told_otherwise() {
    let settings = larder::Settings::at("x");
    assert_eq!(settings.embed_cache.common.durability, Durability::Relaxed);
    assert_eq!(settings.kv.common.durability, Durability::Durable);
    let settings: larder::Settings =
        serde_json::from_str(r#"{ "embed_cache": { "own": { "backend": "off" } } }"#).unwrap();
    assert_eq!(settings.embed_cache.common.durability, Durability::Relaxed);
    assert_eq!(settings.embed_cache.own.backend, Backend::Off);
}

#[tokio::test]
async fn model_its_parameters_and_the_kind_of_input_tell_values_apart() {
    let (_folder, larder) = with_backend(Backend::Sqlite).await;
    let cache = larder.embed_cache();
    let small = Model::new("m").unwrap().with_parameters("dimensions=2").unwrap();
    let large = Model::new("m").unwrap().with_parameters("dimensions=3").unwrap();
    cache.put(&small, "x", vec![1.0, 2.0]).await.unwrap();
    cache.put(&large, "x", vec![1.0, 2.0, 3.0]).await.unwrap();
    cache.put("m", Input::Bytes(b"x"), vec![4.0]).await.unwrap();
    cache.put("m", Input::Hash([7; 32]), vec![5.0]).await.unwrap();
    assert_eq!(cache.get(&small, "x").await.unwrap().unwrap().dimensions(), 2);
    assert_eq!(cache.get(&large, "x").await.unwrap().unwrap().dimensions(), 3);
    assert_eq!(cache.get("m", "x").await.unwrap(), None);
    assert_eq!(cache.get("m", b"x".as_slice()).await.unwrap().unwrap().as_slice(), [4.0]);
    assert_eq!(cache.get("m", Input::Hash([7; 32])).await.unwrap().unwrap().as_slice(), [5.0]);
    // A message finds what the handle put.
    let key = Producer::model("m").unwrap().key(Input::Hash([7; 32]));
    let cached = larder.ask(GetValue { key }).await.unwrap().unwrap();
    assert!(matches!(cached.value, CachedValue::Vector(vector) if vector.as_slice() == [5.0]));
    larder.close().await;
}

#[tokio::test]
async fn expired_value_is_hidden_before_it_is_swept() {
    for backend in BACKENDS {
        let (_folder, larder) = with_backend(backend).await;
        let (cache, brief) = (larder.embed_cache(), larder.embed_cache().ttl(Duration::ZERO).tags(["t"]));
        put(&brief, 1).await;
        assert_eq!(get(&cache, 1).await, None);
        assert!(!cache.contains(MODEL, &input(1)).await.unwrap());
        assert_eq!(cache.touch(MODEL, [input(1).as_str()]).await.unwrap(), 0);
        assert_eq!(cache.remove(MODEL, [input(1).as_str()]).await.unwrap(), 0);
        // What lives is hidden once its time is over, in memory too, and kept again by another touch in time.
        put(&larder.embed_cache().ttl(HOUR), 2).await;
        assert_eq!(get(&cache, 2).await, Some(vector(2)));
        assert_eq!(cache.touch(MODEL, [input(2).as_str()]).await.unwrap(), 1);
        assert_eq!(get(&cache, 2).await, Some(vector(2)));
        assert_eq!(brief.touch(MODEL, [input(2).as_str()]).await.unwrap(), 1);
        assert_eq!(get(&cache, 2).await, None, "{backend:?}");
        larder.close().await;
    }
}

#[tokio::test]
async fn expired_values_are_swept() {
    let folder = tempfile::tempdir().unwrap();
    let builder = Larder::builder(folder.path()).settings(|settings| {
        settings.maintenance_interval = Duration::from_millis(10);
    });
    let larder = builder.open().await.unwrap();
    let (cache, brief) = (larder.embed_cache(), larder.embed_cache().ttl(Duration::from_millis(1)).tags(["a", "b"]));
    brief
        .put_many(
            MODEL,
            (0..1_200).map(|number| (Input::Hash([u8::try_from(number % 250).unwrap(); 32]), vector(number))),
        )
        .await
        .unwrap();
    put(&cache, 1).await;
    within(async {
        while cache.statistics().await.unwrap().entry_count > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(get(&cache, 1).await, Some(vector(1)));
    assert_sound(&larder).await;
    larder.close().await;
}

#[tokio::test]
async fn tagged_values_and_those_of_a_model_go_together() {
    for backend in BACKENDS {
        let (_folder, larder) = with_backend(backend).await;
        let cache = larder.embed_cache();
        put(&cache.clone().tags(["red", "green"]), 1).await;
        put(&cache.clone().tags(["red"]), 2).await;
        put(&cache.clone().tags(["green"]), 3).await;
        put(&cache, 4).await;
        cache.put("other", "x", vec![1.0]).await.unwrap();
        assert_eq!(cache.remove_tagged("red").await.unwrap(), 2);
        assert_eq!(cache.remove_tagged("red").await.unwrap(), 0);
        assert_eq!([get(&cache, 1).await, get(&cache, 3).await], [None, Some(vector(3))]);
        // A put without tags takes them away.
        put(&cache, 3).await;
        assert_eq!(cache.remove_tagged("green").await.unwrap(), 0);
        assert_eq!(cache.remove_model(MODEL).await.unwrap(), 2, "{backend:?}");
        assert_eq!(get(&cache, 4).await, None);
        assert_eq!(cache.get("other", "x").await.unwrap().unwrap().as_slice(), [1.0]);
        // It has other dimensions from now on.
        cache.put(MODEL, "y", vec![1.0]).await.unwrap();
        larder.close().await;
    }
}

/// Removals go in writes of 100; what belongs to another tag or model stays, and the check finds nothing left over.
#[tokio::test]
async fn more_than_one_write_of_values_goes_all_the_same() {
    let (_folder, larder) = with_backend(Backend::Sqlite).await;
    let cache = larder.embed_cache();
    let values = |from: u64, to: u64| (from..to).map(|number| (input(number), vector(number)));
    let put = async |cache: &EmbedCache, model: &str, (from, to): (u64, u64)| {
        let values: Vec<_> = values(from, to).collect();
        cache.put_many(model, values.iter().map(|(input, vector)| (input, vector.clone()))).await.unwrap();
    };
    put(&cache.clone().tags(["a"]), "first", (0, 300)).await;
    put(&cache.clone().tags(["b"]), "first", (300, 550)).await;
    put(&cache.clone().tags(["a"]), "second", (0, 250)).await;
    let inputs: Vec<String> = (0..150).map(input).collect();
    assert_eq!(cache.remove("first", &inputs).await.unwrap(), 150);
    assert_eq!(cache.remove_tagged("a").await.unwrap(), 150 + 250);
    assert_eq!(cache.remove_model("first").await.unwrap(), 250);
    assert_eq!(cache.statistics().await.unwrap().entry_count, 0);
    // The model is forgotten: its vectors may have other dimensions now.
    cache.put("first", "a text", vec![1.0, 2.0]).await.unwrap();
    assert_sound(&larder).await;
    larder.close().await;
}

#[tokio::test]
async fn list_pages_through_everything_with_producers_and_tags() {
    let (_folder, larder) = with_backend(Backend::Sqlite).await;
    let cache = larder.embed_cache();
    for number in 0..25 {
        put(&cache.clone().tags(["b", "a"]), number).await;
    }
    cache.memo::<u64>("f").version("1").put("x", &9).await.unwrap();
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = cache.list(after, 10).await.unwrap();
        listed.extend(page.entries);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(listed.len(), 26);
    assert!(listed.is_sorted_by_key(|entry| entry.key));
    let function = Producer::function("f").unwrap().with_parameters("1").unwrap();
    let memoised = listed.iter().find(|entry| entry.producer == function).unwrap();
    assert_eq!(memoised.key, function.key("x"));
    let model = Producer::model(MODEL).unwrap();
    let one = listed.iter().find(|entry| entry.key == model.key(&input(3))).unwrap();
    assert_eq!(one.tags.iter().map(|tag| tag.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_sound(&larder).await;
    larder.close().await;
}

#[tokio::test]
async fn cache_that_is_off_keeps_nothing_and_makes_no_file() {
    for backend in [Backend::Off, Backend::Memory] {
        let (folder, larder) = with_backend(backend).await;
        let (cache, runs) = (larder.embed_cache(), AtomicU64::new(0));
        for _ in 0..3 {
            assert_eq!(compute(&cache, 1, &runs).await.unwrap(), vector(1));
        }
        let computed = if backend == Backend::Off { 3 } else { 1 };
        assert_eq!(runs.load(Ordering::Relaxed), computed);
        assert_eq!(cache.statistics().await.unwrap().computed, computed);
        put(&cache, 2).await;
        assert_eq!(get(&cache, 2).await.is_some(), backend == Backend::Memory);
        let key = Producer::model(MODEL).unwrap().key("x");
        let refused = larder.ask(GetValue { key }).await;
        crate::support::assert_refused(refused, larder::Class::Refused, &["no file"]);
        assert_sound(&larder).await;
        larder.close().await;
        assert!(!folder.path().join("embed_cache.db").exists());
    }
}

#[tokio::test]
async fn memory_backend_keeps_within_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let larder = open(folder.path(), |own| {
        own.backend = Backend::Memory;
        own.memory_bytes = 1 << 20;
    })
    .await;
    let cache = larder.embed_cache();
    for number in 0..5_000 {
        cache.put(MODEL, &input(number), vec![1.0; 384]).await.unwrap();
    }
    let statistics = cache.statistics().await.unwrap();
    assert!(statistics.value_bytes <= 1 << 20, "{statistics:?}");
    assert!(statistics.entry_count > 100, "{statistics:?}");
    larder.close().await;
}

#[tokio::test]
async fn statistics_are_exact() {
    let (_folder, larder) = with_backend(Backend::Sqlite).await;
    let (cache, runs) = (larder.embed_cache(), AtomicU64::new(0));
    for number in 0..10 {
        compute(&cache, number, &runs).await.unwrap();
    }
    for number in 0..20 {
        get(&cache, number).await;
    }
    let inputs: Vec<String> = (5..15).map(input).collect();
    let computed = cache.get_or_compute_many(MODEL, &inputs, |missing| async move {
        Ok::<_, Infallible>(vec![vector(0); missing.len()])
    });
    computed.await.unwrap();
    let statistics = cache.statistics().await.unwrap();
    assert_eq!(statistics.hits(), 10 + 5);
    assert_eq!(statistics.misses, 10 + 10 + 5);
    assert_eq!(statistics.computed, 15);
    assert_eq!((statistics.shared, statistics.unkept, statistics.evicted), (0, 0, 0));
    assert_eq!((statistics.entry_count, statistics.value_bytes), (15, 15 * 12));
    assert_eq!(larder.health().stores[0].state, StoreState::Serving);
    larder.close().await;
}

/// Computations take the time that they take; a hit saves it.
#[tokio::test]
async fn time_saved_is_that_of_the_computations() {
    let (_folder, larder) = with_backend(Backend::Sqlite).await;
    let (cache, wait) = (larder.embed_cache(), Duration::from_millis(5));
    let slow = || async {
        tokio::time::timeout(wait, std::future::pending::<()>()).await.unwrap_err();
        Ok::<_, Infallible>(vector(1))
    };
    for _ in 0..4 {
        cache.get_or_compute(MODEL, "x", slow).await.unwrap();
    }
    let saved = cache.statistics().await.unwrap().time_saved;
    assert!(saved >= 3 * wait, "{saved:?}");
    larder.close().await;
}
