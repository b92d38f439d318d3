//! sqlx with SQLite: pools of connections, each with a thread of its own.
//!
//! Writers have a pool of four connections; with one they were slower (../README.md, "Choices").

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use peer_harness::Result;
use peer_harness::callers::Carrier;
use peer_harness::kv::{OpenOptions, Peer, Row, sqlite};
use peer_harness::peer::{About, Durability, locked_versions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteExecutor, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, SqliteConnection, SqlitePool};

fn main() -> ExitCode {
    peer_harness::peer::main(&[("kv", peer_harness::kv::serve::<Sqlx>)])
}

const WRITE_CONNECTIONS: u32 = 4;
const READ_CONNECTIONS: u32 = 4;

struct Sqlx {
    writers: SqlitePool,
    readers: SqlitePool,
}

fn connect_options(options: &OpenOptions) -> SqliteConnectOptions {
    let synchronous = match options.durability {
        Durability::Durable => SqliteSynchronous::Full,
        Durability::Relaxed => SqliteSynchronous::Normal,
    };
    SqliteConnectOptions::new()
        .filename(options.folder.join("entries.db"))
        .create_if_missing(true)
        .page_size(sqlite::PAGE_BYTES)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        .pragma("cache_size", format!("-{}", sqlite::CACHE_KIB))
        .pragma("wal_autocheckpoint", sqlite::WAL_AUTOCHECKPOINT_PAGES.to_string())
        .busy_timeout(Duration::from_millis(sqlite::BUSY_TIMEOUT_MS.into()))
}

async fn pool(options: &OpenOptions, connections: u32) -> Result<SqlitePool> {
    // 256 callers may wait long for a connection; that is no error here.
    let pool = SqlitePoolOptions::new()
        .min_connections(connections)
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(60))
        .test_before_acquire(false);
    Ok(pool.connect_with(connect_options(options)).await?)
}

async fn put(executor: impl SqliteExecutor<'_>, key: &str, value: &[u8]) -> Result<()> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let now_ms = i64::try_from(since.as_millis())?;
    sqlx::query(sqlite::PUT).bind(key).bind(value).bind(now_ms).execute(executor).await?;
    Ok(())
}

impl Peer for Sqlx {
    const WRITERS: Carrier = Carrier::Task;

    fn about() -> About {
        let crates = locked_versions(include_str!("../Cargo.lock"), &["sqlx", "libsqlite3-sys"]);
        About {
            versions: format!("{crates}, which bundles an SQLite older than the other peers'"),
            durable: sqlite::DURABLE.to_owned(),
            relaxed: sqlite::RELAXED.to_owned(),
            callers: format!(
                "tasks; {WRITE_CONNECTIONS} write and {READ_CONNECTIONS} read connections, a transaction for each put"
            ),
        }
    }

    async fn open(options: OpenOptions) -> Result<Self> {
        let writers = pool(&options, WRITE_CONNECTIONS).await?;
        sqlx::query(sqlite::SCHEMA).execute(&writers).await?;
        Ok(Self { writers, readers: pool(&options, READ_CONNECTIONS).await? })
    }

    async fn put(&self, key: String, value: Vec<u8>) -> Result<()> {
        put(&self.writers, &key, &value).await
    }

    async fn put_many(&self, entries: Vec<Row>) -> Result<()> {
        let mut connection = self.writers.acquire().await?;
        let connection: &mut SqliteConnection = &mut connection;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        for (key, value) in &entries {
            put(&mut *transaction, key, value).await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(sqlx::query_scalar(sqlite::GET).bind(key).fetch_optional(&self.readers).await?)
    }

    async fn delete(&self, key: &str) -> Result<bool> {
        let done = sqlx::query(sqlite::DELETE).bind(key).execute(&self.writers).await?;
        Ok(done.rows_affected() > 0)
    }

    async fn scan(&self, from: &str, limit: usize) -> Result<Vec<Row>> {
        let query = sqlx::query_as(sqlite::SCAN).bind(from).bind(i64::try_from(limit)?);
        Ok(query.fetch_all(&self.readers).await?)
    }

    async fn close(self) -> Result<()> {
        self.readers.close().await;
        self.writers.close().await;
        Ok(())
    }
}
