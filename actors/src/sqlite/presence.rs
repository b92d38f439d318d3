//! Who has a store's file open: a lock file that each process holds shared meanwhile, and that replacing the file needs alone.
//!
//! Start at [`Presence::shared`] and [`Presence::alone`].
//!
//! Always true: while somebody is present no other process moves the file; the kernel ends a presence when its process dies.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use super::lock_file;

/// Replacing a file takes renames alone; whoever waits longer for its end is told.
const SHARED_WAIT_MAX: Duration = Duration::from_secs(5);
/// Others have a file open for hours; only one that is being closed is worth waiting for.
const ALONE_WAIT_MAX: Duration = Duration::from_millis(250);
const POLL: Duration = Duration::from_millis(2);

/// This process has the store's file open, until it is dropped.
#[derive(Debug)]
pub struct Presence {
    _file: File,
}

impl Presence {
    /// Announces that this process opens the file; waits while another one replaces it.
    ///
    /// # Errors
    /// `WouldBlock` when that takes too long; otherwise what the operating system says.
    pub fn shared(path: &Path) -> std::io::Result<Self> {
        Self::take(path, File::try_lock_shared, SHARED_WAIT_MAX)
    }

    /// Makes sure that no process has the file open, nor opens it.
    ///
    /// # Errors
    /// `WouldBlock` when another process has it open; otherwise what the operating system says.
    pub fn alone(path: &Path) -> std::io::Result<Self> {
        Self::take(path, File::try_lock, ALONE_WAIT_MAX)
    }

    #[expect(clippy::disallowed_methods, reason = "flock has no deadline")]
    fn take(path: &Path, lock: fn(&File) -> Result<(), TryLockError>, wait_max: Duration) -> std::io::Result<Self> {
        let file = lock_file::open(path)?;
        let since = Instant::now();
        loop {
            match lock(&file) {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) if since.elapsed() < wait_max => std::thread::sleep(POLL),
                Err(TryLockError::WouldBlock) => return Err(std::io::ErrorKind::WouldBlock.into()),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }
}
