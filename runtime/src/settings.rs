//! What a program may set, as one serde value that it can keep in its own configuration.
//!
//! Start at [`Settings`]; each field names its default and what gets worse when it is raised.

use std::path::{Path, PathBuf};
use std::time::Duration;

use larder_actors::chat::ChatSettings;
use larder_actors::documents::DocumentsSettings;
use larder_actors::embed_cache::{Backend, EmbedCacheSettings, Eviction};
use larder_actors::graph::GraphSettings;
use larder_actors::kv::KvSettings;
use larder_actors::store::{StoreDefaults, StoreSettings};
use larder_actors::vectors::VectorsSettings;
use larder_protocol::Error as Kind;
use serde::{Deserialize, Serialize};

/// Everything that can be set.
///
/// # Examples
/// ```
/// let settings: larder::Settings = serde_json::from_str(
///     r#"{ "path": "./data", "sharing": "exclusive", "kv": { "common": { "durability": "relaxed" } } }"#,
/// )?;
/// assert_eq!(settings.kv.common.durability, larder::Durability::Relaxed);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Settings {
    /// The folder. Default `larder`, below the current folder. It is created where it is missing.
    pub path: PathBuf,
    /// Whether other processes may open the folder at the same time. Default [`Sharing::Shared`].
    pub sharing: Sharing,
    /// Who moves the WAL into the main file. Default [`Replicator::None`]: larder does.
    pub replicator: Replicator,
    /// Restarts of one store within [`restart_window`](Self::restart_window) before it has failed for good. Default 3.
    pub restart_limit: u32,
    /// See [`restart_limit`](Self::restart_limit). Default 5 s.
    pub restart_window: Duration,
    /// How long [`close`](crate::Larder::close) waits for what was accepted. Default 10 s.
    pub close_deadline: Duration,
    /// How often each store gets a slice of maintenance (expired rows, old log rows). Default 1 s.
    pub maintenance_interval: Duration,
    /// How long a snapshot may copy, before it is given up. Default 10 min. Higher: the WALs, which cannot start over
    /// meanwhile, may grow for longer.
    pub snapshot_time_max: Duration,
    /// Room kept back on the disk in bytes, given up when it is full, so that deletes still work. Default 16 MiB; 0: none.
    /// Lower: a commit takes no further write past half of it. A single write larger than that may need more than it gives.
    pub ballast_bytes: u64,
    /// The key–value store.
    pub kv: StoreConfig<KvSettings>,
    /// The documents store.
    pub documents: StoreConfig<DocumentsSettings>,
    /// The chat store.
    pub chat: StoreConfig<ChatSettings>,
    /// The vectors store.
    pub vectors: StoreConfig<VectorsSettings>,
    /// The embedding cache, which is relaxed by default. What is said of its `common` in part is durable unless it says so.
    pub embed_cache: StoreConfig<EmbedCacheSettings>,
    /// The graph store.
    pub graph: StoreConfig<GraphSettings>,
}

/// One store's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, bound(deserialize = "T: StoreDefaults + Deserialize<'de>"))]
pub struct StoreConfig<T> {
    /// The settings every store has.
    pub common: StoreSettings,
    /// The settings of this store alone.
    pub own: T,
}

impl<T: StoreDefaults> Default for StoreConfig<T> {
    fn default() -> Self {
        Self { common: T::common(), own: T::default() }
    }
}

/// Whether other processes may have the folder open too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// Any number of processes.
    #[default]
    Shared,
    /// This process alone: a second one is refused, and hot values are answered from memory.
    Exclusive,
}

/// Who moves the WAL into the main file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Replicator {
    /// larder's own supervisor and writers.
    #[default]
    None,
    /// A replicator such as Litestream; larder never checkpoints.
    External,
}

impl Default for Settings {
    fn default() -> Self {
        Self::at("larder")
    }
}

impl Settings {
    /// Returns the defaults for a folder.
    #[must_use]
    pub fn at(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            sharing: Sharing::default(),
            replicator: Replicator::default(),
            restart_limit: 3,
            restart_window: Duration::from_secs(5),
            close_deadline: Duration::from_secs(10),
            maintenance_interval: Duration::from_secs(1),
            snapshot_time_max: Duration::from_secs(600),
            ballast_bytes: 16 << 20,
            kv: StoreConfig::default(),
            documents: StoreConfig::default(),
            chat: StoreConfig::default(),
            vectors: StoreConfig::default(),
            embed_cache: StoreConfig::default(),
            graph: StoreConfig::default(),
        }
    }

    /// Checks every range.
    ///
    /// # Errors
    /// [`Invalid`](Kind::Invalid) with the setting's name and range.
    pub fn check(&self) -> larder_protocol::Result<()> {
        if self.maintenance_interval < Duration::from_millis(10) {
            return Err(Kind::invalid("setting maintenance_interval", "it is less than 10 ms"));
        }
        if !(1..=512 << 20).contains(&self.kv.own.value_bytes_max) {
            return Err(Kind::invalid("setting kv.own.value_bytes_max", "it is not within 1 byte to 512 MiB"));
        }
        if !(1 << 10..=64 << 20).contains(&self.chat.own.message_bytes_max) {
            return Err(Kind::invalid("setting chat.own.message_bytes_max", "it is not within 1 KiB to 64 MiB"));
        }
        if !(1 << 10..=64 << 20).contains(&self.documents.own.node_bytes_max) {
            return Err(Kind::invalid("setting documents.own.node_bytes_max", "it is not within 1 KiB to 64 MiB"));
        }
        if !(1 << 10..=256 << 20).contains(&self.documents.own.document_bytes_max) {
            return Err(Kind::invalid("setting documents.own.document_bytes_max", "it is not within 1 KiB to 256 MiB"));
        }
        self.check_vectors()?;
        check_embed_cache(&self.embed_cache.own)?;
        self.embed_cache.common.check("embed_cache.common")?;
        if !(1 << 10..=64 << 20).contains(&self.graph.own.payload_bytes_max) {
            return Err(Kind::invalid("setting graph.own.payload_bytes_max", "it is not within 1 KiB to 64 MiB"));
        }
        if self.graph.own.index_bytes_max > 1 << 40 {
            return Err(Kind::invalid("setting graph.own.index_bytes_max", "it is not within 0 to 1 TiB"));
        }
        self.graph.common.check("graph.common")?;
        self.documents.common.check("documents.common")?;
        self.chat.common.check("chat.common")?;
        self.vectors.common.check("vectors.common")?;
        self.kv.common.check("kv.common")
    }

    fn check_vectors(&self) -> larder_protocol::Result<()> {
        let VectorsSettings { payload_bytes_max, index_bytes_max, vector_bytes_max, search_threads, .. } =
            self.vectors.own;
        let refuse = |name: &str, range: &str| {
            Err(Kind::invalid(format!("setting vectors.own.{name}"), format!("it is not within {range}")))
        };
        if !(1 << 10..=64 << 20).contains(&payload_bytes_max) {
            return refuse("payload_bytes_max", "1 KiB to 64 MiB");
        }
        if !(1 << 20..=1 << 40).contains(&index_bytes_max) {
            return refuse("index_bytes_max", "1 MiB to 1 TiB");
        }
        if vector_bytes_max > 1 << 40 {
            return refuse("vector_bytes_max", "0 to 1 TiB");
        }
        if !(1..=64).contains(&search_threads) {
            return refuse("search_threads", "1 to 64");
        }
        Ok(())
    }

    /// Names the first setting in which `asked` differs, with both values.
    pub(crate) fn first_difference(&self, asked: &Self) -> String {
        let tree = |settings: &Self| serde_json::to_value(settings).unwrap_or_default();
        difference("", &tree(self), &tree(asked)).unwrap_or_else(|| "they differ".to_owned())
    }
}

fn check_embed_cache(own: &EmbedCacheSettings) -> larder_protocol::Result<()> {
    let refuse = |name: &str, reason: &str| Err(Kind::invalid(format!("setting embed_cache.own.{name}"), reason));
    if own.bytes_max.is_some_and(|max| !(1 << 20..=1 << 50).contains(&max)) {
        return refuse("bytes_max", "it is not within 1 MiB to 1 PiB");
    }
    if own.entries_max == Some(0) {
        return refuse("entries_max", "it is 0; the backend \"off\" keeps nothing");
    }
    if own.compute_time_max < Duration::from_millis(1) {
        return refuse("compute_time_max", "it is less than 1 ms");
    }
    if !(1 << 10..=64 << 20).contains(&own.value_bytes_max) {
        return refuse("value_bytes_max", "it is not within 1 KiB to 64 MiB");
    }
    if own.backend == Backend::Memory && (own.eviction == Eviction::None || own.entries_max.is_some()) {
        return refuse("backend", "in memory alone, only memory_bytes limits what is kept, and what is past it goes");
    }
    Ok(())
}

fn difference(path: &str, open: &serde_json::Value, asked: &serde_json::Value) -> Option<String> {
    match (open.as_object().filter(|_| duration(open).is_none()), asked.as_object()) {
        (Some(open), Some(asked)) => open.iter().find_map(|(name, value)| {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            difference(&path, value, asked.get(name)?)
        }),
        _ if open == asked => None,
        _ => Some(format!("{path} is {} there and {} here", shown(open), shown(asked))),
    }
}

fn duration(value: &serde_json::Value) -> Option<Duration> {
    Duration::deserialize(value).ok()
}

fn shown(value: &serde_json::Value) -> String {
    duration(value).map_or_else(|| value.to_string(), |duration| format!("{duration:?}"))
}
