//! Opening a context.

use std::sync::Arc;
use std::time::Duration;

use larder_actors::Result;
use larder_protocol::vectors::Metric;
use larder_protocol::{CollectionName, ContextName, Error as Kind};

use super::embedder::{AnyEmbedder, AnyExtractor, Embedder, Extractor};
use super::record::Record;
use super::{Context, Inner, Options};
use crate::larder::Larder;

/// A context to be opened.
#[derive(Debug, Clone)]
#[must_use = "a context is only made or found when it is opened"]
pub struct ContextBuilder {
    larder: Larder,
    name: Result<ContextName, Kind>,
    collection: Option<Result<CollectionName, Kind>>,
    metric: Option<Metric>,
    has_vectors: bool,
    embedder: Option<Arc<dyn AnyEmbedder>>,
    extractor: Option<Arc<dyn AnyExtractor>>,
    options: Options,
}

impl ContextBuilder {
    pub(crate) fn new(larder: Larder, name: &str) -> Self {
        Self {
            larder,
            name: ContextName::new(name),
            collection: None,
            metric: None,
            has_vectors: true,
            embedder: None,
            extractor: None,
            options: Options::default(),
        }
    }

    /// Sets the model that embeds passages and questions. The first opening binds the context to it.
    ///
    /// Without one a context that is there can be opened to retrieve by words and facts, to forget, and to be checked. One that is to
    /// have no vectors is opened [`without_vectors`](Self::without_vectors).
    pub fn embedder(mut self, embedder: impl Embedder) -> Self {
        self.embedder = Some(Arc::new(embedder));
        self
    }

    /// Keeps no vectors: passages are found by their words, and by facts where there is an extractor. The first opening decides it.
    pub fn without_vectors(mut self) -> Self {
        self.has_vectors = false;
        self
    }

    /// Sets what finds facts in passages. Default: no facts are kept.
    pub fn extractor(mut self, extractor: impl Extractor) -> Self {
        self.extractor = Some(Arc::new(extractor));
        self
    }

    /// Names the vectors' collection. Default: the context's own name. Fixed by the first opening.
    pub fn collection(mut self, name: impl AsRef<str>) -> Self {
        self.collection = Some(CollectionName::new(name));
        self
    }

    /// Sets how vectors are compared. Default for a new context: [`Metric::Cosine`]. Fixed by the first opening.
    pub fn metric(mut self, metric: Metric) -> Self {
        self.metric = Some(metric);
        self
    }

    /// Does not keep embeddings in the cache: for embedders that cost less than a look there. Default: they are kept.
    pub fn uncached(mut self) -> Self {
        self.options.is_cached = false;
        self
    }

    /// How long one call of the embedder or the extractor may take, before its documents fail. Default 60 s.
    pub fn embed_time_max(mut self, time: Duration) -> Self {
        self.options.embed_time_max = time;
        self
    }

    /// Most texts in one call of the embedder, 1 or more. Default 256.
    pub fn texts_per_call(mut self, texts: usize) -> Self {
        self.options.texts_per_call = texts.max(1);
        self
    }

    /// How long to wait for another process, or task, that is at work on the same document. Default 60 s.
    pub fn wait_max(mut self, time: Duration) -> Self {
        self.options.wait_max = time;
        self
    }

    /// Opens the context, making it where it is not there, and finishes what a process that died had begun.
    ///
    /// After a power cut under a store that is relaxed, stores may disagree beyond that: [`repair`](Context::repair) mends it. So it
    /// does where the record of what was begun is damaged, which keeps no context from being opened.
    ///
    /// # Errors
    /// [`Conflict`](Kind::Conflict) when the context is there with another model, other dimensions, another metric or another
    /// collection, or with vectors and opened without, or the other way round; [`NotFound`](Kind::NotFound) when it is not there and
    /// there is no embedder; [`Invalid`](Kind::Invalid) when a name cannot be used, or with an embedder, a collection or a metric for
    /// no vectors; or when a store cannot be started, or not be told what is to be finished.
    pub async fn open(self) -> Result<Context> {
        let Self { larder, name, collection, metric, has_vectors, embedder, extractor, options } = self;
        let name = name?;
        let found = Record::load(&larder, &name).await?;
        let own = || CollectionName::new(name.as_str());
        let record = match (&embedder, found) {
            (Some(_), _) if !has_vectors => {
                return Err(Kind::invalid("embedder", "a context without vectors has none").into());
            }
            _ if !has_vectors && (collection.is_some() || metric.is_some()) => {
                return Err(
                    Kind::invalid("context", "one without vectors has neither a collection nor a metric").into()
                );
            }
            (None, found) if !has_vectors => {
                let has_facts = found.as_ref().is_some_and(|found| found.has_facts) || extractor.is_some();
                let collection = found.as_ref().map_or_else(own, |found| Ok(found.collection.clone()))?;
                let wanted = Record { has_facts, ..Record::without_vectors(collection) };
                if let Some(found) = &found {
                    found.require(&name, &wanted)?;
                }
                wanted
            }
            (None, None) => {
                return Err(Kind::NotFound { what: format!("context {:?}", name.as_str()) }.into());
            }
            (None, Some(found)) => Record { has_facts: found.has_facts || extractor.is_some(), ..found },
            (Some(embedder), _) if embedder.dimensions() == 0 => {
                return Err(Kind::invalid("embedder", "its vectors have no dimensions").into());
            }
            (Some(embedder), found) => {
                let bound = found.as_ref().map(|found| found.collection.clone());
                let wanted = Record {
                    collection: collection.transpose()?.or(bound).map_or_else(own, Ok)?,
                    dimensions: embedder.dimensions(),
                    metric: metric.or(found.as_ref().map(|found| found.metric)).unwrap_or_default(),
                    model: embedder.model().to_owned(),
                    has_facts: found.as_ref().is_some_and(|found| found.has_facts) || extractor.is_some(),
                };
                if let Some(found) = &found {
                    found.require(&name, &wanted)?;
                }
                wanted
            }
        };
        // First, since it refuses dimensions that cannot be.
        record.open_collection(&larder).await?;
        record.store(&larder, &name).await?;
        let context = Context { inner: Arc::new(Inner { larder, name, record, embedder, extractor, options }) };
        context.recover().await?;
        Ok(context)
    }
}
