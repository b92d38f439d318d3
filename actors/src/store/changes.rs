//! The change log: which ids each commit touched, one row a commit, kept by age and size.
//!
//! Start at [`ChangeSet`], which a group fills; [`append`] writes it inside the group's transaction.
//!
//! Always true: sequences grow in commit order across processes; the newest row is never pruned, since it carries the
//! sequence; a row is bounded, because past a size a scope is recorded as a whole.

use larder_protocol::change::{Change, Commit};
use larder_protocol::{Sequence, Timestamp, Version};
use rusqlite::{Connection, OptionalExtension, params};

/// Past this many bytes of ids in one commit, whole scopes are recorded instead: followers reload either way.
const ID_BYTES_PER_COMMIT_MAX: usize = 1 << 20;

/// The changes of one open group.
#[derive(Debug, Default)]
pub(crate) struct ChangeSet {
    first: u64,
    next: u64,
    changes: Vec<Change>,
    id_bytes: usize,
    /// A handler wants a slice of maintenance soon.
    pub(super) is_sweep_due: bool,
}

/// Where a message's changes began, to take them back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    next: u64,
    id_bytes: usize,
    change_count: usize,
    last_id_count: usize,
}

impl ChangeSet {
    /// Starts a group after the newest committed `sequence`.
    pub(crate) fn reset(&mut self, sequence: Sequence) {
        self.first = sequence.0 + 1;
        self.next = self.first;
        self.changes.clear();
        self.id_bytes = 0;
    }

    pub(super) fn next_version(&self) -> Version {
        Version(self.next)
    }

    /// The sequence of the last change recorded.
    pub(super) fn last_sequence(&self) -> Sequence {
        Sequence(self.next - 1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub(super) fn changes(&self) -> &[Change] {
        &self.changes
    }

    pub(super) fn record(&mut self, kind: &'static str, scope: &str, id: &str) {
        self.next += 1;
        self.id_bytes += id.len();
        if self.id_bytes > ID_BYTES_PER_COMMIT_MAX {
            return self.push_whole(kind, scope);
        }
        match self.changes.last_mut() {
            // No ids: the whole scope is recorded already.
            Some(last) if last.kind == kind && last.scope == scope => {
                if !last.ids.is_empty() {
                    last.ids.push(id.to_owned());
                }
            }
            _ => self.changes.push(Change { kind: kind.to_owned(), scope: scope.to_owned(), ids: vec![id.to_owned()] }),
        }
    }

    pub(super) fn record_all(&mut self, kind: &'static str, scope: &str) {
        self.next += 1;
        self.push_whole(kind, scope);
    }

    fn push_whole(&mut self, kind: &'static str, scope: &str) {
        let is_recorded = self.changes.last().is_some_and(|l| l.kind == kind && l.scope == scope && l.ids.is_empty());
        if !is_recorded {
            self.changes.push(Change { kind: kind.to_owned(), scope: scope.to_owned(), ids: Vec::new() });
        }
    }

    pub(super) fn mark(&self) -> Mark {
        let last_id_count = self.changes.last().map_or(0, |change| change.ids.len());
        Mark { next: self.next, id_bytes: self.id_bytes, change_count: self.changes.len(), last_id_count }
    }

    /// Forgets what was recorded since `mark`.
    pub(super) fn undo_to(&mut self, mark: Mark) {
        self.next = mark.next;
        self.id_bytes = mark.id_bytes;
        self.changes.truncate(mark.change_count);
        if let Some(last) = self.changes.last_mut() {
            last.ids.truncate(mark.last_id_count);
        }
    }
}

/// Returns the newest committed sequence; 0 for a new file.
pub(super) fn newest(connection: &Connection) -> rusqlite::Result<Sequence> {
    let mut statement = connection.prepare_cached("SELECT max(sequence) FROM change_log")?;
    let newest: Option<u64> = statement.query_row([], |row| row.get(0))?;
    Ok(Sequence(newest.unwrap_or(0)))
}

/// Writes the group's row.
pub(super) fn append(connection: &Connection, set: &ChangeSet, origin: i64, now: Timestamp) -> rusqlite::Result<()> {
    let changes = serde_json::to_string(&set.changes).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
    let mut statement = connection.prepare_cached(
        "INSERT INTO change_log (sequence, first, committed_ms, origin, changes) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    statement.execute(params![set.last_sequence().0, set.first, now.0, origin, changes])?;
    Ok(())
}

/// Returns whether this opening of the store committed `sequence`: tells how a COMMIT that failed ended after all.
pub(super) fn is_committed(connection: &Connection, sequence: Sequence, origin: i64) -> rusqlite::Result<bool> {
    let mut statement =
        connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM change_log WHERE sequence = ?1 AND origin = ?2)")?;
    statement.query_row(params![sequence.0, origin], |row| row.get(0))
}

/// Returns the first write that the log still holds.
pub(super) fn oldest_write(connection: &Connection) -> rusqlite::Result<Option<Sequence>> {
    let mut statement = connection.prepare_cached("SELECT first FROM change_log ORDER BY sequence LIMIT 1")?;
    statement.query_row([], |row| row.get(0).map(Sequence)).optional()
}

/// Returns up to `limit` commits after `sequence`, oldest first.
pub(super) fn after(connection: &Connection, sequence: Sequence, limit: usize) -> rusqlite::Result<Vec<Commit>> {
    let mut statement = connection.prepare_cached(
        "SELECT sequence, committed_ms, changes FROM change_log WHERE sequence > ?1 ORDER BY sequence LIMIT ?2",
    )?;
    let rows = statement.query_map(params![sequence.0, limit], |row| {
        let text: String = row.get(2)?;
        let changes = serde_json::from_str(&text)
            .map_err(|e| rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Text, e.into()))?;
        Ok(Commit { sequence: Sequence(row.get(0)?), committed: Timestamp(row.get(1)?), changes })
    })?;
    rows.collect()
}

/// Deletes at most `rows_max` commits that are too old or too many, but never the newest; answers how many went.
pub(super) fn prune(
    connection: &Connection,
    committed_before: Timestamp,
    kept_max: u64,
    rows_max: usize,
) -> rusqlite::Result<usize> {
    // The count is by sequence distance, which is at least the number of rows: cheap, and errs towards keeping less.
    let mut statement = connection.prepare_cached(
        "DELETE FROM change_log WHERE sequence IN (
             SELECT sequence FROM change_log
             WHERE sequence < (SELECT max(sequence) FROM change_log)
               AND (committed_ms < ?1 OR sequence <= (SELECT max(sequence) FROM change_log) - ?2)
             ORDER BY sequence LIMIT ?3)",
    )?;
    statement.execute(params![committed_before.0, kept_max, rows_max])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> ChangeSet {
        let mut set = ChangeSet::default();
        set.reset(Sequence(10));
        set
    }

    #[test]
    fn like_changes_are_one_run_and_undo_takes_back_part_of_it() {
        let mut set = set();
        set.record("put", "a", "1");
        let mark = set.mark();
        set.record("put", "a", "2");
        set.record("delete", "a", "1");
        set.undo_to(mark);
        assert_eq!(set.changes(), [Change { kind: "put".into(), scope: "a".into(), ids: vec!["1".into()] }]);
        assert_eq!(set.last_sequence(), Sequence(11));
    }

    #[test]
    fn oversized_commit_records_the_scope_as_a_whole() {
        let mut set = set();
        for _ in 0..1100 {
            set.record("put", "a", &"k".repeat(1024));
        }
        let last = set.changes().last().unwrap();
        assert!(last.ids.is_empty());
        assert!(set.changes().iter().map(|c| c.ids.len()).sum::<usize>() <= 1024);
    }
}
