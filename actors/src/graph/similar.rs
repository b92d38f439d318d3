//! Entities whose embeddings are near a vector, by the shared index.

use larder_protocol::Error as Kind;
use larder_protocol::graph::{EntityHit, FindSimilarEntities};
use larder_protocol::limits::SEARCH_POINTS_MAX;
use rusqlite::{Connection, OptionalExtension};

use super::embeddings::{self, EMBEDDING};
use super::entities;
use super::labels::Labels;
use super::memory::hold;
use super::row::{EntityRow, damaged};
use super::store::Reading;
use crate::sqlite::interrupt;
use crate::store::Outcome;
use crate::vector_index::{Found, IndexSettings, Metric, Search, SearchError, Slot, Snapshot, VectorIndex};

/// Of the embeddings, so many bytes are kept in memory as they are; the others are read where they are needed.
const VECTOR_BYTES_MAX: usize = 64 << 20;

/// The embeddings in memory, and how far they have come.
#[derive(Debug)]
pub(super) struct Similar {
    index: VectorIndex,
    to: i64,
}

pub(super) fn find(context: &Reading<'_>, message: &FindSimilarEntities) -> Outcome<Vec<EntityHit>> {
    if message.limit > SEARCH_POINTS_MAX {
        return Err(Kind::invalid("limit", format!("{} is over {SEARCH_POINTS_MAX}", message.limit)).into());
    }
    let mut held = hold(&context.memory.similar, context.is_in_place)?;
    context.at_one_instant(|connection| {
        let Some(dimensions) = embeddings::dimensions(connection)? else { return Ok(Vec::new()) };
        embeddings::check("embedding", &message.embedding, Some(dimensions))?;
        let newest = context.newest_sequence()?.0.cast_signed();
        let is_usable =
            held.as_ref().is_some_and(|similar| similar.index.dimensions() == dimensions && similar.to <= newest);
        if !is_usable {
            let settings = IndexSettings { dimensions, metric: Metric::Cosine, vector_bytes_max: VECTOR_BYTES_MAX };
            *held = Some(Similar { index: VectorIndex::new(settings), to: 0 });
        }
        let Some(similar) = held.as_mut() else { return Ok(Vec::new()) };
        if let Err(error) = similar.follow(connection, newest, dimensions) {
            *held = None;
            return Err(error);
        }
        let snapshot = similar.index.snapshot();
        drop(held);
        nearest(connection, &snapshot, message)
    })
}

impl Similar {
    fn follow(&mut self, connection: &Connection, newest: i64, dimensions: usize) -> Outcome<()> {
        if self.to == newest {
            return Ok(());
        }
        let mut statement =
            connection.prepare_cached(&format!("SELECT {EMBEDDING} FROM embedding WHERE slot > ?1 ORDER BY slot"))?;
        let mut rows = statement.query([self.to])?;
        while let Some(row) = rows.next()? {
            let (slot, _, components) = embeddings::read(row)?;
            if components.len() != dimensions {
                return Err(damaged(format!("the embedding in slot {slot} has other dimensions")));
            }
            self.index.push(slot, &components);
        }
        self.remove_gone(connection)?;
        while self.index.tidy() {}
        self.to = newest;
        Ok(())
    }

    /// Removes what is no longer there, if there is less than is known.
    fn remove_gone(&mut self, connection: &Connection) -> Outcome<()> {
        let count: usize =
            connection.prepare_cached("SELECT count(*) FROM embedding")?.query_row([], |row| row.get(0))?;
        if count == self.index.len() {
            return Ok(());
        }
        let mut statement = connection.prepare_cached("SELECT slot FROM embedding ORDER BY slot")?;
        let slots = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<Slot>>>()?;
        let snapshot = self.index.snapshot();
        for slot in snapshot.chunks().flat_map(|chunk| chunk.slots()) {
            if slots.binary_search(slot).is_err() {
                self.index.remove(*slot);
            }
        }
        Ok(())
    }
}

fn nearest(connection: &Connection, snapshot: &Snapshot, message: &FindSimilarEntities) -> Outcome<Vec<EntityHit>> {
    let label_key = match &message.label {
        Some(label) => Some(entities::label_key(connection, label)?),
        None => None,
    };
    let mut labels = Labels::new(connection);
    // What is of another label, or was merged, is left out afterwards; then more are asked for.
    let mut k = message.limit;
    loop {
        let found = search(connection, snapshot, message.embedding.as_slice(), k)?;
        let mut hits = Vec::new();
        for hit in &found.hits {
            let mut statement = connection.prepare_cached("SELECT entity_key FROM embedding WHERE slot = ?1")?;
            let key: Option<i64> = statement.query_row([hit.slot], |row| row.get(0)).optional()?;
            let key =
                key.ok_or_else(|| damaged(format!("slot {} is in an index, and no embedding is there", hit.slot)))?;
            let entity = EntityRow::require(connection, key)?;
            if entity.is_live() && label_key.is_none_or(|label_key| label_key == entity.label_key) {
                hits.push(EntityHit {
                    entity: entity.summary(&mut labels)?,
                    matched: None,
                    score: f64::from(hit.score),
                });
            }
        }
        if hits.len() >= message.limit || found.hits.len() < k || k >= snapshot.len() {
            hits.truncate(message.limit);
            return Ok(hits);
        }
        k = (k * 4).min(snapshot.len());
    }
}

fn search(connection: &Connection, snapshot: &Snapshot, query: &[f32], k: usize) -> Outcome<Found> {
    let search =
        Search { query, k, is_exact: false, wanted: None, thread_count_max: 1, is_called_off: &interrupt::is_over };
    let read = |slot: Slot| -> Outcome<Vec<f32>> {
        let mut statement = connection.prepare_cached(&format!("SELECT {EMBEDDING} FROM embedding WHERE slot = ?1"))?;
        let mut rows = statement.query([slot])?;
        let row =
            rows.next()?.ok_or_else(|| damaged(format!("slot {slot} is in an index, and no embedding is there")))?;
        Ok(embeddings::read(row)?.2)
    };
    snapshot.search(&search, read).map_err(|error| match error {
        SearchError::Read(failure) => failure,
        SearchError::CalledOff => interrupt::interrupted().into(),
    })
}
