//! Messages about facts: put, read, list, invalidate, delete.

use serde::{Deserialize, Serialize};

use super::{AsOf, EntityRef, NewRelation, Relation, RelationId, UpsertedRelation};
use crate::filter::Filter;
use crate::message::message;
use crate::names::{Label, SourceId};
use crate::time::Timestamp;

/// Stores facts; all or none. Answers what became of each, in their order.
///
/// A fact that is there already keeps its number; how it was before is kept for questions as of then. Sending it twice leaves
/// the same state as sending it once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpsertRelations {
    /// Which; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX).
    pub relations: Vec<NewRelation>,
    /// Whether an entity that is named and not there is made, with the label that is named or
    /// [`DEFAULT_LABEL`](super::DEFAULT_LABEL); otherwise it is [`NotFound`](crate::Error::NotFound). A number is never made.
    pub creates_entities: bool,
}
message!(Graph, UpsertRelations => Vec<UpsertedRelation>, |m| {
    m.relations.iter().map(NewRelation::size_bytes).sum::<usize>()
});

/// Reads facts at one instant, as they are now, in the order asked for; `None` for each that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetRelations {
    /// Which; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX), and
    /// [`ANSWER_BYTES_MAX`](crate::limits::ANSWER_BYTES_MAX) of them.
    pub ids: Vec<RelationId>,
}
message!(Graph, GetRelations => Vec<Option<Relation>>, |m| m.ids.len() * size_of::<RelationId>());

/// Reads one page of facts in the order of their numbers. What is `None` does not narrow it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FindRelations {
    /// Of which entity.
    pub subject: Option<EntityRef>,
    /// What is said.
    pub label: Option<Label>,
    /// About which.
    pub object: Option<EntityRef>,
    /// Said by which source.
    pub source: Option<SourceId>,
    /// Only facts whose properties this is true of.
    pub filter: Option<Filter>,
    /// As of when.
    pub as_of: AsOf,
    /// Continue behind this one.
    pub after: Option<RelationId>,
    /// Most to return: 1 to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
    pub limit: usize,
}
message!(Graph, FindRelations => RelationPage, |m| {
    let ends = [&m.subject, &m.object].into_iter().flatten().map(EntityRef::size_bytes).sum::<usize>();
    ends + m.filter.as_ref().map_or(0, Filter::size_bytes)
});

/// One page of facts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RelationPage {
    /// The facts. A page also ends early when it holds about 4 MiB.
    pub relations: Vec<Relation>,
    /// Where to continue. `None`: this was the last page.
    pub next: Option<RelationId>,
}

/// Records that facts hold no longer from a time on, without deleting them; answers how many were changed.
///
/// They are found as of an earlier time, or with [`ValidAt::Any`](super::ValidAt::Any). One that is not there, or ends earlier, is
/// left alone. A fact that would end before it begins is [`Invalid`](crate::Error::Invalid).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvalidateRelations {
    /// Which; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX).
    pub ids: Vec<RelationId>,
    /// From when on. `None`: now.
    pub at: Option<Timestamp>,
}
message!(Graph, InvalidateRelations => u64, |m| m.ids.len() * size_of::<RelationId>());

/// Deletes facts with their history; answers how many there were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteRelations {
    /// Which; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX).
    pub ids: Vec<RelationId>,
}
message!(Graph, DeleteRelations => u64, |m| m.ids.len() * size_of::<RelationId>());

/// Deletes every fact of one subject, label and object, with their history; answers how many there were.
///
/// Other facts, also of the same label, stay, and so do the entities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteTriplet {
    /// Of which entity.
    pub subject: EntityRef,
    /// What is said.
    pub label: Label,
    /// About which.
    pub object: EntityRef,
}
message!(Graph, DeleteTriplet => u64, |m| m.subject.size_bytes() + m.object.size_bytes() + m.label.as_str().len());

/// Removes a source, a slice of 500 facts at a time (about 10 ms of the writer's): facts that nothing else says are deleted,
/// others lose it.
///
/// Between two slices the source still says the rest. Sending it twice leaves the same state as sending it once, behind the last
/// slice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveSource {
    /// Which.
    pub source: SourceId,
    /// Whether entities that thereby lose their last fact go, too.
    pub removes_lone_entities: bool,
}
message!(Graph, RemoveSource => SourceSlice, |m| m.source.as_str().len());

/// What one slice of a source's removal did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SourceSlice {
    /// What became of the slice's facts.
    pub removal: SourceRemoval,
    /// Whether the source says nothing any more; else send the message again.
    pub is_last: bool,
}

/// What became of the facts of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SourceRemoval {
    /// How many facts nothing else said.
    pub deleted: u64,
    /// How many facts others say, too.
    pub kept: u64,
    /// How many entities lost their last fact and went.
    pub deleted_entities: u64,
}

impl std::ops::AddAssign for SourceRemoval {
    fn add_assign(&mut self, more: Self) {
        self.deleted += more.deleted;
        self.kept += more.kept;
        self.deleted_entities += more.deleted_entities;
    }
}

/// Makes what sources say exactly these facts; all in one write.
///
/// A fact that a source said before and no longer says loses it, and is deleted if nothing else says it. A fact whose ends
/// cannot be told, since a name means several entities or a number none, is left out and counted. Sending it twice leaves the
/// same state as sending it once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplaceSources {
    /// Which sources, each once, with all that they say; together at most
    /// [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX) facts and sources.
    pub sources: Vec<SourceFacts>,
    /// Whether entities go that thereby lose their last fact, and of which nothing but label and name was ever said.
    pub removes_bare_entities: bool,
}
message!(Graph, ReplaceSources => ReplacedSources, |m| {
    m.sources.iter().map(SourceFacts::size_bytes).sum::<usize>()
});

/// One source, and what it says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceFacts {
    /// Which.
    pub source: SourceId,
    /// What it says; sources that these name are of no account. Empty: nothing any more.
    pub relations: Vec<NewRelation>,
}

impl SourceFacts {
    /// Returns about how many bytes it takes in memory.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let facts: usize = self.relations.iter().map(NewRelation::size_bytes).sum();
        size_of::<Self>() + self.source.as_str().len() + facts
    }
}

/// What became of sources that were replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReplacedSources {
    /// How many facts are said by them now.
    pub said: u64,
    /// How many were left out.
    pub refused: u64,
    /// How many they said and nothing says any more.
    pub deleted: u64,
    /// How many they said, and others still do.
    pub kept: u64,
    /// How many bare entities went.
    pub deleted_entities: u64,
}

/// Lists sources that say anything, in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListSources {
    /// Only those whose ids begin so. Empty: all.
    pub prefix: String,
    /// Continue behind this one.
    pub after: Option<SourceId>,
    /// Most to return: 1 to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
    pub limit: usize,
}
message!(Graph, ListSources => Vec<SourceId>, |m| m.prefix.len());
