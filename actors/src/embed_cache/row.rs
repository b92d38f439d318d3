//! One cached value as two rows: `entry`, which is found by its key and changes, and `body`, which never does.
//!
//! Always true: a body is verified against its checksum before it is answered.

use std::time::Duration;

use bytes::Bytes;
use larder_protocol::Timestamp;
use larder_protocol::embed_cache::{CacheKey, Cached, CachedValue};
use larder_protocol::vectors::Vector;
use rusqlite::types::ToSqlOutput;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, params};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::store::Outcome;

/// The columns that [`read`] decodes, in its order.
pub(super) const COLUMNS: &str =
    "body.value, body.format, entry.producer_id, body.stored_ms, body.compute_us, body.checksum, entry.expires_ms";

/// What is written beside a value, and covered by its checksum with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Body {
    pub(super) format: i64,
    pub(super) producer_id: i64,
    pub(super) stored: Timestamp,
    pub(super) compute_us: i64,
}

/// Decodes the columns of [`COLUMNS`], which begin at `first`. `None`: the value is not what was written.
pub(super) fn read(row: &Row<'_>, first: usize, key: &CacheKey) -> rusqlite::Result<Option<Cached>> {
    let value = row.get_ref(first)?.as_blob()?;
    let body = Body {
        format: row.get(first + 1)?,
        producer_id: row.get(first + 2)?,
        stored: Timestamp(row.get(first + 3)?),
        compute_us: row.get(first + 4)?,
    };
    if row.get::<_, i64>(first + 5)? != body.checksum(key, value) {
        return Ok(None);
    }
    let expires = row.get::<_, Option<i64>>(first + 6)?.map(Timestamp);
    let compute_time = Duration::from_micros(body.compute_us.unsigned_abs());
    Ok(decode(body.format, value).map(|value| Cached { value, compute_time, stored: body.stored, expires }))
}

impl Body {
    /// Each part seeds the next one's hash, so that a byte that moves from one to the other is noticed.
    pub(super) fn checksum(&self, key: &CacheKey, value: &[u8]) -> i64 {
        let mut numbers = [0; 32];
        let all = [self.format, self.producer_id, self.stored.0, self.compute_us];
        for (place, number) in numbers.chunks_exact_mut(8).zip(all) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let seed = xxh3_64_with_seed(&key.0, 0);
        xxh3_64_with_seed(value, xxh3_64_with_seed(&numbers, seed)).cast_signed()
    }
}

fn decode(format: i64, value: &[u8]) -> Option<CachedValue> {
    match format {
        0 if value.len().is_multiple_of(4) => {
            let components = value.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
            Vector::of(components).ok().map(CachedValue::Vector)
        }
        1 => Some(CachedValue::Encoded(Bytes::copy_from_slice(value))),
        _ => None,
    }
}

/// Returns a value's format and bytes as they are stored.
pub(super) fn encode(value: &CachedValue) -> (i64, Bytes) {
    match value {
        CachedValue::Vector(vector) => {
            let mut bytes = vec![0; 4 * vector.dimensions()];
            for (place, component) in bytes.as_chunks_mut().0.iter_mut().zip(vector.as_slice()) {
                *place = component.to_le_bytes();
            }
            (0, bytes.into())
        }
        CachedValue::Encoded(bytes) => (1, bytes.clone()),
    }
}

/// Finds values by key; its statement is looked up once for many keys.
pub(super) struct Finder<'c>(CachedStatement<'c>);

impl<'c> Finder<'c> {
    pub(super) fn new(connection: &'c Connection) -> rusqlite::Result<Self> {
        let statement = connection.prepare_cached(
            "SELECT body.value, body.format, entry.producer_id, body.stored_ms, body.compute_us, body.checksum,
                    entry.expires_ms
             FROM entry JOIN body ON body.id = entry.body_id
             WHERE entry.key = ?1 AND (entry.expires_ms IS NULL OR entry.expires_ms > ?2)",
        )?;
        Ok(Self(statement))
    }

    /// Returns the value that is live at `now`. Where it is damaged it is not there, and the log says so.
    pub(super) fn find_live(&mut self, key: &CacheKey, now: Timestamp) -> Outcome<Option<Cached>> {
        let found = self.0.query_row(params![key_sql(key), now.0], |row| read(row, 0, key)).optional()?;
        if found == Some(None) {
            tracing::error!(store = "embed_cache", %key, "a cached value is damaged; it counts as missing");
        }
        Ok(found.flatten())
    }
}

/// Returns whether a value is live at `now`, without reading it.
pub(super) fn is_live(connection: &Connection, key: &CacheKey, now: Timestamp) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM entry WHERE key = ?1 AND (expires_ms IS NULL OR expires_ms > ?2))",
    )?;
    statement.query_row(params![key_sql(key), now.0], |row| row.get(0))
}

/// Returns a key as SQLite is to have it.
pub(super) fn key_sql(key: &CacheKey) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(rusqlite::types::ValueRef::Blob(&key.0))
}

/// Takes a key out of a row.
pub(super) fn read_key(row: &Row<'_>, index: usize) -> rusqlite::Result<CacheKey> {
    row.get::<_, [u8; 32]>(index).map(CacheKey)
}
