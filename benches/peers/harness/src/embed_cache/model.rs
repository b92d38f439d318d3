//! A peer that is a map in memory: the answers every cache must give, and the control of the checks.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Peer, entry};
use crate::Result;
use crate::peer::About;

/// The model; it keeps nothing on disk.
#[derive(Debug, Default)]
pub struct Model(Mutex<HashMap<String, Arc<[f32]>>>);

impl Model {
    fn vectors(&self) -> MutexGuard<'_, HashMap<String, Arc<[f32]>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer for Model {
    type Vector = Arc<[f32]>;

    fn about() -> About {
        let nothing = "nothing is kept".to_owned();
        About { versions: String::new(), durable: nothing.clone(), relaxed: nothing, callers: "in place".to_owned() }
    }

    async fn open(_: PathBuf, _: bool) -> Result<Self> {
        Ok(Self::default())
    }

    async fn get(&self, text: &str) -> Result<Option<Arc<[f32]>>> {
        Ok(self.vectors().get(text).cloned())
    }

    async fn put(&self, text: &str, vector: Vec<f32>) -> Result<()> {
        self.vectors().insert(text.to_owned(), vector.into());
        Ok(())
    }

    async fn get_many(&self, texts: &[String]) -> Result<Vec<Arc<[f32]>>> {
        let mut vectors = self.vectors();
        let one = |text: &String| vectors.entry(text.clone()).or_insert_with(|| entry::embed(text).into()).clone();
        Ok(texts.iter().map(one).collect())
    }

    async fn count(&self) -> Result<u64> {
        Ok(self.vectors().len() as u64)
    }

    async fn close(self) -> Result<()> {
        Ok(())
    }
}
