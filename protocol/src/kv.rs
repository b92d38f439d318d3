//! Messages of the key–value store.
