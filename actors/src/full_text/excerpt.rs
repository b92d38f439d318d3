//! Snippets of long texts.
//!
//! FTS5's own take the square of how often the words are in the text: 30 s and more for a megabyte of few words.

use std::collections::HashSet;

use larder_protocol::full_text::{Term, TextQuery};

use super::SNIPPET_WORDS;
use super::query::{words, words_with_places};

/// Up to this many bytes FTS5 makes the snippet, at worst in about 30 ms (16 KiB of one short word).
pub const SNIPPET_BYTES_MAX: usize = 16 << 10;

/// Words in front of the first that was looked for.
const WORDS_BEFORE: usize = 4;

/// Returns the part of a text around the first word of the query, each such word between `[` and `]`; `…` where text is
/// left out. A word counts when it is written as in the query, in capitals or not, or begins as a prefix does; where none
/// is, the beginning is returned.
///
/// # Examples
/// ```
/// use larder_actors::full_text::excerpt;
///
/// let long = "some words ".repeat(2_000) + "about Sales, and more " + &"words ".repeat(2_000);
/// let found = "…words some words about [Sales], and more words words words words words words words words words…";
/// assert_eq!(excerpt(&long, &"sales".into()), found);
/// ```
#[must_use]
pub fn excerpt(text: &str, query: &TextQuery) -> String {
    let terms = || query.required.iter().chain(&query.alternatives);
    let wanted: HashSet<String> = terms().flat_map(|term| words(term.text())).map(str::to_lowercase).collect();
    let begun: Vec<String> = terms().filter_map(beginning).collect();
    let is_wanted = |word: &str| {
        let word = word.to_lowercase();
        wanted.contains(&word) || begun.iter().any(|beginning| word.starts_with(beginning))
    };
    let first = words_with_places(text).position(|(_, word)| is_wanted(word)).unwrap_or(0);
    let skipped = first.saturating_sub(WORDS_BEFORE);
    let mut shown = words_with_places(text).skip(skipped).take(SNIPPET_WORDS).peekable();
    let mut at = shown.peek().map_or(0, |(start, _)| *start);
    let mut excerpt = String::from(if skipped > 0 { "…" } else { "" });
    for (start, word) in shown {
        excerpt.push_str(text.get(at..start).unwrap_or_default());
        at = start + word.len();
        if is_wanted(word) {
            excerpt.extend(["[", word, "]"]);
        } else {
            excerpt.push_str(word);
        }
    }
    if words(text.get(at..).unwrap_or_default()).next().is_some() {
        excerpt.push('…');
    }
    excerpt
}

/// Returns the word of a term that may be only the beginning of one.
fn beginning(term: &Term) -> Option<String> {
    match term {
        Term::Prefix(text) => words(text).last().map(str::to_lowercase),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_was_begun_is_shown() {
        let long = "x ".repeat(100) + "the Warehouses of Leipzig";
        assert_eq!(excerpt(&long, &TextQuery::begun("leipzig ware")), "…x x x the [Warehouses] of [Leipzig]");
        assert!(excerpt(&long, &"ware".into()).starts_with("x x x"));
    }
}
