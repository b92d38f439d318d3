//! Messages about entities: put, read, list, rename, merge, delete.
//!
//! An entity that is not there is [`NotFound`](crate::Error::NotFound); a name without a label that several labels have is
//! [`Conflict`](crate::Error::Conflict).

use serde::{Deserialize, Serialize};

use super::{Entity, EntityId, EntityRef, NewEntity, UpsertedEntity};
use crate::filter::{FieldPath, Filter};
use crate::message::message;
use crate::names::{EntityName, Label};
use crate::vectors::Vector;

/// Stores entities; all or none. Answers what became of each, in their order.
///
/// Sending it twice leaves the same state as sending it once: the second time everything is unchanged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpsertEntities {
    /// Which; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX), each with description and properties of at most
    /// `payload_bytes_max` bytes. One that stands twice is stored twice, in their order.
    pub entities: Vec<NewEntity>,
}
message!(Graph, UpsertEntities => Vec<UpsertedEntity>, |m| m.entities.iter().map(NewEntity::size_bytes).sum::<usize>());

/// Reads entities at one instant, in the order asked for; `None` for each that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetEntities {
    /// Which; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX), and
    /// [`ANSWER_BYTES_MAX`](crate::limits::ANSWER_BYTES_MAX) of them.
    pub entities: Vec<EntityRef>,
}
message!(Graph, GetEntities => Vec<Option<Entity>>, |m| m.entities.iter().map(EntityRef::size_bytes).sum::<usize>());

/// Reads one page of entities in the order in which they were first stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListEntities {
    /// Only entities of this label.
    pub label: Option<Label>,
    /// Only entities whose properties this is true of. An entity without properties has every field missing.
    pub filter: Option<Filter>,
    /// Continue behind this one.
    pub after: Option<EntityId>,
    /// Most to return: 1 to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX). A page also ends when it holds about 4 MiB: only an
    /// empty one is the last.
    pub limit: usize,
}
message!(Graph, ListEntities => Vec<Entity>, |m| {
    m.label.as_ref().map_or(0, |label| label.as_str().len()) + m.filter.as_ref().map_or(0, Filter::size_bytes)
});

/// Gives an entity another name. Its old one stays an alias, or is free for another entity.
///
/// Sending it twice leaves the same state as sending it once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenameEntity {
    /// Which.
    pub entity: EntityRef,
    /// Its new name; one that another entity of the label has is [`Conflict`](crate::Error::Conflict).
    pub name: EntityName,
    /// Whether it is still found by the old one.
    pub keeps_alias: bool,
}
message!(Graph, RenameEntity => EntityId, |m| m.entity.size_bytes() + m.name.as_str().len());

/// Lets an entity be found by one more name; answers whether it was not before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddAlias {
    /// Which.
    pub entity: EntityRef,
    /// The name; one that another entity of the label has is [`Conflict`](crate::Error::Conflict).
    pub alias: EntityName,
}
message!(Graph, AddAlias => bool, |m| m.entity.size_bytes() + m.alias.as_str().len());

/// Takes an alias away; answers whether it was there. The entity's own name is no alias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveAlias {
    /// Whose.
    pub entity: EntityRef,
    /// The name.
    pub alias: EntityName,
}
message!(Graph, RemoveAlias => bool, |m| m.entity.size_bytes() + m.alias.as_str().len());

/// A merge's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MergeId(pub u64);

/// Makes two entities one: the facts of `from` become facts of `into`, its names aliases.
///
/// Facts that both had stay two facts; one between the two becomes one of `into` with itself. Label, description and properties
/// of `from` are kept for [`UndoMerge`]. It is one write, as long as `from` has facts (about 20 µs each), so let that be the
/// smaller one. Sending it twice is [`Conflict`](crate::Error::Conflict): both names mean one entity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeEntities {
    /// Which goes.
    pub from: EntityRef,
    /// Which stays. The same as `from` is [`Invalid`](crate::Error::Invalid).
    pub into: EntityRef,
}
message!(Graph, MergeEntities => MergeId, |m| m.from.size_bytes() + m.into.size_bytes());

/// Undoes a merge: the entity that went is there again, under its number, with its names and those of its facts that are
/// still there. What was said of the other since stays with that.
///
/// [`Conflict`](crate::Error::Conflict) when it was undone already, when the entity that stayed has gone (undo later merges
/// first), or when a name has been given to another entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndoMerge {
    /// Which.
    pub merge: MergeId,
}
message!(Graph, UndoMerge => EntityId, |_m| 0);

/// Deletes entities with all of their facts; answers how many there were.
///
/// They are gone at once for everybody, and their names are free; the rows of their facts follow bit by bit, so that one with
/// many holds nobody up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteEntities {
    /// Which; at most [`BATCH_ITEMS_MAX`](crate::limits::BATCH_ITEMS_MAX). One that is not there is no error.
    pub entities: Vec<EntityRef>,
}
message!(Graph, DeleteEntities => u64, |m| m.entities.iter().map(EntityRef::size_bytes).sum::<usize>());

/// Reads an entity's embedding. `None`: it has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetEmbedding {
    /// Whose.
    pub entity: EntityRef,
}
message!(Graph, GetEmbedding => Option<Vector>, |m| m.entity.size_bytes());

/// Declares a field of the entities' properties, so that filters on it use an index; answers whether it was new.
///
/// It takes as long as reading every entity's properties once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclareEntityField {
    /// Which: 1 to 8 keys of ASCII letters, digits, `_` and `-`.
    pub field: FieldPath,
}
message!(Graph, DeclareEntityField => bool, |m| m.field.0.iter().map(String::len).sum::<usize>());
