//! The indexes of the collections that were searched, and how they follow what is committed.
//!
//! Start at [`look`]: a search looks at one committed state, and its index is brought to exactly that one, whoever
//! committed it. What is new is what has a higher slot; what went is in the table `removal`.
//!
//! Always true: an index is changed only by a read of committed rows, in a transaction that began while the index was held,
//! so that it never runs ahead of what its search sees.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use larder_protocol::change::Change;
use larder_protocol::{CollectionName, Error as Kind, Version};
use rusqlite::{Connection, params};

use super::collections::{self, Collection, not_found};
use super::kept;
use super::metadata::MetadataColumns;
use super::row::{damaged, read_vector};
use super::store::{Reading, VectorsSettings};
use crate::sqlite::interrupt;
use crate::store::{Failure, Outcome};
use crate::vector_index::{IndexSettings, Metric, Slot, Snapshot, VectorIndex};

/// An index follows so many writes on a caller's thread: about 10 µs each.
const FOLLOWED_IN_PLACE_MAX: u64 = 10;
/// And so many in the transaction of the search itself.
const FOLLOWED_AT_ONCE_MAX: u64 = 1_000;
/// Points between two looks at the clock, a millisecond or so.
const CLOCK_POINTS: usize = 64;
/// So many changes an index bears before it is to be tidied.
const UNTIDY_MAX: usize = 1_024;
/// From so many vectors on an index is begun with a centre, the mean of so many of them at most.
const CENTRED_MIN: usize = 1_024;
const SAMPLE_LEN: usize = 4_096;
/// An index that is far behind follows in several transactions of about so long each: a reader that stays pins the WAL, and
/// is ended past its age. A million vectors take some 10 s.
const FOLLOW_TIME_MAX: Duration = Duration::from_secs(1);
/// A search spends so long at most on tidying, unless most of the index is untidy.
const TIDY_TIME_MAX: Duration = Duration::from_millis(10);

/// The store's state in memory: an index for each collection that was searched.
#[derive(Debug)]
pub struct VectorsMemory {
    index_bytes_max: u64,
    vector_bytes_max: usize,
    seats: Mutex<HashMap<CollectionName, Arc<Seat>>>,
    /// Counts searches, to tell which index was used least recently.
    clock: AtomicU64,
    /// The version that was next when the last sweep was over.
    swept_to: AtomicU64,
    /// By the collection's key, the first slot of what is kept and cannot be used.
    damaged: Mutex<HashMap<i64, Slot>>,
}

/// A collection's index, and what is known of it without waiting for it.
#[derive(Debug, Default)]
pub(super) struct Seat {
    /// Of the index.
    bytes: AtomicU64,
    /// Of the metadata's columns.
    column_bytes: AtomicU64,
    used_at: AtomicU64,
    index: Mutex<Option<Followed>>,
    /// The metadata's columns, for filters.
    pub(super) metadata: Mutex<Option<MetadataColumns>>,
}

/// An index and how far it has come.
#[derive(Debug)]
struct Followed {
    collection_key: i64,
    index: VectorIndex,
    /// Every point up to this slot is in the index, but for removed ones.
    pushed_to: Slot,
    /// Every removal up to this sequence was made.
    removed_to: u64,
    /// Changes since the index was tidy.
    untidy_count: usize,
    is_loaded: bool,
}

/// One committed state of a collection: its rows, in a transaction, and its index.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) connection: &'a Connection,
    pub(super) name: &'a CollectionName,
    pub(super) collection: Collection,
    pub(super) snapshot: Snapshot,
    /// Where the collection's metadata is in memory.
    pub(super) seat: &'a Seat,
    /// How long bringing the index there took.
    pub(super) follow_time: Duration,
}

impl VectorsMemory {
    pub(super) fn new(settings: &VectorsSettings) -> Self {
        Self {
            index_bytes_max: settings.index_bytes_max,
            vector_bytes_max: usize::try_from(settings.vector_bytes_max).unwrap_or(usize::MAX),
            seats: Mutex::default(),
            clock: AtomicU64::new(0),
            swept_to: AtomicU64::new(0),
            damaged: Mutex::default(),
        }
    }

    /// Gives up every index; they are loaded again when they are needed.
    pub(super) fn forget(&self) {
        self.seats().clear();
    }

    /// Gives up the indexes of collections that were dropped.
    pub(super) fn forget_dropped(&self, changes: &[Change]) {
        for change in changes.iter().filter(|change| matches!(change.kind.as_str(), "drop" | "clear")) {
            self.seats().remove(change.scope.as_str());
        }
    }

    fn seat(&self, name: &CollectionName) -> Arc<Seat> {
        let mut seats = self.seats();
        let seat = match seats.get(name) {
            Some(seat) => Arc::clone(seat),
            None => Arc::clone(seats.entry(name.clone()).or_default()),
        };
        seat.used_at.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        seat
    }

    fn seats(&self) -> MutexGuard<'_, HashMap<CollectionName, Arc<Seat>>> {
        // A panic while it is held cannot leave a half-made map.
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn index_settings(&self, collection: &Collection) -> IndexSettings {
        IndexSettings {
            dimensions: collection.dimensions,
            metric: metric(collection.metric),
            vector_bytes_max: self.vector_bytes_max,
        }
    }

    /// Whether loading the vectors of so many points as they are would take much longer than what can be kept of them.
    pub(super) fn is_large(&self, collection: &Collection, point_count: u64) -> bool {
        4 * collection.dimensions as u64 * point_count > self.vector_bytes_max as u64
    }

    /// Begins an index of the collection's kind, which keeps no vectors as they are.
    pub(super) fn begin_index(&self, collection: &Collection) -> VectorIndex {
        VectorIndex::new(IndexSettings { vector_bytes_max: 0, ..self.index_settings(collection) })
    }

    /// Whether nothing was written since the last sweep. `next` is the version of what is written next.
    pub(super) fn is_at_peace(&self, next: Version) -> bool {
        self.swept_to.load(Ordering::Relaxed) == next.0
    }

    /// Notes that a sweep is over.
    pub(super) fn swept(&self, next: Version) {
        self.swept_to.store(next.0, Ordering::Relaxed);
    }

    /// From which slot on what is kept of a collection cannot be used, if a search found that.
    pub(super) fn damaged_from(&self, collection_key: i64) -> Option<Slot> {
        self.damaged().get(&collection_key).copied()
    }

    /// Forgets it: nothing of it is there any more. Were this transaction to fail, the next loading would find it again.
    pub(super) fn forget_damage(&self, collection_key: i64) {
        self.damaged().remove(&collection_key);
    }

    fn damaged(&self) -> MutexGuard<'_, HashMap<i64, Slot>> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for the columns of a collection's metadata, of so many bytes beside its index; `false` if there is none.
    pub(super) fn make_room_for_columns(&self, name: &CollectionName, seat: &Seat, bytes: u64) -> bool {
        seat.column_bytes.store(bytes, Ordering::Relaxed);
        let has_room = self.make_room(name, seat.size_bytes()).is_ok();
        if !has_room {
            seat.column_bytes.store(0, Ordering::Relaxed);
        }
        has_room
    }

    /// Makes room for a collection that takes so many bytes, by giving up those that were used least recently.
    fn make_room(&self, name: &CollectionName, bytes: u64) -> Outcome<()> {
        if bytes > self.index_bytes_max {
            let (what, bytes_max) = (format!("index of vectors collection {:?}", name.as_str()), self.index_bytes_max);
            return Err(Kind::TooLarge { what, bytes, bytes_max }.into());
        }
        let mut seats = self.seats();
        loop {
            let others = seats.iter().filter(|(other, _)| *other != name);
            let sum: u64 = others.clone().map(|(_, seat)| seat.size_bytes()).sum();
            if sum + bytes <= self.index_bytes_max {
                return Ok(());
            }
            let oldest = others.min_by_key(|(_, seat)| seat.used_at.load(Ordering::Relaxed));
            let Some(oldest) = oldest.map(|(other, _)| other.clone()) else { return Ok(()) };
            seats.remove(&oldest);
        }
    }
}

pub(super) fn metric(metric: larder_protocol::vectors::Metric) -> Metric {
    match metric {
        larder_protocol::vectors::Metric::Dot => Metric::Dot,
        larder_protocol::vectors::Metric::L2 => Metric::L2,
        // Metrics of a newer protocol are refused when a collection is made.
        _ => Metric::Cosine,
    }
}

/// Looks at the newest committed state of a collection.
///
/// # Errors
/// On a caller's thread [`Failure::TooLong`] when there is more to follow than a few rows.
pub(super) fn look<T>(
    context: &Reading<'_>,
    name: &CollectionName,
    look: impl FnOnce(View<'_>) -> Outcome<T>,
) -> Outcome<T> {
    let began = Instant::now();
    let seat = context.memory.seat(name);
    let mut held = seat.hold(context.is_in_place)?;
    if !context.is_in_place {
        catch_up(context, name, &seat, &mut held)?;
    }
    // Begun with the index in hand, so that nobody takes it further than this transaction sees.
    context.at_one_instant(|connection| {
        let (collection, snapshot) = follow(context, name, &seat, &mut held, None)?;
        drop(held);
        look(View { connection, name, collection, snapshot, seat: &seat, follow_time: began.elapsed() })
    })
}

/// Takes an index that is far behind to within some seconds of the newest commit, in transactions of its own.
fn catch_up(context: &Reading<'_>, name: &CollectionName, seat: &Seat, held: &mut Option<Followed>) -> Outcome<()> {
    let newest = context.newest_sequence()?.0;
    let is_near =
        |followed: &Followed| followed.is_loaded && newest.saturating_sub(followed.removed_to) <= FOLLOWED_AT_ONCE_MAX;
    if held.as_ref().is_some_and(is_near) {
        return Ok(());
    }
    loop {
        let until = Instant::now() + FOLLOW_TIME_MAX;
        let is_behind = context.at_one_instant(|_| {
            follow(context, name, seat, held, Some(until))?;
            Ok(held.as_ref().is_some_and(|followed| !followed.is_loaded))
        })?;
        if held.as_mut().is_none_or(|followed| !followed.tidy_in_bulk()) && !is_behind {
            return Ok(());
        }
        interrupt::renew_age();
    }
}

/// Brings the index of a collection to the state that the open transaction sees, or, with an end, as far as it gets until
/// then: it is not [loaded](Followed::is_loaded) then.
fn follow(
    context: &Reading<'_>,
    name: &CollectionName,
    seat: &Seat,
    held: &mut Option<Followed>,
    until: Option<Instant>,
) -> Outcome<(Collection, Snapshot)> {
    let (connection, memory) = (context.connection, context.memory);
    let Some(collection) = collections::find(connection, name)? else {
        memory.seats().remove(name);
        return Err(not_found(name).into());
    };
    let newest = context.newest_sequence()?.0;
    let followed = match held.take() {
        Some(followed) if followed.collection_key == collection.key => held.insert(followed),
        _ => held.insert(Followed::begin(&collection, memory.index_settings(&collection), newest)),
    };
    if context.is_in_place && followed.is_long_behind(newest) {
        return Err(Failure::TooLong);
    }
    memory.make_room(name, followed.bytes_with(&collection) + seat.column_bytes.load(Ordering::Relaxed))?;
    let done = followed.follow(memory, connection, &collection, newest, until);
    if !context.is_in_place && done.is_ok() {
        followed.tidy();
    }
    seat.bytes.store(followed.index.bytes().0 as u64, Ordering::Relaxed);
    done?;
    Ok((collection, followed.index.snapshot()))
}

impl View<'_> {
    /// Reads a point's vector.
    pub(super) fn vector(&self, slot: Slot) -> Outcome<Vec<f32>> {
        read_slot(self.connection, slot)
    }
}

fn read_slot(connection: &Connection, slot: Slot) -> Outcome<Vec<f32>> {
    let mut statement = connection.prepare_cached("SELECT vector_checksum, vector FROM point WHERE slot = ?1")?;
    let mut rows = statement.query([slot])?;
    let row = rows.next()?.ok_or_else(|| damaged(format!("slot {slot} is in an index, and no point is there")))?;
    read_vector(row, slot, 0)
}

impl Seat {
    fn size_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed) + self.column_bytes.load(Ordering::Relaxed)
    }

    /// Waits for the index, but not on a caller's thread.
    fn hold(&self, is_in_place: bool) -> Outcome<MutexGuard<'_, Option<Followed>>> {
        let held = if is_in_place {
            match self.index.try_lock() {
                Ok(held) => return Ok(held),
                Err(TryLockError::WouldBlock) => return Err(Failure::TooLong),
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            }
        } else {
            match self.index.lock() {
                Ok(held) => return Ok(held),
                Err(poisoned) => poisoned.into_inner(),
            }
        };
        // Somebody panicked while changing it.
        self.index.clear_poison();
        let mut held = held;
        *held = None;
        Ok(held)
    }
}

impl Followed {
    fn begin(collection: &Collection, settings: IndexSettings, newest: u64) -> Self {
        Self {
            collection_key: collection.key,
            index: VectorIndex::new(settings),
            pushed_to: 0,
            // What went before is not in the rows either.
            removed_to: newest,
            untidy_count: 0,
            is_loaded: false,
        }
    }

    fn is_long_behind(&self, newest: u64) -> bool {
        !self.is_loaded
            || newest.saturating_sub(self.removed_to) > FOLLOWED_IN_PLACE_MAX
            || self.untidy_count > UNTIDY_MAX
    }

    /// Begins an index: with what is kept of a large one, and with a centre.
    fn load(&mut self, memory: &VectorsMemory, connection: &Connection, collection: &Collection) -> Outcome<()> {
        let live = {
            let mut statement =
                connection.prepare_cached("SELECT slot FROM point WHERE collection_key = ?1 ORDER BY slot")?;
            let slots = statement.query_map([self.collection_key], |row| row.get(0))?;
            slots.collect::<rusqlite::Result<Vec<Slot>>>()?
        };
        if memory.is_large(collection, live.len() as u64) {
            let loaded = kept::load(connection, self.collection_key, &mut self.index, &live)?;
            self.pushed_to = loaded.to;
            if let Some(from) = loaded.damaged_from {
                memory.damaged().insert(self.collection_key, from);
            }
        }
        if self.index.is_empty() && self.index.is_coded() && live.len() >= CENTRED_MIN {
            let step = live.len().div_ceil(SAMPLE_LEN);
            let sample = live.iter().step_by(step).map(|slot| read_slot(connection, *slot));
            let sample = sample.collect::<Outcome<Vec<_>>>()?;
            check_dimensions(&sample, collection)?;
            self.index.find_centre_of(&sample, live.len());
        }
        Ok(())
    }

    /// About how many bytes the index has, or will have once it is loaded.
    fn bytes_with(&self, collection: &Collection) -> u64 {
        if self.is_loaded {
            return self.index.bytes().0 as u64;
        }
        let dimensions = collection.dimensions as u64;
        let vectors = (4 * dimensions * collection.point_count).min(self.index.vector_bytes_max() as u64);
        (dimensions + dimensions.next_multiple_of(64) / 8 + 28) * collection.point_count + vectors
    }

    /// Brings the index to the state that the transaction sees, whose newest commit is `newest`. What was done before an
    /// error stays done.
    fn follow(
        &mut self,
        memory: &VectorsMemory,
        connection: &Connection,
        collection: &Collection,
        newest: u64,
        until: Option<Instant>,
    ) -> Outcome<()> {
        if self.is_loaded && self.removed_to >= newest {
            return Ok(());
        }
        if !self.is_loaded && self.pushed_to == 0 {
            self.load(memory, connection, collection)?;
        }
        if self.removed_to + 1 < collection.removals_from {
            self.compare_all(connection)?;
        } else {
            self.follow_removals(connection)?;
        }
        self.removed_to = newest;
        self.is_loaded = self.follow_points(connection, collection, until)?;
        if self.is_loaded {
            self.pushed_to = newest.cast_signed();
        }
        Ok(())
    }

    fn follow_removals(&mut self, connection: &Connection) -> Outcome<()> {
        let mut statement =
            connection.prepare_cached("SELECT slot FROM removal WHERE collection_key = ?1 AND sequence > ?2")?;
        let mut rows = statement.query(params![self.collection_key, self.removed_to])?;
        while let Some(row) = rows.next()? {
            self.remove(row.get(0)?);
        }
        Ok(())
    }

    /// Removes what is no longer in the rows, where removals are no longer known one by one.
    fn compare_all(&mut self, connection: &Connection) -> Outcome<()> {
        let mut statement = connection
            .prepare_cached("SELECT slot FROM point WHERE collection_key = ?1 AND slot <= ?2 ORDER BY slot")?;
        let slots = statement.query_map([self.collection_key, self.pushed_to], |row| row.get(0))?;
        let slots = slots.collect::<rusqlite::Result<Vec<Slot>>>()?;
        let snapshot = self.index.snapshot();
        for slot in snapshot.chunks().flat_map(|chunk| chunk.slots()) {
            if slots.binary_search(slot).is_err() {
                self.remove(*slot);
            }
        }
        Ok(())
    }

    fn remove(&mut self, slot: Slot) {
        if self.index.remove(slot) {
            self.untidy_count += 1;
        }
    }

    /// Answers whether all points are there.
    fn follow_points(
        &mut self,
        connection: &Connection,
        collection: &Collection,
        until: Option<Instant>,
    ) -> Outcome<bool> {
        let mut statement = connection.prepare_cached(
            "SELECT slot, vector_checksum, vector FROM point WHERE collection_key = ?1 AND slot > ?2 ORDER BY slot",
        )?;
        let mut rows = statement.query([self.collection_key, self.pushed_to])?;
        while let Some(row) = rows.next()? {
            let slot = row.get(0)?;
            let vector = read_vector(row, slot, 1)?;
            check_dimensions(std::slice::from_ref(&vector), collection)?;
            self.index.push(slot, &vector);
            self.pushed_to = slot;
            self.untidy_count += 1;
            if self.untidy_count.is_multiple_of(CLOCK_POINTS) && until.is_some_and(|until| Instant::now() >= until) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Tidies an index of which most is untidy, for some time and outside any transaction; answers whether there is more to do.
    fn tidy_in_bulk(&mut self) -> bool {
        if self.untidy_count <= UNTIDY_MAX.max(self.index.len() / 2) {
            return false;
        }
        let began = Instant::now();
        while self.index.tidy() {
            if began.elapsed() > FOLLOW_TIME_MAX {
                return true;
            }
        }
        self.untidy_count = 0;
        false
    }

    fn tidy(&mut self) {
        if self.untidy_count <= UNTIDY_MAX {
            return;
        }
        let began = Instant::now();
        while self.index.tidy() {
            if began.elapsed() > TIDY_TIME_MAX {
                return;
            }
        }
        self.untidy_count = 0;
    }
}

fn check_dimensions(vectors: &[Vec<f32>], collection: &Collection) -> Outcome<()> {
    if vectors.iter().all(|vector| vector.len() == collection.dimensions) {
        return Ok(());
    }
    Err(damaged("a vector has other dimensions than its collection".to_owned()))
}

#[cfg(test)]
mod tests {
    use larder_protocol::vectors::Point;

    use super::*;
    use crate::vectors::row;

    const COLLECTION: Collection = Collection {
        key: 1,
        dimensions: 2,
        metric: larder_protocol::vectors::Metric::L2,
        point_count: 0,
        removals_from: 0,
    };

    fn insert(connection: &Connection, slots: std::ops::RangeInclusive<i16>) {
        for slot in slots {
            let point = Point::new(format!("p{slot}"), [f32::from(slot), 1.0]).unwrap();
            row::insert(connection, i64::from(slot), COLLECTION.key, &point).unwrap();
        }
    }

    /// A first search after a large import took longer than a reader may, and failed until others had done the rest.
    #[test]
    fn an_index_that_is_far_behind_follows_in_several_transactions() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(include_str!("migrations/0001_vectors.sql")).unwrap();
        insert(&connection, 1..=300);
        let memory = VectorsMemory::new(&VectorsSettings::default());
        let mut followed = Followed::begin(&COLLECTION, memory.index_settings(&COLLECTION), 300);
        let mut newest = 300;
        let mut round_count = 0;
        while !followed.is_loaded {
            followed.follow(&memory, &connection, &COLLECTION, newest, Some(Instant::now())).unwrap();
            round_count += 1;
            if round_count == 2 {
                // One that is in the index, one that is not yet, and new ones meanwhile.
                for (sequence, slot) in [(301, 5), (302, 250)] {
                    connection.execute("DELETE FROM point WHERE slot = ?1", [slot]).unwrap();
                    connection.execute("INSERT INTO removal VALUES (1, ?1, ?2)", [sequence, slot]).unwrap();
                }
                insert(&connection, 303..=400);
                newest = 400;
            }
        }
        assert!(round_count > 3, "{round_count}");
        assert_eq!(followed.index.len(), 300 - 2 + 98);
        let snapshot = followed.index.snapshot();
        assert!([5, 250].iter().all(|slot| snapshot.place(*slot).is_none()));
        assert!([1, 300, 303, 400].iter().all(|slot| snapshot.place(*slot).is_some()));
    }

    /// A search that panics while it changes the index leaves it half changed: the next one must make it anew.
    #[test]
    fn an_index_that_a_panic_left_is_given_up() {
        for is_in_place in [true, false] {
            let (seat, settings) = (Seat::default(), VectorsSettings::default());
            let index_settings = VectorsMemory::new(&settings).index_settings(&COLLECTION);
            let panicked = std::thread::scope(|scope| {
                let changing = || {
                    let mut held = seat.index.lock().unwrap();
                    *held = Some(Followed::begin(&COLLECTION, index_settings, 0));
                    panic!("told to panic");
                };
                scope.spawn(changing).join()
            });
            assert!(panicked.is_err());
            assert!(seat.hold(is_in_place).is_ok_and(|held| held.is_none()));
            assert!(!seat.index.is_poisoned());
        }
    }
}
