//! Bad input: each is answered with what is wrong, changes nothing, and harms nobody else.

use std::time::Duration;

use larder::protocol::kv::{DeleteValues, GetValues, PutValue, PutValues};
use larder::protocol::limits::{BATCH_ITEMS_MAX, COLLECTION_NAME_BYTES_MAX, KEY_BYTES_MAX, TAGS_PER_ENTRY_MAX};
use larder::protocol::{Format, Value};
use larder::{Class, CollectionName, Key, Larder, field, field_path};
use serde_json::json;

use super::*;

#[tokio::test]
async fn unusable_keys_are_refused_by_every_operation() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<i64>("c");
    let cases = [(String::new(), "it is empty"), ("a\0b".into(), "NUL"), ("k".repeat(KEY_BYTES_MAX + 1), "too large")];
    for (bad, says) in &cases {
        let says = &["key", *says];
        assert_refused(kv.put(bad, &1).await, Class::InvalidInput, says);
        assert_refused(kv.get(bad).await, Class::InvalidInput, says);
        assert_refused(kv.delete(bad).await, Class::InvalidInput, says);
        assert_refused(kv.pop(bad).await, Class::InvalidInput, says);
        assert_refused(kv.touch(bad, None).await, Class::InvalidInput, says);
        assert_refused(kv.increment(bad, 1).await, Class::InvalidInput, says);
        assert_refused(kv.put_if_absent(bad, &1).await, Class::InvalidInput, says);
        assert_refused(kv.put_many([("good", &1), (bad.as_str(), &2)]).await, Class::InvalidInput, says);
        assert_refused(kv.get_many(["good", bad.as_str()]).await, Class::InvalidInput, says);
        assert_refused(kv.delete_many(["good", bad.as_str()]).await, Class::InvalidInput, says);
        assert_refused(kv.scan().after(bad).page().await, Class::InvalidInput, says);
        assert_refused(kv.scan().between(bad, "z").page().await, Class::InvalidInput, says);
        assert_refused(kv.put_operation(bad, &1), Class::InvalidInput, says);
    }
    assert_eq!(kv.count().await.unwrap(), 0);
    let longest = "k".repeat(KEY_BYTES_MAX);
    kv.put(&longest, &1).await.unwrap();
    assert_eq!(kv.get(&longest).await.unwrap(), Some(1));
}

#[tokio::test]
async fn unusable_collection_names_and_tags_are_refused() {
    let larder = temporary().await;
    for (bad, says) in [("", "it is empty"), ("a\0", "NUL"), (&"c".repeat(COLLECTION_NAME_BYTES_MAX + 1), "too large")]
    {
        let kv = larder.kv().collection::<i64>(bad);
        assert_refused(kv.put("k", &1).await, Class::InvalidInput, &["collection name", says]);
        assert_refused(kv.count().await, Class::InvalidInput, &["collection name", says]);
        assert_refused(kv.drop_all().await, Class::InvalidInput, &["collection name", says]);
        let stream: Vec<_> = futures::StreamExt::collect(kv.scan().stream()).await;
        assert_eq!(stream.len(), 1);
        assert!(stream[0].is_err());
    }
    let kv = larder.kv().collection::<i64>("c".repeat(COLLECTION_NAME_BYTES_MAX));
    assert_refused(kv.put("k", &1).tags([""]).await, Class::InvalidInput, &["tag", "empty"]);
    assert_refused(kv.delete_tagged("t".repeat(257)).await, Class::InvalidInput, &["tag", "too large"]);
    let many: Vec<String> = (0..=TAGS_PER_ENTRY_MAX).map(|i| i.to_string()).collect();
    assert_refused(kv.put("k", &1).tags(&many).await, Class::InvalidInput, &["65 tags", "at most 64"]);
    kv.put("k", &1).tags(&many[1..]).await.unwrap();
    assert_eq!(kv.delete_tagged("64").await.unwrap(), 1);
}

#[tokio::test]
async fn unknown_collections_are_empty_ones() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<i64>("unknown");
    assert_eq!(kv.get("k").await.unwrap(), None);
    assert_eq!(kv.count().await.unwrap(), 0);
    assert!(kv.scan().page().await.unwrap().entries.is_empty());
    assert_eq!(kv.drop_all().await.unwrap(), 0);
    assert_eq!(kv.delete_tagged("t").await.unwrap(), 0);
    assert!(larder.kv().collections(None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn values_up_to_the_limit_are_kept_and_over_it_refused() {
    let folder = folder();
    let builder = Larder::builder(folder.path()).kv(|kv| {
        kv.own.value_bytes_max = 1_000;
        kv.common.queue_bytes_max = 100_000;
    });
    let larder = builder.open().await.unwrap();
    let kv = larder.kv().bytes("c");
    kv.put("empty", "").await.unwrap();
    assert_eq!(kv.get("empty").await.unwrap().unwrap().len(), 0);
    kv.put("at", vec![1; 1_000]).await.unwrap();
    assert_eq!(kv.get("at").await.unwrap().unwrap(), vec![1; 1_000]);
    let says = ["value is too large", "1001 bytes", "at most 1000"];
    assert_refused(kv.put("over", vec![1; 1_001]).await, Class::InvalidInput, &says);
    // Larger than all that may wait at once: it is told so at once and waits for nothing.
    assert_refused(kv.put("far", vec![1; 1 << 20]).await, Class::InvalidInput, &["request is too large", "100000"]);
    assert_refused(kv.put_many([("small", vec![1]), ("over", vec![1; 1_001])]).await, Class::InvalidInput, &says);
    assert_eq!(larder.kv().collection::<u8>("c").count().await.unwrap(), 2);
    assert_serves(&larder).await;
    larder.close().await;
}

#[tokio::test]
async fn value_of_the_default_limit_comes_back_whole() {
    let larder = temporary().await;
    let kv = larder.kv().bytes("c");
    let largest: Vec<u8> = (0..16_u32 << 20).map(|i| (i % 251) as u8).collect();
    kv.put("k", largest.clone()).await.unwrap();
    assert!(kv.get("k").await.unwrap().unwrap() == largest);
    assert_refused(kv.put("k", vec![0; (16 << 20) + 1]).await, Class::InvalidInput, &["value is too large"]);
}

#[tokio::test]
async fn answers_of_several_keys_are_bounded_together() {
    let larder = Larder::temporary().await.unwrap();
    larder.kv().bytes("large").put("key", vec![7; 15 << 20]).await.unwrap();
    let keys = |count| vec![Key::new("key").unwrap(); count];
    let get = |count| larder.ask(GetValues { collection: CollectionName::new("large").unwrap(), keys: keys(count) });
    assert_eq!(get(4).await.unwrap().len(), 4);
    assert_refused(get(5).await, Class::InvalidInput, &["several keys", "67108864"]);
    larder.close().await;
}

#[tokio::test]
async fn text_that_is_no_json_is_refused_and_not_shown() {
    let larder = temporary().await;
    let invalid = ["", "{", "secret", "{\"a\":1} x", "[1,]", "nul", "\"\\ud800\"", "\u{FEFF}1", "NaN", "1e999999"];
    for text in invalid {
        let value = Value { format: Format::Json, bytes: text.to_owned().into() };
        let put = PutValue { collection: name("c"), key: key("k"), value, time_to_live: None, tags: Vec::new() };
        let error = larder.ask(put.clone()).await.unwrap_err();
        assert_eq!(error.class(), Class::InvalidInput, "{text:?}");
        assert!(!error.to_string().contains("secret"), "{error}");
        assert_refused(larder.ask(PutValues { puts: vec![put] }).await, Class::InvalidInput, &[]);
    }
    let value = Value { format: Format::Json, bytes: vec![b'"', 0xFF, b'"'].into() };
    let put = PutValue { collection: name("c"), key: key("k"), value, time_to_live: None, tags: Vec::new() };
    assert_refused(larder.ask(put).await, Class::InvalidInput, &[]);
    assert_eq!(larder.kv().collection::<i64>("c").count().await.unwrap(), 0);
}

#[tokio::test]
async fn json_nested_without_end_is_refused() {
    let larder = temporary().await;
    let value = Value { format: Format::Json, bytes: ("[".repeat(100_000) + &"]".repeat(100_000)).into() };
    let put = PutValue { collection: name("c"), key: key("k"), value, time_to_live: None, tags: Vec::new() };
    assert_refused(larder.ask(put).await, Class::InvalidInput, &[]);
    assert_serves(&larder).await;
}

#[tokio::test]
async fn batches_over_their_limit_are_refused() {
    let larder = temporary().await;
    let too_many: Vec<_> = (0..=BATCH_ITEMS_MAX).map(|_| key("k")).collect();
    let says = ["batch", "100001 items", "at most 100000"];
    let get = GetValues { collection: name("c"), keys: too_many.clone() };
    assert_refused(larder.ask(get).await, Class::InvalidInput, &says);
    let delete = DeleteValues { collection: name("c"), keys: too_many };
    assert_refused(larder.ask(delete).await, Class::InvalidInput, &says);
    let kv = larder.kv().collection::<i64>("c");
    let operations = (0..=BATCH_ITEMS_MAX).map(|_| kv.delete_operation("k").unwrap());
    assert_refused(larder.kv().transaction(operations).await, Class::InvalidInput, &says);
    assert_serves(&larder).await;
}

#[tokio::test]
async fn filter_full_of_quotes_finds_what_it_says() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<serde_json::Value>("c");
    let texts = ["'", "\"", "'; DROP TABLE entry; --", "\\", "$.a", "a\"b'c`d", "]", "%", "\u{1}"];
    for (index, text) in texts.iter().enumerate() {
        kv.put(format!("k{index}"), &json!({"f": text, *text: text})).await.unwrap();
    }
    for (index, text) in texts.iter().enumerate() {
        let expected = format!("k{index}");
        for filter in [field("f").eq(*text), field(*text).eq(*text), field("f").one_of([*text])] {
            assert_eq!(keys(&kv.scan().filter(filter).page().await.unwrap().entries), [expected.as_str()], "{text:?}");
        }
    }
    assert_eq!(kv.count().await.unwrap(), texts.len() as u64);
}

#[tokio::test]
async fn filters_over_their_limits_are_refused() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<serde_json::Value>("c");
    kv.put("k", &json!({"a": 1})).await.unwrap();
    let deep = (0..100).fold(field("a").eq(1), |inner, i| {
        let or = field("b").eq(i).or(inner);
        field("a").eq(1).and(or)
    });
    let wide = (0..2_000).fold(field("a").eq(-1), |all, i| all.or(field("a").eq(i)));
    let long = field("a").one_of(0..20_000);
    let path = field_path((0..100).map(|i| i.to_string())).eq(1);
    for filter in [deep, wide, long, path, field("a\0").eq(1).and(field_path(Vec::<String>::new()).eq(1))] {
        assert_refused(kv.scan().filter(filter.clone()).page().await, Class::InvalidInput, &[]);
        assert_refused(kv.scan().filter(filter).count().await, Class::InvalidInput, &[]);
    }
    assert_eq!(kv.scan().filter(field("a").eq(1)).count().await.unwrap(), 1);
}

#[tokio::test]
async fn fields_that_cannot_be_declared_are_refused() {
    let larder = temporary().await;
    let kv = larder.kv();
    for path in
        [field("a'b"), field("a\"b"), field("a b"), field(""), field("a").key("b.c"), field_path(Vec::<String>::new())]
    {
        assert_refused(kv.declare_field(path).await, Class::InvalidInput, &[]);
    }
    assert_serves(&larder).await;
}

#[tokio::test]
async fn deadline_of_nothing_is_answered_as_passed() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<i64>("c");
    kv.put("k", &1).await.unwrap();
    let error = kv.scan().stream();
    drop(error);
    // Whether it was written is told, and told truly.
    match kv.put("k", &2).deadline(Duration::ZERO).await {
        Ok(_) => assert_eq!(kv.get("k").await.unwrap(), Some(2)),
        Err(error) => {
            assert_eq!(error.class(), Class::Deadline);
            if error.written() == larder::Written::NotApplied {
                assert_eq!(kv.get("k").await.unwrap(), Some(1));
            }
        }
    }
    assert_serves(&larder).await;
}
