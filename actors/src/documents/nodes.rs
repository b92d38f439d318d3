//! Handlers that change single nodes, and the steps by which any write changes one.
//!
//! Start at [`upsert`]. What is to be done is found out first, so that a refusal costs no neighbour anything.

use std::collections::{HashMap, HashSet};

use larder_protocol::documents::{ContentHash, MoveNodes, Node, UpsertNodes, UpsertOutcome};
use larder_protocol::{DocumentId, Error as Kind, NodeId};
use rusqlite::{Connection, OptionalExtension, params};

use super::row::{self, Columns, Difference, Place, STORED};
use super::store::Writing;
use super::{sources, text_index};
use crate::store::{Outcome, check_count};

/// What is to be done with a node that is put.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Insert(ContentHash),
    Update {
        key: i64,
        hash: ContentHash,
        has_same_text: bool,
    },
    /// Only its place changes.
    Place(i64),
    Keep(i64),
}

impl Step {
    /// Returns the step for a node that is there, from how it differs.
    pub(super) fn for_difference(difference: Difference, key: i64, node: &Node) -> Outcome<Self> {
        Ok(match difference {
            Difference::None => Self::Keep(key),
            Difference::Position => Self::Place(key),
            Difference::AllButText => Self::Update { key, hash: hash(node)?, has_same_text: true },
            Difference::Text => Self::Update { key, hash: hash(node)?, has_same_text: false },
        })
    }

    pub(super) fn outcome(self) -> UpsertOutcome {
        match self {
            Self::Insert(_) => UpsertOutcome::Inserted,
            Self::Update { .. } | Self::Place(_) => UpsertOutcome::Updated,
            Self::Keep(_) => UpsertOutcome::Unchanged,
        }
    }

    /// Writes the node, and its text to the index.
    pub(super) fn execute(self, context: &Writing<'_>, node: &Node, place: Place) -> Outcome<()> {
        let connection = context.connection;
        let columns = Columns::of(node);
        match self {
            Self::Keep(_) => {}
            Self::Place(key) => put_at(connection, key, place)?,
            Self::Insert(hash) => {
                let key = columns.insert(connection, &node.id, hash, place, context.now)?;
                if let Some(text) = node.content.text() {
                    text_index::insert(connection, key, text)?;
                }
            }
            Self::Update { key, hash, has_same_text } => {
                if !has_same_text {
                    text_index::delete(connection, key)?;
                }
                columns.update(connection, key, &node.id, hash, place, context.now)?;
                if let (false, Some(text)) = (has_same_text, node.content.text()) {
                    text_index::insert(connection, key, text)?;
                }
            }
        }
        Ok(())
    }
}

/// Moves a row.
pub(super) fn put_at(connection: &Connection, key: i64, place: Place) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE node SET document_key = ?2, position = ?3 WHERE key = ?1")?.execute(params![
        key,
        place.document_key,
        place.position
    ])?;
    Ok(())
}

/// Returns the hash of a node whose metadata passes the check.
pub(super) fn hash(node: &Node) -> Outcome<ContentHash> {
    let metadata = row::check_metadata(node.metadata.as_ref())?;
    Ok(Node::hash_of(&node.content, metadata.as_ref()))
}

/// Checks what the types cannot, but for the metadata: what is there unchanged was checked when it came.
pub(super) fn check<'a>(nodes: impl IntoIterator<Item = &'a Node>, bytes_max: usize) -> Outcome<()> {
    let mut ids = HashSet::new();
    for node in nodes {
        row::check(node, bytes_max)?;
        if !ids.insert(node.id.as_str()) {
            return Err(Kind::invalid("nodes", format!("the id {:?} stands twice among them", node.id.as_str())).into());
        }
    }
    check_count(ids.len())
}

/// Where a visible node is.
pub(super) struct Found {
    pub(super) key: i64,
    pub(super) document_key: i64,
    /// Empty where it stands alone.
    pub(super) document: String,
}

pub(super) fn find(connection: &Connection, id: &NodeId) -> rusqlite::Result<Option<Found>> {
    connection
        .prepare_cached(
            "SELECT node.key, node.document_key, document.id
             FROM node CROSS JOIN document ON document.key = node.document_key
             WHERE node.id = ?1 AND document.id IS NOT NULL",
        )?
        .query_row([id.as_str()], |row| {
            Ok(Found { key: row.get(0)?, document_key: row.get(1)?, document: row.get(2)? })
        })
        .optional()
}

/// Returns the error for a node that belongs elsewhere.
pub(super) fn elsewhere(id: &NodeId, expected: &str, found: &str) -> Kind {
    let place =
        |document: &str| if document.is_empty() { "alone".to_owned() } else { format!("in document {document:?}") };
    Kind::Conflict {
        what: format!("node {:?}", id.as_str()),
        expected: format!("none, or one {}", place(expected)),
        found: format!("one {}", place(found)),
    }
}

pub(super) fn upsert(context: &mut Writing<'_>, message: &UpsertNodes) -> Outcome<Vec<UpsertOutcome>> {
    let UpsertNodes { document, nodes, may_update } = message;
    check(nodes, context.settings.node_bytes_max)?;
    let document_key = sources::require_key(context.connection, document.as_ref())?;
    let scope = document.as_ref().map_or("", DocumentId::as_str);
    let plan = |node: &Node| plan(context.connection, node, document_key, scope, *may_update);
    let steps = nodes.iter().map(plan).collect::<Outcome<Vec<_>>>()?;
    if steps.iter().all(|(step, _)| matches!(step, Step::Keep(_))) {
        return Ok(vec![UpsertOutcome::Unchanged; nodes.len()]);
    }
    let mut next_position = next_position(context.connection, document_key)?;
    let (mut outcomes, mut inserted) = (Vec::with_capacity(nodes.len()), 0);
    for (node, (step, position)) in nodes.iter().zip(steps) {
        let position = position.unwrap_or(next_position);
        step.execute(context, node, Place { document_key, position })?;
        if let Step::Insert(_) = step {
            inserted += 1;
            next_position += 1;
        }
        if !matches!(step, Step::Keep(_)) {
            context.changed("put", scope, node.id.as_str());
        }
        outcomes.push(step.outcome());
    }
    sources::adjust(context.connection, document_key, inserted)?;
    Ok(outcomes)
}

/// Returns what to do with a node, and its position if it is there.
fn plan(
    connection: &Connection,
    node: &Node,
    document_key: i64,
    scope: &str,
    may_update: bool,
) -> Outcome<(Step, Option<u64>)> {
    let Some(found) = find(connection, &node.id)? else { return Ok((Step::Insert(hash(node)?), None)) };
    if found.document_key != document_key {
        return Err(elsewhere(&node.id, scope, &found.document).into());
    }
    let mut statement = connection.prepare_cached(&format!("SELECT {STORED} FROM node WHERE key = ?1"))?;
    let mut rows = statement.query([found.key])?;
    let row = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    let position = row.get(2)?;
    let difference = Columns::of(node).compare(row, position)?;
    if difference != Difference::None && !may_update {
        let what = format!("node {:?}", node.id.as_str());
        let (expected, found) = ("none, or the same content".to_owned(), "another content".to_owned());
        return Err(Kind::Conflict { what, expected, found }.into());
    }
    Ok((Step::for_difference(difference, found.key, node)?, Some(position)))
}

fn next_position(connection: &Connection, document_key: i64) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT coalesce(max(position) + 1, 0) FROM node WHERE document_key = ?1")?
        .query_row([document_key], |row| row.get(0))
}

pub(super) fn move_nodes(context: &mut Writing<'_>, message: &MoveNodes) -> Outcome<u64> {
    let MoveNodes { ids, into } = message;
    check_count(ids.len())?;
    let document_key = sources::require_key(context.connection, into.as_ref())?;
    let scope = into.as_ref().map_or("", DocumentId::as_str);
    let mut position = next_position(context.connection, document_key)?;
    let mut left = HashMap::new();
    let mut moved = 0;
    for id in ids {
        let Some(found) = find(context.connection, id)? else { continue };
        if found.document_key == document_key {
            continue;
        }
        put_at(context.connection, found.key, Place { document_key, position })?;
        position += 1;
        moved += 1;
        *left.entry(found.document_key).or_insert(0) -= 1;
        context.changed("move", &found.document, id.as_str());
        context.changed("move", scope, id.as_str());
    }
    for (key, nodes) in left {
        sources::adjust(context.connection, key, nodes)?;
    }
    sources::adjust(context.connection, document_key, moved)?;
    Ok(moved.unsigned_abs())
}
