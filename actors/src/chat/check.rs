//! Damage that SQLite cannot see: contents that do not match their checksums, places without contents, wrong counts.

use rusqlite::params;

use super::row::{self, COLUMNS, SOURCE};
use super::store::Reading;
use crate::full_text;
use crate::store::{Failure, Outcome};

/// Rows read in one transaction: a check must not pin the WAL.
const PAGE_ROWS: usize = 2_000;

pub(super) fn check(context: &Reading<'_>, found: &mut dyn FnMut(String)) -> Outcome<()> {
    let mut after = 0;
    while let Some(last) = check_page(context, after, found)? {
        if last <= after {
            found(format!("id {last} stands behind id {after}: the rows are out of order"));
            break;
        }
        after = last;
    }
    for (sql, what) in [
        (
            "SELECT count(*) FROM place WHERE NOT EXISTS (SELECT 1 FROM body WHERE body.id = place.body_id)",
            "messages have no content",
        ),
        (
            "SELECT count(*) FROM body WHERE NOT EXISTS (SELECT 1 FROM place WHERE place.body_id = body.id)",
            "contents belong to no message",
        ),
        (
            "SELECT count(*) FROM place WHERE NOT EXISTS (SELECT 1 FROM session WHERE session.id = place.session_id)",
            "messages belong to no session",
        ),
        (
            "SELECT count(*) FROM session WHERE name IS NOT NULL AND (message_count, token_count) IS NOT
             (SELECT count(*), coalesce(sum(cost_tokens), 0) FROM place WHERE session_id = session.id AND summary = 0)",
            "sessions have wrong counts",
        ),
    ] {
        let count: u64 = context.connection.query_row(sql, [], |row| row.get(0))?;
        if count > 0 {
            found(format!("{count} {what}"));
        }
    }
    let texts = "SELECT id FROM body WHERE text IS NOT NULL";
    Ok(full_text::check(context.connection, "body_text", texts, found)?)
}

/// Verifies one page of messages by their contents' ids; answers the last, or `None` at the end.
fn check_page(context: &Reading<'_>, after: i64, found: &mut dyn FnMut(String)) -> Outcome<Option<i64>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM {SOURCE} WHERE place.body_id IN (SELECT id FROM body WHERE id > ?1 ORDER BY id LIMIT ?2)
         GROUP BY place.body_id ORDER BY place.body_id"
    );
    let mut statement = context.connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![after, PAGE_ROWS])?;
    let mut last = None;
    while let Some(row) = rows.next()? {
        let body_id: i64 = row.get(1)?;
        last = Some(body_id);
        match row::read(row, 0) {
            Ok(_) => {}
            Err(Failure::Refused(damage)) => found(damage.to_string()),
            Err(Failure::Sqlite(error)) => found(format!("the content {body_id} cannot be read ({error})")),
        }
    }
    Ok(last)
}
