//! One point as a row: its SQL, its decoding, and the checksums that every read verifies.
//!
//! Start at [`insert`] and [`Columns`], which reads what of a point is asked for.

use larder_protocol::vectors::{Hit, Point, PointFields, Vector};
use larder_protocol::{DocumentId, Error as Kind, JsonText, PointId, StoreName, Written};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::filter;
use crate::store::{Failure, Outcome};
use crate::vector_index::Slot;

pub(super) fn insert(connection: &Connection, slot: Slot, collection_key: i64, point: &Point) -> rusqlite::Result<()> {
    let vector = to_bytes(point.vector.as_slice());
    let (document, metadata) = (point.document.as_ref().map(DocumentId::as_str), point.metadata.as_ref());
    let metadata = metadata.map(JsonText::as_str);
    connection
        .prepare_cached(
            "INSERT INTO point (slot, collection_key, id, document, metadata, checksum, vector_checksum, text_checksum,
                 vector, text) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            slot,
            collection_key,
            point.id.as_str(),
            document,
            metadata,
            checksum(slot, collection_key, point.id.as_str(), document, metadata),
            part_checksum(slot, &vector),
            point.text.as_ref().map(|text| part_checksum(slot, text.as_bytes())),
            vector,
            point.text,
        ])?;
    if let Some(text) = &point.text {
        connection
            .prepare_cached("INSERT INTO point_text (rowid, text) VALUES (?1, ?2)")?
            .execute(params![slot, text])?;
    }
    Ok(())
}

pub(super) fn to_bytes(components: &[f32]) -> Vec<u8> {
    components.iter().flat_map(|value| value.to_le_bytes()).collect()
}

pub(super) fn from_bytes(bytes: &[u8]) -> Vec<f32> {
    let (components, _) = bytes.as_chunks();
    components.iter().map(|component| f32::from_le_bytes(*component)).collect()
}

/// Each part seeds the next one's hash, so that a byte that moves from one to the other is noticed.
fn checksum(slot: Slot, collection_key: i64, id: &str, document: Option<&str>, metadata: Option<&str>) -> i64 {
    let seed = xxh3_64_with_seed(&collection_key.to_le_bytes(), slot.cast_unsigned());
    // A missing part is not an empty one.
    let next = |seed, part: Option<&str>| part.map_or(seed ^ 1, |part| xxh3_64_with_seed(part.as_bytes(), seed));
    [Some(id), document, metadata].into_iter().fold(seed, next).cast_signed()
}

fn part_checksum(slot: Slot, bytes: &[u8]) -> i64 {
    xxh3_64_with_seed(bytes, slot.cast_unsigned()).cast_signed()
}

/// What of a point a query selects, and how it is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Columns(pub(super) PointFields);

impl Columns {
    /// Returns the columns, for a `SELECT`.
    pub(super) fn sql(self) -> String {
        let mut columns =
            "point.slot, point.collection_key, point.checksum, point.id, point.document, point.metadata".to_owned();
        if self.0.text {
            columns.push_str(", point.text_checksum, point.text");
        }
        if self.0.vector {
            columns.push_str(", point.vector_checksum, point.vector");
        }
        columns
    }

    /// Decodes and verifies the columns, which begin at the first.
    pub(super) fn read(self, row: &Row<'_>, score: f32) -> Outcome<Hit> {
        let (slot, collection_key): (Slot, i64) = (row.get(0)?, row.get(1)?);
        let id = row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?;
        let (document, metadata) = (text_of(row, 4)?, text_of(row, 5)?);
        if row.get::<_, i64>(2)? != checksum(slot, collection_key, id, document, metadata) {
            return Err(corrupt(slot));
        }
        let fields = self.0;
        let (text, vector_at) = if fields.text { (read_text(row, slot, 6)?, 8) } else { (None, 6) };
        let vector = if fields.vector { Some(read_vector(row, slot, vector_at)?) } else { None };
        let vector = vector.map(|components| Vector::new(components).map_err(|_| corrupt(slot))).transpose()?;
        Ok(Hit {
            id: PointId::new(id).map_err(|_| corrupt(slot))?,
            score,
            document: document.filter(|_| fields.document).map(DocumentId::new).transpose()?,
            metadata: metadata.filter(|_| fields.metadata).map(JsonText::new).transpose()?,
            text,
            vector,
        })
    }
}

/// The columns that [`read_metadata`] decodes.
pub(super) const METADATA_COLUMNS: &str = "slot, collection_key, checksum, id, document, metadata";
/// How many they are.
pub(super) const METADATA_COLUMN_COUNT: usize = 6;

/// Decodes and verifies the columns of a point's metadata, which begin at the first; as filters read it.
pub(super) fn read_metadata(row: &Row<'_>) -> Outcome<(Slot, Option<serde_json::Value>)> {
    let slot = row.get(0)?;
    let id = row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?;
    let metadata = text_of(row, 5)?;
    if row.get::<_, i64>(2)? != checksum(slot, row.get(1)?, id, text_of(row, 4)?, metadata) {
        return Err(corrupt(slot));
    }
    let metadata = metadata.map(|text| filter::read_json(text.as_bytes())).transpose();
    // It was read so before it was stored.
    Ok((slot, metadata.map_err(|_| corrupt(slot))?))
}

/// Returns a hit that has everything as the point that it is.
pub(super) fn into_point(hit: Hit) -> Option<Point> {
    let Hit { id, document, metadata, text, vector, .. } = hit;
    Some(Point { id, vector: vector?, document, metadata, text })
}

fn read_text(row: &Row<'_>, slot: Slot, at: usize) -> Outcome<Option<String>> {
    let (checksum, text) = (row.get::<_, Option<i64>>(at)?, text_of(row, at + 1)?);
    if checksum != text.map(|text| part_checksum(slot, text.as_bytes())) {
        return Err(corrupt(slot));
    }
    Ok(text.map(str::to_owned))
}

/// Decodes and verifies the columns `vector_checksum, vector`, which begin at `at`.
pub(super) fn read_vector(row: &Row<'_>, slot: Slot, at: usize) -> Outcome<Vec<f32>> {
    let bytes = row.get_ref(at + 1)?.as_blob().map_err(rusqlite::Error::from)?;
    if row.get::<_, i64>(at)? != part_checksum(slot, bytes) {
        return Err(corrupt(slot));
    }
    Ok(from_bytes(bytes))
}

fn text_of<'a>(row: &'a Row<'_>, at: usize) -> rusqlite::Result<Option<&'a str>> {
    match row.get_ref(at)? {
        ValueRef::Null => Ok(None),
        other => Ok(Some(other.as_str()?)),
    }
}

fn corrupt(slot: Slot) -> Failure {
    damaged(format!("the point in slot {slot} does not match its checksum"))
}

/// Returns the error for a row that is not what was written.
pub(super) fn damaged(detail: String) -> Failure {
    Kind::Corrupt { store: StoreName::Vectors, detail, written: Written::NotApplied }.into()
}
