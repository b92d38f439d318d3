//! Ingesting folders, searching, forgetting.

use std::collections::BTreeMap;

use larder::Larder;
use larder::blocking::wait;
use larder::protocol::vectors::DeletePoints;
use larder::protocol::{CollectionName, PointId};

use crate::support::Tool;

/// Returns how many files were left out, by reason.
fn skipped(report: &serde_json::Value) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for skipped in report["skipped"].as_array().unwrap() {
        *counts.entry(skipped["reason"].as_str().unwrap()).or_default() += 1;
    }
    counts
}

#[test]
#[expect(clippy::disallowed_methods, reason = "texts, no store's files")]
fn folder_is_ingested_searched_brought_up_to_date_and_forgotten() {
    let tool = Tool::new();
    tool.write("texts/cats.md", "# Cats\n\nCats sleep a lot. They purr.\n");
    tool.write("texts/deep/er/tea.txt", "Tea is a drink from the hills.\n");
    let first = &tool.json(["ingest", "texts", "--as", "notes"])[0];
    assert_eq!((&first["inserted"], &first["passages"]["inserted"]), (&2.into(), &2.into()));
    assert_eq!(first["embeddings"], "larder-hashing-1-256");

    let found = tool.json(["search", "which animals purr", "-n", "1"]);
    assert_eq!((&found[0]["id"], &found[0]["document"]), (&"notes/cats.md#0".into(), &"notes/cats.md".into()));
    assert_eq!(found[0]["span"], serde_json::json!({ "start": 0, "end": 36 }));
    assert!(!found[0]["reasons"].as_array().unwrap().is_empty());
    let people = tool.on_data(["search", "tea"]).done().out;
    assert!(people.starts_with("1. notes/deep/er/tea.txt#0\n") && people.contains("holds its words"), "{people}");

    let again = &tool.json(["ingest", "texts", "--as", "notes"])[0];
    assert_eq!((&again["unchanged"], &again["passages"]["inserted"]), (&2.into(), &0.into()));
    tool.write("texts/cats.md", "# Cats\n\nCats hunt at night.\n");
    std::fs::remove_dir_all(tool.path("texts/deep")).unwrap();
    let third = tool.on_data(["ingest", "texts", "--as", "notes"]).done().out;
    assert!(third.starts_with("0 new, 1 changed, 0 unchanged, 0 forgotten, 0 failed"), "{third}");
    assert_eq!(tool.json(["docs", "list"]).len(), 2, "nothing is forgotten unasked");
    assert_eq!(tool.json(["ingest", "texts", "--as", "notes", "--prune"])[0]["forgotten"], 1);
    assert_eq!(tool.json(["docs", "list"]).len(), 1);
    assert_eq!(tool.json(["vectors", "list"])[0]["point_count"], 1);

    let receipt = &tool.json(["forget", "notes/cats.md"])[0];
    assert_eq!((&receipt["documents"], &receipt["points"]), (&1.into(), &1.into()));
    tool.on_data(["forget", "notes/cats.md"]).failed(3, &["notes/cats.md"]);
    assert!(tool.on_data(["search", "cats"]).done().out.is_empty());
    tool.on_data(["check"]).done();
}

#[test]
fn documents_of_one_folder_are_not_pruned_by_another() {
    let tool = Tool::new();
    for folder in ["a/texts", "b/texts", "a/texts2"] {
        tool.write(&format!("{folder}/same.md"), format!("The text in {folder}."));
        tool.on_data(["ingest", folder]).done();
    }
    assert_eq!(tool.json(["docs", "list"]).len(), 3);
    assert_eq!(tool.json(["ingest", "a/texts", "--prune"])[0]["forgotten"], 0);
    assert_eq!(tool.json(["docs", "list"]).len(), 3);
    assert_eq!(tool.json(["ingest", "a/texts/same.md"])[0]["unchanged"], 1, "a file alone is the same document");
}

#[test]
fn what_is_no_text_is_left_out_and_named() {
    let tool = Tool::new();
    tool.write("texts/good.md", "A good text, é included.");
    tool.write("texts/bom.txt", "\u{feff}With a mark of byte order.");
    tool.write("texts/nul.bin", b"abc\0def");
    tool.write("texts/latin1.txt", b"\xe9t\xe9");
    tool.write("texts/late.txt", [vec![b'a'; 20_000], vec![0]].concat());
    tool.write("texts/empty.md", "");
    tool.write("texts/blank.md", " \n\n");
    tool.write("texts/.hidden.md", "Hidden.");
    tool.write("texts/.git/config", "Hidden, too.");
    tool.write("texts/ws in name.md", "Spaces.");
    tool.run(["init", "texts/inner"]).done();
    tool.run(["-C", "texts/inner", "kv", "put", "a", "b", "c"]).done();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(".", tool.path("texts/loop")).unwrap();
        std::os::unix::fs::symlink("../../texts", tool.path("texts/inner-loop")).unwrap();
        std::os::unix::fs::symlink("good.md", tool.path("texts/link.md")).unwrap();
        std::os::unix::fs::symlink("nowhere", tool.path("texts/dangling.md")).unwrap();
    }
    // A hole: as large as it says, and quick to make.
    tool.write("texts/large.txt", "");
    #[expect(clippy::disallowed_methods, reason = "a text to be ingested, no store's file")]
    std::fs::OpenOptions::new()
        .write(true)
        .open(tool.path("texts/large.txt"))
        .unwrap()
        .set_len((100 << 20) + 1)
        .unwrap();

    let report = &tool.json(["ingest", "texts"])[0];
    assert_eq!(report["inserted"], 3, "{report}");
    let links = if cfg!(unix) { 4 } else { 0 };
    let mut expected = BTreeMap::from([("binary", 3), ("empty", 2), ("larder", 1), ("too_large", 1), ("link", links)]);
    expected.retain(|_, count| *count > 0);
    assert_eq!(skipped(report), expected, "{report}");
    assert_eq!(tool.json(["search", "mark of byte order", "-n", "1"])[0]["text"], "With a mark of byte order.");
    let hidden = &tool.json(["ingest", "texts", "--hidden"])[0];
    assert_eq!((&hidden["inserted"], &hidden["unchanged"]), (&2.into(), &3.into()));
    // What became binary goes, when that is asked for.
    tool.write("texts/good.md", b"\0");
    assert_eq!(tool.json(["ingest", "texts", "--prune"])[0]["forgotten"], 3);
    assert_eq!(tool.json(["docs", "list"]).len(), 2);
}

#[cfg(unix)]
#[test]
fn pipes_and_second_names_of_a_stores_file_are_not_opened() {
    let tool = Tool::filled();
    tool.write("texts/good.md", "A good text.");
    let fifo = tool.path("texts/fifo.md");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    #[expect(clippy::disallowed_methods, reason = "what a user may have done: the tool must see it")]
    std::fs::hard_link(tool.data().join("kv.db"), tool.path("texts/kv-copy.db")).unwrap();
    let report = &tool.json(["ingest", "texts"])[0];
    assert_eq!(report["inserted"], 1);
    assert_eq!(skipped(report), BTreeMap::from([("special", 1), ("larder", 1)]));
}

#[cfg(unix)]
#[test]
fn files_that_cannot_be_read_fail_the_command_and_prune_nothing() {
    use std::os::unix::fs::PermissionsExt;

    let tool = Tool::new();
    tool.write("texts/a.md", "First.");
    tool.write("texts/b.md", "Second.");
    tool.on_data(["ingest", "texts"]).done();
    let mode = |mode: u32| std::fs::set_permissions(tool.path("texts/a.md"), PermissionsExt::from_mode(mode)).unwrap();
    mode(0o000);
    #[expect(clippy::disallowed_methods, reason = "a text, no store's file")]
    let is_root = std::fs::File::open(tool.path("texts/a.md")).is_ok();
    if !is_root {
        let ran = tool.on_data(["ingest", "texts", "--prune"]).failed(1, &["not readable", "nothing is pruned"]);
        assert!(ran.out.contains("1 unchanged, 0 forgotten"), "{ran:?}");
        assert_eq!(tool.json(["docs", "list"]).len(), 2);
    }
    mode(0o600);
}

#[test]
fn embedders_are_not_mixed_in_one_context() {
    let tool = Tool::new();
    tool.write("texts/a.md", "Cats purr.");
    let words = &tool.json(["ingest", "texts", "--embeddings", "none"])[0];
    assert_eq!((&words["embeddings"], &words["inserted"]), (&"none".into(), &1.into()));
    let found = tool.json(["search", "cats"]);
    assert!(found[0]["reasons"].as_array().unwrap().iter().all(|reason| reason["way"] == "words"), "{found:?}");
    assert!(tool.on_data(["search", "dogs"]).done().out.is_empty());
    tool.on_data(["ingest", "texts", "--embeddings", "hashing"])
        .failed(1, &["has embeddings by \"none\"", "--context"]);
    assert_eq!(tool.json(["ingest", "texts"])[0]["unchanged"], 1, "without a word it is the one that is there");
    tool.on_data(["check"]).done();

    // An application's own model is none of the tool's: it searches by words, and ingests nothing.
    let other = Tool::new();
    other.write("texts/a.md", "Cats purr.");
    let larder = wait(Larder::open(other.data())).unwrap();
    let context = wait(Box::pin(larder.context("app").embedder(AppModel).open())).unwrap();
    let node = larder::Node::text("a#0", "Cats purr.").unwrap();
    wait(Box::pin(context.put(larder::Document::new("a").unwrap(), [node]))).unwrap();
    drop(context);
    wait(larder.close());
    let found = other.on_data(["search", "cats"]).done();
    assert!(found.out.contains("a#0") && found.err.contains("no embedder"), "{found:?}");
    other.on_data(["ingest", "texts", "--context", "app"]).failed(1, &["has embeddings by \"app-1\""]);
    other.on_data(["check"]).done();
    other.on_data(["forget", "a"]).done();
}

struct AppModel;

impl larder::Embedder for AppModel {
    fn model(&self) -> &'static str {
        "app-1"
    }

    fn dimensions(&self) -> usize {
        2
    }

    async fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, larder::BoxError> {
        Ok(texts.iter().map(|_| vec![1.0, 1.0]).collect())
    }
}

#[test]
fn several_contexts_are_told_apart() {
    let tool = Tool::new();
    tool.write("texts/a.md", "Cats purr.");
    tool.write("other/b.md", "Dogs bark.");
    tool.on_data(["ingest", "texts", "--context", "one"]).done();
    assert_eq!(tool.json(["search", "purr"]).len(), 1, "the only one is meant");
    tool.on_data(["ingest", "other", "--context", "two"]).done();
    tool.on_data(["search", "purr"]).failed(2, &["several contexts: \"one\", \"two\"", "--context"]);
    assert_eq!(tool.json(["search", "purr", "--context", "two"]).len(), 1);
    assert!(tool.on_data(["search", "bark", "--context", "two"]).done().out.contains("b.md#0"));
    tool.on_data(["search", "purr", "--context", "three"]).failed(3, &["\"three\"", "\"one\", \"two\""]);
}

#[test]
fn what_is_at_odds_between_stores_is_found_and_mended() {
    let tool = Tool::new();
    tool.write("texts/a.md", "Cats purr.");
    tool.on_data(["ingest", "texts", "--as", "t"]).done();
    let larder = wait(Larder::open(tool.data())).unwrap();
    let ids = vec![PointId::new("t/a.md#0").unwrap()];
    wait(larder.ask(DeletePoints { collection: CollectionName::new("default").unwrap(), ids })).unwrap();
    wait(larder.close());
    let ran = tool.on_data(["check"]).failed(5, &["--repair"]);
    assert!(ran.out.contains("at odds context default: ") && ran.out.contains("t/a.md#0"), "{ran:?}");
    assert!(tool.on_data(["check", "--repair"]).done().out.contains("mended context default"));
    tool.on_data(["check"]).done();
}

/// `LARDER_CLI_FILES=10000` is the size that is promised.
#[test]
fn folder_of_many_tiny_files_is_ingested_whole() {
    let count = std::env::var("LARDER_CLI_FILES").map_or(300, |count| count.parse().unwrap());
    let tool = Tool::new();
    for number in 0..count {
        tool.write(&format!("texts/{}/{number}.md", number % 10), format!("This is number {number}."));
    }
    let report = &tool.json(["ingest", "texts", "--as", "t"])[0];
    assert_eq!((&report["inserted"], &report["passages"]["inserted"]), (&count.into(), &count.into()));
    assert_eq!(tool.json(["ingest", "texts", "--as", "t"])[0]["unchanged"], count);
    let last = count - 1;
    let found = tool.json(["search", &format!("number {last}"), "-n", "3"]);
    assert!(found.iter().any(|row| row["document"] == format!("t/{}/{last}.md", last % 10)), "{found:?}");
    tool.on_data(["check"]).done();
}
