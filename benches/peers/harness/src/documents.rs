//! The documents run: what a peer implements, and its side of a turn.
//!
//! Start at [`Peer`]; [`serve`] answers the driver's requests for it. The texts are made in [`entry`].

pub mod entry;
pub mod model;
pub mod script;
mod turn;

use std::future::Future;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::callers;
use crate::peer::{About, Durability, Request};
use crate::run::{self, Run};
use crate::{Error, Result};
use entry::Chunk;

/// The peers of this run, in the order of the tables.
const PEERS: &[&str] = &["larder", "raw", "tantivy", "llamaindex"];

/// Chunks of one document.
pub const CHUNKS: u64 = 100;
/// Documents before a turn of any load but `ingest`: 20,000 chunks.
const DOCUMENTS: u64 = 200;

/// How long every peer is left alone after its documents were put and before it is closed, as an application leaves its
/// store between an ingestion and the questions. Some peers use it to put their index in order.
const REST: Duration = Duration::from_secs(4);

/// What one call is. There is one caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Puts a document that is not there.
    Ingest,
    /// Puts a document that is there, unchanged.
    Reingest,
    /// Finds the best ten chunks with two words, each with a snippet.
    Search,
    /// Reads a chunk by its id.
    Get,
}

const CALLS: [Call; 4] = [Call::Ingest, Call::Reingest, Call::Search, Call::Get];

impl Call {
    const fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Reingest => "reingest",
            Self::Search => "search",
            Self::Get => "get",
        }
    }

    const fn document_count(self) -> u64 {
        match self {
            Self::Ingest => 0,
            _ => DOCUMENTS,
        }
    }
}

impl FromStr for Call {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let call = CALLS.into_iter().find(|call| call.name() == name);
        call.ok_or_else(|| format!("there is no load named {name}").into())
    }
}

/// The run as the driver sees it.
#[must_use]
pub fn run() -> Run {
    Run {
        store: "documents",
        peers: PEERS,
        loads: CALLS.into_iter().map(describe).collect(),
        expected: || callers::runtime()?.block_on(script::run(&model::Model::default())),
        durabilities: run::BOTH,
        head: vec![
            ("sqlite", crate::kv::sqlite::head()),
            (
                "texts",
                format!(
                    "chunks of about 100 words (650 B), {CHUNKS} a document; 20,000 chunks, then 4 s of rest, before all but ingest"
                ),
            ),
        ],
    }
}

fn describe(call: Call) -> run::Load {
    let (about, durabilities, without): (_, _, &[&str]) = match call {
        Call::Ingest => (format!("one call puts a document of {CHUNKS} chunks, with full text"), run::BOTH, &[]),
        Call::Reingest => (format!("one call puts the same {CHUNKS} chunks again"), run::DURABLE, &["tantivy"]),
        Call::Search => ("one call finds the best ten chunks with two words".to_owned(), run::DURABLE, &["llamaindex"]),
        Call::Get => ("one call reads a chunk by its id".to_owned(), run::DURABLE, &["tantivy"]),
    };
    run::Load {
        name: call.name().to_owned(),
        data: call.document_count().to_string(),
        is_quick: true,
        durabilities,
        about,
        without,
    }
}

/// One chunk that a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    pub id: String,
    pub text: String,
    pub snippet: String,
    /// How well it fits: larger is better. What hits are fused with others by.
    pub score: f64,
}

/// One store of documents, used the way its competent user would.
///
/// A put returns once it is committed with the durability asked for. A future that never waits may run in place.
pub trait Peer: Sized + Send + Sync + 'static {
    /// Versions, settings and what they mean.
    fn about() -> About;
    /// Opens or creates the store in `folder`, which exists.
    fn open(folder: PathBuf, durability: Durability) -> impl Future<Output = Result<Self>> + Send;
    /// Makes a document's chunks these, in one transaction, and searchable; how many were written.
    fn put(&self, document: &str, chunks: Vec<Chunk>) -> impl Future<Output = Result<u64>> + Send;
    /// The chunk under `id`.
    fn get(&self, id: &str) -> impl Future<Output = Result<Option<Chunk>>> + Send;
    /// The best chunks that hold every word, at most `limit`, with snippets.
    fn search(&self, words: &str, limit: usize) -> impl Future<Output = Result<Vec<Hit>>> + Send;
    /// How many chunks there are.
    fn count(&self) -> impl Future<Output = Result<u64>> + Send;
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
            let call: Call = load.parse()?;
            runtime.block_on(async {
                let peer = P::open(folder, Durability::Relaxed).await?;
                for number in 0..call.document_count() {
                    peer.put(&entry::document(number), entry::chunks(number)).await?;
                }
                if call.document_count() > 0 {
                    tokio::time::sleep(REST).await;
                }
                peer.close().await
            })?;
            Ok("null".to_owned())
        }
        Request::Script { folder, durability } => {
            let answers = runtime.block_on(async {
                let peer = P::open(folder, durability).await?;
                let answers = script::run(&peer).await?;
                peer.close().await?;
                Ok::<_, Error>(answers)
            })?;
            Ok(serde_json::to_string(&answers)?)
        }
        Request::Turn { folder, load, durability, seconds, warm_up_seconds, seed } => {
            let peer = runtime.block_on(P::open(folder, durability))?;
            let report = turn::run(&runtime, peer, load.parse()?, (warm_up_seconds, seconds), seed)?;
            Ok(serde_json::to_string(&report)?)
        }
    }
}
