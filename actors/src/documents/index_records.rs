//! Handlers over index records.

use larder_protocol::documents::{DeleteIndexRecord, GetIndexRecord, IndexRecord, ListIndexRecords, PutIndexRecord};
use larder_protocol::limits::{INDEX_KIND_BYTES_MAX, INDEX_RECORD_BYTES_MAX};
use larder_protocol::{Error as Kind, IndexId, JsonText, Timestamp};
use rusqlite::{Row, params};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::row::{damaged, shown};
use super::store::{Reading, Writing};
use crate::store::{Outcome, PAGE_BYTES_MAX, check_limit, decoded};

/// The columns that [`read`] decodes, in its order.
pub(super) const COLUMNS: &str = "id, kind, content, created_ms, updated_ms, checksum";

pub(super) fn put(context: &mut Writing<'_>, message: &PutIndexRecord) -> Outcome<bool> {
    let PutIndexRecord { id, kind, content } = message;
    for (what, text, bytes_max) in [
        ("type of an index record", kind.as_str(), INDEX_KIND_BYTES_MAX),
        ("index record", content.as_str(), INDEX_RECORD_BYTES_MAX),
    ] {
        if text.len() > bytes_max {
            let (bytes, bytes_max) = (text.len() as u64, bytes_max as u64);
            return Err(Kind::TooLarge { what: what.to_owned(), bytes, bytes_max }.into());
        }
    }
    let found = {
        let sql = format!("SELECT {COLUMNS} FROM index_record WHERE id = ?1");
        let mut statement = context.connection.prepare_cached(&sql)?;
        let mut rows = statement.query([id.as_str()])?;
        rows.next()?.map(read).transpose()?
    };
    if found.as_ref().is_some_and(|found| found.kind == *kind && found.content == *content) {
        return Ok(false);
    }
    let created = found.map_or(context.now, |found| found.created);
    context
        .connection
        .prepare_cached(
            "INSERT OR REPLACE INTO index_record (id, kind, content, created_ms, updated_ms, checksum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            id.as_str(),
            kind,
            content.as_str(),
            created.0,
            context.now.0,
            checksum(created.0, id.as_str(), kind, content.as_str())
        ])?;
    context.changed("index", "", id.as_str());
    Ok(true)
}

pub(super) fn delete(context: &mut Writing<'_>, message: &DeleteIndexRecord) -> Outcome<bool> {
    let deleted =
        context.connection.prepare_cached("DELETE FROM index_record WHERE id = ?1")?.execute([message.id.as_str()])?;
    if deleted > 0 {
        context.changed("index", "", message.id.as_str());
    }
    Ok(deleted > 0)
}

pub(super) fn get(context: &Reading<'_>, message: &GetIndexRecord) -> Outcome<Option<IndexRecord>> {
    let sql = format!("SELECT {COLUMNS} FROM index_record WHERE id = ?1");
    let mut statement = context.connection.prepare_cached(&sql)?;
    let mut rows = statement.query([message.id.as_str()])?;
    rows.next()?.map(read).transpose()
}

pub(super) fn list(context: &Reading<'_>, message: &ListIndexRecords) -> Outcome<Vec<IndexRecord>> {
    check_limit(message.limit)?;
    let sql = format!("SELECT {COLUMNS} FROM index_record WHERE id > ?1 ORDER BY id LIMIT ?2");
    let mut statement = context.connection.prepare_cached(&sql)?;
    let after = message.after.as_ref().map_or("", IndexId::as_str);
    let mut rows = statement.query(params![after, message.limit])?;
    let (mut records, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let record = read(row)?;
        bytes += record.content.as_str().len();
        records.push(record);
        if bytes >= PAGE_BYTES_MAX {
            break;
        }
    }
    Ok(records)
}

/// Decodes the columns of [`COLUMNS`], which begin at the first, and verifies them.
pub(super) fn read(row: &Row<'_>) -> Outcome<IndexRecord> {
    decoded(decode(row), || damaged(format!("the index record {}", shown(row, 0))))
}

/// Returns the row's record; `None` when it is not what was written.
fn decode(row: &Row<'_>) -> rusqlite::Result<Option<IndexRecord>> {
    let (id, kind, content): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let created_ms: i64 = row.get(3)?;
    if checksum(created_ms, &id, &kind, &content) != row.get::<_, i64>(5)? {
        return Ok(None);
    }
    let Ok(id) = IndexId::new(id) else { return Ok(None) };
    let (content, created, updated) = (JsonText::from_stored(content), Timestamp(created_ms), Timestamp(row.get(4)?));
    Ok(Some(IndexRecord { id, kind, content, created, updated }))
}

/// Each part seeds the next one's hash.
fn checksum(created_ms: i64, id: &str, kind: &str, content: &str) -> i64 {
    [id, kind, content]
        .into_iter()
        .fold(created_ms.cast_unsigned(), |seed, part| xxh3_64_with_seed(part.as_bytes(), seed))
        .cast_signed()
}
