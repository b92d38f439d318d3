//! What programs hold: ergonomic methods over the messages, a file per store.

pub(crate) mod chat;
pub(crate) mod documents;
pub(crate) mod kv;
