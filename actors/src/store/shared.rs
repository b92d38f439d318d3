//! What the writer, the readers and the callers of a store share, from its start to its end.
//!
//! Start at [`StoreShared`]; [`Custody`] says which incarnation of the actor may have the file open for writing.
//!
//! Always true: it outlives every restart; its state is told to the host when it changes, and only then.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use larder_protocol::{Error as Kind, Sequence, StoreName};
use tokio::runtime::Handle;
use tokio::sync::{Notify, broadcast, watch};

use super::failpoints::{Failpoint, Failpoints};
use super::lease::Process;
use super::settings::StoreSettings;
use super::status::{Status, StoreEvent, StoreState};
use super::{Store, group};
use crate::error::{Error, Result};
use crate::sqlite::ballast::Ballast;
use crate::sqlite::checkpoint::{CheckpointMode, CheckpointResult, is_background_due};
use crate::sqlite::connection::{Durability, StoreFile};
use crate::sqlite::fault;
use crate::sqlite::interrupt::CallOff;
use crate::sqlite::presence::Presence;
use crate::sqlite::watermark::Watermark;

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

/// How a quarantined store's file is replaced.
pub struct Replacement {
    /// Whether another process has done it.
    pub is_done: Box<dyn Fn() -> bool + Send>,
    /// Does it. No process has the file open meanwhile.
    pub swap: Box<dyn FnOnce() -> Result<()> + Send>,
}

impl std::fmt::Debug for Replacement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replacement").finish_non_exhaustive()
    }
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
    pub(super) watermark: Watermark,
    pub(super) is_replicated: bool,
    pub(super) ballast: Arc<Ballast>,
    /// The end of the actor is wanted: called off then is what nobody waits for that long, as compacting.
    pub(super) closing: Arc<CallOff>,
    pub(super) custody: CustodyState,
    /// Told when the state becomes [`StoreState::Quarantined`].
    pub(super) quarantined: Notify,
    pub(super) presence_path: Option<PathBuf>,
    /// Held while this process has the file open.
    pub(super) presence: Mutex<Option<Presence>>,
    pub(super) failpoints: Arc<Failpoints>,
    pub(super) process: Process,
    pub(super) failures_in_a_row: AtomicU32,
    pub(super) events: broadcast::Sender<StoreEvent>,
    pub(super) wal_grew: Arc<Notify>,
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
    pub(super) fn announce(&self) -> Result<()> {
        let Some(path) = &self.presence_path else { return Ok(()) };
        let presence = Presence::shared(path).map_err(|e| self.present_error(e))?;
        *self.presence.lock().unwrap_or_else(PoisonError::into_inner) = Some(presence);
        Ok(())
    }

    /// Replaces the file while no process has it open, unless another one has done so, and announces this one again.
    pub(super) fn replace_presence(&self, Replacement { is_done, swap }: Replacement) -> Result<()> {
        self.announce()?;
        if is_done() {
            return Ok(());
        }
        self.presence.lock().unwrap_or_else(PoisonError::into_inner).take();
        let alone =
            self.presence_path.as_deref().map(Presence::alone).transpose().map_err(|e| self.present_error(e))?;
        if !is_done() {
            swap()?;
        }
        drop(alone);
        self.announce()
    }

    pub(super) fn present_error(&self, error: std::io::Error) -> Error {
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
    pub(super) fn must_leave_wal(&self) -> bool {
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
    pub(super) fn inherit_unsynced(&self) -> Result<()> {
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
    pub(super) fn note_end(&self) {
        if self.closing.is_called_off() {
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
        self.status.wal_longest_frames.fetch_max(wal.frames, Ordering::Relaxed);
        self.status.wal_checkpointed_frames.store(wal.checkpointed_frames, Ordering::Relaxed);
        // None are, once it has started over.
        self.status.wal_synced_frames.fetch_min(wal.checkpointed_frames, Ordering::Relaxed);
        if is_background_due(self.status.wal(), &self.settings.checkpoint) {
            self.wal_grew.notify_one();
        }
    }

    /// Notes what a checkpoint reached that began after so many commits.
    pub(super) fn note_checkpoint(&self, mode: CheckpointMode, commit_count: u64, result: Option<CheckpointResult>) {
        let Some(result) = result else { return };
        self.status.checkpoint_count.fetch_add(1, Ordering::Relaxed);
        // A complete checkpoint lets the next commit start the WAL over: nothing is left to do until then. After an
        // incomplete truncation the WAL stays as it is, and the next tick tries again.
        let is_done = result.is_complete() && (mode == CheckpointMode::Passive || result.frames == 0);
        let frames = if is_done && mode == CheckpointMode::Truncate { 0 } else { result.frames };
        self.status.wal_frames.store(frames, Ordering::Relaxed);
        self.status.wal_checkpointed_frames.store(result.checkpointed_frames, Ordering::Relaxed);
        if frames == 0 {
            self.status.wal_longest_frames.store(0, Ordering::Relaxed);
        }
        if result.is_complete() {
            self.status.wal_synced_frames.store(frames, Ordering::Relaxed);
            // What was committed meanwhile may not be in it: then the numbers above are those of before.
            self.status.settled_at_commit.store(commit_count, Ordering::Release);
        }
        let is_pinned = !result.is_complete() && result.frames >= self.settings.checkpoint.writer_hard_frames;
        if self.status.is_wal_pinned.swap(is_pinned, Ordering::Relaxed) != is_pinned {
            tracing::warn!(store = %S::NAME, is_pinned, frames = result.frames, "a reader pins the WAL, or no longer does");
        }
    }

    /// Counts a read's panic, and sets the store's file aside when a read found SQLite's own structures damaged.
    ///
    /// A value that fails its checksum is its reader's error alone: it carries no cause from SQLite.
    pub(super) fn note_read_error(&self, error: &Error) {
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

/// Why a relaxed store whose sync failed is degraded.
pub(super) const UNSYNCED: &str = "a sync failed: what was written since the last good one may not survive a power cut; take a snapshot and restore it";

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

/// # Errors
/// When what processes share beside the file cannot be opened.
pub(super) fn shared<S: Store>(opening: StoreOpening<S>) -> Result<StoreShared<S>> {
    let StoreOpening {
        folder,
        mut settings,
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
    S::adjust(&mut settings, &store_settings);
    let in_locks = |suffix: &str| (!is_exclusive).then(|| folder.join("locks").join(format!("{}.{suffix}", S::NAME)));
    let watermark = Watermark::open(in_locks("watermark").as_deref())
        .map_err(|e| group::io_error::<S>("opening its watermark", e))?;
    Ok(StoreShared {
        file: StoreFile { is_replicated, ..store_file::<S>(&folder, &settings, &store_settings) },
        memory: S::memory(&store_settings, is_exclusive),
        status: Status::new(S::NAME),
        commits: watch::Sender::new(Sequence(0)),
        turn_path: in_locks("turn"),
        watermark,
        is_replicated,
        ballast,
        closing: Arc::default(),
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
    })
}
