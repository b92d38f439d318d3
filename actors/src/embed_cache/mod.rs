//! The embedding cache: values by a hash of what they were computed from, in one SQLite file under a memory tier.
//!
//! Start at the list of messages in `store`; the handlers are in `values`, `claims` and `list`, rows in `row`, the limits in
//! `evict`, the memory tier in `memory`. [`MemoryCache`] is the cache of a program that wants no file.
//!
//! Always true: an expired entry is never answered, swept or not; a value that does not match its checksum is a miss, told to
//! the log; what is evicted is only ever a later miss.

mod check;
mod claims;
mod evict;
mod list;
mod memory;
mod memory_cache;
mod producers;
mod row;
mod store;
mod values;

pub use memory::CacheMemory;
pub use memory_cache::MemoryCache;
pub use producers::check_value;
pub use store::{Backend, EmbedCache, EmbedCacheSettings, Eviction};
