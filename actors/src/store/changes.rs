//! The change log: which ids each commit touched, one row a commit, kept by age and size.
//!
//! Start at [`ChangeSet`], which a group fills; [`append`] writes it inside the group's transaction.
//!
//! Always true: sequences grow in commit order across processes; the newest row is never pruned, since it carries the
//! sequence; a row is bounded, because past a size a scope is recorded as a whole.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};

use larder_protocol::change::{Change, Commit};
use larder_protocol::{Sequence, Timestamp, Version};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

/// No two openings of a store in this process have the same lineage. 0: no transaction was begun yet.
static LINEAGES: AtomicU64 = AtomicU64::new(1);

/// Past this many bytes of ids in one commit, whole scopes are recorded instead: followers reload either way.
const ID_BYTES_PER_COMMIT_MAX: usize = 1 << 20;

/// The changes of one open group.
#[derive(Debug, Default)]
pub(crate) struct ChangeSet {
    first: u64,
    next: u64,
    changes: Vec<Change>,
    id_bytes: usize,
    lineage: u64,
    /// The newest sequence after the last transaction, if that was committed and is the newest that this set belonged to.
    committed_to: Option<Sequence>,
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
        if self.committed_to.take() != Some(sequence) {
            self.lineage = LINEAGES.fetch_add(1, Ordering::Relaxed);
        }
        self.first = sequence.0 + 1;
        self.next = self.first;
        self.changes.clear();
        self.id_bytes = 0;
    }

    /// Notes that the group's transaction was committed as it was written.
    pub(super) fn note_committed(&mut self) {
        self.committed_to = Some(self.last_sequence());
    }

    /// Returns a number that stays the same for as long as the rows are what the handlers before have left: it is another one
    /// after a transaction that was undone, another process's commit, and a file that was opened again.
    pub(super) fn lineage(&self) -> u64 {
        self.lineage
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
    let changes: Vec<StoredChange<'_>> = set.changes.iter().map(StoredChange::new).collect();
    let changes = serde_json::to_string(&changes).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
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
        let unreadable = |e| rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Text, e);
        let stored: Vec<StoredChange<'_>> = serde_json::from_str(&text).map_err(|e| unreadable(e.into()))?;
        // A run is charged as if each of its ids were as long as the last, which is less than twice what they are.
        let mut room = 2 * ID_BYTES_PER_COMMIT_MAX;
        let changes = stored.into_iter().map(|change| change.into_change(&mut room)).collect::<Result<_, _>>();
        let changes = changes.map_err(unreadable)?;
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

/// A [`Change`] as the log's row holds it: ids that count up are told by the first and last of each run.
#[derive(Debug, Serialize, Deserialize)]
struct StoredChange<'a> {
    kind: Cow<'a, str>,
    scope: Cow<'a, str>,
    ids: Cow<'a, [String]>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    runs: Vec<(u64, u64)>,
}

impl<'a> StoredChange<'a> {
    fn new(change: &'a Change) -> Self {
        let runs = runs(&change.ids).unwrap_or_default();
        let ids = if runs.is_empty() { Cow::Borrowed(&*change.ids) } else { Cow::default() };
        Self { kind: Cow::Borrowed(&change.kind), scope: Cow::Borrowed(&change.scope), ids, runs }
    }

    /// `room`: so many bytes of ids the commit may still have. None was written with more, and a file from elsewhere must not have
    /// us allocate without end.
    fn into_change(self, room: &mut usize) -> Result<Change, Box<dyn std::error::Error + Send + Sync>> {
        let mut ids = self.ids.into_owned();
        for (first, last) in self.runs {
            let count = last.checked_sub(first).and_then(|more| usize::try_from(more).ok()?.checked_add(1));
            let bytes = count.and_then(|count| count.checked_mul(last.to_string().len()));
            let left = bytes.and_then(|bytes| room.checked_sub(bytes));
            *room = left.ok_or_else(|| format!("a commit cannot have touched {first} to {last}"))?;
            ids.extend((first..=last).map(|id| id.to_string()));
        }
        Ok(Change { kind: self.kind.into_owned(), scope: self.scope.into_owned(), ids })
    }
}

/// Returns ids as runs of numbers that count up, in their order; `None` where that would not be shorter by far.
fn runs(ids: &[String]) -> Option<Vec<(u64, u64)>> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let run_count_max = ids.len() / 4;
    for id in ids {
        let number: u64 = id.parse().ok()?;
        let is_full = runs.len() == run_count_max;
        match runs.last_mut() {
            Some((_, last)) if number.checked_sub(1) == Some(*last) => *last = number,
            _ if is_full => return None,
            _ => runs.push((number, number)),
        }
        // As a number is shown, and not `007`.
        if id.starts_with(['0', '+']) && id != "0" {
            return None;
        }
    }
    Some(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
        numbers.into_iter().map(|number| number.to_string()).collect()
    }

    #[test]
    fn ids_that_count_up_are_stored_as_runs_and_others_as_they_are() {
        let counting: Vec<String> = ids((7..2_000).chain(5_000..6_000));
        let change = |ids: Vec<String>| Change { kind: "insert".into(), scope: "relation".into(), ids };
        for (given, is_short) in [
            (counting.clone(), true),
            (ids([u64::MAX - 4, u64::MAX - 3, u64::MAX - 2, u64::MAX - 1, u64::MAX, 0, 1, 2]), true),
            (ids([1, 2, 4, 6, 8, 10, 12, 14]), false),
            ((1..9).map(|number| format!("0{number}")).collect(), false),
            ((1..9).map(|number| format!("+{number}")).collect(), false),
            (Vec::new(), false),
            (vec!["a".into(), "2".into()], false),
            ([counting, vec!["x".into()]].concat(), false),
        ] {
            let change = change(given);
            let stored = serde_json::to_string(&StoredChange::new(&change)).unwrap();
            assert_eq!(stored.contains("runs"), is_short, "{stored}");
            let read: StoredChange<'_> = serde_json::from_str(&stored).unwrap();
            assert_eq!(read.into_change(&mut 12_000).unwrap(), change);
        }
    }

    #[test]
    fn run_that_no_commit_can_have_is_refused_before_it_is_written_out() {
        for runs in ["[0,18446744073709551615]", "[5,4]", "[0,99],[0,99]"] {
            let stored = format!(r#"{{"kind":"insert","scope":"a","ids":[],"runs":[{runs}]}}"#);
            let read: StoredChange<'_> = serde_json::from_str(&stored).unwrap();
            read.into_change(&mut 350).unwrap_err();
        }
    }

    #[test]
    fn lineage_lasts_over_commits_of_ones_own_alone() {
        let mut set = set();
        let begun = set.lineage;
        set.record("put", "a", "1");
        set.note_committed();
        set.reset(Sequence(11));
        assert_eq!(set.lineage, begun);
        // Undone.
        set.record("put", "a", "1");
        set.reset(Sequence(11));
        let undone = set.lineage;
        assert_ne!(undone, begun);
        // Another process came between.
        set.record("put", "a", "1");
        set.note_committed();
        set.reset(Sequence(13));
        assert_ne!(set.lineage, undone);
        assert_ne!(super::tests::set().lineage, set.lineage);
    }

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
