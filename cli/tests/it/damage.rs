//! Files that are damaged, and that are none.
#![expect(clippy::disallowed_methods, reason = "the folder is closed while its files are damaged")]

use crate::support::Tool;

/// Flips a bit of a file where `marker` stands first.
fn flip(tool: &Tool, file: &str, marker: &[u8]) {
    let path = tool.data().join(file);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(marker.len()).position(|window| window == marker).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
}

#[test]
fn damage_is_code_5_and_named() {
    let tool = Tool::filled();
    let sound = tool.on_data(["check"]).done();
    assert_eq!(sound.out, "sound: kv, documents, chat, vectors, graph, embed_cache\n");
    assert_eq!(tool.json(["check"])[0]["is_sound"], true);

    flip(&tool, "kv.db", b"dark");
    let ran = tool.on_data(["check"]).failed(5, &["larder restore"]);
    assert!(ran.out.contains("damaged kv: ") && !ran.out.contains("sound"), "{ran:?}");
    let ran = tool.on_data(["--json", "check"]).failed(5, &[]);
    let report = &ran.json()[0];
    assert_eq!((&report["is_sound"], &report["findings"][0]["store"]), (&false.into(), &"kv".into()));
    // A quick look does not see into values; reading one does.
    tool.on_data(["check", "--quick"]).done();
    tool.on_data(["kv", "get", "settings", "theme"]).failed(5, &["damaged", "larder check"]);
    let ran = tool.on_data(["--json", "export", "kv"]).failed(5, &["\"class\":\"corrupt\""]);
    assert!(ran.err.contains("\"code\":5"), "{ran:?}");
    // Others are as they were.
    tool.on_data(["docs", "show", "report.md"]).done();
    // The store is not set aside for one value, and the way out is another.
    tool.on_data(["snapshot", "snaps", "--list"]).failed(3, &[]);
    tool.on_data(["restore", "--store", "kv", "snaps"]).failed(1, &["not quarantined", "written anew or deleted"]);
    tool.on_data(["kv", "put", "settings", "theme", "light"]).done();
    tool.on_data(["check"]).done();
}

#[test]
fn store_that_cannot_be_opened_hides_no_other() {
    let tool = Tool::filled();
    std::fs::write(tool.data().join("kv.db"), "no database").unwrap();
    let ran = tool.on_data(["stats"]);
    assert_ne!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("kv") && ran.out.contains("1 documents, 2 passages"), "{ran:?}");
    let ran = tool.on_data(["kv", "list"]);
    assert!([1, 5].contains(&ran.code) && ran.err.starts_with("error: "), "{ran:?}");
    tool.on_data(["chat", "list"]).done();
}

#[test]
fn damaged_store_comes_back_from_a_snapshot() {
    let tool = Tool::filled();
    tool.on_data(["snapshot", "snaps"]).done();
    let kv = std::fs::metadata(tool.data().join("kv.db")).unwrap().len();
    tool.on_data(["restore", "--store", "kv", "snaps"]).failed(1, &["not quarantined"]);
    // The first page, so that SQLite itself notices.
    let mut bytes = std::fs::read(tool.data().join("kv.db")).unwrap();
    bytes[100..4096].fill(0xFF);
    std::fs::write(tool.data().join("kv.db"), bytes).unwrap();
    tool.on_data(["check"]).failed(5, &[]);
    let out = tool.on_data(["restore", "--store", "kv", "snaps"]).done();
    assert!(out.out.contains("kv is as it was at") && out.err.contains("quarantine"), "{out:?}");
    assert!(tool.on_data(["kv", "get", "settings", "theme"]).done().out.contains("dark"));
    assert_eq!(std::fs::metadata(tool.data().join("kv.db")).unwrap().len(), kv);
    let ran = tool.on_data(["check"]).done();
    assert!(ran.out.contains("set aside quarantine/kv-"), "{ran:?}");
}

#[test]
fn damaged_cache_that_begins_anew_is_reported() {
    let tool = Tool::filled();
    let path = tool.data().join("embed_cache.db");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100..8192].fill(0xFF);
    std::fs::write(&path, bytes).unwrap();
    let ran = tool.on_data(["check"]);
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(ran.out.contains("embed_cache"), "{ran:?}");
    tool.on_data(["stats"]).done();
}
