//! Messages about documents and their nodes: put, read, list, delete.
//!
//! Start at [`PutDocument`] and [`GetNode`].
//!
//! Always true: what is put again unchanged is not written again; a document that is deleted is gone as a whole, at
//! once.

use serde::{Deserialize, Serialize};

use super::{ContentHash, Document, Node, StoredDocument, StoredNode};
use crate::filter::{FieldPath, Filter};
use crate::message::message;
use crate::names::{DocumentId, NodeId};

/// What became of something that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpsertOutcome {
    /// It was not there.
    Inserted,
    /// It was there with another content, place, span or other relationships, and was replaced.
    Updated,
    /// It was there like this; nothing was written.
    Unchanged,
}

/// Makes a document's nodes exactly these, in this order, and the document done; all or nothing.
///
/// Nodes that are there unchanged are not written again; nodes that are not among these go. A node that belongs to
/// another document is a conflict: ids are never taken away from a document without [`MoveNodes`]. Sending it twice
/// leaves the same state as sending it once, and writes nothing the second time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutDocument {
    /// The document.
    pub document: Document,
    /// Its nodes, in order, each id once; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX), each of at most
    /// `node_bytes_max` bytes.
    pub nodes: Vec<Node>,
    /// Whether a document that is there with another content may be replaced. `false`: that is a conflict.
    pub may_update: bool,
}
message!(Documents, PutDocument => DocumentOutcome, |m| put_bytes(m));

/// What putting a document did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentOutcome {
    /// To the document, its nodes included.
    pub outcome: UpsertOutcome,
    /// To its nodes.
    pub nodes: NodeCounts,
}

/// How many nodes were touched, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeCounts {
    /// New ones.
    pub inserted: u64,
    /// Changed ones.
    pub updated: u64,
    /// Those that were not written again.
    pub unchanged: u64,
    /// Those that went.
    pub deleted: u64,
}

/// Puts several documents, all or none. See [`PutDocument`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutDocuments {
    /// The documents, each id once: at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX), and so many nodes in all.
    pub puts: Vec<PutDocument>,
}
message!(Documents, PutDocuments => Vec<DocumentOutcome>, |m| m.puts.iter().map(put_bytes).sum::<usize>());

fn put_bytes(put: &PutDocument) -> usize {
    size_of::<PutDocument>() + put.document.size_bytes() + nodes_bytes(&put.nodes)
}

fn nodes_bytes(nodes: &[Node]) -> usize {
    nodes.iter().map(Node::size_bytes).sum()
}

/// Stores nodes one by one, all or none; answers what became of each. New ones go behind the document's others.
///
/// A node that belongs elsewhere is a conflict. The document's hash and state stay as they are. Sending it twice leaves
/// the same state as sending it once, and writes nothing the second time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpsertNodes {
    /// Into which document; one that is not there is [`NotFound`](crate::Error::NotFound). `None`: they stand alone.
    pub document: Option<DocumentId>,
    /// The nodes, each id once; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX).
    pub nodes: Vec<Node>,
    /// Whether a node that is there with another content may be replaced. `false`: that is a conflict.
    pub may_update: bool,
}
message!(Documents, UpsertNodes => Vec<UpsertOutcome>, |m| nodes_bytes(&m.nodes));

/// Moves nodes to another document, behind its others; answers how many were elsewhere. Ids that are not there are left
/// out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveNodes {
    /// Which; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX).
    pub ids: Vec<NodeId>,
    /// Into which document; one that is not there is [`NotFound`](crate::Error::NotFound). `None`: they stand alone.
    pub into: Option<DocumentId>,
}
message!(Documents, MoveNodes => u64, |m| ids_bytes(&m.ids));

/// Deletes nodes; answers how many were there. What others say of them stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteNodes {
    /// Which; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX).
    pub ids: Vec<NodeId>,
}
message!(Documents, DeleteNodes => u64, |m| ids_bytes(&m.ids));

/// Deletes a document with all its nodes; answers whether it was there.
///
/// However many they are, they are gone at once for everybody; the rows of a large document follow bit by bit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteDocument {
    /// Which.
    pub id: DocumentId,
}
message!(Documents, DeleteDocument => bool, |m| m.id.as_str().len());

/// Reads a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetNode {
    /// Which.
    pub id: NodeId,
}
message!(Documents, GetNode => Option<StoredNode>, |m| m.id.as_str().len());

/// Reads many nodes at one instant, in the order asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetNodes {
    /// Which; at most [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
    pub ids: Vec<NodeId>,
}
message!(Documents, GetNodes => Vec<Option<StoredNode>>, |m| ids_bytes(&m.ids));

/// Reads the content hashes of many nodes, in the order asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetNodeHashes {
    /// Which; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX).
    pub ids: Vec<NodeId>,
}
message!(Documents, GetNodeHashes => Vec<Option<ContentHash>>, |m| ids_bytes(&m.ids));

/// Lists the nodes of a content, in the order of their ids: there may be many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindNodesByHash {
    /// The content's hash.
    pub hash: ContentHash,
    /// Continue behind this one.
    pub after: Option<NodeId>,
    /// Most to return: 1 to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
    pub limit: usize,
}
message!(Documents, FindNodesByHash => Vec<NodeId>, |_m| 0);

/// Lists the documents of a content, in the order of their ids: there may be many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindDocumentsByHash {
    /// The content's hash.
    pub hash: ContentHash,
    /// Continue behind this one.
    pub after: Option<DocumentId>,
    /// Most to return: 1 to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
    pub limit: usize,
}
message!(Documents, FindDocumentsByHash => Vec<DocumentId>, |_m| 0);

/// Which nodes a list is about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeScope {
    /// All, in the order of their ids.
    #[default]
    All,
    /// One document's, in their order in it. A document that is not there has none.
    Document(DocumentId),
    /// Those that stand alone, in the order in which they came.
    Alone,
}

/// Where a page of nodes ended: the last node's id and position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCursor {
    /// Its id.
    pub id: NodeId,
    /// Its place in its document.
    pub position: u64,
}

/// Reads one page of nodes, at one instant.
///
/// Over all nodes, one that is present throughout several pages is seen exactly once. Within a document that holds as
/// long as the document is not put anew between the pages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListNodes {
    /// Of what.
    pub scope: NodeScope,
    /// Only nodes whose metadata this is true of. A node without metadata has every field missing.
    pub filter: Option<Filter>,
    /// Continue behind this one.
    pub after: Option<NodeCursor>,
    /// Most to return: 1 to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
    pub limit: usize,
}
message!(Documents, ListNodes => NodePage, |m| scope_bytes(&m.scope) + filter_bytes(m.filter.as_ref()));

/// One page of nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePage {
    /// The nodes. A page also ends early when it holds about 4 MiB.
    pub nodes: Vec<StoredNode>,
    /// Where to continue. `None`: this was the last page.
    pub next: Option<NodeCursor>,
}

/// Lists where the nodes of a document are, without reading them: its ref-doc info.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListNodeIds {
    /// Of which; one that is not there has none.
    pub document: DocumentId,
    /// Continue behind this position.
    pub after: Option<u64>,
    /// Most to return: 1 to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
    pub limit: usize,
}
message!(Documents, ListNodeIds => Vec<NodeCursor>, |m| m.document.as_str().len());

/// Counts nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CountNodes {
    /// Of what.
    pub scope: NodeScope,
    /// Only nodes whose metadata this is true of.
    pub filter: Option<Filter>,
}
message!(Documents, CountNodes => u64, |m| scope_bytes(&m.scope) + filter_bytes(m.filter.as_ref()));

/// What one node is to another. The source of a node is its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relationship {
    /// The node before it.
    Previous,
    /// The node behind it.
    Next,
    /// The node that it is a part of.
    Parent,
    /// The nodes that it says are parts of it, in its order, then those that say so of themselves.
    Child,
}

/// Reads the nodes that stand in a relationship to a node: those that are there, one step away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListRelated {
    /// To which; one that is not there is [`NotFound`](crate::Error::NotFound).
    pub id: NodeId,
    /// What they are to it.
    pub relationship: Relationship,
    /// Most to return: 1 to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
    pub limit: usize,
}
message!(Documents, ListRelated => Vec<StoredNode>, |m| m.id.as_str().len());

/// Reads what is said of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetDocument {
    /// Which.
    pub id: DocumentId,
}
message!(Documents, GetDocument => Option<StoredDocument>, |m| m.id.as_str().len());

/// Reads a document's text, where it was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetDocumentText {
    /// Of which.
    pub id: DocumentId,
}
message!(Documents, GetDocumentText => Option<String>, |m| m.id.as_str().len());

/// Lists documents in the order of their ids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListDocuments {
    /// Only those whose ids begin so. Empty: all.
    pub prefix: String,
    /// Only those that are done, or only those that are not.
    pub done: Option<bool>,
    /// Only those whose metadata this is true of.
    pub filter: Option<Filter>,
    /// Continue behind this one.
    pub after: Option<DocumentId>,
    /// Most to return: 1 to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX); a page also ends at about 4 MiB.
    pub limit: usize,
}
message!(Documents, ListDocuments => Vec<StoredDocument>, |m| m.prefix.len() + filter_bytes(m.filter.as_ref()));

/// Counts documents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CountDocuments {
    /// Only those whose ids begin so. Empty: all.
    pub prefix: String,
    /// Only those that are done, or only those that are not.
    pub done: Option<bool>,
    /// Only those whose metadata this is true of.
    pub filter: Option<Filter>,
}
message!(Documents, CountDocuments => u64, |m| m.prefix.len() + filter_bytes(m.filter.as_ref()));

/// Declares a field of the nodes' metadata, so that filters on it use an index; answers whether it was new.
///
/// It takes as long as reading every node's metadata once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclareMetadataField {
    /// Which: 1 to 8 keys of ASCII letters, digits, `_` and `-`.
    pub field: FieldPath,
}
message!(Documents, DeclareMetadataField => bool, |m| m.field.0.iter().map(String::len).sum::<usize>());

fn ids_bytes(ids: &[NodeId]) -> usize {
    ids.iter().map(|id| size_of::<NodeId>() + id.as_str().len()).sum()
}

fn scope_bytes(scope: &NodeScope) -> usize {
    match scope {
        NodeScope::Document(id) => id.as_str().len(),
        NodeScope::All | NodeScope::Alone => 0,
    }
}

fn filter_bytes(filter: Option<&Filter>) -> usize {
    filter.map_or(0, Filter::size_bytes)
}
