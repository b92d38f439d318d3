//! Chunks of an index, kept in the file so that a large collection is loaded quickly.
//!
//! Start at [`load`] and [`write_some`].
//!
//! Always true: what is kept can be deleted without loss; it is used only where its checksum holds and it has every point
//! that is there; the chunks kept of a collection follow each other by their slots, whichever process wrote them.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::row::{from_bytes, to_bytes};
use crate::sqlite::interrupt;
use crate::store::Outcome;
use crate::vector_index::{CHUNK_LEN, Centre, Chunk, Metric, Slot, Snapshot, VectorIndex};

/// Chunks that one slice of maintenance writes or deletes: up to 2 MB of 384 dimensions, about 5 ms.
pub(super) const CHUNKS_PER_SLICE: usize = 4;

/// What was loaded.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// Every point up to this slot is in the index.
    pub(super) to: Slot,
    /// The first chunk that could not be used; it and those behind it are to be written anew.
    pub(super) damaged_from: Option<Slot>,
}

/// What a slice did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It deleted so many chunks that are of no use.
    Deleted(usize),
    /// It wrote so many.
    Written(usize),
    /// There was nothing to do.
    Done,
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

/// Writes some of an index's chunks that are not kept yet, oldest first, or deletes some that are of no use.
pub(super) fn write_some(
    connection: &Connection,
    collection_key: i64,
    snapshot: &Snapshot,
    metric: Metric,
    damaged_from: Option<Slot>,
) -> Outcome<Progress> {
    let (last_kept, slot_count): (Slot, usize) = connection
        .prepare_cached(
            "SELECT coalesce(max(last_slot), 0), coalesce(sum(slot_count), 0) FROM chunk WHERE collection_key = ?1",
        )?
        .query_row([collection_key], |row| Ok((row.get(0)?, row.get(1)?)))?;
    // What takes half as much again as it would if it were written now is written anew. The newest go first, so that those
    // before them stay of use.
    let place_count: usize = snapshot.chunks().map(|chunk| chunk.slots().len()).sum();
    let stale_from = if slot_count > place_count + place_count / 2 + CHUNK_LEN { Some(0) } else { damaged_from };
    if let Some(stale_from) = stale_from.filter(|from| last_kept >= *from) {
        return Ok(Progress::Deleted(delete_some(connection, collection_key, stale_from)?));
    }
    let mut written = 0;
    let mut chunks = snapshot.chunks().peekable();
    while let Some(chunk) = chunks.next() {
        // The last one still grows.
        let is_whole = chunk.is_full() || chunks.peek().is_some();
        if is_whole && chunk.slots().first().is_some_and(|first| *first > last_kept) {
            write(connection, collection_key, chunk, metric)?;
            written += 1;
        }
        if written == CHUNKS_PER_SLICE || interrupt::is_over() {
            break;
        }
    }
    Ok(if written == 0 { Progress::Done } else { Progress::Written(written) })
}

fn write(connection: &Connection, collection_key: i64, chunk: &Chunk, metric: Metric) -> Outcome<()> {
    let centre_id = match chunk.centre() {
        None => None,
        Some(centre) => {
            let mean = to_bytes(centre.mean());
            let id = checksum(collection_key, &mean);
            connection
                .prepare_cached("INSERT OR REPLACE INTO centre (collection_key, id, mean) VALUES (?1, ?2, ?3)")?
                .execute(params![collection_key, id, mean])?;
            Some(id)
        }
    };
    let content = chunk.to_bytes(metric);
    connection
        .prepare_cached(
            "INSERT INTO chunk (collection_key, first_slot, last_slot, slot_count, centre_id, checksum, content)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            collection_key,
            chunk.slots().first(),
            chunk.slots().last(),
            chunk.slots().len(),
            centre_id,
            checksum(collection_key, &content),
            content
        ])?;
    Ok(())
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
        "SELECT key, collection_key, checksum, content FROM chunk WHERE key > ?1 ORDER BY key LIMIT 1",
    )?;
    let mut after = i64::MIN;
    loop {
        let row = next.query_row([after], |row| {
            let content = row.get_ref(3)?.as_blob()?;
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(2)? == checksum(row.get(1)?, content)))
        });
        let Some((key, is_sound)) = row.optional()? else { return Ok(()) };
        after = key;
        if !is_sound {
            found(format!("the kept chunk {key} of an index does not match its checksum; points are not affected"));
        }
    }
}
