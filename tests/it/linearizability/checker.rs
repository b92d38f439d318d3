//! Decides whether a recorded history of one key could have come from a key that does one thing at a time.
//!
//! Start at [`is_linearizable`]. The search is Wing and Gong's with Lowe's memory of what was tried ("Testing for
//! Linearizability", 2017). The crates that check recorded histories know no operation whose outcome is unknown, or keep no
//! memory and take exponential time over a few of those.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

/// What a caller asks of a key. Every put value is its caller's alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ask {
    Read,
    Put { value: i64 },
    PutIfAbsent { value: i64 },
    Replace { expected: u64, value: i64 },
    Increment,
    Delete,
}

/// What it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The value and its version, if the key is there.
    Found(Option<(i64, u64)>),
    /// Written, under this version.
    Written(u64),
    /// Not written, since the key holds something else, or something at all.
    Conflict,
    /// Counted up to this.
    Counted(i64),
    /// Whether there was something to delete.
    Deleted(bool),
}

/// One operation on the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) ask: Ask,
    /// `None`: it may have happened, until `ended`, or not.
    pub(crate) answer: Option<Answer>,
    pub(crate) began: u64,
    /// From when on it changes nothing.
    pub(crate) ended: u64,
}

/// What the key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Row {
    value: i64,
    /// `None`: nobody was told yet.
    version: Option<u64>,
}

impl Ask {
    /// Does it alone on `row`; `None` where the answer cannot be.
    fn alone(self, row: Option<Row>, answer: Option<Answer>) -> Option<Option<Row>> {
        let write = |value| match answer {
            // Versions grow.
            Some(Answer::Written(version)) if row.and_then(|row| row.version).is_none_or(|last| last < version) => {
                Some(Some(Row { value, version: Some(version) }))
            }
            None => Some(Some(Row { value, version: None })),
            Some(_) => None,
        };
        match (self, answer, row) {
            (Self::Read, Some(Answer::Found(None)), None) => Some(None),
            (Self::Read, Some(Answer::Found(Some((value, version)))), Some(row)) => {
                let is_it = row.value == value && row.version.is_none_or(|known| known == version);
                is_it.then_some(Some(Row { value, version: Some(version) }))
            }
            (Self::Put { value }, ..) => write(value),
            (Self::PutIfAbsent { .. }, Some(Answer::Conflict), Some(_)) => Some(row),
            (Self::PutIfAbsent { value }, _, None) => write(value),
            (Self::Replace { expected, .. }, Some(Answer::Conflict), row) => {
                row.is_none_or(|row| row.version != Some(expected)).then_some(row)
            }
            (Self::Replace { expected, value }, _, Some(row)) => {
                row.version.is_none_or(|known| known == expected).then(|| write(value))?
            }
            (Self::Increment, ..) => {
                let value = row.map_or(0, |row| row.value) + 1;
                let is_it = answer.is_none_or(|answer| answer == Answer::Counted(value));
                is_it.then_some(Some(Row { value, version: None }))
            }
            (Self::Delete, ..) => answer.is_none_or(|answer| answer == Answer::Deleted(row.is_some())).then_some(None),
            _ => None,
        }
    }
}

/// Returns whether the calls, in whatever order, can be put into one in which each does its work at one moment between its
/// beginning and its end, and all answers are right. The key is absent at first.
pub(crate) fn is_linearizable(calls: &[Call]) -> bool {
    let mut calls = calls.to_vec();
    // What ended first is tried first; what nobody was told of, last.
    calls.sort_by_key(|call| (call.answer.is_none(), call.ended));
    let mut search = Search { calls: &calls, done: vec![0; calls.len().div_ceil(64)], tried: HashSet::new() };
    search.goes_on(None, 0)
}

/// Some seconds' work and 1 GB.
const TRIED_MAX: usize = 5_000_000;

struct Search<'a> {
    calls: &'a [Call],
    /// A bit for each call.
    done: Vec<u64>,
    /// Which calls were done, and what the key held then.
    tried: HashSet<(Vec<u64>, Option<Row>)>,
}

impl Search<'_> {
    fn is_done(&self, at: usize) -> bool {
        self.done[at / 64] >> (at % 64) & 1 == 1
    }

    /// Does one more call after those that are done. `latest` is when the last of those to begin began.
    fn goes_on(&mut self, row: Option<Row>, latest: u64) -> bool {
        let open = |at: &usize| !self.is_done(*at) && self.calls[*at].answer.is_some();
        // Answered calls stand in the order of their ends.
        let Some(first_end) = (0..self.calls.len()).find(open).map(|at| self.calls[at].ended) else { return true };
        if !self.tried.insert((self.done.clone(), row)) {
            return false;
        }
        assert!(self.tried.len() < TRIED_MAX, "too many unknown outcomes to decide: {:#?}", self.calls);
        for at in 0..self.calls.len() {
            let call = self.calls[at];
            // Not before something that had ended when it began, and not after its own end.
            if self.is_done(at) || call.began > first_end || call.ended < latest {
                continue;
            }
            let Some(next) = call.ask.alone(row, call.answer) else { continue };
            self.done[at / 64] ^= 1 << (at % 64);
            if self.goes_on(next, latest.max(call.began)) {
                return true;
            }
            self.done[at / 64] ^= 1 << (at % 64);
        }
        false
    }
}

/// Controls and the cases that a checker gets wrong.
mod tests {
    use super::*;

    fn call(began: u64, ended: u64, ask: Ask, answer: Answer) -> Call {
        Call { ask, answer: Some(answer), began, ended }
    }

    fn lost(began: u64, ended: u64, ask: Ask) -> Call {
        Call { ask, answer: None, began, ended }
    }

    const PUT_1: Ask = Ask::Put { value: 1 };
    const PUT_2: Ask = Ask::Put { value: 2 };

    #[test]
    fn overlapping_writes_may_go_either_way_but_not_both() {
        let puts = [call(0, 10, PUT_1, Answer::Written(2)), call(1, 9, PUT_2, Answer::Written(1))];
        let read = |at, found| call(at, at + 1, Ask::Read, Answer::Found(Some(found)));
        assert!(is_linearizable(&[&puts[..], &[read(11, (1, 2))]].concat()));
        assert!(!is_linearizable(&[&puts[..], &[read(11, (2, 1))]].concat()), "versions tell which came last");
        assert!(is_linearizable(&[&puts[..], &[read(3, (2, 1)), read(11, (1, 2))]].concat()));
        assert!(!is_linearizable(&[&puts[..], &[read(3, (1, 2)), read(11, (2, 1))]].concat()));
    }

    #[test]
    fn control_stale_read_is_caught() {
        let puts = [call(0, 1, PUT_1, Answer::Written(1)), call(2, 3, PUT_2, Answer::Written(2))];
        assert!(!is_linearizable(&[&puts[..], &[call(4, 5, Ask::Read, Answer::Found(Some((1, 1))))]].concat()));
        assert!(!is_linearizable(&[&puts[..], &[call(4, 5, Ask::Read, Answer::Found(None))]].concat()));
    }

    #[test]
    fn control_lost_update_is_caught() {
        let counts = [call(0, 5, Ask::Increment, Answer::Counted(1)), call(1, 6, Ask::Increment, Answer::Counted(1))];
        assert!(!is_linearizable(&counts));
        let replace = |value| Ask::Replace { expected: 1, value };
        let replaces = [
            call(0, 1, PUT_1, Answer::Written(1)),
            call(2, 9, replace(5), Answer::Written(2)),
            call(3, 8, replace(6), Answer::Written(3)),
        ];
        assert!(!is_linearizable(&replaces));
    }

    #[test]
    fn unknown_write_happens_once_or_never_and_not_after_its_end() {
        let read = |at, found| call(at, at + 1, Ask::Read, Answer::Found(found));
        assert!(is_linearizable(&[lost(0, 100, PUT_1), read(2, None), read(4, Some((1, 1)))]));
        assert!(is_linearizable(&[lost(0, 100, PUT_1), read(2, None), read(4, None)]));
        assert!(!is_linearizable(&[lost(0, 100, PUT_1), read(2, Some((1, 1))), read(4, None)]));
        assert!(!is_linearizable(&[lost(0, 1, PUT_1), read(2, None), read(4, Some((1, 1)))]), "it ended before");
        let count = |at, value| call(at, at + 1, Ask::Increment, Answer::Counted(value));
        assert!(is_linearizable(&[lost(0, 100, Ask::Increment), count(2, 1), count(4, 3)]));
        assert!(!is_linearizable(&[lost(0, 100, Ask::Increment), count(2, 1), count(4, 4)]), "it happens once");
    }
}
