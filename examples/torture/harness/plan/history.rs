//! What was tried, and what the callers were told: the oracle of every attack.
//!
//! Always true: an id that was told nothing, or `unknown`, may have been applied or not; after its process has died it
//! changes no more.

use std::collections::BTreeMap;

use super::{Shown, share};

/// What became of one id, as far as its caller knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// No answer yet, or one that leaves it open.
    Open,
    /// Acknowledged, or an error that says it was applied.
    Applied,
    /// An error that says it was not applied.
    NotApplied,
}

/// One id. Times are any numbers that grow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trial {
    pub(crate) fate: Fate,
    /// When it was first tried.
    pub(crate) tried_at: u64,
    /// From when on it changes nothing any more. `None`: never, as far as anybody knows.
    pub(crate) settled_at: Option<u64>,
}

/// Every id that was tried.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) seed: u64,
    pub(crate) trials: BTreeMap<u64, Trial>,
}

impl History {
    /// Returns the ids that may have been applied, and whether they must have been, in order.
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

    /// Returns the part of it that went to one of the stores, under the ids that they have there.
    pub(crate) fn of_store(&self, store: usize, store_count: usize) -> Self {
        let here = |(id, trial): (&u64, &Trial)| {
            let (index, own_id) = share(*id, store_count);
            (index == store).then_some((own_id, *trial))
        };
        Self { seed: self.seed, trials: self.trials.iter().filter_map(here).collect() }
    }

    /// Returns what a store shows that was never acknowledged or refused, and lacks that was acknowledged.
    pub(crate) fn contradictions(&self, shown: Shown) -> Vec<String> {
        let Shown { found, untold, mut violations } = shown;
        let lost =
            self.possible().filter(|(id, is_certain)| *is_certain && !found.contains(id) && !untold.contains(id));
        violations.extend(lost.map(|(id, _)| format!("id {id} is missing, though it was acknowledged")));
        let strangers = found.iter().filter(|id| matches!(self.fate(**id), None | Some(Fate::NotApplied)));
        violations.extend(strangers.map(|id| format!("id {id} is there, though it was refused or never sent")));
        violations
    }

    pub(crate) fn last_id(&self) -> u64 {
        self.trials.last_key_value().map_or(0, |(id, _)| *id)
    }

    pub(crate) fn count(&self, fate: Fate) -> usize {
        self.trials.values().filter(|trial| trial.fate == fate).count()
    }
}
