//! The loads: what each caller does, how many callers there are, how big the values are.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// Puts in one transaction of `batch-1000`.
pub const BATCH_PUTS: usize = 1_000;
/// Rows one scan of `scan-1000` reads.
pub const SCAN_ROWS: usize = 1_000;
/// Keys that `hot-64` reads.
pub const HOT_KEYS: u64 = 1_000;
/// One put in this many is of a new key; the others overwrite.
pub const NEW_KEY_ONE_IN: u64 = 10;

/// What one call of a caller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// One put of a random key of the caller's own.
    Put,
    /// [`BATCH_PUTS`] such puts in one transaction.
    Batch,
    /// One get of a random preloaded key.
    Get,
    /// One get of a random one of [`HOT_KEYS`] keys.
    HotGet,
    /// A put or a get, evenly drawn.
    Mix,
    /// [`SCAN_ROWS`] consecutive rows from a random preloaded key.
    Scan,
}

impl Call {
    /// For the head of a table.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Put => "a put",
            Self::Batch => "a transaction of 1,000 puts",
            Self::Get => "a get",
            Self::HotGet => "a get of one of 1,000 keys",
            Self::Mix => "a put or a get",
            Self::Scan => "a scan of 1,000 rows",
        }
    }
}

/// A named load at one value size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    pub call: Call,
    pub caller_count: u64,
    pub value_bytes: usize,
    base: &'static str,
    size: &'static str,
}

const BASES: &[(&str, Call, u64)] = &[
    ("put-1", Call::Put, 1),
    ("put-64", Call::Put, 64),
    ("put-256", Call::Put, 256),
    ("batch-1000", Call::Batch, 1),
    ("get-1", Call::Get, 1),
    ("get-64", Call::Get, 64),
    ("hot-64", Call::HotGet, 64),
    ("mix50-64", Call::Mix, 64),
    ("scan-1000", Call::Scan, 1),
];

/// Suffix of the name, bytes of a value, and entries preloaded: about 10, 50 and 64 MB.
const SIZES: &[(&str, usize, u64)] = &[("", 100, 100_000), ("-1k", 1_024, 50_000), ("-16k", 16_384, 4_000)];

impl Load {
    /// Every load at every size.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let of_size = |&(size, value_bytes, _): &(&'static str, usize, u64)| {
            BASES.iter().map(move |&(base, call, caller_count)| Self { call, caller_count, value_bytes, base, size })
        };
        SIZES.iter().flat_map(of_size).collect()
    }

    /// The loads of `--quick`: every one at 100 B, and one put and one get at the other sizes.
    #[must_use]
    pub fn quick() -> Vec<Self> {
        let is_quick = |load: &Self| load.size.is_empty() || matches!(load.base, "put-256" | "get-1");
        Self::all().into_iter().filter(is_quick).collect()
    }

    /// Entries in the database before a turn.
    #[must_use]
    pub fn entry_count(&self) -> u64 {
        SIZES.iter().find(|(_, value_bytes, _)| *value_bytes == self.value_bytes).map_or(0, |(_, _, entries)| *entries)
    }

    /// Whether callers change anything; durability means nothing to the others.
    #[must_use]
    pub const fn writes(&self) -> bool {
        matches!(self.call, Call::Put | Call::Batch | Call::Mix)
    }

    /// Whether few keys are read often.
    #[must_use]
    pub const fn is_hot(&self) -> bool {
        matches!(self.call, Call::HotGet)
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.base, self.size)
    }
}

impl FromStr for Load {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let load = Self::all().into_iter().find(|load| load.to_string() == name);
        load.ok_or_else(|| format!("there is no load named {name}").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for load in Load::all() {
            assert_eq!(load.to_string().parse::<Load>().unwrap(), load);
        }
        assert!("put-2".parse::<Load>().is_err());
    }

    #[test]
    fn quick_has_thirteen_loads() {
        assert_eq!(Load::quick().len(), 13);
        assert_eq!(Load::all().len(), 27);
    }
}
