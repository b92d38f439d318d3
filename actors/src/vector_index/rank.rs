//! A score as something that has an order.

use std::cmp::Ordering;

/// A score, which is never NaN; higher is better.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rank(pub(super) f32);

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Rank {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Rank {}
