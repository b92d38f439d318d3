//! Snapshots on disk: a folder with a copy of each store's file, and a manifest that was written last.
//!
//! Start at [`Larder::snapshot`](crate::Larder::snapshot), then [`restore`]. A snapshot is an ordinary folder: it can be
//! moved, archived and sent elsewhere with any tool.
//!
//! Always true: a folder without a manifest is no snapshot; what is restored is byte for byte what was verified when the
//! snapshot was taken; nothing outside the snapshot's own folder is read, whatever its manifest says.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let temporary = tempfile::tempdir()?;
//! # let (snapshots, restored) = (temporary.path().join("snapshots"), temporary.path().join("restored"));
//! use larder::{Larder, backup};
//!
//! let larder = Larder::temporary().await?;
//! larder.kv().bytes("notes").put("a", "first").await?;
//! let snapshot = larder.snapshot(&snapshots).await?;
//!
//! backup::restore(&snapshot.path, &restored)?;
//! let copy = Larder::open(&restored).await?;
//! assert_eq!(copy.kv().bytes("notes").get("a").await?.as_deref(), Some(&b"first"[..]));
//! # Ok(())
//! # }
//! ```
#![expect(clippy::disallowed_methods, reason = "the files of snapshots are closed; no connection has them open")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use larder_actors::sqlite::presence::Presence;
use larder_actors::sqlite::snapshot;
use larder_actors::store::presence_path;
use larder_actors::{Error, Result};
use larder_protocol::{Error as Kind, StoreName, Timestamp, Written};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::folder::create_and_sync;
use crate::settings::Settings;
use crate::stores::existing_files;

const MANIFEST: &str = "manifest.json";
/// Locked by whoever writes the snapshot. Where it lies in a folder without a manifest and nobody holds it, that process died.
const UNFINISHED: &str = "unfinished.lock";
/// The manifest's own version.
const FORMAT: u32 = 1;
/// A manifest names a handful of files; one larger than this is not ours.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;

/// A snapshot that is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Its folder.
    pub path: PathBuf,
    /// When it was taken.
    pub taken: Timestamp,
    /// The sum of its files' sizes.
    pub bytes: u64,
    /// Which stores it holds.
    pub stores: Vec<StoreName>,
    /// How much the files of the stores' WALs grew while they were copied, which keeps them from starting over, in bytes. They grow by up
    /// to 256 KiB at once, and not where they have room.
    pub wal_grown_bytes: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    taken_ms: i64,
    wal_grown_bytes: u64,
    files: Vec<ManifestFile>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestFile {
    store: StoreName,
    bytes: u64,
    /// BLAKE3 of the file, in hexadecimal.
    blake3: String,
}

impl ManifestFile {
    /// A file's name comes from its store, never from the manifest.
    fn name(&self) -> String {
        file_name(self.store)
    }
}

pub(crate) fn file_name(store: StoreName) -> String {
    format!("{store}.db")
}

/// Takes a snapshot, and removes what processes that died left of theirs. Blocks for as long as copying takes.
pub(crate) fn take(settings: &Settings, snapshots: &Path) -> Result<Snapshot> {
    create_private(snapshots)?;
    remove_unfinished(snapshots)
        .map_err(|e| failed(snapshots, "removing what is left of an unfinished snapshot", e))?;
    let (folder, lock) = new_folder(snapshots)?;
    let taken = fill(settings, &folder);
    drop(lock);
    if taken.is_err() {
        // It has no manifest, so that it is no snapshot even if this fails.
        let _ = fs::remove_dir_all(&folder);
    }
    taken
}

/// Makes a folder that nobody takes for an unfinished one.
fn new_folder(snapshots: &Path) -> Result<(PathBuf, Presence)> {
    loop {
        let folder = snapshots.join(Uuid::now_v7().to_string());
        create_private(&folder)?;
        let path = folder.join(UNFINISHED);
        match Presence::alone(&path) {
            // Between its making and its locking another process may have removed it.
            Ok(_) if !path.exists() => {}
            Ok(lock) => return Ok((folder, lock)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&folder, "locking it", error)),
        }
    }
}

/// Removes the folders of snapshots that nobody finishes any more.
fn remove_unfinished(snapshots: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(snapshots)? {
        let folder = entry?.path();
        let name = folder.file_name().and_then(|name| name.to_str());
        if name.is_none_or(|name| name.parse::<Uuid>().is_err()) {
            continue;
        }
        if !folder.join(UNFINISHED).exists() {
            // Whoever just made it makes another one. One that is not empty stays: it is complete, or somebody else's.
            let _ = fs::remove_dir(&folder);
            continue;
        }
        match remove_if_unfinished(&folder) {
            // Somebody writes it.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            // Another process removed it first.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    Ok(())
}

fn remove_if_unfinished(folder: &Path) -> std::io::Result<()> {
    let lock = folder.join(UNFINISHED);
    let _lock = Presence::alone(&lock)?;
    // Looked at with the lock in hand: it may have been completed while this waited.
    if folder.join(MANIFEST).exists() { fs::remove_file(&lock) } else { fs::remove_dir_all(folder) }
}

fn fill(settings: &Settings, folder: &Path) -> Result<Snapshot> {
    let deadline = Instant::now().checked_add(settings.snapshot_time_max);
    // A store that is being restored is waited for; from here on none is.
    let files = existing_files(settings);
    let present = files.iter().map(|file| Presence::shared(&presence_path(&settings.path, file.store)));
    let _present = present.collect::<std::io::Result<Vec<_>>>().map_err(|e| failed(&settings.path, "locking it", e))?;
    let pinned = snapshot::pin(&existing_files(settings))?;
    let taken_ms = Timestamp::from(SystemTime::now()).0;
    let wal_bytes_before = wal_bytes(settings);
    let stores = pinned.copy_to(folder, deadline)?;
    let wal_grown_bytes = wal_bytes(settings).saturating_sub(wal_bytes_before);
    drop(pinned);
    let describe = |store: &StoreName| describe(*store, &folder.join(file_name(*store)));
    let files = stores.iter().map(describe).collect::<Result<Vec<_>>>()?;
    let manifest = Manifest { format: FORMAT, taken_ms, wal_grown_bytes, files };
    write_manifest(folder, &manifest).map_err(|e| failed(folder, "writing its manifest", e))?;
    // With a manifest it is complete, whatever else lies there.
    let _ = fs::remove_file(folder.join(UNFINISHED));
    Ok(summary(folder, &manifest))
}

fn wal_bytes(settings: &Settings) -> u64 {
    let wal = |store: StoreName| settings.path.join(format!("{}-wal", file_name(store)));
    existing_files(settings).iter().filter_map(|file| fs::metadata(wal(file.store)).ok()).map(|wal| wal.len()).sum()
}

/// Lists the complete snapshots below `snapshots`, oldest first. A folder that is none is passed over.
///
/// # Errors
/// [`Refused`](Kind::Refused) when the folder cannot be read.
pub fn list(snapshots: impl AsRef<Path>) -> Result<Vec<Snapshot>> {
    let snapshots = snapshots.as_ref();
    let entries = fs::read_dir(snapshots).map_err(|e| failed(snapshots, "listing it", e))?;
    let mut found: Vec<Snapshot> = entries
        .flatten()
        .filter_map(|entry| read_manifest(&entry.path()).ok().map(|manifest| summary(&entry.path(), &manifest)))
        .collect();
    found.sort_by(|a, b| (a.taken, &a.path).cmp(&(b.taken, &b.path)));
    Ok(found)
}

/// Removes the oldest snapshots below `snapshots` until `keep` are left; answers those removed. `keep` of 0 is refused.
///
/// # Errors
/// [`Invalid`](Kind::Invalid) for 0; [`Refused`](Kind::Refused) when a folder cannot be read or removed.
pub fn retain(snapshots: impl AsRef<Path>, keep: usize) -> Result<Vec<Snapshot>> {
    if keep == 0 {
        return Err(Kind::invalid("keep", "it is 0, which would remove every snapshot").into());
    }
    let mut found = list(snapshots)?;
    found.truncate(found.len().saturating_sub(keep));
    for snapshot in &found {
        // The manifest goes first: what is left half-removed is then no snapshot, but an unfinished one.
        let removed = fs::rename(snapshot.path.join(MANIFEST), snapshot.path.join(UNFINISHED))
            .and_then(|()| fs::remove_dir_all(&snapshot.path));
        removed.map_err(|e| failed(&snapshot.path, "removing it", e))?;
    }
    Ok(found)
}

/// Copies a snapshot to `folder`, which must not exist or be empty, and which can then be opened. Blocks.
///
/// # Errors
/// [`Corrupt`](Kind::Corrupt) when a file is not what the manifest says; [`Refused`](Kind::Refused) when the snapshot has no
/// manifest that can be read, or the folder is not empty or cannot be written. The folder then holds no store.
pub fn restore(snapshot: impl AsRef<Path>, folder: impl AsRef<Path>) -> Result<Snapshot> {
    let (snapshot, folder) = (snapshot.as_ref(), folder.as_ref());
    let manifest = read_manifest(snapshot)?;
    // Everything is verified before anything is written.
    for file in &manifest.files {
        verify(snapshot, file)?;
    }
    let is_used = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if is_used {
        return Err(refused(folder, "it is not empty; restore into a new folder"));
    }
    create_private(folder)?;
    let copied = manifest.files.iter().try_for_each(|file| copy(snapshot, file, folder));
    let copied = copied.and_then(|()| sync(folder).map_err(|e| failed(folder, "syncing it", e)));
    if copied.is_err() {
        // Some of the stores would open as if they were all.
        for file in &manifest.files {
            let _ = fs::remove_file(folder.join(file.name()));
        }
    }
    copied.map(|()| summary(folder, &manifest))
}

/// A snapshot whose copy of one store is what its manifest says.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) snapshot: Snapshot,
    file: ManifestFile,
}

impl Verified {
    /// Copies the store's file to `folder`, and verifies the copy.
    pub(crate) fn copy_to(&self, folder: &Path) -> Result<()> {
        copy(&self.snapshot.path, &self.file, folder)
    }
}

/// Verifies one store's file in a snapshot.
pub(crate) fn verify_store(snapshot: &Snapshot, store: StoreName) -> Result<Verified> {
    let manifest = read_manifest(&snapshot.path)?;
    let file = manifest.files.into_iter().find(|file| file.store == store);
    let file = file.ok_or_else(|| refused(&snapshot.path, "it no longer holds the store"))?;
    verify(&snapshot.path, &file)?;
    Ok(Verified { snapshot: snapshot.clone(), file })
}

fn copy(snapshot: &Path, file: &ManifestFile, folder: &Path) -> Result<()> {
    let (from, to) = (snapshot.join(file.name()), folder.join(file.name()));
    let copied = fs::copy(&from, &to).and_then(|_| sync(&to)).and_then(|()| make_private(&to));
    copied.map_err(|e| failed(&to, "copying it", e))?;
    verify(folder, file)
}

fn summary(path: &Path, manifest: &Manifest) -> Snapshot {
    Snapshot {
        path: path.to_owned(),
        taken: Timestamp(manifest.taken_ms),
        bytes: manifest.files.iter().map(|file| file.bytes).sum(),
        stores: manifest.files.iter().map(|file| file.store).collect(),
        wal_grown_bytes: manifest.wal_grown_bytes,
    }
}

fn describe(store: StoreName, path: &Path) -> Result<ManifestFile> {
    let described = || {
        sync(path)?;
        Ok(ManifestFile { store, bytes: fs::metadata(path)?.len(), blake3: hash(path)? })
    };
    described().map_err(|e| failed(path, "reading it back", e))
}

fn verify(folder: &Path, file: &ManifestFile) -> Result<()> {
    let path = folder.join(file.name());
    let bytes = fs::metadata(&path).map_err(|e| failed(&path, "reading it", e))?.len();
    let found =
        if bytes == file.bytes { hash(&path).map_err(|e| failed(&path, "reading it", e))? } else { String::new() };
    if found == file.blake3 {
        return Ok(());
    }
    let detail = format!(
        "the snapshot is, not the store: {} is not what its manifest says; take another snapshot",
        path.display()
    );
    Err(Kind::Corrupt { store: file.store, detail, written: Written::NotApplied }.into())
}

fn hash(path: &Path) -> std::io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// Writes the manifest under another name, syncs it, and gives it its name: it is there as a whole or not at all.
fn write_manifest(folder: &Path, manifest: &Manifest) -> std::io::Result<()> {
    let unfinished = folder.join("manifest.unfinished");
    let mut file = File::create_new(&unfinished)?;
    file.write_all(&serde_json::to_vec_pretty(manifest)?)?;
    file.sync_all()?;
    make_private(&unfinished)?;
    sync(folder)?;
    fs::rename(&unfinished, folder.join(MANIFEST))?;
    sync(folder)?;
    folder.parent().map_or(Ok(()), sync)
}

fn read_manifest(folder: &Path) -> Result<Manifest> {
    let path = folder.join(MANIFEST);
    let file = File::open(&path).map_err(|e| failed(&path, "reading it: not a complete snapshot", e))?;
    let mut text = Vec::new();
    file.take(MANIFEST_BYTES_MAX).read_to_end(&mut text).map_err(|e| failed(&path, "reading it", e))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|e| refused(&path, &format!("it is no manifest of a snapshot ({e})")))?;
    if manifest.format != FORMAT {
        return Err(refused(
            &path,
            &format!("its format {} is not {FORMAT}, the one this build knows", manifest.format),
        ));
    }
    let mut stores: Vec<_> = manifest.files.iter().map(|file| file.store).collect();
    stores.sort_unstable();
    if stores.windows(2).any(|pair| pair.first() == pair.last()) {
        return Err(refused(&path, "it names a store twice"));
    }
    Ok(manifest)
}

pub(crate) fn create_private(folder: &Path) -> Result<()> {
    create_and_sync(folder).map_err(|e| failed(folder, "creating it", e))
}

#[cfg(unix)]
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
fn make_private(_path: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(unix)]
pub(crate) fn sync(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

/// A folder cannot be opened there, and a file must be opened for writing.
#[cfg(not(unix))]
pub(crate) fn sync(path: &Path) -> std::io::Result<()> {
    if path.is_dir() { Ok(()) } else { fs::OpenOptions::new().write(true).open(path)?.sync_all() }
}

pub(crate) fn failed(path: &Path, doing: &str, source: std::io::Error) -> Error {
    let reason = format!("{doing} failed ({source})");
    Error::caused_by(Kind::Refused { what: path.display().to_string(), reason }, source)
}

fn refused(path: &Path, reason: &str) -> Error {
    Kind::Refused { what: path.display().to_string(), reason: reason.to_owned() }.into()
}
