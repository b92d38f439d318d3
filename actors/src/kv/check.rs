//! Damage that SQLite cannot see: values that do not match their checksums, tags without entries.

use rusqlite::params;

use super::row;
use super::store::Kv;
use crate::store::{Failure, Outcome, ReadContext};

/// Rows read in one transaction: a check must not pin the WAL.
const PAGE_ROWS: usize = 2_000;

pub(super) fn check(context: &ReadContext<'_, Kv>, found: &mut dyn FnMut(String)) -> Outcome<()> {
    let mut after = 0;
    while let Some(last) = check_page(context, after, found)? {
        if last <= after {
            found(format!("id {last} stands behind id {after}: the rows are out of order"));
            break;
        }
        after = last;
    }
    let orphan_count: u64 = context.connection.query_row(
        "SELECT count(*) FROM tag WHERE NOT EXISTS (SELECT 1 FROM entry WHERE entry.id = tag.entry_id)",
        [],
        |row| row.get(0),
    )?;
    if orphan_count > 0 {
        found(format!("{orphan_count} tags belong to no entry"));
    }
    Ok(())
}

/// Verifies one page of entries by id; answers the last id, or `None` at the end.
fn check_page(context: &ReadContext<'_, Kv>, after: i64, found: &mut dyn FnMut(String)) -> Outcome<Option<i64>> {
    let mut statement = context.connection.prepare_cached(
        "SELECT value, format, version, created_ms, updated_ms, expires_ms, checksum, id, collection, key
         FROM entry WHERE id > ?1 ORDER BY id LIMIT ?2",
    )?;
    let mut rows = statement.query(params![after, PAGE_ROWS])?;
    let mut last = None;
    while let Some(row) = rows.next()? {
        let id = row.get(7)?;
        last = Some(id);
        let names = row.get::<_, String>(8).and_then(|collection| Ok((collection, row.get::<_, String>(9)?)));
        let verified = names.and_then(|names| Ok((names, row::read(row, 0)?)));
        match verified.map(|((collection, key), stored)| stored.verify(&collection, &key)) {
            Ok(Ok(_)) => {}
            Ok(Err(Failure::Refused(damage))) => found(damage.to_string()),
            Ok(Err(other)) => return Err(other),
            Err(error) => found(format!("the entry with id {id} cannot be read ({error})")),
        }
    }
    Ok(last)
}
