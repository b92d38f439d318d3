//! The stores of larder, and the machinery they share.
//!
//! Start at [`store`], the path from a message to a committed row and back; [`kv`] is the smallest store on it.
//!
//! Always true: nothing here knows who calls it; only the `sqlite` module opens files.

pub mod chat;
pub mod documents;
pub mod embed_cache;
mod error;
pub mod filter;
pub mod full_text;
pub mod graph;
pub mod graph_index;
pub mod kv;
pub mod sqlite;
pub mod store;
pub mod vector_index;
pub mod vectors;

pub use error::{Error, Result};
