//! Entities and relations as rows: their SQL, their decoding, and the checksums that every read verifies.
//!
//! Start at [`EntityRow`] and [`RelationRow`].

use larder_protocol::graph::{Entity, EntityId, EntitySummary, Relation, RelationId, Validity};
use larder_protocol::{EntityName, Error as Kind, JsonText, StoreName, Timestamp, Written};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, Statement, params};
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use super::labels::Labels;
use crate::store::{Failure, Outcome, decoded};

/// Hashes numbers and texts, so that a byte that moves from one to the other is noticed, and a missing part is no empty one. 32
/// bits: a row has a few dozen bytes, and there are millions; damage passes once in four thousand million times.
pub(super) fn checksum(numbers: &[Option<i64>], texts: &[Option<&str>]) -> i64 {
    let mut hash = Xxh3::new();
    for number in numbers {
        hash.update(&[u8::from(number.is_some())]);
        hash.update(&number.unwrap_or(0).to_le_bytes());
    }
    let next = |seed, part: &Option<&str>| part.map_or(seed ^ 1, |part| xxh3_64_with_seed(part.as_bytes(), seed));
    i64::from(half(texts.iter().fold(hash.digest(), next)))
}

/// Returns the lower half of a hash, which SQLite stores in four bytes.
#[expect(clippy::cast_possible_truncation, reason = "what is above is left out")]
fn half(hash: u64) -> i32 {
    (hash as u32).cast_signed()
}

/// Returns the error for a row that is not what was written.
pub(super) fn damaged(detail: String) -> Failure {
    Kind::Corrupt { store: StoreName::Graph, detail, written: Written::NotApplied }.into()
}

pub(super) fn entity_id(key: i64) -> EntityId {
    EntityId(key.cast_unsigned())
}

pub(super) fn relation_id(key: i64) -> RelationId {
    RelationId(key.cast_unsigned())
}

/// An entity without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EntityRow {
    pub(super) key: i64,
    pub(super) label_key: i64,
    pub(super) name: String,
    pub(super) created_ms: i64,
    pub(super) updated_ms: i64,
    pub(super) gone_ms: Option<i64>,
    pub(super) merged_into: Option<i64>,
}

/// What an entity holds beside its name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct EntityPayload {
    pub(super) description: Option<String>,
    pub(super) properties: Option<String>,
}

/// The columns that [`EntityRow::read`] decodes.
pub(super) const ENTITY: &str = "entity.key, entity.label_key, entity.name, entity.created_ms, entity.updated_ms, \
     entity.gone_ms, entity.merged_into, entity.checksum";
/// The columns that [`EntityPayload::read`] decodes, behind those.
pub(super) const ENTITY_PAYLOAD: &str = "entity.description, entity.properties, entity.payload_checksum";
const PAYLOAD_AT: usize = 8;

impl EntityRow {
    /// Decodes and verifies the columns [`ENTITY`], which begin at the first.
    pub(super) fn read(row: &Row<'_>) -> Outcome<Self> {
        let read = || -> rusqlite::Result<Option<Self>> {
            let created_ms = row.get(3)?;
            let found = Self {
                key: row.get(0)?,
                label_key: row.get(1)?,
                name: row.get(2)?,
                created_ms,
                updated_ms: row.get::<_, Option<i64>>(4)?.unwrap_or(created_ms),
                gone_ms: row.get(5)?,
                merged_into: row.get(6)?,
            };
            Ok((row.get::<_, i64>(7)? == found.checksum()).then_some(found))
        };
        decoded(read(), || damaged(format!("the entity {} does not match its checksum", shown(row, 0))))
    }

    /// Returns the entity, if there is one, gone or not.
    pub(super) fn find(connection: &Connection, key: i64) -> Outcome<Option<Self>> {
        let mut statement = connection.prepare_cached(const_format_entity())?;
        let mut rows = statement.query([key])?;
        rows.next()?.map(Self::read).transpose()
    }

    /// Returns the entity that a row or an index names.
    pub(super) fn require(connection: &Connection, key: i64) -> Outcome<Self> {
        Self::find(connection, key)?.ok_or_else(|| damaged(format!("the entity {key} is named and not there")))
    }

    fn checksum(&self) -> i64 {
        let numbers = [
            Some(self.key),
            Some(self.label_key),
            Some(self.created_ms),
            Some(self.updated_ms),
            self.gone_ms,
            self.merged_into,
        ];
        checksum(&numbers, &[Some(&self.name)])
    }

    pub(super) fn insert(&self, connection: &Connection, payload: &EntityPayload) -> rusqlite::Result<()> {
        connection
            .prepare_cached(
                "INSERT INTO entity (key, label_key, name, created_ms, updated_ms, gone_ms, merged_into, checksum,
                     description, properties, payload_checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?
            .execute(params![
                self.key,
                self.label_key,
                self.name,
                self.created_ms,
                self.stored_updated_ms(),
                self.gone_ms,
                self.merged_into,
                self.checksum(),
                payload.description,
                payload.properties,
                payload.checksum(self.key),
            ])?;
        Ok(())
    }

    /// Writes everything but the payload.
    pub(super) fn update(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection
            .prepare_cached(
                "UPDATE entity SET name = ?2, updated_ms = ?3, gone_ms = ?4, merged_into = ?5, checksum = ?6
                 WHERE key = ?1",
            )?
            .execute(params![
                self.key,
                self.name,
                self.stored_updated_ms(),
                self.gone_ms,
                self.merged_into,
                self.checksum()
            ])?;
        Ok(())
    }

    /// Most entities are never changed.
    fn stored_updated_ms(&self) -> Option<i64> {
        (self.updated_ms != self.created_ms).then_some(self.updated_ms)
    }

    pub(super) fn is_live(&self) -> bool {
        self.gone_ms.is_none()
    }

    pub(super) fn summary(&self, labels: &mut Labels<'_>) -> Outcome<EntitySummary> {
        let (id, label) = (entity_id(self.key), labels.text(self.label_key)?);
        Ok(EntitySummary { id, label, name: EntityName::from_stored(&self.name) })
    }
}

/// The statement of [`EntityRow::find`], which is run often.
fn const_format_entity() -> &'static str {
    "SELECT entity.key, entity.label_key, entity.name, entity.created_ms, entity.updated_ms, entity.gone_ms,
         entity.merged_into, entity.checksum FROM entity WHERE key = ?1"
}

impl EntityPayload {
    /// Decodes and verifies the columns [`ENTITY_PAYLOAD`] behind [`ENTITY`].
    pub(super) fn read(row: &Row<'_>) -> Outcome<Self> {
        let read = || -> rusqlite::Result<Option<Self>> {
            let found = Self { description: row.get(PAYLOAD_AT)?, properties: row.get(PAYLOAD_AT + 1)? };
            Ok((row.get::<_, Option<i64>>(PAYLOAD_AT + 2)? == found.checksum(row.get(0)?)).then_some(found))
        };
        decoded(read(), || damaged(format!("the entity {}'s content does not match its checksum", shown(row, 0))))
    }

    pub(super) fn find(connection: &Connection, key: i64) -> Outcome<Self> {
        let sql =
            "SELECT key, 0, 0, 0, 0, 0, 0, 0, description, properties, payload_checksum FROM entity WHERE key = ?1";
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query([key])?;
        let row = rows.next()?.ok_or_else(|| damaged(format!("the entity {key} is named and not there")))?;
        Self::read(row)
    }

    pub(super) fn update(&self, connection: &Connection, key: i64) -> rusqlite::Result<()> {
        connection
            .prepare_cached(
                "UPDATE entity SET description = ?2, properties = ?3, payload_checksum = ?4 WHERE key = ?1",
            )?
            .execute(params![key, self.description, self.properties, self.checksum(key)])?;
        Ok(())
    }

    fn checksum(&self, key: i64) -> Option<i64> {
        let texts = [self.description.as_deref(), self.properties.as_deref()];
        (texts != [None, None]).then(|| checksum(&[Some(key)], &texts))
    }

    /// Returns the entity as a caller sees it.
    pub(super) fn into_entity(
        self,
        row: &EntityRow,
        labels: &mut Labels<'_>,
        aliases: Vec<EntityName>,
    ) -> Outcome<Entity> {
        Ok(Entity {
            id: entity_id(row.key),
            label: labels.text(row.label_key)?,
            name: EntityName::from_stored(&row.name),
            aliases,
            description: self.description,
            properties: self.properties.map(JsonText::from_stored),
            created: Timestamp(row.created_ms),
            updated: Timestamp(row.updated_ms),
        })
    }
}

/// A relation as it is, or as it was.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RelationRow {
    pub(super) key: i64,
    pub(super) subject: i64,
    pub(super) label_key: i64,
    pub(super) object: i64,
    /// Empty: the usual one.
    pub(super) qualifier: String,
    pub(super) weight: f64,
    pub(super) validity: Validity,
    pub(super) recorded_ms: i64,
    /// The write that changed it, and when, if this is how it was.
    pub(super) superseded: Option<(i64, i64)>,
    pub(super) properties: Option<String>,
}

/// The columns that [`RelationRow::read`] decodes, of relations as they are.
pub(super) const RELATION: &str = "relation.key, relation.subject, relation.label_key, relation.object, \
     relation.qualifier, relation.weight, relation.valid_from_ms, relation.valid_until_ms, relation.recorded_ms, \
     relation.checksum, relation.properties, relation.payload_checksum, NULL, NULL";
/// The same without properties.
pub(super) const RELATION_CORE: &str = "relation.key, relation.subject, relation.label_key, relation.object, \
     relation.qualifier, relation.weight, relation.valid_from_ms, relation.valid_until_ms, relation.recorded_ms, \
     relation.checksum, NULL, NULL, NULL, NULL";
/// The same of relations as they were, without properties.
pub(super) const RELATION_PAST_CORE: &str = "relation.key, relation.subject, relation.label_key, relation.object, \
     relation.qualifier, relation.weight, relation.valid_from_ms, relation.valid_until_ms, relation.recorded_ms, \
     relation.checksum, NULL, NULL, relation.version, relation.superseded_ms";
/// The same of relations as they were, from a table `relation_past AS relation`.
pub(super) const RELATION_PAST: &str = "relation.key, relation.subject, relation.label_key, relation.object, \
     relation.qualifier, relation.weight, relation.valid_from_ms, relation.valid_until_ms, relation.recorded_ms, \
     relation.checksum, relation.properties, relation.payload_checksum, relation.version, relation.superseded_ms";

/// What [`RelationRow::insert`] runs.
pub(super) const INSERT_RELATION: &str = "INSERT INTO relation (key, subject, label_key, object, qualifier, weight, \
     valid_from_ms, valid_until_ms, recorded_ms, checksum, properties, payload_checksum) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";

impl RelationRow {
    /// Decodes and verifies the columns [`RELATION`] or [`RELATION_PAST`], which begin at the first.
    pub(super) fn read(row: &Row<'_>) -> Outcome<Self> {
        let read = || -> rusqlite::Result<Option<Self>> {
            let found = Self {
                key: row.get(0)?,
                subject: row.get(1)?,
                label_key: row.get(2)?,
                object: row.get(3)?,
                qualifier: text_of(row, 4)?.unwrap_or_default().to_owned(),
                weight: row.get::<_, Option<f64>>(5)?.unwrap_or(1.0),
                validity: Validity {
                    from: row.get::<_, Option<i64>>(6)?.map(Timestamp),
                    until: row.get::<_, Option<i64>>(7)?.map(Timestamp),
                },
                recorded_ms: row.get(8)?,
                superseded: row.get::<_, Option<i64>>(12)?.zip(row.get::<_, Option<i64>>(13)?),
                properties: row.get(10)?,
            };
            let is_sound =
                row.get::<_, i64>(9)? == found.checksum() && row.get::<_, Option<i64>>(11)? == found.payload_checksum();
            Ok(is_sound.then_some(found))
        };
        decoded(read(), || damaged(format!("the relation {} does not match its checksum", shown(row, 0))))
    }

    /// Returns the relation as it is, if it is there, whether or not its ends are.
    pub(super) fn find(connection: &Connection, key: i64) -> Outcome<Option<Self>> {
        let mut statement = connection.prepare_cached(&format!("SELECT {RELATION} FROM relation WHERE key = ?1"))?;
        let mut rows = statement.query([key])?;
        rows.next()?.map(Self::read).transpose()
    }

    fn checksum(&self) -> i64 {
        let numbers = [
            Some(self.key),
            Some(self.subject),
            Some(self.label_key),
            Some(self.object),
            Some(self.weight.to_bits().cast_signed()),
            self.validity.from.map(|time| time.0),
            self.validity.until.map(|time| time.0),
            Some(self.recorded_ms),
            self.superseded.map(|(version, _)| version),
            self.superseded.map(|(_, time)| time),
        ];
        checksum(&numbers, &[Some(&self.qualifier)])
    }

    fn payload_checksum(&self) -> Option<i64> {
        self.properties.as_deref().map(|properties| checksum(&[Some(self.key)], &[Some(properties)]))
    }

    /// Stores a new relation by the statement [`INSERT_RELATION`].
    pub(super) fn insert(&self, statement: &mut Statement<'_>) -> rusqlite::Result<()> {
        statement.execute(params![
            self.key,
            self.subject,
            self.label_key,
            self.object,
            none_if_empty(&self.qualifier),
            none_if_one(self.weight),
            self.validity.from.map(|time| time.0),
            self.validity.until.map(|time| time.0),
            self.recorded_ms,
            self.checksum(),
            self.properties,
            self.payload_checksum(),
        ])?;
        Ok(())
    }

    /// Writes the relation over the one of its key.
    pub(super) fn update(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection
            .prepare_cached(
                "UPDATE relation SET subject = ?2, object = ?3, weight = ?4, valid_from_ms = ?5, valid_until_ms = ?6,
                     recorded_ms = ?7, checksum = ?8, properties = ?9, payload_checksum = ?10 WHERE key = ?1",
            )?
            .execute(params![
                self.key,
                self.subject,
                self.object,
                none_if_one(self.weight),
                self.validity.from.map(|time| time.0),
                self.validity.until.map(|time| time.0),
                self.recorded_ms,
                self.checksum(),
                self.properties,
                self.payload_checksum(),
            ])?;
        Ok(())
    }

    /// Keeps how the relation was until the write `version`.
    pub(super) fn keep_past(mut self, connection: &Connection, version: i64, now: i64) -> rusqlite::Result<()> {
        self.superseded = Some((version, now));
        connection
            .prepare_cached(
                "INSERT INTO relation_past (version, superseded_ms, key, subject, label_key, object, qualifier, weight,
                     valid_from_ms, valid_until_ms, recorded_ms, checksum, properties, payload_checksum)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
            )?
            .execute(params![
                version,
                now,
                self.key,
                self.subject,
                self.label_key,
                self.object,
                none_if_empty(&self.qualifier),
                none_if_one(self.weight),
                self.validity.from.map(|time| time.0),
                self.validity.until.map(|time| time.0),
                self.recorded_ms,
                self.checksum(),
                self.properties,
                self.payload_checksum(),
            ])?;
        Ok(())
    }

    /// Returns about how many bytes it holds.
    pub(super) fn size_bytes(&self) -> usize {
        size_of::<Relation>() + self.qualifier.len() + self.properties.as_ref().map_or(0, String::len)
    }
}

fn none_if_empty(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

#[expect(clippy::float_cmp, reason = "exactly 1 is stored as nothing")]
fn none_if_one(weight: f64) -> Option<f64> {
    (weight != 1.0).then_some(weight)
}

pub(super) fn text_of<'a>(row: &'a Row<'_>, at: usize) -> rusqlite::Result<Option<&'a str>> {
    match row.get_ref(at)? {
        ValueRef::Null => Ok(None),
        other => Ok(Some(other.as_str()?)),
    }
}

/// Returns a column for a message about damage, whatever is in it.
fn shown(row: &Row<'_>, at: usize) -> String {
    row.get::<_, i64>(at).map_or_else(|_| "of an unreadable key".to_owned(), |key| key.to_string())
}
