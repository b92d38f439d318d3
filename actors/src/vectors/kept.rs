//! Chunks of an index, kept in the file so that a large collection is loaded quickly.
//!
//! Start at [`load`] and [`keep_some`], which makes them of the rows in the background, whether anybody searches or not.
//!
//! Always true: what is kept can be deleted without loss; it is used only where its checksum holds and it has every point
//! that is there; the chunks kept of a collection follow each other by their slots, whichever process wrote them.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::collections::{self, Collection};
use super::memory::metric;
use super::points::FIELDS;
use super::row::{METADATA_COLUMN_COUNT, METADATA_COLUMNS, from_bytes, read_metadata, read_vector, to_bytes};
use super::store::Writing;
use crate::filter::{Columns, DeclaredTree};
use crate::store::{Failure, Outcome};
use crate::vector_index::{CHUNK_LEN, Centre, Chunk, Slot, VectorIndex};

/// Chunks that one slice of maintenance deletes: up to 2 MB of 384 dimensions. It writes one, in about 15 ms.
const CHUNKS_PER_SLICE: usize = 4;
/// Vectors that a centre is the mean of, about.
const SAMPLE_LEN: i64 = 4_096;

/// What was loaded.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// Every point up to this slot is in the index.
    pub(super) to: Slot,
    /// The first chunk that could not be used; it and those behind it are to be written anew.
    pub(super) damaged_from: Option<Slot>,
}

/// Fills an empty index with what is kept. `live` are the slots of the collection's points, ascending.
pub(super) fn load(
    connection: &Connection,
    collection_key: i64,
    index: &mut VectorIndex,
    mut live: &[Slot],
) -> Outcome<Loaded> {
    let centres = centres(connection, collection_key)?;
    let mut statement = connection.prepare_cached(
        "SELECT first_slot, last_slot, centre_id, checksum, content FROM chunk WHERE collection_key = ?1 ORDER BY first_slot",
    )?;
    let mut rows = statement.query([collection_key])?;
    let mut loaded = Loaded::default();
    while let Some(row) = rows.next()? {
        let (first, last, centre_id): (Slot, Slot, Option<i64>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let content = row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?;
        let is_sound = row.get::<_, i64>(3)? == checksum(collection_key, content);
        let centre = centre_id.and_then(|id| centres.get(&id));
        let is_usable = is_sound && centre.is_some() == centre_id.is_some();
        let appended = if is_usable { index.append_kept(content, centre, live).ok() } else { None };
        let Some(rest) = appended.and_then(|count| live.get(count..)) else {
            loaded.damaged_from = Some(first);
            break;
        };
        (live, loaded.to) = (rest, last);
    }
    if let Some(centre) = index.snapshot().chunks().last().and_then(Chunk::centre) {
        index.set_centre(&centre, index.len());
    }
    Ok(loaded)
}

fn centres(connection: &Connection, collection_key: i64) -> Outcome<HashMap<i64, Centre>> {
    let mut statement = connection.prepare_cached("SELECT id, mean FROM centre WHERE collection_key = ?1")?;
    let mut rows = statement.query([collection_key])?;
    let mut centres = HashMap::new();
    while let Some(row) = rows.next()? {
        let (id, mean) = (row.get(0)?, row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?);
        // One that is damaged is one that is not there.
        if id == checksum(collection_key, mean) {
            centres.insert(id, Centre::new(from_bytes(mean)));
        }
    }
    Ok(centres)
}

fn checksum(collection_key: i64, bytes: &[u8]) -> i64 {
    xxh3_64_with_seed(bytes, collection_key.cast_unsigned()).cast_signed()
}

/// Does one piece of keeping large collections: writes the points that follow what is kept as a chunk, or deletes some chunks
/// that are of no use. Answers how many rows changed, 0 when there is nothing to do.
pub(super) fn keep_some(context: &Writing<'_>) -> Outcome<usize> {
    for collection in collections::named(context.connection)? {
        if !context.memory.is_large(&collection, collection.point_count) {
            continue;
        }
        let changed = keep_some_of(context, &collection)?;
        if changed > 0 {
            return Ok(changed);
        }
    }
    Ok(0)
}

fn keep_some_of(context: &Writing<'_>, collection: &Collection) -> Outcome<usize> {
    let (connection, key) = (context.connection, collection.key);
    let (last_kept, slot_count): (Slot, u64) = connection
        .prepare_cached(
            "SELECT coalesce(max(last_slot), 0), coalesce(sum(slot_count), 0) FROM chunk WHERE collection_key = ?1",
        )?
        .query_row([key], |row| Ok((row.get(0)?, row.get(1)?)))?;
    // What takes half as much again as it would if it were written now is written anew. The newest go first, so that those
    // before them stay of use.
    let is_stale = slot_count > collection.point_count + collection.point_count / 2;
    let unusable_from = if is_stale { Some(0) } else { context.memory.damaged_from(key) };
    if let Some(from) = unusable_from {
        let deleted = delete_some(connection, key, from)?;
        if deleted > 0 {
            return Ok(deleted);
        }
        context.memory.forget_damage(key);
    }
    let last: Option<Slot> = connection
        .prepare_cached(
            "SELECT slot FROM point WHERE collection_key = ?1 AND slot > ?2 ORDER BY slot LIMIT 1 OFFSET ?3",
        )?
        .query_row(params![key, last_kept, CHUNK_LEN - 1], |row| row.get(0))
        .optional()?;
    let Some(last) = last else { return Ok(0) };
    match write_chunk(context, collection, last_kept, last) {
        Ok(()) => Ok(1),
        // A damaged row: searches and checks tell of it, and nothing is kept until it is gone.
        Err(Failure::Refused(_)) => Ok(0),
        Err(failure) => Err(failure),
    }
}

/// Writes the points behind a slot, up to another one, as a chunk.
fn write_chunk(context: &Writing<'_>, collection: &Collection, after: Slot, last: Slot) -> Outcome<()> {
    let connection = context.connection;
    let mut index = context.memory.begin_index(collection);
    if index.is_coded() {
        match newest_centre(connection, collection.key)? {
            Some(centre) => index.set_centre(&centre, CHUNK_LEN),
            None => index.find_centre_of(&sample(connection, collection)?, CHUNK_LEN),
        }
    }
    let mut columns = Columns::default();
    let declared = DeclaredTree::of(&FIELDS.declared(connection)?);
    let sql = format!(
        "SELECT {METADATA_COLUMNS}, vector_checksum, vector FROM point
         WHERE collection_key = ?1 AND slot > ?2 AND slot <= ?3 ORDER BY slot"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![collection.key, after, last])?;
    while let Some(row) = rows.next()? {
        let (slot, document) = read_metadata(row)?;
        index.push(slot, &read_vector(row, slot, METADATA_COLUMN_COUNT)?);
        columns.push(document.as_ref(), &declared);
    }
    match index.snapshot().chunks().next() {
        Some(chunk) => write(connection, collection, chunk, &columns),
        None => Ok(()),
    }
}

/// What the newest chunk's codes were made around.
fn newest_centre(connection: &Connection, collection_key: i64) -> Outcome<Option<Centre>> {
    let mean: Option<Vec<u8>> = connection
        .prepare_cached(
            "SELECT mean FROM centre WHERE collection_key = ?1 AND id =
                 (SELECT centre_id FROM chunk WHERE collection_key = ?1 ORDER BY first_slot DESC LIMIT 1)",
        )?
        .query_row([collection_key], |row| row.get(0))
        .optional()?;
    Ok(mean.map(|mean| Centre::new(from_bytes(&mean))))
}

/// Some of a collection's vectors, from all of its slots.
fn sample(connection: &Connection, collection: &Collection) -> Outcome<Vec<Vec<f32>>> {
    let (first, last): (Slot, Slot) = connection
        .prepare_cached("SELECT coalesce(min(slot), 0), coalesce(max(slot), 0) FROM point WHERE collection_key = ?1")?
        .query_row([collection.key], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut statement = connection.prepare_cached(
        "SELECT slot, vector_checksum, vector FROM point WHERE collection_key = ?1 AND slot >= ?2 ORDER BY slot LIMIT 1",
    )?;
    let step = usize::try_from((last - first) / SAMPLE_LEN + 1).unwrap_or(usize::MAX);
    let mut vectors = Vec::new();
    for from in (first..=last).step_by(step) {
        let mut rows = statement.query([collection.key, from])?;
        if let Some(row) = rows.next()? {
            vectors.push(read_vector(row, row.get(0)?, 1)?);
        }
    }
    Ok(vectors)
}

fn write(connection: &Connection, collection: &Collection, chunk: &Chunk, columns: &Columns) -> Outcome<()> {
    let key = collection.key;
    let centre_id = match chunk.centre() {
        None => None,
        Some(centre) => {
            let mean = to_bytes(centre.mean());
            let id = checksum(key, &mean);
            connection
                .prepare_cached("INSERT OR REPLACE INTO centre (collection_key, id, mean) VALUES (?1, ?2, ?3)")?
                .execute(params![key, id, mean])?;
            Some(id)
        }
    };
    let (content, columns) = (chunk.to_bytes(metric(collection.metric)), columns.to_bytes());
    connection
        .prepare_cached(
            "INSERT INTO chunk (collection_key, first_slot, last_slot, slot_count, centre_id, checksum, columns_checksum,
                 columns, content) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            key,
            chunk.slots().first(),
            chunk.slots().last(),
            chunk.slots().len(),
            centre_id,
            checksum(key, &content),
            checksum(key, &columns),
            columns,
            content
        ])?;
    Ok(())
}

/// Reads what is kept of the metadata of a chunk's points; `None` where nothing is that can be used.
pub(super) fn columns(connection: &Connection, collection_key: i64, chunk: &Chunk) -> Outcome<Option<Columns>> {
    // The slots are the same if the first, the last and their number are: none is ever put between others.
    let mut statement = connection.prepare_cached(
        "SELECT columns_checksum, columns FROM chunk
         WHERE collection_key = ?1 AND first_slot = ?2 AND last_slot = ?3 AND slot_count = ?4",
    )?;
    let slots = chunk.slots();
    let mut rows = statement.query(params![collection_key, slots.first(), slots.last(), slots.len()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let bytes = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
    let is_sound = row.get::<_, i64>(0)? == checksum(collection_key, bytes);
    let columns = if is_sound { Columns::from_bytes(bytes) } else { None };
    Ok(columns.filter(|columns| columns.len() == slots.len()))
}

/// Deletes some chunks from a slot on, the newest first; answers how many.
pub(super) fn delete_some(connection: &Connection, collection_key: i64, from: Slot) -> Outcome<usize> {
    let deleted = connection
        .prepare_cached(
            "DELETE FROM chunk WHERE key IN (SELECT key FROM chunk WHERE collection_key = ?1 AND first_slot >= ?2
                 ORDER BY first_slot DESC LIMIT ?3)",
        )?
        .execute(params![collection_key, from, CHUNKS_PER_SLICE])?;
    Ok(deleted)
}

/// Tells `found` of every chunk that does not match its checksum.
pub(super) fn check(connection: &Connection, found: &mut dyn FnMut(String)) -> Outcome<()> {
    let mut next = connection.prepare_cached(
        "SELECT key, collection_key, checksum, content, columns_checksum, columns FROM chunk WHERE key > ?1 ORDER BY key LIMIT 1",
    )?;
    let mut after = i64::MIN;
    loop {
        let row = next.query_row([after], |row| {
            let is_sound = |at: usize| -> rusqlite::Result<bool> {
                Ok(row.get::<_, i64>(at)? == checksum(row.get(1)?, row.get_ref(at + 1)?.as_blob()?))
            };
            Ok((row.get::<_, i64>(0)?, is_sound(2)? && is_sound(4)?))
        });
        let Some((key, is_sound)) = row.optional()? else { return Ok(()) };
        after = key;
        if !is_sound {
            found(format!("the kept chunk {key} of an index does not match its checksum; points are not affected"));
        }
    }
}
