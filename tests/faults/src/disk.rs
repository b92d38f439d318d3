//! The disk behind a recording: what is safe, what is in flight, and what a power cut makes of it.
//!
//! Start at [`Disk::image`]. The assumptions are those of [`crate::power`].
//!
//! Always true: an image differs from the safe state only by changes that were made and not yet safe.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::history::History;
use crate::power::{Event, Recording};
use crate::random::Random;

/// The unit that a disk writes whole.
const SECTOR_BYTES: u64 = 512;

/// How far a WAL grows ahead of its frames: 256 KiB.
const GROWN_SECTORS: u64 = 512;

/// Which of the unsynced changes survive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survival {
    /// None: only what was synced.
    Nothing,
    /// All, as when a process is killed.
    Everything,
    /// Each whole change or not, by chance.
    Subset,
    /// Each sector of each change or not, by chance.
    Torn,
    /// As `Torn`, and sectors that do not survive may hold garbage or zeros instead of what they held.
    Garbled,
}

impl Survival {
    /// Every kind, in declaration order.
    pub const ALL: [Self; 5] = [Self::Nothing, Self::Everything, Self::Subset, Self::Torn, Self::Garbled];
}

/// A change of a file that no sync has made safe.
#[derive(Debug)]
struct Pending {
    change: usize,
    event: usize,
    /// After a failed sync: no later sync makes it safe. The ranges are those not written again since.
    doomed: Option<Vec<(u64, u64)>>,
}

#[derive(Debug)]
struct FileState {
    safe: Vec<u8>,
    pending: Vec<Pending>,
    made: Option<usize>,
}

/// A change of a directory: `path` names `file` from then on, or nothing.
#[derive(Debug)]
struct EntryChange<'r> {
    change: usize,
    path: &'r Path,
    file: Option<usize>,
}

/// The disk at one point of a recording; goes forwards cheaply.
#[derive(Debug)]
pub struct Disk<'r> {
    recording: &'r Recording,
    point: usize,
    changes: usize,
    files: Vec<FileState>,
    safe_entries: BTreeMap<&'r Path, usize>,
    pending_entries: Vec<EntryChange<'r>>,
    history: History,
}

impl<'r> Disk<'r> {
    pub(crate) fn new(recording: &'r Recording) -> Self {
        let state =
            |file: &crate::power::File| FileState { safe: file.initial.clone(), pending: Vec::new(), made: None };
        let from_start = recording.files.iter().enumerate().filter(|(_, file)| file.from_start);
        Self {
            recording,
            point: 0,
            changes: 0,
            files: recording.files.iter().map(state).collect(),
            safe_entries: from_start.map(|(id, file)| (file.path.as_path(), id)).collect(),
            pending_entries: Vec::new(),
            history: recording.before.clone(),
        }
    }

    /// Returns how many events have happened.
    #[must_use]
    pub fn point(&self) -> usize {
        self.point
    }

    /// Lets the events up to `point` happen.
    ///
    /// # Panics
    /// When `point` lies behind, or past the last event.
    pub fn advance(&mut self, point: usize) {
        assert!(self.point <= point && point < self.recording.points(), "a disk goes forwards only");
        while self.point < point {
            self.apply(self.point);
            self.point += 1;
        }
    }

    fn apply(&mut self, event: usize) {
        let change = self.changes;
        match &self.recording.events[event] {
            Event::Mark(mark) => return self.history.apply(mark),
            Event::Made { file } => {
                self.files[*file].made = Some(change);
                let path = &self.recording.files[*file].path;
                self.pending_entries.push(EntryChange { change, path, file: Some(*file) });
            }
            Event::Deleted { file, directory_synced } => {
                let path = &self.recording.files[*file].path;
                self.pending_entries.push(EntryChange { change, path, file: None });
                if *directory_synced {
                    self.secure_entries(change + 1, path.parent());
                }
            }
            Event::Write { file, .. } | Event::Truncate { file, .. } => {
                self.files[*file].pending.push(Pending { change, event, doomed: None });
            }
            Event::Sync { file, covers, directory } => self.sync(*file, *covers, *directory),
            Event::SyncFailed { file, covers } => self.doom(*file, *covers),
        }
        self.changes += 1;
    }

    fn sync(&mut self, file: usize, covers: usize, directory: bool) {
        let state = &mut self.files[file];
        let mut kept: Vec<Pending> = Vec::new();
        for pending in state.pending.drain(..) {
            if pending.change >= covers || pending.doomed.is_some() {
                kept.push(pending);
                continue;
            }
            match &self.recording.events[pending.event] {
                Event::Write { offset, data, .. } => {
                    write(&mut state.safe, *offset, data);
                    overwrite_doomed(&mut kept, *offset, *offset + data.len() as u64);
                }
                Event::Truncate { size, .. } => {
                    state.safe.resize(*size as usize, 0);
                    overwrite_doomed(&mut kept, *size, u64::MAX);
                }
                _ => unreachable!("only writes and truncations wait for a sync"),
            }
        }
        kept.retain(|pending| pending.doomed.as_ref().is_none_or(|ranges| !ranges.is_empty()));
        state.pending = kept;
        let made = state.made.map_or(0, |made| (made + 1).min(covers));
        if directory {
            self.secure_entries(covers, self.recording.files[file].path.parent());
        } else if !self.recording.strict_directories {
            self.secure_entries(made, None);
        }
    }

    fn doom(&mut self, file: usize, covers: usize) {
        for pending in &mut self.files[file].pending {
            // A lost truncation would be an error of the file system's journal, which stops the whole file system.
            if let (true, Event::Write { offset, data, .. }) =
                (pending.change < covers, &self.recording.events[pending.event])
            {
                pending.doomed.get_or_insert_with(|| vec![(*offset, *offset + data.len() as u64)]);
            }
        }
    }

    /// Makes the entry changes before `covers` safe: those in `directory`, or all.
    fn secure_entries(&mut self, covers: usize, directory: Option<&Path>) {
        let safe = &mut self.safe_entries;
        self.pending_entries.retain(|entry| {
            let secured = entry.change < covers && directory.is_none_or(|parent| entry.path.parent() == Some(parent));
            if secured {
                set_entry(safe, entry);
            }
            !secured
        });
    }

    /// Returns what a power cut now leaves, `seed` deciding what chance must.
    #[must_use]
    pub fn image(&self, survival: Survival, seed: u64) -> Image {
        let mut random = Random::new(seed);
        let entries_kept = match survival {
            Survival::Nothing => 0,
            Survival::Everything => self.pending_entries.len(),
            Survival::Subset | Survival::Torn | Survival::Garbled => {
                random.below(self.pending_entries.len() as u64 + 1) as usize
            }
        };
        let mut entries = self.safe_entries.clone();
        self.pending_entries.iter().take(entries_kept).for_each(|entry| set_entry(&mut entries, entry));
        // Independent coins at one half would nearly always break a long WAL in its first frames.
        let mut chance = Chance { survival, percent: random.choose(&[50, 85, 97]), random };
        let content = |(path, file): (&Path, usize)| {
            let mut bytes = self.contents(file, &mut chance);
            if survival != Survival::Nothing && path.to_string_lossy().ends_with("-wal") {
                chance.grow(&mut bytes);
            }
            (path.to_owned(), bytes)
        };
        Image { files: entries.into_iter().map(content).collect(), history: self.history.clone() }
    }

    fn contents(&self, file: usize, chance: &mut Chance) -> Vec<u8> {
        let state = &self.files[file];
        let mut bytes = state.safe.clone();
        if chance.survival == Survival::Nothing {
            return bytes;
        }
        for pending in &state.pending {
            match &self.recording.events[pending.event] {
                Event::Write { offset, data, .. } => {
                    let whole = [(*offset, *offset + data.len() as u64)];
                    for &(start, end) in pending.doomed.as_deref().unwrap_or(&whole) {
                        let part = (start - offset) as usize..(end - offset) as usize;
                        chance.write(&mut bytes, start, &data[part]);
                    }
                }
                Event::Truncate { size, .. } if chance.survives() => bytes.resize(*size as usize, 0),
                _ => {}
            }
        }
        bytes
    }
}

/// Takes `start..end` from the doomed writes: it was written again, and safely.
fn overwrite_doomed(kept: &mut [Pending], start: u64, end: u64) {
    for ranges in kept.iter_mut().filter_map(|pending| pending.doomed.as_mut()) {
        let outside = |&(from, to): &(u64, u64)| [(from, to.min(start)), (from.max(end), to)];
        *ranges = ranges.iter().flat_map(outside).filter(|(from, to)| from < to).collect();
    }
}

fn set_entry<'r>(entries: &mut BTreeMap<&'r Path, usize>, entry: &EntryChange<'r>) {
    match entry.file {
        Some(file) => entries.insert(entry.path, file),
        None => entries.remove(entry.path),
    };
}

fn write(bytes: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let (start, end) = (offset as usize, offset as usize + data.len());
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[start..end].copy_from_slice(data);
}

/// Decides what survives.
struct Chance {
    survival: Survival,
    percent: u64,
    random: Random,
}

impl Chance {
    fn survives(&mut self) -> bool {
        self.survival == Survival::Everything || self.random.percent(self.percent)
    }

    /// larder lets a WAL grow ahead of its frames, past SQLite and so past the recording. Nobody waits for that: it is there
    /// or not, in whole sectors.
    fn grow(&mut self, wal: &mut Vec<u8>) {
        let ahead_bytes = (self.random.below(2) * self.random.below(GROWN_SECTORS + 1) * SECTOR_BYTES) as usize;
        let ahead = match self.survival {
            Survival::Garbled => self.random.bytes(ahead_bytes),
            _ => vec![0; ahead_bytes],
        };
        wal.extend(ahead);
    }

    fn write(&mut self, bytes: &mut Vec<u8>, offset: u64, data: &[u8]) {
        if matches!(self.survival, Survival::Everything | Survival::Subset) {
            if self.survives() {
                write(bytes, offset, data);
            }
            return;
        }
        let mut start = offset;
        let end = offset + data.len() as u64;
        while start < end {
            let sector_end = end.min((start / SECTOR_BYTES + 1) * SECTOR_BYTES);
            self.write_sector(bytes, start, &data[(start - offset) as usize..(sector_end - offset) as usize]);
            start = sector_end;
        }
    }

    fn write_sector(&mut self, bytes: &mut Vec<u8>, offset: u64, data: &[u8]) {
        if self.survives() {
            return write(bytes, offset, data);
        }
        if self.survival != Survival::Garbled {
            return;
        }
        match self.random.below(3) {
            0 => write(bytes, offset, &self.random.bytes(data.len())),
            1 => write(bytes, offset, &vec![0; data.len()]),
            _ => {}
        }
    }
}

/// What a power cut left: the files of the folder, and what callers had been told by then.
#[derive(Debug)]
pub struct Image {
    files: Vec<(PathBuf, Vec<u8>)>,
    history: History,
}

impl Image {
    /// Writes the files into `folder`, which is made and should be empty.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn materialise(&self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        for (path, bytes) in &self.files {
            let path = folder.join(path);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(path, bytes)?;
        }
        Ok(())
    }

    /// Returns what callers had seen when the power went.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Returns the bytes of a file, by its path relative to the folder.
    #[must_use]
    pub fn file(&self, path: impl AsRef<Path>) -> Option<&[u8]> {
        self.files.iter().find(|(name, _)| name == path.as_ref()).map(|(_, bytes)| bytes.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::power::File;

    fn file(path: &str, initial: &[u8], from_start: bool) -> File {
        File { path: path.into(), initial: initial.to_vec(), from_start }
    }

    fn write_event(file: usize, offset: u64, data: &[u8]) -> Event {
        Event::Write { file, offset, data: data.into() }
    }

    fn recording(files: Vec<File>, events: Vec<Event>) -> Recording {
        Recording { files, events, strict_directories: false, before: History::default() }
    }

    fn sync(file: usize, covers: usize) -> Event {
        Event::Sync { file, covers, directory: false }
    }

    #[test]
    fn only_what_was_written_before_a_sync_began_is_safe() {
        let events = vec![write_event(0, 0, b"aa"), write_event(0, 2, b"bb"), sync(0, 1)];
        let recording = recording(vec![file("kv.db", b"", true)], events);
        assert_eq!(recording.image(3, Survival::Nothing, 0).file("kv.db"), Some(&b"aa"[..]));
        assert_eq!(recording.image(3, Survival::Everything, 0).file("kv.db"), Some(&b"aabb"[..]));
        assert_eq!(recording.image(2, Survival::Nothing, 0).file("kv.db"), Some(&b""[..]));
    }

    #[test]
    fn writes_tear_at_sector_boundaries_only() {
        let recording = recording(vec![file("kv.db", &[0; 1536], true)], vec![write_event(0, 100, &[1; 1300])]);
        for seed in 0..200 {
            let image = recording.image(1, Survival::Torn, seed);
            let bytes = image.file("kv.db").unwrap_or_default();
            for part in [100..512, 512..1024, 1024..1400] {
                assert!(bytes[part.clone()].iter().all(|byte| *byte == bytes[part.start]), "torn inside a sector");
            }
            assert!(bytes[..100].iter().chain(&bytes[1400..]).all(|byte| *byte == 0), "powersafe overwrite");
        }
    }

    #[test]
    fn failed_sync_dooms_until_written_again() {
        let events = vec![
            write_event(0, 0, b"aaaa"),
            Event::SyncFailed { file: 0, covers: 1 },
            write_event(0, 1, b"bb"),
            sync(0, 3),
        ];
        let recording = recording(vec![file("kv.db", b"....", true)], events);
        assert_eq!(recording.image(4, Survival::Nothing, 0).file("kv.db"), Some(&b".bb."[..]));
        assert_eq!(recording.image(4, Survival::Everything, 0).file("kv.db"), Some(&b"abba"[..]));
    }

    #[test]
    fn new_file_vanishes_and_deleted_file_returns_until_secured() {
        let files = || vec![file("kv.db", b"", true), file("kv.db-wal", b"", false), file("kv.db-wal", b"", false)];
        let events = |directory| {
            vec![
                Event::Made { file: 1 },
                sync(1, 1),
                Event::Deleted { file: 1, directory_synced: false },
                sync(0, 3),
                Event::Made { file: 2 },
                write_event(2, 0, b"new"),
                Event::Sync { file: 2, covers: 6, directory },
            ]
        };
        let there = |recording: &Recording, point| {
            recording.image(point, Survival::Nothing, 0).file("kv.db-wal").map(<[u8]>::to_vec)
        };
        let ordered = recording(files(), events(false));
        assert_eq!(there(&ordered, 1), None, "made, not synced");
        assert_eq!(there(&ordered, 4), Some(vec![]), "deleted, and only an older file synced since");
        assert_eq!(there(&ordered, 7), Some(b"new".to_vec()));
        let strict = recording(files(), events(false)).strict_directories();
        assert_eq!(there(&strict, 7), None, "no sync of the directory");
        let strict = recording(files(), events(true)).strict_directories();
        assert_eq!(there(&strict, 7), Some(b"new".to_vec()));
    }
}
