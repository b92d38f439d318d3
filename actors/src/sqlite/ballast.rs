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
    /// Whether this process gave it up and has not laid it down again.
    is_released: Mutex<bool>,
}

impl Ballast {
    /// Returns the ballast at `path`, laid down if there is room. `bytes` of 0: none.
    #[must_use]
    pub fn at(path: &Path, bytes: u64) -> Self {
        let ballast = Self { path: path.to_owned(), bytes, is_released: Mutex::new(true) };
        ballast.restore();
        ballast
    }

    /// Gives the room back to the disk.
    pub fn release(&self) {
        let mut is_released = self.is_released.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_released {
            tracing::warn!(bytes = self.bytes, "the disk is full: giving up the ballast");
            *is_released = self.file().and_then(|file| file.set_len(0)).is_ok();
        }
    }

    /// Lays the ballast down again after it was given up, if there is room.
    pub fn restore(&self) {
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
    }

    fn fill(&self) -> std::io::Result<()> {
        let mut file = self.file()?;
        if file.metadata()?.len() == self.bytes {
            return Ok(());
        }
        file.set_len(0)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ballast_is_given_up_and_laid_down_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ballast");
        let ballast = Ballast::at(&path, 100_000);
        assert_eq!(path.metadata().unwrap().len(), 100_000);
        ballast.release();
        assert_eq!(path.metadata().unwrap().len(), 0);
        ballast.restore();
        assert_eq!(path.metadata().unwrap().len(), 100_000);
    }
}
