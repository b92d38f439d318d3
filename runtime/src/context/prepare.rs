//! From a document and its nodes to everything that stores are to be told of it: embeddings and facts of what is new or changed.
//!
//! Start at [`Context::prepare`]. It runs in the caller's own future, before anything is written; what goes wrong here fails a
//! document and leaves it as it was.
//!
//! Always true: what the program's functions return is checked before it is used or cached.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;

use futures::{FutureExt, StreamExt};
use larder_actors::{Error, Result};
use larder_protocol::documents::{Document, GetNodeHashes, IngestionDecision, NewIngest, Node, PutDocument};
use larder_protocol::graph::{NewRelation, SourceFacts};
use larder_protocol::limits::{OWNER_BYTES_MAX, SOURCE_ID_BYTES_MAX};
use larder_protocol::vectors::{Metric, Point, Vector};
use larder_protocol::{Class, ContextName, DocumentId, Error as Kind, NodeId, PointId, SessionId, SourceId, Tag};

use super::embedder::BoxError;
use super::payload::Payload;
use super::{Context, after, reason};
use crate::handles::embed_cache::Model;

/// Facts that one passage may state: what one message to the graph has room for.
const FACTS_MAX: usize = larder_protocol::limits::BATCH_ITEMS_MAX - 1;
/// What the ids of passages begin with, as sources of facts: other sources of the graph are none of ours.
pub(super) const SOURCE_PREFIX: &str = "node:";

/// Documents that are embedded by themselves at once, when embedding them together has failed.
const ALONE_AT_ONCE: usize = 8;

/// A document that is to be ingested, with its nodes.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) document: Document,
    pub(super) nodes: Vec<Node>,
    /// What the plan said. [`Update`](IngestionDecision::Update): only what changed is embedded.
    pub(super) decision: IngestionDecision,
}

/// A document of which everything is known.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) ingest: NewIngest,
    pub(super) payload: Payload,
    pub(super) decision: IngestionDecision,
}

impl Prepared {
    pub(super) fn id(&self) -> &DocumentId {
        &self.ingest.put.document.id
    }

    /// Returns what it was made from, to be prepared anew.
    pub(super) fn into_source(self) -> Source {
        let PutDocument { document, nodes, .. } = self.ingest.put;
        Source { document, nodes, decision: IngestionDecision::Retry }
    }
}

/// Whose documents are.
#[derive(Debug, Clone, Default)]
pub(super) struct Belonging {
    pub(super) owner: Option<String>,
    pub(super) session: Option<SessionId>,
}

/// A source on its way.
struct Draft {
    source: Source,
    /// Places of the nodes that are new or changed.
    changed: Vec<usize>,
    /// Of those, the ones that have a text.
    embedded: Vec<usize>,
}

impl Draft {
    fn texts(&self) -> impl Iterator<Item = &str> {
        self.embedded.iter().filter_map(|place| text(self.source.nodes.get(*place)?))
    }
}

/// Returns the text of a node that is embedded: one that is not blank.
pub(super) fn text(node: &Node) -> Option<&str> {
    node.content.text().filter(|text| !text.trim().is_empty())
}

/// Returns the label under which embeddings of a document's passages are cached.
pub(super) fn tag(context: &ContextName, document: &DocumentId) -> Result<Tag, Kind> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(context.as_str().as_bytes()).update(&[0]).update(document.as_str().as_bytes());
    Tag::new(format!("larder.context/{}", hasher.finalize().to_hex()))
}

/// Returns what names a node as the source of facts.
pub(super) fn source_of(node: &NodeId) -> Result<SourceId, Kind> {
    SourceId::new(format!("{SOURCE_PREFIX}{node}"))
}

impl Context {
    /// Returns the documents with everything that is to be told of them, in their order, or why one failed.
    ///
    /// # Errors
    /// When a store fails: then all of them do.
    pub(super) async fn prepare(
        &self,
        sources: Vec<Source>,
        belonging: &Belonging,
    ) -> Result<Vec<Result<Prepared, (Source, String)>>> {
        let mut drafts = Vec::with_capacity(sources.len());
        for source in sources {
            drafts.push(self.draft(source).await?);
        }
        let vectors = self.embed_drafts(&drafts).await?;
        let mut prepared = Vec::with_capacity(drafts.len());
        for (draft, vectors) in drafts.into_iter().zip(vectors) {
            let made = match vectors {
                Ok(vectors) => self.make(&draft, vectors, belonging).await,
                Err(reason) => Err(reason),
            };
            prepared.push(match made {
                Ok((payload, covered, parts)) => {
                    let Source { document, nodes, decision } = draft.source;
                    let put = PutDocument { document, nodes, may_update: true };
                    let Belonging { owner, session } = belonging.clone();
                    let ingest = NewIngest { put, covered, owner, session, payload: parts };
                    Ok(Prepared { ingest, payload, decision })
                }
                Err(reason) => Err((draft.source, reason)),
            });
        }
        Ok(prepared)
    }

    /// Finds out which nodes are new or changed.
    async fn draft(&self, source: Source) -> Result<Draft> {
        let changed: Vec<usize> = if source.decision == IngestionDecision::Update {
            let ids: Vec<NodeId> = source.nodes.iter().map(|node| node.id.clone()).collect();
            let hashes = self.send(GetNodeHashes { ids }).await?;
            let is_changed = |(node, hash): (&Node, &Option<_>)| *hash != Some(node.hash());
            let changes = source.nodes.iter().zip(&hashes).map(is_changed);
            changes.enumerate().filter_map(|(place, is_changed)| is_changed.then_some(place)).collect()
        } else {
            (0..source.nodes.len()).collect()
        };
        let is_embedded = |place: &usize| self.has_point(source.nodes.get(*place));
        let embedded = changed.iter().copied().filter(is_embedded);
        Ok(Draft { embedded: embedded.collect(), changed, source })
    }

    /// Tells whether a node has a point: one with a text, in a context that has vectors.
    fn has_point(&self, node: Option<&Node>) -> bool {
        self.inner.record.has_vectors() && node.and_then(text).is_some()
    }

    /// Embeds all documents together, and where that fails each by itself.
    async fn embed_drafts(&self, drafts: &[Draft]) -> Result<Vec<Result<Vec<Vector>, String>>> {
        let texts: Vec<Vec<&str>> = drafts.iter().map(|draft| draft.texts().collect()).collect();
        let documents: Vec<&DocumentId> = drafts.iter().map(|draft| &draft.source.document.id).collect();
        let all: Vec<(&str, &DocumentId)> =
            texts.iter().zip(&documents).flat_map(|(texts, id)| texts.iter().map(|text| (*text, *id))).collect();
        let failure = match self.embed(&all).await {
            Ok(vectors) => {
                let mut vectors = vectors.into_iter();
                return Ok(texts.iter().map(|texts| Ok(vectors.by_ref().take(texts.len()).collect())).collect());
            }
            Err(error) if is_of_program(&error) => reason(&error),
            Err(error) => return Err(error),
        };
        if let [_] = drafts {
            return Ok(vec![Err(failure)]);
        }
        let alone: Vec<_> = drafts.iter().map(|draft| self.embed_alone(draft)).collect();
        let embedded: Vec<Result<_>> = futures::stream::iter(alone).buffered(ALONE_AT_ONCE).collect().await;
        embedded.into_iter().collect()
    }

    async fn embed_alone(&self, draft: &Draft) -> Result<Result<Vec<Vector>, String>> {
        let id = &draft.source.document.id;
        let texts: Vec<(&str, &DocumentId)> = draft.texts().map(|text| (text, id)).collect();
        match self.embed(&texts).await {
            Ok(vectors) => Ok(Ok(vectors)),
            Err(error) if is_of_program(&error) => Ok(Err(reason(&error))),
            Err(error) => Err(error),
        }
    }

    /// Embeds texts, each for its document: from the cache, or by the embedder.
    async fn embed(&self, texts: &[(&str, &DocumentId)]) -> Result<Vec<Vector>> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let only: Vec<&str> = texts.iter().map(|(text, _)| *text).collect();
        if !self.inner.options.is_cached {
            let vectors = self.compute(&only).await.map_err(|error| self.failed(&*error))?;
            return Ok(vectors.into_iter().map(Vector::new).collect::<Result<_, _>>()?);
        }
        let model = Model::new(&self.inner.record.model)?;
        let mut tags: HashMap<_, Vec<Tag>> = HashMap::new();
        for (text, document) in texts {
            let (tags, tag) = (tags.entry(model.key(*text)).or_default(), tag(&self.inner.name, document)?);
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        let cache = self.inner.larder.embed_cache().deadline(self.inner.options.embed_time_max).tags_by_key(tags);
        cache.get_or_compute_many(&model, only, |missing: Vec<&str>| async move { self.compute(&missing).await }).await
    }

    /// Asks the embedder, in calls of a bounded size and time, and checks what it answers.
    async fn compute(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, BoxError> {
        let embedder = self.embedder()?;
        let mut vectors = Vec::with_capacity(texts.len());
        for some in texts.chunks(self.inner.options.texts_per_call) {
            let computed = self.within_limits("embedder", || embedder.embed(some)).await?;
            if computed.len() != some.len() {
                return Err(format!("the embedder returned {} vectors for {} texts", computed.len(), some.len()).into());
            }
            for vector in computed {
                vectors.push(self.checked(vector)?);
            }
        }
        Ok(vectors)
    }

    /// Returns the vector of a question.
    pub(super) async fn embed_query(&self, question: &str) -> Result<Vector> {
        let embedder = self.embedder()?;
        let compute = async || {
            let vector = self.within_limits("embedder", || embedder.embed_query(question)).await?;
            self.checked(vector)
        };
        if !self.inner.options.is_cached {
            return Ok(Vector::new(compute().await.map_err(|error| self.failed(&*error))?)?);
        }
        // A model may embed questions otherwise than passages.
        let model = Model::new(&self.inner.record.model)?.with_parameters("query")?;
        let cache = self.inner.larder.embed_cache().deadline(self.inner.options.embed_time_max);
        cache.get_or_compute(&model, question, compute).await
    }

    /// Refuses a vector that the collection would.
    fn checked(&self, components: Vec<f32>) -> Result<Vec<f32>, BoxError> {
        let (found, wanted) = (components.len(), self.inner.record.dimensions);
        if found != wanted {
            return Err(format!("the embedder returned a vector of {found} dimensions, not {wanted}").into());
        }
        let vector = Vector::new(components)?;
        if self.inner.record.metric == Metric::Cosine && vector.is_zero() {
            return Err("the embedder returned a vector of zeros, which has no cosine with any other".into());
        }
        Ok(vector.as_slice().to_vec())
    }

    /// Runs a function of the program's: it may panic, or hang.
    async fn within_limits<T, F: Future<Output = Result<T, BoxError>>>(
        &self,
        what: &str,
        function: impl FnOnce() -> F,
    ) -> Result<T, BoxError> {
        let time = self.inner.options.embed_time_max;
        // Both the call and the future may panic.
        let call = AssertUnwindSafe(async move { function().await }).catch_unwind();
        match self.inner.larder.wait_until(after(time), call).await {
            Some(Ok(answer)) => answer,
            Some(Err(_panic)) => Err(format!("the {what} panicked").into()),
            None => Err(format!("the {what} took longer than {time:?}").into()),
        }
    }

    fn failed(&self, error: &(dyn std::error::Error + Send + Sync)) -> Error {
        Kind::Computation { producer: self.inner.record.model.clone(), cause: error.to_string() }.into()
    }

    /// Puts together what is to be told of one document, and in parts as it is kept.
    async fn make(
        &self,
        draft: &Draft,
        vectors: Vec<Vector>,
        belonging: &Belonging,
    ) -> Result<(Payload, Option<Vec<NodeId>>, Vec<bytes::Bytes>), String> {
        let shown = |kind: Kind| kind.to_string();
        let Source { document, nodes, decision } = &draft.source;
        if let Some(owner) = &belonging.owner {
            check_owner(owner).map_err(shown)?;
        }
        let mut points = Vec::with_capacity(vectors.len());
        for (place, vector) in draft.embedded.iter().zip(vectors) {
            let Some(node) = nodes.get(*place) else { continue };
            points.push(self.point(document, node, vector).map_err(shown)?);
        }
        let changed: HashSet<usize> = draft.changed.iter().copied().collect();
        let is_kept = |(place, node): &(usize, &Node)| !changed.contains(place) && self.has_point(Some(node));
        let kept = nodes.iter().enumerate().filter(is_kept);
        let keep = kept.map(|(_, node)| PointId::new(&node.id)).collect::<Result<_, Kind>>().map_err(shown)?;
        let facts = self.facts(draft).await?;
        let payload = Payload { points, keep, facts };
        let parts = payload.encode().map_err(shown)?;
        let covered = (*decision == IngestionDecision::Update)
            .then(|| draft.changed.iter().filter_map(|place| Some(nodes.get(*place)?.id.clone())).collect());
        Ok((payload, covered, parts))
    }

    fn point(&self, document: &Document, node: &Node, vector: Vector) -> Result<Point, Kind> {
        let id = PointId::new(&node.id)?;
        let point =
            Point { id, vector, document: Some(document.id.clone()), metadata: node.metadata.clone(), text: None };
        let (bytes, bytes_max) =
            (point.payload_bytes() as u64, self.inner.larder.settings().vectors.own.payload_bytes_max as u64);
        if bytes > bytes_max {
            return Err(Kind::TooLarge { what: format!("metadata of node {:?}", node.id.as_str()), bytes, bytes_max });
        }
        Ok(point)
    }

    /// Returns what the changed nodes say. Nodes that say nothing any more are among them.
    async fn facts(&self, draft: &Draft) -> Result<Vec<SourceFacts>, String> {
        if !self.inner.record.has_facts {
            return Ok(Vec::new());
        }
        let mut facts = Vec::with_capacity(draft.changed.len());
        for node in draft.changed.iter().filter_map(|place| draft.source.nodes.get(*place)) {
            let relations = match &self.inner.extractor {
                Some(extractor) => {
                    let extracted = self.within_limits("extractor", || extractor.extract(node)).await;
                    let failed = |error: BoxError| format!("facts of node {:?}: {error}", node.id.as_str());
                    let relations = extracted.map_err(failed)?;
                    if relations.len() > FACTS_MAX {
                        return Err(failed(
                            format!("{} of them, at most {FACTS_MAX} are allowed", relations.len()).into(),
                        ));
                    }
                    relations
                        .iter()
                        .try_for_each(|relation| self.check_fact(relation))
                        .map_err(|kind| failed(kind.into()))?;
                    relations
                }
                None => Vec::new(),
            };
            // An id that is too long for a source says nothing, and is no reason to fail.
            if relations.is_empty() && node.id.as_str().len() + SOURCE_PREFIX.len() > SOURCE_ID_BYTES_MAX {
                continue;
            }
            facts.push(SourceFacts { source: source_of(&node.id).map_err(|kind| kind.to_string())?, relations });
        }
        Ok(facts)
    }

    /// Refuses a fact that the graph would.
    fn check_fact(&self, relation: &NewRelation) -> Result<(), Kind> {
        relation.check()?;
        let (bytes, bytes_max) =
            (relation.payload_bytes() as u64, self.inner.larder.settings().graph.own.payload_bytes_max as u64);
        if bytes > bytes_max {
            return Err(Kind::TooLarge { what: format!("relation {:?}", relation.label.as_str()), bytes, bytes_max });
        }
        if relation.properties.as_ref().is_some_and(|properties| !properties.to_value().is_object()) {
            return Err(Kind::invalid("properties of a relation", "they are not a JSON object"));
        }
        Ok(())
    }
}

/// Refuses an owner that the chat store would.
pub(super) fn check_owner(owner: &str) -> Result<(), Kind> {
    if owner.is_empty() || owner.contains('\0') {
        return Err(Kind::invalid("owner", "it is empty, or contains a NUL character"));
    }
    let (bytes, bytes_max) = (owner.len() as u64, OWNER_BYTES_MAX as u64);
    if bytes > bytes_max {
        return Err(Kind::TooLarge { what: "owner".to_owned(), bytes, bytes_max });
    }
    Ok(())
}

/// Whether an error is of the program's functions, and not a store's.
fn is_of_program(error: &Error) -> bool {
    matches!(error.class(), Class::Computation | Class::InvalidInput | Class::Deadline)
}
