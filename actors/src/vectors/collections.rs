//! Collections: what their vectors are like, fixed when they are made.
//!
//! Start at [`open`]. A collection that is dropped or cleared loses its name at once, and with it its points are gone for
//! every reader; its rows follow in [`sweep`], so that no write takes long.

use larder_protocol::limits::DIMENSIONS_MAX;
use larder_protocol::vectors::{
    ClearCollection, CollectionInfo, DescribeCollection, DropCollection, ListCollections, Metric, OpenCollection,
    Vector,
};
use larder_protocol::{CollectionName, Error as Kind, Result};
use rusqlite::{Connection, OptionalExtension, Row, params};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::row::damaged;
use super::store::{Reading, Writing};
use super::{kept, points};
use crate::store::{Failure, Outcome, check_limit};

/// Removals are kept for followers that are so many writes behind; who is further behind compares everything.
const REMOVALS_KEPT: i64 = 100_000;

/// The columns that [`read`] decodes, in its order.
const COLUMNS: &str = "key, dimensions, metric, point_count, removals_from, checksum";

/// A collection that is there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Collection {
    pub(super) key: i64,
    pub(super) dimensions: usize,
    pub(super) metric: Metric,
    pub(super) point_count: u64,
    /// The first sequence of which every removal is known.
    pub(super) removals_from: u64,
}

impl Collection {
    /// Checks that a vector can be compared with the collection's.
    pub(super) fn check(&self, what: &str, vector: &Vector) -> Result<()> {
        if vector.dimensions() != self.dimensions {
            let reason = format!("it has {} dimensions, the collection {}", vector.dimensions(), self.dimensions);
            return Err(Kind::invalid(what, reason));
        }
        if self.metric == Metric::Cosine && vector.is_zero() {
            return Err(Kind::invalid(what, "all its components are 0, so that it has no cosine with any other"));
        }
        Ok(())
    }

    fn info(&self, name: &CollectionName) -> CollectionInfo {
        let Self { dimensions, metric, point_count, .. } = *self;
        CollectionInfo { name: name.clone(), dimensions, metric, point_count }
    }
}

fn read(row: &Row<'_>) -> Outcome<Collection> {
    let (key, dimensions): (i64, u32) = (row.get(0)?, row.get(1)?);
    let word = row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?;
    let metric = [Metric::Cosine, Metric::Dot, Metric::L2].into_iter().find(|metric| metric.as_str() == word);
    let is_sound = row.get::<_, i64>(5)? == checksum(key, dimensions, word);
    let Some(metric) = metric.filter(|_| is_sound) else {
        return Err(damaged(format!("the collection with key {key} does not match its checksum")));
    };
    Ok(Collection {
        key,
        dimensions: dimensions as usize,
        metric,
        point_count: row.get(3)?,
        removals_from: row.get(4)?,
    })
}

fn checksum(key: i64, dimensions: u32, metric: &str) -> i64 {
    let seed = xxh3_64_with_seed(&dimensions.to_le_bytes(), key.cast_unsigned());
    xxh3_64_with_seed(metric.as_bytes(), seed).cast_signed()
}

pub(super) fn find(connection: &Connection, name: &CollectionName) -> Outcome<Option<Collection>> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM collection WHERE name = ?1"))?;
    let mut rows = statement.query([name.as_str()])?;
    rows.next()?.map(read).transpose()
}

/// Returns every collection that is there.
pub(super) fn named(connection: &Connection) -> Outcome<Vec<Collection>> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM collection WHERE name IS NOT NULL ORDER BY key"))?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

/// Returns the collection, which must be there.
pub(super) fn require(connection: &Connection, name: &CollectionName) -> Outcome<Collection> {
    find(connection, name)?.ok_or_else(|| not_found(name).into())
}

pub(super) fn not_found(name: &CollectionName) -> Kind {
    Kind::NotFound { what: format!("vectors collection {:?}", name.as_str()) }
}

/// Adds to the number of a collection's points.
pub(super) fn adjust(connection: &Connection, key: i64, points: i64) -> rusqlite::Result<()> {
    if points != 0 {
        connection
            .prepare_cached("UPDATE collection SET point_count = point_count + ?2 WHERE key = ?1")?
            .execute([key, points])?;
    }
    Ok(())
}

pub(super) fn open(context: &mut Writing<'_>, message: &OpenCollection) -> Outcome<CollectionInfo> {
    let OpenCollection { collection: name, dimensions, metric } = message;
    if !(1..=DIMENSIONS_MAX).contains(dimensions) {
        let reason = format!("{dimensions} is not within 1 to {DIMENSIONS_MAX}");
        return Err(Kind::invalid("dimensions of a vectors collection", reason).into());
    }
    if let Some(found) = find(context.connection, name)? {
        if (found.dimensions, found.metric) == (*dimensions, *metric) {
            return Ok(found.info(name));
        }
        let shown = |dimensions: usize, metric: Metric| format!("{dimensions} dimensions with {}", metric.as_str());
        let what = format!("vectors collection {:?}", name.as_str());
        let (expected, found) = (shown(*dimensions, *metric), shown(found.dimensions, found.metric));
        return Err(Kind::Conflict { what, expected, found }.into());
    }
    let made = insert(context, name, *dimensions, *metric)?;
    context.changed_all("open", name.as_str());
    Ok(made.info(name))
}

fn insert(context: &Writing<'_>, name: &CollectionName, dimensions: usize, metric: Metric) -> Outcome<Collection> {
    let version = context.next_version().0;
    let key = version.cast_signed();
    let width = u32::try_from(dimensions).map_err(|_| Kind::invalid("dimensions", "they are too many"))?;
    context
        .connection
        .prepare_cached(
            "INSERT INTO collection (key, name, dimensions, metric, point_count, removals_from, checksum)
             VALUES (?1, ?2, ?3, ?4, 0, ?1, ?5)",
        )?
        .execute(params![key, name.as_str(), width, metric.as_str(), checksum(key, width, metric.as_str())])?;
    Ok(Collection { key, dimensions, metric, point_count: 0, removals_from: version })
}

pub(super) fn clear(context: &mut Writing<'_>, message: &ClearCollection) -> Outcome<u64> {
    let name = &message.collection;
    let found = require(context.connection, name)?;
    if found.point_count == 0 {
        return Ok(0);
    }
    remove_name(context.connection, found.key)?;
    insert(context, name, found.dimensions, found.metric)?;
    context.changed_all("clear", name.as_str());
    Ok(found.point_count)
}

pub(super) fn drop_collection(context: &mut Writing<'_>, message: &DropCollection) -> Outcome<bool> {
    let Some(found) = find(context.connection, &message.collection)? else { return Ok(false) };
    remove_name(context.connection, found.key)?;
    context.changed_all("drop", message.collection.as_str());
    Ok(true)
}

fn remove_name(connection: &Connection, key: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE collection SET name = NULL WHERE key = ?1")?.execute([key])?;
    Ok(())
}

pub(super) fn describe(context: &Reading<'_>, message: &DescribeCollection) -> Outcome<Option<CollectionInfo>> {
    Ok(find(context.connection, &message.collection)?.map(|found| found.info(&message.collection)))
}

pub(super) fn list(context: &Reading<'_>, message: &ListCollections) -> Outcome<Vec<CollectionInfo>> {
    check_limit(message.limit)?;
    let sql = format!("SELECT {COLUMNS}, name FROM collection WHERE name > ?1 ORDER BY name LIMIT ?2");
    let after = message.after.as_ref().map_or("", CollectionName::as_str);
    let mut statement = context.connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![after, message.limit])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let name = CollectionName::new(row.get_ref(6)?.as_str().map_err(rusqlite::Error::from)?)?;
        found.push(read(row)?.info(&name));
    }
    Ok(found)
}

/// Verifies every collection.
pub(super) fn check(connection: &Connection, found: &mut dyn FnMut(String)) -> Outcome<()> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM collection"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        match read(row) {
            Ok(_) => {}
            Err(Failure::Refused(damage)) => found(damage.to_string()),
            Err(error) => found(format!("a collection cannot be read ({error})")),
        }
    }
    Ok(())
}

/// Deletes some rows of collections without a name, and removals that nobody follows any more.
pub(super) fn sweep(context: &mut Writing<'_>, rows_max: usize) -> Outcome<usize> {
    let connection = context.connection;
    let dropped: Option<i64> = connection
        .prepare_cached("SELECT key FROM collection WHERE name IS NULL LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let row_count = match dropped {
        Some(key) => delete_rows(connection, key, rows_max)?,
        None => match forget_removals(connection, context.next_version().0, rows_max)? {
            // A full slice says that there may be more.
            // While points are being put one piece a round is enough; in peace there may be more, as a full slice says.
            0 => match (kept::keep_some(context)?, context.memory.is_at_peace(context.next_version())) {
                (0, _) => 0,
                (_, is_at_peace) => {
                    if is_at_peace {
                        rows_max
                    } else {
                        1
                    }
                }
            },
            row_count => row_count,
        },
    };
    if row_count > 0 {
        context.changed_all("sweep", "");
    }
    context.memory.swept(context.next_version());
    Ok(row_count)
}

fn delete_rows(connection: &Connection, key: i64, rows_max: usize) -> Outcome<usize> {
    let slots = {
        let mut statement = connection.prepare_cached("SELECT slot FROM point WHERE collection_key = ?1 LIMIT ?2")?;
        statement.query_map(params![key, rows_max], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?
    };
    for slot in &slots {
        points::delete_row(connection, *slot)?;
    }
    let removals = connection
        .prepare_cached(
            "DELETE FROM removal WHERE collection_key = ?1
                 AND sequence IN (SELECT sequence FROM removal WHERE collection_key = ?1 LIMIT ?2)",
        )?
        .execute(params![key, rows_max])?;
    let chunks = kept::delete_some(connection, key, 0)?;
    if slots.len() < rows_max && removals < rows_max && chunks == 0 {
        connection.prepare_cached("DELETE FROM centre WHERE collection_key = ?1")?.execute([key])?;
        connection.prepare_cached("DELETE FROM collection WHERE key = ?1")?.execute([key])?;
    }
    Ok(slots.len() + removals + chunks + 1)
}

/// Deletes some of the oldest removals of one collection.
fn forget_removals(connection: &Connection, next: u64, rows_max: usize) -> Outcome<usize> {
    let oldest_kept = next.cast_signed() - REMOVALS_KEPT;
    let due: Option<i64> = connection
        .prepare_cached(
            "SELECT key FROM collection WHERE EXISTS
                 (SELECT 1 FROM removal WHERE collection_key = collection.key AND sequence < ?1) LIMIT 1",
        )?
        .query_row([oldest_kept], |row| row.get(0))
        .optional()?;
    let Some(key) = due else { return Ok(0) };
    let last: i64 = connection
        .prepare_cached(
            "SELECT max(sequence) FROM (SELECT sequence FROM removal WHERE collection_key = ?1 AND sequence < ?2
                 ORDER BY sequence LIMIT ?3)",
        )?
        .query_row(params![key, oldest_kept, rows_max], |row| row.get(0))?;
    let deleted = connection
        .prepare_cached("DELETE FROM removal WHERE collection_key = ?1 AND sequence <= ?2")?
        .execute([key, last])?;
    connection.prepare_cached("UPDATE collection SET removals_from = ?2 + 1 WHERE key = ?1")?.execute([key, last])?;
    Ok(deleted)
}
