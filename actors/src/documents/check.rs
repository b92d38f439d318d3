//! Damage that SQLite cannot see: rows that do not match their checksums, wrong counts, a full-text index that does not
//! hold what the nodes say.

use rusqlite::{OptionalExtension, Row, params};

use super::row::{self, COLUMNS, SOURCE};
use super::store::Reading;
use super::text_index::{TABLE, TEXTS};
use super::{index_records, intents, members, sources};
use crate::full_text::{self, typed_query};
use crate::store::{Failure, Outcome};
use larder_protocol::full_text::TextQuery;

/// Rows read in one transaction: a check must not pin the WAL.
const PAGE_ROWS: usize = 2_000;

/// Texts that are looked for in the index, spread over all.
const PROBES_MAX: i64 = 1_000;

/// Characters of a text that are looked for in the index.
const PROBE_CHARS: usize = 80;

pub(super) fn check(context: &Reading<'_>, found: &mut dyn FnMut(String)) -> Outcome<()> {
    check_pages(
        context,
        &format!("SELECT {COLUMNS} FROM {SOURCE} WHERE node.key > ?1 ORDER BY node.key LIMIT ?2"),
        found,
        |row| row::read(row).map(|_| ()),
    )?;
    let documents = format!(
        "SELECT {} FROM document WHERE document.key > ?1 AND document.id > '' ORDER BY document.key LIMIT ?2",
        sources::COLUMNS
    );
    check_pages(context, &documents, found, |row| sources::read(row).map(|_| ()))?;
    let texts = "SELECT document_key, document_key, text, checksum FROM source_text WHERE document_key > ?1
                 ORDER BY document_key LIMIT ?2";
    check_pages(context, texts, found, |row| sources::read_text(row, 1).map(|_| ()))?;
    check_index_records(context, found)?;
    members::check(context.connection, found)?;
    intents::check(context.connection, found)?;
    check_counts(context, found)?;
    full_text::check(context.connection, TABLE, TEXTS, found)?;
    probe_text_index(context, found)
}

/// Verifies every row of a query by pages; its first column is an integer key, its parameters the last key and a number.
fn check_pages(
    context: &Reading<'_>,
    sql: &str,
    found: &mut dyn FnMut(String),
    verify: impl Fn(&Row<'_>) -> Outcome<()>,
) -> Outcome<()> {
    let mut statement = context.connection.prepare_cached(sql)?;
    let mut after = i64::MIN;
    loop {
        let mut rows = statement.query(params![after, PAGE_ROWS])?;
        let mut row_count = 0;
        while let Some(row) = rows.next()? {
            row_count += 1;
            after = row.get(0)?;
            match verify(row) {
                Ok(()) => {}
                Err(Failure::Refused(damage)) => found(damage.to_string()),
                Err(error) => found(format!("the row {after} cannot be read ({error})")),
            }
        }
        if row_count < PAGE_ROWS {
            return Ok(());
        }
    }
}

fn check_index_records(context: &Reading<'_>, found: &mut dyn FnMut(String)) -> Outcome<()> {
    let sql = format!("SELECT {} FROM index_record", index_records::COLUMNS);
    let mut statement = context.connection.prepare_cached(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        match index_records::read(row) {
            Ok(_) => {}
            Err(Failure::Refused(damage)) => found(damage.to_string()),
            Err(error) => found(format!("an index record cannot be read ({error})")),
        }
    }
    Ok(())
}

fn check_counts(context: &Reading<'_>, found: &mut dyn FnMut(String)) -> Outcome<()> {
    for (sql, what) in [
        (
            "SELECT count(*) FROM node WHERE NOT EXISTS (SELECT 1 FROM document WHERE document.key = node.document_key)",
            "nodes belong to no document",
        ),
        (
            "SELECT count(*) FROM source_text
             WHERE NOT EXISTS (SELECT 1 FROM document WHERE document.key = source_text.document_key)",
            "texts belong to no document",
        ),
        (
            "SELECT count(*) FROM ingested
             WHERE NOT EXISTS (SELECT 1 FROM document WHERE document.key = ingested.document_key)",
            "documents of contexts are not there",
        ),
        (
            "SELECT count(*) FROM document WHERE id IS NOT NULL
                 AND node_count <> (SELECT count(*) FROM node WHERE document_key = document.key)",
            "documents have wrong counts",
        ),
        (
            "SELECT count(*) FROM (SELECT 1 FROM node JOIN document ON document.key = node.document_key
                 WHERE document.id IS NOT NULL GROUP BY node.id HAVING count(*) > 1)",
            "node ids belong to several nodes",
        ),
        (
            "SELECT count(*) FROM (SELECT 1 FROM node JOIN document ON document.key = node.document_key
                 WHERE document.id IS NOT NULL GROUP BY document_key, position HAVING count(*) > 1)",
            "places belong to several nodes",
        ),
    ] {
        let count: u64 = context.connection.query_row(sql, [], |row| row.get(0))?;
        if count > 0 {
            found(format!("{count} {what}"));
        }
    }
    Ok(())
}

/// Looks for the beginnings of some texts: a phrase costs up to a millisecond in a large index.
fn probe_text_index(context: &Reading<'_>, found: &mut dyn FnMut(String)) -> Outcome<()> {
    let connection = context.connection;
    let last: i64 = connection.query_row("SELECT coalesce(max(key), 0) FROM node", [], |row| row.get(0))?;
    let step = last / PROBES_MAX + 1;
    let mut next_text = connection.prepare_cached(
        "SELECT key, text FROM node WHERE key >= ?1 AND key < ?1 + ?2 AND text IS NOT NULL ORDER BY key LIMIT 1",
    )?;
    let mut probe =
        connection.prepare_cached(&format!("SELECT 1 FROM {TABLE} WHERE {TABLE} MATCH ?1 AND rowid = ?2"))?;
    for probe_number in 0..PROBES_MAX {
        let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, text_beginning(row, 1)?));
        let Some((key, text)) = next_text.query_row([probe_number * step, step], read).optional()? else { continue };
        let query = typed_query(&TextQuery::default().phrase(text.as_str()), context.settings.tokenizer)?;
        let Some(query) = query else { continue };
        let is_found = probe.query_row(params![query, key], |_| Ok(())).optional()?.is_some();
        // It may have been changed or deleted since.
        if !is_found && still_begins_so(context, key, &text)? {
            found(format!("the full-text index {TABLE} does not find the text of the node with key {key}"));
        }
    }
    Ok(())
}

fn still_begins_so(context: &Reading<'_>, key: i64, beginning_then: &str) -> Outcome<bool> {
    let mut statement =
        context.connection.prepare_cached("SELECT text FROM node WHERE key = ?1 AND text IS NOT NULL")?;
    let text = statement.query_row([key], |row| text_beginning(row, 0)).optional()?;
    Ok(text.is_some_and(|beginning| beginning == beginning_then))
}

/// A text may be damaged so that it is no UTF-8 any more: that was found before this.
fn text_beginning(row: &Row<'_>, at: usize) -> rusqlite::Result<String> {
    Ok(beginning(&String::from_utf8_lossy(row.get_ref(at)?.as_bytes()?)))
}

/// Returns the first words of a text, up to what cannot stand in a phrase; empty when they do not end in time.
fn beginning(text: &str) -> String {
    let end = text.find(['"', '\0']).unwrap_or(text.len());
    let (part, _) = text.split_at_checked(end).unwrap_or((text, ""));
    let Some((cut, _)) = part.char_indices().nth(PROBE_CHARS) else { return part.to_owned() };
    let part = part.get(..cut).unwrap_or_default();
    part.rfind(char::is_whitespace).and_then(|end| part.get(..end)).unwrap_or_default().to_owned()
}
