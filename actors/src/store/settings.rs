//! What a program may set about any store; each setting with its default, range and price.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sqlite::checkpoint::CheckpointSettings;
use crate::sqlite::connection::Durability;

/// The settings every store has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSettings {
    /// What an acknowledged write survives. Default [`Durability::Durable`].
    pub durability: Durability,
    /// Most requests waiting or running at once, 1 to 1,000,000. Default 16,384. Higher: more memory under overload.
    pub queue_messages_max: usize,
    /// Most bytes of requests waiting or running at once, 1 KiB to 4 GiB. Default 64 MiB. A larger request is refused.
    pub queue_bytes_max: usize,
    /// Most writes in one commit, 1 to 100,000. Default 1,024. Higher: more throughput and a longer wait for each.
    pub group_messages_max: usize,
    /// A commit takes no further write past this many bytes of requests. Default 8 MiB.
    pub group_bytes_max: usize,
    /// A commit takes no further write after this long, so that the first does not wait for the last. Default 20 ms.
    /// Higher: more throughput of slow writes, and a longer wait for each.
    pub group_time_max: Duration,
    /// How long a caller waits that names no deadline of its own. Default 30 s.
    pub deadline: Duration,
    /// Page cache of each connection in bytes. Default 16 MiB. Higher: more memory, times the connections.
    pub cache_bytes: u64,
    /// Most connections for reads on the callers' own threads, 1 to 64. Default 8; further readers use the threads.
    pub in_place_connections_max: usize,
    /// Threads for scans and other long reads, 1 to 64. Default 2. They start at the first such read.
    pub reader_threads: usize,
    /// A read on a reader thread that takes longer is ended with a deadline error, at least 1 ms. Default 10 s. Higher: it can
    /// keep the WAL from starting over for as long, and the WAL grows meanwhile. Checks are exempt.
    pub reader_age_max: Duration,
    /// Where short reads run: `true` (the default) on the caller's thread, `false` on the reader threads.
    pub reads_in_place: bool,
    /// Whether a full-text index that is there stays as another tokenizer than this store's setting made it, and searches go by
    /// that. Default `false`. Set it in tools that open a folder without the settings of the application that made it.
    pub keeps_tokenizer: bool,
    /// When the WAL is moved into the main file.
    pub checkpoint: CheckpointSettings,
    /// Largest WAL in bytes, 1 MiB to 1 TiB. Default 1 GiB. It only grows past the checkpoint limits while a reader
    /// outside this process pins it; at this size writes get `Overloaded` until the reader is gone.
    pub wal_bytes_max: u64,
    /// How long outcomes of writes with an idempotency key are kept. Default 24 h.
    pub idempotency_kept: Duration,
    /// How long the change log is kept. Default 24 h.
    pub change_log_kept: Duration,
    /// Most writes the change log reaches back. Default 1,000,000.
    pub change_log_writes_max: u64,
}

/// A store's own settings, which say what the settings of every store are for it where a program says nothing.
pub trait StoreDefaults: Default {
    /// Returns the defaults of what every store has.
    #[must_use]
    fn common() -> StoreSettings {
        StoreSettings::default()
    }
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            durability: Durability::Durable,
            queue_messages_max: 16_384,
            queue_bytes_max: 64 << 20,
            group_messages_max: 1_024,
            group_bytes_max: 8 << 20,
            group_time_max: Duration::from_millis(20),
            deadline: Duration::from_secs(30),
            cache_bytes: 16 << 20,
            in_place_connections_max: 8,
            reader_threads: 2,
            reader_age_max: Duration::from_secs(10),
            reads_in_place: true,
            keeps_tokenizer: false,
            checkpoint: CheckpointSettings::default(),
            wal_bytes_max: 1 << 30,
            idempotency_kept: Duration::from_secs(24 * 3600),
            change_log_kept: Duration::from_secs(24 * 3600),
            change_log_writes_max: 1_000_000,
        }
    }
}

impl StoreSettings {
    /// Checks every range; `path` is where these settings stand, for the error.
    ///
    /// # Errors
    /// [`Invalid`](larder_protocol::Error::Invalid) with the setting's name and range.
    pub fn check(&self, path: &str) -> larder_protocol::Result<()> {
        let check = |name: &str, value: u64, least: u64, most: u64| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            let reason = format!("{value} is not within {least} to {most}");
            Err(larder_protocol::Error::invalid(format!("setting {path}.{name}"), reason))
        };
        check("queue_messages_max", self.queue_messages_max as u64, 1, 1_000_000)?;
        check("queue_bytes_max", self.queue_bytes_max as u64, 1 << 10, u32::MAX.into())?;
        check("group_messages_max", self.group_messages_max as u64, 1, 100_000)?;
        check("group_bytes_max", self.group_bytes_max as u64, 1, u32::MAX.into())?;
        check("cache_bytes", self.cache_bytes, 64 << 10, 1 << 40)?;
        check("in_place_connections_max", self.in_place_connections_max as u64, 1, 64)?;
        check("reader_threads", self.reader_threads as u64, 1, 64)?;
        check("wal_bytes_max", self.wal_bytes_max, 1 << 20, 1 << 40)?;
        check("change_log_writes_max", self.change_log_writes_max, 1, i64::MAX.unsigned_abs())?;
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        check("deadline (in ms)", millis(self.deadline), 1, u64::MAX)?;
        check("reader_age_max (in ms)", millis(self.reader_age_max), 1, u64::MAX)?;
        let CheckpointSettings { background_frames, writer_soft_frames, writer_hard_frames, kept_frames, .. } =
            self.checkpoint;
        check("checkpoint.background_frames", background_frames.into(), 1, 1 << 24)?;
        check("checkpoint.writer_soft_frames", writer_soft_frames.into(), 1, 1 << 24)?;
        check("checkpoint.writer_hard_frames", writer_hard_frames.into(), writer_soft_frames.into(), 1 << 24)?;
        check("checkpoint.kept_frames", kept_frames.into(), 0, 1 << 24)
    }
}
