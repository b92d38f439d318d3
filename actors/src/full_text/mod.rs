//! Full-text search over SQLite's FTS5, for every store that has texts.
//!
//! Start at [`TextIndex`], which a store declares, and [`plain_query`], which turns what a user typed into a query that
//! FTS5 cannot misread.
//!
//! Always true: no text of a caller's is FTS5 syntax; a store keeps its index in the same transaction as its rows.

mod check;
mod index;
mod query;

pub(crate) use check::check;
pub use index::TextIndex;
pub use query::plain_query;

use larder_protocol::Tokenizer;

/// Returns the SQL expression for a snippet of the first column of the index `table`, a trusted name: about 16 words.
#[must_use]
pub fn snippet(table: &'static str, tokenizer: Tokenizer) -> String {
    // FTS5 counts in its own tokens, at most 64; trigrams begin at every character.
    let tokens = if tokenizer == Tokenizer::Trigram { 64 } else { 16 };
    format!("snippet({table}, 0, '[', ']', '…', {tokens})")
}
