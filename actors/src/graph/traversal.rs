//! Handlers that follow facts: over the graph in memory, or over rows.
//!
//! Start at [`Question`], which is one of the two, and [`neighbors`].
//!
//! Always true: all of an answer is of one committed state.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;

use larder_protocol::graph::{
    Degree, DescribeSchema, EntityRef, EntitySummary, FindNeighborhood, FindNeighbors, FindPaths, FindShortestPath,
    Follow, GetDegree, GraphPath, MapRelations, Neighbor, NeighborOrder, RankEntities, RankedEntity, RankedRelation,
    Reached, SchemaSummary, SchemaTriple, Seed, SelectSubgraph, Step, Subgraph, Traversal, Triplet, TripletHop,
    ValidAt, WEIGHT_MAX, check_hops, check_seeds,
};
use larder_protocol::limits::{NEIGHBORHOOD_MAX, PAGE_ROWS_MAX, PATH_STEPS_MAX, PATHS_MAX};
use larder_protocol::{EntityName, Error as Kind, Label};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params_from_iter};

use super::entities;
use super::labels::Labels;
use super::memory::{Seen, current, look};
use super::names;
use super::relations;
use super::row::{EntityRow, RelationRow, damaged, entity_id, relation_id};
use super::rows_walk::RowsWalk;
use super::store::Reading;
use crate::filter;
use crate::graph_index::{self, Direction, Edge, KeyHash, LabelKey, Ranking, Rules, Snapshot, Stopped, View, Walk};
use crate::sqlite::interrupt;
use crate::store::{Failure, Outcome};

/// Edges that are met on a caller's thread: about 200 µs.
const EDGES_IN_PLACE_MAX: usize = 20_000;
/// A subgraph is chosen from so many entities at most, those nearest to the seeds.
const SUBGRAPH_CANDIDATES_MAX: usize = 50_000;
/// How far a subgraph's scores may be off.
const SUBGRAPH_TOLERANCE: f64 = 0.05;

/// A graph that is asked about: what a walk over it needs, and how its nodes are named.
trait Asked {
    type Node: Copy + Eq + Ord + std::hash::Hash + std::fmt::Debug;
    type Walk: Walk<Node = Self::Node>;
    fn walk(&self) -> &Self::Walk;
    /// Returns the nodes that the question names, in its order.
    fn starts(&self) -> &[Self::Node];
    fn fail(&self, error: <Self::Walk as Walk>::Error) -> Failure;
    fn key(&self, node: Self::Node) -> i64;
    fn summary(&self, labels: &mut Labels<'_>, node: Self::Node) -> Outcome<EntitySummary>;

    /// Returns what was found, with the nodes named.
    fn named<T: Copy, A>(
        &self,
        labels: &mut Labels<'_>,
        found: &[(Self::Node, T)],
        name: impl Fn(EntitySummary, T) -> A,
    ) -> Outcome<Vec<A>> {
        let mut answer = Vec::with_capacity(found.len());
        for (node, more) in found {
            answer.push(name(self.summary(labels, *node)?, *more));
        }
        Ok(answer)
    }
}

/// The graph in memory.
struct InMemory<'a> {
    view: View<'a>,
    snapshot: &'a Snapshot,
    starts: &'a [u32],
    is_in_place: bool,
}

impl<'a> Asked for InMemory<'a> {
    type Node = u32;
    type Walk = View<'a>;

    fn walk(&self) -> &View<'a> {
        &self.view
    }

    fn starts(&self) -> &[u32] {
        self.starts
    }

    fn fail(&self, error: Stopped) -> Failure {
        match error {
            Stopped::OverBudget if self.is_in_place => Failure::TooLong,
            _ => interrupt::interrupted().into(),
        }
    }

    fn key(&self, node: u32) -> i64 {
        self.snapshot.node(node).key
    }

    fn summary(&self, labels: &mut Labels<'_>, node: u32) -> Outcome<EntitySummary> {
        summary(labels, self.snapshot.node(node))
    }

    fn named<T: Copy, A>(
        &self,
        labels: &mut Labels<'_>,
        found: &[(u32, T)],
        name: impl Fn(EntitySummary, T) -> A,
    ) -> Outcome<Vec<A>> {
        // All nodes first: they are fetched from all over memory, several at a time as long as nothing is made of them. That takes a
        // third off an answer of 24.
        let nodes: Vec<_> = found.iter().map(|(node, _)| self.snapshot.node(*node)).collect();
        let mut answer = Vec::with_capacity(found.len());
        for (node, (_, more)) in nodes.into_iter().zip(found) {
            answer.push(name(summary(labels, node)?, *more));
        }
        Ok(answer)
    }
}

fn summary(labels: &mut Labels<'_>, node: graph_index::Node<'_>) -> Outcome<EntitySummary> {
    let label = labels.text(i64::from(node.label))?;
    Ok(EntitySummary { id: entity_id(node.key), label, name: EntityName::from_stored(node.name) })
}

/// The graph over rows.
struct InRows<'a> {
    walk: RowsWalk<'a>,
    starts: &'a [i64],
}

impl<'a> Asked for InRows<'a> {
    type Node = i64;
    type Walk = RowsWalk<'a>;

    fn walk(&self) -> &RowsWalk<'a> {
        &self.walk
    }

    fn starts(&self) -> &[i64] {
        self.starts
    }

    fn fail(&self, error: Failure) -> Failure {
        error
    }

    fn key(&self, node: i64) -> i64 {
        node
    }

    fn summary(&self, labels: &mut Labels<'_>, node: i64) -> Outcome<EntitySummary> {
        EntityRow::require(self.walk.connection, node)?.summary(labels)
    }
}

/// What is done with a graph, whichever it is.
trait Question {
    type Answer;
    /// Whether entities that the question names are met whatever their label: where it starts and ends.
    const MEETS_NAMED: bool = true;
    /// Whether it reads rows, but for labels, which never change.
    fn reads_rows(&self) -> bool {
        false
    }
    fn ask(self, graph: &impl Asked, connection: &Connection, labels: &mut Labels<'_>) -> Outcome<Self::Answer>;
}

fn direction(direction: Traversal) -> Direction {
    match direction {
        Traversal::Outgoing => Direction::Outgoing,
        Traversal::Incoming => Direction::Incoming,
        Traversal::Both => Direction::Both,
    }
}

/// Asks a question about entities, of the graph in memory where that is possible.
fn ask<Q: Question>(
    context: &Reading<'_>,
    entities: &[&EntityRef],
    follow: &Follow,
    question: Q,
) -> Outcome<Q::Answer> {
    follow.check()?;
    if follow.as_of.recorded.is_some() {
        // As it was known once, it is in the rows alone.
        if context.is_in_place {
            return Err(Failure::TooLong);
        }
        return context.at_one_instant(|connection| in_rows(context, connection, entities, follow, question));
    }
    if !question.reads_rows()
        && let Some(snapshot) = current(context)?
    {
        let labels = Labels::knowing(context.connection, context.memory.labels());
        if let Some(starts) =
            entities.iter().map(|entity| named_in_memory(&snapshot, &labels, entity)).collect::<Option<Vec<_>>>()
        {
            return in_memory(context, labels, &snapshot, &starts, follow, question);
        }
    }
    look(context, |Seen { connection, snapshot }| match &snapshot {
        Some(snapshot) => {
            let mut starts = Vec::with_capacity(entities.len());
            for entity in entities {
                let key = names::require(connection, entity)?;
                let lost = || damaged(format!("the entity {key} is there, and not in memory"));
                starts.push(snapshot.find(key).ok_or_else(lost)?);
            }
            let labels = Labels::knowing(connection, context.memory.labels());
            in_memory(context, labels, snapshot, &starts, follow, question)
        }
        None if context.is_in_place => Err(Failure::TooLong),
        None => in_rows(context, connection, entities, follow, question),
    })
}

/// Returns the place of the entity that is meant; `None`: the rows have to say, or that there is none.
fn named_in_memory(snapshot: &Snapshot, labels: &Labels<'_>, entity: &EntityRef) -> Option<u32> {
    match entity {
        EntityRef::Id(id) => snapshot.find(id.0.cast_signed()),
        EntityRef::Name { name, label } => {
            let is_wanted = |key| label.as_ref().is_none_or(|label| labels.is_known_as(i64::from(key), label));
            snapshot.find_named(name.as_str(), is_wanted)
        }
        _ => None,
    }
}

fn in_memory<Q: Question>(
    context: &Reading<'_>,
    mut labels: Labels<'_>,
    snapshot: &Snapshot,
    starts: &[u32],
    follow: &Follow,
    question: Q,
) -> Outcome<Q::Answer> {
    let rules = rules(context, &mut labels, follow)?;
    let edges_max = if context.is_in_place { EDGES_IN_PLACE_MAX } else { usize::MAX };
    let exempt = if Q::MEETS_NAMED { starts } else { &[] };
    let view = View::new(snapshot, &rules, exempt, edges_max, &interrupt::is_over);
    let graph = InMemory { view, snapshot, starts, is_in_place: context.is_in_place };
    let answer = question.ask(&graph, context.connection, &mut labels);
    context.memory.learn(labels.into_new());
    answer
}

fn in_rows<Q: Question>(
    context: &Reading<'_>,
    connection: &Connection,
    entities: &[&EntityRef],
    follow: &Follow,
    question: Q,
) -> Outcome<Q::Answer> {
    let mut labels = Labels::knowing(connection, context.memory.labels());
    let rules = rules(context, &mut labels, follow)?;
    let mut starts = Vec::with_capacity(entities.len());
    for entity in entities {
        starts.push(names::require(connection, entity)?);
    }
    let exempt = if Q::MEETS_NAMED { starts.as_slice() } else { &[] };
    let walk = RowsWalk { connection, rules: &rules, as_of: follow.as_of, now: context.now, exempt };
    question.ask(&InRows { walk, starts: &starts }, connection, &mut labels)
}

/// Returns a question's rules by numbers. A label that nothing has is 0, which no label is.
fn rules(context: &Reading<'_>, labels: &mut Labels<'_>, follow: &Follow) -> Outcome<Rules> {
    let mut keys = |wanted: &[Label]| -> Outcome<Option<Vec<LabelKey>>> {
        if wanted.is_empty() {
            return Ok(None);
        }
        let mut keys = Vec::with_capacity(wanted.len());
        for label in wanted {
            keys.push(labels.find(label)?.and_then(|key| LabelKey::try_from(key).ok()).unwrap_or(0));
        }
        keys.sort_unstable();
        Ok(Some(keys))
    };
    let valid_at = match follow.as_of.valid {
        ValidAt::Now => Some(context.now.0),
        ValidAt::Time(at) => Some(at.0),
        _ => None,
    };
    Ok(Rules { labels: keys(&follow.labels)?, node_labels: keys(&follow.entity_labels)?, valid_at })
}

fn check_limit(limit: usize, limit_max: usize) -> Outcome<()> {
    if limit > limit_max {
        return Err(Kind::invalid("limit", format!("{limit} is over {limit_max}")).into());
    }
    Ok(())
}

pub(super) fn neighbors(context: &Reading<'_>, message: &FindNeighbors) -> Outcome<Vec<Neighbor>> {
    check_limit(message.limit, PAGE_ROWS_MAX)?;
    if message.limit > NEIGHBORS_IN_PLACE_MAX && context.is_in_place {
        return Err(Failure::TooLong);
    }
    ask(context, &[&message.entity], &message.follow, Neighbors { message })
}

/// Neighbours that are named on a caller's thread.
const NEIGHBORS_IN_PLACE_MAX: usize = 2_000;

struct Neighbors<'a> {
    message: &'a FindNeighbors,
}

impl Question for Neighbors<'_> {
    type Answer = Vec<Neighbor>;
    const MEETS_NAMED: bool = false;

    fn reads_rows(&self) -> bool {
        self.message.filter.is_some()
    }

    fn ask(self, graph: &impl Asked, connection: &Connection, labels: &mut Labels<'_>) -> Outcome<Vec<Neighbor>> {
        let FindNeighbors { follow, filter, order, offset, limit, .. } = self.message;
        let mut edges = Vec::new();
        let wanted = if *limit == 0 { 0 } else { offset.saturating_add(*limit) };
        let [start] = graph.starts() else { return Ok(Vec::new()) };
        let ways = match direction(follow.direction) {
            Direction::Both => vec![Direction::Outgoing, Direction::Incoming],
            way => vec![way],
        };
        let is_both = ways.len() == 2;
        // The oldest come first by themselves, each way.
        let is_enough = |count: usize| *order == NeighborOrder::Oldest && filter.is_none() && count >= wanted;
        for way in ways {
            let mut count = 0;
            if wanted == 0 {
                break;
            }
            let walked = graph.walk().edges(*start, way, |edge| {
                // A loop was met as outgoing.
                if !(is_both && !edge.is_outgoing && edge.other == *start) {
                    edges.push(edge);
                    count += 1;
                }
                if is_enough(count) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            walked.map_err(|error| graph.fail(error))?;
        }
        self.order(graph, labels, &mut edges)?;
        let mut matching = Matching::new(connection, filter.as_ref())?;
        let (mut found, mut skipped) = (Vec::new(), 0);
        for edge in edges {
            if found.len() == *limit {
                break;
            }
            if !matching.holds(graph.key(edge.other))? {
                continue;
            }
            if skipped < *offset {
                skipped += 1;
                continue;
            }
            found.push(Neighbor {
                entity: graph.summary(labels, edge.other)?,
                relation: relation_id(edge.key),
                label: labels.text(i64::from(edge.label))?,
                is_outgoing: edge.is_outgoing,
                weight: edge.weight,
            });
        }
        Ok(found)
    }
}

impl Neighbors<'_> {
    fn order<G: Asked>(&self, graph: &G, labels: &mut Labels<'_>, edges: &mut Vec<Edge<G::Node>>) -> Outcome<()> {
        match self.message.order {
            NeighborOrder::Newest => edges.sort_unstable_by_key(|edge| std::cmp::Reverse(edge.key)),
            NeighborOrder::Heaviest => {
                edges.sort_unstable_by(|a, b| b.weight.total_cmp(&a.weight).then(a.key.cmp(&b.key)));
            }
            NeighborOrder::Name => {
                let mut named = Vec::with_capacity(edges.len());
                for edge in edges.drain(..) {
                    named.push((graph.summary(labels, edge.other)?.name, edge));
                }
                named.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(a.1.key.cmp(&b.1.key)));
                edges.extend(named.into_iter().map(|(_, edge)| edge));
            }
            // Each way they come so already.
            _ => edges.sort_by_key(|edge| edge.key),
        }
        Ok(())
    }
}

/// Whether entities' properties match a filter, one by one.
struct Matching<'a> {
    connection: &'a Connection,
    condition: Option<filter::Condition>,
}

impl<'a> Matching<'a> {
    fn new(connection: &'a Connection, wanted: Option<&larder_protocol::filter::Filter>) -> Outcome<Self> {
        let condition = wanted.map(|wanted| filter::compile(wanted, entities::FIELDS.column, &[], 2)).transpose()?;
        Ok(Self { connection, condition })
    }

    fn holds(&mut self, key: i64) -> Outcome<bool> {
        let Some(condition) = &self.condition else { return Ok(true) };
        let sql = format!("SELECT EXISTS (SELECT 1 FROM entity WHERE key = ?1 AND {})", condition.sql);
        let parameters = std::iter::once(Sql::Integer(key)).chain(condition.parameters.iter().cloned());
        let mut statement = self.connection.prepare_cached(&sql)?;
        Ok(statement.query_row(params_from_iter(parameters), |row| row.get(0))?)
    }
}

/// Refuses a walk from `seeds` that is out of bounds, and one that is too long to run in place.
fn check_walk(context: &Reading<'_>, seeds: usize, depth: usize, limit: usize) -> Outcome<()> {
    check_seeds(seeds)?;
    check_hops(depth)?;
    check_limit(limit, NEIGHBORHOOD_MAX)?;
    if limit > NEIGHBORS_IN_PLACE_MAX && context.is_in_place {
        return Err(Failure::TooLong);
    }
    Ok(())
}

pub(super) fn neighborhood(context: &Reading<'_>, message: &FindNeighborhood) -> Outcome<Vec<Reached>> {
    let FindNeighborhood { entities, follow, depth, limit } = message;
    check_walk(context, entities.len(), *depth, *limit)?;
    ask(context, &entities.iter().collect::<Vec<_>>(), follow, Neighborhood { message })
}

struct Neighborhood<'a> {
    message: &'a FindNeighborhood,
}

impl Question for Neighborhood<'_> {
    type Answer = Vec<Reached>;

    fn ask(self, graph: &impl Asked, _: &Connection, labels: &mut Labels<'_>) -> Outcome<Vec<Reached>> {
        let FindNeighborhood { follow, depth, limit, .. } = self.message;
        let way = direction(follow.direction);
        let found = graph_index::neighborhood(graph.walk(), graph.starts(), way, *depth, *limit);
        let found = found.map_err(|error| graph.fail(error))?;
        graph.named(labels, &found, |entity, hops| Reached { entity, hops })
    }
}

pub(super) fn map_relations(context: &Reading<'_>, message: &MapRelations) -> Outcome<Vec<TripletHop>> {
    let MapRelations { entities, follow, depth, limit } = message;
    check_walk(context, entities.len(), *depth, *limit)?;
    ask(context, &entities.iter().collect::<Vec<_>>(), follow, RelationMap { message })
}

struct RelationMap<'a> {
    message: &'a MapRelations,
}

impl Question for RelationMap<'_> {
    type Answer = Vec<TripletHop>;

    fn ask(self, graph: &impl Asked, _: &Connection, labels: &mut Labels<'_>) -> Outcome<Vec<TripletHop>> {
        let MapRelations { follow, depth, limit, .. } = self.message;
        let way = direction(follow.direction);
        let met = graph_index::map_edges(graph.walk(), graph.starts(), way, *depth, *limit);
        let met = met.map_err(|error| graph.fail(error))?;
        let mut triplets = Vec::with_capacity(met.len());
        for graph_index::Met { node, edge, hops } in met {
            let (subject, object) = if edge.is_outgoing { (node, edge.other) } else { (edge.other, node) };
            let triplet = Triplet {
                id: relation_id(edge.key),
                subject: graph.summary(labels, subject)?,
                label: labels.text(i64::from(edge.label))?,
                object: graph.summary(labels, object)?,
            };
            triplets.push(TripletHop { triplet, hops });
        }
        Ok(triplets)
    }
}

pub(super) fn shortest_path(context: &Reading<'_>, message: &FindShortestPath) -> Outcome<Option<GraphPath>> {
    let FindShortestPath { from, to, follow, hops_max } = message;
    check_hops(*hops_max)?;
    let question = Paths { follow, hops_max: *hops_max, limit: None };
    Ok(ask(context, &[from, to], follow, question)?.pop())
}

pub(super) fn paths(context: &Reading<'_>, message: &FindPaths) -> Outcome<Vec<GraphPath>> {
    let FindPaths { from, to, follow, hops_max, limit } = message;
    check_hops(*hops_max)?;
    check_limit(*limit, PATHS_MAX)?;
    ask(context, &[from, to], follow, Paths { follow, hops_max: *hops_max, limit: Some(*limit) })
}

struct Paths<'a> {
    follow: &'a Follow,
    hops_max: usize,
    /// `None`: a shortest one.
    limit: Option<usize>,
}

impl Question for Paths<'_> {
    type Answer = Vec<GraphPath>;

    fn ask(self, graph: &impl Asked, _: &Connection, labels: &mut Labels<'_>) -> Outcome<Vec<GraphPath>> {
        let [from, to] = graph.starts() else { return Ok(Vec::new()) };
        let (way, walk) = (direction(self.follow.direction), graph.walk());
        let found = match self.limit {
            None => {
                graph_index::shortest_path(walk, *from, *to, way, self.hops_max).map(|path| path.into_iter().collect())
            }
            Some(limit) => graph_index::paths(walk, *from, *to, way, self.hops_max, limit, PATH_STEPS_MAX),
        };
        let found: Vec<Vec<_>> = found.map_err(|error| graph.fail(error))?;
        let mut paths = Vec::with_capacity(found.len());
        for edges in found {
            let mut steps = Vec::with_capacity(edges.len());
            for edge in edges {
                steps.push(Step {
                    relation: relation_id(edge.key),
                    label: labels.text(i64::from(edge.label))?,
                    is_forward: edge.is_outgoing,
                    entity: graph.summary(labels, edge.other)?,
                });
            }
            paths.push(GraphPath { start: graph.summary(labels, *from)?, steps });
        }
        Ok(paths)
    }
}

pub(super) fn degree(context: &Reading<'_>, message: &GetDegree) -> Outcome<Degree> {
    ask(context, &[&message.entity], &message.follow, CountDegree)
}

struct CountDegree;

impl Question for CountDegree {
    type Answer = Degree;
    const MEETS_NAMED: bool = false;

    fn ask(self, graph: &impl Asked, _: &Connection, _: &mut Labels<'_>) -> Outcome<Degree> {
        let mut degree = Degree::default();
        let [start] = graph.starts() else { return Ok(degree) };
        for (way, count) in [(Direction::Outgoing, &mut degree.outgoing), (Direction::Incoming, &mut degree.incoming)] {
            let walked = graph.walk().edges(*start, way, |_| {
                *count += 1;
                ControlFlow::Continue(())
            });
            walked.map_err(|error| graph.fail(error))?;
        }
        Ok(degree)
    }
}

fn check_seed_weights(seeds: &[Seed]) -> Outcome<()> {
    check_seeds(seeds.len())?;
    if seeds.is_empty() {
        return Err(Kind::invalid("seeds", "there is none").into());
    }
    if seeds.iter().any(|seed| !(seed.weight > 0.0 && seed.weight <= WEIGHT_MAX)) {
        return Err(Kind::invalid("seed weight", format!("it is not over 0 and up to {WEIGHT_MAX}")).into());
    }
    Ok(())
}

pub(super) fn rank_entities(context: &Reading<'_>, message: &RankEntities) -> Outcome<Vec<RankedEntity>> {
    let RankEntities { seeds, follow, damping, tolerance, limit } = message;
    check_seed_weights(seeds)?;
    check_limit(*limit, PAGE_ROWS_MAX)?;
    if !(0.0..=0.99).contains(damping) {
        return Err(Kind::invalid("damping", "it is not within 0 to 0.99").into());
    }
    if !(1e-6..=0.1).contains(tolerance) {
        return Err(Kind::invalid("tolerance", "it is not within 1e-6 to 0.1").into());
    }
    let entities: Vec<_> = seeds.iter().map(|seed| &seed.entity).collect();
    ask(context, &entities, follow, Rank { message })
}

struct Rank<'a> {
    message: &'a RankEntities,
}

impl Question for Rank<'_> {
    type Answer = Vec<RankedEntity>;

    fn ask(self, graph: &impl Asked, _: &Connection, labels: &mut Labels<'_>) -> Outcome<Vec<RankedEntity>> {
        let RankEntities { seeds, follow, damping, tolerance, limit } = self.message;
        if *limit == 0 {
            return Ok(Vec::new());
        }
        let ranking =
            Ranking { direction: direction(follow.direction), damping: *damping, tolerance: *tolerance, limit: *limit };
        let seeds: Vec<_> = graph.starts().iter().copied().zip(seeds.iter().map(|seed| seed.weight)).collect();
        let ranked = graph_index::rank(graph.walk(), &seeds, &ranking).map_err(|error| graph.fail(error))?;
        graph.named(labels, &ranked, |entity, score| RankedEntity { entity, score })
    }
}

pub(super) fn select_subgraph(context: &Reading<'_>, message: &SelectSubgraph) -> Outcome<Subgraph> {
    let SelectSubgraph { seeds, follow, depth, entity_limit, relation_limit } = message;
    check_seed_weights(seeds)?;
    check_hops(*depth)?;
    check_limit(*entity_limit, PAGE_ROWS_MAX)?;
    check_limit(*relation_limit, PAGE_ROWS_MAX)?;
    let entities: Vec<_> = seeds.iter().map(|seed| &seed.entity).collect();
    ask(context, &entities, follow, Select { message })
}

struct Select<'a> {
    message: &'a SelectSubgraph,
}

impl Question for Select<'_> {
    type Answer = Subgraph;

    fn reads_rows(&self) -> bool {
        true
    }

    fn ask(self, graph: &impl Asked, connection: &Connection, labels: &mut Labels<'_>) -> Outcome<Subgraph> {
        let SelectSubgraph { seeds, follow, depth, entity_limit, .. } = self.message;
        if *entity_limit == 0 {
            return Ok(Subgraph::default());
        }
        let (walk, way) = (graph.walk(), direction(follow.direction));
        let near = graph_index::neighborhood(walk, graph.starts(), way, *depth, SUBGRAPH_CANDIDATES_MAX);
        let near = near.map_err(|error| graph.fail(error))?;
        let mut candidates: HashSet<_, KeyHash> = near.into_iter().map(|(node, _)| node).collect();
        candidates.extend(graph.starts());
        let ranking = Ranking { direction: way, damping: 0.85, tolerance: SUBGRAPH_TOLERANCE, limit: 0 };
        let weighted: Vec<_> = graph.starts().iter().copied().zip(seeds.iter().map(|seed| seed.weight)).collect();
        let mut ranked = graph_index::rank(walk, &weighted, &ranking).map_err(|error| graph.fail(error))?;
        ranked.retain(|(node, _)| candidates.contains(node));
        ranked.truncate(*entity_limit);
        let relations = self.relations(graph, connection, labels, &ranked)?;
        let entities = graph.named(labels, &ranked, |entity, score| RankedEntity { entity, score })?;
        Ok(Subgraph { entities, relations })
    }
}

impl Select<'_> {
    /// Returns the relations among the chosen entities, best first.
    fn relations<G: Asked>(
        &self,
        graph: &G,
        connection: &Connection,
        labels: &mut Labels<'_>,
        chosen: &[(G::Node, f64)],
    ) -> Outcome<Vec<RankedRelation>> {
        let scores: HashMap<G::Node, f64, KeyHash> = chosen.iter().copied().collect();
        let mut found: Vec<(i64, f64)> = Vec::new();
        for (node, score) in chosen {
            let walked = graph.walk().edges(*node, Direction::Outgoing, |edge| {
                if let Some(other) = scores.get(&edge.other) {
                    found.push((edge.key, edge.weight * score * other));
                }
                ControlFlow::Continue(())
            });
            walked.map_err(|error| graph.fail(error))?;
        }
        found.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        found.truncate(self.message.relation_limit);
        let as_of = self.message.follow.as_of;
        let mut relations = Vec::with_capacity(found.len());
        for (key, score) in found {
            let row = match as_of.recorded {
                None => RelationRow::find(connection, key)?,
                Some(at) => relations::find_as_of(connection, key, at)?,
            };
            let row = row.ok_or_else(|| damaged(format!("the relation {key} is in memory, and not there")))?;
            relations.push(RankedRelation { relation: relations::into_relation(connection, labels, row)?, score });
        }
        Ok(relations)
    }
}

pub(super) fn describe_schema(context: &Reading<'_>, message: &DescribeSchema) -> Outcome<SchemaSummary> {
    check_limit(message.limit, PAGE_ROWS_MAX)?;
    look(context, |Seen { connection, snapshot }| {
        let mut labels = Labels::knowing(connection, context.memory.labels());
        let mut nodes = BTreeMap::new();
        let mut triples = BTreeMap::new();
        match snapshot {
            Some(snapshot) => {
                snapshot.for_each_label(|label| *nodes.entry(i64::from(label)).or_default() += 1);
                snapshot.for_each_triple(|subject, relation, object| {
                    let triple = (i64::from(subject), i64::from(relation), i64::from(object));
                    *triples.entry(triple).or_default() += 1;
                });
            }
            None => count_in_rows(connection, &mut nodes, &mut triples)?,
        }
        let entity_labels = most(nodes, message.limit).into_iter();
        let entity_labels = entity_labels.map(|(key, count)| Ok((labels.text(key)?, count))).collect::<Outcome<_>>()?;
        let triples = most(triples, message.limit).into_iter().map(|((subject, relation, object), count)| {
            let (subject, relation, object) = (labels.text(subject)?, labels.text(relation)?, labels.text(object)?);
            Ok(SchemaTriple { subject, relation, object, count })
        });
        Ok(SchemaSummary { entity_labels, triples: triples.collect::<Outcome<_>>()? })
    })
}

/// The labels of a subject, a relation and an object.
type Triple = (i64, i64, i64);

fn count_in_rows(
    connection: &Connection,
    nodes: &mut BTreeMap<i64, u64>,
    triples: &mut BTreeMap<Triple, u64>,
) -> Outcome<()> {
    let mut statement =
        connection.prepare_cached("SELECT label_key, count(*) FROM entity WHERE gone_ms IS NULL GROUP BY label_key")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        nodes.insert(row.get(0)?, row.get(1)?);
    }
    let mut statement = connection.prepare_cached(
        "SELECT s.label_key, relation.label_key, o.label_key, count(*)
         FROM relation CROSS JOIN entity AS s ON s.key = relation.subject CROSS JOIN entity AS o ON o.key = relation.object
         WHERE s.gone_ms IS NULL AND o.gone_ms IS NULL GROUP BY 1, 2, 3",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        triples.insert((row.get(0)?, row.get(1)?, row.get(2)?), row.get(3)?);
    }
    Ok(())
}

/// Returns the most frequent, of equals the first.
fn most<K: Ord>(counts: BTreeMap<K, u64>, limit: usize) -> Vec<(K, u64)> {
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|a, b| match b.1.cmp(&a.1) {
        Ordering::Equal => a.0.cmp(&b.0),
        order => order,
    });
    counts.truncate(limit);
    counts
}
