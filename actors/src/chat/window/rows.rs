//! A history in memory: what the tests compare against and a store must behave like.

use std::borrow::Cow;
use std::convert::Infallible;

use super::*;
use crate::chat::tokens::{TEXT_OF_NONE, TokenCounter, count_message};

/// Rows oldest first, and how many of them were read.
#[derive(Debug, Clone, Default)]
pub(in crate::chat) struct Rows {
    pub(in crate::chat) rows: Vec<Row>,
    pub(in crate::chat) texts: Vec<String>,
    pub(in crate::chat) read: usize,
}

impl Rows {
    pub(in crate::chat) fn push(&mut self, row: Row, text: impl Into<String>) {
        self.rows.push(row);
        self.texts.push(text.into());
    }

    /// Makes the rows that a store would make of these messages.
    pub(in crate::chat) fn of(counter: &dyn TokenCounter, messages: &[ChatMessage]) -> Self {
        let mut rows = Self::default();
        for message in messages {
            let tokens = count_message(counter, message).unwrap();
            let row = Row::of(MessageId(rows.rows.len() as u64), message, tokens);
            rows.push(row, message.text().unwrap_or_else(|| TEXT_OF_NONE.to_owned()));
        }
        rows
    }

    /// Returns the place of the row that makes the call which the row at `result` answers under `id`.
    pub(in crate::chat) fn caller(&self, result: usize, id: &str) -> Option<usize> {
        (0..result).rev().find(|&at| self.rows[at].makes_call(id))
    }

    /// Returns all pairs of a call's row and a result's row, by place.
    pub(in crate::chat) fn pairs(&self) -> Vec<(usize, usize)> {
        let answers = |at: usize| self.rows[at].answered().filter_map(move |id| Some((self.caller(at, id)?, at)));
        (0..self.rows.len()).flat_map(answers).collect()
    }
}

pub(in crate::chat) fn row(place: usize, role: &str, cost: u64) -> Row {
    Row {
        id: MessageId(place as u64),
        role: Role::from(role),
        tokens: MessageTokens { cost, ..MessageTokens::default() },
        pinned: false,
        summary: false,
        calls: Vec::new(),
        answers: Vec::new(),
        holds_more: !matches!(role, "tool" | "function"),
    }
}

impl History for Rows {
    type Error = Infallible;

    fn older(&mut self) -> Result<Option<Row>, Infallible> {
        let row = self.rows.iter().rev().nth(self.read).cloned();
        self.read += usize::from(row.is_some());
        Ok(row)
    }

    fn text(&mut self, row: &Row) -> Result<Cow<'_, str>, Infallible> {
        Ok(Cow::Borrowed(&self.texts[usize::try_from(row.id.0).unwrap()]))
    }

    fn mandatory(&mut self) -> Result<Vec<Row>, Infallible> {
        Ok(self.rows.iter().filter(|row| row.is_mandatory()).cloned().collect())
    }

    fn partners(&mut self, row: &Row) -> Result<Vec<Row>, Infallible> {
        let place = usize::try_from(row.id.0).unwrap();
        let other = |(call, result)| match place {
            _ if call == place => Some(result),
            _ if result == place => Some(call),
            _ => None,
        };
        Ok(self.pairs().into_iter().filter_map(other).map(|at| self.rows[at].clone()).collect())
    }
}
