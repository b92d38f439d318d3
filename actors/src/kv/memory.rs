//! Hot entries in memory, for a folder that no other process can change.

use std::hash::Hash;

use larder_protocol::change::Change;
use larder_protocol::kv::{Entry, GetValue};
use larder_protocol::{CollectionName, Key, Timestamp};
use quick_cache::{Equivalent, Weighter};

use crate::store::HotTier;

/// What an entry costs beside its value: key, times, and the cache's own bookkeeping.
const ENTRY_OVERHEAD_BYTES: u64 = 200;
/// What a typical entry weighs, to size the cache's table.
const ENTRY_BYTES_TYPICAL: u64 = 512;

/// The store's state in memory: nothing, or the hot entries.
#[derive(Debug)]
pub struct KvMemory {
    hot: Option<HotTier<EntryKey, Entry, EntryWeight>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct EntryKey(CollectionName, Key);

/// An [`EntryKey`] that is only looked up with.
#[derive(Hash)]
struct EntryKeyRef<'a>(&'a str, &'a str);

impl Equivalent<EntryKey> for EntryKeyRef<'_> {
    fn equivalent(&self, key: &EntryKey) -> bool {
        self.0 == key.0.as_str() && self.1 == key.1.as_str()
    }
}

#[derive(Debug, Clone)]
struct EntryWeight;

impl Weighter<EntryKey, Entry> for EntryWeight {
    fn weight(&self, key: &EntryKey, entry: &Entry) -> u64 {
        (key.1.as_str().len() + entry.value.bytes.len()) as u64 + ENTRY_OVERHEAD_BYTES
    }
}

impl KvMemory {
    pub(super) fn new(hot_bytes: u64) -> Self {
        Self { hot: (hot_bytes > 0).then(|| HotTier::new(hot_bytes, ENTRY_BYTES_TYPICAL, EntryWeight)) }
    }

    /// Returns what to pass to [`offer`](Self::offer); to be called before the row is read.
    pub(super) fn generation(&self) -> u64 {
        self.hot.as_ref().map_or(0, HotTier::generation)
    }

    pub(super) fn offer(&self, generation: u64, message: &GetValue, entry: &Entry) {
        if let Some(hot) = &self.hot {
            hot.offer(generation, EntryKey(message.collection.clone(), message.key.clone()), entry.clone());
        }
    }

    pub(super) fn forget_all(&self) {
        if let Some(hot) = &self.hot {
            hot.clear();
        }
    }

    pub(super) fn forget(&self, changes: &[Change]) {
        let Some(hot) = &self.hot else { return };
        if changes.iter().any(|change| change.ids.is_empty()) {
            return hot.clear();
        }
        let keys = changes.iter().flat_map(|change| change.ids.iter().map(|id| EntryKeyRef(&change.scope, id)));
        hot.forget(keys);
    }
}

/// Answers from memory, if the entry is there.
#[expect(clippy::option_option, reason = "the outer says whether memory knows, the inner whether the key is present")]
pub(super) fn get(memory: &KvMemory, message: &GetValue, now: Timestamp) -> Option<Option<Entry>> {
    let key = EntryKeyRef(message.collection.as_str(), message.key.as_str());
    let entry = memory.hot.as_ref()?.get(&key)?;
    Some(Some(entry).filter(|entry| entry.expires.is_none_or(|expires| expires > now)))
}
