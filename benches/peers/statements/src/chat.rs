//! The chat run's statements.

use std::path::Path;

use peer_harness::chat::entry::{self, Said};
use peer_harness::chat::sqlite;
use peer_harness::kv;
use peer_harness::peer::Durability;
use rusqlite::{Connection, Result, TransactionBehavior};

use crate::{FILE, now_ms};

/// Opens the file with the settings all SQLite peers share, and creates the tables.
///
/// # Errors
/// SQLite's.
pub fn open(folder: &Path, durability: Durability) -> Result<Connection> {
    let connection = Connection::open(folder.join(FILE))?;
    configure(&connection, durability)?;
    Ok(connection)
}

/// What [`open`] does to a connection that another opened.
///
/// # Errors
/// SQLite's.
pub fn configure(connection: &Connection, durability: Durability) -> Result<()> {
    connection.execute_batch(&kv::sqlite::pragmas(durability))?;
    connection.execute_batch(sqlite::SCHEMA)
}

/// Appends one message with its count, inside the open transaction.
///
/// # Errors
/// SQLite's.
pub fn append(connection: &Connection, session: &str, said: &Said, tokens: u64) -> Result<()> {
    let tokens = i64::try_from(tokens).unwrap_or(i64::MAX);
    let id: i64 = connection
        .prepare_cached(sqlite::APPEND)?
        .query_row((session, said.role, &said.text, tokens, now_ms()), |row| row.get(0))?;
    connection.prepare_cached(sqlite::INDEX)?.execute((id, &said.text))?;
    Ok(())
}

/// Appends all in one transaction.
///
/// # Errors
/// SQLite's.
pub fn append_all(connection: &mut Connection, session: &str, said: &[(Said, u64)]) -> Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (said, tokens) in said {
        append(&transaction, session, said, *tokens)?;
    }
    transaction.commit()
}

/// Counts messages, on the caller's side.
#[must_use]
pub fn counted(messages: Vec<Said>) -> Vec<(Said, u64)> {
    let counted = |said: Said| {
        let tokens = entry::tokens(&said.text);
        (said, tokens)
    };
    messages.into_iter().map(counted).collect()
}

/// The newest whole turns that have at most `tokens`, by their stored counts.
///
/// # Errors
/// SQLite's.
pub fn window(connection: &Connection, session: &str, tokens: u64) -> Result<Vec<String>> {
    let mut statement = connection.prepare_cached(sqlite::NEWEST)?;
    let mut rows = statement.query([session])?;
    let (mut newest_first, mut whole, mut sum) = (Vec::new(), 0, 0);
    while let Some(row) = rows.next()? {
        sum += u64::try_from(row.get::<_, i64>(2)?).unwrap_or(u64::MAX);
        if sum > tokens {
            break;
        }
        newest_first.push(row.get(1)?);
        if row.get_ref(0)?.as_str()? == "user" {
            whole = newest_first.len();
        }
    }
    newest_first.truncate(whole);
    newest_first.reverse();
    Ok(newest_first)
}

/// The best messages that hold the word.
///
/// # Errors
/// SQLite's.
pub fn search(connection: &Connection, session: &str, word: &str, limit: usize) -> Result<Vec<String>> {
    let mut statement = connection.prepare_cached(sqlite::SEARCH)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    statement.query_map((format!("\"{word}\""), session, limit), |row| row.get(0))?.collect()
}

/// How many messages a session has.
///
/// # Errors
/// SQLite's.
pub fn count(connection: &Connection, session: &str) -> Result<u64> {
    let count: i64 = connection.prepare_cached(sqlite::COUNT)?.query_row([session], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or_default())
}
