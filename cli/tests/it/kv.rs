//! `larder kv`.

use std::io::Write;
use std::process::Stdio;

use crate::support::Tool;

#[test]
fn values_are_put_read_listed_and_deleted() {
    let tool = Tool::new();
    for (key, value, stored) in [
        ("number", "5", "5\n"),
        ("word", "dark", "\"dark\"\n"),
        ("negative", "-5", "-5\n"),
        ("object", "{\"a\": [1, 2.50]}", "{\"a\": [1, 2.50]}\n"),
        ("broken", "{\"a\": ", "\"{\\\"a\\\": \"\n"),
        ("empty", "", "\"\"\n"),
    ] {
        assert!(tool.on_data(["kv", "put", "settings", key, value]).done().out.is_empty());
        assert_eq!(tool.on_data(["kv", "get", "settings", key]).done().out, stored, "{key}");
    }
    tool.on_data(["kv", "put", "settings", "number", "5", "--text"]).done();
    assert_eq!(tool.on_data(["kv", "get", "settings", "number"]).done().out, "\"5\"\n");

    let list = tool.on_data(["kv", "list", "settings", "--prefix", "n"]).done().out;
    assert!(list.starts_with("KEY ") && list.contains("\nnegative ") && list.contains("\nnumber "), "{list}");
    assert_eq!(list.lines().count(), 3);
    assert_eq!(
        tool.json(["kv", "list"]),
        [serde_json::json!({ "name": "settings", "entry_count": 6, "value_bytes": 39 })]
    );

    tool.on_data(["kv", "delete", "settings", "word"]).done();
    tool.on_data(["kv", "get", "settings", "word"]).failed(3, &["key \"word\" is not in collection \"settings\""]);
    assert_eq!(tool.json(["kv", "delete", "settings", "--all"]), [serde_json::json!({ "deleted": 5 })]);
    assert!(tool.on_data(["kv", "list"]).done().out.is_empty());
}

#[test]
fn bytes_go_in_and_out_as_they_are() {
    let tool = Tool::new();
    let bytes: Vec<u8> = (0..=255).collect();
    let mut put = tool.command(["-C", "data", "kv", "put", "blobs", "all", "--bytes"]);
    let mut put = put.stdin(Stdio::piped()).spawn().unwrap();
    put.stdin.take().unwrap().write_all(&bytes).unwrap();
    assert!(put.wait().unwrap().success());
    assert_eq!(tool.command(["-C", "data", "kv", "get", "blobs", "all"]).output().unwrap().stdout, bytes);
    let mut text = tool.command(["-C", "data", "kv", "put", "blobs", "text", "-"]);
    let mut text = text.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    text.stdin.take().unwrap().write_all(&bytes).unwrap();
    let refused = text.wait_with_output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("not UTF-8 text; --bytes"));
}

#[test]
fn preconditions_hold_or_nothing_is_written() {
    let tool = Tool::new();
    let version = tool.json(["kv", "put", "a", "k", "1", "--if-absent"])[0]["version"].as_u64().unwrap();
    tool.on_data(["kv", "put", "a", "k", "2", "--if-absent"]).failed(1, &["is in collection \"a\" already"]);
    let version = version.to_string();
    tool.on_data(["kv", "put", "a", "k", "3", "--if-version", &version]).done();
    tool.on_data(["kv", "put", "a", "k", "4", "--if-version", &version]).failed(1, &["conflict", &version]);
    tool.on_data(["kv", "delete", "a", "k", "--if-version", &version]).failed(1, &["conflict"]);
    assert_eq!(tool.on_data(["kv", "get", "a", "k"]).done().out, "3\n");
}

#[test]
fn entries_go_when_their_time_is_over() {
    let tool = Tool::new();
    tool.on_data(["kv", "put", "a", "long", "1", "--ttl", "7days", "--tag", "t"]).done();
    tool.on_data(["kv", "put", "a", "short", "1", "--ttl", "1ms"]).done();
    let listed = tool.json(["kv", "list", "a"]);
    assert_eq!(listed.len(), 1);
    let expires = listed[0]["expires_ms"].as_i64().unwrap() - listed[0]["updated_ms"].as_i64().unwrap();
    assert_eq!(expires, 7 * 24 * 3_600_000);
}

#[test]
fn long_lists_say_where_they_go_on() {
    let tool = Tool::new();
    let larder = larder::blocking::wait(larder::Larder::open(tool.data())).unwrap();
    let numbers = larder.kv().collection::<u32>("numbers");
    for number in 0..25 {
        larder::blocking::wait(numbers.put(format!("{number:02}"), &number)).unwrap();
    }
    larder::blocking::wait(larder.close());
    let (mut seen, mut after) = (Vec::new(), None::<String>);
    loop {
        let mut arguments = vec!["--json", "kv", "list", "numbers", "-n", "10"];
        arguments.extend(after.iter().flat_map(|after| ["--after", after]));
        let page = tool.on_data(arguments).done();
        seen.extend(page.json().into_iter().map(|row| row["value"].as_u64().unwrap()));
        let Some(note) = page.err.lines().next() else { break };
        let more: serde_json::Value = serde_json::from_str(note).unwrap();
        after = Some(more["more"]["after"].as_str().unwrap().to_owned());
    }
    assert_eq!(seen, (0..25).collect::<Vec<_>>());
    let people = tool.on_data(["kv", "list", "numbers", "-n", "10", "--reverse"]).done();
    assert!(people.err.contains("--after 15"), "{}", people.err);
}
