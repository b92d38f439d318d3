//! What the cache has done for this process, counted where it happens.

use std::time::Duration;

use larder_actors::store::Counter;
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
    memory_hits: Counter,
    file_hits: Counter,
    misses: Counter,
    computed: Counter,
    shared: Counter,
    unkept: Counter,
    saved_us: Counter,
}

impl Counters {
    pub(super) fn note_memory_hit(&self, cached: &Cached) {
        self.memory_hits.add(1);
        self.save(cached);
    }

    pub(super) fn note_file_hit(&self, cached: &Cached) {
        self.file_hits.add(1);
        self.save(cached);
    }

    pub(super) fn note_shared(&self, cached: &Cached) {
        self.shared.add(1);
        self.save(cached);
    }

    pub(super) fn note_misses(&self, count: usize) {
        self.misses.add(count as u64);
    }

    pub(super) fn note_computed(&self, count: usize) {
        self.computed.add(count as u64);
    }

    pub(super) fn note_unkept(&self, count: usize) {
        self.unkept.add(count as u64);
    }

    fn save(&self, cached: &Cached) {
        let micros = u64::try_from(cached.compute_time.as_micros()).unwrap_or(u64::MAX);
        // What was put by hand took no time: a hit of it costs one counter less.
        if micros > 0 {
            self.saved_us.add(micros);
        }
    }

    pub(super) fn read(&self) -> CacheStatistics {
        CacheStatistics {
            memory_hits: self.memory_hits.sum(),
            file_hits: self.file_hits.sum(),
            misses: self.misses.sum(),
            computed: self.computed.sum(),
            shared: self.shared.sum(),
            unkept: self.unkept.sum(),
            time_saved: Duration::from_micros(self.saved_us.sum()),
            ..CacheStatistics::default()
        }
    }
}
