//! The one schema, the statements and the settings of every SQLite peer but larder: what a competent user would write.
//!
//! Page size and cache are larder's (`actors/src/sqlite/`): change them here when they change there.

use crate::peer::Durability;

/// Of `raw`, tokio-rusqlite, deadpool and sqlx. A rowid table, since values of 1 KiB and more overflow in `WITHOUT ROWID`.
pub const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value BLOB NOT NULL, \
                          version INTEGER NOT NULL, updated INTEGER NOT NULL)";
/// Parameters: key, value, milliseconds since 1970.
pub const PUT: &str = "INSERT INTO entries (key, value, version, updated) VALUES (?1, ?2, 1, ?3) ON CONFLICT (key) DO \
                       UPDATE SET value = excluded.value, version = version + 1, updated = excluded.updated";
pub const GET: &str = "SELECT value FROM entries WHERE key = ?1";
pub const DELETE: &str = "DELETE FROM entries WHERE key = ?1";
pub const SCAN: &str = "SELECT key, value FROM entries WHERE key >= ?1 ORDER BY key LIMIT ?2";

pub const PAGE_BYTES: u32 = 4_096;
/// Of each connection.
pub const CACHE_KIB: i64 = 16_384;
/// Stock. It decides what `raw` can do: see "Choices" in README.md before quoting larder against it.
pub const WAL_AUTOCHECKPOINT_PAGES: u32 = 1_000;
/// How long a connection waits for another's write transaction, so that no peer has to retry.
pub const BUSY_TIMEOUT_MS: u32 = 60_000;

/// The `synchronous` level.
#[must_use]
pub const fn synchronous(durability: Durability) -> &'static str {
    match durability {
        Durability::Durable => "FULL",
        Durability::Relaxed => "NORMAL",
    }
}

/// What every connection runs first.
#[must_use]
pub fn pragmas(durability: Durability) -> String {
    format!(
        "PRAGMA page_size = {PAGE_BYTES}; PRAGMA journal_mode = WAL; PRAGMA synchronous = {}; \
         PRAGMA cache_size = -{CACHE_KIB}; PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}; \
         PRAGMA wal_autocheckpoint = {WAL_AUTOCHECKPOINT_PAGES};",
        synchronous(durability)
    )
}

/// What the head of the output says of all SQLite peers.
#[must_use]
pub fn head() -> String {
    format!(
        "pages of {PAGE_BYTES} B, cache {CACHE_KIB} KiB, checkpoint in a commit every {WAL_AUTOCHECKPOINT_PAGES} pages (all but larder)"
    )
}

/// What `durable` and `relaxed` mean for SQLite in WAL mode.
pub const DURABLE: &str = "WAL, synchronous=FULL: each commit is synced";
pub const RELAXED: &str = "WAL, synchronous=NORMAL: a crash of the process loses nothing, a power cut may lose the newest \
                           commits, never consistency";
