//! One row of `entry`: its SQL, its decoding, and the checksum that every read verifies.

use bytes::Bytes;
use larder_protocol::kv::Entry;
use larder_protocol::{Error as Kind, Format, StoreName, Timestamp, Value, Version, Written};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::store::Outcome;

/// The columns that [`read`] decodes, in its order.
pub(super) const COLUMNS: &str = "value, format, version, created_ms, updated_ms, expires_ms, checksum";

/// A row as it stands in the file, before its checksum is verified.
pub(super) struct StoredEntry {
    pub(super) entry: Entry,
    checksum: i64,
}

impl StoredEntry {
    /// Returns the entry if it is what was written.
    pub(super) fn verify(self, collection: &str, key: &str) -> Outcome<Entry> {
        if self.checksum == checksum(collection, key, &self.entry.value) {
            return Ok(self.entry);
        }
        let detail = format!("the value of key {key:?} in collection {collection:?} does not match its checksum");
        Err(Kind::Corrupt { store: StoreName::Kv, detail, written: Written::NotApplied }.into())
    }

    pub(super) fn is_live(&self, now: Timestamp) -> bool {
        self.entry.expires.is_none_or(|expires| expires > now)
    }
}

/// Decodes the columns of [`COLUMNS`], which begin at `first`.
pub(super) fn read(row: &Row<'_>, first: usize) -> rusqlite::Result<StoredEntry> {
    let (bytes, kind) = match row.get_ref(first)? {
        ValueRef::Text(bytes) => (bytes, Some(Format::Json)),
        ValueRef::Blob(bytes) => (bytes, None),
        other => return Err(rusqlite::Error::InvalidColumnType(first, "value".to_owned(), other.data_type())),
    };
    let format = match (row.get::<_, i64>(first + 1)?, kind) {
        (0, None) => Format::Bytes,
        (1, Some(json)) => json,
        (2, None) => Format::Encoded,
        (other, _) => return Err(rusqlite::Error::IntegralValueOutOfRange(first + 1, other)),
    };
    let entry = Entry {
        value: Value { format, bytes: Bytes::copy_from_slice(bytes) },
        version: Version(row.get(first + 2)?),
        created: Timestamp(row.get(first + 3)?),
        updated: Timestamp(row.get(first + 4)?),
        expires: row.get::<_, Option<i64>>(first + 5)?.map(Timestamp),
    };
    Ok(StoredEntry { entry, checksum: row.get(first + 6)? })
}

/// Returns the entry that is live at `now`, verified.
pub(super) fn find_live(
    connection: &Connection,
    collection: &str,
    key: &str,
    now: Timestamp,
) -> Outcome<Option<Entry>> {
    let mut statement = connection.prepare_cached(
        "SELECT value, format, version, created_ms, updated_ms, expires_ms, checksum
         FROM entry WHERE collection = ?1 AND key = ?2",
    )?;
    let found = statement.query_row(params![collection, key], |row| read(row, 0)).optional()?;
    found.filter(|stored| stored.is_live(now)).map(|stored| stored.verify(collection, key)).transpose()
}

/// Returns the version of the entry that is live at `now`.
pub(super) fn find_version(
    connection: &Connection,
    collection: &str,
    key: &str,
    now: Timestamp,
) -> rusqlite::Result<Option<Version>> {
    let mut statement = connection.prepare_cached(
        "SELECT version FROM entry WHERE collection = ?1 AND key = ?2 AND (expires_ms IS NULL OR expires_ms > ?3)",
    )?;
    statement.query_row(params![collection, key, now.0], |row| row.get(0).map(Version)).optional()
}

pub(super) fn format_code(format: Format) -> i64 {
    match format {
        Format::Bytes => 0,
        Format::Json => 1,
        Format::Encoded => 2,
    }
}

/// Returns the value as SQLite is to store it.
pub(super) fn sql_value(value: &Value) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(match value.format {
        Format::Json => ValueRef::Text(&value.bytes),
        Format::Bytes | Format::Encoded => ValueRef::Blob(&value.bytes),
    })
}

/// Each part seeds the next one's hash, so that a byte that moves from one to the other is noticed.
pub(super) fn checksum(collection: &str, key: &str, value: &Value) -> i64 {
    let seed = xxh3_64_with_seed(collection.as_bytes(), format_code(value.format).unsigned_abs());
    let seed = xxh3_64_with_seed(key.as_bytes(), seed);
    xxh3_64_with_seed(&value.bytes, seed).cast_signed()
}
