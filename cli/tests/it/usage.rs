//! Help, and mistakes.

use crate::support::Tool;

const COMMANDS: [&str; 15] = [
    "init",
    "ingest",
    "search",
    "forget",
    "kv",
    "docs",
    "chat",
    "graph",
    "vectors",
    "stats",
    "check",
    "snapshot",
    "restore",
    "export",
    "completions",
];

#[test]
fn help_names_every_command_and_every_exit_code() {
    let tool = Tool::without_larder();
    let help = tool.run(["--help"]).done();
    for command in COMMANDS {
        assert!(help.out.contains(&format!("\n  {command} ")), "{command} is not in\n{}", help.out);
        assert!(tool.run([command, "--help"]).done().out.contains("Usage: larder"), "{command}");
    }
    for code in 0..=5 {
        assert!(help.out.contains(&format!("\n  {code}  ")), "code {code} is not in\n{}", help.out);
    }
    assert!(tool.run(["--version"]).done().out.starts_with("larder 0."));
    assert!(help.err.is_empty());
}

#[test]
fn mistakes_are_code_2_and_say_what_is_wrong() {
    let tool = Tool::new();
    for (arguments, says) in [
        (&["frobnicate"][..], "unrecognized subcommand 'frobnicate'"),
        (&["kv"], "Usage: larder kv"),
        (&["kv", "get", "a"], "<KEY>"),
        (&["kv", "put", "a", "", "v"], "invalid key: it is empty"),
        (&["kv", "put", "a", "b", "v", "--ttl", "soon"], "such as 90s"),
        (&["kv", "put", "a", "b", "v", "--if-absent", "--if-version", "1"], "cannot be used with"),
        (&["kv", "delete", "a"], "<KEY"),
        (&["kv", "list", "--limit", "0"], "it is 0"),
        (&["kv", "list", "--prefix", "a"], "<COLLECTION>"),
        (&["docs", "list", "--state", "lost"], "possible values: done, unfinished"),
        (&["graph", "list", "--after", "x"], "Usage"),
        (&["graph", "path", "only one"], "<TO>"),
        (&["chat", "show", "a", "--limit", "-1"], "-1"),
        (&["export", "everything"], "possible values: kv, documents"),
        (&["restore", "somewhere"], "<INTO>"),
        (&["forget"], "--owner"),
        (&["search"], "<TEXT>"),
        (&["search", "x", "--limit", "100000000"], "it is more than 1000"),
        (&["ingest", ".", "--as", "/"], "--as \"/\" is no name"),
        (&["completions", "dosh"], "possible values: bash"),
        (&["check", "--quick", "--repair"], "cannot be used with"),
        (&["ingest", "data", "--embeddings", "gpt"], "possible values: hashing, none"),
        (&["ingest", "data"], "is a larder itself"),
    ] {
        if arguments == ["graph", "list", "--after", "x"] {
            // Without a graph there is nothing behind anything.
            continue;
        }
        let ran = tool.on_data(arguments.iter().copied()).failed(2, &[says]);
        assert!(ran.out.is_empty(), "{arguments:?}: {}", ran.out);
    }
    Tool::filled().on_data(["graph", "list", "--after", "x"]).failed(2, &["no entity's id"]);
}

#[test]
fn mistakes_are_json_where_json_is_asked_for() {
    let tool = Tool::new();
    for arguments in [&["--json", "kv", "get", "a"][..], &["kv", "get", "a", "", "--json"], &["--json", "frobnicate"]] {
        let ran = tool.on_data(arguments.iter().copied()).failed(2, &[]);
        let error: serde_json::Value = serde_json::from_str(&ran.err).unwrap_or_else(|e| panic!("{e} in {}", ran.err));
        assert_eq!(error["error"]["code"], 2, "{error}");
        assert_eq!(error["error"]["class"], "invalid_input");
        assert_eq!(error["error"]["written"], "not_applied");
        assert!(!error["error"]["message"].as_str().unwrap().is_empty());
    }
}

#[test]
fn what_is_not_there_is_code_3() {
    for tool in [Tool::new(), Tool::filled()] {
        for arguments in [
            &["kv", "get", "settings", "absent"][..],
            &["kv", "delete", "settings", "absent"],
            &["kv", "delete", "absent", "--all"],
            &["docs", "show", "absent.md"],
            &["chat", "show", "absent"],
            &["graph", "show", "Nobody"],
            &["graph", "neighbors", "Nobody"],
            &["graph", "path", "Nobody", "Ada"],
            &["vectors", "list", "absent"],
            &["forget", "absent.md"],
            &["search", "x", "--context", "absent"],
            &["restore", "absent", "new"],
            &["snapshot", "absent", "--list"],
            &["ingest", "absent"],
        ] {
            if arguments.first() == Some(&"search") && !tool.data().join("documents.db").exists() {
                continue;
            }
            let ran = tool.on_data(arguments.iter().copied()).failed(3, &["error: "]);
            assert!(ran.err.trim_end().lines().count() == 1, "{arguments:?}: {}", ran.err);
        }
    }
}

#[test]
fn completions_are_there_for_every_shell() {
    let tool = Tool::without_larder();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = tool.run(["completions", shell]).done().out;
        assert!(COMMANDS.iter().all(|command| script.contains(command)), "{shell}");
        let json = tool.run(["--json", "completions", shell]).done().json();
        assert_eq!(json[0]["script"], script);
    }
}
