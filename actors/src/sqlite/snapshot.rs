//! Copies of several stores' files at one instant, while they are written to.
//!
//! Start at [`pin`], then [`Pinned::copy_to`].
//!
//! Always true: what is copied is the state of all files at a moment when nobody was writing to any of them; so if B was
//! written after A was acknowledged, by any process, no copy has B without A.

use std::path::Path;
use std::time::{Duration, Instant};

use larder_protocol::{Error as Kind, StoreName, Written};
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::connection::StoreFile;
use super::fault;
use crate::error::Result;

/// All write locks must be had within this, or they are let go of and tried again: they hold up every writer.
const LOCKED_MAX: Duration = Duration::from_millis(100);
/// Tries until the files are found too busy.
const ATTEMPTS_MAX: u32 = 50;
/// Pages copied between two looks at the clock and at cancellation: about a millisecond's work.
const PAGES_PER_STEP: i32 = 1_000;

/// Read transactions on every file, all from one instant.
#[derive(Debug)]
pub struct Pinned {
    files: Vec<(StoreName, Connection)>,
}

/// Pins the files, which are to be in the order of their names: two that pin at once must not wait for each other.
///
/// # Errors
/// [`Kind::Overloaded`] when the locks could not all be had at once.
pub fn pin(files: &[StoreFile]) -> Result<Pinned> {
    for _ in 0..ATTEMPTS_MAX {
        if let Some(pinned) = try_pin(files)? {
            return Ok(pinned);
        }
    }
    let store = files.first().map_or(StoreName::Kv, |file| file.store);
    let reason = "the write locks for a snapshot could not all be had at once".to_owned();
    Err(Kind::Overloaded { store, reason, retry_after: Duration::from_secs(1) }.into())
}

/// Takes every write lock, begins every read, and lets go of the locks.
fn try_pin(files: &[StoreFile]) -> Result<Option<Pinned>> {
    let began = Instant::now();
    let mut locks = Vec::new();
    for file in files {
        let connection = file.writer()?;
        run(file, &connection, "BEGIN IMMEDIATE")?;
        locks.push((file, connection));
        if began.elapsed() > LOCKED_MAX {
            return Ok(None);
        }
    }
    let mut pinned = Vec::new();
    for file in files {
        let connection = file.reader()?;
        // A read transaction begins with the first read.
        run(file, &connection, "BEGIN; SELECT count(*) FROM sqlite_schema")?;
        pinned.push((file.store, connection));
    }
    for (file, connection) in locks {
        run(file, &connection, "ROLLBACK")?;
    }
    Ok(Some(Pinned { files: pinned }))
}

fn run(file: &StoreFile, connection: &Connection, sql: &str) -> Result<()> {
    connection.execute_batch(sql).map_err(|e| fault::describe(file.store, "taking a snapshot", Written::NotApplied, e))
}

impl Pinned {
    /// Copies each file to `folder` under its own name, verifies the copy, and answers the stores copied.
    ///
    /// # Errors
    /// When a file cannot be read, or a copy cannot be written or is not what it should be; [`Kind::DeadlineExceeded`] when
    /// not every file is copied at the `deadline`: until then the WALs cannot start over.
    pub fn copy_to(&self, folder: &Path, deadline: Option<Instant>) -> Result<Vec<StoreName>> {
        let copy_one =
            |(store, source): &(StoreName, Connection)| copy(*store, source, folder, deadline).map(|()| *store);
        self.files.iter().map(copy_one).collect()
    }
}

fn copy(store: StoreName, source: &Connection, folder: &Path, deadline: Option<Instant>) -> Result<()> {
    let path = folder.join(format!("{store}.db"));
    let failed = |e| fault::describe(store, "copying its file for a snapshot", Written::NotApplied, e);
    let mut target = super::connection::create_copy(&path)?;
    {
        let backup = Backup::new(source, &mut target).map_err(failed)?;
        // The source is pinned, so that nobody's write makes the backup start over.
        while backup.step(PAGES_PER_STEP).map_err(failed)? != StepResult::Done {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                let doing = "copying its file for a snapshot".to_owned();
                return Err(Kind::DeadlineExceeded { store, doing, written: Written::NotApplied }.into());
            }
        }
    }
    verify(store, &target)?;
    target.close().map_err(|(_, e)| failed(e))
}

/// Reads the whole copy.
fn verify(store: StoreName, copy: &Connection) -> Result<()> {
    let check: String = copy
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(|e| fault::describe(store, "verifying a snapshot", Written::NotApplied, e))?;
    if check == "ok" {
        return Ok(());
    }
    Err(Kind::Corrupt { store, detail: format!("its copy is not sound: {check}"), written: Written::NotApplied }.into())
}
