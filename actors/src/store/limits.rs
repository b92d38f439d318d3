//! The bounds that every store's lists and batches keep.

use larder_protocol::Error as Kind;
use larder_protocol::limits::{BATCH_ITEMS_MAX, PAGE_ROWS_MAX};

use super::Outcome;

/// A page ends once its rows are this large, so that a page's memory is bounded whatever they are.
pub(crate) const PAGE_BYTES_MAX: usize = 4 << 20;

/// Refuses a page of no rows, or of too many.
pub(crate) fn check_limit(limit: usize) -> Outcome<()> {
    if (1..=PAGE_ROWS_MAX).contains(&limit) {
        return Ok(());
    }
    Err(Kind::invalid("limit", format!("{limit} is not within 1 to {PAGE_ROWS_MAX}")).into())
}

/// Refuses a batch of too many items.
pub(crate) fn check_count(count: usize) -> Outcome<()> {
    if count <= BATCH_ITEMS_MAX {
        return Ok(());
    }
    Err(Kind::invalid("batch", format!("{count} items, at most {BATCH_ITEMS_MAX} are allowed")).into())
}
