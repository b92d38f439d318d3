//! The memory tier: hot values, and which were used since that was last written.
//!
//! Always true: after a put, removal or touch is acknowledged, no caller of this process gets the value from before; what
//! another process removed goes with the next slice of maintenance.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender};
use larder_protocol::Timestamp;
use larder_protocol::change::Change;
use larder_protocol::embed_cache::{CacheKey, Cached};
use quick_cache::Weighter;

use crate::store::HotTier;

/// What a value costs beside its bytes: key, times, and the cache's own bookkeeping.
const VALUE_OVERHEAD_BYTES: u64 = 200;
/// What a typical value weighs, to size the cache's table.
pub(super) const VALUE_BYTES_TYPICAL: u64 = 1_736;
/// Uses that wait to be written: 2 MiB.
const USES_MAX: usize = 65_536;

/// The cache's state in memory.
#[derive(Debug)]
pub struct CacheMemory {
    tier: Option<HotTier<CacheKey, Cached, CachedWeight>>,
    /// What was used, and the turn of the use, where the policy wants to know.
    uses: Option<(Sender<Use>, Receiver<Use>)>,
    /// The newest turn that a put or use got.
    last_turn: AtomicI64,
    /// Up to which commit the tier knows what others have removed.
    pub(super) seen_sequence: AtomicU64,
}

/// A key that was used, and its turn from then on.
pub(super) type Use = (CacheKey, i64);

#[derive(Debug, Clone)]
pub(super) struct CachedWeight;

impl Weighter<CacheKey, Cached> for CachedWeight {
    fn weight(&self, _: &CacheKey, cached: &Cached) -> u64 {
        cached.value.bytes() as u64 + VALUE_OVERHEAD_BYTES
    }
}

impl CacheMemory {
    pub(super) fn new(bytes_max: u64, notes_uses: bool) -> Self {
        Self {
            tier: (bytes_max > 0).then(|| HotTier::new(bytes_max, VALUE_BYTES_TYPICAL, CachedWeight)),
            uses: notes_uses.then(|| crossbeam_channel::bounded(USES_MAX)),
            last_turn: AtomicI64::new(0),
            seen_sequence: AtomicU64::new(0),
        }
    }

    /// Returns the value, if it is here and live by the `clock`; it is a use of it. The clock, a tenth of a hit, is read only
    /// where it matters.
    #[must_use]
    pub fn get(&self, key: &CacheKey, clock: impl FnOnce() -> Timestamp) -> Option<Cached> {
        let found = self.tier.as_ref()?.get(key)?;
        if found.expires.is_none() && self.uses.is_none() {
            return Some(found);
        }
        let now = clock();
        if found.expires.is_some_and(|expires| expires <= now) {
            return None;
        }
        self.note_use(*key, now);
        Some(found)
    }

    /// Returns what to pass to [`offer`](Self::offer); to be called before the value is read, or put.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.tier.as_ref().map_or(0, HotTier::generation)
    }

    /// Keeps a value that was read or put after `generation` was noted, unless something was removed or replaced since.
    pub fn offer(&self, generation: u64, key: CacheKey, cached: &Cached) {
        if let Some(tier) = &self.tier {
            tier.offer(generation, key, cached.clone());
        }
    }

    /// Returns a turn behind every other of this process, and behind those that other processes gave before `now`.
    pub(super) fn next_turn(&self, now: Timestamp) -> i64 {
        let micros = now.0.saturating_mul(1_000);
        let next = |last: i64| Some(micros.max(last + 1));
        let last = self.last_turn.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        micros.max(last.unwrap_or_else(|last| last) + 1)
    }

    /// Notes that a value was used.
    pub(super) fn note_use(&self, key: CacheKey, now: Timestamp) {
        if let Some((noted, _)) = &self.uses {
            // Where too many wait this one is forgotten: a read does not wait for a write.
            let _ = noted.try_send((key, self.next_turn(now)));
        }
    }

    /// Takes up to `uses_max` of the noted uses.
    pub(super) fn take_uses(&self, uses_max: usize) -> Vec<Use> {
        self.uses.as_ref().map(|(_, waiting)| waiting.try_iter().take(uses_max).collect()).unwrap_or_default()
    }

    /// Drops what `changes` removed, replaced or gave another end.
    pub(super) fn forget(&self, changes: &[Change]) {
        let Some(tier) = &self.tier else { return };
        let mut keys = Vec::new();
        for change in changes.iter().filter(|change| is_of_values(&change.kind)) {
            if change.ids.is_empty() {
                return tier.clear();
            }
            keys.extend(change.ids.iter().filter_map(|id| CacheKey::from_hex(id)));
        }
        if !keys.is_empty() {
            tier.forget(keys);
        }
    }

    pub(super) fn forget_all(&self) {
        if let Some(tier) = &self.tier {
            tier.clear();
        }
    }
}

/// Whether changes of this kind make a value in memory wrong. One that was put anew, evicted or expired does not.
fn is_of_values(kind: &str) -> bool {
    matches!(kind, "remove" | "replace" | "touch" | "restore")
}
