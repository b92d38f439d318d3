//! What the cache has done for this process, counted where it happens.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder_protocol::embed_cache::Cached;
use serde::{Deserialize, Serialize};

/// What the cache has done for this process since the folder was opened, and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CacheStatistics {
    /// Values found in memory.
    pub memory_hits: u64,
    /// Values found in the file.
    pub file_hits: u64,
    /// Values that were not there when they were asked for.
    pub misses: u64,
    /// Values computed here.
    pub computed: u64,
    /// Values that were missing and that another caller computed, here or in another process.
    pub shared: u64,
    /// Values computed here that could not be kept: the file was damaged, or could not be written.
    pub unkept: u64,
    /// What the computations took that hits and shared values saved, as it was when they were computed.
    pub time_saved: Duration,
    /// Values that are stored.
    pub entry_count: u64,
    /// The sum of their sizes.
    pub value_bytes: u64,
    /// Bytes in use in the file.
    pub file_bytes: u64,
    /// Values evicted to keep the limits since the file was made, by all processes. Without a file it is 0.
    pub evicted: u64,
}

impl CacheStatistics {
    /// Returns how many values were found, in memory or in the file.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.memory_hits + self.file_hits
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    memory_hits: AtomicU64,
    file_hits: AtomicU64,
    misses: AtomicU64,
    computed: AtomicU64,
    shared: AtomicU64,
    unkept: AtomicU64,
    saved_us: AtomicU64,
}

impl Counters {
    pub(super) fn note_memory_hit(&self, cached: &Cached) {
        self.memory_hits.fetch_add(1, Ordering::Relaxed);
        self.save(cached);
    }

    pub(super) fn note_file_hit(&self, cached: &Cached) {
        self.file_hits.fetch_add(1, Ordering::Relaxed);
        self.save(cached);
    }

    pub(super) fn note_shared(&self, cached: &Cached) {
        self.shared.fetch_add(1, Ordering::Relaxed);
        self.save(cached);
    }

    pub(super) fn note_misses(&self, count: usize) {
        self.misses.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn note_computed(&self, count: usize) {
        self.computed.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn note_unkept(&self, count: usize) {
        self.unkept.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn save(&self, cached: &Cached) {
        let micros = u64::try_from(cached.compute_time.as_micros()).unwrap_or(u64::MAX);
        // What was put by hand took no time: a hit of it costs one counter less.
        if micros > 0 {
            self.saved_us.fetch_add(micros, Ordering::Relaxed);
        }
    }

    pub(super) fn read(&self) -> CacheStatistics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheStatistics {
            memory_hits: read(&self.memory_hits),
            file_hits: read(&self.file_hits),
            misses: read(&self.misses),
            computed: read(&self.computed),
            shared: read(&self.shared),
            unkept: read(&self.unkept),
            time_saved: Duration::from_micros(read(&self.saved_us)),
            ..CacheStatistics::default()
        }
    }
}
