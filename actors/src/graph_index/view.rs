//! A graph in memory as a question sees it.
//!
//! Start at [`View`].

use std::cell::Cell;
use std::collections::HashSet;
use std::ops::ControlFlow;

use super::base::{DETAILED, Detail, Place};
use super::hash::KeyHash;
use super::overlay::{Added, Snapshot, Touched};
use super::{Direction, Edge, LabelKey, Marks, Table, Walk};

/// Edges that are met between two questions whether the walk is to end.
const ASKED_EVERY: usize = 4_096;

/// A walk that has met one in so many nodes may as well look at all of them.
const MET_SHARE: usize = 8;

/// Which edges a question follows.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Only edges of these labels, ascending; `None`: of any.
    pub labels: Option<Vec<LabelKey>>,
    /// Only to nodes of these labels, ascending; `None`: of any.
    pub node_labels: Option<Vec<LabelKey>>,
    /// Only edges that hold at this time; `None`: whenever.
    pub valid_at: Option<i64>,
}

/// Why a walk ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It was called off.
    CalledOff,
    /// It met more edges than it may.
    OverBudget,
}

/// A graph in memory as a question sees it.
pub struct View<'a> {
    snapshot: &'a Snapshot,
    rules: &'a Rules,
    /// Nodes that the rules for nodes do not count for: where the question starts and ends.
    exempt: &'a [u32],
    is_over: &'a dyn Fn() -> bool,
    edges_left: Cell<usize>,
    until_asked: Cell<usize>,
    /// Every edge of the base that is still there is followed, and counts 1.
    follows_all: bool,
    /// And none has changed.
    is_simple: bool,
}

impl<'a> View<'a> {
    /// Returns the graph as seen by the rules. A walk over it ends after about `edges_max` edges, and soon after `is_over` says so.
    #[must_use]
    pub fn new(
        snapshot: &'a Snapshot,
        rules: &'a Rules,
        exempt: &'a [u32],
        edges_max: usize,
        is_over: &'a dyn Fn() -> bool,
    ) -> Self {
        let follows_all = rules.labels.is_none()
            && rules.node_labels.is_none()
            && !snapshot.has_gone()
            && snapshot.base.details.is_empty();
        let is_simple = follows_all && snapshot.is_plain();
        let (edges_left, until_asked) = (Cell::new(edges_max), Cell::new(ASKED_EVERY));
        Self { snapshot, rules, exempt, is_over, edges_left, until_asked, follows_all, is_simple }
    }

    /// Returns the graph.
    #[must_use]
    pub fn snapshot(&self) -> &'a Snapshot {
        self.snapshot
    }

    fn spend(&self, edge_count: usize) -> Result<(), Stopped> {
        let cost = edge_count + 1;
        let left = self.edges_left.get().checked_sub(cost).ok_or(Stopped::OverBudget)?;
        self.edges_left.set(left);
        match self.until_asked.get().checked_sub(cost) {
            Some(left) => self.until_asked.set(left),
            None => {
                self.until_asked.set(ASKED_EVERY);
                if (self.is_over)() {
                    return Err(Stopped::CalledOff);
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn is_label_followed(&self, label: LabelKey) -> bool {
        self.rules.labels.as_ref().is_none_or(|labels| labels.binary_search(&label).is_ok())
    }

    #[inline]
    fn is_node_followed(&self, place: Place) -> bool {
        if self.snapshot.is_gone(place) {
            return false;
        }
        let Some(labels) = &self.rules.node_labels else { return true };
        labels.binary_search(&self.snapshot.node(place).label).is_ok() || self.exempt.contains(&place)
    }

    /// Returns an edge of the base, if it is followed.
    #[inline]
    fn base_edge(&self, at: usize, is_outgoing: bool) -> Option<Edge<Place>> {
        let edges = &self.snapshot.base.edges;
        let (stored, other, key) = (edges.labels[at], edges.others[at], edges.keys[at]);
        let label = stored & !DETAILED;
        let mut weight = 1.0;
        if stored & DETAILED != 0 {
            let detail = self.snapshot.base.details.get(&key)?;
            if !detail.holds_at(self.rules.valid_at) {
                return None;
            }
            weight = detail.weight;
        }
        let is_followed = self.is_label_followed(label) && self.is_node_followed(other);
        is_followed.then_some(Edge { key, label, other, is_outgoing, weight })
    }

    fn added_edge(&self, added: &Added, is_outgoing: bool) -> Option<Edge<Place>> {
        let Added { key, label, other, detail } = *added;
        let Detail { weight, .. } = detail;
        let is_followed =
            detail.holds_at(self.rules.valid_at) && self.is_label_followed(label) && self.is_node_followed(other);
        is_followed.then_some(Edge { key, label, other, is_outgoing, weight })
    }

    /// Shows the edges of one direction; without loops where those were shown already.
    fn one_way(
        &self,
        place: Place,
        is_outgoing: bool,
        skips_loops: bool,
        each: &mut impl FnMut(Edge<Place>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Stopped> {
        let base = &self.snapshot.base;
        let (row, edges) = (base.row(place, is_outgoing), &base.edges);
        let touched = if self.snapshot.is_plain() { None } else { self.snapshot.overlay.get(place) };
        let Some(touched) = touched else {
            self.spend(row.len())?;
            for at in row {
                if skips_loops && edges.others[at] == place {
                    continue;
                }
                let edge = if self.is_simple {
                    let (key, label, other) = (edges.keys[at], edges.labels[at], edges.others[at]);
                    Some(Edge { key, label, other, is_outgoing, weight: 1.0 })
                } else {
                    self.base_edge(at, is_outgoing)
                };
                if let Some(edge) = edge
                    && each(edge).is_break()
                {
                    return Ok(ControlFlow::Break(()));
                }
            }
            return Ok(ControlFlow::Continue(()));
        };
        self.merged(place, is_outgoing, skips_loops, touched, each)
    }

    /// The same of a node that was touched: what is left of the base, and what came later, by key.
    fn merged(
        &self,
        place: Place,
        is_outgoing: bool,
        skips_loops: bool,
        touched: &Touched,
        each: &mut impl FnMut(Edge<Place>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Stopped> {
        let base = &self.snapshot.base;
        let (row, keys) = (base.row(place, is_outgoing), &base.edges.keys);
        let added = touched.added(is_outgoing);
        self.spend(row.len() + added.len())?;
        let mut added = added.iter().peekable();
        let mut row = row.filter(|at| touched.removed.binary_search(&keys[*at]).is_err()).peekable();
        loop {
            let next_added = added.peek().map(|edge| edge.key);
            let edge = match (row.peek().copied(), next_added) {
                (None, None) => return Ok(ControlFlow::Continue(())),
                (Some(at), next) if next.is_none_or(|key| keys[at] < key) => {
                    row.next();
                    self.base_edge(at, is_outgoing)
                }
                _ => added.next().and_then(|edge| self.added_edge(edge, is_outgoing)),
            };
            if let Some(edge) = edge
                && !(skips_loops && edge.other == place)
                && each(edge).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
}

impl Walk for View<'_> {
    type Node = u32;
    type Error = Stopped;
    type Table<T: Default + Clone> = Vec<T>;
    type Marks = PlaceMarks;

    #[inline]
    fn edges(
        &self,
        node: u32,
        direction: Direction,
        mut each: impl FnMut(Edge<u32>) -> ControlFlow<()>,
    ) -> Result<(), Stopped> {
        if direction != Direction::Incoming && self.one_way(node, true, false, &mut each)?.is_break() {
            return Ok(());
        }
        if direction != Direction::Outgoing {
            let _ = self.one_way(node, false, direction == Direction::Both, &mut each)?;
        }
        Ok(())
    }

    #[inline]
    fn edge_count(&self, node: u32, direction: Direction) -> usize {
        let touched = if self.snapshot.is_plain() { None } else { self.snapshot.overlay.get(node) };
        let added = |is_outgoing| touched.map_or(0, |touched| touched.added(is_outgoing).len());
        let count = |is_outgoing| self.snapshot.base.row(node, is_outgoing).len() + added(is_outgoing);
        1 + match direction {
            Direction::Outgoing => count(true),
            Direction::Incoming => count(false),
            Direction::Both => count(true) + count(false),
        }
    }

    #[inline]
    fn ends(&self, node: u32, direction: Direction) -> Result<Option<&[u32]>, Stopped> {
        let base = &self.snapshot.base;
        let is_at_hand = self.follows_all
            && (direction != Direction::Both || !base.looped.contains(&node))
            && (self.snapshot.is_plain() || self.snapshot.overlay.get(node).is_none());
        if !is_at_hand {
            return Ok(None);
        }
        let row = match direction {
            Direction::Outgoing => base.row(node, true),
            Direction::Incoming => base.row(node, false),
            Direction::Both => base.whole_row(node),
        };
        self.spend(row.len())?;
        Ok(Some(&base.edges.others[row]))
    }

    fn table<T: Default + Clone>(&self) -> Vec<T> {
        vec![T::default(); self.snapshot.place_count()]
    }

    fn all_nodes(&self, met_count: usize) -> Option<Vec<u32>> {
        let count = self.snapshot.place_count();
        (met_count >= count / MET_SHARE).then(|| (0..count as u32).collect())
    }

    fn marks(&self) -> PlaceMarks {
        let few = HashSet::with_capacity_and_hasher(FEW_MAX + 1, KeyHash::default());
        PlaceMarks { few, bits: Vec::new(), place_count: self.snapshot.place_count() }
    }
}

/// So many marks are kept as a set.
const FEW_MAX: usize = 100;

/// Marks of places: a set of a few, then a bit for each place. Those of a large graph are fetched from the system and cleared, which
/// takes as long as a short walk.
#[derive(Debug)]
pub struct PlaceMarks {
    few: HashSet<u32, KeyHash>,
    /// Empty as long as there are few.
    bits: Vec<u64>,
    place_count: usize,
}

impl PlaceMarks {
    #[cold]
    fn spread(&mut self) {
        self.bits = vec![0; self.place_count.div_ceil(64)];
        for place in std::mem::take(&mut self.few) {
            mark_bit(&mut self.bits, place);
        }
    }
}

#[inline]
fn mark_bit(bits: &mut [u64], place: u32) -> bool {
    let (word, bit) = (&mut bits[place as usize / 64], 1 << (place % 64));
    let is_new = *word & bit == 0;
    *word |= bit;
    is_new
}

impl Marks<u32> for PlaceMarks {
    #[inline]
    fn mark(&mut self, node: u32) -> bool {
        if !self.bits.is_empty() {
            return mark_bit(&mut self.bits, node);
        }
        let is_new = self.few.insert(node);
        if self.few.len() > FEW_MAX {
            self.spread();
        }
        is_new
    }
}

impl<N: Eq + std::hash::Hash, S: std::hash::BuildHasher> Marks<N> for std::collections::HashSet<N, S> {
    fn mark(&mut self, node: N) -> bool {
        self.insert(node)
    }
}

impl<T> Table<u32, T> for Vec<T> {
    #[inline]
    fn at(&mut self, node: u32) -> &mut T {
        &mut self[node as usize]
    }
}

impl<N: Eq + std::hash::Hash + Copy, T: Default, S: std::hash::BuildHasher> Table<N, T>
    for std::collections::HashMap<N, T, S>
{
    fn at(&mut self, node: N) -> &mut T {
        self.entry(node).or_default()
    }
}

impl std::fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("rules", self.rules).finish_non_exhaustive()
    }
}
