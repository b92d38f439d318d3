//! A graph that follows changes: a base, and for each node that was touched since what is otherwise.
//!
//! Start at [`GraphIndex`]. Always true: what a [`Snapshot`] shows never changes; whoever changes the index copies what a snapshot
//! still shows, one node and one shard at a time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::base::{Base, BaseBuilder, Detail, Place};
use super::hash::KeyHash;
use super::{EdgeRecord, Key, LabelKey, TooLarge};

/// Shards of the overlay: each is copied as a whole when one of its nodes changes under a snapshot.
const SHARDS: usize = 256;
/// So many changes are borne for each million edges, at least so many, before the base is to be built anew.
const CHANGES_MIN: usize = 10_000;
const CHANGES_PER_EDGE: usize = 16;

/// A node as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node<'a> {
    /// Its key.
    pub key: Key,
    /// Its label.
    pub label: LabelKey,
    /// Its name.
    pub name: &'a str,
    /// Whether it is gone: nobody sees it or its edges.
    pub is_gone: bool,
}

/// What is otherwise of a node.
#[derive(Debug, Clone, Default)]
pub(super) struct Touched {
    info: Option<Info>,
    /// Keys of edges of the base that are no longer there, or no longer so, ascending.
    pub(super) removed: Vec<Key>,
    /// By key, ascending.
    pub(super) outgoing: Vec<Added>,
    pub(super) incoming: Vec<Added>,
}

impl Touched {
    /// Returns the edges of one direction that came later.
    pub(super) fn added(&self, is_outgoing: bool) -> &[Added] {
        if is_outgoing { &self.outgoing } else { &self.incoming }
    }
}

#[derive(Debug, Clone)]
struct Info {
    label: LabelKey,
    name: Arc<str>,
    is_gone: bool,
}

/// An edge that came later, at one of its ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Added {
    pub(super) key: Key,
    pub(super) label: LabelKey,
    pub(super) other: Place,
    pub(super) detail: Detail,
}

type Shard = HashMap<Place, Arc<Touched>, KeyHash>;

#[derive(Debug, Clone, Default)]
pub(super) struct Overlay {
    shards: Vec<Arc<Shard>>,
    /// Keys of nodes that came later; their places follow the base's.
    added: Arc<Vec<Key>>,
    /// The same by key: one that was there before a base was built may come late.
    by_key: Arc<HashMap<Key, Place, KeyHash>>,
    /// Nodes by the names that they got since.
    by_name: Arc<HashMap<Arc<str>, Vec<Place>>>,
    /// See [`GraphIndex::put_other_name`].
    other_names: Arc<HashSet<Box<str>>>,
    change_count: usize,
    /// Whether a node may be gone that is not in the base.
    has_gone: bool,
}

impl Overlay {
    #[inline]
    pub(super) fn get(&self, place: Place) -> Option<&Touched> {
        self.shards.get(place as usize % SHARDS)?.get(&place).map(Arc::as_ref)
    }

    fn touch(&mut self, place: Place) -> &mut Touched {
        if self.shards.is_empty() {
            self.shards = vec![Arc::default(); SHARDS];
        }
        let shard = Arc::make_mut(&mut self.shards[place as usize % SHARDS]);
        Arc::make_mut(shard.entry(place).or_default())
    }
}

/// A graph at one moment, cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub(super) base: Arc<Base>,
    pub(super) overlay: Arc<Overlay>,
}

/// A graph that follows changes.
#[derive(Debug, Clone, Default)]
pub struct GraphIndex {
    now: Snapshot,
}

impl GraphIndex {
    /// Returns the graph that was built.
    #[must_use]
    pub fn new(builder: BaseBuilder) -> Self {
        Self { now: Snapshot { base: Arc::new(builder.build()), overlay: Arc::default() } }
    }

    /// Returns the graph as it is now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.now.clone()
    }

    /// Puts a node, in the place of the one of its key.
    pub fn put_node(&mut self, node: &Node<'_>) {
        let place = self.place_or_new(node.key);
        let is_named_so = (place as usize) < self.now.base.keys.len() && self.now.base.name(place) == node.name;
        let overlay = Arc::make_mut(&mut self.now.overlay);
        overlay.change_count += 1;
        overlay.has_gone |= node.is_gone;
        let info = Info { label: node.label, name: node.name.into(), is_gone: node.is_gone };
        if !is_named_so {
            let places = Arc::make_mut(&mut overlay.by_name).entry(Arc::clone(&info.name)).or_default();
            if !places.contains(&place) {
                places.push(place);
            }
        }
        overlay.touch(place).info = Some(info);
    }

    /// Says that a name is not only, or not at all, the own name of a node: whoever asks for it has to look elsewhere.
    pub fn put_other_name(&mut self, name: &str) {
        if !self.now.has_other(name) {
            let overlay = Arc::make_mut(&mut self.now.overlay);
            overlay.change_count += 1;
            Arc::make_mut(&mut overlay.other_names).insert(name.into());
        }
    }

    /// Lets a node be gone, if there is one of this key.
    pub fn remove_node(&mut self, key: Key) {
        let Some(place) = self.now.place(key) else { return };
        let Node { label, name, .. } = self.now.node(place);
        let info = Info { label, name: name.into(), is_gone: true };
        let overlay = Arc::make_mut(&mut self.now.overlay);
        overlay.change_count += 1;
        overlay.has_gone = true;
        overlay.touch(place).info = Some(info);
    }

    fn place_or_new(&mut self, key: Key) -> Place {
        if let Some(place) = self.now.place(key) {
            return place;
        }
        let overlay = Arc::make_mut(&mut self.now.overlay);
        let place = (self.now.base.keys.len() + overlay.added.len()) as Place;
        Arc::make_mut(&mut overlay.added).push(key);
        Arc::make_mut(&mut overlay.by_key).insert(key, place);
        place
    }

    /// Puts an edge that is not there; answers whether its ends are. One that was there is removed first.
    pub fn put_edge(&mut self, edge: &EdgeRecord) -> bool {
        let (Some(subject), Some(object)) = (self.now.place(edge.subject), self.now.place(edge.object)) else {
            return false;
        };
        let overlay = Arc::make_mut(&mut self.now.overlay);
        overlay.change_count += 1;
        let detail = Detail { weight: edge.weight, validity: edge.validity };
        let added = |other| Added { key: edge.key, label: edge.label, other, detail };
        insert(&mut overlay.touch(subject).outgoing, added(object));
        insert(&mut overlay.touch(object).incoming, added(subject));
        true
    }

    /// Removes an edge between two nodes, if it is there.
    pub fn remove_edge(&mut self, key: Key, subject: Key, object: Key) {
        for end in [subject, object] {
            let Some(place) = self.now.place(end) else { continue };
            let overlay = Arc::make_mut(&mut self.now.overlay);
            overlay.change_count += 1;
            let touched = overlay.touch(place);
            touched.outgoing.retain(|edge| edge.key != key);
            touched.incoming.retain(|edge| edge.key != key);
            if let Err(at) = touched.removed.binary_search(&key) {
                touched.removed.insert(at, key);
            }
        }
    }

    /// Whether so much was changed that walks are faster over a graph that is built anew.
    #[must_use]
    pub fn is_to_be_rebuilt(&self) -> bool {
        let borne = (self.now.base.edge_count() / CHANGES_PER_EDGE).max(CHANGES_MIN);
        self.now.overlay.change_count > borne
    }
}

fn insert(edges: &mut Vec<Added>, edge: Added) {
    let at = edges.partition_point(|other| other.key < edge.key);
    match edges.get_mut(at) {
        Some(other) if other.key == edge.key => *other = edge,
        _ => edges.insert(at, edge),
    }
}

impl Snapshot {
    /// Returns how many places there are, gone ones counted.
    #[must_use]
    pub fn place_count(&self) -> usize {
        self.base.keys.len() + self.overlay.added.len()
    }

    /// Returns about how many bytes the graph takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.base.bytes() + self.overlay.change_count * 128
    }

    pub(super) fn place(&self, key: Key) -> Option<Place> {
        self.base.place(key).or_else(|| self.overlay.by_key.get(&key).copied())
    }

    pub(super) fn key(&self, place: Place) -> Key {
        let at = place as usize;
        let base = &self.base.keys;
        if at < base.len() { base[at] } else { self.overlay.added[at - base.len()] }
    }

    /// Returns the node of a place that a walk answered with.
    #[must_use]
    pub fn node(&self, place: u32) -> Node<'_> {
        match self.overlay.get(place).and_then(|touched| touched.info.as_ref()) {
            Some(info) => Node { key: self.key(place), label: info.label, name: &info.name, is_gone: info.is_gone },
            None => self.base.node(place),
        }
    }

    /// Returns the place of a node that is not gone.
    #[must_use]
    pub fn find(&self, key: Key) -> Option<u32> {
        self.place(key).filter(|place| !self.is_gone(*place))
    }

    fn has_other(&self, name: &str) -> bool {
        self.base.other_names.contains(name) || self.overlay.other_names.contains(name)
    }

    /// Returns the place of the one node that is not gone and has this name of its own, and a label that is wanted; `None`: it
    /// takes more than own names to say, or there is not one.
    #[must_use]
    pub fn find_named(&self, name: &str, is_wanted: impl Fn(LabelKey) -> bool) -> Option<u32> {
        if self.has_other(name) {
            return None;
        }
        let added = self.overlay.by_name.get(name).into_iter().flatten().copied();
        let mut found = self.base.by_name.candidates(name).chain(added).filter(|place| {
            let node = self.node(*place);
            node.name == name && !node.is_gone && is_wanted(node.label)
        });
        let first = found.next()?;
        // A node that was renamed back is found twice.
        found.all(|other| other == first).then_some(first)
    }

    #[inline]
    pub(super) fn is_gone(&self, place: Place) -> bool {
        self.has_gone() && self.node(place).is_gone
    }

    /// Whether any node may be gone.
    pub(super) fn has_gone(&self) -> bool {
        self.base.gone_count > 0 || self.overlay.has_gone
    }

    /// Whether nothing was changed since the base was built.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.overlay.shards.is_empty()
    }

    /// Returns every edge of a node that it is the subject of, gone ends included.
    fn outgoing(&self, place: Place) -> Vec<EdgeRecord> {
        let touched = self.overlay.get(place);
        let edges = &self.base.edges;
        let record = |key, label, other, detail: Option<Detail>| EdgeRecord {
            key,
            subject: self.key(place),
            label,
            object: self.key(other),
            weight: detail.map_or(1.0, |detail| detail.weight),
            validity: detail.map_or((None, None), |detail| detail.validity),
        };
        let is_removed = |key: &Key| touched.is_some_and(|touched| touched.removed.binary_search(key).is_ok());
        let base = self.base.row(place, true).filter(|at| !is_removed(&edges.keys[*at])).map(|at| {
            let key = edges.keys[at];
            record(
                key,
                edges.labels[at] & !super::base::DETAILED,
                edges.others[at],
                self.base.details.get(&key).copied(),
            )
        });
        let added = touched.into_iter().flat_map(|touched| &touched.outgoing);
        base.chain(added.map(|edge| record(edge.key, edge.label, edge.other, Some(edge.detail)))).collect()
    }

    /// Builds the same graph anew, without nodes that are gone for good.
    ///
    /// # Errors
    /// When it would take more than so many bytes.
    pub fn rebuilt(&self, bytes_max: usize) -> Result<GraphIndex, TooLarge> {
        let mut places: Vec<Place> = (0..self.place_count() as Place).collect();
        places.sort_unstable_by_key(|place| self.key(*place));
        let mut builder = BaseBuilder::new(bytes_max);
        for place in &places {
            let node = self.node(*place);
            builder.push_node(node.key, node.label, node.name, node.is_gone)?;
        }
        for name in self.base.other_names.iter().chain(self.overlay.other_names.iter()) {
            builder.push_other_name(name)?;
        }
        for place in places {
            for edge in self.outgoing(place) {
                builder.push_edge(&edge)?;
            }
        }
        Ok(GraphIndex::new(builder))
    }

    /// Shows every edge both of whose ends are there: their labels, and its own.
    pub fn for_each_triple(&self, mut each: impl FnMut(LabelKey, LabelKey, LabelKey)) {
        for place in 0..self.place_count() as Place {
            let node = self.node(place);
            if node.is_gone {
                continue;
            }
            for edge in self.outgoing(place) {
                let object = self.place(edge.object).map(|object| self.node(object));
                if let Some(object) = object.filter(|object| !object.is_gone) {
                    each(node.label, edge.label, object.label);
                }
            }
        }
    }

    /// Shows the label of every node that is there.
    pub fn for_each_label(&self, mut each: impl FnMut(LabelKey)) {
        for place in 0..self.place_count() as Place {
            let node = self.node(place);
            if !node.is_gone {
                each(node.label);
            }
        }
    }
}
