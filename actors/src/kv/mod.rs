//! Key–value store: collections of keys with versioned values, in one SQLite file.
//!
//! Start at the list of messages in `store`; the handlers are in `values`, `transaction`, `scan`, `collections` and
//! `fields`, the rows in `row`.
//!
//! Always true: an expired entry is never answered, swept or not; a value is verified against its checksum before it is
//! answered; collections and keys only ever reach SQL as bound parameters.

mod check;
mod collections;
mod fields;
mod leases;
mod memory;
mod row;
mod scan;
mod store;
mod transaction;
mod values;

pub use memory::KvMemory;
pub use store::{Kv, KvSettings};
