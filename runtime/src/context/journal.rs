//! How several files change as one: an intent is committed, done in every store, and finished.
//!
//! Start at [`Context::commit`]. Everything here runs in a task of the runtime's, so that a caller who goes away leaves nothing
//! half way while the process lives; if it dies, whoever opens the context next does it again.
//!
//! Always true: every step may be done twice; a subject that is worked on is held, in this process by its name, in others by
//! its open intent; an intent is finished only when every store has followed.

use std::time::{Duration, Instant};

use larder_actors::{Error, Result};
use larder_protocol::documents::{
    BeginIngests, Beginning, BegunIntent, DocumentOutcome, FinishIntents, Intent, IntentKind, IntentSubject,
    TakeIntent, TakePurpose, TakenIntent,
};
use larder_protocol::graph::{ReplaceSources, SourceFacts};
use larder_protocol::lease::Fencing;
use larder_protocol::vectors::{DocumentPoints, Point, ReplacePoints, UpsertPoints};
use larder_protocol::{Class, ContextName, DocumentId, Error as Kind, StoreName, Written};

use super::Context;
use super::forget::ForgetReceipt;
use super::payload::Payload;
use super::prepare::{Prepared, source_of};
use super::record::Record;
use super::subjects::{self, Held};
use crate::context::after;

/// How soon an intent of another process is looked for again, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// Points in one message: more hold other writers up.
const POINTS_AT_ONCE: usize = 4_096;
/// Bytes of points in one message; less, where the store's queue is small.
const BYTES_AT_ONCE: usize = 8 << 20;
/// Sources and facts in one message.
const FACTS_AT_ONCE: usize = 10_000;

/// What became of one document.
#[derive(Debug)]
pub(super) enum Committed {
    /// It is in every store.
    Done(DocumentOutcome),
    /// It was changed since it was looked at: it is to be prepared anew.
    Outdated(Box<Prepared>),
    /// The documents store refuses it.
    Refused(Kind),
}

/// An ingest that is committed, and what is to follow.
struct Work {
    intent: BegunIntent,
    document: DocumentId,
    payload: Payload,
}

/// What is done about an ingest whose payload is damaged.
#[derive(Debug)]
pub(super) enum OnDamage<'a> {
    /// It stays for [`repair`](Context::repair), or the next call about its document: it needs the embedder.
    Leave,
    /// It is done again from the document as it is stored.
    Redo,
    /// The document is forgotten in its place, everywhere; what goes is added to the receipt.
    Forget(&'a mut ForgetReceipt),
}

/// Of which context an intent is.
pub(super) struct Target {
    pub(super) name: ContextName,
    pub(super) record: Record,
}

impl Context {
    /// Commits documents with their intents, and does what is to follow.
    ///
    /// # Errors
    /// The documents store's own, when nothing is committed; [`Unfinished`](Kind::Unfinished) when another store cannot follow.
    pub(super) async fn commit(&self, prepared: Vec<Prepared>) -> Result<Vec<Committed>> {
        let subjects: Vec<_> = prepared.iter().map(|prepared| IntentSubject::Document(prepared.id().clone())).collect();
        let patience = Patience::new(self.inner.options.wait_max);
        // In the caller's own future: one who goes away while waiting has begun nothing, and what is begun is in order.
        let held = self.hold(&subjects, &patience).await?;
        let context = self.clone();
        self.in_task(async move {
            let _held = held;
            context.commit_all(prepared, patience).await
        })
        .await
    }

    async fn commit_all(&self, prepared: Vec<Prepared>, mut patience: Patience) -> Result<Vec<Committed>> {
        let mut committed: Vec<Option<Committed>> = prepared.iter().map(|_| None).collect();
        let mut open: Vec<(usize, Prepared)> = prepared.into_iter().enumerate().collect();
        while !open.is_empty() {
            let held = self.begin(open, &mut committed).await?;
            let mut waits = false;
            open = Vec::with_capacity(held.len());
            for (place, prepared) in held {
                let subject = IntentSubject::Document(prepared.id().clone());
                // Boxed: it is as large as the rest, and rarely needed.
                match Box::pin(self.finish_open(&subject, OnDamage::Redo)).await {
                    Ok(is_finished) => {
                        waits |= !is_finished;
                        open.push((place, prepared));
                    }
                    // What it was about cannot be done again: this document's failure alone.
                    Err(error) if matches!(error.class(), Class::Computation | Class::Refused | Class::Corrupt) => {
                        if let Some(slot) = committed.get_mut(place) {
                            *slot = Some(Committed::Refused(error.kind().clone()));
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
            if waits {
                patience.pause(self).await?;
            }
        }
        Ok(committed.into_iter().flatten().collect())
    }

    /// Commits documents, and does what is to follow for those that were free; answers the others.
    async fn begin(
        &self,
        mut open: Vec<(usize, Prepared)>,
        committed: &mut [Option<Committed>],
    ) -> Result<Vec<(usize, Prepared)>> {
        let ingests = open.iter().map(|(_, prepared)| prepared.ingest.clone()).collect();
        let message = BeginIngests { context: self.inner.name.clone(), ingests };
        let beginnings = match self.send(message).await {
            Ok(beginnings) => beginnings,
            // It is larger than a request may be: in halves, down to the one that is too large by itself.
            Err(error) if error.class() == Class::InvalidInput => {
                if let [(_, alone)] = open.as_slice() {
                    vec![Beginning::Refused(too_large(alone.id(), error.kind()))]
                } else {
                    let rest = open.split_off(open.len() / 2);
                    let mut held = Box::pin(self.begin(open, committed)).await?;
                    held.extend(Box::pin(self.begin(rest, committed)).await?);
                    return Ok(held);
                }
            }
            Err(error) => return Err(error),
        };
        let (mut held, mut works) = (Vec::new(), Vec::new());
        for ((place, prepared), beginning) in open.into_iter().zip(beginnings) {
            let became = match beginning {
                Beginning::Begun { intent, outcome } => {
                    let document = prepared.id().clone();
                    works.push(Work { intent, document, payload: prepared.payload });
                    outcome.map(Committed::Done)
                }
                Beginning::Held => {
                    held.push((place, prepared));
                    None
                }
                Beginning::Outdated => Some(Committed::Outdated(Box::new(prepared))),
                Beginning::Refused(refused) => Some(Committed::Refused(refused)),
            };
            if let Some(slot) = committed.get_mut(place) {
                *slot = became;
            }
        }
        let target = self.own_target();
        self.follow(&target, works).await?;
        Ok(held)
    }

    /// Holds subjects in this process, so that nobody else in it works on them.
    pub(super) async fn hold(&self, subjects: &[IntentSubject], patience: &Patience) -> Result<Held> {
        let larder = &self.inner.larder;
        let held = larder.wait_until(patience.deadline, subjects::hold(larder, subjects)).await;
        held.ok_or_else(too_late)
    }

    pub(super) fn own_target(&self) -> Target {
        Target { name: self.inner.name.clone(), record: self.inner.record.clone() }
    }

    async fn target(&self, name: &ContextName) -> Result<Target> {
        if *name == self.inner.name {
            return Ok(self.own_target());
        }
        let record = Record::load(&self.inner.larder, name).await?;
        let record = record.ok_or_else(|| Kind::NotFound { what: format!("context {:?}", name.as_str()) })?;
        Ok(Target { name: name.clone(), record })
    }

    /// Finishes a subject's open intent, if its holder is dead or gave it up; answers whether there is none any more. The caller
    /// holds the subject.
    pub(super) async fn finish_open(&self, subject: &IntentSubject, on_damage: OnDamage<'_>) -> Result<bool> {
        let message = TakeIntent { subject: subject.clone(), purpose: TakePurpose::Finish };
        match self.send(message).await? {
            TakenIntent::None => Ok(true),
            TakenIntent::Held => Ok(false),
            // Boxed, as below: as large as all of an ingest, and rarely needed.
            TakenIntent::Damaged(intent) => Box::pin(self.finish_damaged(&intent, on_damage)).await,
            TakenIntent::Taken { intent, fencing, payload } => {
                let target = self.target(&intent.context).await?;
                match (intent.kind, &intent.subject) {
                    (IntentKind::Ingest, IntentSubject::Document(document)) => {
                        let Ok(payload) = Payload::decode(&payload) else {
                            return Box::pin(self.finish_damaged(&intent, on_damage)).await;
                        };
                        let document = document.clone();
                        let intent = BegunIntent { id: intent.id, fencing, leaving: intent.leaving };
                        self.follow(&target, vec![Work { intent, document, payload }]).await?;
                    }
                    _ => {
                        let intent_of = BegunIntent { id: intent.id, fencing, leaving: Vec::new() };
                        self.forget_begun(&target, &intent.subject, intent_of, &mut ForgetReceipt::default()).await?;
                    }
                }
                Ok(true)
            }
        }
    }

    /// Finishes an ingest whose payload is damaged; answers whether there is no intent any more.
    async fn finish_damaged(&self, intent: &Intent, on_damage: OnDamage<'_>) -> Result<bool> {
        let IntentSubject::Document(document) = &intent.subject else { return Ok(false) };
        let mut unread = ForgetReceipt::default();
        let (purpose, payload, receipt) = match on_damage {
            OnDamage::Leave => return Ok(false),
            // Its embedder is another one.
            OnDamage::Redo if intent.context != self.inner.name => return Err(damaged(intent)),
            OnDamage::Redo => {
                let ready = self.prepare_stored(document).await?;
                (TakePurpose::Redo, ready.map(|ready| ready.payload).unwrap_or_default(), &mut unread)
            }
            OnDamage::Forget(receipt) => (TakePurpose::Forget, Payload::default(), receipt),
        };
        match self.send(TakeIntent { subject: intent.subject.clone(), purpose }).await? {
            TakenIntent::None => Ok(true),
            TakenIntent::Held | TakenIntent::Damaged(_) => Ok(false),
            // Somebody finished that one meanwhile, and began another, which the next round does as it was recorded.
            TakenIntent::Taken { intent: taken, .. } if taken.id != intent.id && taken.kind == IntentKind::Ingest => {
                Ok(false)
            }
            TakenIntent::Taken { intent, fencing, .. } => {
                let target = self.target(&intent.context).await?;
                let begun = BegunIntent { id: intent.id, fencing, leaving: intent.leaving };
                if intent.kind == IntentKind::Forget {
                    self.forget_begun(&target, &intent.subject, begun, receipt).await?;
                } else {
                    self.follow(&target, vec![Work { intent: begun, document: document.clone(), payload }]).await?;
                }
                Ok(true)
            }
        }
    }

    /// Does what an open intent says, from its document as it is stored where the payload is damaged.
    pub(super) async fn redo(&self, subject: IntentSubject) -> Result<()> {
        let patience = Patience::new(self.inner.options.wait_max);
        let held = self.hold(std::slice::from_ref(&subject), &patience).await?;
        let context = self.clone();
        let finish = async move {
            let _held = held;
            // Once more where another process put another in its place meanwhile.
            Ok(context.finish_open(&subject, OnDamage::Redo).await?
                || context.finish_open(&subject, OnDamage::Redo).await?)
        };
        self.in_task(finish).await.map(drop)
    }

    /// Tells the other stores of a document as it is stored, whose intent cannot be read: it keeps others from the document.
    pub(super) async fn redo_unread(&self, document: DocumentId) -> Result<()> {
        let patience = Patience::new(self.inner.options.wait_max);
        let held = self.hold(&[IntentSubject::Document(document.clone())], &patience).await?;
        let Some(ready) = self.prepare_stored(&document).await? else { return Ok(()) };
        let context = self.clone();
        self.in_task(async move {
            let _held = held;
            let (what, target) = (IntentSubject::Document(document.clone()).to_string(), context.own_target());
            let points = DocumentPoints { document, points: ready.payload.points, keep: ready.payload.keep };
            context.tell(&target, &what, vec![points], ready.payload.facts).await
        })
        .await
    }

    /// Tells the other stores of ingests that are committed, and finishes them.
    async fn follow(&self, target: &Target, works: Vec<Work>) -> Result<()> {
        if works.is_empty() {
            return Ok(());
        }
        let what = shown(&works);
        let intents = works.iter().map(|work| (work.intent.id, work.intent.fencing)).collect();
        let mut sources = Vec::new();
        let mut documents = Vec::with_capacity(works.len());
        for Work { intent, document, payload: Payload { points, keep, facts } } in works {
            if target.record.has_facts {
                for node in &intent.leaving {
                    // One that is too long to be a source never was one.
                    if let Ok(source) = source_of(node) {
                        sources.push(SourceFacts { source, relations: Vec::new() });
                    }
                }
            }
            sources.extend(facts);
            documents.push(DocumentPoints { document, points, keep });
        }
        self.tell(target, &what, documents, sources).await?;
        self.finish(intents).await.map_err(|error| unfinished(&what, StoreName::Documents, &error)).map(drop)
    }

    /// Brings the other stores to what a commit decided.
    async fn tell(
        &self,
        target: &Target,
        what: &str,
        documents: Vec<DocumentPoints>,
        sources: Vec<SourceFacts>,
    ) -> Result<()> {
        self.put_points(target, documents).await.map_err(|error| unfinished(what, StoreName::Vectors, &error))?;
        self.put_facts(sources).await.map_err(|error| unfinished(what, StoreName::Graph, &error)).map(drop)
    }

    pub(super) async fn finish(
        &self,
        intents: Vec<(larder_protocol::documents::IntentId, Fencing)>,
    ) -> Result<Vec<Option<u64>>> {
        self.send(FinishIntents { intents }).await
    }

    /// Makes documents' points these, in as few writes as their size allows.
    async fn put_points(&self, target: &Target, documents: Vec<DocumentPoints>) -> Result<()> {
        if !target.record.has_vectors() {
            return Ok(());
        }
        let queue_bytes = self.inner.larder.settings().vectors.common.queue_bytes_max;
        let bytes_max = BYTES_AT_ONCE.min(queue_bytes / 4);
        let (mut some, mut bytes, mut count) = (Vec::new(), 0, 0);
        for document in documents {
            let document = self.put_in_slices(target, document, bytes_max).await?;
            let size: usize = document.points.iter().map(Point::size_bytes).sum::<usize>() + 64 * document.keep.len();
            if !some.is_empty() && (bytes + size > bytes_max || count + document.points.len() > POINTS_AT_ONCE) {
                self.replace_points(target, std::mem::take(&mut some)).await?;
                (bytes, count) = (0, 0);
            }
            bytes += size;
            count += document.points.len();
            some.push(document);
        }
        if some.is_empty() { Ok(()) } else { self.replace_points(target, some).await }
    }

    /// Puts what of a document is too much for one write; answers what is left: those points stay.
    async fn put_in_slices(
        &self,
        target: &Target,
        mut document: DocumentPoints,
        bytes_max: usize,
    ) -> Result<DocumentPoints> {
        loop {
            let mut bytes = 0;
            let fitting = document.points.iter().take(POINTS_AT_ONCE).take_while(|point| {
                bytes += point.size_bytes();
                bytes <= bytes_max
            });
            let count = fitting.count().max(1);
            if count >= document.points.len() {
                return Ok(document);
            }
            let rest = document.points.split_off(count);
            let points = std::mem::replace(&mut document.points, rest);
            document.keep.extend(points.iter().map(|point| point.id.clone()));
            let collection = target.record.collection.clone();
            self.in_collection(target, UpsertPoints { collection, points }).await?;
        }
    }

    async fn replace_points(&self, target: &Target, documents: Vec<DocumentPoints>) -> Result<()> {
        let collection = target.record.collection.clone();
        self.in_collection(target, ReplacePoints { collection, documents }).await.map(drop)
    }

    /// Sends a message to the vectors' collection, which is made again where somebody dropped it.
    async fn in_collection<M>(&self, target: &Target, message: M) -> Result<M::Reply>
    where
        M: larder_actors::store::Ask<Store = larder_actors::vectors::Vectors>,
    {
        match self.send(message.clone()).await {
            Err(error) if error.class() == Class::NotFound => {
                target.record.open_collection(&self.inner.larder).await?;
                self.send(message).await
            }
            answer => answer,
        }
    }

    /// Makes what sources say these facts.
    pub(super) async fn put_facts(&self, mut sources: Vec<SourceFacts>) -> Result<(u64, u64)> {
        let (mut deleted, mut kept) = (0, 0);
        let queue_bytes = self.inner.larder.settings().graph.common.queue_bytes_max;
        let bytes_max = BYTES_AT_ONCE.min(queue_bytes / 4);
        while !sources.is_empty() {
            let (mut items, mut bytes) = (0, 0);
            let fitting = sources.iter().take_while(|source| {
                items += 1 + source.relations.len();
                bytes += source.size_bytes();
                items <= FACTS_AT_ONCE && bytes <= bytes_max
            });
            let count = fitting.count().max(1);
            let rest = sources.split_off(count);
            let message = ReplaceSources { sources, removes_bare_entities: true };
            let replaced = self.send(message).await?;
            deleted += replaced.deleted;
            kept += replaced.kept;
            sources = rest;
        }
        Ok((deleted, kept))
    }
}

/// How long to wait for others, with pauses that grow.
#[derive(Debug)]
pub(super) struct Patience {
    deadline: Instant,
    pause: Duration,
}

impl Patience {
    pub(super) fn new(wait_max: Duration) -> Self {
        Self { deadline: after(wait_max), pause: PAUSE_MIN }
    }

    /// Waits a little for the process that holds an intent.
    pub(super) async fn pause(&mut self, context: &Context) -> Result<()> {
        let now = Instant::now();
        if now >= self.deadline {
            return Err(too_late());
        }
        let until = (now + self.pause).min(self.deadline);
        let _ = context.inner.larder.wait_until(until, std::future::pending::<()>()).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }
}

/// Names the document, and the setting, where it is a request's size that is refused.
fn too_large(document: &DocumentId, refused: &Kind) -> Kind {
    match refused {
        Kind::TooLarge { what, bytes, bytes_max } if what == "request" => {
            let what = format!(
                "document {:?} with its nodes and embeddings, which go in one request (`documents.common.queue_bytes_max`),",
                document.as_str()
            );
            Kind::TooLarge { what, bytes: *bytes, bytes_max: *bytes_max }
        }
        other => other.clone(),
    }
}

fn too_late() -> Error {
    let doing = "waiting for somebody else's work on the same document".to_owned();
    Kind::DeadlineExceeded { store: StoreName::Documents, doing, written: Written::NotApplied }.into()
}

/// Names one document, and how many others.
fn shown(works: &[Work]) -> String {
    let first = works.first().map_or("", |work| work.document.as_str());
    match works.len() {
        1 => format!("document {first:?}"),
        count => format!("document {first:?}, with {} others,", count - 1),
    }
}

/// Returns the error of what is committed and cannot be followed by a store.
pub(super) fn unfinished(what: &str, store: StoreName, error: &Error) -> Error {
    let (what, class, cause) = (what.to_owned(), error.class(), super::reason(error));
    Kind::Unfinished { what, store, class, cause }.into()
}

fn damaged(intent: &Intent) -> Error {
    let detail = format!(
        "what was begun on {} is damaged, and done again by `repair()` of the context {:?}, opened with its embedder",
        intent.subject,
        intent.context.as_str()
    );
    Kind::Corrupt { store: StoreName::Documents, detail, written: Written::NotApplied }.into()
}
