//! quick_cache by hand: a map in memory that evicts. It keeps nothing on disk, so that only hits are compared.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use peer_harness::Result;
use peer_harness::embed_cache::{Peer, entry};
use peer_harness::peer::{self, About, locked_versions};

fn main() -> ExitCode {
    peer::main(&[("embed_cache", peer_harness::embed_cache::serve::<Cache>)])
}

struct Cache(quick_cache::sync::Cache<String, Arc<[f32]>>);

impl Peer for Cache {
    type Vector = Arc<[f32]>;

    fn about() -> About {
        About {
            versions: locked_versions(include_str!("../../Cargo.lock"), &["quick_cache"]),
            durable: "not measured".to_owned(),
            relaxed: "nothing is kept".to_owned(),
            callers: "tasks, in place".to_owned(),
        }
    }

    async fn open(_: PathBuf, _: bool) -> Result<Self> {
        Ok(Self(quick_cache::sync::Cache::new(1_000_000)))
    }

    async fn get(&self, text: &str) -> Result<Option<Arc<[f32]>>> {
        Ok(self.0.get(text))
    }

    async fn put(&self, text: &str, vector: Vec<f32>) -> Result<()> {
        self.0.insert(text.to_owned(), vector.into());
        Ok(())
    }

    async fn get_many(&self, texts: &[String]) -> Result<Vec<Arc<[f32]>>> {
        let one = |text: &String| {
            self.0.get(text.as_str()).unwrap_or_else(|| {
                let vector: Arc<[f32]> = entry::embed(text).into();
                self.0.insert(text.clone(), Arc::clone(&vector));
                vector
            })
        };
        Ok(texts.iter().map(one).collect())
    }

    async fn count(&self) -> Result<u64> {
        Ok(self.0.len() as u64)
    }

    async fn close(self) -> Result<()> {
        Ok(())
    }
}
