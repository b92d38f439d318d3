//! Messages about whole collections.

use serde::{Deserialize, Serialize};

use crate::filter::FieldPath;
use crate::message::message;
use crate::names::CollectionName;

/// How vectors are compared. A higher score is always nearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Metric {
    /// The cosine of the angle between them: −1 to 1. A vector of zeros is refused.
    #[default]
    Cosine,
    /// Their inner product.
    Dot,
    /// The square of the distance between them, negated, so that 0 is the nearest.
    L2,
}

impl Metric {
    /// Returns the metric's word, as rows and settings have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Dot => "dot",
            Self::L2 => "l2",
        }
    }
}

/// Makes a collection, or checks that the one that is there is like this.
///
/// Dimensions and metric are fixed when it is made; other ones later are [`Conflict`](crate::Error::Conflict). Sending it
/// twice leaves the same state as sending it once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenCollection {
    /// Its name.
    pub collection: CollectionName,
    /// Components of each vector: 1 to [`DIMENSIONS_MAX`](crate::limits::DIMENSIONS_MAX).
    pub dimensions: usize,
    /// How vectors are compared.
    pub metric: Metric,
}
message!(Vectors, OpenCollection => CollectionInfo, |m| m.collection.as_str().len());

/// What a collection is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionInfo {
    /// Its name.
    pub name: CollectionName,
    /// Components of each vector.
    pub dimensions: usize,
    /// How vectors are compared.
    pub metric: Metric,
    /// How many points it has.
    pub point_count: u64,
}

/// Reads what a collection is. `None`: it is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeCollection {
    /// Which.
    pub collection: CollectionName,
}
message!(Vectors, DescribeCollection => Option<CollectionInfo>, |m| m.collection.as_str().len());

/// Lists the collections in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListCollections {
    /// Continue behind this one.
    pub after: Option<CollectionName>,
    /// Most to return: 1 to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
    pub limit: usize,
}
message!(Vectors, ListCollections => Vec<CollectionInfo>, |m| m.after.as_ref().map_or(0, |name| name.as_str().len()));

/// Deletes every point of a collection; answers how many there were.
///
/// They are gone at once for everybody; their rows follow bit by bit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClearCollection {
    /// Which; one that is not there is [`NotFound`](crate::Error::NotFound).
    pub collection: CollectionName,
}
message!(Vectors, ClearCollection => u64, |m| m.collection.as_str().len());

/// Deletes a collection with all its points; answers whether it was there.
///
/// It is gone at once for everybody, and its name is free for another one; its rows follow bit by bit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropCollection {
    /// Which.
    pub collection: CollectionName,
}
message!(Vectors, DropCollection => bool, |m| m.collection.as_str().len());

/// Declares a field of the points' metadata, in all collections, so that filters on it use an index; answers whether it was
/// new.
///
/// It takes as long as reading every point's metadata once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclareMetadataField {
    /// Which: 1 to 8 keys of ASCII letters, digits, `_` and `-`.
    pub field: FieldPath,
}
message!(Vectors, DeclareMetadataField => bool, |m| m.field.0.iter().map(String::len).sum::<usize>());
