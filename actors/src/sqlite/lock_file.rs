//! Files in a folder's `locks` that processes share: locks themselves, and marks.
//!
//! Always true: none is a file of SQLite's, so that closing one drops no lock of it.

use std::fs::{File, OpenOptions};
use std::path::Path;

/// Opens the file at `path`, for its owner alone; makes it where it is missing.
#[expect(clippy::disallowed_methods, reason = "a file of `locks`, not a store's")]
pub(super) fn open(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
