//! The one error vocabulary: what failed, whether it was written, and what a caller can do about it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::names::StoreName;

/// The result of a request.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whether a request's change is in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Written {
    /// The change is committed, though the caller gets an error.
    Applied,
    /// Nothing of the change is in the store, nor will it be.
    NotApplied,
    /// It may or may not be there; repeat under the same idempotency key, or read to find out.
    Unknown,
}

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Class {
    /// The request is wrong; sending it again fails again.
    InvalidInput,
    /// What it names does not exist.
    NotFound,
    /// The store holds something else than the request requires; read again and decide.
    Conflict,
    /// Too much is waiting; try again after the hint.
    Overloaded,
    /// The deadline passed.
    Deadline,
    /// The disk is full; reads go on, and the store recovers by itself when there is room.
    DiskFull,
    /// The store has reached a limit that a setting names; remove something, or raise it.
    Full,
    /// The function that computes a value to be cached failed.
    Computation,
    /// The store's file is damaged and set aside.
    Corrupt,
    /// The store is restarting; try again shortly.
    Restarting,
    /// The runtime is closing.
    ShuttingDown,
    /// The store failed for good in this process.
    StoreFailed,
    /// A handler panicked: a defect of larder's. The change is undone, and the store serves on.
    Internal,
    /// The folder or file cannot be used as it is (held, foreign, newer, read-only, unsupported).
    Refused,
    /// The operating system or SQLite failed in a way the caller cannot influence.
    Io,
}

/// Why a request failed. Holds names and numbers, never stored values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Error {
    /// A part of the request cannot be used.
    #[error("invalid {what}: {reason}")]
    Invalid {
        /// Which part.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A part of the request is over its limit.
    #[error("{what} is too large: {bytes} bytes, at most {bytes_max} are allowed")]
    TooLarge {
        /// Which part.
        what: String,
        /// How large it is.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// What a window of messages must hold does not fit its token limit.
    #[error("the window is too small: {needed_tokens} tokens are needed, the limit is {limit}")]
    WindowTooSmall {
        /// The smallest limit under which there would be a window now.
        needed_tokens: u64,
        /// The limit that was asked for.
        limit: u64,
    },
    /// What the request names does not exist.
    #[error("{what} not found")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// The store holds something else than the request requires.
    #[error("conflict on {what}: expected {expected}, found {found}")]
    Conflict {
        /// What the conflict is about.
        what: String,
        /// What the request required.
        expected: String,
        /// What the store holds.
        found: String,
    },
    /// Too much is waiting for the store.
    #[error("{store} store is overloaded: {reason}")]
    Overloaded {
        /// Which store.
        store: StoreName,
        /// What is exhausted.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// The request's deadline passed.
    #[error("deadline passed while {doing} in the {store} store")]
    DeadlineExceeded {
        /// Which store.
        store: StoreName,
        /// What was going on.
        doing: String,
        /// Whether the change is in the store.
        written: Written,
    },
    /// The disk is full; the store serves reads until there is room again.
    #[error("disk is full: the {store} store is read-only until there is room")]
    DiskFull {
        /// Which store.
        store: StoreName,
        /// Whether the change is in the store.
        written: Written,
    },
    /// The store has reached a limit that a setting names, and is told to evict nothing.
    #[error("{store} store is full: {reason}")]
    Full {
        /// Which store.
        store: StoreName,
        /// Which limit, and how much is stored.
        reason: String,
    },
    /// The caller's own function, which computes a value to be cached, failed; nothing is cached.
    #[error("computing a value of {producer} failed")]
    Computation {
        /// The model or function.
        producer: String,
        /// The cause, as text.
        cause: String,
    },
    /// The store's content is damaged.
    #[error("{store} store is damaged: {detail}")]
    Corrupt {
        /// Which store.
        store: StoreName,
        /// What was found.
        detail: String,
        /// Whether the change is in the store.
        written: Written,
    },
    /// The store is restarting.
    #[error("{store} store is restarting")]
    Restarting {
        /// Which store.
        store: StoreName,
        /// Whether the change is in the store.
        written: Written,
        /// When to try again.
        retry_after: Duration,
    },
    /// The runtime is closing or closed.
    #[error("{store} store is shutting down")]
    ShuttingDown {
        /// Which store.
        store: StoreName,
        /// Whether the change is in the store.
        written: Written,
    },
    /// The store reached its restart limit, or cannot be used in this process any more.
    #[error("{store} store has failed: {reason}")]
    StoreFailed {
        /// Which store.
        store: StoreName,
        /// Why.
        reason: String,
        /// Whether the change is in the store.
        written: Written,
    },
    /// The request's handler panicked; its change is undone.
    #[error("{store} store panicked while handling {message}")]
    Panicked {
        /// Which store.
        store: StoreName,
        /// The message's name.
        message: String,
    },
    /// The folder or file cannot be used as it is.
    #[error("{what} refused: {reason}")]
    Refused {
        /// Which file or folder.
        what: String,
        /// Why.
        reason: String,
    },
    /// What was asked for is committed and will be done in every store, but one of them cannot follow now.
    #[error("{what} is committed and not yet in every store: the {store} store cannot follow")]
    Unfinished {
        /// What.
        what: String,
        /// Which store cannot follow.
        store: StoreName,
        /// What its failure means.
        class: Class,
        /// Why, as text.
        cause: String,
    },
    /// The operating system or SQLite failed.
    #[error("{doing} failed in the {store} store")]
    Io {
        /// Which store.
        store: StoreName,
        /// What was being done.
        doing: String,
        /// The cause, as text.
        cause: String,
        /// Whether the change is in the store.
        written: Written,
    },
}

impl Error {
    /// Returns the error for an unusable part of a request.
    #[must_use]
    pub fn invalid(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), reason: reason.into() }
    }

    /// Returns what a caller can do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Invalid { .. } | Self::TooLarge { .. } | Self::WindowTooSmall { .. } => Class::InvalidInput,
            Self::NotFound { .. } => Class::NotFound,
            Self::Conflict { .. } => Class::Conflict,
            Self::Overloaded { .. } => Class::Overloaded,
            Self::DeadlineExceeded { .. } => Class::Deadline,
            Self::DiskFull { .. } => Class::DiskFull,
            Self::Full { .. } => Class::Full,
            Self::Computation { .. } => Class::Computation,
            Self::Corrupt { .. } => Class::Corrupt,
            Self::Restarting { .. } => Class::Restarting,
            Self::ShuttingDown { .. } => Class::ShuttingDown,
            Self::StoreFailed { .. } => Class::StoreFailed,
            Self::Panicked { .. } => Class::Internal,
            Self::Refused { .. } => Class::Refused,
            Self::Unfinished { class, .. } => *class,
            Self::Io { .. } => Class::Io,
        }
    }

    /// Returns whether the request's change is in the store.
    #[must_use]
    pub fn written(&self) -> Written {
        match self {
            Self::DeadlineExceeded { written, .. }
            | Self::Corrupt { written, .. }
            | Self::DiskFull { written, .. }
            | Self::Restarting { written, .. }
            | Self::ShuttingDown { written, .. }
            | Self::StoreFailed { written, .. }
            | Self::Io { written, .. } => *written,
            Self::Unfinished { .. } => Written::Applied,
            Self::Invalid { .. }
            | Self::TooLarge { .. }
            | Self::WindowTooSmall { .. }
            | Self::NotFound { .. }
            | Self::Conflict { .. }
            | Self::Overloaded { .. }
            | Self::Full { .. }
            | Self::Computation { .. }
            | Self::Panicked { .. }
            | Self::Refused { .. } => Written::NotApplied,
        }
    }

    /// Returns when trying again makes sense, where it does.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { retry_after, .. } | Self::Restarting { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }
}
