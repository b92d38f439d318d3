//! The documents store's plan: documents whose nodes say which id wrote them, nodes that stand alone, and every kind of
//! change to a document of an id's own.
//!
//! Start at [`DocumentsOperation::of`], which says what an id does; [`shown`] says what of that a store shows.
//!
//! Always true: a text belongs to one id; a document of an id's own is changed by at most one later id.

mod shown;

use std::fmt;

use futures::future::{BoxFuture, join};
use larder::protocol::JsonText;
use larder::{Document, Documents, Larder, Node, Result};

use super::{FAR, History, Lie, NEAR, Outcome, Plan, Random, Shown, must_fail};

/// A word of every text.
const WORD: &str = "torture";
/// Nodes of the few documents that are larger than what goes at once.
const LARGE: u64 = 1_500;
/// Nodes that a document gets when it is put anew.
const NEW_COUNT: u64 = 2;

pub(crate) struct DocumentsPlan;

/// What an id does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DocumentsOperation {
    /// Puts a document of its own.
    Own { count: u64 },
    /// Upserts nodes that stand alone, all or none.
    Alone { count: u64 },
    /// Puts a document twice at the same time: once.
    PutOnce { count: u64 },
    /// Puts two documents, all or none.
    Pair { count: u64 },
    /// Puts an index record.
    Index,
    /// Puts a document whose last node cannot be used: nothing may be left.
    Refused { count: u64 },
    /// Changes an earlier id's own document.
    Change { target: u64, change: DocumentChange },
}

/// What an id does to an earlier one's document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DocumentChange {
    /// Puts it anew: the first quarter of its nodes stays, the others go, and some are new.
    Replace,
    /// Replaces the first node's text.
    Update,
    /// Deletes the last node.
    DeleteNode,
    /// Makes the first node stand alone.
    Move,
    /// Records that another content of it failed.
    Fail,
    DeleteDocument,
}

impl DocumentsOperation {
    fn of(seed: u64, id: u64) -> Self {
        let mut random = Random::of(seed, id);
        let count = 2 + random.below(5);
        match id % 10 {
            // The distances lead to ids that end in 0 and 1.
            0 | 1 => Self::Own { count: if id.is_multiple_of(500) && id > 0 { LARGE } else { count } },
            4 if id >= FAR => Self::Change { target: id - FAR, change: DocumentChange::of(&mut random) },
            5 if id >= NEAR => Self::Change { target: id - NEAR, change: DocumentChange::of(&mut random) },
            6 => Self::PutOnce { count },
            7 => Self::Index,
            8 => Self::Refused { count },
            9 => Self::Pair { count },
            _ => Self::Alone { count },
        }
    }
}

impl DocumentChange {
    const ALL: [Self; 6] =
        [Self::Replace, Self::Update, Self::DeleteNode, Self::Move, Self::Fail, Self::DeleteDocument];

    fn of(random: &mut Random) -> Self {
        Self::ALL.get(random.index(Self::ALL.len())).copied().unwrap_or(Self::Update)
    }
}

impl fmt::Display for DocumentsOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own { count } => write!(f, "documents.own {count}"),
            Self::Alone { count } => write!(f, "documents.alone {count}"),
            Self::PutOnce { count } => write!(f, "documents.put_once {count}"),
            Self::Pair { count } => write!(f, "documents.pair {count}"),
            Self::Index => write!(f, "documents.index"),
            Self::Refused { count } => write!(f, "documents.refused {count}"),
            Self::Change { target, change } => write!(f, "documents.{change:?} {target}"),
        }
    }
}

/// Returns the one id that may change an own document, and how.
fn changer(seed: u64, target: u64) -> Option<(u64, DocumentChange)> {
    [target + NEAR, target + FAR].into_iter().find_map(|id| match DocumentsOperation::of(seed, id) {
        DocumentsOperation::Change { target: found, change } if found == target => Some((id, change)),
        _ => None,
    })
}

fn own(id: u64) -> String {
    format!("own-{id}")
}

fn text(id: u64, part: u64) -> String {
    format!("{id} {part} written in the {WORD}")
}

/// How many of a document's nodes stay when it is put anew.
fn kept(count: u64) -> u64 {
    count.div_ceil(4)
}

/// The document as `by` puts it.
fn document(name: &str, by: u64) -> Result<Document> {
    Ok(Document::new(name)?.with_fingerprint(by.to_string()))
}

/// The node under an id and part, with the text of `by`.
fn node(id: u64, part: u64, by: u64) -> Result<Node> {
    let metadata = JsonText::new(format!(r#"{{"id": {by}, "part": {part}}}"#))?;
    Ok(Node::text(format!("n-{id}-{part}"), text(by, part))?.with_metadata(metadata).with_span(part, part + 1))
}

fn nodes(id: u64, parts: std::ops::Range<u64>) -> Result<Vec<Node>> {
    parts.map(|part| node(id, part, id)).collect()
}

impl Plan for DocumentsPlan {
    fn describe(&self, seed: u64, id: u64) -> String {
        DocumentsOperation::of(seed, id).to_string()
    }

    fn is_repeatable(&self, seed: u64, id: u64) -> bool {
        matches!(
            DocumentsOperation::of(seed, id),
            DocumentsOperation::PutOnce { .. } | DocumentsOperation::Pair { .. } | DocumentsOperation::Alone { .. }
        )
    }

    fn is_sure(&self, seed: u64, id: u64) -> bool {
        matches!(
            DocumentsOperation::of(seed, id),
            DocumentsOperation::Own { .. } | DocumentsOperation::Alone { .. } | DocumentsOperation::Pair { .. }
        )
    }

    fn send<'a>(&'a self, larder: &'a Larder, seed: u64, id: u64, lie: Option<Lie>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let sent = send(&larder.documents(), seed, id, lie).await;
            sent.unwrap_or_else(|error| Outcome::Wrong(format!("the plan makes bad input: {error}")))
        })
    }

    fn inspect<'a>(&'a self, larder: &'a Larder, history: &'a History) -> BoxFuture<'a, Result<Shown>> {
        Box::pin(shown::inspect(larder, history))
    }

    fn lose_last(&self, connection: &rusqlite::Connection, history: &History) -> Result<String, String> {
        let certain = history.possible().filter(|(_, is_certain)| *is_certain).map(|(id, _)| id);
        let is_lasting = |id: &u64| {
            matches!(
                DocumentsOperation::of(history.seed, *id),
                DocumentsOperation::Alone { .. } | DocumentsOperation::PutOnce { .. }
            )
        };
        let id = certain.filter(is_lasting).last().ok_or("no acknowledged node to lose")?;
        let lost = format!("n-{id}-0");
        connection
            .execute("DELETE FROM node WHERE id = ?1", [&lost])
            .map_err(|e| format!("cannot delete {lost:?}: {e}"))?;
        Ok(lost)
    }

    fn add_row<'a>(&'a self, larder: &'a Larder) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let stray = node(u64::MAX, 0, u64::MAX)?;
            larder.documents().upsert([stray]).await.map(|_| ())
        })
    }
}

/// Sends the operation of an id. An error is the plan's own fault.
async fn send(documents: &Documents, seed: u64, id: u64, lie: Option<Lie>) -> Result<Outcome> {
    Ok(match DocumentsOperation::of(seed, id) {
        DocumentsOperation::Own { count } => put_own(documents, seed, id, count).await?,
        DocumentsOperation::Alone { count } => {
            let sent = if lie == Some(Lie::SkipBatchHalf) { count.div_ceil(2) } else { count };
            Outcome::of(documents.upsert(nodes(id, 0..sent)?).await)
        }
        DocumentsOperation::PutOnce { count } => put_once(documents, id, count).await?,
        DocumentsOperation::Pair { count } => {
            let first = (document(&format!("pair-{id}-a"), id)?, nodes(id, 0..1)?);
            let second = (document(&format!("pair-{id}-b"), id)?, nodes(id, 1..count)?);
            Outcome::of(documents.put_many([first, second]).await)
        }
        DocumentsOperation::Index => {
            let record = JsonText::new(id.to_string())?;
            Outcome::of(documents.put_index(format!("index-{id}"), "number", record).await)
        }
        DocumentsOperation::Refused { count } => {
            let mut nodes = nodes(id, 0..count)?;
            if let Some(last) = nodes.last_mut() {
                last.metadata = Some(JsonText::new(r#"{"twice": 1, "twice": 2}"#)?);
            }
            must_fail(Outcome::of(documents.put(document(&format!("refused-{id}"), id)?, nodes).await))
        }
        DocumentsOperation::Change { target, change } => make(change, documents, target, id).await?,
    })
}

/// Puts a document that is not there yet; where nobody changes it later, the caller must see its own write.
async fn put_own(documents: &Documents, seed: u64, id: u64, count: u64) -> Result<Outcome> {
    let put = documents.put(document(&own(id), id)?, nodes(id, 0..count)?).await;
    if put.is_err() || changer(seed, id).is_some() {
        return Ok(Outcome::of(put));
    }
    match documents.get(format!("n-{id}-{}", count - 1)).await {
        Ok(None) => Ok(Outcome::Wrong("it does not read its own write".to_owned())),
        // A failed read is no wrong answer.
        _ => Ok(Outcome::Acknowledged),
    }
}

/// Sends one put twice at the same time; one of them may find it done.
async fn put_once(documents: &Documents, id: u64, count: u64) -> Result<Outcome> {
    let put =
        || -> Result<_> { Ok(documents.put(document(&format!("once-{id}"), id)?, nodes(id, 0..count)?).into_future()) };
    Ok(match join(put()?, put()?).await {
        (Ok(first), Ok(second)) if first.nodes.inserted > 0 && second.nodes.inserted > 0 => {
            Outcome::Wrong("two puts of one document both inserted its nodes".to_owned())
        }
        (Ok(_), _) | (_, Ok(_)) => Outcome::Acknowledged,
        // The first error may say "not applied" while the second leaves it open.
        (Err(first), second) if first.written() == larder::Written::NotApplied => Outcome::of(second),
        (first, _) => Outcome::of(first),
    })
}

/// Changes a document, whose nodes are counted first.
async fn make(change: DocumentChange, documents: &Documents, target: u64, id: u64) -> Result<Outcome> {
    let name = own(target);
    if change == DocumentChange::DeleteDocument {
        return Ok(Outcome::of(documents.delete_document(&name).await));
    }
    let count = match documents.document(&name).await {
        Ok(Some(found)) => found.node_count,
        Ok(None) => return Ok(Outcome::not_found()),
        Err(error) => return Ok(Outcome::unread(&error)),
    };
    let changed = match change {
        DocumentChange::Replace => {
            let mut put = nodes(target, 0..kept(count))?;
            put.extend(nodes(id, 0..NEW_COUNT)?);
            documents.put(document(&name, id)?, put).await.map(|outcome| outcome.nodes.deleted)
        }
        DocumentChange::Update => {
            let updated = documents.upsert([node(target, 0, id)?]).into_document(&name).await;
            updated.map(|outcomes| outcomes.len() as u64)
        }
        DocumentChange::DeleteNode => documents.delete([format!("n-{target}-{}", count - 1)]).await,
        DocumentChange::Move => documents.move_nodes([format!("n-{target}-0")], None).await,
        DocumentChange::Fail => documents.mark_failed(&document(&name, id)?, "torture").await.map(u64::from),
        DocumentChange::DeleteDocument => documents.delete_document(&name).await.map(u64::from),
    };
    Ok(match changed {
        Ok(0) => Outcome::Wrong(format!("{change:?} changed nothing, and nobody else changes the document")),
        other => Outcome::of(other),
    })
}
