//! Damage that SQLite cannot see: rows that do not match their checksums, wrong counts, a full-text index that does not hold
//! what the points say.

use larder_protocol::vectors::PointFields;
use rusqlite::params;

use super::row::Columns;
use super::store::Reading;
use super::{collections, kept};
use crate::full_text;
use crate::store::{Failure, Outcome};

/// Rows read in one transaction: a check must not pin the WAL.
const PAGE_ROWS: usize = 1_000;

pub(super) fn check(context: &Reading<'_>, found: &mut dyn FnMut(String)) -> Outcome<()> {
    collections::check(context.connection, found)?;
    kept::check(context.connection, found)?;
    check_points(context, found)?;
    check_counts(context, found)?;
    let texts = "SELECT slot AS id FROM point WHERE text IS NOT NULL";
    Ok(full_text::check(context.connection, "point_text", texts, found)?)
}

fn check_points(context: &Reading<'_>, found: &mut dyn FnMut(String)) -> Outcome<()> {
    let columns = Columns(PointFields::ALL);
    let sql = format!("SELECT {} FROM point WHERE slot > ?1 ORDER BY slot LIMIT ?2", columns.sql());
    let mut statement = context.connection.prepare_cached(&sql)?;
    let mut after = i64::MIN;
    loop {
        let mut rows = statement.query(params![after, PAGE_ROWS])?;
        let mut row_count = 0;
        while let Some(row) = rows.next()? {
            row_count += 1;
            after = row.get(0)?;
            match columns.read(row, 0.0) {
                Ok(_) => {}
                Err(Failure::Refused(damage)) => found(damage.to_string()),
                Err(error) => found(format!("the point in slot {after} cannot be read ({error})")),
            }
        }
        if row_count < PAGE_ROWS {
            return Ok(());
        }
    }
}

fn check_counts(context: &Reading<'_>, found: &mut dyn FnMut(String)) -> Outcome<()> {
    for (sql, what) in [
        (
            "SELECT count(*) FROM point
             WHERE NOT EXISTS (SELECT 1 FROM collection WHERE collection.key = point.collection_key)",
            "points belong to no collection",
        ),
        (
            "SELECT count(*) FROM collection WHERE name IS NOT NULL
                 AND point_count <> (SELECT count(*) FROM point WHERE collection_key = collection.key)",
            "collections have wrong counts",
        ),
        (
            "SELECT count(*) FROM point JOIN collection ON collection.key = point.collection_key
             WHERE octet_length(point.vector) <> 4 * collection.dimensions",
            "vectors have other dimensions than their collection",
        ),
        (
            "SELECT count(*) FROM removal WHERE slot IN (SELECT slot FROM point)",
            "points are there though they were removed",
        ),
        (
            "SELECT count(*) FROM point WHERE slot > (SELECT max(sequence) FROM change_log)",
            "points are newer than the newest commit",
        ),
    ] {
        let count: u64 = context.connection.query_row(sql, [], |row| row.get(0))?;
        if count > 0 {
            found(format!("{count} {what}"));
        }
    }
    Ok(())
}
