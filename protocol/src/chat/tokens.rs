//! Stored token counts, as plain data: counting itself belongs to `larder-actors`.

use serde::{Deserialize, Serialize};

/// What is stored about a message's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MessageTokens {
    /// Tokens of the message's text, of the word `None` when it has none.
    pub text: u64,
    /// Tokens of the same text behind one space.
    pub spaced_text: u64,
    /// What the message costs in a strict window: text, tool calls, thinking and unknown parts. Images, sounds and
    /// documents cost nothing here, since only the model's provider knows their price.
    pub cost: u64,
    /// Whether the text is empty or ends in whitespace, so that what follows it may be split differently.
    pub ends_blank: bool,
    /// Whether the text holds a control token, so that the two ways of counting differ.
    pub holds_control_token: bool,
}

/// The counts of a list of messages, made by one counter on the sender's side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCounts {
    /// The counter's lasting name.
    pub counter: String,
    /// One for each message, in order.
    pub tokens: Vec<MessageTokens>,
}
