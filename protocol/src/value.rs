//! A stored value: bytes, and how to read them.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codec::{self, Codec};
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

    /// Returns `value` behind a codec header: compact, readable only by a program that knows the type.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the value does not fit the codec; see [`codec::encode`].
    ///
    /// # Examples
    /// ```
    /// use larder_protocol::codec::Codec;
    /// use larder_protocol::Value;
    ///
    /// let value = Value::encoded(Codec::default(), &vec![1.5_f32, -2.0])?;
    /// assert_eq!(value.decode::<Vec<f32>>()?, [1.5, -2.0]);
    /// # Ok::<(), larder_protocol::Error>(())
    /// ```
    pub fn encoded(codec: Codec, value: &(impl Serialize + ?Sized)) -> Result<Self, Error> {
        Ok(Self { format: Format::Encoded, bytes: codec::encode(codec, value)? })
    }

    /// Returns the typed value: JSON text is parsed, an encoded value goes through its codec.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the content is not a `T`, or is opaque bytes, which have no type.
    ///
    /// # Examples
    /// ```
    /// use larder_protocol::Value;
    ///
    /// let value = Value::json(&["a", "b"])?;
    /// assert_eq!(value.decode::<Vec<String>>()?, ["a", "b"]);
    /// assert!(Value::bytes("ab").decode::<String>().is_err());
    /// # Ok::<(), larder_protocol::Error>(())
    /// ```
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Error> {
        match self.format {
            Format::Bytes => Err(Error::invalid("value", "it is opaque bytes, which have no type to decode")),
            // serde_json's own text may quote the value; the position is enough.
            Format::Json => serde_json::from_slice(&self.bytes).map_err(|e| {
                let reason = format!("its JSON is not of the expected type (line {}, column {})", e.line(), e.column());
                Error::invalid("value", reason)
            }),
            // The bytes are in memory already and were bounded on the way there.
            Format::Encoded => codec::decode(&self.bytes, self.bytes.len()),
        }
    }
}
