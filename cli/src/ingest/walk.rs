//! The files below a folder that may be texts, and their contents.
//!
//! Start at [`walk`] and [`read`].
//!
//! Always true: no symbolic link is followed, so that there are no loops and nothing outside of the folder is read; no file of
//! a larder is opened, since closing it again would drop the locks on it.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;
use walkdir::{DirEntry, WalkDir};

use crate::folder;

/// Larger files are left out.
pub(crate) const FILE_BYTES_MAX: u64 = 100 << 20;
/// What is no text nearly always shows it here.
const SNIFFED_BYTES: usize = 8 << 10;

/// Why a file was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reason {
    /// It holds NUL characters, or is not UTF-8.
    Binary,
    /// It is larger than [`FILE_BYTES_MAX`].
    TooLarge,
    /// It holds nothing.
    Empty,
    /// It is a symbolic link.
    Link,
    /// It is a pipe, a socket or a device.
    Special,
    /// It belongs to a larder.
    Larder,
    /// Its name is not UTF-8, or too long to be an id.
    Name,
    /// It could not be read.
    Unreadable,
}

impl Reason {
    /// Says what such a file is.
    pub(crate) fn for_people(self) -> &'static str {
        match self {
            Self::Binary => "not UTF-8 text",
            Self::TooLarge => "larger than 100 MiB, the most that one document may be: split it",
            Self::Empty => "empty",
            Self::Link => "a symbolic link",
            Self::Special => "no regular file",
            Self::Larder => "a larder's",
            Self::Name => "of a name that is not UTF-8, or too long",
            Self::Unreadable => "not readable",
        }
    }
}

/// Something that was left out.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Skipped {
    pub(crate) path: String,
    pub(crate) reason: Reason,
    /// What the operating system said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

impl Skipped {
    pub(crate) fn new(path: &Path, reason: Reason) -> Self {
        Self { path: path.display().to_string(), reason, error: None }
    }

    pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Self {
        Self { error: Some(error.to_string()), ..Self::new(path, Reason::Unreadable) }
    }
}

/// What is below a folder.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    /// In the order of their names.
    pub(crate) files: Vec<PathBuf>,
    pub(crate) skipped: Vec<Skipped>,
}

/// Lists the files below a folder. Names that begin with a dot are passed over, unless they are wanted.
pub(crate) fn walk(root: &Path, with_hidden: bool, larder: &Path) -> Walked {
    let mut walked = Walked::default();
    let own = own_files(larder);
    let mut entries = WalkDir::new(root).sort_by_file_name().into_iter();
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                let path = error.path().unwrap_or(root).to_owned();
                walked.skipped.push(Skipped::unreadable(&path, &error.into()));
                continue;
            }
        };
        let (kind, path) = (entry.file_type(), entry.path());
        let is_below = entry.depth() > 0;
        let is_hidden = is_below && is_hidden(&entry) && !with_hidden;
        if kind.is_dir() {
            let is_larder = folder::is_larder(path);
            if is_larder {
                walked.skipped.push(Skipped::new(path, Reason::Larder));
            }
            if is_larder || is_hidden {
                entries.skip_current_dir();
            }
            continue;
        }
        if is_hidden {
            continue;
        }
        match refusal(&entry, &own) {
            None => walked.files.push(entry.into_path()),
            Some(skipped) => walked.skipped.push(skipped),
        }
    }
    walked
}

fn is_hidden(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(b".")
}

/// Returns why a file is not even opened.
fn refusal(entry: &DirEntry, own: &[Identity]) -> Option<Skipped> {
    let (path, kind) = (entry.path(), entry.file_type());
    if kind.is_symlink() {
        return Some(Skipped::new(path, Reason::Link));
    }
    if !kind.is_file() {
        return Some(Skipped::new(path, Reason::Special));
    }
    let metadata = match entry.metadata() {
        Ok(metadata) => metadata,
        Err(error) => return Some(Skipped::unreadable(path, &error.into())),
    };
    // By a second name (a hard link) it is the same file, with the same locks.
    if identity(&metadata).is_some_and(|identity| own.contains(&identity)) {
        return Some(Skipped::new(path, Reason::Larder));
    }
    match metadata.len() {
        0 => Some(Skipped::new(path, Reason::Empty)),
        bytes if bytes > FILE_BYTES_MAX => Some(Skipped::new(path, Reason::TooLarge)),
        _ => None,
    }
}

/// What makes two names name one file.
type Identity = (u64, u64);

fn own_files(larder: &Path) -> Vec<Identity> {
    let entries = std::fs::read_dir(larder).into_iter().flatten().flatten();
    entries.filter_map(|entry| identity(&entry.metadata().ok()?)).collect()
}

#[cfg(unix)]
fn identity(metadata: &Metadata) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    Some((metadata.dev(), metadata.ino()))
}

/// Windows keeps SQLite's locks by handle: another one that is closed drops none.
#[cfg(not(unix))]
fn identity(_metadata: &Metadata) -> Option<Identity> {
    None
}

/// Reads a file's text; its mark of byte order is no part of it.
#[expect(clippy::disallowed_methods, reason = "a file of the user's; those of a larder were left out by the walk")]
pub(crate) fn read(path: &Path) -> Result<String, Skipped> {
    let unreadable = |error: io::Error| Skipped::unreadable(path, &error);
    let mut file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.by_ref().take(SNIFFED_BYTES as u64).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.contains(&0) {
        return Err(Skipped::new(path, Reason::Binary));
    }
    // It may have grown since it was listed.
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Skipped::new(path, Reason::TooLarge));
    }
    match String::from_utf8(bytes) {
        Ok(text) if text.contains('\0') => Err(Skipped::new(path, Reason::Binary)),
        Ok(text) if text.trim().is_empty() => Err(Skipped::new(path, Reason::Empty)),
        Ok(text) => Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)),
        Err(_) => Err(Skipped::new(path, Reason::Binary)),
    }
}
