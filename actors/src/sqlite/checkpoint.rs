//! When to move a store's WAL into its main file, as a pure policy, and the call that does it.
//!
//! Start at [`next_checkpoint`]. The runtime's supervisor asks it for each store; the store's writer asks
//! [`writer_must_checkpoint`] between two groups.
//!
//! Always true: a checkpoint never waits for a reader or writer (`busy_timeout` is 0).

use std::time::Duration;

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

/// When checkpoints happen, in WAL frames (one frame is one page).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointSettings {
    /// From here on the supervisor checkpoints in the background. Default 4,000: with 1,000, random writes wrote the same
    /// pages back so often that 256 callers got a third less done. Higher: rarer, larger ones.
    pub background_frames: u32,
    /// From here on the writer finishes a checkpoint when nobody waits. Default 8,000.
    pub writer_idle_frames: u32,
    /// From here on the writer finishes one in any case. Default 15,000: with the commit that passes it, and 24 bytes a
    /// frame, a WAL of 4 KiB pages stays below 64 MiB. Higher: a longer WAL, a longer restart after a crash, and a longer
    /// stall when it comes.
    pub writer_hard_frames: u32,
    /// A WAL of any length is checkpointed and truncated after this long without a write. Default 2 s.
    pub idle: Duration,
}

impl Default for CheckpointSettings {
    fn default() -> Self {
        Self {
            background_frames: 4_000,
            writer_idle_frames: 8_000,
            writer_hard_frames: 15_000,
            idle: Duration::from_secs(2),
        }
    }
}

/// How to checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointMode {
    /// Move what can be moved without disturbing anybody.
    Passive,
    /// Also shrink the WAL file to nothing, if nobody is using it.
    Truncate,
}

/// What the policy knows of a store's WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WalStats {
    /// Frames in the WAL after the last commit.
    pub frames: u32,
    /// Frames of those that the last checkpoint already moved.
    pub checkpointed_frames: u32,
    /// A reader kept the last checkpoint from finishing a WAL past its hard cap.
    pub is_pinned: bool,
    /// How long ago the last commit was.
    pub idle_for: Duration,
}

/// Decides what the supervisor should do about one store's WAL now.
#[must_use]
pub fn next_checkpoint(wal: WalStats, settings: &CheckpointSettings) -> Option<CheckpointMode> {
    if wal.frames == 0 {
        return None;
    }
    // A WAL that a reader let grow is cut back as soon as that reader is gone.
    if wal.idle_for >= settings.idle || wal.is_pinned {
        return Some(CheckpointMode::Truncate);
    }
    let waiting = wal.frames.saturating_sub(wal.checkpointed_frames);
    (waiting >= settings.background_frames).then_some(CheckpointMode::Passive)
}

/// Decides whether the writer must finish a checkpoint itself between two groups.
///
/// A background checkpoint alone never lets the WAL start over under a steady writer: there is always a newer frame.
#[must_use]
pub fn writer_must_checkpoint(wal_frames: u32, somebody_waits: bool, settings: &CheckpointSettings) -> bool {
    wal_frames >= settings.writer_hard_frames || (wal_frames >= settings.writer_idle_frames && !somebody_waits)
}

/// What a checkpoint reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckpointResult {
    /// Frames in the WAL.
    pub frames: u32,
    /// Frames of those now in the main file.
    pub checkpointed_frames: u32,
}

impl CheckpointResult {
    /// Returns whether the next writer may start the WAL over.
    #[must_use]
    pub fn is_complete(self) -> bool {
        self.frames == self.checkpointed_frames
    }
}

/// Returns the WAL's length, including what other processes wrote, without moving anything.
pub(crate) fn wal_frames(connection: &Connection) -> rusqlite::Result<Option<CheckpointResult>> {
    let mut statement = connection.prepare_cached("PRAGMA wal_checkpoint(NOOP)")?;
    statement.query_row([], read_result)
}

/// Checkpoints without waiting for anybody.
///
/// `None`: another process was checkpointing; SQLite lets one at a time.
///
/// # Errors
/// When SQLite cannot read or write the files. Being in use is not an error: less is moved.
pub fn checkpoint(connection: &Connection, mode: CheckpointMode) -> rusqlite::Result<Option<CheckpointResult>> {
    let sql = match mode {
        CheckpointMode::Passive => "PRAGMA wal_checkpoint(PASSIVE)",
        CheckpointMode::Truncate => "PRAGMA wal_checkpoint(TRUNCATE)",
    };
    connection.query_row(sql, [], read_result)
}

fn read_result(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<CheckpointResult>> {
    // -1 where SQLite could not look.
    let (frames, checkpointed_frames): (i64, i64) = (row.get(1)?, row.get(2)?);
    let counts = u32::try_from(frames).ok().zip(u32::try_from(checkpointed_frames).ok());
    Ok(counts.map(|(frames, checkpointed_frames)| CheckpointResult { frames, checkpointed_frames }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_wal_needs_nothing_however_idle() {
        let wal = WalStats { idle_for: Duration::from_secs(3600), ..WalStats::default() };
        assert_eq!(next_checkpoint(wal, &CheckpointSettings::default()), None);
    }

    #[test]
    fn idle_store_is_truncated_and_busy_one_checkpointed_in_the_background() {
        let settings = CheckpointSettings::default();
        let idle = WalStats { frames: 1, idle_for: settings.idle, ..WalStats::default() };
        assert_eq!(next_checkpoint(idle, &settings), Some(CheckpointMode::Truncate));
        let busy = WalStats { frames: settings.background_frames, ..WalStats::default() };
        assert_eq!(next_checkpoint(busy, &settings), Some(CheckpointMode::Passive));
        let done = WalStats { checkpointed_frames: busy.frames, ..busy };
        assert_eq!(next_checkpoint(done, &settings), None);
    }

    #[test]
    fn writer_yields_to_waiting_callers_up_to_the_hard_cap() {
        let settings = CheckpointSettings::default();
        assert!(!writer_must_checkpoint(settings.writer_idle_frames - 1, false, &settings));
        assert!(writer_must_checkpoint(settings.writer_idle_frames, false, &settings));
        assert!(!writer_must_checkpoint(settings.writer_idle_frames, true, &settings));
        assert!(writer_must_checkpoint(settings.writer_hard_frames, true, &settings));
    }
}
