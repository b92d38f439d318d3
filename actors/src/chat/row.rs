//! One message as rows: its SQL, its decoding, and the checksum that every read verifies.
//!
//! Start at [`COLUMNS`] and [`read`].

use larder_protocol::chat::{ChatMessage, ContentBlock, MessageId, MessageTokens, Role, StoredMessage};
use larder_protocol::{ClientMessageId, Error as Kind, JsonText, StoreName, Timestamp};
use rusqlite::{Connection, Row, params};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::store::{Failure, Outcome};

/// The columns that [`read`] decodes, in its order.
pub(super) const COLUMNS: &str = "place.id, place.body_id, place.archived, place.pinned, place.summary, place.counter_id, \
     place.text_tokens, place.spaced_text_tokens, place.cost_tokens, place.ends_blank, place.holds_control_token, \
     body.role, body.text, body.blocks, body.name, body.metadata, body.extra, body.client_id, body.created_ms, body.checksum";

/// What [`COLUMNS`] are selected from: places first, since every query names a session.
pub(super) const SOURCE: &str = "place CROSS JOIN body ON body.id = place.body_id";

/// The same for mandatory messages. By name: SQLite would walk the whole session, which its key finds as well.
pub(super) const MANDATORY_SOURCE: &str = "place INDEXED BY place_mandatory CROSS JOIN body ON body.id = place.body_id";

/// A message as its rows say it, verified.
#[derive(Debug)]
pub(super) struct ReadMessage {
    pub(super) stored: StoredMessage,
    /// Who counted. `None`: it was not counted yet.
    pub(super) counter_id: Option<i64>,
    pub(super) tokens: MessageTokens,
}

/// A message's content as the columns of `body`.
pub(super) struct Body {
    pub(super) role: String,
    pub(super) text: Option<String>,
    blocks: Option<String>,
    name: Option<String>,
    metadata: Option<String>,
    extra: Option<String>,
    pub(super) client_id: Option<String>,
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
            self.checksum(id),
        ])?;
        if let Some(text) = &self.text {
            connection
                .prepare_cached("INSERT INTO body_text (rowid, text) VALUES (?1, ?2)")?
                .execute(params![id, text])?;
        }
        Ok(())
    }

    /// Each part seeds the next one's hash, so that a byte that moves from one to the other is noticed.
    fn checksum(&self, id: u64) -> i64 {
        let parts = [
            Some(&self.role),
            self.text.as_ref(),
            self.blocks.as_ref(),
            self.name.as_ref(),
            self.metadata.as_ref(),
            self.extra.as_ref(),
            self.client_id.as_ref(),
        ];
        let seed = xxh3_64_with_seed(&self.created_ms.to_le_bytes(), id);
        // A missing part is not an empty one.
        let next = |seed, part: Option<&String>| part.map_or(seed ^ 1, |part| xxh3_64_with_seed(part.as_bytes(), seed));
        parts.into_iter().fold(seed, next).cast_signed()
    }

    fn into_message(self) -> Result<ChatMessage, Kind> {
        let json = |text: Option<String>| text.map(JsonText::new).transpose();
        let blocks = match self.blocks {
            Some(blocks) => serde_json::from_str(&blocks)
                .map_err(|e| Kind::invalid("blocks", format!("they cannot be read at column {}", e.column())))?,
            None => vec![ContentBlock::text(self.text.unwrap_or_default())],
        };
        Ok(ChatMessage {
            role: Role::from(self.role),
            blocks,
            name: self.name,
            metadata: json(self.metadata)?,
            extra: json(self.extra)?,
            created: Some(Timestamp(self.created_ms)),
            client_id: self.client_id.map(ClientMessageId::new).transpose()?,
        })
    }
}

fn blocks_json(blocks: &[ContentBlock]) -> Outcome<String> {
    serde_json::to_string(blocks).map_err(|_| Kind::invalid("message", "its parts have no JSON form").into())
}

/// Decodes the columns of [`COLUMNS`], which begin at `first`, and verifies them.
pub(super) fn read(row: &Row<'_>, first: usize) -> Outcome<ReadMessage> {
    let (id, body_id): (u64, u64) = (row.get(first)?, row.get(first + 1)?);
    // Bytes that are no text are this message's damage, and not the file's.
    let body = read_body(row, first + 11).map_err(|_| corrupt(id, "cannot be read"))?;
    if body.checksum(body_id) != row.get::<_, i64>(first + 19)? {
        return Err(corrupt(id, "does not match its checksum"));
    }
    let counter_id: Option<i64> = row.get(first + 5)?;
    let tokens = MessageTokens {
        text: row.get(first + 6)?,
        spaced_text: row.get(first + 7)?,
        cost: row.get(first + 8)?,
        ends_blank: row.get(first + 9)?,
        holds_control_token: row.get(first + 10)?,
    };
    let stored = StoredMessage {
        id: MessageId(id),
        message: body.into_message().map_err(|_| corrupt(id, "cannot be read"))?,
        revision: body_id,
        tokens: counter_id.map(|_| tokens.cost),
        pinned: row.get(first + 3)?,
        summary: row.get(first + 4)?,
        archived: row.get(first + 2)?,
    };
    Ok(ReadMessage { stored, counter_id, tokens })
}

fn read_body(row: &Row<'_>, first: usize) -> rusqlite::Result<Body> {
    Ok(Body {
        role: row.get(first)?,
        text: row.get(first + 1)?,
        blocks: row.get(first + 2)?,
        name: row.get(first + 3)?,
        metadata: row.get(first + 4)?,
        extra: row.get(first + 5)?,
        client_id: row.get(first + 6)?,
        created_ms: row.get(first + 7)?,
    })
}

fn corrupt(id: u64, what: &str) -> Failure {
    Kind::Corrupt {
        store: StoreName::Chat,
        detail: format!("the message {id} {what}"),
        written: larder_protocol::Written::NotApplied,
    }
    .into()
}

/// Reads all rows of a query that selects [`COLUMNS`] first.
pub(super) fn read_all(
    connection: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
) -> Outcome<Vec<ReadMessage>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(parameters)?;
    let mut messages = Vec::new();
    while let Some(row) = rows.next()? {
        messages.push(read(row, 0)?);
    }
    Ok(messages)
}

/// Deletes a body that no session holds any more, with its entry in the index.
pub(super) fn release(connection: &Connection, body_id: u64) -> rusqlite::Result<()> {
    let is_held: bool = connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM place WHERE body_id = ?1)")?
        .query_row([body_id], |row| row.get(0))?;
    if is_held {
        return Ok(());
    }
    // FTS5 is told what the text was, since the index holds no texts.
    connection
        .prepare_cached(
            "INSERT INTO body_text (body_text, rowid, text)
             SELECT 'delete', id, text FROM body WHERE id = ?1 AND text IS NOT NULL",
        )?
        .execute([body_id])?;
    connection.prepare_cached("DELETE FROM body WHERE id = ?1")?.execute([body_id])?;
    Ok(())
}
