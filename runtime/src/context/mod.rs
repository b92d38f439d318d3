//! Contexts: documents kept together with their embeddings, facts and caches, over all stores.
//!
//! Start at [`Context`]. What is to be embedded is found out in `prepare`; how several files change as one stands in `journal`,
//! and what an intent holds in `payload`. Then `ingestion`, `forget`, `retrieve` and `check`.
//!
//! Always true: the documents store decides. One commit there says that something will be done, and from then on it is done in
//! the other stores, again and again if need be, by whoever opens the context next; before it nothing was. No point is found
//! whose document is gone: an ingest puts the document first, a forget deletes it last.

mod builder;
mod check;
mod embedder;
mod forget;
mod ingestion;
mod journal;
mod payload;
mod prepare;
mod record;
mod recover;
mod retrieve;
mod simple;
mod subjects;
mod words;

use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_actors::store::Ask;
use larder_actors::{Error, Result};
use larder_protocol::documents::{Document, DocumentOutcome, Node};
use larder_protocol::{ContextName, Error as Kind, RequestOptions, StoreName, Written};

pub use builder::ContextBuilder;
pub use check::ContextIssue;
use embedder::{AnyEmbedder, AnyExtractor};
pub use embedder::{BoxError, Embedder, Extractor};
pub use forget::ForgetReceipt;
pub use ingestion::{ContextIngestion, ContextProgress, ContextReport, IngestOutcome};
use record::Record;
pub(crate) use record::names;
pub use retrieve::{Passage, Reason, Retrieval, Retrieve};
pub use simple::HashingEmbedder;
pub(crate) use subjects::Subjects;

use crate::larder::Larder;
use crate::stores::Hosted;

/// How long one message to a store may take: its callers wait for what was begun to be over.
const MESSAGE_TIME_MAX: Duration = Duration::from_secs(60);

/// Documents together with what other stores hold of them: embeddings, facts, cached values. Cheap to clone.
///
/// What is ingested is everywhere or nowhere, whatever happens meanwhile: after a crash the next opening finishes what was
/// begun. Several processes may work on one context.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use larder::{Document, HashingEmbedder, Node};
///
/// # let larder = larder::Larder::temporary().await?;
/// // A real model goes in by the trait `Embedder`; this one only hashes words.
/// let notes = larder.context("notes").embedder(HashingEmbedder::default()).open().await?;
/// let files = [
///     Document::new("cats.md")?.with_text("Cats sleep a lot. They purr."),
///     Document::new("tea.md")?.with_text("Tea is a drink."),
/// ];
/// let sentences = |file: &Document| {
///     let text = file.text.clone().unwrap_or_default();
///     text.split_inclusive('.').enumerate().map(|(n, part)| Node::text(format!("{}#{n}", file.id), part.trim())).collect::<Result<Vec<_>, _>>()
/// };
/// let report = notes.ingest(files.clone()).run(sentences).await?;
/// assert_eq!((report.inserted, report.nodes.inserted), (2, 3));
/// assert_eq!(notes.ingest(files).run(sentences).await?.unchanged, 2); // costs a look at their hashes
///
/// let found = notes.retrieve("which animals purr?").k(2).await?;
/// assert_eq!(found.passages[0].node.id.as_str(), "cats.md#1");
/// assert_eq!(notes.forget("cats.md").await?.points, 2);
/// assert!(notes.check().await?.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Context {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    larder: Larder,
    name: ContextName,
    record: Record,
    embedder: Option<Arc<dyn AnyEmbedder>>,
    extractor: Option<Arc<dyn AnyExtractor>>,
    options: Options,
}

/// What a program may set.
#[derive(Debug, Clone, Copy)]
struct Options {
    is_cached: bool,
    embed_time_max: Duration,
    texts_per_call: usize,
    wait_max: Duration,
}

impl Default for Options {
    fn default() -> Self {
        let time = Duration::from_secs(60);
        Self { is_cached: true, embed_time_max: time, texts_per_call: 256, wait_max: time }
    }
}

impl Context {
    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &ContextName {
        &self.inner.name
    }

    /// Returns the larder that it is in.
    #[must_use]
    pub fn larder(&self) -> &Larder {
        &self.inner.larder
    }

    /// Ingests one document with these nodes, in their order: its text and theirs, their embeddings and facts.
    ///
    /// # Errors
    /// [`Computation`](Kind::Computation) when the embedder or the extractor fails, and the store's own when it refuses the
    /// document: nothing has changed then, but that the document is marked as failed. [`Unfinished`](Kind::Unfinished) when it is
    /// committed and another store cannot follow now: it is finished by the next call for this document,
    /// [`recover`](Self::recover), or the next opening. [`Refused`](Kind::Refused) where the context has no embedder.
    pub async fn put(&self, document: Document, nodes: impl IntoIterator<Item = Node>) -> Result<DocumentOutcome> {
        ingestion::put(self, document, nodes.into_iter().collect()).await
    }

    async fn send<M: Ask<Store: Hosted>>(&self, message: M) -> Result<M::Reply> {
        let options = RequestOptions { deadline: Some(MESSAGE_TIME_MAX), ..RequestOptions::default() };
        self.inner.larder.send(message, options).await
    }

    /// Runs what must not be left half way in a task of the runtime's.
    async fn in_task<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        let over = || Kind::ShuttingDown { store: StoreName::Documents, written: Written::Unknown }.into();
        self.inner.larder.in_task(work).await.unwrap_or_else(|| Err(over()))
    }

    /// Refuses to work on texts that cannot be embedded and should be.
    fn require_embedder(&self) -> Result<(), Kind> {
        if self.inner.record.has_vectors() { self.embedder().map(drop) } else { Ok(()) }
    }

    fn embedder(&self) -> Result<&Arc<dyn AnyEmbedder>, Kind> {
        self.inner.embedder.as_ref().ok_or_else(|| Kind::Refused {
            what: format!("context {:?}", self.inner.name.as_str()),
            reason: "it was opened without an embedder".to_owned(),
        })
    }
}

/// Returns the moment after a time, however long.
fn after(time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(time).unwrap_or(now + Duration::from_secs(365 * 24 * 3600))
}

/// Returns an error with its cause, as a sentence to be kept.
fn reason(error: &Error) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
