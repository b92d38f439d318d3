//! The full-text index: three tables of which one is in use, by the tokenizer that the store began with.
//!
//! Start at [`TextIndex`].
//!
//! Always true: the table in use holds exactly the rows of `node` that have a text; it keeps no copy of them, so FTS5 is
//! told the old text whenever one goes.

use larder_protocol::documents::ReindexTexts;
use rusqlite::{Connection, OptionalExtension, params};

use super::row::damaged;
use super::store::Writing;
use crate::full_text::Tokenizer;
use crate::store::Outcome;

/// The table in use.
#[derive(Debug, Clone, Copy)]
pub(super) struct TextIndex {
    pub(super) tokenizer: Tokenizer,
}

impl TextIndex {
    /// Returns the index in use. `None`: nothing was ever put.
    pub(super) fn find(connection: &Connection) -> Outcome<Option<Self>> {
        let mut statement = connection.prepare_cached("SELECT tokenizer FROM text_index WHERE id = 1")?;
        let Some(name) = statement.query_row([], |row| row.get::<_, String>(0)).optional()? else { return Ok(None) };
        let known = Tokenizer::ALL.into_iter().find(|tokenizer| tokenizer.as_str() == name);
        known.map(|tokenizer| Some(Self { tokenizer })).ok_or_else(|| damaged("its tokenizer is unknown".to_owned()))
    }

    /// Returns the index in use; the first time that is the one of the settings.
    pub(super) fn find_or_begin(context: &Writing<'_>) -> Outcome<Self> {
        if let Some(found) = Self::find(context.connection)? {
            return Ok(found);
        }
        let tokenizer = context.settings.tokenizer;
        begin(context.connection, tokenizer)?;
        Ok(Self { tokenizer })
    }

    /// The table's name.
    pub(super) fn table(self) -> &'static str {
        match self.tokenizer {
            Tokenizer::Unicode => "node_text_unicode",
            Tokenizer::Porter => "node_text_porter",
            Tokenizer::Trigram => "node_text_trigram",
        }
    }

    /// Adds a node's text.
    pub(super) fn insert(self, connection: &Connection, key: i64, text: &str) -> rusqlite::Result<()> {
        let sql = match self.tokenizer {
            Tokenizer::Unicode => "INSERT INTO node_text_unicode (rowid, text) VALUES (?1, ?2)",
            Tokenizer::Porter => "INSERT INTO node_text_porter (rowid, text) VALUES (?1, ?2)",
            Tokenizer::Trigram => "INSERT INTO node_text_trigram (rowid, text) VALUES (?1, ?2)",
        };
        connection.prepare_cached(sql)?.execute(params![key, text])?;
        Ok(())
    }

    /// Removes a node's text; to be called while the node still has it.
    pub(super) fn delete(self, connection: &Connection, key: i64) -> rusqlite::Result<()> {
        let table = self.table();
        let sql = format!(
            "INSERT INTO {table} ({table}, rowid, text)
             SELECT 'delete', key, text FROM node WHERE key = ?1 AND text IS NOT NULL"
        );
        connection.prepare_cached(&sql)?.execute([key])?;
        Ok(())
    }
}

fn begin(connection: &Connection, tokenizer: Tokenizer) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO text_index (id, tokenizer) VALUES (1, ?1)")?
        .execute([tokenizer.as_str()])?;
    Ok(())
}

pub(super) fn reindex(context: &mut Writing<'_>, _: &ReindexTexts) -> Outcome<u64> {
    let connection = context.connection;
    if let Some(old) = TextIndex::find(connection)? {
        let table = old.table();
        connection.execute_batch(&format!("INSERT INTO {table} ({table}) VALUES ('delete-all')"))?;
    }
    let new = TextIndex { tokenizer: context.settings.tokenizer };
    begin(connection, new.tokenizer)?;
    let sql = format!("INSERT INTO {} (rowid, text) SELECT key, text FROM node WHERE text IS NOT NULL", new.table());
    let text_count = connection.prepare_cached(&sql)?.execute([])?;
    context.changed_all("reindex", "");
    Ok(text_count as u64)
}
