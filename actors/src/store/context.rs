//! What a handler gets to work with, and what it may answer.

use larder_protocol::change::Commit;
use larder_protocol::{Error as Kind, Sequence, Timestamp, Version, Written};
use rusqlite::Connection;

use super::Store;
use super::changes::{self, ChangeSet};
use super::lease::Process;
use crate::error::Error;
use crate::sqlite::fault;
use crate::sqlite::watermark::Watermark;

/// What a handler returns.
pub type Outcome<T> = std::result::Result<T, Failure>;

/// Why a handler did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// It refuses the request: this caller's answer, nobody else's.
    Refused(Kind),
    /// SQLite failed; what it means is decided by the extended code.
    Sqlite(rusqlite::Error),
    /// A read in place found that it takes longer than it may there: it runs again, on a thread.
    TooLong,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(kind) => kind.fmt(f),
            Self::Sqlite(error) => error.fmt(f),
            Self::TooLong => f.write_str("it takes longer than it may in place"),
        }
    }
}

impl From<Kind> for Failure {
    fn from(kind: Kind) -> Self {
        Self::Refused(kind)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Failure {
    /// Returns the caller's error; `doing` names the message.
    pub(super) fn into_error<S: Store>(self, doing: &str) -> Error {
        match self {
            Self::Refused(kind) => kind.into(),
            Self::Sqlite(error) => fault::describe(S::NAME, doing, Written::NotApplied, error),
            // Only a read in place may say so, and that runs again.
            Self::TooLong => Kind::Panicked { store: S::NAME, message: doing.to_owned() }.into(),
        }
    }
}

/// Takes a name out of a row. One that could not have been stored is damage, and not its reader's mistake.
pub(crate) fn stored_name<S: Store, T>(name: Result<T, Kind>) -> Outcome<T> {
    name.map_err(|refused| {
        let detail = format!("a row holds a name that cannot be one ({refused})");
        Kind::Corrupt { store: S::NAME, detail, written: Written::NotApplied }.into()
    })
}

/// Returns what was read of a row. A column of another type than it was written with, or a text that is no UTF-8 any more,
/// is damage of that row alone, which `damaged` tells of; what SQLite fails with may be the file's.
#[inline]
pub(crate) fn decoded<T>(read: rusqlite::Result<Option<T>>, damaged: impl FnOnce() -> Failure) -> Outcome<T> {
    match read {
        Ok(Some(read)) => Ok(read),
        Err(error @ rusqlite::Error::SqliteFailure(..)) => Err(error.into()),
        Ok(None) | Err(_) => Err(damaged()),
    }
}

/// Returns the failure of a read whose rows come in another order than their index has. Only a damaged index does so, and
/// whoever continued behind such a row would read in circles.
pub(crate) fn out_of_order<S: Store>() -> Failure {
    let detail = "its rows are not in the order of their index".to_owned();
    Kind::Corrupt { store: S::NAME, detail, written: Written::NotApplied }.into()
}

/// What a read sees: one connection that cannot change anything.
#[derive(Debug)]
pub struct ReadContext<'a, S: Store> {
    /// A read-only connection.
    pub connection: &'a Connection,
    /// The time of the request; what expires by then is hidden.
    pub now: Timestamp,
    /// The store's settings.
    pub settings: &'a S::Settings,
    /// The store's state in memory.
    pub memory: &'a S::Memory,
    /// Whether it runs on the caller's thread, where it may take about 200 µs; see [`Failure::TooLong`].
    pub is_in_place: bool,
    pub(crate) watermark: &'a Watermark,
    pub(crate) process: &'a Process,
}

impl<S: Store> ReadContext<'_, S> {
    /// Tells whether `sequence`, which was seen to be committed, was the newest commit of all processes at some moment since this was
    /// called. Where it is, SQLite is not asked as a rule, but behind a commit that failed.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn is_newest(&self, sequence: Sequence) -> Outcome<bool> {
        Ok(self.watermark.is_at(sequence) || self.newest_sequence()? == sequence)
    }

    /// Runs several statements over what is committed at one instant.
    ///
    /// # Errors
    /// What `read` fails with, or SQLite.
    pub fn at_one_instant<T>(&self, read: impl FnOnce(&Connection) -> Outcome<T>) -> Outcome<T> {
        // Cached, unlike rusqlite's own transactions: compiling both statements takes longer than a point read.
        self.connection.prepare_cached("BEGIN")?.execute([])?;
        let answer = read(self.connection);
        let ended = self.connection.prepare_cached("ROLLBACK").and_then(|mut statement| statement.execute([]));
        // Some errors end the transaction by themselves; then it is theirs that counts.
        let answer = answer?;
        ended?;
        Ok(answer)
    }
}

/// What a write works in: the group's open transaction.
#[derive(Debug)]
pub struct WriteContext<'a, S: Store> {
    /// The write connection, inside the transaction.
    pub connection: &'a Connection,
    /// The time of the request.
    pub now: Timestamp,
    /// The store's settings.
    pub settings: &'a S::Settings,
    /// The store's state in memory, as it was before the transaction: what is read of it may be written, as a copy that is
    /// quicker to load, and nothing in it may be changed here but what is kept for writes alone, under their
    /// [`lineage`](Self::lineage).
    pub memory: &'a S::Memory,
    pub(crate) changes: &'a mut ChangeSet,
    pub(crate) process: &'a Process,
}

impl<S: Store> ReadContext<'_, S> {
    /// Returns the newest commit that this read sees: inside a transaction, the one that it began behind.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn newest_sequence(&self) -> Outcome<Sequence> {
        Ok(changes::newest(self.connection)?)
    }
}

impl<S: Store> WriteContext<'_, S> {
    /// Takes the version for a row about to be written. Call [`changed`](Self::changed) once it is.
    #[must_use]
    pub fn next_version(&self) -> Version {
        self.changes.next_version()
    }

    /// Records that `id` in `scope` was changed, for subscribers, followers and caches; uses up the version.
    pub fn changed(&mut self, kind: &'static str, scope: &str, id: &str) {
        self.changes.record(kind, scope, id);
    }

    /// Records that everything in `scope` may have changed.
    pub fn changed_all(&mut self, kind: &'static str, scope: &str) {
        self.changes.record_all(kind, scope);
    }

    /// Returns a number that stays the same for as long as the rows are what this store's handlers have left, one after another:
    /// what one of them remembers of rows under this number, in its own memory for writes, holds for the next.
    #[must_use]
    pub fn lineage(&self) -> u64 {
        self.changes.lineage()
    }

    /// Asks for a slice of maintenance soon after this group, and not only in the next round.
    pub fn ask_for_sweep(&mut self) {
        self.changes.is_sweep_due = true;
    }

    /// Returns up to `limit` commits after `sequence`, oldest first, by this process and others; `None` where the log does not
    /// reach back so far.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn commits_after(&self, sequence: Sequence, limit: usize) -> Outcome<Option<Vec<Commit>>> {
        let oldest = changes::oldest_write(self.connection)?;
        if oldest.is_some_and(|oldest| oldest.0 > sequence.0 + 1) {
            return Ok(None);
        }
        Ok(Some(changes::after(self.connection, sequence, limit)?))
    }

    /// Returns the newest sequence that is committed.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn newest_sequence(&self) -> Outcome<Sequence> {
        Ok(changes::newest(self.connection)?)
    }
}
