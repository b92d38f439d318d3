//! The architecture, kept by tests: which crate may depend on which, and which words may appear where.
//!
//! Start at [`manifests_keep_the_arrows`]; `sources` holds the rules about text that no lint can express.
//!
//! Always true: each rule is a plain function from facts to violations, and a test shows it a violation that it must name.

mod manifests;
mod sources;

use std::path::{Path, PathBuf};

/// Returns the root of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A Rust file of ours: its path from the root, with `/`, and its code without comments and unit tests.
#[derive(Debug, Clone, PartialEq)]
struct Source {
    path: String,
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), code: product_code(text) }
    }

    /// Returns whether `word` appears in the code, with no identifier character on either side.
    fn says(&self, word: &str) -> bool {
        says(&self.code, word)
    }
}

fn says(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(start, _)| {
        let before = text[..start].chars().next_back();
        let after = text[start + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

/// Returns the code without `//` comments, up to the module of unit tests, which stands at a file's end.
fn product_code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    code.lines().map(|line| line.split("//").next().unwrap_or_default().trim_end()).collect::<Vec<_>>().join("\n")
}

/// Returns every Rust file under `folder`, ordered by path.
#[expect(clippy::disallowed_methods, reason = "reads this repository's sources, never a store's file")]
fn sources_under(folder: &str) -> Vec<Source> {
    let mut folders = vec![root().join(folder)];
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("read {}: {e}", folder.display())) {
            let path = entry.expect("an entry of a folder that was just listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    assert!(!files.is_empty(), "{folder} holds no Rust file: the rules about it would pass unseen");
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        let name = path.strip_prefix(root()).expect("a file under the root").to_string_lossy().replace('\\', "/");
        Source::new(&name, &text)
    };
    files.iter().map(read).collect()
}

/// Fails with every violation at once.
fn assert_kept(violations: &[String]) {
    assert!(
        violations.is_empty(),
        "the architecture is broken in {} places:\n{}",
        violations.len(),
        violations.join("\n")
    );
}

#[test]
fn words_are_whole_and_comments_do_not_count() {
    assert!(says("use kameo::Actor;", "kameo") && !says("use kameo_macros::Actor;", "kameo"));
    assert!(says("a::rusqlite", "rusqlite") && !says("tokio_rusqlite", "rusqlite"));
    let source = Source::new("a.rs", "// kameo\nlet a = 1; // tokio\n#[cfg(test)]\nmod tests { use rusqlite; }");
    assert_eq!(source.code, "\nlet a = 1;");
}
