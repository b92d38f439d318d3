//! JSON: every command speaks it, and its field names stay.

use serde_json::{Value, json};

use crate::support::Tool;

/// Returns the field names of an object, in order.
fn names(value: &Value) -> Vec<&str> {
    value.as_object().unwrap_or_else(|| panic!("{value} is no object")).keys().map(String::as_str).collect()
}

#[test]
fn every_command_prints_json_with_these_fields() {
    let tool = Tool::filled();
    tool.write("texts/a.md", "# Tea\n\nTea is a drink.\n");
    let entry = "collection created_ms expires_ms format key updated_ms value version";
    let node = "created_ms document hash id metadata position relationships span text updated_ms";
    let document = "created_ms failure fingerprint hash id metadata node_count state updated_ms";
    let message =
        "archived blocks client_id created_ms extra id metadata name pinned revision role session summary text tokens";
    let entity = "aliases created_ms description id label name properties updated_ms";
    let fact = "id object properties qualifier recorded_ms relation sources subject superseded_ms valid_from_ms valid_until_ms weight";
    let search = "document id metadata reasons score span text";
    let with = |fields: &str, more: &str| {
        let mut all: Vec<_> =
            fields.split(' ').chain(more.split(' ')).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        all.sort();
        all.join(" ")
    };
    for (arguments, fields) in [
        (&["init", "other"][..], "folder is_new".to_owned()),
        (&["kv", "list"], "entry_count name value_bytes".to_owned()),
        (&["kv", "list", "settings"], entry.to_owned()),
        (&["kv", "get", "settings", "theme"], entry.to_owned()),
        (&["kv", "get", "blobs", "raw"], entry.replace("value version", "value_base64 version")),
        (&["kv", "put", "settings", "size", "5"], "collection key version".to_owned()),
        (&["kv", "delete", "settings", "size"], "deleted".to_owned()),
        (&["docs", "list"], document.to_owned()),
        (&["docs", "show", "report.md"], with(document, "nodes")),
        (&["docs", "show", "report.md", "--text"], "id text".to_owned()),
        (&["docs", "search", "sales"], with(node, "score snippet")),
        (
            &["chat", "list"],
            "archived created_ms id message_count metadata owner summary_through title token_count updated_ms"
                .to_owned(),
        ),
        (&["chat", "show", "alice"], message.to_owned()),
        (&["chat", "search", "sales"], with(message, "score snippet")),
        (&["graph", "list"], entity.to_owned()),
        (&["graph", "show", "Ada"], with(entity, "facts")),
        (&["graph", "find", "Ada"], "id label matched name score".to_owned()),
        (&["graph", "neighbors", "Ada"], "id is_outgoing label name relation relation_id weight".to_owned()),
        (&["graph", "neighbors", "Ada", "--depth", "2"], "hops id label name".to_owned()),
        (&["graph", "path", "Ada", "Charles"], "start steps".to_owned()),
        (&["graph", "rank", "Ada"], "id label name score".to_owned()),
        (&["graph", "facts"], fact.to_owned()),
        (&["graph", "schema"], "facts labels".to_owned()),
        (&["vectors", "list"], "dimensions metric name point_count".to_owned()),
        (&["vectors", "list", "notes"], "collection document id metadata text".to_owned()),
        (&["stats"], "folder stores".to_owned()),
        (&["check"], "contexts findings is_sound set_aside stores".to_owned()),
        (
            &["ingest", "texts"],
            "context embeddings failed forgotten inserted passages skipped unchanged updated".to_owned(),
        ),
        (&["search", "tea"], search.to_owned()),
        (&["export", "kv"], with(entry, "kind")),
        (&["export", "documents"], with(document, "kind")),
        (
            &["export", "chat"],
            with(
                "archived created_ms id message_count metadata owner summary_through title token_count updated_ms",
                "kind",
            ),
        ),
        (&["export", "graph"], with(entity, "kind")),
        (&["export", "vectors"], "dimensions kind metric name point_count".to_owned()),
        (
            &["export", "embed_cache"],
            "compute_time_us expires_ms key kind parameters producer producer_kind stored_ms tags vector".to_owned(),
        ),
        (&["snapshot", "snaps"], "bytes path removed stores taken_ms".to_owned()),
        (&["snapshot", "snaps", "--list"], "bytes path stores taken_ms".to_owned()),
        (&["restore", "snaps", "restored"], "bytes folder snapshot stores taken_ms".to_owned()),
        (&["completions", "bash"], "script shell".to_owned()),
    ] {
        let lines = tool.json(arguments.iter().copied());
        assert!(!lines.is_empty(), "{arguments:?} prints nothing");
        // A store's first collection may be one of bytes.
        let fields_found: Vec<String> = lines.iter().map(|line| names(line).join(" ")).collect();
        assert!(fields_found.contains(&fields), "{arguments:?}: {fields_found:#?}");
    }
    let id = tool.json(["docs", "list", "--prefix", "/"])[0]["id"].as_str().unwrap().to_owned();
    let receipt = tool.json(["forget", &id]);
    assert_eq!(names(&receipt[0]).join(" "), "absent documents embeddings facts facts_kept passages points sessions");
}

#[test]
fn stored_json_and_numbers_come_out_as_they_went_in() {
    let tool = Tool::filled();
    let out = tool.on_data(["--json", "export", "documents"]).done().out;
    assert!(out.contains(r#""metadata":{"year":2025,"big":123456789012345678901234567890}"#), "{out}");
    assert_eq!(tool.json(["kv", "get", "blobs", "raw"])[0]["value_base64"], "AJ+Slg==");
    assert_eq!(tool.json(["export", "embed_cache"])[0]["vector"], json!([0.5, 0.25]));
}

#[test]
fn export_has_every_row_and_its_kind() {
    let tool = Tool::filled();
    let kinds = |store: &str| -> Vec<String> {
        tool.json(["export", store]).iter().map(|row| row["kind"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(kinds("kv"), ["entry", "entry"]);
    assert_eq!(kinds("documents"), ["document", "node", "node"]);
    assert_eq!(kinds("chat"), ["session", "message", "message"]);
    assert_eq!(kinds("vectors"), ["collection", "point"]);
    assert_eq!(kinds("graph"), ["entity", "entity", "entity", "fact", "fact"]);
    assert_eq!(kinds("embed_cache"), ["value"]);
    assert_eq!(tool.json(["export", "vectors"])[1]["vector"], json!([1.0, 0.5]));
    // To a file: the same lines, and never over one that is there.
    let ran = tool.on_data(["export", "chat", "-o", "chat.jsonl"]).done();
    assert!(ran.out.is_empty() && ran.err.contains("exported to chat.jsonl"), "{ran:?}");
    #[expect(clippy::disallowed_methods, reason = "an export, no store's file")]
    let file = std::fs::read_to_string(tool.path("chat.jsonl")).unwrap();
    assert_eq!(file, tool.on_data(["export", "chat"]).done().out);
    tool.on_data(["export", "kv", "-o", "chat.jsonl"]).failed(1, &["chat.jsonl", "exists"]);
}

#[test]
fn export_of_many_pages_has_every_row_once() {
    let tool = Tool::new();
    let larder = larder::blocking::wait(larder::Larder::open(tool.data())).unwrap();
    let numbers = larder.kv().collection::<u32>("numbers");
    let puts: Vec<(String, u32)> = (0..2_500).map(|number| (format!("{number:05}"), number)).collect();
    larder::blocking::wait(numbers.put_many(puts.iter().map(|(key, number)| (key.as_str(), number)))).unwrap();
    let entities = (0..2_500).map(|n| larder::NewEntity::new("n", format!("{n:05}")).unwrap());
    larder::blocking::wait(larder.graph().upsert_entities(entities)).unwrap();
    larder::blocking::wait(larder.close());
    let values: Vec<u64> = tool.json(["export", "kv"]).iter().map(|row| row["value"].as_u64().unwrap()).collect();
    assert_eq!(values, (0..2_500).collect::<Vec<_>>());
    assert_eq!(tool.json(["export", "graph"]).len(), 2_500);
}
