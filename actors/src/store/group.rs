//! Group commit: what is queued becomes one transaction, one COMMIT, and then the replies to all.
//!
//! Start at [`Group::run`], which takes one write in, and [`Group::commit`], which ends the group.
//!
//! Always true: no reply leaves before its COMMIT has ended; a write that fails or panics undoes itself and nobody else;
//! after an error the transaction's state is SQLite's (`is_autocommit`), not what we believed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use larder_protocol::{Error as Kind, Sequence, Timestamp, Written};
use rusqlite::Connection;

use super::changes::{self, ChangeSet};
use super::compaction::{self, Compaction};
use super::context::WriteContext;
use super::failpoints::Failpoint;
use super::job::Job;
use super::shared::{Custody, StoreShared, UNSYNCED};
use super::status::StoreState;
use super::{Store, StoreSettings};
use crate::error::{Error, Result};
use crate::sqlite::checkpoint::{self, CheckpointMode, writer_must_checkpoint};
use crate::sqlite::connection::{self, Durability};
use crate::sqlite::fault::{self, Fault};
use crate::sqlite::interrupt::Scope;
use crate::sqlite::turn::Turn;
use crate::sqlite::wal_room::WalRoom;

/// Frames between two attempts to fold in a WAL past its cap: half a MiB.
const RETRY_FRAMES: u32 = 128;

/// What a WAL adds to the file is measured when it has grown by one part in so many of half the ballast.
const MEASURED_PART: u64 = 16;

/// How often a store on a full disk tries a write that needs room, to find out whether there is some again.
const DISK_FULL_PROBE: Duration = Duration::from_millis(200);

/// How often a store whose WAL has reached its limit looks whether the reader that pins it is gone.
const WAL_PINNED_PROBE: Duration = Duration::from_millis(100);

/// One store's write connection and the group open on it, if any.
pub(super) struct Group<S: Store> {
    shared: Arc<StoreShared<S>>,
    settings: StoreSettings,
    connection: Connection,
    wal_room: WalRoom,
    turn: Option<Turn>,
    /// Tells this opening's commits from others' in the change log.
    origin: i64,
    changes: ChangeSet,
    members: Vec<Member<S>>,
    /// What is known of how the members' transaction ended.
    fate: Fate,
    size_bytes: usize,
    began: Option<Instant>,
    /// Set when the connection is gone and could not be had again: the actor must restart.
    broken: Option<Error>,
    /// The WAL's length at the writer's last checkpoint.
    attempted_at_frames: u32,
    /// The WAL's length when its growth was last compared with the ballast.
    measured_at_frames: u32,
    /// When a write last found the disk full; `None` once one succeeded.
    disk_full_at: Option<Instant>,
    /// When a WAL at its limit was last looked at.
    wal_pinned_at: Option<Instant>,
    /// Callers' writes at the last slice of maintenance.
    write_count_before: u64,
    /// Last, so that it is given back after the connection is closed.
    _custody: Custody<S>,
}

/// A write in the open group.
struct Member<S: Store> {
    job: Box<dyn Job<S>>,
    /// It failed in a way that undid the transaction, and takes no part in a replay.
    is_excluded: bool,
}

/// How far a group's transaction has come, for whoever must say what became of it.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    /// COMMIT has not begun.
    Open,
    /// COMMIT has begun.
    Committing,
    /// COMMIT has succeeded.
    Committed,
}

/// What a write left of the transaction.
#[derive(PartialEq)]
enum After {
    /// It succeeded, or failed without a trace.
    Intact,
    /// Part of its changes, or none of the transaction, is left.
    Undone,
    /// As `Undone`, and the connection is not to be trusted: a handler panicked, or SQLite ended the transaction by itself.
    /// FTS5 then keeps totals that it could not read as if they were right, and writes them with the next commit.
    Distrusted,
}

impl<S: Store> Group<S> {
    pub(super) fn open(custody: Custody<S>) -> Result<Self> {
        let shared = Arc::clone(custody.shared());
        let settings = shared.settings.clone();
        let connection = shared.file.writer()?;
        let newest = shared
            .failpoint(Failpoint::Start)
            .and_then(|()| changes::newest(&connection))
            .map_err(|e| fault::describe(S::NAME, "reading its change log", Written::NotApplied, e))?;
        shared.status.sequence.fetch_max(newest.0, Ordering::AcqRel);
        shared.watermark.begin(newest);
        let turn = shared
            .turn_path
            .as_deref()
            .map(Turn::open)
            .transpose()
            .map_err(|e| io_error::<S>("opening its turn file", e))?;
        Ok(Self {
            wal_room: WalRoom::new(shared.file.wal_path(), S::SCHEMA.page_bytes, shared.ballast.bytes()),
            shared,
            settings,
            connection,
            turn,
            origin: i64::from_ne_bytes(uuid_bytes()),
            changes: ChangeSet::default(),
            members: Vec::new(),
            fate: Fate::Open,
            size_bytes: 0,
            began: None,
            broken: None,
            attempted_at_frames: 0,
            measured_at_frames: 0,
            disk_full_at: None,
            wal_pinned_at: None,
            write_count_before: 0,
            _custody: custody,
        })
    }

    /// Takes one write into the group; it is answered when the group ends.
    pub(super) fn run(&mut self, job: Box<dyn Job<S>>) {
        self.guarded(|group| group.take_in(job));
    }

    /// Ends the group: COMMIT, then every reply.
    pub(super) fn commit(&mut self) {
        self.guarded(Self::end);
    }

    /// Does a part of the machinery's own work, where no handler is to blame for a panic.
    ///
    /// It must not reach kameo, whose restart drops the message in hand and what the group holds: here everybody can still
    /// be told what became of their write. The store is broken then, and restarts.
    fn guarded<T: Default>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        catch_unwind(AssertUnwindSafe(|| work(self))).unwrap_or_else(|_panic| {
            self.abandon();
            T::default()
        })
    }

    /// Answers the group's callers after a panic outside their handlers, and gives the connection up.
    fn abandon(&mut self) {
        tracing::error!(store = %S::NAME, "the store panicked outside a message; it restarts");
        self.shared.status.panic_count.fetch_add(1, Ordering::Relaxed);
        let written = match self.fate {
            Fate::Committed => Written::Applied,
            Fate::Committing if self.connection.is_autocommit() => Written::Unknown,
            Fate::Open | Fate::Committing => Written::NotApplied,
        };
        self.rollback();
        // Before anybody is answered: it may not have been told of the commit.
        S::forget(&self.shared.memory);
        (self.began, self.size_bytes, self.fate) = (None, 0, Fate::Open);
        self.broken = Some(Kind::Panicked { store: S::NAME, message: "its own work".to_owned() }.into());
        let error = Error::from(self.shared.status.restarting(written));
        for member in self.members.drain(..) {
            member.job.settle(Err(error.clone()));
        }
    }

    fn take_in(&mut self, mut job: Box<dyn Job<S>>) {
        if self.is_full() {
            self.commit();
        }
        if let Err(unavailable) = self.shared.status.check_accepts() {
            // Nothing more is written to a file that is set aside.
            return job.settle(Err(unavailable.into()));
        }
        if let Err(error) = self.check_room(job.as_ref()).and_then(|()| self.begin()) {
            return job.settle(Err(error));
        }
        if job.is_past_deadline() {
            return job.settle(Err(deadline_error::<S>("waiting for its turn").into()));
        }
        if !job.start(&self.connection) {
            return;
        }
        self.size_bytes += job.size_bytes();
        let after = self.attempt(job.as_mut());
        self.members.push(Member { job, is_excluded: after != After::Intact });
        if after != After::Intact {
            self.replay(after);
            self.commit();
        }
    }

    fn end(&mut self) {
        let Some(began) = self.began.take() else { return };
        let _span = tracing::debug_span!("larder.group", store = %S::NAME, messages = self.members.len()).entered();
        let sequence = self.changes.last_sequence();
        let result = self.end_transaction();
        if result.is_ok() {
            self.publish(began, sequence);
        }
        if self.disk_full_at.is_some() {
            // After a success too: what makes room has taken room in the WAL, and gives it back only when folded in.
            self.relieve_disk();
        }
        self.settle_all(&result);
    }

    /// Commits, and then syncs the WAL with everything that was committed to it before. `None`: the store panicked.
    pub(super) fn flush(&mut self) -> Option<Result<()>> {
        self.guarded(|group| Some(group.sync_wal()))
    }

    fn sync_wal(&mut self) -> Result<()> {
        self.commit();
        if self.settings.durability == Durability::Durable {
            return Ok(());
        }
        if self.shared.is_wal_unsynced() {
            // A sync that succeeds now would not bring back what the failed one lost.
            let (doing, cause) = ("flushing".to_owned(), UNSYNCED.to_owned());
            return Err(Kind::Io { store: S::NAME, doing, cause, written: Written::Unknown }.into());
        }
        let synced = self.write_synced_marker();
        synced.map_err(|e| {
            self.rollback();
            self.note_fault(&e);
            fault::describe(S::NAME, "flushing", Written::Unknown, e)
        })
    }

    /// A commit under FULL syncs the whole WAL file, the relaxed commits before it included.
    fn write_synced_marker(&mut self) -> rusqlite::Result<()> {
        // It cannot be changed inside a transaction.
        self.connection.pragma_update(None, "synchronous", "FULL")?;
        let committed = self.begin_transaction().and_then(|()| self.commit_marker());
        // Nor now, in one that failed: that error would stand for the one that counts.
        self.rollback();
        let relaxed = self.connection.pragma_update(None, "synchronous", "NORMAL");
        committed.and(relaxed)
    }

    /// Ends the open transaction with a row in the change log that says nothing but that it was written.
    fn commit_marker(&self) -> rusqlite::Result<()> {
        let mut marker = ChangeSet::default();
        marker.reset(changes::newest(&self.connection)?);
        marker.record_all("marker", "");
        self.append(&marker)?;
        self.connection.execute_batch("COMMIT")
    }

    /// Writes the file anew, without gaps. `None`: the store panicked.
    pub(super) fn rewrite(&mut self) -> Option<Result<Compaction>> {
        self.guarded(|group| Some(group.write_anew()))
    }

    fn write_anew(&mut self) -> Result<Compaction> {
        self.commit();
        self.shared.status.check_accepts()?;
        if self.shared.is_wal_unsynced() {
            // It would go through the WAL, which could not be folded in.
            let what = format!("compacting the {} store", S::NAME);
            return Err(Kind::Refused { what, reason: UNSYNCED.to_owned() }.into());
        }
        let compactor = self.shared.file.compactor()?;
        let turn = self.turn.take();
        let taken = turn.as_ref().map(Turn::take);
        let compacted = self.shared.failpoint(Failpoint::Compact).and_then(|()| {
            let _scope = Scope::enter(&self.shared.closing, None);
            compaction::write_anew(&compactor, S::SCHEMA.page_bytes)
        });
        drop(taken);
        self.turn = turn;
        match compacted {
            Ok(compacted) => {
                self.checkpoint(CheckpointMode::Truncate);
                Ok(compacted)
            }
            Err(error) => Err(self.failed_to_compact(error)),
        }
    }

    /// What was to be written anew says the same as what is there, so that nothing is undone or unknown.
    fn failed_to_compact(&mut self, error: rusqlite::Error) -> Error {
        self.note_fault(&error);
        if Fault::of(&error) == Fault::Io {
            // Frames of it may be in the WAL; one more commit overwrites them.
            self.shared.status.is_in_doubt.store(true, Ordering::Release);
            if let Err(error) = self.resolve_failed_commit(Sequence(0)) {
                tracing::warn!(store = %S::NAME, %error, "after a compaction that failed");
            }
        }
        // What it put into the WAL in vain is room that others may need.
        self.checkpoint(CheckpointMode::Truncate);
        fault::describe(S::NAME, "compacting its file", Written::NotApplied, error)
    }

    /// Returns whether a handler asked for a slice of maintenance since the last call.
    pub(super) fn take_sweep_due(&mut self) -> bool {
        std::mem::take(&mut self.changes.is_sweep_due)
    }

    /// Returns why the actor must restart, if it must.
    pub(super) fn take_broken(&mut self) -> Option<Error> {
        self.broken.take()
    }

    /// Checkpoints between two groups, where the policy says so.
    pub(super) fn checkpoint_if_due(&mut self) {
        self.guarded(Self::checkpoint_past_caps);
    }

    fn checkpoint_past_caps(&mut self) {
        let wal = self.shared.status.wal();
        let wal_frames = wal.frames;
        let policy = &self.settings.checkpoint;
        // While a reader pins the WAL, one more attempt pays only once there is more to move. Past the cap that is soon: a
        // reader of a few µs may have kept the WAL from starting over, and the next attempt moves little.
        let is_past_cap = wal_frames >= policy.writer_hard_frames;
        let least_frames = policy.background_frames.min(if is_past_cap { RETRY_FRAMES } else { u32::MAX });
        let grown_frames = wal_frames.checked_sub(self.attempted_at_frames).unwrap_or(wal_frames);
        let is_due = grown_frames >= least_frames && writer_must_checkpoint(wal, policy);
        let is_due = is_due || self.outgrows_ballast();
        if self.began.is_some() || self.shared.is_replicated || !is_due {
            return;
        }
        if self.checkpoint(CheckpointMode::Passive) {
            self.attempted_at_frames = wal_frames;
        }
    }

    /// Tells whether folding the WAL into the main file makes that grow by more than the ballast could give on a full disk:
    /// then neither could shrink any more, and deletes would soon find no room in the WAL either.
    fn outgrows_ballast(&mut self) -> bool {
        let status = &self.shared.status;
        let frames = status.wal_frames.load(Ordering::Relaxed);
        let waiting_frames = frames.saturating_sub(status.wal_checkpointed_frames.load(Ordering::Relaxed));
        let page_bytes = u64::from(S::SCHEMA.page_bytes);
        // What goes into the room ahead in the WAL, and what is added before the next look, comes on top.
        let half_bytes = self.shared.ballast.bytes() / 2;
        let measured_bytes = half_bytes / MEASURED_PART;
        let bytes_max = half_bytes.saturating_sub(self.wal_room.step_bytes() + measured_bytes);
        // The file cannot grow by more than what waits, which is known for nothing.
        if bytes_max == 0 || u64::from(waiting_frames) * page_bytes <= bytes_max {
            return false;
        }
        // A look at it takes 10 µs.
        let grown_frames = frames.checked_sub(self.measured_at_frames);
        if grown_frames.is_some_and(|grown| u64::from(grown) * page_bytes < measured_bytes) {
            return false;
        }
        let page_count = self
            .connection
            .prepare_cached("PRAGMA page_count")
            .and_then(|mut statement| statement.query_row([], |row| row.get::<_, u64>(0)));
        let file_bytes = self.shared.file.path.metadata().map(|file| file.len());
        let outgrows = match (page_count, file_bytes) {
            (Ok(pages), Ok(file_bytes)) => (pages * page_bytes).saturating_sub(file_bytes) > bytes_max,
            _ => false,
        };
        // A checkpoint that reaches nothing is tried again behind the next group.
        if !outgrows {
            self.measured_at_frames = frames;
        }
        outgrows
    }

    /// Ends the open group, folds the WAL into the file and closes the connection.
    pub(super) fn close(&mut self) {
        self.commit();
        if self.shared.status.state() == StoreState::Quarantined || self.shared.is_wal_unsynced() {
            return connection::leave_wal(&self.connection);
        }
        self.checkpoint(CheckpointMode::Truncate);
        if self.shared.is_wal_unsynced() {
            connection::leave_wal(&self.connection);
        }
    }

    /// Says in the change log that the file was replaced by an older one, behind every sequence that was ever told: versions
    /// do not come back, and subscribers hear that everything may have changed.
    pub(super) fn note_restored(&mut self) -> Result<()> {
        let told = Sequence(self.shared.status.sequence.load(Ordering::Acquire));
        let noted = self.begin_transaction().and_then(|()| {
            self.changes.reset(told.max(changes::newest(&self.connection)?));
            self.changes.record_all("restore", "");
            self.append(&self.changes)?;
            self.connection.execute_batch("COMMIT")
        });
        noted.map_err(|e| {
            self.rollback();
            fault::describe(S::NAME, "noting that it was restored", Written::NotApplied, e)
        })?;
        self.shared.status.sequence.fetch_max(self.changes.last_sequence().0, Ordering::AcqRel);
        self.shared.commits.send_replace(self.changes.last_sequence());
        Ok(())
    }

    fn is_full(&self) -> bool {
        // While the disk is full each write goes alone: the less it needs, the sooner there is room for it.
        let is_disk_full = self.disk_full_at.is_some() && !self.members.is_empty();
        is_disk_full
            || self.members.len() >= self.settings.group_messages_max
            || self.size_bytes >= self.group_bytes_max()
            || self.began.is_some_and(|began| began.elapsed() > self.settings.group_time_max)
    }

    /// A group must not be larger than what the ballast can give: on a disk that is full right behind it, the WAL that holds
    /// it could not be folded in.
    fn group_bytes_max(&self) -> usize {
        match usize::try_from(self.shared.ballast.bytes() / 2) {
            Ok(room) if room > 0 => self.settings.group_bytes_max.min(room),
            _ => self.settings.group_bytes_max,
        }
    }

    /// Refuses a write for which there is no room, in the file system or in the WAL.
    fn check_room(&mut self, job: &dyn Job<S>) -> Result<()> {
        if !job.makes_room() && !self.has_room_again() {
            return Err(Kind::DiskFull { store: S::NAME, written: Written::NotApplied }.into());
        }
        if self.is_wal_at_limit() && self.began.is_none() {
            self.relieve_wal();
            if self.is_wal_at_limit() {
                let reason = format!(
                    "a reader outside pins the WAL, which has reached its limit of {} bytes",
                    self.settings.wal_bytes_max
                );
                return Err(Kind::Overloaded { store: S::NAME, reason, retry_after: WAL_PINNED_PROBE }.into());
            }
        }
        Ok(())
    }

    /// Tells whether a disk that was full has room for more than what makes room. The ballast that was given up is not
    /// such room: a write that took it would leave none for the next delete.
    fn has_room_again(&mut self) -> bool {
        match self.disk_full_at {
            None => true,
            Some(at) if at.elapsed() < DISK_FULL_PROBE => false,
            Some(_) => {
                self.disk_full_at = Some(Instant::now());
                self.shared.ballast.restore()
            }
        }
    }

    /// Looks whether the cause of a degraded state is gone, so that a store serves again though nobody dares to write.
    pub(super) fn probe(&mut self) {
        self.guarded(Self::look_for_recovery);
    }

    fn look_for_recovery(&mut self) {
        let is_lasting = self.broken.is_some() || self.shared.is_wal_unsynced();
        if self.shared.status.state() != StoreState::Degraded || is_lasting {
            return;
        }
        self.commit();
        if self.disk_full_at.is_some() {
            self.relieve_disk();
        }
        if self.has_room_again() {
            let probed = self.begin_transaction().and_then(|()| self.commit_marker());
            match probed {
                Ok(()) => {
                    self.disk_full_at = None;
                    self.shared.enter(StoreState::Serving, None);
                }
                Err(error) => {
                    self.rollback();
                    self.note_fault(&error);
                }
            }
        }
    }

    /// Tells whether no caller has written since this was last asked.
    pub(super) fn is_at_rest(&mut self) -> bool {
        let write_count = self.shared.status.write_count.load(Ordering::Relaxed);
        std::mem::replace(&mut self.write_count_before, write_count) == write_count
    }

    fn is_wal_at_limit(&self) -> bool {
        let frames = self.shared.status.wal_frames.load(Ordering::Relaxed);
        u64::from(frames) * u64::from(S::SCHEMA.page_bytes) >= self.settings.wal_bytes_max
    }

    /// Tries to start the WAL over, but not at every write.
    fn relieve_wal(&mut self) {
        if self.wal_pinned_at.is_some_and(|at| at.elapsed() < WAL_PINNED_PROBE) {
            return;
        }
        self.wal_pinned_at = Some(Instant::now());
        self.checkpoint(CheckpointMode::Truncate);
    }

    /// Makes room on a full disk: gives up the ballast, and folds the WAL into the file.
    fn relieve_disk(&mut self) {
        self.shared.ballast.release();
        self.checkpoint(CheckpointMode::Truncate);
    }

    /// Checkpoints without waiting for anybody. Answers false where the background was at it, which may leave little to do.
    fn checkpoint(&mut self, mode: CheckpointMode) -> bool {
        if self.shared.is_replicated || self.shared.is_wal_unsynced() {
            return true;
        }
        let commit_count = self.shared.status.commit_count.load(Ordering::Acquire);
        // TRUNCATE waits for readers as long as the connection would for a lock; here it must not wait at all.
        let result = crate::sqlite::connection::without_waiting(&mut self.connection, |connection| {
            checkpoint::checkpoint(connection, mode)
        });
        match result {
            Ok(result) => {
                self.shared.note_checkpoint(mode, commit_count, result);
                result.is_some()
            }
            // The data is safe in the WAL; the next checkpoint tries again.
            Err(error) => {
                self.shared.note_failed_sync(&error);
                tracing::warn!(store = %S::NAME, %error, "checkpoint by the writer failed");
                true
            }
        }
    }

    /// Opens the group's transaction, if none is open.
    fn begin(&mut self) -> Result<()> {
        if self.began.is_some() {
            return Ok(());
        }
        if self.broken.is_some() {
            return Err(self.shared.status.restarting(Written::NotApplied).into());
        }
        self.begin_in_turn().map_err(|e| {
            self.note_fault(&e);
            fault::describe(S::NAME, "beginning a transaction", Written::NotApplied, e)
        })?;
        self.began = Some(Instant::now());
        Ok(())
    }

    fn begin_in_turn(&mut self) -> rusqlite::Result<()> {
        // Taken out for the while, so that it is held beside the rest of the group.
        let turn = self.turn.take();
        let taken = turn.as_ref().map(Turn::take);
        let begun = self.begin_transaction();
        drop(taken);
        self.turn = turn;
        begun
    }

    fn begin_transaction(&mut self) -> rusqlite::Result<()> {
        self.shared.failpoint(Failpoint::BeforeTransaction)?;
        // Never DEFERRED: its upgrade to a writer fails at once when another process wrote meanwhile.
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        // Read anew each time, since another process may have written.
        match changes::newest(&self.connection) {
            Ok(newest) => self.changes.reset(newest),
            Err(error) => {
                // Left open, it would make every later BEGIN fail.
                self.rollback();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Runs one write in the open transaction.
    fn attempt(&mut self, job: &mut dyn Job<S>) -> After {
        let mark = self.changes.mark();
        let changed_before = self.connection.total_changes();
        let mut context = WriteContext {
            connection: &self.connection,
            now: now(),
            settings: &self.shared.store_settings,
            memory: &self.shared.memory,
            changes: &mut self.changes,
            process: &self.shared.process,
        };
        let failpoint = if job.is_request() { Failpoint::Handler } else { Failpoint::Maintenance };
        let scope = job.scope();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            self.shared.failpoint(failpoint)?;
            job.run(&mut context)
        }));
        drop(scope);
        job.finish();
        let failure = match outcome {
            Ok(Ok(())) => return After::Intact,
            Ok(Err(failure)) => failure,
            Err(_panic) => {
                self.shared.status.panic_count.fetch_add(1, Ordering::Relaxed);
                tracing::error!(store = %S::NAME, message = job.name(), "a handler panicked; its change is undone");
                job.fail(Kind::Panicked { store: S::NAME, message: job.name().to_owned() }.into());
                return After::Distrusted;
            }
        };
        if let super::Failure::Sqlite(error) = &failure {
            self.note_fault(error);
        }
        job.fail(failure.into_error::<S>(job.name()));
        if self.connection.is_autocommit() {
            return After::Distrusted;
        }
        let is_intact = self.connection.total_changes() == changed_before;
        if is_intact {
            self.changes.undo_to(mark);
        }
        if is_intact { After::Intact } else { After::Undone }
    }

    /// Undoes the transaction and runs the group's other writes again, without those that broke it.
    fn replay(&mut self, mut after: After) {
        let mut members = std::mem::take(&mut self.members);
        while after != After::Intact {
            if let Err(error) = self.restart_transaction(&after) {
                (self.began, self.size_bytes) = (None, 0);
                for member in members {
                    member.job.settle(Err(error.clone()));
                }
                return;
            }
            after = self.rerun(&mut members);
        }
        self.members = members;
    }

    /// Runs every write that still takes part; stops at the first that breaks the transaction.
    fn rerun(&mut self, members: &mut [Member<S>]) -> After {
        for member in members.iter_mut().filter(|member| !member.is_excluded) {
            let after = self.attempt(member.job.as_mut());
            if after != After::Intact {
                member.is_excluded = true;
                return after;
            }
        }
        After::Intact
    }

    fn restart_transaction(&mut self, after: &After) -> Result<()> {
        self.rollback();
        if *after == After::Distrusted {
            self.reopen()?;
        }
        self.begin_transaction()
            .map_err(|e| fault::describe(S::NAME, "beginning a transaction again", Written::NotApplied, e))
    }

    fn rollback(&mut self) {
        if self.connection.is_autocommit() {
            return;
        }
        if let Err(error) = self.connection.execute_batch("ROLLBACK") {
            // SQLite ends the transaction even when it reports an error; if it did not, BEGIN fails and says so.
            tracing::warn!(store = %S::NAME, %error, "rollback failed");
        }
    }

    /// Replaces the connection. When that fails the store is broken until the supervisor restarts it.
    fn reopen(&mut self) -> Result<()> {
        match self.shared.file.writer() {
            Ok(connection) => {
                self.connection = connection;
                Ok(())
            }
            Err(error) => {
                self.broken = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Writes the change log's row and commits. An error says whether the group is in the store.
    fn end_transaction(&mut self) -> Result<()> {
        let sequence = self.changes.last_sequence();
        if !self.changes.is_empty()
            && let Err(error) = self.append(&self.changes)
        {
            self.rollback();
            self.note_fault(&error);
            return Err(fault::describe(S::NAME, "writing the change log", Written::NotApplied, error));
        }
        self.make_room_in_wal();
        self.fate = Fate::Committing;
        let committed = self
            .shared
            .failpoint(Failpoint::Commit)
            .and_then(|()| self.connection.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([])));
        let Err(error) = committed else {
            self.fate = Fate::Committed;
            self.changes.note_committed();
            return Ok(());
        };
        let error = fault::at_commit(error);
        self.note_fault(&error);
        self.rollback();
        match Fault::of(&error) {
            Fault::Contention => return Err(fault::describe(S::NAME, "committing", Written::NotApplied, error)),
            Fault::Io => self.shared.status.is_in_doubt.store(true, Ordering::Release),
            _ => {}
        }
        if self.disk_full_at.is_some() {
            // Without room for the marker the answer would be "unknown".
            self.shared.ballast.release();
        }
        let mut resolved = self.resolve_failed_commit(sequence);
        if resolved.is_err() && self.disk_full_at.is_some() && self.broken.is_none() {
            // Folding the WAL in makes room there.
            self.relieve_disk();
            resolved = self.resolve_failed_commit(sequence);
        }
        match resolved {
            Ok(true) => Ok(()),
            Ok(false) if !self.changes.is_empty() => {
                Err(fault::describe(S::NAME, "committing", Written::NotApplied, error))
            }
            Ok(false) | Err(_) => Err(fault::describe(S::NAME, "committing", Written::Unknown, error)),
        }
    }

    /// Writes a row of the change log; must come before every COMMIT of changes.
    fn append(&self, set: &ChangeSet) -> rusqlite::Result<()> {
        changes::append(&self.connection, set, self.origin, now())?;
        let raised = self.shared.watermark.raise(set.last_sequence());
        raised.map_err(|e| fault::of_io("raising the store's watermark", &e))
    }

    /// Spares the commit a sync of a file that grows. On a full disk, what it needs itself is all that there may be.
    fn make_room_in_wal(&mut self) {
        let waits_for_disk = self.settings.durability == Durability::Durable && !self.changes.is_empty();
        if !waits_for_disk || self.shared.is_replicated || self.disk_full_at.is_some() {
            return;
        }
        let frames = self.shared.status.wal_frames.load(Ordering::Relaxed);
        if let Err(error) = self.wal_room.make(frames) {
            tracing::debug!(store = %S::NAME, %error, "no room ahead in the WAL");
        }
    }

    /// Finds out whether a COMMIT that failed took effect, and makes the answer final.
    ///
    /// The failed transaction's frames may still be in the WAL, where a crash would bring them back; one more commit
    /// overwrites them.
    fn resolve_failed_commit(&mut self, sequence: Sequence) -> Result<bool> {
        self.reopen()?;
        let resolve = || -> rusqlite::Result<bool> {
            self.connection.execute_batch("BEGIN IMMEDIATE")?;
            // A group that logged nothing (only an outcome under an idempotency key) left nothing to look for.
            let is_committed =
                !self.changes.is_empty() && changes::is_committed(&self.connection, sequence, self.origin)?;
            self.commit_marker()?;
            Ok(is_committed)
        };
        let resolved =
            resolve().map_err(|e| fault::describe(S::NAME, "resolving a failed commit", Written::Unknown, e));
        if resolved.is_err() {
            self.rollback();
        }
        resolved
    }

    /// Makes the commit visible in memory, to subscribers and in the counters; must come before the replies.
    fn publish(&mut self, began: Instant, sequence: Sequence) {
        if let Err(error) = self.shared.failpoint(Failpoint::AfterCommit) {
            tracing::warn!(store = %S::NAME, %error, "nothing can fail here");
        }
        if !self.changes.is_empty() {
            S::committed(&self.shared.memory, self.changes.changes());
            if self.shared.ballast.is_whole() {
                self.disk_full_at = None;
            }
            self.shared.status.note_commit(self.members.len(), began.elapsed(), sequence.0);
            self.shared.commits.send_replace(sequence);
            match checkpoint::wal_frames(&self.connection) {
                Ok(wal) => self.shared.note_wal(wal.unwrap_or_default()),
                Err(error) => tracing::warn!(store = %S::NAME, %error, "reading the WAL's length failed"),
            }
        }
        let is_well = !self.changes.is_empty() && self.disk_full_at.is_none() && !self.shared.is_wal_unsynced();
        if is_well && self.shared.status.state() == StoreState::Degraded {
            self.shared.enter(StoreState::Serving, None);
        }
    }

    fn settle_all(&mut self, result: &Result<()>) {
        (self.size_bytes, self.fate) = (0, Fate::Open);
        let request_count = self.members.iter().filter(|member| member.job.is_request()).count();
        self.shared.status.write_count.fetch_add(request_count as u64, Ordering::Relaxed);
        for member in self.members.drain(..) {
            member.job.settle(result.clone());
        }
    }

    /// Enters the state that a fault of the file calls for.
    fn note_fault(&mut self, error: &rusqlite::Error) {
        match Fault::of(error) {
            Fault::DiskFull => {
                self.disk_full_at = Some(Instant::now());
                self.shared.enter(StoreState::Degraded, Some("the disk is full".to_owned()));
            }
            Fault::Io => self.shared.enter(StoreState::Degraded, Some(error.to_string())),
            Fault::Corrupt => self.shared.enter(StoreState::Quarantined, Some(error.to_string())),
            Fault::Contention | Fault::Statement | Fault::Interrupted | Fault::NoMemory => {}
        }
        // Last, since its reason lasts.
        self.shared.note_failed_sync(error);
    }
}

pub(super) fn deadline_error<S: Store>(doing: &str) -> Kind {
    Kind::DeadlineExceeded { store: S::NAME, doing: doing.to_owned(), written: Written::NotApplied }
}

pub(super) fn io_error<S: Store>(doing: &str, error: std::io::Error) -> Error {
    let kind =
        Kind::Io { store: S::NAME, doing: doing.to_owned(), cause: error.to_string(), written: Written::NotApplied };
    Error::caused_by(kind, error)
}

/// The one clock of the machinery; handlers get the time from their context.
#[expect(clippy::disallowed_methods, reason = "the one place where the machinery reads the clock")]
pub(super) fn now() -> Timestamp {
    SystemTime::now().into()
}

fn uuid_bytes() -> [u8; 8] {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(now()).to_ne_bytes()
}
