//! A peer that is a map in memory: the answers every database must give, and the control of the checks.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::{OpenOptions, Peer, Row};
use crate::Result;
use crate::callers::Carrier;
use crate::peer::About;

/// The model; it keeps nothing on disk.
#[derive(Debug, Default)]
pub struct Model(Mutex<BTreeMap<String, Vec<u8>>>);

impl Model {
    fn rows(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer for Model {
    const WRITERS: Carrier = Carrier::Task;

    fn about() -> About {
        let nothing = "nothing is kept".to_owned();
        About { versions: String::new(), durable: nothing.clone(), relaxed: nothing, callers: "in place".to_owned() }
    }

    async fn open(_: OpenOptions) -> Result<Self> {
        Ok(Self::default())
    }

    async fn put(&self, key: String, value: Vec<u8>) -> Result<()> {
        self.rows().insert(key, value);
        Ok(())
    }

    async fn put_many(&self, entries: Vec<Row>) -> Result<()> {
        self.rows().extend(entries);
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.rows().get(key).cloned())
    }

    async fn delete(&self, key: &str) -> Result<bool> {
        Ok(self.rows().remove(key).is_some())
    }

    async fn scan(&self, from: &str, limit: usize) -> Result<Vec<Row>> {
        let rows = self.rows();
        let found = rows.range(from.to_owned()..).take(limit);
        Ok(found.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    async fn close(self) -> Result<()> {
        Ok(())
    }
}
