//! Putting a document: the difference between its nodes and those that are there, found first and then written.
//!
//! Start at [`Plan::of`], which only reads, and [`Plan::execute`].
//!
//! Always true: what did not change is not written; a document becomes done in the write that commits its nodes, and in
//! no other.

use std::collections::{HashMap, HashSet};

use larder_protocol::documents::{
    ContentHash, DocumentOutcome, IngestionState, Node, NodeCounts, PutDocument, PutDocuments, StoredDocument,
    UpsertOutcome,
};
use larder_protocol::limits::FINGERPRINT_BYTES_MAX;
use larder_protocol::{Error as Kind, Timestamp};
use rusqlite::{Connection, params};

use super::delete::{ROWS_AT_ONCE_MAX, delete_row};
use super::nodes::{self, Step};
use super::row::{self, Columns, Place, STORED};
use super::sources::{self, DocumentRow};
use super::store::{DocumentsSettings, Writing};
use crate::store::{Outcome, check_count, decoded};

pub(super) fn put(context: &mut Writing<'_>, message: &PutDocument) -> Outcome<DocumentOutcome> {
    check(context.settings, std::slice::from_ref(message))?;
    Plan::of(context.connection, message)?.execute(context, message)
}

pub(super) fn put_many(context: &mut Writing<'_>, message: &PutDocuments) -> Outcome<Vec<DocumentOutcome>> {
    check(context.settings, &message.puts)?;
    let plans = message.puts.iter().map(|put| Plan::of(context.connection, put)).collect::<Outcome<Vec<_>>>()?;
    plans.into_iter().zip(&message.puts).map(|(plan, put)| plan.execute(context, put)).collect()
}

/// Checks what the types cannot, but for the nodes' metadata.
pub(super) fn check(settings: &DocumentsSettings, puts: &[PutDocument]) -> Outcome<()> {
    let mut ids = HashSet::new();
    for PutDocument { document, .. } in puts {
        let (bytes, bytes_max) = (document.size_bytes() as u64, settings.document_bytes_max as u64);
        if bytes > bytes_max {
            let what = format!("document {:?}", document.id.as_str());
            return Err(Kind::TooLarge { what, bytes, bytes_max }.into());
        }
        if let Some(fingerprint) = document.fingerprint.as_ref().filter(|text| text.len() > FINGERPRINT_BYTES_MAX) {
            let (bytes, bytes_max) = (fingerprint.len() as u64, FINGERPRINT_BYTES_MAX as u64);
            return Err(Kind::TooLarge { what: "fingerprint".to_owned(), bytes, bytes_max }.into());
        }
        row::check_metadata(document.metadata.as_ref())?;
        if !ids.insert(document.id.as_str()) {
            let reason = format!("the id {:?} stands twice among them", document.id.as_str());
            return Err(Kind::invalid("documents", reason).into());
        }
    }
    check_count(puts.len())?;
    // Across all documents: a node belongs to one.
    nodes::check(puts.iter().flat_map(|put| &put.nodes), settings.node_bytes_max)
}

/// What putting a document will do.
pub(super) struct Plan {
    pub(super) found: Option<DocumentRow>,
    pub(super) hash: ContentHash,
    /// For each of the nodes.
    pub(super) steps: Vec<Step>,
    /// Nodes that go: key and id.
    pub(super) leaving: Vec<(i64, String)>,
}

impl Plan {
    pub(super) fn of(connection: &Connection, message: &PutDocument) -> Outcome<Self> {
        let PutDocument { document, nodes, may_update } = message;
        let found = sources::find(connection, &document.id)?;
        let (mut steps, leaving) = match &found {
            Some(found) => compare(connection, found.key, nodes)?,
            None => (vec![None; nodes.len()], Vec::new()),
        };
        for (step, node) in steps.iter_mut().zip(nodes).filter(|(step, _)| step.is_none()) {
            if let Some(other) = nodes::find(connection, &node.id)? {
                return Err(nodes::elsewhere(&node.id, document.id.as_str(), &other.document).into());
            }
            *step = Some(Step::Insert(nodes::hash(node)?));
        }
        let plan = Self { found, hash: document.hash(), steps: steps.into_iter().flatten().collect(), leaving };
        let is_committed = plan.found.as_ref().is_some_and(|found| found.document.hash.is_some());
        if is_committed && !may_update && plan.changes_anything() {
            let what = format!("document {:?}", document.id.as_str());
            let (expected, found) = ("none, or the same content".to_owned(), "another content".to_owned());
            return Err(Kind::Conflict { what, expected, found }.into());
        }
        Ok(plan)
    }

    fn changes_nodes(&self) -> bool {
        !self.leaving.is_empty() || self.steps.iter().any(|step| !matches!(step, Step::Keep(_)))
    }

    fn has_same_hash(&self) -> bool {
        self.found.as_ref().is_some_and(|found| found.document.hash == Some(self.hash))
    }

    fn changes_anything(&self) -> bool {
        self.changes_nodes() || !self.has_same_hash()
    }

    fn counts(&self) -> NodeCounts {
        let mut counts = NodeCounts { deleted: self.leaving.len() as u64, ..NodeCounts::default() };
        for step in &self.steps {
            match step.outcome() {
                UpsertOutcome::Inserted => counts.inserted += 1,
                UpsertOutcome::Updated => counts.updated += 1,
                UpsertOutcome::Unchanged => counts.unchanged += 1,
            }
        }
        counts
    }

    pub(super) fn execute(self, context: &mut Writing<'_>, message: &PutDocument) -> Outcome<DocumentOutcome> {
        let PutDocument { document, nodes, .. } = message;
        let counts = self.counts();
        let before = self.found.as_ref().map(|found| &found.document);
        let outcome = match before {
            Some(before) if before.hash.is_some() && !self.changes_anything() => UpsertOutcome::Unchanged,
            Some(before) if before.hash.is_some() => UpsertOutcome::Updated,
            _ => UpsertOutcome::Inserted,
        };
        let is_done = before.is_some_and(|before| before.state == IngestionState::Done);
        if outcome == UpsertOutcome::Unchanged && is_done {
            return Ok(DocumentOutcome { outcome, nodes: counts });
        }
        let after = StoredDocument {
            id: document.id.clone(),
            hash: Some(self.hash),
            state: IngestionState::Done,
            node_count: nodes.len() as u64,
            fingerprint: document.fingerprint.clone(),
            metadata: document.metadata.clone(),
            created: before.map_or(context.now, |before| before.created),
            updated: context.now,
        };
        let (key, is_new) = self.document_key(context.connection, &after)?;
        if is_new || !self.has_same_hash() {
            sources::put_text(context.connection, key, document)?;
        }
        if self.changes_nodes() {
            self.write_nodes(context, message, key)?;
        }
        sources::update(context.connection, key, &after)?;
        context.changed("document", "", document.id.as_str());
        Ok(DocumentOutcome { outcome, nodes: counts })
    }

    /// Tells whether more nodes go than may go at once.
    fn is_replaced_whole(&self) -> bool {
        self.leaving.len() > ROWS_AT_ONCE_MAX
    }

    /// Returns the key that the nodes go to, and whether it is new. A document that loses many nodes gets another row:
    /// the old one loses its id, and with it its nodes are gone at once, to be swept bit by bit.
    fn document_key(&self, connection: &Connection, after: &StoredDocument) -> Outcome<(i64, bool)> {
        match &self.found {
            Some(found) if !self.is_replaced_whole() => return Ok((found.key, false)),
            Some(found) => sources::remove_id(connection, found.key)?,
            None => {}
        }
        Ok((sources::insert(connection, after)?, true))
    }

    fn write_nodes(&self, context: &mut Writing<'_>, message: &PutDocument, document_key: i64) -> Outcome<()> {
        let scope = message.document.id.as_str();
        if self.is_replaced_whole() {
            context.changed_all("put", scope);
        } else {
            for (key, id) in &self.leaving {
                delete_row(context.connection, *key)?;
                context.changed("delete", scope, id);
            }
        }
        for (position, (node, step)) in (0..).zip(message.nodes.iter().zip(&self.steps)) {
            let place = Place { document_key, position };
            step.execute(context, node, place)?;
            match step {
                Step::Keep(key) if self.is_replaced_whole() => nodes::put_at(context.connection, *key, place)?,
                Step::Keep(_) => {}
                Step::Place(key) => set_updated(context.connection, *key, context.now)?,
                Step::Insert(_) | Step::Update { .. } => {}
            }
            if !matches!(step, Step::Keep(_)) {
                context.changed("put", scope, node.id.as_str());
            }
        }
        Ok(())
    }
}

fn set_updated(connection: &Connection, key: i64, now: Timestamp) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE node SET updated_ms = ?2 WHERE key = ?1")?.execute(params![key, now.0])?;
    Ok(())
}

/// What to do with each node that is put, as far as it is there; and the key and id of each that goes.
type Comparison = (Vec<Option<Step>>, Vec<(i64, String)>);

/// Reads the document's rows once, in order, which costs less than a look for each node.
fn compare(connection: &Connection, document_key: i64, nodes: &[Node]) -> Outcome<Comparison> {
    let places: HashMap<&str, usize> = nodes.iter().enumerate().map(|(at, node)| (node.id.as_str(), at)).collect();
    let (mut steps, mut leaving) = (vec![None; nodes.len()], Vec::new());
    let sql = format!("SELECT {STORED} FROM node WHERE document_key = ?1 ORDER BY position");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([document_key])?;
    while let Some(row) = rows.next()? {
        let key = row.get(0)?;
        let id = decoded(row::text_of(row, 1), || row::damaged(format!("the node {}", row::shown(row, 1))))?;
        match places.get(id).and_then(|&at| Some((at, nodes.get(at)?, steps.get_mut(at)?))) {
            Some((at, node, step)) => {
                let difference = Columns::of(node).compare(row, at as u64)?;
                *step = Some(Step::for_difference(difference, key, node)?);
            }
            None => leaving.push((key, id.to_owned())),
        }
    }
    Ok((steps, leaving))
}
