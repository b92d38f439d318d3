//! Typed values as bytes: a codec id, a format version, and the payload.
//!
//! Start at [`encode`] and [`decode`]; what keeps hostile input harmless is in `guard`, its mirror image in `probe`.
//!
//! Always true: the first two bytes say how to read the rest; `decode` never panics, overflows the stack or reserves
//! memory for a length that the input cannot hold; what `encode` accepts, `decode` reads back.

mod guard;
mod probe;

use std::cell::Cell;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::limits::{ENCODED_DEPTH_MAX, ENCODED_FREE_ITEMS_MAX};

/// Bytes before the payload: the codec id and its format version.
const HEADER_BYTES: usize = 2;
const BINCODE_ID: u8 = 1;
const POSTCARD_ID: u8 = 2;
/// The version of each codec's format: bincode 2's standard configuration and postcard 1's wire format.
const FORMAT_VERSION: u8 = 1;

/// A binary format for typed values and protocol frames.
///
/// Both are compact and not self-describing: the reader must know the type, and types that need `deserialize_any`
/// (untagged enums, `serde_json::Value`) do not fit; use JSON for those.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Codec {
    /// bincode 2, standard configuration. Needs the cargo feature `bincode`, which is on by default.
    Bincode,
    /// postcard 1, whose wire format is documented and stable.
    Postcard,
}

impl Default for Codec {
    /// Returns [`Codec::Bincode`] where its feature is on, [`Codec::Postcard`] otherwise.
    fn default() -> Self {
        if cfg!(feature = "bincode") { Self::Bincode } else { Self::Postcard }
    }
}

impl Codec {
    const fn id(self) -> u8 {
        match self {
            Self::Bincode => BINCODE_ID,
            Self::Postcard => POSTCARD_ID,
        }
    }

    fn from_header(id: u8, version: u8) -> Result<Self> {
        let codec = match id {
            BINCODE_ID => Self::Bincode,
            POSTCARD_ID => Self::Postcard,
            _ => return Err(invalid(format!("its codec id {id} is unknown"))),
        };
        if version != FORMAT_VERSION {
            return Err(invalid(format!("its codec id {id} has the unknown format version {version}")));
        }
        Ok(codec)
    }
}

/// Returns `value` as bytes that [`decode`] reads back: codec id, format version, payload.
///
/// # Errors
/// [`Error::Invalid`] when the value does not fit the codec, is nested deeper than
/// [`ENCODED_DEPTH_MAX`], holds more items than [`decode`] would accept, or when the codec is not compiled in.
///
/// # Examples
/// ```
/// use larder_protocol::codec::{Codec, decode, encode};
///
/// let blob = encode(Codec::Postcard, &("ada", 36_u8))?;
/// let (name, age): (String, u8) = decode(&blob, 1_024)?;
/// assert_eq!((name.as_str(), age), ("ada", 36));
/// # Ok::<(), larder_protocol::Error>(())
/// ```
pub fn encode<T: Serialize + ?Sized>(codec: Codec, value: &T) -> Result<Bytes> {
    // Without this check a deeply nested value would be stored and then refused by `decode`.
    let items = probe::count_items(value).map_err(|e| invalid(e.to_string()))?;
    let header = vec![codec.id(), FORMAT_VERSION];
    let bytes = match codec {
        Codec::Bincode => encode_bincode(header, value)?,
        Codec::Postcard => postcard::to_extend(value, header).map_err(|e| invalid(e.to_string()))?,
    };
    if items > items_max(bytes.len() - HEADER_BYTES) {
        return Err(invalid(format!("it holds {items} items, most of which take no space")));
    }
    Ok(bytes.into())
}

/// Returns the value in `bytes`, which [`encode`] wrote.
///
/// Memory stays within a small multiple of the input: a length prefix reserves nothing that the input could not fill,
/// so the multiple is the in-memory size of the type's items against the byte or more that each takes encoded.
///
/// # Errors
/// [`Error::TooLarge`] when there are more than `bytes_max` bytes; [`Error::Invalid`] when the codec or its version is
/// unknown or not compiled in, the payload is not a `T`, bytes are left over, or the nesting is deeper than
/// [`ENCODED_DEPTH_MAX`].
///
/// # Examples
/// ```
/// use larder_protocol::codec::decode;
/// use larder_protocol::Error;
///
/// let claims_two_billion_items = [2, 1, 0xff, 0xff, 0xff, 0xff, 0x07];
/// assert!(matches!(decode::<Vec<u64>>(&claims_two_billion_items, 1_024), Err(Error::Invalid { .. })));
/// ```
pub fn decode<T: DeserializeOwned>(bytes: &[u8], bytes_max: usize) -> Result<T> {
    if bytes.len() > bytes_max {
        return Err(Error::TooLarge {
            what: "encoded value".to_owned(),
            bytes: bytes.len() as u64,
            bytes_max: bytes_max as u64,
        });
    }
    let [id, version, payload @ ..] = bytes else {
        return Err(invalid("it is too short to name its codec"));
    };
    let (value, read_bytes) = match Codec::from_header(*id, *version)? {
        Codec::Bincode => decode_bincode(payload)?,
        Codec::Postcard => decode_postcard(payload)?,
    };
    if read_bytes != payload.len() {
        return Err(invalid(format!("{} bytes follow its end", payload.len() - read_bytes)));
    }
    Ok(value)
}

/// Most sequence and map items in a payload. Items that take no bytes (`()`) would let ten bytes ask for 2⁶⁴ of them.
const fn items_max(payload_bytes: usize) -> usize {
    payload_bytes.saturating_add(ENCODED_FREE_ITEMS_MAX)
}

fn invalid(reason: impl Into<String>) -> Error {
    Error::invalid("encoded value", reason)
}

/// Deserialises a `T` behind the guard; a seed, so that bincode says how many bytes it read.
struct Guarded<T> {
    payload_bytes: usize,
    value: PhantomData<T>,
}

impl<T> Guarded<T> {
    const fn new(payload: &[u8]) -> Self {
        Self { payload_bytes: payload.len(), value: PhantomData }
    }
}

impl<'de, T: DeserializeOwned> DeserializeSeed<'de> for Guarded<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        let budget = guard::Budget {
            items_left: Cell::new(items_max(self.payload_bytes)),
            reserve_left: Cell::new(self.payload_bytes),
        };
        guard::deserialize(deserializer, ENCODED_DEPTH_MAX, &budget)
    }
}

fn decode_postcard<T: DeserializeOwned>(payload: &[u8]) -> Result<(T, usize)> {
    let mut deserializer = postcard::Deserializer::from_bytes(payload);
    let value = Guarded::new(payload).deserialize(&mut deserializer).map_err(|e| invalid(e.to_string()))?;
    let left = deserializer.finalize().map_err(|e| invalid(e.to_string()))?;
    Ok((value, payload.len() - left.len()))
}

#[cfg(feature = "bincode")]
fn encode_bincode<T: Serialize + ?Sized>(mut header: Vec<u8>, value: &T) -> Result<Vec<u8>> {
    bincode::serde::encode_into_std_write(value, &mut header, bincode::config::standard())
        .map_err(|e| invalid(e.to_string()))?;
    Ok(header)
}

#[cfg(feature = "bincode")]
fn decode_bincode<T: DeserializeOwned>(payload: &[u8]) -> Result<(T, usize)> {
    // bincode counts an integer at its full width even where it is stored in one byte, so a payload can use up to 16
    // times its length. Its limit is a const generic: take the next step that no valid payload of this length exceeds.
    let config = bincode::config::standard();
    let seed = Guarded::new(payload);
    let result = match payload.len() {
        0..=0x1000 => bincode::serde::seed_decode_from_slice(seed, payload, config.with_limit::<0x1_0000>()),
        0x1001..=0x10_0000 => bincode::serde::seed_decode_from_slice(seed, payload, config.with_limit::<0x100_0000>()),
        _ => bincode::serde::seed_decode_from_slice(seed, payload, config.with_limit::<{ usize::MAX >> 1 }>()),
    };
    result.map_err(|e| invalid(bincode_reason(&e)))
}

/// Says what bincode found, without its own text: that may quote the input, and errors never hold stored values.
#[cfg(feature = "bincode")]
const fn bincode_reason(error: &bincode::error::DecodeError) -> &'static str {
    use bincode::error::DecodeError;
    match error {
        DecodeError::UnexpectedEnd { .. } => "it ends too early",
        DecodeError::LimitExceeded => "a length in it is over its size",
        DecodeError::Utf8 { .. } => "a text in it is not UTF-8",
        _ => "it does not hold the expected type, or is nested too deeply",
    }
}

#[cfg(not(feature = "bincode"))]
fn encode_bincode<T: ?Sized>(_: Vec<u8>, _: &T) -> Result<Vec<u8>> {
    Err(bincode_is_missing())
}

#[cfg(not(feature = "bincode"))]
fn decode_bincode<T>(_: &[u8]) -> Result<(T, usize)> {
    Err(bincode_is_missing())
}

#[cfg(not(feature = "bincode"))]
fn bincode_is_missing() -> Error {
    invalid("it needs the bincode codec, and larder was built without the cargo feature `bincode`")
}

#[cfg(test)]
mod tests;
