//! What several test modules share.

pub(crate) mod child;

use std::path::Path;

/// Returns a number that an environment variable may set, for sizes beyond the test's own.
pub(crate) fn number_from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Returns what SQLite's own full check says of a store's file; `ok` alone is good. The folder must be closed.
#[expect(clippy::disallowed_methods, reason = "a look from outside, through SQLite, at a folder that is closed")]
pub(crate) fn integrity_check(file: &Path) -> Vec<String> {
    let connection = rusqlite::Connection::open(file).unwrap();
    let mut statement = connection.prepare("PRAGMA integrity_check").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>().unwrap()
}
