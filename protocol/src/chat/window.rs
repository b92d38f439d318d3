//! What a program asks of a window of messages, and what it gets.
//!
//! Start at [`ChatWindow`]. Which messages a [`WindowPolicy`] takes is decided in `larder-actors`.

use serde::{Deserialize, Serialize};

use super::{MessageId, StoredMessage};
use crate::names::SessionId;

/// How many tokens a window may hold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenLimit {
    /// That many.
    Tokens(u64),
    /// A share of the model's context, rounded down; LlamaIndex takes 0.75.
    Ratio {
        /// The model's context, in tokens.
        context_tokens: u64,
        /// The share, 0 to 1; a number outside, or no number, is taken to the nearer end.
        ratio: f64,
    },
}

impl TokenLimit {
    /// Returns the limit in tokens.
    #[must_use]
    pub fn tokens(self) -> u64 {
        match self {
            Self::Tokens(tokens) => tokens,
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_precision_loss,
                clippy::cast_sign_loss,
                reason = "f64 holds every context length that exists, and the product lies in 0..=context_tokens"
            )]
            Self::Ratio { context_tokens, ratio } => {
                let ratio = if ratio.is_nan() { 0.0 } else { ratio.clamp(0.0, 1.0) };
                (context_tokens as f64 * ratio) as u64
            }
        }
    }
}

/// Which messages a window holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WindowPolicy {
    /// Never over the limit; system, pinned and summary messages, then whole turns from the newest back; tool calls
    /// stay with their results and are counted.
    #[default]
    Strict,
    /// What LlamaIndex's `ChatMemoryBuffer` returns, message for message. It counts text only, and when nothing fits
    /// it returns the last message though that is over the limit.
    ChatMemoryBuffer,
}

/// A tool result that a window left out because no call in the window asked for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OrphanResult {
    /// The message that holds the result.
    pub id: MessageId,
    /// The call it names; empty: it names none.
    pub call_id: String,
}

/// What a window did not hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LeftOut {
    /// The newest message that fell out for lack of room: it and everything before it is out, but for system, pinned
    /// and summary messages. `None`: everything fitted.
    pub through: Option<MessageId>,
    /// Tool results after that point that are left out because their call is not in the window.
    pub orphan_results: Vec<OrphanResult>,
}

/// The messages that go to the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatWindow {
    /// The session.
    pub session: SessionId,
    /// The messages, in the order in which they are to be sent.
    pub messages: Vec<StoredMessage>,
    /// The tokens they cost, with the initial tokens.
    pub tokens: u64,
    /// The limit that applied.
    pub limit: u64,
    /// What fell out.
    pub left_out: LeftOut,
    /// How many messages had to be counted for this answer, since their counts are missing or by another counter.
    pub uncounted_count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_limit_is_rounded_down_and_kept_in_range() {
        let limit = |ratio| TokenLimit::Ratio { context_tokens: 8_191, ratio }.tokens();
        assert_eq!(limit(0.75), 6_143);
        assert_eq!(limit(f64::NAN), 0);
        assert_eq!(limit(-1.0), 0);
        assert_eq!(limit(9.0), 8_191);
    }
}
