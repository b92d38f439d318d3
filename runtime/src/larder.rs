//! The runtime: one folder, its stores, and the threads that serve them.
//!
//! Start at [`Larder`]; [`Shared`] is what its clones share.
//!
//! Always true: actors, timers and checkpoints live on the runtime's own threads, so that any caller's runtime will do;
//! dropping a larder without closing it is as safe as a crash.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::BoxStream;
use kameo::actor::ActorRef;
use larder_actors::sqlite::ballast::Ballast;
use larder_actors::sqlite::presence::Presence;
use larder_actors::store::{
    Ask, Compaction, Failpoints, Notices, Process, Replacement, StoreEvent, StoreHandle, StoreObservation,
    StoreOpening, StoreState, presence_path, store_file,
};
use larder_actors::{Error, Result};
use larder_protocol::{Class, ContextName, Error as Kind, RequestOptions, Sequence, StoreName, Written};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, RwLock, broadcast};
use tracing::Instrument;

use crate::backup::{self, Snapshot};
use crate::context::{ContextBuilder, Subjects};
use crate::error::OpenError;
use crate::folder::Folder;
use crate::handles::chat::Chat;
use crate::handles::documents::Documents;
use crate::handles::embed_cache::{CacheState, EmbedCache};
use crate::handles::graph::Graph;
use crate::handles::kv::Kv;
use crate::handles::vectors::Vectors;
use crate::open::{self, Builder};
use crate::quarantine;
use crate::rebuild;
use crate::request::Request;
use crate::settings::{Replicator, Settings, Sharing};
use crate::stores::{HOSTED, Hosted, HostedStore, Running, RunningStore, Stores, snapshot};
use crate::supervisor::{self, Rounds, Supervisor};

/// State changes a slow listener may be behind before it misses the oldest.
const EVENTS_KEPT: usize = 256;

/// An open larder. Clones are cheap and share everything.
///
/// Opening does little: a store's file, threads and memory appear at its first use.
#[derive(Debug, Clone)]
pub struct Larder {
    opening: Arc<Opening>,
}

/// One call of open, whose clones close it together, and only once.
#[derive(Debug)]
struct Opening {
    shared: Arc<Shared>,
    is_closed: Mutex<bool>,
}

impl Opening {
    /// Gives this opening up, unless that was done; answers how many others there are.
    fn leave(&self) -> usize {
        let mut is_closed = self.is_closed.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *is_closed, true) {
            self.shared.open_count.fetch_sub(1, Ordering::AcqRel);
        }
        self.shared.open_count.load(Ordering::Acquire)
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What the clones of a larder share.
#[derive(Debug)]
pub(crate) struct Shared {
    settings: Settings,
    stores: Stores,
    supervisor: ActorRef<Supervisor>,
    events: broadcast::Sender<StoreEvent>,
    wal_grew: Arc<Notify>,
    ballast: Arc<Ballast>,
    failpoints: Arc<Failpoints>,
    process: Process,
    cache: CacheState,
    subjects: Subjects,
    /// Held while a store is restored.
    restoring: tokio::sync::Mutex<()>,
    /// How often the folder was opened and neither closed nor dropped.
    open_count: AtomicUsize,
    /// Held for reading while a store starts, so that a close comes before or behind it.
    is_closing: RwLock<bool>,
    handle: tokio::runtime::Handle,
    /// Taken by whoever ends the runtime.
    ending: Mutex<Option<Ending>>,
}

/// What must outlive the stores, in the order in which it goes.
#[derive(Debug)]
struct Ending {
    runtime: Runtime,
    folder: Folder,
    /// The folder of [`Larder::temporary`], removed once nothing uses it.
    temporary: Option<tempfile::TempDir>,
}

impl Ending {
    /// Lets go of threads and folder. Every store must be closed.
    fn let_go(self) {
        let Self { runtime, folder, temporary } = self;
        let path = folder.path().to_owned();
        // Not dropped in place: that would panic inside async code.
        runtime.shutdown_background();
        drop(folder);
        drop(temporary);
        open::forget(&path);
    }

    /// Lets go, on a thread of its own, once the stores have closed their files: until then timers must run for callers
    /// who still wait, and nobody else may open the folder.
    fn let_go_later(self, running: Running) {
        let wait = move || {
            self.runtime.block_on(async {
                for store in snapshot(&running) {
                    store.close(Duration::MAX).await;
                }
            });
            self.let_go();
        };
        // Without a thread nothing is let go of until the process ends, which is as safe.
        let _ = std::thread::Builder::new().name("larder-close".to_owned()).spawn(wait);
    }
}

/// What became of everything when a larder was closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CloseReport {
    /// The folder was opened elsewhere in this process too, so that nothing was closed yet.
    pub is_still_open: bool,
    /// Stores that did not finish by the deadline, with the requests that were not delivered.
    pub undelivered: Vec<(StoreName, usize)>,
}

impl CloseReport {
    /// Returns whether everything that was accepted was answered.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.undelivered.is_empty()
    }
}

/// What became of a store that was restored from a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestoredStore {
    /// Where its file came from.
    pub snapshot: Snapshot,
    /// The folder with the damaged files.
    pub damaged: PathBuf,
}

/// How closely to look for damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckDepth {
    /// The structure of the files.
    Quick,
    /// The structure with every index, and every value against its checksum.
    Full,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CheckReport {
    /// Every finding; none means that the files are sound.
    pub findings: Vec<Finding>,
}

/// One damage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Finding {
    /// In which store.
    pub store: StoreName,
    /// What and where.
    pub what: String,
}

/// How a larder is, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Health {
    /// Every store that was used so far answers reads and writes.
    pub is_well: bool,
    /// The state of each store that was used so far, with the reason where it is not a good one.
    pub stores: Vec<StoreEvent>,
}

impl Larder {
    /// Opens the folder with the defaults, each of which is the safe one. It is created where it is missing.
    ///
    /// Opening a folder that this process has open returns the same runtime.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_with(Settings::at(path)).await
    }

    /// Returns a builder for a folder.
    pub fn builder(path: impl AsRef<Path>) -> Builder {
        Builder::new(Settings::at(path))
    }

    /// Opens the folder that the settings name.
    ///
    /// # Errors
    /// See [`OpenError`]; [`OpenError::OtherSettings`] when this process has it open with other settings.
    pub async fn open_with(settings: Settings) -> Result<Self, OpenError> {
        // On a thread of its own: it creates files and takes locks, and the caller's runtime may be of any kind.
        let (sender, opened) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new().name("larder-open".to_owned());
        // A caller that went away wants no larder: the one that was opened is dropped, and thereby closed.
        thread.spawn(move || drop(sender.send(open::open(settings)))).map_err(OpenError::Threads)?;
        opened.await.unwrap_or_else(|_| Err(OpenError::Threads(std::io::Error::other("the opening thread panicked"))))
    }

    /// Opens a folder of its own that is removed when it is closed, or when the last clone is gone: for tests.
    ///
    /// Await [`close`](Self::close) at a program's end: once the last clone is gone the folder is removed by a thread of its own,
    /// which a process that ends does not wait for.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn temporary() -> Result<Self, OpenError> {
        let folder = tempfile::Builder::new().prefix("larder-").tempdir();
        let folder = folder.map_err(|source| OpenError::Folder {
            path: std::env::temp_dir(),
            doing: "creating a temporary folder in it",
            source,
        })?;
        let larder = Self::open(folder.path()).await?;
        if let Some(ending) = &mut *larder.shared().ending() {
            ending.temporary = Some(folder);
        }
        Ok(larder)
    }

    pub(crate) fn of(shared: Arc<Shared>) -> Self {
        Self { opening: Arc::new(Opening { shared, is_closed: Mutex::new(false) }) }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.opening.shared
    }

    /// Returns the key–value store.
    #[must_use]
    pub fn kv(&self) -> Kv {
        Kv::new(self.clone())
    }

    /// Returns the documents store.
    #[must_use]
    pub fn documents(&self) -> Documents {
        Documents::new(self.clone())
    }

    /// Returns the chat store.
    #[must_use]
    pub fn chat(&self) -> Chat {
        Chat::new(self.clone())
    }

    /// Returns the graph store.
    #[must_use]
    pub fn graph(&self) -> Graph {
        Graph::new(self.clone())
    }

    /// Returns the vectors store.
    #[must_use]
    pub fn vectors(&self) -> Vectors {
        Vectors::new(self.clone())
    }

    /// Returns the embedding cache.
    #[must_use]
    pub fn embed_cache(&self) -> EmbedCache {
        EmbedCache::new(self.clone())
    }

    /// Names a context, to be made or found by [`open`](ContextBuilder::open): documents together with their embeddings and facts,
    /// ingested, forgotten and retrieved by one call each.
    pub fn context(&self, name: impl AsRef<str>) -> ContextBuilder {
        ContextBuilder::new(self.clone(), name.as_ref())
    }

    /// Lists every context, in the order of their names.
    ///
    /// # Errors
    /// When the documents store cannot be started or read.
    pub async fn contexts(&self) -> Result<Vec<ContextName>> {
        crate::context::names(self).await
    }

    /// Sends any message to its store.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use larder::protocol::{CollectionName, Key, kv::GetValue};
    ///
    /// let larder = larder::Larder::temporary().await?;
    /// let message = GetValue { collection: CollectionName::new("settings")?, key: Key::new("theme")? };
    /// assert_eq!(larder.ask(message).await?, None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn ask<M: Ask<Store: Hosted>>(&self, message: M) -> Request<M> {
        Request::new(self.clone(), Ok(message), Ok)
    }

    pub(crate) async fn send<M: Ask<Store: Hosted>>(&self, message: M, options: RequestOptions) -> Result<M::Reply> {
        let sent = self.send_to_store(message, options);
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return sent.await;
        }
        // Boxed, so that the future of everybody who does not trace stays small.
        let span = tracing::debug_span!("larder.request", store = %M::STORE, message = M::NAME);
        Box::pin(sent.instrument(span)).await
    }

    async fn send_to_store<M: Ask<Store: Hosted>>(&self, message: M, options: RequestOptions) -> Result<M::Reply> {
        match M::Store::slot(&self.shared().stores).get() {
            Some(store) => message.send(store, options).await,
            None => message.send(&self.store().await?, options).await,
        }
    }

    /// Returns the store, if it was used already.
    pub(crate) fn started<S: Hosted>(&self) -> Option<&StoreHandle<S>> {
        S::slot(&self.shared().stores).get()
    }

    /// Returns what the embedding cache keeps beside its store.
    pub(crate) fn cache(&self) -> &CacheState {
        &self.shared().cache
    }

    /// Returns what contexts are at work on in this process.
    pub(crate) fn subjects(&self) -> &Subjects {
        &self.shared().subjects
    }

    /// Waits for `future` until `at`, on the runtime's own timers; `None` when that passed first.
    pub(crate) async fn wait_until<T>(&self, at: Instant, future: impl Future<Output = T>) -> Option<T> {
        let timeout = {
            let _entered = self.shared().handle.enter();
            tokio::time::timeout_at(at.into(), future)
        };
        timeout.await.ok()
    }

    /// Runs work that must not hold up the caller's threads on a blocking thread of the runtime's.
    pub(crate) async fn off_thread<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        self.shared().handle.spawn_blocking(work).await.ok()
    }

    /// Runs work in a task of the runtime's, which goes on if the caller goes away; `None` when the runtime ended, or it
    /// panicked.
    pub(crate) async fn in_task<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        self.shared().handle.spawn(work).await.ok()
    }

    /// Runs work in the background, as long as the runtime lives.
    pub(crate) fn in_background(&self, work: impl Future<Output = ()> + Send + 'static) {
        drop(self.shared().handle.spawn(work));
    }

    /// Returns the settings the folder was opened with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.shared().settings
    }

    /// Returns every used store's state and counters; never waits.
    #[must_use]
    pub fn observe(&self) -> Vec<StoreObservation> {
        snapshot(self.shared().stores.running()).iter().map(|store| store.observe()).collect()
    }

    /// Returns whether every used store is well, and what is the matter where one is not; never waits.
    #[must_use]
    pub fn health(&self) -> Health {
        let observations = self.observe();
        let stores = observations.into_iter().map(|seen| StoreEvent::new(seen.store, seen.state, seen.reason));
        let stores: Vec<_> = stores.collect();
        Health { is_well: stores.iter().all(|store| store.state == StoreState::Serving), stores }
    }

    /// Returns a stream of the stores' state changes from now on. A listener more than 256 behind misses the oldest.
    #[must_use]
    pub fn events(&self) -> BoxStream<'static, StoreEvent> {
        let events = self.shared().events.subscribe();
        futures::stream::unfold(events, |mut events| async {
            loop {
                match events.recv().await {
                    Ok(event) => return Some((event, events)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        })
        .boxed()
    }

    /// Returns a stream of what a store commits after `sequence`, by this process and others. See
    /// [`Notice`](larder_protocol::change::Notice).
    ///
    /// # Errors
    /// When the store cannot be started.
    pub(crate) async fn subscribe<S: Hosted>(&self, after: Sequence) -> Result<Notices> {
        Ok(self.store::<S>().await?.subscribe(after))
    }

    pub(crate) async fn sequence<S: Hosted>(&self) -> Result<Sequence> {
        self.store::<S>().await?.sequence().await
    }

    /// Makes everything acknowledged so far survive a power cut, in stores that are `Relaxed`; in others it already does.
    ///
    /// # Errors
    /// When a store cannot sync its file, or its deadline passes first.
    pub async fn flush(&self) -> Result<()> {
        for store in snapshot(self.shared().stores.running()) {
            store.flush().await?;
        }
        Ok(())
    }

    /// Writes a store's file anew, without gaps, so that it is as large as what is in it; answers how large it was and is.
    ///
    /// Pages that deletes leave empty are given back to the file system bit by bit, without being asked. This is for a store of
    /// which much was deleted here and there. It does first what maintenance would do in a while. The file takes up to
    /// three times its size on the disk meanwhile: in itself, in a temporary file (in `$SQLITE_TMPDIR`, `$TMPDIR` or
    /// `/var/tmp`) and in its WAL. Reads go on; writes of this process wait, about 10 s a gigabyte, and those of others
    /// are refused after 10 s. It has no deadline, and ends when the larder is closed.
    ///
    /// # Errors
    /// [`DiskFull`](Kind::DiskFull) and [`Io`](Kind::Io) when the file cannot be written; [`NotFound`](Kind::NotFound) when this
    /// build has no such store. The store is as it was then.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let larder = larder::Larder::temporary().await?;
    /// let compacted = larder.compact(larder::protocol::StoreName::Vectors).await?;
    /// assert!(compacted.bytes_after <= compacted.bytes_before);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn compact(&self, store: StoreName) -> Result<Compaction> {
        let not_found = || Kind::NotFound { what: format!("the {store} store") };
        let hosted = HostedStore::named(store).ok_or_else(not_found)?;
        (hosted.start)(self.clone()).await?;
        let running = snapshot(self.shared().stores.running()).into_iter().find(|running| running.name() == store);
        running.ok_or_else(not_found)?.compact().await
    }

    /// Looks for damage in every store that has a file: its structure, and with [`CheckDepth::Full`] each value against
    /// its checksum too. Writers go on meanwhile. A quick check takes about 4 s a gigabyte, a full one several times that.
    ///
    /// # Errors
    /// When a store cannot be started or read at all; damage is not an error but a finding.
    pub async fn check(&self, depth: CheckDepth) -> Result<CheckReport> {
        let mut findings = Vec::new();
        // Started, since a store that was not used yet may be damaged as well.
        for store in HOSTED {
            let settings = &self.shared().settings;
            if (store.is_used)(settings)
                && (store.file)(settings).path.exists()
                && let Err(error) = (store.start)(self.clone()).await
            {
                findings.push(damage(store.name, error)?);
            }
        }
        for store in snapshot(self.shared().stores.running()) {
            match store.check(depth == CheckDepth::Full).await {
                Ok(found) => findings.extend(found.into_iter().map(|what| Finding { store: store.name(), what })),
                Err(error) => findings.push(damage(store.name(), error)?),
            }
        }
        Ok(CheckReport { findings })
    }

    /// Copies every store, as all of them are at one instant, to a new folder below `snapshots`, and verifies the copy.
    ///
    /// Writers wait for a few milliseconds while the instant is chosen, not while the files are copied; the WALs grow
    /// meanwhile. The manifest is written last: a folder without one is no snapshot. If B was written after A was
    /// acknowledged, by any process, no snapshot has B without A. It is finished, or removed, whatever the caller does; what a
    /// crash leaves of one has no manifest, is never listed, and is removed when the next one is taken.
    ///
    /// # Errors
    /// [`Overloaded`](Kind::Overloaded) when the files were too busy to be locked together;
    /// [`DeadlineExceeded`](Kind::DeadlineExceeded) when copying took longer than
    /// [`snapshot_time_max`](crate::Settings::snapshot_time_max); [`Refused`](Kind::Refused) when the folder cannot be written.
    pub async fn snapshot(&self, snapshots: impl AsRef<Path>) -> Result<Snapshot> {
        let (settings, snapshots) = (self.shared().settings.clone(), snapshots.as_ref().to_owned());
        let taken = self.shared().handle.spawn_blocking(move || backup::take(&settings, &snapshots)).await;
        taken.unwrap_or_else(|_| Err(shutting_down(StoreName::Kv)))
    }

    /// Replaces the file of a quarantined store by its copy in the newest snapshot below `snapshots` that is sound, and serves
    /// again. The damaged files are kept, in the folder's `quarantine`. Other stores do not notice.
    ///
    /// What was written since the snapshot is only in the damaged files. Subscribers hear of a change of kind `restore` that
    /// names nothing: anything may have changed. Sequences go on behind the newest that this process told anybody. Other
    /// processes that have the store quarantined open the folder again. A crash meanwhile leaves the one file or the other.
    ///
    /// # Errors
    /// [`Refused`](Kind::Refused) when the store is not quarantined and can be opened, or while another process has its
    /// file open; [`NotFound`](Kind::NotFound) when no snapshot holds the store; [`Corrupt`](Kind::Corrupt) when none
    /// that does is sound. The store is then as it was.
    pub async fn restore_store(&self, store: StoreName, snapshots: impl AsRef<Path>) -> Result<RestoredStore> {
        let (larder, snapshots) = (self.clone(), snapshots.as_ref().to_owned());
        // In a task of its own: a caller that goes away does not stop half way.
        let restored = self.shared().handle.spawn(async move {
            match HostedStore::named(store) {
                Some(store) => (store.restore)(larder, snapshots).await,
                None => Err(Kind::NotFound { what: format!("the {store} store") }.into()),
            }
        });
        restored.await.unwrap_or_else(|_| Err(shutting_down(store)))
    }

    pub(crate) async fn restore<S: Hosted>(&self, snapshots: PathBuf) -> Result<RestoredStore> {
        let shared = self.shared();
        let _alone = shared.restoring.lock().await;
        let folder = shared.settings.path.clone();
        let quarantined = match self.store::<S>().await {
            Ok(store) if store.observe().state == StoreState::Quarantined => Some(store),
            Ok(_) => return Err(refused(S::NAME, "it is not quarantined")),
            // It cannot even be opened.
            Err(error) if matches!(error.class(), Class::Corrupt | Class::Refused) => None,
            Err(error) => return Err(error),
        };
        let staged = shared.handle.spawn_blocking(move || {
            let verified = quarantine::newest(&snapshots, S::NAME)?;
            let damaged = quarantine::stage(&folder, S::NAME, &verified)?;
            Ok::<_, Error>(RestoredStore { snapshot: verified.snapshot, damaged })
        });
        let restored = staged.await.map_err(|_| shutting_down(S::NAME))??;
        let folder = shared.settings.path.clone();
        let replaced = match quarantined {
            Some(store) => {
                let swap = Box::new(move || quarantine::roll_forward(&folder, S::NAME));
                store.replace_file(Replacement { is_done: Box::new(|| false), swap }).await
            }
            // The next use starts the store, which first of all finishes what is staged.
            None => self.store::<S>().await.map(drop),
        };
        if let Err(error) = replaced {
            // Where nothing was moved yet, the next start must not do it unasked.
            let folder = shared.settings.path.clone();
            let _ = shared.handle.spawn_blocking(move || quarantine::unstage_if_untouched(&folder, S::NAME)).await;
            return Err(error);
        }
        Ok(restored)
    }

    /// Makes the next `times` passes of a store at a failpoint end in a panic or an error: for tests and examples that show
    /// what happens then. It exists with the feature `failpoints` only.
    #[cfg(feature = "failpoints")]
    pub fn set_failpoint(
        &self,
        store: StoreName,
        point: larder_actors::store::Failpoint,
        action: larder_actors::store::FailpointAction,
        times: u64,
    ) {
        self.shared().failpoints.set(store, point, action, times);
    }

    /// Closes the larder: accepts nothing more, commits what was accepted, folds each WAL into its file, and lets go of
    /// the folder. Other clones get [`ShuttingDown`](Kind::ShuttingDown) from then on.
    ///
    /// If the folder was opened elsewhere in this process too, that larder goes on, and the report says so.
    pub async fn close(self) -> CloseReport {
        if self.opening.leave() > 0 {
            return CloseReport { is_still_open: true, undelivered: Vec::new() };
        }
        let shared = Arc::clone(self.shared());
        // On the runtime's own threads, so that it ends even if this caller goes away.
        let closed = self.shared().handle.spawn(async move { shared.close_stores().await }).await;
        let undelivered = closed.unwrap_or_default();
        self.shared().end(undelivered.is_empty());
        CloseReport { is_still_open: false, undelivered }
    }

    /// Returns the store, started if this is its first use.
    pub(crate) async fn store<S: Hosted>(&self) -> Result<StoreHandle<S>> {
        let shared = Arc::clone(self.shared());
        // In a task of its own: a caller that goes away must not leave a half-started store behind.
        let started = self.shared().handle.spawn(async move {
            let start = || shared.start_store::<S>();
            S::slot(&shared.stores).get_or_try_init(start).await.cloned()
        });
        started.await.unwrap_or_else(|_| Err(shutting_down(S::NAME)))
    }
}

impl Shared {
    /// Starts the threads and the supervisor of a folder.
    pub(crate) fn start(folder: Folder, settings: Settings) -> Result<Self, OpenError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("larder")
            .enable_time()
            .build()
            .map_err(OpenError::Threads)?;
        let handle = runtime.handle().clone();
        let stores = Stores::default();
        let wal_grew = Arc::new(Notify::new());
        let (running, interval) = (Arc::clone(stores.running()), settings.maintenance_interval);
        let ballast = Arc::new(Ballast::at(&folder.path().join("ballast"), settings.ballast_bytes));
        let rounds = Rounds { wal_grew: Arc::clone(&wal_grew), ballast: Arc::clone(&ballast), interval };
        let supervisor = supervisor::start(&handle, running, rounds);
        let cache = CacheState::new(&settings.embed_cache.own);
        Ok(Self {
            settings: Settings { path: folder.path().to_owned(), ..settings },
            stores,
            supervisor,
            events: broadcast::Sender::new(EVENTS_KEPT),
            wal_grew,
            ballast,
            failpoints: Arc::default(),
            process: folder.process(),
            cache,
            subjects: Subjects::default(),
            restoring: tokio::sync::Mutex::default(),
            open_count: AtomicUsize::new(1),
            is_closing: RwLock::new(false),
            handle,
            ending: Mutex::new(Some(Ending { runtime, folder, temporary: None })),
        })
    }

    /// Returns one more larder of this runtime; `None` when it is closing.
    pub(crate) fn join(self: Arc<Self>, settings: &Settings) -> Result<Option<Larder>, OpenError> {
        if self.open_count.load(Ordering::Acquire) == 0 {
            return Ok(None);
        }
        let theirs = Settings { path: self.settings.path.clone(), ..settings.clone() };
        if theirs != self.settings {
            let difference = self.settings.first_difference(&theirs);
            return Err(OpenError::OtherSettings { path: self.settings.path.clone(), difference });
        }
        // A close that comes after this sees the new count; one that came before is waited for.
        let joined = self.open_count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n > 0).then_some(n + 1));
        Ok(joined.is_ok().then(|| Larder::of(self)))
    }

    async fn start_store<S: Hosted>(&self) -> Result<StoreHandle<S>> {
        let is_closing = self.is_closing.read().await;
        if *is_closing {
            return Err(shutting_down(S::NAME));
        }
        if !S::is_used(&self.settings) {
            return Err(refused(S::NAME, "the settings want it to have no file"));
        }
        self.finish_restore(S::NAME).await?;
        let store = match self.open_store::<S>().await {
            Err(error) if S::IS_CACHE && error.is_damage() => {
                rebuild::begin_anew(&self.handle, self.settings.path.clone(), S::NAME).await?;
                self.open_store::<S>().await?
            }
            opened => opened?,
        };
        if S::IS_CACHE {
            let file =
                store_file::<S>(&self.settings.path, &S::config(&self.settings).common, &S::config(&self.settings).own);
            self.handle.spawn(rebuild::whenever_damaged(store.clone(), file, self.events.subscribe()));
        }
        // Before the first write, which may be the one that fills the disk. Without room there is no ballast; the rounds
        // try again.
        let ballast = Arc::clone(&self.ballast);
        let _ = self.handle.spawn_blocking(move || ballast.restore()).await;
        self.running().push(Arc::new(store.clone()));
        Ok(store)
    }

    async fn open_store<S: Hosted>(&self) -> Result<StoreHandle<S>> {
        let config = S::config(&self.settings);
        let opening = StoreOpening {
            folder: self.settings.path.clone(),
            settings: config.common.clone(),
            store_settings: config.own.clone(),
            is_exclusive: self.settings.sharing == Sharing::Exclusive,
            ballast: Arc::clone(&self.ballast),
            is_replicated: self.settings.replicator == Replicator::External,
            restart_limit: (self.settings.restart_limit, self.settings.restart_window),
            events: self.events.clone(),
            wal_grew: Arc::clone(&self.wal_grew),
            runtime: self.handle.clone(),
            process: self.process.clone(),
            failpoints: Arc::clone(&self.failpoints),
        };
        StoreHandle::<S>::start(&self.supervisor, opening).await
    }

    /// Finishes a restore that was begun, by whomever, before anybody opens the store's file.
    async fn finish_restore(&self, store: StoreName) -> Result<()> {
        let folder = self.settings.path.clone();
        let finished = self.handle.spawn_blocking(move || {
            if !quarantine::is_staged(&folder, store) {
                return Ok(());
            }
            let alone = Presence::alone(&presence_path(&folder, store));
            let _alone =
                alone.map_err(|_| refused(store, "another process has its file open, and it is being restored"))?;
            // Another process may have been faster.
            if quarantine::is_staged(&folder, store) { quarantine::roll_forward(&folder, store) } else { Ok(()) }
        });
        finished.await.unwrap_or_else(|_| Err(shutting_down(store)))
    }

    /// Closes every store, the last started first; answers which did not finish.
    async fn close_stores(&self) -> Vec<(StoreName, usize)> {
        *self.is_closing.write().await = true;
        let mut undelivered = Vec::new();
        for store in snapshot(self.stores.running()).into_iter().rev() {
            let report = store.close(self.settings.close_deadline).await;
            if !report.is_drained {
                undelivered.push((store.name(), report.undelivered_count));
            }
        }
        undelivered
    }

    /// Ends the threads and lets go of the folder, unless that was done; later, where a store is still at work.
    fn end(&self, is_drained: bool) {
        let ending = self.ending().take();
        match ending {
            Some(ending) if is_drained => ending.let_go(),
            Some(ending) => ending.let_go_later(Arc::clone(self.stores.running())),
            None => {}
        }
    }

    fn ending(&self) -> MutexGuard<'_, Option<Ending>> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, Vec<Arc<dyn RunningStore>>> {
        self.stores.running().lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    /// Without a close, the stores' threads still end by themselves; a thread waits for that and then lets go.
    fn drop(&mut self) {
        let ending = self.ending.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(ending) = ending else { return };
        ending.let_go_later(Arc::clone(self.stores.running()));
    }
}

fn refused(store: StoreName, reason: &str) -> Error {
    Kind::Refused { what: format!("{store} store"), reason: reason.to_owned() }.into()
}

fn shutting_down(store: StoreName) -> Error {
    Kind::ShuttingDown { store, written: Written::NotApplied }.into()
}

/// What a check says of a store that is too damaged to be started or read.
fn damage(store: StoreName, error: Error) -> Result<Finding> {
    let is_damage = error.class() == Class::Corrupt || error.is_damage();
    if is_damage { Ok(Finding { store, what: error.to_string() }) } else { Err(error) }
}
