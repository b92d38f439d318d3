//! Keys and values, made from numbers.
//!
//! Always true: keys of ascending numbers are in random order; no two values of a key are equal (SQLite skips writing a page
//! that would not change), and none compresses.

use crate::Result;
use crate::random::{Random, mix};

/// Bytes of a value that name its entry and version; shorter values are not used by loads.
const STAMP_BYTES: usize = 16;

/// The key of entry number `index`: 20 bytes.
#[must_use]
pub fn key(index: u64) -> String {
    format!("key:{:016x}", mix(index))
}

/// The value that write number `version` gives entry number `index`.
#[must_use]
pub fn value(index: u64, version: u64, value_bytes: usize) -> Vec<u8> {
    let mut value = Vec::with_capacity(value_bytes + 8);
    value.extend_from_slice(&index.to_le_bytes());
    value.extend_from_slice(&version.to_le_bytes());
    let mut random = Random::new(index, version);
    while value.len() < value_bytes {
        value.extend_from_slice(&random.next().to_le_bytes());
    }
    value.truncate(value_bytes);
    value
}

/// Whether `value` is one of entry number `index`, by its length and stamp: cheap enough for timed loops.
///
/// # Errors
/// It is absent or another's.
pub fn check_stamp(value: Option<&[u8]>, index: u64, value_bytes: usize) -> Result<()> {
    let value = value.ok_or_else(|| format!("{} is missing", key(index)))?;
    let is_own = value.get(..STAMP_BYTES / 2) == Some(index.to_le_bytes().as_slice());
    if value.len() == value_bytes && is_own { Ok(()) } else { Err(format!("{} has a wrong value", key(index)).into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_differ_and_carry_their_stamp() {
        let (first, second) = (value(7, 0, 100), value(7, 1, 100));
        assert_eq!((first.len(), second.len()), (100, 100));
        assert_ne!(first, second);
        assert!(check_stamp(Some(&first), 7, 100).is_ok());
        assert!(check_stamp(Some(&first), 8, 100).is_err());
        assert!(check_stamp(None, 7, 100).is_err());
    }
}
