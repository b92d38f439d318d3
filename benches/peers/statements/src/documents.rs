//! The documents run by hand: the rows, indexes and full-text index that larder keeps, without what larder does around them.

use std::path::Path;

use peer_harness::documents::Hit;
use peer_harness::documents::entry::Chunk;
use peer_harness::kv::sqlite;
use peer_harness::peer::Durability;
use rusqlite::{Connection, OptionalExtension, Result, TransactionBehavior, params};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS document (
        key INTEGER PRIMARY KEY, id TEXT UNIQUE, state INTEGER NOT NULL, hash BLOB, node_count INTEGER NOT NULL,
        created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL);
    CREATE INDEX IF NOT EXISTS document_by_hash ON document (hash);
    CREATE TABLE IF NOT EXISTS node (
        key INTEGER PRIMARY KEY, id TEXT NOT NULL, document_key INTEGER NOT NULL, position INTEGER NOT NULL,
        kind INTEGER NOT NULL, hash BLOB NOT NULL, created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL,
        checksum INTEGER NOT NULL, span_start INTEGER, span_end INTEGER, previous TEXT, next TEXT, parent TEXT,
        children TEXT, metadata TEXT, content TEXT, text TEXT);
    CREATE UNIQUE INDEX IF NOT EXISTS node_by_id ON node (id, document_key);
    CREATE INDEX IF NOT EXISTS node_by_document ON node (document_key, position);
    CREATE INDEX IF NOT EXISTS node_by_hash ON node (substr(hash, 1, 8));
    CREATE VIRTUAL TABLE IF NOT EXISTS node_text USING fts5 (
        text, content = 'node', content_rowid = 'key', tokenize = 'unicode61 remove_diacritics 2');";

/// Opens the file with the settings all SQLite peers share, and creates the tables.
///
/// # Errors
/// SQLite's.
pub fn open(folder: &Path, durability: Durability) -> Result<Connection> {
    let connection = Connection::open(folder.join("documents.db"))?;
    connection.execute_batch(&sqlite::pragmas(durability))?;
    connection.execute_batch(SCHEMA)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Makes a document's chunks these; what did not change is not written. How many were.
///
/// # Errors
/// SQLite's.
pub fn put(connection: &mut Connection, document: &str, chunks: &[Chunk]) -> Result<u64> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let written = write(&transaction, document, chunks)?;
    transaction.commit()?;
    Ok(written)
}

fn write(connection: &Connection, document: &str, chunks: &[Chunk]) -> Result<u64> {
    let now = super::now_ms();
    let found = connection
        .prepare_cached("SELECT key FROM document WHERE id = ?1")?
        .query_row([document], |row| row.get::<_, i64>(0))
        .optional()?;
    let key = match found {
        Some(key) => key,
        None => connection
            .prepare_cached(
                "INSERT INTO document (id, state, hash, node_count, created_ms, updated_ms) VALUES (?1, 1, ?2, ?3, ?4, ?4)",
            )?
            .insert(params![document, blake3::hash(document.as_bytes()).as_bytes(), chunks.len() as i64, now])?,
    };
    let mut written = 0;
    if found.is_some() {
        delete_missing(connection, key, chunks)?;
    }
    for (position, chunk) in (0_i64..).zip(chunks) {
        let stored = connection
            .prepare_cached("SELECT key, text, metadata, span_start, span_end, position FROM node WHERE id = ?1 AND document_key = ?2")?
            .query_row(params![chunk.id, key], |row| {
                let is_same = row.get_ref(1)?.as_str()? == chunk.text
                    && row.get_ref(2)?.as_str()? == chunk.metadata
                    && (row.get::<_, i64>(3)?, row.get::<_, i64>(4)?) == span(chunk)
                    && row.get::<_, i64>(5)? == position;
                Ok((row.get::<_, i64>(0)?, is_same))
            })
            .optional()?;
        match stored {
            Some((_, true)) => continue,
            Some((node, false)) => delete(connection, node)?,
            None => {}
        }
        insert(connection, key, position, chunk, now)?;
        written += 1;
    }
    Ok(written)
}

fn insert(connection: &Connection, document_key: i64, position: i64, chunk: &Chunk, now: i64) -> Result<()> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(chunk.text.as_bytes()).update(chunk.metadata.as_bytes());
    let checksum = xxhash_rust::xxh3::xxh3_64(chunk.text.as_bytes()).cast_signed();
    let key = connection
        .prepare_cached(
            "INSERT INTO node (id, document_key, position, kind, hash, created_ms, updated_ms, checksum, span_start,
                 span_end, metadata, text) VALUES (?1, ?2, ?3, 0, ?4, ?5, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .insert(params![
            chunk.id,
            document_key,
            position,
            hasher.finalize().as_bytes(),
            now,
            checksum,
            span(chunk).0,
            span(chunk).1,
            chunk.metadata,
            chunk.text
        ])?;
    connection
        .prepare_cached("INSERT INTO node_text (rowid, text) VALUES (?1, ?2)")?
        .execute(params![key, chunk.text])?;
    Ok(())
}

fn span(chunk: &Chunk) -> (i64, i64) {
    (chunk.span.0.cast_signed(), chunk.span.1.cast_signed())
}

fn delete(connection: &Connection, node: i64) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO node_text (node_text, rowid, text) SELECT 'delete', key, text FROM node WHERE key = ?1",
        )?
        .execute([node])?;
    connection.prepare_cached("DELETE FROM node WHERE key = ?1")?.execute([node])?;
    Ok(())
}

fn delete_missing(connection: &Connection, document_key: i64, chunks: &[Chunk]) -> Result<()> {
    let ids: std::collections::HashSet<&str> = chunks.iter().map(|chunk| chunk.id.as_str()).collect();
    let mut gone = Vec::new();
    {
        let mut statement = connection.prepare_cached("SELECT key, id FROM node WHERE document_key = ?1")?;
        let mut rows = statement.query([document_key])?;
        while let Some(row) = rows.next()? {
            if !ids.contains(row.get_ref(1)?.as_str()?) {
                gone.push(row.get(0)?);
            }
        }
    }
    gone.into_iter().try_for_each(|node| delete(connection, node))
}

/// The chunk under `id`, with its document.
///
/// # Errors
/// SQLite's.
pub fn get(connection: &Connection, id: &str) -> Result<Option<Chunk>> {
    connection
        .prepare_cached(
            "SELECT node.id, document.id, node.position, node.kind, node.hash, node.created_ms, node.updated_ms,
                 node.checksum, node.span_start, node.span_end, node.previous, node.next, node.parent, node.children,
                 node.metadata, node.content, node.text
             FROM node JOIN document ON document.key = node.document_key WHERE node.id = ?1",
        )?
        .query_row([id], |row| {
            // As much as a user of all columns would read.
            let _document: String = row.get(1)?;
            let _hash: [u8; 32] = row.get(4)?;
            let span = (row.get::<_, i64>(8)?.cast_unsigned(), row.get::<_, i64>(9)?.cast_unsigned());
            Ok(Chunk { id: row.get(0)?, text: row.get(16)?, metadata: row.get(14)?, span })
        })
        .optional()
}

/// The best chunks with every word.
///
/// # Errors
/// SQLite's.
pub fn search(connection: &Connection, words: &str, limit: usize) -> Result<Vec<Hit>> {
    let query: Vec<String> = words.split(' ').map(|word| format!("\"{word}\"")).collect();
    let mut statement = connection.prepare_cached(
        "SELECT node.id, node.text, snippet(node_text, 0, '[', ']', '…', 16), document.id, node.metadata,
                -node_text.rank
         FROM node_text JOIN node ON node.key = node_text.rowid JOIN document ON document.key = node.document_key
         WHERE node_text MATCH ?1 ORDER BY node_text.rank LIMIT ?2",
    )?;
    let hits = statement.query_map(params![query.join(" "), limit as i64], |row| {
        let (_document, _metadata): (String, String) = (row.get(3)?, row.get(4)?);
        Ok(Hit { id: row.get(0)?, text: row.get(1)?, snippet: row.get(2)?, score: row.get(5)? })
    })?;
    hits.collect()
}

/// How many chunks there are.
///
/// # Errors
/// SQLite's.
pub fn count(connection: &Connection) -> Result<u64> {
    connection.query_row("SELECT count(*) FROM node", [], |row| row.get::<_, i64>(0).map(i64::cast_unsigned))
}
