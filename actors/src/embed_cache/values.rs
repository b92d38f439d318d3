//! Handlers over values: get, put, remove, touch.
//!
//! Start at [`put`] and [`get`].

use larder_protocol::embed_cache::{
    CacheKey, Cached, ContainsValues, GetValue, GetValues, PutOutcome, PutValues, RemoveProduced, RemoveTagged,
    RemoveValues, RemovedPage, TouchValues, ValuePut,
};
use larder_protocol::limits::{ANSWER_BYTES_MAX, TAGS_PER_ENTRY_MAX};
use larder_protocol::{Error as Kind, Tag, Timestamp};
use rusqlite::Connection;
use rusqlite::{CachedStatement, OptionalExtension, params};

use super::row::{self, Body, Finder, encode, key_sql, read_key};
use super::store::{Reading, Writing};
use super::{claims, evict, producers};
use crate::store::{Failure, Outcome, check_count, check_limit};

pub(super) fn get(context: &Reading<'_>, message: &GetValue) -> Outcome<Option<Cached>> {
    read(context, &mut Finder::new(context.connection)?, &message.key)
}

pub(super) fn get_many(context: &Reading<'_>, message: &GetValues) -> Outcome<Vec<Option<Cached>>> {
    check_count(message.keys.len())?;
    // One transaction: the locks are taken once.
    context.at_one_instant(|connection| {
        let (mut found, mut bytes) = (Vec::with_capacity(message.keys.len()), 0);
        let mut finder = Finder::new(connection)?;
        for key in &message.keys {
            let cached = read(context, &mut finder, key)?;
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
fn read(context: &Reading<'_>, finder: &mut Finder<'_>, key: &CacheKey) -> Outcome<Option<Cached>> {
    let generation = context.memory.generation();
    let found = finder.find_live(key, context.now)?;
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
    let counted = message.puts.iter().zip(&outcomes).filter(|(_, outcome)| **outcome == PutOutcome::Stored);
    let mut storing = Storing::begin(context, producer_id, expires, &message.tags)?;
    for (put, _) in counted {
        storing.store(context, put)?;
    }
    storing.end(context)?;
    evict::keep_limits(context, message.puts.len())?;
    Ok(outcomes)
}

/// Gives the claim of a put back, if it has one, and says whether the put counts.
fn settle_claim(context: &mut Writing<'_>, put: &ValuePut) -> Outcome<PutOutcome> {
    let Some(fencing) = put.claim else { return Ok(PutOutcome::Stored) };
    let is_current = claims::release_one(context, &put.key, fencing)?;
    Ok(if is_current { PutOutcome::Stored } else { PutOutcome::Overtaken })
}

/// The values of one put on their way into the file: what is alike for all of them is prepared once, and their sums are kept
/// until the end.
struct Storing<'p, 'c> {
    producer_id: i64,
    expires: Option<i64>,
    tags: &'p [Tag],
    insert_entry: CachedStatement<'c>,
    insert_body: CachedStatement<'c>,
    last_turn: i64,
    entry_count: usize,
    value_bytes: usize,
}

impl<'p, 'c> Storing<'p, 'c> {
    fn begin(
        context: &Writing<'c>,
        producer_id: i64,
        expires: Option<Timestamp>,
        tags: &'p [Tag],
    ) -> rusqlite::Result<Self> {
        let connection = context.connection;
        // Nothing here returns what it changes: for that SQLite builds a table in memory each time.
        Ok(Self {
            producer_id,
            expires: expires.map(|expires| expires.0),
            tags,
            insert_entry: connection.prepare_cached(
                "INSERT INTO entry (key, body_id, producer_id, turn, expires_ms, tagged) VALUES (?1, ?2, ?3, ?2, ?4, ?5)
                 ON CONFLICT (key) DO NOTHING",
            )?,
            insert_body: connection.prepare_cached(
                "INSERT INTO body (id, stored_ms, compute_us, format, checksum, value) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?,
            last_turn: connection
                .prepare_cached("SELECT last_turn FROM total")?
                .query_row([], |row| row.get::<_, i64>(0))?,
            entry_count: 0,
            value_bytes: 0,
        })
    }

    fn store(&mut self, context: &mut Writing<'c>, put: &ValuePut) -> Outcome<()> {
        let turn = context.memory.next_turn(context.now).max(self.last_turn + 1);
        let is_replaced = self.insert_entry(&put.key, turn)? == 0;
        if is_replaced {
            delete(context, &put.key)?;
            self.insert_entry(&put.key, turn)?;
        }
        let (format, value) = encode(&put.value);
        let compute_us = i64::try_from(put.compute_time.as_micros()).unwrap_or(i64::MAX);
        let body = Body { format, producer_id: self.producer_id, stored: context.now, compute_us };
        let checksum = body.checksum(&put.key, &value);
        self.insert_body.execute(params![turn, body.stored.0, compute_us, format, checksum, &value[..]])?;
        for tag in self.tags {
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
        self.last_turn = turn;
        self.entry_count += 1;
        self.value_bytes += value.len();
        Ok(())
    }

    /// Inserts an entry unless its key has one; answers how many were inserted.
    fn insert_entry(&mut self, key: &CacheKey, turn: i64) -> rusqlite::Result<usize> {
        let (producer_id, expires, is_tagged) = (self.producer_id, self.expires, !self.tags.is_empty());
        self.insert_entry.execute(params![key_sql(key), turn, producer_id, expires, is_tagged])
    }

    /// Adds what was stored to the totals.
    fn end(self, context: &Writing<'_>) -> rusqlite::Result<()> {
        if self.entry_count == 0 {
            return Ok(());
        }
        context
            .connection
            .prepare_cached(
                "UPDATE total SET entry_count = entry_count + ?1, value_bytes = value_bytes + ?2, last_turn = ?3",
            )?
            .execute(params![self.entry_count, self.value_bytes, self.last_turn])
            .map(drop)
    }
}

/// Deletes an entry with its body and tags, and takes it off the totals; answers when it expires, if it was there.
pub(super) fn delete(context: &Writing<'_>, key: &CacheKey) -> Outcome<Option<Option<i64>>> {
    let mut statement =
        context.connection.prepare_cached("SELECT body_id, tagged, expires_ms FROM entry WHERE key = ?1")?;
    let found = statement.query_row([key_sql(key)], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?, row.get::<_, Option<i64>>(2)?))
    });
    let Some((body_id, is_tagged, expires)) = found.optional()? else { return Ok(None) };
    context.connection.prepare_cached("DELETE FROM entry WHERE key = ?1")?.execute([key_sql(key)])?;
    let bytes = delete_body(context.connection, body_id)?;
    if is_tagged {
        context.connection.prepare_cached("DELETE FROM tag WHERE key = ?1")?.execute([key_sql(key)])?;
    }
    subtract(context.connection, 1, bytes)?;
    Ok(Some(expires))
}

/// Deletes a body; answers its value's size.
pub(super) fn delete_body(connection: &Connection, id: i64) -> rusqlite::Result<i64> {
    let mut size = connection.prepare_cached("SELECT octet_length(value) FROM body WHERE id = ?1")?;
    let Some(bytes) = size.query_row([id], |row| row.get(0)).optional()? else { return Ok(0) };
    connection.prepare_cached("DELETE FROM body WHERE id = ?1")?.execute([id])?;
    Ok(bytes)
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

pub(super) fn remove_tagged(context: &mut Writing<'_>, message: &RemoveTagged) -> Outcome<RemovedPage> {
    check_limit(message.limit)?;
    let keys = {
        let mut statement = context
            .connection
            .prepare_cached("SELECT key FROM tag WHERE tag = ?1 AND key > ?2 ORDER BY key LIMIT ?3")?;
        let after = after_sql(message.after.as_ref());
        let keys = statement.query_map(params![message.tag.as_str(), after, message.limit], |row| read_key(row, 0))?;
        keys.collect::<rusqlite::Result<Vec<_>>>()?
    };
    remove_page(context, &keys, message.limit)
}

pub(super) fn remove_produced(context: &mut Writing<'_>, message: &RemoveProduced) -> Outcome<RemovedPage> {
    check_limit(message.limit)?;
    let Some((id, _)) = producers::find(context, &message.producer)? else { return Ok(RemovedPage::default()) };
    let keys = {
        let mut statement = context
            .connection
            .prepare_cached("SELECT key FROM entry WHERE producer_id = ?1 AND key > ?2 ORDER BY key LIMIT ?3")?;
        let keys = statement
            .query_map(params![id, after_sql(message.after.as_ref()), message.limit], |row| read_key(row, 0))?;
        keys.collect::<rusqlite::Result<Vec<_>>>()?
    };
    let page = remove_page(context, &keys, message.limit)?;
    if page.next.is_none() {
        context
            .connection
            .prepare_cached(
                "DELETE FROM producer WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM entry WHERE producer_id = ?1)",
            )?
            .execute([id])?;
        context.changed_all("forget", "");
    }
    Ok(page)
}

/// Returns a key to continue behind as SQLite is to have it.
fn after_sql(after: Option<&CacheKey>) -> &[u8] {
    after.map_or(&[], |key| &key.0)
}

/// Removes the entries of a page, of which a full one may have another behind it.
fn remove_page(context: &mut Writing<'_>, keys: &[CacheKey], limit: usize) -> Outcome<RemovedPage> {
    let removed_count = remove_all(context, keys)?;
    let next = if keys.len() == limit { keys.last().copied() } else { None };
    Ok(RemovedPage { removed_count, next })
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
