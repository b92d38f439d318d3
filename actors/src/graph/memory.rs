//! The graph in memory, and how it follows what is committed.
//!
//! Start at [`look`]: a question looks at one committed state, and the graph is brought to exactly that one, whoever committed it.
//! What was made is what has a higher key; what was changed or deleted is in the table `touched`.
//!
//! Where nothing is to be followed, [`current`] answers without a transaction, and as a rule without asking SQLite.
//!
//! Always true: the graph is changed only by a read of committed rows, in a transaction that began while it was held, so that it
//! never runs ahead of what its question sees.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use larder_protocol::{Label, Sequence};
use rusqlite::{Connection, params};

use super::delete::TOUCHED_KEPT;
use super::known_names::KnownNames;
use super::lookup::Names;
use super::names;
use super::row::{ENTITY, EntityRow, RELATION_CORE, RelationRow, damaged};
use super::similar::Similar;
use super::store::{GraphSettings, Reading};
use crate::graph_index::{BaseBuilder, EdgeRecord, GraphIndex, KeyHash, LabelKey, Node, Snapshot, TooLarge};
use crate::store::{Failure, Outcome};

/// The graph follows so many writes on a caller's thread: about 10 µs each.
const FOLLOWED_IN_PLACE_MAX: i64 = 16;
/// From so many writes on, or a quarter of its edges, it is quicker to load it anew.
const FOLLOWED_MAX: i64 = 50_000;
/// Names that writes have met take one part in so many of the graph's memory: 32 MiB of 2 GiB, some 400,000 names.
const KNOWN_NAMES_SHARE: usize = 64;
/// A graph that was too large is tried again after so many writes.
const RETRIED_AFTER: i64 = 200_000;

/// The store's state in memory.
#[derive(Debug)]
pub struct GraphMemory {
    bytes_max: usize,
    graph: Mutex<Graph>,
    pub(super) names: Mutex<Option<Names>>,
    pub(super) similar: Mutex<Option<Similar>>,
    labels: Mutex<Arc<HashMap<i64, Label, KeyHash>>>,
    /// For writes alone.
    known_names: Mutex<KnownNames>,
}

/// The graph, if it fits.
#[derive(Debug, Default)]
enum Graph {
    #[default]
    Unloaded,
    /// It was too large when this was the newest write.
    TooLarge(i64),
    Loaded(Followed),
}

/// A graph, and how far it has come.
#[derive(Debug)]
struct Followed {
    index: GraphIndex,
    /// Every write up to this is in it.
    to: i64,
    rebuilding: Option<Rebuilding>,
}

/// A graph that is built anew on a thread of its own.
#[derive(Debug)]
struct Rebuilding {
    /// What was built, once it is. The thread holds the other reference; alone and empty: it failed.
    built: Arc<Mutex<Option<Result<GraphIndex, TooLarge>>>>,
    /// What every write up to is in it.
    to: i64,
}

/// What a question looks at: the graph in memory, if it fits there, else rows.
pub(super) struct Seen<'a> {
    pub(super) connection: &'a Connection,
    pub(super) snapshot: Option<Snapshot>,
}

impl GraphMemory {
    pub(super) fn new(settings: &GraphSettings) -> Self {
        let bytes_max = usize::try_from(settings.index_bytes_max).unwrap_or(usize::MAX);
        Self {
            bytes_max,
            graph: Mutex::default(),
            names: Mutex::default(),
            similar: Mutex::default(),
            labels: Mutex::default(),
            known_names: Mutex::new(KnownNames::new(bytes_max / KNOWN_NAMES_SHARE)),
        }
    }

    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    pub(super) fn forget(&self) {
        *lock(&self.graph) = Graph::Unloaded;
        *lock(&self.names) = None;
        *lock(&self.similar) = None;
        *lock(&self.labels) = Arc::default();
    }

    /// Returns the names that writes have met.
    pub(super) fn known_names(&self) -> MutexGuard<'_, KnownNames> {
        lock(&self.known_names)
    }

    /// Returns the labels that readers have met.
    pub(super) fn labels(&self) -> Arc<HashMap<i64, Label, KeyHash>> {
        Arc::clone(&lock(&self.labels))
    }

    /// Remembers labels that a reader met, which are committed, and never change.
    pub(super) fn learn(&self, new: HashMap<i64, Label, KeyHash>) {
        if !new.is_empty() {
            Arc::make_mut(&mut lock(&self.labels)).extend(new);
        }
    }
}

fn lock<T: Default>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for what is in memory, but not on a caller's thread. What somebody panicked over is given up.
pub(super) fn hold<'a, T: Default>(mutex: &'a Mutex<T>, is_in_place: bool) -> Outcome<MutexGuard<'a, T>> {
    let held = match mutex.try_lock() {
        Ok(held) => return Ok(held),
        Err(TryLockError::WouldBlock) if is_in_place => return Err(Failure::TooLong),
        Err(TryLockError::WouldBlock) => mutex.lock(),
        Err(TryLockError::Poisoned(poisoned)) => Err(poisoned),
    };
    held.or_else(|poisoned| {
        mutex.clear_poison();
        let mut held = poisoned.into_inner();
        *held = T::default();
        Ok(held)
    })
}

/// Returns the graph in memory if it is that of the newest committed state at some moment since this was called: the rows may
/// be further by now.
pub(super) fn current(context: &Reading<'_>) -> Outcome<Option<Snapshot>> {
    let Ok(held) = context.memory.graph.try_lock() else { return Ok(None) };
    let Graph::Loaded(Followed { index, to, rebuilding: None }) = &*held else { return Ok(None) };
    let (snapshot, to) = (index.snapshot(), *to);
    drop(held);
    Ok(context.is_newest(Sequence(to.cast_unsigned()))?.then_some(snapshot))
}

/// Looks at the newest committed state.
///
/// # Errors
/// On a caller's thread [`Failure::TooLong`] when there is more to follow than a few rows.
pub(super) fn look<T>(context: &Reading<'_>, look: impl FnOnce(Seen<'_>) -> Outcome<T>) -> Outcome<T> {
    let mut held = hold(&context.memory.graph, context.is_in_place)?;
    // Begun with the graph in hand, so that nobody takes it further than this transaction sees.
    context.at_one_instant(|connection| {
        let snapshot = follow(context, connection, &mut held)?;
        drop(held);
        look(Seen { connection, snapshot })
    })
}

/// Brings the graph to the state that the open transaction sees.
fn follow(context: &Reading<'_>, connection: &Connection, graph: &mut Graph) -> Outcome<Option<Snapshot>> {
    let newest = context.newest_sequence()?.0.cast_signed();
    match graph {
        Graph::Loaded(followed) if followed.can_follow(newest) => {
            if followed.to == newest && followed.rebuilding.is_none() {
                return Ok(Some(followed.index.snapshot()));
            }
            if context.is_in_place && newest - followed.to > FOLLOWED_IN_PLACE_MAX {
                return Err(Failure::TooLong);
            }
        }
        Graph::TooLarge(at) if newest - *at < RETRIED_AFTER && newest >= *at => return Ok(None),
        _ if context.memory.bytes_max == 0 => return Ok(None),
        _ if context.is_in_place => return Err(Failure::TooLong),
        _ => *graph = load(connection, context.memory.bytes_max, newest)?,
    }
    let Graph::Loaded(followed) = graph else { return Ok(None) };
    if let Err(error) = followed.follow(connection, newest) {
        // It may have come half way.
        *graph = Graph::Unloaded;
        return Err(error);
    }
    followed.mind_rebuilding(context.memory.bytes_max);
    let snapshot = followed.index.snapshot();
    if snapshot.bytes() > context.memory.bytes_max {
        *graph = Graph::TooLarge(newest);
        return Ok(None);
    }
    Ok(Some(snapshot))
}

fn load(connection: &Connection, bytes_max: usize, newest: i64) -> Outcome<Graph> {
    let mut builder = BaseBuilder::new(bytes_max);
    {
        let mut statement = connection.prepare_cached(&format!("SELECT {ENTITY} FROM entity ORDER BY key"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let entity = EntityRow::read(row)?;
            if builder.push_node(entity.key, label(entity.label_key)?, &entity.name, !entity.is_live()).is_err() {
                return Ok(Graph::TooLarge(newest));
            }
        }
    }
    {
        // Not verified: whoever asks for one of these is told to look at the rows, and those are.
        let mut statement = connection.prepare_cached("SELECT name FROM name WHERE is_alias = 1")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let name = row.get_ref(0)?.as_bytes().map_err(rusqlite::Error::from)?;
            if builder.push_other_name(&String::from_utf8_lossy(name)).is_err() {
                return Ok(Graph::TooLarge(newest));
            }
        }
    }
    let mut statement = connection.prepare_cached(&format!("SELECT {RELATION_CORE} FROM relation ORDER BY key"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let edge = record(&RelationRow::read(row)?)?;
        match builder.push_edge(&edge) {
            Ok(true) => {}
            Ok(false) => return Err(without_end(edge.key)),
            Err(TooLarge) => return Ok(Graph::TooLarge(newest)),
        }
    }
    Ok(Graph::Loaded(Followed { index: GraphIndex::new(builder), to: newest, rebuilding: None }))
}

fn without_end(key: i64) -> Failure {
    damaged(format!("the relation {key} has an end that is not there"))
}

fn label(key: i64) -> Outcome<LabelKey> {
    // The highest bit is the engine's own.
    let label = u32::try_from(key).ok().filter(|label| label >> 31 == 0);
    label.ok_or_else(|| damaged(format!("the label {key} cannot be one")))
}

fn record(relation: &RelationRow) -> Outcome<EdgeRecord> {
    Ok(EdgeRecord {
        key: relation.key,
        subject: relation.subject,
        label: label(relation.label_key)?,
        object: relation.object,
        weight: relation.weight,
        validity: (relation.validity.from.map(|time| time.0), relation.validity.until.map(|time| time.0)),
    })
}

impl Followed {
    fn can_follow(&self, newest: i64) -> bool {
        let behind = newest - self.to;
        (0..=FOLLOWED_MAX.min(TOUCHED_KEPT)).contains(&behind)
    }

    fn follow(&mut self, connection: &Connection, newest: i64) -> Outcome<()> {
        self.adopt_rebuilt(newest);
        if self.to == newest {
            return Ok(());
        }
        let (entities, relations) = self.take_touched(connection)?;
        self.follow_entities(connection, entities)?;
        for key in relations {
            if let Some(relation) = RelationRow::find(connection, key)? {
                self.put(&relation)?;
            }
        }
        let sql = format!("SELECT {RELATION_CORE} FROM relation WHERE key > ?1 ORDER BY key");
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query([self.to])?;
        while let Some(row) = rows.next()? {
            self.put(&RelationRow::read(row)?)?;
        }
        self.to = newest;
        Ok(())
    }

    fn put(&mut self, relation: &RelationRow) -> Outcome<()> {
        if self.index.put_edge(&record(relation)?) { Ok(()) } else { Err(without_end(relation.key)) }
    }

    /// Removes relations that are no longer as they were; answers with the entities and relations that were touched.
    fn take_touched(&mut self, connection: &Connection) -> Outcome<(BTreeSet<i64>, BTreeSet<i64>)> {
        let mut statement = connection
            .prepare_cached("SELECT key, subject, object FROM touched WHERE sequence > ?1 ORDER BY sequence")?;
        let mut rows = statement.query([self.to])?;
        let (mut entities, mut relations) = (BTreeSet::new(), BTreeSet::new());
        while let Some(row) = rows.next()? {
            let (key, subject, object): (i64, Option<i64>, Option<i64>) = (row.get(0)?, row.get(1)?, row.get(2)?);
            match subject.zip(object) {
                Some((subject, object)) => {
                    self.index.remove_edge(key, subject, object);
                    relations.insert(key);
                }
                None => {
                    entities.insert(key);
                }
            }
        }
        Ok((entities, relations))
    }

    fn follow_entities(&mut self, connection: &Connection, touched: BTreeSet<i64>) -> Outcome<()> {
        for key in touched {
            match EntityRow::find(connection, key)? {
                Some(entity) => {
                    self.put_entity(&entity)?;
                    for alias in names::aliases(connection, key)? {
                        self.index.put_other_name(&alias.name);
                    }
                }
                // Deleted, and its row is swept already.
                None => self.index.remove_node(key),
            }
        }
        let mut statement =
            connection.prepare_cached(&format!("SELECT {ENTITY} FROM entity WHERE key > ?1 ORDER BY key"))?;
        let mut rows = statement.query(params![self.to])?;
        while let Some(row) = rows.next()? {
            self.put_entity(&EntityRow::read(row)?)?;
        }
        Ok(())
    }

    fn put_entity(&mut self, entity: &EntityRow) -> Outcome<()> {
        let (key, name) = (entity.key, entity.name.as_str());
        self.index.put_node(&Node { key, label: label(entity.label_key)?, name, is_gone: !entity.is_live() });
        Ok(())
    }

    /// Takes over what was built anew, if it can follow to the newest write.
    fn adopt_rebuilt(&mut self, newest: i64) {
        let Some(Rebuilding { built, to }) = &self.rebuilding else { return };
        let to = *to;
        let is_alone = Arc::strong_count(built) == 1;
        let taken = lock(built).take();
        match taken {
            Some(Ok(index)) if to <= newest => (self.index, self.to, self.rebuilding) = (index, to, None),
            Some(_) => self.rebuilding = None,
            None if is_alone => self.rebuilding = None,
            None => {}
        }
    }

    /// Begins to build the graph anew when walks have grown slow.
    fn mind_rebuilding(&mut self, bytes_max: usize) {
        if self.rebuilding.is_some() || !self.index.is_to_be_rebuilt() {
            return;
        }
        let built = Arc::default();
        let (theirs, snapshot) = (Arc::clone(&built), self.index.snapshot());
        let build = move || {
            let index = snapshot.rebuilt(bytes_max);
            *lock(&theirs) = Some(index);
        };
        // It touches no file, so that nothing waits for it. Where no thread can be had, a later question tries again.
        if std::thread::Builder::new().name("larder-graph".to_owned()).spawn(build).is_ok() {
            self.rebuilding = Some(Rebuilding { built, to: self.to });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(index: &mut GraphIndex, keys: std::ops::Range<i64>) {
        for key in keys {
            index.put_node(&Node { key, label: 1, name: &key.to_string(), is_gone: false });
        }
    }

    fn followed(to: i64) -> Followed {
        let mut index = GraphIndex::default();
        put(&mut index, 1..to + 1);
        Followed { index, to, rebuilding: None }
    }

    /// Waits for the thread that builds.
    fn adopt(followed: &mut Followed, newest: i64) {
        let began = std::time::Instant::now();
        while followed.rebuilding.is_some() {
            assert!(began.elapsed().as_secs() < 60, "nothing is built");
            followed.adopt_rebuilt(newest);
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_is_built_in_the_background_is_taken_over_and_follows_from_where_it_began() {
        let mut followed = followed(10_001);
        followed.mind_rebuilding(usize::MAX);
        assert!(followed.rebuilding.is_some());
        // What comes meanwhile is not in it: it is followed again.
        put(&mut followed.index, 10_002..10_052);
        followed.to = 10_051;
        adopt(&mut followed, 10_051);
        assert_eq!((followed.to, followed.index.snapshot().place_count()), (10_001, 10_001));
        assert!(!followed.index.is_to_be_rebuilt());
        let snapshot = followed.index.snapshot();
        assert_eq!(snapshot.find_named("77", |_| true), snapshot.find(77));
    }

    #[test]
    fn what_was_built_is_given_up_where_it_cannot_be_followed_from() {
        let mut followed = followed(10_001);
        followed.mind_rebuilding(usize::MAX);
        // The file is another one, of fewer writes.
        adopt(&mut followed, 5);
        assert_eq!(followed.to, 10_001);
        // One that does not fit is given up as well, and tried again later.
        followed.mind_rebuilding(100);
        adopt(&mut followed, 10_001);
        assert!(followed.index.is_to_be_rebuilt());
    }
}
