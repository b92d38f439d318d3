//! Full-text search over SQLite's FTS5, for every store that has texts.
//!
//! Start at [`plain_query`], which turns what a user typed into a query that FTS5 cannot misread, and [`typed_query`],
//! which does so for one that a program put together.
//!
//! Always true: no text of a caller's is FTS5 syntax; a store keeps its index in the same transaction as its rows.

mod excerpt;
mod query;

use serde::{Deserialize, Serialize};

pub use excerpt::{SNIPPET_BYTES_MAX, excerpt};
pub use query::{plain_query, typed_query};

/// How texts are split into words: Unicode letters and digits, in any case, with or without accents.
///
/// It stands in a store's migration, since an index is only readable by the tokenizer that made it.
pub const TOKENIZER: &str = Tokenizer::Unicode.arguments();

/// How texts are split into what can be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tokenizer {
    /// Into words: Unicode letters and digits, in any case, with or without accents.
    #[default]
    Unicode,
    /// Into the stems of English words, so that `connection` finds `connected`.
    Porter,
    /// Into runs of three characters, so that any part of a word of three or more is found; for scripts without spaces,
    /// and code. The index is several times as large.
    Trigram,
}

impl Tokenizer {
    /// Every tokenizer.
    pub const ALL: [Self; 3] = [Self::Unicode, Self::Porter, Self::Trigram];

    /// Returns FTS5's `tokenize` option.
    #[must_use]
    pub const fn arguments(self) -> &'static str {
        match self {
            Self::Unicode => "unicode61 remove_diacritics 2",
            Self::Porter => "porter unicode61 remove_diacritics 2",
            Self::Trigram => "trigram remove_diacritics 1",
        }
    }

    /// Returns the tokenizer's name, as settings have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unicode => "unicode",
            Self::Porter => "porter",
            Self::Trigram => "trigram",
        }
    }
}

/// Words in a snippet; FTS5 takes at most 64.
pub const SNIPPET_WORDS: u32 = 16;

/// Returns the SQL expression for a snippet of the first column of the FTS5 table `table`, a trusted name; for texts over
/// [`SNIPPET_BYTES_MAX`] use [`excerpt`].
#[must_use]
pub fn snippet(table: &'static str) -> String {
    format!("snippet({table}, 0, '[', ']', '…', {SNIPPET_WORDS})")
}
