//! Leases: rows that say who may do something alone, in this process or any other on the folder.
//!
//! Start at [`WriteContext::take_lease`]. A row names its holder's file below `processes/`, which that process keeps locked
//! for life: whoever can lock it knows that its owner is dead. So a lease dies with its holder, at once and without
//! heartbeats; process ids, which are reused, play no part.
//!
//! Always true: of a lease's holdings at most one is current, the one with the newest fencing number; what is done under
//! another is refused.

use std::fs::{OpenOptions, TryLockError};
use std::path::PathBuf;
use std::time::Duration;

use larder_protocol::lease::{Fencing, LeaseGrant};
use larder_protocol::{Error as Kind, LeaseName, Timestamp};
use rusqlite::{OptionalExtension, params};

use super::Store;
use super::context::{Outcome, WriteContext};

/// A lease so long past its time is given up for good, though its holder lives: it will not come back for it.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3600);

/// This process among those that have the folder open.
#[derive(Debug, Clone)]
pub struct Process {
    /// Where each process keeps a file locked for as long as it lives.
    pub folder: PathBuf,
    /// The name of this one's.
    pub name: String,
}

impl Process {
    /// Tells whether the process behind `name` is gone. In doubt it lives.
    #[expect(clippy::disallowed_methods, reason = "a process file, not a store's file")]
    pub(crate) fn is_dead(&self, name: &str) -> bool {
        if name == self.name {
            return false;
        }
        // What stands in a row is data: only a name as processes have them becomes a path.
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
            return true;
        }
        match OpenOptions::new().read(true).write(true).open(self.folder.join(name)) {
            // The lock goes with the file, at once.
            Ok(file) => match file.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
            },
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        }
    }
}

struct Row {
    holder: String,
    fencing: Fencing,
    until: Timestamp,
}

impl<S: Store> WriteContext<'_, S> {
    /// Takes the lease for `duration`, unless somebody holds it: that is somebody whose time is not over and who lives.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn take_lease(&mut self, lease: &LeaseName, duration: Duration) -> Outcome<LeaseGrant> {
        let grant = self.hold_lease(lease, duration)?;
        if matches!(grant, LeaseGrant::Granted { .. }) {
            self.changed("lease", "", lease.as_str());
        }
        Ok(grant)
    }

    /// Takes the lease as [`take_lease`](Self::take_lease) does, where nobody wants to hear of it by name; the caller calls
    /// [`changed_all`](Self::changed_all), which uses up the fencing number.
    ///
    /// # Errors
    /// When SQLite fails.
    pub(crate) fn hold_lease(&self, lease: &LeaseName, duration: Duration) -> Outcome<LeaseGrant> {
        let (fencing, until) = (Fencing(self.next_version().0), self.now.saturating_add(duration));
        // Most are nobody's, which one statement finds out and ends.
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO lease (name, holder, fencing, until_ms) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
        )?;
        if statement.execute(params![lease.as_str(), self.process.name, fencing.0, until.0])? == 0 {
            let found = self.find_lease(lease)?;
            if let Some(row) = found.filter(|row| row.until > self.now && !self.process.is_dead(&row.holder)) {
                return Ok(LeaseGrant::Held { until: row.until });
            }
            self.connection
                .prepare_cached("UPDATE lease SET holder = ?2, fencing = ?3, until_ms = ?4 WHERE name = ?1")?
                .execute(params![lease.as_str(), self.process.name, fencing.0, until.0])?;
        }
        Ok(LeaseGrant::Granted { fencing, until })
    }

    /// Fails unless the holding of `fencing` is still the lease's current one, in time or not: to be asked in the
    /// transaction that writes what was done under the lease.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when it was overtaken or given back.
    pub fn require_lease(&self, lease: &LeaseName, fencing: Fencing) -> Outcome<()> {
        let found = self.find_lease(lease)?.map(|row| row.fencing);
        if found == Some(fencing) {
            return Ok(());
        }
        Err(Kind::Conflict {
            what: format!("lease {:?}", lease.as_str()),
            expected: format!("fencing number {fencing}"),
            found: found.map_or_else(|| "no holder".to_owned(), |found| format!("fencing number {found}")),
        }
        .into())
    }

    /// Lets the current holding last for `duration` from now; answers until when.
    ///
    /// # Errors
    /// As [`require_lease`](Self::require_lease).
    pub fn extend_lease(&mut self, lease: &LeaseName, fencing: Fencing, duration: Duration) -> Outcome<Timestamp> {
        self.require_lease(lease, fencing)?;
        let until = self.now.saturating_add(duration);
        let mut statement = self.connection.prepare_cached("UPDATE lease SET until_ms = ?2 WHERE name = ?1")?;
        statement.execute(params![lease.as_str(), until.0])?;
        self.changed("lease", "", lease.as_str());
        Ok(until)
    }

    /// Gives the lease back; answers whether the holding was the current one. A stranger's number gives nothing back.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn release_lease(&mut self, lease: &LeaseName, fencing: Fencing) -> Outcome<bool> {
        let is_released = self.let_go_of_lease(lease, fencing)?;
        if is_released {
            self.changed("release", "", lease.as_str());
        }
        Ok(is_released)
    }

    /// Gives the lease back as [`release_lease`](Self::release_lease) does, where nobody wants to hear of it by name; the caller
    /// calls [`changed_all`](Self::changed_all).
    ///
    /// # Errors
    /// When SQLite fails.
    pub(crate) fn let_go_of_lease(&self, lease: &LeaseName, fencing: Fencing) -> Outcome<bool> {
        let mut statement = self.connection.prepare_cached("DELETE FROM lease WHERE name = ?1 AND fencing = ?2")?;
        Ok(statement.execute(params![lease.as_str(), fencing.0])? > 0)
    }

    fn find_lease(&self, lease: &LeaseName) -> Outcome<Option<Row>> {
        let mut statement =
            self.connection.prepare_cached("SELECT holder, fencing, until_ms FROM lease WHERE name = ?1")?;
        let found = statement.query_row([lease.as_str()], |row| {
            Ok(Row { holder: row.get(0)?, fencing: Fencing(row.get(1)?), until: Timestamp(row.get(2)?) })
        });
        Ok(found.optional()?)
    }

    /// Deletes at most `rows_max` leases of the dead, and such as nobody will come back for: they would stay for ever.
    pub(super) fn sweep_leases(&mut self, rows_max: usize) -> Outcome<()> {
        let holders = {
            let mut statement = self.connection.prepare_cached("SELECT DISTINCT holder FROM lease")?;
            statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?
        };
        for holder in holders {
            // Of the living, those of long ago.
            let until_before = if self.process.is_dead(&holder) {
                Timestamp(i64::MAX)
            } else {
                Timestamp(self.now.0.saturating_sub(i64::try_from(FORGOTTEN_AFTER.as_millis()).unwrap_or(i64::MAX)))
            };
            self.delete_leases(&holder, until_before, rows_max)?;
        }
        Ok(())
    }

    fn delete_leases(&mut self, holder: &str, until_before: Timestamp, rows_max: usize) -> Outcome<()> {
        let names = {
            let mut statement = self.connection.prepare_cached(
                "DELETE FROM lease WHERE name IN
                     (SELECT name FROM lease WHERE holder = ?1 AND until_ms < ?2 LIMIT ?3) RETURNING name",
            )?;
            let names = statement.query_map(params![holder, until_before.0, rows_max], |row| row.get(0))?;
            names.collect::<rusqlite::Result<Vec<String>>>()?
        };
        for name in names {
            self.changed("release", "", &name);
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "process files, not a store's files")]
mod tests {
    use super::*;

    #[test]
    fn process_is_dead_once_its_file_can_be_locked_or_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let process = Process { folder: folder.path().to_owned(), name: "aa-01".to_owned() };
        let file = std::fs::File::create(folder.path().join("bb-02")).unwrap();
        file.lock().unwrap();
        assert!(!process.is_dead("bb-02"));
        assert!(!process.is_dead("aa-01"), "its own, whose file is not even there");
        drop(file);
        assert!(process.is_dead("bb-02"));
        assert!(process.is_dead("cc-03"));
    }

    /// A row is data; a path in it must not be opened, let alone be taken for a living process.
    #[test]
    fn name_that_is_no_process_file_s_is_never_opened() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("processes")).unwrap();
        let outside = std::fs::File::create(folder.path().join("ab")).unwrap();
        outside.lock().unwrap();
        let process = Process { folder: folder.path().join("processes"), name: "aa-01".to_owned() };
        assert!(process.is_dead("../ab"));
        assert!(process.is_dead(""));
    }
}
