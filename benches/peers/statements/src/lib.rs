//! The harness's SQL as rusqlite calls with cached statements, for the peers whose users hold a rusqlite connection.
//! Of the key-value run here, of the chat run in [`chat`].

pub mod chat;

pub mod documents;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use peer_harness::kv::{Row, sqlite};
use peer_harness::peer::Durability;
use rusqlite::{Connection, OptionalExtension, Result, TransactionBehavior};

/// The database's file in a peer's folder.
pub const FILE: &str = "entries.db";

/// Opens the file with the settings all SQLite peers share, and creates the table.
///
/// # Errors
/// SQLite's.
pub fn open(folder: &Path, durability: Durability) -> Result<Connection> {
    let connection = Connection::open(folder.join(FILE))?;
    configure(&connection, durability)?;
    Ok(connection)
}

/// What [`open`] does to a connection that a pool opened.
///
/// # Errors
/// SQLite's.
pub fn configure(connection: &Connection, durability: Durability) -> Result<()> {
    connection.execute_batch(&sqlite::pragmas(durability))?;
    connection.execute_batch(sqlite::SCHEMA)
}

/// Stores one entry; a transaction of its own unless one is open.
///
/// # Errors
/// SQLite's.
pub fn put(connection: &Connection, key: &str, value: &[u8]) -> Result<()> {
    connection.prepare_cached(sqlite::PUT)?.execute((key, value, now_ms()))?;
    Ok(())
}

/// Stores all in one transaction.
///
/// # Errors
/// SQLite's.
pub fn put_many(connection: &mut Connection, rows: &[Row]) -> Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (key, value) in rows {
        put(&transaction, key, value)?;
    }
    transaction.commit()
}

/// The value of `key`.
///
/// # Errors
/// SQLite's.
pub fn get(connection: &Connection, key: &str) -> Result<Option<Vec<u8>>> {
    connection.prepare_cached(sqlite::GET)?.query_row([key], |row| row.get(0)).optional()
}

/// Removes `key`; whether it was there.
///
/// # Errors
/// SQLite's.
pub fn delete(connection: &Connection, key: &str) -> Result<bool> {
    Ok(connection.prepare_cached(sqlite::DELETE)?.execute([key])? > 0)
}

/// The first `limit` rows from `from` on.
///
/// # Errors
/// SQLite's.
pub fn scan(connection: &Connection, from: &str, limit: usize) -> Result<Vec<Row>> {
    let mut statement = connection.prepare_cached(sqlite::SCAN)?;
    let rows =
        statement.query_map((from, i64::try_from(limit).unwrap_or(i64::MAX)), |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
