//! Reads over a range of keys: pages in key order, and counts.
//!
//! Start at [`scan`]. The SQL is put together from constants; everything the caller said is a bound parameter.

use larder_protocol::Key;
use larder_protocol::kv::{CountValues, Direction, KeyRange, KeyedEntry, ScanPage, ScanValues};
use rusqlite::params_from_iter;
use rusqlite::types::Value as Sql;

use super::fields;
use super::row::{self, COLUMNS};
use super::store::Kv;
use crate::sqlite::text::prefix_end;
use crate::store::{Outcome, PAGE_BYTES_MAX, ReadContext, check_limit, out_of_order, stored_name};

pub(super) fn scan(context: &ReadContext<'_, Kv>, message: &ScanValues) -> Outcome<ScanPage> {
    check_limit(message.limit)?;
    let mut condition = Condition::new(context, &message.collection);
    condition.range(&message.range);
    condition.filter(context, message.filter.as_ref())?;
    let order = match message.direction {
        Direction::Ascending => "ASC",
        Direction::Descending => "DESC",
    };
    if let Some(after) = &message.after {
        let comparison = if message.direction == Direction::Ascending { "key > ?" } else { "key < ?" };
        condition.and(comparison, [text(after.as_str())]);
    }
    // One more than asked for tells whether there is a next page.
    condition.parameters.push(Sql::Integer(i64::try_from(message.limit + 1).unwrap_or(i64::MAX)));
    let sql = format!("SELECT key, {COLUMNS} FROM entry WHERE {} ORDER BY key {order} LIMIT ?", condition.sql);
    let mut statement = context.connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(condition.parameters))?;
    let (mut entries, mut page_bytes) = (Vec::<KeyedEntry>::new(), 0);
    while let Some(row) = rows.next()? {
        if entries.len() == message.limit || page_bytes >= PAGE_BYTES_MAX {
            let next = entries.last().map(|last| last.key.clone());
            return Ok(ScanPage { entries, next });
        }
        let key = stored_name::<Kv, _>(Key::new(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?))?;
        let behind = entries.last().map(|last| &last.key).or(message.after.as_ref());
        let is_ordered = behind.is_none_or(|behind| match message.direction {
            Direction::Ascending => *behind < key,
            Direction::Descending => *behind > key,
        });
        if !is_ordered {
            return Err(out_of_order::<Kv>());
        }
        let entry = row::read(row, 1)?.verify(message.collection.as_str(), key.as_str())?;
        page_bytes += entry.value.bytes.len();
        entries.push(KeyedEntry { key, entry });
    }
    Ok(ScanPage { entries, next: None })
}

pub(super) fn count(context: &ReadContext<'_, Kv>, message: &CountValues) -> Outcome<u64> {
    let mut condition = Condition::new(context, &message.collection);
    condition.range(&message.range);
    condition.filter(context, message.filter.as_ref())?;
    let sql = format!("SELECT count(*) FROM entry WHERE {}", condition.sql);
    let mut statement = context.connection.prepare_cached(&sql)?;
    Ok(statement.query_row(params_from_iter(condition.parameters), |row| row.get(0))?)
}

/// A WHERE clause in the making, with its parameters in order.
struct Condition {
    sql: String,
    parameters: Vec<Sql>,
}

impl Condition {
    /// Starts with what every read requires: the collection, and that the entry is live.
    fn new(context: &ReadContext<'_, Kv>, collection: &larder_protocol::CollectionName) -> Self {
        let sql = "collection = ? AND (expires_ms IS NULL OR expires_ms > ?)".to_owned();
        Self { sql, parameters: vec![text(collection.as_str()), Sql::Integer(context.now.0)] }
    }

    fn and(&mut self, sql: &str, parameters: impl IntoIterator<Item = Sql>) {
        self.sql.push_str(" AND ");
        self.sql.push_str(sql);
        self.parameters.extend(parameters);
    }

    fn range(&mut self, range: &KeyRange) {
        match range {
            KeyRange::All => {}
            KeyRange::Prefix(prefix) if prefix.is_empty() => {}
            KeyRange::Prefix(prefix) => {
                // Compared as a whole and not by an upper bound: no text is sure to sort behind every continuation.
                self.and("key >= ?", [text(prefix)]);
                self.and("substr(key, 1, length(?)) = ?", [text(prefix), text(prefix)]);
                if let Some(end) = prefix_end(prefix) {
                    self.and("key < ?", [Sql::Text(end)]);
                }
            }
            KeyRange::Between { from, to } => {
                if let Some(from) = from {
                    self.and("key >= ?", [text(from.as_str())]);
                }
                if let Some(to) = to {
                    self.and("key < ?", [text(to.as_str())]);
                }
            }
        }
    }

    fn filter(
        &mut self,
        context: &ReadContext<'_, Kv>,
        filter: Option<&larder_protocol::filter::Filter>,
    ) -> Outcome<()> {
        let Some(filter) = filter else { return Ok(()) };
        let (sql, parameters) = fields::compile(context.connection, filter, self.parameters.len() + 1)?;
        self.and(&sql, parameters);
        Ok(())
    }
}

fn text(text: &str) -> Sql {
    Sql::Text(text.to_owned())
}
