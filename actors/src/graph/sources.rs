//! Sources: who says which relation, and what goes when one is removed.

use std::collections::{BTreeSet, HashSet};

use larder_protocol::SourceId;
use larder_protocol::graph::{
    ListSources, NewRelation, RemoveSource, ReplaceSources, ReplacedSources, SourceFacts, SourceSlice,
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::delete;
use super::relations::{self, Upserts};
use super::row::{EntityRow, RelationRow, checksum, damaged};
use super::store::{Graph, Reading, Writing};
use crate::sqlite::text::prefix_end;
use crate::store::{Outcome, check_count, check_limit, decoded, stored_name};

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

/// Facts that one slice of a removal takes from their source: about 20 µs each.
const FACTS_PER_SLICE: usize = 500;

pub(super) fn remove(context: &mut Writing<'_>, message: &RemoveSource) -> Outcome<SourceSlice> {
    let connection = context.connection;
    let mut slice = SourceSlice { is_last: true, ..SourceSlice::default() };
    let Some(source_key) = find(connection, &message.source)? else { return Ok(slice) };
    let keys = said_by(connection, source_key, FACTS_PER_SLICE)?;
    slice.is_last = keys.len() < FACTS_PER_SLICE;
    let (removal, mut ends) = (&mut slice.removal, BTreeSet::new());
    for key in keys {
        match unsay(context, key, source_key)? {
            Unsaid::Kept => removal.kept += 1,
            Unsaid::Deleted(entities) => {
                ends.extend(entities);
                removal.deleted += 1;
            }
        }
    }
    delete_silent(connection, source_key)?;
    if message.removes_lone_entities {
        for key in ends {
            removal.deleted_entities += u64::from(remove_if_lone(context, key, |_| Ok(true))?);
        }
    }
    Ok(slice)
}

/// Returns the first relations that a source says.
fn said_by(connection: &Connection, source_key: i64, count_max: usize) -> Outcome<Vec<i64>> {
    let mut statement = connection
        .prepare_cached("SELECT relation_key FROM said WHERE source_key = ?1 ORDER BY relation_key LIMIT ?2")?;
    Ok(statement.query_map(params![source_key, count_max], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// What became of a relation that lost a source.
enum Unsaid {
    /// Others say it, too.
    Kept,
    /// Nothing said it any more; these were its ends.
    Deleted([i64; 2]),
}

fn unsay(context: &mut Writing<'_>, key: i64, source_key: i64) -> Outcome<Unsaid> {
    let connection = context.connection;
    connection
        .prepare_cached("DELETE FROM said WHERE relation_key = ?1 AND source_key = ?2")?
        .execute([key, source_key])?;
    let lost = || damaged(format!("a source says the relation {key}, and it is not there"));
    let relation = RelationRow::find(connection, key)?.ok_or_else(lost)?;
    if is_said(connection, key)? {
        context.changed("update", "relation", &key.to_string());
        return Ok(Unsaid::Kept);
    }
    relations::delete(context, &relation)?;
    Ok(Unsaid::Deleted([relation.subject, relation.object]))
}

pub(super) fn replace(context: &mut Writing<'_>, message: &ReplaceSources) -> Outcome<ReplacedSources> {
    let facts = || message.sources.iter().flat_map(|source| &source.relations);
    check_count(message.sources.len() + facts().count())?;
    for relation in facts() {
        relations::check_new(context, relation)?;
    }
    let connection = context.connection;
    let mut replaced = ReplacedSources::default();
    let mut ends = BTreeSet::new();
    let mut upserts = Upserts::new(connection, true)?;
    for source in &message.sources {
        replace_one(context, &mut upserts, source, &mut replaced, &mut ends)?;
    }
    if message.removes_bare_entities {
        for key in ends {
            replaced.deleted_entities += u64::from(remove_if_lone(context, key, |entity| is_bare(connection, entity))?);
        }
    }
    Ok(replaced)
}

/// No source says more.
const ALL: usize = u32::MAX as usize;

fn replace_one(
    context: &mut Writing<'_>,
    upserts: &mut Upserts<'_>,
    SourceFacts { source, relations }: &SourceFacts,
    replaced: &mut ReplacedSources,
    ends: &mut BTreeSet<i64>,
) -> Outcome<()> {
    let connection = context.connection;
    let before = match find(connection, source)? {
        // All of them, since it is one write.
        Some(key) => said_by(connection, key, ALL)?,
        None => Vec::new(),
    };
    let mut said = HashSet::new();
    for relation in relations {
        let relation = NewRelation { sources: vec![source.clone()], ..relation.clone() };
        match relations::upsert_if_clear(context, upserts, &relation)? {
            Some(key) => drop(said.insert(key)),
            None => replaced.refused += 1,
        }
    }
    replaced.said += said.len() as u64;
    // What it said is there, so it is there itself.
    let Some(source_key) = find(connection, source)? else { return Ok(()) };
    for key in before.into_iter().filter(|key| !said.contains(key)) {
        match unsay(context, key, source_key)? {
            Unsaid::Kept => replaced.kept += 1,
            Unsaid::Deleted(entities) => {
                ends.extend(entities);
                replaced.deleted += 1;
            }
        }
    }
    delete_silent(connection, source_key)
}

/// Tells whether nothing but its label and name was ever said of an entity.
fn is_bare(connection: &Connection, entity: &EntityRow) -> Outcome<bool> {
    let mut statement = connection.prepare_cached(
        "SELECT payload_checksum IS NULL
             AND NOT EXISTS (SELECT 1 FROM name WHERE entity_key = ?1 AND is_alias = 1)
             AND NOT EXISTS (SELECT 1 FROM embedding WHERE entity_key = ?1)
         FROM entity WHERE key = ?1",
    )?;
    Ok(statement.query_row([entity.key], |row| row.get(0))?)
}

pub(super) fn list(context: &Reading<'_>, message: &ListSources) -> Outcome<Vec<SourceId>> {
    check_limit(message.limit)?;
    let mut statement = context.connection.prepare_cached(
        "SELECT id FROM source WHERE id >= ?1 AND (?2 IS NULL OR id < ?2) AND id > ?3 ORDER BY id LIMIT ?4",
    )?;
    let after = message.after.as_ref().map_or("", SourceId::as_str);
    let end = prefix_end(&message.prefix);
    let ids = statement.query_map(params![message.prefix, end, after, message.limit], |row| row.get::<_, String>(0))?;
    ids.map(|id| stored_name::<Graph, _>(SourceId::new(id?))).collect()
}

fn is_said(connection: &Connection, relation_key: i64) -> Outcome<bool> {
    let mut statement = connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM said WHERE relation_key = ?1)")?;
    Ok(statement.query_row([relation_key], |row| row.get(0))?)
}

/// Deletes an entity that has no relation left, where `may_go` says so.
fn remove_if_lone(
    context: &mut Writing<'_>,
    key: i64,
    may_go: impl FnOnce(&EntityRow) -> Outcome<bool>,
) -> Outcome<bool> {
    let connection = context.connection;
    let has_relation: bool = connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM relation WHERE subject = ?1) OR EXISTS (SELECT 1 FROM relation WHERE object = ?1)",
        )?
        .query_row([key], |row| row.get(0))?;
    let entity = EntityRow::require(connection, key)?;
    if has_relation || !entity.is_live() || !may_go(&entity)? {
        return Ok(false);
    }
    delete::delete(context, entity)?;
    Ok(true)
}
