//! Records what SQLite does to the files of a folder, and cuts the power afterwards.
//!
//! Start at [`Recorder`]: it takes the log of a run; [`Recording::disk`] then walks it, and [`Disk::image`] says what a
//! power cut at that point would leave. [`Recording::image`] does both for a single point.
//!
//! # What disk is assumed
//! - Bytes are safe once xSync of their file has returned, if they were written before it began. Everything else is
//!   unsynced: each change may survive or not, whatever its order ([`Survival`]); a surviving write may be torn at any
//!   512-byte boundary, and sectors in flight may hold garbage. Bytes outside a write never change: SQLite's "powersafe
//!   overwrite", which its unix VFS takes for granted.
//! - Truncating is a change like any other, but a whole one.
//! - Making and deleting files is journalled in order (ext4, xfs, btrfs): a power cut undoes the newest such changes,
//!   never an older one alone. SQLite syncs the directory with the first sync of a journal or WAL by the connection that
//!   made the file, which secures them all; syncing a file secures its own entry and what was changed before it was made,
//!   and nothing later. Until then a new file may vanish and a deleted one come back. With
//!   [`Recording::strict_directories`] only a sync of the directory counts, as POSIX has it.
//! - After a **failed** sync nothing written before it is ever made safe by a later sync, until it is written again:
//!   Linux marks the pages clean ("fsyncgate").
//! - A WAL may end in up to 256 KiB of zeros, or in garbage where a disk garbles: larder lets it grow ahead of its frames.
//! - `-shm` files never survive. Files that SQLite does not open stay as they were when recording began; the folder
//!   itself and its parents are safe from the start.
//!
//! Always true: the log is in the order of the calls as SQLite's locks order them, and a mark of a caller
//! ([`crate::history`]) stands after what justified it.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::ffi;

pub use crate::disk::{Disk, Image, Survival};
use crate::history::{History, Mark, Witness};

/// One entry of the log. Files are numbers, since a name may be deleted and made again.
#[derive(Debug)]
pub(crate) enum Event {
    Made {
        file: usize,
    },
    Deleted {
        file: usize,
        directory_synced: bool,
    },
    Write {
        file: usize,
        offset: u64,
        data: Box<[u8]>,
    },
    Truncate {
        file: usize,
        size: u64,
    },
    /// Makes safe the first `covers` changes of the log. Marks are not counted: they may be moved.
    Sync {
        file: usize,
        covers: usize,
        directory: bool,
    },
    SyncFailed {
        file: usize,
        covers: usize,
    },
    Mark(Mark),
}

/// A file of the recording: one inode, not one name.
#[derive(Debug)]
pub(crate) struct File {
    /// Relative to the recorded folder.
    pub(crate) path: PathBuf,
    /// What it held when first seen.
    pub(crate) initial: Vec<u8>,
    /// Whether it was there when recording began.
    pub(crate) from_start: bool,
}

#[derive(Debug, Default)]
struct LogState {
    stopped: bool,
    ops_begun: u64,
    flushes_begun: u64,
    changes: usize,
    files: Vec<File>,
    /// The file that a full path names now.
    names: HashMap<PathBuf, usize>,
    events: Vec<Event>,
}

/// What one recorder writes to: the VFS its events, the witnesses their marks.
#[derive(Debug)]
pub(crate) struct Log {
    /// The recorded folder with symlinks resolved, as SQLite names it. `None`: marks only.
    root: Option<PathBuf>,
    state: Mutex<LogState>,
}

impl Log {
    /// A log without files, whose first operation gets the id `first_op`.
    pub(crate) fn of_marks(first_op: u64) -> Self {
        Self { root: None, state: Mutex::new(LogState { ops_begun: first_op, ..LogState::default() }) }
    }

    fn state(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn begin(&self, place_of: impl FnOnce(u64) -> &'static str) -> u64 {
        let mut state = self.state();
        let op = state.ops_begun;
        state.ops_begun += 1;
        state.push(Event::Mark(Mark::Begun { op, place: place_of(op) }));
        op
    }

    pub(crate) fn begin_flush(&self) -> u64 {
        let mut state = self.state();
        let flush = state.flushes_begun;
        state.flushes_begun += 1;
        state.push(Event::Mark(Mark::FlushBegun { flush }));
        flush
    }

    pub(crate) fn mark(&self, mark: Mark) {
        self.state().push(Event::Mark(mark));
    }

    pub(crate) fn history(&self) -> History {
        let mut history = History::default();
        self.append_to(&mut history);
        history
    }

    /// Adds what this log's callers saw.
    pub(crate) fn append_to(&self, history: &mut History) {
        for event in &self.state().events {
            if let Event::Mark(mark) = event {
                history.apply(mark);
            }
        }
    }
}

impl LogState {
    fn push(&mut self, event: Event) {
        if !self.stopped {
            self.changes += usize::from(!matches!(event, Event::Mark(_)));
            self.events.push(event);
        }
    }
}

/// The recorders at work; the count spares the lock when there are none.
static RECORDERS: Mutex<Vec<Arc<Log>>> = Mutex::new(Vec::new());
static RECORDER_COUNT: AtomicUsize = AtomicUsize::new(0);

/// Returns the log that covers `path`, a full path.
fn log_of(path: &Path) -> Option<Arc<Log>> {
    if RECORDER_COUNT.load(Ordering::Acquire) == 0 {
        return None;
    }
    let recorders = RECORDERS.lock().unwrap_or_else(PoisonError::into_inner);
    recorders.iter().find(|log| log.root.as_ref().is_some_and(|root| path.starts_with(root))).cloned()
}

/// Records what SQLite does in one folder, from any number of connections and threads of this process. Several recorders
/// may run at once on separate folders.
#[derive(Debug)]
pub struct Recorder {
    log: Arc<Log>,
}

impl Recorder {
    /// Starts recording `folder`, whose files count as safely on disk.
    ///
    /// No connection may be open on it: its changes would be missed, and reading a file here would drop its locks.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn start(folder: &Path) -> io::Result<Self> {
        Self::continuing(folder, &History::default())
    }

    /// As [`Self::start`], with operation ids that follow those of `history`.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn continuing(folder: &Path, history: &History) -> io::Result<Self> {
        crate::vfs::install();
        let root = folder.canonicalize()?;
        let mut state = LogState { ops_begun: history.len(), ..LogState::default() };
        for path in files_below(&root)? {
            if is_shared_memory(&path) {
                continue;
            }
            let initial = std::fs::read(&path)?;
            state.add_file(&root, path, initial, true);
        }
        let log = Arc::new(Log { root: Some(root), state: Mutex::new(state) });
        RECORDERS.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&log));
        RECORDER_COUNT.fetch_add(1, Ordering::AcqRel);
        Ok(Self { log })
    }

    /// Returns a witness whose marks are placed among the recorded events.
    #[must_use]
    pub fn witness(&self) -> Witness {
        Witness::new(Arc::clone(&self.log))
    }

    /// Ends the recording. Connections may still be open; what they do from now on is not in it.
    #[must_use]
    pub fn stop(self) -> Recording {
        let mut state = self.log.state();
        state.stopped = true;
        Recording {
            files: std::mem::take(&mut state.files),
            events: std::mem::take(&mut state.events),
            strict_directories: false,
            before: History::default(),
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let mut recorders = RECORDERS.lock().unwrap_or_else(PoisonError::into_inner);
        recorders.retain(|log| !Arc::ptr_eq(log, &self.log));
        RECORDER_COUNT.fetch_sub(1, Ordering::AcqRel);
    }
}

impl LogState {
    fn add_file(&mut self, root: &Path, path: PathBuf, initial: Vec<u8>, from_start: bool) -> usize {
        let file = self.files.len();
        let relative = path.strip_prefix(root).expect("the log was chosen by this prefix").to_owned();
        self.files.push(File { path: relative, initial, from_start });
        self.names.insert(path, file);
        file
    }
}

fn files_below(folder: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            files.extend(files_below(&entry.path())?);
        } else if kind.is_file() {
            files.insert(entry.path());
        }
    }
    Ok(files)
}

fn is_shared_memory(path: &Path) -> bool {
    path.as_os_str().to_string_lossy().ends_with("-shm")
}

/// The end of a log that an open file holds.
#[derive(Debug)]
pub(crate) struct Track {
    log: Arc<Log>,
    file: usize,
    /// SQLite's unix VFS syncs the directory once, with the first sync of a journal or WAL by the handle that made it.
    syncs_directory: std::sync::atomic::AtomicBool,
}

/// Returns the track of a file just opened, when a recorder covers it. `contents` reads it, should it be new to the log.
pub(crate) fn track(path: &Path, flags: i32, contents: impl FnOnce() -> Vec<u8>) -> Option<Track> {
    const JOURNALS: i32 = ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_SUPER_JOURNAL;
    let log = log_of(path)?;
    let mut state = log.state();
    if state.stopped {
        return None;
    }
    let known = state.names.get(path).copied();
    let file = known.unwrap_or_else(|| {
        let root = log.root.as_ref().expect("a log without a folder covers no path");
        let file = state.add_file(root, path.to_owned(), contents(), false);
        state.push(Event::Made { file });
        file
    });
    drop(state);
    Some(Track { log, file, syncs_directory: (known.is_none() && flags & JOURNALS != 0).into() })
}

/// Notes that a file was deleted.
pub(crate) fn deleted(path: &Path, directory_synced: bool) {
    let Some(log) = log_of(path) else { return };
    let mut state = log.state();
    if let Some(file) = state.names.remove(path) {
        state.push(Event::Deleted { file, directory_synced });
    }
}

impl Track {
    pub(crate) fn position(&self) -> usize {
        self.log.state().changes
    }

    pub(crate) fn write(&self, offset: u64, data: &[u8]) {
        self.log.state().push(Event::Write { file: self.file, offset, data: data.into() });
    }

    pub(crate) fn truncate(&self, size: u64) {
        self.log.state().push(Event::Truncate { file: self.file, size });
    }

    pub(crate) fn sync(&self, covers: usize, done: bool) {
        let event = if done {
            Event::Sync { file: self.file, covers, directory: self.syncs_directory.swap(false, Ordering::Relaxed) }
        } else {
            Event::SyncFailed { file: self.file, covers }
        };
        self.log.state().push(event);
    }
}

/// A finished log: what happened to the files, and what callers saw, in one order.
#[derive(Debug)]
pub struct Recording {
    pub(crate) files: Vec<File>,
    pub(crate) events: Vec<Event>,
    pub(crate) strict_directories: bool,
    pub(crate) before: History,
}

impl Recording {
    /// Returns the number of points at which the power can be cut: before the first event, and after each. A caller's mark
    /// is an event too, since from there on more is owed.
    #[must_use]
    pub fn points(&self) -> usize {
        self.events.len() + 1
    }

    /// Returns what is left when the power goes after the first `point` events. Costs a walk from the start: to look at
    /// many points, go forwards with [`Self::disk`].
    #[must_use]
    pub fn image(&self, point: usize, survival: Survival, seed: u64) -> Image {
        let mut disk = self.disk();
        disk.advance(point);
        disk.image(survival, seed)
    }

    /// Describes the events of `range`, one a line: what a finding's reader wants to see before its point.
    #[must_use]
    pub fn trace(&self, range: std::ops::Range<usize>) -> String {
        let name = |file: &usize| self.files[*file].path.display();
        let changes_before =
            self.events.iter().take(range.start).filter(|event| !matches!(event, Event::Mark(_))).count();
        let mut change = changes_before;
        let mut trace = String::new();
        for (index, event) in self.events.iter().enumerate().take(range.end).skip(range.start) {
            let what = match event {
                Event::Made { file } => format!("made {}", name(file)),
                Event::Deleted { file, directory_synced } => {
                    format!("deleted {} synced={directory_synced}", name(file))
                }
                Event::Write { file, offset, data } => format!("write {} {offset}+{}", name(file), data.len()),
                Event::Truncate { file, size } => format!("truncate {} to {size}", name(file)),
                Event::Sync { file, covers, directory } => {
                    format!("sync {} covers {covers} directory={directory}", name(file))
                }
                Event::SyncFailed { file, covers } => format!("sync FAILED {} covers {covers}", name(file)),
                Event::Mark(mark) => format!("{mark:?}"),
            };
            trace += &format!("{index} (change {change}) {what}\n");
            change += usize::from(!matches!(event, Event::Mark(_)));
        }
        trace
    }

    /// Returns the disk before the first event.
    #[must_use]
    pub fn disk(&self) -> Disk<'_> {
        Disk::new(self)
    }

    /// Takes `history` as what callers had seen before the recording began; see [`Recorder::continuing`].
    #[must_use]
    pub fn after(mut self, history: History) -> Self {
        self.before = history;
        self
    }

    /// Takes only a sync of the directory as securing its entries; see the module's assumptions.
    #[must_use]
    pub fn strict_directories(mut self) -> Self {
        self.strict_directories = true;
        self
    }

    /// **Control**: a disk that lies. Every sync is forgotten, as with `synchronous=OFF`; a sweep must catch it.
    #[must_use]
    pub fn forget_syncs(mut self) -> Self {
        for event in &mut self.events {
            if let Event::Sync { covers, directory, .. } = event {
                (*covers, *directory) = (0, false);
            }
        }
        self
    }

    /// **Control**: a store that acknowledges before it commits. Every answer "applied" comes when the operation begins;
    /// a sweep must catch it.
    #[must_use]
    pub fn acknowledge_early(mut self) -> Self {
        use crate::history::Outcome::Applied;
        let applied = |event: &Event| match event {
            Event::Mark(Mark::Settled { op, outcome: Applied }) => Some(*op),
            _ => None,
        };
        let early: BTreeSet<u64> = self.events.iter().filter_map(applied).collect();
        let mut events = Vec::with_capacity(self.events.len());
        for event in self.events.drain(..).filter(|event| applied(event).is_none()) {
            let begun = if let Event::Mark(Mark::Begun { op, .. }) = event { Some(op) } else { None };
            events.push(event);
            if let Some(op) = begun.filter(|op| early.contains(op)) {
                events.push(Event::Mark(Mark::Settled { op, outcome: Applied }));
            }
        }
        self.events = events;
        self
    }
}
