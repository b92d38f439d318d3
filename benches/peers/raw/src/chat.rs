//! As in the key-value run: one write connection on a thread that commits all that waits at once; reads in place.

use std::cell::RefCell;
use std::path::PathBuf;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};
use peer_harness::chat::Peer;
use peer_harness::chat::entry::Said;
use peer_harness::kv::sqlite;
use peer_harness::peer::{About, Durability, locked_versions};
use peer_harness::{Error, Result};
use peer_statements::chat as statements;
use rusqlite::Connection;
use tokio::sync::oneshot;

/// Most appends of one transaction.
const GROUP_WRITES_MAX: usize = 1_024;

pub(crate) struct RawChat {
    folder: PathBuf,
    durability: Durability,
    appends: Sender<Append>,
    writer: JoinHandle<rusqlite::Result<()>>,
}

struct Append {
    session: String,
    messages: Vec<(Said, u64)>,
    reply: oneshot::Sender<()>,
}

thread_local! {
    /// A process opens one database, so that a thread needs one connection.
    static READER: RefCell<Option<Connection>> = const { RefCell::new(None) };
}

impl RawChat {
    fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        READER.with_borrow_mut(|reader| {
            let connection = match reader {
                Some(connection) => connection,
                None => reader.insert(statements::open(&self.folder, self.durability)?),
            };
            Ok(work(connection)?)
        })
    }
}

impl Peer for RawChat {
    fn about() -> About {
        let crates = locked_versions(include_str!("../../Cargo.lock"), &["rusqlite", "libsqlite3-sys"]);
        About {
            versions: format!("{crates}, SQLite {}", rusqlite::version()),
            durable: sqlite::DURABLE.to_owned(),
            relaxed: sqlite::RELAXED.to_owned(),
            callers:
                "tasks, which count; appends through a channel to one thread, which commits all that wait at once; reads in place"
                    .to_owned(),
        }
    }

    async fn open(folder: PathBuf, durability: Durability) -> Result<Self> {
        let connection = statements::open(&folder, durability)?;
        let (appends, queue) = crossbeam_channel::unbounded();
        let writer = std::thread::Builder::new().spawn(move || write_groups(&connection, &queue))?;
        Ok(Self { folder, durability, appends, writer })
    }

    async fn append(&self, session: &str, messages: Vec<Said>) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        let append = Append { session: session.to_owned(), messages: statements::counted(messages), reply };
        self.appends.send(append).map_err(|_| "the writer is gone")?;
        Ok(answer.await?)
    }

    async fn window(&self, session: &str, tokens: u64) -> Result<Vec<String>> {
        self.read(|connection| statements::window(connection, session, tokens))
    }

    async fn search(&self, session: &str, word: &str, limit: usize) -> Result<Vec<String>> {
        self.read(|connection| statements::search(connection, session, word, limit))
    }

    async fn count(&self, session: &str) -> Result<u64> {
        self.read(|connection| statements::count(connection, session))
    }

    async fn close(self) -> Result<()> {
        drop(self.appends);
        READER.take();
        self.writer.join().map_err(|_| "the writer panicked")?.map_err(Error::from)
    }
}

/// Answers leave after the commit. An error ends the thread, and with it every caller's wait.
fn write_groups(connection: &Connection, queue: &Receiver<Append>) -> rusqlite::Result<()> {
    let mut replies = Vec::new();
    while let Ok(first) = queue.recv() {
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        for append in std::iter::once(first).chain(queue.try_iter().take(GROUP_WRITES_MAX - 1)) {
            for (said, tokens) in &append.messages {
                statements::append(connection, &append.session, said, *tokens)?;
            }
            replies.push(append.reply);
        }
        connection.prepare_cached("COMMIT")?.execute([])?;
        // A caller that no longer waits needs no answer.
        replies.drain(..).for_each(|reply| {
            let _ = reply.send(());
        });
    }
    Ok(())
}
