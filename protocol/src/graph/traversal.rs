//! Questions that follow facts from entity to entity.
//!
//! All of an answer is of one committed state. A limit or depth of 0 finds nothing. What is asked beyond the bounds named is
//! [`Invalid`](crate::Error::Invalid); what takes longer than the request's deadline ends with
//! [`DeadlineExceeded`](crate::Error::DeadlineExceeded).

use serde::{Deserialize, Serialize};

use super::{AsOf, EntityRef, EntitySummary, Relation, RelationId};
use crate::error::Error;
use crate::filter::Filter;
use crate::limits::{HOPS_MAX, LABELS_PER_QUESTION_MAX, SEEDS_MAX};
use crate::message::message;
use crate::names::Label;

/// Which way facts are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Traversal {
    /// From subjects to objects.
    Outgoing,
    /// From objects to subjects.
    Incoming,
    /// Both ways.
    #[default]
    Both,
}

/// Which facts a question follows.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Follow {
    /// Which way.
    pub direction: Traversal,
    /// Only facts of these labels; empty: of any.
    pub labels: Vec<Label>,
    /// Only to entities of these labels; empty: of any. Where a question starts does not count.
    pub entity_labels: Vec<Label>,
    /// As of when.
    pub as_of: AsOf,
}

impl Follow {
    /// Checks how many labels are named.
    ///
    /// # Errors
    /// [`Error::Invalid`] when they are too many.
    pub fn check(&self) -> Result<(), Error> {
        let count = self.labels.len() + self.entity_labels.len();
        if count > LABELS_PER_QUESTION_MAX {
            return Err(Error::invalid("labels", format!("{count}, at most {LABELS_PER_QUESTION_MAX} are allowed")));
        }
        Ok(())
    }

    fn size_bytes(&self) -> usize {
        self.labels.iter().chain(&self.entity_labels).map(|label| size_of::<Label>() + label.as_str().len()).sum()
    }
}

/// Refuses more hops than there may be.
///
/// # Errors
/// [`Error::Invalid`] when they are over [`HOPS_MAX`].
pub fn check_hops(hops: usize) -> Result<(), Error> {
    if hops > HOPS_MAX {
        return Err(Error::invalid("depth", format!("{hops} hops, at most {HOPS_MAX} are allowed")));
    }
    Ok(())
}

/// Refuses more entities to start from than there may be.
///
/// # Errors
/// [`Error::Invalid`] when they are over [`SEEDS_MAX`].
pub fn check_seeds(count: usize) -> Result<(), Error> {
    if count > SEEDS_MAX {
        return Err(Error::invalid("entities", format!("{count} to start from, at most {SEEDS_MAX} are allowed")));
    }
    Ok(())
}

/// Finds the entities that an entity's facts relate it to, one for each fact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FindNeighbors {
    /// Of which entity.
    pub entity: EntityRef,
    /// Along which facts. A fact of the entity with itself is found once.
    pub follow: Follow,
    /// Only neighbours whose properties this is true of.
    pub filter: Option<Filter>,
    /// In which order.
    pub order: NeighborOrder,
    /// Leaves out so many of the first.
    pub offset: usize,
    /// Most to return: up to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
    pub limit: usize,
}
message!(Graph, FindNeighbors => Vec<Neighbor>, |m| {
    m.entity.size_bytes() + m.follow.size_bytes() + m.filter.as_ref().map_or(0, Filter::size_bytes)
});

/// In which order neighbours are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NeighborOrder {
    /// As their facts were first stored.
    #[default]
    Oldest,
    /// The newest fact first.
    Newest,
    /// The fact that counts most first, of equals the oldest.
    Heaviest,
    /// By the neighbours' names, of equals the oldest fact.
    Name,
}

/// A neighbour, and the fact that makes it one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Neighbor {
    /// Who.
    pub entity: EntitySummary,
    /// The fact's number.
    pub relation: RelationId,
    /// What it says.
    pub label: Label,
    /// Whether the entity that was asked for is the subject.
    pub is_outgoing: bool,
    /// How much it counts.
    pub weight: f64,
}

/// Finds the entities within some hops of others, nearest first: breadth first, along facts in the order of their numbers,
/// those of which an entity is the subject before those of which it is the object. Those that it starts from are not among them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FindNeighborhood {
    /// Of which entities; at most [`SEEDS_MAX`].
    pub entities: Vec<EntityRef>,
    /// Along which facts.
    pub follow: Follow,
    /// How many hops at most: up to [`HOPS_MAX`].
    pub depth: usize,
    /// Most to return: up to [`NEIGHBORHOOD_MAX`](crate::limits::NEIGHBORHOOD_MAX).
    pub limit: usize,
}
message!(Graph, FindNeighborhood => Vec<Reached>, |m| entities_bytes(&m.entities) + m.follow.size_bytes());

/// An entity of a neighbourhood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// Who.
    pub entity: EntitySummary,
    /// How many hops away.
    pub hops: usize,
}

/// Follows facts out from some entities and answers with each fact that was met, once, nearest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MapRelations {
    /// From which entities; at most [`SEEDS_MAX`].
    pub entities: Vec<EntityRef>,
    /// Along which facts.
    pub follow: Follow,
    /// How many hops at most: up to [`HOPS_MAX`].
    pub depth: usize,
    /// Most to return: up to [`NEIGHBORHOOD_MAX`](crate::limits::NEIGHBORHOOD_MAX).
    pub limit: usize,
}
message!(Graph, MapRelations => Vec<TripletHop>, |m| entities_bytes(&m.entities) + m.follow.size_bytes());

/// A fact without its details.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Triplet {
    /// Its number.
    pub id: RelationId,
    /// Of which entity.
    pub subject: EntitySummary,
    /// What is said.
    pub label: Label,
    /// About which.
    pub object: EntitySummary,
}

/// A fact that was met on the way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TripletHop {
    /// The fact.
    pub triplet: Triplet,
    /// At which hop, from 1.
    pub hops: usize,
}

/// Finds a shortest path between two entities; `None` where there is none. An entity's path to itself has no steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FindShortestPath {
    /// Where it begins.
    pub from: EntityRef,
    /// Where it ends.
    pub to: EntityRef,
    /// Along which facts.
    pub follow: Follow,
    /// How many hops at most: up to [`HOPS_MAX`].
    pub hops_max: usize,
}
message!(Graph, FindShortestPath => Option<GraphPath>, |m| {
    m.from.size_bytes() + m.to.size_bytes() + m.follow.size_bytes()
});

/// Enumerates paths between two entities that pass no entity twice, shortest first.
///
/// It looks at [`PATH_STEPS_MAX`](crate::limits::PATH_STEPS_MAX) edges at most; what it found by then is the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FindPaths {
    /// Where they begin.
    pub from: EntityRef,
    /// Where they end.
    pub to: EntityRef,
    /// Along which facts.
    pub follow: Follow,
    /// How many hops at most: up to [`HOPS_MAX`].
    pub hops_max: usize,
    /// Most to return: up to [`PATHS_MAX`](crate::limits::PATHS_MAX).
    pub limit: usize,
}
message!(Graph, FindPaths => Vec<GraphPath>, |m| m.from.size_bytes() + m.to.size_bytes() + m.follow.size_bytes());

/// A way from one entity to another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GraphPath {
    /// Where it begins.
    pub start: EntitySummary,
    /// Its steps; none: it ends where it begins.
    pub steps: Vec<Step>,
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Step {
    /// The fact's number.
    pub relation: RelationId,
    /// What it says.
    pub label: Label,
    /// Whether it goes from the fact's subject to its object.
    pub is_forward: bool,
    /// Where it leads.
    pub entity: EntitySummary,
}

/// Where a ranking starts from, and how much.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seed {
    /// Which entity.
    pub entity: EntityRef,
    /// How much it counts: over 0, up to [`WEIGHT_MAX`](super::WEIGHT_MAX).
    pub weight: f64,
}

/// Ranks entities by personalised PageRank: how often a walk is there that follows facts by their weights, and at each step goes
/// back to a seed with probability `1 − damping`. A walk that cannot go on goes back, too.
///
/// Seeds are ranked with the others. Scores sum to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RankEntities {
    /// From where; 1 to [`SEEDS_MAX`].
    pub seeds: Vec<Seed>,
    /// Along which facts.
    pub follow: Follow,
    /// How likely a walk goes on: 0 to 0.99. Usual: 0.85.
    pub damping: f64,
    /// How much of what walks distribute, 1 in all, may be left undistributed, where it came to: 1e-6 to 0.1. Lower: more steps.
    /// Usual: 0.02.
    pub tolerance: f64,
    /// Most to return: up to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
    pub limit: usize,
}
message!(Graph, RankEntities => Vec<RankedEntity>, |m| seeds_bytes(&m.seeds) + m.follow.size_bytes());

/// An entity and its score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RankedEntity {
    /// Who.
    pub entity: EntitySummary,
    /// Its score; all of a graph sum to 1.
    pub score: f64,
}

/// Chooses what to tell a language model about some entities: those around them that rank best, and the facts among these, each
/// ranked by its ends and its weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SelectSubgraph {
    /// Around which; 1 to [`SEEDS_MAX`].
    pub seeds: Vec<Seed>,
    /// Along which facts.
    pub follow: Follow,
    /// How many hops from a seed at most: up to [`HOPS_MAX`].
    pub depth: usize,
    /// Most entities, seeds among them: up to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
    pub entity_limit: usize,
    /// Most facts: up to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
    pub relation_limit: usize,
}
message!(Graph, SelectSubgraph => Subgraph, |m| seeds_bytes(&m.seeds) + m.follow.size_bytes());

/// A part of a graph, best first.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Subgraph {
    /// The entities.
    pub entities: Vec<RankedEntity>,
    /// The facts among them.
    pub relations: Vec<RankedRelation>,
}

/// A fact and its score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RankedRelation {
    /// The fact.
    pub relation: Relation,
    /// Its score: its weight times the scores of its ends.
    pub score: f64,
}

/// Counts the facts of an entity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetDegree {
    /// Of which.
    pub entity: EntityRef,
    /// Which facts; the direction does not count.
    pub follow: Follow,
}
message!(Graph, GetDegree => Degree, |m| m.entity.size_bytes() + m.follow.size_bytes());

/// How many facts an entity has. One with itself counts on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Degree {
    /// Of which it is the subject.
    pub outgoing: u64,
    /// Of which it is the object.
    pub incoming: u64,
}

/// Summarises what kinds of entities and facts there are, most frequent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeSchema {
    /// Most of each list: up to [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX).
    pub limit: usize,
}
message!(Graph, DescribeSchema => SchemaSummary, |_m| 0);

/// What kinds of entities and facts there are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SchemaSummary {
    /// The labels of entities, and how many have each.
    pub entity_labels: Vec<(Label, u64)>,
    /// What relates what, whenever it holds.
    pub triples: Vec<SchemaTriple>,
}

/// How many facts of a label relate entities of two labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SchemaTriple {
    /// The subjects' label.
    pub subject: Label,
    /// The facts' label.
    pub relation: Label,
    /// The objects' label.
    pub object: Label,
    /// How many.
    pub count: u64,
}

/// Counts entities and facts, whenever these hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountGraph;
message!(Graph, CountGraph => GraphCounts, |_m| 0);

/// How large a graph is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GraphCounts {
    /// How many entities.
    pub entities: u64,
    /// How many facts.
    pub relations: u64,
    /// How many earlier versions of facts are kept.
    pub past_relations: u64,
}

fn entities_bytes(entities: &[EntityRef]) -> usize {
    entities.iter().map(EntityRef::size_bytes).sum()
}

fn seeds_bytes(seeds: &[Seed]) -> usize {
    seeds.iter().map(|seed| size_of::<Seed>() + seed.entity.size_bytes()).sum()
}
