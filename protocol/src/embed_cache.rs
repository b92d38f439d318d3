//! The embedding cache's messages: values by the hash of what computes them and of what they are computed from.
//!
//! Start at [`GetValue`] and [`PutValues`]; [`ClaimValues`] is how several processes compute a value once. What a key is
//! stands in `key`.
//!
//! Always true: a key holds one value, whoever computed it; an entry may be gone at any time, which is a miss and no error.

mod key;

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use key::{CacheKey, Input, Producer, ProducerHash, ProducerKind};

use crate::lease::Fencing;
use crate::message::message;
use crate::names::Tag;
use crate::time::Timestamp;
use crate::vectors::Vector;

/// A value that was dear to compute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CachedValue {
    /// An embedding, of a [`ProducerKind::Model`].
    Vector(Vector),
    /// Any serde value behind a codec header, of a [`ProducerKind::Function`].
    Encoded(Bytes),
}

impl CachedValue {
    /// Returns how many bytes the value takes in a file.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Vector(vector) => size_of_val(vector.as_slice()),
            Self::Encoded(bytes) => bytes.len(),
        }
    }
}

/// What the cache answers about a key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cached {
    /// The value.
    pub value: CachedValue,
    /// How long its computation took: what each hit saves.
    pub compute_time: Duration,
    /// When it was put.
    pub stored: Timestamp,
    /// When it will be hidden. `None`: kept until it is evicted.
    pub expires: Option<Timestamp>,
}

/// Reads one value, if it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetValue {
    /// Which.
    pub key: CacheKey,
}
message!(EmbedCache, GetValue => Option<Cached>, |_m| 0);

/// Reads many values, in the order of the keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetValues {
    /// Which; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX), and their values together at most
    /// [`ANSWER_BYTES_MAX`](crate::limits::ANSWER_BYTES_MAX).
    pub keys: Vec<CacheKey>,
}
message!(EmbedCache, GetValues => Vec<Option<Cached>>, |m| size_of_val(&*m.keys));

/// Tells which keys hold a value, in their order. It is no use of the value: statistics and eviction do not notice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainsValues {
    /// Which; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX).
    pub keys: Vec<CacheKey>,
}
message!(EmbedCache, ContainsValues => Vec<bool>, |m| size_of_val(&*m.keys));

/// Stores values of one producer, all or none, but for those that were computed under a lease that is no longer the current
/// one: these are answered as [`PutOutcome::Overtaken`].
///
/// The first vector of a model says how many dimensions its vectors have; others are refused. Sending it twice leaves what
/// sending it once leaves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PutValues {
    /// Who computed them.
    pub producer: Producer,
    /// What is put; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX).
    pub puts: Vec<ValuePut>,
    /// They are hidden once this has passed. `None`: kept until they are evicted.
    pub time_to_live: Option<Duration>,
    /// Labels by which they can be removed together; at most
    /// [`TAGS_PER_ENTRY_MAX`](crate::limits::TAGS_PER_ENTRY_MAX).
    pub tags: Vec<Tag>,
}
message!(EmbedCache, PutValues => Vec<PutOutcome>, |m| m.puts.iter().map(|put| size_of::<ValuePut>() + put.value.bytes()).sum::<usize>()
    + m.tags.iter().map(|tag| size_of::<Tag>() + tag.as_str().len()).sum::<usize>());

/// One value of a [`PutValues`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValuePut {
    /// Under which key.
    pub key: CacheKey,
    /// The value.
    pub value: CachedValue,
    /// How long its computation took.
    pub compute_time: Duration,
    /// The claim under which it was computed; it is given back with the put. `None`: it replaces what is there.
    pub claim: Option<Fencing>,
}

/// What became of one [`ValuePut`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PutOutcome {
    /// It is stored.
    Stored,
    /// Its claim was taken over by somebody else, or is gone: nothing was stored.
    Overtaken,
}

/// Removes values; answers how many were there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveValues {
    /// Which; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX).
    pub keys: Vec<CacheKey>,
}
message!(EmbedCache, RemoveValues => u64, |m| size_of_val(&*m.keys));

/// Removes a page of the values that carry a tag, in the order of their keys: one write stays small however many there are, and
/// finds room on a full disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveTagged {
    /// Which tag.
    pub tag: Tag,
    /// Continue behind this key.
    pub after: Option<CacheKey>,
    /// Most values to remove: 1 to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
    pub limit: usize,
}
message!(EmbedCache, RemoveTagged => RemovedPage, |m| m.tag.as_str().len());

/// Removes a page of a producer's values, in the order of their keys; the last page forgets how many dimensions a model has,
/// unless values of it were put meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveProduced {
    /// Whose.
    pub producer: Producer,
    /// Continue behind this key.
    pub after: Option<CacheKey>,
    /// Most values to remove: 1 to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
    pub limit: usize,
}
message!(EmbedCache, RemoveProduced => RemovedPage, |m| m.producer.size_bytes());

/// What became of removing a page of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RemovedPage {
    /// How many of the page were there.
    pub removed_count: u64,
    /// Where to continue. `None`: this was the last page.
    pub next: Option<CacheKey>,
}

/// Sets when values expire; answers how many were there. Under the policy of the least recently used it is a use, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TouchValues {
    /// Which; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX).
    pub keys: Vec<CacheKey>,
    /// From now. `None`: kept until they are evicted.
    pub time_to_live: Option<Duration>,
}
message!(EmbedCache, TouchValues => u64, |m| size_of_val(&*m.keys));

/// Asks, for each key, for its value or for the right to compute it alone in all processes.
///
/// Whoever was granted a claim puts the value with its number ([`ValuePut::claim`]), or gives it back with
/// [`ReleaseClaims`]. A claim ends with its holder's process, at once, and may be taken over when its time is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimValues {
    /// Which; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX).
    pub keys: Vec<CacheKey>,
    /// How long others must leave it, from now.
    pub duration: Duration,
}
message!(EmbedCache, ClaimValues => Vec<Claim>, |m| size_of_val(&*m.keys));

/// What became of asking for a value or the right to compute it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Claim {
    /// It is there.
    Found(Cached),
    /// The caller computes it.
    Granted {
        /// To be shown with the value.
        fencing: Fencing,
    },
    /// Somebody else does.
    Held {
        /// From then on it may be taken over; sooner, if its holder's process dies or gives it back.
        until: Timestamp,
    },
}

/// Gives claims back whose values were not computed after all; answers how many were still the caller's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseClaims {
    /// Which, with the numbers they were granted under.
    pub claims: Vec<(CacheKey, Fencing)>,
}
message!(EmbedCache, ReleaseClaims => u64, |m| size_of_val(&*m.claims));

/// Counts what is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeCache {}
message!(EmbedCache, DescribeCache => CacheDescription, |_m| 0);

/// What a cache's file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CacheDescription {
    /// Entries, expired ones that were not swept yet included.
    pub entry_count: u64,
    /// The sum of their values' sizes.
    pub value_bytes: u64,
    /// Bytes in use in the file, which `bytes_max` limits: pages that hold anything.
    pub file_bytes: u64,
    /// Entries evicted to keep the limits since the file was made, by all processes.
    pub evicted_count: u64,
}

/// Lists entries in the order of their keys, which is no order to a reader but the same each time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListValues {
    /// Continue behind this key.
    pub after: Option<CacheKey>,
    /// Most rows to return: 1 to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
    pub limit: usize,
}
message!(EmbedCache, ListValues => ValuePage, |_m| 0);

/// One page of entries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValuePage {
    /// The entries. A page also ends early when it holds about 4 MiB of values.
    pub entries: Vec<ListedValue>,
    /// Where to continue. `None`: this was the last page.
    pub next: Option<CacheKey>,
}

/// An entry in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListedValue {
    /// Its key.
    pub key: CacheKey,
    /// Who computed it.
    pub producer: Producer,
    /// What it holds.
    pub cached: Cached,
    /// Its tags, in their order.
    pub tags: Vec<Tag>,
}
