//! Documents as rows, without their nodes.
//!
//! Start at [`find`]. A document that is deleted loses its id at once and its rows bit by bit, in `delete`.

use larder_protocol::documents::{ContentHash, Document, GetDocument, GetDocumentText, IngestionState, StoredDocument};
use larder_protocol::{DocumentId, Error as Kind, JsonText, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::row::{damaged, shown};
use super::store::Reading;
use crate::store::{Outcome, decoded};

/// The columns that [`read`] decodes, in its order.
pub(super) const COLUMNS: &str = "document.key, document.id, document.state, document.hash, document.attempted_hash, \
     document.failure, document.failure_count, document.fingerprint, document.metadata, document.node_count, \
     document.created_ms, document.updated_ms, document.checksum";

/// How many they are.
pub(super) const COLUMN_COUNT: usize = 13;

/// The document that nodes belong to which stand alone.
pub(super) const ALONE: i64 = 0;

const BEGUN: i64 = 0;
const DONE: i64 = 1;
const FAILED: i64 = 2;

/// A document with its key.
#[derive(Debug, Clone)]
pub(super) struct DocumentRow {
    pub(super) key: i64,
    pub(super) document: StoredDocument,
}

pub(super) fn find(connection: &Connection, id: &DocumentId) -> Outcome<Option<DocumentRow>> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM document WHERE id = ?1"))?;
    let mut rows = statement.query([id.as_str()])?;
    rows.next()?.map(read).transpose()
}

/// Returns the key of the document that nodes go to. `None`: they stand alone.
pub(super) fn find_key(connection: &Connection, id: Option<&DocumentId>) -> Outcome<Option<i64>> {
    let Some(id) = id else { return Ok(Some(ALONE)) };
    let mut statement = connection.prepare_cached("SELECT key FROM document WHERE id = ?1")?;
    Ok(statement.query_row([id.as_str()], |row| row.get(0)).optional()?)
}

/// The same for one that must be there.
pub(super) fn require_key(connection: &Connection, id: Option<&DocumentId>) -> Outcome<i64> {
    let not_found = || Kind::NotFound { what: format!("document {:?}", id.map_or("", DocumentId::as_str)) };
    find_key(connection, id)?.ok_or_else(|| not_found().into())
}

/// Decodes the columns of [`COLUMNS`], which begin at the first, and verifies them.
pub(super) fn read(row: &Row<'_>) -> Outcome<DocumentRow> {
    decoded(decode(row), || damaged(format!("the document {}", shown(row, 1))))
}

/// Returns the row's document; `None` when it is not what was written.
fn decode(row: &Row<'_>) -> rusqlite::Result<Option<DocumentRow>> {
    let key: i64 = row.get(0)?;
    let columns = DocumentColumns {
        id: row.get(1)?,
        state: row.get(2)?,
        hash: row.get(3)?,
        attempted_hash: row.get(4)?,
        failure: row.get(5)?,
        failure_count: row.get(6)?,
        fingerprint: row.get(7)?,
        metadata: row.get(8)?,
        created_ms: row.get(10)?,
    };
    if columns.checksum(key) != row.get::<_, i64>(12)? {
        return Ok(None);
    }
    let document = columns.into_document(row.get(9)?, Timestamp(row.get(11)?)).ok();
    Ok(document.map(|document| DocumentRow { key, document }))
}

/// A document's columns but its key, its count and the time of its last change.
#[derive(Debug, Clone)]
struct DocumentColumns {
    id: String,
    state: i64,
    hash: Option<[u8; 32]>,
    attempted_hash: Option<[u8; 32]>,
    failure: Option<String>,
    failure_count: u32,
    fingerprint: Option<String>,
    metadata: Option<String>,
    created_ms: i64,
}

impl DocumentColumns {
    fn of(document: &StoredDocument) -> Self {
        let (state, attempted_hash, failure, failure_count) = match &document.state {
            IngestionState::Done => (DONE, None, None, 0),
            IngestionState::Begun { hash } => (BEGUN, Some(hash.0), None, 0),
            IngestionState::Failed { hash, reason, failure_count } => {
                (FAILED, Some(hash.0), Some(reason.clone()), *failure_count)
            }
        };
        Self {
            id: document.id.as_str().to_owned(),
            state,
            hash: document.hash.map(|hash| hash.0),
            attempted_hash,
            failure,
            failure_count,
            fingerprint: document.fingerprint.clone(),
            metadata: document.metadata.as_ref().map(|json| json.as_str().to_owned()),
            created_ms: document.created.0,
        }
    }

    fn into_document(self, node_count: u64, updated: Timestamp) -> Result<StoredDocument, Kind> {
        let state = match (self.state, self.attempted_hash.map(ContentHash)) {
            (DONE, None) => IngestionState::Done,
            (BEGUN, Some(hash)) => IngestionState::Begun { hash },
            (FAILED, Some(hash)) => {
                let reason = self.failure.unwrap_or_default();
                IngestionState::Failed { hash, reason, failure_count: self.failure_count }
            }
            _ => return Err(Kind::invalid("document", "its state is unknown")),
        };
        Ok(StoredDocument {
            id: DocumentId::new(self.id)?,
            hash: self.hash.map(ContentHash),
            state,
            node_count,
            fingerprint: self.fingerprint,
            metadata: self.metadata.map(JsonText::from_stored),
            created: Timestamp(self.created_ms),
            updated,
        })
    }

    /// Each part seeds the next one's hash.
    fn checksum(&self, key: i64) -> i64 {
        let numbers = [self.state, i64::from(self.failure_count), self.created_ms];
        let number = |seed, number: i64| xxh3_64_with_seed(&number.to_le_bytes(), seed);
        let seed = numbers.into_iter().fold(key.cast_unsigned(), number);
        let parts = [
            Some(self.id.as_bytes()),
            self.hash.as_ref().map(<[u8; 32]>::as_slice),
            self.attempted_hash.as_ref().map(<[u8; 32]>::as_slice),
            self.failure.as_ref().map(String::as_bytes),
            self.fingerprint.as_ref().map(String::as_bytes),
            self.metadata.as_ref().map(String::as_bytes),
        ];
        // A missing part is not an empty one.
        let next = |seed, part: Option<&[u8]>| part.map_or(seed ^ 1, |part| xxh3_64_with_seed(part, seed));
        parts.into_iter().fold(seed, next).cast_signed()
    }
}

/// Returns a document of which only the id is known yet.
pub(super) fn unknown(id: &DocumentId, now: Timestamp) -> StoredDocument {
    StoredDocument {
        id: id.clone(),
        hash: None,
        state: IngestionState::Done,
        node_count: 0,
        fingerprint: None,
        metadata: None,
        created: now,
        updated: now,
    }
}

/// Makes a row; answers its key.
pub(super) fn insert(connection: &Connection, document: &StoredDocument) -> rusqlite::Result<i64> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO document (id, state, failure_count, node_count, created_ms, updated_ms, checksum)
         VALUES (?1, 1, 0, 0, ?2, ?2, 0)",
    )?;
    let key = statement.insert(params![document.id.as_str(), document.created.0])?;
    update(connection, key, document)?;
    Ok(key)
}

pub(super) fn update(connection: &Connection, key: i64, document: &StoredDocument) -> rusqlite::Result<()> {
    let columns = DocumentColumns::of(document);
    let mut statement = connection.prepare_cached(
        "UPDATE document SET state = ?2, hash = ?3, attempted_hash = ?4, failure = ?5, failure_count = ?6,
             fingerprint = ?7, metadata = ?8, node_count = ?9, updated_ms = ?10, checksum = ?11
         WHERE key = ?1",
    )?;
    statement.execute(params![
        key,
        columns.state,
        columns.hash,
        columns.attempted_hash,
        columns.failure,
        columns.failure_count,
        columns.fingerprint,
        columns.metadata,
        document.node_count,
        document.updated.0,
        columns.checksum(key),
    ])?;
    Ok(())
}

/// Brings a document's number of nodes up to date.
pub(super) fn adjust(connection: &Connection, key: i64, nodes: i64) -> rusqlite::Result<()> {
    if nodes != 0 {
        connection
            .prepare_cached("UPDATE document SET node_count = node_count + ?2 WHERE key = ?1")?
            .execute(params![key, nodes])?;
    }
    Ok(())
}

/// Takes a document's id away: it and its nodes are gone for every reader, and it belongs to no context.
pub(super) fn remove_id(connection: &Connection, key: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM ingested WHERE document_key = ?1")?.execute([key])?;
    connection.prepare_cached("UPDATE document SET id = NULL, hash = NULL WHERE key = ?1")?.execute([key])?;
    Ok(())
}

/// Keeps the document's text, or no longer.
pub(super) fn put_text(connection: &Connection, key: i64, document: &Document) -> rusqlite::Result<()> {
    match &document.text {
        None => connection.prepare_cached("DELETE FROM source_text WHERE document_key = ?1")?.execute([key])?,
        Some(text) => connection
            .prepare_cached("INSERT OR REPLACE INTO source_text (document_key, text, checksum) VALUES (?1, ?2, ?3)")?
            .execute(params![key, text, text_checksum(key, text)])?,
    };
    Ok(())
}

fn text_checksum(key: i64, text: &str) -> i64 {
    xxh3_64_with_seed(text.as_bytes(), key.cast_unsigned()).cast_signed()
}

pub(super) fn get(context: &Reading<'_>, message: &GetDocument) -> Outcome<Option<StoredDocument>> {
    Ok(find(context.connection, &message.id)?.map(|found| found.document))
}

pub(super) fn get_text(context: &Reading<'_>, message: &GetDocumentText) -> Outcome<Option<String>> {
    let mut statement = context.connection.prepare_cached(
        "SELECT document.key, source_text.text, source_text.checksum
         FROM document CROSS JOIN source_text ON source_text.document_key = document.key WHERE document.id = ?1",
    )?;
    let mut rows = statement.query([message.id.as_str()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    read_text(row, 0).map(Some)
}

/// Decodes a document's key, its text and the text's checksum, and verifies them.
pub(super) fn read_text(row: &Row<'_>, first: usize) -> Outcome<String> {
    let key: i64 = row.get(first)?;
    let read = || {
        let text: String = row.get(first + 1)?;
        let is_intact = text_checksum(key, &text) == row.get::<_, i64>(first + 2)?;
        Ok(is_intact.then_some(text))
    };
    decoded(read(), || damaged(format!("the text of the document with key {key}")))
}
