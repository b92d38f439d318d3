//! The work nobody asks for, in slices small enough that no caller notices: expired rows, old outcomes, the change log, and
//! while nobody writes, the order of the full-text index.
//!
//! Always true: a slice is a write like any other, inside a group, undone as a whole when it fails.

use larder_protocol::Timestamp;
use rusqlite::Connection;

use super::context::{Outcome, WriteContext};
use super::job::Job;
use super::{Store, StoreSettings, changes, idempotency};
use crate::error::{Error, Result};
use crate::sqlite::interrupt::Scope;

/// Rows of each kind that one slice removes: about a millisecond's work.
const ROWS_PER_SLICE: usize = 500;
/// Free pages that one slice gives back to the file system.
const PAGES_PER_SLICE: u32 = 64;

/// One slice of maintenance.
pub(super) struct Slice {
    idempotency_kept: std::time::Duration,
    change_log_kept: std::time::Duration,
    change_log_writes_max: u64,
    /// It does what belongs to a round beside the store's own sweep.
    is_round: bool,
    /// No caller has written since the round before.
    is_at_rest: bool,
    /// What it did, or why nothing is done.
    swept: Result<Swept>,
    /// Told how it ended, once it is committed.
    then: Then,
}

/// Told how a slice ended.
pub(super) type Then = Box<dyn FnOnce(Result<Swept>) + Send>;

/// What a slice did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Swept {
    /// There was nothing to do.
    Nothing,
    /// All there was to do now; there may be more in a while.
    All,
    /// As much as one slice may do, so that there may be more at once.
    Some,
}

impl Slice {
    /// Returns a slice of everything. Whoever wants another one asks for it in `then`, so that those who wait go first.
    pub(super) fn round(settings: &StoreSettings, is_at_rest: bool, then: Then) -> Self {
        Self { is_round: true, is_at_rest, ..Self::sweep(settings, then) }
    }

    /// Returns a slice of the store's own sweep alone.
    pub(super) fn sweep(settings: &StoreSettings, then: Then) -> Self {
        Self {
            is_round: false,
            is_at_rest: false,
            idempotency_kept: settings.idempotency_kept,
            change_log_kept: settings.change_log_kept,
            change_log_writes_max: settings.change_log_writes_max,
            swept: Ok(Swept::Nothing),
            then,
        }
    }
}

fn before(now: Timestamp, kept: std::time::Duration) -> Timestamp {
    Timestamp(now.0.saturating_sub(i64::try_from(kept.as_millis()).unwrap_or(i64::MAX)))
}

impl<S: Store> Job<S> for Slice {
    fn name(&self) -> &'static str {
        "maintenance"
    }

    fn size_bytes(&self) -> usize {
        0
    }

    fn makes_room(&self) -> bool {
        true
    }

    fn start(&self, _: &Connection) -> bool {
        true
    }

    fn is_past_deadline(&self) -> bool {
        false
    }

    fn scope(&self) -> Option<Scope> {
        None
    }

    fn run(&mut self, context: &mut WriteContext<'_, S>) -> Outcome<()> {
        let (connection, now) = (context.connection, context.now);
        self.swept = Ok(match S::sweep(context, ROWS_PER_SLICE)? {
            0 => Swept::Nothing,
            ROWS_PER_SLICE.. => Swept::Some,
            _ => Swept::All,
        });
        if !self.is_round {
            return Ok(());
        }
        context.sweep_leases(ROWS_PER_SLICE)?;
        idempotency::expire(connection, before(now, self.idempotency_kept), ROWS_PER_SLICE)?;
        let log_before = before(now, self.change_log_kept);
        let pruned = changes::prune(connection, log_before, self.change_log_writes_max, ROWS_PER_SLICE)?;
        free_pages(connection)?;
        let mut is_full = matches!(self.swept, Ok(Swept::Some)) || pruned >= ROWS_PER_SLICE;
        if self.is_at_rest && !is_full {
            // What it saves a search must not be paid by whoever writes.
            is_full = S::text_index(context.settings).map_or(Ok(false), |index| index.merge(connection))?;
        }
        if is_full {
            self.swept = Ok(Swept::Some);
        }
        Ok(())
    }

    fn finish(&self) {}

    fn fail(&mut self, error: Error) {
        tracing::warn!(store = %S::NAME, %error, "a slice of maintenance failed; the next one tries again");
        self.swept = Err(error);
    }

    fn is_request(&self) -> bool {
        false
    }

    fn settle(self: Box<Self>, committed: Result<()>) {
        (self.then)(committed.and(self.swept));
    }
}

/// Gives a few free pages back, if there are enough to matter.
fn free_pages(connection: &Connection) -> rusqlite::Result<()> {
    let free: u32 = connection.prepare_cached("PRAGMA freelist_count")?.query_row([], |row| row.get(0))?;
    if free < PAGES_PER_SLICE {
        return Ok(());
    }
    // One step frees one page; the pragma takes no parameter, and the number is a constant.
    let mut statement = connection.prepare_cached("PRAGMA incremental_vacuum(64)")?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}
