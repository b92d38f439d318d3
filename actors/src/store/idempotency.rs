//! Idempotency keys: a write's outcome, kept in the write's own transaction, answers its repetition.
//!
//! Always true: an outcome is kept exactly when its write is committed; the same key with another message is a conflict.

use larder_protocol::codec::{self, Codec};
use larder_protocol::{Error as Kind, IdempotencyKey, Message, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use super::context::{Failure, Outcome};

/// Outcomes are small; one past this was not written by larder.
const OUTCOME_BYTES_MAX: usize = 1 << 30;

/// A message's identity: what its caller said in postcard's documented format, hashed, so that it is the same in every build.
pub(super) fn hash<M: Message>(message: &M) -> Outcome<[u8; 16]> {
    let bytes = codec::encode(Codec::Postcard, &(M::NAME, message.said()))?;
    Ok(xxhash_rust::xxh3::xxh3_128(&bytes).to_be_bytes())
}

/// Returns the first outcome under `key`, if there is one.
pub(super) fn find<M: Message>(
    connection: &Connection,
    key: &IdempotencyKey,
    message_hash: [u8; 16],
) -> Outcome<Option<M::Reply>> {
    let mut statement = connection.prepare_cached("SELECT message_hash, outcome FROM idempotency WHERE key = ?1")?;
    let row = statement
        .query_row([key.as_str()], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?)))
        .optional()?;
    let Some((found_hash, outcome)) = row else { return Ok(None) };
    if found_hash != message_hash {
        return Err(Failure::Refused(Kind::Conflict {
            what: format!("idempotency key {key}"),
            expected: "the write it was first used for".to_owned(),
            found: format!("another {}", M::NAME),
        }));
    }
    Ok(Some(codec::decode(&outcome, OUTCOME_BYTES_MAX)?))
}

/// Keeps `reply` as the outcome under `key`.
pub(super) fn keep<M: Message>(
    connection: &Connection,
    key: &IdempotencyKey,
    message_hash: [u8; 16],
    reply: &M::Reply,
    now: Timestamp,
) -> Outcome<()> {
    let outcome = codec::encode(Codec::Postcard, reply)?;
    let mut statement = connection
        .prepare_cached("INSERT INTO idempotency (key, message_hash, outcome, created_ms) VALUES (?1, ?2, ?3, ?4)")?;
    statement.execute(params![key.as_str(), message_hash, outcome.as_ref(), now.0])?;
    Ok(())
}

/// Deletes at most `rows_max` outcomes from before `created_before`; answers how many went.
pub(super) fn expire(connection: &Connection, created_before: Timestamp, rows_max: usize) -> rusqlite::Result<usize> {
    let mut statement = connection.prepare_cached(
        "DELETE FROM idempotency WHERE key IN
             (SELECT key FROM idempotency WHERE created_ms < ?1 ORDER BY created_ms LIMIT ?2)",
    )?;
    statement.execute(params![created_before.0, rows_max])
}
