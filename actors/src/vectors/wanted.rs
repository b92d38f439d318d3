//! Which points a search is about: a filter, named ids, and ids left out, as bits of the index's chunks.
//!
//! Start at [`Wanted::of`] and [`matching`], which picks how a filter is answered.

#![expect(clippy::indexing_slicing, reason = "places lie within their chunk, and chunks within the snapshot")]

use larder_protocol::PointId;
use larder_protocol::filter::Filter;
use larder_protocol::vectors::{FilterPlan, SearchOptions};
use rusqlite::params_from_iter;

use super::memory::View;
use super::metadata;
use super::points::{Selection, find_slot};
use super::row::{METADATA_COLUMNS, read_metadata};
use super::store::Reading;
use crate::filter::{self, BlockBits, Question};
use crate::store::{Failure, Outcome};
use crate::vector_index::{CHUNK_LEN, ChunkBits, Slot, Snapshot};

/// Comparisons of a filter that is answered on a caller's thread.
const COMPARISONS_IN_PLACE_MAX: usize = 8;
/// Reading a row by its slot takes about so many times as long as SQL takes to look at one of all.
const ROW_COST: usize = 4;

/// Which points a search may find.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Chunk by chunk; `None`: all.
    bits: Option<Vec<ChunkBits>>,
    /// How many.
    pub(super) count: usize,
    /// How the filter was answered, if there is one.
    pub(super) filter_plan: Option<FilterPlan>,
}

impl Wanted {
    /// Finds them.
    ///
    /// # Errors
    /// On a caller's thread [`Failure::TooLong`] where rows are to be read for a filter.
    pub(super) fn of(context: &Reading<'_>, view: &View<'_>, options: &SearchOptions) -> Outcome<Self> {
        let mut bits: Option<Vec<ChunkBits>> = None;
        let mut filter_plan = None;
        if let Some(filter) = &options.filter {
            let (plan, matching) = matching(context, view, filter)?;
            (bits, filter_plan) = (Some(matching), Some(plan));
        }
        if let Some(ids) = &options.include {
            let named = bits_of(&view.snapshot, slots_of(view, ids)?);
            bits = Some(match bits {
                Some(bits) => bits.iter().zip(&named).map(|(a, b)| both(a, b)).collect(),
                None => named,
            });
        }
        if !options.exclude.is_empty() {
            let excluded = bits_of(&view.snapshot, slots_of(view, &options.exclude)?);
            let all = bits.unwrap_or_else(|| vec![[u64::MAX; CHUNK_LEN / 64]; excluded.len()]);
            bits = Some(all.iter().zip(&excluded).map(|(a, b)| both(a, &b.map(|word| !word))).collect());
        }
        let count = view.snapshot.wanted_count(bits.as_deref());
        Ok(Self { bits, count, filter_plan })
    }

    pub(super) fn bits(&self) -> Option<&[ChunkBits]> {
        self.bits.as_deref()
    }

    pub(super) fn contains(&self, snapshot: &Snapshot, slot: Slot) -> bool {
        let Some(bits) = &self.bits else { return true };
        snapshot.place(slot).is_some_and(|(chunk, place)| bits.get(chunk).is_some_and(|bits| is_set(bits, place)))
    }
}

fn both(a: &ChunkBits, b: &ChunkBits) -> ChunkBits {
    std::array::from_fn(|word| a[word] & b[word])
}

fn is_set(bits: &ChunkBits, place: usize) -> bool {
    bits[place / 64] >> (place % 64) & 1 == 1
}

/// Returns the slots' bits, chunk by chunk.
fn bits_of(snapshot: &Snapshot, slots: impl IntoIterator<Item = Slot>) -> Vec<ChunkBits> {
    let mut bits = vec![[0; CHUNK_LEN / 64]; snapshot.chunk_count()];
    for (chunk, place) in slots.into_iter().filter_map(|slot| snapshot.place(slot)) {
        bits[chunk][place / 64] |= 1 << (place % 64);
    }
    bits
}

fn slots_of(view: &View<'_>, ids: &[PointId]) -> Outcome<Vec<Slot>> {
    let find = |id| find_slot(view.connection, view.collection.key, id).transpose();
    Ok(ids.iter().filter_map(find).collect::<rusqlite::Result<Vec<_>>>()?)
}

/// Answers a filter: from the columns in memory; where those leave few points open, by their rows; else by SQL.
fn matching(context: &Reading<'_>, view: &View<'_>, filter: &Filter) -> Outcome<(FilterPlan, Vec<ChunkBits>)> {
    let question = Question::new(filter);
    if context.is_in_place && (question.comparison_count() > COMPARISONS_IN_PLACE_MAX || !question.is_quick()) {
        return Err(Failure::TooLong);
    }
    let Some(blocks) = metadata::blocks(context, view)? else {
        return by_sql(context, view, filter);
    };
    let answers: Vec<_> = blocks.iter().map(|block| block.columns.matching(&question)).collect();
    let mut bits: Vec<BlockBits> = answers.iter().map(|answer| answer.certain).collect();
    let open: Vec<BlockBits> =
        answers.iter().map(|answer| both(&answer.possible, &answer.certain.map(|word| !word))).collect();
    match view.snapshot.wanted_count(Some(&open)) {
        0 => Ok((FilterPlan::Columns, bits)),
        open_count if open_count * ROW_COST > view.snapshot.len() => by_sql(context, view, filter),
        _ if context.is_in_place => Err(Failure::TooLong),
        _ => {
            read_open(view, filter, &open, &mut bits)?;
            Ok((FilterPlan::ColumnsAndRows, bits))
        }
    }
}

/// Decides by its row for each point that is open.
fn read_open(view: &View<'_>, filter: &Filter, open: &[BlockBits], bits: &mut [BlockBits]) -> Outcome<()> {
    let mut statement =
        view.connection.prepare_cached(&format!("SELECT {METADATA_COLUMNS} FROM point WHERE slot = ?1"))?;
    for ((chunk, open), bits) in view.snapshot.chunks().zip(open).zip(bits) {
        for (place, slot) in chunk.slots().iter().enumerate().filter(|(place, _)| is_set(open, *place)) {
            let mut rows = statement.query([slot])?;
            // One that was removed has no row.
            let Some(row) = rows.next()? else { continue };
            let (_, document) = read_metadata(row)?;
            let is_match = filter::matches(filter, &document.unwrap_or_default());
            bits[place / 64] |= u64::from(is_match) << (place % 64);
        }
    }
    Ok(())
}

fn by_sql(context: &Reading<'_>, view: &View<'_>, filter: &Filter) -> Outcome<(FilterPlan, Vec<ChunkBits>)> {
    if context.is_in_place {
        return Err(Failure::TooLong);
    }
    let mut selection = Selection::of(&view.collection);
    selection.filter(view.connection, Some(filter))?;
    let sql = format!("SELECT slot FROM point WHERE {}", selection.sql);
    let mut statement = view.connection.prepare_cached(&sql)?;
    let slots = statement.query_map(params_from_iter(selection.parameters), |row| row.get(0))?;
    let slots = slots.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok((FilterPlan::Sql, bits_of(&view.snapshot, slots)))
}
