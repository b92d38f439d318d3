//! The window that a model accepts as it is: never too long, no tool call apart from its result.
//!
//! Start at [`strict`]. A turn is a message that opens one (a user's, for the most part) and all that answer it. Turns are
//! taken whole, from the newest back, until one does not fit.
//!
//! Always true: the tokens are at most the limit; every mandatory message is there; of a call and its result both are
//! there or neither; the first message that is not mandatory opens a turn, or its turn's opener is mandatory.

use std::collections::{BTreeMap, HashMap};
use std::mem;

use larder_protocol::chat::{LeftOut, MessageId, OrphanResult};

use super::{History, Row, WindowError};

/// What a strict window may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StrictLimits {
    /// The most tokens.
    pub limit: u64,
    /// Tokens that are taken already, by what the program sends beside the window.
    pub initial_tokens: u64,
    /// Tokens that the model's message format costs a message, beside its content.
    pub overhead_tokens_per_message: u64,
}

/// The messages, in the order in which they are to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StrictWindow {
    /// System and pinned messages from before the turns, then the summary, then the turns. A message that `left_out` names
    /// as holding an orphan result is here when it holds more than that; the result is to be taken out of it.
    pub rows: Vec<Row>,
    /// What they cost, with the initial tokens.
    pub tokens: u64,
    /// What is missing.
    pub left_out: LeftOut,
}

/// Returns the newest whole turns that fit beside the mandatory messages.
///
/// It reads the mandatory messages, the turns that it returns and as much of the next one as shows that it does not fit.
/// A pinned tool call brings its results, and a pinned result its call.
///
/// # Errors
/// [`WindowError::TooSmall`] when the mandatory messages and the newest turn do not fit, and [`WindowError::Read`].
pub fn strict<H: History>(history: &mut H, limits: StrictLimits) -> Result<StrictWindow, WindowError<H::Error>> {
    let mut orphans = Vec::new();
    let mandatory = mandatory(history, &mut orphans)?;
    let mandatory_tokens =
        mandatory.values().map(|row| limits.cost(row)).fold(limits.initial_tokens, u64::saturating_add);
    let mut scan = Scan::new(limits, mandatory_tokens);
    while let Some(row) = history.older()? {
        let opener = row.opens_turn().then_some(row.id);
        if !mandatory.contains_key(&row.id) {
            scan.add(row);
        }
        match (scan.fits(), opener) {
            (true, Some(opener)) => scan.end_turn(opener),
            (true, None) => {}
            (false, _) if !scan.turns.is_empty() => break,
            (false, Some(_)) => return Err(scan.too_small()),
            // The newest turn is read to its opener, to say how much it needs.
            (false, None) => {}
        }
    }
    // Without any turn there is nothing but the mandatory messages to fit, and what no turn opens is left out.
    if scan.turns.is_empty() && mandatory_tokens > limits.limit {
        return Err(WindowError::TooSmall { needed_tokens: mandatory_tokens, limit: limits.limit });
    }
    Ok(scan.finish(mandatory, orphans))
}

impl StrictLimits {
    fn cost(&self, row: &Row) -> u64 {
        row.tokens.cost.saturating_add(self.overhead_tokens_per_message)
    }
}

/// Reads the mandatory rows and whatever calls and results belong to them; results without a call are left out.
fn mandatory<H: History>(
    history: &mut H,
    orphans: &mut Vec<OrphanResult>,
) -> Result<BTreeMap<MessageId, Row>, H::Error> {
    let mut rows = BTreeMap::new();
    let mut found = history.mandatory()?;
    while let Some(row) = found.pop() {
        if rows.contains_key(&row.id) {
            continue;
        }
        if !row.calls.is_empty() || row.answered().next().is_some() {
            found.extend(history.partners(&row)?);
        }
        rows.insert(row.id, row);
    }
    let mut alone = Vec::new();
    for row in rows.values() {
        let is_orphan = |call_id: &&str| !rows.range(..row.id).any(|(_, earlier)| earlier.makes_call(call_id));
        let missing: Vec<&str> = row.answered().filter(is_orphan).collect();
        orphans.extend(missing.iter().map(|&call_id| OrphanResult { id: row.id, call_id: call_id.to_owned() }));
        if row.is_only_results() && missing.len() == row.answered().count() {
            alone.push(row.id);
        }
    }
    rows.retain(|id, _| alone.binary_search(id).is_err());
    Ok(rows)
}

/// The turns on the way back through the history.
#[derive(Debug)]
struct Scan {
    limits: StrictLimits,
    /// Rows that are not mandatory, newest first.
    candidates: Vec<Candidate>,
    /// By call id: the candidates whose results wait for that call to be found.
    waiting: HashMap<String, Vec<usize>>,
    /// The openers of the turns taken so far, newest first; the next turn's number is their count.
    turns: Vec<MessageId>,
    /// The cost of all mandatory rows and of the turns taken so far.
    tokens: u64,
    /// What the turn that is being read would add: its rows, and newer results whose call it holds.
    turn_tokens: u64,
}

#[derive(Debug)]
struct Candidate {
    row: Row,
    /// The number of its turn.
    turn: usize,
    /// The calls that it answers, each with the number of the turn in which the call was found.
    answered: Vec<(String, Option<usize>)>,
}

impl Candidate {
    /// Returns whether it is in the window once `turns` turns are taken.
    fn is_in(&self, turns: usize) -> bool {
        let is_answer = || self.answered.iter().any(|(_, turn)| turn.is_some_and(|turn| turn < turns));
        self.turn < turns && (!self.row.is_only_results() || is_answer())
    }
}

impl Scan {
    fn new(limits: StrictLimits, mandatory_tokens: u64) -> Self {
        Self {
            limits,
            // About what a window of 8,192 tokens reads.
            candidates: Vec::with_capacity(128),
            waiting: HashMap::new(),
            turns: Vec::new(),
            tokens: mandatory_tokens,
            turn_tokens: 0,
        }
    }

    fn fits(&self) -> bool {
        self.tokens.saturating_add(self.turn_tokens) <= self.limits.limit
    }

    fn too_small<E>(&self) -> WindowError<E> {
        let needed_tokens = self.tokens.saturating_add(self.turn_tokens);
        WindowError::TooSmall { needed_tokens, limit: self.limits.limit }
    }

    /// Adds an older row to the turn that is being read.
    fn add(&mut self, row: Row) {
        self.find_callers(&row);
        let place = self.candidates.len();
        let answered: Vec<_> = row.answered().map(|id| (id.to_owned(), None)).collect();
        for (call_id, _) in &answered {
            self.waiting.entry(call_id.clone()).or_default().push(place);
        }
        // A result costs nothing until its call is found: it may never come in.
        if !row.is_only_results() {
            self.turn_tokens = self.turn_tokens.saturating_add(self.limits.cost(&row));
        }
        self.candidates.push(Candidate { row, turn: self.turns.len(), answered });
    }

    /// Marks the newer results that wait for a call that this row makes.
    fn find_callers(&mut self, row: &Row) {
        let unnamed = (!row.calls.is_empty()).then_some("");
        for call_id in row.calls.iter().map(String::as_str).chain(unnamed) {
            for place in self.waiting.remove(call_id).unwrap_or_default() {
                self.found(place, call_id);
            }
        }
    }

    fn found(&mut self, place: usize, call_id: &str) {
        let turn = self.turns.len();
        let Some(candidate) = self.candidates.get_mut(place) else { return };
        let was_in = candidate.is_in(turn + 1);
        for (answered, found) in &mut candidate.answered {
            if answered == call_id && found.is_none() {
                *found = Some(turn);
            }
        }
        if !was_in {
            self.turn_tokens = self.turn_tokens.saturating_add(self.limits.cost(&candidate.row));
        }
    }

    /// Takes the turn that was read into the window.
    fn end_turn(&mut self, opener: MessageId) {
        self.tokens = self.tokens.saturating_add(mem::take(&mut self.turn_tokens));
        self.turns.push(opener);
    }

    fn finish(self, mandatory: BTreeMap<MessageId, Row>, mut orphans: Vec<OrphanResult>) -> StrictWindow {
        let turns = self.turns.len();
        let start = self.turns.last().copied();
        let through =
            self.candidates.iter().find(|candidate| candidate.turn >= turns).map(|candidate| candidate.row.id);
        for candidate in self.candidates.iter().filter(|candidate| candidate.turn < turns) {
            let missing = candidate.answered.iter().filter(|(_, turn)| turn.is_none_or(|turn| turn >= turns));
            orphans.extend(missing.map(|(call_id, _)| OrphanResult { id: candidate.row.id, call_id: call_id.clone() }));
        }
        orphans.sort();
        let taken =
            self.candidates.into_iter().filter(|candidate| candidate.is_in(turns)).map(|candidate| candidate.row);
        let mut rows: Vec<Row> = mandatory.into_values().chain(taken).collect();
        // The summary stands for what came before the turns, whenever it was written.
        rows.sort_by_key(|row| (row.summary || start.is_some_and(|start| row.id >= start), !row.summary, row.id));
        StrictWindow { rows, tokens: self.tokens, left_out: LeftOut { through, orphan_results: orphans } }
    }
}

#[cfg(test)]
mod tests;
