//! A directed multigraph in memory, and how graphs are walked: an engine over (key, key) that knows no store.
//!
//! Start at [`GraphIndex`]: nodes and their edges as rows of a sparse matrix (`base`), and what was changed since (`overlay`). Its
//! [`View`] is one [`Walk`]; a store may have others, such as its rows. What walks do is in `walk`, `path` and `rank`. Misspelt names
//! are found in `spelling`.
//!
//! Always true: rows are the truth, and all of this can be made anew from them; a [`Snapshot`] never changes; every walk asks
//! whether it is to end, after at most some thousand edges.

#![expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "places are dense numbers of the same index, under 2^32; scores need no more than 24 bits"
)]

mod base;
mod hash;
mod names;
mod overlay;
mod path;
mod pattern;
mod rank;
mod spelling;
#[cfg(test)]
mod tests;
mod view;
mod walk;

use std::ops::ControlFlow;

pub use base::{BaseBuilder, TooLarge};
pub use hash::KeyHash;
pub use overlay::{GraphIndex, Node, Snapshot};
pub use path::{Path, paths, shortest_path};
pub use pattern::NamePattern;
pub use rank::{Ranking, rank};
pub use spelling::{Spelled, Spelling};
pub use view::{Rules, Stopped, View};
pub use walk::{Met, map_edges, neighborhood};

/// What a store calls an entity or a relation by.
pub type Key = i64;

/// What a store calls a label by.
pub type LabelKey = u32;

/// An edge as a store has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EdgeRecord {
    /// Its key.
    pub key: Key,
    /// Where it begins.
    pub subject: Key,
    /// Its label.
    pub label: LabelKey,
    /// Where it ends.
    pub object: Key,
    /// How much it counts, over 0.
    pub weight: f64,
    /// From when, and until when, it holds.
    pub validity: (Option<i64>, Option<i64>),
}

/// An edge as it is met at one of its ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Edge<N> {
    /// Its key.
    pub key: Key,
    /// Its label.
    pub label: LabelKey,
    /// The other end.
    pub other: N,
    /// Whether this end is where it begins.
    pub is_outgoing: bool,
    /// How much it counts.
    pub weight: f64,
}

/// Which way edges are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From subjects to objects.
    Outgoing,
    /// From objects to subjects.
    Incoming,
    /// Both ways.
    Both,
}

impl Direction {
    /// Returns the way back.
    #[must_use]
    pub fn reversed(self) -> Self {
        match self {
            Self::Outgoing => Self::Incoming,
            Self::Incoming => Self::Outgoing,
            Self::Both => Self::Both,
        }
    }
}

/// A graph that can be walked, as some question sees it.
pub trait Walk {
    /// What it calls a node by.
    type Node: Copy + Eq + Ord + std::hash::Hash + std::fmt::Debug;
    /// Why a walk may end early.
    type Error;
    /// A state for each node of a walk.
    type Table<T: Default + Clone>: Table<Self::Node, T>;
    /// Which nodes a walk has met.
    type Marks: Marks<Self::Node>;

    /// Shows the edges of a node that the question follows: outgoing ones first, each way in the order of their keys. An edge of the
    /// node with itself is shown once, as outgoing, where both ways are followed.
    ///
    /// # Errors
    /// When the walk is to end.
    fn edges(
        &self,
        node: Self::Node,
        direction: Direction,
        each: impl FnMut(Edge<Self::Node>) -> ControlFlow<()>,
    ) -> Result<(), Self::Error>;

    /// Returns the other ends of a node's edges, one for each that [`edges`](Self::edges) would show, if those that count 1 are all of
    /// them and their ends are at hand.
    ///
    /// # Errors
    /// When the walk is to end.
    fn ends(&self, _node: Self::Node, _direction: Direction) -> Result<Option<&[Self::Node]>, Self::Error> {
        Ok(None)
    }

    /// Returns about what it takes to show a node's edges: how many there are, if that is at hand, and 1.
    fn edge_count(&self, _node: Self::Node, _direction: Direction) -> usize {
        1
    }

    /// Returns a table in which every node has the default state.
    fn table<T: Default + Clone>(&self) -> Self::Table<T>;

    /// Returns marks of which no node has one.
    fn marks(&self) -> Self::Marks;

    /// Returns all nodes in order, if looking at each is cheaper than to keep a list of those that were met, which are so many.
    fn all_nodes(&self, met_count: usize) -> Option<Vec<Self::Node>>;
}

/// Which nodes a walk has met.
pub trait Marks<N> {
    /// Marks a node; answers whether it was not marked before.
    fn mark(&mut self, node: N) -> bool;
}

/// A state for each node.
pub trait Table<N, T> {
    /// Returns a node's state.
    fn at(&mut self, node: N) -> &mut T;
}
