//! Snapshots, and larders made of them.

use crate::support::Tool;

#[test]
fn snapshot_becomes_a_larder_that_holds_the_same() {
    let tool = Tool::filled();
    let taken = tool.on_data(["snapshot", "snaps"]).done();
    let snapshot = taken.out.trim_end();
    assert!(tool.path(snapshot).join("manifest.json").is_file(), "{taken:?}");
    tool.on_data(["kv", "put", "settings", "theme", "light"]).done();
    tool.run(["restore", snapshot, "exact"]).done();
    // The folder of all snapshots means the newest.
    tool.on_data(["snapshot", "snaps"]).done();
    tool.run(["restore", "snaps", "newest"]).done();
    let theme = |folder: &str| tool.run(["-C", folder, "kv", "get", "settings", "theme"]).done().out;
    assert!(theme("exact").contains("dark"));
    assert_eq!(theme("newest"), "\"light\"\n");
    for store in ["documents", "chat", "graph", "vectors", "embed_cache"] {
        assert_eq!(tool.run(["-C", "newest", "export", store]).done().out, tool.on_data(["export", store]).done().out);
    }
    tool.run(["restore", "snaps", "newest"]).failed(1, &["it is not empty"]);
}

#[test]
fn snapshots_are_listed_and_the_oldest_go() {
    let tool = Tool::filled();
    for _ in 0..3 {
        tool.on_data(["snapshot", "snaps"]).done();
    }
    assert_eq!(tool.json(["snapshot", "snaps", "--list"]).len(), 3);
    let kept = tool.json(["snapshot", "snaps", "--keep", "2"]);
    assert_eq!(kept[0]["removed"].as_array().unwrap().len(), 2);
    let listed = tool.json(["snapshot", "snaps", "--list"]);
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[1]["path"], kept[0]["path"]);
    tool.on_data(["snapshot", "snaps", "--keep", "0"]).failed(2, &["it is 0"]);
    tool.write("texts/a.md", "a");
    tool.run(["restore", "texts", "new"]).failed(3, &["no snapshot is in texts"]);
    assert!(!tool.path("new").exists());
}

#[test]
fn damaged_snapshot_makes_no_larder() {
    let tool = Tool::filled();
    let snapshot = tool.on_data(["snapshot", "snaps"]).done().out.trim_end().to_owned();
    tool.write(&format!("{snapshot}/kv.db"), "other");
    tool.run(["restore", &snapshot, "new"]).failed(5, &["error: "]);
    assert!(!tool.path("new").join("kv.db").exists());
}
