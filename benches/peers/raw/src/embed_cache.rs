//! rusqlite by hand: a table of vectors by the hash of their text. Callers put through one thread that commits what waits;
//! reads run in place, on a connection of the thread they are on.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Mutex;

use crossbeam_channel::Sender;
use peer_harness::Result;
use peer_harness::embed_cache::{Peer, entry};
use peer_harness::kv::sqlite;
use peer_harness::peer::{About, Durability, locked_versions};
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::oneshot;

/// Writes in one commit.
const GROUP_MAX: usize = 1_024;

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS vector (key BLOB PRIMARY KEY, value BLOB NOT NULL)";

thread_local! {
    static READER: RefCell<Option<Connection>> = const { RefCell::new(None) };
}

struct Put {
    key: [u8; 32],
    value: Vec<u8>,
    done: oneshot::Sender<rusqlite::Result<()>>,
}

pub(crate) struct RawCache {
    path: PathBuf,
    puts: Sender<Put>,
    /// For whole batches.
    writer: Mutex<Connection>,
}

fn open(path: &PathBuf) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.execute_batch(&sqlite::pragmas(Durability::Relaxed))?;
    connection.execute_batch(SCHEMA)?;
    Ok(connection)
}

fn key(text: &str) -> [u8; 32] {
    *blake3::hash(text.as_bytes()).as_bytes()
}

fn bytes(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|component| component.to_le_bytes()).collect()
}

fn vector(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn get(connection: &Connection, key: &[u8; 32]) -> rusqlite::Result<Option<Vec<f32>>> {
    let mut statement = connection.prepare_cached("SELECT value FROM vector WHERE key = ?1")?;
    statement.query_row([&key[..]], |row| Ok(vector(row.get_ref(0)?.as_blob()?))).optional()
}

fn put(connection: &Connection, key: &[u8; 32], value: &[u8]) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO vector (key, value) VALUES (?1, ?2)")?;
    statement.execute(params![&key[..], value]).map(drop)
}

/// Commits what waits, until nobody can put any more.
fn write(connection: &mut Connection, puts: &crossbeam_channel::Receiver<Put>) {
    while let Ok(first) = puts.recv() {
        let group: Vec<Put> = std::iter::once(first).chain(puts.try_iter().take(GROUP_MAX - 1)).collect();
        let mut commit = || {
            let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            for one in &group {
                put(&transaction, &one.key, &one.value)?;
            }
            transaction.commit()
        };
        let committed = commit();
        let failed = committed.is_err();
        for one in group {
            let answer = if failed { Err(rusqlite::Error::InvalidQuery) } else { Ok(()) };
            let _ = one.done.send(answer);
        }
    }
}

impl RawCache {
    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        READER.with_borrow_mut(|reader| {
            if reader.is_none() {
                *reader = Some(open(&self.path)?);
            }
            let connection = reader.as_ref().ok_or("a connection")?;
            Ok(read(connection)?)
        })
    }
}

impl Peer for RawCache {
    type Vector = Vec<f32>;

    fn about() -> About {
        let crates = locked_versions(include_str!("../../Cargo.lock"), &["rusqlite", "libsqlite3-sys"]);
        About {
            versions: format!("{crates}, SQLite {}", rusqlite::version()),
            durable: "not measured".to_owned(),
            relaxed: sqlite::RELAXED.to_owned(),
            callers:
                "reads in place; puts through one thread that commits what waits; nothing keeps two processes from \
                      computing the same"
                    .to_owned(),
        }
    }

    async fn open(folder: PathBuf, _: bool) -> Result<Self> {
        let path = folder.join("cache.db");
        let (writer, mut grouped) = (open(&path)?, open(&path)?);
        let (puts, waiting) = crossbeam_channel::unbounded();
        std::thread::Builder::new().spawn(move || write(&mut grouped, &waiting))?;
        Ok(Self { path, puts, writer: Mutex::new(writer) })
    }

    async fn get(&self, text: &str) -> Result<Option<Vec<f32>>> {
        let key = key(text);
        self.read(|connection| get(connection, &key))
    }

    async fn put(&self, text: &str, vector: Vec<f32>) -> Result<()> {
        let (done, answer) = oneshot::channel();
        self.puts.send(Put { key: key(text), value: bytes(&vector), done }).map_err(|_| "the writer is gone")?;
        Ok(answer.await??)
    }

    async fn get_many(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        let mut connection = self.writer.lock().map_err(|_| "a caller panicked")?;
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let mut vectors = Vec::with_capacity(texts.len());
        for text in texts {
            let key = key(text);
            vectors.push(match get(&transaction, &key)? {
                Some(found) => found,
                None => {
                    let computed = entry::embed(text);
                    put(&transaction, &key, &bytes(&computed))?;
                    computed
                }
            });
        }
        transaction.commit()?;
        Ok(vectors)
    }

    async fn count(&self) -> Result<u64> {
        let count =
            self.read(|connection| connection.query_row("SELECT count(*) FROM vector", [], |row| row.get::<_, i64>(0)));
        Ok(u64::try_from(count?)?)
    }

    async fn close(self) -> Result<()> {
        Ok(())
    }
}
