//! Which documents belong to a context, and what can be asked of them alone.

use serde::{Deserialize, Serialize};

use super::{ContentHash, IngestionPlan, StoredDocument, StoredNode};
use crate::filter::Filter;
use crate::message::message;
use crate::names::{ContextName, DocumentId, NodeId, SessionId};

/// Says which sources are to be ingested into a context. It changes nothing.
///
/// [`Unchanged`](super::IngestionDecision::Unchanged) is a document of this content whose ingestion into this context is
/// finished, and which nobody has put by itself since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanContext {
    /// Into which.
    pub context: ContextName,
    /// Whose they are. A document that was ingested as another's is ingested again.
    pub owner: Option<String>,
    /// In which conversation they came; as for the owner.
    pub session: Option<SessionId>,
    /// The sources with the hashes of their contents; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX).
    pub sources: Vec<(DocumentId, ContentHash)>,
}
message!(Documents, PlanContext => IngestionPlan, |m| {
    m.sources.iter().map(|(id, _)| size_of::<(DocumentId, ContentHash)>() + id.as_str().len()).sum::<usize>()
});

/// Lists the documents of a context in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListContextDocuments {
    /// Of which.
    pub context: ContextName,
    /// Only those whose ids begin so. Empty: all.
    pub prefix: String,
    /// Only this owner's.
    pub owner: Option<String>,
    /// Only those that came in this conversation.
    pub session: Option<SessionId>,
    /// Continue behind this one.
    pub after: Option<DocumentId>,
    /// Most to return: 1 to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX); a page also ends at about 4 MiB.
    pub limit: usize,
}
message!(Documents, ListContextDocuments => Vec<ContextDocument>, |m| {
    m.prefix.len() + m.owner.as_deref().map_or(0, str::len)
});

/// A document of a context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextDocument {
    /// What the store says of it.
    pub document: StoredDocument,
    /// Whose it is.
    pub owner: Option<String>,
    /// In which conversation it came.
    pub session: Option<SessionId>,
    /// Whether its nodes are those that were ingested; otherwise somebody put it by itself since.
    pub is_as_ingested: bool,
}

/// Lists the nodes of a context's documents in the order of their ids, without reading what is not asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListContextNodes {
    /// Of which.
    pub context: ContextName,
    /// Continue behind this one.
    pub after: Option<NodeId>,
    /// Most to return: 1 to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
    pub limit: usize,
}
message!(Documents, ListContextNodes => Vec<ContextNode>, |m| m.context.as_str().len());

/// A node of a context's document, without its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextNode {
    /// Its id.
    pub id: NodeId,
    /// Its document.
    pub document: DocumentId,
    /// Whether it has a text that is not blank, so that it has an embedding.
    pub has_text: bool,
}

/// Reads nodes of a context's documents at one instant, in the order asked for; `None` for each that is not there, belongs
/// elsewhere, or that the filter is not true of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReadPassages {
    /// Of which.
    pub context: ContextName,
    /// Which; at most [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
    pub ids: Vec<NodeId>,
    /// Only nodes whose metadata this is true of.
    pub filter: Option<Filter>,
}
message!(Documents, ReadPassages => Vec<Option<StoredNode>>, |m| {
    let ids: usize = m.ids.iter().map(|id| size_of::<NodeId>() + id.as_str().len()).sum();
    ids + m.filter.as_ref().map_or(0, Filter::size_bytes)
});

/// Finds nodes of a context's documents that hold any of some words, best first, without reading them.
///
/// Words that stand in very many texts are left out where rarer ones are there: they would cost most and say least.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchPassages {
    /// Of which.
    pub context: ContextName,
    /// What to look for: at most [`QUERY_WORDS_MAX`](crate::limits::QUERY_WORDS_MAX).
    pub words: Vec<String>,
    /// Only nodes whose metadata this is true of.
    pub filter: Option<Filter>,
    /// Most to return: 1 to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
    pub limit: usize,
}
message!(Documents, SearchPassages => Vec<PassageHit>, |m| {
    m.words.iter().map(String::len).sum::<usize>() + m.filter.as_ref().map_or(0, Filter::size_bytes)
});

/// A node that a search found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PassageHit {
    /// Its id.
    pub id: NodeId,
    /// How well it fits: larger is better (BM25, negated as SQLite gives it).
    pub score: f64,
}
