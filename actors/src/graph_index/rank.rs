//! Personalised PageRank, to a bound on the error.
//!
//! What walks have still to distribute is kept as a residual for each node. A sweep pushes every residual on once, from the
//! last node to the first, so that what a node gets from later ones goes on in the same sweep: after a few of them less than `tolerance`
//! is left in all, and each score is off by less than that. (Forward push as usual stops at a residual *for each edge*, which on hubs
//! leaves most of it undistributed.) Andersen, Chung and Lang, "Local Graph Partitioning using PageRank Vectors", FOCS 2006.
//!
//! Where edges are followed both ways, a sweep pushes more than the residual, and what was too much comes back as a negative one:
//! that is successive over-relaxation (Young 1954), which halves the sweeps.

use std::ops::ControlFlow;

use super::{Direction, Marks, Table, Walk};

/// What is asked of a ranking.
#[derive(Debug, Clone, Copy)]
pub struct Ranking {
    /// Which way walks go.
    pub direction: Direction,
    /// How likely a walk goes on, under 1.
    pub damping: f64,
    /// How much may be left to distribute in the end.
    pub tolerance: f64,
    /// How many of the best are wanted. 0: all.
    pub limit: usize,
}

/// What is known of a node, beside its residual.
#[derive(Debug, Clone, Default)]
struct State {
    score: f32,
    /// The sum of its edges' weights; 0: not known, under 0: it has none.
    strength: f32,
}

/// Residuals that are together at most this share of all wait for a later sweep: most nodes have next to nothing.
const WAITING: f64 = 0.1;
/// How much of a residual is pushed on where edges are followed both ways. There the equations are symmetric but for a scale, so that
/// anything under 2 ends (Ostrowski and Reich); Young's best for a damping of 0.85 is 2 / (1 + √(1 − 0.85²)) = 1.31.
const BOTH_WAYS: f64 = 1.3;
/// More than any ranking needs: with the greatest damping, 0.99, and the least tolerance, a millionth, one way takes some 1,400.
const SWEEPS_MAX: usize = 10_000;

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
    let mut push = Push::new(walk, &seeds, ranking);
    for (node, weight) in &seeds {
        push.receive(*node, *weight as f32);
    }
    for _ in 0..SWEEPS_MAX {
        let left = push.left();
        if left <= ranking.tolerance {
            break;
        }
        push.sweep(left)?;
    }
    Ok(push.ranked())
}

/// A ranking on its way.
struct Push<'a, W: Walk> {
    walk: &'a W,
    seeds: &'a [(W::Node, f64)],
    ranking: &'a Ranking,
    relaxation: f64,
    states: W::Table<State>,
    /// Apart from the states, since a push meets these alone, at random.
    residuals: W::Table<f32>,
    /// Nodes that got something, or all.
    met: Vec<W::Node>,
    marks: W::Marks,
    /// Whether `met` has all nodes.
    is_met_all: bool,
}

impl<'a, W: Walk> Push<'a, W> {
    fn new(walk: &'a W, seeds: &'a [(W::Node, f64)], ranking: &'a Ranking) -> Self {
        let relaxation = if ranking.direction == Direction::Both { BOTH_WAYS } else { 1.0 };
        let (states, residuals, marks) = (walk.table(), walk.table(), walk.marks());
        Self { walk, seeds, ranking, relaxation, states, residuals, met: Vec::new(), marks, is_met_all: false }
    }

    #[inline]
    fn receive(&mut self, node: W::Node, amount: f32) {
        *self.residuals.at(node) += amount;
        if !self.is_met_all && self.marks.mark(node) {
            self.met.push(node);
        }
    }

    /// Returns the sum of all residuals' sizes. It is summed anew each time: what rounding loses would otherwise be pushed for ever.
    fn left(&mut self) -> f64 {
        let mut left = 0.0;
        for at in 0..self.met.len() {
            left += f64::from(self.residuals.at(self.met[at]).abs());
        }
        left
    }

    /// Pushes every residual on that is worth it, once.
    fn sweep(&mut self, left: f64) -> Result<(), W::Error> {
        let threshold = (left * WAITING / self.met.len().max(1) as f64) as f32;
        // In their order, so that memory is read as it lies; nodes that are met on the way wait for the next sweep.
        if !self.is_met_all {
            match self.walk.all_nodes(self.met.len()) {
                Some(all) => (self.met, self.is_met_all) = (all, true),
                // Most of it is in order already.
                None => self.met.sort(),
            }
        }
        // From the last on: the oldest nodes have the most edges as a rule, and what others push to them goes on in the same sweep.
        for at in (0..self.met.len()).rev() {
            let node = self.met[at];
            if self.residuals.at(node).abs() > threshold {
                self.push(node)?;
            }
        }
        Ok(())
    }

    fn push(&mut self, node: W::Node) -> Result<(), W::Error> {
        let strength = self.strength(node)?;
        let damping = self.ranking.damping;
        let residual = self.residuals.at(node);
        let pushed = self.relaxation * f64::from(*residual);
        *residual -= pushed as f32;
        self.states.at(node).score += ((1.0 - damping) * pushed) as f32;
        let onward = damping * pushed;
        if strength <= 0.0 {
            for at in 0..self.seeds.len() {
                let (seed, weight) = self.seeds[at];
                self.receive(seed, (onward * weight) as f32);
            }
            return Ok(());
        }
        let share = onward / f64::from(strength);
        let (walk, direction) = (self.walk, self.ranking.direction);
        if let Some(ends) = walk.ends(node, direction)? {
            for end in ends {
                self.receive(*end, share as f32);
            }
            return Ok(());
        }
        walk.edges(node, direction, |edge| {
            self.receive(edge.other, (share * edge.weight) as f32);
            ControlFlow::Continue(())
        })
    }

    fn strength(&mut self, node: W::Node) -> Result<f32, W::Error> {
        let known = self.states.at(node).strength;
        if known != 0.0 {
            return Ok(known);
        }
        let mut sum = 0.0;
        if let Some(ends) = self.walk.ends(node, self.ranking.direction)? {
            sum = ends.len() as f64;
        } else {
            self.walk.edges(node, self.ranking.direction, |edge| {
                sum += edge.weight;
                ControlFlow::Continue(())
            })?;
        }
        let strength = if sum > 0.0 { sum as f32 } else { -1.0 };
        self.states.at(node).strength = strength;
        Ok(strength)
    }

    fn ranked(mut self) -> Vec<(W::Node, f64)> {
        // What is left stays where it is: a better guess than nowhere.
        let mut ranked = Vec::with_capacity(self.met.len());
        for node in &self.met {
            let score = f64::from(self.states.at(*node).score) + f64::from(*self.residuals.at(*node));
            if score > 0.0 {
                ranked.push((*node, score));
            }
        }
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
