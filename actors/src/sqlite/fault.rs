//! What an SQLite error means for a store, decided by its extended code.
//!
//! Start at [`Fault::of`]; `store::group` acts on it.

use std::time::Duration;

use rusqlite::ErrorCode;
use rusqlite::ffi;

use larder_protocol::{Error as Kind, StoreName, Written};

use crate::error::Error;

/// What went wrong, by what has to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Another process held the lock past the wait's limit.
    Contention,
    /// The disk or a quota is full.
    DiskFull,
    /// The file is damaged or no database.
    Corrupt,
    /// The caller's own data broke a rule of the schema or a limit.
    Statement,
    /// A deadline ended the statement.
    Interrupted,
    /// The operating system failed to read, write, sync or lock.
    Io,
    /// Memory could not be had.
    NoMemory,
}

impl Fault {
    /// Returns what `error` means.
    #[must_use]
    pub fn of(error: &rusqlite::Error) -> Self {
        let rusqlite::Error::SqliteFailure(failure, text) = error else {
            return match error {
                // A column of another type than the schema's: the row is not one that larder wrote.
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::Utf8Error(..) => Self::Corrupt,
                _ => Self::Statement,
            };
        };
        match failure.extended_code {
            ffi::SQLITE_IOERR_NOMEM => return Self::NoMemory,
            // Rows' ids are larder's own, and new: one that is taken already was not found where it should have been.
            ffi::SQLITE_IOERR_CORRUPTFS | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => {
                return Self::Corrupt;
            }
            // A full disk may first show where the shared memory file grows.
            ffi::SQLITE_IOERR_SHMSIZE => return Self::DiskFull,
            _ => {}
        }
        // FTS5 gives a damaged index the code of a mistake in the statement.
        if text.as_ref().is_some_and(|text| text.contains("invalid fts5 file format")) {
            return Self::Corrupt;
        }
        match failure.code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => {
                Self::Contention
            }
            ErrorCode::DiskFull => Self::DiskFull,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Self::Corrupt,
            ErrorCode::OperationInterrupted | ErrorCode::OperationAborted => Self::Interrupted,
            ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied => {
                Self::Io
            }
            ErrorCode::OutOfMemory => Self::NoMemory,
            _ => Self::Statement,
        }
    }
}

/// Tells whether a sync failed: what it should have synced may never reach the disk, though a later sync succeeds.
pub(crate) fn is_failed_sync(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(code, Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC))
}

/// Returns the error that SQLite would give for one of a file beside its own.
pub(crate) fn of_io(doing: &str, error: &std::io::Error) -> rusqlite::Error {
    let code = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ffi::SQLITE_FULL,
        _ => ffi::SQLITE_IOERR_WRITE,
    };
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(format!("{doing}: {error}")))
}

/// Returns the error that a line of SQLite's `integrity_check` stands for, if it tells of a read that failed: no page was
/// found damaged then, it could not be had.
pub(crate) fn of_finding(finding: &str) -> Option<rusqlite::Error> {
    let code = finding.rsplit_once("error code=")?.1.trim().parse().ok()?;
    let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(finding.to_owned()));
    matches!(Fault::of(&error), Fault::Io | Fault::NoMemory | Fault::Interrupted).then_some(error)
}

/// Returns what an error of a COMMIT is: nothing of a caller's runs there, so a rule that is broken then is broken in tables
/// that SQLite keeps for itself, such as a full-text index's, which only damage does.
pub(crate) fn at_commit(error: rusqlite::Error) -> rusqlite::Error {
    if Fault::of(&error) != Fault::Statement {
        return error;
    }
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), Some(error.to_string()))
}

/// Returns the caller's error for an SQLite error that happened while `doing` something.
pub(crate) fn describe(store: StoreName, doing: &str, written: Written, error: rusqlite::Error) -> Error {
    let cause = error.to_string();
    let kind = match Fault::of(&error) {
        Fault::Contention => Kind::Overloaded {
            store,
            reason: format!("another process held the lock while {doing}"),
            retry_after: CONTENTION_RETRY_AFTER,
        },
        Fault::DiskFull => Kind::DiskFull { store, written },
        Fault::Corrupt => Kind::Corrupt { store, detail: format!("{doing}: {cause}"), written },
        Fault::Interrupted => Kind::DeadlineExceeded { store, doing: doing.to_owned(), written },
        Fault::Statement => Kind::Invalid { what: doing.to_owned(), reason: cause },
        Fault::Io | Fault::NoMemory => Kind::Io { store, doing: doing.to_owned(), cause, written },
    };
    Error::caused_by(kind, error)
}

/// After a wait of many seconds for a lock, a caller should not come back at once.
const CONTENTION_RETRY_AFTER: Duration = Duration::from_secs(1);
