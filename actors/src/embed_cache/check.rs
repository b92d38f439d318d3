//! Damage that SQLite cannot see: values that do not match their checksums, rows without their other half, wrong totals.

use rusqlite::params;
use rusqlite::types::Value as Sql;

use super::row;
use super::store::Reading;
use crate::store::Outcome;

/// Rows read in one transaction: a check must not pin the WAL.
const PAGE_ROWS: usize = 1_000;

/// What must not be there, and how it is told.
const STRAYS: [(&str, &str); 4] = [
    ("SELECT count(*) FROM entry WHERE NOT EXISTS (SELECT 1 FROM body WHERE id = body_id)", "entries have no value"),
    ("SELECT count(*) FROM body WHERE id NOT IN (SELECT body_id FROM entry)", "values belong to no entry"),
    (
        "SELECT count(*) FROM tag WHERE NOT EXISTS (SELECT 1 FROM entry WHERE entry.key = tag.key AND tagged = 1)",
        "tags belong to no entry",
    ),
    (
        "SELECT count(*) FROM entry WHERE NOT EXISTS (SELECT 1 FROM producer WHERE id = producer_id)",
        "entries have no producer",
    ),
];

pub(super) fn check(context: &Reading<'_>, found: &mut dyn FnMut(String)) -> Outcome<()> {
    let mut after = Vec::new();
    while let Some(last) = check_page(context, &after, found)? {
        if last <= after {
            found("entries are out of order".to_owned());
            break;
        }
        after = last;
    }
    context.at_one_instant(|connection| {
        for (sql, what) in STRAYS {
            let count: u64 = connection.query_row(sql, [], |row| row.get(0))?;
            if count > 0 {
                found(format!("{count} {what}"));
            }
        }
        let is_right: bool = connection.query_row(
            "SELECT entry_count = (SELECT count(*) FROM entry)
                AND value_bytes = (SELECT total(octet_length(value)) FROM body)
                AND last_turn >= (SELECT coalesce(max(id), 0) FROM body) FROM total",
            [],
            |row| row.get(0),
        )?;
        if !is_right {
            found("the totals are not those of the entries".to_owned());
        }
        Ok(())
    })
}

/// Verifies one page of entries by key; answers the last key, or `None` at the end.
fn check_page(context: &Reading<'_>, after: &[u8], found: &mut dyn FnMut(String)) -> Outcome<Option<Vec<u8>>> {
    let sql = format!(
        "SELECT entry.key, {} FROM entry JOIN body ON body.id = entry.body_id WHERE entry.key > ?1
         ORDER BY entry.key LIMIT ?2",
        row::COLUMNS
    );
    let mut statement = context.connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![Sql::Blob(after.to_vec()), PAGE_ROWS])?;
    let mut last = None;
    while let Some(row) = rows.next()? {
        last = Some(row.get(0)?);
        let verified = row::read_key(row, 0).and_then(|key| Ok((key, row::read(row, 1, &key)?)));
        match verified {
            Ok((_, Some(_))) => {}
            Ok((key, None)) => found(format!("the value of key {key} does not match its checksum")),
            Err(error) => found(format!("an entry cannot be read ({error})")),
        }
    }
    Ok(last)
}
