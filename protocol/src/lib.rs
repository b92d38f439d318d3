//! What callers say to larder and what it answers: messages, replies, names, limits and errors.
//!
//! Start at [`Message`], then read one store's messages, such as [`kv`].
//!
//! Always true: everything here is plain data with serde; no runtime, actor or database type appears.

pub mod change;
pub mod chat;
pub mod codec;
pub mod documents;
pub mod embed_cache;
mod error;
pub mod filter;
pub mod full_text;
pub mod graph;
mod json_text;
pub mod kv;
pub mod lease;
pub mod limits;
mod media;
mod message;
mod names;
mod time;
mod value;
pub mod vectors;

pub use error::{Class, Error, Result, Written};
pub use full_text::Tokenizer;
pub use json_text::JsonText;
pub use media::MediaReference;
pub use message::{Message, RequestOptions};
pub use names::{
    ClientMessageId, CollectionName, ContextName, DocumentId, EntityName, IdempotencyKey, IndexId, Key, Label,
    LeaseName, NodeId, PointId, ProducerName, Sequence, SessionId, SourceId, StoreName, Tag, Version,
};
pub use time::Timestamp;
pub use value::{Format, Value};
