//! The graph store's handle.
//!
//! Always true: a method only builds a message; what it means is said at the message.

mod options;
mod removal;

pub use removal::RemovingSource;

use larder_actors::Result;
use larder_actors::graph::Graph as GraphStore;
use larder_actors::store::Notices;
use larder_protocol::filter::FieldPath;
use larder_protocol::full_text::TextQuery;
use larder_protocol::graph::{
    AddAlias, AsOf, CountGraph, DeclareEntityField, DeleteEntities, DeleteRelations, DeleteTriplet, DescribeSchema,
    Entity, EntityLookup, EntityRef, FindNeighborhood, FindNeighbors, FindPaths, FindRelations, FindShortestPath,
    FindSimilarEntities, Follow, GetDegree, GetEmbedding, GetEntities, GetRelations, InvalidateRelations, ListEntities,
    LookUpEntities, MapRelations, MergeEntities, MergeId, NeighborOrder, NewEntity, NewRelation, RankEntities,
    Relation, RelationId, RemoveAlias, RenameEntity, Seed, SelectSubgraph, ToEntity, UndoMerge, UpsertEntities,
    UpsertRelations,
};
use larder_protocol::vectors::Vector;
use larder_protocol::{EntityName, Error as Kind, Label, Message, Sequence, SourceId};

use super::STREAM_PAGE_ROWS;
use crate::larder::Larder;
use crate::request::Request;

/// The graph store: entities, and the facts that relate them. Cheap to clone.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use larder::{JsonText, NewEntity, NewRelation};
///
/// # let larder = larder::Larder::temporary().await?;
/// let graph = larder.graph();
/// graph.upsert_entities([
///     NewEntity::new("software", "SQLite")?.with_properties(JsonText::new(r#"{"since": 2000}"#)?),
///     NewEntity::new("software", "larder")?,
/// ]).await?; // both are there, or none
/// graph.upsert_relations([
///     NewRelation::new("larder", "uses", "SQLite")?.with_source("readme.md#1")?,
///     NewRelation::new("larder", "written_in", "Rust")?,  // "Rust" is made
/// ]).await?;
///
/// let uses = graph.neighbors("larder").relation("uses").limit(50).await?;
/// assert_eq!(uses[0].entity.name.as_str(), "SQLite");
/// let around = graph.neighbors("SQLite").depth(2).await?; // larder, then Rust
/// assert_eq!(around.len(), 2);
/// let path = graph.shortest_path("SQLite", "Rust").await?.ok_or("no path")?;
/// assert_eq!(path.steps.len(), 2);
/// graph.remove_source("readme.md#1").await?; // nothing else says that larder uses SQLite
/// assert!(graph.shortest_path("SQLite", "Rust").await?.is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Graph {
    larder: Larder,
}

impl Graph {
    pub(crate) fn new(larder: Larder) -> Self {
        Self { larder }
    }

    fn request<M: Message>(&self, message: Result<M, Kind>) -> Request<M> {
        Request::new(self.larder.clone(), message, Ok)
    }

    /// Stores entities; all or none. See [`UpsertEntities`].
    pub fn upsert_entities(&self, entities: impl IntoIterator<Item = NewEntity>) -> Request<UpsertEntities> {
        self.request(Ok(UpsertEntities { entities: entities.into_iter().collect() }))
    }

    /// Stores facts; all or none. Entities that are named and not there are made, unless the request says otherwise. See
    /// [`UpsertRelations`].
    pub fn upsert_relations(&self, relations: impl IntoIterator<Item = NewRelation>) -> Request<UpsertRelations> {
        let relations = relations.into_iter().collect();
        self.request(Ok(UpsertRelations { relations, creates_entities: true }))
    }

    /// Stores one fact without details; what it names is made.
    pub fn upsert_triplet(
        &self,
        subject: impl ToEntity,
        label: impl AsRef<str>,
        object: impl ToEntity,
    ) -> Request<UpsertRelations> {
        let relation = NewRelation::new(subject, label, object);
        self.request(relation.map(|relation| UpsertRelations { relations: vec![relation], creates_entities: true }))
    }

    /// Reads an entity.
    pub fn get(&self, entity: impl ToEntity) -> Request<GetEntities, Option<Entity>> {
        let message = entity.to_entity().map(|entity| GetEntities { entities: vec![entity] });
        Request::new(self.larder.clone(), message, |found| Ok(found.into_iter().next().flatten()))
    }

    /// Reads many entities at one instant, in the order asked for; `None` for each that is not there.
    pub fn get_many<T: ToEntity>(&self, entities: impl IntoIterator<Item = T>) -> Request<GetEntities> {
        self.request(all(entities).map(|entities| GetEntities { entities }))
    }

    /// Reads a page of entities, in the order in which they were first stored. Default: the first 256.
    pub fn entities(&self) -> Request<ListEntities> {
        self.request(Ok(ListEntities { label: None, filter: None, after: None, limit: STREAM_PAGE_ROWS }))
    }

    /// Reads a fact.
    pub fn get_relation(&self, id: RelationId) -> Request<GetRelations, Option<Relation>> {
        let message = Ok(GetRelations { ids: vec![id] });
        Request::new(self.larder.clone(), message, |found| Ok(found.into_iter().next().flatten()))
    }

    /// Reads many facts at one instant, in the order asked for; `None` for each that is not there.
    pub fn get_relations(&self, ids: impl IntoIterator<Item = RelationId>) -> Request<GetRelations> {
        self.request(Ok(GetRelations { ids: ids.into_iter().collect() }))
    }

    /// Reads a page of facts, in the order of their numbers. Default: the first 256 of all that hold now.
    pub fn relations(&self) -> Request<FindRelations> {
        self.request(Ok(FindRelations {
            subject: None,
            label: None,
            object: None,
            source: None,
            filter: None,
            as_of: AsOf::default(),
            after: None,
            limit: STREAM_PAGE_ROWS,
        }))
    }

    /// Records that facts hold no longer, from now on or another time. See [`InvalidateRelations`].
    pub fn invalidate(&self, ids: impl IntoIterator<Item = RelationId>) -> Request<InvalidateRelations> {
        self.request(Ok(InvalidateRelations { ids: ids.into_iter().collect(), at: None }))
    }

    /// Deletes facts with their history; answers how many there were.
    pub fn delete_relations(&self, ids: impl IntoIterator<Item = RelationId>) -> Request<DeleteRelations> {
        self.request(Ok(DeleteRelations { ids: ids.into_iter().collect() }))
    }

    /// Deletes every fact of one subject, label and object; answers how many there were. Nothing else goes.
    pub fn delete_triplet(
        &self,
        subject: impl ToEntity,
        label: impl AsRef<str>,
        object: impl ToEntity,
    ) -> Request<DeleteTriplet> {
        let message = || {
            Ok(DeleteTriplet { subject: subject.to_entity()?, label: Label::new(label)?, object: object.to_entity()? })
        };
        self.request(message())
    }

    /// Removes a source, and the facts that nothing else says; answers what became of its facts. See
    /// [`RemoveSource`](larder_protocol::graph::RemoveSource).
    pub fn remove_source(&self, source: impl AsRef<str>) -> RemovingSource {
        RemovingSource::new(self.larder.clone(), SourceId::new(source))
    }

    /// Deletes entities with all of their facts; answers how many there were. See [`DeleteEntities`].
    pub fn delete<T: ToEntity>(&self, entities: impl IntoIterator<Item = T>) -> Request<DeleteEntities> {
        self.request(all(entities).map(|entities| DeleteEntities { entities }))
    }

    /// Gives an entity another name; it is still found by the old one, unless the request says otherwise.
    pub fn rename(&self, entity: impl ToEntity, name: impl AsRef<str>) -> Request<RenameEntity> {
        let message =
            || Ok(RenameEntity { entity: entity.to_entity()?, name: EntityName::new(name)?, keeps_alias: true });
        self.request(message())
    }

    /// Lets an entity be found by one more name; answers whether it was not before.
    pub fn add_alias(&self, entity: impl ToEntity, alias: impl AsRef<str>) -> Request<AddAlias> {
        let message = || Ok(AddAlias { entity: entity.to_entity()?, alias: EntityName::new(alias)? });
        self.request(message())
    }

    /// Takes an alias away; answers whether it was there.
    pub fn remove_alias(&self, entity: impl ToEntity, alias: impl AsRef<str>) -> Request<RemoveAlias> {
        let message = || Ok(RemoveAlias { entity: entity.to_entity()?, alias: EntityName::new(alias)? });
        self.request(message())
    }

    /// Makes two entities one: `from` goes, `into` gets its facts and names. See [`MergeEntities`].
    pub fn merge(&self, from: impl ToEntity, into: impl ToEntity) -> Request<MergeEntities> {
        let message = || Ok(MergeEntities { from: from.to_entity()?, into: into.to_entity()? });
        self.request(message())
    }

    /// Undoes a merge. See [`UndoMerge`].
    pub fn undo_merge(&self, merge: MergeId) -> Request<UndoMerge> {
        self.request(Ok(UndoMerge { merge }))
    }

    /// Declares a field of the entities' properties, so that filters on it use an index. Answers whether it was new.
    pub fn declare_field(&self, field: FieldPath) -> Request<DeclareEntityField> {
        self.request(Ok(DeclareEntityField { field }))
    }

    /// Reads an entity's embedding.
    pub fn embedding(&self, entity: impl ToEntity) -> Request<GetEmbedding> {
        self.request(entity.to_entity().map(|entity| GetEmbedding { entity }))
    }

    fn look_up(&self, by: EntityLookup) -> Request<LookUpEntities> {
        self.request(Ok(LookUpEntities { by, label: None, limit: 10 }))
    }

    /// Finds the entities of every label that have a name or alias. Default: up to ten.
    pub fn named(&self, name: impl Into<String>) -> Request<LookUpEntities> {
        self.look_up(EntityLookup::Exact(name.into()))
    }

    /// Finds entities by the beginning of a name or alias. Default: the first ten.
    pub fn names_beginning(&self, prefix: impl Into<String>) -> Request<LookUpEntities> {
        self.look_up(EntityLookup::Prefix(prefix.into()))
    }

    /// Finds entities by words of their names and descriptions, best first. Default: ten.
    pub fn search(&self, query: impl Into<TextQuery>) -> Request<LookUpEntities> {
        self.look_up(EntityLookup::Text(query.into()))
    }

    /// Finds entities by a name or alias that may be misspelt, best first. Default: ten.
    pub fn misspelt(&self, name: impl Into<String>) -> Request<LookUpEntities> {
        self.look_up(EntityLookup::Misspelt(name.into()))
    }

    /// Finds the entities whose embeddings are nearest to a vector, best first. Default: ten.
    pub fn similar(&self, embedding: impl AsRef<[f32]>) -> Request<FindSimilarEntities> {
        let embedding = Vector::new(embedding.as_ref());
        self.request(embedding.map(|embedding| FindSimilarEntities { embedding, label: None, limit: 10 }))
    }

    /// Finds the entities that an entity's facts relate it to. Default: the first 100, both ways.
    pub fn neighbors(&self, entity: impl ToEntity) -> Request<FindNeighbors> {
        self.request(entity.to_entity().map(|entity| FindNeighbors {
            entity,
            follow: Follow::default(),
            filter: None,
            order: NeighborOrder::default(),
            offset: 0,
            limit: 100,
        }))
    }

    /// Finds the entities within some hops of others. Default: the first 1,000, both ways.
    pub fn neighborhood<T: ToEntity>(
        &self,
        entities: impl IntoIterator<Item = T>,
        depth: usize,
    ) -> Request<FindNeighborhood> {
        let follow = Follow::default();
        self.request(all(entities).map(|entities| FindNeighborhood { entities, follow, depth, limit: 1_000 }))
    }

    /// Follows facts out from some entities, and answers with those that were met. Default: outwards, two hops, 30 facts.
    pub fn relation_map<T: ToEntity>(&self, entities: impl IntoIterator<Item = T>) -> Request<MapRelations> {
        let follow = Follow { direction: larder_protocol::graph::Traversal::Outgoing, ..Follow::default() };
        self.request(all(entities).map(|entities| MapRelations { entities, follow, depth: 2, limit: 30 }))
    }

    /// Finds a shortest path between two entities. Default: both ways, at most 64 hops.
    pub fn shortest_path(&self, from: impl ToEntity, to: impl ToEntity) -> Request<FindShortestPath> {
        let message = || {
            let (from, to) = (from.to_entity()?, to.to_entity()?);
            Ok(FindShortestPath { from, to, follow: Follow::default(), hops_max: larder_protocol::limits::HOPS_MAX })
        };
        self.request(message())
    }

    /// Enumerates paths between two entities, shortest first. Default: both ways, at most three hops, ten paths.
    pub fn paths(&self, from: impl ToEntity, to: impl ToEntity) -> Request<FindPaths> {
        let message = || {
            let (from, to) = (from.to_entity()?, to.to_entity()?);
            Ok(FindPaths { from, to, follow: Follow::default(), hops_max: 3, limit: 10 })
        };
        self.request(message())
    }

    /// Ranks entities by personalised PageRank from seeds that count the same. Default: the best ten, both ways, damping 0.85.
    pub fn rank<T: ToEntity>(&self, seeds: impl IntoIterator<Item = T>) -> Request<RankEntities> {
        self.request(evenly(seeds).map(|seeds| RankEntities {
            seeds,
            follow: Follow::default(),
            damping: 0.85,
            tolerance: 0.02,
            limit: 10,
        }))
    }

    /// Chooses what to tell a language model about some entities. Default: two hops, at most 50 entities and 100 facts.
    pub fn subgraph<T: ToEntity>(&self, seeds: impl IntoIterator<Item = T>) -> Request<SelectSubgraph> {
        self.request(evenly(seeds).map(|seeds| SelectSubgraph {
            seeds,
            follow: Follow::default(),
            depth: 2,
            entity_limit: 50,
            relation_limit: 100,
        }))
    }

    /// Counts the facts of an entity.
    pub fn degree(&self, entity: impl ToEntity) -> Request<GetDegree> {
        self.request(entity.to_entity().map(|entity| GetDegree { entity, follow: Follow::default() }))
    }

    /// Summarises what kinds of entities and facts there are: at most so many of each.
    pub fn schema(&self, limit: usize) -> Request<DescribeSchema> {
        self.request(Ok(DescribeSchema { limit }))
    }

    /// Counts entities and facts.
    pub fn counts(&self) -> Request<CountGraph> {
        self.request(Ok(CountGraph))
    }

    /// Returns the sequence of the newest commit, by this process or another: subscribe after it to hear only what is new.
    ///
    /// # Errors
    /// When the store cannot be started or read.
    pub async fn sequence(&self) -> Result<Sequence> {
        self.larder.sequence::<GraphStore>().await
    }

    /// Returns a stream of what is committed to the store after `sequence`, by this process and others.
    ///
    /// # Errors
    /// When the store cannot be started.
    pub async fn subscribe(&self, after: Sequence) -> Result<Notices> {
        self.larder.subscribe::<GraphStore>(after).await
    }
}

fn all<T: ToEntity>(entities: impl IntoIterator<Item = T>) -> Result<Vec<EntityRef>, Kind> {
    entities.into_iter().map(ToEntity::to_entity).collect()
}

fn evenly<T: ToEntity>(entities: impl IntoIterator<Item = T>) -> Result<Vec<Seed>, Kind> {
    entities.into_iter().map(|entity| Ok(Seed { entity: entity.to_entity()?, weight: 1.0 })).collect()
}
