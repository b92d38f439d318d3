//! Reads: short ones on the caller's thread over a few pooled connections, long ones on the store's reader threads.
//!
//! Start at [`Readers::in_place`] and [`Readers::on_thread`].
//!
//! Always true: a read connection cannot write; it is kept only if its read did not fail; close waits for every read that
//! has begun.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};
use larder_protocol::{Error as Kind, StoreName, Written};
use rusqlite::Connection;

use super::context::{Failure, Outcome};
use crate::error::{Error, Result};
use crate::sqlite::connection::StoreFile;
use crate::sqlite::fault;

/// A read for a reader thread: gets a connection, or why there is none; answers whether the connection is still good.
pub(super) type ThreadRead = Box<dyn FnOnce(Result<&Connection>) -> bool + Send>;

#[derive(Debug)]
pub(super) struct Readers {
    file: StoreFile,
    thread_count: usize,
    /// Each is locked for as long as a read uses it, and holds a connection from its first read on.
    seats: Vec<Mutex<Option<Connection>>>,
    is_closed: AtomicBool,
    threads: Mutex<Option<Threads>>,
}

#[derive(Debug)]
struct Threads {
    queue: Sender<ThreadRead>,
    handles: Vec<JoinHandle<()>>,
}

thread_local! {
    /// Where this thread looks for a connection first: the same one each time, whose pages are in this core's cache.
    static FIRST_SEAT: usize = NEXT_SEAT.fetch_add(1, Ordering::Relaxed);
}

static NEXT_SEAT: AtomicUsize = AtomicUsize::new(0);

impl Readers {
    pub(super) fn new(file: StoreFile, connections_max: usize, thread_count: usize) -> Self {
        let seats = (0..connections_max).map(|_| Mutex::new(None)).collect();
        Self { file, thread_count, seats, is_closed: AtomicBool::new(false), threads: Mutex::new(None) }
    }

    /// Runs a short read here. `None`: every connection is in use, or it is not short; the read is to go to a thread.
    pub(super) fn in_place<T>(&self, name: &str, read: impl FnOnce(&Connection) -> Outcome<T>) -> Option<Result<T>> {
        let mut seat = self.take_seat()?;
        // Looked at with the seat in hand: a close takes every seat after it has said so.
        if self.is_closed.load(Ordering::Acquire) {
            return Some(Err(closed(self.file.store)));
        }
        let connection = match &mut *seat {
            Some(connection) => connection,
            none => match self.file.reader() {
                Ok(opened) => none.insert(opened),
                Err(error) => return Some(Err(error)),
            },
        };
        let mut is_too_long = false;
        let answer = run(self.file.store, name, connection, |connection| {
            read(connection).inspect_err(|failure| is_too_long = matches!(failure, Failure::TooLong))
        });
        if is_too_long {
            return None;
        }
        if answer.as_ref().is_err_and(|error| !is_harmless(error)) {
            *seat = None;
        }
        Some(answer)
    }

    /// Takes the first free seat, beginning with this thread's own.
    fn take_seat(&self) -> Option<MutexGuard<'_, Option<Connection>>> {
        let first = FIRST_SEAT.with(|first| first % self.seats.len());
        let (before, from) = self.seats.split_at(first);
        from.iter().chain(before).find_map(|seat| match seat.try_lock() {
            Ok(seat) => Some(seat),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        })
    }

    /// Hands a read to the reader threads, which are started if they are not there.
    pub(super) fn on_thread(&self, read: ThreadRead) -> Result<()> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_closed.load(Ordering::Acquire) {
            return Err(closed(self.file.store));
        }
        let threads = match &mut *threads {
            Some(threads) => threads,
            none => none.insert(self.start_threads()?),
        };
        threads.queue.send(read).map_err(|_| closed(self.file.store))
    }

    /// Refuses further reads, waits for those that have begun, and closes every connection. Blocks.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        for seat in &self.seats {
            // Waits for the read that has it.
            seat.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Threads { queue, handles }) = threads {
            drop(queue);
            for handle in handles {
                // A reader thread catches every panic of a read; were there another, the thread is over all the same.
                let _ = handle.join();
            }
        }
    }

    /// Serves again after a [`close`](Self::close).
    pub(super) fn reopen(&self) {
        self.is_closed.store(false, Ordering::Release);
    }

    fn start_threads(&self) -> Result<Threads> {
        let (queue, reads) = crossbeam_channel::unbounded();
        let start = |index| {
            let (reads, file) = (reads.clone(), self.file.clone());
            std::thread::Builder::new()
                .name(format!("{}-reader-{index}", self.file.store))
                .spawn(move || serve(&reads, &file))
        };
        let handles = (0..self.thread_count).map(start).collect::<std::io::Result<_>>();
        let handles = handles.map_err(|e| {
            let (doing, cause) = ("starting a reader thread".to_owned(), e.to_string());
            Error::caused_by(Kind::Io { store: self.file.store, doing, cause, written: Written::NotApplied }, e)
        })?;
        Ok(Threads { queue, handles })
    }
}

/// A reader thread: one connection, one read after another, until the queue is closed.
fn serve(reads: &Receiver<ThreadRead>, file: &StoreFile) {
    let mut connection = None;
    for read in reads {
        let opened = match connection.take() {
            Some(connection) => Ok(connection),
            None => file.reader(),
        };
        let is_good = match &opened {
            Ok(connection) => read(Ok(connection)),
            Err(error) => read(Err(error.clone())),
        };
        connection = opened.ok().filter(|_| is_good);
    }
}

/// Runs a read, turning its failure or panic into the caller's error.
pub(super) fn run<T>(
    store: StoreName,
    name: &str,
    connection: &Connection,
    read: impl FnOnce(&Connection) -> Outcome<T>,
) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(|| read(connection))) {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(Failure::Refused(kind))) => Err(kind.into()),
        Ok(Err(Failure::Sqlite(error))) => Err(fault::describe(store, name, Written::NotApplied, error)),
        Ok(Err(Failure::TooLong)) => Err(Kind::Panicked { store, message: name.to_owned() }.into()),
        Err(_panic) => {
            tracing::error!(%store, message = name, "a read panicked");
            Err(Kind::Panicked { store, message: name.to_owned() }.into())
        }
    }
}

/// Whether the connection is as good as before the error.
pub(super) fn is_harmless(error: &Error) -> bool {
    !matches!(error.kind(), Kind::Io { .. } | Kind::Corrupt { .. } | Kind::Panicked { .. })
}

fn closed(store: StoreName) -> Error {
    Kind::ShuttingDown { store, written: Written::NotApplied }.into()
}
