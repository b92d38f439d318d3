//! Handlers that take nodes and documents out.
//!
//! Start at [`delete_document`]. A document loses its id at once, and with it its nodes are gone for every reader; the
//! rows of a large one follow in [`sweep`], so that no write takes long.

use std::collections::{HashMap, HashSet};

use larder_protocol::DocumentId;
use larder_protocol::documents::{DeleteDocument, DeleteMissing, DeleteNodes};
use rusqlite::{Connection, OptionalExtension, params};

use super::nodes;
use super::store::{Documents, Writing};
use super::{sources, text_index};
use crate::sqlite::text::prefix_end;
use crate::store::{Outcome, check_count, stored_name};

/// Rows that go with their document at once: about 20 ms, most of it the full-text index's.
pub(super) const ROWS_AT_ONCE_MAX: usize = 1_000;

/// Deletes a node's row and its entry in the index.
pub(super) fn delete_row(connection: &Connection, key: i64) -> rusqlite::Result<()> {
    text_index::delete(connection, key)?;
    connection.prepare_cached("DELETE FROM node WHERE key = ?1")?.execute([key])?;
    Ok(())
}

pub(super) fn delete_nodes(context: &mut Writing<'_>, message: &DeleteNodes) -> Outcome<u64> {
    check_count(message.ids.len())?;
    let mut left = HashMap::new();
    let mut deleted = 0;
    for id in &message.ids {
        let Some(found) = nodes::find(context.connection, id)? else { continue };
        delete_row(context.connection, found.key)?;
        *left.entry(found.document_key).or_insert(0) -= 1;
        deleted += 1;
        context.changed("delete", &found.document, id.as_str());
    }
    for (key, nodes) in left {
        sources::adjust(context.connection, key, nodes)?;
    }
    Ok(deleted)
}

pub(super) fn delete_document(context: &mut Writing<'_>, message: &DeleteDocument) -> Outcome<bool> {
    let mut rows_left = ROWS_AT_ONCE_MAX;
    Ok(delete_with_nodes(context, &message.id, &mut rows_left)?.is_some())
}

/// Deletes a document; answers how many nodes it had. `None`: it was not there.
pub(super) fn delete_with_nodes(
    context: &mut Writing<'_>,
    id: &DocumentId,
    rows_left: &mut usize,
) -> Outcome<Option<u64>> {
    let found = context
        .connection
        .prepare_cached("SELECT key, node_count FROM document WHERE id = ?1")?
        .query_row([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((key, node_count)) = found else { return Ok(None) };
    remove(context, id, key, node_count, rows_left)?;
    Ok(Some(node_count as u64))
}

/// Removes a document; its rows as well, if `rows_left` allows for them.
fn remove(
    context: &mut Writing<'_>,
    id: &DocumentId,
    key: i64,
    node_count: usize,
    rows_left: &mut usize,
) -> Outcome<()> {
    sources::remove_id(context.connection, key)?;
    if let Some(left) = rows_left.checked_sub(node_count) {
        *rows_left = left;
        // One more than there are, which tells that none is left.
        delete_rows(context.connection, key, node_count + 1)?;
    }
    context.changed_all("delete", id.as_str());
    Ok(())
}

pub(super) fn delete_missing(context: &mut Writing<'_>, message: &DeleteMissing) -> Outcome<Vec<DocumentId>> {
    check_count(message.keep.len())?;
    let keep: HashSet<&str> = message.keep.iter().map(DocumentId::as_str).collect();
    let mut missing = Vec::new();
    {
        let mut statement = context.connection.prepare_cached(
            "SELECT id, key, node_count FROM document WHERE id > '' AND id >= ?1 AND (?2 IS NULL OR id < ?2) ORDER BY id",
        )?;
        let mut rows = statement.query(params![message.prefix, prefix_end(&message.prefix)])?;
        while let Some(row) = rows.next()? {
            let id = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
            if !keep.contains(id) {
                missing.push((stored_name::<Documents, _>(DocumentId::new(id))?, row.get(1)?, row.get(2)?));
            }
        }
    }
    let mut rows_left = ROWS_AT_ONCE_MAX;
    for (id, key, node_count) in &missing {
        remove(context, id, *key, *node_count, &mut rows_left)?;
    }
    Ok(missing.into_iter().map(|(id, ..)| id).collect())
}

/// Deletes some rows of a document without an id, and the document once it has none; answers how many went.
fn delete_rows(connection: &Connection, document_key: i64, rows_max: usize) -> Outcome<usize> {
    let keys = {
        let mut statement = connection.prepare_cached("SELECT key FROM node WHERE document_key = ?1 LIMIT ?2")?;
        let keys = statement.query_map(params![document_key, rows_max], |row| row.get(0))?;
        keys.collect::<rusqlite::Result<Vec<i64>>>()?
    };
    for key in &keys {
        delete_row(connection, *key)?;
    }
    if keys.len() < rows_max {
        connection.prepare_cached("DELETE FROM source_text WHERE document_key = ?1")?.execute([document_key])?;
        connection.prepare_cached("DELETE FROM document WHERE key = ?1")?.execute([document_key])?;
    }
    Ok(keys.len())
}

/// Deletes rows of documents that were deleted.
pub(super) fn sweep(context: &mut Writing<'_>, rows_max: usize) -> Outcome<usize> {
    let deleted: Option<i64> = context
        .connection
        .prepare_cached("SELECT key FROM document WHERE id IS NULL LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let Some(key) = deleted else { return Ok(0) };
    let row_count = delete_rows(context.connection, key, rows_max)?;
    context.changed_all("sweep", "");
    Ok(row_count)
}
