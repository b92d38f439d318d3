//! From a prompt to an answer.

use std::collections::HashSet;

use larder::{BoxError, ChatMessage, Passage};

/// Everything that a model is to read.
pub(crate) struct Prompt<'a> {
    /// The question, with what it refers to.
    pub(crate) question: &'a str,
    /// The conversation so far, as much as fits; a real model reads it.
    pub(crate) said: &'a [ChatMessage],
    /// What was retrieved, best first.
    pub(crate) passages: &'a [Passage],
}

/// What answers: a real model goes in by this trait.
pub(crate) trait Answerer {
    /// Returns the answer.
    ///
    /// # Errors
    /// Whatever a model's client says.
    async fn answer(&self, prompt: &Prompt<'_>) -> Result<String, BoxError>;
}

/// **Simple, for trying things out**: quotes the two sentences that hold most of the question's words. It understands nothing.
pub(crate) struct QuotingAnswerer;

/// Sentences that are quoted.
const QUOTED: usize = 2;
/// Shorter words say little.
const WORD_CHARS_MIN: usize = 4;

impl Answerer for QuotingAnswerer {
    async fn answer(&self, prompt: &Prompt<'_>) -> Result<String, BoxError> {
        let asked = words(prompt.question);
        // It says nothing twice in a row.
        let last = prompt.said.last().and_then(ChatMessage::text).unwrap_or_default();
        let sentences = prompt.passages.iter().flat_map(|passage| sentences(passage.text()));
        let mut scored: Vec<(usize, &str)> = sentences
            .filter(|sentence| !last.contains(sentence))
            .map(|sentence| (words(sentence).intersection(&asked).count(), sentence))
            .filter(|(score, _)| *score > 0)
            .collect();
        // Stable: of those that hold as many words, the best passage's come first.
        scored.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
        let quoted: Vec<&str> = scored.into_iter().take(QUOTED).map(|(_, sentence)| sentence).collect();
        if quoted.is_empty() { Ok("I found nothing about that.".to_owned()) } else { Ok(quoted.join(" ")) }
    }
}

fn words(text: &str) -> HashSet<String> {
    let words = text.split(|c: char| !c.is_alphanumeric());
    words.filter(|word| word.chars().count() >= WORD_CHARS_MIN).map(str::to_lowercase).collect()
}

/// Returns what in a passage is a sentence, and no heading, table or code.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let prose = text.split("\n\n").filter(|part| !part.starts_with(['#', '|', '`', '<']));
    prose
        .flat_map(|part| part.split_inclusive(['.', '?', '!']))
        .map(|part| part.trim().trim_start_matches("- "))
        .filter(|part| part.len() > 20)
}
