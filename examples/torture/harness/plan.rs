//! What a store brings to the torture: operations that derive from (seed, id), and their proof from a log.
//!
//! A new store is one file with a [`Plan`], and one line in [`STORES`] and [`plan`].

use futures::future::BoxFuture;
use larder::{Class, Larder, Written};

use super::chat::ChatPlan;
use super::history::History;
use super::kv::KvPlan;
use super::random::Random;
use super::sabotage::Lie;

/// The stores that have a plan.
pub(crate) const STORES: [&str; 2] = ["kv", "chat"];

/// What a caller was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Acknowledged,
    /// The class and whether it was written, as the log prints them.
    Failed(String, Written),
    /// The answer contradicts itself, whatever is in the store.
    Wrong(String),
}

/// One store's part.
pub(crate) trait Plan: Send + Sync {
    /// Returns the operation of `id` in a few words.
    fn describe(&self, seed: u64, id: u64) -> String;

    /// Returns whether sending the operation of `id` again does what sending it once does.
    fn is_repeatable(&self, seed: u64, id: u64) -> bool;

    /// Returns whether the operation of `id` succeeds whatever else goes on, so that an early acknowledgement is only wrong
    /// when the process dies before the commit.
    fn is_sure(&self, seed: u64, id: u64) -> bool;

    /// Sends the operation of `id` and waits for the answer.
    fn send<'a>(&'a self, larder: &'a Larder, seed: u64, id: u64, lie: Option<Lie>) -> BoxFuture<'a, Outcome>;

    /// Returns what of the store's content the log contradicts.
    fn verify<'a>(&'a self, larder: &'a Larder, history: &'a History) -> BoxFuture<'a, larder::Result<Vec<String>>>;

    /// Deletes one acknowledged row behind the store's back; answers which.
    fn lose_last(&self, connection: &rusqlite::Connection, history: &History) -> Result<String, String>;

    /// Adds a row that no id accounts for.
    fn add_row<'a>(&'a self, larder: &'a Larder) -> BoxFuture<'a, larder::Result<()>>;
}

/// Returns the plan of a store of [`STORES`].
pub(crate) fn plan(store: &str) -> Result<Box<dyn Plan>, String> {
    match store {
        "kv" => Ok(Box::new(KvPlan)),
        "chat" => Ok(Box::new(ChatPlan)),
        other => Err(format!("no store {other:?}")),
    }
}

/// Returns which of the stores the operation of `id` goes to.
pub(crate) fn store_of(seed: u64, id: u64, stores: &[String]) -> usize {
    Random::of(!seed, id).index(stores.len().max(1))
}

/// Returns how the log names a class.
pub(crate) fn class_word(class: Class) -> String {
    // The class has a serde name for exactly this: `invalid_input`.
    serde_json::to_value(class).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or("other".to_owned())
}

/// Returns how the log names whether something was written.
pub(crate) fn written_word(written: Written) -> &'static str {
    match written {
        Written::Applied => "applied",
        Written::NotApplied => "not-applied",
        Written::Unknown => "unknown",
    }
}
