//! A message's content: its row, its text in the index, and the checksum that every read verifies.
//!
//! Start at [`Body`]; [`Columns`] is the same as it stands in a row.
//!
//! Always true: a body is never updated; it goes with the last place that holds it.

use larder_protocol::chat::{ChatMessage, ContentBlock, Role};
use larder_protocol::{ClientMessageId, Error as Kind, JsonText, Timestamp};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::full_text;
use crate::store::Outcome;

/// A message's content to be stored.
pub(super) struct Body {
    role: String,
    text: Option<String>,
    blocks: Option<String>,
    name: Option<String>,
    metadata: Option<String>,
    extra: Option<String>,
    client_id: Option<String>,
    created_ms: i64,
}

impl Body {
    /// Returns the columns of a message; `now` where it has no time of its own.
    pub(super) fn of(message: &ChatMessage, now: Timestamp) -> Outcome<Self> {
        let json = |json: &Option<JsonText>| json.as_ref().map(|json| json.as_str().to_owned());
        let is_plain = matches!(message.blocks.as_slice(), [ContentBlock::Text { extra: None, .. }]);
        let blocks = if is_plain { None } else { Some(blocks_json(&message.blocks)?) };
        Ok(Self {
            role: message.role.as_str().to_owned(),
            text: message.text(),
            blocks,
            name: message.name.clone(),
            metadata: json(&message.metadata),
            extra: json(&message.extra),
            client_id: message.client_id.as_ref().map(|id| id.as_str().to_owned()),
            created_ms: message.created.unwrap_or(now).0,
        })
    }

    /// Stores it under an id of its own, and indexes its text.
    pub(super) fn insert(&self, connection: &Connection, id: u64) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(
            "INSERT INTO body (id, role, text, blocks, name, metadata, extra, client_id, created_ms, checksum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?;
        statement.execute(params![
            id,
            self.role,
            self.text,
            self.blocks,
            self.name,
            self.metadata,
            self.extra,
            self.client_id,
            self.created_ms,
            self.columns().checksum(id),
        ])?;
        if let Some(text) = &self.text {
            connection
                .prepare_cached("INSERT INTO body_text (rowid, text) VALUES (?1, ?2)")?
                .execute(params![id, text])?;
        }
        Ok(())
    }

    fn columns(&self) -> Columns<'_> {
        fn bytes(text: Option<&String>) -> Option<&[u8]> {
            text.map(String::as_bytes)
        }
        Columns {
            role: self.role.as_bytes(),
            text: bytes(self.text.as_ref()),
            blocks: bytes(self.blocks.as_ref()),
            name: bytes(self.name.as_ref()),
            metadata: bytes(self.metadata.as_ref()),
            extra: bytes(self.extra.as_ref()),
            client_id: bytes(self.client_id.as_ref()),
            created_ms: self.created_ms,
        }
    }
}

fn blocks_json(blocks: &[ContentBlock]) -> Outcome<String> {
    serde_json::to_string(blocks).map_err(|_| Kind::invalid("message", "its parts have no JSON form").into())
}

/// How many columns [`Columns::read`] decodes.
pub(super) const COLUMN_COUNT: usize = 9;

/// A content as it stands in its row: nothing is copied, or taken for text, before it is verified.
pub(super) struct Columns<'a> {
    role: &'a [u8],
    text: Option<&'a [u8]>,
    blocks: Option<&'a [u8]>,
    name: Option<&'a [u8]>,
    metadata: Option<&'a [u8]>,
    extra: Option<&'a [u8]>,
    client_id: Option<&'a [u8]>,
    created_ms: i64,
}

impl<'a> Columns<'a> {
    /// Returns the last columns of [`row::COLUMNS`](super::row::COLUMNS), which begin at `first`; `None` when they do not
    /// match their checksum.
    #[inline]
    pub(super) fn read(row: &'a Row<'_>, first: usize, id: u64) -> rusqlite::Result<Option<Self>> {
        let columns = Self {
            role: text(row, first)?.unwrap_or_default(),
            text: text(row, first + 1)?,
            blocks: text(row, first + 2)?,
            name: text(row, first + 3)?,
            metadata: text(row, first + 4)?,
            extra: text(row, first + 5)?,
            client_id: text(row, first + 6)?,
            created_ms: row.get(first + 7)?,
        };
        let is_intact = columns.checksum(id) == row.get::<_, i64>(first + 8)?;
        Ok(is_intact.then_some(columns))
    }

    /// Each part seeds the next one's hash, so that a byte that moves from one to the other is noticed.
    fn checksum(&self, id: u64) -> i64 {
        let parts = [Some(self.role), self.text, self.blocks, self.name, self.metadata, self.extra, self.client_id];
        let seed = xxh3_64_with_seed(&self.created_ms.to_le_bytes(), id);
        // A missing part is not an empty one.
        let next = |seed, part: Option<&[u8]>| part.map_or(seed ^ 1, |part| xxh3_64_with_seed(part, seed));
        parts.into_iter().fold(seed, next).cast_signed()
    }

    /// Returns the message; `None` when a part of it cannot be read, which a checksum that matches should rule out.
    #[inline]
    pub(super) fn to_message(&self) -> Option<ChatMessage> {
        let blocks = match self.blocks {
            Some(blocks) => serde_json::from_slice(blocks).ok()?,
            None => vec![ContentBlock::text(str::from_utf8(self.text.unwrap_or_default()).ok()?)],
        };
        Some(ChatMessage {
            role: Role::from(str::from_utf8(self.role).ok()?),
            blocks,
            name: part(self.name, |name| Some(name.to_owned()))?,
            metadata: part(self.metadata, |json| JsonText::new(json).ok())?,
            extra: part(self.extra, |json| JsonText::new(json).ok())?,
            created: Some(Timestamp(self.created_ms)),
            client_id: part(self.client_id, |id| ClientMessageId::new(id).ok())?,
        })
    }
}

/// Returns a text column's bytes; `None` for NULL.
fn text<'a>(row: &'a Row<'_>, column: usize) -> rusqlite::Result<Option<&'a [u8]>> {
    match row.get_ref(column)? {
        ValueRef::Text(bytes) => Ok(Some(bytes)),
        ValueRef::Null => Ok(None),
        other => Err(rusqlite::Error::InvalidColumnType(column, String::new(), other.data_type())),
    }
}

/// Reads a part that may be missing; the outer `None`: it is there and cannot be read.
fn part<T>(bytes: Option<&[u8]>, read: impl FnOnce(&str) -> Option<T>) -> Option<Option<T>> {
    match bytes {
        None => Some(None),
        Some(bytes) => read(str::from_utf8(bytes).ok()?).map(Some),
    }
}

/// Deletes a body that no session holds any more, with its entry in the index.
pub(super) fn release(connection: &Connection, body_id: u64) -> rusqlite::Result<()> {
    let is_held: bool = connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM place WHERE body_id = ?1)")?
        .query_row([body_id], |row| row.get(0))?;
    if is_held {
        return Ok(());
    }
    let text = "SELECT text FROM body WHERE id = ?1 AND text IS NOT NULL";
    full_text::remove(connection, "body_text", text, body_id.cast_signed())?;
    connection.prepare_cached("DELETE FROM body WHERE id = ?1")?.execute([body_id])?;
    Ok(())
}
