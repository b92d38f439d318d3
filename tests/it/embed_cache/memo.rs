//! Memoised functions: any serde value.

use larder::protocol::codec::Codec;
use larder::{Backend, Class};
use serde::{Deserialize, Serialize};

use super::*;
use crate::support::assert_refused;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Summary {
    title: String,
    scores: Vec<Option<i64>>,
}

fn summary(number: i64) -> Summary {
    Summary { title: format!("summary {number}"), scores: vec![Some(number), None] }
}

#[tokio::test]
async fn any_value_is_computed_once() {
    for backend in [Backend::Sqlite, Backend::Memory] {
        let folder = tempfile::tempdir().unwrap();
        let larder = open(folder.path(), |own| own.backend = backend).await;
        let (memo, runs) = (larder.embed_cache().memo::<Summary>("summarise"), AtomicU64::new(0));
        let summarise = || async {
            runs.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok::<_, Infallible>(summary(1))
        };
        let all = (0..100).map(|_| memo.get_or_compute("a text", summarise));
        for result in futures::future::join_all(all).await {
            assert_eq!(result.unwrap(), summary(1));
        }
        assert_eq!(runs.load(Ordering::Relaxed), 1, "{backend:?}");
        assert_eq!(memo.get("a text").await.unwrap(), Some(summary(1)));
        assert!(memo.contains("a text").await.unwrap());
        memo.put("another", &summary(2)).await.unwrap();
        assert_eq!(memo.remove(["another", "third"]).await.unwrap(), 1);
        assert_eq!(memo.clear().await.unwrap(), 1);
        assert_eq!(memo.get("a text").await.unwrap(), None);
        larder.close().await;
    }
}

#[tokio::test]
async fn only_what_is_missing_is_computed_of_many() {
    let larder = Larder::temporary().await.unwrap();
    let memo = larder.embed_cache().memo::<usize>("length");
    memo.put("bb", &2).await.unwrap();
    let asked = std::sync::Mutex::new(Vec::new());
    let length = |texts: Vec<&'static str>| {
        asked.lock().unwrap().extend(texts.clone());
        async move { Ok::<_, Infallible>(texts.iter().map(|text| text.len()).collect()) }
    };
    let lengths = memo.get_or_compute_many(["a", "bb", "ccc", "a", ""], length).await.unwrap();
    assert_eq!(lengths, [1, 2, 3, 1, 0]);
    assert_eq!(*asked.lock().unwrap(), ["a", "ccc", ""]);
    larder.close().await;
}

#[tokio::test]
async fn another_version_and_another_name_have_nothing_in_common() {
    let larder = Larder::temporary().await.unwrap();
    let cache = larder.embed_cache();
    let (first, second) = (cache.memo::<u64>("f").version("1"), cache.memo::<u64>("f").version("2"));
    first.put("x", &1).await.unwrap();
    second.put("x", &2).await.unwrap();
    cache.memo::<u64>("g").version("1").put("x", &3).await.unwrap();
    // A model of the same name is no function.
    cache.put("f", "x", vec![4.0]).await.unwrap();
    assert_eq!((first.get("x").await.unwrap(), second.get("x").await.unwrap()), (Some(1), Some(2)));
    assert_eq!(first.clear().await.unwrap(), 1);
    assert_eq!((first.get("x").await.unwrap(), second.get("x").await.unwrap()), (None, Some(2)));
    assert_eq!(cache.get("f", "x").await.unwrap().unwrap().as_slice(), [4.0]);
    larder.close().await;
}

#[tokio::test]
async fn time_to_live_tags_and_codec_are_those_of_the_handle() {
    let larder = Larder::temporary().await.unwrap();
    let memo = larder.embed_cache().memo::<u64>("f");
    memo.clone().ttl(Duration::ZERO).put("gone", &1).await.unwrap();
    memo.clone().tags(["t"]).codec(Codec::Postcard).put("tagged", &2).await.unwrap();
    assert_eq!(memo.get("gone").await.unwrap(), None);
    assert_eq!(memo.get("tagged").await.unwrap(), Some(2), "each is read by what it was stored with");
    assert_eq!(memo.clone().ttl(HOUR).touch(["tagged"]).await.unwrap(), 1);
    assert_eq!(larder.embed_cache().remove_tagged("t").await.unwrap(), 1);
    assert_eq!(memo.get("tagged").await.unwrap(), None);
    larder.close().await;
}

#[tokio::test]
async fn value_of_another_type_is_an_error_and_no_wrong_answer() {
    let larder = Larder::temporary().await.unwrap();
    let cache = larder.embed_cache();
    cache.memo::<u64>("f").put("x", &u64::MAX).await.unwrap();
    assert_refused(cache.memo::<Summary>("f").get("x").await, Class::InvalidInput, &["encoded value"]);
    assert_refused(cache.memo::<u64>("").get("x").await, Class::InvalidInput, &["producer name"]);
    assert_refused(cache.memo::<u64>("f").version("v".repeat(5_000)).get("x").await, Class::InvalidInput, &[]);
    larder.close().await;
}
