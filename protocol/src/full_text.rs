//! How texts are taken apart, and what to look for in them, as data: words, beginnings of words, phrases, and how they are
//! combined.
//!
//! Start at [`TextQuery`]; a plain `&str` is one, too.
//!
//! Always true: no text in a query is syntax, so that no query can be malformed.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::limits::QUERY_BYTES_MAX;

/// How texts and queries are split into the words that a full-text search compares.
///
/// It is a setting of a store. Opening a folder with another one makes the store's index anew, which takes about a second
/// for 100,000 messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Tokenizer {
    /// Words are letters and digits of any script, compared in any case, with or without accents.
    #[default]
    Unicode,
    /// The same without English endings (Porter's stemmer): `run` finds `running`.
    Porter,
    /// Every three characters that stand together: a query's word is found inside words, which also serves scripts that
    /// set no spaces. The index is several times larger, and words of one or two characters are left out of a query.
    Trigram,
}

/// What a text must and must not hold. A query without any word to look for finds nothing.
///
/// # Examples
/// ```
/// use larder_protocol::full_text::TextQuery;
///
/// let plain = TextQuery::from("sales AND (report"); // Four words, none of them an operator.
/// let typed = TextQuery::words("report").phrase("last year").either_words(["sales", "revenue"]).without_words("draft");
/// let as_typed = TextQuery::begun("sales rep"); // The last word may go on.
/// # for query in [plain, typed, as_typed] { query.check()? }
/// # Ok::<(), larder_protocol::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct TextQuery {
    /// The text holds each of these.
    pub required: Vec<Term>,
    /// The text holds at least one of these; none given: no condition.
    pub alternatives: Vec<Term>,
    /// The text holds none of these. Alone they find nothing.
    pub excluded: Vec<Term>,
}

/// A part of a query. Words match whole, as the store's tokenizer has them: in any case, with or without accents.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Term {
    /// Every word of the text, anywhere and in any order.
    Words(String),
    /// The words of the text, one behind the other.
    Phrase(String),
    /// The words of the text, one behind the other, of which the last may be only the beginning of one.
    Prefix(String),
}

impl Term {
    /// Returns the text.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Words(text) | Self::Phrase(text) | Self::Prefix(text) => text,
        }
    }
}

impl TextQuery {
    /// Returns the query for every word of what a user typed.
    pub fn words(text: impl Into<String>) -> Self {
        Self { required: vec![Term::Words(text.into())], ..Self::default() }
    }

    /// Returns the query for every word of what a user is still typing: the last may be only the beginning of one.
    #[must_use]
    pub fn begun(text: &str) -> Self {
        let is_word = char::is_alphanumeric;
        let last = text.rfind(is_word).map(|end| text.get(..end).unwrap_or_default());
        let start = last.and_then(|before| before.char_indices().rev().find(|(_, c)| !is_word(*c)));
        let at = start.map_or(0, |(at, c)| at + c.len_utf8());
        let (whole, begun) = text.split_at_checked(at).unwrap_or((text, ""));
        Self { required: vec![Term::Words(whole.to_owned()), Term::Prefix(begun.to_owned())], ..Self::default() }
    }

    /// Returns the query that also requires words one behind the other.
    #[must_use]
    pub fn phrase(mut self, text: impl Into<String>) -> Self {
        self.required.push(Term::Phrase(text.into()));
        self
    }

    /// Returns the query that also requires a word that begins so.
    #[must_use]
    pub fn prefix(mut self, text: impl Into<String>) -> Self {
        self.required.push(Term::Prefix(text.into()));
        self
    }

    /// Returns the query that also requires one of these, each all of its words.
    #[must_use]
    pub fn either_words<T: Into<String>>(mut self, texts: impl IntoIterator<Item = T>) -> Self {
        self.alternatives.extend(texts.into_iter().map(|text| Term::Words(text.into())));
        self
    }

    /// Returns the query that excludes texts with all of these words.
    #[must_use]
    pub fn without_words(mut self, text: impl Into<String>) -> Self {
        self.excluded.push(Term::Words(text.into()));
        self
    }

    /// Returns the bytes of all its texts.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.terms().map(|term| size_of::<Term>() + term.text().len()).sum()
    }

    /// Checks that its texts together have at most [`QUERY_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// [`Error::TooLarge`] where they have more.
    pub fn check(&self) -> Result<()> {
        // An empty term counts too, so that their number is bounded.
        let bytes: usize = self.terms().map(|term| term.text().len().max(1)).sum();
        if bytes <= QUERY_BYTES_MAX {
            return Ok(());
        }
        let (bytes, bytes_max) = (bytes as u64, QUERY_BYTES_MAX as u64);
        Err(Error::TooLarge { what: "search query".to_owned(), bytes, bytes_max })
    }

    fn terms(&self) -> impl Iterator<Item = &Term> {
        self.required.iter().chain(&self.alternatives).chain(&self.excluded)
    }
}

impl From<&str> for TextQuery {
    fn from(text: &str) -> Self {
        Self::words(text)
    }
}

impl From<String> for TextQuery {
    fn from(text: String) -> Self {
        Self::words(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(text: &str) -> (String, String) {
        let query = TextQuery::begun(text);
        (query.required[0].text().to_owned(), query.required[1].text().to_owned())
    }

    #[test]
    fn the_last_word_is_the_one_begun() {
        for (text, whole, last) in [
            ("sales rep", "sales ", "rep"),
            ("é", "", "é"),
            ("a b-", "a ", "b-"),
            ("", "", ""),
            ("日本 語", "日本 ", "語"),
        ] {
            assert_eq!(begun(text), (whole.to_owned(), last.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn size_is_bounded_by_text_and_by_number_of_terms() {
        assert!(TextQuery::words("x".repeat(QUERY_BYTES_MAX)).check().is_ok());
        assert!(matches!(TextQuery::words("x".repeat(1 << 20)).check(), Err(Error::TooLarge { .. })));
        let many = TextQuery::words("x").either_words(vec![""; QUERY_BYTES_MAX]);
        assert!(matches!(many.check(), Err(Error::TooLarge { .. })));
    }
}
