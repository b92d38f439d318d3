//! Embedded, supervised storage runtime for local AI applications.
//!
//! Start at [`Larder::open`]; [`Larder::kv`] is the key–value store, [`Larder::documents`] source documents with
//! full-text search, [`Larder::chat`] chat memory, [`Larder::vectors`] vectors and what is near them, [`Larder::graph`] a
//! knowledge graph, [`Larder::embed_cache`] what is dear to compute, computed once. Every request is a [`Request`], awaited as it
//! stands; the same requests exist as plain messages in [`protocol`], sent with [`Larder::ask`].
//!
//! Always true: an acknowledged write is committed; each store is served by its own actor over its own SQLite file; no
//! commit, checkpoint or scan runs on the caller's async threads.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use larder::Larder;
//!
//! let larder = Larder::temporary().await?;
//! let settings = larder.kv().collection::<String>("settings");
//! settings.put("theme", &"dark".to_owned()).await?;
//! assert_eq!(settings.get("theme").await?.as_deref(), Some("dark"));
//! larder.close().await;
//! # Ok(())
//! # }
//! ```

pub mod backup;
pub mod blocking;
mod context;
mod error;
mod folder;
mod handles;
mod larder;
mod open;
mod quarantine;
mod rebuild;
mod request;
mod settings;
mod stores;
mod supervisor;

pub use context::{
    BoxError, Context, ContextBuilder, ContextIngestion, ContextIssue, ContextProgress, ContextReport, Embedder,
    Extractor, ForgetReceipt, HashingEmbedder, IngestOutcome, Passage, Reason, Retrieval, Retrieve,
};
pub use error::OpenError;
pub use handles::chat::{Chat, ChatSession, Counted, SummarisedWindow, Window};
pub use handles::documents::{Documents, Ingestion, IngestionProgress, IngestionReport};
pub use handles::embed_cache::{AsModel, CacheStatistics, EmbedCache, Memo, Model};
pub use handles::graph::{Graph, RemovingSource};
pub use handles::kv::{Codec, Collection, EntryOf, EntryPage, Kv, RawCollection, Scan};
pub use handles::vectors::{VectorCollection, VectorCollectionBuilder, Vectors};
pub use larder::{CheckDepth, CheckReport, CloseReport, Finding, Health, Larder, RestoredStore};
pub use larder_actors::Error;
pub use larder_actors::chat::{ChatSettings, Counter, tokens};
pub use larder_actors::documents::DocumentsSettings;
pub use larder_actors::embed_cache::{Backend, EmbedCacheSettings, Eviction};
pub use larder_actors::graph::GraphSettings;
pub use larder_actors::kv::KvSettings;
pub use larder_actors::sqlite::checkpoint::CheckpointSettings;
pub use larder_actors::sqlite::connection::Durability;
pub use larder_actors::store::{
    Compaction, LatencySummary, Notices, StoreEvent, StoreObservation, StoreSettings, StoreState,
};
#[cfg(feature = "failpoints")]
pub use larder_actors::store::{Failpoint, FailpointAction};
pub use larder_actors::vectors::VectorsSettings;
pub use larder_protocol as protocol;
pub use larder_protocol::change::{Change, Commit, Notice};
pub use larder_protocol::chat::{ChatMessage, ChatWindow, ContentBlock, MessageId, Role, TokenLimit, WindowPolicy};
pub use larder_protocol::documents::{Document, IngestionStrategy, Node, NodeContent, Relationship};
pub use larder_protocol::embed_cache::{CacheKey, Input};
pub use larder_protocol::filter::{field, field_path};
pub use larder_protocol::full_text::TextQuery;
pub use larder_protocol::graph::{Entity, EntityId, EntityRef, NewEntity, NewRelation, Relation, RelationId};
pub use larder_protocol::lease::{Fencing, LeaseGrant};
pub use larder_protocol::vectors::{Hit, Metric, Point, PointFields, Vector};
pub use larder_protocol::{
    Class, CollectionName, Error as ErrorKind, JsonText, Key, Sequence, Timestamp, Tokenizer, Version, Written,
};
pub use open::Builder;
pub use request::Request;
pub use settings::{Replicator, Settings, Sharing, StoreConfig};

/// The result of a request.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Compiles the examples of the README and the pages in `docs/` with the documentation's tests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../README.md")]
    struct Readme;
    #[doc = include_str!("../../docs/cookbook.md")]
    struct Cookbook;
    #[doc = include_str!("../../docs/context.md")]
    struct Context;
    #[doc = include_str!("../../docs/stores/kv.md")]
    struct Kv;
    #[doc = include_str!("../../docs/stores/documents.md")]
    struct Documents;
    #[doc = include_str!("../../docs/stores/chat.md")]
    struct Chat;
    #[doc = include_str!("../../docs/stores/vectors.md")]
    struct Vectors;
    #[doc = include_str!("../../docs/stores/embed_cache.md")]
    struct EmbedCache;
    #[doc = include_str!("../../docs/stores/graph.md")]
    struct Graph;
}
