//! The arrows between crates: user, or `larder-cli` → `larder` → `larder-actors` → `larder-protocol`, read from `cargo metadata`.

use std::process::Command;

use serde_json::{Value, json};

use super::{assert_kept, root};

/// The product crates, lowest first: each may depend on those before it, never on one after it.
const LAYERS: [&str; 4] = ["larder-protocol", "larder-actors", "larder", "larder-cli"];

/// What a layer must not name in its manifest: (layer, crate, also as a development dependency).
const FORBIDDEN: [(&str, &str, bool); 10] = [
    // The protocol is plain data: bindings and other engines take it without a runtime or a database.
    ("larder-protocol", "tokio", true),
    ("larder-protocol", "kameo", true),
    ("larder-protocol", "rusqlite", true),
    ("larder-protocol", "crossbeam-channel", true),
    // The runtime never writes SQL; its tests may look into a closed file.
    ("larder", "rusqlite", false),
    ("larder", "libsqlite3-sys", false),
    // The tool does what any program could, through the public API alone.
    ("larder-cli", "larder-protocol", true),
    ("larder-cli", "larder-actors", true),
    ("larder-cli", "kameo", true),
    ("larder-cli", "rusqlite", true),
];

#[test]
fn manifests_keep_the_arrows() {
    assert_kept(&arrows_broken(&metadata()));
}

#[test]
fn plain_cargo_test_reaches_every_product_crate() {
    assert_kept(&default_members_missing(&metadata()));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "reads this repository's manifests, never a store's file")]
fn every_member_takes_the_workspace_lints() {
    let mut broken = Vec::new();
    for package in packages(&metadata()) {
        let path = text(package, "manifest_path");
        let manifest = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("read {path}: {e}"));
        broken.extend(lints_missing(text(package, "name"), is_published(package), &manifest));
    }
    assert_kept(&broken);
}

fn arrows_broken(metadata: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    let members: Vec<&str> = packages(metadata).map(|package| text(package, "name")).collect();
    for layer in LAYERS.iter().filter(|layer| !members.contains(layer)) {
        broken.push(format!("{layer} is not a member of the workspace"));
    }
    for package in packages(metadata) {
        let name = text(package, "name");
        let level = |name: &str| LAYERS.iter().position(|layer| *layer == name);
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let needed = text(dependency, "name");
            let is_for_tests = dependency["kind"] == "dev";
            if FORBIDDEN.iter().any(|(layer, word, dev)| *layer == name && *word == needed && (*dev || !is_for_tests)) {
                broken.push(format!("{name} must not depend on {needed}"));
            }
            if !members.contains(&needed) {
                continue;
            }
            match (level(name), level(needed)) {
                (Some(above), Some(below)) if below < above => {}
                // Itself, for its own tests: a feature that programs do not have.
                (Some(one), Some(same)) if one == same && is_for_tests => {}
                (None, Some(_)) if !is_published(package) => {}
                _ => broken.push(format!("{name} depends on {needed}, against the arrows")),
            }
        }
        if level(name).is_none() && is_published(package) {
            broken.push(format!("{name} is no layer, so it needs `publish = false`"));
        }
    }
    for (above, below) in [
        ("larder-cli", "larder"),
        ("larder", "larder-actors"),
        ("larder", "larder-protocol"),
        ("larder-actors", "larder-protocol"),
    ] {
        let mut named = packages(metadata).filter(|package| text(package, "name") == above);
        if !named.any(|package| package["dependencies"].as_array().into_iter().flatten().any(|d| d["name"] == below)) {
            broken.push(format!("{above} must depend on {below}"));
        }
    }
    broken
}

fn default_members_missing(metadata: &Value) -> Vec<String> {
    let ids: Vec<&Value> = metadata["workspace_default_members"].as_array().into_iter().flatten().collect();
    let is_default = |layer: &&str| packages(metadata).any(|p| text(p, "name") == *layer && ids.contains(&&p["id"]));
    let missing = LAYERS.iter().filter(|layer| !is_default(layer));
    missing.map(|layer| format!("default-members lacks {layer}: a plain `cargo test` would skip its tests")).collect()
}

/// A published crate inherits the workspace's lints; an unpublished one (which may need FFI) at least states its own.
fn lints_missing(name: &str, is_published: bool, manifest: &str) -> Option<String> {
    let mut lines = manifest.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let inherits = lines.any(|line| line == "[lints]") && lines.next() == Some("workspace = true");
    let states_own = manifest.lines().any(|line| line.starts_with("[lints."));
    let is_kept = inherits || (!is_published && states_own);
    (!is_kept).then(|| format!("{name} does not inherit the workspace's lints (`[lints] workspace = true`)"))
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--no-deps", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo runs, since it built this test");
    assert!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().into_iter().flatten()
}

fn is_published(package: &Value) -> bool {
    package["publish"] != json!([])
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("cargo metadata has no text in {field}"))
}

/// A workspace that keeps every rule, to be broken by one change at a time.
fn sound_workspace() -> Value {
    let depends = |name: &str| json!({ "name": name, "kind": null });
    let package = |name: &str, publish: Value, dependencies: Vec<Value>| json!({ "id": name, "name": name, "publish": publish, "dependencies": dependencies });
    json!({
        "workspace_default_members": LAYERS,
        "packages": [
            package("larder-protocol", Value::Null, vec![depends("serde")]),
            package("larder-actors", Value::Null, vec![depends("larder-protocol"), depends("rusqlite")]),
            package("larder", Value::Null, vec![
                depends("larder-actors"), depends("larder-protocol"), json!({ "name": "rusqlite", "kind": "dev" }),
                json!({ "name": "larder", "kind": "dev" }),
            ]),
            package("larder-cli", Value::Null, vec![depends("larder"), depends("clap")]),
            package("larder-faults", json!([]), vec![depends("larder"), depends("rusqlite")]),
        ],
    })
}

fn with_dependency(package: usize, name: &str, kind: &Value) -> Value {
    let mut workspace = sound_workspace();
    let dependencies = workspace["packages"][package]["dependencies"].as_array_mut().expect("a list");
    dependencies.push(json!({ "name": name, "kind": kind }));
    workspace
}

#[test]
fn arrows_control_names_each_broken_rule() {
    const PROTOCOL: usize = 0;
    const ACTORS: usize = 1;
    const LARDER: usize = 2;
    const CLI: usize = 3;
    const FAULTS: usize = 4;
    assert_eq!(arrows_broken(&sound_workspace()), Vec::<String>::new());
    for (package, name, kind, expected) in [
        (PROTOCOL, "tokio", Value::Null, "larder-protocol must not depend on tokio"),
        (PROTOCOL, "kameo", json!("dev"), "larder-protocol must not depend on kameo"),
        (PROTOCOL, "rusqlite", json!("build"), "larder-protocol must not depend on rusqlite"),
        (LARDER, "rusqlite", Value::Null, "larder must not depend on rusqlite"),
        (PROTOCOL, "larder-actors", Value::Null, "larder-protocol depends on larder-actors, against the arrows"),
        (LARDER, "larder", Value::Null, "larder depends on larder, against the arrows"),
        (ACTORS, "larder", json!("dev"), "larder-actors depends on larder, against the arrows"),
        (LARDER, "larder-faults", json!("dev"), "larder depends on larder-faults, against the arrows"),
        (LARDER, "larder-cli", json!("dev"), "larder depends on larder-cli, against the arrows"),
        (CLI, "rusqlite", json!("dev"), "larder-cli must not depend on rusqlite"),
        (CLI, "larder-actors", Value::Null, "larder-cli must not depend on larder-actors"),
    ] {
        assert_eq!(arrows_broken(&with_dependency(package, name, &kind)), [expected]);
    }

    let mut published = sound_workspace();
    published["packages"][FAULTS]["publish"] = Value::Null;
    assert_eq!(arrows_broken(&published).len(), 2, "it depends on a layer, and it is published");

    let mut cut = sound_workspace();
    cut["packages"][LARDER]["dependencies"] = json!([{ "name": "larder-actors", "kind": null }]);
    assert_eq!(arrows_broken(&cut), ["larder must depend on larder-protocol"]);

    let mut gone = sound_workspace();
    gone["packages"].as_array_mut().expect("a list").remove(ACTORS);
    assert_eq!(
        arrows_broken(&gone).first().map(String::as_str),
        Some("larder-actors is not a member of the workspace")
    );
}

#[test]
fn default_members_control_names_the_crate_left_out() {
    assert_eq!(default_members_missing(&sound_workspace()), Vec::<String>::new());
    let mut workspace = sound_workspace();
    workspace["workspace_default_members"] = json!(["larder", "larder-protocol", "larder-cli"]);
    let missing = default_members_missing(&workspace);
    assert!(missing.len() == 1 && missing[0].contains("lacks larder-actors"), "{missing:?}");
}

#[test]
fn lints_control_tells_inherited_from_forgotten() {
    let inherited = "[package]\nname = \"a\"\n\n[lints]\n# ours\nworkspace = true\n";
    let own = "[package]\n\n[lints.rust]\nunsafe_code = \"allow\"\n";
    assert!(lints_missing("a", true, inherited).is_none() && lints_missing("a", false, own).is_none());
    assert!(lints_missing("a", true, own).is_some(), "a published crate does not choose its own lints");
    assert!(lints_missing("a", false, "[package]\nname = \"a\"\n").is_some());
}
