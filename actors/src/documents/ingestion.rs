//! How far documents are, and which are to be ingested.
//!
//! Start at [`plan`].

use std::collections::HashMap;

use larder_protocol::DocumentId;
use larder_protocol::documents::{
    ContentHash, IngestionDecision, IngestionMark, IngestionPlan, IngestionState, IngestionStrategy, MarkIngestion,
    PlanIngestion, StoredDocument,
};
use larder_protocol::limits::FAILURE_BYTES_MAX;
use rusqlite::{Connection, OptionalExtension};

use super::sources;
use super::store::{Documents, Reading, Writing};
use crate::store::{Outcome, check_count, stored_name};

pub(super) fn mark(context: &mut Writing<'_>, message: &MarkIngestion) -> Outcome<bool> {
    let MarkIngestion { document, hash, mark } = message;
    let found = sources::find(context.connection, document)?;
    let before = found.as_ref().map(|found| &found.document);
    let is_done = |before: &StoredDocument| before.state == IngestionState::Done && before.hash == Some(*hash);
    if before.is_some_and(is_done) {
        return Ok(false);
    }
    let state = match mark {
        IngestionMark::Begun => IngestionState::Begun { hash: *hash },
        IngestionMark::Failed { reason } => {
            let failure_count = match before.map(|before| &before.state) {
                Some(IngestionState::Failed { failure_count, .. }) => failure_count.saturating_add(1),
                _ => 1,
            };
            IngestionState::Failed { hash: *hash, reason: cut(reason), failure_count }
        }
    };
    if before.is_some_and(|before| before.state == state) {
        return Ok(false);
    }
    let before = before.cloned().unwrap_or_else(|| sources::unknown(document, context.now));
    let after = StoredDocument { state, updated: context.now, ..before };
    match &found {
        Some(found) => sources::update(context.connection, found.key, &after)?,
        None => drop(sources::insert(context.connection, &after)?),
    }
    context.changed("ingestion", "", document.as_str());
    Ok(true)
}

/// Returns as much of a reason as is kept.
fn cut(reason: &str) -> String {
    let end = reason.floor_char_boundary(FAILURE_BYTES_MAX);
    reason.get(..end).unwrap_or_default().to_owned()
}

pub(super) fn plan(context: &Reading<'_>, message: &PlanIngestion) -> Outcome<IngestionPlan> {
    let PlanIngestion { sources, strategy } = message;
    check_count(sources.len())?;
    context.at_one_instant(|connection| decide_all(connection, sources, *strategy))
}

fn decide_all(
    connection: &Connection,
    sources: &[(DocumentId, ContentHash)],
    strategy: IngestionStrategy,
) -> Outcome<IngestionPlan> {
    let mut earlier = HashMap::new();
    let mut decisions = Vec::with_capacity(sources.len());
    for (document, hash) in sources {
        let mut decision = decide(connection, document, *hash)?;
        if strategy == IngestionStrategy::DuplicatesOnly && decision.is_to_ingest() {
            let copy = match earlier.get(hash) {
                Some(earlier) => Some(DocumentId::clone(earlier)),
                None => find_copy(connection, document, *hash)?,
            };
            decision = copy.map_or(decision, IngestionDecision::Duplicate);
        }
        if decision.is_to_ingest() {
            earlier.insert(*hash, document.clone());
        }
        decisions.push(decision);
    }
    Ok(IngestionPlan { decisions })
}

pub(super) fn decide(connection: &Connection, document: &DocumentId, hash: ContentHash) -> Outcome<IngestionDecision> {
    let Some(found) = sources::find(connection, document)? else { return Ok(IngestionDecision::Insert) };
    let StoredDocument { state, hash: committed, .. } = found.document;
    let is_attempted = match &state {
        IngestionState::Done => false,
        IngestionState::Begun { hash: attempted } | IngestionState::Failed { hash: attempted, .. } => {
            *attempted == hash
        }
    };
    Ok(match committed {
        Some(committed) if committed == hash && state == IngestionState::Done => IngestionDecision::Unchanged,
        Some(committed) if committed != hash && !is_attempted => IngestionDecision::Update,
        _ => IngestionDecision::Retry,
    })
}

/// Returns another document whose committed content is this.
fn find_copy(connection: &Connection, document: &DocumentId, hash: ContentHash) -> Outcome<Option<DocumentId>> {
    let found = connection
        .prepare_cached("SELECT id FROM document WHERE hash = ?1 AND id > '' AND id <> ?2 ORDER BY id LIMIT 1")?
        .query_row(rusqlite::params![hash.0, document.as_str()], |row| row.get::<_, String>(0))
        .optional()?;
    found.map(|id| stored_name::<Documents, _>(DocumentId::new(id))).transpose()
}
