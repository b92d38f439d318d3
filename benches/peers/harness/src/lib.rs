//! What every peer and every store's side-by-side run share; no database.
//!
//! Start at [`peer::main`], which a peer's `main` calls, and at [`kv::Peer`], [`documents::Peer`] and [`chat::Peer`], which a
//! peer implements. The other side, which starts the peers' processes and prints, is the binary in `driver/`.
//!
//! Always true: every peer runs the same callers over the same keys, values and order of draws; nothing that is not part of
//! the work (opening, preloading, warming up, checking) is inside the time that is compared.

pub mod callers;
pub mod chat;
pub mod documents;
pub mod embed_cache;
pub mod graph;
pub mod job;
pub mod kv;
pub mod latency;
pub mod peer;
pub mod random;
pub mod run;
pub mod vectors;

/// What a peer or the harness failed at; these programs only print it.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// A result with the harness's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
