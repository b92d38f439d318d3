//! What a store tells its subscribers: which ids a commit touched, in order.

use serde::{Deserialize, Serialize};

use crate::names::Sequence;
use crate::time::Timestamp;

/// What a subscriber hears.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Notice {
    /// The next commit, in order.
    Commit(Commit),
    /// The subscriber is behind the kept log: commits after its position are gone. It must read the store anew; the
    /// notices go on with the oldest commit that is kept.
    Lagged {
        /// The first write that the log still holds.
        oldest: Sequence,
    },
}

/// One committed group of writes, by this process or another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The sequence of the group's last write. Subscribing after it continues behind this commit.
    pub sequence: Sequence,
    /// When it was committed.
    pub committed: Timestamp,
    /// What it touched, in order.
    pub changes: Vec<Change>,
}

/// A run of like changes inside one commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What was done, in the store's own words: `put`, `delete`, `drop`.
    pub kind: String,
    /// Where: a collection, a session.
    pub scope: String,
    /// What was touched. Empty: everything in `scope`.
    pub ids: Vec<String>,
}
