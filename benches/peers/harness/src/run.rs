//! A store's side-by-side run as the driver sees it: its peers, its loads, and the answers that every peer must give.
//!
//! A new store is a module with a `run` and a line in [`runs`].

use crate::peer::Durability;
use crate::{Result, chat, documents, embed_cache, kv};

/// Every run.
#[must_use]
pub fn runs() -> Vec<Run> {
    vec![kv::run(), documents::run(), chat::run(), embed_cache::run()]
}

/// A store's run.
#[derive(Debug, Clone)]
pub struct Run {
    /// The store's word.
    pub store: &'static str,
    /// In the order of the tables.
    pub peers: &'static [&'static str],
    pub loads: Vec<Load>,
    /// The answers to the fixed script that every peer must give.
    pub expected: fn() -> Result<Vec<String>>,
    /// The durabilities at which peers must answer the script.
    pub durabilities: &'static [Durability],
    /// What all peers have in common, for the head of the output: a word and what it says.
    pub head: Vec<(&'static str, String)>,
}

/// A load as the driver sees it; peers know it by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    pub name: String,
    /// Loads that start from the same data name it alike.
    pub data: String,
    pub is_quick: bool,
    /// At which to run it: one that only reads is the same at both.
    pub durabilities: &'static [Durability],
    /// What one call is, and over what, for the head of its table.
    pub about: String,
    /// Peers that take no part, since one call would take minutes, or they have nothing like it.
    pub without: &'static [&'static str],
}

/// Both durabilities.
pub const BOTH: &[Durability] = &[Durability::Durable, Durability::Relaxed];
/// The default alone.
pub const DURABLE: &[Durability] = &[Durability::Durable];
