//! What programs hold: ergonomic methods over the messages, a file per store.

pub(crate) mod chat;
pub(crate) mod documents;
pub(crate) mod embed_cache;
pub(crate) mod graph;
pub(crate) mod kv;
pub(crate) mod vectors;

/// Rows of a page where the caller names no number, and of each page of a stream.
const STREAM_PAGE_ROWS: usize = 256;
