//! Handlers over entities as rows: put, read, list, count.
//!
//! Start at [`upsert`]. What can be refused is refused before anything is written, so that it costs no neighbour anything.

use larder_protocol::graph::{
    CountGraph, DeclareEntityField, Entity, GetEntities, GraphCounts, ListEntities, NewEntity, Outcome as Became,
    UpsertEntities, UpsertedEntity,
};
use larder_protocol::limits::ANSWER_BYTES_MAX;
use larder_protocol::{Error as Kind, JsonText, Result};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params, params_from_iter};

use super::embeddings;
use super::labels::{self, Labels};
use super::names::{self, Name};
use super::row::{ENTITY, ENTITY_PAYLOAD, EntityPayload, EntityRow, entity_id};
use super::store::{Reading, Writing};
use crate::filter::{self, DeclaredField, FieldIndexes, JsonColumn};
use crate::full_text;
use crate::store::{Outcome, PAGE_BYTES_MAX, check_count, check_limit};

/// The full-text index over names and descriptions.
pub(super) const TEXT_INDEX: &str = "entity_text";

/// What filters on entities read, and the indexes of declared fields.
pub(super) const FIELDS: FieldIndexes = FieldIndexes {
    table: "entity",
    leading: "",
    column: JsonColumn { in_query: "entity.properties", in_index: "properties" },
};

pub(super) fn upsert(context: &mut Writing<'_>, message: &UpsertEntities) -> Outcome<Vec<UpsertedEntity>> {
    check_count(message.entities.len())?;
    for entity in &message.entities {
        check(context.settings.payload_bytes_max, entity)?;
    }
    check_embeddings(context.connection, &message.entities)?;
    let mut labels = Labels::new(context.connection);
    message.entities.iter().map(|entity| upsert_one(context, &mut labels, entity)).collect()
}

fn check(payload_bytes_max: usize, entity: &NewEntity) -> Result<()> {
    check_payload(&format!("entity {:?}", entity.name.as_str()), entity.payload_bytes(), payload_bytes_max)?;
    check_properties(entity.properties.as_ref())
}

fn check_embeddings(connection: &Connection, entities: &[NewEntity]) -> Outcome<()> {
    let mut given = entities.iter().filter_map(|entity| Some((&entity.name, entity.embedding.as_ref()?))).peekable();
    let Some((_, first)) = given.peek() else { return Ok(()) };
    let dimensions = embeddings::dimensions(connection)?.unwrap_or(first.dimensions());
    for (name, embedding) in given {
        embeddings::check(&format!("embedding of {:?}", name.as_str()), embedding, Some(dimensions))?;
    }
    Ok(())
}

pub(super) fn check_payload(what: &str, bytes: usize, bytes_max: usize) -> Result<()> {
    if bytes > bytes_max {
        let (what, bytes, bytes_max) = (what.to_owned(), bytes as u64, bytes_max as u64);
        return Err(Kind::TooLarge { what, bytes, bytes_max });
    }
    Ok(())
}

pub(super) fn check_properties(properties: Option<&JsonText>) -> Result<()> {
    let Some(properties) = properties else { return Ok(()) };
    if filter::read_json(properties.as_str().as_bytes())?.is_object() {
        return Ok(());
    }
    Err(Kind::invalid("properties", "they are not a JSON object"))
}

/// Returns properties as they are stored: an object without members is none.
pub(super) fn stored_properties(properties: &JsonText) -> Option<String> {
    // They are known to be an object.
    let is_empty =
        properties.as_str().trim_start().strip_prefix('{').is_some_and(|rest| rest.trim_start().starts_with('}'));
    (!is_empty).then(|| properties.as_str().to_owned())
}

fn upsert_one(context: &mut Writing<'_>, labels: &mut Labels<'_>, new: &NewEntity) -> Outcome<UpsertedEntity> {
    let label_key = labels.intern(&new.label)?;
    match names::find_named_to_write(context, label_key, new.name.as_str())? {
        Some(key) => update(context, key, new),
        None => {
            let payload = EntityPayload {
                description: new.description.clone(),
                properties: new.properties.as_ref().and_then(stored_properties),
            };
            if let Some(embedding) = &new.embedding {
                // Its key will be the next version.
                embeddings::put(context, context.next_version().0.cast_signed(), embedding)?;
            }
            let key = insert(context, label_key, new.name.as_str(), &payload)?;
            Ok(UpsertedEntity { id: entity_id(key), outcome: Became::Inserted })
        }
    }
}

/// Stores a new entity under a name that is free.
pub(super) fn insert(context: &mut Writing<'_>, label_key: i64, name: &str, payload: &EntityPayload) -> Outcome<i64> {
    let (key, now) = (context.next_version().0.cast_signed(), context.now.0);
    let (name, gone_ms, merged_into) = (name.to_owned(), None, None);
    let entity = EntityRow { key, label_key, name, created_ms: now, updated_ms: now, gone_ms, merged_into };
    entity.insert(context.connection, payload)?;
    Name { name: entity.name.clone(), label_key, entity_key: key, is_alias: false }.put(context)?;
    insert_text(context.connection, &entity, payload)?;
    context.changed("insert", "entity", &key.to_string());
    Ok(key)
}

fn update(context: &mut Writing<'_>, key: i64, new: &NewEntity) -> Outcome<UpsertedEntity> {
    let connection = context.connection;
    let old = EntityPayload::find(connection, key)?;
    let payload = EntityPayload {
        description: new.description.clone().or_else(|| old.description.clone()),
        properties: match &new.properties {
            Some(properties) => stored_properties(properties),
            None => old.properties.clone(),
        },
    };
    let id = entity_id(key);
    let is_embedding_changed = match &new.embedding {
        Some(embedding) => embeddings::put(context, key, embedding)?,
        None => false,
    };
    if payload == old && !is_embedding_changed {
        return Ok(UpsertedEntity { id, outcome: Became::Unchanged });
    }
    let mut entity = EntityRow::require(connection, key)?;
    let is_text_changed = payload.description != old.description;
    if is_text_changed {
        remove_text(connection, key)?;
    }
    payload.update(connection, key)?;
    entity.updated_ms = context.now.0;
    entity.update(connection)?;
    if is_text_changed {
        insert_text(connection, &entity, &payload)?;
    }
    // What is in memory does not change: it holds no payload.
    context.changed("update", "entity", &key.to_string());
    Ok(UpsertedEntity { id, outcome: Became::Updated })
}

/// Records that an entity's name or presence was changed.
pub(super) fn changed(context: &mut Writing<'_>, kind: &'static str, key: i64) -> Outcome<()> {
    context
        .connection
        .prepare_cached("INSERT INTO touched (sequence, key) VALUES (?1, ?2)")?
        .execute(params![context.next_version().0, key])?;
    context.changed(kind, "entity", &key.to_string());
    Ok(())
}

/// Adds an entity to the full-text index.
pub(super) fn insert_text(connection: &Connection, entity: &EntityRow, payload: &EntityPayload) -> Outcome<()> {
    // As the view `entity_document` has it.
    let text = format!("{}\n{}", entity.name, payload.description.as_deref().unwrap_or_default());
    connection
        .prepare_cached("INSERT INTO entity_text (rowid, text) VALUES (?1, ?2)")?
        .execute(params![entity.key, text])?;
    Ok(())
}

/// Takes an entity out of the full-text index; to be called before its row changes.
pub(super) fn remove_text(connection: &Connection, key: i64) -> Outcome<()> {
    Ok(full_text::remove(connection, TEXT_INDEX, "SELECT text FROM entity_document WHERE key = ?1", key)?)
}

pub(super) fn get_many(context: &Reading<'_>, message: &GetEntities) -> Outcome<Vec<Option<Entity>>> {
    check_count(message.entities.len())?;
    context.at_one_instant(|connection| {
        let (mut labels, mut bytes) = (Labels::new(connection), 0);
        let mut entities = Vec::with_capacity(message.entities.len());
        for entity in &message.entities {
            let found = match names::find(connection, entity)? {
                Some(key) => Some(get(connection, &mut labels, key)?),
                None => None,
            };
            bytes += found.as_ref().map_or(0, size_bytes) as u64;
            if bytes > ANSWER_BYTES_MAX && message.entities.len() > 1 {
                let what = "entities of one request".to_owned();
                return Err(Kind::TooLarge { what, bytes, bytes_max: ANSWER_BYTES_MAX }.into());
            }
            entities.push(found);
        }
        Ok(entities)
    })
}

fn get(connection: &Connection, labels: &mut Labels<'_>, key: i64) -> Outcome<Entity> {
    let sql = format!("SELECT {ENTITY}, {ENTITY_PAYLOAD} FROM entity WHERE key = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([key])?;
    let lost = || super::row::damaged(format!("the entity {key} is named and not there"));
    let row = rows.next()?.ok_or_else(lost)?;
    read(connection, labels, row)
}

fn read(connection: &Connection, labels: &mut Labels<'_>, row: &rusqlite::Row<'_>) -> Outcome<Entity> {
    let (entity, payload) = (EntityRow::read(row)?, EntityPayload::read(row)?);
    let aliases = names::shown(&names::aliases(connection, entity.key)?);
    payload.into_entity(&entity, labels, aliases)
}

fn size_bytes(entity: &Entity) -> usize {
    let aliases: usize = entity.aliases.iter().map(|alias| size_of_val(alias) + alias.as_str().len()).sum();
    let payload = entity.description.as_deref().map_or(0, str::len)
        + entity.properties.as_ref().map_or(0, |json| json.as_str().len());
    size_of::<Entity>() + entity.name.as_str().len() + aliases + payload
}

pub(super) fn list(context: &Reading<'_>, message: &ListEntities) -> Outcome<Vec<Entity>> {
    check_limit(message.limit)?;
    context.at_one_instant(|connection| {
        let mut sql = format!("SELECT {ENTITY}, {ENTITY_PAYLOAD} FROM entity WHERE gone_ms IS NULL");
        let mut parameters = Vec::new();
        let mut labels = Labels::new(connection);
        if let Some(label) = &message.label {
            let Some(label_key) = labels.find(label)? else { return Ok(Vec::new()) };
            sql.push_str(" AND label_key = ?");
            parameters.push(Sql::Integer(label_key));
        }
        if let Some(after) = message.after {
            sql.push_str(" AND key > ?");
            parameters.push(Sql::Integer(after.0.cast_signed()));
        }
        if let Some(filter) = &message.filter {
            let declared = FIELDS.declared(connection)?;
            let condition = filter::compile(filter, FIELDS.column, &declared, parameters.len() + 1)?;
            sql.push_str(" AND ");
            sql.push_str(&condition.sql);
            parameters.extend(condition.parameters);
        }
        sql.push_str(&format!(" ORDER BY key LIMIT {}", message.limit));
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(parameters))?;
        let (mut entities, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()?
            && bytes < PAGE_BYTES_MAX
        {
            let entity = read(connection, &mut labels, row)?;
            bytes += size_bytes(&entity);
            entities.push(entity);
        }
        Ok(entities)
    })
}

pub(super) fn declare(context: &mut Writing<'_>, message: &DeclareEntityField) -> Outcome<bool> {
    let field = DeclaredField::new(message.field.clone())?;
    let is_new = FIELDS.declare(context.connection, &field)?;
    if is_new {
        context.changed_all("declare", "");
    }
    Ok(is_new)
}

pub(super) fn count(context: &Reading<'_>, _message: &CountGraph) -> Outcome<GraphCounts> {
    context.at_one_instant(|connection| {
        let count =
            |sql: &str| -> Outcome<u64> { Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?) };
        Ok(GraphCounts {
            entities: count("SELECT count(*) FROM entity WHERE gone_ms IS NULL")?,
            relations: count("SELECT count(*) FROM relation")? - count(HIDDEN_RELATIONS)?,
            past_relations: count("SELECT count(*) FROM relation_past")?,
        })
    })
}

/// Relations that nobody sees: those of entities that are gone.
const HIDDEN_RELATIONS: &str = "SELECT count(*) FROM (
     SELECT relation.key FROM entity CROSS JOIN relation ON relation.subject = entity.key WHERE gone_ms IS NOT NULL
     UNION SELECT relation.key FROM entity CROSS JOIN relation ON relation.object = entity.key WHERE gone_ms IS NOT NULL)";

/// Returns the number of a label that a question names; a label that nothing has matches nothing.
pub(super) fn label_key(connection: &Connection, label: &larder_protocol::Label) -> Outcome<i64> {
    Ok(labels::find(connection, label)?.unwrap_or(0))
}
