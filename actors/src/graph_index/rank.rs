//! Personalised PageRank, to a bound on the error.
//!
//! What walks have still to distribute is kept as a residual for each node, and pushed on from nodes that have much of it until less than
//! `tolerance` is left in all: each score is then off by less than that. (Forward push as usual stops at a residual *for each edge*,
//! which on hubs leaves most of it undistributed.) Andersen, Chung and Lang, "Local Graph Partitioning using PageRank Vectors",
//! FOCS 2006.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use super::{Direction, Table, Walk};

/// What is asked of a ranking.
#[derive(Debug, Clone, Copy)]
pub struct Ranking {
    /// Which way walks go.
    pub direction: Direction,
    /// How likely a walk goes on, under 1.
    pub damping: f64,
    /// How much may be left to distribute in the end.
    pub tolerance: f64,
    /// How many of the best are wanted: once it is certain which they are, the rest need not be distributed. 0: all.
    pub limit: usize,
}

/// What is known of a node.
#[derive(Debug, Clone, Default)]
struct State {
    score: f32,
    residual: f32,
    /// The sum of its edges' weights; 0: not known, under 0: it has none.
    strength: f32,
    is_queued: bool,
}

/// A phase pushes from every node that has this share of what is left, for each node that was met, and more.
const PHASE: f64 = 0.125;

/// Ranks nodes from seeds by their weights, which need not sum to 1; answers with all that got something, best first, of equals the
/// lower node.
///
/// # Errors
/// When the walk is to end.
pub fn rank<W: Walk>(walk: &W, seeds: &[(W::Node, f64)], ranking: &Ranking) -> Result<Vec<(W::Node, f64)>, W::Error> {
    let sum: f64 = seeds.iter().map(|(_, weight)| weight).sum();
    if sum <= 0.0 {
        return Ok(Vec::new());
    }
    let seeds: Vec<_> = seeds.iter().map(|(node, weight)| (*node, weight / sum)).collect();
    let mut push =
        Push { walk, seeds: &seeds, ranking, states: walk.table(), queue: VecDeque::new(), left: 1.0, met: Vec::new() };
    for (node, weight) in &seeds {
        push.give(*node, *weight);
    }
    while push.left > ranking.tolerance {
        push.phase()?;
        if push.is_certain() {
            break;
        }
    }
    Ok(push.ranked())
}

/// A ranking on its way.
struct Push<'a, W: Walk> {
    walk: &'a W,
    seeds: &'a [(W::Node, f64)],
    ranking: &'a Ranking,
    states: W::Table<State>,
    queue: VecDeque<W::Node>,
    /// The sum of all residuals.
    left: f64,
    /// Nodes that got something.
    met: Vec<W::Node>,
}

impl<W: Walk> Push<'_, W> {
    fn give(&mut self, node: W::Node, amount: f64) {
        let state = self.states.at(node);
        if state.residual == 0.0 && state.score == 0.0 {
            self.met.push(node);
        }
        state.residual += amount as f32;
    }

    /// Pushes from every node with much, until none has.
    fn phase(&mut self) -> Result<(), W::Error> {
        let threshold = (self.left * PHASE / self.met.len().max(1) as f64) as f32;
        self.queue.clear();
        for node in &self.met {
            let state = self.states.at(*node);
            state.is_queued = state.residual > threshold;
            if state.is_queued {
                self.queue.push_back(*node);
            }
        }
        while let Some(node) = self.queue.pop_front() {
            self.push(node, threshold)?;
            if self.left <= self.ranking.tolerance {
                break;
            }
        }
        Ok(())
    }

    fn push(&mut self, node: W::Node, threshold: f32) -> Result<(), W::Error> {
        let strength = self.strength(node)?;
        let damping = self.ranking.damping;
        let state = self.states.at(node);
        state.is_queued = false;
        let residual = f64::from(std::mem::take(&mut state.residual));
        state.score += ((1.0 - damping) * residual) as f32;
        self.left -= (1.0 - damping) * residual;
        let onward = damping * residual;
        if strength <= 0.0 {
            for at in 0..self.seeds.len() {
                let (seed, weight) = self.seeds[at];
                self.receive(seed, (onward * weight) as f32, threshold);
            }
            return Ok(());
        }
        let share = onward / f64::from(strength);
        let (walk, direction) = (self.walk, self.ranking.direction);
        walk.edges(node, direction, |edge| {
            self.receive(edge.other, (share * edge.weight) as f32, threshold);
            ControlFlow::Continue(())
        })
    }

    #[inline]
    fn receive(&mut self, node: W::Node, amount: f32, threshold: f32) {
        let state = self.states.at(node);
        if state.residual == 0.0 && state.score == 0.0 {
            self.met.push(node);
        }
        state.residual += amount;
        if state.residual > threshold && !state.is_queued {
            state.is_queued = true;
            self.queue.push_back(node);
        }
    }

    fn strength(&mut self, node: W::Node) -> Result<f32, W::Error> {
        let known = self.states.at(node).strength;
        if known != 0.0 {
            return Ok(known);
        }
        let mut sum = 0.0;
        self.walk.edges(node, self.ranking.direction, |edge| {
            sum += edge.weight;
            ControlFlow::Continue(())
        })?;
        let strength = if sum > 0.0 { sum as f32 } else { -1.0 };
        self.states.at(node).strength = strength;
        Ok(strength)
    }

    /// Whether what is left, were it all one node's, would not change which are the best.
    fn is_certain(&mut self) -> bool {
        let limit = self.ranking.limit;
        if limit == 0 || self.met.len() <= limit {
            return false;
        }
        let mut scores: Vec<f32> = Vec::with_capacity(self.met.len());
        for node in &self.met {
            scores.push(self.states.at(*node).score);
        }
        let (_, next, _) = scores.select_nth_unstable_by(limit, |a, b| b.total_cmp(a));
        let next = *next;
        let last = scores[..limit].iter().copied().fold(f32::INFINITY, f32::min);
        f64::from(last) > f64::from(next) + self.left
    }

    fn ranked(mut self) -> Vec<(W::Node, f64)> {
        // What is left stays where it is: a better guess than nowhere.
        let mut ranked = Vec::with_capacity(self.met.len());
        for node in &self.met {
            let state = self.states.at(*node);
            ranked.push((*node, f64::from(state.score) + f64::from(state.residual) * (1.0 - self.ranking.damping)));
        }
        ranked.retain(|(_, score)| *score > 0.0);
        let order = |a: &(W::Node, f64), b: &(W::Node, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        let limit = self.ranking.limit;
        if limit > 0 && ranked.len() > limit {
            ranked.select_nth_unstable_by(limit, order);
            ranked.truncate(limit);
        }
        ranked.sort_unstable_by(order);
        ranked
    }
}
