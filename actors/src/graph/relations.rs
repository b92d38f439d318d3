//! Handlers over relations as rows: put, read, find, invalidate, delete.
//!
//! Start at [`upsert`] and [`change`], the one way in which a relation that is there changes.

use larder_protocol::graph::{
    AsOf, DEFAULT_LABEL, DeleteRelations, DeleteTriplet, EntityRef, FindRelations, GetRelations, InvalidateRelations,
    NewRelation, Outcome as Became, Relation, RelationPage, UpsertRelations, UpsertedRelation, ValidAt, Validity,
};
use larder_protocol::limits::ANSWER_BYTES_MAX;
use larder_protocol::{Error as Kind, JsonText, Label, Timestamp};
use rusqlite::types::Value as Sql;
use rusqlite::{CachedStatement, Connection, OptionalExtension, params, params_from_iter};

use super::entities::{self, check_payload, check_properties, stored_properties};
use super::labels::Labels;
use super::names;
use super::row::{EntityPayload, EntityRow, INSERT_RELATION, RELATION, RELATION_PAST, RelationRow, relation_id};
use super::sources;
use super::store::{Reading, Writing};
use crate::filter::{self, JsonColumn};
use crate::store::{Failure, Outcome, PAGE_BYTES_MAX, check_count, check_limit};

const PROPERTIES: JsonColumn = JsonColumn { in_query: "relation.properties", in_index: "properties" };

pub(super) fn upsert(context: &mut Writing<'_>, message: &UpsertRelations) -> Outcome<Vec<UpsertedRelation>> {
    check_count(message.relations.len())?;
    for relation in &message.relations {
        check_new(context, relation)?;
    }
    let mut upserts = Upserts::new(context.connection, message.creates_entities)?;
    message.relations.iter().map(|relation| upsert_one(context, &mut upserts, relation)).collect()
}

/// Checks what the types cannot.
pub(super) fn check_new(context: &Writing<'_>, relation: &NewRelation) -> Outcome<()> {
    relation.check()?;
    let what = format!("relation {:?}", relation.label.as_str());
    check_payload(&what, relation.payload_bytes(), context.settings.payload_bytes_max)?;
    check_properties(relation.properties.as_ref())?;
    Ok(())
}

/// Stores a relation that was checked, with its ends where they are missing; answers its key. `None`: it cannot be told
/// which entities are meant, and nothing was written.
pub(super) fn upsert_if_clear(
    context: &mut Writing<'_>,
    upserts: &mut Upserts<'_>,
    new: &NewRelation,
) -> Outcome<Option<i64>> {
    // Both are told before either is made: a new entity may make the other's name ambiguous.
    let mut keys = [None; 2];
    for (key, end) in keys.iter_mut().zip([&new.subject, &new.object]) {
        match names::find_to_write(context, &mut upserts.labels, end) {
            Ok(None) if matches!(end, EntityRef::Id(_)) => return Ok(None),
            Err(Failure::Refused(Kind::Conflict { .. })) => return Ok(None),
            found => *key = found?,
        }
    }
    let [subject, object] = keys;
    let subject = subject.map_or_else(|| upserts.end(context, &new.subject), Ok)?;
    let object = object.map_or_else(|| upserts.end(context, &new.object), Ok)?;
    Ok(Some(upsert_between(context, upserts, subject, object, new)?.id.0.cast_signed()))
}

/// What the upserts of one message share.
pub(super) struct Upserts<'a> {
    labels: Labels<'a>,
    /// Finds the relation that a new one is the same as.
    same: CachedStatement<'a>,
    insert: CachedStatement<'a>,
    /// Whether ends that are not there are made.
    creates_ends: bool,
    default_label: Label,
}

impl<'a> Upserts<'a> {
    pub(super) fn new(connection: &'a Connection, creates_ends: bool) -> Outcome<Self> {
        // A merge may leave several; then the oldest counts.
        let same = connection.prepare_cached(&format!(
            "SELECT {RELATION} FROM relation
             WHERE subject = ?1 AND label_key = ?2 AND object = ?3 AND qualifier IS ?4 ORDER BY key LIMIT 1"
        ))?;
        let insert = connection.prepare_cached(INSERT_RELATION)?;
        let default_label = Label::new(DEFAULT_LABEL)?;
        Ok(Self { labels: Labels::new(connection), same, insert, creates_ends, default_label })
    }

    fn end(&mut self, context: &mut Writing<'_>, entity: &EntityRef) -> Outcome<i64> {
        match (names::find_to_write(context, &mut self.labels, entity)?, entity) {
            (Some(key), _) => Ok(key),
            (None, EntityRef::Name { name, label }) if self.creates_ends => {
                let label_key = self.labels.intern(label.as_ref().unwrap_or(&self.default_label))?;
                entities::insert(context, label_key, name.as_str(), &EntityPayload::default())
            }
            (None, _) => Err(Kind::NotFound { what: entity.to_string() }.into()),
        }
    }

    /// Returns the relation that a new one is the same as.
    fn find_same(
        &mut self,
        (subject, label_key, object): (i64, i64, i64),
        qualifier: &str,
    ) -> Outcome<Option<RelationRow>> {
        let qualifier = (!qualifier.is_empty()).then_some(qualifier);
        let mut rows = self.same.query(params![subject, label_key, object, qualifier])?;
        rows.next()?.map(RelationRow::read).transpose()
    }
}

fn upsert_one(context: &mut Writing<'_>, upserts: &mut Upserts<'_>, new: &NewRelation) -> Outcome<UpsertedRelation> {
    let subject = upserts.end(context, &new.subject)?;
    let object = upserts.end(context, &new.object)?;
    upsert_between(context, upserts, subject, object, new)
}

fn upsert_between(
    context: &mut Writing<'_>,
    upserts: &mut Upserts<'_>,
    subject: i64,
    object: i64,
    new: &NewRelation,
) -> Outcome<UpsertedRelation> {
    let triple = (subject, upserts.labels.intern(&new.label)?, object);
    match upserts.find_same(triple, &new.qualifier)? {
        Some(old) => update(context, old, new),
        None => insert(context, upserts, triple, new),
    }
}

fn insert(
    context: &mut Writing<'_>,
    upserts: &mut Upserts<'_>,
    (subject, label_key, object): (i64, i64, i64),
    new: &NewRelation,
) -> Outcome<UpsertedRelation> {
    let key = context.next_version().0.cast_signed();
    let relation = RelationRow {
        key,
        subject,
        label_key,
        object,
        qualifier: new.qualifier.clone(),
        weight: new.weight.unwrap_or(1.0),
        validity: new.validity.unwrap_or_default(),
        recorded_ms: context.now.0,
        superseded: None,
        properties: new.properties.as_ref().and_then(stored_properties),
    };
    relation.insert(&mut upserts.insert)?;
    sources::add(context.connection, key, &new.sources)?;
    context.changed("insert", "relation", &key.to_string());
    Ok(UpsertedRelation { id: relation_id(key), outcome: Became::Inserted })
}

fn update(context: &mut Writing<'_>, old: RelationRow, new: &NewRelation) -> Outcome<UpsertedRelation> {
    let mut relation = old.clone();
    relation.weight = new.weight.unwrap_or(old.weight);
    relation.validity = new.validity.unwrap_or(old.validity);
    if let Some(properties) = &new.properties {
        relation.properties = stored_properties(properties);
    }
    let (id, key) = (relation_id(old.key), old.key);
    let is_changed = relation != old;
    let has_new_source = sources::add(context.connection, key, &new.sources)?;
    if is_changed {
        change(context, old, relation)?;
    } else if has_new_source {
        context.changed("update", "relation", &key.to_string());
    } else {
        return Ok(UpsertedRelation { id, outcome: Became::Unchanged });
    }
    Ok(UpsertedRelation { id, outcome: Became::Updated })
}

/// Lets a relation be otherwise from now on, and keeps how it was.
pub(super) fn change(context: &mut Writing<'_>, old: RelationRow, mut new: RelationRow) -> Outcome<()> {
    let connection = context.connection;
    touch(context, &old)?;
    // A clock that was set back must not make the time before end before it began.
    let now = context.now.0.max(old.recorded_ms);
    let version = context.next_version().0.cast_signed();
    old.keep_past(connection, version, now)?;
    new.recorded_ms = now;
    new.update(connection)?;
    context.changed("update", "relation", &new.key.to_string());
    Ok(())
}

/// Tells graphs in memory, in this process and others, that a relation is not as it was. The write's version is still to be used.
fn touch(context: &Writing<'_>, old: &RelationRow) -> rusqlite::Result<()> {
    context
        .connection
        .prepare_cached("INSERT INTO touched (sequence, key, subject, object) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![context.next_version().0, old.key, old.subject, old.object])?;
    Ok(())
}

pub(super) fn invalidate(context: &mut Writing<'_>, message: &InvalidateRelations) -> Outcome<u64> {
    check_count(message.ids.len())?;
    let at = message.at.unwrap_or(context.now);
    let mut count = 0;
    for id in &message.ids {
        let Some(old) = find_visible(context.connection, id.0.cast_signed())? else { continue };
        if old.validity.until.is_some_and(|until| until <= at) {
            continue;
        }
        if old.validity.from.is_some_and(|from| from >= at) {
            return Err(Kind::invalid("time", format!("the relation {id} would end before it begins")).into());
        }
        let mut relation = old.clone();
        relation.validity = Validity { until: Some(at), ..old.validity };
        change(context, old, relation)?;
        count += 1;
    }
    Ok(count)
}

/// Returns a relation both of whose ends are there.
fn find_visible(connection: &Connection, key: i64) -> Outcome<Option<RelationRow>> {
    let Some(relation) = RelationRow::find(connection, key)? else { return Ok(None) };
    let is_visible = is_live(connection, relation.subject)? && is_live(connection, relation.object)?;
    Ok(is_visible.then_some(relation))
}

fn is_live(connection: &Connection, entity_key: i64) -> Outcome<bool> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM entity WHERE key = ?1 AND gone_ms IS NULL")?;
    Ok(statement.query_row([entity_key], |_| Ok(())).optional()?.is_some())
}

pub(super) fn delete_many(context: &mut Writing<'_>, message: &DeleteRelations) -> Outcome<u64> {
    check_count(message.ids.len())?;
    let mut count = 0;
    for id in &message.ids {
        if let Some(relation) = find_visible(context.connection, id.0.cast_signed())? {
            delete(context, &relation)?;
            count += 1;
        }
    }
    Ok(count)
}

pub(super) fn delete_triplet(context: &mut Writing<'_>, message: &DeleteTriplet) -> Outcome<u64> {
    let connection = context.connection;
    let ends = (names::find(connection, &message.subject)?, names::find(connection, &message.object)?);
    let (Some(subject), Some(object)) = ends else { return Ok(0) };
    let label_key = entities::label_key(connection, &message.label)?;
    let found = select(
        connection,
        "WHERE subject = ?1 AND label_key = ?2 AND object = ?3 ORDER BY key",
        params![subject, label_key, object],
    )?;
    for relation in &found {
        delete(context, relation)?;
    }
    Ok(found.len() as u64)
}

/// Returns relations as they are, visible or not; `condition` is trusted SQL.
pub(super) fn select(
    connection: &Connection,
    condition: &'static str,
    parameters: impl rusqlite::Params,
) -> Outcome<Vec<RelationRow>> {
    let mut statement = connection.prepare_cached(&format!("SELECT {RELATION} FROM relation {condition}"))?;
    let mut rows = statement.query(parameters)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(RelationRow::read(row)?);
    }
    Ok(found)
}

/// Deletes a relation with its history and its sources' word for it.
pub(super) fn delete(context: &mut Writing<'_>, relation: &RelationRow) -> Outcome<()> {
    touch(context, relation)?;
    delete_rows(context.connection, relation.key)?;
    context.changed("delete", "relation", &relation.key.to_string());
    Ok(())
}

/// Deletes the rows of a relation, of which nobody needs to hear.
pub(super) fn delete_rows(connection: &Connection, key: i64) -> Outcome<()> {
    sources::forget(connection, key)?;
    connection.prepare_cached("DELETE FROM relation_past WHERE key = ?1")?.execute([key])?;
    connection.prepare_cached("DELETE FROM relation WHERE key = ?1")?.execute([key])?;
    Ok(())
}

pub(super) fn get_many(context: &Reading<'_>, message: &GetRelations) -> Outcome<Vec<Option<Relation>>> {
    check_count(message.ids.len())?;
    context.at_one_instant(|connection| {
        let (mut labels, mut bytes) = (Labels::new(connection), 0);
        let mut relations = Vec::with_capacity(message.ids.len());
        for id in &message.ids {
            let row = find_visible(connection, id.0.cast_signed())?;
            bytes += row.as_ref().map_or(0, RelationRow::size_bytes) as u64;
            if bytes > ANSWER_BYTES_MAX && message.ids.len() > 1 {
                let what = "relations of one request".to_owned();
                return Err(Kind::TooLarge { what, bytes, bytes_max: ANSWER_BYTES_MAX }.into());
            }
            relations.push(row.map(|row| into_relation(connection, &mut labels, row)).transpose()?);
        }
        Ok(relations)
    })
}

/// Returns a row as a caller sees it.
pub(super) fn into_relation(connection: &Connection, labels: &mut Labels<'_>, row: RelationRow) -> Outcome<Relation> {
    Ok(Relation {
        id: relation_id(row.key),
        subject: EntityRow::require(connection, row.subject)?.summary(labels)?,
        label: labels.text(row.label_key)?,
        object: EntityRow::require(connection, row.object)?.summary(labels)?,
        sources: sources::of(connection, row.key)?,
        qualifier: row.qualifier,
        weight: row.weight,
        properties: row.properties.map(JsonText::from_stored),
        validity: row.validity,
        recorded: Timestamp(row.recorded_ms),
        superseded: row.superseded.map(|(_, time)| Timestamp(time)),
    })
}

/// Returns a relation as it was known at a time.
pub(super) fn find_as_of(connection: &Connection, key: i64, at: Timestamp) -> Outcome<Option<RelationRow>> {
    if let Some(relation) = RelationRow::find(connection, key)?.filter(|relation| relation.recorded_ms <= at.0) {
        return Ok(Some(relation));
    }
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {RELATION_PAST} FROM relation_past AS relation
         WHERE key = ?1 AND recorded_ms <= ?2 AND superseded_ms > ?2 ORDER BY version LIMIT 1"
    ))?;
    let mut rows = statement.query(params![key, at.0])?;
    rows.next()?.map(RelationRow::read).transpose()
}

/// Conditions on a table `relation`, with their parameters in order.
#[derive(Default)]
struct Selection {
    sql: String,
    parameters: Vec<Sql>,
}

impl Selection {
    fn and(&mut self, sql: &str, parameters: impl IntoIterator<Item = Sql>) {
        self.sql.push_str(if self.sql.is_empty() { "WHERE " } else { " AND " });
        self.sql.push_str(sql);
        self.parameters.extend(parameters);
    }
}

pub(super) fn find(context: &Reading<'_>, message: &FindRelations) -> Outcome<RelationPage> {
    check_limit(message.limit)?;
    context.at_one_instant(|connection| {
        let Some(selection) = narrowed(connection, message)? else {
            return Ok(RelationPage { relations: Vec::new(), next: None });
        };
        let mut found = Page::default();
        let (columns, source) = (RELATION, "relation");
        read_page(connection, message, columns, source, &selection, context.now, &mut found)?;
        if message.as_of.recorded.is_some() {
            let (columns, source) = (RELATION_PAST, "relation_past AS relation");
            let mut past = Page::default();
            read_page(connection, message, columns, source, &selection, context.now, &mut past)?;
            found = found.merged(past, message.limit);
        }
        let mut labels = Labels::new(connection);
        let next = found.next;
        let relations = found.rows.into_iter().map(|row| into_relation(connection, &mut labels, row));
        Ok(RelationPage { relations: relations.collect::<Outcome<_>>()?, next: next.map(relation_id) })
    })
}

/// Returns what a question narrows both tables to; `None`: to nothing.
fn narrowed(connection: &Connection, message: &FindRelations) -> Outcome<Option<Selection>> {
    let mut selection = Selection::default();
    for (end, sql) in [(&message.subject, "relation.subject = ?"), (&message.object, "relation.object = ?")] {
        if let Some(end) = end {
            let Some(key) = names::find(connection, end)? else { return Ok(None) };
            selection.and(sql, [Sql::Integer(key)]);
        }
    }
    if let Some(label) = &message.label {
        selection.and("relation.label_key = ?", [Sql::Integer(entities::label_key(connection, label)?)]);
    }
    if let Some(source) = &message.source {
        let Some(source_key) = sources::find(connection, source)? else { return Ok(None) };
        let said = "relation.key IN (SELECT relation_key FROM said WHERE source_key = ?)";
        selection.and(said, [Sql::Integer(source_key)]);
    }
    if let Some(after) = message.after {
        selection.and("relation.key > ?", [Sql::Integer(after.0.cast_signed())]);
    }
    if let Some(filter) = &message.filter {
        let condition = filter::compile(filter, PROPERTIES, &[], selection.parameters.len() + 1)?;
        selection.and(&condition.sql, condition.parameters);
    }
    Ok(Some(selection))
}

/// Rows in the order of their keys, and where to go on.
#[derive(Debug, Default)]
struct Page {
    rows: Vec<RelationRow>,
    next: Option<i64>,
}

impl Page {
    /// Returns both pages as one, which ends where the first of them does.
    fn merged(self, other: Self, limit: usize) -> Self {
        let end = [self.next, other.next].into_iter().flatten().min();
        let mut rows = self.rows;
        rows.extend(other.rows);
        rows.sort_by_key(|row| row.key);
        rows.retain(|row| end.is_none_or(|end| row.key <= end));
        let is_cut = rows.len() > limit;
        rows.truncate(limit);
        let next = if is_cut || end.is_some() { rows.last().map(|row| row.key) } else { None };
        Self { rows, next }
    }
}

fn read_page(
    connection: &Connection,
    message: &FindRelations,
    columns: &str,
    source: &str,
    selection: &Selection,
    now: Timestamp,
    page: &mut Page,
) -> Outcome<()> {
    let (time_sql, time_parameters) = time_condition(message.as_of, now, source != "relation");
    let mut all = Selection { sql: selection.sql.clone(), parameters: selection.parameters.clone() };
    all.and(&time_sql, time_parameters);
    let sql = format!("SELECT {columns} FROM {source} {} ORDER BY relation.key LIMIT {}", all.sql, message.limit);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(all.parameters))?;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let relation = RelationRow::read(row)?;
        bytes += relation.size_bytes();
        page.rows.push(relation);
        if bytes >= PAGE_BYTES_MAX || page.rows.len() == message.limit {
            page.next = page.rows.last().map(|row| row.key);
            break;
        }
    }
    Ok(())
}

/// Returns the condition for relations that are seen as of a time. `is_past`: of `relation_past AS relation`.
pub(super) fn time_condition(as_of: AsOf, now: Timestamp, is_past: bool) -> (String, Vec<Sql>) {
    let mut conditions = Vec::new();
    let mut parameters = Vec::new();
    let valid_at = match as_of.valid {
        ValidAt::Now => Some(now),
        ValidAt::Time(at) => Some(at),
        _ => None,
    };
    if let Some(Timestamp(at)) = valid_at {
        conditions.push(
            "(relation.valid_from_ms IS NULL OR relation.valid_from_ms <= ?) \
             AND (relation.valid_until_ms IS NULL OR relation.valid_until_ms > ?)",
        );
        parameters.extend([Sql::Integer(at), Sql::Integer(at)]);
    }
    match as_of.recorded {
        None => conditions.push(
            "NOT EXISTS (SELECT 1 FROM entity WHERE entity.key IN (relation.subject, relation.object) \
             AND entity.gone_ms IS NOT NULL)",
        ),
        Some(Timestamp(at)) => {
            conditions.push("relation.recorded_ms <= ?");
            parameters.push(Sql::Integer(at));
            if is_past {
                conditions.push("relation.superseded_ms > ?");
                parameters.push(Sql::Integer(at));
                // A fact that went over to an entity which was deleted since goes with it.
                conditions.push(
                    "NOT EXISTS (SELECT 1 FROM relation AS now CROSS JOIN entity \
                     ON entity.key IN (now.subject, now.object) \
                     WHERE now.key = relation.key AND entity.gone_ms IS NOT NULL)",
                );
            }
            // An entity that was merged was there until then; one that was deleted never was.
            conditions.push(
                "NOT EXISTS (SELECT 1 FROM entity WHERE entity.key IN (relation.subject, relation.object) \
                 AND entity.gone_ms IS NOT NULL AND (entity.merged_into IS NULL OR entity.gone_ms <= ?))",
            );
            parameters.push(Sql::Integer(at));
        }
    }
    (conditions.join(" AND "), parameters)
}
