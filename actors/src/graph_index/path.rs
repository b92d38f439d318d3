//! Ways from one node to another.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::ControlFlow;

use super::hash::KeyHash;
use super::{Direction, Edge, Walk};

/// The edges of a way, each as the end that it is passed from has it.
pub type Path<N> = Vec<Edge<N>>;

type Parents<N> = HashMap<N, (N, Edge<N>), KeyHash>;

/// A side has room for so many nodes from the beginning: growing to it took a quarter of a short search.
const ROOM: usize = 100;

/// One side of a search from both ends.
struct Side<N> {
    direction: Direction,
    /// Where each node was met from, and along which edge; the start is its own.
    parents: Parents<N>,
    frontier: Vec<N>,
    /// About what the next hop takes.
    cost: usize,
}

impl<N: Copy + Eq + Hash> Side<N> {
    fn new<W: Walk<Node = N>>(walk: &W, start: N, direction: Direction) -> Self {
        let own = Edge { key: 0, label: 0, other: start, is_outgoing: true, weight: 1.0 };
        let mut parents = Parents::with_capacity_and_hasher(ROOM, KeyHash::default());
        parents.insert(start, (start, own));
        Self { direction, parents, frontier: vec![start], cost: walk.edge_count(start, direction) }
    }

    /// Goes one hop further; answers with a node that the other side has met, if there is one. The first is on a shortest path: had
    /// the other side met it in fewer hops, they would have met before.
    fn advance<W: Walk<Node = N>>(&mut self, walk: &W, other: &Parents<N>) -> Result<Option<N>, W::Error> {
        let mut next = Vec::new();
        let mut meeting = None;
        for node in &self.frontier {
            walk.edges(*node, self.direction, |edge| {
                if let std::collections::hash_map::Entry::Vacant(vacant) = self.parents.entry(edge.other) {
                    vacant.insert((*node, edge));
                    if other.contains_key(&edge.other) {
                        meeting = Some(edge.other);
                        return ControlFlow::Break(());
                    }
                    next.push(edge.other);
                }
                ControlFlow::Continue(())
            })?;
            if meeting.is_some() {
                return Ok(meeting);
            }
        }
        self.cost = next.iter().map(|node| walk.edge_count(*node, self.direction)).sum();
        self.frontier = next;
        Ok(None)
    }

    /// Returns the edges from a node back to the start.
    fn back(&self, mut node: N) -> Vec<(N, Edge<N>)> {
        let mut edges = Vec::new();
        while let Some((parent, edge)) = self.parents.get(&node)
            && *parent != node
        {
            edges.push((*parent, *edge));
            node = *parent;
        }
        edges
    }
}

/// Finds a path of the fewest edges, from both ends; `None`: there is none of at most `hops_max`. Each edge is as its first end has it.
///
/// # Errors
/// When the walk is to end.
pub fn shortest_path<W: Walk>(
    walk: &W,
    from: W::Node,
    to: W::Node,
    direction: Direction,
    hops_max: usize,
) -> Result<Option<Path<W::Node>>, W::Error> {
    if from == to {
        return Ok(Some(Vec::new()));
    }
    let mut forward = Side::new(walk, from, direction);
    let mut backward = Side::new(walk, to, direction.reversed());
    for _ in 0..hops_max {
        let is_forward = forward.cost <= backward.cost;
        let meeting = if is_forward {
            forward.advance(walk, &backward.parents)?
        } else {
            backward.advance(walk, &forward.parents)?
        };
        if let Some(meeting) = meeting {
            let mut edges: Vec<_> = forward.back(meeting).into_iter().map(|(_, edge)| edge).collect();
            edges.reverse();
            // Met from behind: seen from its other end.
            edges.extend(backward.back(meeting).into_iter().map(|(parent, edge)| Edge {
                other: parent,
                is_outgoing: !edge.is_outgoing,
                ..edge
            }));
            return Ok(Some(edges));
        }
        if forward.frontier.is_empty() || backward.frontier.is_empty() {
            return Ok(None);
        }
    }
    Ok(None)
}

/// Enumerates paths that pass no node twice, shortest first, until there are `limit`, or `steps_max` edges were looked at.
///
/// # Errors
/// When the walk is to end.
pub fn paths<W: Walk>(
    walk: &W,
    from: W::Node,
    to: W::Node,
    direction: Direction,
    hops_max: usize,
    limit: usize,
    steps_max: usize,
) -> Result<Vec<Path<W::Node>>, W::Error> {
    let mut found = Vec::new();
    if limit == 0 {
        return Ok(found);
    }
    if from == to {
        found.push(Vec::new());
        return Ok(found);
    }
    let distances = distances(walk, to, direction.reversed(), hops_max, steps_max)?;
    let mut search = Search { walk, to, direction, distances, limit, steps_left: steps_max, found };
    for len in 1..=hops_max {
        search.extend(from, &mut Vec::new(), &mut vec![from], len)?;
        if search.is_over() {
            break;
        }
    }
    Ok(search.found)
}

/// Returns how many hops nodes are from one at least, up to a bound.
fn distances<W: Walk>(
    walk: &W,
    start: W::Node,
    direction: Direction,
    hops_max: usize,
    nodes_max: usize,
) -> Result<HashMap<W::Node, usize, KeyHash>, W::Error> {
    let mut distances: HashMap<_, _, KeyHash> = std::iter::once((start, 0)).collect();
    let mut frontier = vec![start];
    for hops in 1..=hops_max {
        let mut next = Vec::new();
        for node in frontier {
            walk.edges(node, direction, |edge| {
                distances.entry(edge.other).or_insert_with(|| {
                    next.push(edge.other);
                    hops
                });
                ControlFlow::Continue(())
            })?;
        }
        frontier = next;
        if distances.len() > nodes_max {
            break;
        }
    }
    Ok(distances)
}

/// An enumeration of paths, depth first.
struct Search<'a, W: Walk> {
    walk: &'a W,
    to: W::Node,
    direction: Direction,
    distances: HashMap<W::Node, usize, KeyHash>,
    limit: usize,
    steps_left: usize,
    found: Vec<Path<W::Node>>,
}

impl<W: Walk> Search<'_, W> {
    fn is_over(&self) -> bool {
        self.found.len() >= self.limit || self.steps_left == 0
    }

    /// Extends a path by exactly `left` edges. It recurses once an edge, so at most `hops_max` deep.
    fn extend(
        &mut self,
        node: W::Node,
        path: &mut Path<W::Node>,
        passed: &mut Vec<W::Node>,
        left: usize,
    ) -> Result<(), W::Error> {
        let mut next = Vec::new();
        self.walk.edges(node, self.direction, |edge| {
            let is_near = self.distances.get(&edge.other).is_some_and(|distance| *distance < left);
            let ends_here = edge.other == self.to;
            if is_near && ends_here == (left == 1) && !passed.contains(&edge.other) {
                next.push(edge);
            }
            self.steps_left = self.steps_left.saturating_sub(1);
            if self.steps_left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        for edge in next {
            if self.is_over() {
                return Ok(());
            }
            path.push(edge);
            if left == 1 {
                self.found.push(path.clone());
            } else {
                passed.push(edge.other);
                self.extend(edge.other, path, passed, left - 1)?;
                passed.pop();
            }
            path.pop();
        }
        Ok(())
    }
}
