//! Handlers over values: get, put, remove, touch.
//!
//! Start at [`put`] and [`get`].

use larder_protocol::embed_cache::{
    CacheKey, Cached, ContainsValues, GetValue, GetValues, PutOutcome, PutValues, RemoveProduced, RemoveTagged,
    RemoveValues, TouchValues, ValuePut,
};
use larder_protocol::limits::{ANSWER_BYTES_MAX, TAGS_PER_ENTRY_MAX};
use larder_protocol::{Error as Kind, Tag, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use super::row::{self, Body, encode, find_live, key_sql, read_key};
use super::store::{Reading, Writing};
use super::{claims, evict, producers};
use crate::store::{Failure, Outcome, check_count};

pub(super) fn get(context: &Reading<'_>, message: &GetValue) -> Outcome<Option<Cached>> {
    read(context, context.connection, &message.key)
}

pub(super) fn get_many(context: &Reading<'_>, message: &GetValues) -> Outcome<Vec<Option<Cached>>> {
    check_count(message.keys.len())?;
    // One transaction: the locks are taken once.
    context.at_one_instant(|connection| {
        let (mut found, mut bytes) = (Vec::with_capacity(message.keys.len()), 0);
        for key in &message.keys {
            let cached = read(context, connection, key)?;
            bytes += cached.as_ref().map_or(0, |cached| cached.value.bytes() as u64);
            if bytes > ANSWER_BYTES_MAX && message.keys.len() > 1 {
                let what = "the values of several keys together".to_owned();
                return Err(Kind::TooLarge { what, bytes, bytes_max: ANSWER_BYTES_MAX }.into());
            }
            found.push(cached);
        }
        Ok(found)
    })
}

/// Reads one value into the memory tier, and notes its use.
fn read(context: &Reading<'_>, connection: &Connection, key: &CacheKey) -> Outcome<Option<Cached>> {
    let generation = context.memory.generation();
    let found = find_live(connection, key, context.now)?;
    if let Some(cached) = &found {
        context.memory.note_use(*key, context.now);
        context.memory.offer(generation, *key, cached);
    }
    Ok(found)
}

pub(super) fn contains(context: &Reading<'_>, message: &ContainsValues) -> Outcome<Vec<bool>> {
    check_count(message.keys.len())?;
    context.at_one_instant(|connection| {
        message.keys.iter().map(|key| Ok(row::is_live(connection, key, context.now)?)).collect()
    })
}

pub(super) fn put(context: &mut Writing<'_>, message: &PutValues) -> Outcome<Vec<PutOutcome>> {
    check_count(message.puts.len())?;
    if message.tags.len() > TAGS_PER_ENTRY_MAX {
        let reason = format!("{} tags, at most {TAGS_PER_ENTRY_MAX} are allowed", message.tags.len());
        return Err(Kind::invalid("tags", reason).into());
    }
    let values = message.puts.iter().map(|put| &put.value);
    let producer_id = producers::producer_id(context, &message.producer, values)?;
    evict::refuse_new_if_full(context, &message.puts)?;
    let expires = message.time_to_live.map(|time| context.now.saturating_add(time));
    // First every claim and then every value, so that the change log has two runs and not two for each value.
    let outcomes = message.puts.iter().map(|put| settle_claim(context, put)).collect::<Outcome<Vec<_>>>()?;
    for (put, _) in message.puts.iter().zip(&outcomes).filter(|(_, outcome)| **outcome == PutOutcome::Stored) {
        store(context, producer_id, put, expires, &message.tags)?;
    }
    evict::keep_limits(context, message.puts.len())?;
    Ok(outcomes)
}

/// Gives the claim of a put back, if it has one, and says whether the put counts.
fn settle_claim(context: &mut Writing<'_>, put: &ValuePut) -> Outcome<PutOutcome> {
    let Some(fencing) = put.claim else { return Ok(PutOutcome::Stored) };
    let is_current = context.release_lease(&claims::lease(&put.key)?, fencing)?;
    Ok(if is_current { PutOutcome::Stored } else { PutOutcome::Overtaken })
}

fn store(
    context: &mut Writing<'_>,
    producer_id: i64,
    put: &ValuePut,
    expires: Option<Timestamp>,
    tags: &[Tag],
) -> Outcome<()> {
    let is_replaced = delete(context, &put.key)?.is_some();
    let (format, value) = encode(&put.value);
    let compute_us = i64::try_from(put.compute_time.as_micros()).unwrap_or(i64::MAX);
    let body = Body { format, producer_id, stored: context.now, compute_us };
    let turn: i64 = context
        .connection
        .prepare_cached(
            "UPDATE total SET entry_count = entry_count + 1, value_bytes = value_bytes + ?1,
                              last_turn = max(last_turn + 1, ?2) RETURNING last_turn",
        )?
        .query_row(params![value.len(), context.memory.next_turn(context.now)], |row| row.get(0))?;
    context
        .connection
        .prepare_cached(
            "INSERT INTO body (id, stored_ms, compute_us, format, checksum, value) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![turn, body.stored.0, compute_us, format, body.checksum(&put.key, &value), &value[..]])?;
    let (expires, is_tagged) = (expires.map(|expires| expires.0), !tags.is_empty());
    context
        .connection
        .prepare_cached(
            "INSERT INTO entry (key, body_id, producer_id, turn, expires_ms, tagged) VALUES (?1, ?2, ?3, ?2, ?4, ?5)",
        )?
        .execute(params![key_sql(&put.key), turn, producer_id, expires, is_tagged])?;
    for tag in tags {
        context
            .connection
            .prepare_cached("INSERT OR IGNORE INTO tag (tag, key) VALUES (?1, ?2)")?
            .execute(params![tag.as_str(), key_sql(&put.key)])?;
    }
    if is_replaced {
        context.changed("replace", "", &put.key.to_string());
    } else {
        // Nobody needs to hear of each: no memory holds what was not there.
        context.changed_all("put", "");
    }
    Ok(())
}

/// Deletes an entry with its body and tags, and takes it off the totals; answers when it expires, if it was there.
pub(super) fn delete(context: &Writing<'_>, key: &CacheKey) -> Outcome<Option<Option<i64>>> {
    let mut statement =
        context.connection.prepare_cached("DELETE FROM entry WHERE key = ?1 RETURNING body_id, tagged, expires_ms")?;
    let deleted = statement.query_row([key_sql(key)], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?, row.get::<_, Option<i64>>(2)?))
    });
    let Some((body_id, is_tagged, expires)) = deleted.optional()? else { return Ok(None) };
    let bytes = delete_body(context.connection, body_id)?;
    if is_tagged {
        context.connection.prepare_cached("DELETE FROM tag WHERE key = ?1")?.execute([key_sql(key)])?;
    }
    subtract(context.connection, 1, bytes)?;
    Ok(Some(expires))
}

/// Deletes a body; answers its value's size.
pub(super) fn delete_body(connection: &Connection, id: i64) -> rusqlite::Result<i64> {
    let mut statement = connection.prepare_cached("DELETE FROM body WHERE id = ?1 RETURNING octet_length(value)")?;
    Ok(statement.query_row([id], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// Takes deleted entries off the totals.
pub(super) fn subtract(connection: &Connection, entry_count: usize, bytes: i64) -> rusqlite::Result<()> {
    let mut statement =
        connection.prepare_cached("UPDATE total SET entry_count = entry_count - ?1, value_bytes = value_bytes - ?2")?;
    statement.execute(params![entry_count, bytes]).map(drop)
}

pub(super) fn remove(context: &mut Writing<'_>, message: &RemoveValues) -> Outcome<u64> {
    check_count(message.keys.len())?;
    remove_all(context, &message.keys)
}

pub(super) fn remove_tagged(context: &mut Writing<'_>, message: &RemoveTagged) -> Outcome<u64> {
    let keys = {
        let mut statement = context.connection.prepare_cached("SELECT key FROM tag WHERE tag = ?1")?;
        let keys = statement.query_map([message.tag.as_str()], |row| read_key(row, 0))?;
        keys.collect::<rusqlite::Result<Vec<_>>>()?
    };
    remove_all(context, &keys)
}

pub(super) fn remove_produced(context: &mut Writing<'_>, message: &RemoveProduced) -> Outcome<u64> {
    let Some((id, _)) = producers::find(context, &message.producer)? else { return Ok(0) };
    let keys = {
        let mut statement = context.connection.prepare_cached("SELECT key FROM entry WHERE producer_id = ?1")?;
        let keys = statement.query_map([id], |row| read_key(row, 0))?;
        keys.collect::<rusqlite::Result<Vec<_>>>()?
    };
    let removed = remove_all(context, &keys)?;
    context.connection.prepare_cached("DELETE FROM producer WHERE id = ?1")?.execute([id])?;
    context.changed_all("forget", "");
    Ok(removed)
}

/// Removes entries; answers how many were live.
fn remove_all(context: &mut Writing<'_>, keys: &[CacheKey]) -> Outcome<u64> {
    let mut removed_count = 0;
    for key in keys {
        let Some(expires) = delete(context, key)? else { continue };
        removed_count += u64::from(expires.is_none_or(|expires| Timestamp(expires) > context.now));
        context.changed("remove", "", &key.to_string());
    }
    Ok(removed_count)
}

pub(super) fn touch(context: &mut Writing<'_>, message: &TouchValues) -> Outcome<u64> {
    check_count(message.keys.len())?;
    let expires = message.time_to_live.map(|time| context.now.saturating_add(time).0);
    let mut touched_count = 0;
    for key in &message.keys {
        let mut statement = context.connection.prepare_cached(
            "UPDATE entry SET expires_ms = ?2 WHERE key = ?1 AND (expires_ms IS NULL OR expires_ms > ?3)",
        )?;
        if statement.execute(params![key_sql(key), expires, context.now.0])? > 0 {
            drop(statement);
            touched_count += 1;
            context.memory.note_use(*key, context.now);
            context.changed("touch", "", &key.to_string());
        }
    }
    Ok(touched_count)
}

/// Returns the failure of a put for which there is no room.
pub(super) fn full(reason: String) -> Failure {
    Kind::Full { store: larder_protocol::StoreName::EmbedCache, reason }.into()
}
