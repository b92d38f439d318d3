//! Percentiles of one turn and medians over rounds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Latencies of one turn's calls, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
}

impl Percentiles {
    /// `None` when no call was timed.
    #[must_use]
    pub fn of(mut calls: Vec<Duration>) -> Option<Self> {
        calls.sort_unstable();
        let at = |share: f64| {
            let rank = (share * calls.len() as f64).ceil() as usize;
            calls.get(rank.saturating_sub(1)).map(|call| call.as_nanos() as f64 / 1e3)
        };
        Some(Self { p50_us: at(0.50)?, p99_us: at(0.99)?, p999_us: at(0.999)? })
    }
}

/// The middle value; the mean of the two middle ones when there is an even number. `None` when there is none.
#[must_use]
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 9.0]), Some(3.0));
    }

    #[test]
    fn percentiles_are_ranks() {
        let calls = (1..=1_000).rev().map(Duration::from_micros).collect();
        let percentiles = Percentiles::of(calls).unwrap();
        assert_eq!((percentiles.p50_us, percentiles.p99_us, percentiles.p999_us), (500.0, 990.0, 999.0));
        assert_eq!(Percentiles::of(vec![]), None);
    }
}
