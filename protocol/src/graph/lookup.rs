//! Finding entities by what they are called, described as, or like.

use serde::{Deserialize, Serialize};

use super::EntitySummary;
use crate::full_text::TextQuery;
use crate::message::message;
use crate::names::{EntityName, Label, SourceId};
use crate::vectors::Vector;

/// Finds entities by a text, best first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookUpEntities {
    /// By what.
    pub by: EntityLookup,
    /// Only entities of this label.
    pub label: Option<Label>,
    /// Most to return: up to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX); misspelt names: up to 1,000.
    pub limit: usize,
}
message!(Graph, LookUpEntities => Vec<EntityHit>, |m| {
    let text = match &m.by {
        EntityLookup::Exact(text) | EntityLookup::Prefix(text) | EntityLookup::Misspelt(text) => text.len(),
        EntityLookup::Text(query) => query.size_bytes(),
    };
    text + m.label.as_ref().map_or(0, |label| label.as_str().len())
});

/// By what entities are looked up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EntityLookup {
    /// They have this name or alias, to the byte; in the order of their labels.
    Exact(String),
    /// They have a name or alias that begins so, to the byte; in the order of the names.
    Prefix(String),
    /// Their names and descriptions hold this; best first, by BM25.
    Text(TextQuery),
    /// They have a name or alias that is written nearly so, or has a part that is, in any case; those with the fewest letters to
    /// change first. Whole words come before parts of words, which are a letter off for each end inside a word.
    Misspelt(String),
}

/// An entity that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EntityHit {
    /// Who.
    pub entity: EntitySummary,
    /// The name or alias that was found, where it was found by one.
    pub matched: Option<EntityName>,
    /// How well it fits, higher is better: 1 for exact and prefix; by a text, BM25; misspelt, how much of
    /// the text is in the name, 0 to 1; similar, the cosine of the embeddings.
    pub score: f64,
}

/// Finds the entities whose embeddings are nearest to a vector, best first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FindSimilarEntities {
    /// To what; of the dimensions of the graph's embeddings, and not of zeros alone.
    pub embedding: Vector,
    /// Only entities of this label.
    pub label: Option<Label>,
    /// Most to return: up to [`SEARCH_POINTS_MAX`](crate::limits::SEARCH_POINTS_MAX).
    pub limit: usize,
}
message!(Graph, FindSimilarEntities => Vec<EntityHit>, |m| size_of_val(m.embedding.as_slice()));

/// Finds the sources that say something about named entities, now; best first: those whose facts name the most of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindMentions {
    /// What the entities may be called, to the byte: names that nothing has are of no account. At most
    /// [`MENTIONED_NAMES_MAX`](crate::limits::MENTIONED_NAMES_MAX).
    pub names: Vec<String>,
    /// Only sources whose ids begin so. Empty: all.
    pub prefix: String,
    /// How many of the newest facts of each entity to look at, on either side: 1 to 1,000.
    pub facts_max: usize,
    /// Most to return: 1 to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
    pub limit: usize,
}
message!(Graph, FindMentions => Vec<Mention>, |m| m.names.iter().map(String::len).sum::<usize>() + m.prefix.len());

/// A source that says something about entities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mention {
    /// Which.
    pub source: SourceId,
    /// The sum over its facts of how many of the entities each names, 1 or 2.
    pub score: f64,
    /// The first of those facts: subject, what is said, object.
    pub fact: (EntitySummary, Label, EntitySummary),
}
