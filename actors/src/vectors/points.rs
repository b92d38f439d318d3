//! Handlers over points as rows: put, read, list, count, delete.
//!
//! Start at [`upsert`]. What can be refused is refused before anything is written, so that it costs no neighbour anything.

use std::collections::HashSet;

use larder_protocol::filter::Filter;
use larder_protocol::limits::ANSWER_BYTES_MAX;
use larder_protocol::vectors::{
    CountPoints, DeclareMetadataField, DeletePoints, DeletePointsByDocument, DeletePointsByFilter, DocumentPoints,
    GetPoint, GetPoints, ListPoints, Point, PointFields, PointPage, ReplacePoints, ReplacedCounts, UpsertCounts,
    UpsertPoints,
};
use larder_protocol::{CollectionName, DocumentId, Error as Kind, JsonText, PointId, Result};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};

use super::collections::{self, Collection};
use super::row::{self, Columns};
use super::store::{Reading, VectorsSettings, Writing};
use crate::filter::{self, DeclaredField, FieldIndexes, JsonColumn};
use crate::full_text;
use crate::store::{Outcome, PAGE_BYTES_MAX, check_count, check_limit};
use crate::vector_index::Slot;

/// What filters read, and the indexes of declared fields.
pub(super) const FIELDS: FieldIndexes = FieldIndexes {
    table: "point",
    leading: "collection_key, ",
    column: JsonColumn { in_query: "point.metadata", in_index: "metadata" },
};

pub(super) fn upsert(context: &mut Writing<'_>, message: &UpsertPoints) -> Outcome<UpsertCounts> {
    let UpsertPoints { collection: name, points } = message;
    check_count(points.len())?;
    let collection = collections::require(context.connection, name)?;
    check(context.settings, &collection, points)?;
    put(context, name, &collection, points)
}

/// Puts points that were checked.
fn put(
    context: &mut Writing<'_>,
    name: &CollectionName,
    collection: &Collection,
    points: &[Point],
) -> Outcome<UpsertCounts> {
    let mut counts = UpsertCounts::default();
    for point in points {
        let slot = context.next_version().0.cast_signed();
        match find_slot(context.connection, collection.key, &point.id)? {
            Some(old) => {
                remove(context.connection, collection.key, old, slot)?;
                counts.replaced += 1;
            }
            None => counts.inserted += 1,
        }
        row::insert(context.connection, slot, collection.key, point)?;
        context.changed("put", name.as_str(), point.id.as_str());
    }
    collections::adjust(context.connection, collection.key, counts.inserted.cast_signed())?;
    Ok(counts)
}

pub(super) fn replace(context: &mut Writing<'_>, message: &ReplacePoints) -> Outcome<Vec<ReplacedCounts>> {
    let ReplacePoints { collection: name, documents } = message;
    check_count(documents.len() + documents.iter().map(|document| document.points.len()).sum::<usize>())?;
    let collection = collections::require(context.connection, name)?;
    check(context.settings, &collection, documents.iter().flat_map(|document| &document.points))?;
    for DocumentPoints { document, points, .. } in documents {
        if let Some(point) = points.iter().find(|point| point.document.as_ref() != Some(document)) {
            let what = format!("point {:?}", point.id.as_str());
            return Err(Kind::invalid(what, format!("it is not of the document {:?}", document.as_str())).into());
        }
    }
    documents.iter().map(|document| replace_one(context, name, &collection, document)).collect()
}

fn replace_one(
    context: &mut Writing<'_>,
    name: &CollectionName,
    collection: &Collection,
    replaced: &DocumentPoints,
) -> Outcome<ReplacedCounts> {
    let stays: HashSet<&str> = replaced
        .points
        .iter()
        .map(|point| point.id.as_str())
        .chain(replaced.keep.iter().map(PointId::as_str))
        .collect();
    let mut found = of_document(context.connection, collection, &replaced.document)?;
    found.retain(|(_, id)| !stays.contains(id.as_str()));
    let deleted = delete_found(context, name, *collection, &found)?;
    Ok(ReplacedCounts { put: put(context, name, collection, &replaced.points)?, deleted })
}

fn of_document(
    connection: &Connection,
    collection: &Collection,
    document: &DocumentId,
) -> Outcome<Vec<(Slot, String)>> {
    let mut statement =
        connection.prepare_cached("SELECT slot, id FROM point WHERE collection_key = ?1 AND document = ?2")?;
    let found =
        statement.query_map(params![collection.key, document.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}

/// Checks what the types cannot.
fn check<'a>(
    settings: &VectorsSettings,
    collection: &Collection,
    points: impl IntoIterator<Item = &'a Point>,
) -> Result<()> {
    let mut ids = HashSet::new();
    for point in points {
        let what = || format!("point {:?}", point.id.as_str());
        collection.check(&what(), &point.vector)?;
        let (bytes, bytes_max) = (point.payload_bytes() as u64, settings.payload_bytes_max as u64);
        if bytes > bytes_max {
            return Err(Kind::TooLarge { what: what(), bytes, bytes_max });
        }
        check_metadata(point.metadata.as_ref())?;
        if !ids.insert(point.id.as_str()) {
            return Err(Kind::invalid("points", format!("the id {:?} stands twice among them", point.id.as_str())));
        }
    }
    Ok(())
}

fn check_metadata(metadata: Option<&JsonText>) -> Result<()> {
    let Some(metadata) = metadata else { return Ok(()) };
    if filter::read_json(metadata.as_str().as_bytes())?.is_object() {
        return Ok(());
    }
    Err(Kind::invalid("metadata", "it is not a JSON object"))
}

/// Returns where a point is.
pub(super) fn find_slot(connection: &Connection, collection_key: i64, id: &PointId) -> rusqlite::Result<Option<Slot>> {
    connection
        .prepare_cached("SELECT slot FROM point WHERE collection_key = ?1 AND id = ?2")?
        .query_row(params![collection_key, id.as_str()], |row| row.get(0))
        .optional()
}

/// Deletes a point's row and its entry in the full-text index.
pub(super) fn delete_row(connection: &Connection, slot: Slot) -> rusqlite::Result<()> {
    full_text::remove(connection, "point_text", "SELECT text FROM point WHERE slot = ?1 AND text IS NOT NULL", slot)?;
    connection.prepare_cached("DELETE FROM point WHERE slot = ?1")?.execute([slot])?;
    Ok(())
}

/// Deletes a row, and says so to indexes in memory, in this process and others.
fn remove(connection: &Connection, collection_key: i64, slot: Slot, sequence: i64) -> rusqlite::Result<()> {
    delete_row(connection, slot)?;
    connection
        .prepare_cached("INSERT INTO removal (collection_key, sequence, slot) VALUES (?1, ?2, ?3)")?
        .execute([collection_key, sequence, slot])?;
    Ok(())
}

pub(super) fn delete(context: &mut Writing<'_>, message: &DeletePoints) -> Outcome<u64> {
    check_count(message.ids.len())?;
    let collection = collections::require(context.connection, &message.collection)?;
    let find = |id: &PointId| -> rusqlite::Result<_> {
        Ok(find_slot(context.connection, collection.key, id)?.map(|slot| (slot, id.as_str().to_owned())))
    };
    // An id that stands twice is deleted once.
    let mut seen = HashSet::new();
    let ids = message.ids.iter().filter(|id| seen.insert(id.as_str()));
    let found = ids.filter_map(|id| find(id).transpose()).collect::<rusqlite::Result<Vec<_>>>()?;
    delete_found(context, &message.collection, collection, &found)
}

pub(super) fn delete_by_document(context: &mut Writing<'_>, message: &DeletePointsByDocument) -> Outcome<u64> {
    let condition = |selection: &mut Selection, _: &Connection| {
        selection.and("document = ?", [Sql::Text(message.document.as_str().to_owned())]);
        Ok(())
    };
    delete_selected(context, &message.collection, condition)
}

pub(super) fn delete_by_filter(context: &mut Writing<'_>, message: &DeletePointsByFilter) -> Outcome<u64> {
    delete_selected(context, &message.collection, |selection, connection| {
        selection.filter(connection, Some(&message.filter))
    })
}

fn delete_selected(
    context: &mut Writing<'_>,
    name: &CollectionName,
    condition: impl FnOnce(&mut Selection, &Connection) -> Outcome<()>,
) -> Outcome<u64> {
    let collection = collections::require(context.connection, name)?;
    let mut selection = Selection::of(&collection);
    condition(&mut selection, context.connection)?;
    let found = {
        let sql = format!("SELECT slot, id FROM point WHERE {}", selection.sql);
        let mut statement = context.connection.prepare_cached(&sql)?;
        let found =
            statement.query_map(params_from_iter(selection.parameters), |row| Ok((row.get(0)?, row.get(1)?)))?;
        found.collect::<rusqlite::Result<Vec<_>>>()?
    };
    delete_found(context, name, collection, &found)
}

fn delete_found(
    context: &mut Writing<'_>,
    name: &CollectionName,
    collection: Collection,
    found: &[(Slot, String)],
) -> Outcome<u64> {
    for (slot, id) in found {
        remove(context.connection, collection.key, *slot, context.next_version().0.cast_signed())?;
        context.changed("delete", name.as_str(), id);
    }
    let count = found.len() as u64;
    collections::adjust(context.connection, collection.key, -count.cast_signed())?;
    Ok(count)
}

pub(super) fn get(context: &Reading<'_>, message: &GetPoint) -> Outcome<Option<Point>> {
    let collection = collections::require(context.connection, &message.collection)?;
    find(context.connection, &collection, &message.id)
}

pub(super) fn get_many(context: &Reading<'_>, message: &GetPoints) -> Outcome<Vec<Option<Point>>> {
    check_count(message.ids.len())?;
    let mut bytes = 0;
    context.at_one_instant(|connection| {
        let collection = collections::require(connection, &message.collection)?;
        let mut points = Vec::with_capacity(message.ids.len());
        for id in &message.ids {
            let point = find(connection, &collection, id)?;
            bytes += point.as_ref().map_or(0, Point::size_bytes) as u64;
            if bytes > ANSWER_BYTES_MAX && message.ids.len() > 1 {
                let what = "points of one request".to_owned();
                return Err(Kind::TooLarge { what, bytes, bytes_max: ANSWER_BYTES_MAX }.into());
            }
            points.push(point);
        }
        Ok(points)
    })
}

fn find(connection: &Connection, collection: &Collection, id: &PointId) -> Outcome<Option<Point>> {
    let columns = Columns(PointFields::ALL);
    let sql = format!("SELECT {} FROM point WHERE collection_key = ?1 AND id = ?2", columns.sql());
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![collection.key, id.as_str()])?;
    let found = rows.next()?.map(|row| columns.read(row, 0.0)).transpose()?;
    Ok(found.and_then(row::into_point))
}

pub(super) fn list(context: &Reading<'_>, message: &ListPoints) -> Outcome<PointPage> {
    check_limit(message.limit)?;
    let collection = collections::require(context.connection, &message.collection)?;
    let mut selection = Selection::of(&collection);
    selection.document(message.document.as_ref());
    if let Some(after) = &message.after {
        selection.and("id > ?", [Sql::Text(after.as_str().to_owned())]);
    }
    selection.filter(context.connection, message.filter.as_ref())?;
    let columns = Columns(message.fields);
    let (columns_sql, limit) = (columns.sql(), message.limit);
    let sql = format!("SELECT {columns_sql} FROM point WHERE {} ORDER BY id LIMIT {limit}", selection.sql);
    let mut statement = context.connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(selection.parameters))?;
    let (mut points, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let point = columns.read(row, 0.0)?;
        bytes += point.size_bytes();
        points.push(point);
        if bytes >= PAGE_BYTES_MAX {
            break;
        }
    }
    let is_whole = points.len() == limit || bytes >= PAGE_BYTES_MAX;
    let next = points.last().filter(|_| is_whole).map(|point| point.id.clone());
    Ok(PointPage { points, next })
}

pub(super) fn count(context: &Reading<'_>, message: &CountPoints) -> Outcome<u64> {
    let collection = collections::require(context.connection, &message.collection)?;
    if message.filter.is_none() && message.document.is_none() {
        return Ok(collection.point_count);
    }
    let mut selection = Selection::of(&collection);
    selection.document(message.document.as_ref());
    selection.filter(context.connection, message.filter.as_ref())?;
    let sql = format!("SELECT count(*) FROM point WHERE {}", selection.sql);
    let mut statement = context.connection.prepare_cached(&sql)?;
    Ok(statement.query_row(params_from_iter(selection.parameters), |row| row.get(0))?)
}

pub(super) fn declare(context: &mut Writing<'_>, message: &DeclareMetadataField) -> Outcome<bool> {
    let field = DeclaredField::new(message.field.clone())?;
    let is_new = FIELDS.declare(context.connection, &field)?;
    if is_new {
        context.changed_all("declare", "");
    }
    Ok(is_new)
}

/// Which points of a collection: a WHERE clause in the making, with its parameters in order.
pub(super) struct Selection {
    pub(super) sql: String,
    pub(super) parameters: Vec<Sql>,
}

impl Selection {
    pub(super) fn of(collection: &Collection) -> Self {
        Self { sql: "collection_key = ?".to_owned(), parameters: vec![Sql::Integer(collection.key)] }
    }

    pub(super) fn and(&mut self, sql: &str, parameters: impl IntoIterator<Item = Sql>) {
        self.sql.push_str(" AND ");
        self.sql.push_str(sql);
        self.parameters.extend(parameters);
    }

    fn document(&mut self, document: Option<&DocumentId>) {
        if let Some(document) = document {
            self.and("document = ?", [Sql::Text(document.as_str().to_owned())]);
        }
    }

    pub(super) fn filter(&mut self, connection: &Connection, filter: Option<&Filter>) -> Outcome<()> {
        let Some(filter) = filter else { return Ok(()) };
        let declared = FIELDS.declared(connection)?;
        let condition = filter::compile(filter, FIELDS.column, &declared, self.parameters.len() + 1)?;
        self.and(&condition.sql, condition.parameters);
        Ok(())
    }
}
