//! Which points a search is about: a filter, named ids, and ids left out, as slots.
//!
//! Start at [`Wanted::of`].

use larder_protocol::PointId;
use larder_protocol::vectors::SearchOptions;
use rusqlite::params_from_iter;

use super::collections::Collection;
use super::memory::View;
use super::points::{Selection, find_slot};
use crate::store::Outcome;
use crate::vector_index::{CHUNK_LEN, Chunk, ChunkBits, Slot};

/// Which points a search may find.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Only these, ascending. `None`: all.
    only: Option<Vec<Slot>>,
    /// Not these, ascending.
    not: Vec<Slot>,
}

impl Wanted {
    /// Finds them in the view's rows.
    pub(super) fn of(view: &View<'_>, options: &SearchOptions) -> Outcome<Self> {
        let not = slots_of(view, &options.exclude)?;
        let mut only = match &options.include {
            Some(ids) => Some(slots_of(view, ids)?),
            None => None,
        };
        if options.filter.is_some() {
            let matching = matching(view, &view.collection, options)?;
            only = Some(match only {
                Some(named) => named.into_iter().filter(|slot| matching.binary_search(slot).is_ok()).collect(),
                None => matching,
            });
        }
        if let Some(only) = &mut only {
            only.retain(|slot| not.binary_search(slot).is_err());
        }
        Ok(Self { only, not })
    }

    pub(super) fn is_all(&self) -> bool {
        self.only.is_none() && self.not.is_empty()
    }

    /// How many of `point_count` points are wanted.
    pub(super) fn count(&self, point_count: usize) -> usize {
        self.only.as_ref().map_or(point_count.saturating_sub(self.not.len()), Vec::len)
    }

    pub(super) fn contains(&self, slot: Slot) -> bool {
        let is_named = self.only.as_ref().is_none_or(|only| only.binary_search(&slot).is_ok());
        is_named && self.not.binary_search(&slot).is_err()
    }

    /// Returns a bit for each place of a chunk.
    pub(super) fn bits(&self, chunk: &Chunk) -> ChunkBits {
        match &self.only {
            Some(only) => places(only, chunk),
            None => places(&self.not, chunk).map(|word| !word),
        }
    }
}

/// The chunk's places that have one of the slots, which ascend.
#[expect(clippy::indexing_slicing, reason = "a chunk has CHUNK_LEN places")]
fn places(slots: &[Slot], chunk: &Chunk) -> ChunkBits {
    let mut bits = [0; CHUNK_LEN / 64];
    let Some((first, last)) = chunk.slots().first().zip(chunk.slots().last()) else { return bits };
    let start = slots.partition_point(|slot| slot < first);
    let mut wanted = slots.iter().skip(start).take_while(|slot| *slot <= last).peekable();
    for (place, slot) in chunk.slots().iter().enumerate() {
        while wanted.next_if(|wanted| *wanted < slot).is_some() {}
        if wanted.next_if_eq(&slot).is_some() {
            bits[place / 64] |= 1 << (place % 64);
        }
    }
    bits
}

fn slots_of(view: &View<'_>, ids: &[PointId]) -> Outcome<Vec<Slot>> {
    let find = |id| find_slot(view.connection, view.collection.key, id).transpose();
    let mut slots = ids.iter().filter_map(find).collect::<rusqlite::Result<Vec<_>>>()?;
    slots.sort_unstable();
    slots.dedup();
    Ok(slots)
}

fn matching(view: &View<'_>, collection: &Collection, options: &SearchOptions) -> Outcome<Vec<Slot>> {
    let mut selection = Selection::of(collection);
    selection.filter(view.connection, options.filter.as_ref())?;
    let sql = format!("SELECT slot FROM point WHERE {} ORDER BY slot", selection.sql);
    let mut statement = view.connection.prepare_cached(&sql)?;
    let slots = statement.query_map(params_from_iter(selection.parameters), |row| row.get(0))?;
    Ok(slots.collect::<rusqlite::Result<Vec<_>>>()?)
}
