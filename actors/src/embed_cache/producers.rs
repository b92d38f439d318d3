//! Who computes values, and what their values must be.

use larder_protocol::Error as Kind;
use larder_protocol::embed_cache::{CachedValue, Producer, ProducerKind};
use rusqlite::{OptionalExtension, params};

use super::store::Writing;
use crate::store::Outcome;

/// Refuses a value that is not of its producer's kind, or too large.
///
/// # Errors
/// [`Kind::Invalid`] or [`Kind::TooLarge`].
pub fn check_value(producer: &Producer, value: &CachedValue, value_bytes_max: usize) -> Result<(), Kind> {
    let (bytes, bytes_max) = (value.bytes() as u64, value_bytes_max as u64);
    if bytes > bytes_max {
        return Err(Kind::TooLarge { what: "value".to_owned(), bytes, bytes_max });
    }
    match (producer.kind, value) {
        (ProducerKind::Model, CachedValue::Vector(_)) | (ProducerKind::Function, CachedValue::Encoded(_)) => Ok(()),
        (ProducerKind::Model, CachedValue::Encoded(_)) => Err(Kind::invalid("value", "a model's must be a vector")),
        (ProducerKind::Function, CachedValue::Vector(_)) => {
            Err(Kind::invalid("value", "a function's must be an encoded value"))
        }
    }
}

/// Returns the error of a vector that has other dimensions than its model's have.
pub(super) fn other_dimensions(producer: &Producer, known: usize, found: usize) -> Kind {
    Kind::invalid("vector", format!("{producer} has {known} dimensions, and this one {found}"))
}

/// Returns the producer's id, after every value was found to be one of its values; a new one is noted.
pub(super) fn producer_id<'v>(
    context: &Writing<'_>,
    producer: &Producer,
    values: impl Iterator<Item = &'v CachedValue>,
) -> Outcome<i64> {
    producer.check()?;
    let known = find(context, producer)?;
    let mut dimensions = known.and_then(|(_, dimensions)| dimensions);
    for value in values {
        check_value(producer, value, context.settings.value_bytes_max)?;
        let CachedValue::Vector(vector) = value else { continue };
        let found = vector.dimensions();
        match dimensions.replace(found) {
            Some(known) if known != found => return Err(other_dimensions(producer, known, found).into()),
            _ => {}
        }
    }
    match known {
        Some((id, _)) => Ok(id),
        None => insert(context, producer, dimensions),
    }
}

/// Returns a producer's id and dimensions.
pub(super) fn find(context: &Writing<'_>, producer: &Producer) -> Outcome<Option<(i64, Option<usize>)>> {
    let mut statement = context
        .connection
        .prepare_cached("SELECT id, dimensions FROM producer WHERE kind = ?1 AND name = ?2 AND parameters = ?3")?;
    let (kind, name) = (kind_code(producer.kind), producer.name.as_str());
    let found = statement.query_row(params![kind, name, producer.parameters], |row| Ok((row.get(0)?, row.get(1)?)));
    Ok(found.optional()?)
}

fn insert(context: &Writing<'_>, producer: &Producer, dimensions: Option<usize>) -> Outcome<i64> {
    let mut statement = context.connection.prepare_cached(
        "INSERT INTO producer (kind, name, parameters, dimensions) VALUES (?1, ?2, ?3, ?4) RETURNING id",
    )?;
    let (kind, name) = (kind_code(producer.kind), producer.name.as_str());
    Ok(statement.query_row(params![kind, name, producer.parameters, dimensions], |row| row.get(0))?)
}

pub(super) fn kind_code(kind: ProducerKind) -> i64 {
    match kind {
        ProducerKind::Model => 0,
        ProducerKind::Function => 1,
    }
}

pub(super) fn kind_of(code: i64) -> Option<ProducerKind> {
    match code {
        0 => Some(ProducerKind::Model),
        1 => Some(ProducerKind::Function),
        _ => None,
    }
}
