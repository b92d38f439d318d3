//! Damage that SQLite cannot see: rows that do not match their checksums, names without entities, relations without ends, a
//! full-text index that does not hold what the entities say.

use rusqlite::params;

use super::names::{NAME, Name};
use super::row::{ENTITY, ENTITY_PAYLOAD, EntityPayload, EntityRow, RELATION, RELATION_PAST, RelationRow};
use super::sources::SOURCE;
use super::store::Reading;
use super::{embeddings, entities, labels, merge, sources};
use crate::full_text;
use crate::store::{Failure, Outcome};

/// Rows read in one transaction: a check must not pin the WAL.
const PAGE_ROWS: usize = 1_000;

pub(super) fn check(context: &Reading<'_>, found: &mut dyn FnMut(String)) -> Outcome<()> {
    if let Err(Failure::Refused(damage)) = labels::all(context.connection) {
        found(damage.to_string());
    }
    let entity = format!("SELECT {ENTITY}, {ENTITY_PAYLOAD} FROM entity WHERE key > ?1 ORDER BY key LIMIT ?2");
    check_rows(context, &entity, found, |row| EntityRow::read(row).and(EntityPayload::read(row)).map(drop))?;
    let relation = format!("SELECT {RELATION} FROM relation WHERE key > ?1 ORDER BY key LIMIT ?2");
    check_rows(context, &relation, found, |row| RelationRow::read(row).map(drop))?;
    let past =
        format!("SELECT {RELATION_PAST} FROM relation_past AS relation WHERE version > ?1 ORDER BY version LIMIT ?2");
    check_past(context, &past, found)?;
    let embedding = format!("SELECT {} FROM embedding WHERE slot > ?1 ORDER BY slot LIMIT ?2", embeddings::EMBEDDING);
    check_rows(context, &embedding, found, |row| embeddings::read(row).map(drop))?;
    let source = format!("SELECT {SOURCE} FROM source WHERE key > ?1 ORDER BY key LIMIT ?2");
    check_rows(context, &source, found, |row| sources::read(row).map(drop))?;
    check_names(context, found)?;
    merge::check(context.connection, found)?;
    check_counts(context, found)?;
    let texts = "SELECT key AS id FROM entity WHERE gone_ms IS NULL";
    Ok(full_text::check(context.connection, entities::TEXT_INDEX, texts, found)?)
}

/// Reads rows page by page by the key in their first column.
fn check_rows(
    context: &Reading<'_>,
    sql: &str,
    found: &mut dyn FnMut(String),
    read: impl Fn(&rusqlite::Row<'_>) -> Outcome<()>,
) -> Outcome<()> {
    check_pages(context, sql, 0, found, read)
}

fn check_past(context: &Reading<'_>, sql: &str, found: &mut dyn FnMut(String)) -> Outcome<()> {
    // The version, by which they are ordered.
    check_pages(context, sql, 12, found, |row| RelationRow::read(row).map(drop))
}

fn check_pages(
    context: &Reading<'_>,
    sql: &str,
    key_at: usize,
    found: &mut dyn FnMut(String),
    read: impl Fn(&rusqlite::Row<'_>) -> Outcome<()>,
) -> Outcome<()> {
    let mut statement = context.connection.prepare_cached(sql)?;
    let mut after = i64::MIN;
    loop {
        let mut rows = statement.query(params![after, PAGE_ROWS])?;
        let mut row_count = 0;
        while let Some(row) = rows.next()? {
            row_count += 1;
            after = row.get(key_at)?;
            match read(row) {
                Ok(()) => {}
                Err(Failure::Refused(damage)) => found(damage.to_string()),
                Err(error) => found(format!("a row cannot be read ({error})")),
            }
        }
        if row_count < PAGE_ROWS {
            return Ok(());
        }
    }
}

fn check_names(context: &Reading<'_>, found: &mut dyn FnMut(String)) -> Outcome<()> {
    let mut statement = context.connection.prepare_cached(&format!(
        "SELECT {NAME} FROM name WHERE (name, label_key) > (CAST(?1 AS TEXT), ?2) ORDER BY name, label_key LIMIT ?3"
    ))?;
    // Bytes, since a damaged name may be no UTF-8 any more.
    let mut after = (Vec::new(), i64::MIN);
    loop {
        let mut rows = statement.query(params![after.0, after.1, PAGE_ROWS])?;
        let mut row_count = 0;
        while let Some(row) = rows.next()? {
            row_count += 1;
            after = (row.get_ref(0)?.as_bytes().map_err(rusqlite::Error::from)?.to_vec(), row.get(1)?);
            if let Err(Failure::Refused(damage)) = Name::read(row) {
                found(damage.to_string());
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
            "SELECT count(*) FROM name WHERE NOT EXISTS
                 (SELECT 1 FROM entity WHERE entity.key = name.entity_key AND gone_ms IS NULL)",
            "names belong to no entity",
        ),
        (
            "SELECT count(*) FROM entity WHERE gone_ms IS NULL AND NOT EXISTS
                 (SELECT 1 FROM name WHERE name.name = entity.name AND name.label_key = entity.label_key
                      AND name.entity_key = entity.key AND is_alias = 0)",
            "entities are not found by their names",
        ),
        (
            "SELECT count(*) FROM relation WHERE NOT EXISTS (SELECT 1 FROM entity WHERE entity.key = relation.subject)
                 OR NOT EXISTS (SELECT 1 FROM entity WHERE entity.key = relation.object)",
            "relations have an end that is not there",
        ),
        (
            "SELECT count(*) FROM relation JOIN entity ON entity.key IN (relation.subject, relation.object)
             WHERE entity.merged_into IS NOT NULL",
            "relations belong to an entity that was merged",
        ),
        (
            "SELECT count(*) FROM relation_past
             WHERE NOT EXISTS (SELECT 1 FROM relation WHERE relation.key = relation_past.key)",
            "earlier versions belong to no relation",
        ),
        (
            "SELECT count(*) FROM said WHERE NOT EXISTS (SELECT 1 FROM relation WHERE key = relation_key)
                 OR NOT EXISTS (SELECT 1 FROM source WHERE key = source_key)",
            "sources say what is not there",
        ),
        (
            "SELECT count(*) FROM source WHERE NOT EXISTS (SELECT 1 FROM said WHERE source_key = source.key)",
            "sources say nothing",
        ),
        (
            "SELECT count(*) FROM embedding WHERE NOT EXISTS (SELECT 1 FROM entity WHERE key = entity_key)
                 OR octet_length(components) <> (SELECT octet_length(components) FROM embedding LIMIT 1)",
            "embeddings belong to no entity or differ in their dimensions",
        ),
        (
            "SELECT count(*) FROM (SELECT key FROM entity UNION ALL SELECT key FROM relation
                 UNION ALL SELECT version FROM relation_past UNION ALL SELECT slot FROM embedding)
             WHERE key > (SELECT max(sequence) FROM change_log)",
            "rows are newer than the newest commit",
        ),
    ] {
        let count: u64 = context.connection.query_row(sql, [], |row| row.get(0))?;
        if count > 0 {
            found(format!("{count} {what}"));
        }
    }
    Ok(())
}
