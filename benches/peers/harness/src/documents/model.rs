//! A peer that is a map in memory: the answers every store must give, and the control of the checks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::entry::Chunk;
use super::{Hit, Peer};
use crate::Result;
use crate::peer::{About, Durability};

/// The model; it keeps nothing on disk, and knows no order of hits.
#[derive(Debug, Default)]
pub struct Model(Mutex<BTreeMap<String, (String, Chunk)>>);

impl Model {
    fn chunks(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, (String, Chunk)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer for Model {
    fn about() -> About {
        let nothing = "nothing is kept".to_owned();
        About { versions: String::new(), durable: nothing.clone(), relaxed: nothing, callers: "in place".to_owned() }
    }

    async fn open(_: PathBuf, _: Durability) -> Result<Self> {
        Ok(Self::default())
    }

    async fn put(&self, document: &str, chunks: Vec<Chunk>) -> Result<u64> {
        let mut map = self.chunks();
        let is_gone = |id: &String| !chunks.iter().any(|chunk| chunk.id == *id);
        map.retain(|id, (owner, _)| owner != document || !is_gone(id));
        let mut written = 0;
        for chunk in chunks {
            let new = (document.to_owned(), chunk);
            if map.get(&new.1.id) != Some(&new) {
                written += 1;
                map.insert(new.1.id.clone(), new);
            }
        }
        Ok(written)
    }

    async fn get(&self, id: &str) -> Result<Option<Chunk>> {
        Ok(self.chunks().get(id).map(|(_, chunk)| chunk.clone()))
    }

    async fn search(&self, words: &str, limit: usize) -> Result<Vec<Hit>> {
        let holds = |text: &str| words.split(' ').all(|word| text.split(' ').any(|other| other == word));
        let map = self.chunks();
        let found = map.values().filter(|(_, chunk)| holds(&chunk.text)).take(limit);
        let hit =
            |chunk: &Chunk| Hit { id: chunk.id.clone(), text: chunk.text.clone(), snippet: String::new(), score: 0.0 };
        Ok(found.map(|(_, chunk)| hit(chunk)).collect())
    }

    async fn count(&self) -> Result<u64> {
        Ok(self.chunks().len() as u64)
    }

    async fn close(self) -> Result<()> {
        Ok(())
    }
}
