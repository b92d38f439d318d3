//! Messages, made from numbers; `../../python/peer.py` makes the same.
//!
//! Always true: a message's text begins with its number and the word of its topic; each topic has one message in a thousand.

use crate::random::Random;

/// A message: who says it, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub role: &'static str,
    pub text: String,
}

pub(super) const TOPICS: u64 = 1_000;
const WORDS_PER_MESSAGE: u64 = 55;
const WORDS: [&str; 32] = [
    "the", "of", "and", "report", "sales", "year", "market", "house", "which", "before", "river", "people", "found",
    "after", "number", "question", "answer", "little", "garden", "because", "window", "music", "north", "paper",
    "machine", "green", "winter", "station", "letter", "simple", "travel", "morning",
];

/// The message of this number: users and assistants take turns.
#[must_use]
pub fn message(number: u64) -> Said {
    let mut random = Random::new(4, number);
    let mut text = format!("m{number} {}", topic(number));
    for _ in 0..WORDS_PER_MESSAGE {
        text.push(' ');
        text.push_str(WORDS[random.below(WORDS.len() as u64) as usize]);
    }
    Said { role: if number.is_multiple_of(2) { "user" } else { "assistant" }, text }
}

/// The word of a message's topic.
#[must_use]
pub fn topic(number: u64) -> String {
    format!("topic{}", number % TOPICS)
}

/// What the text costs, by cl100k_base.
#[must_use]
pub fn tokens(text: &str) -> u64 {
    tiktoken::get_encoding("cl100k_base").map_or(0, |encoding| encoding.count(text) as u64)
}
