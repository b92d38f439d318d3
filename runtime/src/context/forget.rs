//! Forgetting: a document, a conversation or an owner, in every store.
//!
//! Start at [`Context::forget`]. Other stores forget first, and the documents store last, so that nothing points to what is gone.

use futures::{StreamExt, TryStreamExt};
use larder_actors::Result;
use larder_protocol::chat::{DeleteSession, ListSessions};
use larder_protocol::documents::{
    BeginForgets, Beginning, BegunIntent, IntentSubject, ListContextDocuments, ListNodes, NodeCursor, NodeScope,
};
use larder_protocol::embed_cache::CacheKey;
use larder_protocol::graph::SourceFacts;
use larder_protocol::vectors::DeletePointsByDocument;
use larder_protocol::{Class, ContextName, DocumentId, SessionId, StoreName};

use super::Context;
use super::journal::{OnDamage, Patience, Target, unfinished};
use super::prepare::{check_owner, source_of, tag, text};
use crate::handles::embed_cache::Model;

/// Nodes, documents and sessions that are read at once.
const PAGE_ROWS: usize = 256;
/// Documents that are forgotten at once, so that they share their commits.
const AT_ONCE: usize = 32;

/// What went, by store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ForgetReceipt {
    /// Documents that were there.
    pub documents: u64,
    /// Their nodes.
    pub nodes: u64,
    /// Their points in the vectors' collection.
    pub points: u64,
    /// Facts that nothing else says.
    pub facts: u64,
    /// Facts that others still say, and that lost a source.
    pub facts_kept: u64,
    /// Cached embeddings.
    pub embeddings: u64,
    /// Conversations.
    pub sessions: u64,
}

impl ForgetReceipt {
    fn add(&mut self, other: Self) {
        self.documents += other.documents;
        self.nodes += other.nodes;
        self.points += other.points;
        self.facts += other.facts;
        self.facts_kept += other.facts_kept;
        self.embeddings += other.embeddings;
        self.sessions += other.sessions;
    }
}

impl Context {
    /// Forgets a document: its nodes, points, facts that nothing else says, and cached embeddings. Answers what went; of one that
    /// is not there nothing goes.
    ///
    /// Embeddings of texts that another document holds, too, are computed again when they are next needed.
    ///
    /// # Errors
    /// [`Conflict`](larder_protocol::Error::Conflict) when it is another context's;
    /// [`Unfinished`](larder_protocol::Error::Unfinished) when it is decided and a store cannot follow now: it is finished by the next call for this document, [`recover`](Self::recover), or the next opening.
    pub async fn forget(&self, document: impl AsRef<str>) -> Result<ForgetReceipt> {
        let document = DocumentId::new(document)?;
        self.forget_in_task(IntentSubject::Document(document)).await
    }

    /// Forgets a conversation with its messages, and the documents of this context that were ingested in it.
    ///
    /// # Errors
    /// As [`forget`](Self::forget).
    pub async fn forget_session(&self, session: impl AsRef<str>) -> Result<ForgetReceipt> {
        let session = SessionId::new(session)?;
        self.forget_in_task(IntentSubject::Session(session)).await
    }

    /// Forgets an owner: all conversations, and the documents of this context that were ingested as the owner's.
    ///
    /// # Errors
    /// As [`forget`](Self::forget).
    pub async fn forget_owner(&self, owner: impl Into<String>) -> Result<ForgetReceipt> {
        let owner = owner.into();
        check_owner(&owner)?;
        self.forget_in_task(IntentSubject::Owner(owner)).await
    }

    async fn forget_in_task(&self, subject: IntentSubject) -> Result<ForgetReceipt> {
        let patience = Patience::new(self.inner.options.wait_max);
        // In the caller's own future: one who goes away while waiting has begun nothing.
        let held = self.hold(std::slice::from_ref(&subject), &patience).await?;
        let context = self.clone();
        self.in_task(async move {
            let _held = held;
            context.forget_held(&context.own_target(), &subject, patience).await
        })
        .await
    }

    /// Forgets many documents, several at once.
    pub(super) async fn forget_documents(&self, documents: Vec<DocumentId>) -> Result<ForgetReceipt> {
        let context = self.clone();
        self.in_task(async move { context.forget_all(&context.own_target(), documents).await }).await
    }

    async fn forget_all(&self, target: &Target, documents: Vec<DocumentId>) -> Result<ForgetReceipt> {
        let forgets = documents.into_iter().map(|id| async move {
            // Boxed: an owner's documents are forgotten within the owner.
            Box::pin(self.forget_subject(target, &IntentSubject::Document(id))).await
        });
        let mut forgets = futures::stream::iter(forgets).buffer_unordered(AT_ONCE);
        let mut receipt = ForgetReceipt::default();
        while let Some(gone) = forgets.try_next().await? {
            receipt.add(gone);
        }
        Ok(receipt)
    }

    async fn forget_subject(&self, target: &Target, subject: &IntentSubject) -> Result<ForgetReceipt> {
        let patience = Patience::new(self.inner.options.wait_max);
        let _held = self.hold(std::slice::from_ref(subject), &patience).await?;
        self.forget_held(target, subject, patience).await
    }

    async fn forget_held(
        &self,
        target: &Target,
        subject: &IntentSubject,
        mut patience: Patience,
    ) -> Result<ForgetReceipt> {
        let mut receipt = ForgetReceipt::default();
        loop {
            let message = BeginForgets { context: target.name.clone(), subjects: vec![subject.clone()] };
            match self.send(message).await?.pop() {
                Some(Beginning::Begun { intent, .. }) => {
                    self.forget_begun(target, subject, intent, &mut receipt).await?;
                    return Ok(receipt);
                }
                Some(Beginning::Refused(refused)) => return Err(refused.into()),
                _ => {
                    if !self.finish_open(subject, OnDamage::Forget(&mut receipt)).await? {
                        patience.pause(self).await?;
                    }
                }
            }
        }
    }

    /// Does what an intent to forget says, and finishes it.
    pub(super) async fn forget_begun(
        &self,
        target: &Target,
        subject: &IntentSubject,
        intent: BegunIntent,
        receipt: &mut ForgetReceipt,
    ) -> Result<()> {
        match subject {
            IntentSubject::Document(document) => self.forget_elsewhere(target, document, receipt).await?,
            IntentSubject::Session(session) => {
                self.forget_documents_of(target, subject, receipt).await?;
                let deleted = self.send(DeleteSession { session: session.clone() }).await;
                receipt.sessions +=
                    u64::from(deleted.map_err(|error| unfinished(&subject.to_string(), StoreName::Chat, &error))?);
            }
            IntentSubject::Owner(owner) => {
                self.forget_documents_of(target, subject, receipt).await?;
                let deleted = self.delete_sessions(owner).await;
                receipt.sessions +=
                    deleted.map_err(|error| unfinished(&subject.to_string(), StoreName::Chat, &error))?;
            }
        }
        let finished = self.finish(vec![(intent.id, intent.fencing)]).await;
        let finished = finished.map_err(|error| unfinished(&subject.to_string(), StoreName::Documents, &error))?;
        receipt.nodes += finished.into_iter().flatten().sum::<u64>();
        Ok(())
    }

    /// Forgets a document in every store but its own.
    async fn forget_elsewhere(
        &self,
        target: &Target,
        document: &DocumentId,
        receipt: &mut ForgetReceipt,
    ) -> Result<()> {
        let what = IntentSubject::Document(document.clone()).to_string();
        let message =
            DeletePointsByDocument { collection: target.record.collection.clone(), document: document.clone() };
        if target.record.has_vectors() {
            match self.send(message).await {
                Ok(count) => receipt.points += count,
                // Nobody has made it yet, or somebody dropped it.
                Err(error) if error.class() == Class::NotFound => {}
                Err(error) => return Err(unfinished(&what, StoreName::Vectors, &error)),
            }
        }
        let cache = self.inner.larder.embed_cache();
        let failed = |error| unfinished(&what, StoreName::EmbedCache, &error);
        if self.is_member(&target.name, document).await? {
            receipt.documents += 1;
            let model = Model::new(&target.record.model)?;
            let mut after: Option<NodeCursor> = None;
            loop {
                let scope = NodeScope::Document(document.clone());
                let page = self.send(ListNodes { scope, filter: None, after: after.take(), limit: PAGE_ROWS }).await?;
                let keys: Vec<CacheKey> =
                    page.nodes.iter().filter_map(|stored| text(&stored.node)).map(|text| model.key(text)).collect();
                if target.record.has_vectors() {
                    receipt.embeddings += cache.remove_keys(keys).await.map_err(failed)?;
                }
                if target.record.has_facts {
                    let sources = page.nodes.iter().filter_map(|stored| source_of(&stored.node.id).ok());
                    let sources = sources.map(|source| SourceFacts { source, relations: Vec::new() }).collect();
                    let forgotten = self.put_facts(sources).await;
                    let (deleted, kept) = forgotten.map_err(|error| unfinished(&what, StoreName::Graph, &error))?;
                    receipt.facts += deleted;
                    receipt.facts_kept += kept;
                }
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        if target.record.has_vectors() {
            // Of passages that it had before, too.
            receipt.embeddings += cache.remove_tagged(tag(&target.name, document)?).await.map_err(failed)?;
        }
        Ok(())
    }

    async fn is_member(&self, name: &ContextName, document: &DocumentId) -> Result<bool> {
        let message = ListContextDocuments {
            context: name.clone(),
            prefix: document.as_str().to_owned(),
            owner: None,
            session: None,
            after: None,
            limit: 1,
        };
        Ok(self.send(message).await?.first().is_some_and(|first| first.document.id == *document))
    }

    /// Forgets the documents of an owner or a conversation, as they are found.
    async fn forget_documents_of(
        &self,
        target: &Target,
        subject: &IntentSubject,
        receipt: &mut ForgetReceipt,
    ) -> Result<()> {
        let (owner, session) = match subject {
            IntentSubject::Document(_) => return Ok(()),
            IntentSubject::Session(session) => (None, Some(session.clone())),
            IntentSubject::Owner(owner) => (Some(owner.clone()), None),
        };
        let mut after = None;
        loop {
            let message = ListContextDocuments {
                context: target.name.clone(),
                prefix: String::new(),
                owner: owner.clone(),
                session: session.clone(),
                after: after.take(),
                limit: PAGE_ROWS,
            };
            let page = self.send(message).await?;
            let ids: Vec<DocumentId> = page.into_iter().map(|member| member.document.id).collect();
            let Some(last) = ids.last() else { return Ok(()) };
            after = Some(last.clone());
            receipt.add(self.forget_all(target, ids).await?);
        }
    }

    async fn delete_sessions(&self, owner: &str) -> Result<u64> {
        let mut count = 0;
        loop {
            let owner = Some(owner.to_owned());
            let message = ListSessions { owner, archived: None, filter: None, after: None, limit: PAGE_ROWS };
            let page = self.send(message).await?;
            if page.sessions.is_empty() {
                return Ok(count);
            }
            for session in page.sessions {
                count += u64::from(self.send(DeleteSession { session: session.id }).await?);
            }
        }
    }
}
