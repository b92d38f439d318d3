//! The vectors store: points in collections, and searches for what is near.
//!
//! Start at the list of messages in `store`, then `points` (rows) and `search`, which reads the indexes in
//! `memory`. How vectors are compared is in [`vector_index`](crate::vector_index), which knows no store.
//!
//! Always true: rows are the truth, and an index in memory holds exactly the points of one committed state, the one that
//! the search's transaction sees; a point's slot is the sequence of the write that made it, so that no slot comes back
//! and "what is new" is "what has a higher slot".

mod check;
mod collections;
mod kept;
mod memory;
mod metadata;
mod points;
mod row;
mod search;
mod store;
mod wanted;

pub use memory::VectorsMemory;
pub use store::{Vectors, VectorsSettings};
