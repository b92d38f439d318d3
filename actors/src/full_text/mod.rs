//! Full-text search over SQLite's FTS5, for every store that has texts.
//!
//! Start at [`plain_query`], which turns what a user typed into a query that FTS5 cannot misread.
//!
//! Always true: no text of a caller's is FTS5 syntax; a store keeps its index in the same transaction as its rows.

mod check;
mod query;

pub(crate) use check::check;
pub use query::plain_query;

/// How texts are split into words: Unicode letters and digits, in any case, with or without accents.
///
/// It stands in a store's migration, since an index is only readable by the tokenizer that made it.
pub const TOKENIZER: &str = "unicode61 remove_diacritics 2";

/// Words in a snippet; FTS5 takes at most 64.
pub const SNIPPET_WORDS: u32 = 16;

/// Returns the SQL expression for a snippet of the first column of the FTS5 table `table`, a trusted name.
#[must_use]
pub fn snippet(table: &'static str) -> String {
    format!("snippet({table}, 0, '[', ']', '…', {SNIPPET_WORDS})")
}
