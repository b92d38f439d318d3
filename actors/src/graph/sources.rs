//! Sources: who says which relation, and what goes when one is removed.

use std::collections::BTreeSet;

use larder_protocol::SourceId;
use larder_protocol::graph::{RemoveSource, SourceRemoval};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::delete;
use super::relations;
use super::row::{EntityRow, RelationRow, checksum, damaged};
use super::store::Writing;
use crate::store::{Outcome, decoded};

/// Records that sources say a relation; answers whether one of them is new to it.
pub(super) fn add(connection: &Connection, relation_key: i64, sources: &[SourceId]) -> Outcome<bool> {
    let mut is_new = false;
    for source in sources {
        let source_key = match find(connection, source)? {
            Some(key) => key,
            None => insert(connection, source)?,
        };
        let added = connection
            .prepare_cached("INSERT OR IGNORE INTO said (relation_key, source_key) VALUES (?1, ?2)")?
            .execute([relation_key, source_key])?;
        is_new |= added > 0;
    }
    Ok(is_new)
}

fn insert(connection: &Connection, source: &SourceId) -> Outcome<i64> {
    // What the table gives next, since the checksum is over it.
    let key: i64 = connection
        .prepare_cached("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'source'), 0) + 1")?
        .query_row([], |row| row.get(0))?;
    connection.prepare_cached("INSERT INTO source (key, id, checksum) VALUES (?1, ?2, ?3)")?.execute(params![
        key,
        source.as_str(),
        checksum(&[Some(key)], &[Some(source.as_str())])
    ])?;
    Ok(key)
}

pub(super) fn find(connection: &Connection, source: &SourceId) -> Outcome<Option<i64>> {
    let mut statement = connection.prepare_cached("SELECT key, checksum FROM source WHERE id = ?1")?;
    let row: Option<(i64, i64)> =
        statement.query_row([source.as_str()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    match row {
        Some((key, stored)) if stored != checksum(&[Some(key)], &[Some(source.as_str())]) => {
            Err(damaged(format!("the source {key} does not match its checksum")))
        }
        found => Ok(found.map(|(key, _)| key)),
    }
}

/// The columns that [`read`] decodes.
pub(super) const SOURCE: &str = "source.key, source.id, source.checksum";

/// Decodes and verifies the columns [`SOURCE`].
pub(super) fn read(row: &Row<'_>) -> Outcome<SourceId> {
    let read = || -> rusqlite::Result<Option<SourceId>> {
        let (key, id, stored): (i64, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(SourceId::new(&id).ok().filter(|_| stored == checksum(&[Some(key)], &[Some(&id)])))
    };
    decoded(read(), || damaged("a source does not match its checksum".to_owned()))
}

/// Returns who says a relation, in the order of the ids.
pub(super) fn of(connection: &Connection, relation_key: i64) -> Outcome<Vec<SourceId>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {SOURCE} FROM said CROSS JOIN source ON source.key = said.source_key
         WHERE said.relation_key = ?1 ORDER BY source.id"
    ))?;
    let mut rows = statement.query([relation_key])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

/// Forgets who said a relation that goes, and sources that say nothing else.
pub(super) fn forget(connection: &Connection, relation_key: i64) -> Outcome<()> {
    let keys = {
        let mut statement = connection.prepare_cached("SELECT source_key FROM said WHERE relation_key = ?1")?;
        statement.query_map([relation_key], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?
    };
    if keys.is_empty() {
        return Ok(());
    }
    connection.prepare_cached("DELETE FROM said WHERE relation_key = ?1")?.execute([relation_key])?;
    for key in keys {
        delete_silent(connection, key)?;
    }
    Ok(())
}

/// Deletes a source that says nothing any more.
fn delete_silent(connection: &Connection, key: i64) -> Outcome<()> {
    connection
        .prepare_cached("DELETE FROM source WHERE key = ?1 AND NOT EXISTS (SELECT 1 FROM said WHERE source_key = ?1)")?
        .execute([key])?;
    Ok(())
}

pub(super) fn remove(context: &mut Writing<'_>, message: &RemoveSource) -> Outcome<SourceRemoval> {
    let connection = context.connection;
    let Some(source_key) = find(connection, &message.source)? else { return Ok(SourceRemoval::default()) };
    let relation_keys = {
        let mut statement =
            connection.prepare_cached("SELECT relation_key FROM said WHERE source_key = ?1 ORDER BY relation_key")?;
        statement.query_map([source_key], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?
    };
    let mut removal = SourceRemoval::default();
    let mut ends = BTreeSet::new();
    for key in relation_keys {
        connection
            .prepare_cached("DELETE FROM said WHERE relation_key = ?1 AND source_key = ?2")?
            .execute([key, source_key])?;
        let lost = || damaged(format!("a source says the relation {key}, and it is not there"));
        let relation = RelationRow::find(connection, key)?.ok_or_else(lost)?;
        if is_said(connection, key)? {
            context.changed("update", "relation", &key.to_string());
            removal.kept += 1;
        } else {
            relations::delete(context, &relation)?;
            ends.extend([relation.subject, relation.object]);
            removal.deleted += 1;
        }
    }
    delete_silent(connection, source_key)?;
    if message.removes_lone_entities {
        for key in ends {
            removal.deleted_entities += u64::from(remove_if_lone(context, key)?);
        }
    }
    Ok(removal)
}

fn is_said(connection: &Connection, relation_key: i64) -> Outcome<bool> {
    let mut statement = connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM said WHERE relation_key = ?1)")?;
    Ok(statement.query_row([relation_key], |row| row.get(0))?)
}

fn remove_if_lone(context: &mut Writing<'_>, key: i64) -> Outcome<bool> {
    let connection = context.connection;
    let has_relation: bool = connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM relation WHERE subject = ?1) OR EXISTS (SELECT 1 FROM relation WHERE object = ?1)",
        )?
        .query_row([key], |row| row.get(0))?;
    let entity = EntityRow::require(connection, key)?;
    if has_relation || !entity.is_live() {
        return Ok(false);
    }
    delete::delete(context, entity)?;
    Ok(true)
}
