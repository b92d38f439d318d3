//! A workload on SQLite alone: it proves the harness before any store of larder runs in it, and shows how to write one.
//!
//! Start at [`RawWorkload`]'s [`Workload::step`]. Two files, each with a writer that commits groups and a second connection
//! that checkpoints meanwhile from another thread. After a failed commit it does what larder's fault policy asks: reopen,
//! and commit a marker before anything is answered.
//!
//! Always true: what an operation writes follows from its id, so that a check needs no memory of its own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ffi, params};

use crate::history::{Durability, Finding, History, Outcome, Verdict, Witness};
use crate::random::{Random, mix};
use crate::workload::Workload;

/// The store files, which are also the places of operations.
pub const PLACES: [&str; 2] = ["left.db", "right.db"];

/// SQLite's `synchronous`, by what it promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronous {
    /// An acknowledged commit is on disk.
    Full,
    /// The newest commits may go in a power cut.
    Normal,
    /// **Control**: a power cut may do anything.
    Off,
}

/// What the workload deliberately does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// Nothing.
    None,
    /// **Control**: answers before COMMIT.
    AcknowledgesBeforeCommit,
    /// **Control**: refuses the operation that failed and commits the rest of its transaction without looking.
    SkipsRollback,
    /// **Control**: after a failed commit it closes its last connection before it opens a new one.
    ReopensWithoutGuard,
}

/// Groups of operations on two SQLite files.
#[derive(Debug, Clone)]
pub struct RawWorkload {
    /// What an acknowledgement promises.
    pub synchronous: Synchronous,
    /// What it does wrong.
    pub defect: Defect,
}

/// The open files.
#[derive(Debug)]
pub struct RawSession {
    stores: Vec<Store>,
}

#[derive(Debug)]
struct Store {
    place: &'static str,
    path: PathBuf,
    /// `None` after a failed commit, until a marker is committed.
    connections: Option<Connections>,
    /// Held from a failed commit until its marker; see [`RawWorkload::revive`].
    guard: Option<Connection>,
}

#[derive(Debug)]
struct Connections {
    writer: Connection,
    checkpointer: Connection,
}

impl Workload for RawWorkload {
    type Session = RawSession;

    fn open(&self, folder: &Path) -> Result<RawSession, String> {
        let open = |place: &&'static str| {
            let path = folder.join(place);
            let connections = self.connect(&path).map_err(|error| format!("{place}: {error}"))?;
            Ok(Store { place, path, connections: Some(connections), guard: None })
        };
        Ok(RawSession { stores: PLACES.iter().map(open).collect::<Result<_, String>>()? })
    }

    fn step(&self, session: &mut RawSession, seed: u64, witness: &Witness) {
        let mut random = Random::new(seed);
        for store in &mut session.stores {
            if store.connections.is_none() {
                _ = self.revive(store);
            }
            self.commit_group(store, &mut random, witness);
            self.maintain(store, &mut random, witness);
        }
    }

    fn check(&self, session: &mut RawSession, history: &History) -> Result<Verdict, String> {
        let mut verdict = Verdict::default();
        for store in &session.stores {
            let connections =
                store.connections.as_ref().ok_or("a commit failed and no marker could be written since")?;
            let durability =
                if self.synchronous == Synchronous::Normal { Durability::Relaxed } else { Durability::Durable };
            let (found, findings) =
                inspect(&connections.writer).map_err(|error| format!("{}: {error}", store.place))?;
            verdict.merge(history.judge(store.place, durability, &found, &BTreeSet::new()));
            verdict.findings.extend(findings);
        }
        Ok(verdict)
    }
}

impl RawWorkload {
    /// Returns the workload without defects.
    #[must_use]
    pub fn new(synchronous: Synchronous) -> Self {
        Self { synchronous, defect: Defect::None }
    }

    /// Sets what it does wrong.
    #[must_use]
    pub fn with(mut self, defect: Defect) -> Self {
        self.defect = defect;
        self
    }

    fn connect(&self, path: &Path) -> rusqlite::Result<Connections> {
        let writer = self.connection(path)?;
        // An opening that commits could fail at it, with no other connection to guard it; see `revive`.
        if table_count(&writer)? == 0 {
            create_schema(&writer)?;
        }
        Ok(Connections { writer, checkpointer: self.connection(path)? })
    }

    fn connection(&self, path: &Path) -> rusqlite::Result<Connection> {
        let synchronous = match self.synchronous {
            Synchronous::Full => "FULL",
            Synchronous::Normal => "NORMAL",
            Synchronous::Off => "OFF",
        };
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(2))?;
        // Small pages, cache and WAL: many writes, spills in the middle of transactions, and frequent wraps.
        if table_count(&connection)? == 0 {
            // On a database with content, auto_vacuum would commit a page at every opening.
            connection.execute_batch("PRAGMA page_size=1024; PRAGMA auto_vacuum=INCREMENTAL;")?;
        }
        connection.execute_batch(&format!(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous={synchronous}; PRAGMA wal_autocheckpoint=40; PRAGMA cache_size=10;"
        ))?;
        Ok(connection)
    }

    /// Reopens after a failed commit, whose frames are still in the WAL: the marker's commit overwrites them, so that the
    /// answer cannot change any more.
    ///
    /// An old connection stays open meanwhile. If the last one closed, the next would recover the WAL with the failed
    /// frames in it, and everything after them would hang on frames that a failed sync never brought to the disk.
    fn revive(&self, store: &mut Store) -> rusqlite::Result<()> {
        if let (Some(old), true) = (store.connections.take(), self.defect != Defect::ReopensWithoutGuard) {
            store.guard = Some(old.checkpointer);
        }
        let connections = self.connect(&store.path)?;
        connections.writer.execute("UPDATE counter SET markers = markers + 1", [])?;
        store.connections = Some(connections);
        store.guard = None;
        Ok(())
    }

    fn commit_group(&self, store: &mut Store, random: &mut Random, witness: &Witness) {
        let ops: Vec<u64> = (0..1 + random.below(4)).map(|_| witness.begin(store.place)).collect();
        let settle = |outcome| ops.iter().for_each(|op| witness.settle(*op, outcome));
        let Some(connections) = &store.connections else { return settle(Outcome::NotApplied) };
        if self.defect == Defect::AcknowledgesBeforeCommit {
            settle(Outcome::Applied);
        }
        match self.write_group(&connections.writer, &ops, random) {
            Ok(Written { refused }) => {
                let outcome = |op| if refused.contains(op) { Outcome::NotApplied } else { Outcome::Applied };
                ops.iter().for_each(|op| witness.settle(*op, outcome(op)));
            }
            Err(WriteError::BeforeCommit) => {
                settle(Outcome::NotApplied);
                let clean = connections.writer.is_autocommit() || connections.writer.execute_batch("ROLLBACK").is_ok();
                if !clean && self.defect != Defect::SkipsRollback {
                    store.connections = None;
                }
            }
            Err(WriteError::AtCommit) => {
                settle(Outcome::Unknown);
                _ = self.revive(store);
            }
        }
    }

    fn write_group(&self, writer: &Connection, ops: &[u64], random: &mut Random) -> Result<Written, WriteError> {
        let before = |_| WriteError::BeforeCommit;
        writer.execute_batch("BEGIN IMMEDIATE").map_err(before)?;
        let batch: i64 = writer
            .query_row(
                "UPDATE counter SET batches = batches + 1, ops = ops + ?1 RETURNING batches",
                [ops.len() as i64],
                |row| row.get(0),
            )
            .map_err(before)?;
        let mut refused = BTreeSet::new();
        for op in ops {
            match write_op(writer, *op, batch, ops.len()) {
                Err(_) if self.defect == Defect::SkipsRollback => _ = refused.insert(*op),
                result => result.map_err(before)?,
            }
        }
        churn(writer, random, batch).map_err(before)?;
        writer.execute_batch("COMMIT").map_err(|_| WriteError::AtCommit)?;
        Ok(Written { refused })
    }

    /// Checkpoints of every kind, also from another connection and thread during a commit, and reopenings.
    fn maintain(&self, store: &mut Store, random: &mut Random, witness: &Witness) {
        let choice = random.below(100);
        if (20..25).contains(&choice) {
            store.connections = None;
            store.connections = self.connect(&store.path).ok();
            return;
        }
        let Some(connections) = &mut store.connections else { return };
        match choice {
            0..10 => {
                let Connections { writer, checkpointer } = connections;
                let checkpointer: &mut Connection = checkpointer;
                let committed = std::thread::scope(|scope| {
                    scope.spawn(move || checkpoint(checkpointer, "PASSIVE"));
                    churn_alone(writer, random)
                });
                if !committed {
                    _ = self.revive(store);
                }
            }
            10..15 => _ = checkpoint(&connections.writer, "TRUNCATE"),
            15..20 => _ = checkpoint(&connections.writer, "RESTART"),
            25..35 => {
                let flush = witness.flush_begins(store.place);
                if checkpoint(&connections.writer, "FULL") {
                    witness.flushed(&flush);
                }
            }
            _ => {}
        }
    }
}

/// A group that was committed, and those of its operations that were refused all the same.
struct Written {
    refused: BTreeSet<u64>,
}

enum WriteError {
    BeforeCommit,
    AtCommit,
}

fn table_count(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| number(row, 0))
}

fn create_schema(writer: &Connection) -> rusqlite::Result<()> {
    writer.execute_batch(
        "BEGIN IMMEDIATE;
         CREATE TABLE IF NOT EXISTS op(id INTEGER PRIMARY KEY, batch INTEGER, batch_ops INTEGER, items INTEGER);
         CREATE TABLE IF NOT EXISTS item(op INTEGER, n INTEGER, payload BLOB, PRIMARY KEY(op, n));
         CREATE TABLE IF NOT EXISTS churn(k INTEGER PRIMARY KEY, batch INTEGER, v BLOB);
         CREATE TABLE IF NOT EXISTS counter(one INTEGER PRIMARY KEY CHECK(one = 1), batches, ops, markers);
         INSERT OR IGNORE INTO counter VALUES(1, 0, 0, 0);
         COMMIT;",
    )
}

fn items_of(op: u64) -> u64 {
    1 + mix(op, 1) % 3
}

fn payload(op: u64, item: u64) -> Vec<u8> {
    let mut random = Random::new(mix(op, 10 + item));
    let len = if random.percent(5) { 3_000 } else { 1 + random.below(700) };
    random.bytes(len as usize)
}

fn write_op(writer: &Connection, op: u64, batch: i64, batch_ops: usize) -> rusqlite::Result<()> {
    let mut insert = writer.prepare_cached("INSERT INTO op VALUES(?1, ?2, ?3, ?4)")?;
    insert.execute(params![op as i64, batch, batch_ops as i64, items_of(op) as i64])?;
    let mut insert = writer.prepare_cached("INSERT INTO item VALUES(?1, ?2, ?3)")?;
    (0..items_of(op))
        .try_for_each(|item| insert.execute(params![op as i64, item as i64, payload(op, item)]).map(|_| ()))
}

/// Overwrites, deletes and frees pages, so that a database is more than appended to.
fn churn(writer: &Connection, random: &mut Random, batch: i64) -> rusqlite::Result<()> {
    let mut upsert = writer.prepare_cached("INSERT OR REPLACE INTO churn VALUES(?1, ?2, ?3)")?;
    for _ in 0..3 {
        let len = 1 + random.below(900) as usize;
        upsert.execute(params![random.below(60) as i64, batch, random.bytes(len)])?;
    }
    if random.percent(15) {
        writer.execute("DELETE FROM churn WHERE k % 5 = ?1", [random.below(5) as i64])?;
        writer.execute_batch("PRAGMA incremental_vacuum(4)")?;
    }
    Ok(())
}

/// A commit that no operation depends on, to meet a checkpoint on another thread. Returns whether it worked.
fn churn_alone(writer: &Connection, random: &mut Random) -> bool {
    let written = writer.execute_batch("BEGIN IMMEDIATE").and_then(|()| churn(writer, random, 0));
    written.and_then(|()| writer.execute_batch("COMMIT")).is_ok()
}

/// Returns whether everything in the WAL is in the database now.
fn checkpoint(connection: &Connection, mode: &str) -> bool {
    let row = connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
    });
    row.is_ok_and(|(busy, log, done)| busy == 0 && log == done && log >= 0)
}

/// Reads everything: the ids that are there, and what is wrong with them.
fn inspect(connection: &Connection) -> rusqlite::Result<(BTreeSet<u64>, Vec<Finding>)> {
    // One transaction, for one state.
    connection.execute_batch("BEGIN")?;
    let result = inspect_state(connection);
    connection.execute_batch("COMMIT")?;
    result
}

fn inspect_state(connection: &Connection) -> rusqlite::Result<(BTreeSet<u64>, Vec<Finding>)> {
    let mut findings = Vec::new();
    let report: String = connection.query_row("PRAGMA integrity_check(3)", [], |row| row.get(0))?;
    if let Some(code) = io_error_in(&report) {
        // The check reports a read that failed as damage; it is none.
        return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(report)));
    }
    if report != "ok" {
        findings.push(Finding::Corrupt(format!("integrity check: {report}")));
    }
    let mut ops = connection.prepare("SELECT id, items FROM op ORDER BY id")?;
    let ops: Vec<(u64, u64)> =
        ops.query_map([], |row| Ok((number(row, 0)?, number(row, 1)?)))?.collect::<Result<_, _>>()?;
    let mut items = connection.prepare("SELECT n, payload FROM item WHERE op = ?1 ORDER BY n")?;
    for (op, count) in &ops {
        let stored: Vec<(u64, Vec<u8>)> =
            items.query_map([*op as i64], |row| Ok((number(row, 0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
        let expected: Vec<_> = (0..items_of(*op)).map(|item| (item, payload(*op, item))).collect();
        if *count != items_of(*op) || stored != expected {
            findings.push(Finding::Torn(format!("operation {op} is not what was written")));
        }
    }
    let orphans = "SELECT count(*) FROM item WHERE op NOT IN (SELECT id FROM op)";
    let torn_batches = "SELECT count(*) FROM (SELECT 1 FROM op GROUP BY batch HAVING count(*) <> max(batch_ops))";
    let miscounted = "SELECT count(*) FROM counter WHERE ops <> (SELECT count(*) FROM op)
                      OR batches <> (SELECT count(DISTINCT batch) FROM op)";
    for (query, what) in [
        (orphans, "items without operation"),
        (torn_batches, "batches in part"),
        (miscounted, "counter and rows disagree"),
    ] {
        let count: u64 = connection.query_row(query, [], |row| number(row, 0))?;
        if count > 0 {
            findings.push(Finding::Torn(format!("{what}: {count}")));
        }
    }
    Ok((ops.into_iter().map(|(op, _)| op).collect(), findings))
}

/// SQLite's integers are signed; ids and counts never reach the sign.
fn number(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|number| number as u64)
}

/// Returns the code of an I/O error that an integrity check met.
fn io_error_in(report: &str) -> Option<i32> {
    let (_, after) = report.split_once("error code=")?;
    let code: i32 = after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    matches!(code & 0xff, ffi::SQLITE_IOERR | ffi::SQLITE_NOMEM | ffi::SQLITE_FULL | ffi::SQLITE_CANTOPEN)
        .then_some(code)
}
