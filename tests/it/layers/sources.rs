//! Rules about words in the sources, where clippy's `disallowed-methods` cannot reach.
//!
//! They read text, so they are blunt: a rule that stands in the way of good code is to be made exact, not worked around.

use super::{Source, assert_kept, says, sources_under};

/// The stores' words; each names a folder, a file and a module in every crate.
const STORES: [&str; 6] = ["kv", "documents", "chat", "graph", "vectors", "embed_cache"];

/// Folders of `larder-actors` that serve every store and so know none.
const SHARED: [&str; 5] = ["store", "sqlite", "filter", "full_text", "vector_index"];

#[test]
fn protocol_is_plain_data() {
    assert_kept(&words_found(&sources_under("protocol/src"), &["tokio", "kameo", "rusqlite"]));
}

#[test]
fn runtime_knows_no_sql() {
    let sources = sources_under("runtime/src");
    let mut broken = words_found(&sources, &["rusqlite", "libsqlite3_sys"]);
    broken.extend(words_found(&sources, &["SELECT", "INSERT", "UPDATE", "DELETE FROM", "PRAGMA", "CREATE TABLE"]));
    assert_kept(&broken);
}

#[test]
fn runtime_signatures_show_no_kameo_type() {
    assert_kept(&foreign_types_shown(&sources_under("runtime/src"), "kameo"));
}

#[test]
fn one_file_opens_connections() {
    assert_kept(&second_openers(&sources_under("actors/src")));
}

#[test]
fn shared_machinery_knows_no_store() {
    assert_kept(&stores_named_in_shared(&sources_under("actors/src")));
}

#[test]
fn stores_know_no_other_store() {
    assert_kept(&stores_named_in_stores(&sources_under("actors/src")));
}

fn words_found(sources: &[Source], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        let said = words.iter().filter(|word| source.says(word));
        found.extend(said.map(|word| format!("{}: `{word}` does not belong here", source.path)));
    }
    found
}

/// Returns the public items whose signature, or re-export, names `krate` or a type that the file imports from it.
fn foreign_types_shown(sources: &[Source], krate: &str) -> Vec<String> {
    let mut shown = Vec::new();
    for source in sources {
        let mut words = imported_types(&source.code, krate);
        words.push(krate.to_owned());
        for signature in public_signatures(&source.code) {
            let named = words.iter().filter(|word| says(&signature, word));
            shown.extend(named.map(|word| format!("{}: `{word}` of {krate} in `{signature}`", source.path)));
        }
    }
    shown
}

/// Returns the capitalised names that `use krate::…;` brings into a file.
fn imported_types(code: &str, krate: &str) -> Vec<String> {
    let imports = code.split(';').filter_map(|statement| statement.split_once(&format!("use {krate}::")));
    let mut names = Vec::new();
    for (_, path) in imports {
        let words = path.split(|c: char| !c.is_alphanumeric() && c != '_');
        names.extend(words.filter(|word| word.starts_with(char::is_uppercase)).map(str::to_owned));
    }
    names
}

/// Returns what a file shows to its users, an item a line: `pub` items, public fields, and conversions from other types.
fn public_signatures(code: &str) -> Vec<String> {
    let starts_word = |start: &usize| code[..*start].chars().next_back().is_none_or(|c| c.is_whitespace() || c == '(');
    let shown = ["pub ", "impl From<"].iter().flat_map(|word| code.match_indices(word));
    let starts = shown.map(|(start, _)| start).filter(starts_word);
    starts.map(|start| signature(&code[start..]).split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// Returns the part of an item that its users see, from its start.
fn signature(item: &str) -> &str {
    let until = |ends: &[&str]| ends.iter().filter_map(|end| item.find(end)).min().unwrap_or(item.len());
    let end = match item.split_whitespace().nth(1).unwrap_or_default() {
        "fn" | "async" | "const" | "unsafe" | "struct" | "union" | "static" | "mod" | "extern" => until(&["{", ";"]),
        // A list, or a type, up to its end.
        "use" | "type" => until(&[";"]),
        // Variants and methods carry no `pub` of their own: rustfmt closes an item's body in its own column, the first.
        "enum" | "trait" => until(&["\n}", "{}"]),
        _ if item.starts_with("impl") => until(&["{"]),
        // A field.
        _ => until(&[",\n", "}", ");"]),
    };
    &item[..end]
}

fn second_openers(sources: &[Source]) -> Vec<String> {
    let opens =
        |source: &&Source| ["Connection::open(", "Connection::open_with"].iter().any(|call| source.code.contains(call));
    let openers: Vec<&str> = sources.iter().filter(opens).map(|source| source.path.as_str()).collect();
    match openers.as_slice() {
        [] => Vec::new(),
        [only] if only.starts_with("actors/src/sqlite/") => Vec::new(),
        several => vec![format!(
            "connections are opened by one file of actors/src/sqlite alone, not by {}",
            several.join(", ")
        )],
    }
}

fn stores_named_in_shared(sources: &[Source]) -> Vec<String> {
    let is_shared = |source: &&Source| folder(source).is_some_and(|folder| SHARED.contains(&folder));
    sources.iter().filter(is_shared).flat_map(|source| stores_named(source, &STORES)).collect()
}

fn stores_named_in_stores(sources: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources {
        let Some(own) = folder(source).filter(|folder| STORES.contains(folder)) else { continue };
        let others: Vec<&str> = STORES.into_iter().filter(|store| *store != own).collect();
        broken.extend(stores_named(source, &others));
    }
    broken
}

fn stores_named(source: &Source, stores: &[&str]) -> Vec<String> {
    let named = stores.iter().filter(|store| says(&source.code, &format!("crate::{store}")));
    named.map(|store| format!("{}: names the store `{store}`", source.path)).collect()
}

/// Returns the folder or module of `larder-actors` that a file belongs to.
fn folder(source: &Source) -> Option<&str> {
    let path = source.path.strip_prefix("actors/src/")?;
    path.split('/').next().map(|name| name.trim_end_matches(".rs"))
}

#[test]
fn word_control_finds_the_word_in_code_alone() {
    let bad = Source::new("runtime/src/open.rs", "use rusqlite::Connection;");
    let good = Source::new("runtime/src/close.rs", "// rusqlite closes here\n");
    assert_eq!(words_found(&[bad, good], &["rusqlite"]), ["runtime/src/open.rs: `rusqlite` does not belong here"]);
}

#[test]
fn signature_control_finds_named_and_imported_types() {
    for code in [
        "pub fn actor(&self) -> kameo::actor::ActorRef<A> {",
        "use kameo::actor::{ActorRef, WeakActorRef};\npub async fn actor(\n    &self,\n) -> ActorRef<A> {",
        "use kameo::actor::ActorRef;\npub struct Larder {\n    pub actor: ActorRef<A>,\n}",
        "pub use kameo::{error::SendError, Actor};",
        "pub struct Shown(pub kameo::Reply);",
        "pub type Actor = kameo::actor::ActorRef<A>;",
        "pub enum Error {\n    Sent(kameo::error::SendError),\n}",
        "impl From<kameo::error::SendError> for Error {",
    ] {
        assert!(!foreign_types_shown(&[Source::new("runtime/src/lib.rs", code)], "kameo").is_empty(), "{code}");
    }
    for code in [
        "use kameo::actor::ActorRef;\npub(crate) fn actor(&self) -> ActorRef<A> {",
        "use kameo::actor::ActorRef;\npub struct Larder {\n    pub path: PathBuf,\n    actor: ActorRef<A>,\n}\nimpl A {",
        "use kameo::actor::Spawn;\npub fn open(path: &Path) -> Result<Larder, Error> { Spawn::spawn(1) }",
    ] {
        assert_eq!(foreign_types_shown(&[Source::new("runtime/src/lib.rs", code)], "kameo"), Vec::<String>::new());
    }
}

#[test]
fn opener_control_finds_a_second_file_and_a_wrong_one() {
    let home = Source::new("actors/src/sqlite/connection.rs", "Connection::open_with_flags(path, flags)");
    let stray = Source::new("actors/src/kv/queries.rs", "Connection::open(path)");
    assert!(second_openers(std::slice::from_ref(&home)).is_empty());
    assert_eq!(second_openers(&[home, stray.clone()]).len(), 1);
    assert_eq!(second_openers(&[stray]).len(), 1);
}

#[test]
fn store_control_finds_a_store_named_by_machinery_and_by_another_store() {
    let machinery = Source::new("actors/src/store/writer.rs", "use crate::kv::Kv;");
    let chat =
        Source::new("actors/src/chat/queries.rs", "use crate::kv::Kv; use crate::store::Store; use crate::chat::Chat;");
    let unit_test = Source::new("actors/src/store/writer.rs", "#[cfg(test)]\nmod tests { use crate::kv::Kv; }");
    assert_eq!(stores_named_in_shared(&[machinery]), ["actors/src/store/writer.rs: names the store `kv`"]);
    assert_eq!(stores_named_in_stores(&[chat]), ["actors/src/chat/queries.rs: names the store `kv`"]);
    assert!(stores_named_in_shared(&[unit_test]).is_empty());
}
