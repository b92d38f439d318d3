//! The folder on disk: created private, on a file system whose locks hold, and held for as long as it is open.
//!
//! Start at [`Folder::open`].
//!
//! Always true: a shared lock on `larder.lock` is held by every process that has the folder open, an exclusive one by a
//! process that has it for itself; `processes/<uuid>` is locked for as long as its process lives.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use larder_actors::store::Process;
use uuid::Uuid;

use crate::error::OpenError;
use crate::settings::Sharing;

/// Longer than any fork takes to reach its exec; who is refused waits this long.
const LOCK_WAIT_MAX: Duration = Duration::from_millis(250);
const LOCK_POLL: Duration = Duration::from_millis(2);

/// An open folder. Dropping it lets go of its locks.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
    process: ProcessFile,
}

/// This process's own file, by whose lock others see that it lives. Process ids are reused; this name is not.
#[derive(Debug)]
struct ProcessFile {
    path: PathBuf,
    _file: File,
}

impl Folder {
    /// Creates the folder where it is missing, and takes its locks.
    pub(crate) fn open(path: &Path, sharing: Sharing) -> Result<Self, OpenError> {
        create_private(path)?;
        let path = path.canonicalize().map_err(|source| failed(path, "resolving its path", source))?;
        check_file_system(&path)?;
        let lock = take_lock(&path, sharing)?;
        for name in ["processes", "locks"] {
            create_private(&path.join(name))?;
        }
        let process = ProcessFile::create(&path)?;
        Ok(Self { path, _lock: lock, process })
    }

    /// Returns this process among those that have the folder open.
    pub(crate) fn process(&self) -> Process {
        let name = self.process.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Process { folder: self.path.join("processes"), name }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn create_private(path: &Path) -> Result<(), OpenError> {
    create_and_sync(path).map_err(|source| failed(path, "creating it", source))
}

/// Creates the folder, and those above it that are missing, for their owner alone, and puts each name on disk.
pub(crate) fn create_and_sync(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
        create_and_sync(above)?;
    }
    let mut builder = std::fs::DirBuilder::new();
    // No error where another process was faster.
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)?;
    sync_parent(path)
}

/// A new name is only safe once its folder is on disk.
#[cfg(unix)]
#[expect(clippy::disallowed_methods, reason = "a folder, not a store's file")]
fn sync_parent(path: &Path) -> std::io::Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

#[cfg(not(unix))]
fn sync_parent(_path: &Path) -> std::io::Result<()> {
    Ok(())
}

/// Refuses network file systems: SQLite's shared memory and locks do not work across machines.
#[cfg(target_os = "linux")]
fn check_file_system(path: &Path) -> Result<(), OpenError> {
    let stat = rustix::fs::statfs(path).map_err(|e| failed(path, "asking for its file system", e.into()))?;
    match unsupported_file_system(stat.f_type.cast_unsigned()) {
        Some(name) => Err(OpenError::UnsupportedFileSystem { path: path.to_owned(), file_system: name.to_owned() }),
        None => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
fn check_file_system(_path: &Path) -> Result<(), OpenError> {
    Ok(())
}

/// Names the file system, by the magic numbers of statfs(2), where locks cannot be relied on.
#[cfg(target_os = "linux")]
fn unsupported_file_system(magic: u64) -> Option<&'static str> {
    match magic & 0xFFFF_FFFF {
        0x6969 => Some("NFS"),
        0x517B | 0xFF53_4D42 | 0xFE53_4D42 => Some("SMB"),
        0x0102_1997 => Some("9p"),
        0x6B41_4653 | 0x5346_414F => Some("AFS"),
        0x7375_7245 => Some("Coda"),
        _ => None,
    }
}

fn take_lock(folder: &Path, sharing: Sharing) -> Result<File, OpenError> {
    let path = folder.join("larder.lock");
    let mut file = private_file(&path).map_err(|source| failed(&path, "opening its lock file", source))?;
    match try_lock_for_a_moment(&file, sharing) {
        Ok(()) => note_holder(&mut file, sharing).map_err(|source| failed(&path, "writing its lock file", source))?,
        Err(TryLockError::WouldBlock) => return Err(held(folder, &mut file, sharing)),
        Err(TryLockError::Error(source)) => return Err(failed(&path, "locking it", source)),
    }
    Ok(file)
}

/// Tries for a moment: between fork and exec, a child that this process starts holds every lock that was just let go of.
#[expect(clippy::disallowed_methods, reason = "flock has no deadline, and this is the opening's own thread")]
fn try_lock_for_a_moment(file: &File, sharing: Sharing) -> Result<(), TryLockError> {
    let since = Instant::now();
    loop {
        let locked = match sharing {
            Sharing::Shared => file.try_lock_shared(),
            Sharing::Exclusive => file.try_lock(),
        };
        match locked {
            Err(TryLockError::WouldBlock) if since.elapsed() < LOCK_WAIT_MAX => std::thread::sleep(LOCK_POLL),
            locked => return locked,
        }
    }
}

/// An exclusive holder leaves its process id, for the message that refuses others.
fn note_holder(file: &mut File, sharing: Sharing) -> std::io::Result<()> {
    if sharing == Sharing::Exclusive {
        file.set_len(0)?;
        write!(file, "{}", std::process::id())?;
    }
    Ok(())
}

fn held(folder: &Path, file: &mut File, sharing: Sharing) -> OpenError {
    let mut process_id = String::new();
    let _ = file.rewind().and_then(|()| file.take(20).read_to_string(&mut process_id));
    let held_by = match sharing {
        Sharing::Shared => format!("process {process_id} has it for itself (sharing = exclusive)"),
        Sharing::Exclusive => "it is open there, and this process asks to have it for itself".to_owned(),
    };
    OpenError::Held { path: folder.to_owned(), held_by }
}

impl ProcessFile {
    fn create(folder: &Path) -> Result<Self, OpenError> {
        let this = loop {
            let path = folder.join("processes").join(Uuid::now_v7().to_string());
            let file = private_file(&path).map_err(|source| failed(&path, "creating its process file", source))?;
            match file.try_lock() {
                Ok(()) if path.exists() => break Self { path, _file: file },
                // Another process found it before it was locked and took its owner for dead: under another name, then.
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(source)) => return Err(failed(&path, "locking its process file", source)),
            }
        };
        remove_dead(folder);
        Ok(this)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A file that stays is removed by the next process, which finds it unlocked.
        remove(&self.process.path);
    }
}

/// Removes the files of processes that died: whoever can lock such a file knows that its owner is gone.
fn remove_dead(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder.join("processes")) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let Ok(file) = existing_file(&path) else { continue };
        if file.try_lock().is_ok() {
            // Before the lock goes with `file`, so that nobody takes it for theirs in between.
            remove(&path);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a process file, not a store's file")]
fn remove(path: &Path) {
    // Somebody else may have removed it already; one that stays does no harm.
    let _ = std::fs::remove_file(path);
}

#[expect(clippy::disallowed_methods, reason = "a lock file, not a store's file")]
fn private_file(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Opens a file that is there. Made anew behind another process's removal, it would pass for its owner's, and be removed again.
#[expect(clippy::disallowed_methods, reason = "a process file, not a store's file")]
fn existing_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

fn failed(path: &Path, doing: &'static str, source: std::io::Error) -> OpenError {
    OpenError::Folder { path: path.to_owned(), doing, source }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// A process that opened the folder while another one cleared up could not lock its file, or lost it.
    #[test]
    fn processes_that_come_at_the_same_time_all_keep_their_files() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("processes")).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let kept = ProcessFile::create(folder.path()).unwrap();
                        remove_dead(folder.path());
                        assert!(kept.path.exists());
                    }
                });
            }
        });
        remove_dead(folder.path());
        assert_eq!(folder.path().join("processes").read_dir().unwrap().count(), 0);
    }

    #[test]
    fn network_file_systems_are_named_and_local_ones_pass() {
        assert_eq!(unsupported_file_system(0x6969), Some("NFS"));
        assert_eq!(unsupported_file_system(0xFF53_4D42), Some("SMB"));
        // ext4, tmpfs, btrfs, overlayfs
        for magic in [0xEF53, 0x0102_1994, 0x9123_683E, 0x794C_7630] {
            assert_eq!(unsupported_file_system(magic), None);
        }
    }
}
