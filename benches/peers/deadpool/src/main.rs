//! deadpool-sqlite: pools of connections, each used on tokio's blocking threads.
//!
//! Writers have a pool of four connections; with one they were slower (../README.md, "Choices").

use std::path::Path;
use std::process::ExitCode;

use deadpool_sqlite::{Config, Object, Pool, Runtime};
use peer_harness::Result;
use peer_harness::callers::Carrier;
use peer_harness::kv::{OpenOptions, Peer, Row, sqlite};
use peer_harness::peer::{About, Durability, locked_versions};
use peer_statements as statements;
use rusqlite::Connection;

fn main() -> ExitCode {
    peer_harness::peer::main(&[("kv", peer_harness::kv::serve::<Deadpool>)])
}

const WRITE_CONNECTIONS: usize = 4;
const READ_CONNECTIONS: usize = 4;

struct Deadpool {
    writers: Pool,
    readers: Pool,
}

/// A pool whose connections are all configured. They are never replaced, since none is ever broken.
async fn pool(folder: &Path, durability: Durability, connections: usize) -> Result<Pool> {
    let config = Config::new(folder.join(statements::FILE));
    let pool = config.builder(Runtime::Tokio1)?.max_size(connections).build()?;
    let mut opened = Vec::with_capacity(connections);
    for _ in 0..connections {
        let connection = pool.get().await?;
        interact(&connection, move |connection| statements::configure(connection, durability)).await?;
        opened.push(connection);
    }
    Ok(pool)
}

async fn interact<T: Send + 'static>(
    connection: &Object,
    work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
) -> Result<T> {
    // Its error may hold a panic's payload, which is not `Sync`.
    let result = connection.interact(work).await.map_err(|error| error.to_string())?;
    Ok(result?)
}

impl Peer for Deadpool {
    const WRITERS: Carrier = Carrier::Task;

    fn about() -> About {
        let crates = locked_versions(include_str!("../../Cargo.lock"), &["deadpool-sqlite", "rusqlite"]);
        About {
            versions: format!("{crates}, SQLite {}", rusqlite::version()),
            durable: sqlite::DURABLE.to_owned(),
            relaxed: sqlite::RELAXED.to_owned(),
            callers: format!(
                "tasks; {WRITE_CONNECTIONS} write and {READ_CONNECTIONS} read connections, a transaction for each put"
            ),
        }
    }

    async fn open(options: OpenOptions) -> Result<Self> {
        let OpenOptions { folder, durability, .. } = options;
        let writers = pool(&folder, durability, WRITE_CONNECTIONS).await?;
        Ok(Self { writers, readers: pool(&folder, durability, READ_CONNECTIONS).await? })
    }

    async fn put(&self, key: String, value: Vec<u8>) -> Result<()> {
        interact(&self.writers.get().await?, move |connection| statements::put(connection, &key, &value)).await
    }

    async fn put_many(&self, entries: Vec<Row>) -> Result<()> {
        interact(&self.writers.get().await?, move |connection| statements::put_many(connection, &entries)).await
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let key = key.to_owned();
        interact(&self.readers.get().await?, move |connection| statements::get(connection, &key)).await
    }

    async fn delete(&self, key: &str) -> Result<bool> {
        let key = key.to_owned();
        interact(&self.writers.get().await?, move |connection| statements::delete(connection, &key)).await
    }

    async fn scan(&self, from: &str, limit: usize) -> Result<Vec<Row>> {
        let from = from.to_owned();
        interact(&self.readers.get().await?, move |connection| statements::scan(connection, &from, limit)).await
    }

    async fn close(self) -> Result<()> {
        // Dropping a pool closes its connections in the background; the last to close folds the WAL into the file.
        interact(&self.writers.get().await?, |connection| {
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        })
        .await
    }
}
