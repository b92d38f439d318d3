//! Counting tokens: exact, estimated, or by the caller's own function.
//!
//! Start at [`TokenCounter`]; [`count_message`] is what a store calls, away from its own thread, before an append.
//!
//! Always true: a counter's id names its results for ever; one that counts differently needs a new id, since stored
//! counts are trusted as long as the id is the same.

mod estimate;
#[cfg(feature = "tokenizers")]
mod exact;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use larder_protocol::Error;
use larder_protocol::chat::{ChatMessage, ContentBlock};

pub use estimate::Estimate;
#[cfg(feature = "tokenizers")]
pub use exact::{Cl100kBase, O200kBase};
pub use larder_protocol::chat::MessageTokens;

/// What is known about the count of two texts joined by a space, which decides how a window over joined texts is
/// found (`chat-memory-buffer`; the strict window adds stored counts and does not ask).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joining {
    /// `count(a + b) = count(a) + count(b)` whenever `b` begins with a space and `a` ends in something that is not
    /// whitespace, or `a` ends in an ASCII letter or digit and `b` begins with an ASCII character that is none, nor one
    /// of `'`, `|`, `_`. Stored counts then answer exactly, in one pass over the window.
    SplitsAtWords,
    /// Text put in front never lowers the count. Joined texts are counted, a logarithmic number of times.
    Grows,
    /// Nothing. Joined texts are counted from the whole history down, as LlamaIndex does: as slow as that.
    Unknown,
}

/// Counts the tokens of a text.
pub trait TokenCounter: fmt::Debug + Send + Sync {
    /// The counter's lasting name, stored with the counts.
    fn id(&self) -> &str;

    /// Returns the tokens of `text`, with nothing in it taken as a control token.
    fn count(&self, text: &str) -> u64;

    /// Returns the tokens of `text` when control tokens written out in it, such as `<|endoftext|>`, count as one.
    ///
    /// LlamaIndex counts so; models are not sent messages so, which is why [`count`](Self::count) does not.
    fn count_with_control_tokens(&self, text: &str) -> u64 {
        self.count(text)
    }

    /// Returns whether the two ways of counting may differ for `text`.
    fn holds_control_token(&self, _text: &str) -> bool {
        false
    }

    /// Returns what is known about joined texts.
    fn joining(&self) -> Joining;
}

/// The caller's own function as a counter.
///
/// # Examples
/// ```
/// use larder_actors::chat::tokens::{FunctionCounter, TokenCounter};
///
/// let words = FunctionCounter::new("words-1", |text| text.split_whitespace().count() as u64);
/// assert_eq!(words.count("one two"), 2);
/// ```
pub struct FunctionCounter<F> {
    id: String,
    function: F,
    joining: Joining,
}

impl<F: Fn(&str) -> u64 + Send + Sync> FunctionCounter<F> {
    /// Returns the function as a counter that [grows](Joining::Grows).
    pub fn new(id: impl Into<String>, function: F) -> Self {
        Self { id: id.into(), function, joining: Joining::Grows }
    }

    /// Returns the counter with another property of joined texts.
    ///
    /// Real tokenizers may count a token less when text is put in front. Where `chat-memory-buffer` must agree with
    /// LlamaIndex for those too, say [`Joining::Unknown`], at the price of counting the whole history.
    #[must_use]
    pub fn with_joining(mut self, joining: Joining) -> Self {
        self.joining = joining;
        self
    }
}

impl<F> fmt::Debug for FunctionCounter<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionCounter").field("id", &self.id).field("joining", &self.joining).finish_non_exhaustive()
    }
}

impl<F: Fn(&str) -> u64 + Send + Sync> TokenCounter for FunctionCounter<F> {
    fn id(&self) -> &str {
        &self.id
    }

    fn count(&self, text: &str) -> u64 {
        (self.function)(text)
    }

    fn joining(&self) -> Joining {
        self.joining
    }
}

/// The text that LlamaIndex counts for a message without any text: Python's `str(None)`.
pub const TEXT_OF_NONE: &str = "None";

/// Counts a message.
///
/// It runs the counter, so it belongs on the caller's side or a thread for such work, never on a store's thread.
///
/// # Errors
/// [`Error::Invalid`] when the counter panics.
pub fn count_message(counter: &dyn TokenCounter, message: &ChatMessage) -> Result<MessageTokens, Error> {
    catch_unwind(AssertUnwindSafe(|| count(counter, message)))
        .map_err(|_panic| Error::invalid("token counter", format!("{} panicked", counter.id())))
}

fn count(counter: &dyn TokenCounter, message: &ChatMessage) -> MessageTokens {
    let text = message.text();
    let joined = text.as_deref().unwrap_or(TEXT_OF_NONE);
    let text_tokens = counter.count(joined);
    let other_tokens = message.blocks.iter().map(|block| count_other(counter, block)).fold(0, u64::saturating_add);
    MessageTokens {
        text: text_tokens,
        spaced_text: count_spaced(counter, joined, text_tokens),
        cost: other_tokens.saturating_add(if text.is_some() { text_tokens } else { 0 }),
        ends_blank: ends_blank(joined),
        holds_control_token: counter.holds_control_token(joined),
    }
}

fn count_other(counter: &dyn TokenCounter, block: &ContentBlock) -> u64 {
    match block {
        ContentBlock::ToolCall { name, arguments, .. } => counter.count(name).saturating_add(counter.count(arguments)),
        ContentBlock::Thinking { text, .. } => counter.count(text),
        ContentBlock::Unknown(json) => counter.count(json.as_str()),
        _ => 0,
    }
}

/// Only the first word sees the space, where the counter splits before spaces: the rest need not be counted twice.
fn count_spaced(counter: &dyn TokenCounter, text: &str, text_tokens: u64) -> u64 {
    let spaced = |part: &str| counter.count(&format!(" {part}"));
    match (counter.joining(), first_split(text)) {
        (Joining::SplitsAtWords, Some(at)) => {
            let (head, _) = text.split_at(at);
            text_tokens.saturating_sub(counter.count(head)).saturating_add(spaced(head))
        }
        _ => spaced(text),
    }
}

/// Returns whether a text that is joined on by a space would stand behind more than that one blank.
#[must_use]
pub fn ends_blank(text: &str) -> bool {
    text.is_empty() || text.ends_with(char::is_whitespace)
}

/// Returns the first place where the text may be cut without changing the sum of its counts (see
/// [`Joining::SplitsAtWords`]).
#[must_use]
pub fn first_split(text: &str) -> Option<usize> {
    splits(text).next()
}

/// Returns the last such place.
#[must_use]
pub fn last_split(text: &str) -> Option<usize> {
    splits(text).next_back()
}

/// Returns all places where the text may be cut without changing the sum of its counts.
#[must_use]
pub fn splits(text: &str) -> impl DoubleEndedIterator<Item = usize> {
    text.as_bytes().windows(2).enumerate().filter_map(|(at, pair)| match pair {
        [before, b' '] if before.is_ascii_alphanumeric() => Some(at + 1),
        [_, b' '] => text.get(..=at).filter(|before| !ends_blank(before)).map(|_| at + 1),
        // Neither an apostrophe (o200k_base keeps `don't` together) nor what stands inside `<|fim_prefix|>`.
        [before, after] if before.is_ascii_alphanumeric() && after.is_ascii() => {
            let apart = !after.is_ascii_alphanumeric() && !matches!(after, b'\'' | b'|' | b'_');
            apart.then_some(at + 1)
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use larder_protocol::JsonText;

    use super::*;

    fn bytes() -> FunctionCounter<impl Fn(&str) -> u64 + Send + Sync> {
        FunctionCounter::new("bytes", |text: &str| text.len() as u64)
    }

    #[test]
    fn a_message_without_text_costs_nothing_but_counts_as_none() {
        let call = ChatMessage::from_blocks("assistant".into(), vec![ContentBlock::tool_call("c1", "add", "{}")]);
        let tokens = count_message(&bytes(), &call).unwrap();
        assert_eq!((tokens.text, tokens.spaced_text, tokens.cost), (4, 5, 5));
        assert!(!tokens.ends_blank);
    }

    #[test]
    fn calls_thinking_and_unknown_parts_cost_and_images_do_not() {
        let message = ChatMessage::assistant("abc")
            .with_block(ContentBlock::tool_call("id", "add", "{}"))
            .with_block(ContentBlock::Thinking { text: "hm".into(), extra: None })
            .with_block(ContentBlock::Unknown(JsonText::new("[1]").unwrap()))
            .with_block(ContentBlock::image_url("https://x"));
        assert_eq!(count_message(&bytes(), &message).unwrap().cost, 3 + 5 + 2 + 3);
    }

    #[test]
    fn a_counter_that_panics_is_an_error() {
        let counter = FunctionCounter::new("broken", |_: &str| panic!("no vocabulary"));
        assert!(matches!(count_message(&counter, &ChatMessage::user("x")), Err(Error::Invalid { .. })));
    }

    #[test]
    fn splits_are_at_the_ends_of_words() {
        assert_eq!(splits("a b\nc").collect::<Vec<_>>(), [1, 3]);
        assert_eq!(splits("a.\n b. c").collect::<Vec<_>>(), [1, 5, 6]);
        assert_eq!(splits(" a").count() + splits("\n a").count() + splits("").count(), 0);
        assert_eq!(splits("ä  b").collect::<Vec<_>>(), [2]);
        assert_eq!(splits("don't<|fim_prefix|>").collect::<Vec<_>>(), [5]);
        assert_eq!((first_split("a b c"), last_split("a b c")), (Some(1), Some(3)));
    }
}
