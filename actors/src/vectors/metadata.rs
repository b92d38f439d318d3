//! The points' metadata as columns in memory, a block for each chunk of the index, so that filters read no rows.
//!
//! Start at [`blocks`]. Blocks are made when a filter first asks for them, and only for chunks that have none yet or have
//! grown: what a slot holds never changes.
//!
//! Always true: a block has the documents of its chunk's places, in their order; one whose row is gone is a document without
//! fields, and nobody asks for it, since its vector is gone as well.

use std::sync::{Arc, MutexGuard, PoisonError, TryLockError};

use rusqlite::params;

use super::kept;
use super::memory::View;
use super::points::FIELDS;
use super::row::{METADATA_COLUMNS, read_metadata};
use super::store::Reading;
use crate::filter::{Columns, DeclaredField, DeclaredTree};
use crate::store::{Failure, Outcome};
use crate::vector_index::{CHUNK_LEN, Chunk, Slot};

/// Documents that are read on a caller's thread: about 10 µs each.
const READ_IN_PLACE_MAX: usize = 10;
/// What room is made for before the columns are there.
const EXPECTED_BYTES: u64 = 32;

const _: () = assert!(CHUNK_LEN == crate::filter::BLOCK_LEN, "a block has a chunk's documents");

/// The columns of one collection.
#[derive(Debug)]
pub(super) struct MetadataColumns {
    collection_key: i64,
    /// The fields that were declared when the blocks were made.
    declared: Vec<DeclaredField>,
    blocks: Vec<Arc<Block>>,
}

/// The columns of one chunk.
#[derive(Debug, Clone)]
pub(super) struct Block {
    first: Slot,
    /// The slot of the last document.
    last: Slot,
    pub(super) columns: Columns,
}

/// Returns a block for each chunk of the view, in their order; `None` where there is no memory for them.
///
/// # Errors
/// On a caller's thread [`Failure::TooLong`] when more than a few rows are to be read.
pub(super) fn blocks(context: &Reading<'_>, view: &View<'_>) -> Outcome<Option<Vec<Arc<Block>>>> {
    let mut held = hold(context, view)?;
    let declared = FIELDS.declared(view.connection)?;
    let is_current =
        |known: &MetadataColumns| known.collection_key == view.collection.key && known.declared == declared;
    let known = match held.take().filter(is_current) {
        Some(known) => known,
        None => {
            let expected = EXPECTED_BYTES * view.snapshot.len() as u64;
            if !context.memory.make_room_for_columns(view.name, view.seat, expected) {
                return Ok(None);
            }
            MetadataColumns { collection_key: view.collection.key, declared, blocks: Vec::new() }
        }
    };
    let known = held.insert(known);
    known.follow(context, view)?;
    let bytes = known.blocks.iter().map(|block| block.columns.size_bytes() as u64).sum();
    if !context.memory.make_room_for_columns(view.name, view.seat, bytes) {
        *held = None;
        return Ok(None);
    }
    Ok(Some(known.blocks.clone()))
}

/// Waits for the columns, but not on a caller's thread.
fn hold<'a>(context: &Reading<'_>, view: &View<'a>) -> Outcome<MutexGuard<'a, Option<MetadataColumns>>> {
    let metadata = &view.seat.metadata;
    let held = match metadata.try_lock() {
        Ok(held) => return Ok(held),
        Err(TryLockError::WouldBlock) if context.is_in_place => return Err(Failure::TooLong),
        Err(TryLockError::WouldBlock) => metadata.lock(),
        Err(TryLockError::Poisoned(poisoned)) => Err(poisoned),
    };
    held.or_else(|poisoned: PoisonError<_>| {
        // Somebody panicked while changing them.
        let mut held = poisoned.into_inner();
        *held = None;
        metadata.clear_poison();
        Ok(held)
    })
}

impl MetadataColumns {
    /// Brings the blocks to the view's chunks.
    fn follow(&mut self, context: &Reading<'_>, view: &View<'_>) -> Outcome<()> {
        let tree = DeclaredTree::of(&self.declared);
        let mut read_count = 0;
        for (index, chunk) in view.snapshot.chunks().enumerate() {
            // Blocks of chunks that are gone lie before those of later ones.
            while self.blocks.get(index).is_some_and(|block| chunk.slots().first() > Some(&block.first)) {
                self.blocks.remove(index);
            }
            let known = self.blocks.get_mut(index).filter(|block| block.is_start_of(chunk));
            let missing = chunk.slots().len() - known.as_ref().map_or(0, |block| block.columns.len());
            if missing == 0 {
                continue;
            }
            read_count += missing;
            if context.is_in_place && read_count > READ_IN_PLACE_MAX {
                return Err(Failure::TooLong);
            }
            match known {
                Some(known) => Arc::make_mut(known).read_rest(view, chunk, &tree)?,
                None => {
                    let block = Block::read(view, chunk, &tree)?;
                    self.blocks.insert(index, Arc::new(block));
                }
            }
        }
        self.blocks.truncate(view.snapshot.chunk_count());
        Ok(())
    }
}

impl Block {
    /// Reads what is kept of a chunk's documents, or else their rows.
    fn read(view: &View<'_>, chunk: &Chunk, declared: &DeclaredTree) -> Outcome<Self> {
        let slots = chunk.slots();
        let (first, last) = slots.first().zip(slots.last()).map_or((0, 0), |(first, last)| (*first, *last));
        let kept = kept::columns(view.connection, view.collection.key, chunk)?;
        if let Some(columns) = kept.filter(|columns| columns.has_all(declared)) {
            return Ok(Self { first, last, columns });
        }
        let mut block = Self { first, last: first - 1, columns: Columns::default() };
        block.read_rest(view, chunk, declared)?;
        Ok(block)
    }

    /// Whether the documents are those of the chunk's first places. Slots are never put between others, so that as many of
    /// them up to the same one are the same.
    fn is_start_of(&self, chunk: &Chunk) -> bool {
        let last = self.columns.len().checked_sub(1).and_then(|at| chunk.slots().get(at));
        chunk.slots().first() == Some(&self.first) && last == Some(&self.last)
    }

    /// Reads the documents of the chunk's further places.
    fn read_rest(&mut self, view: &View<'_>, chunk: &Chunk, declared: &DeclaredTree) -> Outcome<()> {
        let rest = chunk.slots().get(self.columns.len()..).unwrap_or_default();
        let sql = format!(
            "SELECT {METADATA_COLUMNS} FROM point WHERE collection_key = ?1 AND slot BETWEEN ?2 AND ?3 ORDER BY slot"
        );
        let mut statement = view.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params![view.collection.key, self.last + 1, rest.last()])?;
        let mut next = rows.next()?.map(read_metadata).transpose()?;
        for slot in rest {
            while next.as_ref().is_some_and(|(found, _)| found < slot) {
                next = rows.next()?.map(read_metadata).transpose()?;
            }
            let document = next.as_ref().filter(|(found, _)| found == slot).and_then(|(_, document)| document.as_ref());
            self.columns.push(document, declared);
            self.last = *slot;
        }
        Ok(())
    }
}
