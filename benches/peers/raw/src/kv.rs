//! One write connection on a thread that commits everything waiting in a channel at once, then answers; a read connection
//! for each thread that reads, in place.

use std::cell::RefCell;
use std::path::PathBuf;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};
use peer_harness::callers::Carrier;
use peer_harness::kv::{OpenOptions, Peer, Row, sqlite};
use peer_harness::peer::{About, Durability, locked_versions};
use peer_harness::{Error, Result};
use peer_statements as statements;
use rusqlite::Connection;
use tokio::sync::oneshot;

/// Most writes of one transaction.
const GROUP_WRITES_MAX: usize = 1_024;

pub(crate) struct Raw {
    folder: PathBuf,
    durability: Durability,
    writes: Sender<Write>,
    writer: JoinHandle<rusqlite::Result<()>>,
}

enum Write {
    Put(String, Vec<u8>, oneshot::Sender<()>),
    PutMany(Vec<Row>, oneshot::Sender<()>),
    Delete(String, oneshot::Sender<bool>),
}

thread_local! {
    /// A process opens one database, so that a thread needs one connection.
    static READER: RefCell<Option<Connection>> = const { RefCell::new(None) };
}

impl Raw {
    fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        READER.with_borrow_mut(|reader| {
            let connection = match reader {
                Some(connection) => connection,
                None => reader.insert(statements::open(&self.folder, self.durability)?),
            };
            Ok(work(connection)?)
        })
    }

    async fn write<T>(&self, write: impl FnOnce(oneshot::Sender<T>) -> Write) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.writes.send(write(reply)).map_err(|_| "the writer is gone")?;
        Ok(answer.await?)
    }
}

impl Peer for Raw {
    const WRITERS: Carrier = Carrier::Task;

    fn about() -> About {
        let crates = locked_versions(include_str!("../../Cargo.lock"), &["rusqlite", "libsqlite3-sys"]);
        About {
            versions: format!("{crates}, SQLite {}", rusqlite::version()),
            durable: sqlite::DURABLE.to_owned(),
            relaxed: sqlite::RELAXED.to_owned(),
            callers:
                "tasks; writes through a channel to one thread, which commits all that wait at once; reads in place"
                    .to_owned(),
        }
    }

    async fn open(options: OpenOptions) -> Result<Self> {
        let OpenOptions { folder, durability, .. } = options;
        let connection = statements::open(&folder, durability)?;
        let (writes, queue) = crossbeam_channel::unbounded();
        let writer = std::thread::Builder::new().spawn(move || write_groups(&connection, &queue))?;
        Ok(Self { folder, durability, writes, writer })
    }

    async fn put(&self, key: String, value: Vec<u8>) -> Result<()> {
        self.write(|reply| Write::Put(key, value, reply)).await
    }

    async fn put_many(&self, entries: Vec<Row>) -> Result<()> {
        self.write(|reply| Write::PutMany(entries, reply)).await
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.read(|connection| statements::get(connection, key))
    }

    async fn delete(&self, key: &str) -> Result<bool> {
        self.write(|reply| Write::Delete(key.to_owned(), reply)).await
    }

    async fn scan(&self, from: &str, limit: usize) -> Result<Vec<Row>> {
        self.read(|connection| statements::scan(connection, from, limit))
    }

    async fn close(self) -> Result<()> {
        drop(self.writes);
        READER.take();
        self.writer.join().map_err(|_| "the writer panicked")?.map_err(Error::from)
    }
}

/// Answers leave after the commit. An error ends the thread, and with it every caller's wait.
fn write_groups(connection: &Connection, queue: &Receiver<Write>) -> rusqlite::Result<()> {
    let mut answers: Vec<Box<dyn FnOnce()>> = Vec::new();
    while let Ok(first) = queue.recv() {
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        answers.push(apply(connection, first)?);
        for write in queue.try_iter().take(GROUP_WRITES_MAX - 1) {
            answers.push(apply(connection, write)?);
        }
        connection.prepare_cached("COMMIT")?.execute([])?;
        answers.drain(..).for_each(|answer| answer());
    }
    Ok(())
}

fn apply(connection: &Connection, write: Write) -> rusqlite::Result<Box<dyn FnOnce()>> {
    match write {
        Write::Put(key, value, reply) => {
            statements::put(connection, &key, &value)?;
            Ok(answer(reply, ()))
        }
        Write::PutMany(rows, reply) => {
            for (key, value) in &rows {
                statements::put(connection, key, value)?;
            }
            Ok(answer(reply, ()))
        }
        Write::Delete(key, reply) => {
            let was_there = statements::delete(connection, &key)?;
            Ok(answer(reply, was_there))
        }
    }
}

/// A caller that no longer waits needs no answer.
fn answer<T: 'static>(reply: oneshot::Sender<T>, value: T) -> Box<dyn FnOnce()> {
    Box::new(move || drop(reply.send(value)))
}
