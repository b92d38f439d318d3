//! A count without a vocabulary.
//!
//! Always true: it splits at words, so stored counts add up exactly to the count of joined texts.

use super::{Joining, TokenCounter};

/// Estimates tokens from the shapes of words: no vocabulary, no memory.
///
/// A word of ASCII letters costs a token for every seven letters begun, a number one for every three digits, any other
/// mark one, a character beyond ASCII one (emoji and other four-byte characters three), and blanks other than a single
/// space one a run. Over English chat it is 1.15 times cl100k_base (99 of 100 texts within 0.95 to 1.39); rare scripts
/// can cost more than it says (`docs/decisions/0008-token-counter.md`).
#[derive(Debug, Clone, Copy, Default)]
pub struct Estimate;

/// Letters in one token of a word; words of English prose are mostly whole tokens.
const LETTERS_PER_TOKEN: u64 = 7;
/// cl100k_base and o200k_base split numbers every three digits.
const DIGITS_PER_TOKEN: u64 = 3;

#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Letters,
    Digits,
    Blank,
    Mark,
}

impl Shape {
    fn of(byte: u8) -> Self {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => Self::Letters,
            b'0'..=b'9' => Self::Digits,
            b' ' | b'\t'..=b'\r' => Self::Blank,
            _ => Self::Mark,
        }
    }

    fn tokens(self, run: &[u8]) -> u64 {
        let length = run.len() as u64;
        match self {
            Self::Letters => length.div_ceil(LETTERS_PER_TOKEN),
            Self::Digits => length.div_ceil(DIGITS_PER_TOKEN),
            Self::Blank => u64::from(run != b" "),
            Self::Mark => run.iter().copied().map(mark_tokens).sum(),
        }
    }
}

/// A character beyond ASCII is paid for by its first byte; the bytes that continue it are free.
fn mark_tokens(byte: u8) -> u64 {
    match byte {
        0x80..0xC0 => 0,
        0xF0.. => 3,
        _ => 1,
    }
}

impl TokenCounter for Estimate {
    fn id(&self) -> &'static str {
        "estimate-1"
    }

    fn count(&self, text: &str) -> u64 {
        text.as_bytes()
            .chunk_by(|a, b| Shape::of(*a) == Shape::of(*b))
            .map(|run| run.first().map_or(0, |first| Shape::of(*first).tokens(run)))
            .sum()
    }

    fn joining(&self) -> Joining {
        Joining::SplitsAtWords
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::splits;
    use super::*;

    #[test]
    fn words_numbers_and_marks_cost_what_the_doc_says() {
        assert_eq!(Estimate.count(""), 0);
        assert_eq!(Estimate.count("one two"), 2);
        assert_eq!(Estimate.count("internationally"), 3);
        assert_eq!(Estimate.count("12345, x"), 4);
        assert_eq!(Estimate.count("a\n\nb"), 3);
        assert_eq!(Estimate.count("日本"), 2);
        assert_eq!(Estimate.count("😀"), 3);
    }

    proptest! {
        #[test]
        fn it_splits_at_words(text in "[a-c1-3 .'_|\n日]{0,16}") {
            for at in splits(&text) {
                prop_assert_eq!(Estimate.count(&text), Estimate.count(&text[..at]) + Estimate.count(&text[at..]));
            }
        }
    }
}
