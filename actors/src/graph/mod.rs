//! The graph store: entities, and the facts that relate them, with their sources and times.
//!
//! Start at the list of messages in `store`, then `entities` and `relations` (rows), then `traversal`, which follows facts over a
//! [`Walk`](crate::graph_index::Walk): the graph in memory (`memory`), or rows (`rows_walk`). How graphs are walked is in
//! [`graph_index`](crate::graph_index), which knows no store.
//!
//! Always true: rows are the truth; a key is the sequence of the write that made it, so that it never means anything else; a
//! relation of an entity that is gone is seen by nobody; what is in memory is one committed state, the one that the
//! question's transaction sees.

mod check;
mod delete;
mod embeddings;
mod entities;
mod known_names;
mod labels;
mod lookup;
mod memory;
mod mentions;
mod merge;
mod names;
mod relations;
mod row;
mod rows_walk;
mod similar;
mod sources;
mod store;
mod traversal;

pub use memory::GraphMemory;
pub use store::{Graph, GraphSettings};
