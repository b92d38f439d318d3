//! The hot tier: committed rows kept in memory, for stores that no other process can change.
//!
//! Start at [`HotTier`]. A reader notes the [`generation`](HotTier::generation) *before* it reads a row, and offers the
//! row with it; the writer [`forget`](HotTier::forget)s rows after COMMIT and before it replies.
//!
//! Always true: after a write is acknowledged no reader gets the row from before it.

use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use quick_cache::{Equivalent, Weighter};

/// Rows by key, bounded by the bytes that `W` weighs.
#[derive(Debug)]
pub struct HotTier<K, V, W> {
    rows: quick_cache::sync::Cache<K, V, W>,
    generation: AtomicU64,
    /// Held while a row is offered and while rows are dropped, so that an offer never lands between a commit's drop of
    /// the row and its acknowledgement. Hits do not take it.
    filling: Mutex<()>,
}

impl<K: Eq + Hash + Clone, V: Clone, W: Weighter<K, V> + Clone> HotTier<K, V, W> {
    /// Returns an empty tier for about `bytes_max` bytes of rows of about `row_bytes` each.
    #[must_use]
    pub fn new(bytes_max: u64, row_bytes: u64, weighter: W) -> Self {
        let row_count = usize::try_from(bytes_max / row_bytes.max(1)).unwrap_or(usize::MAX);
        Self {
            rows: quick_cache::sync::Cache::with_weighter(row_count, bytes_max, weighter),
            generation: 0.into(),
            filling: Mutex::new(()),
        }
    }

    /// Returns the row, if it is here.
    pub fn get<Q: Hash + Equivalent<K> + ?Sized>(&self, key: &Q) -> Option<V> {
        self.rows.get(key)
    }

    /// Returns a number that moves with every commit.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Keeps a row that was read after `generation` was noted, unless something was committed since.
    pub fn offer(&self, generation: u64, key: K, row: V) {
        let _filling = self.fill();
        if self.generation() == generation {
            self.rows.insert(key, row);
        }
    }

    /// Drops rows that a commit changed. Must be called after COMMIT and before the replies.
    pub fn forget<Q: Hash + Equivalent<K>>(&self, keys: impl IntoIterator<Item = Q>) {
        let _filling = self.fill();
        self.generation.fetch_add(1, Ordering::AcqRel);
        for key in keys {
            self.rows.remove(&key);
        }
    }

    /// Drops rows that are not to be kept. Must be called as [`forget`](Self::forget).
    pub fn retain(&self, keep: impl Fn(&K, &V) -> bool) {
        let _filling = self.fill();
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.rows.retain(keep);
    }

    /// Returns how many rows there are, and what they weigh.
    #[must_use]
    pub fn size(&self) -> (u64, u64) {
        (self.rows.len() as u64, self.rows.weight())
    }

    /// Drops everything.
    pub fn clear(&self) {
        let _filling = self.fill();
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.rows.clear();
    }

    fn fill(&self) -> MutexGuard<'_, ()> {
        self.filling.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
