//! One peer's process: one request as its argument, one JSON answer on its output.
//!
//! A process per turn keeps every peer's idle threads, caches and background work out of the others' turns, and lets peers
//! that need different versions of SQLite take part in one run.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use crate::Result;

/// What an acknowledged write is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// It survives a power cut.
    Durable,
    /// A power cut may lose it. What a crash of the process may lose is each peer's own: see [`About`].
    Relaxed,
}

impl Durability {
    /// The word in tables and ratio lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Durable => "durable",
            Self::Relaxed => "relaxed",
        }
    }
}

/// What a peer says about itself in the head of the output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Names and versions of its crates and libraries.
    pub versions: String,
    /// What the peer sets for each [`Durability`], and what that may lose.
    pub durable: String,
    pub relaxed: String,
    /// How callers reach it.
    pub callers: String,
}

/// What the driver asks of a peer's process; the same for every store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// Answers with [`About`].
    About,
    /// Fills `folder` (which exists and is empty) with the entries that turns of `load` start from. Answers with `null`.
    Prepare { folder: PathBuf, load: String },
    /// Runs the store's fixed script in an empty `folder`; answers with a line per answer.
    Script { folder: PathBuf, durability: Durability },
    /// Runs a load over a prepared `folder`; answers with a [`TurnReport`].
    Turn { folder: PathBuf, load: String, durability: Durability, seconds: f64, warm_up_seconds: f64, seed: u64 },
}

/// What one turn measured; it exists only if the contents afterwards were right.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TurnReport {
    pub calls: u64,
    pub seconds: f64,
    pub latency: crate::latency::Percentiles,
}

/// What a store's module offers a peer's process: answers one request with JSON.
pub type Serve = fn(Request) -> Result<String>;

/// The `main` of a peer that takes part in `stores`' runs: `peer-x STORE REQUEST`.
#[must_use]
pub fn main(stores: &[(&str, Serve)]) -> ExitCode {
    match answer(stores) {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn answer(stores: &[(&str, Serve)]) -> Result<String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, request] = arguments.as_slice() else {
        return Err("this program is started by benches/peers/run".into());
    };
    let (_, serve) = stores.iter().find(|(name, _)| name == store).ok_or("this peer has no such store")?;
    serve(serde_json::from_str(request)?)
}

/// `name version` of each of `crates` in a lockfile's text.
#[must_use]
pub fn locked_versions(lockfile: &str, crates: &[&str]) -> String {
    let version = |name: &str| {
        let entry = lockfile.split_once(&format!("name = \"{name}\"\nversion = \""))?.1;
        entry.split_once('"').map(|(version, _)| version)
    };
    let named: Vec<String> = crates.iter().map(|name| format!("{name} {}", version(name).unwrap_or("?"))).collect();
    named.join(", ")
}
