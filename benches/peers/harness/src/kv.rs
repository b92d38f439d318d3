//! The key–value run: what a peer implements, and its side of a turn.
//!
//! Start at [`Peer`]; [`serve`] answers the driver's requests for it. Loads are in [`load`], keys and values in [`entry`].

pub mod entry;
pub mod load;
pub mod model;
pub mod script;
pub mod sqlite;
mod turn;

use std::future::Future;
use std::path::PathBuf;

use crate::callers::{self, Carrier};
use crate::peer::{About, Durability, Request};
use crate::run::{self, Run};
use crate::{Error, Result};
use load::Load;

/// The peers of this run, in the order of the tables.
pub const PEERS: &[&str] = &["larder", "raw", "tokio-rusqlite", "deadpool", "sqlx", "redb", "fjall", "heed"];

/// The run as the driver sees it.
#[must_use]
pub fn run() -> Run {
    let quick = Load::quick();
    let described = |load: Load| run::Load {
        name: load.to_string(),
        data: load.value_bytes.to_string(),
        is_quick: quick.contains(&load),
        durabilities: if load.writes() { run::BOTH } else { run::DURABLE },
        about: format!("values of {} B · one call is {}", load.value_bytes, load.call.words()),
        without: &[],
    };
    let raw = sqlite::SCHEMA.trim_start_matches("CREATE TABLE IF NOT EXISTS ").to_owned();
    Run {
        store: "kv",
        peers: PEERS,
        loads: Load::all().into_iter().map(described).collect(),
        expected: || callers::runtime()?.block_on(script::run(&model::Model::default())),
        durabilities: run::BOTH,
        head: vec![("sqlite", sqlite::head()), ("raw", raw)],
    }
}

/// A row: its key and its value.
pub type Row = (String, Vec<u8>);

/// How a peer opens its database.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// Exists; empty at first.
    pub folder: PathBuf,
    pub durability: Durability,
    /// The load reads few keys often, from one process: a peer with a memory tier for that may use it. All others must
    /// answer from the database.
    pub is_hot: bool,
}

/// One database, used the way its competent user would.
///
/// Every write returns once it is committed with the durability asked for. A future that never waits may run in place.
pub trait Peer: Sized + Send + Sync + 'static {
    /// What carries callers of loads that write; those that only read are always tasks.
    const WRITERS: Carrier;

    /// Versions, settings and what they mean.
    fn about() -> About;
    /// Opens or creates the database.
    fn open(options: OpenOptions) -> impl Future<Output = Result<Self>> + Send;
    /// Stores one entry, in a transaction of its own or the peer's own grouping.
    fn put(&self, key: String, value: Vec<u8>) -> impl Future<Output = Result<()>> + Send;
    /// Stores all entries in one transaction; of equal keys the last wins.
    fn put_many(&self, entries: Vec<Row>) -> impl Future<Output = Result<()>> + Send;
    /// The value of `key`.
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Vec<u8>>>> + Send;
    /// Removes `key`; whether it was there.
    fn delete(&self, key: &str) -> impl Future<Output = Result<bool>> + Send;
    /// The first `limit` rows whose key is `from` or after it, in order of the keys' bytes.
    fn scan(&self, from: &str, limit: usize) -> impl Future<Output = Result<Vec<Row>>> + Send;
    /// Leaves the files so that they can be copied.
    fn close(self) -> impl Future<Output = Result<()>> + Send;
}

/// Answers one request of the driver.
///
/// # Errors
/// The peer failed, or its answers or contents are not what they must be.
pub fn serve<P: Peer>(request: Request) -> Result<String> {
    let runtime = callers::runtime()?;
    // Some peers close in the background of a runtime when they are dropped.
    let _context = runtime.enter();
    match request {
        Request::About => Ok(serde_json::to_string(&P::about())?),
        Request::Prepare { folder, load } => {
            runtime.block_on(prepare::<P>(folder, load.parse()?))?;
            Ok("null".to_owned())
        }
        Request::Script { folder, durability } => {
            let answers = runtime.block_on(async {
                let peer = P::open(OpenOptions { folder, durability, is_hot: false }).await?;
                let answers = script::run(&peer).await?;
                peer.close().await?;
                Ok::<_, Error>(answers)
            })?;
            Ok(serde_json::to_string(&answers)?)
        }
        Request::Turn { folder, load, durability, seconds, warm_up_seconds, seed } => {
            let load: Load = load.parse()?;
            let options = OpenOptions { folder, durability, is_hot: load.is_hot() };
            let peer = runtime.block_on(P::open(options))?;
            let report = turn::run(&runtime, peer, &load, turn::Times::new(seconds, warm_up_seconds)?, seed)?;
            Ok(serde_json::to_string(&report)?)
        }
    }
}

/// Rows of one preloading transaction, and of one page when contents are checked.
const PAGE_ROWS: usize = 1_000;

async fn prepare<P: Peer>(folder: PathBuf, load: Load) -> Result<()> {
    let peer = P::open(OpenOptions { folder, durability: Durability::Relaxed, is_hot: false }).await?;
    let indexes: Vec<u64> = (0..load.entry_count()).collect();
    for page in indexes.chunks(PAGE_ROWS) {
        let rows = page.iter().map(|&index| (entry::key(index), entry::value(index, 0, load.value_bytes)));
        peer.put_many(rows.collect()).await?;
    }
    peer.close().await
}
