//! Merging two entities, and undoing it.
//!
//! A relation that goes over is changed like any other: how it was is in `relation_past`, under a version between the merge's
//! first and last. Undoing puts those ends back that are still where the merge put them.
//!
//! Always true: a merge that holds names an entity that is there (`into_key`) or was itself merged or deleted, and one that is
//! gone (`from_key`).

use larder_protocol::Error as Kind;
use larder_protocol::graph::{EntityId, MergeEntities, MergeId, UndoMerge};
use rusqlite::{Connection, params};

use super::names::{self, Name};
use super::row::{EntityPayload, EntityRow, RELATION_PAST, RelationRow, checksum, damaged, entity_id};
use super::store::Writing;
use super::{entities, relations};
use crate::store::{Outcome, decoded};

/// A merge as a row.
struct Merge {
    key: i64,
    last: i64,
    from_key: i64,
    into_key: i64,
    merged_ms: i64,
    undone_ms: Option<i64>,
    /// The names that went over, as JSON.
    names: String,
}

impl Merge {
    fn checksum(&self) -> i64 {
        let Self { key, last, from_key, into_key, merged_ms, undone_ms, names } = self;
        let numbers = [Some(*key), Some(*last), Some(*from_key), Some(*into_key), Some(*merged_ms), *undone_ms];
        checksum(&numbers, &[Some(names)])
    }

    fn put(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO merge (key, last, from_key, into_key, merged_ms, undone_ms, names, checksum)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                self.key,
                self.last,
                self.from_key,
                self.into_key,
                self.merged_ms,
                self.undone_ms,
                self.names,
                self.checksum()
            ])?;
        Ok(())
    }

    fn read(row: &rusqlite::Row<'_>) -> Outcome<Self> {
        let read = || -> rusqlite::Result<Option<Self>> {
            let found = Self {
                key: row.get(0)?,
                last: row.get(1)?,
                from_key: row.get(2)?,
                into_key: row.get(3)?,
                merged_ms: row.get(4)?,
                undone_ms: row.get(5)?,
                names: row.get(6)?,
            };
            Ok((row.get::<_, i64>(7)? == found.checksum()).then_some(found))
        };
        decoded(read(), || damaged("a merge does not match its checksum".to_owned()))
    }

    fn find(connection: &Connection, merge: MergeId) -> Outcome<Self> {
        let mut statement = connection.prepare_cached(
            "SELECT key, last, from_key, into_key, merged_ms, undone_ms, names, checksum FROM merge WHERE key = ?1",
        )?;
        let mut rows = statement.query([merge.0.cast_signed()])?;
        match rows.next()? {
            Some(row) => Self::read(row),
            None => Err(Kind::NotFound { what: format!("merge {}", merge.0) }.into()),
        }
    }

    /// Returns the names that went over, as they were.
    fn names(&self) -> Outcome<Vec<Name>> {
        let names: Vec<(i64, String, bool)> =
            serde_json::from_str(&self.names).map_err(|_| damaged("a merge's names cannot be read".to_owned()))?;
        let name = |(label_key, name, is_alias)| Name { name, label_key, entity_key: self.from_key, is_alias };
        Ok(names.into_iter().map(name).collect())
    }
}

/// Verifies every merge.
pub(super) fn check(connection: &Connection, found: &mut dyn FnMut(String)) -> Outcome<()> {
    let mut statement = connection
        .prepare_cached("SELECT key, last, from_key, into_key, merged_ms, undone_ms, names, checksum FROM merge")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Err(crate::store::Failure::Refused(damage)) = Merge::read(row) {
            found(damage.to_string());
        }
    }
    Ok(())
}

pub(super) fn merge(context: &mut Writing<'_>, message: &MergeEntities) -> Outcome<MergeId> {
    let connection = context.connection;
    let from_key = names::require(connection, &message.from)?;
    let into_key = names::require(connection, &message.into)?;
    if from_key == into_key {
        let (expected, found) = ("two entities".to_owned(), "one".to_owned());
        // Two names of one entity are what the store holds; the same name twice is the caller's mistake.
        return Err(if message.from == message.into {
            Kind::invalid("merge", "an entity cannot be merged with itself").into()
        } else {
            Kind::Conflict { what: format!("merge of {} into {}", message.from, message.into), expected, found }.into()
        });
    }
    let key = context.next_version().0.cast_signed();
    let mut from = EntityRow::require(connection, from_key)?;
    let names = names::all(connection, &from)?;
    entities::remove_text(connection, from_key)?;
    for name in &names {
        Name { entity_key: into_key, is_alias: true, ..name.clone() }.put(context)?;
    }
    from.gone_ms = Some(context.now.0);
    from.merged_into = Some(into_key);
    from.update(connection)?;
    entities::changed(context, "merge", from_key)?;
    let to_move = "WHERE subject = ?1 UNION ALL SELECT relation.key, relation.subject, relation.label_key, \
         relation.object, relation.qualifier, relation.weight, relation.valid_from_ms, relation.valid_until_ms, \
         relation.recorded_ms, relation.checksum, relation.properties, relation.payload_checksum, NULL, NULL \
         FROM relation WHERE object = ?1 AND subject <> ?1";
    for relation in relations::select(connection, to_move, [from_key])? {
        let end = |end: i64| if end == from_key { into_key } else { end };
        let moved = RelationRow { subject: end(relation.subject), object: end(relation.object), ..relation.clone() };
        relations::change(context, relation, moved)?;
    }
    let last = context.next_version().0.cast_signed();
    let shown: Vec<_> = names.iter().map(|name| (name.label_key, &name.name, name.is_alias)).collect();
    let names = serde_json::to_string(&shown).map_err(|_| Kind::invalid("names", "they cannot be written as JSON"))?;
    let merged_ms = context.now.0;
    Merge { key, last, from_key, into_key, merged_ms, undone_ms: None, names }.put(connection)?;
    entities::changed(context, "update", into_key)?;
    Ok(MergeId(key.cast_unsigned()))
}

pub(super) fn undo(context: &mut Writing<'_>, message: &UndoMerge) -> Outcome<EntityId> {
    let connection = context.connection;
    let mut merge = Merge::find(connection, message.merge)?;
    let what = || format!("undo of merge {}", message.merge.0);
    if merge.undone_ms.is_some() {
        let (expected, found) = ("a merge that holds".to_owned(), "one that was undone".to_owned());
        return Err(Kind::Conflict { what: what(), expected, found }.into());
    }
    let into = EntityRow::find(connection, merge.into_key)?.filter(EntityRow::is_live);
    if into.is_none() {
        let (expected, found) = ("the entity that stayed".to_owned(), "it has gone since".to_owned());
        return Err(Kind::Conflict { what: what(), expected, found }.into());
    }
    let names = merge.names()?;
    for name in &names {
        let now = names::find_named(connection, name.label_key, &name.name)?;
        if now.is_some_and(|now| now.entity_key != merge.into_key || !now.is_alias) {
            let (expected, found) = ("its names to be free".to_owned(), "one is another entity's".to_owned());
            return Err(Kind::Conflict { what: what(), expected, found }.into());
        }
    }
    let mut from = EntityRow::require(connection, merge.from_key)?;
    for name in &names {
        name.put(context)?;
    }
    from.gone_ms = None;
    from.merged_into = None;
    from.updated_ms = context.now.0;
    from.update(connection)?;
    entities::insert_text(connection, &from, &EntityPayload::find(connection, from.key)?)?;
    entities::changed(context, "undo", from.key)?;
    for was in moved(connection, &merge)? {
        put_back(context, &merge, &was)?;
    }
    merge.undone_ms = Some(context.now.0);
    merge.put(connection)?;
    entities::changed(context, "update", merge.into_key)?;
    Ok(entity_id(from.key))
}

/// Returns what the merge moved, as it was before.
fn moved(connection: &Connection, merge: &Merge) -> Outcome<Vec<RelationRow>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {RELATION_PAST} FROM relation_past AS relation WHERE version BETWEEN ?1 AND ?2"
    ))?;
    let mut rows = statement.query([merge.key, merge.last])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(RelationRow::read(row)?);
    }
    Ok(found)
}

fn put_back(context: &mut Writing<'_>, merge: &Merge, was: &RelationRow) -> Outcome<()> {
    let Some(relation) = RelationRow::find(context.connection, was.key)? else { return Ok(()) };
    let end = |was: i64, is: i64| if was == merge.from_key && is == merge.into_key { was } else { is };
    let (subject, object) = (end(was.subject, relation.subject), end(was.object, relation.object));
    let back = RelationRow { subject, object, ..relation.clone() };
    if back != relation {
        relations::change(context, relation, back)?;
    }
    Ok(())
}
