//! Names and values that would steer a terminal, break a table, or be taken for something else.

use larder::blocking::wait;
use larder::{ChatMessage, Document, Larder, NewEntity, NewRelation, Node, Point};

use crate::folder::READS;
use crate::support::Tool;

/// Clears the screen, rings, breaks the line, turns the direction, and looks like an option, SQL and a path.
const HOSTILE: &str =
    "--x\u{1b}[2J\u{7}\u{9b}31m\nb\t\r\u{202e}'; DROP TABLE entry; --/../../etc/passwd\u{1b}]0;owned\u{7}";

/// What nothing for a terminal may hold, beside line breaks and tabs.
fn is_hostile(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\t')) || c == '\u{202e}' || c == '\u{9b}'
}

fn fill(tool: &Tool) {
    let larder = wait(Larder::open(tool.data())).unwrap();
    wait(larder.kv().collection::<String>(HOSTILE).put(HOSTILE, &HOSTILE.to_owned())).unwrap();
    let nodes = [Node::text(format!("{HOSTILE}#0"), HOSTILE).unwrap()];
    wait(larder.documents().put(Document::new(HOSTILE).unwrap().with_text(HOSTILE), nodes)).unwrap();
    let session = larder.chat().session(HOSTILE);
    wait(session.append([ChatMessage::user(HOSTILE)]).into_future()).unwrap();
    wait(session.describe().title(HOSTILE).owner(HOSTILE)).unwrap();
    wait(larder.graph().upsert_entities([NewEntity::new(HOSTILE, HOSTILE).unwrap().with_description(HOSTILE)]))
        .unwrap();
    let fact = NewRelation::new(HOSTILE, HOSTILE, HOSTILE).unwrap().with_source(HOSTILE).unwrap();
    wait(larder.graph().upsert_relations([fact])).unwrap();
    let collection = wait(larder.vectors().collection(HOSTILE).dimensions(1).open()).unwrap();
    wait(collection.upsert([Point::new(HOSTILE, vec![1.0]).unwrap().with_text(HOSTILE)])).unwrap();
    wait(larder.close());
}

#[test]
fn hostile_names_and_values_show_themselves_and_nothing_else() {
    let tool = Tool::new();
    fill(&tool);
    let named: Vec<Vec<&str>> = vec![
        vec!["kv", "list"],
        vec!["kv", "list", "--", HOSTILE],
        vec!["docs", "list"],
        vec!["docs", "show", "--", HOSTILE],
        vec!["docs", "search", "DROP"],
        vec!["search", "DROP"],
        vec!["chat", "list"],
        vec!["chat", "show", "--", HOSTILE],
        vec!["chat", "search", "DROP"],
        vec!["graph", "list"],
        vec!["graph", "show", "--", HOSTILE],
        vec!["graph", "find", "--by", "words", "DROP"],
        vec!["graph", "neighbors", "--", HOSTILE],
        vec!["graph", "neighbors", "--depth", "2", "--", HOSTILE],
        vec!["graph", "path", "--", HOSTILE, HOSTILE],
        vec!["graph", "rank", "--", HOSTILE],
        vec!["graph", "facts"],
        vec!["graph", "schema"],
        vec!["vectors", "list"],
        vec!["vectors", "list", "--", HOSTILE],
    ];
    for arguments in &named {
        let ran = tool.on_data(arguments.iter().copied()).done();
        // What is printed for people in lines is escaped, terminal or not.
        assert!(!ran.out.chars().any(is_hostile), "{arguments:?}: {:?}", ran.out);
        assert!(!ran.out.is_empty() || arguments[1] == "neighbors", "{arguments:?} prints nothing");
        let with_json = ["--json"].into_iter().chain(arguments.iter().copied());
        let ran = tool.on_data(with_json).done();
        assert!(ran.out.is_ascii() || !ran.out.chars().any(is_hostile), "{arguments:?}: {:?}", ran.out);
        for line in ran.json() {
            assert!(line.to_string().contains("DROP TABLE"), "{arguments:?}: {line}");
        }
    }
    // A value to a pipe is the value itself.
    let value = tool.on_data(["kv", "get", "--", HOSTILE, HOSTILE]).done().out;
    assert_eq!(serde_json::from_str::<String>(&value).unwrap(), HOSTILE);
    let json = tool.json(["kv", "get", "--", HOSTILE, HOSTILE]);
    assert_eq!((&json[0]["key"], &json[0]["value"]), (&HOSTILE.into(), &HOSTILE.into()));
    for store in ["kv", "documents", "chat", "graph", "vectors"] {
        assert!(!tool.on_data(["export", store]).done().out.chars().any(is_hostile), "{store}");
    }
}

#[test]
fn errors_show_hostile_names_escaped() {
    let tool = Tool::filled();
    for arguments in [
        &["kv", "get", "--", HOSTILE, HOSTILE][..],
        &["docs", "show", "--", HOSTILE],
        &["chat", "show", "--", HOSTILE],
        &["graph", "show", "--", HOSTILE],
        &["vectors", "list", "--", HOSTILE],
        &["restore", "--", HOSTILE, "new"],
    ] {
        let ran = tool.on_data(arguments.iter().copied()).failed(3, &["error: "]);
        assert!(!ran.err.chars().any(is_hostile) && ran.err.lines().count() == 1, "{arguments:?}: {:?}", ran.err);
    }
}

#[test]
fn ordinary_texts_of_other_scripts_stay_readable() {
    let tool = Tool::new();
    tool.on_data(["kv", "put", "日本語", "ключ", "déjà vu 👩\u{200d}🔬"]).done();
    let list = tool.on_data(["kv", "list", "日本語"]).done().out;
    assert!(list.contains("ключ") && list.contains("\"déjà vu 👩\u{200d}🔬\""), "{list}");
    for read in READS {
        assert!([0, 3].contains(&tool.on_data(read.iter().copied()).code), "{read:?}");
    }
}
