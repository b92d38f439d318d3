//! What a store tells its subscribers: which ids a commit touched, in order.

use serde::{Deserialize, Serialize};

use crate::names::Sequence;
use crate::time::Timestamp;

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
