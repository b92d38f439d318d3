//! What a caller holds of a store: sends writes to its actor, runs reads, observes, subscribes, closes.
//!
//! Start at [`StoreHandle::write`] and [`StoreHandle::read`]; [`StoreHandle::start`] brings a store up.
//!
//! Always true: every request is answered by its deadline; a request whose caller went away before it began never runs.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use futures::future::{Either, select};
use kameo::actor::{ActorRef, Spawn};
use kameo::supervision::RestartPolicy;
use larder_protocol::{Error as Kind, Message, RequestOptions, Sequence, Timestamp, Written};
use rusqlite::Connection;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::admission::{Admission, Permit};
use super::compaction::Compaction;
use super::context::{Failure, Outcome, ReadContext};
use super::deadline::Deadline;
use super::failpoints::Failpoint;
use super::fairness::{IN_PLACE_READ_COST, MEMORY_READ_COST, let_others_run};
use super::job::WriteJob;
use super::maintenance::Swept;
use super::readers::{self, Readers, ThreadRead};
use super::shared::{Custody, Replacement, StoreOpening, StoreShared, presence_path, shared, store_file};
use super::status::{StoreObservation, StoreState};
use super::subscription::Notices;
use super::ticket::{CalledOff, Ticket};
use super::writer::{Beginning, Close, Flush, Maintain, Replace, Rewrite, SetAside, Submit, Writer};
use super::{ReadHandler, ReadLane, Store, WriteHandler, changes, group};
use crate::error::{Error, Result};
use crate::sqlite::checkpoint::{self, CheckpointMode, next_checkpoint};
use crate::sqlite::presence::Presence;
use crate::sqlite::{connection, fault};

/// Slices of maintenance before a file is written anew: they sweep some ten million rows.
const COMPACTION_SLICES_MAX: usize = 20_000;

/// A running store, cheap to clone.
pub struct StoreHandle<S: Store> {
    inner: Arc<Inner<S>>,
}

struct Inner<S: Store> {
    shared: Arc<StoreShared<S>>,
    admission: Admission,
    readers: Arc<Readers>,
    actor: ActorRef<Writer<S>>,
    runtime: Handle,
    /// Open for as long as the store is: if a COMMIT fails in the middle and the last connection closed then, the next open
    /// would take the failed frames in the WAL for good ones.
    guard: Mutex<Option<Connection>>,
    /// The connection for background checkpoints, opened at the first.
    checkpointer: Mutex<Option<Connection>>,
    /// Held while the file is set aside or replaced: whoever comes late must not close what serves again.
    replacing: tokio::sync::Mutex<()>,
}

impl<S: Store> Clone for StoreHandle<S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<S: Store> std::fmt::Debug for StoreHandle<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreHandle")
            .field("store", &S::NAME)
            .field("state", &self.inner.shared.status.state())
            .finish()
    }
}

/// What became of the requests when a store was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseReport {
    /// Everything accepted was answered and the file is closed. `false`: the drain deadline passed first.
    pub is_drained: bool,
    /// Requests that were waiting or running when the deadline passed.
    pub undelivered_count: usize,
}

impl<S: Store> StoreHandle<S> {
    /// Prepares the file and starts the store's actor under `supervisor`. Blocks on the file; runs on the runtime's own
    /// threads.
    ///
    /// # Errors
    /// When the file is refused or cannot be opened; nothing runs then.
    pub async fn start<P: kameo::Actor>(supervisor: &ActorRef<P>, opening: StoreOpening<S>) -> Result<Self> {
        let (runtime, (limit, window)) = (opening.runtime.clone(), opening.restart_limit);
        let shared = runtime.spawn_blocking(move || shared(with_tokenizer_found(opening))).await;
        let shared = Arc::new(shared.map_err(|lost| failed::<S>(lost.to_string()))??);
        let settings = shared.settings.clone();
        let opened = Arc::clone(&shared);
        let beginning = runtime.spawn_blocking(move || {
            opened.announce()?;
            opened.file.prepare()?;
            opened.inherit_unsynced()?;
            // Open from before the writer is until after it: see `Inner::guard`.
            Ok::<_, Error>((opened.file.reader()?, Beginning::open(opened)?))
        });
        let (guard, beginning) = beginning.await.map_err(|lost| failed::<S>(lost.to_string()))??;
        let actor = Writer::<S>::supervise_with(supervisor, move || beginning.clone())
            // A store that was closed stays closed; one that failed comes back.
            .restart_policy(RestartPolicy::Transient)
            .restart_limit(limit, window)
            // Admission bounds what is queued, in messages and bytes; a second bound here would only hide it.
            .spawn_in_thread_with_mailbox(kameo::mailbox::unbounded())
            .await;
        let readers = Readers::new(shared.file.clone(), settings.in_place_connections_max, settings.reader_threads);
        let admission = Admission::new(S::NAME, &settings);
        let checkpointer = Mutex::new(None);
        let guard = Mutex::new(Some(guard));
        let readers = Arc::new(readers);
        let replacing = tokio::sync::Mutex::default();
        let inner = Inner { shared, admission, readers, actor, runtime, guard, checkpointer, replacing };
        let handle = Self { inner: Arc::new(inner) };
        handle.wait_for_start().await?;
        handle.watch_end();
        handle.watch_quarantine();
        Ok(handle)
    }

    /// Notices when the actor is gone for good: its mailbox outlives restarts, and closes when there is to be none.
    fn watch_end(&self) {
        let Inner { shared, actor, runtime, .. } = &*self.inner;
        let (shared, actor) = (Arc::clone(shared), actor.clone());
        runtime.spawn(async move {
            actor.wait_for_shutdown().await;
            shared.note_end();
        });
    }

    /// Closes the file once it is quarantined, so that it can be looked at, and replaced.
    fn watch_quarantine(&self) {
        let (shared, weak) = (Arc::clone(&self.inner.shared), Arc::downgrade(&self.inner));
        let actor = self.inner.actor.clone();
        self.inner.runtime.spawn(async move {
            loop {
                tokio::select! {
                    () = shared.quarantined.notified() => {
                        let Some(inner) = weak.upgrade() else { return };
                        let _replacing = inner.replacing.lock().await;
                        if inner.shared.status.state() == StoreState::Quarantined {
                            Self { inner: Arc::clone(&inner) }.set_aside().await;
                        }
                    }
                    () = actor.wait_for_shutdown() => return,
                }
            }
        });
    }

    /// Waits for the reads and writes that have begun, closes every connection and leaves the files as they are.
    async fn set_aside(&self) {
        let Inner { shared, readers, actor, runtime, checkpointer, guard, .. } = &*self.inner;
        let readers = Arc::clone(readers);
        let _ = runtime.spawn_blocking(move || readers.close()).await;
        checkpointer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (reply, closed) = oneshot::channel();
        if actor.tell(SetAside { reply }).try_send().is_ok() {
            let _ = closed.await;
        }
        if let Some(guard) = guard.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // The last connection, which would fold the WAL in.
            connection::leave_wal(&guard);
        }
        shared.presence.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Replaces the file of a quarantined store, and serves again.
    ///
    /// # Errors
    /// [`Kind::Refused`] when the store is not quarantined, or another process has the file open; whatever the replacement
    /// and opening the file answer. The store stays quarantined then.
    pub async fn replace_file(&self, replacement: Replacement) -> Result<()> {
        let Inner { shared, readers, actor, guard, runtime, replacing, .. } = &*self.inner;
        let _replacing = replacing.lock().await;
        if shared.status.state() != StoreState::Quarantined {
            let reason = "it is not quarantined".to_owned();
            return Err(Kind::Refused { what: format!("{} store", S::NAME), reason }.into());
        }
        self.set_aside().await;
        let (reply, replaced) = oneshot::channel();
        if actor.tell(Replace { replacement, reply }).try_send().is_err() {
            return Err(self.unavailable(Written::NotApplied).into());
        }
        replaced.await.map_err(|_| self.unavailable(Written::NotApplied))??;
        let file = shared.file.clone();
        let opened = runtime.spawn_blocking(move || file.reader()).await;
        let opened = opened.map_err(|lost| failed::<S>(lost.to_string()))??;
        *guard.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
        readers.reopen();
        shared.enter_open();
        Ok(())
    }

    async fn wait_for_start(&self) -> Result<()> {
        let started =
            self.inner.actor.wait_for_startup_with_result(|result| result.map_err(|error| error.to_string())).await;
        started.map_err(|reason| {
            self.inner.shared.enter(StoreState::Failed, Some(reason.clone()));
            self.inner.admission.close();
            self.end();
            failed::<S>(reason).into()
        })
    }

    /// Sends a write and waits for its reply, which leaves after its commit.
    ///
    /// # Errors
    /// The handler's refusal, or the machinery's; [`Error::written`](crate::Error::written) says whether the change is in
    /// the store.
    pub async fn write<M: Message>(&self, message: M, options: RequestOptions) -> Result<M::Reply>
    where
        S: WriteHandler<M>,
    {
        let Inner { shared, admission, actor, .. } = &*self.inner;
        shared.status.check_accepts()?;
        let deadline = self.deadline(&options);
        let size_bytes = message.size_bytes();
        let permit = admission.admit(size_bytes, &deadline).await?;
        let ticket = Arc::new(Ticket::new(deadline.at));
        let (reply, answer) = oneshot::channel();
        let job = WriteJob {
            message,
            size_bytes,
            idempotency_key: options.idempotency_key,
            ticket: Arc::clone(&ticket),
            permit,
            reply,
            outcome: None,
        };
        let guard = CallOffOnDrop(&ticket);
        if actor.tell(Submit(Box::new(job))).try_send().is_err() {
            return Err(self.unavailable(Written::NotApplied).into());
        }
        match deadline.wait(answer).await {
            Some(Ok(reply)) => reply,
            // The actor died with the request.
            Some(Err(_)) => Err(self.unavailable(written_if_lost(&ticket)).into()),
            None => Err(deadline_passed::<S>(guard.call_off(), M::NAME).into()),
        }
    }

    /// Runs a read and returns its answer.
    ///
    /// # Errors
    /// The handler's refusal, or the machinery's.
    pub async fn read<M: Message>(&self, message: M, options: RequestOptions) -> Result<M::Reply>
    where
        S: ReadHandler<M>,
    {
        let shared = &self.inner.shared;
        shared.status.check_accepts()?;
        let now = group::now();
        if let Some(reply) = S::from_memory(&shared.memory, &message, now) {
            shared.status.memory_read_count.add(1);
            let_others_run(MEMORY_READ_COST).await;
            return Ok(reply);
        }
        if shared.settings.reads_in_place && S::lane(&message) == ReadLane::InPlace {
            let read = |connection: &Connection| {
                shared.failpoint(Failpoint::ReadInPlace)?;
                S::read(&context(shared, connection, now, true), &message)
            };
            if let Some(answer) = self.inner.readers.in_place(M::NAME, read) {
                shared.status.in_place_read_count.add(1);
                let_others_run(IN_PLACE_READ_COST).await;
                return answer.inspect_err(|error| shared.note_read_error(error));
            }
        }
        let store = Arc::clone(shared);
        let size_bytes = message.size_bytes();
        let read = move |connection: &Connection| S::read(&context(&store, connection, now, false), &message);
        self.on_thread(M::NAME, size_bytes, options, read).await
    }

    /// Answers from the state in memory alone, if `read` finds it there: the shortest way, which takes no lock of the file. It
    /// never waits, so a caller of many then awaits [`let_others_run_after_memory_reads`](super::let_others_run_after_memory_reads).
    ///
    /// # Errors
    /// When the store does not serve.
    pub fn read_memory<T>(&self, read: impl FnOnce(&S::Memory) -> Option<T>) -> Result<Option<T>> {
        let shared = &self.inner.shared;
        shared.status.check_accepts()?;
        let found = read(&shared.memory);
        if found.is_some() {
            shared.status.memory_read_count.add(1);
        }
        Ok(found)
    }

    /// Returns the store's state in memory.
    #[must_use]
    pub fn memory(&self) -> &S::Memory {
        &self.inner.shared.memory
    }

    /// Runs any read on a reader thread, admitted, and bounded by its deadline and the readers' age.
    pub(super) async fn on_thread<T: Send + 'static>(
        &self,
        name: &'static str,
        size_bytes: usize,
        options: RequestOptions,
        read: impl FnOnce(&Connection) -> Outcome<T> + Send + 'static,
    ) -> Result<T> {
        let age_max = Some(self.inner.shared.settings.reader_age_max);
        self.on_thread_until(name, size_bytes, options, age_max, read).await
    }

    async fn on_thread_until<T: Send + 'static>(
        &self,
        name: &'static str,
        size_bytes: usize,
        options: RequestOptions,
        age_max: Option<Duration>,
        read: impl FnOnce(&Connection) -> Outcome<T> + Send + 'static,
    ) -> Result<T> {
        self.inner.shared.status.check_accepts()?;
        let deadline = self.deadline(&options);
        let permit = self.inner.admission.admit(size_bytes, &deadline).await?;
        let ticket = Arc::new(Ticket::new(deadline.at));
        let (reply, answer) = oneshot::channel();
        let guard = CallOffOnDrop(&ticket);
        let shared = Arc::clone(&self.inner.shared);
        let read = thread_read(shared, name, Arc::clone(&ticket), age_max, permit, reply, read);
        self.inner.readers.on_thread(read).map_err(|closed| self.why_readers_closed(closed))?;
        self.inner.shared.status.thread_read_count.fetch_add(1, Ordering::Relaxed);
        match deadline.wait(answer).await {
            Some(Ok(answer)) => answer,
            Some(Err(_)) => Err(self.unavailable(Written::NotApplied).into()),
            None => {
                guard.call_off();
                Err(group::deadline_error::<S>(name).into())
            }
        }
    }

    /// Returns the store's state and counters; never waits.
    #[must_use]
    pub fn observe(&self) -> StoreObservation {
        self.inner.shared.status.observe(self.inner.admission.in_use())
    }

    /// Makes everything acknowledged so far survive a power cut.
    ///
    /// # Errors
    /// When the file cannot be synced, or the deadline passes first.
    pub async fn flush(&self) -> Result<()> {
        let Inner { shared, actor, .. } = &*self.inner;
        shared.status.check_accepts()?;
        let deadline = self.deadline(&RequestOptions::default());
        let (reply, answer) = oneshot::channel();
        if actor.tell(Flush { reply }).try_send().is_err() {
            return Err(self.unavailable(Written::NotApplied).into());
        }
        match deadline.wait(answer).await {
            Some(Ok(flushed)) => flushed,
            Some(Err(_)) => Err(self.unavailable(Written::Unknown).into()),
            None => Err(deadline_passed::<S>(CalledOff::TooLate, "flush").into()),
        }
    }

    /// Does the maintenance that is due, and writes the file anew, without gaps. It has no deadline; a close ends it.
    ///
    /// # Errors
    /// When the file cannot be written anew; it is as it was then.
    pub async fn compact(&self) -> Result<Compaction> {
        let Inner { shared, actor, .. } = &*self.inner;
        // What others put meanwhile gives maintenance more to do, without end.
        for _ in 0..COMPACTION_SLICES_MAX {
            shared.status.check_accepts()?;
            let (reply, answer) = oneshot::channel();
            let sent = actor.tell(Maintain { reply: Some(reply) }).try_send();
            if self.answered(sent.is_ok(), answer).await? == Swept::Nothing {
                break;
            }
        }
        let (reply, answer) = oneshot::channel();
        let sent = actor.tell(Rewrite { reply }).try_send();
        let rewritten = self.answered(sent.is_ok(), answer).await;
        // Called off, whatever SQLite says to that.
        rewritten.map_err(|error| match shared.closing.is_called_off() {
            true => self.unavailable(Written::NotApplied).into(),
            false => error,
        })
    }

    /// Waits for what the actor answers, if it was told.
    async fn answered<T>(&self, is_sent: bool, answer: oneshot::Receiver<Result<T>>) -> Result<T> {
        if is_sent && let Ok(answer) = answer.await {
            return answer;
        }
        Err(self.unavailable(Written::NotApplied).into())
    }

    /// Returns the sequence of the newest commit, by this process or another.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn sequence(&self) -> Result<Sequence> {
        self.on_thread("sequence", 0, RequestOptions::default(), |connection| Ok(changes::newest(connection)?)).await
    }

    /// Looks for damage in the store's file, all of it or (`is_full: false`) its structure alone; answers each finding.
    ///
    /// # Errors
    /// When the file cannot be read at all.
    pub async fn check(&self, is_full: bool) -> Result<Vec<String>> {
        let Findings { mut structure, values } = self.find_damage(is_full).await?;
        structure.extend(values);
        Ok(structure)
    }

    /// Checks the whole file after a commit that failed in a way that may have harmed it, and sets it aside if its structure
    /// is damaged. Does nothing otherwise.
    pub async fn check_after_doubt(&self) {
        let shared = &self.inner.shared;
        if !shared.status.is_in_doubt.swap(false, Ordering::AcqRel) {
            return;
        }
        let found = match select(pin!(self.find_damage(true)), pin!(self.closing())).await {
            Either::Left((found, _)) => found,
            // Nobody asked for it, so that a closing store does not wait for it: its statement ends with its request.
            Either::Right(_) => return,
        };
        match found {
            Ok(Findings { structure, values }) => {
                for finding in structure.iter().chain(&values) {
                    tracing::error!(store = %S::NAME, finding, "damage found after a failed commit");
                }
                if let Some(finding) = structure.into_iter().next() {
                    shared.enter(StoreState::Quarantined, Some(finding));
                }
                shared.status.doubt_check_count.fetch_add(1, Ordering::Release);
            }
            // Damaged so far that it was set aside, or closing: there is nothing to check any more.
            Err(_) if shared.status.check_accepts().is_err() => {}
            Err(error) => {
                tracing::warn!(store = %S::NAME, %error, "the check after a failed commit failed; it is tried again");
                shared.status.is_in_doubt.store(true, Ordering::Release);
            }
        }
    }

    /// Returns once the store closes.
    async fn closing(&self) {
        let shared = &self.inner.shared;
        // An error: the store is gone.
        let _ = shared.commits.subscribe().wait_for(|_| shared.closing.is_called_off()).await;
    }

    async fn find_damage(&self, is_full: bool) -> Result<Findings> {
        let store = Arc::clone(&self.inner.shared);
        // As long as it takes: a full check reads everything.
        let options = RequestOptions { deadline: Some(Duration::MAX), ..RequestOptions::default() };
        let read = move |_: &Connection| {
            // A connection of its own: one that has searched keeps an FTS5 index's structure in memory, which
            // `integrity_check` does not renew, and would find "corruption" in what was committed since.
            let connection = store.file.reader().map_err(|error| Failure::Refused(error.kind().clone()))?;
            let mut findings = Findings { structure: structure_findings(&connection, is_full)?, values: Vec::new() };
            if is_full {
                let context = context(&store, &connection, group::now(), false);
                S::check(&context, &mut |finding| findings.values.push(finding))?;
            }
            Ok(findings)
        };
        // No age either: what it pins of the WAL is its price.
        self.on_thread_until("check", 0, options, None, read).await
    }

    /// Returns a stream of what is committed after `sequence`, by this process and others. See
    /// [`Notice`](larder_protocol::change::Notice).
    #[must_use]
    pub fn subscribe(&self, after: Sequence) -> Notices {
        Notices::new(self.clone(), self.inner.shared.commits.subscribe(), after)
    }

    /// Asks the actor for a slice of maintenance.
    pub fn maintain(&self) {
        // A stopped actor needs none.
        let _ = self.inner.actor.tell(Maintain { reply: None }).try_send();
    }

    /// Checkpoints in the background, where the policy says so. Blocks; never waits for a reader or writer.
    ///
    /// # Errors
    /// When SQLite cannot read or write the files; nothing is lost then.
    pub fn checkpoint_if_due(&self) -> Result<()> {
        let shared = &self.inner.shared;
        match next_checkpoint(shared.status.wal(), &shared.settings.checkpoint) {
            Some(mode) if !shared.is_replicated && !shared.is_wal_unsynced() && !self.is_stopped() => {
                self.checkpoint(mode)
            }
            _ => Ok(()),
        }
    }

    fn checkpoint(&self, mode: CheckpointMode) -> Result<()> {
        // One at a time; whoever comes meanwhile has nothing to add.
        let mut slot = match self.inner.checkpointer.try_lock() {
            Ok(slot) => slot,
            // A checkpoint that panicked must not be the last one.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        let connection = match &mut *slot {
            Some(connection) => connection,
            none => none.insert(self.inner.shared.file.checkpointer()?),
        };
        let shared = &self.inner.shared;
        let commit_count = shared.status.commit_count.load(Ordering::Acquire);
        let done = shared.failpoint(Failpoint::Checkpoint).and_then(|()| checkpoint::close_in(connection, mode));
        match done {
            Ok(result) => {
                self.inner.shared.note_checkpoint(mode, commit_count, result);
                Ok(())
            }
            Err(error) => {
                shared.note_failed_sync(&error);
                *slot = None;
                Err(fault::describe(S::NAME, "checkpointing", Written::NotApplied, error))
            }
        }
    }

    /// Stops the store: accepts nothing more, commits what was accepted, closes the file. Waits for it until `drain`.
    pub async fn close(&self, drain: Duration) -> CloseReport {
        let Inner { shared, admission, readers, actor, runtime, checkpointer, guard, replacing } = &*self.inner;
        shared.closing.call_off();
        // Wakes who waits for it.
        shared.commits.send_modify(|_| ());
        admission.close();
        let deadline = Deadline::after(drain, runtime);
        let readers = Arc::clone(readers);
        let custody_of = Arc::clone(shared);
        let closed = async {
            let _replacing = replacing.lock().await;
            if shared.status.state() == StoreState::Quarantined {
                self.set_aside().await;
            }
            let _ = runtime.spawn_blocking(move || readers.close()).await;
            checkpointer.lock().unwrap_or_else(PoisonError::into_inner).take();
            // Last, since only the last connection to close removes the WAL: two that close at once both leave it to the
            // other.
            self.end();
            actor.wait_for_shutdown().await;
            // The actor says that it stopped before it closes its connection.
            let _ = runtime.spawn_blocking(move || drop(Custody::acquire(&custody_of))).await;
            let guard = guard.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(guard) = guard.filter(|_| shared.must_leave_wal()) {
                connection::leave_wal(&guard);
            }
            shared.presence.lock().unwrap_or_else(PoisonError::into_inner).take();
        };
        let is_drained = deadline.wait(closed).await.is_some();
        let undelivered_count = if is_drained { 0 } else { admission.in_use().0 };
        if !is_drained {
            // The actor still finishes what it has: there is no cutting off a commit.
            self.end();
        }
        shared.enter(StoreState::Stopped, None);
        // Wakes subscribers, whose streams end now.
        shared.commits.send_modify(|_| ());
        CloseReport { is_drained, undelivered_count }
    }

    /// Tells the actor to end behind every accepted write. A dead one has nothing to drain.
    fn end(&self) {
        let _ = self.inner.actor.tell(Close).try_send();
    }

    /// Opens one more read connection.
    #[cfg(test)]
    pub(super) fn reader_for_test(&self) -> Result<Connection> {
        self.inner.shared.file.reader()
    }

    pub(super) fn is_stopped(&self) -> bool {
        matches!(self.inner.shared.status.state(), StoreState::Stopped | StoreState::Failed)
    }

    pub(super) fn timers(&self) -> &Handle {
        &self.inner.runtime
    }

    fn deadline(&self, options: &RequestOptions) -> Deadline {
        let duration = options.deadline.unwrap_or(self.inner.shared.settings.deadline);
        Deadline::after(duration, &self.inner.runtime)
    }

    /// The answer to a request that the actor did not take, or lost.
    /// Readers are closed when the store closes, is damaged, or failed for good.
    fn why_readers_closed(&self, closed: Error) -> Error {
        match self.unavailable(Written::NotApplied) {
            kind @ (Kind::Corrupt { .. } | Kind::StoreFailed { .. }) => kind.into(),
            _ => closed,
        }
    }

    fn unavailable(&self, written: Written) -> Kind {
        // A closing store is not `Stopped` before it is, and will not come back as a restarting one does.
        match self.inner.shared.status.unavailable(written) {
            Kind::Restarting { store, written, .. } if self.inner.shared.closing.is_called_off() => {
                Kind::ShuttingDown { store, written }
            }
            kind => kind,
        }
    }
}

/// Returns the opening with the tokenizer that made the index which is there, where that is to be kept.
fn with_tokenizer_found<S: Store>(mut opening: StoreOpening<S>) -> StoreOpening<S> {
    if !opening.settings.keeps_tokenizer {
        return opening;
    }
    // Nobody replaces the file while it is looked at; where somebody does just now, opening it says so.
    let presence = (!opening.is_exclusive).then(|| Presence::shared(&presence_path(&opening.folder, S::NAME)));
    let file = store_file::<S>(&opening.folder, &opening.settings, &opening.store_settings);
    if !matches!(presence, Some(Err(_)))
        && let Some(tokenizer) = file.tokenizer_found()
    {
        S::set_tokenizer(&mut opening.store_settings, tokenizer);
    }
    opening
}

fn failed<S: Store>(reason: String) -> Kind {
    Kind::StoreFailed { store: S::NAME, reason, written: Written::NotApplied }
}

fn context<'a, S: Store>(
    shared: &'a StoreShared<S>,
    connection: &'a Connection,
    now: Timestamp,
    is_in_place: bool,
) -> ReadContext<'a, S> {
    let (settings, memory, watermark) = (&shared.store_settings, &shared.memory, &shared.watermark);
    ReadContext { connection, now, settings, memory, is_in_place, watermark, process: &shared.process }
}

/// Damage that a check found.
struct Findings {
    /// SQLite's own structures; nothing of the file can be relied on.
    structure: Vec<String>,
    /// Single rows that are not what was stored.
    values: Vec<String>,
}

/// What SQLite's own check finds, at most 100 findings. It may take a read that failed for damage, and does not always say so;
/// damage is there again the second time.
fn structure_findings(connection: &Connection, is_full: bool) -> rusqlite::Result<Vec<String>> {
    let findings = findings_once(connection, is_full)?;
    if findings.is_empty() { Ok(findings) } else { findings_once(connection, is_full) }
}

fn findings_once(connection: &Connection, is_full: bool) -> rusqlite::Result<Vec<String>> {
    let sql = if is_full { "PRAGMA integrity_check" } else { "PRAGMA quick_check" };
    let mut statement = connection.prepare(sql)?;
    let findings = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    match findings.iter().find_map(|finding| fault::of_finding(finding)) {
        Some(failed) => Err(failed),
        None => Ok(findings.into_iter().filter(|finding| finding != "ok").collect()),
    }
}

/// Wraps a read for a reader thread: runs it unless it was called off, and answers its caller.
fn thread_read<S: Store, T: Send + 'static>(
    shared: Arc<StoreShared<S>>,
    name: &'static str,
    ticket: Arc<Ticket>,
    age_max: Option<Duration>,
    permit: Permit,
    reply: oneshot::Sender<Result<T>>,
    read: impl FnOnce(&Connection) -> Outcome<T> + Send + 'static,
) -> ThreadRead {
    Box::new(move |connection| {
        let answer = match connection {
            Ok(connection) if ticket.start(connection) => {
                let scope = ticket.scope(age_max);
                let answer = readers::run(S::NAME, name, connection, |connection| {
                    shared.failpoint(Failpoint::ReadOnThread)?;
                    read(connection)
                });
                drop(scope);
                ticket.finish();
                answer.inspect_err(|error| shared.note_read_error(error))
            }
            // Nobody waits for it any more.
            Ok(_) => return true,
            Err(error) => Err(error),
        };
        let is_good = answer.is_ok() || answer.as_ref().is_err_and(readers::is_harmless);
        drop(permit);
        // The caller may have gone away.
        let _ = reply.send(answer);
        is_good
    })
}

/// Calls the request off when its caller goes away.
struct CallOffOnDrop<'a>(&'a Ticket);

impl CallOffOnDrop<'_> {
    fn call_off(&self) -> CalledOff {
        self.0.call_off()
    }
}

impl Drop for CallOffOnDrop<'_> {
    fn drop(&mut self) {
        self.0.call_off();
    }
}

fn deadline_passed<S: Store>(called_off: CalledOff, doing: &str) -> Kind {
    let written = match called_off {
        CalledOff::BeforeStart => Written::NotApplied,
        CalledOff::TooLate => Written::Unknown,
    };
    Kind::DeadlineExceeded { store: S::NAME, doing: format!("handling {doing}"), written }
}

fn written_if_lost(ticket: &Ticket) -> Written {
    if ticket.has_begun() { Written::Unknown } else { Written::NotApplied }
}
