//! Vectors with ids, metadata and texts, in collections; what is nearest to one of them.
//!
//! Start at [`Point`], what is stored, and [`SearchPoints`].
//!
//! Always true: a [`Vector`] holds only finite numbers; a collection's dimensions and metric never change.

mod collections;
mod messages;
mod search;
mod vector;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::json_text::JsonText;
use crate::names::{DocumentId, PointId};

pub use collections::{
    ClearCollection, CollectionInfo, DeclareMetadataField, DescribeCollection, DropCollection, ListCollections, Metric,
    OpenCollection,
};
pub use messages::{
    CountPoints, DeletePoints, DeletePointsByDocument, DeletePointsByFilter, DocumentPoints, GetPoint, GetPoints,
    ListPoints, PointPage, ReplacePoints, ReplacedCounts, UpsertCounts, UpsertPoints,
};
pub use search::{
    Diversity, ExplainSearch, Explanation, FilterPlan, Hit, PointFields, ScanPlan, SearchManyPoints, SearchOptions,
    SearchPoints,
};
pub use vector::Vector;

/// A vector under an id, with what belongs to it.
///
/// # Examples
/// ```
/// use larder_protocol::JsonText;
/// use larder_protocol::vectors::Point;
///
/// let point = Point::new("notes/a.md#0", vec![0.1, 0.7, -0.2])?
///     .with_metadata(JsonText::new(r#"{"lang": "en"}"#)?)
///     .with_text("All of the file.")
///     .with_document("notes/a.md")?;
/// assert_eq!(point.vector.dimensions(), 3);
/// assert!(Point::new("b", vec![f32::NAN]).is_err());
/// # Ok::<(), larder_protocol::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Its id, unique in its collection.
    pub id: PointId,
    /// The vector.
    pub vector: Vector,
    /// The document that it was made from, its ref-doc id; points can be deleted by it.
    pub document: Option<DocumentId>,
    /// The program's own facts about it: a JSON object, which filters can read.
    pub metadata: Option<JsonText>,
    /// The text that it stands for, which hybrid searches read.
    pub text: Option<String>,
}

impl Point {
    /// Returns a point of which only the vector is said.
    ///
    /// # Errors
    /// When the id cannot be used, or the vector: see [`Vector::new`].
    pub fn new(id: impl AsRef<str>, vector: impl Into<Vec<f32>>) -> Result<Self, Error> {
        let (id, vector) = (PointId::new(id)?, Vector::new(vector)?);
        Ok(Self { id, vector, document: None, metadata: None, text: None })
    }

    /// Returns the point with metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: JsonText) -> Self {
        self.metadata = Some(metadata);
        self
    }

    /// Returns the point with the text that it stands for.
    #[must_use]
    pub fn with_text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// Returns the point with the document that it was made from.
    ///
    /// # Errors
    /// When the document's id cannot be used.
    pub fn with_document(mut self, document: impl AsRef<str>) -> Result<Self, Error> {
        self.document = Some(DocumentId::new(document)?);
        Ok(self)
    }

    /// Returns about how many bytes the point holds in memory.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.id.as_str().len() + size_of_val(self.vector.as_slice()) + self.payload_bytes()
    }

    /// Returns the bytes of metadata, text and document id.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        let metadata = self.metadata.as_ref().map_or(0, |json| json.as_str().len());
        let document = self.document.as_ref().map_or(0, |id| id.as_str().len());
        metadata + document + self.text.as_deref().map_or(0, str::len)
    }
}
