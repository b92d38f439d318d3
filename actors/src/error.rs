//! A protocol error together with the cause that this process saw.

use std::fmt;
use std::sync::Arc;

use larder_protocol::{Class, Error as Kind, Written};

use crate::sqlite::fault::Fault;

/// The result of a request.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request failed: the [`kind`](Self::kind) is plain data, the cause is in `source()`.
#[derive(Debug, Clone)]
pub struct Error {
    kind: Box<Kind>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Returns the error with the cause this process saw.
    #[must_use]
    pub fn caused_by(kind: Kind, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self { kind: Box::new(kind), source: Some(Arc::new(source)) }
    }

    /// Returns what failed, as plain data to match on.
    #[must_use]
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Returns what a caller can do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        self.kind.class()
    }

    /// Returns whether the request's change is in the store.
    #[must_use]
    pub fn written(&self) -> Written {
        self.kind.written()
    }

    /// Returns when trying again makes sense, where it does.
    #[must_use]
    pub fn retry_after(&self) -> Option<std::time::Duration> {
        self.kind.retry_after()
    }
}

impl Error {
    /// Returns whether it says that a store's file is damaged, and not only a value in it.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        let cause = self.source.as_ref().and_then(|source| source.downcast_ref::<rusqlite::Error>());
        cause.is_some_and(|cause| Fault::of(cause) == Fault::Corrupt)
    }
}

impl From<Kind> for Error {
    fn from(kind: Kind) -> Self {
        Self { kind: Box::new(kind), source: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as _)
    }
}
