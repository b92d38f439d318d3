//! The embedding cache's run: what a peer implements, and its side of a turn.
//!
//! Start at [`Peer`]; [`serve`] answers the driver's requests for it. Vectors are made in [`entry`].

pub mod entry;
pub mod model;
pub mod script;
mod turn;

use std::future::Future;
use std::path::PathBuf;
use std::str::FromStr;

use crate::callers;
use crate::peer::{About, Durability, Request};
use crate::run::{self, Run};
use crate::{Error, Result};

/// The peers of this run, in the order of the tables.
const PEERS: &[&str] = &["larder", "raw", "moka", "quick_cache", "diskcache"];

/// Vectors before a turn.
const VECTORS: u64 = 20_000;
/// Of these the first are asked for where hits come from memory.
const HOT: u64 = 1_000;
/// Keys of one call that asks for many, and how many of them are not there.
const MANY: u64 = 1_000;
const MISSES: u64 = 100;

/// What one call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Gets a vector that was got before.
    HitMemory,
    /// Gets a vector from the file; caches of the peer's own are off.
    HitSqlite,
    /// Puts a new vector.
    Put,
    /// Gets 900 vectors that are there, and computes and puts 100 that are not.
    GetMany,
}

const CALLS: [Call; 4] = [Call::HitMemory, Call::HitSqlite, Call::Put, Call::GetMany];

impl Call {
    const fn name(self) -> &'static str {
        match self {
            Self::HitMemory => "hit-memory",
            Self::HitSqlite => "hit-sqlite",
            Self::Put => "put-64",
            Self::GetMany => "get-many",
        }
    }

    const fn caller_count(self) -> u64 {
        match self {
            Self::HitMemory | Self::HitSqlite => 2,
            Self::Put => 64,
            Self::GetMany => 1,
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
        store: "embed_cache",
        peers: PEERS,
        loads: CALLS.into_iter().map(describe).collect(),
        expected: || callers::runtime()?.block_on(script::run(&model::Model::default())),
        durabilities: RELAXED,
        head: vec![
            ("sqlite", crate::kv::sqlite::head()),
            ("vectors", format!("{} components (1,536 B); {VECTORS} before each turn", entry::DIMENSIONS)),
        ],
    }
}

/// A cache need not survive a power cut.
const RELAXED: &[Durability] = &[Durability::Relaxed];

fn describe(call: Call) -> run::Load {
    let (about, without): (_, &[&str]) = match call {
        Call::HitMemory => ("2 callers get one of 1,000 vectors that are in memory", &["raw"]),
        Call::HitSqlite => ("2 callers get one of 20,000 vectors from the file", &["moka", "quick_cache"]),
        Call::Put => ("64 callers put new vectors", &["moka", "quick_cache"]),
        Call::GetMany => {
            ("1 caller asks for 1,000 vectors, of which 100 are not there and are put", &["moka", "quick_cache"])
        }
    };
    run::Load {
        name: call.name().to_owned(),
        data: VECTORS.to_string(),
        is_quick: true,
        durabilities: RELAXED,
        about: about.to_owned(),
        without,
    }
}

/// One cache of vectors, used the way its competent user would.
pub trait Peer: Sized + Send + Sync + 'static {
    /// What a hit gives.
    type Vector: AsRef<[f32]> + Send;

    /// Versions, settings and what they mean.
    fn about() -> About;
    /// Opens or creates the cache in `folder`, which exists. Without memory, each hit comes from the file.
    fn open(folder: PathBuf, in_memory: bool) -> impl Future<Output = Result<Self>> + Send;
    /// The vector of a text.
    fn get(&self, text: &str) -> impl Future<Output = Result<Option<Self::Vector>>> + Send;
    /// Stores the vector of a text.
    fn put(&self, text: &str, vector: Vec<f32>) -> impl Future<Output = Result<()>> + Send;
    /// The vectors of all texts; what is not there is made by [`entry::embed`] and stored.
    fn get_many(&self, texts: &[String]) -> impl Future<Output = Result<Vec<Self::Vector>>> + Send;
    /// How many vectors there are.
    fn count(&self) -> impl Future<Output = Result<u64>> + Send;
    /// Leaves the files so that they can be copied.
    fn close(self) -> impl Future<Output = Result<()>> + Send;
}

/// Puts the vectors that every turn starts from.
async fn fill<P: Peer>(peer: &P) -> Result<()> {
    for first in (0..VECTORS).step_by(1_000) {
        let texts: Vec<String> = (first..first + 1_000).map(entry::text).collect();
        peer.get_many(&texts).await?;
    }
    Ok(())
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
        Request::Prepare { folder, .. } => {
            runtime.block_on(async {
                let peer = P::open(folder, true).await?;
                fill(&peer).await?;
                peer.close().await
            })?;
            Ok("null".to_owned())
        }
        Request::Script { folder, .. } => {
            let answers = runtime.block_on(async {
                let peer = P::open(folder, true).await?;
                let answers = script::run(&peer).await?;
                peer.close().await?;
                Ok::<_, Error>(answers)
            })?;
            Ok(serde_json::to_string(&answers)?)
        }
        Request::Turn { folder, load, seconds, warm_up_seconds, seed, .. } => {
            let call: Call = load.parse()?;
            let peer = runtime.block_on(async {
                let peer = P::open(folder, call != Call::HitSqlite).await?;
                if peer.count().await? == 0 {
                    // It keeps nothing between processes.
                    fill(&peer).await?;
                }
                Ok::<_, Error>(peer)
            })?;
            Ok(serde_json::to_string(&turn::run(&runtime, peer, call, (warm_up_seconds, seconds), seed)?)?)
        }
    }
}
