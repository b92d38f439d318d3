//! Embeddings of entities, as rows.
//!
//! Always true: all have the same dimensions; an entity that is gone has none, unless it was merged.

use larder_protocol::Error as Kind;
use larder_protocol::graph::GetEmbedding;
use larder_protocol::vectors::Vector;
use rusqlite::{Connection, OptionalExtension, params};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::names;
use super::row::damaged;
use super::store::{Reading, Writing};
use crate::store::Outcome;

fn to_bytes(components: &[f32]) -> Vec<u8> {
    components.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn checksum(slot: i64, entity_key: i64, bytes: &[u8]) -> i64 {
    xxh3_64_with_seed(bytes, xxh3_64_with_seed(&entity_key.to_le_bytes(), slot.cast_unsigned())).cast_signed()
}

/// Returns the dimensions that the embeddings have; `None`: there is none.
pub(super) fn dimensions(connection: &Connection) -> Outcome<Option<usize>> {
    let mut statement = connection.prepare_cached("SELECT octet_length(components) / 4 FROM embedding LIMIT 1")?;
    Ok(statement.query_row([], |row| row.get(0)).optional()?)
}

/// Checks an embedding against those that are there.
pub(super) fn check(what: &str, embedding: &Vector, dimensions: Option<usize>) -> Outcome<()> {
    if dimensions.is_some_and(|dimensions| dimensions != embedding.dimensions()) {
        let (has, expected) = (embedding.dimensions(), dimensions.unwrap_or_default());
        return Err(Kind::invalid(what, format!("it has {has} dimensions, the graph's embeddings {expected}")).into());
    }
    if embedding.as_slice().iter().all(|component| *component == 0.0) {
        return Err(Kind::invalid(what, "it has no direction").into());
    }
    Ok(())
}

/// Stores an entity's embedding in the place of the one that it has, under the next version, which is still to be used; answers
/// whether it differs.
pub(super) fn put(context: &Writing<'_>, entity_key: i64, embedding: &Vector) -> Outcome<bool> {
    let (connection, slot) = (context.connection, context.next_version().0.cast_signed());
    let bytes = to_bytes(embedding.as_slice());
    let is_same: Option<bool> = connection
        .prepare_cached("SELECT components = ?2 FROM embedding WHERE entity_key = ?1")?
        .query_row(params![entity_key, bytes], |row| row.get(0))
        .optional()?;
    if is_same == Some(true) {
        return Ok(false);
    }
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO embedding (slot, entity_key, checksum, components) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![slot, entity_key, checksum(slot, entity_key, &bytes), bytes])?;
    Ok(true)
}

pub(super) fn remove(connection: &Connection, entity_key: i64) -> Outcome<()> {
    connection.prepare_cached("DELETE FROM embedding WHERE entity_key = ?1")?.execute([entity_key])?;
    Ok(())
}

/// The columns that [`read`] decodes.
pub(super) const EMBEDDING: &str = "slot, entity_key, checksum, components";

/// Decodes and verifies one embedding: its slot, its entity, its components.
pub(super) fn read(row: &rusqlite::Row<'_>) -> Outcome<(i64, i64, Vec<f32>)> {
    let (slot, entity_key): (i64, i64) = (row.get(0)?, row.get(1)?);
    let bytes = row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?;
    if row.get::<_, i64>(2)? != checksum(slot, entity_key, bytes) {
        return Err(damaged(format!("the embedding of entity {entity_key} does not match its checksum")));
    }
    let (components, _) = bytes.as_chunks();
    Ok((slot, entity_key, components.iter().map(|component| f32::from_le_bytes(*component)).collect()))
}

pub(super) fn get(context: &Reading<'_>, message: &GetEmbedding) -> Outcome<Option<Vector>> {
    context.at_one_instant(|connection| {
        let key = names::require(connection, &message.entity)?;
        let mut statement =
            connection.prepare_cached(&format!("SELECT {EMBEDDING} FROM embedding WHERE entity_key = ?1"))?;
        let mut rows = statement.query([key])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let (_, _, components) = read(row)?;
        let vector = Vector::new(components);
        Ok(Some(vector.map_err(|_| damaged(format!("the embedding of entity {key} is no vector")))?))
    })
}
