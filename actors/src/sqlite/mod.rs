//! Everything larder does to SQLite below the level of a store: connections, schema, faults, checkpoints.
//!
//! Start at [`connection`]; the other modules each hold one policy.
//!
//! Always true: connections are opened in `connection` only, where every one of them is hardened; nothing opens a live
//! database file with `std::fs`, because closing such a descriptor drops SQLite's locks (`wal_room` opens the WAL, which has none).

pub mod ballast;
pub mod checkpoint;
pub mod connection;
pub mod fault;
pub mod migration;
pub mod presence;
pub mod snapshot;

mod busy;
pub(crate) mod interrupt;
mod lock_file;
pub(crate) mod text;
pub(crate) mod turn;
pub(crate) mod unsynced;
pub(crate) mod wal_room;
pub(crate) mod watermark;
