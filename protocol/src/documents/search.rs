//! Full-text search over nodes.

use serde::{Deserialize, Serialize};

use super::StoredNode;
use crate::filter::Filter;
use crate::full_text::TextQuery;
use crate::message::message;
use crate::names::DocumentId;

/// Finds nodes by their texts, best first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchNodes {
    /// What to look for.
    pub query: TextQuery,
    /// Only nodes whose metadata this is true of.
    pub filter: Option<Filter>,
    /// Only nodes of these documents; none named: of all. At most
    /// [`SEARCH_DOCUMENTS_MAX`](crate::limits::SEARCH_DOCUMENTS_MAX).
    pub documents: Vec<DocumentId>,
    /// How many of the best to leave out, for the next page.
    pub offset: usize,
    /// Most to return: 1 to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX); it also ends at about 4 MiB.
    pub limit: usize,
}
message!(Documents, SearchNodes => Vec<NodeHit>, |m| {
    let ids: usize = m.documents.iter().map(|id| size_of::<DocumentId>() + id.as_str().len()).sum();
    m.query.size_bytes() + m.filter.as_ref().map_or(0, Filter::size_bytes) + ids
});

/// A node that a search found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeHit {
    /// The node.
    pub found: StoredNode,
    /// The part of its text around the words, each word between `[` and `]`; `…` where text is left out.
    pub snippet: String,
    /// How well it fits: larger is better (BM25, negated as SQLite gives it).
    pub score: f64,
}
