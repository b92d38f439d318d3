//! Searches: the points nearest to a vector, whose texts hold words, or both.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Vector;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::full_text::TextQuery;
use crate::json_text::JsonText;
use crate::limits::{BATCH_ITEMS_MAX, DIVERSITY_CANDIDATES_MAX, SEARCH_POINTS_MAX};
use crate::message::message;
use crate::names::{CollectionName, DocumentId, PointId};

/// Finds the points nearest to a vector, best first; those of one score in the order of their ids.
///
/// It sees every write that was acknowledged before it was sent. Where there are `k` matches there are `k` hits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchPoints {
    /// Where.
    pub collection: CollectionName,
    /// What to be near to. `None`: only the text counts.
    pub vector: Option<Vector>,
    /// What the texts are to hold. With a vector it is a hybrid search: the ranks in both lists are fused
    /// (reciprocal-rank fusion), and a hit's score is the sum of `1 / (60 + rank)`.
    pub text: Option<TextQuery>,
    /// Everything else.
    pub options: SearchOptions,
}
message!(Vectors, SearchPoints => Vec<Hit>, |m| {
    let vector = m.vector.as_ref().map_or(0, |vector| size_of_val(vector.as_slice()));
    m.collection.as_str().len() + vector + m.text.as_ref().map_or(0, TextQuery::size_bytes) + m.options.heap_bytes()
});

/// Finds the points nearest to each of several vectors, at one instant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchManyPoints {
    /// Where.
    pub collection: CollectionName,
    /// What to be near to; at most [`SEARCH_QUERIES_MAX`](crate::limits::SEARCH_QUERIES_MAX).
    pub vectors: Vec<Vector>,
    /// The same for all of them.
    pub options: SearchOptions,
}
message!(Vectors, SearchManyPoints => Vec<Vec<Hit>>, |m| {
    let vectors: usize = m.vectors.iter().map(|vector| size_of::<Vector>() + size_of_val(vector.as_slice())).sum();
    m.collection.as_str().len() + vectors + m.options.heap_bytes()
});

/// Searches as [`SearchPoints`] does, and says how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExplainSearch {
    /// What to look for.
    pub search: SearchPoints,
}
message!(Vectors, ExplainSearch => Explanation, |m| crate::Message::size_bytes(&m.search));

/// What a search is to find.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchOptions {
    /// How many: 0, which finds none, to [`SEARCH_POINTS_MAX`]. Default 10.
    pub k: usize,
    /// How many of the best to leave out, for the next page; at most [`SEARCH_POINTS_MAX`].
    pub offset: usize,
    /// Only points whose score with the vector is at least this.
    pub threshold: Option<f32>,
    /// Only points whose metadata this is true of.
    pub filter: Option<Filter>,
    /// Only these points. `None`: all.
    pub include: Option<Vec<PointId>>,
    /// Not these points.
    pub exclude: Vec<PointId>,
    /// Whether the answer is certain to be that of comparing with every vector; otherwise about one of a hundred of the
    /// nearest may be missed.
    pub is_exact: bool,
    /// Prefer hits that differ from each other.
    pub diversity: Option<Diversity>,
    /// What of the points to return.
    pub fields: PointFields,
}

/// Maximal marginal relevance: each hit is the candidate with the highest
/// `relevance × score − (1 − relevance) × (highest score with an earlier hit)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Diversity {
    /// 1: only the nearest; 0: only differing ones.
    pub relevance: f32,
    /// How many of the nearest to choose from, at most [`DIVERSITY_CANDIDATES_MAX`]; `k` and the offset together, if that
    /// is more.
    pub candidate_count: usize,
}

/// Which parts of a point to return beside id and score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointFields {
    /// The document that it was made from.
    pub document: bool,
    /// The metadata.
    pub metadata: bool,
    /// The text.
    pub text: bool,
    /// The vector, as it was put.
    pub vector: bool,
}

impl PointFields {
    /// Everything.
    pub const ALL: Self = Self { document: true, metadata: true, text: true, vector: true };
    /// Id and score alone.
    pub const NONE: Self = Self { document: false, metadata: false, text: false, vector: false };
}

impl Default for PointFields {
    /// Everything but the vector.
    fn default() -> Self {
        Self { vector: false, ..Self::ALL }
    }
}

/// A point that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hit {
    /// Its id.
    pub id: PointId,
    /// Higher is nearer: as the [`Metric`](super::Metric) says, or the fused score of a hybrid search.
    pub score: f32,
    /// The document that it was made from, if asked for.
    pub document: Option<DocumentId>,
    /// Its metadata, if asked for.
    pub metadata: Option<JsonText>,
    /// Its text, if asked for.
    pub text: Option<String>,
    /// Its vector, if asked for.
    pub vector: Option<Vector>,
}

impl Hit {
    /// Returns about how many bytes the hit holds in memory.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let metadata = self.metadata.as_ref().map_or(0, |json| json.as_str().len());
        let vector = self.vector.as_ref().map_or(0, |vector| size_of_val(vector.as_slice()));
        size_of::<Self>() + self.id.as_str().len() + metadata + vector + self.text.as_ref().map_or(0, String::len)
    }
}

/// How a search was done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// What it found.
    pub hits: Vec<Hit>,
    /// Which way was chosen.
    pub plan: ScanPlan,
    /// How it was found out which points the filter is true of. `None`: there is no filter.
    pub filter_plan: Option<FilterPlan>,
    /// Why the vectors are compared so, in a sentence.
    pub reason: String,
    /// Points of the collection.
    pub point_count: u64,
    /// Points that filter, included and excluded ids leave. `None`: nothing narrows the search.
    pub wanted_count: Option<u64>,
    /// Vectors whose one-bit codes were compared.
    pub code_count: u64,
    /// Vectors whose rows of 8 bits were.
    pub row_count: u64,
    /// Vectors that were scored exactly.
    pub exact_count: u64,
    /// Time to bring the index up to date: to load it, or to follow what was committed since.
    pub follow_time: Duration,
    /// Time to find out which points are wanted.
    pub filter_time: Duration,
    /// Time to compare vectors.
    pub scan_time: Duration,
    /// Time to read what is returned.
    pub read_time: Duration,
}

/// Which vectors a search compares, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ScanPlan {
    /// Nothing: `k` is 0, nothing is wanted, or only the text counts.
    Nothing,
    /// The codes of all.
    Codes,
    /// The rows of 8 bits of all, since there are no codes or the search is exact.
    Rows,
    /// The codes of those wanted.
    MaskedCodes,
    /// The rows of 8 bits of those wanted, since they are few.
    MaskedRows,
}

/// How a search finds out which points its filter is true of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FilterPlan {
    /// The metadata's columns in memory say it.
    Columns,
    /// They leave a few points open, whose rows are read. A declared field's columns leave none open.
    ColumnsAndRows,
    /// SQL says it, since the columns leave many points open or there is no memory for them.
    Sql,
}

impl Default for SearchOptions {
    fn default() -> Self {
        Self {
            k: 10,
            offset: 0,
            threshold: None,
            filter: None,
            include: None,
            exclude: Vec::new(),
            is_exact: false,
            diversity: None,
            fields: PointFields::default(),
        }
    }
}

impl SearchOptions {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the option and its range.
    pub fn check(&self) -> Result<()> {
        let range = |what: &str, value: usize, most: usize| {
            if value <= most {
                return Ok(());
            }
            Err(Error::invalid(format!("search {what}"), format!("{value} is more than {most}")))
        };
        range("k", self.k, SEARCH_POINTS_MAX)?;
        range("offset", self.offset, SEARCH_POINTS_MAX)?;
        let ids = self.include.as_ref().map_or(0, Vec::len).max(self.exclude.len());
        range("ids", ids, BATCH_ITEMS_MAX)?;
        if self.threshold.is_some_and(f32::is_nan) {
            return Err(Error::invalid("search threshold", "it is not a number"));
        }
        if let Some(Diversity { relevance, candidate_count }) = self.diversity {
            if !(0.0..=1.0).contains(&relevance) {
                return Err(Error::invalid("search diversity", "its relevance is not within 0 to 1"));
            }
            range("diversity candidates", candidate_count.max(self.k + self.offset), DIVERSITY_CANDIDATES_MAX)?;
        }
        self.filter.as_ref().map_or(Ok(()), Filter::check)
    }

    fn heap_bytes(&self) -> usize {
        let ids = |ids: &[PointId]| ids.iter().map(|id| size_of::<PointId>() + id.as_str().len()).sum::<usize>();
        let filter = self.filter.as_ref().map_or(0, Filter::size_bytes);
        filter + self.include.as_deref().map_or(0, ids) + ids(&self.exclude)
    }
}
