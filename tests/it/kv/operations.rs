//! Every operation on single keys, many keys and whole collections.

use std::time::Duration;

use larder::protocol::kv::{DropCollection, GetValue, PutValue};
use larder::protocol::{Value, Version};
use larder::{Class, Codec, Larder, field};
use serde::{Deserialize, Serialize};

use super::*;

#[tokio::test]
async fn value_survives_close_and_reopen() {
    let folder = folder();
    let larder = Larder::open(folder.path()).await.unwrap();
    let settings = larder.kv().collection::<String>("settings");
    settings.put("theme", &"dark".to_owned()).await.unwrap();
    assert_eq!(settings.get("theme").await.unwrap().as_deref(), Some("dark"));
    assert!(larder.close().await.is_clean());
    let larder = Larder::open(folder.path()).await.unwrap();
    assert_eq!(larder.kv().collection::<String>("settings").get("theme").await.unwrap().as_deref(), Some("dark"));
    larder.close().await;
}

#[tokio::test]
async fn put_overwrites_and_delete_deletes_that_key_alone() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<u32>("c");
    let other = larder.kv().collection::<u32>("d");
    kv.put("a", &1).await.unwrap();
    kv.put("b", &2).await.unwrap();
    other.put("a", &3).await.unwrap();
    kv.put("a", &4).await.unwrap();
    assert_eq!(kv.get("a").await.unwrap(), Some(4));
    assert!(kv.delete("a").await.unwrap());
    assert!(!kv.delete("a").await.unwrap());
    assert_eq!(kv.get("a").await.unwrap(), None);
    assert_eq!((kv.get("b").await.unwrap(), other.get("a").await.unwrap()), (Some(2), Some(3)));
    assert!(!kv.contains("a").await.unwrap());
    assert!(kv.contains("b").await.unwrap());
}

#[tokio::test]
async fn every_write_is_read_by_its_caller_at_once() {
    for exclusive in [false, true] {
        let folder = folder();
        let builder = Larder::builder(folder.path());
        let larder = if exclusive { builder.exclusive() } else { builder }.open().await.unwrap();
        let kv = larder.kv().collection::<u32>("c");
        for round in 0..100 {
            kv.put("k", &round).await.unwrap();
            assert_eq!(kv.get("k").await.unwrap(), Some(round), "exclusive: {exclusive}");
            if round % 10 == 9 {
                assert!(kv.delete("k").await.unwrap());
                assert_eq!(kv.get("k").await.unwrap(), None);
            }
        }
        larder.close().await;
    }
}

#[tokio::test]
async fn many_are_put_read_and_deleted_in_the_order_asked() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<u32>("c");
    let versions = kv.put_many([("b", &1), ("a", &2), ("b", &3)]).await.unwrap();
    assert!(versions.is_sorted() && versions.len() == 3);
    assert_eq!(kv.get_many(["a", "missing", "b", "a"]).await.unwrap(), [Some(2), None, Some(3), Some(2)]);
    assert_eq!(kv.entry("b").await.unwrap().unwrap().version, versions[2]);
    assert_eq!(kv.delete_many(["a", "missing", "b", "a"]).await.unwrap(), 2);
    assert_eq!(kv.count().await.unwrap(), 0);
}

#[tokio::test]
async fn empty_batches_are_answered() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<u32>("c");
    let nothing: [(&str, &u32); 0] = [];
    assert_eq!(kv.put_many(nothing).await.unwrap(), []);
    assert_eq!(kv.get_many(Vec::<&str>::new()).await.unwrap(), []);
    assert_eq!(kv.delete_many(Vec::<&str>::new()).await.unwrap(), 0);
    assert_eq!(larder.kv().transaction([]).await.unwrap(), []);
}

#[tokio::test]
async fn more_keys_than_are_read_in_place_are_read_the_same() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<u32>("c");
    let names: Vec<String> = (0..500).map(|i| format!("k{i}")).collect();
    let values: Vec<u32> = (0..500).collect();
    kv.put_many(names.iter().zip(&values)).await.unwrap();
    let found = kv.get_many(&names).await.unwrap();
    assert_eq!(found, values.into_iter().map(Some).collect::<Vec<_>>());
}

#[tokio::test]
async fn put_if_absent_never_overwrites() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<u32>("c");
    let version = kv.put_if_absent("k", &1).await.unwrap().unwrap();
    assert_eq!(kv.put_if_absent("k", &2).await.unwrap(), None);
    let entry = kv.entry("k").await.unwrap().unwrap();
    assert_eq!((entry.value, entry.version), (1, version));
    kv.delete("k").await.unwrap();
    assert!(kv.put_if_absent("k", &3).await.unwrap().is_some());
}

#[tokio::test]
async fn compare_and_put_conflict_names_expected_and_found() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<u32>("c");
    let first = kv.put("k", &1).await.unwrap();
    let second = kv.compare_and_put("k", first, &2).await.unwrap();
    assert!(second > first);
    let conflict = kv.compare_and_put("k", first, &3).await;
    let (expected, found) = (format!("expected version {first}"), format!("found version {second}"));
    assert_refused(conflict, Class::Conflict, &["key \"k\"", "collection \"c\"", &expected, &found]);
    let missing = kv.compare_and_put("missing", first, &3).await;
    assert_refused(missing, Class::Conflict, &["key \"missing\"", "found no entry"]);
    assert_eq!(kv.get("k").await.unwrap(), Some(2));
    assert_eq!(kv.get("missing").await.unwrap(), None);
}

#[tokio::test]
async fn compare_and_delete_deletes_only_the_expected_version() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<u32>("c");
    let first = kv.put("k", &1).await.unwrap();
    let second = kv.put("k", &2).await.unwrap();
    assert_refused(kv.compare_and_delete("k", first).await, Class::Conflict, &["expected version", "found version"]);
    kv.compare_and_delete("k", second).await.unwrap();
    assert_refused(kv.compare_and_delete("k", second).await, Class::Conflict, &["found no entry"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_compare_and_puts_exactly_one_wins() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<usize>("c");
    let version = kv.put("k", &0).await.unwrap();
    let callers = (1..=64).map(|caller| {
        let kv = kv.clone();
        tokio::spawn(async move { kv.compare_and_put("k", version, &caller).await.map(|_| caller) })
    });
    let mut winners = Vec::new();
    for outcome in futures::future::join_all(callers).await {
        match outcome.unwrap() {
            Ok(caller) => winners.push(caller),
            Err(error) => assert_eq!(error.class(), Class::Conflict),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(kv.get("k").await.unwrap(), Some(winners[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_64_callers_exactly_one_pops_the_value() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<u32>("c");
    kv.put("k", &7).await.unwrap();
    let callers = (0..64).map(|_| {
        let kv = kv.clone();
        tokio::spawn(async move { kv.pop("k").await.unwrap() })
    });
    let popped: Vec<u32> = futures::future::join_all(callers).await.into_iter().filter_map(Result::unwrap).collect();
    assert_eq!(popped, [7]);
    assert_eq!(kv.get("k").await.unwrap(), None);
}

#[tokio::test]
async fn increment_starts_at_nothing_and_takes_negative_steps() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<i64>("c");
    assert_eq!(kv.increment("k", 5).await.unwrap(), 5);
    assert_eq!(kv.increment("k", -7).await.unwrap(), -2);
    assert_eq!(kv.get("k").await.unwrap(), Some(-2));
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_increments_lose_nothing() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<i64>("c");
    let callers = (0..64).map(|_| {
        let kv = kv.clone();
        tokio::spawn(async move {
            for _ in 0..10 {
                kv.increment("k", 1).await.unwrap();
            }
        })
    });
    futures::future::join_all(callers).await.into_iter().for_each(|caller| caller.unwrap());
    assert_eq!(kv.get("k").await.unwrap(), Some(640));
}

#[tokio::test]
async fn increment_past_64_bits_is_a_conflict_and_changes_nothing() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<i64>("c");
    kv.put("k", &(i64::MAX - 1)).await.unwrap();
    assert_eq!(kv.increment("k", 1).await.unwrap(), i64::MAX);
    assert_refused(kv.increment("k", 1).await, Class::Conflict, &["key \"k\"", "64-bit"]);
    assert_eq!(kv.get("k").await.unwrap(), Some(i64::MAX));
    kv.put("k", &i64::MIN).await.unwrap();
    assert_refused(kv.increment("k", -1).await, Class::Conflict, &[]);
}

#[tokio::test]
async fn increment_of_what_is_no_integer_is_a_conflict_that_shows_no_value() {
    let larder = temporary().await;
    let texts = larder.kv().collection::<serde_json::Value>("c");
    let counters = larder.kv().collection::<i64>("c");
    for value in [serde_json::json!("secret"), serde_json::json!(1.5), serde_json::json!([1]), serde_json::json!(null)]
    {
        texts.put("k", &value).await.unwrap();
        let error = counters.increment("k", 1).await.unwrap_err();
        assert_eq!(error.class(), Class::Conflict, "{value}");
        assert!(!error.to_string().contains("secret"));
        assert_eq!(texts.get("k").await.unwrap(), Some(value));
    }
    larder.kv().bytes("c").put("k", "1").await.unwrap();
    assert_refused(counters.increment("k", 1).await, Class::Conflict, &[]);
}

#[tokio::test]
async fn increment_keeps_expiry_and_tags() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<i64>("c");
    kv.put("k", &1).ttl(Duration::from_secs(3600)).tags(["t"]).await.unwrap();
    let before = kv.entry("k").await.unwrap().unwrap();
    kv.increment("k", 1).await.unwrap();
    let after = kv.entry("k").await.unwrap().unwrap();
    assert_eq!((after.value, after.expires, after.created), (2, before.expires, before.created));
    assert!(after.version > before.version);
    assert_eq!(kv.delete_tagged("t").await.unwrap(), 1);
}

#[tokio::test]
async fn pop_answers_the_entry_and_deletes_it() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<u32>("c");
    kv.put("k", &1).tags(["t"]).await.unwrap();
    assert_eq!(kv.pop("k").await.unwrap(), Some(1));
    assert_eq!(kv.pop("k").await.unwrap(), None);
    kv.put("k", &2).await.unwrap();
    assert_eq!(kv.delete_tagged("t").await.unwrap(), 0);
}

#[tokio::test]
async fn delete_tagged_takes_what_carries_the_tag_in_that_collection() {
    let larder = temporary().await;
    let (kv, other) = (larder.kv().collection::<u32>("c"), larder.kv().collection::<u32>("d"));
    kv.put("a", &1).tags(["x", "y"]).await.unwrap();
    kv.put("b", &2).tags(["x", "x"]).await.unwrap();
    kv.put("c", &3).tags(["y"]).await.unwrap();
    kv.put("d", &4).await.unwrap();
    other.put("a", &5).tags(["x"]).await.unwrap();
    assert_eq!(kv.delete_tagged("x").await.unwrap(), 2);
    assert_eq!(kv.delete_tagged("x").await.unwrap(), 0);
    assert_eq!(keys(&kv.scan().page().await.unwrap().entries), ["c", "d"]);
    assert_eq!(other.count().await.unwrap(), 1);
}

#[tokio::test]
async fn put_replaces_the_tags() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<u32>("c");
    kv.put("k", &1).tags(["old"]).await.unwrap();
    kv.put("k", &2).tags(["new"]).await.unwrap();
    assert_eq!(kv.delete_tagged("old").await.unwrap(), 0);
    kv.put("k", &3).await.unwrap();
    assert_eq!(kv.delete_tagged("new").await.unwrap(), 0);
    kv.put("k", &4).tags(["again"]).await.unwrap();
    assert_eq!(kv.delete_tagged("again").await.unwrap(), 1);
}

/// Tags of a deleted entry must not come back with the next entry under its key.
#[tokio::test]
async fn delete_takes_the_tags_with_it() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<u32>("c");
    kv.put("k", &1).tags(["t"]).await.unwrap();
    kv.delete("k").await.unwrap();
    kv.put("k", &2).await.unwrap();
    kv.put("other", &2).await.unwrap();
    assert_eq!(kv.delete_tagged("t").await.unwrap(), 0);
    kv.put("k", &1).tags(["t"]).await.unwrap();
    kv.drop_all().await.unwrap();
    kv.put("k", &2).await.unwrap();
    assert_eq!(kv.delete_tagged("t").await.unwrap(), 0);
}

#[tokio::test]
async fn collections_are_listed_in_name_order_with_what_they_hold() {
    let larder = temporary().await;
    for (name, count) in [("b", 2), ("a", 1), ("ö", 3), ("ab", 1)] {
        let kv = larder.kv().bytes(name);
        kv.put_many((0..count).map(|i| (format!("k{i}"), "1234"))).await.unwrap();
    }
    let all = larder.kv().collections(None, 10).await.unwrap();
    let seen: Vec<_> = all.iter().map(|c| (c.name.as_str(), c.entry_count, c.value_bytes)).collect();
    assert_eq!(seen, [("a", 1, 4), ("ab", 1, 4), ("b", 2, 8), ("ö", 3, 12)]);
    let page = larder.kv().collections(Some(&name("a")), 2).await.unwrap();
    assert_eq!(page.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["ab", "b"]);
}

#[tokio::test]
async fn collection_exists_while_it_holds_something() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<u32>("c");
    kv.put("k", &1).await.unwrap();
    kv.delete("k").await.unwrap();
    assert!(larder.kv().collections(None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn drop_empties_that_collection_alone() {
    let larder = temporary().await;
    let (kv, other) = (larder.kv().collection::<u32>("c"), larder.kv().collection::<u32>("cc"));
    kv.put_many([("a", &1), ("b", &2)]).await.unwrap();
    other.put("a", &3).await.unwrap();
    assert_eq!(kv.drop_all().await.unwrap(), 2);
    assert_eq!(larder.ask(DropCollection { collection: name("c") }).await.unwrap(), 0);
    assert_eq!((kv.get("a").await.unwrap(), other.get("a").await.unwrap()), (None, Some(3)));
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Note {
    text: String,
    scores: Vec<f32>,
    parent: Option<Box<Note>>,
}

fn note() -> Note {
    let parent = Note { text: "über".into(), scores: vec![], parent: None };
    Note { text: "a\u{1F980}\"'\n".into(), scores: vec![0.1, -0.0, f32::MAX], parent: Some(Box::new(parent)) }
}

#[tokio::test]
async fn typed_values_come_back_from_every_codec() {
    let larder = temporary().await;
    let json = larder.kv().collection::<Note>("json");
    let bincode = larder.kv().collection::<Note>("bincode").codec(Codec::Bincode);
    let postcard = larder.kv().collection::<Note>("postcard").codec(Codec::Postcard);
    for kv in [&json, &bincode, &postcard] {
        kv.put("k", &note()).await.unwrap();
        assert_eq!(kv.get("k").await.unwrap(), Some(note()));
        assert_eq!(kv.scan().page().await.unwrap().entries, [(key("k"), note())]);
        assert_eq!(kv.pop("k").await.unwrap(), Some(note()));
    }
}

#[tokio::test]
async fn values_are_read_by_what_they_were_stored_with() {
    let larder = temporary().await;
    let json = larder.kv().collection::<Note>("c");
    json.clone().codec(Codec::Postcard).put("postcard", &note()).await.unwrap();
    json.clone().codec(Codec::Bincode).put("bincode", &note()).await.unwrap();
    json.put("json", &note()).await.unwrap();
    assert_eq!(json.get_many(["postcard", "bincode", "json"]).await.unwrap(), vec![Some(note()); 3]);
    // Only JSON can be looked into.
    assert_eq!(json.scan().filter(field("text").ne("x")).count().await.unwrap(), 1);
}

#[tokio::test]
async fn value_of_another_type_is_an_error_that_shows_no_value() {
    let larder = temporary().await;
    larder.kv().collection::<String>("c").put("k", &"secret".to_owned()).await.unwrap();
    let error = larder.kv().collection::<u32>("c").get("k").await.unwrap_err();
    assert_eq!(error.class(), Class::InvalidInput);
    assert!(!error.to_string().contains("secret"), "{error}");
    larder.kv().bytes("c").put("k", "secret").await.unwrap();
    assert_refused(larder.kv().collection::<u32>("c").get("k").await, Class::InvalidInput, &["opaque bytes"]);
}

#[tokio::test]
async fn version_never_repeats_across_delete_drop_and_reopen() {
    let folder = folder();
    let mut newest = Version(0);
    for _ in 0..3 {
        let larder = Larder::open(folder.path()).await.unwrap();
        let kv = larder.kv().collection::<u32>("c");
        for _ in 0..3 {
            let version = kv.put("k", &1).await.unwrap();
            assert!(version > newest, "{version} after {newest}");
            newest = version;
            kv.delete("k").await.unwrap();
        }
        kv.put("k", &1).await.unwrap();
        kv.drop_all().await.unwrap();
        larder.close().await;
    }
}

#[tokio::test]
async fn times_tell_when_a_key_came_and_when_it_changed() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<u32>("c");
    kv.put("k", &1).await.unwrap();
    let first = kv.entry("k").await.unwrap().unwrap();
    assert_eq!((first.created, first.expires), (first.updated, None));
    kv.put("k", &2).await.unwrap();
    let second = kv.entry("k").await.unwrap().unwrap();
    assert_eq!(second.created, first.created);
    assert!(second.updated >= first.updated);
    kv.delete("k").await.unwrap();
    kv.put("k", &3).await.unwrap();
    let third = kv.entry("k").await.unwrap().unwrap();
    assert_eq!(third.created, third.updated);
}

#[tokio::test]
async fn messages_mean_the_same_as_handles() {
    let larder = temporary().await;
    let put = PutValue {
        collection: name("c"),
        key: key("k"),
        value: Value::json(&7).unwrap(),
        time_to_live: None,
        tags: Vec::new(),
    };
    let version = larder.ask(put).await.unwrap();
    let entry = larder.ask(GetValue { collection: name("c"), key: key("k") }).await.unwrap().unwrap();
    assert_eq!((entry.version, entry.value.decode::<u32>().unwrap()), (version, 7));
    assert_eq!(larder.kv().collection::<u32>("c").get("k").await.unwrap(), Some(7));
}

#[tokio::test]
async fn names_are_data_whatever_they_look_like() {
    let larder = temporary().await;
    let strange = ["'; DROP TABLE entry; --", "\"", "../../etc/passwd", "%_[a]", " ", "\u{10FFFF}", "a\nb", "sqlite_x"];
    for collection in strange {
        let kv = larder.kv().collection::<String>(collection);
        for key in strange {
            kv.put(key, &format!("{collection}/{key}")).tags([key]).await.unwrap();
        }
    }
    for collection in strange {
        let kv = larder.kv().collection::<String>(collection);
        for key in strange {
            assert_eq!(kv.get(key).await.unwrap(), Some(format!("{collection}/{key}")));
            assert_eq!(kv.scan().prefix(key).limit(1).page().await.unwrap().entries.len(), 1);
            assert_eq!(kv.delete_tagged(key).await.unwrap(), 1);
        }
    }
}
