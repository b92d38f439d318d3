//! Limits: what is measured, which entries go, and when.
//!
//! Start at [`sweep`], which runs in slices in the background, and [`keep_limits`], which ends each put and takes a hand where
//! the background is behind.
//!
//! Always true: entries go in the order of their turns; bytes are those of pages in use, so that the file keeps the limit
//! whatever its rows look like; under [`Eviction::None`] nothing goes.

use std::sync::atomic::Ordering;

use larder_protocol::Sequence;
use larder_protocol::embed_cache::ValuePut;
use rusqlite::{Connection, params};

use super::row::{is_live, key_sql, read_key};
use super::store::{EmbedCache, EmbedCacheSettings, Eviction, Writing};
use super::values;
use crate::store::{Outcome, Store};

/// The background begins at a limit, and evicts until it is below it by this part.
const LOW_MARK_PART: u64 = 64;
/// Past a limit by this part, puts evict as well.
const HIGH_MARK_PART: u64 = 16;
/// Most entries that go between two looks at the limits: how much room each gives is only reckoned.
const ENTRIES_PER_LOOK: u64 = 100;
/// A put evicts at most so many entries for each that it stored.
const EVICTED_PER_PUT: usize = 2;
/// A put that finds the cache full looks for so many expired entries.
const EXPIRED_PER_PUT: usize = 100;
/// Uses that one slice writes.
const USES_PER_SLICE: usize = 1_000;
/// Commits that one slice looks through.
const COMMITS_PER_SLICE: usize = 4_096;

/// What is stored.
struct Fill {
    file_bytes: u64,
    entry_count: u64,
}

impl Fill {
    fn measure(context: &Writing<'_>) -> Outcome<Self> {
        let entry_count =
            context.connection.prepare_cached("SELECT entry_count FROM total")?.query_row([], |row| row.get(0))?;
        Ok(Self { file_bytes: file_bytes(context.connection)?, entry_count })
    }

    /// Returns about how many entries are past the limits, as `line` moves them.
    fn surplus(&self, settings: &EmbedCacheSettings, line: impl Fn(u64) -> u64) -> u64 {
        let entries = settings.entries_max.map_or(0, |max| self.entry_count.saturating_sub(line(max)));
        let bytes = settings.bytes_max.map_or(0, |max| self.file_bytes.saturating_sub(line(max)));
        let average_bytes = (self.file_bytes / self.entry_count.max(1)).max(1);
        entries.max(bytes.div_ceil(average_bytes).min(ENTRIES_PER_LOOK)).min(self.entry_count)
    }
}

fn limit(max: u64) -> u64 {
    max
}

fn low_mark(max: u64) -> u64 {
    max - max / LOW_MARK_PART
}

fn high_mark(max: u64) -> u64 {
    max.saturating_add(max / HIGH_MARK_PART)
}

/// Returns how many bytes of the file hold anything.
pub(super) fn file_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let pragma = |sql| -> rusqlite::Result<u64> { connection.prepare_cached(sql)?.query_row([], |row| row.get(0)) };
    let used_pages = pragma("PRAGMA page_count")?.saturating_sub(pragma("PRAGMA freelist_count")?);
    Ok(used_pages * u64::from(EmbedCache::SCHEMA.page_bytes))
}

/// One slice of the background's work; answers how many rows it changed, `rows_max` when there is more to do.
pub(super) fn sweep(context: &mut Writing<'_>, rows_max: usize) -> Outcome<usize> {
    forget_others_removals(context)?;
    let expired = delete_expired(context, rows_max)?;
    if write_uses(context)? >= USES_PER_SLICE {
        // Whoever is evicted now may have been used: first all of it is written.
        return Ok(rows_max);
    }
    let settings = context.settings;
    if settings.eviction == Eviction::None || Fill::measure(context)?.surplus(settings, limit) == 0 {
        return Ok(expired);
    }
    let mut evicted = 0;
    while evicted < rows_max {
        let surplus = usize::try_from(Fill::measure(context)?.surplus(settings, low_mark)).unwrap_or(usize::MAX);
        match evict(context, surplus.min(rows_max - evicted))? {
            0 => break,
            some => evicted += some,
        }
    }
    if evicted > 0 {
        context.changed_all("evict", "");
    }
    // Between the marks the next slice would not begin.
    let is_done = evicted < rows_max || Fill::measure(context)?.surplus(settings, limit) == 0;
    Ok(if is_done { expired } else { rows_max })
}

/// Ends a put that stored `put_count` values: where the background is behind, some are evicted in its own transaction.
pub(super) fn keep_limits(context: &mut Writing<'_>, put_count: usize) -> Outcome<()> {
    let settings = context.settings;
    let is_unlimited = settings.bytes_max.is_none() && settings.entries_max.is_none();
    if is_unlimited || settings.eviction == Eviction::None {
        return Ok(());
    }
    let fill = Fill::measure(context)?;
    if fill.surplus(settings, limit) > 0 {
        context.ask_for_sweep();
    }
    let surplus = usize::try_from(fill.surplus(settings, high_mark)).unwrap_or(usize::MAX);
    if surplus > 0 {
        while write_uses(context)? >= USES_PER_SLICE {}
        evict(context, surplus.min(put_count.saturating_mul(EVICTED_PER_PUT)))?;
    }
    Ok(())
}

/// Refuses puts of new values where the limits are reached and nothing may be evicted.
pub(super) fn refuse_new_if_full(context: &mut Writing<'_>, puts: &[ValuePut]) -> Outcome<()> {
    if context.settings.eviction != Eviction::None {
        return Ok(());
    }
    let mut new_count = 0;
    for put in puts {
        new_count += u64::from(!is_live(context.connection, &put.key, context.now)?);
    }
    refuse_if_full(context, new_count)
}

/// Refuses to add so many entries where the limits are reached and nothing may be evicted.
pub(super) fn refuse_if_full(context: &mut Writing<'_>, new_count: u64) -> Outcome<()> {
    let settings = context.settings;
    if settings.eviction != Eviction::None {
        return Ok(());
    }
    let is_full = |fill: &Fill| {
        settings.bytes_max.is_some_and(|max| fill.file_bytes >= max)
            || (new_count > 0 && settings.entries_max.is_some_and(|max| fill.entry_count + new_count > max))
    };
    let mut fill = Fill::measure(context)?;
    if is_full(&fill) && delete_expired(context, EXPIRED_PER_PUT)? > 0 {
        fill = Fill::measure(context)?;
    }
    if !is_full(&fill) {
        return Ok(());
    }
    let reason = format!(
        "it holds {} entries and {} bytes, at most {} and {} are allowed, and its policy is to evict none",
        fill.entry_count,
        file_bytes(context.connection)?,
        settings.entries_max.map_or_else(|| "any number".to_owned(), |max| max.to_string()),
        settings.bytes_max.map_or_else(|| "any number".to_owned(), |max| max.to_string()),
    );
    Err(values::full(reason))
}

/// Evicts the entries whose turn it is; answers how many went.
fn evict(context: &mut Writing<'_>, entries_max: usize) -> Outcome<usize> {
    let evicted = {
        let mut statement = context.connection.prepare_cached(
            "DELETE FROM entry WHERE key IN (SELECT key FROM entry ORDER BY turn LIMIT ?1)
             RETURNING body_id, tagged, key",
        )?;
        let rows = statement
            .query_map([entries_max], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?, read_key(row, 2)?)))?;
        rows.collect::<rusqlite::Result<Vec<_>>>()?
    };
    let mut bytes = 0;
    for (body_id, is_tagged, key) in &evicted {
        bytes += values::delete_body(context.connection, *body_id)?;
        if *is_tagged {
            context.connection.prepare_cached("DELETE FROM tag WHERE key = ?1")?.execute([key_sql(key)])?;
        }
    }
    if !evicted.is_empty() {
        context
            .connection
            .prepare_cached(
                "UPDATE total SET entry_count = entry_count - ?1, value_bytes = value_bytes - ?2,
                                  evicted_count = evicted_count + ?1",
            )?
            .execute(params![evicted.len(), bytes])?;
    }
    Ok(evicted.len())
}

/// Deletes expired entries, oldest expiry first; answers how many went.
fn delete_expired(context: &mut Writing<'_>, rows_max: usize) -> Outcome<usize> {
    let expired = {
        let mut statement = context
            .connection
            .prepare_cached("SELECT key FROM entry WHERE expires_ms <= ?1 ORDER BY expires_ms LIMIT ?2")?;
        let keys = statement.query_map(params![context.now.0, rows_max], |row| read_key(row, 0))?;
        keys.collect::<rusqlite::Result<Vec<_>>>()?
    };
    for key in &expired {
        values::delete(context, key)?;
    }
    if !expired.is_empty() {
        // No memory answers them: each hit looks at the time.
        context.changed_all("expire", "");
    }
    Ok(expired.len())
}

/// Gives what was used since the last time the turns of its uses; answers how many uses there were.
fn write_uses(context: &mut Writing<'_>) -> Outcome<usize> {
    let used = context.memory.take_uses(USES_PER_SLICE);
    for (key, turn) in &used {
        // It may have been put or used again since.
        let mut statement =
            context.connection.prepare_cached("UPDATE entry SET turn = ?2 WHERE key = ?1 AND turn < ?2")?;
        statement.execute(params![key_sql(key), turn])?;
    }
    Ok(used.len())
}

/// Drops from this process's memory what others have removed or replaced since the last slice.
fn forget_others_removals(context: &mut Writing<'_>) -> Outcome<()> {
    let seen = &context.memory.seen_sequence;
    let after = Sequence(seen.load(Ordering::Relaxed));
    let newest = context.newest_sequence()?;
    match context.commits_after(after, COMMITS_PER_SLICE)? {
        Some(commits) => {
            for commit in &commits {
                context.memory.forget(&commit.changes);
            }
            let reached =
                if commits.len() < COMMITS_PER_SLICE { Some(newest) } else { commits.last().map(|c| c.sequence) };
            seen.store(reached.unwrap_or(newest).0, Ordering::Relaxed);
        }
        None => {
            context.memory.forget_all();
            seen.store(newest.0, Ordering::Relaxed);
        }
    }
    Ok(())
}
