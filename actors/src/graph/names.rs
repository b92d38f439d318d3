//! Names: from what a caller calls an entity to its row; renaming, and aliases.
//!
//! Start at [`find`]. Always true: a name and a label mean one entity, which is there.

use larder_protocol::graph::{AddAlias, EntityId, EntityRef, RemoveAlias, RenameEntity};
use larder_protocol::{EntityName, Error as Kind};
use rusqlite::{Connection, OptionalExtension, params};

use super::entities;
use super::known_names::Owner;
use super::labels::{self, Labels};
use super::row::{EntityPayload, EntityRow, checksum, damaged, entity_id};
use super::store::Writing;
use crate::store::{Failure, Outcome};

/// One name of an entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) name: String,
    pub(super) label_key: i64,
    pub(super) entity_key: i64,
    pub(super) is_alias: bool,
}

/// The columns that [`Name::read`] decodes.
pub(super) const NAME: &str = "name.name, name.label_key, name.entity_key, name.is_alias, name.checksum";

impl Name {
    pub(super) fn read(row: &rusqlite::Row<'_>) -> Outcome<Self> {
        let read = || -> rusqlite::Result<Option<Self>> {
            let found =
                Self { name: row.get(0)?, label_key: row.get(1)?, entity_key: row.get(2)?, is_alias: row.get(3)? };
            Ok((row.get::<_, i64>(4)? == found.checksum()).then_some(found))
        };
        crate::store::decoded(read(), || damaged("a name does not match its checksum".to_owned()))
    }

    fn checksum(&self) -> i64 {
        checksum(&[Some(self.label_key), Some(self.entity_key), Some(i64::from(self.is_alias))], &[Some(&self.name)])
    }

    /// Stores the name, in the place of the same one.
    pub(super) fn put(&self, context: &Writing<'_>) -> rusqlite::Result<()> {
        context
            .connection
            .prepare_cached(
                "INSERT OR REPLACE INTO name (name, label_key, entity_key, is_alias, checksum)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![self.name, self.label_key, self.entity_key, self.is_alias, self.checksum()])?;
        // Behind it: a statement that failed may leave its transaction, and so the lineage, as they were.
        let owner = Owner { label_key: self.label_key, entity_key: self.entity_key };
        context.memory.known_names().note_put(context.lineage(), &self.name, owner);
        Ok(())
    }

    pub(super) fn delete(&self, context: &Writing<'_>) -> rusqlite::Result<()> {
        context.memory.known_names().note_delete(&self.name);
        context
            .connection
            .prepare_cached("DELETE FROM name WHERE name = ?1 AND label_key = ?2")?
            .execute(params![self.name, self.label_key])?;
        Ok(())
    }
}

/// Returns the entity that is there under a name of a label.
pub(super) fn find_named(connection: &Connection, label_key: i64, name: &str) -> Outcome<Option<Name>> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {NAME} FROM name WHERE name = ?1 AND label_key = ?2"))?;
    let mut rows = statement.query(params![name, label_key])?;
    rows.next()?.map(Name::read).transpose()
}

/// Returns every label's entity under a name, in the order of the labels' numbers.
fn find_any(connection: &Connection, name: &str) -> Outcome<Vec<Name>> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {NAME} FROM name WHERE name = ?1 ORDER BY label_key"))?;
    let mut rows = statement.query([name])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(Name::read(row)?);
    }
    Ok(found)
}

/// Returns the key of the entity that is meant; `None`: it is not there.
///
/// # Errors
/// [`Conflict`](Kind::Conflict) when a name without a label is that of several.
pub(super) fn find(connection: &Connection, entity: &EntityRef) -> Outcome<Option<i64>> {
    match entity {
        EntityRef::Id(id) => {
            let mut statement =
                connection.prepare_cached("SELECT key FROM entity WHERE key = ?1 AND gone_ms IS NULL")?;
            Ok(statement.query_row([id.0.cast_signed()], |row| row.get(0)).optional()?)
        }
        EntityRef::Name { name, label: Some(label) } => {
            let Some(label_key) = labels::find(connection, label)? else { return Ok(None) };
            Ok(find_named(connection, label_key, name.as_str())?.map(|name| name.entity_key))
        }
        EntityRef::Name { name, label: None } => {
            let found = find_any(connection, name.as_str())?;
            let first = found.first().map(|name| name.entity_key);
            if found.iter().any(|other| Some(other.entity_key) != first) {
                let (expected, found) = ("one entity".to_owned(), "several, of different labels".to_owned());
                return Err(Kind::Conflict { what: entity.to_string(), expected, found }.into());
            }
            Ok(first)
        }
        // A way to name entities of a newer protocol.
        _ => Err(Kind::invalid("entity", "it is named in a way that is not known here").into()),
    }
}

/// What a write finds under a name.
enum Found {
    /// At most one entity.
    Owner(Option<Owner>),
    /// Several, of different labels.
    Several(Vec<Name>),
}

/// Returns what is under a name, without looking at the rows where writes have met it lately.
fn find_owner(context: &Writing<'_>, name: &str) -> Outcome<Found> {
    let lineage = context.lineage();
    if let Some(owner) = context.memory.known_names().get(lineage, name) {
        return Ok(Found::Owner(owner));
    }
    let found = find_any(context.connection, name)?;
    let owner = match &found[..] {
        [] => None,
        [only] => Some(Owner { label_key: only.label_key, entity_key: only.entity_key }),
        _ => return Ok(Found::Several(found)),
    };
    context.memory.known_names().learn(lineage, name, owner);
    Ok(Found::Owner(owner))
}

/// Does what [`find_named`] does, for a write.
pub(super) fn find_named_to_write(context: &Writing<'_>, label_key: i64, name: &str) -> Outcome<Option<i64>> {
    Ok(match find_owner(context, name) {
        Ok(Found::Owner(owner)) => owner.filter(|owner| owner.label_key == label_key).map(|owner| owner.entity_key),
        Ok(Found::Several(names)) => names.iter().find(|name| name.label_key == label_key).map(|name| name.entity_key),
        // The row of another label may be the damaged one.
        Err(Failure::Refused(_)) => find_named(context.connection, label_key, name)?.map(|name| name.entity_key),
        Err(error) => return Err(error),
    })
}

/// Does what [`find`] does, for a write.
///
/// # Errors
/// As for [`find`].
pub(super) fn find_to_write(
    context: &Writing<'_>,
    labels: &mut Labels<'_>,
    entity: &EntityRef,
) -> Outcome<Option<i64>> {
    match entity {
        EntityRef::Name { name, label: None } => match find_owner(context, name.as_str())? {
            Found::Owner(owner) => Ok(owner.map(|owner| owner.entity_key)),
            Found::Several(_) => find(context.connection, entity),
        },
        EntityRef::Name { name, label: Some(label) } => match labels.find(label)? {
            Some(label_key) => find_named_to_write(context, label_key, name.as_str()),
            None => Ok(None),
        },
        _ => find(context.connection, entity),
    }
}

/// Returns the key of the entity that is meant.
///
/// # Errors
/// [`NotFound`](Kind::NotFound) when it is not there; [`Conflict`](Kind::Conflict) as for [`find`].
pub(super) fn require(connection: &Connection, entity: &EntityRef) -> Outcome<i64> {
    find(connection, entity)?.ok_or_else(|| Kind::NotFound { what: entity.to_string() }.into())
}

/// Returns an entity's aliases, in their order.
pub(super) fn aliases(connection: &Connection, entity_key: i64) -> Outcome<Vec<Name>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {NAME} FROM name WHERE entity_key = ?1 AND is_alias = 1 ORDER BY name, label_key"
    ))?;
    let mut rows = statement.query([entity_key])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(Name::read(row)?);
    }
    Ok(found)
}

/// Returns all names of an entity, its own first.
pub(super) fn all(connection: &Connection, entity: &EntityRow) -> Outcome<Vec<Name>> {
    let own = Name { name: entity.name.clone(), label_key: entity.label_key, entity_key: entity.key, is_alias: false };
    let mut names = vec![own];
    names.extend(aliases(connection, entity.key)?);
    Ok(names)
}

fn taken(name: &str) -> Kind {
    let (expected, found) = ("no other entity of that name".to_owned(), "one of the label".to_owned());
    Kind::Conflict { what: format!("entity name {name:?}"), expected, found }
}

pub(super) fn rename(context: &mut Writing<'_>, message: &RenameEntity) -> Outcome<EntityId> {
    let connection = context.connection;
    let key = require(connection, &message.entity)?;
    let mut entity = EntityRow::require(connection, key)?;
    let name = message.name.as_str();
    if entity.name == name {
        return Ok(entity_id(key));
    }
    if find_named(connection, entity.label_key, name)?.is_some_and(|found| found.entity_key != key) {
        return Err(taken(name).into());
    }
    let payload = EntityPayload::find(connection, key)?;
    entities::remove_text(connection, key)?;
    let label_key = entity.label_key;
    let old = Name { name: entity.name, label_key, entity_key: key, is_alias: true };
    if message.keeps_alias {
        old.put(context)?;
    } else {
        old.delete(context)?;
    }
    Name { name: name.to_owned(), label_key, entity_key: key, is_alias: false }.put(context)?;
    entity.name = name.to_owned();
    entity.updated_ms = context.now.0;
    entity.update(connection)?;
    entities::insert_text(connection, &entity, &payload)?;
    entities::changed(context, "update", key)?;
    Ok(entity_id(key))
}

pub(super) fn add_alias(context: &mut Writing<'_>, message: &AddAlias) -> Outcome<bool> {
    let connection = context.connection;
    let key = require(connection, &message.entity)?;
    let entity = EntityRow::require(connection, key)?;
    let alias = message.alias.as_str();
    match find_named(connection, entity.label_key, alias)? {
        Some(found) if found.entity_key != key => return Err(taken(alias).into()),
        Some(_) => return Ok(false),
        None => {}
    }
    Name { name: alias.to_owned(), label_key: entity.label_key, entity_key: key, is_alias: true }.put(context)?;
    entities::changed(context, "update", key)?;
    Ok(true)
}

pub(super) fn remove_alias(context: &mut Writing<'_>, message: &RemoveAlias) -> Outcome<bool> {
    let connection = context.connection;
    let key = require(connection, &message.entity)?;
    let mut is_removed = false;
    // A merge may have left the same alias under several labels.
    for alias in aliases(connection, key)?.iter().filter(|alias| alias.name == message.alias.as_str()) {
        alias.delete(context)?;
        is_removed = true;
    }
    if is_removed {
        entities::changed(context, "update", key)?;
    }
    Ok(is_removed)
}

/// Returns names as an entity shows them: each once.
pub(super) fn shown(names: &[Name]) -> Vec<EntityName> {
    let mut shown: Vec<_> = names.iter().map(|name| EntityName::from_stored(&name.name)).collect();
    shown.dedup();
    shown
}
