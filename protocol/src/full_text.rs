//! How a full-text index takes texts apart, as plain data.

use serde::{Deserialize, Serialize};

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
