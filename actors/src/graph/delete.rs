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

/// Forgets some of what every graph in memory has followed.
fn forget_touched(connection: &Connection, next: i64, rows_max: usize) -> Outcome<usize> {
    let deleted = connection
        .prepare_cached(
            "DELETE FROM touched WHERE sequence IN (SELECT sequence FROM touched WHERE sequence < ?1
                 ORDER BY sequence LIMIT ?2)",
        )?
        .execute(params![next - TOUCHED_KEPT, rows_max])?;
    Ok(deleted)
}

#[cfg(test)]
mod tests {
    use larder_protocol::graph::Validity;

    use super::super::row::{EntityPayload, INSERT_RELATION, RelationRow};
    use super::super::{Graph, GraphSettings};
    use super::*;
    use crate::store::{StoreSettings, store_file};

    fn entity(key: i64) -> EntityRow {
        let name = format!("n{key}");
        EntityRow { key, label_key: 1, name, created_ms: 1, updated_ms: 1, gone_ms: Some(1), merged_into: None }
    }

    /// However long the history of one fact is, no slice of an entity's end is longer than it may be.
    #[test]
    fn slices_of_an_entity_s_end_have_few_rows() {
        const ROWS_MAX: usize = 10;
        let folder = tempfile::tempdir().unwrap();
        let file = store_file::<Graph>(folder.path(), &StoreSettings::default(), &GraphSettings::default());
        std::fs::create_dir(folder.path().join("locks")).unwrap();
        file.prepare().unwrap();
        let connection = file.writer().unwrap();
        for key in [1, 2] {
            entity(key).insert(&connection, &EntityPayload::default()).unwrap();
        }
        for key in 10..13 {
            let relation = RelationRow {
                key,
                subject: 1,
                label_key: 1,
                object: 2,
                qualifier: String::new(),
                weight: 1.0,
                validity: Validity::default(),
                recorded_ms: 1,
                superseded: None,
                properties: None,
            };
            relation.insert(&mut connection.prepare(INSERT_RELATION).unwrap()).unwrap();
            for version in 0..25 {
                relation.clone().keep_past(&connection, 100 * key + version, 2).unwrap();
            }
        }
        let count = |table: &str| -> usize {
            let sql = format!("SELECT count(*) FROM {table}");
            connection.query_row(&sql, [], |row| row.get(0)).unwrap()
        };
        let rows = || count("entity") + count("relation") + count("relation_past");
        let mut before = rows();
        assert_eq!(before, 2 + 3 + 75);
        while before > 1 {
            let deleted = delete_some(&connection, 1, ROWS_MAX).unwrap();
            assert_eq!(before - rows(), deleted);
            assert!((1..=ROWS_MAX).contains(&deleted), "{deleted} rows in a slice");
            before = rows();
        }
        assert_eq!(count("entity"), 1, "the other end stays");
    }
}
