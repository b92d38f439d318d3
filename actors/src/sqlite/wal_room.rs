//! Room in the WAL ahead of the commits that need it: where a sync finds that its file has grown, it takes twice as long as where
//! what was there is overwritten (decision 0024).
//!
//! Start at [`WalRoom::make`].
//!
//! Always true: only who holds the write lock makes room, and only behind the file's end, so that no frame is overwritten; what is
//! put there are zeros, which SQLite takes for no frame, as it takes what an older, longer WAL has left.

use std::fs::OpenOptions;
use std::io::{Result, Seek, SeekFrom, Write};
use std::path::PathBuf;

/// Most that is made at once. A small commit has two to five frames, so that one in some dozens waits for a file that has grown.
static STEP: [u8; 256 << 10] = [0; 256 << 10];

/// Of a ballast, no more than one part in so many is made at once: commits that go there add to what a full disk has to take.
const BALLAST_PART: u64 = 16;

/// What a WAL has in front of its first frame, and in front of each page.
const HEADER_BYTES: u64 = 32;
const FRAME_HEADER_BYTES: u64 = 24;

/// Frames of a small commit, if a quarter of a step has room for so many. One that needs more makes its own room, as it does without
/// this.
const COMMIT_FRAMES: u64 = 16;

/// The WAL of a file, and how long it is known to be.
#[derive(Debug)]
pub(crate) struct WalRoom {
    path: PathBuf,
    page_bytes: u32,
    /// Its length when it was last looked at, for as long as it has not started over since. Looking at it each time would let each
    /// commit wait for its time of change as well: Linux keeps that to the ns for a file whose times somebody reads.
    known_bytes: u64,
    frames_before: u32,
    step_bytes: usize,
}

impl WalRoom {
    /// Returns the WAL at `path`, beside a ballast of so many bytes; 0: none.
    pub(crate) fn new(path: PathBuf, page_bytes: u32, ballast_bytes: u64) -> Self {
        let step_bytes = match usize::try_from(ballast_bytes / BALLAST_PART) {
            Ok(part) if ballast_bytes > 0 => part.min(STEP.len()),
            _ => STEP.len(),
        };
        Self { path, page_bytes, known_bytes: 0, frames_before: 0, step_bytes }
    }

    /// Returns how much is made at once.
    pub(crate) fn step_bytes(&self) -> u64 {
        self.step_bytes as u64
    }

    /// Lets the WAL, which has so many frames, have room for a small commit. Only for who holds its write lock, before COMMIT.
    ///
    /// # Errors
    /// When the file cannot be read or written, which the commit behind it finds out by itself.
    pub(crate) fn make(&mut self, frames: u32) -> Result<()> {
        if frames < self.frames_before {
            self.known_bytes = 0;
        }
        self.frames_before = frames;
        let frame_bytes = FRAME_HEADER_BYTES + u64::from(self.page_bytes);
        let commit_bytes = (COMMIT_FRAMES * frame_bytes).min(self.step_bytes() / 4);
        if commit_bytes < frame_bytes {
            // Beside so small a ballast it would be made for each commit.
            return Ok(());
        }
        let needed_bytes = HEADER_BYTES + u64::from(frames) * frame_bytes + commit_bytes;
        if self.known_bytes < needed_bytes {
            self.known_bytes = self.path.metadata()?.len();
        }
        if self.known_bytes < needed_bytes {
            self.known_bytes = self.grow()?;
        }
        Ok(())
    }

    #[expect(clippy::disallowed_methods, reason = "SQLite holds no lock on a WAL, so that closing one drops none")]
    fn grow(&self) -> Result<u64> {
        let mut wal = OpenOptions::new().write(true).open(&self.path)?;
        wal.seek(SeekFrom::End(0))?;
        wal.write_all(STEP.get(..self.step_bytes).unwrap_or(&STEP))?;
        wal.stream_position()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a file that nothing else has open")]
mod tests {
    use super::*;

    #[test]
    fn steps_are_small_beside_a_small_ballast() {
        let step_bytes = |ballast_bytes| WalRoom::new(PathBuf::new(), 4096, ballast_bytes).step_bytes();
        assert_eq!([0, 1 << 20, 16 << 20].map(step_bytes), [256 << 10, 64 << 10, 256 << 10]);
        // So small that each commit would make room.
        assert!(WalRoom::new(PathBuf::from("/not there"), 4096, 128 << 10).make(0).is_ok());
    }

    #[test]
    fn one_step_lasts_for_several_commits_of_large_pages() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db-wal");
        std::fs::write(&path, "").unwrap();
        let mut room = WalRoom::new(path.clone(), 16_384, 16 << 20);
        for frames in [0, 4, 8, 11] {
            room.make(frames).unwrap();
            assert_eq!(path.metadata().unwrap().len(), STEP.len() as u64, "{frames} frames");
        }
    }

    #[test]
    fn room_is_made_behind_the_end_and_only_where_it_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db-wal");
        let mut room = WalRoom::new(path.clone(), 4096, 0);
        assert!(room.make(0).is_err(), "it is SQLite that makes the file");
        std::fs::write(&path, "frames").unwrap();
        room.make(0).unwrap();
        let grown = std::fs::read(&path).unwrap();
        assert_eq!(grown.len(), 6 + STEP.len());
        assert!(grown.starts_with(b"frames") && grown[6..].iter().all(|byte| *byte == 0));
        let length = || path.metadata().unwrap().len();
        room.make(40).unwrap();
        assert_eq!(length(), grown.len() as u64);
        room.make(60).unwrap();
        assert_eq!(length(), (6 + 2 * STEP.len()) as u64);
        // Another process has emptied it.
        std::fs::write(&path, "").unwrap();
        room.make(3).unwrap();
        assert_eq!(length(), STEP.len() as u64);
    }
}
