//! What can be seen of a store without asking it: its state and counters, kept in atomics.
//!
//! Start at [`StoreObservation`]; the machinery writes the counters through [`Status`].

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder_protocol::{Error as Kind, StoreName, Written};
use serde::{Deserialize, Serialize};

use super::counter::Counter;
use crate::sqlite::checkpoint::WalStats;

/// What a caller should wait whose request met a restart; the first one takes a few milliseconds.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// In which state a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StoreState {
    /// It opens its file.
    Starting,
    /// It answers reads and writes.
    Serving,
    /// It answers reads; writes fail until the cause (a full disk) is gone. Or, in a relaxed store, a sync has failed: it
    /// answers writes too, but what it holds is not known to reach the disk.
    Degraded,
    /// It failed and is being restarted.
    Restarting,
    /// Its file is damaged and set aside.
    Quarantined,
    /// It reached its restart limit.
    Failed,
    /// It was closed.
    Stopped,
}

/// A store entered a state. The host hears of each change once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StoreEvent {
    /// Which store.
    pub store: StoreName,
    /// Which state it entered.
    pub state: StoreState,
    /// Why, where the state is not a good one.
    pub reason: Option<String>,
}

impl StoreEvent {
    /// Returns the event, or a store's state in the form of one.
    #[must_use]
    pub fn new(store: StoreName, state: StoreState, reason: Option<String>) -> Self {
        Self { store, state, reason }
    }
}

/// One store's state and counters at one moment. Counters start at zero with the runtime.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StoreObservation {
    /// Which store.
    pub store: StoreName,
    /// In which state it is.
    pub state: StoreState,
    /// Why, where the state is not a good one.
    pub reason: Option<String>,
    /// Requests waiting or running.
    pub queue_messages: usize,
    /// Bytes of those.
    pub queue_bytes: usize,
    /// Commits that changed something.
    pub commit_count: u64,
    /// Callers' writes answered, whether they succeeded or were refused.
    pub write_count: u64,
    /// Writes in the newest group.
    pub last_group_messages: u64,
    /// Most writes in one group so far.
    pub largest_group_messages: u64,
    /// How long groups took from BEGIN to the end of COMMIT.
    pub commit_latency: LatencySummary,
    /// Reads answered on their callers' threads.
    pub in_place_read_count: u64,
    /// Reads answered by reader threads.
    pub thread_read_count: u64,
    /// Reads answered from memory.
    pub memory_read_count: u64,
    /// Reads that found a value which does not match its checksum.
    pub damaged_read_count: u64,
    /// Full checks of the file that the store made by itself, each after a commit that failed with an I/O error.
    pub doubt_check_count: u64,
    /// Frames in the WAL after the newest commit.
    pub wal_frames: u32,
    /// A reader, most likely of another program, keeps the WAL from starting over.
    pub is_wal_pinned: bool,
    /// Checkpoints done, by supervisor and writer.
    pub checkpoint_count: u64,
    /// Panics, of writes' and reads' handlers and of the store's own work; each was answered.
    pub panic_count: u64,
    /// Restarts by the supervisor.
    pub restart_count: u64,
    /// The newest committed sequence this process knows of.
    pub sequence: u64,
}

/// Percentiles of a duration, each the upper bound of a bucket that spans a factor of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LatencySummary {
    /// Half are at or below.
    pub p50: Duration,
    /// 99 % are at or below.
    pub p99: Duration,
    /// 99.9 % are at or below.
    pub p999: Duration,
}

/// The counters behind a [`StoreObservation`].
#[derive(Debug)]
pub(super) struct Status {
    store: StoreName,
    condition: Mutex<(StoreState, Option<String>)>,
    /// Set while the state accepts requests, so that the hot path takes no lock.
    accepts: AtomicBool,
    opened: Instant,
    pub(super) commit_count: AtomicU64,
    pub(super) write_count: AtomicU64,
    pub(super) last_group_messages: AtomicU64,
    pub(super) largest_group_messages: AtomicU64,
    pub(super) commit_latency: Histogram,
    pub(super) in_place_read_count: Counter,
    pub(super) thread_read_count: AtomicU64,
    pub(super) memory_read_count: Counter,
    pub(super) damaged_read_count: AtomicU64,
    /// A commit failed in a way that may have harmed the file, which was not checked since.
    pub(super) is_in_doubt: AtomicBool,
    pub(super) doubt_check_count: AtomicU64,
    pub(super) wal_frames: AtomicU32,
    pub(super) wal_checkpointed_frames: AtomicU32,
    pub(super) wal_synced_frames: AtomicU32,
    pub(super) wal_longest_frames: AtomicU32,
    /// How many commits there had been before the newest checkpoint that left nothing; `u64::MAX`: none did.
    pub(super) settled_at_commit: AtomicU64,
    pub(super) is_wal_pinned: AtomicBool,
    /// A relaxed store's sync failed: frames in its WAL may never reach the disk.
    pub(super) is_wal_unsynced: AtomicBool,
    pub(super) checkpoint_count: AtomicU64,
    pub(super) panic_count: AtomicU64,
    pub(super) restart_count: AtomicU64,
    pub(super) sequence: AtomicU64,
    last_commit_millis: AtomicU64,
}

impl Status {
    pub(super) fn new(store: StoreName) -> Self {
        Self {
            store,
            condition: Mutex::new((StoreState::Starting, None)),
            accepts: true.into(),
            opened: Instant::now(),
            commit_count: AtomicU64::default(),
            write_count: AtomicU64::default(),
            last_group_messages: AtomicU64::default(),
            largest_group_messages: AtomicU64::default(),
            commit_latency: Histogram::default(),
            in_place_read_count: Counter::default(),
            thread_read_count: AtomicU64::default(),
            memory_read_count: Counter::default(),
            damaged_read_count: AtomicU64::default(),
            is_in_doubt: AtomicBool::default(),
            doubt_check_count: AtomicU64::default(),
            wal_frames: AtomicU32::default(),
            wal_checkpointed_frames: AtomicU32::default(),
            wal_synced_frames: AtomicU32::default(),
            wal_longest_frames: AtomicU32::default(),
            settled_at_commit: AtomicU64::new(u64::MAX),
            is_wal_pinned: AtomicBool::default(),
            is_wal_unsynced: AtomicBool::default(),
            checkpoint_count: AtomicU64::default(),
            panic_count: AtomicU64::default(),
            restart_count: AtomicU64::default(),
            sequence: AtomicU64::default(),
            last_commit_millis: AtomicU64::default(),
        }
    }

    pub(super) fn state(&self) -> StoreState {
        self.condition().0
    }

    /// Enters `state`; answers whether that is a change, or only a newer reason. Stopped and failed stores stay so.
    pub(super) fn enter(&self, state: StoreState, reason: Option<String>) -> bool {
        let mut condition = self.condition();
        if matches!(condition.0, StoreState::Stopped | StoreState::Failed) {
            return false;
        }
        let is_change = condition.0 != state;
        *condition = (state, reason);
        let accepts = !matches!(state, StoreState::Stopped | StoreState::Failed | StoreState::Quarantined);
        self.accepts.store(accepts, Ordering::Release);
        is_change
    }

    /// Returns why the store is in its state, where there is a reason.
    pub(super) fn reason(&self) -> Option<String> {
        self.condition().1.clone()
    }

    /// Answers at once for a store that will not answer any more.
    pub(super) fn check_accepts(&self) -> Result<(), Kind> {
        if self.accepts.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(self.unavailable(Written::NotApplied))
    }

    /// Returns the answer to a request that the actor did not take, or lost; `written` is what is known of it.
    pub(super) fn unavailable(&self, written: Written) -> Kind {
        let (store, (state, reason)) = (self.store, self.condition().clone());
        let reason = reason.unwrap_or_else(|| "no reason is known".to_owned());
        match state {
            StoreState::Quarantined => Kind::Corrupt { store, detail: reason, written },
            StoreState::Failed => Kind::StoreFailed { store, reason, written },
            StoreState::Stopped => Kind::ShuttingDown { store, written },
            StoreState::Starting | StoreState::Serving | StoreState::Degraded | StoreState::Restarting => {
                self.restarting(written)
            }
        }
    }

    /// Returns the answer to a request that meets the store's restart.
    pub(super) fn restarting(&self, written: Written) -> Kind {
        Kind::Restarting { store: self.store, written, retry_after: RETRY_AFTER }
    }

    pub(super) fn note_commit(&self, messages: usize, took: Duration, sequence: u64) {
        let messages = messages as u64;
        self.commit_count.fetch_add(1, Ordering::Release);
        self.last_group_messages.store(messages, Ordering::Relaxed);
        self.largest_group_messages.fetch_max(messages, Ordering::Relaxed);
        self.commit_latency.note(took);
        self.sequence.fetch_max(sequence, Ordering::AcqRel);
        self.last_commit_millis.store(self.millis_open(), Ordering::Relaxed);
    }

    /// Returns what the checkpoint policy goes by.
    pub(super) fn wal(&self) -> WalStats {
        WalStats {
            frames: self.wal_frames.load(Ordering::Relaxed),
            checkpointed_frames: self.wal_checkpointed_frames.load(Ordering::Relaxed),
            synced_frames: self.wal_synced_frames.load(Ordering::Relaxed),
            is_pinned: self.is_wal_pinned.load(Ordering::Relaxed),
            longest_frames: self.wal_longest_frames.load(Ordering::Relaxed),
            is_settled: self.settled_at_commit.load(Ordering::Acquire) == self.commit_count.load(Ordering::Acquire),
            idle_for: self.idle_for(),
        }
    }

    /// Returns how long ago the last commit was.
    pub(super) fn idle_for(&self) -> Duration {
        Duration::from_millis(self.millis_open().saturating_sub(self.last_commit_millis.load(Ordering::Relaxed)))
    }

    pub(super) fn observe(&self, (queue_messages, queue_bytes): (usize, usize)) -> StoreObservation {
        let (state, reason) = self.condition().clone();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StoreObservation {
            store: self.store,
            state,
            reason,
            queue_messages,
            queue_bytes,
            commit_count: read(&self.commit_count),
            write_count: read(&self.write_count),
            last_group_messages: read(&self.last_group_messages),
            largest_group_messages: read(&self.largest_group_messages),
            commit_latency: self.commit_latency.summary(),
            in_place_read_count: self.in_place_read_count.sum(),
            thread_read_count: read(&self.thread_read_count),
            memory_read_count: self.memory_read_count.sum(),
            damaged_read_count: read(&self.damaged_read_count),
            doubt_check_count: read(&self.doubt_check_count),
            wal_frames: self.wal_frames.load(Ordering::Relaxed),
            is_wal_pinned: self.is_wal_pinned.load(Ordering::Relaxed),
            checkpoint_count: read(&self.checkpoint_count),
            panic_count: read(&self.panic_count),
            restart_count: read(&self.restart_count),
            sequence: read(&self.sequence),
        }
    }

    fn millis_open(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn condition(&self) -> std::sync::MutexGuard<'_, (StoreState, Option<String>)> {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts durations in buckets of powers of two microseconds.
#[derive(Debug)]
pub(super) struct Histogram {
    buckets: [AtomicU64; 40],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU64::default()) }
    }
}

impl Histogram {
    fn note(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let index = (u64::BITS - micros.leading_zeros()) as usize;
        if let Some(bucket) = self.buckets.get(index).or(self.buckets.last()) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn summary(&self) -> LatencySummary {
        let counts: Vec<u64> = self.buckets.iter().map(|b| b.load(Ordering::Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        let percentile = |per_mille: u64| {
            let wanted = (total * per_mille).div_ceil(1000);
            let mut seen = 0;
            let bucket = counts.iter().position(|count| {
                seen += count;
                seen >= wanted
            });
            match bucket {
                Some(index) if total > 0 => Duration::from_micros(1 << index),
                _ => Duration::ZERO,
            }
        };
        LatencySummary { p50: percentile(500), p99: percentile(990), p999: percentile(999) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_upper_bounds_of_their_buckets() {
        let histogram = Histogram::default();
        assert_eq!(histogram.summary(), LatencySummary::default());
        for _ in 0..99 {
            histogram.note(Duration::from_micros(100));
        }
        histogram.note(Duration::from_millis(50));
        let summary = histogram.summary();
        assert_eq!(summary.p50, Duration::from_micros(128));
        assert_eq!(summary.p999, Duration::from_micros(65_536));
    }

    #[test]
    fn a_failed_store_stays_failed_and_says_why() {
        let status = Status::new(StoreName::Kv);
        assert!(status.enter(StoreState::Failed, Some("three restarts".to_owned())));
        assert!(!status.enter(StoreState::Serving, None));
        assert!(matches!(status.check_accepts(), Err(Kind::StoreFailed { reason, .. }) if reason == "three restarts"));
    }

    #[test]
    fn a_request_lost_on_the_way_is_never_called_not_applied() {
        for state in [StoreState::Serving, StoreState::Restarting, StoreState::Quarantined, StoreState::Failed] {
            let status = Status::new(StoreName::Kv);
            status.enter(state, None);
            assert_eq!(status.unavailable(Written::Unknown).written(), Written::Unknown, "{state:?}");
        }
    }
}
