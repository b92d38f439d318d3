//! The VFS shim: SQLite's calls pass through here to the VFS that was the default before, counted, recorded and failed.
//!
//! Start at [`install`]. This is the only module with unsafe code. What to fail is decided in [`crate::faults`], what to
//! record in [`crate::power`].
//!
//! Always true: a call that is not told to fail reaches the real VFS unchanged, locks and shared memory included; a change
//! is recorded after the real call, so the log never holds what the files do not. A panic in here aborts the process.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, Once};

use rusqlite::ffi::{self, sqlite3_file, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs};

use crate::faults::{self, Call, Counters, Effect, Hit};
use crate::power::{self, Track};

/// The oldest SQLite without the WAL-reset corruption bug.
const SQLITE_VERSION_MIN: c_int = 3_051_003;

static INSTALLED: Once = Once::new();
static REAL_VFS: AtomicPtr<sqlite3_vfs> = AtomicPtr::new(ptr::null_mut());
static REAL_SYNCS: AtomicBool = AtomicBool::new(false);

/// Makes the shim the process's default VFS. Call it before anything is opened; again does nothing.
///
/// # Panics
/// When SQLite is older than 3.51.3 or refuses the VFS: no test result would mean anything.
pub fn install() {
    INSTALLED.call_once(|| {
        assert!(rusqlite::version_number() >= SQLITE_VERSION_MIN, "SQLite {} corrupts WALs", rusqlite::version());
        // SAFETY: initialising is idempotent and thread-safe.
        assert_eq!(unsafe { ffi::sqlite3_initialize() }, ffi::SQLITE_OK, "initialising SQLite");
        // SAFETY: null asks for the default VFS; registered VFS objects live as long as the process.
        let real = unsafe { ffi::sqlite3_vfs_find(ptr::null()) };
        assert!(!real.is_null(), "SQLite has a default VFS");
        REAL_VFS.store(real, Ordering::Release);
        // The methods not replaced below get this copy, whose pAppData is the real one's; none looks at anything else.
        // SAFETY: `real` was just checked and is never written after registration except its pNext.
        let mut shim = unsafe { *real };
        shim.pNext = ptr::null_mut();
        shim.zName = c"larder-faults".as_ptr();
        shim.szOsFile = size_of::<ShimFile>() as c_int;
        shim.xOpen = Some(open);
        shim.xDelete = Some(delete);
        shim.xAccess = Some(access);
        // SAFETY: the object is leaked, so it lives for the rest of the process, as SQLite demands.
        let registered = unsafe { ffi::sqlite3_vfs_register(Box::into_raw(Box::new(shim)), 1) };
        assert_eq!(registered, ffi::SQLITE_OK, "registering the VFS");
    });
}

/// Sets whether xSync reaches the disk. Off at first: power cuts are computed from the log, and a real fsync would only
/// make a sweep wait.
pub fn set_real_syncs(real: bool) {
    REAL_SYNCS.store(real, Ordering::Relaxed);
}

/// What SQLite allocates for each file; it starts with the pointer to our methods.
#[repr(C)]
struct ShimFile {
    base: sqlite3_file,
    handle: *mut Handle,
}

/// An open file: the real VFS's object and what we know about it.
struct Handle {
    real: *mut sqlite3_file,
    _memory: Memory,
    path: String,
    counters: Arc<Counters>,
    track: Option<Track>,
    /// How many syncs of the file had lost writes when this handle last heard of it.
    lost_writes_heard: AtomicU64,
}

impl Handle {
    fn decide(&self, call: Call) -> Option<Hit> {
        faults::decide(call, &self.path, &self.counters)
    }

    fn write(&self, data: &[u8], offset: sqlite3_int64) -> c_int {
        let Some(hit) = self.decide(Call::Write) else { return self.write_through(data, offset) };
        match hit.effect {
            Effect::Nothing => {}
            Effect::Half => _ = self.write_through(&data[..data.len() / 2], offset),
            Effect::Done => _ = self.write_through(data, offset),
        }
        hit.code
    }

    fn write_through(&self, data: &[u8], offset: sqlite3_int64) -> c_int {
        let len = data.len() as c_int;
        // SAFETY: `real` is open (see `handle`), and `data` holds `len` bytes.
        let result = unsafe {
            (methods(self.real).xWrite.expect("every file writes"))(self.real, data.as_ptr().cast(), len, offset)
        };
        if let (ffi::SQLITE_OK, Some(track)) = (result, &self.track) {
            track.write(offset as u64, data);
        }
        result
    }

    fn truncate(&self, size: sqlite3_int64) -> c_int {
        match self.decide(Call::Truncate) {
            None => self.truncate_through(size),
            Some(hit) => {
                if hit.effect == Effect::Done {
                    self.truncate_through(size);
                }
                hit.code
            }
        }
    }

    fn truncate_through(&self, size: sqlite3_int64) -> c_int {
        // SAFETY: `real` is open (see `handle`).
        let result = unsafe { (methods(self.real).xTruncate.expect("every file truncates"))(self.real, size) };
        if let (ffi::SQLITE_OK, Some(track)) = (result, &self.track) {
            track.truncate(size as u64);
        }
        result
    }

    fn sync(&self, flags: c_int) -> c_int {
        // Taken first: what other threads write while the sync runs is not covered by it.
        let covers = self.track.as_ref().map(Track::position);
        let hit = self.decide(Call::Sync);
        let reaches_disk = hit.is_none_or(|hit| hit.effect == Effect::Done);
        let mut result = ffi::SQLITE_OK;
        if reaches_disk && REAL_SYNCS.load(Ordering::Relaxed) {
            // SAFETY: `real` is open (see `handle`).
            result = unsafe { (methods(self.real).xSync.expect("every file syncs"))(self.real, flags) };
        }
        if let (Some(covers), Some(track)) = (covers, &self.track) {
            track.sync(covers, reaches_disk && result == ffi::SQLITE_OK);
        }
        let news = self.hear_of_lost_writes(!reaches_disk);
        hit.map_or(if news { ffi::SQLITE_IOERR_FSYNC } else { result }, |hit| hit.code)
    }

    /// Returns whether a sync by another handle has lost writes since this one last heard; `lost` adds one of its own.
    fn hear_of_lost_writes(&self, lost: bool) -> bool {
        let count = if lost { faults::lose_writes(&self.path) } else { faults::lost_writes(&self.path) };
        // After `faults::clear` the count starts again, so it may also be lower.
        let news = self.lost_writes_heard.swap(count, Ordering::Relaxed) < count && !lost;
        if news {
            faults::count_report();
        }
        news
    }
}

/// The zeroed memory of a real file. A leaked box rather than an owned one: moving a box would invalidate pointers into it.
struct Memory(*mut [u64]);

impl Memory {
    /// u64, because SQLite's own allocations are aligned to 8.
    fn of(bytes: usize) -> Self {
        Self(Box::into_raw(vec![0_u64; bytes.div_ceil(size_of::<u64>())].into_boxed_slice()))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it came from a leaked box, and its owner drops it after the real file was closed.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

/// Returns the real VFS.
fn real_vfs() -> *mut sqlite3_vfs {
    REAL_VFS.load(Ordering::Acquire)
}

/// Returns the methods of an open file.
///
/// # Safety
/// `file` must be open: made by an xOpen that set its methods, and not closed.
unsafe fn methods<'f>(file: *mut sqlite3_file) -> &'f sqlite3_io_methods {
    // SAFETY: the caller's promise; method tables are static in every VFS.
    unsafe { &*(*file).pMethods }
}

/// Returns our side of an open file.
///
/// # Safety
/// `file` must be one that [`open`] filled in and [`close`] has not seen. SQLite promises both of every file it passes to
/// our methods, and that one file is used by one thread at a time.
unsafe fn handle<'f>(file: *mut sqlite3_file) -> &'f Handle {
    // SAFETY: the caller's promise; only `close` frees the handle.
    unsafe { &*(*file.cast::<ShimFile>()).handle }
}

/// Counts the call, and either fails it or passes it on to the real file.
macro_rules! pass {
    ($call:expr, $file:expr, $method:ident($($argument:expr),*)) => {{
        // SAFETY: SQLite passes only files that `open` opened (see `handle`).
        let handle = unsafe { handle($file) };
        let call: Option<Call> = $call;
        match call.and_then(|call| handle.decide(call)) {
            Some(hit) => hit.code,
            // SAFETY: `real` is open; the arguments are SQLite's own, unchanged. Methods are present: those of version 2
            // are reached only through METHODS_2, which is used only when the real file has them.
            None => unsafe { (methods(handle.real).$method.expect("present in its version"))(handle.real $(, $argument)*) },
        }
    }};
}

unsafe extern "C" fn open(
    _vfs: *mut sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let shim = file.cast::<ShimFile>();
    // SAFETY: SQLite gives szOsFile bytes, which is a ShimFile. Without methods it will not call xClose.
    unsafe { (*shim).base.pMethods = ptr::null() };
    // SAFETY: a name that is not null is a C string that lives as long as the file.
    let path = unsafe { text(name) };
    let counters = faults::counters(&path);
    if let Some(hit) = faults::decide(Call::Open, &path, &counters) {
        return hit.code;
    }
    let vfs = real_vfs();
    // SAFETY: the real VFS was registered and lives for ever.
    let memory = Memory::of(unsafe { (*vfs).szOsFile as usize });
    let real = memory.0.cast::<sqlite3_file>();
    // SAFETY: `real` is zeroed memory of the size the real VFS asks for; the rest is SQLite's, unchanged.
    let result = unsafe { ((*vfs).xOpen.expect("every VFS opens"))(vfs, name, real, flags, out_flags) };
    // SAFETY: xOpen sets the methods, or leaves our null.
    let table = unsafe { (*real).pMethods };
    if result != ffi::SQLITE_OK {
        if !table.is_null() {
            // SAFETY: a failed xOpen that set methods wants xClose.
            unsafe { (methods(real).xClose.expect("every file closes"))(real) };
        }
        return result;
    }
    let track = if name.is_null() { None } else { power::track(Path::new(&path), flags, || contents(real)) };
    let lost_writes_heard = faults::lost_writes(&path).into();
    let handle = Handle { real, _memory: memory, path, counters, track, lost_writes_heard };
    // SAFETY: as above; from here on SQLite calls our methods, and xClose frees the handle.
    unsafe {
        (*shim).handle = Box::into_raw(Box::new(handle));
        (*shim).base.pMethods = if (*table).iVersion >= 2 { &METHODS_2 } else { &METHODS_1 };
    }
    ffi::SQLITE_OK
}

/// Reads a file just opened, for a recording that has not seen it yet. Through its own handle: another descriptor's
/// closing would drop the process's locks.
fn contents(real: *mut sqlite3_file) -> Vec<u8> {
    let mut size = 0;
    // SAFETY: called by `open` only, on a file the real VFS has just opened.
    let sized = unsafe { (methods(real).xFileSize.expect("every file has a size"))(real, &mut size) };
    assert_eq!(sized, ffi::SQLITE_OK, "the size of a file that has just opened");
    let mut bytes = vec![0_u8; size as usize];
    if size > 0 {
        let len = bytes.len() as c_int;
        // SAFETY: as above, and `bytes` has room for `len`.
        let read = unsafe { (methods(real).xRead.expect("every file reads"))(real, bytes.as_mut_ptr().cast(), len, 0) };
        assert_eq!(read, ffi::SQLITE_OK, "reading a file that has just opened");
    }
    bytes
}

/// Returns a C string as text, and what a file without a name is called.
///
/// # Safety
/// `name` must be null or a C string.
unsafe fn text(name: *const c_char) -> String {
    if name.is_null() {
        return "<temporary>".to_owned();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

unsafe extern "C" fn delete(_vfs: *mut sqlite3_vfs, name: *const c_char, sync_directory: c_int) -> c_int {
    // SAFETY: SQLite passes a C string.
    let path = unsafe { text(name) };
    let hit = faults::decide(Call::Delete, &path, &faults::counters(&path));
    if let Some(hit) = hit.filter(|hit| hit.effect != Effect::Done) {
        return hit.code;
    }
    let vfs = real_vfs();
    // SAFETY: the real VFS lives for ever; the name is SQLite's own.
    let result = unsafe { ((*vfs).xDelete.expect("every VFS deletes"))(vfs, name, sync_directory) };
    if result == ffi::SQLITE_OK {
        power::deleted(Path::new(&path), sync_directory & 1 != 0);
    }
    hit.map_or(result, |hit| hit.code)
}

unsafe extern "C" fn access(_vfs: *mut sqlite3_vfs, name: *const c_char, flags: c_int, out: *mut c_int) -> c_int {
    // SAFETY: SQLite passes a C string.
    let path = unsafe { text(name) };
    if let Some(hit) = faults::decide(Call::Access, &path, &faults::counters(&path)) {
        return hit.code;
    }
    let vfs = real_vfs();
    // SAFETY: the real VFS lives for ever; the arguments are SQLite's own.
    unsafe { ((*vfs).xAccess.expect("every VFS looks"))(vfs, name, flags, out) }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: SQLite closes a file once, and only one that `open` opened, whose handle is a leaked box.
    let handle = unsafe { Box::from_raw((*file.cast::<ShimFile>()).handle) };
    // SAFETY: `real` is open, and nothing uses it afterwards.
    unsafe { (methods(handle.real).xClose.expect("every file closes"))(handle.real) }
}

unsafe extern "C" fn read(file: *mut sqlite3_file, to: *mut c_void, len: c_int, offset: sqlite3_int64) -> c_int {
    pass!(Some(Call::Read), file, xRead(to, len, offset))
}

unsafe extern "C" fn write(file: *mut sqlite3_file, from: *const c_void, len: c_int, offset: sqlite3_int64) -> c_int {
    // SAFETY: SQLite passes `len` readable bytes.
    let data = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), len as usize) };
    // SAFETY: see `handle`.
    unsafe { handle(file) }.write(data, offset)
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    // SAFETY: see `handle`.
    unsafe { handle(file) }.truncate(size)
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: see `handle`.
    unsafe { handle(file) }.sync(flags)
}

unsafe extern "C" fn file_size(file: *mut sqlite3_file, size: *mut sqlite3_int64) -> c_int {
    pass!(Some(Call::FileSize), file, xFileSize(size))
}

unsafe extern "C" fn lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    pass!(Some(Call::Lock), file, xLock(level))
}

unsafe extern "C" fn unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    pass!(None, file, xUnlock(level))
}

unsafe extern "C" fn check_reserved_lock(file: *mut sqlite3_file, out: *mut c_int) -> c_int {
    pass!(None, file, xCheckReservedLock(out))
}

unsafe extern "C" fn file_control(file: *mut sqlite3_file, op: c_int, argument: *mut c_void) -> c_int {
    pass!(None, file, xFileControl(op, argument))
}

unsafe extern "C" fn sector_size(file: *mut sqlite3_file) -> c_int {
    pass!(None, file, xSectorSize())
}

unsafe extern "C" fn device_characteristics(file: *mut sqlite3_file) -> c_int {
    pass!(None, file, xDeviceCharacteristics())
}

unsafe extern "C" fn shm_map(
    file: *mut sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    pass!(Some(Call::ShmMap), file, xShmMap(region, size, extend, out))
}

unsafe extern "C" fn shm_lock(file: *mut sqlite3_file, offset: c_int, count: c_int, flags: c_int) -> c_int {
    // A lock that could not be given back would hold for ever, which no operating system does.
    let call = (flags & ffi::SQLITE_SHM_LOCK != 0).then_some(Call::ShmLock);
    pass!(call, file, xShmLock(offset, count, flags))
}

unsafe extern "C" fn shm_barrier(file: *mut sqlite3_file) {
    // SAFETY: see `handle`.
    let real = unsafe { handle(file) }.real;
    // SAFETY: `real` is open and has version 2, or METHODS_2 would not have been used.
    unsafe { (methods(real).xShmBarrier.expect("present in version 2"))(real) }
}

unsafe extern "C" fn shm_unmap(file: *mut sqlite3_file, delete: c_int) -> c_int {
    pass!(None, file, xShmUnmap(delete))
}

static METHODS_1: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// Version 2 has shared memory; version 3 would add memory-mapped reads, which could be neither counted nor failed.
static METHODS_2: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 2,
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    ..METHODS_1
};
