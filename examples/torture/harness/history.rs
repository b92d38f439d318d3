//! A log read back: what was tried, and what the callers were told.
//!
//! Start at [`History::parse`].
//!
//! Always true: an id that was told nothing, or `unknown`, may have been applied or not; after its process has died it
//! changes no more.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::plan::store_of;

/// What became of one id, as far as the log tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// No answer yet, or an answer that leaves it open.
    Open,
    /// Acknowledged, or an error that says it was applied.
    Applied,
    /// An error that says it was not applied.
    NotApplied,
}

/// One id's lines.
#[derive(Debug, Clone, Copy)]
struct Trial {
    fate: Fate,
    /// The line of its first TRY.
    tried_at: usize,
    /// The line from which on it changes nothing any more. `None`: never, as far as the log tells.
    settled_at: Option<usize>,
    is_repeated: bool,
}

/// A log, read back.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) seed: u64,
    pub(crate) stores: Vec<String>,
    trials: BTreeMap<u64, Trial>,
    /// Answers that were wrong by themselves, and lines that no run prints.
    pub(crate) violations: Vec<String>,
    pub(crate) run_count: usize,
    pub(crate) error_counts: BTreeMap<String, u64>,
}

impl History {
    /// Returns the line a run begins with.
    pub(crate) fn header(seed: u64, stores: &[String], more: &str) -> String {
        format!("# torture seed {seed} stores {} {more}", stores.join(","))
    }

    /// Reads a log. A last line without an end is one that the kill cut off, and counts for nothing.
    pub(crate) fn parse(log: &str) -> Result<Self, String> {
        let mut history = Self::default();
        for (at, line) in log.split_inclusive('\n').enumerate() {
            let Some(line) = line.strip_suffix('\n') else { continue };
            let mut words = line.splitn(3, ' ');
            let (kind, id, rest) = (words.next().unwrap_or(""), words.next().unwrap_or(""), words.next().unwrap_or(""));
            if kind == "#" {
                history.begin(at, line)?;
                continue;
            }
            let id: u64 = id.parse().map_err(|_| format!("line {}: no id in {line:?}", at + 1))?;
            match kind {
                "TRY" => history.tried(id, at),
                "ACK" => history.answered(id, at, Fate::Applied),
                "ERR" => history.failed(id, at, rest)?,
                "BAD" => history.violations.push(format!("id {id}: {rest}")),
                _ => return Err(format!("line {}: {line:?} is not a line of a torture log", at + 1)),
            }
        }
        if history.run_count == 0 { Err("the log has no header".to_owned()) } else { Ok(history) }
    }

    /// Reads a header: a run begins, so the one before is over, and what it left open changes no more.
    fn begin(&mut self, at: usize, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split(' ').collect();
        let ["#", "torture", "seed", seed, "stores", stores, ..] = words.as_slice() else { return Ok(()) };
        let seed = seed.parse().map_err(|_| format!("line {}: no seed in {line:?}", at + 1))?;
        let stores: Vec<String> = stores.split(',').map(str::to_owned).collect();
        if self.run_count > 0 && (self.seed, &self.stores) != (seed, &stores) {
            return Err(format!("line {}: a run with another seed or other stores", at + 1));
        }
        (self.seed, self.stores) = (seed, stores);
        self.run_count += 1;
        for trial in self.trials.values_mut().filter(|trial| trial.settled_at.is_none()) {
            trial.settled_at = Some(at);
        }
        Ok(())
    }

    fn tried(&mut self, id: u64, at: usize) {
        let new = Trial { fate: Fate::Open, tried_at: at, settled_at: None, is_repeated: false };
        let trial = self.trials.entry(id).or_insert(new);
        if trial.tried_at != at {
            (trial.settled_at, trial.is_repeated) = (None, true);
        }
    }

    fn failed(&mut self, id: u64, at: usize, rest: &str) -> Result<(), String> {
        *self.error_counts.entry(rest.to_owned()).or_default() += 1;
        match rest.rsplit(' ').next() {
            Some("applied") => self.answered(id, at, Fate::Applied),
            Some("not-applied") => self.answered(id, at, Fate::NotApplied),
            Some("unknown") => {}
            _ => return Err(format!("line {}: ERR {id} says not whether it was written: {rest:?}", at + 1)),
        }
        Ok(())
    }

    fn answered(&mut self, id: u64, at: usize, fate: Fate) {
        let Some(trial) = self.trials.get_mut(&id) else {
            return self.violations.push(format!("id {id} was answered but never tried"));
        };
        // Refused when it was repeated: the first time may have been applied all the same.
        if !(trial.is_repeated && fate == Fate::NotApplied) {
            (trial.fate, trial.settled_at) = (fate, Some(at));
        }
    }

    /// Returns the ids that may have been applied, and those that must have been, in order.
    pub(crate) fn possible(&self) -> impl Iterator<Item = (u64, bool)> {
        let possible = self.trials.iter().filter(|(_, trial)| trial.fate != Fate::NotApplied);
        possible.map(|(id, trial)| (*id, trial.fate == Fate::Applied))
    }

    /// Returns the fate of an id; `None` when it was never tried.
    pub(crate) fn fate(&self, id: u64) -> Option<Fate> {
        self.trials.get(&id).map(|trial| trial.fate)
    }

    /// Returns whether everything `first` may have done was done before `second` began.
    pub(crate) fn is_before(&self, first: u64, second: u64) -> bool {
        let settled = self.trials.get(&first).and_then(|trial| trial.settled_at);
        settled.zip(self.trials.get(&second)).is_some_and(|(settled_at, second)| settled_at < second.tried_at)
    }

    /// Returns the part of it that went to one of the stores.
    pub(crate) fn of_store(&self, store: &str) -> Self {
        let mut part = self.clone();
        part.trials.retain(|id, _| {
            self.stores.get(store_of(self.seed, *id, &self.stores)).is_some_and(|chosen| chosen == store)
        });
        part
    }

    /// Returns the ids left open.
    pub(crate) fn open_ids(&self) -> impl Iterator<Item = u64> {
        self.trials.iter().filter(|(_, trial)| trial.fate == Fate::Open).map(|(id, _)| *id)
    }

    pub(crate) fn last_id(&self) -> u64 {
        self.trials.last_key_value().map_or(0, |(id, _)| *id)
    }

    pub(crate) fn count(&self, fate: Fate) -> usize {
        self.trials.values().filter(|trial| trial.fate == fate).count()
    }

    /// Returns one line about the whole.
    pub(crate) fn summary(&self) -> String {
        let (acknowledged, refused) = (self.count(Fate::Applied), self.count(Fate::NotApplied));
        let open = self.count(Fate::Open);
        let runs = self.run_count;
        let mut text = format!("{acknowledged} acknowledged, {refused} refused, {open} open, in {runs} runs");
        for (error, count) in &self.error_counts {
            // Writing to a String cannot fail.
            let _ = write!(text, "; {error} {count}");
        }
        text
    }
}
