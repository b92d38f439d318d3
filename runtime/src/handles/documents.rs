//! The documents store's handle.
//!
//! Always true: a method only builds a message; what it means is said at the message. [`Ingestion`] is the one that
//! sends several.

mod ingestion;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use larder_actors::documents::Documents as DocumentsStore;
use larder_actors::store::Notices;
use larder_actors::{Error, Result};
use larder_protocol::documents::{
    ContentHash, CountDocuments, CountNodes, DeclareMetadataField, DeleteDocument, DeleteIndexRecord, DeleteMissing,
    DeleteNodes, Document, FindDocumentsByHash, FindNodesByHash, GetDocument, GetDocumentText, GetIndexRecord, GetNode,
    GetNodeHashes, GetNodes, IndexRecord, IngestionMark, IngestionStrategy, ListDocuments, ListIndexRecords,
    ListNodeIds, ListNodes, ListRelated, MarkIngestion, MoveNodes, Node, NodeCursor, NodePage, NodeScope,
    PlanIngestion, PutDocument, PutDocuments, PutIndexRecord, Relationship, SearchNodes, StoredDocument, StoredNode,
    UpsertNodes,
};
use larder_protocol::filter::{FieldPath, Filter};
use larder_protocol::full_text::TextQuery;
use larder_protocol::{DocumentId, Error as Kind, IndexId, JsonText, Message, NodeId, Sequence};

use super::STREAM_PAGE_ROWS;
use crate::larder::Larder;
use crate::request::Request;

pub use ingestion::{Ingestion, IngestionProgress, IngestionReport};

/// The documents store.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use larder::{Document, Node, TextQuery, field, JsonText};
///
/// # let larder = larder::Larder::temporary().await?;
/// let documents = larder.documents();
/// let report = Document::new("reports/2025.md")?.with_fingerprint("v1");
/// let page = |n: u32| JsonText::new(format!(r#"{{"page": {n}}}"#));
/// let nodes = [
///     Node::text("reports/2025.md#0", "Sales rose in the north.")?.with_metadata(page(1)?),
///     Node::text("reports/2025.md#1", "Costs rose as well.")?.with_metadata(page(2)?),
/// ];
/// documents.put(report, nodes).await?; // all of it is there, or nothing
///
/// let hits = documents.search("rose").filter(field("page").gte(2)).await?;
/// assert_eq!(hits[0].found.node.id.as_str(), "reports/2025.md#1");
/// assert_eq!(hits[0].snippet, "Costs [rose] as well.");
/// assert_eq!(documents.search(TextQuery::default().phrase("in the north")).await?.len(), 1);
/// documents.delete_document("reports/2025.md").await?;
/// assert_eq!(documents.count().await?, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Documents {
    larder: Larder,
}

impl Documents {
    pub(crate) fn new(larder: Larder) -> Self {
        Self { larder }
    }

    /// Makes a document's nodes exactly these, and the document done. See [`PutDocument`].
    pub fn put(&self, document: Document, nodes: impl IntoIterator<Item = Node>) -> Request<PutDocument> {
        self.request(Ok(PutDocument { document, nodes: nodes.into_iter().collect(), may_update: true }))
    }

    /// Puts several documents with their nodes, all or none. See [`PutDocuments`].
    pub fn put_many(&self, documents: impl IntoIterator<Item = (Document, Vec<Node>)>) -> Request<PutDocuments> {
        let put = |(document, nodes)| PutDocument { document, nodes, may_update: true };
        self.request(Ok(PutDocuments { puts: documents.into_iter().map(put).collect() }))
    }

    /// Stores nodes that stand alone, unless [`into`](Request::into_document) names a document. See [`UpsertNodes`].
    pub fn upsert(&self, nodes: impl IntoIterator<Item = Node>) -> Request<UpsertNodes> {
        self.request(Ok(UpsertNodes { document: None, nodes: nodes.into_iter().collect(), may_update: true }))
    }

    /// Reads a node.
    pub fn get(&self, id: impl AsRef<str>) -> Request<GetNode> {
        self.request(NodeId::new(id).map(|id| GetNode { id }))
    }

    /// Reads many nodes at one instant, in the order asked for; `None` for each that is not there.
    pub fn get_many<T: AsRef<str>>(&self, ids: impl IntoIterator<Item = T>) -> Request<GetNodes> {
        self.request(node_ids(ids).map(|ids| GetNodes { ids }))
    }

    /// Reads the content hashes of many nodes, in the order asked for.
    pub fn hashes<T: AsRef<str>>(&self, ids: impl IntoIterator<Item = T>) -> Request<GetNodeHashes> {
        self.request(node_ids(ids).map(|ids| GetNodeHashes { ids }))
    }

    /// Lists the nodes of a content: there may be many. For the next page name the last of this one.
    pub fn nodes_by_hash(&self, hash: ContentHash, after: Option<&NodeId>, limit: usize) -> Request<FindNodesByHash> {
        self.request(Ok(FindNodesByHash { hash, after: after.cloned(), limit }))
    }

    /// Lists the documents of a content: there may be many. For the next page name the last of this one.
    pub fn documents_by_hash(
        &self,
        hash: ContentHash,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Request<FindDocumentsByHash> {
        self.request(Ok(FindDocumentsByHash { hash, after: after.cloned(), limit }))
    }

    /// Reads a page of a document's nodes, in order. Default: the first 256.
    pub fn nodes(&self, document: impl AsRef<str>) -> Request<ListNodes> {
        self.request(DocumentId::new(document).map(|id| list_nodes(NodeScope::Document(id), None)))
    }

    /// Reads a page of the nodes that a filter on their metadata is true of, in the order of their ids. Default: the
    /// first 256.
    pub fn filter(&self, filter: Filter) -> Request<ListNodes> {
        self.request(Ok(list_nodes(NodeScope::All, Some(filter))))
    }

    /// Reads a page of all nodes, in the order of their ids. Default: the first 256.
    pub fn page(&self) -> Request<ListNodes> {
        self.request(Ok(list_nodes(NodeScope::All, None)))
    }

    /// Reads a page of the nodes that stand alone. Default: the first 256.
    pub fn nodes_alone(&self) -> Request<ListNodes> {
        self.request(Ok(list_nodes(NodeScope::Alone, None)))
    }

    /// Lists the ids and places of a document's nodes: its ref-doc info. Continue behind a position.
    pub fn node_ids(&self, document: impl AsRef<str>, after: Option<u64>, limit: usize) -> Request<ListNodeIds> {
        self.request(DocumentId::new(document).map(|document| ListNodeIds { document, after, limit }))
    }

    /// Counts all nodes; options of the request narrow it.
    pub fn count(&self) -> Request<CountNodes> {
        self.request(Ok(CountNodes { scope: NodeScope::All, filter: None }))
    }

    /// Reads the nodes that are this to a node. See [`ListRelated`].
    pub fn related(&self, id: impl AsRef<str>, relationship: Relationship) -> Request<ListRelated> {
        self.request(NodeId::new(id).map(|id| ListRelated { id, relationship, limit: STREAM_PAGE_ROWS }))
    }

    /// Finds nodes by their texts, best first. Default: the first 20. See [`SearchNodes`].
    pub fn search(&self, query: impl Into<TextQuery>) -> Request<SearchNodes> {
        let query = query.into();
        self.request(Ok(SearchNodes { query, filter: None, documents: Vec::new(), offset: 0, limit: 20 }))
    }

    /// Moves nodes to a document; `None`: they stand alone from then on. See [`MoveNodes`].
    pub fn move_nodes<T: AsRef<str>>(
        &self,
        ids: impl IntoIterator<Item = T>,
        into: Option<&DocumentId>,
    ) -> Request<MoveNodes> {
        self.request(node_ids(ids).map(|ids| MoveNodes { ids, into: into.cloned() }))
    }

    /// Deletes nodes; answers how many were there.
    pub fn delete<T: AsRef<str>>(&self, ids: impl IntoIterator<Item = T>) -> Request<DeleteNodes> {
        self.request(node_ids(ids).map(|ids| DeleteNodes { ids }))
    }

    /// Deletes a document with all its nodes; answers whether it was there.
    pub fn delete_document(&self, id: impl AsRef<str>) -> Request<DeleteDocument> {
        self.request(DocumentId::new(id).map(|id| DeleteDocument { id }))
    }

    /// Deletes every document that is not among these, with its nodes; answers which. See [`DeleteMissing`].
    pub fn delete_missing<T: AsRef<str>>(&self, keep: impl IntoIterator<Item = T>) -> Request<DeleteMissing> {
        let keep: Result<_, Kind> = keep.into_iter().map(DocumentId::new).collect();
        self.request(keep.map(|keep| DeleteMissing { keep, prefix: String::new() }))
    }

    /// Reads what is said of a document: hash, state of its ingestion, metadata, number of nodes.
    pub fn document(&self, id: impl AsRef<str>) -> Request<GetDocument> {
        self.request(DocumentId::new(id).map(|id| GetDocument { id }))
    }

    /// Reads a document's text, where it was kept.
    pub fn document_text(&self, id: impl AsRef<str>) -> Request<GetDocumentText> {
        self.request(DocumentId::new(id).map(|id| GetDocumentText { id }))
    }

    /// Lists documents in the order of their ids. Default: the first 256.
    pub fn documents(&self) -> Request<ListDocuments> {
        let prefix = String::new();
        self.request(Ok(ListDocuments { prefix, done: None, filter: None, after: None, limit: STREAM_PAGE_ROWS }))
    }

    /// Counts documents; options of the request narrow it.
    pub fn count_documents(&self) -> Request<CountDocuments> {
        self.request(Ok(CountDocuments { prefix: String::new(), done: None, filter: None }))
    }

    /// Ingests sources: finds out which are new or changed, asks for their nodes, and puts them. See [`Ingestion`].
    pub fn ingest(&self, sources: impl IntoIterator<Item = Document>) -> Ingestion {
        Ingestion::new(self.clone(), sources.into_iter().collect())
    }

    /// Says which sources are to be ingested, by their hashes; changes nothing. See [`PlanIngestion`].
    pub fn plan(&self, sources: &[Document], strategy: IngestionStrategy) -> Request<PlanIngestion> {
        let sources = sources.iter().map(|document| (document.id.clone(), document.hash())).collect();
        self.request(Ok(PlanIngestion { sources, strategy }))
    }

    /// Records that nodes of a source are being made, so that a crash is seen. See [`MarkIngestion`].
    pub fn mark_begun(&self, document: &Document) -> Request<MarkIngestion> {
        self.mark(document, IngestionMark::Begun)
    }

    /// Records that no nodes of a source could be made. See [`MarkIngestion`].
    pub fn mark_failed(&self, document: &Document, reason: impl Into<String>) -> Request<MarkIngestion> {
        self.mark(document, IngestionMark::Failed { reason: reason.into() })
    }

    fn mark(&self, document: &Document, mark: IngestionMark) -> Request<MarkIngestion> {
        self.request(Ok(MarkIngestion { document: document.id.clone(), hash: document.hash(), mark }))
    }

    /// Stores an index record; answers whether anything changed.
    pub fn put_index(
        &self,
        id: impl AsRef<str>,
        kind: impl Into<String>,
        content: JsonText,
    ) -> Request<PutIndexRecord> {
        self.request(IndexId::new(id).map(|id| PutIndexRecord { id, kind: kind.into(), content }))
    }

    /// Reads an index record.
    pub fn index(&self, id: impl AsRef<str>) -> Request<GetIndexRecord> {
        self.request(IndexId::new(id).map(|id| GetIndexRecord { id }))
    }

    /// Lists index records in the order of their ids. For the next page name the last of this one.
    pub fn indexes(&self, after: Option<&IndexId>, limit: usize) -> Request<ListIndexRecords, Vec<IndexRecord>> {
        self.request(Ok(ListIndexRecords { after: after.cloned(), limit }))
    }

    /// Deletes an index record; answers whether it was there.
    pub fn delete_index(&self, id: impl AsRef<str>) -> Request<DeleteIndexRecord> {
        self.request(IndexId::new(id).map(|id| DeleteIndexRecord { id }))
    }

    /// Declares a field of the nodes' metadata, so that filters on it use an index. Answers whether it was new.
    pub fn declare_field(&self, field: FieldPath) -> Request<DeclareMetadataField> {
        self.request(Ok(DeclareMetadataField { field }))
    }

    /// Returns the sequence of the newest commit, by this process or another: subscribe after it to hear only what is new.
    ///
    /// # Errors
    /// When the store cannot be started or read.
    pub async fn sequence(&self) -> Result<Sequence> {
        self.larder.sequence::<DocumentsStore>().await
    }

    /// Returns a stream of what is committed to the store after `sequence`, by this process and others.
    ///
    /// # Errors
    /// When the store cannot be started.
    pub async fn subscribe(&self, after: Sequence) -> Result<Notices> {
        self.larder.subscribe::<DocumentsStore>(after).await
    }

    fn request<M: Message>(&self, message: Result<M, Kind>) -> Request<M> {
        Request::new(self.larder.clone(), message, Ok)
    }
}

fn node_ids<T: AsRef<str>>(ids: impl IntoIterator<Item = T>) -> Result<Vec<NodeId>, Kind> {
    ids.into_iter().map(NodeId::new).collect()
}

fn list_nodes(scope: NodeScope, filter: Option<Filter>) -> ListNodes {
    ListNodes { scope, filter, after: None, limit: STREAM_PAGE_ROWS }
}

/// Options of a put.
impl<T> Request<PutDocument, T> {
    /// A document that is there with another content is a conflict and not replaced.
    pub fn without_update(self) -> Self {
        self.set(|put| put.may_update = false)
    }
}

/// Options of an upsert.
impl<T> Request<UpsertNodes, T> {
    /// The nodes go into this document, which must be there.
    pub fn into_document(self, document: impl AsRef<str>) -> Self {
        self.change(|upsert| {
            upsert.document = Some(DocumentId::new(document)?);
            Ok(())
        })
    }

    /// A node that is there with another content is a conflict and not replaced.
    pub fn without_update(self) -> Self {
        self.set(|upsert| upsert.may_update = false)
    }
}

/// Options of a page.
impl Request<ListNodes> {
    /// Only nodes whose metadata this is true of.
    pub fn matching(self, filter: Filter) -> Self {
        self.set(|list| list.filter = Some(filter))
    }

    /// Continues behind an earlier page.
    pub fn after(self, cursor: NodeCursor) -> Self {
        self.set(|list| list.after = Some(cursor))
    }

    /// Most to return: 1 to 10,000.
    pub fn limit(self, limit: usize) -> Self {
        self.set(|list| list.limit = limit)
    }

    /// Reads on to the end, page by page: a node present throughout is seen exactly once, changes meanwhile may or may
    /// not be seen. Not repeatable options such as a deadline hold for each page.
    #[must_use]
    pub fn stream(self) -> BoxStream<'static, Result<StoredNode>> {
        let pages = futures::stream::try_unfold(Some(self), |request| async move {
            let Some(request) = request else { return Ok::<_, Error>(None) };
            let NodePage { nodes, next } = request.clone().await?;
            Ok(Some((nodes, next.map(|next| request.after(next)))))
        });
        pages.map_ok(|nodes| futures::stream::iter(nodes).map(Ok)).try_flatten().boxed()
    }
}

/// Options of a count.
impl<T> Request<CountNodes, T> {
    /// Only this document's.
    pub fn of_document(self, document: impl AsRef<str>) -> Self {
        self.change(|count| {
            count.scope = NodeScope::Document(DocumentId::new(document)?);
            Ok(())
        })
    }

    /// Only nodes whose metadata this is true of.
    pub fn matching(self, filter: Filter) -> Self {
        self.set(|count| count.filter = Some(filter))
    }
}

/// Options of a list of related nodes.
impl<T> Request<ListRelated, T> {
    /// Most to return: 1 to 10,000. Default 256.
    pub fn limit(self, limit: usize) -> Self {
        self.set(|list| list.limit = limit)
    }
}

/// Options of a search.
impl<T> Request<SearchNodes, T> {
    /// Only nodes whose metadata this is true of.
    pub fn filter(self, filter: Filter) -> Self {
        self.set(|search| search.filter = Some(filter))
    }

    /// Only nodes of these documents; named again, of those as well.
    pub fn in_documents<I: AsRef<str>>(self, documents: impl IntoIterator<Item = I>) -> Self {
        self.change(|search| {
            for document in documents {
                search.documents.push(DocumentId::new(document)?);
            }
            Ok(())
        })
    }

    /// Leaves out so many of the best, for the next page.
    pub fn offset(self, offset: usize) -> Self {
        self.set(|search| search.offset = offset)
    }

    /// Most to return: 1 to 10,000. Default 20.
    pub fn limit(self, limit: usize) -> Self {
        self.set(|search| search.limit = limit)
    }
}

/// Options of a list of documents.
impl Request<ListDocuments> {
    /// Only those whose ids begin so.
    pub fn below(self, prefix: impl Into<String>) -> Self {
        self.set(|list| list.prefix = prefix.into())
    }

    /// Only those that are done, or only those that are not.
    pub fn done(self, done: bool) -> Self {
        self.set(|list| list.done = Some(done))
    }

    /// Only those whose metadata this is true of.
    pub fn matching(self, filter: Filter) -> Self {
        self.set(|list| list.filter = Some(filter))
    }

    /// Continues behind a document.
    pub fn after(self, id: DocumentId) -> Self {
        self.set(|list| list.after = Some(id))
    }

    /// Most to return: 1 to 10,000. Default 256.
    pub fn limit(self, limit: usize) -> Self {
        self.set(|list| list.limit = limit)
    }

    /// Reads on to the end, page by page: a document present throughout is seen exactly once.
    #[must_use]
    pub fn stream(self) -> BoxStream<'static, Result<StoredDocument>> {
        let pages = futures::stream::try_unfold(self, |request| async move {
            let documents = request.clone().await?;
            let Some(last) = documents.last() else { return Ok::<_, Error>(None) };
            let next = request.after(last.id.clone());
            Ok(Some((documents, next)))
        });
        pages.map_ok(|documents| futures::stream::iter(documents).map(Ok)).try_flatten().boxed()
    }
}

/// Options of a count of documents.
impl<T> Request<CountDocuments, T> {
    /// Only those whose ids begin so.
    pub fn below(self, prefix: impl Into<String>) -> Self {
        self.set(|count| count.prefix = prefix.into())
    }

    /// Only those that are done, or only those that are not.
    pub fn done(self, done: bool) -> Self {
        self.set(|count| count.done = Some(done))
    }
}

/// Options of the deletion of what is missing.
impl<T> Request<DeleteMissing, T> {
    /// Only documents whose ids begin so.
    pub fn below(self, prefix: impl Into<String>) -> Self {
        self.set(|delete| delete.prefix = prefix.into())
    }
}
