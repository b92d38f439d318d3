//! What a caller holds of a store: sends writes to its actor, runs reads, observes, subscribes, closes.
//!
//! Start at [`StoreHandle::write`] and [`StoreHandle::read`]; [`StoreHandle::start`] brings a store up.
//!
//! Always true: every request is answered by its deadline; a request whose caller went away before it began never runs.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use kameo::actor::{ActorRef, Spawn};
use kameo::supervision::RestartPolicy;
use larder_protocol::{Error as Kind, Message, RequestOptions, Sequence, StoreName, Timestamp, Written};
use rusqlite::Connection;
use tokio::runtime::Handle;
use tokio::sync::{Notify, broadcast, oneshot, watch};

use super::admission::{Admission, Permit};
use super::context::{Failure, Outcome, ReadContext};
use super::failpoints::{Failpoint, Failpoints};
use super::job::WriteJob;
use super::lease::Process;
use super::readers::{self, Readers, ThreadRead};
use super::settings::StoreSettings;
use super::status::{Status, StoreEvent, StoreObservation, StoreState};
use super::subscription::Notices;
use super::ticket::{CalledOff, Ticket};
use super::writer::{Beginning, Close, Flush, Maintain, Replace, SetAside, Submit, Writer};
use super::{ReadHandler, ReadLane, Store, WriteHandler, changes, group};
use crate::error::{Error, Result};
use crate::sqlite::ballast::Ballast;
use crate::sqlite::checkpoint::{self, CheckpointMode, CheckpointResult, WalStats, next_checkpoint};
use crate::sqlite::connection::{self, Durability, StoreFile};
use crate::sqlite::fault;
use crate::sqlite::presence::Presence;

/// What the runtime decides about a store when it brings it up.
#[derive(Debug)]
pub struct StoreOpening<S: Store> {
    /// The folder that holds the file.
    pub folder: PathBuf,
    /// The settings every store has.
    pub settings: StoreSettings,
    /// This store's own settings.
    pub store_settings: S::Settings,
    /// No other process can have the folder open.
    pub is_exclusive: bool,
    /// Checkpoints are left to a replicator outside.
    pub is_replicated: bool,
    /// The folder's ballast.
    pub ballast: Arc<Ballast>,
    /// Restarts within the window after which the store has failed for good.
    pub restart_limit: (u32, Duration),
    /// Where state changes are told.
    pub events: broadcast::Sender<StoreEvent>,
    /// Told when a WAL has grown enough to look at.
    pub wal_grew: Arc<Notify>,
    /// The runtime that timers and actors live on, whatever the caller's is.
    pub runtime: Handle,
    /// This process, for the leases it holds.
    pub process: Process,
    /// Where the store was told to fail.
    pub failpoints: Arc<Failpoints>,
}

/// What the writer, the readers and the callers of a store share.
pub(crate) struct StoreShared<S: Store> {
    pub(super) file: StoreFile,
    pub(super) settings: StoreSettings,
    pub(super) store_settings: S::Settings,
    pub(super) memory: S::Memory,
    pub(super) status: Status,
    pub(super) commits: watch::Sender<Sequence>,
    pub(super) turn_path: Option<PathBuf>,
    pub(super) is_replicated: bool,
    pub(super) ballast: Arc<Ballast>,
    /// The end of the actor is wanted.
    is_closing: AtomicBool,
    custody: CustodyState,
    /// Told when the state becomes [`StoreState::Quarantined`].
    quarantined: Notify,
    presence_path: Option<PathBuf>,
    /// Held while this process has the file open.
    presence: Mutex<Option<Presence>>,
    failpoints: Arc<Failpoints>,
    pub(super) process: Process,
    pub(super) failures_in_a_row: AtomicU32,
    events: broadcast::Sender<StoreEvent>,
    wal_grew: Arc<Notify>,
}

impl<S: Store> StoreShared<S> {
    /// Enters a state, and tells the host when that is a change.
    pub(super) fn enter(&self, state: StoreState, reason: Option<String>) {
        if self.status.enter(state, reason.clone()) {
            tracing::info!(store = %S::NAME, ?state, reason, "store state");
            // Nobody may be listening.
            let _ = self.events.send(StoreEvent { store: S::NAME, state, reason });
            if state == StoreState::Quarantined {
                self.quarantined.notify_one();
            }
        }
    }

    /// Announces that this process has the file open. Blocks while another one replaces it.
    fn announce(&self) -> Result<()> {
        let Some(path) = &self.presence_path else { return Ok(()) };
        let presence = Presence::shared(path).map_err(|e| self.present_error(e))?;
        *self.presence.lock().unwrap_or_else(PoisonError::into_inner) = Some(presence);
        Ok(())
    }

    /// Runs `swap` while no process has the file open, and announces this one again.
    pub(super) fn replace_presence(&self, swap: Box<dyn FnOnce() -> Result<()> + Send>) -> Result<()> {
        let alone =
            self.presence_path.as_deref().map(Presence::alone).transpose().map_err(|e| self.present_error(e))?;
        swap()?;
        drop(alone);
        self.announce()
    }

    fn present_error(&self, error: std::io::Error) -> Error {
        if error.kind() != std::io::ErrorKind::WouldBlock {
            return group::io_error::<S>("locking its file against replacement", error);
        }
        let what = self.file.path.display().to_string();
        Kind::Refused { what, reason: "another process has it open, or replaces it".to_owned() }.into()
    }

    /// Notes that a sync failed, in a relaxed store: frames that are committed may never reach the disk, though later syncs
    /// succeed. The main file is sound, and stays so as long as nothing is folded into it: a power cut in the middle of that
    /// would find neither the old pages nor the frames. So from here on nothing is, until the folder is opened again.
    pub(super) fn note_failed_sync(&self, error: &rusqlite::Error) {
        if self.settings.durability == Durability::Relaxed && fault::is_failed_sync(error) {
            if !self.status.is_wal_unsynced.swap(true, Ordering::AcqRel) {
                self.file.mark_unsynced();
            }
            self.enter(StoreState::Degraded, Some(UNSYNCED.to_owned()));
        }
    }

    /// Whether the last connection to close must not fold the WAL in: nobody would hear of a sync that fails then.
    fn must_leave_wal(&self) -> bool {
        let is_relaxed = self.settings.durability == Durability::Relaxed;
        self.is_wal_unsynced() || (is_relaxed && self.status.wal_frames.load(Ordering::Relaxed) > 0)
    }

    /// Enters the state of a store whose file is open.
    pub(super) fn enter_open(&self) {
        if self.is_wal_unsynced() {
            self.enter(StoreState::Degraded, Some(UNSYNCED.to_owned()));
        } else {
            self.enter(StoreState::Serving, None);
        }
    }

    /// Takes up what an earlier process found out about the WAL. A durable store cannot keep its promise on such a file.
    fn inherit_unsynced(&self) -> Result<()> {
        let is_unsynced = self.file.is_unsynced();
        if is_unsynced && self.settings.durability == Durability::Durable {
            let reason = format!("{UNSYNCED}; or start the machine anew, or open the store as relaxed");
            return Err(Kind::Refused { what: format!("file {}", self.file.path.display()), reason }.into());
        }
        self.status.is_wal_unsynced.store(is_unsynced, Ordering::Release);
        Ok(())
    }

    /// Whether the WAL must stay as it is.
    pub(super) fn is_wal_unsynced(&self) -> bool {
        self.status.is_wal_unsynced.load(Ordering::Acquire)
    }

    /// Passes a place where a test may have told the store to fail.
    pub(super) fn failpoint(&self, point: Failpoint) -> rusqlite::Result<()> {
        self.failpoints.check(S::NAME, point)
    }

    /// Called when the actor is gone for good.
    fn note_end(&self) {
        if self.is_closing.load(Ordering::Acquire) {
            self.enter(StoreState::Stopped, None);
        } else {
            self.enter(StoreState::Failed, self.status.reason());
        }
        // Wakes subscribers, whose streams end now.
        self.commits.send_modify(|_| ());
    }

    /// Notes the WAL's length after a commit.
    pub(super) fn note_wal(&self, wal: CheckpointResult) {
        self.failures_in_a_row.store(0, Ordering::Release);
        self.status.wal_frames.store(wal.frames, Ordering::Relaxed);
        self.status.wal_checkpointed_frames.store(wal.checkpointed_frames, Ordering::Relaxed);
        if wal.frames.saturating_sub(wal.checkpointed_frames) >= self.settings.checkpoint.background_frames {
            self.wal_grew.notify_one();
        }
    }

    pub(super) fn note_checkpoint(&self, mode: CheckpointMode, result: Option<CheckpointResult>) {
        let Some(result) = result else { return };
        self.status.checkpoint_count.fetch_add(1, Ordering::Relaxed);
        // A complete checkpoint lets the next commit start the WAL over: nothing is left to do until then. After an
        // incomplete truncation the WAL stays as it is, and the next tick tries again.
        let is_done = result.is_complete() && (mode == CheckpointMode::Passive || result.frames == 0);
        let frames = if is_done && mode == CheckpointMode::Truncate { 0 } else { result.frames };
        self.status.wal_frames.store(frames, Ordering::Relaxed);
        self.status.wal_checkpointed_frames.store(result.checkpointed_frames, Ordering::Relaxed);
        let is_pinned = !result.is_complete() && result.frames >= self.settings.checkpoint.writer_hard_frames;
        if self.status.is_wal_pinned.swap(is_pinned, Ordering::Relaxed) != is_pinned {
            tracing::warn!(store = %S::NAME, is_pinned, frames = result.frames, "a reader pins the WAL, or no longer does");
        }
    }

    /// Counts a read's panic, and sets the store's file aside when a read found SQLite's own structures damaged.
    ///
    /// A value that fails its checksum is its reader's error alone: it carries no cause from SQLite.
    fn note_read_error(&self, error: &Error) {
        if matches!(error.kind(), Kind::Panicked { .. }) {
            self.status.panic_count.fetch_add(1, Ordering::Relaxed);
        }
        let Kind::Corrupt { detail, .. } = error.kind() else { return };
        if std::error::Error::source(error).is_some() {
            self.enter(StoreState::Quarantined, Some(detail.clone()));
        } else {
            self.status.damaged_read_count.fetch_add(1, Ordering::Relaxed);
            tracing::error!(store = %S::NAME, %error, "a stored value is damaged");
        }
    }
}

/// The right to have the file open for writing in this process, held by one incarnation of the actor at a time.
pub(super) struct Custody<S: Store> {
    shared: Arc<StoreShared<S>>,
}

/// Whether some incarnation holds the [`Custody`].
#[derive(Debug, Default)]
pub(super) struct CustodyState {
    is_taken: Mutex<bool>,
    released: Condvar,
}

impl<S: Store> Custody<S> {
    /// Waits until the former holder has closed its connection. Blocks.
    pub(super) fn acquire(shared: &Arc<StoreShared<S>>) -> Self {
        let CustodyState { is_taken, released } = &shared.custody;
        let mut is_taken = is_taken.lock().unwrap_or_else(PoisonError::into_inner);
        while *is_taken {
            is_taken = released.wait(is_taken).unwrap_or_else(PoisonError::into_inner);
        }
        *is_taken = true;
        Self { shared: Arc::clone(shared) }
    }

    pub(super) fn shared(&self) -> &Arc<StoreShared<S>> {
        &self.shared
    }
}

impl<S: Store> Drop for Custody<S> {
    fn drop(&mut self) {
        *self.shared.custody.is_taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.shared.custody.released.notify_all();
    }
}

/// A caller's deadline, on the runtime's own timers: the caller's runtime may have none.
#[derive(Debug)]
pub(super) struct Deadline {
    at: Instant,
    runtime: Handle,
}

impl Deadline {
    pub(super) fn after(duration: Duration, runtime: &Handle) -> Self {
        // A deadline past the end of time is one that a year stands in for.
        let now = Instant::now();
        let at = now.checked_add(duration).unwrap_or(now + Duration::from_secs(365 * 24 * 3600));
        Self { at, runtime: runtime.clone() }
    }

    /// Waits for `future` until the deadline; `None` when it passed first.
    pub(super) async fn wait<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let sleep = {
            let _entered = self.runtime.enter();
            tokio::time::sleep_until(self.at.into())
        };
        tokio::select! {
            biased;
            output = future => Some(output),
            () = sleep => None,
        }
    }
}

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
        let shared = Arc::new(shared(opening));
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
        let inner = Inner { shared, admission, readers: Arc::new(readers), actor, runtime, guard, checkpointer };
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
                        Self { inner }.set_aside().await;
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

    /// Replaces the file of a quarantined store, which `swap` does while no process has it open, and serves again.
    ///
    /// # Errors
    /// [`Kind::Refused`] when the store is not quarantined, or another process has the file open; whatever `swap` and
    /// opening the file answer. The store stays quarantined then.
    pub async fn replace_file(&self, swap: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
        let Inner { shared, readers, actor, guard, runtime, .. } = &*self.inner;
        if shared.status.state() != StoreState::Quarantined {
            let reason = "it is not quarantined".to_owned();
            return Err(Kind::Refused { what: format!("{} store", S::NAME), reason }.into());
        }
        self.set_aside().await;
        let (reply, replaced) = oneshot::channel();
        if actor.tell(Replace { swap: Box::new(swap), reply }).try_send().is_err() {
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
            shared.status.memory_read_count.fetch_add(1, Ordering::Relaxed);
            let_others_run(MEMORY_READ_COST).await;
            return Ok(reply);
        }
        if shared.settings.reads_in_place && S::lane(&message) == ReadLane::InPlace {
            let read = |connection: &Connection| {
                shared.failpoint(Failpoint::ReadInPlace)?;
                S::read(&context(shared, connection, now), &message)
            };
            if let Some(answer) = self.inner.readers.in_place(M::NAME, read) {
                shared.status.in_place_read_count.fetch_add(1, Ordering::Relaxed);
                let_others_run(IN_PLACE_READ_COST).await;
                return answer.inspect_err(|error| shared.note_read_error(error));
            }
        }
        let store = Arc::clone(shared);
        let size_bytes = message.size_bytes();
        let read = move |connection: &Connection| S::read(&context(&store, connection, now), &message);
        self.on_thread(M::NAME, size_bytes, options, read).await
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
        let store = Arc::clone(&self.inner.shared);
        // As long as it takes: a full check reads everything.
        let options = RequestOptions { deadline: Some(Duration::MAX), ..RequestOptions::default() };
        let read = move |_: &Connection| {
            // A connection of its own: one that has searched keeps an FTS5 index's structure in memory, which
            // `integrity_check` does not renew, and would find "corruption" in what was committed since.
            let connection = store.file.reader().map_err(|error| Failure::Refused(error.kind().clone()))?;
            let mut findings = structure_findings(&connection, is_full)?;
            if is_full {
                S::check(&context(&store, &connection, group::now()), &mut |finding| findings.push(finding))?;
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
        let _ = self.inner.actor.tell(Maintain).try_send();
    }

    /// Checkpoints in the background, where the policy says so. Blocks; never waits for a reader or writer.
    ///
    /// # Errors
    /// When SQLite cannot read or write the files; nothing is lost then.
    pub fn checkpoint_if_due(&self) -> Result<()> {
        let shared = &self.inner.shared;
        let wal = WalStats {
            frames: shared.status.wal_frames.load(Ordering::Relaxed),
            checkpointed_frames: shared.status.wal_checkpointed_frames.load(Ordering::Relaxed),
            is_pinned: shared.status.is_wal_pinned.load(Ordering::Relaxed),
            idle_for: shared.status.idle_for(),
        };
        match next_checkpoint(wal, &shared.settings.checkpoint) {
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
        let done = shared.failpoint(Failpoint::Checkpoint).and_then(|()| checkpoint::checkpoint(connection, mode));
        match done {
            Ok(result) => {
                self.inner.shared.note_checkpoint(mode, result);
                Ok(())
            }
            Err(error) => {
                shared.note_failed_sync(&error);
                *slot = None;
                Err(crate::sqlite::fault::describe(S::NAME, "checkpointing", Written::NotApplied, error))
            }
        }
    }

    /// Stops the store: accepts nothing more, commits what was accepted, closes the file. Waits for it until `drain`.
    pub async fn close(&self, drain: Duration) -> CloseReport {
        let Inner { shared, admission, readers, actor, runtime, checkpointer, guard } = &*self.inner;
        shared.is_closing.store(true, Ordering::Release);
        admission.close();
        let deadline = Deadline::after(drain, runtime);
        let readers = Arc::clone(readers);
        let custody_of = Arc::clone(shared);
        let closed = async {
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
            Kind::Restarting { store, written, .. } if self.inner.shared.is_closing.load(Ordering::Acquire) => {
                Kind::ShuttingDown { store, written }
            }
            kind => kind,
        }
    }
}

/// Why a relaxed store whose sync failed is degraded.
pub(super) const UNSYNCED: &str = "a sync failed: what was written since the last good one may not survive a power cut; take a snapshot and restore it";

fn failed<S: Store>(reason: String) -> Kind {
    Kind::StoreFailed { store: S::NAME, reason, written: Written::NotApplied }
}

/// Returns where processes announce that they have a store's file open.
#[must_use]
pub fn presence_path(folder: &Path, store: StoreName) -> PathBuf {
    folder.join("locks").join(format!("{store}.open"))
}

/// Returns where and how a store keeps its file, whether it runs or not.
#[must_use]
pub fn store_file<S: Store>(folder: &Path, settings: &StoreSettings, own: &S::Settings) -> StoreFile {
    StoreFile {
        store: S::NAME,
        path: folder.join(format!("{}.db", S::NAME)),
        schema: S::SCHEMA,
        durability: settings.durability,
        cache_bytes: settings.cache_bytes,
        is_replicated: false,
        text_index: S::text_index(own),
        is_run_time_object: S::is_run_time_object,
    }
}

fn shared<S: Store>(opening: StoreOpening<S>) -> StoreShared<S> {
    let StoreOpening {
        folder,
        settings,
        store_settings,
        is_exclusive,
        is_replicated,
        ballast,
        events,
        wal_grew,
        failpoints,
        process,
        ..
    } = opening;
    StoreShared {
        file: StoreFile { is_replicated, ..store_file::<S>(&folder, &settings, &store_settings) },
        memory: S::memory(&store_settings, is_exclusive),
        status: Status::new(S::NAME),
        commits: watch::Sender::new(Sequence(0)),
        turn_path: (!is_exclusive).then(|| folder.join("locks").join(format!("{}.turn", S::NAME))),
        is_replicated,
        ballast,
        is_closing: AtomicBool::new(false),
        custody: CustodyState::default(),
        quarantined: Notify::new(),
        presence_path: (!is_exclusive).then(|| presence_path(&folder, S::NAME)),
        presence: Mutex::default(),
        failpoints,
        process,
        failures_in_a_row: AtomicU32::new(0),
        settings,
        store_settings,
        events,
        wal_grew,
    }
}

/// What reads that never wait cost, in parts of about 0.1 µs.
const IN_PLACE_READ_COST: u32 = 64;
const MEMORY_READ_COST: u32 = 4;
/// A thread does so much, 100 µs, before it lets another task run, and so much less among many readers that all of them
/// together have had their turn within about 1.6 ms. tokio looks at its timers once all tasks had theirs: with its own
/// budget of 128 steps a task, a timer beside 256 readers came 200 ms late. Letting others run costs a lone reader as much
/// as a read.
const TURN_COST_MAX: u32 = 1_000;
const ROUND_COST_MAX: u32 = 16_000;

thread_local! {
    /// What this thread read since it last let another task run.
    static COST: Cell<u32> = const { Cell::new(0) };
}

/// How many callers of this process let others run, and wait for their next turn.
static WAITING_COUNT: AtomicU32 = AtomicU32::new(0);

/// Lets the caller's other tasks run now and then: a read in place never waits, so a loop of them would hold the thread.
async fn let_others_run(cost: u32) {
    let sum = COST.get() + cost;
    let reader_count = WAITING_COUNT.load(Ordering::Relaxed) + 1;
    if sum < TURN_COST_MAX.min(ROUND_COST_MAX / reader_count) {
        COST.set(sum);
        return;
    }
    COST.set(0);
    let _waiting = Waiting::new();
    tokio::task::yield_now().await;
}

/// Counts a waiting caller, cancelled ones only as long as they wait.
struct Waiting;

impl Waiting {
    fn new() -> Self {
        WAITING_COUNT.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING_COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}

fn context<'a, S: Store>(shared: &'a StoreShared<S>, connection: &'a Connection, now: Timestamp) -> ReadContext<'a, S> {
    ReadContext { connection, now, settings: &shared.store_settings, memory: &shared.memory }
}

/// What SQLite's own check finds, at most 100 findings. It takes a read that failed for damage; damage is there again the
/// second time.
fn structure_findings(connection: &Connection, is_full: bool) -> rusqlite::Result<Vec<String>> {
    let findings = findings_once(connection, is_full)?;
    if findings.is_empty() { Ok(findings) } else { findings_once(connection, is_full) }
}

fn findings_once(connection: &Connection, is_full: bool) -> rusqlite::Result<Vec<String>> {
    let sql = if is_full { "PRAGMA integrity_check" } else { "PRAGMA quick_check" };
    let mut statement = connection.prepare(sql)?;
    let findings = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    Ok(findings.into_iter().filter(|finding| finding != "ok").collect())
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
