//! A log read back: what was tried, and what the callers were told.
//!
//! Start at [`Log::parse`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::plan::{Fate, History, Trial};

/// A log, read back.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    /// Under the ids of the whole run; times are line numbers.
    pub(crate) history: History,
    pub(crate) stores: Vec<String>,
    repeated: BTreeSet<u64>,
    /// Answers that were wrong by themselves, and lines that no run prints.
    pub(crate) violations: Vec<String>,
    pub(crate) run_count: usize,
    pub(crate) error_counts: BTreeMap<String, u64>,
}

impl Log {
    /// Returns the line a run begins with.
    pub(crate) fn header(seed: u64, stores: &[String], more: &str) -> String {
        format!("# torture seed {seed} stores {} {more}", stores.join(","))
    }

    /// Reads a log. A last line without an end is one that the kill cut off, and counts for nothing.
    pub(crate) fn parse(log: &str) -> Result<Self, String> {
        let mut read = Self::default();
        for (at, line) in (0_u64..).zip(log.split_inclusive('\n')) {
            let Some(line) = line.strip_suffix('\n') else { continue };
            let mut words = line.splitn(3, ' ');
            let (kind, id, rest) = (words.next().unwrap_or(""), words.next().unwrap_or(""), words.next().unwrap_or(""));
            if kind == "#" {
                read.begin(at, line)?;
                continue;
            }
            let id: u64 = id.parse().map_err(|_| format!("line {}: no id in {line:?}", at + 1))?;
            match kind {
                "TRY" => read.tried(id, at),
                "ACK" => read.answered(id, at, Fate::Applied),
                "ERR" => read.failed(id, at, rest)?,
                "BAD" => read.violations.push(format!("id {id}: {rest}")),
                _ => return Err(format!("line {}: {line:?} is not a line of a torture log", at + 1)),
            }
        }
        if read.run_count == 0 { Err("the log has no header".to_owned()) } else { Ok(read) }
    }

    /// Reads a header: a run begins, so the one before is over, and what it left open changes no more.
    fn begin(&mut self, at: u64, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split(' ').collect();
        let ["#", "torture", "seed", seed, "stores", stores, ..] = words.as_slice() else { return Ok(()) };
        let seed = seed.parse().map_err(|_| format!("line {}: no seed in {line:?}", at + 1))?;
        let stores: Vec<String> = stores.split(',').map(str::to_owned).collect();
        if self.run_count > 0 && (self.history.seed, &self.stores) != (seed, &stores) {
            return Err(format!("line {}: a run with another seed or other stores", at + 1));
        }
        (self.history.seed, self.stores) = (seed, stores);
        self.run_count += 1;
        for trial in self.history.trials.values_mut().filter(|trial| trial.settled_at.is_none()) {
            trial.settled_at = Some(at);
        }
        Ok(())
    }

    fn tried(&mut self, id: u64, at: u64) {
        let new = Trial { fate: Fate::Open, tried_at: at, settled_at: None };
        let trial = self.history.trials.entry(id).or_insert(new);
        if trial.tried_at != at {
            trial.settled_at = None;
            self.repeated.insert(id);
        }
    }

    fn failed(&mut self, id: u64, at: u64, rest: &str) -> Result<(), String> {
        *self.error_counts.entry(rest.to_owned()).or_default() += 1;
        match rest.rsplit(' ').next() {
            Some("applied") => self.answered(id, at, Fate::Applied),
            Some("not-applied") => self.answered(id, at, Fate::NotApplied),
            Some("unknown") => {}
            _ => return Err(format!("line {}: ERR {id} says not whether it was written: {rest:?}", at + 1)),
        }
        Ok(())
    }

    fn answered(&mut self, id: u64, at: u64, fate: Fate) {
        let Some(trial) = self.history.trials.get_mut(&id) else {
            return self.violations.push(format!("id {id} was answered but never tried"));
        };
        // Refused when it was repeated: the first time may have been applied all the same.
        if !(self.repeated.contains(&id) && fate == Fate::NotApplied) {
            (trial.fate, trial.settled_at) = (fate, Some(at));
        }
    }

    /// Returns the part of it that went to one of its stores, under the ids that they have there.
    pub(crate) fn of_store(&self, store: usize) -> History {
        self.history.of_store(store, self.stores.len())
    }

    /// Returns the ids left open.
    pub(crate) fn open_ids(&self) -> impl Iterator<Item = u64> {
        self.history.trials.iter().filter(|(_, trial)| trial.fate == Fate::Open).map(|(id, _)| *id)
    }

    /// Returns one line about the whole.
    pub(crate) fn summary(&self) -> String {
        let count = |fate| self.history.count(fate);
        let (acknowledged, refused, open) = (count(Fate::Applied), count(Fate::NotApplied), count(Fate::Open));
        let runs = self.run_count;
        let mut text = format!("{acknowledged} acknowledged, {refused} refused, {open} open, in {runs} runs");
        for (error, count) in &self.error_counts {
            // Writing to a String cannot fail.
            let _ = write!(text, "; {error} {count}");
        }
        text
    }
}
