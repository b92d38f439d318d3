//! Reads: short ones on the caller's thread over a few pooled connections, long ones on the store's reader threads.
//!
//! Start at [`Readers::in_place`] and [`Readers::on_thread`].
//!
//! Always true: a read connection cannot write; it goes back to the pool only if its read did not fail; close waits for
//! every read that has begun.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
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
    connections_max: usize,
    thread_count: usize,
    pool: Mutex<Pool>,
    returned: Condvar,
    threads: Mutex<Option<Threads>>,
}

#[derive(Debug, Default)]
struct Pool {
    idle: Vec<Connection>,
    /// Connections that exist, idle or in use.
    open_count: usize,
    is_closed: bool,
}

#[derive(Debug)]
struct Threads {
    queue: Sender<ThreadRead>,
    handles: Vec<JoinHandle<()>>,
}

/// A connection taken from the pool; dropping it without [`give_back`](Borrowed::give_back) closes it.
struct Borrowed<'a> {
    readers: &'a Readers,
    connection: Option<Connection>,
}

impl Readers {
    pub(super) fn new(file: StoreFile, connections_max: usize, thread_count: usize) -> Self {
        let (pool, returned, threads) = Default::default();
        Self { file, connections_max, thread_count, pool, returned, threads }
    }

    /// Runs a short read here. `None`: every connection is in use; the read is to go to a thread.
    pub(super) fn in_place<T>(&self, name: &str, read: impl FnOnce(&Connection) -> Outcome<T>) -> Option<Result<T>> {
        let borrowed = match self.borrow()? {
            Ok(borrowed) => borrowed,
            Err(error) => return Some(Err(error)),
        };
        let answer = run(self.file.store, name, borrowed.connection(), read);
        if answer.is_ok() || answer.as_ref().is_err_and(is_harmless) {
            borrowed.give_back();
        }
        Some(answer)
    }

    /// Hands a read to the reader threads, which are started if they are not there.
    pub(super) fn on_thread(&self, read: ThreadRead) -> Result<()> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if self.pool().is_closed {
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
        let mut pool = self.pool();
        pool.is_closed = true;
        pool.open_count -= pool.idle.len();
        pool.idle.clear();
        while pool.open_count > 0 {
            pool = self.returned.wait(pool).unwrap_or_else(PoisonError::into_inner);
        }
        drop(pool);
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Threads { queue, handles }) = threads {
            drop(queue);
            for handle in handles {
                // A reader thread catches every panic of a read; were there another, the thread is over all the same.
                let _ = handle.join();
            }
        }
    }

    fn borrow(&self) -> Option<Result<Borrowed<'_>>> {
        let mut pool = self.pool();
        if pool.is_closed {
            return Some(Err(closed(self.file.store)));
        }
        if let Some(connection) = pool.idle.pop() {
            return Some(Ok(Borrowed { readers: self, connection: Some(connection) }));
        }
        if pool.open_count >= self.connections_max {
            return None;
        }
        pool.open_count += 1;
        drop(pool);
        // From here on the drop of `borrowed` takes the count back, also when opening fails.
        let mut borrowed = Borrowed { readers: self, connection: None };
        Some(self.file.reader().map(|connection| {
            borrowed.connection = Some(connection);
            borrowed
        }))
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

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Borrowed<'_> {
    #[expect(clippy::expect_used, reason = "`borrow` hands it out filled, and `give_back` consumes it")]
    fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("a borrowed connection is there until it is given back")
    }

    fn give_back(mut self) {
        let connection = self.connection.take();
        let mut pool = self.readers.pool();
        if !pool.is_closed {
            pool.idle.extend(connection);
            // The count stays: the connection lives on in the pool.
            pool.open_count += 1;
        }
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        // Closed before the count goes down, since `close` promises that nothing is open.
        drop(self.connection.take());
        self.readers.pool().open_count -= 1;
        self.readers.returned.notify_all();
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
