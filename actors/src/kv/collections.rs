//! Handlers over whole collections.

use larder_protocol::CollectionName;
use larder_protocol::kv::{CollectionSummary, DropCollection, ListCollections};
use rusqlite::params;

use super::store::Kv;
use crate::store::{Outcome, ReadContext, WriteContext, check_limit, stored_name};

/// Steps from one name to the next by the index, so that a large collection costs no more than a small one to find.
const LIST: &str = "
    WITH RECURSIVE found (name) AS (
        SELECT min(collection) FROM entry WHERE collection > ?1 AND (expires_ms IS NULL OR expires_ms > ?2)
        UNION ALL
        SELECT (SELECT min(collection) FROM entry
                WHERE collection > found.name AND (expires_ms IS NULL OR expires_ms > ?2))
        FROM found WHERE found.name IS NOT NULL
        LIMIT ?3)
    SELECT name, count(*), total(octet_length(value))
    FROM found JOIN entry ON entry.collection = found.name AND (expires_ms IS NULL OR expires_ms > ?2)
    WHERE name IS NOT NULL GROUP BY name ORDER BY name";

pub(super) fn list(context: &ReadContext<'_, Kv>, message: &ListCollections) -> Outcome<Vec<CollectionSummary>> {
    check_limit(message.limit)?;
    let after = message.after.as_ref().map_or("", CollectionName::as_str);
    let mut statement = context.connection.prepare_cached(LIST)?;
    let mut rows = statement.query(params![after, context.now.0, message.limit])?;
    let mut summaries = Vec::new();
    while let Some(row) = rows.next()? {
        let name = CollectionName::new(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a sum of sizes, exact below 2^53")]
        let value_bytes = row.get::<_, f64>(2)? as u64;
        let name = stored_name::<Kv, _>(name)?;
        summaries.push(CollectionSummary { name, entry_count: row.get(1)?, value_bytes });
    }
    Ok(summaries)
}

pub(super) fn drop_collection(context: &mut WriteContext<'_, Kv>, message: &DropCollection) -> Outcome<u64> {
    let collection = message.collection.as_str();
    let entry_count = context
        .connection
        .prepare_cached("SELECT count(*) FROM entry WHERE collection = ?1 AND (expires_ms IS NULL OR expires_ms > ?2)")?
        .query_row(params![collection, context.now.0], |row| row.get(0))?;
    context.connection.prepare_cached("DELETE FROM tag WHERE collection = ?1")?.execute([collection])?;
    let deleted =
        context.connection.prepare_cached("DELETE FROM entry WHERE collection = ?1")?.execute([collection])?;
    if deleted > 0 {
        context.changed_all("drop", collection);
    }
    Ok(entry_count)
}
