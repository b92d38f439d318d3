//! Arms and clears faults in SQLite's calls to the operating system, and counts those calls.
//!
//! Start at [`arm`]. The state is the process's, as the VFS is; it may be used from any thread.
//!
//! Always true: nothing fails unless a fault is armed, and nothing fails any more once [`clear`] has returned.

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use rusqlite::ffi;

/// A call of SQLite to the operating system that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// xOpen.
    Open,
    /// xRead.
    Read,
    /// xWrite.
    Write,
    /// xTruncate.
    Truncate,
    /// xSync.
    Sync,
    /// xFileSize.
    FileSize,
    /// xLock; unlocking never fails, as it does not in practice.
    Lock,
    /// xShmMap, on the database's name.
    ShmMap,
    /// xShmLock when it locks, on the database's name.
    ShmLock,
    /// xDelete.
    Delete,
    /// xAccess.
    Access,
}

impl Call {
    /// Every call, in declaration order.
    pub const ALL: [Self; 11] = [
        Self::Open,
        Self::Read,
        Self::Write,
        Self::Truncate,
        Self::Sync,
        Self::FileSize,
        Self::Lock,
        Self::ShmMap,
        Self::ShmLock,
        Self::Delete,
        Self::Access,
    ];

    /// Returns the errors that the real unix VFS can give for this call.
    #[must_use]
    pub fn errors(self) -> &'static [Error] {
        use Error::{Code, DiskFull, Io, NoMemory};
        match self {
            Self::Open => &[Io, NoMemory, DiskFull],
            Self::Write => &[Io, NoMemory, DiskFull],
            Self::Sync => &[Io, Code(ffi::SQLITE_IOERR_DIR_FSYNC), DiskFull],
            Self::Truncate => &[Io, DiskFull],
            Self::ShmMap => &[Io, NoMemory, Code(ffi::SQLITE_IOERR_SHMSIZE), Code(ffi::SQLITE_IOERR_SHMOPEN)],
            Self::Read => &[Io, NoMemory, Code(ffi::SQLITE_IOERR_CORRUPTFS)],
            Self::FileSize | Self::Lock | Self::ShmLock | Self::Delete => &[Io],
            Self::Access => &[Io, NoMemory],
        }
    }

    /// Returns what a failed call of this kind can still have done.
    #[must_use]
    pub fn effects(self) -> &'static [Effect] {
        match self {
            Self::Write => &[Effect::Nothing, Effect::Half, Effect::Done],
            Self::Sync | Self::Truncate | Self::Delete => &[Effect::Nothing, Effect::Done],
            Self::Open | Self::Read | Self::FileSize | Self::Lock | Self::ShmMap | Self::ShmLock | Self::Access => {
                &[Effect::Nothing]
            }
        }
    }
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The SQLITE_IOERR_* of that call (SQLITE_CANTOPEN for opening).
    Io,
    /// SQLITE_FULL.
    DiskFull,
    /// SQLITE_IOERR_NOMEM.
    NoMemory,
    /// Another extended result code.
    Code(c_int),
}

impl Error {
    /// Returns SQLite's extended result code for this failure of `call`.
    #[must_use]
    pub fn code(self, call: Call) -> c_int {
        match (self, call) {
            (Self::Code(code), _) => code,
            (Self::DiskFull, _) => ffi::SQLITE_FULL,
            (Self::NoMemory, _) => ffi::SQLITE_IOERR_NOMEM,
            (Self::Io, Call::Open) => ffi::SQLITE_CANTOPEN,
            (Self::Io, Call::Read) => ffi::SQLITE_IOERR_READ,
            (Self::Io, Call::Write) => ffi::SQLITE_IOERR_WRITE,
            (Self::Io, Call::Truncate) => ffi::SQLITE_IOERR_TRUNCATE,
            (Self::Io, Call::Sync) => ffi::SQLITE_IOERR_FSYNC,
            (Self::Io, Call::FileSize) => ffi::SQLITE_IOERR_FSTAT,
            (Self::Io, Call::Lock) => ffi::SQLITE_IOERR_LOCK,
            (Self::Io, Call::ShmMap) => ffi::SQLITE_IOERR_SHMMAP,
            (Self::Io, Call::ShmLock) => ffi::SQLITE_IOERR_SHMLOCK,
            (Self::Io, Call::Delete) => ffi::SQLITE_IOERR_DELETE,
            (Self::Io, Call::Access) => ffi::SQLITE_IOERR_ACCESS,
        }
    }
}

/// What a call does before it reports failure: an error does not say that nothing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing. A sync that did nothing has lost its pages for good, as on Linux (see [`crate::power`]), and the next sync
    /// by every other handle open on that file fails too, once, with the same news.
    Nothing,
    /// The first half of a write is there; other calls do nothing.
    Half,
    /// All of it.
    Done,
}

/// One fault: which call fails, when, for how long and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The call that fails.
    pub call: Call,
    /// Only files whose full path ends so: `"kv.db-wal"`, `"a/kv.db"`, or `""` for every file.
    pub path_suffix: String,
    /// The first matching call after arming that fails; 1 is the next one.
    pub nth: u64,
    /// Whether every matching call after it fails too, until [`clear`].
    pub lasting: bool,
    /// The error given.
    pub error: Error,
    /// What happened all the same.
    pub effect: Effect,
}

impl Fault {
    /// Returns a fault of the `nth` such call on any file, once, with an I/O error, and without effect.
    #[must_use]
    pub fn new(call: Call, nth: u64) -> Self {
        Self { call, path_suffix: String::new(), nth, lasting: false, error: Error::Io, effect: Effect::Nothing }
    }

    /// Limits it to files whose path ends with `path_suffix`.
    #[must_use]
    pub fn on(mut self, path_suffix: impl Into<String>) -> Self {
        self.path_suffix = path_suffix.into();
        self
    }

    /// Makes it last until cleared.
    #[must_use]
    pub fn lasting(mut self) -> Self {
        self.lasting = true;
        self
    }

    /// Sets the error given.
    #[must_use]
    pub fn with(mut self, error: Error) -> Self {
        self.error = error;
        self
    }

    /// Sets what happens all the same.
    #[must_use]
    pub fn after(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }
}

#[derive(Debug)]
struct Armed {
    fault: Fault,
    seen: u64,
}

static ANY_ARMED: AtomicBool = AtomicBool::new(false);
static ARMED: Mutex<Vec<Armed>> = Mutex::new(Vec::new());
static FIRED: AtomicU64 = AtomicU64::new(0);
static COUNTERS: LazyLock<Mutex<BTreeMap<String, Arc<Counters>>>> = LazyLock::new(Mutex::default);

/// Arms a fault beside those already armed.
pub fn arm(fault: Fault) {
    let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
    armed.push(Armed { fault, seen: 0 });
    ANY_ARMED.store(true, Ordering::Release);
}

/// Tells whether an armed fault says that the file is damaged, as a file system with checksums does: a finding of damage is
/// then the right answer, and no longer is once the fault is cleared.
#[must_use]
pub fn claims_damage() -> bool {
    let armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
    armed.iter().any(|one| one.fault.error == Error::Code(ffi::SQLITE_IOERR_CORRUPTFS))
}

/// Disarms every fault and forgets how often they fired: nothing fails any more.
pub fn clear() {
    disarm();
    LOST_WRITES.lock().unwrap_or_else(PoisonError::into_inner).clear();
    FIRED.store(0, Ordering::Release);
}

/// Disarms every fault, and leaves the reports of failed syncs that other handles have yet to get; see [`lost_writes`].
pub(crate) fn disarm() {
    let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
    armed.clear();
    ANY_ARMED.store(false, Ordering::Release);
}

/// Failed syncs by file, counted. Linux (since 4.13) reports lost writes once to every descriptor that was open on the file
/// then, so that a writer hears of what a checkpointer's sync lost; a model without it would blame SQLite for the kernel.
static LOST_WRITES: LazyLock<Mutex<BTreeMap<String, u64>>> = LazyLock::new(Mutex::default);

/// Returns how many syncs of `path` have lost writes.
pub(crate) fn lost_writes(path: &str) -> u64 {
    LOST_WRITES.lock().unwrap_or_else(PoisonError::into_inner).get(path).copied().unwrap_or(0)
}

/// Notes that a sync of `path` lost writes, and returns how many have.
pub(crate) fn lose_writes(path: &str) -> u64 {
    let mut lost = LOST_WRITES.lock().unwrap_or_else(PoisonError::into_inner);
    let count = lost.entry(path.to_owned()).or_default();
    *count += 1;
    *count
}

/// Counts a failure that no armed fault decided: a late report of lost writes.
pub(crate) fn count_report() {
    FIRED.fetch_add(1, Ordering::AcqRel);
}

/// Returns how many calls failed since the last [`clear`].
#[must_use]
pub fn fired() -> u64 {
    FIRED.load(Ordering::Acquire)
}

/// Returns how often each call was made on each file since the last [`reset_counts`], failed ones included.
#[must_use]
pub fn counts() -> Counts {
    let counters = COUNTERS.lock().unwrap_or_else(PoisonError::into_inner);
    let per_file = |(name, counters): (&String, &Arc<Counters>)| {
        Call::ALL.map(|call| ((name.clone(), call), counters.0[call as usize].load(Ordering::Relaxed)))
    };
    Counts(counters.iter().flat_map(per_file).filter(|(_, count)| *count > 0).collect())
}

/// Sets every count to 0.
pub fn reset_counts() {
    let counters = COUNTERS.lock().unwrap_or_else(PoisonError::into_inner);
    counters.values().flat_map(|counters| &counters.0).for_each(|count| count.store(0, Ordering::Relaxed));
}

/// Calls made, by file name (without its folder) and call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<(String, Call), u64>);

impl Counts {
    /// Returns the calls made on files whose name ends with `name_suffix`.
    #[must_use]
    pub fn of(&self, call: Call, name_suffix: &str) -> u64 {
        self.iter()
            .filter(|(name, made, _)| *made == call && name.ends_with(name_suffix))
            .map(|(.., count)| count)
            .sum()
    }

    /// Returns file name, call and count, ordered by name and call.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Call, u64)> {
        self.0.iter().map(|((name, call), count)| (name.as_str(), *call, *count))
    }
}

/// The counts of one file name, shared by every handle on such a file.
#[derive(Debug, Default)]
pub(crate) struct Counters([AtomicU64; Call::ALL.len()]);

/// Returns the counters of `path`'s file name. Names are few, folders are many, so only names are kept.
pub(crate) fn counters(path: &str) -> Arc<Counters> {
    let name = Path::new(path).file_name().map_or_else(|| path.to_owned(), |name| name.to_string_lossy().into_owned());
    Arc::clone(COUNTERS.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default())
}

/// A call that must fail.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hit {
    pub(crate) code: c_int,
    pub(crate) effect: Effect,
}

/// Counts a call and decides whether it fails.
pub(crate) fn decide(call: Call, path: &str, counters: &Counters) -> Option<Hit> {
    counters.0[call as usize].fetch_add(1, Ordering::Relaxed);
    if !ANY_ARMED.load(Ordering::Acquire) {
        return None;
    }
    let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut hit = None;
    for one in armed.iter_mut().filter(|one| one.fault.call == call && path.ends_with(&one.fault.path_suffix)) {
        one.seen += 1;
        let due = one.seen == one.fault.nth || one.fault.lasting && one.seen > one.fault.nth;
        if due && hit.is_none() {
            hit = Some(Hit { code: one.fault.error.code(call), effect: one.fault.effect });
        }
    }
    FIRED.fetch_add(u64::from(hit.is_some()), Ordering::AcqRel);
    hit
}
