//! The vectors store's handle.
//!
//! Always true: a method only builds a message; what it means is said at the message.

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use larder_actors::store::Notices;
use larder_actors::vectors::Vectors as VectorsStore;
use larder_actors::{Error, Result};
use larder_protocol::filter::{FieldPath, Filter};
use larder_protocol::full_text::TextQuery;
use larder_protocol::vectors::{
    ClearCollection, CollectionInfo, CountPoints, DeclareMetadataField, DeletePoints, DeletePointsByDocument,
    DeletePointsByFilter, DescribeCollection, Diversity, DropCollection, ExplainSearch, GetPoint, GetPoints, Hit,
    ListCollections, ListPoints, Metric, OpenCollection, Point, PointFields, PointPage, SearchManyPoints,
    SearchOptions, SearchPoints, UpsertPoints, Vector,
};
use larder_protocol::{CollectionName, DocumentId, Error as Kind, Message, PointId, Sequence};

use super::STREAM_PAGE_ROWS;
use crate::larder::Larder;
use crate::request::Request;

/// The vectors store.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use larder::{JsonText, Metric, Point, field};
///
/// # let larder = larder::Larder::temporary().await?;
/// let notes = larder.vectors().collection("notes").dimensions(3).metric(Metric::Cosine).open().await?;
/// let lang = |lang: &str| JsonText::new(format!(r#"{{"lang": "{lang}"}}"#));
/// notes.upsert([
///     Point::new("a", [1.0, 0.0, 0.1])?.with_metadata(lang("en")?).with_text("the first note"),
///     Point::new("b", [0.9, 0.2, 0.0])?.with_metadata(lang("de")?).with_text("die zweite"),
/// ]).await?; // both are there, or none
///
/// let hits = notes.search([0.9, 0.2, 0.0]).k(10).await?; // sees them at once
/// assert_eq!(hits[0].id.as_str(), "b");
/// let hits = notes.search([0.9, 0.2, 0.0]).filter(field("lang").eq("en")).await?;
/// assert_eq!(hits.len(), 1);
/// let hits = notes.search([0.9, 0.2, 0.0]).text("first").await?; // hybrid
/// assert_eq!(hits[0].id.as_str(), "a");
/// notes.delete(["a"]).await?;
/// assert_eq!(notes.count().await?, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Vectors {
    larder: Larder,
}

impl Vectors {
    pub(crate) fn new(larder: Larder) -> Self {
        Self { larder }
    }

    /// Names a collection, to be made or found by [`open`](VectorCollectionBuilder::open).
    pub fn collection(&self, name: impl AsRef<str>) -> VectorCollectionBuilder {
        VectorCollectionBuilder {
            larder: self.larder.clone(),
            name: CollectionName::new(name),
            dimensions: None,
            metric: None,
        }
    }

    /// Lists the collections in the order of their names. For the next page name the last of this one.
    pub fn collections(&self, after: Option<&CollectionName>, limit: usize) -> Request<ListCollections> {
        request(&self.larder, Ok(ListCollections { after: after.cloned(), limit }))
    }

    /// Deletes a collection with all its points; answers whether it was there. See [`DropCollection`].
    pub fn drop_collection(&self, name: impl AsRef<str>) -> Request<DropCollection> {
        request(&self.larder, CollectionName::new(name).map(|collection| DropCollection { collection }))
    }

    /// Declares a field of the points' metadata, in all collections, so that filters on it use an index. Answers whether it
    /// was new.
    pub fn declare_field(&self, field: FieldPath) -> Request<DeclareMetadataField> {
        request(&self.larder, Ok(DeclareMetadataField { field }))
    }

    /// Returns the sequence of the newest commit, by this process or another: subscribe after it to hear only what is new.
    ///
    /// # Errors
    /// When the store cannot be started or read.
    pub async fn sequence(&self) -> Result<Sequence> {
        self.larder.sequence::<VectorsStore>().await
    }

    /// Returns a stream of what is committed to the store after `sequence`, by this process and others.
    ///
    /// # Errors
    /// When the store cannot be started.
    pub async fn subscribe(&self, after: Sequence) -> Result<Notices> {
        self.larder.subscribe::<VectorsStore>(after).await
    }
}

/// A collection to be made or found.
#[derive(Debug, Clone)]
#[must_use = "a collection is only made or found when it is opened"]
pub struct VectorCollectionBuilder {
    larder: Larder,
    name: Result<CollectionName, Kind>,
    dimensions: Option<usize>,
    metric: Option<Metric>,
}

impl VectorCollectionBuilder {
    /// Components of each vector: 1 to 8,192. Fixed once the collection is made.
    pub fn dimensions(mut self, dimensions: usize) -> Self {
        self.dimensions = Some(dimensions);
        self
    }

    /// How vectors are compared. Default for a new collection: [`Metric::Cosine`]. Fixed once the collection is made.
    pub fn metric(mut self, metric: Metric) -> Self {
        self.metric = Some(metric);
        self
    }

    /// Opens the collection; one that is not there is made, where its dimensions are named.
    ///
    /// # Errors
    /// [`Conflict`](Kind::Conflict) when the collection is there with other dimensions or another metric than those named;
    /// [`NotFound`](Kind::NotFound) when it is not there and no dimensions are named; or when the name cannot be used.
    pub async fn open(self) -> Result<VectorCollection> {
        let Self { larder, name, dimensions, metric } = self;
        let collection = name?;
        let opened = match dimensions {
            Some(dimensions) => {
                let (collection, metric) = (collection.clone(), metric.unwrap_or_default());
                request(&larder, Ok(OpenCollection { collection, dimensions, metric })).await?
            }
            None => {
                let found = request(&larder, Ok(DescribeCollection { collection: collection.clone() })).await?;
                let what = || format!("vectors collection {:?}", collection.as_str());
                let found = found.ok_or_else(|| Kind::NotFound { what: what() })?;
                if let Some(metric) = metric.filter(|metric| *metric != found.metric) {
                    let (expected, found) = (metric.as_str().to_owned(), found.metric.as_str().to_owned());
                    return Err(Kind::Conflict { what: what(), expected, found }.into());
                }
                found
            }
        };
        let CollectionInfo { dimensions, metric, .. } = opened;
        Ok(VectorCollection { larder, name: collection, dimensions, metric })
    }
}

/// A collection of the vectors store, cheap to clone. See [`Vectors`] for an example.
#[derive(Debug, Clone)]
pub struct VectorCollection {
    larder: Larder,
    name: CollectionName,
    dimensions: usize,
    metric: Metric,
}

impl VectorCollection {
    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &CollectionName {
        &self.name
    }

    /// Returns how many components its vectors have.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Returns how its vectors are compared.
    #[must_use]
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// Stores points, each in the place of what was under its id; all or none. See [`UpsertPoints`].
    pub fn upsert(&self, points: impl IntoIterator<Item = Point>) -> Request<UpsertPoints> {
        self.request(UpsertPoints { collection: self.name.clone(), points: points.into_iter().collect() })
    }

    /// Reads a point.
    pub fn get(&self, id: impl AsRef<str>) -> Request<GetPoint> {
        let collection = self.name.clone();
        request(&self.larder, PointId::new(id).map(|id| GetPoint { collection, id }))
    }

    /// Reads many points at one instant, in the order asked for; `None` for each that is not there.
    pub fn get_many<T: AsRef<str>>(&self, ids: impl IntoIterator<Item = T>) -> Request<GetPoints> {
        let collection = self.name.clone();
        request(&self.larder, point_ids(ids).map(|ids| GetPoints { collection, ids }))
    }

    /// Deletes points; answers how many were there.
    pub fn delete<T: AsRef<str>>(&self, ids: impl IntoIterator<Item = T>) -> Request<DeletePoints> {
        let collection = self.name.clone();
        request(&self.larder, point_ids(ids).map(|ids| DeletePoints { collection, ids }))
    }

    /// Deletes the points that were made from a document; answers how many there were.
    pub fn delete_by_document(&self, document: impl AsRef<str>) -> Request<DeletePointsByDocument> {
        let collection = self.name.clone();
        request(&self.larder, DocumentId::new(document).map(|document| DeletePointsByDocument { collection, document }))
    }

    /// Deletes the points whose metadata a filter is true of; answers how many there were.
    pub fn delete_by_filter(&self, filter: Filter) -> Request<DeletePointsByFilter> {
        self.request(DeletePointsByFilter { collection: self.name.clone(), filter })
    }

    /// Deletes every point; answers how many there were. See [`ClearCollection`].
    pub fn clear(&self) -> Request<ClearCollection> {
        self.request(ClearCollection { collection: self.name.clone() })
    }

    /// Counts all points; options of the request narrow it.
    pub fn count(&self) -> Request<CountPoints> {
        self.request(CountPoints { collection: self.name.clone(), filter: None, document: None })
    }

    /// Reads a page of points, in the order of their ids. Default: the first 256, without their vectors.
    pub fn page(&self) -> Request<ListPoints> {
        self.request(ListPoints {
            collection: self.name.clone(),
            filter: None,
            document: None,
            fields: PointFields::default(),
            after: None,
            limit: STREAM_PAGE_ROWS,
        })
    }

    /// Finds the points nearest to a vector, best first. Default: ten, without their vectors. See [`SearchPoints`].
    pub fn search(&self, query: impl AsRef<[f32]>) -> Request<SearchPoints> {
        let (collection, options) = (self.name.clone(), SearchOptions::default());
        let vector = Vector::new(query.as_ref());
        let search = vector.map(|vector| SearchPoints { collection, vector: Some(vector), text: None, options });
        request(&self.larder, search)
    }

    /// Finds the points whose texts hold what is asked for, best first. Default: ten.
    pub fn search_text(&self, query: impl Into<TextQuery>) -> Request<SearchPoints> {
        let (collection, text) = (self.name.clone(), Some(query.into()));
        self.request(SearchPoints { collection, vector: None, text, options: SearchOptions::default() })
    }

    /// Finds the points nearest to each of several vectors, at one instant. See [`SearchManyPoints`].
    pub fn search_many<T: AsRef<[f32]>>(&self, queries: impl IntoIterator<Item = T>) -> Request<SearchManyPoints> {
        let (collection, options) = (self.name.clone(), SearchOptions::default());
        let vectors: Result<Vec<_>, Kind> = queries.into_iter().map(|query| Vector::new(query.as_ref())).collect();
        request(&self.larder, vectors.map(|vectors| SearchManyPoints { collection, vectors, options }))
    }

    fn request<M: Message>(&self, message: M) -> Request<M> {
        request(&self.larder, Ok(message))
    }
}

fn request<M: Message>(larder: &Larder, message: Result<M, Kind>) -> Request<M> {
    Request::new(larder.clone(), message, Ok)
}

fn point_ids<T: AsRef<str>>(ids: impl IntoIterator<Item = T>) -> Result<Vec<PointId>, Kind> {
    ids.into_iter().map(PointId::new).collect()
}

/// Options of a count.
impl<T> Request<CountPoints, T> {
    /// Only points whose metadata this is true of.
    pub fn matching(self, filter: Filter) -> Self {
        self.set(|count| count.filter = Some(filter))
    }

    /// Only points made from this document.
    pub fn of_document(self, document: impl AsRef<str>) -> Self {
        self.change(|count| {
            count.document = Some(DocumentId::new(document)?);
            Ok(())
        })
    }
}

/// Options of a page.
impl Request<ListPoints> {
    /// Only points whose metadata this is true of.
    pub fn matching(self, filter: Filter) -> Self {
        self.set(|list| list.filter = Some(filter))
    }

    /// Only points made from this document.
    pub fn of_document(self, document: impl AsRef<str>) -> Self {
        self.change(|list| {
            list.document = Some(DocumentId::new(document)?);
            Ok(())
        })
    }

    /// What of the points to return. Default: everything but the vectors.
    pub fn fields(self, fields: PointFields) -> Self {
        self.set(|list| list.fields = fields)
    }

    /// Continues behind a point.
    pub fn after(self, id: PointId) -> Self {
        self.set(|list| list.after = Some(id))
    }

    /// Most to return: 1 to 10,000.
    pub fn limit(self, limit: usize) -> Self {
        self.set(|list| list.limit = limit)
    }

    /// Reads on to the end, page by page: a point present throughout is seen exactly once, changes meanwhile may or may
    /// not be seen.
    #[must_use]
    pub fn stream(self) -> BoxStream<'static, Result<Hit>> {
        let pages = futures::stream::try_unfold(Some(self), |request| async move {
            let Some(request) = request else { return Ok::<_, Error>(None) };
            let PointPage { points, next } = request.clone().await?;
            Ok(Some((points, next.map(|next| request.after(next)))))
        });
        pages.map_ok(|points| futures::stream::iter(points).map(Ok)).try_flatten().boxed()
    }
}

/// Options of a search, whatever it is for.
macro_rules! search_options {
    ($message:ty) => {
        /// Options of a search.
        impl<T> Request<$message, T> {
            /// How many to find: 0, which finds none, to 10,000. Default 10.
            pub fn k(self, k: usize) -> Self {
                self.set(|search| search.options.k = k)
            }

            /// Leaves out so many of the best, for the next page.
            pub fn offset(self, offset: usize) -> Self {
                self.set(|search| search.options.offset = offset)
            }

            /// Only points that score at least this with the vector.
            pub fn threshold(self, threshold: f32) -> Self {
                self.set(|search| search.options.threshold = Some(threshold))
            }

            /// Only points whose metadata this is true of.
            pub fn filter(self, filter: Filter) -> Self {
                self.set(|search| search.options.filter = Some(filter))
            }

            /// Only these points; named again, those as well.
            pub fn include<I: AsRef<str>>(self, ids: impl IntoIterator<Item = I>) -> Self {
                self.change(|search| {
                    search.options.include.get_or_insert_default().extend(point_ids(ids)?);
                    Ok(())
                })
            }

            /// Not these points; named again, not those either.
            pub fn exclude<I: AsRef<str>>(self, ids: impl IntoIterator<Item = I>) -> Self {
                self.change(|search| {
                    search.options.exclude.extend(point_ids(ids)?);
                    Ok(())
                })
            }

            /// The answer is certain to be that of comparing with every vector, which takes several times as long.
            pub fn exact(self) -> Self {
                self.set(|search| search.options.is_exact = true)
            }

            /// Prefers hits that differ from each other; `relevance` 1 is only the nearest, 0 only differing ones. Chooses
            /// from so many of the nearest. See [`Diversity`].
            pub fn diverse(self, relevance: f32, candidate_count: usize) -> Self {
                self.set(|search| search.options.diversity = Some(Diversity { relevance, candidate_count }))
            }

            /// What of the points to return. Default: everything but the vectors.
            pub fn fields(self, fields: PointFields) -> Self {
                self.set(|search| search.options.fields = fields)
            }
        }
    };
}

search_options!(SearchPoints);
search_options!(SearchManyPoints);

/// Options of a search for one vector or text.
impl Request<SearchPoints> {
    /// Makes it a hybrid search: what the texts hold counts as much as how near the vectors are.
    pub fn text(self, query: impl Into<TextQuery>) -> Self {
        self.set(|search| search.text = Some(query.into()))
    }

    /// Asks how the search is done, beside what it finds.
    pub fn explain(self) -> Request<ExplainSearch> {
        self.into_message(|search| ExplainSearch { search })
    }
}
