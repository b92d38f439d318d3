//! Messages about points: put, read, list, delete.
//!
//! A collection that is not there is [`NotFound`](crate::Error::NotFound) for all of them.

use serde::{Deserialize, Serialize};

use super::{Point, PointFields};
use crate::filter::Filter;
use crate::message::message;
use crate::names::{CollectionName, DocumentId, PointId};

/// Stores points, each in the place of what was under its id; all or none.
///
/// Every vector has the collection's dimensions, and with [`Cosine`](super::Metric::Cosine) a direction. Sending it twice
/// leaves the same state as sending it once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpsertPoints {
    /// Where to.
    pub collection: CollectionName,
    /// Which, each id once; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX), each with metadata and text of
    /// at most `payload_bytes_max` bytes. None is no error.
    pub points: Vec<Point>,
}
message!(Vectors, UpsertPoints => UpsertCounts, |m| {
    m.collection.as_str().len() + m.points.iter().map(Point::size_bytes).sum::<usize>()
});

/// What became of points that were put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UpsertCounts {
    /// How many were not there.
    pub inserted: u64,
    /// How many replaced another.
    pub replaced: u64,
}

/// Makes the points of documents exactly these, beside some that stay as they are; all or none. Answers for each document.
///
/// Points of a document that are neither put nor kept go. Sending it twice leaves the same state as sending it once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplacePoints {
    /// Where.
    pub collection: CollectionName,
    /// Of which documents, each once; together at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX) points, each id once.
    pub documents: Vec<DocumentPoints>,
}
message!(Vectors, ReplacePoints => Vec<ReplacedCounts>, |m| {
    let bytes = |document: &DocumentPoints| {
        let points: usize = document.points.iter().map(Point::size_bytes).sum();
        size_of::<DocumentPoints>() + points + ids_bytes(&document.keep)
    };
    m.collection.as_str().len() + m.documents.iter().map(bytes).sum::<usize>()
});

/// One document of a [`ReplacePoints`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DocumentPoints {
    /// Which.
    pub document: DocumentId,
    /// What is put; each names this document.
    pub points: Vec<Point>,
    /// Points that stay as they are, if they are there.
    pub keep: Vec<PointId>,
}

/// What became of a document's points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReplacedCounts {
    /// Those that were put.
    pub put: UpsertCounts,
    /// How many went.
    pub deleted: u64,
}

/// Reads a point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetPoint {
    /// Where.
    pub collection: CollectionName,
    /// Which.
    pub id: PointId,
}
message!(Vectors, GetPoint => Option<Point>, |m| m.collection.as_str().len() + m.id.as_str().len());

/// Reads many points at one instant, in the order asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetPoints {
    /// Where.
    pub collection: CollectionName,
    /// Which; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX), and
    /// [`ANSWER_BYTES_MAX`](crate::limits::ANSWER_BYTES_MAX) of points.
    pub ids: Vec<PointId>,
}
message!(Vectors, GetPoints => Vec<Option<Point>>, |m| m.collection.as_str().len() + ids_bytes(&m.ids));

/// Reads one page of points in the order of their ids, at one instant.
///
/// A point that is present throughout several pages is seen exactly once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListPoints {
    /// Where.
    pub collection: CollectionName,
    /// Only points whose metadata this is true of. A point without metadata has every field missing.
    pub filter: Option<Filter>,
    /// Only points made from this document.
    pub document: Option<DocumentId>,
    /// What of them to return.
    pub fields: PointFields,
    /// Continue behind this one.
    pub after: Option<PointId>,
    /// Most to return: 1 to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
    pub limit: usize,
}
message!(Vectors, ListPoints => PointPage, |m| m.collection.as_str().len() + filter_bytes(m.filter.as_ref()));

/// One page of points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PointPage {
    /// The points, with a score of 0. A page also ends early when it holds about 4 MiB.
    pub points: Vec<super::Hit>,
    /// Where to continue. `None`: this was the last page.
    pub next: Option<PointId>,
}

/// Counts points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CountPoints {
    /// Where.
    pub collection: CollectionName,
    /// Only points whose metadata this is true of.
    pub filter: Option<Filter>,
    /// Only points made from this document.
    pub document: Option<DocumentId>,
}
message!(Vectors, CountPoints => u64, |m| m.collection.as_str().len() + filter_bytes(m.filter.as_ref()));

/// Deletes points; answers how many were there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletePoints {
    /// Where.
    pub collection: CollectionName,
    /// Which; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX).
    pub ids: Vec<PointId>,
}
message!(Vectors, DeletePoints => u64, |m| m.collection.as_str().len() + ids_bytes(&m.ids));

/// Deletes the points that were made from a document; answers how many there were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletePointsByDocument {
    /// Where.
    pub collection: CollectionName,
    /// From which.
    pub document: DocumentId,
}
message!(Vectors, DeletePointsByDocument => u64, |m| m.collection.as_str().len() + m.document.as_str().len());

/// Deletes the points whose metadata a filter is true of; answers how many there were.
///
/// It is one write, as long as reading every point's metadata.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeletePointsByFilter {
    /// Where.
    pub collection: CollectionName,
    /// Which.
    pub filter: Filter,
}
message!(Vectors, DeletePointsByFilter => u64, |m| m.collection.as_str().len() + m.filter.size_bytes());

fn ids_bytes(ids: &[PointId]) -> usize {
    ids.iter().map(|id| size_of::<PointId>() + id.as_str().len()).sum()
}

fn filter_bytes(filter: Option<&Filter>) -> usize {
    filter.map_or(0, Filter::size_bytes)
}
