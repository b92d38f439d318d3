//! What a store brings to the attacks: operations that derive from (seed, id), and what they must have left.
//!
//! A new store is one file with a [`Plan`], and one line in [`STORES`] and [`plan`]. The torture kills it then (here, and in
//! `tests/it/crash.rs`), and `tests/faults` cuts its power and fails its disk.
//!
//! Always true: what an id does depends on seed and id alone; no plan trusts the store under attack for what should be in
//! it, which comes from the [`History`] of what callers were told; each store counts its ids by itself, from 0.

mod changes;
mod chat;
mod documents;
mod embed_cache;
mod graph;
mod history;
mod kv;
mod random;
mod vectors;

use std::collections::BTreeSet;

use futures::future::BoxFuture;
use larder::{Class, Error, Larder, Result, Written};

use chat::ChatPlan;
use documents::DocumentsPlan;
use embed_cache::CachePlan;
use graph::GraphPlan;
use kv::KvPlan;
use vectors::VectorsPlan;

pub(crate) use history::{Fate, History, Trial};
pub(crate) use random::Random;

/// The stores that have a plan.
pub(crate) const STORES: [&str; 6] = ["kv", "documents", "chat", "vectors", "embed_cache", "graph"];

/// How far back the id lies whose leavings a later one changes: the near one is often still under way where many callers
/// run, the far one rarely. Multiples of ten and four more, so that ids that end in 4 reach those that end in 0.
const NEAR: u64 = 24;
const FAR: u64 = 104;

/// What a caller was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Acknowledged,
    /// The class and whether it was written, as a log prints them.
    Failed(String, Written),
    /// What had to be read first could not be, so that nothing was sent.
    Unread(String),
    /// The answer contradicts itself, whatever is in the store.
    Wrong(String),
}

impl Outcome {
    fn of<T>(answer: Result<T>) -> Self {
        match answer {
            Ok(_) => Self::Acknowledged,
            Err(error) => Self::Failed(class_word(error.class()), error.written()),
        }
    }

    /// The outcome of a write that found nothing to change.
    fn not_found() -> Self {
        Self::Failed(class_word(Class::NotFound), Written::NotApplied)
    }

    fn unread(error: &Error) -> Self {
        Self::Unread(error.to_string())
    }
}

/// A run that lies: the controls that a verification must catch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// It acknowledges before it sends.
    AckBeforeCommit,
    /// It sends only the first half of a batch.
    SkipBatchHalf,
}

/// What a store shows of the ids that a history knows.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// Ids whose change is there.
    pub(crate) found: BTreeSet<u64>,
    /// Ids that leave nothing to know them by, or whose traces a later id may have removed. Neither here nor in `found`: it
    /// was not applied.
    pub(crate) untold: BTreeSet<u64>,
    /// What no history allows: contents that nobody wrote, batches in part, sums that do not come out.
    pub(crate) violations: Vec<String>,
}

/// One store's part.
pub(crate) trait Plan: Send + Sync {
    /// Returns the operation of `id` in a few words.
    fn describe(&self, seed: u64, id: u64) -> String;

    /// Returns whether sending the operation of `id` again does what sending it once does.
    fn is_repeatable(&self, seed: u64, id: u64) -> bool;

    /// Returns whether the operation of `id` succeeds whatever else goes on, as long as nothing breaks. An early
    /// acknowledgement is then only wrong when the process dies before the commit.
    fn is_sure(&self, seed: u64, id: u64) -> bool;

    /// Sends the operation of `id` and waits for the answer.
    fn send<'a>(&'a self, larder: &'a Larder, seed: u64, id: u64, lie: Option<Lie>) -> BoxFuture<'a, Outcome>;

    /// Reads everything, and says what it shows of the history's ids.
    fn inspect<'a>(&'a self, larder: &'a Larder, history: &'a History) -> BoxFuture<'a, Result<Shown>>;

    /// Deletes one acknowledged row behind the store's back; answers which.
    fn lose_last(&self, connection: &rusqlite::Connection, history: &History) -> Result<String, String>;

    /// Adds a row that no id accounts for.
    fn add_row<'a>(&'a self, larder: &'a Larder) -> BoxFuture<'a, Result<()>>;
}

/// Returns the plan of a store of [`STORES`].
pub(crate) fn plan(store: &str) -> Result<Box<dyn Plan>, String> {
    match store {
        "kv" => Ok(Box::new(KvPlan)),
        "documents" => Ok(Box::new(DocumentsPlan)),
        "chat" => Ok(Box::new(ChatPlan)),
        "vectors" => Ok(Box::new(VectorsPlan)),
        "embed_cache" => Ok(Box::new(CachePlan)),
        "graph" => Ok(Box::new(GraphPlan)),
        other => Err(format!("no store {other:?}; there are: {}", STORES.join(" "))),
    }
}

/// Returns which of `store_count` stores an id of the whole run goes to, and its id there.
pub(crate) fn share(id: u64, store_count: usize) -> (usize, u64) {
    let count = store_count.max(1) as u64;
    (usize::try_from(id % count).unwrap_or(0), id / count)
}

/// Returns how a log names a class.
fn class_word(class: Class) -> String {
    // The class has a serde name for exactly this: `invalid_input`.
    serde_json::to_value(class).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or("other".to_owned())
}

/// A write that every state refuses must not be acknowledged; and nothing of it may ever be there, whenever it runs.
fn must_fail(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Acknowledged => Outcome::Wrong("a write that had to be refused was acknowledged".to_owned()),
        Outcome::Failed(class, Written::Unknown) => Outcome::Failed(class, Written::NotApplied),
        other => other,
    }
}
