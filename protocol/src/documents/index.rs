//! Index records: small named structures that a program keeps beside its nodes, such as the shape of an index.

use serde::{Deserialize, Serialize};

use crate::json_text::JsonText;
use crate::message::message;
use crate::names::IndexId;
use crate::time::Timestamp;

/// A named structure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexRecord {
    /// Its id.
    pub id: IndexId,
    /// The program's name for its type.
    pub kind: String,
    /// What it holds.
    pub content: JsonText,
    /// When it was first put.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
}

/// Stores a record, replacing an earlier one of this id; answers whether anything changed.
///
/// Sending it twice leaves the same state as sending it once, and writes nothing the second time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutIndexRecord {
    /// Which.
    pub id: IndexId,
    /// The program's name for its type; at most [`INDEX_KIND_BYTES_MAX`](crate::limits::INDEX_KIND_BYTES_MAX) bytes.
    pub kind: String,
    /// What it holds; at most [`INDEX_RECORD_BYTES_MAX`](crate::limits::INDEX_RECORD_BYTES_MAX) bytes.
    pub content: JsonText,
}
message!(Documents, PutIndexRecord => bool, |m| m.id.as_str().len() + m.kind.len() + m.content.as_str().len());

/// Reads a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetIndexRecord {
    /// Which.
    pub id: IndexId,
}
message!(Documents, GetIndexRecord => Option<IndexRecord>, |m| m.id.as_str().len());

/// Lists records in the order of their ids; a page also ends at about 4 MiB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListIndexRecords {
    /// Continue behind this one.
    pub after: Option<IndexId>,
    /// Most to return: 1 to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
    pub limit: usize,
}
message!(Documents, ListIndexRecords => Vec<IndexRecord>, |_m| 0);

/// Deletes a record; answers whether it was there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteIndexRecord {
    /// Which.
    pub id: IndexId,
}
message!(Documents, DeleteIndexRecord => bool, |m| m.id.as_str().len());
