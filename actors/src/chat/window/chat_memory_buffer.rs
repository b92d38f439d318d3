//! The window of LlamaIndex's `ChatMemoryBuffer`, message for message.
//!
//! Start at [`chat_memory_buffer`]. LlamaIndex starts from the whole history and drops messages from its front until the
//! rest fits; so its answer is the longest join that fits among those that it tries, which can be found from the newest
//! message on.
//!
//! Always true: a join is tried if its oldest message is no assistant's and no tool's, or it is the whole history; a
//! longer join may count *less* than a shorter one, so the search ends only when no longer one can fit.
//!
//! # Source
//! `llama_index/core/memory/chat_memory_buffer.py` 0.14.25; `tests/fixtures/chat_memory_buffer/` holds what it returns.

use larder_protocol::chat::Role;

use super::joined::JoinedTexts;
use super::{History, Row, WindowError};
use crate::chat::tokens::{Joining, TokenCounter};

/// The messages, oldest first, and their tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BufferWindow {
    /// The messages, oldest first.
    pub rows: Vec<Row>,
    /// The tokens of their joined texts and the initial tokens; over the limit if the last message alone is.
    pub tokens: u64,
}

/// Returns the messages that LlamaIndex's `ChatMemoryBuffer(token_limit=limit).get(initial_token_count=initial_tokens)`
/// returns, counted by `counter`.
///
/// # Errors
/// [`WindowError::TooSmall`] for a limit of 0, [`WindowError::InitialOverLimit`], and [`WindowError::Read`] when a row
/// cannot be read.
pub fn chat_memory_buffer<H: History>(
    history: &mut H,
    counter: &dyn TokenCounter,
    limit: u64,
    initial_tokens: u64,
) -> Result<BufferWindow, WindowError<H::Error>> {
    if limit == 0 {
        // LlamaIndex refuses such a buffer.
        return Err(WindowError::TooSmall { needed_tokens: initial_tokens.max(1), limit });
    }
    let Some(room) = limit.checked_sub(initial_tokens) else {
        return Err(WindowError::InitialOverLimit { initial_tokens, limit });
    };
    let mut window = match counter.joining() {
        Joining::SplitsAtWords => from_stored_counts(history, counter, room)?,
        Joining::Grows => from_joined_texts(history, counter, room, false)?,
        Joining::Unknown => from_joined_texts(history, counter, room, true)?,
    };
    window.tokens = window.tokens.saturating_add(initial_tokens);
    Ok(window)
}

/// Returns whether LlamaIndex tries a window that starts with this message (it always tries the whole history).
fn may_start(row: &Row) -> bool {
    !matches!(row.role, Role::Assistant | Role::Tool)
}

fn from_stored_counts<H: History>(
    history: &mut H,
    counter: &dyn TokenCounter,
    room: u64,
) -> Result<BufferWindow, H::Error> {
    let mut joined = JoinedTexts::new(counter);
    let (mut best, mut best_tokens) = (0, 0);
    let mut next = history.older()?;
    while let Some(row) = next {
        if joined.len() > 0 && joined.least_with(&row, history)? > room {
            break;
        }
        let may_start = may_start(&row);
        let tokens = joined.put_in_front(row, history)?;
        next = history.older()?;
        // The last message alone is returned when nothing fits, so it is the best until a longer join fits.
        if joined.len() == 1 || (tokens <= room && (may_start || next.is_none())) {
            (best, best_tokens) = (joined.len(), tokens);
        }
    }
    Ok(BufferWindow { rows: joined.into_newest(best), tokens: best_tokens })
}

/// Counts the joined texts themselves. `all`: from the whole history down; else the join is doubled until it does not
/// fit, and the longest that fits is searched in between.
fn from_joined_texts<H: History>(
    history: &mut H,
    counter: &dyn TokenCounter,
    room: u64,
    all: bool,
) -> Result<BufferWindow, H::Error> {
    let mut newest_first = Vec::new();
    let mut texts = Vec::new();
    let mut ended = false;
    let mut next_count = if all { usize::MAX } else { 1 };
    while !ended {
        match history.older()? {
            Some(row) => {
                texts.push(history.text(&row)?.into_owned());
                newest_first.push(row);
            }
            None => ended = true,
        }
        if newest_first.len() >= next_count {
            if count_joined(counter, &texts) > room {
                break;
            }
            next_count = next_count.saturating_mul(2);
        }
    }
    let tried: Vec<usize> = (1..=newest_first.len())
        .filter(|&count| count == 1 || newest_first.get(count - 1).is_some_and(may_start))
        .chain((ended && newest_first.last().is_some_and(|row| !may_start(row))).then_some(newest_first.len()))
        .collect();
    let tokens_of = |count: usize| count_joined(counter, texts.get(..count).unwrap_or_default());
    let fits = |count: &usize| tokens_of(*count) <= room;
    let longest = if all { tried.iter().rposition(fits) } else { tried.partition_point(fits).checked_sub(1) };
    let count = longest.and_then(|at| tried.get(at).copied()).unwrap_or(newest_first.len().min(1));
    newest_first.truncate(count);
    newest_first.reverse();
    let tokens = if count == 0 { 0 } else { tokens_of(count) };
    Ok(BufferWindow { rows: newest_first, tokens })
}

fn count_joined(counter: &dyn TokenCounter, newest_first: &[String]) -> u64 {
    let texts: Vec<&str> = newest_first.iter().rev().map(String::as_str).collect();
    counter.count_with_control_tokens(&texts.join(" "))
}

#[cfg(test)]
mod tests;
