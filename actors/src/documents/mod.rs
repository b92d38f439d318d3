//! The documents store: source documents, their nodes, and full-text search over them.
//!
//! Start at the list of messages in `store`, then `put`: the difference between what is there and what is put
//! is found first, and only that is written. Rows are in `row` (nodes) and `sources` (documents). What is to follow a put in
//! other stores is recorded with it in `intents`.
//!
//! Always true: a node is visible exactly while its document has an id, so that a document comes and goes as a whole; a
//! text and its entry in the full-text index change together; what is read is verified against its checksum.

mod check;
mod delete;
mod index_records;
mod ingestion;
mod intents;
mod list;
mod members;
mod nodes;
mod put;
mod row;
mod search;
mod sources;
mod store;
mod text_index;

pub use store::{Documents, DocumentsSettings};
