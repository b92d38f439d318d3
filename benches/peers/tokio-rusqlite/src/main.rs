//! tokio-rusqlite: one connection on a thread of its own; each call is a closure sent to it.

mod chat;

use std::process::ExitCode;

use peer_harness::Result;
use peer_harness::callers::Carrier;
use peer_harness::kv::{OpenOptions, Peer, Row, sqlite};
use peer_harness::peer::{About, locked_versions};
use peer_statements as statements;
use rusqlite::Connection as SqliteConnection;

fn main() -> ExitCode {
    peer_harness::peer::main(&[
        ("kv", peer_harness::kv::serve::<TokioRusqlite>),
        ("chat", peer_harness::chat::serve::<chat::TokioRusqliteChat>),
    ])
}

struct TokioRusqlite(tokio_rusqlite::Connection);

impl TokioRusqlite {
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut SqliteConnection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        Ok(self.0.call(work).await?)
    }
}

impl Peer for TokioRusqlite {
    const WRITERS: Carrier = Carrier::Task;

    fn about() -> About {
        let crates = locked_versions(include_str!("../../Cargo.lock"), &["tokio-rusqlite", "rusqlite"]);
        About {
            versions: format!("{crates}, SQLite {}", rusqlite::version()),
            durable: sqlite::DURABLE.to_owned(),
            relaxed: sqlite::RELAXED.to_owned(),
            callers: "tasks; one connection, a transaction for each put".to_owned(),
        }
    }

    async fn open(options: OpenOptions) -> Result<Self> {
        let peer = Self(tokio_rusqlite::Connection::open(options.folder.join(statements::FILE)).await?);
        peer.call(move |connection| statements::configure(connection, options.durability)).await?;
        Ok(peer)
    }

    async fn put(&self, key: String, value: Vec<u8>) -> Result<()> {
        self.call(move |connection| statements::put(connection, &key, &value)).await
    }

    async fn put_many(&self, entries: Vec<Row>) -> Result<()> {
        self.call(move |connection| statements::put_many(connection, &entries)).await
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let key = key.to_owned();
        self.call(move |connection| statements::get(connection, &key)).await
    }

    async fn delete(&self, key: &str) -> Result<bool> {
        let key = key.to_owned();
        self.call(move |connection| statements::delete(connection, &key)).await
    }

    async fn scan(&self, from: &str, limit: usize) -> Result<Vec<Row>> {
        let from = from.to_owned();
        self.call(move |connection| statements::scan(connection, &from, limit)).await
    }

    async fn close(self) -> Result<()> {
        Ok(self.0.close().await?)
    }
}
