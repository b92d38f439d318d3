//! Power cuts and I/O faults for anything that keeps its data in SQLite, made by a VFS that SQLite itself calls.
//!
//! Start at [`workload::Workload`], which a program under attack implements, then [`PowerSweep`] and [`FaultSweep`], which
//! attack it. [`power`] states what disk is assumed; [`raw`] is a whole workload. `cargo test -p larder-faults` runs the
//! test-sized sweeps and prints their figures; `LARDER_POWER_POINTS=50000 LARDER_FAULT_POINTS=5000 cargo test -p
//! larder-faults` the full ones.
//!
//! Always true: [`install`] comes before anything is opened in the process, and larder does not know that it ran: it names
//! no VFS and takes the default. Faults are the process's, so sweeps run one after another.
//!
//! larder's own stores need none of this: one that has a plan in `examples/torture/harness/plan` is attacked by the
//! harness in `tests/`, which plugs all of them in as one workload.
//!
//! # Plugging a program in
//! ```
//! use larder_faults::{Durability, FaultSweep, History, Outcome, PowerSweep, Verdict, Witness, Workload};
//! use std::collections::BTreeSet;
//! use std::path::Path;
//!
//! # mod larder { // A stand-in with larder's shape: one table of keys, acknowledged when committed.
//! #     use rusqlite::Connection;
//! #     pub struct Larder(Connection);
//! #     #[derive(Debug)] pub struct Error(pub bool);
//! #     impl Larder {
//! #         pub fn open(folder: &std::path::Path) -> rusqlite::Result<Self> {
//! #             let connection = Connection::open(folder.join("kv.db"))?;
//! #             connection.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
//! #                 CREATE TABLE IF NOT EXISTS kv(key TEXT PRIMARY KEY, value BLOB);")?;
//! #             Ok(Self(connection))
//! #         }
//! #         pub fn put(&self, key: &str, value: &[u8]) -> Result<(), Error> {
//! #             self.0.execute("INSERT INTO kv VALUES(?1, ?2)", (key, value)).map(|_| ()).map_err(|_| Error(false))
//! #         }
//! #         pub fn all(&self) -> rusqlite::Result<Vec<(String, Vec<u8>)>> {
//! #             self.0.prepare("SELECT key, value FROM kv")?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
//! #         }
//! #     }
//! # }
//! # use larder::Larder;
//! struct Kv;
//!
//! impl Workload for Kv {
//!     type Session = Larder; // with larder: the tokio runtime beside it, and `block_on` in each method
//!
//!     fn open(&self, folder: &Path) -> Result<Larder, String> {
//!         Larder::open(folder).map_err(|error| error.to_string())
//!     }
//!
//!     fn step(&self, larder: &mut Larder, _seed: u64, witness: &Witness) {
//!         // With larder: many callers at once, each with a clone of the witness, so that groups form.
//!         let op = witness.begin("kv.db"); // before the call: from here on it may be there
//!         match larder.put(&format!("{op}"), &op.to_le_bytes()) {
//!             Ok(()) => witness.applied(op), // after the answer: from here on it must be there
//!             // with larder: error.written() → Applied, NotApplied or Unknown
//!             Err(error) => witness.settle(op, if error.0 { Outcome::Applied } else { Outcome::Unknown }),
//!         }
//!     }
//!
//!     fn check(&self, larder: &mut Larder, history: &History) -> Result<Verdict, String> {
//!         let mut found = BTreeSet::new();
//!         for (key, value) in larder.all().map_err(|error| error.to_string())? {
//!             let op: u64 = key.parse().map_err(|_| "a key that nobody wrote")?;
//!             if value != op.to_le_bytes() {
//!                 return Ok(Verdict::corrupt(format!("key {key} holds another value")));
//!             }
//!             found.insert(op);
//!         }
//!         Ok(history.judge("kv.db", Durability::Durable, &found, &BTreeSet::new()))
//!     }
//! }
//!
//! larder_faults::install();
//! let power = PowerSweep::new(1, 100).run(&Kv);
//! assert!(power.is_clean(), "{power}\n{:#?}", power.examples);
//! let faults = FaultSweep::new(1, 100).run(&Kv);
//! assert_eq!(faults.hangs, 0, "{faults}\n{:#?}", faults.examples);
//! ```
//! Several stores in one folder: begin operations on each one's file name (`"kv.db"`, `"chat.db"`), and merge the verdicts.
//! A fault on one store's files then also demands that no operation on another's fails that
//! [must succeed](Workload::must_succeed). A relaxed store is judged
//! [`Durability::Relaxed`], with [`Witness::flush_begins`] and [`Witness::flushed`] around `flush()`. Every workload gets
//! two controls for nothing, [`PowerControl::ForgetSyncs`] and [`PowerControl::AcknowledgeEarly`]: run both, and demand
//! that they are caught.

#![expect(
    clippy::disallowed_methods,
    reason = "the files of an attack are this crate's own, read while nobody has them open"
)]

mod disk;
pub mod fault_sweep;
pub mod faults;
pub mod history;
pub mod power;
pub mod power_sweep;
pub mod random;
pub mod raw;
pub mod scratch;
mod vfs;
pub mod workload;

pub use fault_sweep::{FaultReport, FaultSweep};
pub use history::{Durability, Finding, History, Op, Outcome, Verdict, Witness};
pub use power_sweep::{PowerControl, PowerReport, PowerSweep};
pub use vfs::{install, set_real_syncs};
pub use workload::Workload;
