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
    /// From here on the supervisor checkpoints in the background. Default 6,000. Lower: the same pages are written back more
    /// often, and more requests meet a disk that is busy with that. Higher: rarer, larger ones.
    pub background_frames: u32,
    /// From here on the background closes in on the newest frame, and the writer finishes a checkpoint as soon as that has left
    /// it a quarter of [`background_frames`](Self::background_frames) or less. Default 7,000.
    pub writer_soft_frames: u32,
    /// From here on the writer finishes one in any case. Default 15,000: with the commit that passes it, and 24 bytes a
    /// frame, a WAL of 4 KiB pages stays below 64 MiB. Higher: a longer WAL, a longer restart after a crash, and a longer
    /// stall when it comes.
    pub writer_hard_frames: u32,
    /// A WAL of any length is checkpointed after this long without a write. Default 2 s.
    pub idle: Duration,
    /// A WAL that had no more frames than this keeps its file then, since a file that grows makes commits wait; one that was longer is
    /// emptied. Default 1,000: 4 MiB, or 16 where pages have 16 KiB. Lower: what was deleted stays in the file for less long; 0: it
    /// is emptied whenever it is idle.
    pub kept_frames: u32,
}

impl Default for CheckpointSettings {
    fn default() -> Self {
        Self {
            background_frames: 6_000,
            writer_soft_frames: 7_000,
            writer_hard_frames: 15_000,
            idle: Duration::from_secs(2),
            kept_frames: 1_000,
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
    /// Frames of those that a checkpoint also synced in the main file: SQLite does so at the end of one that leaves nothing.
    pub synced_frames: u32,
    /// A reader kept the last checkpoint from finishing a WAL past its hard cap.
    pub is_pinned: bool,
    /// Most frames it had since it was last emptied, which is how long its file is.
    pub longest_frames: u32,
    /// All of it was moved and synced after the newest commit of this process.
    pub is_settled: bool,
    /// How long ago the last commit was.
    pub idle_for: Duration,
}

impl WalStats {
    /// Frames that are not in the main file yet.
    fn waiting_frames(self) -> u32 {
        self.frames.saturating_sub(self.checkpointed_frames)
    }

    /// Frames whose pages a checkpoint that finishes now has to sync: most of its time.
    fn unsynced_frames(self) -> u32 {
        self.frames.saturating_sub(self.synced_frames)
    }
}

impl CheckpointSettings {
    /// So few frames that the writer moves and syncs them in some milliseconds.
    fn rest_frames(&self) -> u32 {
        self.background_frames / 4
    }
}

/// Decides what the supervisor should do about one store's WAL now.
#[must_use]
pub fn next_checkpoint(wal: WalStats, settings: &CheckpointSettings) -> Option<CheckpointMode> {
    if wal.frames == 0 {
        return None;
    }
    let is_idle = wal.idle_for >= settings.idle;
    // A WAL that a reader let grow is cut back as soon as that reader is gone.
    if wal.is_pinned || (is_idle && wal.longest_frames > settings.kept_frames) {
        return Some(CheckpointMode::Truncate);
    }
    if is_idle && !wal.is_settled {
        return Some(CheckpointMode::Passive);
    }
    is_background_due(wal, settings).then_some(CheckpointMode::Passive)
}

/// Tells whether a busy store's WAL has grown enough for the background: now and then while it is short, and from where the
/// writer is to finish on, again at once, since each pass leaves only what was written meanwhile.
#[must_use]
pub fn is_background_due(wal: WalStats, settings: &CheckpointSettings) -> bool {
    let is_closing_in = wal.frames >= settings.writer_soft_frames && wal.unsynced_frames() > settings.rest_frames();
    wal.waiting_frames() >= settings.background_frames || is_closing_in
}

/// Decides whether the writer must finish a checkpoint itself between two groups.
///
/// A background checkpoint alone never lets the WAL start over under a steady writer: there is always a newer frame. But it
/// leaves little to the writer, who holds everybody up meanwhile.
#[must_use]
pub fn writer_must_checkpoint(wal: WalStats, settings: &CheckpointSettings) -> bool {
    let is_cheap = wal.unsynced_frames() <= settings.rest_frames();
    wal.frames >= settings.writer_hard_frames || (wal.frames >= settings.writer_soft_frames && is_cheap)
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

/// Most passes of one [`close_in`]; the first are each shorter than the one before.
const PASSES_MAX: u32 = 64;

/// Checkpoints again and again, until nothing is left or no pass gets further.
///
/// SQLite syncs the main file only in a pass at whose end there is no newer frame, which under a steady writer is one that
/// fits between two commits. Without that sync all pages moved in the background would be synced by the writer's own
/// checkpoint, while everybody waits for it: 50 to 80 ms, measured.
pub(crate) fn close_in(connection: &Connection, mode: CheckpointMode) -> rusqlite::Result<Option<CheckpointResult>> {
    let mut reached = None;
    for _ in 0..PASSES_MAX {
        if checkpoint(connection, mode)?.is_none() {
            break;
        }
        // Asked anew: a pass tells the length that the WAL had when it began.
        let now = wal_frames(connection)?;
        let is_further = checkpointed_frames(now) > checkpointed_frames(reached);
        reached = now.or(reached);
        if !is_further || reached.is_some_and(CheckpointResult::is_complete) {
            break;
        }
    }
    Ok(reached)
}

fn checkpointed_frames(result: Option<CheckpointResult>) -> u32 {
    result.map_or(0, |result| result.checkpointed_frames)
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
    fn idle_store_is_checkpointed_and_a_long_wal_cut_back() {
        let settings = CheckpointSettings::default();
        let idle =
            |longest_frames| WalStats { frames: 1, longest_frames, idle_for: settings.idle, ..WalStats::default() };
        assert_eq!(next_checkpoint(idle(settings.kept_frames + 1), &settings), Some(CheckpointMode::Truncate));
        assert_eq!(next_checkpoint(idle(settings.kept_frames), &settings), Some(CheckpointMode::Passive));
        assert_eq!(next_checkpoint(WalStats { is_settled: true, ..idle(1) }, &settings), None);
    }

    #[test]
    fn busy_store_is_checkpointed_in_the_background() {
        let settings = CheckpointSettings::default();
        let busy = WalStats { frames: settings.background_frames, ..WalStats::default() };
        assert_eq!(next_checkpoint(busy, &settings), Some(CheckpointMode::Passive));
        let done = WalStats { checkpointed_frames: busy.frames, ..busy };
        assert_eq!(next_checkpoint(done, &settings), None);
    }

    #[test]
    fn writer_leaves_a_long_rest_to_the_background_up_to_the_hard_cap() {
        let settings = CheckpointSettings::default();
        let wal = |frames| WalStats { frames, ..WalStats::default() };
        assert!(!writer_must_checkpoint(wal(settings.writer_soft_frames), &settings));
        assert!(!writer_must_checkpoint(wal(settings.writer_hard_frames - 1), &settings));
        assert!(writer_must_checkpoint(wal(settings.writer_hard_frames), &settings));
        let nothing_left =
            WalStats { synced_frames: settings.writer_soft_frames - 1, ..wal(settings.writer_soft_frames - 1) };
        assert!(!writer_must_checkpoint(nothing_left, &settings), "a short WAL need not start over");
    }

    #[test]
    fn background_closes_in_until_the_writer_has_little_left_to_finish() {
        let settings = CheckpointSettings::default();
        let left = |waiting| WalStats {
            frames: settings.writer_soft_frames,
            checkpointed_frames: settings.writer_soft_frames,
            synced_frames: settings.writer_soft_frames - waiting,
            ..WalStats::default()
        };
        for (waiting, is_little) in [(settings.rest_frames(), true), (settings.rest_frames() + 1, false)] {
            assert_eq!(writer_must_checkpoint(left(waiting), &settings), is_little);
            assert_eq!(is_background_due(left(waiting), &settings), !is_little);
        }
        let short = WalStats { frames: settings.background_frames - 1, ..WalStats::default() };
        assert!(!is_background_due(short, &settings));
    }
}
