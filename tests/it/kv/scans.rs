//! Ordered scans: ranges, directions, pages, streams and filters.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt};
use larder::protocol::kv::{KeyRange, ScanValues};
use larder::{Class, Collection, Larder, field};
use serde_json::json;

use super::*;

async fn filled(larder: &Larder, names: &[&str]) -> Collection<u32> {
    let kv = larder.kv().collection::<u32>("c");
    larder.kv().collection::<u32>("other").put_many(names.iter().map(|name| (name, &0))).await.unwrap();
    kv.put_many(names.iter().map(|name| (name, &1))).await.unwrap();
    kv
}

#[tokio::test]
async fn scan_goes_by_the_bytes_of_the_key_both_ways() {
    let larder = temporary().await;
    let mut names = ["b", "a", "B", "aa", "ä", "z", "\u{FFFF}", "\u{10000}", "a b", "1", "10", "2"];
    let kv = filled(&larder, &names).await;
    names.sort_unstable();
    assert_eq!(keys(&kv.scan().page().await.unwrap().entries), names);
    names.reverse();
    assert_eq!(keys(&kv.scan().reverse().page().await.unwrap().entries), names);
}

#[tokio::test]
async fn prefix_is_text_and_no_pattern() {
    let larder = temporary().await;
    let kv = filled(&larder, &["a", "a%", "a%b", "a_b", "ab", "a\u{10FFFF}", "a\u{10FFFF}z", "b", "A"]).await;
    let found = async |prefix: &str| {
        let page = kv.scan().prefix(prefix).page().await.unwrap().entries;
        page.into_iter().map(|(key, _)| String::from(key)).collect::<Vec<_>>()
    };
    assert_eq!(found("a%").await, ["a%", "a%b"]);
    assert_eq!(found("a_").await, ["a_b"]);
    assert_eq!(found("a\u{10FFFF}").await, ["a\u{10FFFF}", "a\u{10FFFF}z"]);
    assert_eq!(found("a").await.len(), 7);
    assert_eq!(found("").await.len(), 9);
    assert!(found("x").await.is_empty());
}

#[tokio::test]
async fn between_includes_its_start_and_excludes_its_end() {
    let larder = temporary().await;
    let kv = filled(&larder, &["a", "b", "c", "d"]).await;
    assert_eq!(keys(&kv.scan().between("b", "d").page().await.unwrap().entries), ["b", "c"]);
    assert_eq!(keys(&kv.scan().between("b", "d").reverse().page().await.unwrap().entries), ["c", "b"]);
    assert!(kv.scan().between("d", "b").page().await.unwrap().entries.is_empty());
    let open_end = ScanValues {
        collection: name("c"),
        range: KeyRange::Between { from: None, to: Some(key("c")) },
        direction: Default::default(),
        after: None,
        filter: None,
        limit: 10,
    };
    let page = larder.ask(open_end).await.unwrap();
    assert_eq!(page.entries.iter().map(|row| row.key.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(page.next, None);
}

#[tokio::test]
async fn after_continues_in_the_scans_own_direction() {
    let larder = temporary().await;
    let kv = filled(&larder, &["a", "b", "c", "d"]).await;
    assert_eq!(keys(&kv.scan().after("b").limit(1).page().await.unwrap().entries), ["c"]);
    assert_eq!(keys(&kv.scan().after("b").reverse().page().await.unwrap().entries), ["a"]);
    // A key that is not there is a place like any other.
    assert_eq!(keys(&kv.scan().after("bb").page().await.unwrap().entries), ["c", "d"]);
    assert!(kv.scan().after("d").page().await.unwrap().entries.is_empty());
}

#[tokio::test]
async fn last_page_says_that_it_is_the_last() {
    let larder = temporary().await;
    filled(&larder, &["a", "b", "c", "d"]).await;
    let mut scan = ScanValues {
        collection: name("c"),
        range: KeyRange::All,
        direction: Default::default(),
        after: None,
        filter: None,
        limit: 2,
    };
    let first = larder.ask(scan.clone()).await.unwrap();
    assert_eq!((first.entries.len(), first.next.clone()), (2, Some(key("b"))));
    scan.after = first.next;
    // Exactly as many as fit: there is no further page.
    let second = larder.ask(scan).await.unwrap();
    assert_eq!((second.entries.len(), second.next), (2, None));
}

#[tokio::test]
async fn page_limit_is_within_its_bounds() {
    let larder = temporary().await;
    let kv = filled(&larder, &["a"]).await;
    for limit in [0, 10_001, usize::MAX] {
        assert_refused(kv.scan().limit(limit).page().await, Class::InvalidInput, &["limit", "1 to 10000"]);
        assert_refused(larder.kv().collections(None, limit).await, Class::InvalidInput, &["limit"]);
    }
    assert_eq!(kv.scan().limit(10_000).page().await.unwrap().entries.len(), 1);
    assert_serves(&larder).await;
}

#[tokio::test]
async fn page_of_large_values_ends_early_and_the_stream_goes_on() {
    let larder = temporary().await;
    let kv = larder.kv().bytes("c");
    for index in 0..10 {
        kv.put(format!("k{index}"), vec![index; 1 << 20]).await.unwrap();
    }
    assert_eq!(kv.scan().page().await.unwrap().entries.len(), 4);
    let all: Vec<_> = kv.scan().stream().try_collect().await.unwrap();
    assert_eq!(all.len(), 10);
    assert!(all.iter().zip(0..).all(|((_, value), index)| value.iter().all(|byte| *byte == index)));
}

#[tokio::test]
async fn stream_sees_every_key_present_throughout_exactly_once() {
    for is_reversed in [false, true] {
        let larder = temporary().await;
        let kv = larder.kv().collection::<u32>("c");
        let names: Vec<String> = (0..300).map(|i| format!("k{i:04}")).collect();
        kv.put_many(names.iter().map(|name| (name, &1))).await.unwrap();
        let scan = kv.scan().limit(32);
        let mut stream = if is_reversed { scan.reverse() } else { scan }.stream();
        let mut seen = BTreeMap::new();
        let mut index = 0_usize;
        while let Some(row) = stream.next().await {
            *seen.entry(String::from(row.unwrap().0)).or_insert(0) += 1;
            // Keys come, go and change on both sides of where the stream is.
            let around = (index * 37) % 300;
            let change = [
                kv.put_operation(format!("k{around:04}-new"), &2).unwrap(),
                kv.put_operation(format!("k{around:04}"), &3).unwrap(),
                kv.delete_operation(format!("k{:04}-new", (around + 150) % 300)).unwrap(),
            ];
            larder.kv().transaction(change).await.unwrap();
            index += 1;
        }
        assert!(seen.values().all(|count| *count == 1), "a key was seen twice");
        assert!(names.iter().all(|name| seen.contains_key(name)), "a key was missed");
    }
}

#[tokio::test]
async fn stream_is_in_order_and_ends() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<u32>("c");
    let names: Vec<String> = (0..300).map(|i| format!("k{i:03}")).collect();
    kv.put_many(names.iter().map(|name| (name, &1))).await.unwrap();
    for limit in [1, 99, 100, 300, 301] {
        let all: Vec<_> = kv.scan().limit(limit).stream().try_collect().await.unwrap();
        assert_eq!(keys(&all), names, "limit {limit}");
    }
    let none: Vec<_> = larder.kv().collection::<u32>("unknown").scan().stream().try_collect().await.unwrap();
    assert!(none.is_empty());
}

#[tokio::test]
async fn filters_find_json_values_with_and_without_a_declared_field() {
    let larder = temporary().await;
    let notes = larder.kv().collection::<serde_json::Value>("notes");
    notes.put("a", &json!({"lang": "en", "year": 2020, "tags": ["x"]})).await.unwrap();
    notes.put("b", &json!({"lang": "de", "year": 2024, "author": {"name": "o'Neil \"x\""}})).await.unwrap();
    notes.put("c", &json!({"year": "2024"})).await.unwrap();
    larder.kv().bytes("notes").put("d", "{\"lang\":\"en\"}").await.unwrap();
    let cases = [
        (field("lang").eq("en"), vec!["a"]),
        (field("lang").ne("en"), vec!["b", "c"]),
        (field("year").gte(2021), vec!["b"]),
        (field("tags").any(["x", "y"]), vec!["a"]),
        (field("author").key("name").eq("o'Neil \"x\""), vec!["b"]),
        (field("author").key("name").text_match("'"), vec!["b"]),
        (field("lang").is_empty().or(field("year").eq(2020)), vec!["a", "c"]),
        (field("lang").eq("en").not(), vec!["b", "c"]),
    ];
    for is_declared in [false, true] {
        if is_declared {
            for path in [field("lang"), field("year"), field("author").key("name")] {
                assert!(larder.kv().declare_field(path.clone()).await.unwrap());
                assert!(!larder.kv().declare_field(path).await.unwrap());
            }
        }
        for (filter, expected) in &cases {
            let page = notes.scan().filter(filter.clone()).page().await.unwrap().entries;
            assert_eq!(keys(&page), *expected, "{filter:?}, declared: {is_declared}");
            assert_eq!(notes.scan().filter(filter.clone()).count().await.unwrap(), expected.len() as u64);
            let last = notes.scan().filter(filter.clone()).reverse().limit(1).page().await.unwrap().entries;
            assert_eq!(keys(&last), expected[expected.len() - 1..]);
        }
    }
}

#[tokio::test]
async fn declared_field_survives_a_reopen() {
    let folder = folder();
    for round in 0..2 {
        let larder = Larder::open(folder.path()).await.unwrap();
        assert_eq!(larder.kv().declare_field(field("a-b").key("c_d")).await.unwrap(), round == 0);
        let kv = larder.kv().collection::<serde_json::Value>("c");
        kv.put(format!("k{round}"), &json!({"a-b": {"c_d": round}})).await.unwrap();
        assert_eq!(kv.scan().filter(field("a-b").key("c_d").gte(0)).count().await.unwrap(), round + 1);
        assert!(larder.close().await.is_clean());
    }
}
