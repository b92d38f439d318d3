//! Replacing a damaged store's file by a snapshot's, such that a crash at any moment leaves the one or the other.
//!
//! Start at [`stage`], then [`roll_forward`]. The copy is made beside the folder's files, in `restoring/<store>`; the file
//! `ready` there says that it is whole and where the damaged files go. From then on the replacement is only ever finished.
//!
//! Always true: the damaged files are moved, never removed or written to; nobody opens a store's file before a replacement
//! that was begun is finished.
#![expect(clippy::disallowed_methods, reason = "moves a store's files while no process has them open")]

use std::fs;
use std::path::{Path, PathBuf};

use larder_actors::Result;
use larder_protocol::StoreName;
use uuid::Uuid;

use crate::backup::{self, Verified, create_private, failed, file_name, sync};

const READY: &str = "ready";

/// Copies the snapshot's file to where it waits for [`roll_forward`]; answers where the damaged files will be.
pub(crate) fn stage(folder: &Path, store: StoreName, snapshot: &Verified) -> Result<PathBuf> {
    let staging = staging(folder, store);
    // Of a replacement that died half way.
    remove(&staging)?;
    create_private(&staging)?;
    snapshot.copy_to(&staging)?;
    let damaged = format!("{store}-{}", Uuid::now_v7());
    let ready = staging.join(READY);
    let written = fs::write(staging.join("ready.unfinished"), &damaged)
        .and_then(|()| sync(&staging.join("ready.unfinished")))
        .and_then(|()| fs::rename(staging.join("ready.unfinished"), &ready))
        .and_then(|()| sync(&staging))
        .and_then(|()| staging.parent().map_or(Ok(()), sync))
        .and_then(|()| sync(folder));
    written.map_err(|e| failed(&ready, "writing it", e))?;
    Ok(folder.join("quarantine").join(damaged))
}

/// Takes back what [`stage`] did.
pub(crate) fn unstage(folder: &Path, store: StoreName) -> Result<()> {
    let staging = staging(folder, store);
    // The mark goes first: what is left half removed is then nothing.
    match fs::remove_file(staging.join(READY)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(&staging, "removing it", error)),
        _ => remove(&staging),
    }
}

/// Takes back what [`stage`] did, unless the damaged files are already on the move.
pub(crate) fn unstage_if_untouched(folder: &Path, store: StoreName) -> Result<()> {
    let file = file_name(store);
    let is_untouched = folder.join(&file).exists() && staging(folder, store).join(&file).exists();
    if is_untouched { unstage(folder, store) } else { Ok(()) }
}

/// Tells whether a replacement was begun and not finished.
pub(crate) fn is_staged(folder: &Path, store: StoreName) -> bool {
    staging(folder, store).join(READY).exists()
}

/// Moves the damaged files away and the staged one in their place. It may die at any moment and be called again.
///
/// No process may have the store's file open.
pub(crate) fn roll_forward(folder: &Path, store: StoreName) -> Result<()> {
    let staging = staging(folder, store);
    let ready = staging.join(READY);
    let name = fs::read_to_string(&ready).map_err(|e| failed(&ready, "reading it", e))?;
    // A name of ours has no separator in it; whoever wrote another does not get to choose a folder.
    let name = Path::new(&name).file_name().map(PathBuf::from).unwrap_or_default();
    let quarantine = folder.join("quarantine").join(name);
    let file = file_name(store);
    if staging.join(&file).exists() {
        create_private(&quarantine)?;
        for name in [file.clone(), format!("{file}-wal"), format!("{file}-shm")] {
            let from = folder.join(&name);
            if from.exists() {
                fs::rename(&from, quarantine.join(&name)).map_err(|e| failed(&from, "setting it aside", e))?;
            }
        }
        let moved = sync(&quarantine)
            .and_then(|()| sync(&folder.join("quarantine")))
            .and_then(|()| forget_failed_sync(folder, store))
            .and_then(|()| fs::rename(staging.join(&file), folder.join(&file)))
            .and_then(|()| sync(folder));
        moved.map_err(|e| failed(&staging, "moving the restored file to its place", e))?;
    }
    unstage(folder, store)
}

/// Moves a cache's damaged files away; whoever opens the store next begins with an empty one.
///
/// No process may have the store's file open.
pub(crate) fn set_aside(folder: &Path, store: StoreName) -> Result<()> {
    let quarantine = folder.join("quarantine").join(format!("{store}-{}", Uuid::now_v7()));
    create_private(&quarantine)?;
    let file = file_name(store);
    // The main file last: a new one beside an old WAL would take that for its own.
    for name in [format!("{file}-wal"), format!("{file}-shm"), file] {
        let from = folder.join(&name);
        if from.exists() {
            fs::rename(&from, quarantine.join(&name)).map_err(|e| failed(&from, "setting it aside", e))?;
        }
    }
    let moved = sync(&quarantine)
        .and_then(|()| sync(&folder.join("quarantine")))
        .and_then(|()| forget_failed_sync(folder, store))
        .and_then(|()| sync(folder));
    moved.map_err(|e| failed(&quarantine, "setting a damaged file aside", e))
}

/// What was said of the old file's WAL does not hold for the new one.
fn forget_failed_sync(folder: &Path, store: StoreName) -> std::io::Result<()> {
    match fs::remove_file(folder.join("locks").join(format!("{store}.unsynced"))) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn staging(folder: &Path, store: StoreName) -> PathBuf {
    folder.join("restoring").join(store.as_str())
}

fn remove(staging: &Path) -> Result<()> {
    match fs::remove_dir_all(staging) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(staging, "removing it", error)),
        _ => Ok(()),
    }
}

/// Returns the newest snapshot below `snapshots` whose copy of `store` is what its manifest says.
pub(crate) fn newest(snapshots: &Path, store: StoreName) -> Result<Verified> {
    let mut last = None;
    for snapshot in backup::list(snapshots)?.into_iter().rev().filter(|snapshot| snapshot.stores.contains(&store)) {
        match backup::verify_store(&snapshot, store) {
            Ok(verified) => return Ok(verified),
            // An older one may be sound.
            Err(error) => {
                tracing::warn!(%store, snapshot = %snapshot.path.display(), %error, "a snapshot cannot be restored");
                last = Some(error);
            }
        }
    }
    Err(last.unwrap_or_else(|| {
        larder_protocol::Error::NotFound { what: format!("a snapshot of the {store} store in {}", snapshots.display()) }
            .into()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with a damaged file, and a staged one that is to replace it.
    fn staged() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::write(path.join("kv.db"), "damaged").unwrap();
        fs::write(path.join("kv.db-wal"), "its log").unwrap();
        let staging = staging(path, StoreName::Kv);
        fs::create_dir_all(&staging).unwrap();
        fs::write(staging.join("kv.db"), "sound").unwrap();
        fs::write(staging.join(READY), "kv-1").unwrap();
        let quarantine = path.join("quarantine").join("kv-1");
        (folder, quarantine)
    }

    fn assert_replaced(folder: &Path, quarantine: &Path) {
        assert_eq!(fs::read_to_string(folder.join("kv.db")).unwrap(), "sound");
        assert!(!folder.join("kv.db-wal").exists());
        assert_eq!(fs::read_to_string(quarantine.join("kv.db")).unwrap(), "damaged");
        assert_eq!(fs::read_to_string(quarantine.join("kv.db-wal")).unwrap(), "its log");
        assert!(!is_staged(folder, StoreName::Kv));
    }

    /// The process dies after each step of the replacement; whoever comes next finishes it.
    #[test]
    fn replacement_that_died_at_any_step_is_finished() {
        let steps: [fn(&Path, &Path); 5] = [
            |_, _| (),
            |_, quarantine| fs::create_dir_all(quarantine).unwrap(),
            |folder, quarantine| fs::rename(folder.join("kv.db"), quarantine.join("kv.db")).unwrap(),
            |folder, quarantine| fs::rename(folder.join("kv.db-wal"), quarantine.join("kv.db-wal")).unwrap(),
            |folder, _| fs::rename(folder.join("restoring/kv/kv.db"), folder.join("kv.db")).unwrap(),
        ];
        for died_after in 0..steps.len() {
            let (folder, quarantine) = staged();
            steps[..=died_after].iter().for_each(|step| step(folder.path(), &quarantine));
            roll_forward(folder.path(), StoreName::Kv).unwrap();
            assert_replaced(folder.path(), &quarantine);
        }
    }

    #[test]
    fn mark_that_names_another_folder_does_not_choose_it() {
        let (folder, _) = staged();
        fs::write(staging(folder.path(), StoreName::Kv).join(READY), "../../elsewhere").unwrap();
        roll_forward(folder.path(), StoreName::Kv).unwrap();
        assert_replaced(folder.path(), &folder.path().join("quarantine").join("elsewhere"));
    }

    #[test]
    fn copy_that_was_not_finished_is_no_replacement() {
        let (folder, _) = staged();
        fs::remove_file(staging(folder.path(), StoreName::Kv).join(READY)).unwrap();
        assert!(!is_staged(folder.path(), StoreName::Kv));
        unstage(folder.path(), StoreName::Kv).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("kv.db")).unwrap(), "damaged");
    }
}
