//! The full-text index over the nodes' texts.
//!
//! Always true: it holds exactly the rows of `node` that have a text; it keeps no copy of them, so FTS5 is told the old
//! text whenever one goes.

use rusqlite::{Connection, params};

use super::store::DocumentsSettings;
use crate::full_text::{self, TextIndex};

/// Its name.
pub(super) const TABLE: &str = "node_text";

/// What must be in it, for the check.
pub(super) const TEXTS: &str = "SELECT key AS id FROM node WHERE text IS NOT NULL";

/// Returns the index as the settings want it.
pub(super) fn declaration(settings: &DocumentsSettings) -> TextIndex {
    TextIndex {
        table: TABLE,
        columns: "text",
        content: "node",
        key: "key",
        rows: "SELECT key, text FROM node WHERE text IS NOT NULL",
        tokenizer: settings.tokenizer,
    }
}

/// Adds a node's text.
pub(super) fn insert(connection: &Connection, key: i64, text: &str) -> rusqlite::Result<()> {
    connection.prepare_cached("INSERT INTO node_text (rowid, text) VALUES (?1, ?2)")?.execute(params![key, text])?;
    Ok(())
}

/// Removes a node's text; to be called while the node still has it.
pub(super) fn delete(connection: &Connection, key: i64) -> rusqlite::Result<()> {
    full_text::remove(connection, TABLE, "SELECT text FROM node WHERE key = ?1 AND text IS NOT NULL", key)
}
