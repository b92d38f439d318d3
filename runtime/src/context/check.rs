//! What does not agree between stores, and mending it.
//!
//! Start at [`Context::check`]. What somebody is at work on is left out: it is between two states, and will be finished.

use std::collections::{BTreeSet, HashSet};

use larder_actors::Result;
use larder_protocol::documents::{
    ContextDocument, ContextNode, DamagedIntent, Document, DropDamagedIntents, GetDocumentText, GetNodeHashes,
    IngestionDecision, IntentSubject, ListContextDocuments, ListContextNodes, ListDamagedIntents, ListIntents,
    ListNodes, Node, NodeScope,
};
use larder_protocol::graph::{ListSources, SourceFacts};
use larder_protocol::limits::PAGE_ROWS_MAX;
use larder_protocol::vectors::{DeletePoints, ListPoints, PointFields};
use larder_protocol::{Class, DocumentId, Error as Kind, NodeId, PointId, SourceId};

use super::journal::Committed;
use super::prepare::{Belonging, Prepared, SOURCE_PREFIX, Source, text};
use super::{Context, subjects};

/// Rows that are read at once.
const PAGE_ROWS: usize = 1_000;

/// Something that does not agree between stores.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ContextIssue {
    /// A point whose node is not there, or not in this context.
    OrphanedPoint {
        /// Which.
        point: PointId,
        /// The document that it says it is of.
        document: Option<DocumentId>,
    },
    /// A node with a text that has no point.
    MissingPoint {
        /// Which.
        node: NodeId,
        /// Its document.
        document: DocumentId,
    },
    /// A fact's source is a passage that is not there.
    OrphanedSource {
        /// Which.
        source: SourceId,
    },
    /// A document was put by itself, behind the context's back, so that its points may be of another content.
    ChangedDocument {
        /// Which.
        document: DocumentId,
    },
    /// An intent whose process is dead, or that this process could not finish: a store cannot follow, or what is to be done is
    /// damaged.
    OpenIntent {
        /// About what.
        subject: IntentSubject,
    },
    /// What was begun cannot be known for certain, since its record is damaged.
    DamagedIntent {
        /// About what, as it stands there. `None`: what stands there can be no name.
        subject: Option<IntentSubject>,
    },
}

impl std::fmt::Display for ContextIssue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OrphanedPoint { point, .. } => write!(f, "the point {:?} has no node", point.as_str()),
            Self::MissingPoint { node, document } => {
                write!(f, "the node {:?} of document {:?} has no point", node.as_str(), document.as_str())
            }
            Self::OrphanedSource { source } => write!(f, "the source {:?} of facts is no node", source.as_str()),
            Self::ChangedDocument { document } => {
                write!(f, "the document {:?} was put by itself since it was ingested", document.as_str())
            }
            Self::OpenIntent { subject } => write!(f, "what was begun on {subject} is not finished"),
            Self::DamagedIntent { subject: Some(subject) } => {
                write!(f, "the record of what was begun on {subject} is damaged")
            }
            Self::DamagedIntent { subject: None } => {
                f.write_str("the record of what was begun on something is damaged")
            }
        }
    }
}

impl Context {
    /// Looks for what does not agree between the stores, and changes nothing. Writers go on meanwhile; what they are at work on is
    /// left out.
    ///
    /// It reads every node's id and text and every point's id, about a second for 100,000. Damage within a store is
    /// [`Larder::check`](crate::Larder::check)'s.
    ///
    /// # Errors
    /// When a store cannot be read.
    pub async fn check(&self) -> Result<Vec<ContextIssue>> {
        let found = self.look().await?;
        if found.is_empty() {
            return Ok(found);
        }
        // Stores are read one after the other, and what was changed between is no finding: that is there again the second time.
        let again: HashSet<ContextIssue> = self.look().await?.into_iter().collect();
        Ok(found.into_iter().filter(|issue| again.contains(issue)).collect())
    }

    async fn look(&self) -> Result<Vec<ContextIssue>> {
        let mut issues = BTreeSet::new();
        let before = self.open_subjects().await?;
        self.look_at_points(&mut issues).await?;
        self.look_at_sources(&mut issues).await?;
        self.look_at_documents(&mut issues).await?;
        let after = self.open_subjects().await?;
        let is_at_work = |document: &DocumentId| {
            let subject = IntentSubject::Document(document.clone());
            before.at_work.contains(&subject) || after.at_work.contains(&subject)
        };
        issues.retain(|issue| match issue {
            ContextIssue::OrphanedPoint { document: Some(document), .. }
            | ContextIssue::MissingPoint { document, .. }
            | ContextIssue::ChangedDocument { document } => !is_at_work(document),
            ContextIssue::OrphanedSource { source } => {
                !before.leaving.contains(source.as_str()) && !after.leaving.contains(source.as_str())
            }
            _ => true,
        });
        issues.extend(after.given_up.into_iter().map(|subject| ContextIssue::OpenIntent { subject }));
        let damaged = self.damaged_intents().await?;
        issues.extend(damaged.into_iter().map(|intent| ContextIssue::DamagedIntent { subject: intent.subject }));
        Ok(issues.into_iter().collect())
    }

    /// Merges the context's nodes and the collection's points, both in the order of their ids.
    async fn look_at_points(&self, issues: &mut BTreeSet<ContextIssue>) -> Result<()> {
        if !self.inner.record.has_vectors() {
            return Ok(());
        }
        let (mut nodes, mut points) = (Nodes::new(self), Points::new(self));
        let (mut node, mut point) = (nodes.next().await?, points.next().await?);
        loop {
            let order = match (&node, &point) {
                (None, None) => return Ok(()),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(node), Some((point, _))) => node.id.as_str().cmp(point.as_str()),
            };
            if order.is_lt()
                && let Some(ContextNode { id, document, has_text: true }) = node.take()
            {
                issues.insert(ContextIssue::MissingPoint { node: id, document });
            }
            if order.is_gt()
                && let Some((id, document)) = point.take()
            {
                issues.insert(ContextIssue::OrphanedPoint { point: id, document });
            }
            if order.is_eq()
                && let (Some(ContextNode { has_text: false, .. }), Some((id, document))) = (&node, point.take())
            {
                issues.insert(ContextIssue::OrphanedPoint { point: id, document });
            }
            if order.is_le() {
                node = nodes.next().await?;
            }
            if order.is_ge() {
                point = points.next().await?;
            }
        }
    }

    async fn look_at_sources(&self, issues: &mut BTreeSet<ContextIssue>) -> Result<()> {
        if !self.inner.record.has_facts {
            return Ok(());
        }
        let mut after = None;
        loop {
            let message = ListSources { prefix: SOURCE_PREFIX.to_owned(), after: after.take(), limit: PAGE_ROWS };
            let page = self.send(message).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            let node = |source: &SourceId| NodeId::new(source.as_str().strip_prefix(SOURCE_PREFIX).unwrap_or_default());
            let ids = page.iter().map(node).collect::<Result<Vec<_>, _>>()?;
            let hashes = self.send(GetNodeHashes { ids }).await?;
            let gone = page.into_iter().zip(hashes).filter(|(_, hash)| hash.is_none());
            issues.extend(gone.map(|(source, _)| ContextIssue::OrphanedSource { source }));
        }
    }

    async fn look_at_documents(&self, issues: &mut BTreeSet<ContextIssue>) -> Result<()> {
        let mut after = None;
        loop {
            let page = self.members("", after.take(), PAGE_ROWS).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.document.id.clone());
            let changed = page.into_iter().filter(|member| !member.is_as_ingested);
            issues.extend(changed.map(|member| ContextIssue::ChangedDocument { document: member.document.id }));
        }
    }

    async fn members(&self, prefix: &str, after: Option<DocumentId>, limit: usize) -> Result<Vec<ContextDocument>> {
        let (context, prefix) = (self.inner.name.clone(), prefix.to_owned());
        self.send(ListContextDocuments { context, prefix, owner: None, session: None, after, limit }).await
    }

    async fn open_subjects(&self) -> Result<OpenSubjects> {
        let mut open = OpenSubjects::default();
        let mut after = None;
        loop {
            let page = self.send(ListIntents { context: None, after: after.take(), limit: PAGE_ROWS_MAX }).await?;
            let Some(last) = page.last() else { return Ok(open) };
            after = Some(last.id);
            for intent in page {
                open.leaving.extend(intent.leaving.iter().map(|node| format!("{SOURCE_PREFIX}{node}")));
                // Of another process that lives, or of a task of this one.
                let is_own = intent.context == self.inner.name;
                let is_given_up = intent.is_abandoned
                    || (intent.is_own_process
                        && subjects::try_hold(&self.inner.larder, std::slice::from_ref(&intent.subject)).is_some());
                if is_given_up && is_own {
                    open.given_up.push(intent.subject.clone());
                }
                open.at_work.insert(intent.subject);
            }
        }
    }

    async fn damaged_intents(&self) -> Result<Vec<DamagedIntent>> {
        self.send(ListDamagedIntents { context: self.inner.name.clone(), limit: PAGE_ROWS }).await
    }

    /// Mends what [`check`](Self::check) finds; answers what was found. What was begun is finished, points without a node go,
    /// documents that lack points or were changed are embedded again as they are, and sources that are no node go.
    ///
    /// What was begun and is damaged is done again from the documents as they are stored: from one where it is known which, and
    /// from all of the context where it is not. A forget whose record is damaged is not done; its document is whole again.
    ///
    /// # Errors
    /// As for an ingest and a forget; [`Refused`](Kind::Refused) where something must be embedded and there is no embedder, or facts
    /// must be found and there is no extractor.
    pub async fn repair(&self) -> Result<Vec<ContextIssue>> {
        self.recover().await?;
        let found = self.check().await?;
        self.redo_damaged().await?;
        let mut documents = BTreeSet::new();
        let mut sources = Vec::new();
        for issue in found.iter().cloned() {
            match issue {
                ContextIssue::OrphanedPoint { document: Some(document), .. }
                | ContextIssue::MissingPoint { document, .. }
                | ContextIssue::ChangedDocument { document } => drop(documents.insert(document)),
                ContextIssue::OrphanedPoint { point, document: None } => {
                    let collection = self.inner.record.collection.clone();
                    self.send(DeletePoints { collection, ids: vec![point] }).await?;
                }
                ContextIssue::OrphanedSource { source } => {
                    sources.push(SourceFacts { source, relations: Vec::new() });
                }
                ContextIssue::OpenIntent { subject } => self.redo(subject).await?,
                ContextIssue::DamagedIntent { .. } => {}
            }
        }
        for document in documents {
            self.mend(document).await?;
        }
        self.put_facts(sources).await?;
        Ok(found)
    }

    /// Ingests a document again as it is stored; forgets one that is not in this context.
    async fn mend(&self, id: DocumentId) -> Result<()> {
        let Some(ready) = self.prepare_stored(&id).await? else { return self.forget(&id).await.map(drop) };
        match self.commit(vec![ready]).await?.pop() {
            Some(Committed::Refused(refused)) => Err(refused.into()),
            _ => Ok(()),
        }
    }

    /// Returns everything that is to be told of a document as it is stored; `None`: it is none of this context's.
    ///
    /// # Errors
    /// [`Refused`](Kind::Refused) where there is no embedder, or no extractor: what they say is not to be lost for it.
    pub(super) async fn prepare_stored(&self, id: &DocumentId) -> Result<Option<Prepared>> {
        let found = self.members(id.as_str(), None, 1).await?.into_iter().find(|member| member.document.id == *id);
        let Some(ContextDocument { document: stored, owner, session, .. }) = found else { return Ok(None) };
        let text = self.send(GetDocumentText { id: id.clone() }).await?;
        let document = Document { id: id.clone(), text, fingerprint: stored.fingerprint, metadata: stored.metadata };
        let nodes = self.all_nodes(id).await?;
        if nodes.iter().any(|node| self::text(node).is_some()) {
            self.require_embedder()?;
        }
        if self.inner.record.has_facts && self.inner.extractor.is_none() && !nodes.is_empty() {
            let (what, reason) = (format!("facts of document {:?}", id.as_str()), "it was opened without an extractor");
            return Err(Kind::Refused { what, reason: reason.to_owned() }.into());
        }
        let source = Source { document, nodes, decision: IngestionDecision::Retry };
        match self.prepare(vec![source], &Belonging { owner, session }).await?.pop() {
            Some(Err((_, cause))) => Err(Kind::Computation { producer: self.inner.record.model.clone(), cause }.into()),
            ready => Ok(ready.and_then(Result::ok)),
        }
    }

    /// Does again what damaged records may have been about, which may be any document, and drops them.
    async fn redo_damaged(&self) -> Result<()> {
        let damaged = self.damaged_intents().await?;
        if !damaged.is_empty() {
            let mut after = None;
            loop {
                let page = self.members("", after.take(), PAGE_ROWS).await?;
                let Some(last) = page.last() else { break };
                after = Some(last.document.id.clone());
                for id in page.into_iter().map(|member| member.document.id) {
                    let subject = IntentSubject::Document(id.clone());
                    if damaged.iter().any(|intent| intent.subject.as_ref() == Some(&subject)) {
                        self.redo_unread(id).await?;
                    } else {
                        self.mend(id).await?;
                    }
                }
            }
        }
        // Always: a part of a payload may have lost its intent, and be all that is left of it.
        let ids = damaged.into_iter().map(|intent| intent.id).collect();
        self.send(DropDamagedIntents { ids }).await.map(drop)
    }

    async fn all_nodes(&self, document: &DocumentId) -> Result<Vec<Node>> {
        let (mut nodes, mut after) = (Vec::new(), None);
        loop {
            let scope = NodeScope::Document(document.clone());
            let page = self.send(ListNodes { scope, filter: None, after: after.take(), limit: PAGE_ROWS }).await?;
            nodes.extend(page.nodes.into_iter().map(|stored| stored.node));
            after = page.next;
            if after.is_none() {
                return Ok(nodes);
            }
        }
    }
}

/// What somebody is at work on, in this process or another.
#[derive(Debug, Default)]
struct OpenSubjects {
    at_work: HashSet<IntentSubject>,
    /// Of this context, and nobody is at work on it.
    given_up: Vec<IntentSubject>,
    /// Sources of facts that are on their way out.
    leaving: HashSet<String>,
}

/// The context's nodes, in the order of their ids, a page at a time.
struct Nodes<'a> {
    context: &'a Context,
    page: std::vec::IntoIter<ContextNode>,
    after: Option<NodeId>,
    is_over: bool,
}

impl<'a> Nodes<'a> {
    fn new(context: &'a Context) -> Self {
        Self { context, page: Vec::new().into_iter(), after: None, is_over: false }
    }

    async fn next(&mut self) -> Result<Option<ContextNode>> {
        if self.page.len() == 0 && !self.is_over {
            let context = self.context.inner.name.clone();
            let message = ListContextNodes { context, after: self.after.take(), limit: PAGE_ROWS };
            let page = self.context.send(message).await?;
            self.is_over = page.len() < PAGE_ROWS;
            self.after = page.last().map(|last| last.id.clone());
            self.page = page.into_iter();
        }
        Ok(self.page.next())
    }
}

/// The collection's points with their documents, in the order of their ids, a page at a time.
struct Points<'a> {
    context: &'a Context,
    page: std::vec::IntoIter<(PointId, Option<DocumentId>)>,
    after: Option<PointId>,
    is_over: bool,
}

impl<'a> Points<'a> {
    fn new(context: &'a Context) -> Self {
        Self { context, page: Vec::new().into_iter(), after: None, is_over: false }
    }

    async fn next(&mut self) -> Result<Option<(PointId, Option<DocumentId>)>> {
        if self.page.len() == 0 && !self.is_over {
            let message = ListPoints {
                collection: self.context.inner.record.collection.clone(),
                filter: None,
                document: None,
                fields: PointFields { document: true, ..PointFields::NONE },
                after: self.after.take(),
                limit: PAGE_ROWS,
            };
            let page = match self.context.send(message).await {
                Ok(page) => page,
                // Somebody dropped it: there are none.
                Err(error) if error.class() == Class::NotFound => {
                    self.is_over = true;
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            self.is_over = page.next.is_none();
            self.after = page.next;
            let points = page.points.into_iter().map(|hit| (hit.id, hit.document));
            self.page = points.collect::<Vec<_>>().into_iter();
        }
        Ok(self.page.next())
    }
}
