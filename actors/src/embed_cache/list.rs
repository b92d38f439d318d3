//! What the cache holds: counts, and pages of entries in the order of their keys.

use larder_protocol::embed_cache::{CacheDescription, DescribeCache, ListValues, ListedValue, Producer, ValuePage};
use larder_protocol::{Error as Kind, ProducerName, StoreName, Tag, Written};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, Row, params};

use super::evict;
use super::producers::kind_of;
use super::row::{self, key_sql, read_key};
use super::store::{EmbedCache, Reading};
use crate::store::{Outcome, PAGE_BYTES_MAX, check_limit, out_of_order, stored_name};

pub(super) fn describe(context: &Reading<'_>, _: &DescribeCache) -> Outcome<CacheDescription> {
    context.at_one_instant(|connection| {
        let mut statement = connection.prepare_cached("SELECT entry_count, value_bytes, evicted_count FROM total")?;
        let (entry_count, value_bytes, evicted_count) =
            statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let file_bytes = evict::file_bytes(connection)?;
        Ok(CacheDescription { entry_count, value_bytes, file_bytes, evicted_count })
    })
}

pub(super) fn list(context: &Reading<'_>, message: &ListValues) -> Outcome<ValuePage> {
    check_limit(message.limit)?;
    context.at_one_instant(|connection| {
        let sql = format!(
            "SELECT entry.key, producer.kind, producer.name, producer.parameters, {}
             FROM entry JOIN body ON body.id = entry.body_id JOIN producer ON producer.id = entry.producer_id
             WHERE entry.key > ?1 AND (entry.expires_ms IS NULL OR entry.expires_ms > ?2) ORDER BY entry.key LIMIT ?3",
            row::COLUMNS
        );
        let after = Sql::Blob(message.after.map_or_else(Vec::new, |key| key.0.to_vec()));
        let mut statement = connection.prepare_cached(&sql)?;
        // One more than asked for tells whether there is a next page.
        let mut rows = statement.query(params![after, context.now.0, message.limit + 1])?;
        let (mut entries, mut page_bytes) = (Vec::<ListedValue>::new(), 0);
        while let Some(row) = rows.next()? {
            if entries.len() == message.limit || page_bytes >= PAGE_BYTES_MAX {
                let next = entries.last().map(|last| last.key);
                return Ok(ValuePage { entries, next });
            }
            let listed = read(connection, row)?;
            if entries.last().map(|last| last.key).or(message.after).is_some_and(|behind| behind >= listed.key) {
                return Err(out_of_order::<EmbedCache>());
            }
            page_bytes += listed.cached.value.bytes();
            entries.push(listed);
        }
        Ok(ValuePage { entries, next: None })
    })
}

fn read(connection: &Connection, row: &Row<'_>) -> Outcome<ListedValue> {
    let key = read_key(row, 0)?;
    let damaged = |what: &str| Kind::Corrupt {
        store: StoreName::EmbedCache,
        detail: format!("{what} of the entry {key} is not what was written"),
        written: Written::NotApplied,
    };
    let producer = Producer {
        kind: kind_of(row.get(1)?).ok_or_else(|| damaged("the producer"))?,
        name: stored_name::<EmbedCache, _>(ProducerName::new(row.get::<_, String>(2)?))?,
        parameters: row.get(3)?,
    };
    let cached = row::read(row, 4, &key)?.ok_or_else(|| damaged("the value"))?;
    let mut statement = connection.prepare_cached("SELECT tag FROM tag WHERE key = ?1 ORDER BY tag")?;
    let tags = statement.query_map([key_sql(&key)], |row| row.get::<_, String>(0))?;
    let mut listed = ListedValue { key, producer, cached, tags: Vec::new() };
    for tag in tags {
        listed.tags.push(stored_name::<EmbedCache, _>(Tag::new(tag?))?);
    }
    Ok(listed)
}
