//! Documents, chat, graph and vectors, as people see them.

use crate::support::Tool;

#[track_caller]
fn says(tool: &Tool, arguments: &[&str], parts: &[&str]) {
    let out = tool.on_data(arguments.iter().copied()).done().out;
    for part in parts {
        assert!(out.contains(part), "{arguments:?} does not say {part:?}:\n{out}");
    }
}

#[test]
fn every_store_is_shown_to_people() {
    let tool = Tool::filled();
    for (arguments, parts) in [
        (&["docs", "list"][..], &["DOCUMENT", "report.md", " 2 ", "done"][..]),
        (
            &["docs", "show", "report.md"],
            &["report.md", "done, 2 passages", "Sales rose in the north.", "(characters 25 to 44)"],
        ),
        (&["docs", "show", "report.md", "-n", "1"], &["report.md#0"]),
        (&["docs", "search", "costs", "rose"], &["report.md#1", "[Costs] [rose]"]),
        (&["search", "north"], &["report.md#0"]),
        (&["chat", "list"], &["SESSION", "alice", "ann", "About the report"]),
        (&["chat", "show", "alice"], &["alice: About the report", "user", "What did the report say?", "assistant"]),
        (&["chat", "search", "sales"], &["alice", "[Sales] rose."]),
        (&["graph", "list"], &["Ada", "person", "A mathematician."]),
        (&["graph", "list", "--label", "person"], &["Ada"]),
        (&["graph", "show", "Ada"], &["Ada (person)", "A mathematician.", "knows", "Charles", "letters#1"]),
        (&["graph", "find", "Aad"], &["Ada"]),
        (&["graph", "find", "mathematician", "--by", "words"], &["Ada"]),
        (&["graph", "find", "Cha", "--by", "prefix"], &["Charles"]),
        (&["graph", "neighbors", "Charles"], &["<-[knows]-", "-[built]->", "the engine"]),
        (&["graph", "neighbors", "Charles", "--direction", "out"], &["the engine"]),
        (&["graph", "neighbors", "Ada", "--depth", "2"], &["HOPS", "2", "the engine"]),
        (&["graph", "path", "Ada", "the engine"], &["Ada -[knows]-> Charles -[built]-> the engine\n"]),
        (&["graph", "path", "the engine", "Ada"], &["the engine <-[built]- Charles <-[knows]- Ada\n"]),
        (&["graph", "rank", "Ada"], &["RANK", "Charles"]),
        (&["graph", "facts", "--subject", "Ada"], &["knows", "Charles"]),
        (&["graph", "facts", "--relation", "built", "--whenever"], &["the engine"]),
        (&["graph", "schema"], &["LABEL", "person", "built"]),
        (&["vectors", "list"], &["notes", "cosine"]),
        (&["vectors", "list", "notes"], &["POINT", "Sales rose."]),
        (
            &["stats"],
            &["kv", "2 collections, 2 entries", "1 documents, 2 passages", "1 sessions", "embed_cache", "1 values"],
        ),
    ] {
        says(&tool, arguments, parts);
    }
    let out = tool.on_data(["graph", "neighbors", "Charles", "--direction", "out"]).done().out;
    assert!(!out.contains("Ada"), "{out}");
    let first = tool.on_data(["docs", "show", "report.md", "-n", "1"]).done();
    assert!(!first.out.contains("Costs rose") && first.err.contains("1 more passages"), "{first:?}");
    assert_eq!(
        tool.on_data(["docs", "show", "report.md", "--text"]).done().out,
        "Sales rose in the north. Costs rose as well.\n"
    );
    let newest = tool.on_data(["chat", "show", "alice", "-n", "1"]).done();
    assert!(!newest.out.contains("What did") && newest.err.contains("1 more messages"), "{newest:?}");
}

#[test]
fn ways_that_are_not_there_are_code_3_and_names_of_several_say_so() {
    let tool = Tool::filled();
    tool.on_data(["graph", "path", "the engine", "Ada", "--direction", "out"]).failed(3, &["no such way leads from"]);
    tool.on_data(["graph", "path", "Ada", "the engine", "--hops", "1"]).failed(3, &["no such way"]);
    let larder = larder::blocking::wait(larder::Larder::open(tool.data())).unwrap();
    let other = larder::NewEntity::new("language", "Ada").unwrap();
    larder::blocking::wait(larder.graph().upsert_entities([other])).unwrap();
    larder::blocking::wait(larder.close());
    tool.on_data(["graph", "show", "Ada"]).failed(1, &["conflict", "--label"]);
    says(&tool, &["graph", "show", "Ada", "--label", "language"], &["Ada (language)"]);
    says(&tool, &["graph", "path", "Ada", "Charles", "--from-label", "person"], &["Ada -[knows]-> Charles"]);
}

#[test]
fn empty_larder_answers_with_nothing() {
    let tool = Tool::new();
    for arguments in [
        &["kv", "list"][..],
        &["kv", "list", "settings"],
        &["docs", "list"],
        &["docs", "search", "x"],
        &["search", "x"],
        &["chat", "list"],
        &["chat", "search", "x"],
        &["graph", "list"],
        &["graph", "find", "x"],
        &["graph", "facts"],
        &["graph", "schema"],
        &["vectors", "list"],
    ] {
        assert_eq!(tool.on_data(arguments.iter().copied()).done().out, "", "{arguments:?}");
    }
    says(&tool, &["stats"], &["holds no store yet"]);
    says(&tool, &["check"], &["sound: no store yet"]);
}
