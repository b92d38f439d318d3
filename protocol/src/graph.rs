//! A knowledge graph: entities, and the facts that relate them, with their sources and times.
//!
//! Start at [`NewEntity`] and [`NewRelation`], what is stored, then [`FindNeighbors`] and its like, what is asked.
//!
//! Always true: an entity's id, and a relation's, never mean another one, even after a delete; a name means one entity of
//! its label.

mod entities;
mod lookup;
mod relations;
mod traversal;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::json_text::JsonText;
use crate::limits::QUALIFIER_BYTES_MAX;
use crate::names::{EntityName, Label, SourceId};
use crate::time::Timestamp;
use crate::vectors::Vector;

pub use entities::{
    AddAlias, DeclareEntityField, DeleteEntities, GetEmbedding, GetEntities, ListEntities, MergeEntities, MergeId,
    RemoveAlias, RenameEntity, UndoMerge, UpsertEntities,
};
pub use lookup::{EntityHit, EntityLookup, FindMentions, FindSimilarEntities, LookUpEntities, Mention};
pub use relations::{
    DeleteRelations, DeleteTriplet, FindRelations, GetRelations, InvalidateRelations, ListSources, RelationPage,
    RemoveSource, ReplaceSources, ReplacedSources, SourceFacts, SourceRemoval, SourceSlice, UpsertRelations,
};
pub use traversal::{
    CountGraph, Degree, DescribeSchema, FindNeighborhood, FindNeighbors, FindPaths, FindShortestPath, Follow,
    GetDegree, GraphCounts, GraphPath, MapRelations, Neighbor, NeighborOrder, RankEntities, RankedEntity,
    RankedRelation, Reached, SchemaSummary, SchemaTriple, Seed, SelectSubgraph, Step, Subgraph, Traversal, Triplet,
    TripletHop, check_hops, check_seeds,
};

/// The label of entities whose kind nobody said.
pub const DEFAULT_LABEL: &str = "entity";

/// An entity's number: that of the write that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntityId(pub u64);

/// A relation's number: that of the write that made it. It stays when the relation is updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RelationId(pub u64);

impl std::fmt::Display for EntityId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl std::fmt::Display for RelationId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Which entity is meant.
///
/// # Examples
/// ```
/// use larder_protocol::graph::{EntityRef, ToEntity};
///
/// let by_name = "SQLite".to_entity()?; // of any label, if only one has the name
/// let of_label = EntityRef::labelled("software", "SQLite")?;
/// assert_ne!(by_name, of_label);
/// assert!("".to_entity().is_err());
/// # Ok::<(), larder_protocol::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EntityRef {
    /// That of this number.
    Id(EntityId),
    /// That of this name or alias.
    Name {
        /// The name.
        name: EntityName,
        /// Its label. `None`: whichever has the name; where several labels have it, that is a conflict.
        label: Option<Label>,
    },
}

impl EntityRef {
    /// Returns the entity of this label with this name or alias.
    ///
    /// # Errors
    /// When label or name cannot be used.
    pub fn labelled(label: impl AsRef<str>, name: impl AsRef<str>) -> Result<Self, Error> {
        Ok(Self::Name { name: EntityName::new(name)?, label: Some(Label::new(label)?) })
    }

    pub(crate) fn size_bytes(&self) -> usize {
        let heap = match self {
            Self::Id(_) => 0,
            Self::Name { name, label } => name.as_str().len() + label.as_ref().map_or(0, |label| label.as_str().len()),
        };
        size_of::<Self>() + heap
    }
}

impl std::fmt::Display for EntityRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => write!(f, "entity {id}"),
            Self::Name { name, label: None } => write!(f, "entity {:?}", name.as_str()),
            Self::Name { name, label: Some(label) } => write!(f, "entity {:?} ({:?})", name.as_str(), label.as_str()),
        }
    }
}

/// What names an entity: a name, a number, a label and a name, or an entity that was read.
pub trait ToEntity {
    /// Returns which entity it names.
    ///
    /// # Errors
    /// When it is a name that cannot be one.
    fn to_entity(self) -> Result<EntityRef, Error>;
}

impl ToEntity for &str {
    fn to_entity(self) -> Result<EntityRef, Error> {
        Ok(EntityRef::Name { name: EntityName::new(self)?, label: None })
    }
}

impl ToEntity for &String {
    fn to_entity(self) -> Result<EntityRef, Error> {
        self.as_str().to_entity()
    }
}

impl ToEntity for String {
    fn to_entity(self) -> Result<EntityRef, Error> {
        self.as_str().to_entity()
    }
}

impl ToEntity for (&str, &str) {
    fn to_entity(self) -> Result<EntityRef, Error> {
        EntityRef::labelled(self.0, self.1)
    }
}

impl ToEntity for EntityId {
    fn to_entity(self) -> Result<EntityRef, Error> {
        Ok(EntityRef::Id(self))
    }
}

impl ToEntity for EntityRef {
    fn to_entity(self) -> Result<EntityRef, Error> {
        Ok(self)
    }
}

impl ToEntity for &EntityRef {
    fn to_entity(self) -> Result<EntityRef, Error> {
        Ok(self.clone())
    }
}

impl ToEntity for &EntitySummary {
    fn to_entity(self) -> Result<EntityRef, Error> {
        Ok(EntityRef::Id(self.id))
    }
}

impl ToEntity for &Entity {
    fn to_entity(self) -> Result<EntityRef, Error> {
        Ok(EntityRef::Id(self.id))
    }
}

/// What an entity is called.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EntitySummary {
    /// Its number.
    pub id: EntityId,
    /// What kind of thing it is.
    pub label: Label,
    /// Its name.
    pub name: EntityName,
}

/// An entity, as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entity {
    /// Its number.
    pub id: EntityId,
    /// What kind of thing it is.
    pub label: Label,
    /// Its name.
    pub name: EntityName,
    /// Other names that it is found by, in their order.
    pub aliases: Vec<EntityName>,
    /// What it is, in words; full-text lookups read it beside the name.
    pub description: Option<String>,
    /// The program's own facts about it: a JSON object, which filters can read.
    pub properties: Option<JsonText>,
    /// When it was first stored.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
}

/// An entity to store. What is `None` stays as it is where the entity is there already.
///
/// # Examples
/// ```
/// use larder_protocol::JsonText;
/// use larder_protocol::graph::NewEntity;
///
/// let entity = NewEntity::new("software", "SQLite")?
///     .with_description("An embedded SQL database.")
///     .with_properties(JsonText::new(r#"{"since": 2000}"#)?);
/// assert!(NewEntity::new("software", "").is_err());
/// # Ok::<(), larder_protocol::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewEntity {
    /// What kind of thing it is.
    pub label: Label,
    /// Its name; an alias means the entity that has it.
    pub name: EntityName,
    /// What it is, in words.
    pub description: Option<String>,
    /// A JSON object, in the place of the one that is there; `{}` leaves none.
    pub properties: Option<JsonText>,
    /// What similar entities are found by; all embeddings of a graph have the same dimensions.
    pub embedding: Option<Vector>,
}

impl NewEntity {
    /// Returns an entity of which only label and name are said.
    ///
    /// # Errors
    /// When label or name cannot be used.
    pub fn new(label: impl AsRef<str>, name: impl AsRef<str>) -> Result<Self, Error> {
        let (label, name) = (Label::new(label)?, EntityName::new(name)?);
        Ok(Self { label, name, description: None, properties: None, embedding: None })
    }

    /// Returns the entity with a description.
    #[must_use]
    pub fn with_description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Returns the entity with properties.
    #[must_use]
    pub fn with_properties(mut self, properties: JsonText) -> Self {
        self.properties = Some(properties);
        self
    }

    /// Returns the entity with an embedding.
    ///
    /// # Errors
    /// When it is not a vector: see [`Vector::new`].
    pub fn with_embedding(mut self, embedding: impl Into<Vec<f32>>) -> Result<Self, Error> {
        self.embedding = Some(Vector::new(embedding)?);
        Ok(self)
    }

    /// Returns the bytes of description and properties.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.description.as_deref().map_or(0, str::len) + self.properties.as_ref().map_or(0, |json| json.as_str().len())
    }

    pub(crate) fn size_bytes(&self) -> usize {
        let embedding = self.embedding.as_ref().map_or(0, |vector| size_of_val(vector.as_slice()));
        size_of::<Self>() + self.label.as_str().len() + self.name.as_str().len() + self.payload_bytes() + embedding
    }
}

/// When a fact holds in the world: from a time until, but not at, another. A side that is `None` is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Validity {
    /// Since when.
    pub from: Option<Timestamp>,
    /// Until when.
    pub until: Option<Timestamp>,
}

impl Validity {
    /// Returns whether it holds at a time.
    #[must_use]
    pub fn holds_at(self, at: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= at) && self.until.is_none_or(|until| at < until)
    }
}

/// A fact to store: a subject, what is said, and an object.
///
/// The same subject, label, object and qualifier are the same fact: what is `None` stays as it is there, and sources are added.
///
/// # Examples
/// ```
/// use larder_protocol::graph::{EntityRef, NewRelation, ToEntity};
///
/// let (subject, object) = (EntityRef::labelled("project", "larder")?, "SQLite".to_entity()?);
/// let fact = NewRelation::new(subject, "uses", object)?.with_weight(2.0).with_source("readme.md#1")?;
/// assert_eq!(fact.label.as_str(), "uses");
/// # Ok::<(), larder_protocol::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewRelation {
    /// Of which entity.
    pub subject: EntityRef,
    /// What is said.
    pub label: Label,
    /// About which.
    pub object: EntityRef,
    /// Tells several facts of the same subject, label and object apart; empty for the usual one.
    pub qualifier: String,
    /// How much it counts: over 0, up to 1e9. A new fact without one counts 1.
    pub weight: Option<f64>,
    /// A JSON object, in the place of the one that is there; `{}` leaves none.
    pub properties: Option<JsonText>,
    /// When it holds; always, where a new fact does not say.
    pub validity: Option<Validity>,
    /// What said so.
    pub sources: Vec<SourceId>,
}

impl NewRelation {
    /// Returns a fact of which only subject, label and object are said.
    ///
    /// # Errors
    /// When a name cannot be used.
    pub fn new(subject: impl ToEntity, label: impl AsRef<str>, object: impl ToEntity) -> Result<Self, Error> {
        let (subject, label, object) = (subject.to_entity()?, Label::new(label)?, object.to_entity()?);
        let (qualifier, sources) = (String::new(), Vec::new());
        Ok(Self { subject, label, object, qualifier, weight: None, properties: None, validity: None, sources })
    }

    /// Returns the fact with a qualifier.
    #[must_use]
    pub fn with_qualifier(mut self, qualifier: impl Into<String>) -> Self {
        self.qualifier = qualifier.into();
        self
    }

    /// Returns the fact with a weight.
    #[must_use]
    pub fn with_weight(mut self, weight: f64) -> Self {
        self.weight = Some(weight);
        self
    }

    /// Returns the fact with properties.
    #[must_use]
    pub fn with_properties(mut self, properties: JsonText) -> Self {
        self.properties = Some(properties);
        self
    }

    /// Returns the fact with the time in which it holds.
    #[must_use]
    pub fn with_validity(mut self, from: Option<Timestamp>, until: Option<Timestamp>) -> Self {
        self.validity = Some(Validity { from, until });
        self
    }

    /// Returns the fact with one more source.
    ///
    /// # Errors
    /// When the source's id cannot be used.
    pub fn with_source(mut self, source: impl AsRef<str>) -> Result<Self, Error> {
        self.sources.push(SourceId::new(source)?);
        Ok(self)
    }

    /// Checks what the types cannot: the qualifier, the weight, the order of times.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::TooLarge`] with what is wrong.
    pub fn check(&self) -> Result<(), Error> {
        let (bytes, bytes_max) = (self.qualifier.len() as u64, QUALIFIER_BYTES_MAX as u64);
        if bytes > bytes_max {
            return Err(Error::TooLarge { what: "qualifier".to_owned(), bytes, bytes_max });
        }
        if self.qualifier.contains('\0') {
            return Err(Error::invalid("qualifier", "it contains a NUL character"));
        }
        if self.weight.is_some_and(|weight| !(weight > 0.0 && weight <= WEIGHT_MAX)) {
            return Err(Error::invalid("weight", format!("it is not over 0 and up to {WEIGHT_MAX}")));
        }
        check_validity(self.validity.unwrap_or_default())?;
        if self.sources.len() > crate::limits::SOURCES_PER_RELATION_MAX {
            return Err(Error::invalid("sources", format!("they are {}, too many", self.sources.len())));
        }
        Ok(())
    }

    /// Returns the bytes of the properties.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.properties.as_ref().map_or(0, |json| json.as_str().len())
    }

    pub(crate) fn size_bytes(&self) -> usize {
        let sources: usize = self.sources.iter().map(|id| size_of::<SourceId>() + id.as_str().len()).sum();
        let texts = self.label.as_str().len() + self.qualifier.len() + self.payload_bytes();
        size_of::<Self>() + self.subject.size_bytes() + self.object.size_bytes() + texts + sources
    }
}

/// Largest weight of a relation or a seed: sums of millions of them are exact enough.
pub const WEIGHT_MAX: f64 = 1e9;

pub(crate) fn check_validity(validity: Validity) -> Result<(), Error> {
    match (validity.from, validity.until) {
        (Some(from), Some(until)) if from >= until => Err(Error::invalid("validity", "it ends before it begins")),
        _ => Ok(()),
    }
}

/// A fact, as it is stored, or as it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Relation {
    /// Its number.
    pub id: RelationId,
    /// Of which entity.
    pub subject: EntitySummary,
    /// What is said.
    pub label: Label,
    /// About which.
    pub object: EntitySummary,
    /// Tells it from others of the same subject, label and object; empty for the usual one.
    pub qualifier: String,
    /// How much it counts.
    pub weight: f64,
    /// A JSON object.
    pub properties: Option<JsonText>,
    /// When it holds in the world.
    pub validity: Validity,
    /// When this was recorded.
    pub recorded: Timestamp,
    /// When it was recorded to be otherwise. `None`: it is not.
    pub superseded: Option<Timestamp>,
    /// What says so now, in their order.
    pub sources: Vec<SourceId>,
}

/// As of when a question is asked. Default: what holds now, as it is known now.
///
/// # Examples
/// ```
/// use larder_protocol::Timestamp;
/// use larder_protocol::graph::{AsOf, ValidAt};
///
/// let then = AsOf { valid: ValidAt::Time(Timestamp(0)), recorded: None };
/// assert_ne!(then, AsOf::default());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct AsOf {
    /// Which facts: by when they hold in the world.
    pub valid: ValidAt,
    /// As they were known at this time. `None`: as they are known now.
    pub recorded: Option<Timestamp>,
}

/// Which facts, by when they hold in the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ValidAt {
    /// Those that hold at the time of the request.
    #[default]
    Now,
    /// Those that hold at this time.
    Time(Timestamp),
    /// All, whenever they hold.
    Any,
}

/// What became of one item of an upsert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was not there.
    Inserted,
    /// Something of it was changed.
    Updated,
    /// It was there as it is; nothing was written.
    Unchanged,
}

/// An entity that was put, and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpsertedEntity {
    /// Its number.
    pub id: EntityId,
    /// What became of it.
    pub outcome: Outcome,
}

/// A fact that was put, and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpsertedRelation {
    /// Its number.
    pub id: RelationId,
    /// What became of it.
    pub outcome: Outcome,
}
