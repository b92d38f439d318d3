//! Opening a store's file: the only place where connections are made, so that every one of them is hardened.
//!
//! Start at [`StoreFile::prepare`], then [`StoreFile::writer`] and [`StoreFile::reader`].
//!
//! Always true: a file that is not ours, or newer, is refused before anything is written; at most one writer exists per
//! store and process (its actor's), any number of readers; no connection waits for a checkpoint.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};

use larder_protocol::{Error as Kind, StoreName, Tokenizer};

use super::checkpoint::{self, CheckpointMode};
use super::migration::{self, FileSchema, Identity};
use super::{busy, interrupt, unsynced};
use crate::error::{Error, Result};
use crate::full_text::TextIndex;

/// Older SQLite can corrupt a WAL file when a checkpoint meets a commit that starts the WAL over.
pub const SQLITE_VERSION_NUMBER_MIN: i32 = 3_051_003;

/// Statements kept compiled per connection; not caching them costs reads 39 %.
const CACHED_STATEMENT_COUNT: usize = 128;

/// A WAL file is kept at this size, since growing it anew costs; one that grew beyond is cut back.
const WAL_FILE_BYTES_KEPT: i64 = 64 << 20;

/// What an acknowledged write survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Acknowledged means on disk (`synchronous=FULL`): it survives a power cut.
    Durable,
    /// It survives a crash of the process at once (`synchronous=NORMAL`); a power cut may lose the newest commits, in
    /// whole groups and never across a `flush`, but not consistency.
    Relaxed,
}

/// A store's file, and how its connections are set up.
#[derive(Debug, Clone)]
pub struct StoreFile {
    /// Which store it is.
    pub store: StoreName,
    /// Where it is.
    pub path: PathBuf,
    /// What its schema must be.
    pub schema: FileSchema,
    /// What an acknowledged write survives.
    pub durability: Durability,
    /// Page cache of each connection, in bytes.
    pub cache_bytes: u64,
    /// A replicator outside needs the WAL kept: no connection folds it in when it closes.
    pub is_replicated: bool,
    /// Its full-text index, as the settings want it.
    pub text_index: Option<TextIndex>,
    /// Whether objects beyond the migrations' belong to the store, by name and SQL.
    pub is_run_time_object: fn(&str, &str) -> bool,
}

impl StoreFile {
    /// Creates the file where it is missing, refuses one that is foreign, newer or tampered with, and migrates an older.
    ///
    /// # Errors
    /// [`Kind::Refused`] with the reason; the file is then unchanged. [`Kind::Io`] or [`Kind::Corrupt`] when it cannot
    /// be read or written.
    pub fn prepare(&self) -> Result<()> {
        check_sqlite_version()?;
        self.create_if_missing()?;
        self.undo_broken_creation()?;
        self.prepare_existing()?;
        // Every time: whoever created the file may have died before this.
        self.sync_folder()
    }

    /// Does the same for a file that must be there: one that vanished is an error, and not made anew without its rows.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    pub fn prepare_existing(&self) -> Result<()> {
        let identity = self.identify()?;
        let mut connection = self.open(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        busy::retry(|| self.initialise(&mut connection, identity))
            .map_err(|e| self.failure("preparing its file", e))?;
        self.verify_schema(&connection)?;
        self.fold_in_wal(&mut connection)
    }

    /// Starts with an empty WAL, where nobody else uses it.
    ///
    /// A WAL that is found may end in frames that were never synced: after a failed sync the system forgets that they are
    /// not on the disk, a later sync succeeds without them, and a commit behind them would be lost with them. Folded into
    /// the main file, they are written anew.
    fn fold_in_wal(&self, connection: &mut Connection) -> Result<()> {
        if self.is_replicated || self.is_unsynced() {
            return Ok(());
        }
        let folded =
            without_waiting(connection, |connection| checkpoint::checkpoint(connection, CheckpointMode::Truncate));
        folded.map(|_| ()).map_err(|e| {
            if self.durability == Durability::Relaxed && super::fault::is_failed_sync(&e) {
                self.mark_unsynced();
            }
            self.failure("folding in the WAL it was left with", e)
        })
    }

    /// Tells whether the WAL may hold frames that a failed sync lost, so that nothing may be folded in.
    pub(crate) fn is_unsynced(&self) -> bool {
        unsynced::is_marked(&self.unsynced_mark())
    }

    /// Remembers a failed sync for whoever opens the file before the machine is started anew.
    pub(crate) fn mark_unsynced(&self) {
        unsynced::set(&self.unsynced_mark());
    }

    fn unsynced_mark(&self) -> PathBuf {
        self.path.with_file_name("locks").join(format!("{}.unsynced", self.store))
    }

    /// Opens the store's one write connection. The caller must have prepared the file.
    ///
    /// # Errors
    /// When SQLite cannot open or set it up.
    pub fn writer(&self) -> Result<Connection> {
        let connection = self.open(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        self.configure_writer(&connection).map_err(|e| self.failure("opening its write connection", e))?;
        Ok(connection)
    }

    /// Opens a connection that cannot change anything.
    ///
    /// # Errors
    /// When SQLite cannot open or set it up.
    pub fn reader(&self) -> Result<Connection> {
        // Read-write access to the file is needed for the WAL's shared memory; `query_only` keeps it from writing.
        let connection = self.open(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection
            .pragma_update(None, "query_only", true)
            .and_then(|()| self.set_cache(&connection))
            .map_err(|e| self.failure("opening a read connection", e))?;
        Ok(connection)
    }

    /// Opens a connection for checkpoints: it waits for nobody.
    ///
    /// # Errors
    /// When SQLite cannot open or set it up.
    pub fn checkpointer(&self) -> Result<Connection> {
        let connection = self.writer()?;
        connection.busy_timeout(Duration::ZERO).map_err(|e| self.failure("opening its checkpoint connection", e))?;
        Ok(connection)
    }

    /// Opens a connection that may write the whole file anew.
    ///
    /// # Errors
    /// When SQLite cannot open or set it up.
    pub fn compactor(&self) -> Result<Connection> {
        let connection = self.writer()?;
        // The copy is attached, and as large as the file: not in memory.
        let set_up = connection
            .set_limit(Limit::SQLITE_LIMIT_ATTACHED, 1)
            .and_then(|_| connection.pragma_update(None, "temp_store", "FILE"));
        set_up.map_err(|e| self.failure("opening its connection for compacting", e))?;
        Ok(connection)
    }

    /// Returns where SQLite keeps the WAL.
    pub(crate) fn wal_path(&self) -> PathBuf {
        self.sibling("-wal")
    }

    fn sibling(&self, suffix: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(suffix);
        path.into()
    }

    #[expect(clippy::disallowed_methods, reason = "`create_new` never opens a file that exists, so none that is live")]
    fn create_if_missing(&self) -> Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        // SQLite gives the WAL and the shared memory the main file's permissions.
        match options.open(&self.path) {
            Ok(_) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            Err(e) => Err(self.refused(format!("it cannot be created ({e})"), e)),
        }
    }

    /// Undoes the file's first page, where a process died while it wrote that: [`identify`](Self::identify) only reads,
    /// and with a rollback journal beside the file it could not. From then on the file is in WAL mode and has no journal.
    fn undo_broken_creation(&self) -> Result<()> {
        let journal = self.sibling("-journal");
        let is_first_page = self.path.metadata().is_ok_and(|file| file.len() <= u64::from(self.schema.page_bytes));
        if !(is_first_page && journal.exists()) {
            return Ok(());
        }
        // Any read rolls back; while a living process holds the journal, it waits.
        let connection = self.open(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection
            .pragma_query_value(None, "schema_version", |row| row.get::<_, i64>(0))
            .map_err(|e| self.refused(format!("it cannot be read as a database ({e})"), e))?;
        Ok(())
    }

    /// A new file is only safe once the folder's entry for it is on disk.
    #[expect(clippy::disallowed_methods, reason = "a folder, not a store's file")]
    fn sync_folder(&self) -> Result<()> {
        #[cfg(unix)]
        if let Some(folder) = self.path.parent() {
            let sync = |path: &Path| std::fs::File::open(path).and_then(|folder| folder.sync_all());
            sync(folder).map_err(|e| self.refused(format!("its folder cannot be synced ({e})"), e))?;
        }
        Ok(())
    }

    /// Returns which tokenizer made the full-text index of the file; `None` where there is none, or no file that can be read.
    #[must_use]
    pub fn tokenizer_found(&self) -> Option<Tokenizer> {
        let index = self.text_index.filter(|_| self.path.exists())?;
        index.tokenizer_found(&self.onlooker().ok()?).ok()?
    }

    fn identify(&self) -> Result<Identity> {
        migration::identify(&self.onlooker()?, &self.schema, &self.path.display().to_string())
    }

    /// Opens a connection that leaves the file, and what is beside it, as they are.
    fn onlooker(&self) -> Result<Connection> {
        // Whoever opens a file in WAL mode makes its siblings, and only who may write removes them again. Where siblings
        // are there already, they may hold what belongs into the file: then it is only read, and they stay as they are.
        let has_siblings = ["-wal", "-journal"].iter().any(|suffix| self.sibling(suffix).exists());
        let access = if has_siblings { OpenFlags::SQLITE_OPEN_READ_ONLY } else { OpenFlags::SQLITE_OPEN_READ_WRITE };
        let connection = self.open(access)?;
        connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, has_siblings)
            .map_err(|e| self.failure("identifying its file", e))?;
        Ok(connection)
    }

    fn initialise(&self, connection: &mut Connection, identity: Identity) -> rusqlite::Result<()> {
        if identity == Identity::Empty {
            // Both must come before the first page is written, and WAL mode after them.
            connection.pragma_update(None, "page_size", self.schema.page_bytes)?;
            connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        }
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        self.configure_writer(connection)?;
        self.bring_schema_up_to_date(connection)
    }

    fn bring_schema_up_to_date(&self, connection: &mut Connection) -> rusqlite::Result<()> {
        migration::migrate(connection, &self.schema)?;
        self.text_index.map_or(Ok(()), |index| index.prepare(connection))
    }

    fn configure_writer(&self, connection: &Connection) -> rusqlite::Result<()> {
        let synchronous = match self.durability {
            Durability::Durable => "FULL",
            Durability::Relaxed => "NORMAL",
        };
        connection.pragma_update(None, "synchronous", synchronous)?;
        connection.pragma_update(None, "fullfsync", true)?;
        // A checkpoint inside COMMIT is half of all write time; the supervisor and the writer's caps do it instead.
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        // After a long WAL was folded in, its file shrinks to this at the next commit.
        connection.pragma_update_and_check(None, "journal_size_limit", WAL_FILE_BYTES_KEPT, |_| Ok(()))?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        self.set_cache(connection)
    }

    fn set_cache(&self, connection: &Connection) -> rusqlite::Result<()> {
        // A negative size is in KiB.
        let kibibytes = i64::try_from(self.cache_bytes / 1024).unwrap_or(i64::MAX);
        connection.pragma_update(None, "cache_size", -kibibytes)
    }

    /// The one place that opens a connection.
    #[expect(clippy::disallowed_methods, reason = "the one place where connections are opened and hardened")]
    fn open(&self, access: OpenFlags) -> Result<Connection> {
        let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
        let mut connection = Connection::open_with_flags(&self.path, flags)
            .map_err(|e| self.refused(format!("it cannot be opened ({e})"), e))?;
        harden(&mut connection)
            .and_then(|()| {
                let leaves_wal = self.is_replicated || self.is_unsynced();
                connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, leaves_wal)
            })
            .map_err(|e| self.failure("setting up a connection", e))?;
        Ok(connection)
    }

    fn verify_schema(&self, connection: &Connection) -> Result<()> {
        let check = || {
            let mut reference = Connection::open_in_memory()?;
            self.bring_schema_up_to_date(&mut reference)?;
            migration::verify_schema(connection, &reference, self.is_run_time_object)
        };
        match check().map_err(|e| self.failure("reading its schema", e))? {
            None => Ok(()),
            Some(reason) => Err(Kind::Refused { what: format!("file {}", self.path.display()), reason }.into()),
        }
    }

    fn refused(&self, reason: String, source: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::caused_by(Kind::Refused { what: format!("file {}", self.path.display()), reason }, source)
    }

    fn failure(&self, doing: &str, error: rusqlite::Error) -> Error {
        super::fault::describe(self.store, doing, larder_protocol::Written::NotApplied, error)
    }
}

/// Creates the file of a copy, which must not exist, to be written by SQLite's backup.
#[expect(clippy::disallowed_methods, reason = "a new file, which no other connection has open")]
pub(super) fn create_copy(path: &Path) -> Result<Connection> {
    let refused = |reason: String, source| {
        Error::caused_by(Kind::Refused { what: format!("file {}", path.display()), reason }, source)
    };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|e| {
        let reason = format!("it cannot be created ({e})");
        Error::caused_by(Kind::Refused { what: format!("file {}", path.display()), reason }, e)
    })?;
    let mut connection = Connection::open(path).map_err(|e| refused(format!("it cannot be opened ({e})"), e))?;
    harden(&mut connection).map_err(|e| refused(format!("it cannot be set up ({e})"), e))?;
    Ok(connection)
}

/// Leaves the WAL as it is when this connection closes, even if it is the last: a damaged file is not to be written to.
pub(crate) fn leave_wal(connection: &Connection) {
    if let Err(error) = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true) {
        tracing::warn!(%error, "the WAL of a damaged file may be folded in");
    }
}

/// Runs `work` on a connection that meanwhile waits for no lock.
pub(crate) fn without_waiting<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.busy_timeout(Duration::ZERO)?;
    let result = work(connection);
    connection.busy_handler(Some(busy::wait_for_lock as fn(i32) -> bool))?;
    result
}

/// Settings of every connection, before it reads a byte of the schema.
fn harden(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.busy_handler(Some(busy::wait_for_lock as fn(i32) -> bool))?;
    connection.progress_handler(interrupt::STEPS, Some(interrupt::is_over as fn() -> bool))?;
    for (option, value) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
        // Without it SQLite compiles a cached statement anew whenever its `LIMIT ?` is bound, to plan for the number.
        (DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true),
    ] {
        connection.set_db_config(option, value)?;
    }
    connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENT_COUNT);
    Ok(())
}

fn check_sqlite_version() -> Result<()> {
    if rusqlite::version_number() >= SQLITE_VERSION_NUMBER_MIN {
        return Ok(());
    }
    let reason =
        format!("version {} has a bug that can corrupt a WAL file; 3.51.3 or newer is needed", rusqlite::version());
    Err(Kind::Refused { what: "SQLite".to_owned(), reason }.into())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "makes the files that a process leaves which dies while it creates one")]
mod tests {
    use super::*;

    fn file(folder: &Path) -> StoreFile {
        StoreFile {
            store: StoreName::Kv,
            path: folder.join("kv.db"),
            schema: FileSchema {
                application_id: 0x4C72_0000,
                page_bytes: 4096,
                migrations: &["CREATE TABLE a (b INTEGER) STRICT"],
            },
            durability: Durability::Durable,
            cache_bytes: 1 << 20,
            is_replicated: false,
            text_index: None,
            is_run_time_object: |_, _| false,
        }
    }

    fn migrated(file: StoreFile, migrations: &'static [&'static str]) -> StoreFile {
        StoreFile { schema: FileSchema { migrations, ..file.schema }, ..file }
    }

    /// P8. A migration that fails, as one that a crash cuts off, leaves the older schema whole.
    #[test]
    fn older_schema_is_brought_up_to_date_and_keeps_its_rows() {
        const FIRST: &str = "CREATE TABLE a (b INTEGER) STRICT";
        const SECOND: &str = "ALTER TABLE a ADD COLUMN c INTEGER NOT NULL DEFAULT 7";
        let folder = tempfile::tempdir().unwrap();
        let old = file(folder.path());
        old.prepare().unwrap();
        old.writer().unwrap().execute("INSERT INTO a (b) VALUES (1)", []).unwrap();

        let broken = migrated(file(folder.path()), &[FIRST, SECOND, "CREATE TABLE a (again)"]);
        broken.prepare().unwrap_err();
        old.prepare().unwrap();

        let new = migrated(file(folder.path()), &[FIRST, SECOND]);
        new.prepare().unwrap();
        let row = new.reader().unwrap().query_row("SELECT b, c FROM a", [], |row| Ok((row.get(0)?, row.get(1)?)));
        assert_eq!(row, Ok((1, 7)));
        assert!(matches!(old.prepare().unwrap_err().kind(), Kind::Refused { .. }), "newer than this build");
    }

    fn has_schema(file: &StoreFile) -> bool {
        file.reader().unwrap().query_row("SELECT count(*) FROM a", [], |row| row.get::<_, i64>(0)).is_ok()
    }

    /// A process that was killed between setting WAL mode and its first commit left a file that was refused for ever,
    /// because it had a page but not yet our application id.
    #[test]
    fn file_without_a_schema_yet_is_taken_up() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(folder.path());
        let connection = Connection::open(&file.path).unwrap();
        connection.execute_batch("PRAGMA page_size = 4096; PRAGMA auto_vacuum = INCREMENTAL").unwrap();
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
        drop(connection);
        assert_eq!(file.path.metadata().unwrap().len(), 4096);
        file.prepare().unwrap();
        assert!(has_schema(&file));
    }

    /// The same a moment earlier: the first page is written, and the journal that would undo it is still there.
    #[test]
    fn file_with_the_journal_of_its_first_page_is_taken_up() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(folder.path());
        let connection = Connection::open(&file.path).unwrap();
        connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA application_id = 1").unwrap();
        drop(connection);
        // Journal header: magic, no records, nonce, a database of 0 pages before, sectors of 512, pages of 4096 bytes.
        let mut journal = vec![0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
        for number in [0_u32, 0, 0, 512, 4096] {
            journal.extend(number.to_be_bytes());
        }
        journal.resize(512, 0);
        std::fs::write(folder.path().join("kv.db-journal"), journal).unwrap();
        assert!(file.identify().is_err(), "the case that this is about");
        file.prepare().unwrap();
        assert!(has_schema(&file));
    }

    #[test]
    fn another_program_s_file_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(folder.path());
        let connection = Connection::open(&file.path).unwrap();
        connection.execute_batch("CREATE TABLE theirs (a)").unwrap();
        drop(connection);
        let before = std::fs::read(&file.path).unwrap();
        assert!(matches!(file.prepare().unwrap_err().kind(), Kind::Refused { .. }));
        assert_eq!(std::fs::read(&file.path).unwrap(), before);
    }
}
