//! A file of no content that is given up when the disk is full, so that deletes and checkpoints have room to work.
//!
//! Start at [`Ballast::release`]. SQLite needs room in the WAL even to delete; without ballast a full disk stays full.
//!
//! Always true: the file's blocks are really allocated; it holds nothing that anybody needs.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Written at once when the ballast is laid down.
static BLOCK: [u8; 64 << 10] = [0; 64 << 10];

/// The ballast of one folder, shared by its stores.
#[derive(Debug)]
pub struct Ballast {
    path: PathBuf,
    bytes: u64,
    /// Whether this process has not laid it down, or has given it up since.
    is_released: Mutex<bool>,
}

impl Ballast {
    /// Returns the ballast at `path`, which [`restore`](Self::restore) lays down. `bytes` of 0: none.
    #[must_use]
    pub fn at(path: &Path, bytes: u64) -> Self {
        Self { path: path.to_owned(), bytes, is_released: Mutex::new(true) }
    }

    /// Gives the room back to the disk.
    pub fn release(&self) {
        let mut is_released = self.is_released.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_released {
            tracing::warn!(bytes = self.bytes, "the disk is full: giving up the ballast");
            *is_released = self.file().and_then(|file| file.set_len(0)).is_ok();
        }
    }

    /// Returns whether there is as much room as larder means to keep back.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.bytes == 0 || !*self.is_released.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how much room it keeps back.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Lays the ballast down, for the first time or after it was given up, if there is room; answers whether it is there.
    pub fn restore(&self) -> bool {
        let mut is_released = self.is_released.lock().unwrap_or_else(PoisonError::into_inner);
        if *is_released && self.bytes > 0 {
            match self.fill() {
                Ok(()) => *is_released = false,
                Err(error) => {
                    tracing::debug!(%error, "no room for the ballast");
                    // What was written of it is wanted more elsewhere.
                    let _ = self.file().and_then(|file| file.set_len(0));
                }
            }
        }
        self.bytes == 0 || !*is_released
    }

    fn fill(&self) -> std::io::Result<()> {
        let mut file = self.file()?;
        if file.metadata()?.len() == self.bytes {
            return Ok(());
        }
        file.set_len(0)?;
        if allocate(&file, self.bytes) {
            return Ok(());
        }
        let mut missing = self.bytes;
        while missing > 0 {
            let block_bytes = usize::try_from(missing).unwrap_or(usize::MAX).min(BLOCK.len());
            file.write_all(BLOCK.get(..block_bytes).unwrap_or(&BLOCK))?;
            missing -= block_bytes as u64;
        }
        file.sync_all()
    }

    #[expect(clippy::disallowed_methods, reason = "the ballast, not a store's file")]
    fn file(&self) -> std::io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&self.path)
    }
}

/// Reserves the blocks without writing them, where the file system can; a full disk is found out by the writes.
#[cfg(target_os = "linux")]
fn allocate(file: &File, bytes: u64) -> bool {
    rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn allocate(_file: &File, _bytes: u64) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ballast_is_laid_down_given_up_and_laid_down_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ballast");
        let ballast = Ballast::at(&path, 100_000);
        ballast.restore();
        assert_eq!(path.metadata().unwrap().len(), 100_000);
        ballast.release();
        assert_eq!(path.metadata().unwrap().len(), 0);
        ballast.restore();
        assert_eq!(path.metadata().unwrap().len(), 100_000);
    }
}
