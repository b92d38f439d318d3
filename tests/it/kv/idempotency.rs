//! Idempotency keys: repeating a write returns its first outcome.

use std::time::Duration;

use larder::protocol::kv::{
    ApplyTransaction, CompareAndDelete, CompareAndPut, DeclareField, DeleteTagged, DeleteValue, DeleteValues,
    DropCollection, IncrementValue, PopValue, PutIfAbsent, PutValue, PutValues, TouchValue,
};
use larder::protocol::{Message, Value};
use larder::{Class, Larder, field};

use super::*;

#[tokio::test]
async fn repeated_write_returns_the_first_outcome_and_writes_once() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<i64>("c");
    for _ in 0..3 {
        assert_eq!(kv.increment("k", 1).idempotency_key("i1").await.unwrap(), 1);
    }
    assert_eq!(kv.increment("k", 1).idempotency_key("i2").await.unwrap(), 2);
    assert_eq!(kv.increment("k", 1).await.unwrap(), 3);
}

#[tokio::test]
async fn first_outcome_is_returned_after_a_reopen() {
    let folder = folder();
    let larder = Larder::open(folder.path()).await.unwrap();
    let kv = larder.kv().collection::<i64>("c");
    let version = kv.put("k", &1).idempotency_key("put").await.unwrap();
    assert_eq!(kv.pop("k").idempotency_key("pop").await.unwrap(), Some(1));
    larder.close().await;
    let larder = Larder::open(folder.path()).await.unwrap();
    let kv = larder.kv().collection::<i64>("c");
    assert_eq!(kv.pop("k").idempotency_key("pop").await.unwrap(), Some(1));
    assert_eq!(kv.put("k", &1).idempotency_key("put").await.unwrap(), version);
    assert_eq!(kv.get("k").await.unwrap(), None);
    larder.close().await;
}

/// Outcomes are kept for a day by default; past their age the key names a new write.
#[tokio::test]
async fn outcome_past_its_age_is_swept_and_its_key_is_free() {
    let folder = folder();
    let open = |kept: Duration| {
        let builder = Larder::builder(folder.path()).kv(move |kv| kv.common.idempotency_kept = kept);
        builder.settings(|settings| settings.maintenance_interval = Duration::from_millis(10)).open()
    };
    let larder = open(Duration::from_secs(3600)).await.unwrap();
    let count = |larder: &Larder| larder.kv().collection::<i64>("counts").increment("c", 1).idempotency_key("once");
    for _ in 0..50 {
        assert_eq!(count(&larder).await.unwrap(), 1);
    }
    larder.close().await;
    let larder = open(Duration::from_millis(1)).await.unwrap();
    within(async { while count(&larder).await.unwrap() == 1 {} }).await;
    larder.close().await;
}

#[tokio::test]
async fn other_write_under_the_same_key_is_a_conflict() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<i64>("c");
    kv.put("k", &1).idempotency_key("i").await.unwrap();
    let says = ["idempotency key i", "first used for"];
    assert_refused(kv.put("k", &2).idempotency_key("i").await, Class::Conflict, &says);
    assert_refused(kv.put("other", &1).idempotency_key("i").await, Class::Conflict, &says);
    assert_refused(kv.increment("k", 1).idempotency_key("i").await, Class::Conflict, &says);
    assert_eq!(kv.get("k").await.unwrap(), Some(1));
}

#[tokio::test]
async fn failed_write_can_be_repeated_under_its_key() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<i64>("c");
    let version = kv.put("k", &1).await.unwrap();
    kv.put("k", &2).await.unwrap();
    let compare = || kv.compare_and_put("k", version, &3).idempotency_key("i");
    assert_eq!(compare().await.unwrap_err().class(), Class::Conflict);
    kv.delete("k").await.unwrap();
    assert_eq!(compare().await.unwrap_err().class(), Class::Conflict);
    assert_eq!(kv.increment("k", 1).idempotency_key("i").await.unwrap(), 1);
}

#[tokio::test]
async fn unusable_idempotency_keys_are_refused_and_reads_ignore_usable_ones() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<i64>("c");
    for bad in [String::new(), "a\0b".to_owned(), "x".repeat(257)] {
        assert_refused(kv.put("k", &1).idempotency_key(bad).await, Class::InvalidInput, &["idempotency key"]);
    }
    kv.put("k", &1).idempotency_key("x".repeat(256)).await.unwrap();
    assert_eq!(kv.get("k").idempotency_key("i").await.unwrap(), Some(1));
    kv.put("k", &2).await.unwrap();
    assert_eq!(kv.get("k").idempotency_key("i").await.unwrap(), Some(2));
}

fn put(key_text: &str) -> PutValue {
    let value = Value::json(&serde_json::json!({"n": 1})).unwrap();
    PutValue {
        collection: name("c"),
        key: key(key_text),
        value,
        time_to_live: None,
        tags: vec!["t".try_into().unwrap()],
    }
}

/// Every kind of write keeps its reply in a form that comes back equal.
#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_write_repeats_its_reply() {
    let larder = temporary().await;
    let version = larder.ask(put("versioned")).await.unwrap();
    let doomed = larder.ask(put("doomed")).await.unwrap();
    larder.ask(put("popped")).await.unwrap();
    let collection = name("c");
    macro_rules! repeats {
        ($message:expr) => {{
            let message = $message;
            let id = format!("{}-{message:?}", name_of(&message));
            let id = &id[..id.len().min(200)];
            let first = larder.ask(message.clone()).idempotency_key(id).await.unwrap();
            let second = larder.ask(message).idempotency_key(id).await.unwrap();
            assert_eq!(format!("{first:?}"), format!("{second:?}"), "{id}");
        }};
    }
    repeats!(put("a"));
    repeats!(PutValues { puts: vec![put("b"), put("c")] });
    repeats!(PutIfAbsent { put: put("d") });
    repeats!(PutIfAbsent { put: put("a") });
    repeats!(CompareAndPut { expected: version, put: put("versioned") });
    repeats!(CompareAndDelete { collection: collection.clone(), key: key("doomed"), expected: doomed });
    repeats!(IncrementValue { collection: collection.clone(), key: key("n"), by: i64::MIN });
    repeats!(TouchValue { collection: collection.clone(), key: key("a"), time_to_live: None });
    repeats!(PopValue { collection: collection.clone(), key: key("popped") });
    repeats!(PopValue { collection: collection.clone(), key: key("missing") });
    repeats!(DeleteValue { collection: collection.clone(), key: key("a") });
    repeats!(DeleteValues { collection: collection.clone(), keys: vec![key("b"), key("missing")] });
    repeats!(DeleteTagged { collection: collection.clone(), tag: "t".try_into().unwrap() });
    repeats!(DeclareField { field: field("n") });
    let kv = larder.kv().collection::<i64>("c");
    repeats!(ApplyTransaction {
        operations: vec![
            kv.require_absent("t").unwrap(),
            kv.put_operation("t", &1).unwrap(),
            kv.increment_operation("t", 2).unwrap(),
            kv.delete_operation("t").unwrap(),
        ],
    });
    repeats!(DropCollection { collection });
}

fn name_of<M: Message>(_: &M) -> &'static str {
    M::NAME
}
