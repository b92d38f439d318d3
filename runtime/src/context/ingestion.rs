//! Ingesting many documents: plan, make nodes, embed, commit, and follow, with bounded work at once.
//!
//! Start at [`ContextIngestion::run`]. Sources are taken as there is room; documents share embedder calls and commits.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use futures::stream::{BoxStream, FuturesUnordered};
use futures::{FutureExt, StreamExt};
use larder_actors::Result;
use larder_protocol::documents::{
    Document, DocumentOutcome, IngestionDecision, IngestionMark, IngestionPlan, ListContextDocuments, MarkIngestion,
    Node, NodeCounts, PlanContext, UpsertOutcome,
};
use larder_protocol::{DocumentId, Error as Kind, SessionId};

use super::journal::Committed;
use super::prepare::{Belonging, Prepared, Source, check_owner};
use super::{Context, ForgetReceipt};

/// Documents that are taken at once, if they are there.
const PAGE_DOCUMENTS: usize = 256;
/// Bytes of documents after which no more are taken at once.
const PAGE_BYTES: usize = 4 << 20;
/// Nodes after which no more documents join a commit.
const BATCH_NODES: usize = 1_024;
/// Bytes of nodes after which no more documents join a commit.
const BATCH_BYTES: usize = 4 << 20;
/// Pages at work at once, by default.
const CONCURRENCY: usize = 4;
/// How often a document that others change meanwhile is prepared anew.
const ATTEMPTS: usize = 4;

/// Documents on their way into a context.
///
/// A crash at any moment leaves each document as it was or as it is to be, in every store; run again, it goes on with those that
/// are not done. Documents whose content is as it was cost a look at their hash.
#[must_use = "nothing is ingested before it is run"]
pub struct ContextIngestion<'a> {
    context: Context,
    sources: BoxStream<'a, Document>,
    belonging: Belonging,
    missing_below: Option<String>,
    concurrency: usize,
    on_progress: Box<dyn FnMut(&ContextProgress<'_>) + Send + 'a>,
}

impl fmt::Debug for ContextIngestion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { context, belonging, missing_below, concurrency, .. } = self;
        f.debug_struct("ContextIngestion")
            .field("context", &context.inner.name)
            .field("belonging", belonging)
            .field("missing_below", missing_below)
            .field("concurrency", concurrency)
            .finish_non_exhaustive()
    }
}

/// What became of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum IngestOutcome {
    /// It is new, and in every store.
    Inserted,
    /// It has changed, or was not done, and is in every store.
    Updated,
    /// It is as it was.
    Unchanged,
    /// It could not be ingested, and is as it was, marked with this reason.
    Failed(String),
}

/// One document that is done with.
#[derive(Debug)]
#[non_exhaustive]
pub struct ContextProgress<'a> {
    /// Which.
    pub document: &'a DocumentId,
    /// What became of it.
    pub outcome: &'a IngestOutcome,
    /// What became of its nodes.
    pub nodes: NodeCounts,
    /// How many documents are done with, this one included.
    pub documents_done: u64,
    /// How many nodes they had in all that were put or kept.
    pub nodes_done: u64,
}

/// What an ingestion did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ContextReport {
    /// Documents that were new.
    pub inserted: u64,
    /// Documents that had changed, or were not done.
    pub updated: u64,
    /// Documents that were as they are.
    pub unchanged: u64,
    /// Documents that could not be ingested, and why. They are recorded as failed, and tried again the next time.
    pub failed: Vec<(DocumentId, String)>,
    /// What became of nodes of documents that were put.
    pub nodes: NodeCounts,
    /// Documents that went since they are no source any more, and what went with them.
    pub forgotten: ForgetReceipt,
}

/// What an ingestion has come to, and who is told.
struct Tally<'a> {
    report: ContextReport,
    on_progress: Box<dyn FnMut(&ContextProgress<'_>) + Send + 'a>,
}

impl Tally<'_> {
    fn note(&mut self, document: &DocumentId, outcome: &IngestOutcome, nodes: NodeCounts) {
        let report = &mut self.report;
        match outcome {
            IngestOutcome::Inserted => report.inserted += 1,
            IngestOutcome::Updated => report.updated += 1,
            IngestOutcome::Unchanged => report.unchanged += 1,
            IngestOutcome::Failed(reason) => report.failed.push((document.clone(), reason.clone())),
        }
        let sum = &mut report.nodes;
        sum.inserted += nodes.inserted;
        sum.updated += nodes.updated;
        sum.unchanged += nodes.unchanged;
        sum.deleted += nodes.deleted;
        let documents_done = report.inserted + report.updated + report.unchanged + report.failed.len() as u64;
        let nodes_done = report.nodes.inserted + report.nodes.updated + report.nodes.unchanged;
        (self.on_progress)(&ContextProgress { document, outcome, nodes, documents_done, nodes_done });
    }
}

impl Context {
    /// Ingests documents, taken from the iterator as there is room. See [`ContextIngestion`].
    pub fn ingest<'a, I>(&self, sources: I) -> ContextIngestion<'a>
    where
        I: IntoIterator<Item = Document>,
        I::IntoIter: Send + 'a,
    {
        self.ingest_stream(futures::stream::iter(sources))
    }

    /// Ingests documents, taken from the stream as there is room. See [`ContextIngestion`].
    pub fn ingest_stream<'a>(
        &self,
        sources: impl futures::Stream<Item = Document> + Send + 'a,
    ) -> ContextIngestion<'a> {
        ContextIngestion {
            context: self.clone(),
            sources: sources.boxed(),
            belonging: Belonging::default(),
            missing_below: None,
            concurrency: CONCURRENCY,
            on_progress: Box::new(|_| {}),
        }
    }
}

impl<'a> ContextIngestion<'a> {
    /// Whose the documents are: [`forget_owner`](Context::forget_owner) forgets them by it.
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.belonging.owner = Some(owner.into());
        self
    }

    /// In which conversation they came: [`forget_session`](Context::forget_session) forgets them by it.
    pub fn session(mut self, session: SessionId) -> Self {
        self.belonging.session = Some(session);
        self
    }

    /// Forgets documents of the context whose ids begin so and that are no source any more, once every source was looked at.
    /// Empty: all. The ids of all sources are held in memory for it.
    pub fn forget_missing(mut self, prefix: impl Into<String>) -> Self {
        self.missing_below = Some(prefix.into());
        self
    }

    /// How many pages, each of up to 256 documents, are worked on at once: 1 or more. Default 4. Higher: more memory, and more
    /// calls of the embedder at once.
    pub fn concurrency(mut self, pages: usize) -> Self {
        self.concurrency = pages.max(1);
        self
    }

    /// Is told of each document once it is done with.
    pub fn on_progress(mut self, on_progress: impl FnMut(&ContextProgress<'_>) + Send + 'a) -> Self {
        self.on_progress = Box::new(on_progress);
        self
    }

    /// Makes nodes of each document that is new or changed, with `transform`, and ingests them. `transform` runs on the caller's
    /// thread, between what waits.
    ///
    /// What `transform`, the embedder or the extractor fails for, and what the store refuses, is recorded with its document, whose
    /// earlier content stays, and the others go on. If the future is dropped, documents that are committed are still finished.
    ///
    /// # Errors
    /// When a store fails, with what it failed with; [`Unfinished`](Kind::Unfinished) when documents are committed and another store
    /// cannot follow. No further document is taken then; what was done by then stays, and the next run goes on behind it.
    pub async fn run<E: fmt::Display>(
        self,
        transform: impl Fn(&Document) -> Result<Vec<Node>, E>,
    ) -> Result<ContextReport> {
        let Self { context, mut sources, belonging, missing_below, concurrency, on_progress } = self;
        if let Some(owner) = &belonging.owner {
            check_owner(owner)?;
        }
        context.require_embedder()?;
        let tally = Mutex::new(Tally { report: ContextReport::default(), on_progress });
        let mut seen = HashSet::new();
        let mut in_flight: HashSet<DocumentId> = HashSet::new();
        let mut at_work = FuturesUnordered::new();
        let mut next = None;
        let mut failure = None;
        loop {
            let page = if failure.is_none() && at_work.len() < concurrency {
                take_page(&mut sources, &mut next, &in_flight, at_work.is_empty()).await
            } else {
                Vec::new()
            };
            if page.is_empty() {
                let Some((ids, done)) = at_work.next().await else { break };
                let ids: Vec<DocumentId> = ids;
                for id in &ids {
                    in_flight.remove(id);
                }
                failure = failure.or(Result::err(done));
                continue;
            }
            let ids: Vec<DocumentId> = page.iter().map(|document| document.id.clone()).collect();
            in_flight.extend(ids.iter().cloned());
            if missing_below.is_some() {
                seen.extend(ids.iter().cloned());
            }
            let work = ingest_page(&context, page, &transform, &belonging, &tally);
            at_work.push(work.map(|done| (ids, done)));
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        drop(at_work);
        let mut report = tally.into_inner().unwrap_or_else(PoisonError::into_inner).report;
        if let Some(prefix) = missing_below {
            report.forgotten = context.forget_missing(prefix, &seen).await?;
        }
        Ok(report)
    }
}

/// Takes as many documents as belong into one page: those that are there, but for one that is being worked on. Waits for the
/// first if there is nothing else to wait for; an empty page says that there is nothing to do for now.
async fn take_page(
    sources: &mut BoxStream<'_, Document>,
    next: &mut Option<Document>,
    in_flight: &HashSet<DocumentId>,
    may_wait: bool,
) -> Vec<Document> {
    let (mut page, mut ids, mut bytes) = (Vec::<Document>::new(), HashSet::new(), 0);
    while page.len() < PAGE_DOCUMENTS && bytes < PAGE_BYTES {
        let taken = match next.take() {
            Some(document) => Some(document),
            None if page.is_empty() && may_wait => sources.next().await,
            None => sources.next().now_or_never().flatten(),
        };
        let Some(document) = taken else { break };
        // It comes again: its turn is once the first is done.
        if in_flight.contains(&document.id) || !ids.insert(document.id.clone()) {
            *next = Some(document);
            break;
        }
        bytes += document.size_bytes();
        page.push(document);
    }
    page
}

async fn ingest_page<E: fmt::Display>(
    context: &Context,
    page: Vec<Document>,
    transform: &impl Fn(&Document) -> Result<Vec<Node>, E>,
    belonging: &Belonging,
    tally: &Mutex<Tally<'_>>,
) -> Result<()> {
    let decisions = plan(context, &page, belonging).await?;
    let (mut batch, mut nodes_count, mut bytes) = (Vec::new(), 0, 0);
    for (document, decision) in page.into_iter().zip(decisions) {
        if !decision.is_to_ingest() {
            note(tally, &document.id, &IngestOutcome::Unchanged, NodeCounts::default());
            continue;
        }
        match transform(&document) {
            Ok(nodes) => {
                let size = document.size_bytes() + nodes.iter().map(Node::size_bytes).sum::<usize>();
                if !batch.is_empty() && (nodes_count + nodes.len() > BATCH_NODES || bytes + size > BATCH_BYTES) {
                    ingest_batch(context, std::mem::take(&mut batch), belonging, tally).await?;
                    (nodes_count, bytes) = (0, 0);
                }
                nodes_count += nodes.len();
                bytes += size;
                batch.push(Source { document, nodes, decision });
            }
            Err(error) => fail(context, &document, &error.to_string(), tally).await?,
        }
    }
    ingest_batch(context, batch, belonging, tally).await
}

async fn plan(context: &Context, page: &[Document], belonging: &Belonging) -> Result<Vec<IngestionDecision>> {
    let sources = page.iter().map(|document| (document.id.clone(), document.hash())).collect();
    let Belonging { owner, session } = belonging.clone();
    let message = PlanContext { context: context.inner.name.clone(), owner, session, sources };
    let IngestionPlan { decisions } = context.send(message).await?;
    Ok(decisions)
}

async fn ingest_batch(
    context: &Context,
    mut sources: Vec<Source>,
    belonging: &Belonging,
    tally: &Mutex<Tally<'_>>,
) -> Result<()> {
    for attempt in 1..=ATTEMPTS {
        if sources.is_empty() {
            return Ok(());
        }
        let mut ready: Vec<Prepared> = Vec::with_capacity(sources.len());
        for prepared in context.prepare(std::mem::take(&mut sources), belonging).await? {
            match prepared {
                Ok(prepared) => ready.push(prepared),
                Err((source, reason)) => fail(context, &source.document, &reason, tally).await?,
            }
        }
        let documents: Vec<Document> = ready.iter().map(|ready| ready.ingest.put.document.clone()).collect();
        let decisions: Vec<IngestionDecision> = ready.iter().map(|ready| ready.decision.clone()).collect();
        let committed = context.commit(ready).await?;
        for ((document, decision), committed) in documents.into_iter().zip(decisions).zip(committed) {
            match committed {
                Committed::Done(DocumentOutcome { outcome, nodes }) => {
                    let is_new = outcome == UpsertOutcome::Inserted && decision == IngestionDecision::Insert;
                    let outcome = if is_new { IngestOutcome::Inserted } else { IngestOutcome::Updated };
                    note(tally, &document.id, &outcome, nodes);
                }
                // It is somebody else's, and not marked as failed for that.
                Committed::Refused(refused @ Kind::Conflict { .. }) => {
                    let outcome = IngestOutcome::Failed(refused.to_string());
                    note(tally, &document.id, &outcome, NodeCounts::default());
                }
                Committed::Refused(refused) => fail(context, &document, &refused.to_string(), tally).await?,
                Committed::Outdated(_) if attempt == ATTEMPTS => {
                    fail(context, &document, "others changed it all the while", tally).await?;
                }
                Committed::Outdated(prepared) => sources.push(prepared.into_source()),
            }
        }
    }
    Ok(())
}

fn note(tally: &Mutex<Tally<'_>>, document: &DocumentId, outcome: &IngestOutcome, nodes: NodeCounts) {
    tally.lock().unwrap_or_else(PoisonError::into_inner).note(document, outcome, nodes);
}

/// Records that a document could not be ingested.
async fn fail(context: &Context, document: &Document, reason: &str, tally: &Mutex<Tally<'_>>) -> Result<()> {
    mark_failed(context, document, reason).await?;
    note(tally, &document.id, &IngestOutcome::Failed(reason.to_owned()), NodeCounts::default());
    Ok(())
}

async fn mark_failed(context: &Context, document: &Document, reason: &str) -> Result<()> {
    let mark = IngestionMark::Failed { reason: reason.to_owned() };
    context.send(MarkIngestion { document: document.id.clone(), hash: document.hash(), mark }).await.map(drop)
}

/// Ingests one document, whose failure is an error.
pub(super) async fn put(context: &Context, document: Document, nodes: Vec<Node>) -> Result<DocumentOutcome> {
    context.require_embedder()?;
    let belonging = Belonging::default();
    let decision = plan(context, std::slice::from_ref(&document), &belonging).await?.pop();
    let decision = decision.unwrap_or(IngestionDecision::Retry);
    if decision == IngestionDecision::Unchanged {
        let nodes = NodeCounts { unchanged: nodes.len() as u64, ..NodeCounts::default() };
        return Ok(DocumentOutcome { outcome: UpsertOutcome::Unchanged, nodes });
    }
    let mut source = Source { document, nodes, decision };
    for _ in 0..ATTEMPTS {
        let ready = match context.prepare(vec![source], &belonging).await?.pop() {
            Some(Ok(ready)) => ready,
            Some(Err((source, cause))) => {
                mark_failed(context, &source.document, &cause).await?;
                return Err(Kind::Computation { producer: context.inner.record.model.clone(), cause }.into());
            }
            None => break,
        };
        match context.commit(vec![ready]).await?.pop() {
            Some(Committed::Done(outcome)) => return Ok(outcome),
            Some(Committed::Refused(refused)) => return Err(refused.into()),
            Some(Committed::Outdated(prepared)) => source = prepared.into_source(),
            None => break,
        }
    }
    let (expected, found) = ("the document as it was looked at".to_owned(), "another, time and again".to_owned());
    Err(Kind::Conflict { what: "document".to_owned(), expected, found }.into())
}

impl Context {
    /// Forgets documents that are no source any more.
    async fn forget_missing(&self, prefix: String, seen: &HashSet<DocumentId>) -> Result<ForgetReceipt> {
        let (mut missing, mut after) = (Vec::new(), None);
        loop {
            let message = ListContextDocuments {
                context: self.inner.name.clone(),
                prefix: prefix.clone(),
                owner: None,
                session: None,
                after: after.take(),
                limit: PAGE_DOCUMENTS,
            };
            let page = self.send(message).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.document.id.clone());
            missing.extend(page.into_iter().map(|member| member.document.id).filter(|id| !seen.contains(id)));
        }
        self.forget_documents(missing).await
    }
}
