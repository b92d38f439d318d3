//! Taking turns between processes: a busy writer must not starve another that waits for the same file.
//!
//! Start at [`Turn::take`]. A writer takes the turn before it waits for SQLite's lock and gives it back once it has it.
//! So whoever just committed finds the turn taken while another process waits, and queues behind it.
//!
//! Always true: the turn is only about fairness. It is given up after a moment, so a stopped process delays nobody for
//! long, and the kernel frees it when its holder dies.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use super::lock_file;

/// After this long somebody who holds the turn is not getting on; fairness is not worth waiting longer.
const WAIT_MAX: Duration = Duration::from_millis(100);
const POLL: Duration = Duration::from_micros(100);

/// One process's seat at a store's turn file.
#[derive(Debug)]
pub(crate) struct Turn {
    file: File,
}

/// The turn, until it is dropped.
#[derive(Debug)]
pub(crate) struct Taken<'a> {
    file: Option<&'a File>,
}

impl Turn {
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        Ok(Self { file: lock_file::open(path)? })
    }

    /// Waits for the turn, but not for ever.
    #[expect(clippy::disallowed_methods, reason = "the store's own thread waits, and flock has no deadline")]
    pub(crate) fn take(&self) -> Taken<'_> {
        let began = Instant::now();
        loop {
            match self.file.try_lock() {
                Ok(()) => return Taken { file: Some(&self.file) },
                Err(TryLockError::WouldBlock) if began.elapsed() < WAIT_MAX => std::thread::sleep(POLL),
                Err(_) => return Taken { file: None },
            }
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(file) = self.file {
            // Closing the file frees it as well, should this fail.
            let _ = file.unlock();
        }
    }
}
