//! The key–value store through the public API.
//!
//! Start at `operations`; the other modules each hold one part of the store's promises.

mod changes;
mod expiry;
mod idempotency;
mod input;
mod operations;
mod scans;
mod transactions;

use larder::Larder;
use larder::protocol::{CollectionName, Key};
use tempfile::TempDir;

use super::support::{assert_refused, assert_serves, within};

async fn temporary() -> Larder {
    Larder::temporary().await.unwrap()
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn name(name: &str) -> CollectionName {
    CollectionName::new(name).unwrap()
}

fn key(key: &str) -> Key {
    Key::new(key).unwrap()
}

fn keys<T>(page: &[(Key, T)]) -> Vec<&str> {
    page.iter().map(|(key, _)| key.as_str()).collect()
}
