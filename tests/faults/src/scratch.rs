//! Folders that live in memory where the machine has such: a sweep writes thousands of them.

use std::io;
use std::path::Path;

use tempfile::TempDir;

/// Returns a new empty folder that is removed when dropped: below `LARDER_FAULTS_DIR`, or /dev/shm, or the default.
///
/// # Errors
/// None can be made there.
pub fn folder() -> io::Result<TempDir> {
    if let Some(parent) = std::env::var_os("LARDER_FAULTS_DIR") {
        return tempfile::tempdir_in(parent);
    }
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()) } else { tempfile::tempdir() }
}
