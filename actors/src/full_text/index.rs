//! A full-text index: an FTS5 table over a table of the store's, made by the tokenizer that a setting names.

use larder_protocol::Tokenizer;
use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

/// Every tokenizer that an index may have been made by.
const TOKENIZERS: [Tokenizer; 3] = [Tokenizer::Unicode, Tokenizer::Porter, Tokenizer::Trigram];

/// Pages of an index that one step of merging writes: a few milliseconds' work.
const MERGE_PAGES: i64 = 64;

/// A store's full-text index, by trusted names. It holds no texts itself: the store keeps it in step with its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextIndex {
    /// The FTS5 table.
    pub table: &'static str,
    /// Its columns, as in a `CREATE TABLE`.
    pub columns: &'static str,
    /// The table whose columns of the same names it indexes.
    pub content: &'static str,
    /// That table's integer key.
    pub key: &'static str,
    /// Selects what it indexes: the key, then the columns.
    pub rows: &'static str,
    /// What makes it.
    pub tokenizer: Tokenizer,
}

impl TextIndex {
    /// Makes the index where it is missing, and anew where another tokenizer made it, in one transaction.
    ///
    /// # Errors
    /// When SQLite fails; the index is then as it was.
    pub fn prepare(&self, connection: &mut Connection) -> rusqlite::Result<()> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found = self.declared(&transaction)?;
        match found {
            Some(sql) if sql == self.made_by(self.tokenizer) => return Ok(()),
            Some(sql) if self.maker(&sql).is_some() => {
                transaction.execute_batch(&format!("DROP TABLE {}", self.table))?
            }
            // Something else under its name: the file is refused when its schema is verified.
            Some(_) => return Ok(()),
            None => {}
        }
        let Self { table, columns, rows, .. } = self;
        transaction.execute_batch(&self.made_by(self.tokenizer))?;
        // So that `merge` leaves one segment a level, and not up to four.
        transaction.execute_batch(&format!("INSERT INTO {table} ({table}, rank) VALUES ('usermerge', 2)"))?;
        transaction.execute_batch(&format!("INSERT INTO {table} (rowid, {columns}) {rows}"))?;
        transaction.commit()
    }

    /// Returns which tokenizer made the index that is there; `None` where none is.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn tokenizer_found(&self, connection: &Connection) -> rusqlite::Result<Option<Tokenizer>> {
        Ok(self.declared(connection)?.and_then(|sql| self.maker(&sql)))
    }

    fn declared(&self, connection: &Connection) -> rusqlite::Result<Option<String>> {
        let sql = "SELECT sql FROM sqlite_schema WHERE name = ?1";
        connection.query_row(sql, [self.table], |row| row.get(0)).optional()
    }

    /// Returns the tokenizer by which `sql` makes the index.
    fn maker(&self, sql: &str) -> Option<Tokenizer> {
        TOKENIZERS.into_iter().find(|&tokenizer| sql == self.made_by(tokenizer))
    }

    /// Merges a few segments, and returns whether there may be more to merge. A search reads every segment, and FTS5 by itself
    /// leaves up to four a level.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn merge(&self, connection: &Connection) -> rusqlite::Result<bool> {
        let table = self.table;
        let before = connection.total_changes();
        let sql = format!("INSERT INTO {table} ({table}, rank) VALUES ('merge', ?1)");
        connection.prepare_cached(&sql)?.execute([MERGE_PAGES])?;
        // The command's own row counts as a change.
        Ok(connection.total_changes() - before >= 2)
    }

    fn made_by(&self, tokenizer: Tokenizer) -> String {
        let Self { table, columns, content, key, .. } = self;
        let tokenizer = fts5_name(tokenizer);
        format!(
            "CREATE VIRTUAL TABLE {table} USING fts5({columns}, content = '{content}', content_rowid = '{key}', tokenize = '{tokenizer}')"
        )
    }
}

/// Takes a content out of the index `table`, which holds no texts itself and so is told the old one: what `text`, a query with
/// the key as its parameter, answers, if anything. Both are trusted; to be called while the content still has its text.
///
/// # Errors
/// When SQLite fails.
pub(crate) fn remove(
    connection: &Connection,
    table: &'static str,
    text: &'static str,
    key: i64,
) -> rusqlite::Result<()> {
    let mut text = connection.prepare_cached(text)?;
    let mut rows = text.query([key])?;
    let Some(row) = rows.next()? else { return Ok(()) };
    // Not as `INSERT … SELECT`: SQLite makes a savepoint for that, at which FTS5 writes out a segment: replacing 20,000
    // nodes took 19 s.
    let sql = format!("INSERT INTO {table} ({table}, rowid, text) VALUES ('delete', ?1, ?2)");
    connection.prepare_cached(&sql)?.execute(params![key, ToSqlOutput::Borrowed(row.get_ref(0)?)])?;
    Ok(())
}

/// Returns a tokenizer as FTS5's option says it.
pub(super) fn fts5_name(tokenizer: Tokenizer) -> &'static str {
    match tokenizer {
        Tokenizer::Porter => "porter unicode61 remove_diacritics 2",
        Tokenizer::Trigram => "trigram remove_diacritics 1",
        _ => "unicode61 remove_diacritics 2",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: TextIndex = TextIndex {
        table: "body_text",
        columns: "text",
        content: "body",
        key: "id",
        rows: "SELECT id, text FROM body",
        tokenizer: Tokenizer::Unicode,
    };

    fn numbers(connection: &Connection, sql: &str) -> Vec<i64> {
        let mut statement = connection.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>().unwrap()
    }

    #[test]
    fn merging_leaves_few_segments_and_the_same_answers() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE body (id INTEGER PRIMARY KEY, text TEXT)").unwrap();
        INDEX.prepare(&mut connection).unwrap();
        let write = |id: i64| {
            let text = format!("text {id} of {}", id % 7);
            connection.execute("INSERT INTO body VALUES (?1, ?2)", params![id, text]).unwrap();
            connection.execute("INSERT INTO body_text (rowid, text) VALUES (?1, ?2)", params![id, text]).unwrap();
        };
        (0..60).for_each(write);
        let segments = || numbers(&connection, "SELECT DISTINCT segid FROM body_text_idx").len();
        let found = || numbers(&connection, "SELECT rowid FROM body_text('5') ORDER BY rank, rowid");
        let (before, answer) = (segments(), found());
        assert!(answer.len() == 8 && before > 4, "{before} segments");
        while INDEX.merge(&connection).unwrap() {}
        assert!(segments() <= 3, "{} segments of {before}", segments());
        assert_eq!(found(), answer);
        assert!(!INDEX.merge(&connection).unwrap(), "nothing is left to merge");
    }
}
