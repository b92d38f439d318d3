//! What a workload's callers saw, and the oracle that judges what a store then holds.
//!
//! Start at [`Witness`], which a workload calls, and [`History::judge`], which its check calls.
//!
//! Always true: a mark is placed in the same ordered log as the disk's events, after the event that justifies it, so a
//! history cut at a crash point never demands what had not been acknowledged by then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::power::Log;

/// What a caller was told about an operation: the three answers of larder's errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged, or failed with "applied": it must be there.
    Applied,
    /// Refused with "not applied": it must never be there.
    NotApplied,
    /// The caller was told that it is unknown: both are right, but it must not change afterwards.
    Unknown,
}

/// What an acknowledgement is worth when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Acknowledged means on disk.
    Durable,
    /// The newest acknowledged operations may go, never one before a kept one, never one from before a flush.
    Relaxed,
}

/// One thing a caller did or saw.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mark {
    Begun { op: u64, place: &'static str },
    Settled { op: u64, outcome: Outcome },
    FlushBegun { flush: u64 },
    Flushed { flush: u64, place: &'static str },
    BegunAnew { place: &'static str },
}

/// Takes down what callers do and see; clones write to the same log, from any thread.
#[derive(Debug, Clone)]
pub struct Witness {
    log: Arc<Log>,
}

/// A flush that has begun; see [`Witness::flush_begins`].
#[derive(Debug)]
pub struct Flush {
    place: &'static str,
    id: u64,
}

impl Witness {
    pub(crate) fn new(log: Arc<Log>) -> Self {
        Self { log }
    }

    /// Returns a witness of a run that is not recorded.
    #[must_use]
    pub fn alone() -> Self {
        Self::new(Arc::new(Log::of_marks(0)))
    }

    /// Notes that an operation on the store file `place` (`"kv.db"`) is about to be sent, and returns its id, from which
    /// its content must follow. Ids count up from 0.
    #[must_use]
    pub fn begin(&self, place: &'static str) -> u64 {
        self.begin_at(|_| place)
    }

    /// As [`Self::begin`], for a place that follows from the id.
    #[must_use]
    pub fn begin_at(&self, place_of: impl FnOnce(u64) -> &'static str) -> u64 {
        self.log.begin(place_of)
    }

    /// Notes the answer that the caller of `op` got. To be called after the answer, never before.
    pub fn settle(&self, op: u64, outcome: Outcome) {
        self.log.mark(Mark::Settled { op, outcome });
    }

    /// Notes the acknowledgement of `op`.
    pub fn applied(&self, op: u64) {
        self.settle(op, Outcome::Applied);
    }

    /// Notes that a flush of the relaxed store `place` is about to be asked for.
    #[must_use]
    pub fn flush_begins(&self, place: &'static str) -> Flush {
        Flush { place, id: self.log.begin_flush() }
    }

    /// Notes that the flush returned: what was acknowledged before it began is durable from here on.
    pub fn flushed(&self, flush: &Flush) {
        self.log.mark(Mark::Flushed { flush: flush.id, place: flush.place });
    }

    /// Notes that the store `place` may have begun anew with an empty file, as a cache does whose file is damaged: what was
    /// acknowledged before may be gone.
    pub fn begun_anew(&self, place: &'static str) {
        self.log.mark(Mark::BegunAnew { place });
    }

    /// Returns what was seen so far.
    #[must_use]
    pub fn history(&self) -> History {
        self.log.history()
    }

    /// Returns `before` and what was seen so far, for a witness that continues it.
    #[must_use]
    pub fn history_after(&self, before: &History) -> History {
        let mut history = before.clone();
        self.log.append_to(&mut history);
        history
    }
}

/// An operation, and what its caller saw of it. Times are ticks: they say what came before what.
#[derive(Debug, Clone, Copy)]
pub struct Op {
    /// Where it went.
    pub place: &'static str,
    /// When it began.
    pub begun: u64,
    /// When its caller had which answer. `None`: it waits.
    pub settled: Option<(u64, Outcome)>,
}

impl Op {
    /// Returns whether its caller was told `outcome`.
    #[must_use]
    pub fn is(&self, outcome: Outcome) -> bool {
        self.settled.is_some_and(|(_, told)| told == outcome)
    }
}

/// The operations begun up to some moment, with the answers their callers had by then.
#[derive(Debug, Clone, Default)]
pub struct History {
    ops: Vec<Op>,
    /// One tick a mark: the order in which callers saw things.
    clock: u64,
    flushes_begun: BTreeMap<u64, u64>,
    flushed: BTreeMap<&'static str, u64>,
}

impl History {
    pub(crate) fn apply(&mut self, mark: &Mark) {
        self.clock += 1;
        match *mark {
            Mark::Begun { op, place } => {
                assert_eq!(op, self.ops.len() as u64, "ids are given and logged under one lock");
                self.ops.push(Op { place, begun: self.clock, settled: None });
            }
            Mark::Settled { op, outcome } => self.ops[op as usize].settled = Some((self.clock, outcome)),
            Mark::FlushBegun { flush } => _ = self.flushes_begun.insert(flush, self.clock),
            Mark::Flushed { flush, place } => {
                let begun = self.flushes_begun.remove(&flush).expect("a flush begins before it returns");
                let flushed = self.flushed.entry(place).or_default();
                *flushed = begun.max(*flushed);
            }
            Mark::BegunAnew { place } => self.open_acknowledged(place),
        }
    }

    fn open_acknowledged(&mut self, place: &str) {
        for op in self.ops.iter_mut().filter(|op| op.place == place) {
            if let Some((_, outcome @ Outcome::Applied)) = &mut op.settled {
                *outcome = Outcome::Unknown;
            }
        }
    }

    /// Returns the number of operations begun, which is the next id.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.ops.len() as u64
    }

    /// Returns whether nothing was begun yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Returns every operation on `place` with its id.
    pub fn ops<'h>(&'h self, place: &'h str) -> impl Iterator<Item = (u64, Op)> + 'h {
        self.all().filter(move |(_, op)| op.place == place)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (u64, Op)> {
        self.ops.iter().enumerate().map(|(id, op)| (id as u64, *op))
    }

    /// Returns when the last flush of `place` began that has returned: what was settled by then is durable.
    #[must_use]
    pub fn flushed(&self, place: &str) -> u64 {
        self.flushed.get(place).copied().unwrap_or(0)
    }

    /// Judges the ids that the store file `place` shows; `untold` are those of which it shows neither that they are there
    /// nor that they are not.
    ///
    /// In `Durable` every acknowledged id must be found; in `Relaxed` the newest may be missing; no id may be found that
    /// was refused or never begun. An unknown or unanswered id may be either.
    #[must_use]
    pub fn judge(&self, place: &str, durability: Durability, found: &BTreeSet<u64>, untold: &BTreeSet<u64>) -> Verdict {
        let mut verdict = Verdict { found: found.clone(), ..Verdict::default() };
        let flushed = self.flushed(place);
        let may_be_lost = |at| durability == Durability::Relaxed && at > flushed;
        for (id, op) in self.ops(place).filter(|(id, _)| untold.contains(id)) {
            let settled = match op.settled {
                Some((at, Outcome::Applied)) if may_be_lost(at) => Outcome::Unknown,
                told => told.map_or(Outcome::Unknown, |(_, outcome)| outcome),
            };
            verdict.untold.insert(id, settled);
        }
        let mut oldest_lost = None;
        for (id, op) in self.ops(place).filter(|(id, _)| !untold.contains(id)) {
            match (op.settled, found.contains(&id)) {
                (Some((_, Outcome::NotApplied)), true) => verdict.findings.push(Finding::Phantom { op: id }),
                (Some((_, Outcome::Applied)), false) if durability == Durability::Durable => {
                    verdict.findings.push(Finding::Lost { op: id });
                }
                (Some((at, Outcome::Applied)), false) if at <= flushed => {
                    verdict.findings.push(Finding::LostAcrossFlush { op: id });
                }
                (Some((at, Outcome::Applied)), false) => {
                    verdict.newest_lost += 1;
                    oldest_lost = Some(oldest_lost.map_or((at, id), |oldest: (u64, u64)| oldest.min((at, id))));
                }
                _ => {}
            }
        }
        self.find_holes(oldest_lost, found, &mut verdict);
        let strangers = found.iter().filter(|id| self.ops.get(**id as usize).is_none_or(|op| op.place != place));
        verdict.findings.extend(strangers.map(|id| Finding::Phantom { op: *id }));
        verdict
    }

    /// A lost operation that was acknowledged before a found one was even begun is not part of the newest.
    fn find_holes(&self, oldest_lost: Option<(u64, u64)>, found: &BTreeSet<u64>, verdict: &mut Verdict) {
        let Some((acknowledged, lost)) = oldest_lost else { return };
        let later = |id: &&u64| self.ops.get(**id as usize).is_some_and(|op| op.begun > acknowledged);
        if let Some(kept) = found.iter().find(later) {
            verdict.findings.push(Finding::Hole { lost, kept: *kept });
        }
    }

    /// Takes what a restarted store shows as the answer to every operation: from here on nothing may come back or go.
    pub fn settle(&mut self, verdict: &Verdict) {
        self.clock += 1;
        for (id, op) in self.ops.iter_mut().enumerate() {
            let id = id as u64;
            let outcome = match verdict.untold.get(&id) {
                _ if verdict.found.contains(&id) => Outcome::Applied,
                Some(untold) => *untold,
                None => Outcome::NotApplied,
            };
            op.settled = Some((self.clock, outcome));
        }
    }
}

/// Something a store must never do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// An acknowledged operation is gone.
    Lost {
        /// Its id.
        op: u64,
    },
    /// An operation acknowledged before a flush that returned is gone.
    LostAcrossFlush {
        /// Its id.
        op: u64,
    },
    /// A relaxed store lost an operation and kept one that began after the first was acknowledged.
    Hole {
        /// The id that is gone.
        lost: u64,
        /// The later id that is there.
        kept: u64,
    },
    /// An operation is there that was refused, or that nobody began.
    Phantom {
        /// Its id.
        op: u64,
    },
    /// Part of a batch is there, or state derived from it disagrees.
    Torn(String),
    /// The store does not open or fails its integrity check, or an answer differs from what was written.
    Corrupt(String),
}

/// What a check found in one folder.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// What must never be. Empty when all is well.
    pub findings: Vec<Finding>,
    /// The ids that are there, of all places.
    pub found: BTreeSet<u64>,
    /// The ids of which the store shows nothing, with what is still known of them: what their callers were told, unless a
    /// relaxed store may have lost it.
    pub untold: BTreeMap<u64, Outcome>,
    /// Acknowledged operations that a relaxed store was allowed to lose.
    pub newest_lost: u64,
}

impl Verdict {
    /// Returns the verdict on a folder that could not be read.
    #[must_use]
    pub fn corrupt(why: impl Into<String>) -> Self {
        Self { findings: vec![Finding::Corrupt(why.into())], ..Self::default() }
    }

    /// Returns whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// Adds the verdict on another store of the same folder.
    pub fn merge(&mut self, other: Self) {
        self.findings.extend(other.findings);
        self.found.extend(other.found);
        self.untold.extend(other.untold);
        self.newest_lost += other.newest_lost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: BTreeSet<u64> = BTreeSet::new();

    fn history() -> (Witness, [u64; 3]) {
        let witness = Witness::alone();
        let ids = [(); 3].map(|()| {
            let op = witness.begin("kv.db");
            witness.applied(op);
            op
        });
        (witness, ids)
    }

    #[test]
    fn durable_store_may_lose_nothing() {
        let verdict = history().0.history().judge("kv.db", Durability::Durable, &BTreeSet::from([0, 1]), &NONE);
        assert_eq!(verdict.findings, [Finding::Lost { op: 2 }]);
    }

    #[test]
    fn relaxed_store_may_lose_only_the_newest() {
        let history = history().0.history();
        let newest = history.judge("kv.db", Durability::Relaxed, &BTreeSet::from([0]), &NONE);
        assert!(newest.is_clean() && newest.newest_lost == 2);
        let hole = history.judge("kv.db", Durability::Relaxed, &BTreeSet::from([0, 2]), &NONE);
        assert_eq!(hole.findings, [Finding::Hole { lost: 1, kept: 2 }]);
    }

    #[test]
    fn relaxed_store_loses_nothing_from_before_a_flush() {
        let (witness, _) = history();
        let flush = witness.flush_begins("kv.db");
        let after = witness.begin("kv.db");
        witness.applied(after);
        witness.flushed(&flush);
        let verdict = witness.history().judge("kv.db", Durability::Relaxed, &BTreeSet::from([0, 1]), &NONE);
        assert_eq!(verdict.findings, [Finding::LostAcrossFlush { op: 2 }]);
        assert_eq!(verdict.newest_lost, 1);
    }

    #[test]
    fn refused_and_never_begun_are_phantoms_and_unknown_is_either() {
        let witness = Witness::alone();
        let [refused, unknown] = [witness.begin("kv.db"), witness.begin("kv.db")];
        witness.settle(refused, Outcome::NotApplied);
        witness.settle(unknown, Outcome::Unknown);
        let mut history = witness.history();
        let verdict = history.judge("kv.db", Durability::Durable, &BTreeSet::from([refused, unknown, 7]), &NONE);
        assert_eq!(verdict.findings, [Finding::Phantom { op: refused }, Finding::Phantom { op: 7 }]);
        history.settle(&Verdict::default());
        let verdict = history.judge("kv.db", Durability::Durable, &BTreeSet::from([unknown]), &NONE);
        assert_eq!(verdict.findings, [Finding::Phantom { op: unknown }], "an answer must not change afterwards");
    }

    #[test]
    fn untold_is_neither_lost_nor_a_phantom_and_keeps_its_answer() {
        let (witness, [applied, other, _]) = history();
        let refused = witness.begin("kv.db");
        witness.settle(refused, Outcome::NotApplied);
        let mut history = witness.history();
        let (found, untold) = (BTreeSet::from([other, 2]), BTreeSet::from([applied, refused]));
        let verdict = history.judge("kv.db", Durability::Durable, &found, &untold);
        assert!(verdict.is_clean());
        history.settle(&verdict);
        let verdict = history.judge("kv.db", Durability::Durable, &BTreeSet::from([other, 2, refused]), &NONE);
        assert_eq!(verdict.findings, [Finding::Lost { op: applied }, Finding::Phantom { op: refused }]);
    }

    #[test]
    fn untold_that_a_relaxed_store_may_have_lost_is_unknown_from_then_on() {
        let history = history().0.history();
        let (found, untold) = (BTreeSet::from([1, 2]), BTreeSet::from([0]));
        let relaxed = history.judge("kv.db", Durability::Relaxed, &found, &untold);
        let durable = history.judge("kv.db", Durability::Durable, &found, &untold);
        assert_eq!((relaxed.untold[&0], durable.untold[&0]), (Outcome::Unknown, Outcome::Applied));
    }

    #[test]
    fn store_that_begins_anew_may_lose_what_was_before_and_nothing_later() {
        let (witness, _) = history();
        witness.begun_anew("kv.db");
        let later = witness.begin("kv.db");
        witness.applied(later);
        let none = BTreeSet::new();
        let verdict = witness.history().judge("kv.db", Durability::Durable, &none, &none);
        assert_eq!(verdict.findings, [Finding::Lost { op: later }]);
    }
}
