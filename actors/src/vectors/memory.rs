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
use larder_protocol::{CollectionName, Error as Kind};
use rusqlite::{Connection, params};

use super::collections::{self, Collection, not_found};
use super::kept::{self, Progress};
use super::row::{damaged, read_vector};
use super::store::{Reading, VectorsSettings};
use crate::store::{Failure, Outcome};
use crate::vector_index::{IndexSettings, Metric, Slot, Snapshot, VectorIndex};

/// An index follows so many writes on a caller's thread: about 10 µs each.
const FOLLOWED_IN_PLACE_MAX: u64 = 10;
/// So many changes an index bears before it is to be tidied.
const UNTIDY_MAX: usize = 1_024;
/// From so many vectors on an index is begun with a centre, the mean of so many of them at most.
const CENTRED_MIN: usize = 1_024;
const SAMPLE_LEN: usize = 4_096;
/// A search spends so long at most on tidying, unless it loads the index.
const TIDY_TIME_MAX: Duration = Duration::from_millis(10);

/// The store's state in memory: an index for each collection that was searched.
#[derive(Debug)]
pub struct VectorsMemory {
    index_bytes_max: u64,
    vector_bytes_max: usize,
    seats: Mutex<HashMap<CollectionName, Arc<Seat>>>,
    /// Counts searches, to tell which index was used least recently.
    clock: AtomicU64,
}

/// A collection's index, and what is known of it without waiting for it.
#[derive(Debug, Default)]
struct Seat {
    bytes: AtomicU64,
    used_at: AtomicU64,
    index: Mutex<Option<Followed>>,
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
    /// Every change so far.
    change_count: u64,
    /// How many there were when nothing was left to keep in the file.
    kept_at: Option<u64>,
    /// What is kept in the file from this slot on is of no use.
    damaged_from: Option<Slot>,
    is_loaded: bool,
}

/// One committed state of a collection: its rows, in a transaction, and its index.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) connection: &'a Connection,
    pub(super) collection: Collection,
    pub(super) snapshot: Snapshot,
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

    /// Writes some of what indexes hold, so that they are loaded quickly; answers how many rows changed.
    pub(super) fn keep_some(&self, connection: &Connection) -> Outcome<usize> {
        let seats: Vec<Arc<Seat>> = self.seats().values().map(Arc::clone).collect();
        for seat in seats {
            // Whoever has it in hand changes it; the next slice will do.
            let Ok(held) = seat.index.try_lock() else { continue };
            let Some(followed) = held.as_ref().filter(|followed| followed.is_to_be_kept()) else { continue };
            let (key, snapshot, metric) = (followed.collection_key, followed.index.snapshot(), followed.index.metric());
            let (damaged_from, change_count) = (followed.damaged_from, followed.change_count);
            drop(held);
            let progress = kept::write_some(connection, key, &snapshot, metric, damaged_from)?;
            if let Ok(mut held) = seat.index.try_lock()
                && let Some(followed) = held.as_mut().filter(|followed| followed.collection_key == key)
            {
                match progress {
                    Progress::Deleted(_) => {}
                    // Nothing of it is there any more. Were this transaction to fail, the next loading would find it again.
                    Progress::Written(_) => followed.damaged_from = None,
                    Progress::Done => (followed.damaged_from, followed.kept_at) = (None, Some(change_count)),
                }
            }
            if let Progress::Deleted(row_count) | Progress::Written(row_count) = progress {
                return Ok(row_count);
            }
        }
        Ok(0)
    }

    /// Makes room for an index of so many bytes, by giving up those that were used least recently.
    fn make_room(&self, name: &CollectionName, bytes: u64) -> Outcome<()> {
        if bytes > self.index_bytes_max {
            let (what, bytes_max) = (format!("index of vectors collection {:?}", name.as_str()), self.index_bytes_max);
            return Err(Kind::TooLarge { what, bytes, bytes_max }.into());
        }
        let mut seats = self.seats();
        loop {
            let others = seats.iter().filter(|(other, _)| *other != name);
            let sum: u64 = others.clone().map(|(_, seat)| seat.bytes.load(Ordering::Relaxed)).sum();
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
    // Begun with the index in hand, so that nobody takes it further than this transaction sees.
    context.at_one_instant(|connection| {
        let (collection, snapshot) = follow(context, name, &seat, &mut held)?;
        drop(held);
        look(View { connection, collection, snapshot, follow_time: began.elapsed() })
    })
}

/// Brings the index of a collection to the state that the open transaction sees.
fn follow(
    context: &Reading<'_>,
    name: &CollectionName,
    seat: &Seat,
    held: &mut Option<Followed>,
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
    memory.make_room(name, followed.bytes_with(&collection))?;
    let done = followed.follow(connection, &collection, newest);
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
            change_count: 0,
            kept_at: None,
            damaged_from: None,
            is_loaded: false,
        }
    }

    fn is_long_behind(&self, newest: u64) -> bool {
        !self.is_loaded
            || newest.saturating_sub(self.removed_to) > FOLLOWED_IN_PLACE_MAX
            || self.untidy_count > UNTIDY_MAX
    }

    /// Whether loading its vectors as they are would take much longer than what can be kept of them.
    fn is_large(&self, point_count: usize) -> bool {
        4 * self.index.dimensions() * point_count > self.index.vector_bytes_max()
    }

    fn is_to_be_kept(&self) -> bool {
        self.is_loaded && self.is_large(self.index.len()) && self.kept_at != Some(self.change_count)
    }

    /// Begins an index: with what is kept of a large one, and with a centre.
    fn load(&mut self, connection: &Connection, collection: &Collection) -> Outcome<()> {
        let live = {
            let mut statement =
                connection.prepare_cached("SELECT slot FROM point WHERE collection_key = ?1 ORDER BY slot")?;
            let slots = statement.query_map([self.collection_key], |row| row.get(0))?;
            slots.collect::<rusqlite::Result<Vec<Slot>>>()?
        };
        if self.is_large(live.len()) {
            let loaded = kept::load(connection, self.collection_key, &mut self.index, &live)?;
            (self.pushed_to, self.damaged_from) = (loaded.to, loaded.damaged_from);
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
    fn follow(&mut self, connection: &Connection, collection: &Collection, newest: u64) -> Outcome<()> {
        if self.is_loaded && self.removed_to >= newest {
            return Ok(());
        }
        if !self.is_loaded && self.pushed_to == 0 {
            self.load(connection, collection)?;
        }
        if self.removed_to + 1 < collection.removals_from {
            self.compare_all(connection)?;
        } else {
            self.follow_removals(connection)?;
        }
        self.removed_to = newest;
        self.follow_points(connection, collection)?;
        self.pushed_to = newest.cast_signed();
        self.is_loaded = true;
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
            self.change_count += 1;
        }
    }

    fn follow_points(&mut self, connection: &Connection, collection: &Collection) -> Outcome<()> {
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
            self.change_count += 1;
        }
        Ok(())
    }

    fn tidy(&mut self) {
        if self.untidy_count <= UNTIDY_MAX {
            return;
        }
        let began = Instant::now();
        let is_bulk = self.untidy_count > self.index.len() / 2;
        while self.index.tidy() {
            if !is_bulk && began.elapsed() > TIDY_TIME_MAX {
                return;
            }
        }
        self.untidy_count = 0;
        self.change_count += 1;
    }
}

fn check_dimensions(vectors: &[Vec<f32>], collection: &Collection) -> Outcome<()> {
    if vectors.iter().all(|vector| vector.len() == collection.dimensions) {
        return Ok(());
    }
    Err(damaged("a vector has other dimensions than its collection".to_owned()))
}
