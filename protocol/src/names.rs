//! Names and numbers as types, checked once where they are made.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::limits::{
    CLIENT_MESSAGE_ID_BYTES_MAX, COLLECTION_NAME_BYTES_MAX, CONTEXT_NAME_BYTES_MAX, DOCUMENT_ID_BYTES_MAX,
    ENTITY_NAME_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX, INDEX_ID_BYTES_MAX, KEY_BYTES_MAX, LABEL_BYTES_MAX,
    LEASE_NAME_BYTES_MAX, NODE_ID_BYTES_MAX, POINT_ID_BYTES_MAX, PRODUCER_NAME_BYTES_MAX, SESSION_ID_BYTES_MAX,
    SOURCE_ID_BYTES_MAX, TAG_BYTES_MAX,
};

/// Makes a checked, cheaply cloned string type: 1 to `$max` bytes of UTF-8 without NUL.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Returns the checked name.
            ///
            /// # Errors
            /// [`Error::Invalid`] when `text` is empty or holds a NUL, [`Error::TooLarge`] when it is over the limit.
            pub fn new(text: impl AsRef<str>) -> Result<Self, Error> {
                let text = text.as_ref();
                check_text($what, text, $max)?;
                Ok(Self(text.into()))
            }

            /// Returns the text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self, Error> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = Error;
            fn try_from(text: &str) -> Result<Self, Error> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }
    };
}

checked_text! {
    /// The name of a collection: 1 to [`COLLECTION_NAME_BYTES_MAX`] bytes of UTF-8 without NUL.
    ///
    /// A collection exists while it holds something; it needs no creation.
    CollectionName, "collection name", COLLECTION_NAME_BYTES_MAX
}
checked_text! {
    /// A key inside a collection: 1 to [`KEY_BYTES_MAX`] bytes of UTF-8 without NUL, ordered by its bytes.
    Key, "key", KEY_BYTES_MAX
}
checked_text! {
    /// A label on entries, by which they can be deleted together: 1 to [`TAG_BYTES_MAX`] bytes of UTF-8 without NUL.
    Tag, "tag", TAG_BYTES_MAX
}
checked_text! {
    /// A caller's name for one write, 1 to [`IDEMPOTENCY_KEY_BYTES_MAX`] bytes of UTF-8 without NUL.
    ///
    /// Sending the same write again under the same key returns the first outcome; a different write is a conflict.
    IdempotencyKey, "idempotency key", IDEMPOTENCY_KEY_BYTES_MAX
}

checked_text! {
    /// The name of a lease: 1 to [`LEASE_NAME_BYTES_MAX`] bytes of UTF-8 without NUL.
    LeaseName, "lease name", LEASE_NAME_BYTES_MAX
}

checked_text! {
    /// The name of a conversation: 1 to [`SESSION_ID_BYTES_MAX`] bytes of UTF-8 without NUL.
    SessionId, "session id", SESSION_ID_BYTES_MAX
}
checked_text! {
    /// A caller's id for a message in its session: 1 to [`CLIENT_MESSAGE_ID_BYTES_MAX`] bytes of UTF-8 without NUL.
    ClientMessageId, "client message id", CLIENT_MESSAGE_ID_BYTES_MAX
}

checked_text! {
    /// The name of a source document, such as its path or URL: 1 to [`DOCUMENT_ID_BYTES_MAX`] bytes of UTF-8 without NUL.
    DocumentId, "document id", DOCUMENT_ID_BYTES_MAX
}
checked_text! {
    /// The name of a node, unique among all documents' nodes: 1 to [`NODE_ID_BYTES_MAX`] bytes of UTF-8 without NUL.
    NodeId, "node id", NODE_ID_BYTES_MAX
}
checked_text! {
    /// The name of an index record: 1 to [`INDEX_ID_BYTES_MAX`] bytes of UTF-8 without NUL.
    IndexId, "index id", INDEX_ID_BYTES_MAX
}

checked_text! {
    /// The name of a context, which keeps documents together with what other stores hold of them: 1 to
    /// [`CONTEXT_NAME_BYTES_MAX`] bytes of UTF-8 without NUL.
    ContextName, "context name", CONTEXT_NAME_BYTES_MAX
}

checked_text! {
    /// The name of a point in its collection of vectors: 1 to [`POINT_ID_BYTES_MAX`] bytes of UTF-8 without NUL.
    PointId, "point id", POINT_ID_BYTES_MAX
}
checked_text! {
    /// The name of a model or function whose values are cached: 1 to [`PRODUCER_NAME_BYTES_MAX`] bytes of UTF-8 without NUL.
    ProducerName, "producer name", PRODUCER_NAME_BYTES_MAX
}

checked_text! {
    /// The name of an entity, unique among the entities of its label: 1 to [`ENTITY_NAME_BYTES_MAX`] bytes of UTF-8
    /// without NUL, compared by its bytes.
    EntityName, "entity name", ENTITY_NAME_BYTES_MAX
}
checked_text! {
    /// What kind of thing an entity is, or what a relation says: 1 to [`LABEL_BYTES_MAX`] bytes of UTF-8 without NUL.
    Label, "label", LABEL_BYTES_MAX
}
checked_text! {
    /// What said a fact, such as a chunk's or a message's id: 1 to [`SOURCE_ID_BYTES_MAX`] bytes of UTF-8 without NUL.
    SourceId, "source id", SOURCE_ID_BYTES_MAX
}

impl EntityName {
    /// Returns a name that was checked before it was stored, without checking it again: an answer may hold thousands. The
    /// caller vouches for it with a checksum.
    #[must_use]
    pub fn from_stored(text: &str) -> Self {
        Self(text.into())
    }
}

/// NUL is refused because the `sqlite3` shell and C callers would show and compare only what stands before it.
fn check_text(what: &'static str, text: &str, bytes_max: usize) -> Result<(), Error> {
    if text.is_empty() {
        return Err(Error::invalid(what, "it is empty"));
    }
    if text.len() > bytes_max {
        return Err(Error::TooLarge { what: what.to_owned(), bytes: text.len() as u64, bytes_max: bytes_max as u64 });
    }
    if text.contains('\0') {
        return Err(Error::invalid(what, "it contains a NUL character"));
    }
    Ok(())
}

/// The stores of a larder, by the word that names their files, messages and handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StoreName {
    /// Key–value state.
    Kv,
    /// Source documents and their nodes.
    Documents,
    /// Chat memory.
    Chat,
    /// Vectors, and what is nearest to one.
    Vectors,
    /// Embeddings and other values that are dear to compute.
    EmbedCache,
    /// A knowledge graph: entities and facts.
    Graph,
}

impl StoreName {
    /// Returns the store's word, such as `kv`; its file is that word with `.db`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kv => "kv",
            Self::Documents => "documents",
            Self::Chat => "chat",
            Self::Vectors => "vectors",
            Self::EmbedCache => "embed_cache",
            Self::Graph => "graph",
        }
    }
}

impl fmt::Display for StoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The version of an entry: the sequence of the write that made it, so it never comes back, even after a delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version(pub u64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A position in a store's history: every write takes the next number, in all processes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Sequence(pub u64);

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_rejects_empty_long_and_nul() {
        assert!(matches!(Key::new(""), Err(Error::Invalid { .. })));
        assert!(matches!(Key::new("a\0b"), Err(Error::Invalid { .. })));
        assert!(matches!(Key::new("k".repeat(KEY_BYTES_MAX + 1)), Err(Error::TooLarge { .. })));
        assert!(Key::new("k".repeat(KEY_BYTES_MAX)).is_ok());
    }

    #[test]
    fn decoding_a_name_checks_it_too() {
        assert!(serde_json::from_str::<Key>("\"\"").is_err());
        assert_eq!(serde_json::from_str::<Key>("\"a\"").unwrap().as_str(), "a");
    }
}
