//! The chat run: each append is a transaction of its own, with the same rows as `raw`.

use std::path::PathBuf;

use peer_harness::Result;
use peer_harness::chat::Peer;
use peer_harness::chat::entry::Said;
use peer_harness::kv::sqlite;
use peer_harness::peer::{About, Durability, locked_versions};
use peer_statements::{FILE, chat as statements};
use rusqlite::Connection as SqliteConnection;

pub(crate) struct TokioRusqliteChat(tokio_rusqlite::Connection);

impl TokioRusqliteChat {
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut SqliteConnection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        Ok(self.0.call(work).await?)
    }
}

impl Peer for TokioRusqliteChat {
    fn about() -> About {
        let crates = locked_versions(include_str!("../../Cargo.lock"), &["tokio-rusqlite", "rusqlite"]);
        About {
            versions: format!("{crates}, SQLite {}", rusqlite::version()),
            durable: sqlite::DURABLE.to_owned(),
            relaxed: sqlite::RELAXED.to_owned(),
            callers: "tasks, which count; one connection, a transaction for each append".to_owned(),
        }
    }

    async fn open(folder: PathBuf, durability: Durability) -> Result<Self> {
        let peer = Self(tokio_rusqlite::Connection::open(folder.join(FILE)).await?);
        peer.call(move |connection| statements::configure(connection, durability)).await?;
        Ok(peer)
    }

    async fn append(&self, session: &str, messages: Vec<Said>) -> Result<()> {
        let (session, messages) = (session.to_owned(), statements::counted(messages));
        self.call(move |connection| statements::append_all(connection, &session, &messages)).await
    }

    async fn window(&self, session: &str, tokens: u64) -> Result<Vec<String>> {
        let session = session.to_owned();
        self.call(move |connection| statements::window(connection, &session, tokens)).await
    }

    async fn search(&self, session: &str, word: &str, limit: usize) -> Result<Vec<String>> {
        let (session, word) = (session.to_owned(), word.to_owned());
        self.call(move |connection| statements::search(connection, &session, &word, limit)).await
    }

    async fn count(&self, session: &str) -> Result<u64> {
        let session = session.to_owned();
        self.call(move |connection| statements::count(connection, &session)).await
    }

    async fn close(self) -> Result<()> {
        Ok(self.0.close().await?)
    }
}
