//! Ingesting sources: plan, make nodes, put, delete what is missing.
//!
//! Start at [`Ingestion::run`].

use std::fmt;

use larder_actors::Result;
use larder_protocol::DocumentId;
use larder_protocol::documents::{
    DeleteMissing, Document, IngestionDecision, IngestionPlan, IngestionStrategy, Node, NodeCounts, PlanIngestion,
};
use larder_protocol::limits::BATCH_ITEMS_MAX;
use larder_protocol::{Error as Kind, Message};

use super::Documents;

/// Sources on their way into the store.
///
/// A crash at any moment leaves each document as it was or as it is to be; run again, it goes on with those that are
/// not done. Sources that are done cost a look at their hash.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use larder::{Document, IngestionStrategy, Node};
///
/// # let larder = larder::Larder::temporary().await?;
/// let sources = [Document::new("a.md")?.with_text("One. Two."), Document::new("b.md")?.with_text("Three.")];
/// let ingestion = larder.documents().ingest(sources).strategy(IngestionStrategy::UpsertAndDeleteMissing);
/// let report = ingestion.run(async |document: &Document| {
///     let text = document.text.as_deref().unwrap_or_default();
///     let pieces = text.split_inclusive('.').enumerate();
///     pieces.map(|(n, piece)| Node::text(format!("{}#{n}", document.id), piece)).collect::<Result<Vec<_>, _>>()
/// });
/// let report = report.await?;
/// assert_eq!((report.inserted, report.nodes.inserted, report.failed.len()), (2, 3, 0));
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is ingested before it is run"]
pub struct Ingestion {
    documents: Documents,
    sources: Vec<Document>,
    strategy: IngestionStrategy,
    prefix: String,
    on_progress: Box<dyn FnMut(&IngestionProgress<'_>) + Send>,
}

impl fmt::Debug for Ingestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sources, strategy, prefix, .. } = self;
        f.debug_struct("Ingestion")
            .field("sources", &sources.len())
            .field("strategy", strategy)
            .field("prefix", prefix)
            .finish_non_exhaustive()
    }
}

/// One source that was looked at.
#[derive(Debug)]
#[non_exhaustive]
pub struct IngestionProgress<'a> {
    /// Which.
    pub document: &'a DocumentId,
    /// What was to be done with it.
    pub decision: &'a IngestionDecision,
    /// Why no nodes could be made of it.
    pub failure: Option<&'a str>,
    /// How many were looked at, this one included.
    pub at: usize,
    /// How many there are.
    pub of: usize,
}

/// What an ingestion did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct IngestionReport {
    /// Documents that were new.
    pub inserted: usize,
    /// Documents that had changed, or were not done.
    pub updated: usize,
    /// Documents that were done.
    pub unchanged: usize,
    /// Sources that were left out as copies.
    pub duplicates: usize,
    /// Documents that went because they are no source any more.
    pub deleted: Vec<DocumentId>,
    /// Sources of which no nodes could be made, and why. They are recorded as failed, and tried again the next time.
    pub failed: Vec<(DocumentId, String)>,
    /// What became of nodes.
    pub nodes: NodeCounts,
}

impl Ingestion {
    pub(super) fn new(documents: Documents, sources: Vec<Document>) -> Self {
        let strategy = IngestionStrategy::default();
        Self { documents, sources, strategy, prefix: String::new(), on_progress: Box::new(|_| {}) }
    }

    /// By which rule. Default [`IngestionStrategy::Upsert`].
    pub fn strategy(mut self, strategy: IngestionStrategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// With [`IngestionStrategy::UpsertAndDeleteMissing`]: only documents whose ids begin so may go.
    pub fn below(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Is told of each source once it is done with.
    pub fn on_progress(mut self, on_progress: impl FnMut(&IngestionProgress<'_>) + Send + 'static) -> Self {
        self.on_progress = Box::new(on_progress);
        self
    }

    /// Makes nodes of each source that is to be ingested, with `transform`, and puts them; one after the other.
    ///
    /// An error of `transform` is recorded with its document, whose earlier nodes stay, and the next source's turn comes.
    /// Documents that are missing go last, and only when every source was looked at.
    ///
    /// # Errors
    /// [`Invalid`](Kind::Invalid) when two sources have the same id or there are more than 100,000; else when the store
    /// refuses or fails: what was put by then stays, and the next run goes on behind it.
    pub async fn run<E: fmt::Display>(
        mut self,
        mut transform: impl AsyncFnMut(&Document) -> Result<Vec<Node>, E>,
    ) -> Result<IngestionReport> {
        let sources = std::mem::take(&mut self.sources);
        check_sources(&sources)?;
        let IngestionPlan { decisions } = self.documents.plan(&sources, self.strategy).await?;
        let mut report = IngestionReport::default();
        let keep: Vec<DocumentId> = sources.iter().map(|source| source.id.clone()).collect();
        for (at, (source, decision)) in sources.into_iter().zip(&decisions).enumerate() {
            let id = source.id.clone();
            let failure = self.ingest(source, decision, &mut transform, &mut report).await?;
            let (failure, of) = (failure.as_deref(), keep.len());
            (self.on_progress)(&IngestionProgress { document: &id, decision, failure, at: at + 1, of });
        }
        if self.strategy == IngestionStrategy::UpsertAndDeleteMissing {
            let message = DeleteMissing { keep, prefix: self.prefix.clone() };
            report.deleted = self.documents.larder.ask(message).await?;
        }
        Ok(report)
    }

    /// Does what is to be done with one source; answers why it failed, if it did.
    async fn ingest<E: fmt::Display>(
        &self,
        source: Document,
        decision: &IngestionDecision,
        transform: &mut impl AsyncFnMut(&Document) -> Result<Vec<Node>, E>,
        report: &mut IngestionReport,
    ) -> Result<Option<String>> {
        match decision {
            IngestionDecision::Unchanged => report.unchanged += 1,
            IngestionDecision::Duplicate(_) => report.duplicates += 1,
            IngestionDecision::Insert | IngestionDecision::Update | IngestionDecision::Retry => {
                let nodes = match transform(&source).await {
                    Ok(nodes) => nodes,
                    Err(error) => {
                        let reason = error.to_string();
                        self.documents.mark_failed(&source, reason.as_str()).await?;
                        report.failed.push((source.id, reason.clone()));
                        return Ok(Some(reason));
                    }
                };
                let outcome = self.documents.put(source, nodes).await?;
                match decision {
                    IngestionDecision::Insert => report.inserted += 1,
                    _ => report.updated += 1,
                }
                let (sum, new) = (&mut report.nodes, outcome.nodes);
                sum.inserted += new.inserted;
                sum.updated += new.updated;
                sum.unchanged += new.unchanged;
                sum.deleted += new.deleted;
            }
        }
        Ok(None)
    }
}

fn check_sources(sources: &[Document]) -> Result<(), Kind> {
    if sources.len() > BATCH_ITEMS_MAX {
        let reason = format!("{} sources, at most {BATCH_ITEMS_MAX} are allowed", sources.len());
        return Err(Kind::invalid(PlanIngestion::NAME, reason));
    }
    let mut ids = std::collections::HashSet::new();
    match sources.iter().find(|source| !ids.insert(source.id.as_str())) {
        None => Ok(()),
        Some(twice) => {
            let reason = format!("the id {:?} stands twice among the sources", twice.id.as_str());
            Err(Kind::invalid(PlanIngestion::NAME, reason))
        }
    }
}
