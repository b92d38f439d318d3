//! The chat run: what a peer implements, and its side of a turn.
//!
//! Start at [`Peer`]; [`serve`] answers the driver's requests for it. The messages are made in [`entry`]. Peers in Python
//! have their own side of all this in `../python/peer.py`, with the same messages and loads.

pub mod entry;
pub mod model;
pub mod script;
pub mod sqlite;
mod turn;

use std::future::Future;
use std::path::PathBuf;
use std::str::FromStr;

use crate::callers;
use crate::peer::{About, Durability, Request};
use crate::run::{self, Run};
use crate::{Error, Result};
use entry::Said;

/// The peers of this run, in the order of the tables.
const PEERS: &[&str] = &["larder", "raw", "tokio-rusqlite", "langchain", "llamaindex"];

/// Tokens of every window, by cl100k_base.
pub const WINDOW_TOKENS: u64 = 8_192;

/// What one call of a caller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Appends one message to the caller's own session.
    Append,
    /// Reads the newest whole turns of the one session that fit [`WINDOW_TOKENS`].
    Window,
    /// Finds the messages of the one session that hold a word, and reads the best ten.
    Search,
}

/// A named load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    name: &'static str,
    pub call: Call,
    pub caller_count: u64,
    /// Messages of the one session before a turn.
    pub message_count: u64,
}

const LOADS: [Load; 6] = [
    Load { name: "append-1", call: Call::Append, caller_count: 1, message_count: 0 },
    Load { name: "append-64", call: Call::Append, caller_count: 64, message_count: 0 },
    Load { name: "window-100", call: Call::Window, caller_count: 1, message_count: 100 },
    Load { name: "window-10000", call: Call::Window, caller_count: 1, message_count: 10_000 },
    Load { name: "search", call: Call::Search, caller_count: 1, message_count: 10_000 },
    Load { name: "window-100000", call: Call::Window, caller_count: 1, message_count: 100_000 },
];

impl FromStr for Load {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let load = LOADS.into_iter().find(|load| load.name == name);
        load.ok_or_else(|| format!("there is no load named {name}").into())
    }
}

/// The run as the driver sees it.
#[must_use]
pub fn run() -> Run {
    Run {
        store: "chat",
        peers: PEERS,
        loads: LOADS.iter().map(describe).collect(),
        expected: || callers::runtime()?.block_on(script::run(&model::Model::default())),
        durabilities: run::DURABLE,
        head: vec![
            ("sqlite", crate::kv::sqlite::head()),
            ("raw", sqlite::SCHEMA.split_whitespace().collect::<Vec<_>>().join(" ")),
            (
                "messages",
                "of about 70 tokens each, user and assistant in turn; every window has 8,192 tokens".to_owned(),
            ),
        ],
    }
}

fn describe(load: &Load) -> run::Load {
    let (about, without): (_, &[&str]) = match load.call {
        Call::Append => ("one call appends a message to its caller's session".to_owned(), &[]),
        // LlamaIndex counts the joined history again for each message that it drops: hours.
        Call::Window if load.message_count > 1_000 => {
            (format!("one call reads a window over {} messages", load.message_count), &["llamaindex"])
        }
        Call::Window => (format!("one call reads a window over {} messages", load.message_count), &[]),
        Call::Search => {
            let about = format!("one call finds a word in {} messages and reads the best ten", load.message_count);
            (about, &["langchain", "llamaindex"])
        }
    };
    run::Load {
        name: load.name.to_owned(),
        data: load.message_count.to_string(),
        is_quick: true,
        durabilities: run::DURABLE,
        about,
        without,
    }
}

/// The session that windows and searches read.
pub const SESSION: &str = "the one";

/// One store of conversations, used the way its competent user would.
///
/// An append returns once it is committed with the durability asked for. A future that never waits may run in place.
pub trait Peer: Sized + Send + Sync + 'static {
    /// Versions, settings and what they mean.
    fn about() -> About;
    /// Opens or creates the store in `folder`, which exists.
    fn open(folder: PathBuf, durability: Durability) -> impl Future<Output = Result<Self>> + Send;
    /// Appends messages in order, in one transaction; they are counted, and can be searched from then on.
    fn append(&self, session: &str, messages: Vec<Said>) -> impl Future<Output = Result<()>> + Send;
    /// The newest whole turns (a user's message and what follows it) that have at most `tokens`, oldest message first.
    fn window(&self, session: &str, tokens: u64) -> impl Future<Output = Result<Vec<String>>> + Send;
    /// The best messages that hold the word, at most `limit`.
    fn search(&self, session: &str, word: &str, limit: usize) -> impl Future<Output = Result<Vec<String>>> + Send;
    /// How many messages the session has.
    fn count(&self, session: &str) -> impl Future<Output = Result<u64>> + Send;
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

/// Messages of one preloading transaction.
const PAGE_MESSAGES: u64 = 1_000;

async fn prepare<P: Peer>(folder: PathBuf, load: Load) -> Result<()> {
    let peer = P::open(folder, Durability::Relaxed).await?;
    for first in (0..load.message_count).step_by(PAGE_MESSAGES as usize) {
        let page = (first..load.message_count.min(first + PAGE_MESSAGES)).map(entry::message);
        peer.append(SESSION, page.collect()).await?;
    }
    peer.close().await
}
