//! A graph as it was when it was built: nodes by dense numbers, and their edges in two compressed sparse row matrices.
//!
//! Start at [`BaseBuilder`].

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::hash::KeyHash;
use super::names::NameTable;
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

/// The edges of every node in one direction, each node's in the order of their keys.
#[derive(Debug, Default)]
pub(super) struct Matrix {
    offsets: Vec<u32>,
    pub(super) others: Vec<Place>,
    /// With [`DETAILED`].
    pub(super) labels: Vec<u32>,
    pub(super) keys: Vec<Key>,
}

impl Matrix {
    fn of(node_count: usize, edges: &[Raw], this: impl Fn(&Raw) -> Place, other: impl Fn(&Raw) -> Place) -> Self {
        let mut offsets = vec![0_u32; node_count + 1];
        for edge in edges {
            offsets[this(edge) as usize + 1] += 1;
        }
        for at in 0..node_count {
            offsets[at + 1] += offsets[at];
        }
        let mut next = offsets.clone();
        let count = edges.len();
        let mut matrix = Self { offsets, others: vec![0; count], labels: vec![0; count], keys: vec![0; count] };
        for edge in edges {
            let place = &mut next[this(edge) as usize];
            let at = *place as usize;
            *place += 1;
            matrix.others[at] = other(edge);
            matrix.labels[at] = edge.label;
            matrix.keys[at] = edge.key;
        }
        matrix
    }

    #[inline]
    pub(super) fn row(&self, place: Place) -> Range<usize> {
        let at = place as usize;
        // A node that came later has none here.
        if at + 1 < self.offsets.len() { self.offsets[at] as usize..self.offsets[at + 1] as usize } else { 0..0 }
    }

    fn bytes(&self) -> usize {
        self.offsets.len() * 4 + self.others.len() * (4 + 4 + 8)
    }
}

/// An edge on its way into the matrices.
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
    pub(super) labels: Vec<LabelKey>,
    name_ends: Vec<usize>,
    names: String,
    pub(super) by_name: NameTable,
    /// Names that something else has than the node whose own they are.
    pub(super) other_names: HashSet<Box<str>>,
    gone: Vec<u64>,
    pub(super) gone_count: usize,
    pub(super) outgoing: Matrix,
    pub(super) incoming: Matrix,
    pub(super) details: HashMap<Key, Detail, KeyHash>,
}

impl Base {
    pub(super) fn place(&self, key: Key) -> Option<Place> {
        self.keys.binary_search(&key).ok().map(|at| at as Place)
    }

    pub(super) fn name(&self, place: Place) -> &str {
        let at = place as usize;
        let start = if at == 0 { 0 } else { self.name_ends[at - 1] };
        self.names.get(start..self.name_ends[at]).unwrap_or_default()
    }

    #[inline]
    pub(super) fn is_gone(&self, place: Place) -> bool {
        self.gone.get(place as usize / 64).is_some_and(|word| word >> (place % 64) & 1 == 1)
    }

    pub(super) fn edge_count(&self) -> usize {
        self.outgoing.others.len()
    }

    /// Returns about how many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        let nodes = self.keys.len() * (8 + 4 + 8) + self.gone.len() * 8 + self.names.len();
        let nodes = nodes + self.by_name.bytes() + self.other_names.len() * OTHER_NAME_BYTES;
        nodes + self.outgoing.bytes() + self.incoming.bytes() + self.details.len() * DETAIL_BYTES
    }
}

/// Bytes that a detail takes in its table, free places counted.
const DETAIL_BYTES: usize = 96;
/// Bytes that another name takes, about.
const OTHER_NAME_BYTES: usize = 64;
/// Bytes that a node takes beside its name, and an edge, while a graph is built.
const NODE_BYTES: usize = 24 + 12;
const EDGE_BYTES: usize = 24 + 32;

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
        if self.bytes > self.bytes_max || place >= Place::MAX as usize {
            return Err(TooLarge);
        }
        base.keys.push(key);
        base.labels.push(label);
        base.names.push_str(name);
        base.name_ends.push(base.names.len());
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
        if self.bytes > self.bytes_max || self.edges.len() >= u32::MAX as usize {
            return Err(TooLarge);
        }
        let mut label = edge.label;
        if let Some(detail) = detail {
            self.base.details.insert(edge.key, detail);
            label |= DETAILED;
        }
        self.edges.push(Raw { key: edge.key, subject, object, label });
        Ok(true)
    }

    pub(super) fn build(mut self) -> Base {
        let count = self.base.keys.len();
        self.edges.sort_unstable_by_key(|edge| edge.key);
        self.base.outgoing = Matrix::of(count, &self.edges, |edge| edge.subject, |edge| edge.object);
        self.base.incoming = Matrix::of(count, &self.edges, |edge| edge.object, |edge| edge.subject);
        self.base.by_name = NameTable::of(count, |place| self.base.name(place));
        self.base
    }
}
