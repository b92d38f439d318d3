//! What a cached value is known by: who computes it, with which parameters, from what.
//!
//! Start at [`Producer::key`]. The form that is hashed is part of the file format.
//!
//! Always true: two keys are equal only when producer, parameters and input are, text and bytes being different inputs.

use std::fmt;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::limits::PRODUCER_PARAMETERS_BYTES_MAX;
use crate::names::ProducerName;

/// Says which form is hashed, and keeps these hashes apart from all others.
const FORM: &str = "larder embed_cache key 2";
/// An input that is no longer is hashed at once, of which BLAKE3 makes less work than of two parts.
const SHORT_BYTES_MAX: usize = 255;

/// A BLAKE3 hash of an input under its producer's hash, 32 bytes; shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CacheKey(pub [u8; 32]);

/// What kind of thing computes values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProducerKind {
    /// An embedding model: its values are vectors of one length.
    Model,
    /// A memoised function: its values are any serde values.
    Function,
}

/// Who computes values: a model with its parameters, or a function with its version.
///
/// # Examples
/// ```
/// use larder_protocol::embed_cache::Producer;
///
/// let model = Producer::model("minilm")?.with_parameters("normalize=true")?;
/// assert_ne!(model.key("a text"), Producer::model("minilm")?.key("a text"));
/// # Ok::<(), larder_protocol::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Producer {
    /// Model or function.
    pub kind: ProducerKind,
    /// Its name.
    pub name: ProducerName,
    /// A model's parameters or a function's version, in any form of the program's own: another text, other values. At most
    /// [`PRODUCER_PARAMETERS_BYTES_MAX`] bytes.
    pub parameters: String,
}

/// A BLAKE3 hash of a producer, which all of its keys are made with. Made once, it spares half the work of a short input's key.
///
/// # Examples
/// ```
/// use larder_protocol::embed_cache::Producer;
///
/// let model = Producer::model("minilm")?;
/// let hash = model.to_hash();
/// assert_eq!(hash.key("a text"), model.key("a text"));
/// # Ok::<(), larder_protocol::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProducerHash([u8; 32]);

/// What a value is computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Input<'a> {
    /// A text; the empty one is a text like any other.
    Text(&'a str),
    /// Bytes, such as an image's.
    Bytes(&'a [u8]),
    /// A hash that the program has of it already.
    Hash([u8; 32]),
}

impl Producer {
    /// Returns an embedding model without parameters.
    ///
    /// # Errors
    /// When the name cannot be used.
    pub fn model(name: impl AsRef<str>) -> Result<Self, Error> {
        Self::new(ProducerKind::Model, name)
    }

    /// Returns a function without a version.
    ///
    /// # Errors
    /// When the name cannot be used.
    pub fn function(name: impl AsRef<str>) -> Result<Self, Error> {
        Self::new(ProducerKind::Function, name)
    }

    fn new(kind: ProducerKind, name: impl AsRef<str>) -> Result<Self, Error> {
        Ok(Self { kind, name: ProducerName::new(name)?, parameters: String::new() })
    }

    /// Returns the producer with parameters, or a version.
    ///
    /// # Errors
    /// When they are too long.
    pub fn with_parameters(mut self, parameters: impl Into<String>) -> Result<Self, Error> {
        self.parameters = parameters.into();
        self.check().map(|()| self)
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// When the parameters are too long.
    pub fn check(&self) -> Result<(), Error> {
        let (bytes, bytes_max) = (self.parameters.len() as u64, PRODUCER_PARAMETERS_BYTES_MAX as u64);
        if bytes <= bytes_max {
            return Ok(());
        }
        Err(Error::TooLarge { what: "producer parameters".to_owned(), bytes, bytes_max })
    }

    /// Returns the key of what is computed from `input`.
    pub fn key<'a>(&self, input: impl Into<Input<'a>>) -> CacheKey {
        self.to_hash().key(input)
    }

    /// Returns the hash that its keys are made with.
    #[must_use]
    pub fn to_hash(&self) -> ProducerHash {
        let kind = match self.kind {
            ProducerKind::Model => b'M',
            ProducerKind::Function => b'F',
        };
        let mut hasher = blake3::Hasher::new();
        for (tag, part) in [(b'K', FORM), (kind, self.name.as_str()), (b'P', self.parameters.as_str())] {
            // The length keeps parts from running together.
            hasher.update(&[tag]).update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        ProducerHash(*hasher.finalize().as_bytes())
    }

    /// Returns how many bytes it holds on the heap.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.name.as_str().len() + self.parameters.len()
    }
}

impl fmt::Display for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ProducerKind::Model => write!(f, "model {:?}", self.name.as_str()),
            ProducerKind::Function => write!(f, "function {:?}", self.name.as_str()),
        }
    }
}

impl ProducerHash {
    /// Returns the key of what the producer computes from `input`.
    pub fn key<'a>(&self, input: impl Into<Input<'a>>) -> CacheKey {
        let input = input.into();
        let (tag, bytes) = match &input {
            Input::Text(text) => (b't', text.as_bytes()),
            Input::Bytes(bytes) => (b'b', *bytes),
            Input::Hash(hash) => (b'h', hash.as_slice()),
        };
        let mut form = [tag; 1 + SHORT_BYTES_MAX];
        let hash = match form.get_mut(1..=bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                blake3::keyed_hash(&self.0, form.get(..=bytes.len()).unwrap_or_default())
            }
            None => blake3::Hasher::new_keyed(&self.0).update(&[tag]).update(bytes).finalize(),
        };
        CacheKey(*hash.as_bytes())
    }
}

impl CacheKey {
    /// Returns the key that is shown as `text`.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text).ok().map(|hash| Self(*hash.as_bytes()))
    }
}

impl Hash for CacheKey {
    /// A key is a hash already: part of it tells keys apart in a map.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)));
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheKey({self})")
    }
}

impl<'a> From<&'a str> for Input<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Input<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Input<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for Input<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str, parameters: &str) -> Producer {
        Producer::model(name).unwrap().with_parameters(parameters).unwrap()
    }

    /// Two producers or inputs whose parts run together must not have one key.
    #[test]
    fn every_part_counts_and_no_two_run_together() {
        let keys = [
            model("ab", "c").key("d"),
            model("a", "bc").key("d"),
            model("ab", "").key("cd"),
            model("ab", "c").key(""),
            model("ab", "c").key(b"d".as_slice()),
            model("ab", "c").key(Input::Hash([b'd'; 32])),
            model("ab", "c").key(&"d".repeat(32)),
            model("ab", "c").key([b'd'; 32].as_slice()),
            Producer::function("ab").unwrap().with_parameters("c").unwrap().key("d"),
        ];
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(key), "{at}");
        }
        assert_eq!(model("ab", "c").key("d"), model("ab", "c").key(&"d".to_owned()));
    }

    /// Short inputs are hashed at once and long ones in parts: one key of each, whatever the length.
    #[test]
    fn short_and_long_inputs_are_hashed_alike() {
        for length in (0..300).chain([1_023, 1_024, 1_025, 5_000]) {
            let (producer, text) = (model("minilm", "p"), "x".repeat(length));
            let mut hasher = blake3::Hasher::new_keyed(&producer.to_hash().0);
            hasher.update(format!("t{text}").as_bytes());
            assert_eq!(producer.key(&text).0, *hasher.finalize().as_bytes(), "{length}");
        }
    }

    #[test]
    fn names_and_parameters_have_limits() {
        assert!(matches!(Producer::model(""), Err(Error::Invalid { .. })));
        assert!(matches!(Producer::function("a\0"), Err(Error::Invalid { .. })));
        let long = "p".repeat(PRODUCER_PARAMETERS_BYTES_MAX + 1);
        assert!(matches!(Producer::model("a").unwrap().with_parameters(long), Err(Error::TooLarge { .. })));
    }

    /// The form is kept in files: these hashes must never change. Another implementation of BLAKE3 (PyPI) gave the same.
    #[test]
    fn the_form_is_pinned() {
        let key = model("minilm", "normalize=true").key("a text");
        assert_eq!(key.to_string(), "b60fa752685791a8461b8b04139dc31b584d16d512b5513fa01738e8408584b5");
        let large = model("minilm", "").key(&"x".repeat(1 << 20));
        assert_eq!(large.to_string(), "d8de908cacbcfeb163921ab741ebd4a875466569f7fe0fc9435d94ab505cccac");
    }
}
