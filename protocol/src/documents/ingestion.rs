//! Which sources are to be ingested, and how far each is.
//!
//! Start at [`PlanIngestion`], which says what is to be done and changes nothing.
//!
//! Always true: no message here makes a document done; only putting its nodes does.

use serde::{Deserialize, Serialize};

use super::ContentHash;
use crate::message::message;
use crate::names::DocumentId;

/// How far a document's ingestion is. Its committed nodes are served in any state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IngestionState {
    /// The nodes of the document's hash are committed.
    Done,
    /// A program has begun to make nodes of this content. After a crash it stays so, and is planned again.
    Begun {
        /// Of which content.
        hash: ContentHash,
    },
    /// Making nodes of this content failed.
    Failed {
        /// Of which content.
        hash: ContentHash,
        /// Why, as the program said.
        reason: String,
        /// How often in a row, for any content.
        failure_count: u32,
    },
}

/// What a program says of a document that it is making nodes of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IngestionMark {
    /// It has begun.
    Begun,
    /// It failed; the reason is cut after [`FAILURE_BYTES_MAX`](crate::limits::FAILURE_BYTES_MAX) bytes.
    Failed {
        /// Why.
        reason: String,
    },
}

/// Records that nodes of a content are being made, or could not be; answers whether anything changed.
///
/// The document is made where it is missing, without nodes. Nodes that are there stay, and so does the hash they
/// belong to. A mark for the very content that is done changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkIngestion {
    /// Of which document.
    pub document: DocumentId,
    /// Of which content.
    pub hash: ContentHash,
    /// What to record.
    pub mark: IngestionMark,
}
message!(Documents, MarkIngestion => bool, |m| m.document.as_str().len() + match &m.mark {
    IngestionMark::Begun => 0,
    IngestionMark::Failed { reason } => reason.len(),
});

/// Which sources to ingest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IngestionStrategy {
    /// What is new, changed, or not done.
    #[default]
    Upsert,
    /// Only contents that no document has, done, under whatever id: copies are left out.
    DuplicatesOnly,
    /// As [`Upsert`](Self::Upsert), and documents that are not among the sources go.
    UpsertAndDeleteMissing,
}

/// What to do with one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IngestionDecision {
    /// Ingest it: no such document is there.
    Insert,
    /// Ingest it: the document has another content.
    Update,
    /// Ingest it: the document's nodes were begun or failed, and are not committed.
    Retry,
    /// Nothing: the document is done with this content.
    Unchanged,
    /// Nothing: this document, or an earlier source, has the same content.
    Duplicate(DocumentId),
}

impl IngestionDecision {
    /// Returns whether the source is to be ingested.
    #[must_use]
    pub fn is_to_ingest(&self) -> bool {
        matches!(self, Self::Insert | Self::Update | Self::Retry)
    }
}

/// Says which sources are to be ingested. It changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanIngestion {
    /// The sources with the hashes of their contents; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX).
    pub sources: Vec<(DocumentId, ContentHash)>,
    /// By which rule.
    pub strategy: IngestionStrategy,
}
message!(Documents, PlanIngestion => IngestionPlan, |m| {
    m.sources.iter().map(|(id, _)| size_of::<(DocumentId, ContentHash)>() + id.as_str().len()).sum::<usize>()
});

/// What to do with each source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestionPlan {
    /// In the order of the sources.
    pub decisions: Vec<IngestionDecision>,
}

/// Deletes every document that is not in a list, with its nodes; answers which.
///
/// Sending it twice deletes nothing more. An empty list without a prefix deletes all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteMissing {
    /// Which to keep; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX).
    pub keep: Vec<DocumentId>,
    /// Only documents whose ids begin so. Empty: all.
    pub prefix: String,
}
message!(Documents, DeleteMissing => Vec<DocumentId>, |m| {
    m.prefix.len() + m.keep.iter().map(|id| size_of::<DocumentId>() + id.as_str().len()).sum::<usize>()
});
