//! Source documents and their nodes: what they are, and what the documents store can be asked.
//!
//! Start at [`Document`] and [`Node`], then [`PutDocument`], which replaces a document's nodes in one step.
//!
//! Always true: a node's id is its own among all documents' nodes; equal content never makes two documents or nodes
//! one; a document is [`Done`](IngestionState::Done) only through the write that commits its nodes.

mod hash;
mod index;
mod ingestion;
mod intents;
mod members;
mod messages;
mod search;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::json_text::JsonText;
use crate::media::MediaReference;
use crate::names::{DocumentId, NodeId};
use crate::time::Timestamp;

pub use hash::ContentHash;
pub use index::{DeleteIndexRecord, GetIndexRecord, IndexRecord, ListIndexRecords, PutIndexRecord};
pub use ingestion::{
    DeleteMissing, IngestionDecision, IngestionMark, IngestionPlan, IngestionState, IngestionStrategy, MarkIngestion,
    PlanIngestion,
};
pub use intents::{
    BeginForgets, BeginIngests, Beginning, BegunIntent, DamagedIntent, DropDamagedIntents, FinishIntents, Intent,
    IntentId, IntentKind, IntentSubject, ListDamagedIntents, ListIntents, NewIngest, TakeIntent, TakePurpose,
    TakenIntent,
};
pub use members::{
    ContextDocument, ContextNode, ListContextDocuments, ListContextNodes, PassageHit, PlanContext, ReadPassages,
    SearchPassages,
};
pub use messages::{
    CountDocuments, CountNodes, DeclareMetadataField, DeleteDocument, DeleteNodes, DocumentOutcome,
    FindDocumentsByHash, FindNodesByHash, GetDocument, GetDocumentText, GetNode, GetNodeHashes, GetNodes,
    ListDocuments, ListNodeIds, ListNodes, ListRelated, MoveNodes, NodeCounts, NodeCursor, NodePage, NodeScope,
    PutDocument, PutDocuments, Relationship, UpsertNodes, UpsertOutcome,
};
pub use search::{NodeHit, SearchNodes};

/// A source: a file, a page, a record, which is cut into nodes.
///
/// # Examples
/// ```
/// use larder_protocol::documents::Document;
///
/// let kept = Document::new("notes/a.md")?.with_text("All of the file.");
/// let unkept = Document::new("notes/b.md")?.with_fingerprint_of("Only its hash is kept.".as_bytes());
/// assert_ne!(kept.hash(), unkept.hash());
/// # Ok::<(), larder_protocol::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Document {
    /// Its id.
    pub id: DocumentId,
    /// Its whole text, where the program wants it kept beside the nodes'; at most `document_bytes_max` bytes.
    pub text: Option<String>,
    /// Whatever else tells one state of the source from another: a hash, an ETag, the version of the splitter. It counts
    /// for the content hash; at most [`FINGERPRINT_BYTES_MAX`](crate::limits::FINGERPRINT_BYTES_MAX) bytes.
    pub fingerprint: Option<String>,
    /// The program's own facts about it: a JSON object, which filters can read. It counts for the content hash.
    pub metadata: Option<JsonText>,
}

impl Document {
    /// Returns a document of which nothing is said yet.
    ///
    /// # Errors
    /// When the id cannot be used.
    pub fn new(id: impl AsRef<str>) -> Result<Self, Error> {
        Ok(Self { id: DocumentId::new(id)?, text: None, fingerprint: None, metadata: None })
    }

    /// Returns the document with a text that is kept.
    #[must_use]
    pub fn with_text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// Returns the document with a fingerprint of the program's own.
    #[must_use]
    pub fn with_fingerprint(mut self, fingerprint: impl Into<String>) -> Self {
        self.fingerprint = Some(fingerprint.into());
        self
    }

    /// Returns the document with the BLAKE3 hash of a content that is not kept as its fingerprint.
    #[must_use]
    pub fn with_fingerprint_of(self, content: &[u8]) -> Self {
        self.with_fingerprint(blake3::hash(content).to_hex().as_str())
    }

    /// Returns the document with metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: JsonText) -> Self {
        self.metadata = Some(metadata);
        self
    }

    /// Returns about how many bytes the document holds in memory.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_deref().map_or(0, str::len);
        size_of::<Self>() + text(&self.text) + text(&self.fingerprint) + json_bytes(self.metadata.as_ref())
    }
}

/// What the store says of a document, without its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredDocument {
    /// Its id.
    pub id: DocumentId,
    /// The hash of the content whose nodes are committed. `None`: none are yet.
    pub hash: Option<ContentHash>,
    /// How far its ingestion is.
    pub state: IngestionState,
    /// How many nodes it has.
    pub node_count: u64,
    /// Its fingerprint, when its nodes were committed.
    pub fingerprint: Option<String>,
    /// Its metadata, when its nodes were committed.
    pub metadata: Option<JsonText>,
    /// When it was first heard of.
    pub created: Timestamp,
    /// When it was last changed; a node that is changed by itself does not count.
    pub updated: Timestamp,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NodeContent {
    /// A piece of text.
    Text(String),
    /// An image, with a text that describes it.
    Image {
        /// Where it is.
        source: MediaReference,
        /// What it shows; searched as text is.
        caption: Option<String>,
    },
    /// A text that stands for something else: a summary of an index, a table, another retriever.
    Index {
        /// The text by which it is found.
        text: String,
        /// The program's name for what it stands for.
        target: String,
    },
    /// Anything else, as JSON; not searched.
    Plain(JsonText),
}

impl NodeContent {
    /// Returns the text that is searched.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Index { text, .. } => Some(text),
            Self::Image { caption, .. } => caption.as_deref(),
            Self::Plain(_) => None,
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Image { source, caption } => source.heap_bytes() + caption.as_deref().map_or(0, str::len),
            Self::Index { text, target } => text.len() + target.len(),
            Self::Plain(json) => json.as_str().len(),
        }
    }
}

/// Where a node's text is in its document's, in characters (Unicode scalar values): from `start` up to before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CharSpan {
    /// The first character.
    pub start: u64,
    /// The first character behind it; not less than `start`.
    pub end: u64,
}

/// What a node is to others. They need not exist, and may form cycles: nothing follows them by itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Relationships {
    /// The node before it.
    pub previous: Option<NodeId>,
    /// The node behind it.
    pub next: Option<NodeId>,
    /// The node that it is a part of.
    pub parent: Option<NodeId>,
    /// The nodes that are parts of it, in order.
    pub children: Vec<NodeId>,
}

/// A piece of a document: what is found, embedded and handed to a model.
///
/// # Examples
/// ```
/// use larder_protocol::documents::Node;
/// use larder_protocol::JsonText;
///
/// let node = Node::text("notes/a.md#0", "All of the file.")?.with_span(0, 16).with_metadata(JsonText::new(r#"{"page": 1}"#)?);
/// assert_eq!(node.content.text(), Some("All of the file."));
/// # Ok::<(), larder_protocol::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Node {
    /// Its id, unique among all documents' nodes.
    pub id: NodeId,
    /// What it holds.
    pub content: NodeContent,
    /// The program's own facts about it: a JSON object, which filters can read.
    pub metadata: Option<JsonText>,
    /// What it is to other nodes. Its source is the document that it is put into.
    pub relationships: Relationships,
    /// Where its text is in the document's.
    pub span: Option<CharSpan>,
}

impl Node {
    /// Returns a node with this content.
    ///
    /// # Errors
    /// When the id cannot be used.
    pub fn new(id: impl AsRef<str>, content: NodeContent) -> Result<Self, Error> {
        Ok(Self { id: NodeId::new(id)?, content, metadata: None, relationships: Relationships::default(), span: None })
    }

    /// Returns a node of text.
    ///
    /// # Errors
    /// When the id cannot be used.
    pub fn text(id: impl AsRef<str>, text: impl Into<String>) -> Result<Self, Error> {
        Self::new(id, NodeContent::Text(text.into()))
    }

    /// Returns a node of text that comes as bytes.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the bytes are not UTF-8, with the place; or when the id cannot be used.
    pub fn text_from_bytes(id: impl AsRef<str>, bytes: Vec<u8>) -> Result<Self, Error> {
        let text = String::from_utf8(bytes).map_err(|e| {
            Error::invalid("node text", format!("it is not UTF-8 from byte {} on", e.utf8_error().valid_up_to()))
        })?;
        Self::text(id, text)
    }

    /// Returns the node with metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: JsonText) -> Self {
        self.metadata = Some(metadata);
        self
    }

    /// Returns the node with the place of its text in the document's, in characters.
    #[must_use]
    pub fn with_span(mut self, start: u64, end: u64) -> Self {
        self.span = Some(CharSpan { start, end });
        self
    }

    /// Returns the node with its relationships.
    #[must_use]
    pub fn with_relationships(mut self, relationships: Relationships) -> Self {
        self.relationships = relationships;
        self
    }

    /// Returns about how many bytes the node holds in memory.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let Relationships { previous, next, parent, children } = &self.relationships;
        let id = |id: &NodeId| size_of::<NodeId>() + id.as_str().len();
        let related: usize = [previous, next, parent].into_iter().flatten().chain(children).map(id).sum();
        size_of::<Self>() + id(&self.id) + self.content.heap_bytes() + json_bytes(self.metadata.as_ref()) + related
    }
}

/// A node as the store holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredNode {
    /// What was put.
    pub node: Node,
    /// The document that it belongs to, its source. `None`: it stands alone.
    pub document: Option<DocumentId>,
    /// Its place in the document; there may be gaps.
    pub position: u64,
    /// The hash of its content and metadata, which nodes of equal content share.
    pub hash: ContentHash,
    /// When it was inserted.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
}

fn json_bytes(json: Option<&JsonText>) -> usize {
    json.map_or(0, |json| json.as_str().len())
}

impl fmt::Display for Relationship {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Previous => "previous",
            Self::Next => "next",
            Self::Parent => "parent",
            Self::Child => "child",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_node_survives_every_codec() {
        let id = |id: &str| NodeId::new(id).unwrap();
        let contents = [
            NodeContent::Text("t".into()),
            NodeContent::Image { source: MediaReference::Url("https://x".into()), caption: Some("c".into()) },
            NodeContent::Index { text: "t".into(), target: "tables/1".into() },
            NodeContent::Plain(JsonText::new("[null, 2.50]").unwrap()),
        ];
        for content in contents {
            let node = Node::new("n", content)
                .unwrap()
                .with_metadata(JsonText::new(r#"{"a.b": {"\"": [1]}}"#).unwrap())
                .with_span(3, 9)
                .with_relationships(Relationships {
                    previous: Some(id("p")),
                    next: None,
                    parent: Some(id("n")),
                    children: vec![id("é")],
                });
            let bytes = postcard::to_stdvec(&node).unwrap();
            assert_eq!(postcard::from_bytes::<Node>(&bytes).unwrap(), node);
            assert_eq!(serde_json::from_str::<Node>(&serde_json::to_string(&node).unwrap()).unwrap(), node);
            #[cfg(feature = "bincode")]
            {
                let config = bincode::config::standard();
                let bytes = bincode::serde::encode_to_vec(&node, config).unwrap();
                assert_eq!(bincode::serde::decode_from_slice::<Node, _>(&bytes, config).unwrap().0, node);
            }
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_refused_with_the_place() {
        let refused = Node::text_from_bytes("n", b"ab\xffcd".to_vec()).unwrap_err();
        assert!(refused.to_string().contains("from byte 2"), "{refused}");
        assert!(Node::text_from_bytes("n", "é\0".into()).is_ok());
    }

    #[test]
    fn invalid_utf8_in_an_encoded_node_does_not_decode() {
        let mut bytes = postcard::to_stdvec(&Node::text("n", "xyz").unwrap()).unwrap();
        let at = bytes.windows(3).position(|part| part == b"xyz").unwrap();
        bytes[at] = 0xff;
        assert!(postcard::from_bytes::<Node>(&bytes).is_err());
    }
}
