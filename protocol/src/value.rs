//! A stored value: bytes, and how to read them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// How a value's bytes are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Opaque bytes, stored as a BLOB.
    Bytes,
    /// JSON text, stored as TEXT, so that filters and the `sqlite3` shell can read it.
    Json,
    /// A serde value behind a codec header (see `codec`), stored as a BLOB.
    Encoded,
}

/// Bytes with their format. Cloning is cheap: the bytes are shared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// How to read `bytes`.
    pub format: Format,
    /// The content. For [`Format::Json`] it is JSON text, which the store checks.
    pub bytes: Bytes,
}

impl Value {
    /// Returns opaque bytes as a value.
    #[must_use]
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self { format: Format::Bytes, bytes: bytes.into() }
    }

    /// Returns `value` as JSON text.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the value has no JSON form (a map with keys that are not strings, for one).
    pub fn json(value: &(impl Serialize + ?Sized)) -> Result<Self, Error> {
        let text =
            serde_json::to_vec(value).map_err(|e| Error::invalid("value", format!("it has no JSON form: {e}")))?;
        Ok(Self { format: Format::Json, bytes: text.into() })
    }
}
