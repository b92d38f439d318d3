//! Deleting entities: gone at once, their rows bit by bit.
//!
//! Always true: a row whose `gone_ms` is set and whose `merged_into` is not is one that [`sweep`] has still to remove.

use larder_protocol::graph::DeleteEntities;
use rusqlite::{Connection, OptionalExtension, params};

use super::row::EntityRow;
use super::store::Writing;
use super::{embeddings, entities, names, relations};
use crate::store::{Outcome, check_count};

/// What was changed is told to graphs in memory for so many writes; one that is further behind is loaded anew.
pub(super) const TOUCHED_KEPT: i64 = 1_000_000;

pub(super) fn delete_entities(context: &mut Writing<'_>, message: &DeleteEntities) -> Outcome<u64> {
    check_count(message.entities.len())?;
    let mut count = 0;
    for entity in &message.entities {
        if let Some(key) = names::find(context.connection, entity)? {
            let row = EntityRow::require(context.connection, key)?;
            delete(context, row)?;
            count += 1;
        }
    }
    Ok(count)
}

/// Deletes an entity that is there: nobody sees it or its relations any more.
pub(super) fn delete(context: &mut Writing<'_>, mut entity: EntityRow) -> Outcome<()> {
    let connection = context.connection;
    for name in names::all(connection, &entity)? {
        name.delete(context)?;
    }
    entities::remove_text(connection, entity.key)?;
    embeddings::remove(connection, entity.key)?;
    entity.gone_ms = Some(context.now.0);
    entity.update(connection)?;
    entities::changed(context, "delete", entity.key)
}

/// Deletes some rows of entities that are gone for good, and some of what graphs in memory need not be told any more.
pub(super) fn sweep(context: &mut Writing<'_>, rows_max: usize) -> Outcome<usize> {
    let connection = context.connection;
    context.memory.known_names().rest();
    let gone: Option<i64> = connection
        .prepare_cached("SELECT key FROM entity WHERE gone_ms IS NOT NULL AND merged_into IS NULL LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let row_count = match gone {
        Some(key) => delete_some(connection, key, rows_max)?,
        None => forget_touched(connection, context.next_version().0.cast_signed(), rows_max)?,
    };
    if row_count > 0 {
        context.changed_all("sweep", "");
    }
    Ok(row_count)
}

fn delete_some(connection: &Connection, entity_key: i64, rows_max: usize) -> Outcome<usize> {
    let keys = {
        let mut statement = connection.prepare_cached(
            "SELECT key FROM relation WHERE subject = ?1 UNION SELECT key FROM relation WHERE object = ?1 LIMIT ?2",
        )?;
        statement.query_map(params![entity_key, rows_max], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?
    };
    let mut room = rows_max;
    for key in keys {
        room -= delete_past(connection, "key", key, room)?;
        if room == 0 {
            return Ok(rows_max);
        }
        relations::delete_rows(connection, key)?;
        room -= 1;
    }
    // What was a fact of it once, and is another's by now.
    for end in ["subject", "object"] {
        room -= delete_past(connection, end, entity_key, room)?;
    }
    if room > 0 {
        // What was merged into it goes next; merges that it was part of can no longer be undone.
        let merged = {
            let mut statement =
                connection.prepare_cached("SELECT key FROM entity WHERE gone_ms IS NOT NULL AND merged_into = ?1")?;
            statement.query_map([entity_key], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?
        };
        for key in merged {
            let mut entity = EntityRow::require(connection, key)?;
            entity.merged_into = None;
            entity.update(connection)?;
        }
        connection.prepare_cached("DELETE FROM merge WHERE from_key = ?1 OR into_key = ?1")?.execute([entity_key])?;
        connection.prepare_cached("DELETE FROM entity WHERE key = ?1")?.execute([entity_key])?;
        room -= 1;
    }
    Ok(rows_max - room)
}

/// Deletes some earlier versions of facts by one of their columns, a trusted name; answers how many went.
fn delete_past(connection: &Connection, column: &str, key: i64, rows_max: usize) -> rusqlite::Result<usize> {
    let sql = format!(
        "DELETE FROM relation_past WHERE version IN (SELECT version FROM relation_past WHERE {column} = ?1 LIMIT ?2)"
    );
    connection.prepare_cached(&sql)?.execute(params![key, rows_max])
}

fn forget_touched(connection: &Connection, next: i64, rows_max: usize) -> Outcome<usize> {
    let deleted = connection
        .prepare_cached(
            "DELETE FROM touched WHERE sequence IN (SELECT sequence FROM touched WHERE sequence < ?1
                 ORDER BY sequence LIMIT ?2)",
        )?
        .execute(params![next - TOUCHED_KEPT, rows_max])?;
    Ok(deleted)
}
