//! A graph as it was when it was built: nodes by dense numbers, and the edges of each, one node's behind another's.
//!
//! Start at [`BaseBuilder`].

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::hash::KeyHash;
use super::names::NameTable;
use super::overlay::Node;
use super::{EdgeRecord, Key, LabelKey};

/// A node's dense number.
pub(super) type Place = u32;

/// The label's bit that says that more is known of the edge.
pub(super) const DETAILED: u32 = 1 << 31;

/// What is known of an edge that is not usual: it weighs something else than 1, or does not always hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Detail {
    pub(super) weight: f64,
    pub(super) validity: (Option<i64>, Option<i64>),
}

impl Detail {
    #[expect(clippy::float_cmp, reason = "exactly 1 is the usual weight")]
    pub(super) fn of(edge: &EdgeRecord) -> Option<Self> {
        let detail = Self { weight: edge.weight, validity: edge.validity };
        (edge.weight != 1.0 || edge.validity != (None, None)).then_some(detail)
    }

    pub(super) fn holds_at(&self, at: Option<i64>) -> bool {
        let (from, until) = self.validity;
        at.is_none_or(|at| from.is_none_or(|from| from <= at) && until.is_none_or(|until| at < until))
    }
}

/// The edges of every node, one node's behind another's: those that leave it, then those that come in, each way in the order of their
/// keys. A compressed sparse row matrix for each direction, whose rows alternate, since most walks go both ways.
#[derive(Debug, Default)]
pub(super) struct Edges {
    pub(super) others: Vec<Place>,
    /// With [`DETAILED`].
    pub(super) labels: Vec<u32>,
    pub(super) keys: Vec<Key>,
}

impl Edges {
    /// Takes edges in the order of their keys, and says in the nodes where each one's begin.
    fn of(nodes: &mut [NodeRecord], edges: &[Raw]) -> Self {
        // First how many there are.
        for edge in edges {
            nodes[edge.subject as usize].outgoing_start += 1;
            nodes[edge.object as usize].incoming_start += 1;
        }
        let mut sum = 0;
        for node in &mut *nodes {
            let (outgoing, incoming) = (node.outgoing_start, node.incoming_start);
            (node.outgoing_start, node.incoming_start) = (sum, sum + outgoing);
            sum += outgoing + incoming;
        }
        let mut next: Vec<_> = nodes.iter().map(|node| [node.outgoing_start, node.incoming_start]).collect();
        let count = sum as usize;
        let mut all = Self { others: vec![0; count], labels: vec![0; count], keys: vec![0; count] };
        for edge in edges {
            for (way, this, other) in [(0, edge.subject, edge.object), (1, edge.object, edge.subject)] {
                let at = next[this as usize][way] as usize;
                next[this as usize][way] += 1;
                (all.others[at], all.labels[at], all.keys[at]) = (other, edge.label, edge.key);
            }
        }
        all
    }

    fn bytes(&self) -> usize {
        self.others.len() * (4 + 4 + 8)
    }
}

/// A node, all in one place: who meets it reads most of this, and memory is fetched by the line.
#[derive(Debug, Clone, Copy, Default)]
struct NodeRecord {
    key: Key,
    label: LabelKey,
    /// Where its name begins, which ends where the next one's begins.
    name_start: u32,
    /// Where the edges that leave it begin, and those that come in; the next one's follow.
    outgoing_start: u32,
    incoming_start: u32,
}

/// An edge while a graph is built.
#[derive(Debug, Clone, Copy)]
struct Raw {
    key: Key,
    subject: Place,
    object: Place,
    label: u32,
}

/// A graph that was built.
#[derive(Debug, Default)]
pub(super) struct Base {
    /// Of nodes, ascending.
    pub(super) keys: Vec<Key>,
    /// And one behind the last.
    nodes: Vec<NodeRecord>,
    names: String,
    pub(super) by_name: NameTable,
    /// Names that something else has than the node whose own they are.
    pub(super) other_names: HashSet<Box<str>>,
    gone: Vec<u64>,
    pub(super) gone_count: usize,
    pub(super) edges: Edges,
    /// Nodes with an edge that ends where it begins: it is in their row twice.
    pub(super) looped: HashSet<Place, KeyHash>,
    pub(super) details: HashMap<Key, Detail, KeyHash>,
}

impl Base {
    pub(super) fn place(&self, key: Key) -> Option<Place> {
        self.keys.binary_search(&key).ok().map(|at| at as Place)
    }

    #[inline]
    pub(super) fn node(&self, place: Place) -> Node<'_> {
        let NodeRecord { key, label, .. } = self.nodes[place as usize];
        Node { key, label, name: self.name(place), is_gone: self.is_gone(place) }
    }

    #[inline]
    pub(super) fn name(&self, place: Place) -> &str {
        let at = place as usize;
        let (start, end) = (self.nodes[at].name_start, self.nodes[at + 1].name_start);
        self.names.get(start as usize..end as usize).unwrap_or_default()
    }

    /// Returns where a node's edges of one direction are.
    #[inline]
    pub(super) fn row(&self, place: Place, is_outgoing: bool) -> Range<usize> {
        let at = place as usize;
        // A node that came later has none here.
        let Some([node, next]) = self.nodes.get(at..at + 2) else { return 0..0 };
        let middle = node.incoming_start as usize;
        if is_outgoing { node.outgoing_start as usize..middle } else { middle..next.outgoing_start as usize }
    }

    /// Returns where a node's edges of both directions are.
    #[inline]
    pub(super) fn whole_row(&self, place: Place) -> Range<usize> {
        self.row(place, true).start..self.row(place, false).end
    }

    #[inline]
    pub(super) fn is_gone(&self, place: Place) -> bool {
        self.gone_count > 0 && self.gone.get(place as usize / 64).is_some_and(|word| word >> (place % 64) & 1 == 1)
    }

    pub(super) fn edge_count(&self) -> usize {
        self.edges.others.len() / 2
    }

    /// Returns about how many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        let nodes = self.keys.len() * (8 + size_of::<NodeRecord>()) + self.gone.len() * 8 + self.names.len();
        let nodes = nodes + self.by_name.bytes() + self.other_names.len() * OTHER_NAME_BYTES;
        let special = self.details.len() * DETAIL_BYTES + self.looped.len() * LOOPED_BYTES;
        nodes + self.edges.bytes() + special
    }
}

/// Bytes that a detail takes in its table, free places counted.
const DETAIL_BYTES: usize = 96;
/// Bytes that a node with a loop takes beside it.
const LOOPED_BYTES: usize = 8;
/// Bytes that another name takes, about.
const OTHER_NAME_BYTES: usize = 64;
/// Bytes that a node takes beside its name, and an edge, while a graph is built.
const NODE_BYTES: usize = 8 + size_of::<NodeRecord>() + 12;
const EDGE_BYTES: usize = 24 + 32;
/// Each is in two rows, whose places have 32 bits.
const EDGES_MAX: usize = u32::MAX as usize / 2;

/// A graph would take more memory than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge;

/// Takes the nodes, in the order of their keys, then the edges in the order of theirs.
#[derive(Debug, Default)]
pub struct BaseBuilder {
    base: Base,
    edges: Vec<Raw>,
    bytes: usize,
    bytes_max: usize,
}

impl BaseBuilder {
    /// Begins a graph that takes at most so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, ..Self::default() }
    }

    /// Adds a node.
    ///
    /// # Errors
    /// When the graph is over its bytes.
    pub fn push_node(&mut self, key: Key, label: LabelKey, name: &str, is_gone: bool) -> Result<(), TooLarge> {
        let base = &mut self.base;
        let place = base.keys.len();
        self.bytes += NODE_BYTES + name.len();
        // Its end has to be told as well.
        let is_told = base.names.len() + name.len() <= u32::MAX as usize;
        let name_start = base.names.len() as u32;
        if !is_told || self.bytes > self.bytes_max || place >= Place::MAX as usize {
            return Err(TooLarge);
        }
        base.keys.push(key);
        base.nodes.push(NodeRecord { key, label, name_start, ..NodeRecord::default() });
        base.names.push_str(name);
        if place / 64 >= base.gone.len() {
            base.gone.push(0);
        }
        if is_gone {
            base.gone[place / 64] |= 1 << (place % 64);
            base.gone_count += 1;
        }
        Ok(())
    }

    /// Says that a name is not only, or not at all, the own name of a node.
    ///
    /// # Errors
    /// When the graph is over its bytes.
    pub fn push_other_name(&mut self, name: &str) -> Result<(), TooLarge> {
        self.bytes += OTHER_NAME_BYTES;
        self.base.other_names.insert(name.into());
        if self.bytes > self.bytes_max { Err(TooLarge) } else { Ok(()) }
    }

    /// Adds an edge; answers whether its ends are there.
    ///
    /// # Errors
    /// When the graph is over its bytes.
    pub fn push_edge(&mut self, edge: &EdgeRecord) -> Result<bool, TooLarge> {
        let ends = (self.base.place(edge.subject), self.base.place(edge.object));
        let (Some(subject), Some(object)) = ends else { return Ok(false) };
        let detail = Detail::of(edge);
        self.bytes += EDGE_BYTES + detail.map_or(0, |_| DETAIL_BYTES);
        if self.bytes > self.bytes_max || self.edges.len() >= EDGES_MAX {
            return Err(TooLarge);
        }
        let mut label = edge.label;
        if let Some(detail) = detail {
            self.base.details.insert(edge.key, detail);
            label |= DETAILED;
        }
        if subject == object {
            self.base.looped.insert(subject);
        }
        self.edges.push(Raw { key: edge.key, subject, object, label });
        Ok(true)
    }

    pub(super) fn build(mut self) -> Base {
        let count = self.base.keys.len();
        let name_start = self.base.names.len() as u32;
        self.base.nodes.push(NodeRecord { name_start, ..NodeRecord::default() });
        self.edges.sort_unstable_by_key(|edge| edge.key);
        self.base.edges = Edges::of(&mut self.base.nodes, &self.edges);
        self.base.by_name = NameTable::of(count, |place| self.base.name(place));
        self.base
    }
}
