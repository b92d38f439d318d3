//! The one schema and the statements of the SQLite peers but larder: what a competent user would write.

/// A table of messages with their token counts, and a full-text index over it.
pub const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS message (
        id INTEGER PRIMARY KEY, session TEXT NOT NULL, role TEXT NOT NULL, text TEXT NOT NULL, tokens INTEGER NOT NULL,
        created INTEGER NOT NULL);
    CREATE INDEX IF NOT EXISTS message_by_session ON message (session, id);
    CREATE VIRTUAL TABLE IF NOT EXISTS message_text USING fts5 (text, content = 'message', content_rowid = 'id');";
/// Parameters: session, role, text, tokens, milliseconds since 1970. Answers the id.
pub const APPEND: &str =
    "INSERT INTO message (session, role, text, tokens, created) VALUES (?1, ?2, ?3, ?4, ?5) RETURNING id";
/// Parameters: id, text.
pub const INDEX: &str = "INSERT INTO message_text (rowid, text) VALUES (?1, ?2)";
/// From the newest message on, as many rows as are read.
pub const NEWEST: &str = "SELECT role, text, tokens FROM message WHERE session = ?1 ORDER BY id DESC";
/// Parameters: a word in quotes, session, limit.
pub const SEARCH: &str = "SELECT message.text FROM message_text JOIN message ON message.id = message_text.rowid
    WHERE message_text MATCH ?1 AND message.session = ?2 ORDER BY message_text.rank LIMIT ?3";
pub const COUNT: &str = "SELECT count(*) FROM message WHERE session = ?1";
