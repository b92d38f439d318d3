//! Failpoints: places in a store's work where a test or an example makes it panic or fail.
//!
//! Start at [`Failpoint`], the places. The feature `failpoints` compiles them in; without it a check is nothing at all.
//!
//! Always true: nothing fails unless it was told to, and only as often as it was told to.

use larder_protocol::StoreName;

/// A place in a store's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Failpoint {
    /// The store's file is about to be opened, at its first use or at a restart.
    Start,
    /// A group's transaction is about to begin.
    BeforeTransaction,
    /// A write's handler is about to run.
    Handler,
    /// COMMIT is about to run.
    Commit,
    /// COMMIT has run, and nobody has been told. Only a panic is possible here.
    AfterCommit,
    /// A read runs on its caller's thread.
    ReadInPlace,
    /// A read runs on a reader thread.
    ReadOnThread,
    /// A slice of maintenance is about to run.
    Maintenance,
    /// A checkpoint in the background is about to run.
    Checkpoint,
    /// The file is about to be written anew.
    Compact,
}

/// What happens at a failpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailpointAction {
    /// A panic.
    Panic,
    /// An I/O error, as SQLite would report it.
    Fail,
    /// A sync that failed, as SQLite would report it.
    FailToSync,
}

#[cfg(any(test, feature = "failpoints"))]
pub use armed::Failpoints;
#[cfg(not(any(test, feature = "failpoints")))]
pub use none::Failpoints;

#[cfg(any(test, feature = "failpoints"))]
mod armed {
    use std::collections::HashMap;
    use std::sync::{Mutex, PoisonError};

    use rusqlite::ffi;

    use super::{Failpoint, FailpointAction, StoreName};

    /// What each store was told to do where, and how often still.
    #[derive(Debug, Default)]
    pub struct Failpoints(Mutex<HashMap<(StoreName, Failpoint), (FailpointAction, u64)>>);

    impl Failpoints {
        /// Lets the next `times` passes of `store` at `point` end in `action`.
        pub fn set(&self, store: StoreName, point: Failpoint, action: FailpointAction, times: u64) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((store, point), (action, times));
        }

        /// Passes `point`, or does what was asked for there.
        pub(crate) fn check(&self, store: StoreName, point: Failpoint) -> rusqlite::Result<()> {
            match self.take(store, point) {
                None => Ok(()),
                Some(FailpointAction::Panic) => panic!("failpoint {point:?} of the {store} store"),
                Some(FailpointAction::Fail) => Err(failure(store, point, ffi::SQLITE_IOERR_READ)),
                Some(FailpointAction::FailToSync) => Err(failure(store, point, ffi::SQLITE_IOERR_FSYNC)),
            }
        }

        fn take(&self, store: StoreName, point: Failpoint) -> Option<FailpointAction> {
            let mut points = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let (action, times) = points.get_mut(&(store, point))?;
            *times = times.checked_sub(1)?;
            Some(*action)
        }
    }

    fn failure(store: StoreName, point: Failpoint, code: i32) -> rusqlite::Error {
        let text = format!("failpoint {point:?} of the {store} store");
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(text))
    }
}

#[cfg(not(any(test, feature = "failpoints")))]
mod none {
    use super::{Failpoint, StoreName};

    /// No failpoint is compiled in.
    #[derive(Debug, Default)]
    pub struct Failpoints;

    impl Failpoints {
        #[inline]
        #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "the shape of the one that is compiled in")]
        pub(crate) fn check(&self, _: StoreName, _: Failpoint) -> rusqlite::Result<()> {
            Ok(())
        }
    }
}
