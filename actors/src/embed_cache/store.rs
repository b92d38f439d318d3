//! What the machinery needs to know of the embedding cache, and what the cache can be asked.

use std::time::Duration;

use larder_protocol::StoreName;
use larder_protocol::change::Change;
use larder_protocol::embed_cache::{
    ClaimValues, ContainsValues, DescribeCache, GetValue, GetValues, ListValues, PutValues, ReleaseClaims,
    RemoveProduced, RemoveTagged, RemoveValues, TouchValues,
};
use serde::{Deserialize, Serialize};

use super::memory::CacheMemory;
use super::{check, claims, evict, list, values};
use crate::handlers;
use crate::sqlite::connection::Durability;
use crate::sqlite::migration::FileSchema;
use crate::store::{MACHINERY_TABLES, Outcome, ReadContext, Store, StoreDefaults, StoreSettings, WriteContext};

/// The embedding cache.
#[derive(Debug)]
pub enum EmbedCache {}

/// What a write works in.
pub(super) type Writing<'a> = WriteContext<'a, EmbedCache>;
/// What a read sees.
pub(super) type Reading<'a> = ReadContext<'a, EmbedCache>;

/// Where cached values are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// In memory alone, within [`memory_bytes`](EmbedCacheSettings::memory_bytes): gone with the process, and shared with no
    /// other. What is evicted is what the memory tier holds for the least useful.
    Memory,
    /// In a file, with the hot ones in memory.
    #[default]
    Sqlite,
    /// Nowhere: every request computes. Callers who ask for the same at the same time still share one computation.
    Off,
}

/// Which values go when a limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Eviction {
    /// Those that were put longest ago. Reads cost nothing more.
    #[default]
    LeastRecentlyStored,
    /// Those that were put or read longest ago. Reads are noted in memory and written in batches; after a crash, or past 65,536
    /// reads that wait to be written, some are forgotten.
    LeastRecentlyUsed,
    /// None: puts of new values are refused as [`Full`](larder_protocol::Error::Full).
    None,
}

/// What a program may set about the embedding cache alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmbedCacheSettings {
    /// Where values are kept. Default [`Backend::Sqlite`].
    pub backend: Backend,
    /// Memory for hot values in bytes. Default 64 MiB; 0: none. Higher: more of the hits come from memory.
    pub memory_bytes: u64,
    /// Most bytes in use in the file, at least 1 MiB. Default 4 GiB; `None`: no limit. Past it, slices of values are evicted in
    /// the background; past it by a sixteenth, each put evicts as well.
    pub bytes_max: Option<u64>,
    /// Most values in the file, at least 1. Default `None`: no limit. Kept as [`bytes_max`](Self::bytes_max) is.
    pub entries_max: Option<u64>,
    /// Which values go when a limit is reached. Default [`Eviction::LeastRecentlyStored`].
    pub eviction: Eviction,
    /// How long a computation may take before another caller may do it instead, in this process or another, at least 1 ms.
    /// Default 5 min. It is also how long a caller waits for another's computation that names no deadline. Lower: slow
    /// computations are done twice; higher: callers wait longer behind one that hangs.
    pub compute_time_max: Duration,
    /// Largest value in bytes, 1 KiB to 64 MiB. Default 16 MiB.
    pub value_bytes_max: usize,
}

impl Default for EmbedCacheSettings {
    fn default() -> Self {
        Self {
            backend: Backend::default(),
            memory_bytes: 64 << 20,
            bytes_max: Some(4 << 30),
            entries_max: None,
            eviction: Eviction::default(),
            compute_time_max: Duration::from_secs(300),
            value_bytes_max: 16 << 20,
        }
    }
}

impl StoreDefaults for EmbedCacheSettings {
    /// Relaxed, since a value that a power cut takes is only a miss, and with a short change log, which counts towards
    /// [`bytes_max`](Self::bytes_max).
    fn common() -> StoreSettings {
        StoreSettings {
            durability: Durability::Relaxed,
            change_log_kept: Duration::from_secs(3600),
            change_log_writes_max: 10_000,
            ..StoreSettings::default()
        }
    }
}

impl Store for EmbedCache {
    const NAME: StoreName = StoreName::EmbedCache;
    const SCHEMA: FileSchema = FileSchema {
        application_id: 0x4C72_6563, // "Lrec"
        // Ten vectors of 384 components to a page; on 4 KiB they take a third more room.
        page_bytes: 16_384,
        migrations: &[MACHINERY_TABLES, include_str!("migrations/0001_entries.sql")],
    };

    type Settings = EmbedCacheSettings;
    type Memory = CacheMemory;

    fn memory(settings: &EmbedCacheSettings, _exclusive: bool) -> CacheMemory {
        CacheMemory::new(settings.memory_bytes, settings.eviction == Eviction::LeastRecentlyUsed)
    }

    fn committed(memory: &CacheMemory, changes: &[Change]) {
        memory.forget(changes);
    }

    fn forget(memory: &CacheMemory) {
        memory.forget_all();
    }

    fn sweep(context: &mut WriteContext<'_, Self>, rows_max: usize) -> Outcome<usize> {
        evict::sweep(context, rows_max)
    }

    fn check(context: &ReadContext<'_, Self>, found: &mut dyn FnMut(String)) -> Outcome<()> {
        check::check(context, found)
    }
}

/// Up to this many values are read on the caller's thread: about 3 µs each.
const KEYS_IN_PLACE_MAX: usize = 64;

handlers! {
    EmbedCache {
        write PutValues => values::put;
        make_room RemoveValues => values::remove;
        make_room RemoveTagged => values::remove_tagged;
        make_room RemoveProduced => values::remove_produced;
        write TouchValues => values::touch;
        write ClaimValues => claims::claim;
        make_room ReleaseClaims => claims::release;
        in_place GetValue => values::get;
        sized GetValues where |message| message.keys.len() <= KEYS_IN_PLACE_MAX => values::get_many;
        sized ContainsValues where |message| message.keys.len() <= KEYS_IN_PLACE_MAX => values::contains;
        in_place DescribeCache => list::describe;
        on_thread ListValues => list::list;
    }
}
