//! Which folder a command works on, and who else has it open.

use larder::Larder;
use larder::blocking::wait;

use crate::support::Tool;

/// Commands that read, each of which answers something over a filled larder.
pub(crate) const READS: [&[&str]; 19] = [
    &["kv", "list"],
    &["kv", "list", "settings"],
    &["kv", "get", "settings", "theme"],
    &["docs", "list"],
    &["docs", "show", "report.md"],
    &["docs", "search", "sales"],
    &["search", "sales"],
    &["chat", "list"],
    &["chat", "show", "alice"],
    &["chat", "search", "report"],
    &["graph", "list"],
    &["graph", "show", "Ada"],
    &["graph", "find", "Ada"],
    &["graph", "neighbors", "Ada"],
    &["graph", "path", "Ada", "the engine"],
    &["graph", "facts"],
    &["graph", "schema"],
    &["vectors", "list"],
    &["stats"],
];

#[test]
fn init_makes_a_larder_once() {
    let tool = Tool::without_larder();
    assert_eq!(tool.run(["init", "a/b"]).done().out, "made a larder in a/b\n");
    assert_eq!(tool.run(["init", "a/b"]).done().out, "a/b was a larder already\n");
    assert_eq!(
        tool.run(["--json", "-C", "c", "init"]).done().json(),
        [serde_json::json!({ "folder": "c", "is_new": true })]
    );
    tool.write("file", "");
    tool.run(["init", "file"]).failed(1, &["file is a file; name a folder"]);
}

#[test]
fn folder_is_the_named_one_or_the_environments_or_the_current_one() {
    let tool = Tool::filled();
    let theme = tool.on_data(["kv", "get", "settings", "theme"]).done().out;
    assert!(theme.contains("dark"));
    let mut by_environment = tool.command(["kv", "get", "settings", "theme"]);
    by_environment.env("LARDER_FOLDER", tool.data());
    assert_eq!(String::from_utf8_lossy(&by_environment.output().unwrap().stdout), theme);
    let mut in_it = tool.command(["kv", "get", "settings", "theme"]);
    in_it.current_dir(tool.data());
    assert_eq!(String::from_utf8_lossy(&in_it.output().unwrap().stdout), theme);
    // The option wins.
    tool.run(["init", "other"]).done();
    let mut both = tool.command(["-C", "other", "kv", "get", "settings", "theme"]);
    both.env("LARDER_FOLDER", tool.data());
    assert_eq!(both.output().unwrap().status.code(), Some(3));
}

#[test]
fn folder_that_is_none_is_code_3_with_the_way_out() {
    let tool = Tool::without_larder();
    tool.run(["stats"]).failed(3, &["the current folder is no larder's", "larder init"]);
    tool.run(["-C", "absent", "stats"]).failed(3, &["folder absent is not there", "--folder"]);
    tool.write("texts/a.md", "a");
    tool.run(["-C", "texts", "kv", "put", "a", "b", "c"]).failed(3, &["texts is no larder's folder"]);
}

#[test]
fn reads_make_neither_a_folder_nor_a_store() {
    let tool = Tool::new();
    let before = tool.listing("data");
    for read in READS {
        tool.run(["-C", "absent"].iter().chain(read)).failed(3, &[]);
        let ran = tool.on_data(read.iter().copied());
        assert!([0, 3].contains(&ran.code), "{read:?}: {ran:?}");
    }
    for store in ["kv", "documents", "chat", "vectors", "graph", "embed_cache"] {
        tool.on_data(["export", store]).failed(3, &["is not there"]);
    }
    tool.on_data(["check"]).done();
    assert!(!tool.path("absent").exists());
    assert_eq!(tool.listing("data"), before);
    // The control: a write does make one.
    tool.on_data(["kv", "put", "a", "b", "c"]).done();
    assert_ne!(tool.listing("data"), before);
}

#[test]
fn reads_and_writes_work_while_another_process_has_the_folder_open() {
    let tool = Tool::filled();
    let larder = wait(Larder::open(tool.data())).unwrap();
    let counts = larder.kv().collection::<i64>("counts");
    for read in READS {
        let ran = tool.on_data(read.iter().copied()).done();
        assert!(!ran.out.is_empty(), "{read:?}");
    }
    for number in 0..5 {
        wait(counts.put("visits", &number)).unwrap();
        // What was acknowledged here is read there, and the other way round.
        assert_eq!(tool.on_data(["kv", "get", "counts", "visits"]).done().out, format!("{number}\n"));
        tool.on_data(["kv", "put", "counts", "answers", &number.to_string()]).done();
        assert_eq!(wait(counts.get("answers")).unwrap(), Some(number));
    }
    tool.on_data(["check"]).done();
    wait(larder.close());
}

#[test]
fn folder_that_a_process_has_to_itself_is_busy_and_names_it() {
    let tool = Tool::filled();
    let larder = wait(Larder::builder(tool.data()).exclusive().open()).unwrap();
    let process = format!("process {}", std::process::id());
    tool.on_data(["kv", "get", "settings", "theme"]).failed(4, &[&process, "end that program"]);
    tool.on_data(["kv", "put", "a", "b", "c"]).failed(4, &[&process]);
    let ran = tool.on_data(["--json", "stats"]).failed(4, &[]);
    let error: serde_json::Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!((&error["error"]["code"], &error["error"]["class"]), (&4.into(), &"refused".into()));
    wait(larder.close());
    tool.on_data(["kv", "get", "settings", "theme"]).done();
}

#[test]
fn texts_that_an_application_indexes_its_own_way_stay_so() {
    let tool = Tool::without_larder();
    let parts = larder::Tokenizer::Trigram;
    let builder = Larder::builder(tool.data()).settings(|settings| {
        settings.documents.own.tokenizer = parts;
        settings.chat.own.tokenizer = parts;
        settings.vectors.own.tokenizer = parts;
        settings.graph.own.tokenizer = parts;
    });
    let larder = wait(builder.open()).unwrap();
    let text = "a refrigerator";
    let node = larder::Node::text("a#0", text).unwrap();
    wait(larder.documents().put(larder::Document::new("a").unwrap(), [node])).unwrap();
    wait(larder.chat().session("s").append([larder::ChatMessage::user(text)]).into_future()).unwrap();
    let points = wait(larder.vectors().collection("c").dimensions(1).open()).unwrap();
    wait(points.upsert([larder::Point::new("p", vec![1.0]).unwrap().with_text(text)])).unwrap();
    let thing = larder::NewEntity::new("thing", "cold box").unwrap().with_description(text);
    wait(larder.graph().upsert_entities([thing])).unwrap();
    let found_inside_words = || {
        let part = "frigerat";
        [
            wait(larder.documents().search(part)).unwrap().len(),
            wait(larder.chat().search(part)).unwrap().len(),
            wait(points.search_text(part)).unwrap().len(),
            wait(larder.graph().search(part)).unwrap().len(),
        ]
    };
    assert_eq!(found_inside_words(), [1; 4]);
    tool.on_data(["stats"]).done();
    tool.on_data(["check"]).done();
    tool.on_data(["snapshot", "snaps"]).done();
    assert!(tool.on_data(["docs", "search", "frigerat"]).done().out.contains("a#0"));
    assert_eq!(tool.json(["chat", "search", "frigerat"]).len(), 1);
    assert_eq!(tool.json(["graph", "find", "frigerat", "--by", "words"]).len(), 1);
    assert_eq!(found_inside_words(), [1; 4], "the tool made an index anew, by words");
    drop(points);
    wait(larder.close());
    // The control: an application without that setting makes them anew.
    let larder = wait(Larder::open(tool.data())).unwrap();
    assert!(wait(larder.documents().search("frigerat")).unwrap().is_empty());
    wait(larder.close());
}
