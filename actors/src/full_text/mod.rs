//! Full-text search over SQLite's FTS5, for every store that has texts.
//!
//! Start at [`TextIndex`], which a store declares, and [`plain_query`], which turns what a user typed into a query that
//! FTS5 cannot misread; [`typed_query`] does so for one that a program put together.
//!
//! Always true: no text of a caller's is FTS5 syntax; a store keeps its index in the same transaction as its rows.

mod check;
mod excerpt;
mod index;
mod query;

pub(crate) use check::check;
pub use excerpt::{SNIPPET_BYTES_MAX, excerpt};
pub use index::TextIndex;
pub(crate) use index::remove;
pub use query::{plain_query, typed_query};

use larder_protocol::Tokenizer;

/// Words in a snippet.
const SNIPPET_WORDS: usize = 16;

/// Returns the SQL expression for a snippet of the first column of the index `table`, a trusted name: about 16 words. For
/// texts over [`SNIPPET_BYTES_MAX`] use [`excerpt`].
#[must_use]
pub fn snippet(table: &'static str, tokenizer: Tokenizer) -> String {
    // FTS5 counts in its own tokens, at most 64; trigrams begin at every character.
    let tokens = if tokenizer == Tokenizer::Trigram { 64 } else { SNIPPET_WORDS };
    format!("snippet({table}, 0, '[', ']', '…', {tokens})")
}
