//! One connection, used in place: a hand-written loop, with nobody to wait for.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use peer_harness::Result;
use peer_harness::documents::entry::Chunk;
use peer_harness::documents::{Hit, Peer};
use peer_harness::kv::sqlite;
use peer_harness::peer::{About, Durability, locked_versions};
use peer_statements::documents as statements;
use rusqlite::Connection;

pub(crate) struct RawDocuments(Mutex<Connection>);

impl RawDocuments {
    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer for RawDocuments {
    fn about() -> About {
        let crates = locked_versions(include_str!("../../Cargo.lock"), &["rusqlite", "libsqlite3-sys"]);
        About {
            versions: format!("{crates}, SQLite {}", rusqlite::version()),
            durable: sqlite::DURABLE.to_owned(),
            relaxed: sqlite::RELAXED.to_owned(),
            callers: "one connection behind a lock, used in place".to_owned(),
        }
    }

    async fn open(folder: PathBuf, durability: Durability) -> Result<Self> {
        Ok(Self(Mutex::new(statements::open(&folder, durability)?)))
    }

    async fn put(&self, document: &str, chunks: Vec<Chunk>) -> Result<u64> {
        Ok(statements::put(&mut self.connection(), document, &chunks)?)
    }

    async fn get(&self, id: &str) -> Result<Option<Chunk>> {
        Ok(statements::get(&self.connection(), id)?)
    }

    async fn search(&self, words: &str, limit: usize) -> Result<Vec<Hit>> {
        Ok(statements::search(&self.connection(), words, limit)?)
    }

    async fn count(&self) -> Result<u64> {
        Ok(statements::count(&self.connection())?)
    }

    async fn close(self) -> Result<()> {
        Ok(())
    }
}
