//! Messages of the key–value store: collections of keys with versioned values.
//!
//! Start at [`PutValue`] and [`GetValue`]; [`ApplyTransaction`] combines several writes into one.
//!
//! Always true: a message names its collection and keys as data; an expired entry is answered like an absent one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::filter::{FieldPath, Filter};
use crate::lease::{Fencing, LeaseGrant};
use crate::message::message;
use crate::names::{CollectionName, Key, LeaseName, Tag, Version};
use crate::time::Timestamp;
use crate::value::Value;

/// A stored value with its version and times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The value as it was put.
    pub value: Value,
    /// Changes with every write to the key and never repeats.
    pub version: Version,
    /// When the key was first put since it was last absent.
    pub created: Timestamp,
    /// When the value was last put.
    pub updated: Timestamp,
    /// When the entry will be hidden. `None`: kept until deleted.
    pub expires: Option<Timestamp>,
}

/// An [`Entry`] with its key, as lists and scans return it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyedEntry {
    /// The key.
    pub key: Key,
    /// What is stored under it.
    pub entry: Entry,
}

/// Stores `value` under `key`, replacing any earlier value, its tags and its expiry.
///
/// Sending it twice leaves the same value; the version is that of the second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutValue {
    /// Where.
    pub collection: CollectionName,
    /// Under which key.
    pub key: Key,
    /// At most `value_bytes_max` bytes, a setting of the store.
    pub value: Value,
    /// The entry is hidden once this has passed, then swept. `None`: kept until deleted.
    pub time_to_live: Option<Duration>,
    /// Labels to delete it by; at most [`TAGS_PER_ENTRY_MAX`](crate::limits::TAGS_PER_ENTRY_MAX).
    pub tags: Vec<Tag>,
}
message!(Kv, PutValue => Version, |m| put_bytes(&m.key, &m.value, &m.tags));

/// Stores `value` only where the key is absent; answers `None`, changing nothing, where it is present.
///
/// Sending it twice: the second answers `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutIfAbsent {
    /// What to store, and where.
    pub put: PutValue,
}
message!(Kv, PutIfAbsent => Option<Version>, |m| put_bytes(&m.put.key, &m.put.value, &m.put.tags));

/// Stores `value` only where the key's version is `expected`; anything else is a conflict that names what was found.
///
/// Sending it twice: the second is a conflict, since the first changed the version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompareAndPut {
    /// The version that must be there.
    pub expected: Version,
    /// What to store, and where.
    pub put: PutValue,
}
message!(Kv, CompareAndPut => Version, |m| put_bytes(&m.put.key, &m.put.value, &m.put.tags));

/// Stores many values at once: all or none. The reply holds their versions in order.
///
/// A key that appears twice keeps its last value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutValues {
    /// What to store; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX).
    pub puts: Vec<PutValue>,
}
message!(Kv, PutValues => Vec<Version>, |m| {
    m.puts.iter().map(|p| size_of::<PutValue>() + put_bytes(&p.key, &p.value, &p.tags)).sum::<usize>()
});

/// Reads one entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetValue {
    /// Where.
    pub collection: CollectionName,
    /// Which key.
    pub key: Key,
}
message!(Kv, GetValue => Option<Entry>, |m| m.key.as_str().len());

/// Reads many entries at one instant; the reply has one answer per key, in the order asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetValues {
    /// Where.
    pub collection: CollectionName,
    /// Which keys; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX).
    pub keys: Vec<Key>,
}
message!(Kv, GetValues => Vec<Option<Entry>>, |m| keys_bytes(&m.keys));

/// Deletes one entry; answers whether it was there.
///
/// Sending it twice leaves the same state; the second answers `false`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteValue {
    /// Where.
    pub collection: CollectionName,
    /// Which key.
    pub key: Key,
}
message!(Kv, DeleteValue => bool, |m| m.key.as_str().len());

/// Deletes one entry only where its version is `expected`; anything else is a conflict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompareAndDelete {
    /// Where.
    pub collection: CollectionName,
    /// Which key.
    pub key: Key,
    /// The version that must be there.
    pub expected: Version,
}
message!(Kv, CompareAndDelete => (), |m| m.key.as_str().len());

/// Deletes many entries at once, all or none; answers how many were there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteValues {
    /// Where.
    pub collection: CollectionName,
    /// Which keys; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX).
    pub keys: Vec<Key>,
}
message!(Kv, DeleteValues => u64, |m| keys_bytes(&m.keys));

/// Deletes every entry of the collection that carries `tag`; answers how many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteTagged {
    /// Where.
    pub collection: CollectionName,
    /// Which label.
    pub tag: Tag,
}
message!(Kv, DeleteTagged => u64, |m| m.tag.as_str().len());

/// Adds `by` to the integer under `key` (0 where absent) and answers the sum. The value is a JSON integer.
///
/// An expiry and tags that the entry has are kept. A value that is not a JSON integer, or a sum beyond 64 bits, is a
/// conflict. Sending it twice adds twice, unless both carry one idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncrementValue {
    /// Where.
    pub collection: CollectionName,
    /// Which key.
    pub key: Key,
    /// How much to add; may be negative.
    pub by: i64,
}
message!(Kv, IncrementValue => i64, |m| m.key.as_str().len());

/// Sets when the entry expires, leaving value and version; answers whether it was there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TouchValue {
    /// Where.
    pub collection: CollectionName,
    /// Which key.
    pub key: Key,
    /// From now. `None`: kept until deleted.
    pub time_to_live: Option<Duration>,
}
message!(Kv, TouchValue => bool, |m| m.key.as_str().len());

/// Deletes one entry and answers what it was: of several callers exactly one gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PopValue {
    /// Where.
    pub collection: CollectionName,
    /// Which key.
    pub key: Key,
}
message!(Kv, PopValue => Option<Entry>, |m| m.key.as_str().len());

/// Takes a lease for `duration`, unless somebody has it whose time is not over and whose process lives.
///
/// Whoever has it does alone what the lease's name stands for, and shows the fencing number with what it writes then
/// ([`Operation::RequireLease`]). Sending it twice finds the lease held, by oneself, unless both carry one idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeLease {
    /// Which.
    pub lease: LeaseName,
    /// How long others must leave it, from now; sooner, if this process dies.
    pub duration: Duration,
}
message!(Kv, TakeLease => LeaseGrant, |m| m.lease.as_str().len());

/// Lets the caller's holding last for `duration` from now; answers until when. A conflict, if it was overtaken.
///
/// Sending it twice counts from the second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtendLease {
    /// Which.
    pub lease: LeaseName,
    /// The caller's holding.
    pub fencing: Fencing,
    /// How long others must leave it, from now.
    pub duration: Duration,
}
message!(Kv, ExtendLease => Timestamp, |m| m.lease.as_str().len());

/// Gives a lease back; answers whether the holding was the current one. Sending it twice changes nothing more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseLease {
    /// Which.
    pub lease: LeaseName,
    /// The caller's holding; another's is not given back.
    pub fencing: Fencing,
}
message!(Kv, ReleaseLease => bool, |m| m.lease.as_str().len());

/// Applies a list of operations in order, all or none: the first precondition that fails undoes the whole and is
/// answered as a conflict that names it.
///
/// A later operation sees what the earlier ones did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyTransaction {
    /// What to do; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX).
    pub operations: Vec<Operation>,
}
message!(Kv, ApplyTransaction => Vec<OperationOutcome>, |m| m.operations.iter().map(Operation::size_bytes).sum::<usize>());

/// One step of an [`ApplyTransaction`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Operation {
    /// Requires the key to be in a certain state.
    Require {
        /// Where.
        collection: CollectionName,
        /// Which key.
        key: Key,
        /// In which state.
        state: RequiredState,
    },
    /// Requires a holding of a lease to be the current one, in time or not.
    RequireLease {
        /// Which.
        lease: LeaseName,
        /// The caller's holding.
        fencing: Fencing,
    },
    /// Stores a value.
    Put(PutValue),
    /// Deletes a key, if it is there.
    Delete(DeleteValue),
    /// Adds to a counter.
    Increment(IncrementValue),
}

impl Operation {
    fn size_bytes(&self) -> usize {
        let heap = match self {
            Self::Require { key, .. } => key.as_str().len(),
            Self::RequireLease { lease, .. } => lease.as_str().len(),
            Self::Put(put) => put_bytes(&put.key, &put.value, &put.tags),
            Self::Delete(delete) => delete.key.as_str().len(),
            Self::Increment(increment) => increment.key.as_str().len(),
        };
        size_of::<Self>() + heap
    }
}

/// What an [`Operation::Require`] requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequiredState {
    /// The key is absent (or expired).
    Absent,
    /// The key is present.
    Present,
    /// The key is present at this version.
    AtVersion(Version),
}

/// What one [`Operation`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OperationOutcome {
    /// The requirement held.
    Held,
    /// The value is stored at this version.
    Put(Version),
    /// Whether the key was there.
    Deleted(bool),
    /// The counter's new value.
    Incremented(i64),
}

/// Which keys a scan or count covers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyRange {
    /// Every key.
    #[default]
    All,
    /// Keys that start with this text. An empty text is every key.
    Prefix(String),
    /// Keys from `from` (included) to `to` (excluded), by their bytes; `None` is open.
    Between {
        /// First key.
        from: Option<Key>,
        /// First key that is no longer covered.
        to: Option<Key>,
    },
}

/// In which order a scan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the smallest key up.
    #[default]
    Ascending,
    /// From the greatest key down.
    Descending,
}

/// Reads one page of entries in key order, at one instant.
///
/// For the next page send it again with `after` set to the reply's `next`: an entry present throughout is seen exactly
/// once; concurrent changes may or may not be seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScanValues {
    /// Where.
    pub collection: CollectionName,
    /// Which keys.
    pub range: KeyRange,
    /// In which order.
    pub direction: Direction,
    /// Continue behind this key, in the scan's direction.
    pub after: Option<Key>,
    /// Only JSON entries that match. `None`: every entry of any format.
    pub filter: Option<Filter>,
    /// Most rows to return: 1 to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
    pub limit: usize,
}
message!(Kv, ScanValues => ScanPage, |m| m.after.as_ref().map_or(0, |k| k.as_str().len()) + filter_bytes(m.filter.as_ref()));

/// One page of a scan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanPage {
    /// The entries, in the scan's order. A page also ends early when it holds about 4 MiB of values.
    pub entries: Vec<KeyedEntry>,
    /// Where to continue. `None`: this was the last page.
    pub next: Option<Key>,
}

/// Counts entries that are not expired.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CountValues {
    /// Where.
    pub collection: CollectionName,
    /// Which keys.
    pub range: KeyRange,
    /// Only JSON entries that match. `None`: every entry of any format.
    pub filter: Option<Filter>,
}
message!(Kv, CountValues => u64, |m| filter_bytes(m.filter.as_ref()));

/// Lists collections in name order, with what they hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListCollections {
    /// Continue behind this name.
    pub after: Option<CollectionName>,
    /// Most to return: 1 to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
    pub limit: usize,
}
message!(Kv, ListCollections => Vec<CollectionSummary>, |m| m.after.as_ref().map_or(0, |n| n.as_str().len()));

/// What a collection holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionSummary {
    /// Its name.
    pub name: CollectionName,
    /// How many entries that are not expired.
    pub entry_count: u64,
    /// The sum of their values' sizes.
    pub value_bytes: u64,
}

/// Deletes a collection with everything in it; answers how many entries it held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropCollection {
    /// Which.
    pub collection: CollectionName,
}
message!(Kv, DropCollection => u64, |_m| 0);

/// Declares a field of the store's JSON values, so that filters on it use an index.
///
/// Existing values are indexed before the reply. Every JSON value put from then on costs a little more, in every
/// collection. Sending it twice changes nothing the second time and answers `false`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclareField {
    /// Which field; only keys of letters, digits, `_` and `-` can be declared.
    pub field: FieldPath,
}
message!(Kv, DeclareField => bool, |_m| 0);

fn put_bytes(key: &Key, value: &Value, tags: &[Tag]) -> usize {
    key.as_str().len() + value.bytes.len() + tags.iter().map(|t| size_of::<Tag>() + t.as_str().len()).sum::<usize>()
}

fn keys_bytes(keys: &[Key]) -> usize {
    keys.iter().map(|k| size_of::<Key>() + k.as_str().len()).sum()
}

fn filter_bytes(filter: Option<&Filter>) -> usize {
    filter.map_or(0, Filter::size_bytes)
}
