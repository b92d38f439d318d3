//! Walks that go outwards, breadth first.

use std::collections::HashSet;
use std::ops::ControlFlow;

use super::hash::KeyHash;
use super::{Direction, Edge, Marks, Walk};

/// Finds the nodes within `depth` hops of others, nearest first; answers each with its hops. Those that it starts from are not among
/// them.
///
/// # Errors
/// When the walk is to end.
pub fn neighborhood<W: Walk>(
    walk: &W,
    starts: &[W::Node],
    direction: Direction,
    depth: usize,
    limit: usize,
) -> Result<Vec<(W::Node, usize)>, W::Error> {
    let mut met = Vec::new();
    if limit == 0 {
        return Ok(met);
    }
    let mut marks = walk.marks();
    for start in starts {
        marks.mark(*start);
    }
    let mut level = starts.to_vec();
    for hops in 1..=depth {
        let level_end = met.len();
        for node in &level {
            walk.edges(*node, direction, |edge| {
                if marks.mark(edge.other) {
                    met.push((edge.other, hops));
                }
                if met.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            if met.len() >= limit {
                return Ok(met);
            }
        }
        level.clear();
        level.extend(met.iter().skip(level_end).map(|(node, _)| *node));
        if level.is_empty() {
            break;
        }
    }
    Ok(met)
}

/// An edge that was met on the way out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Met<N> {
    /// The end that it was met at.
    pub node: N,
    /// The edge.
    pub edge: Edge<N>,
    /// At which hop, from 1.
    pub hops: usize,
}

/// Follows edges outwards and answers with each that was met, once, nearest first.
///
/// # Errors
/// When the walk is to end.
pub fn map_edges<W: Walk>(
    walk: &W,
    starts: &[W::Node],
    direction: Direction,
    depth: usize,
    limit: usize,
) -> Result<Vec<Met<W::Node>>, W::Error> {
    let mut marks = walk.marks();
    let mut edges_met: HashSet<i64, KeyHash> = HashSet::default();
    let mut met = Vec::new();
    if limit == 0 {
        return Ok(met);
    }
    let mut level = Vec::new();
    for start in starts {
        if marks.mark(*start) {
            level.push(*start);
        }
    }
    for hops in 1..=depth {
        let mut next = Vec::new();
        for node in level {
            walk.edges(node, direction, |edge| {
                if edges_met.insert(edge.key) {
                    met.push(Met { node, edge, hops });
                }
                if marks.mark(edge.other) {
                    next.push(edge.other);
                }
                if met.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            if met.len() >= limit {
                return Ok(met);
            }
        }
        level = next;
    }
    Ok(met)
}
