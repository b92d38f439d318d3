//! Handlers over single entries and lists of them.
//!
//! Start at [`put`] and [`get`].

use larder_protocol::kv::{
    CompareAndDelete, CompareAndPut, DeleteTagged, DeleteValue, DeleteValues, Entry, GetValue, GetValues,
    IncrementValue, PopValue, PutIfAbsent, PutValue, PutValues, TouchValue,
};
use larder_protocol::limits::{ANSWER_BYTES_MAX, TAGS_PER_ENTRY_MAX};
use larder_protocol::{CollectionName, Error as Kind, Format, Key, Timestamp, Value, Version};
use rusqlite::{Connection, OptionalExtension, params};

use super::row::{checksum, find_live, find_version, format_code, sql_value};
use super::store::{Kv, KvSettings};
use crate::store::{Outcome, ReadContext, WriteContext, check_count, stored_name};

/// Up to this many keys are read on the caller's thread: about 2 µs each.
pub(super) const KEYS_IN_PLACE_MAX: usize = 64;

type Writing<'a> = WriteContext<'a, Kv>;

/// Replaces an entry that has no tags, in one statement; an entry that has some is left for [`clear_tags`].
const PUT: &str = "
    INSERT INTO entry (collection, key, value, format, version, created_ms, updated_ms, expires_ms, tagged, checksum)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7, ?8, ?9)
    ON CONFLICT (collection, key) DO UPDATE SET
        value = excluded.value, format = excluded.format, version = excluded.version,
        created_ms = iif(expires_ms <= excluded.updated_ms, excluded.updated_ms, created_ms),
        updated_ms = excluded.updated_ms, expires_ms = excluded.expires_ms,
        tagged = excluded.tagged, checksum = excluded.checksum
    WHERE tagged = 0";

pub(super) fn put(context: &mut Writing<'_>, message: &PutValue) -> Outcome<Version> {
    check(message, context.settings)?;
    let PutValue { collection, key, value, time_to_live, tags } = message;
    let version = context.next_version();
    let expires = time_to_live.map(|ttl| context.now.saturating_add(ttl).0);
    let checksum = checksum(collection.as_str(), key.as_str(), value);
    let mut statement = context.connection.prepare_cached(PUT)?;
    let mut upsert = || {
        statement.execute(params![
            collection.as_str(),
            key.as_str(),
            sql_value(value),
            format_code(value.format),
            version.0,
            context.now.0,
            expires,
            !tags.is_empty(),
            checksum,
        ])
    };
    if upsert()? == 0 {
        clear_tags(context.connection, collection, key)?;
        upsert()?;
    }
    if !tags.is_empty() {
        insert_tags(context.connection, message)?;
    }
    context.changed("put", collection.as_str(), key.as_str());
    Ok(version)
}

pub(super) fn put_many(context: &mut Writing<'_>, message: &PutValues) -> Outcome<Vec<Version>> {
    check_count(message.puts.len())?;
    // Before the first change, so that a refused batch costs its neighbours nothing.
    for one in &message.puts {
        check(one, context.settings)?;
    }
    message.puts.iter().map(|one| put(context, one)).collect()
}

pub(super) fn put_if_absent(context: &mut Writing<'_>, message: &PutIfAbsent) -> Outcome<Option<Version>> {
    let PutValue { collection, key, .. } = &message.put;
    match find_version(context.connection, collection.as_str(), key.as_str(), context.now)? {
        Some(_) => Ok(None),
        None => put(context, &message.put).map(Some),
    }
}

pub(super) fn compare_and_put(context: &mut Writing<'_>, message: &CompareAndPut) -> Outcome<Version> {
    let PutValue { collection, key, .. } = &message.put;
    require_version(context, collection, key, message.expected)?;
    put(context, &message.put)
}

pub(super) fn get(context: &ReadContext<'_, Kv>, message: &GetValue) -> Outcome<Option<Entry>> {
    let generation = context.memory.generation();
    let found = find_live(context.connection, message.collection.as_str(), message.key.as_str(), context.now)?;
    if let Some(entry) = &found {
        context.memory.offer(generation, message, entry);
    }
    Ok(found)
}

pub(super) fn get_many(context: &ReadContext<'_, Kv>, message: &GetValues) -> Outcome<Vec<Option<Entry>>> {
    check_count(message.keys.len())?;
    let collection = message.collection.as_str();
    // One transaction: the answers are from one instant, and the locks are taken once.
    let transaction = context.connection.unchecked_transaction()?;
    let mut entries = Vec::with_capacity(message.keys.len());
    let mut bytes = 0;
    for key in &message.keys {
        let found = find_live(&transaction, collection, key.as_str(), context.now)?;
        bytes += found.as_ref().map_or(0, |entry| entry.value.bytes.len() as u64);
        if bytes > ANSWER_BYTES_MAX && message.keys.len() > 1 {
            let what = "the values of several keys together".to_owned();
            return Err(larder_protocol::Error::TooLarge { what, bytes, bytes_max: ANSWER_BYTES_MAX }.into());
        }
        entries.push(found);
    }
    transaction.finish()?;
    Ok(entries)
}

pub(super) fn delete(context: &mut Writing<'_>, message: &DeleteValue) -> Outcome<bool> {
    delete_key(context, &message.collection, &message.key)
}

pub(super) fn delete_many(context: &mut Writing<'_>, message: &DeleteValues) -> Outcome<u64> {
    check_count(message.keys.len())?;
    let mut deleted_count = 0;
    for key in &message.keys {
        deleted_count += u64::from(delete_key(context, &message.collection, key)?);
    }
    Ok(deleted_count)
}

pub(super) fn compare_and_delete(context: &mut Writing<'_>, message: &CompareAndDelete) -> Outcome<()> {
    require_version(context, &message.collection, &message.key, message.expected)?;
    delete_key(context, &message.collection, &message.key)?;
    Ok(())
}

pub(super) fn delete_tagged(context: &mut Writing<'_>, message: &DeleteTagged) -> Outcome<u64> {
    let keys = {
        let mut statement = context.connection.prepare_cached(
            "SELECT key FROM tag JOIN entry ON entry.id = tag.entry_id WHERE tag.collection = ?1 AND tag.tag = ?2",
        )?;
        let keys = statement.query_map(params![message.collection.as_str(), message.tag.as_str()], |row| row.get(0))?;
        keys.collect::<rusqlite::Result<Vec<String>>>()?
    };
    let mut deleted_count = 0;
    for key in keys {
        let key = stored_name::<Kv, _>(Key::new(key))?;
        deleted_count += u64::from(delete_key(context, &message.collection, &key)?);
    }
    Ok(deleted_count)
}

pub(super) fn increment(context: &mut Writing<'_>, message: &IncrementValue) -> Outcome<i64> {
    let IncrementValue { collection, key, by } = message;
    let found = find_live(context.connection, collection.as_str(), key.as_str(), context.now)?;
    let Some(entry) = found else {
        let put_new = PutValue {
            collection: collection.clone(),
            key: key.clone(),
            value: Value::json(by)?,
            time_to_live: None,
            tags: Vec::new(),
        };
        return put(context, &put_new).map(|_| *by);
    };
    let sum = integer(&entry.value).and_then(|old| old.checked_add(*by));
    let sum = sum.ok_or_else(|| Kind::Conflict {
        what: named(collection, key),
        expected: format!("a 64-bit JSON integer that stays one when {by} is added"),
        found: "a value that does not".to_owned(),
    })?;
    update_value(context, collection, key, &Value::json(&sum)?)?;
    Ok(sum)
}

pub(super) fn touch(context: &mut Writing<'_>, message: &TouchValue) -> Outcome<bool> {
    let TouchValue { collection, key, time_to_live } = message;
    let expires = time_to_live.map(|ttl| context.now.saturating_add(ttl).0);
    let mut statement = context.connection.prepare_cached(
        "UPDATE entry SET expires_ms = ?3
         WHERE collection = ?1 AND key = ?2 AND (expires_ms IS NULL OR expires_ms > ?4)",
    )?;
    let is_found = statement.execute(params![collection.as_str(), key.as_str(), expires, context.now.0])? > 0;
    if is_found {
        context.changed("touch", collection.as_str(), key.as_str());
    }
    Ok(is_found)
}

pub(super) fn pop(context: &mut Writing<'_>, message: &PopValue) -> Outcome<Option<Entry>> {
    let PopValue { collection, key } = message;
    let found = find_live(context.connection, collection.as_str(), key.as_str(), context.now)?;
    if found.is_some() {
        delete_key(context, collection, key)?;
    }
    Ok(found)
}

/// Deletes expired entries, oldest expiry first; answers how many went.
pub(super) fn sweep(context: &mut Writing<'_>, rows_max: usize) -> Outcome<usize> {
    let expired = {
        let mut statement = context
            .connection
            .prepare_cached("SELECT collection, key FROM entry WHERE expires_ms <= ?1 ORDER BY expires_ms LIMIT ?2")?;
        let rows = statement.query_map(params![context.now.0, rows_max], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect::<rusqlite::Result<Vec<(String, String)>>>()?
    };
    for (collection, key) in &expired {
        let collection = stored_name::<Kv, _>(CollectionName::new(collection))?;
        delete_key(context, &collection, &stored_name::<Kv, _>(Key::new(key))?)?;
    }
    Ok(expired.len())
}

/// Fails unless the key is live at `expected`.
pub(super) fn require_version(
    context: &Writing<'_>,
    collection: &CollectionName,
    key: &Key,
    expected: Version,
) -> Outcome<()> {
    match find_version(context.connection, collection.as_str(), key.as_str(), context.now)? {
        Some(found) if found == expected => Ok(()),
        found => Err(version_conflict(collection, key, format!("version {expected}"), found).into()),
    }
}

pub(super) fn version_conflict(
    collection: &CollectionName,
    key: &Key,
    expected: String,
    found: Option<Version>,
) -> Kind {
    Kind::Conflict {
        what: named(collection, key),
        expected,
        found: found.map_or_else(|| "no entry".to_owned(), |version| format!("version {version}")),
    }
}

/// Names an entry in an error.
fn named(collection: &CollectionName, key: &Key) -> String {
    format!("key {:?} in collection {:?}", key.as_str(), collection.as_str())
}

/// Deletes the row, its tags with it; answers whether it was live.
pub(super) fn delete_key(context: &mut Writing<'_>, collection: &CollectionName, key: &Key) -> Outcome<bool> {
    let mut statement = context
        .connection
        .prepare_cached("DELETE FROM entry WHERE collection = ?1 AND key = ?2 RETURNING id, tagged, expires_ms")?;
    let deleted = statement.query_row(params![collection.as_str(), key.as_str()], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?, row.get::<_, Option<i64>>(2)?))
    });
    let Some((id, is_tagged, expires)) = deleted.optional()? else { return Ok(false) };
    if is_tagged {
        context.connection.prepare_cached("DELETE FROM tag WHERE entry_id = ?1")?.execute([id])?;
    }
    let is_live = expires.is_none_or(|expires| Timestamp(expires) > context.now);
    context.changed(if is_live { "delete" } else { "expire" }, collection.as_str(), key.as_str());
    Ok(is_live)
}

/// Replaces only the value; expiry and tags stay.
fn update_value(context: &mut Writing<'_>, collection: &CollectionName, key: &Key, value: &Value) -> Outcome<()> {
    let mut statement = context.connection.prepare_cached(
        "UPDATE entry SET value = ?3, format = ?4, version = ?5, updated_ms = ?6, checksum = ?7
         WHERE collection = ?1 AND key = ?2",
    )?;
    statement.execute(params![
        collection.as_str(),
        key.as_str(),
        sql_value(value),
        format_code(value.format),
        context.next_version().0,
        context.now.0,
        checksum(collection.as_str(), key.as_str(), value),
    ])?;
    context.changed("put", collection.as_str(), key.as_str());
    Ok(())
}

fn clear_tags(connection: &Connection, collection: &CollectionName, key: &Key) -> rusqlite::Result<()> {
    let mut statement =
        connection.prepare_cached("UPDATE entry SET tagged = 0 WHERE collection = ?1 AND key = ?2 RETURNING id")?;
    let id: i64 = statement.query_row(params![collection.as_str(), key.as_str()], |row| row.get(0))?;
    connection.prepare_cached("DELETE FROM tag WHERE entry_id = ?1")?.execute([id])?;
    Ok(())
}

fn insert_tags(connection: &Connection, message: &PutValue) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT OR IGNORE INTO tag (collection, tag, entry_id)
         SELECT ?1, ?3, id FROM entry WHERE collection = ?1 AND key = ?2",
    )?;
    for tag in &message.tags {
        statement.execute(params![message.collection.as_str(), message.key.as_str(), tag.as_str()])?;
    }
    Ok(())
}

fn integer(value: &Value) -> Option<i64> {
    (value.format == Format::Json).then(|| serde_json::from_slice(&value.bytes).ok()).flatten()
}

/// Checks what the types of the message cannot.
pub(super) fn check(message: &PutValue, settings: &KvSettings) -> Outcome<()> {
    let bytes = message.value.bytes.len();
    if bytes > settings.value_bytes_max {
        let bytes_max = settings.value_bytes_max as u64;
        return Err(Kind::TooLarge { what: "value".to_owned(), bytes: bytes as u64, bytes_max }.into());
    }
    if message.tags.len() > TAGS_PER_ENTRY_MAX {
        let reason = format!("{} tags, at most {TAGS_PER_ENTRY_MAX} are allowed", message.tags.len());
        return Err(Kind::invalid("tags", reason).into());
    }
    if message.value.format == Format::Json {
        crate::filter::read_json(&message.value.bytes)?;
    }
    Ok(())
}
