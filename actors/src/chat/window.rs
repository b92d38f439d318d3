//! Which messages of a session go to the model, as pure functions over rows read newest first.
//!
//! Start at [`History`], which a store implements, then [`chat_memory_buffer`()] and [`strict`()].
//!
//! Always true: a window reads the rows it returns, those that decide that no more fit, and (strict) the mandatory
//! ones; never the history behind them.

mod chat_memory_buffer;
mod joined;
mod strict;

#[cfg(test)]
pub(super) mod rows;

use std::borrow::Cow;

use larder_protocol::chat::{ChatMessage, ContentBlock, MessageId, Role};

use super::tokens::MessageTokens;

pub use chat_memory_buffer::{BufferWindow, chat_memory_buffer};
pub use strict::{StrictLimits, StrictWindow, strict};

/// What a window needs to know of a stored message. Archived messages have no row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The message's id; larger is later.
    pub id: MessageId,
    /// Who speaks.
    pub role: Role,
    /// The counts stored with it, by the window's counter.
    pub tokens: MessageTokens,
    /// Whether the program pinned it.
    pub pinned: bool,
    /// Whether it is the summary of what fell out earlier.
    pub summary: bool,
    /// Ids of the tool calls it makes; an empty id is a call without one.
    pub calls: Vec<String>,
    /// Ids of the tool calls whose results it holds.
    pub answers: Vec<String>,
    /// Whether something is left of it without its tool results. False for tool and function messages, which are results
    /// as a whole.
    pub holds_more: bool,
}

impl Row {
    /// Returns the row of a message; `pinned` and `summary` are for the store to set.
    #[must_use]
    pub fn of(id: MessageId, message: &ChatMessage, tokens: MessageTokens) -> Self {
        let is_result = |block: &ContentBlock| matches!(block, ContentBlock::ToolResult { .. });
        let holds_more = !matches!(message.role, Role::Tool | Role::Function) && !message.blocks.iter().all(is_result);
        Self {
            id,
            role: message.role.clone(),
            tokens,
            pinned: false,
            summary: false,
            calls: message.call_ids().map(str::to_owned).collect(),
            answers: message.answered_ids().map(str::to_owned).collect(),
            holds_more,
        }
    }

    /// Returns whether a strict window always holds it.
    #[must_use]
    pub fn is_mandatory(&self) -> bool {
        self.pinned || self.summary || self.role.instructs()
    }

    /// Returns whether it begins a turn: it neither answers something nor instructs.
    #[must_use]
    pub fn opens_turn(&self) -> bool {
        !self.role.answers() && !self.role.instructs() && !self.summary && self.answers.is_empty()
    }

    /// Returns the calls that it answers for others; a tool message that names none answers the nearest call before it.
    pub fn answered(&self) -> impl Iterator<Item = &str> {
        let unnamed = self.answers.is_empty() && matches!(self.role, Role::Tool | Role::Function);
        let ids = self.answers.iter().map(String::as_str).chain(unnamed.then_some(""));
        ids.filter(|id| !self.makes_call(id))
    }

    /// Returns whether nothing of it may go to a model when none of the calls that it answers does.
    #[must_use]
    pub fn is_only_results(&self) -> bool {
        !self.holds_more && self.calls.is_empty() && self.answered().next().is_some()
    }

    /// Returns whether it makes the call that a later message answers under this id.
    #[must_use]
    pub fn makes_call(&self, answered: &str) -> bool {
        if answered.is_empty() { !self.calls.is_empty() } else { self.calls.iter().any(|id| id == answered) }
    }
}

/// A session's unarchived messages, as a window reads them.
pub trait History {
    /// Why a row could not be read.
    type Error;

    /// Returns the newest row at first, then the next older one. `None`: there are no more.
    ///
    /// # Errors
    /// When it cannot be read.
    fn older(&mut self) -> Result<Option<Row>, Self::Error>;

    /// Returns the text that [`count_message`](super::tokens::count_message) counted for the row.
    ///
    /// # Errors
    /// When it cannot be read.
    fn text(&mut self, row: &Row) -> Result<Cow<'_, str>, Self::Error>;

    /// Returns all rows that are [mandatory](Row::is_mandatory), in any order; only the current summary is a summary.
    ///
    /// # Errors
    /// When they cannot be read.
    fn mandatory(&mut self) -> Result<Vec<Row>, Self::Error>;

    /// Returns the rows that hold the results of this row's calls, and those whose calls this row answers. A result
    /// belongs to the nearest row before it that [makes the call](Row::makes_call), since programs use ids again.
    ///
    /// It is asked of mandatory rows only.
    ///
    /// # Errors
    /// When they cannot be read.
    fn partners(&mut self, row: &Row) -> Result<Vec<Row>, Self::Error>;
}

/// Why there is no window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WindowError<E> {
    /// What a window must hold does not fit.
    TooSmall {
        /// The smallest limit under which there would be one now.
        needed_tokens: u64,
        /// The limit.
        limit: u64,
    },
    /// The tokens that are taken already are more than the limit.
    InitialOverLimit {
        /// The tokens taken already.
        initial_tokens: u64,
        /// The limit.
        limit: u64,
    },
    /// A row could not be read.
    Read(E),
}

impl<E> From<E> for WindowError<E> {
    fn from(error: E) -> Self {
        Self::Read(error)
    }
}
