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
    /// It did all that one slice may do, so that there may be more.
    is_full: bool,
    /// Asks for the next slice.
    again: Box<dyn Fn() + Send>,
}

impl Slice {
    /// Returns a slice of everything. `again` asks for one more: it is called when this one left work behind, so that whoever
    /// waits goes first.
    pub(super) fn round(settings: &StoreSettings, is_at_rest: bool, again: impl Fn() + Send + 'static) -> Self {
        Self { is_round: true, is_at_rest, ..Self::sweep(settings, again) }
    }

    /// Returns a slice of the store's own sweep alone.
    pub(super) fn sweep(settings: &StoreSettings, again: impl Fn() + Send + 'static) -> Self {
        Self {
            is_round: false,
            is_at_rest: false,
            idempotency_kept: settings.idempotency_kept,
            change_log_kept: settings.change_log_kept,
            change_log_writes_max: settings.change_log_writes_max,
            is_full: false,
            again: Box::new(again),
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
        self.is_full = S::sweep(context, ROWS_PER_SLICE)? >= ROWS_PER_SLICE;
        if !self.is_round {
            return Ok(());
        }
        context.sweep_leases(ROWS_PER_SLICE)?;
        idempotency::expire(connection, before(now, self.idempotency_kept), ROWS_PER_SLICE)?;
        let log_before = before(now, self.change_log_kept);
        let pruned = changes::prune(connection, log_before, self.change_log_writes_max, ROWS_PER_SLICE)?;
        self.is_full |= pruned >= ROWS_PER_SLICE;
        free_pages(connection)?;
        if self.is_at_rest && !self.is_full {
            // What it saves a search must not be paid by whoever writes.
            self.is_full = S::text_index(context.settings).map_or(Ok(false), |index| index.merge(connection))?;
        }
        Ok(())
    }

    fn finish(&self) {}

    fn fail(&mut self, error: Error) {
        self.is_full = false;
        tracing::warn!(store = %S::NAME, %error, "a slice of maintenance failed; the next one tries again");
    }

    fn is_request(&self) -> bool {
        false
    }

    fn settle(self: Box<Self>, committed: Result<()>) {
        if self.is_full && committed.is_ok() {
            (self.again)();
        }
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
