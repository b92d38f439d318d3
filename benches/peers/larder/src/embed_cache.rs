//! larder's embedding cache through its public handle, with every setting at its default but the memory tier where it is off.

use std::convert::Infallible;
use std::path::PathBuf;

use larder::{EmbedCache, Larder, Model, Vector};
use peer_harness::Result;
use peer_harness::embed_cache::{Peer, entry};
use peer_harness::peer::{About, locked_versions};

pub(crate) struct LarderCache {
    larder: Larder,
    cache: EmbedCache,
    model: Model,
}

impl Peer for LarderCache {
    type Vector = Vector;

    fn about() -> About {
        About {
            versions: locked_versions(
                include_str!("../../Cargo.lock"),
                &["larder", "kameo", "rusqlite", "quick_cache"],
            ),
            durable: "not measured".to_owned(),
            relaxed: "Relaxed, the cache's default; memory tier 64 MiB, or none in hit-sqlite".to_owned(),
            callers: "tasks; reads in place; misses of get-many are claimed, so that no other process computes them"
                .to_owned(),
        }
    }

    async fn open(folder: PathBuf, in_memory: bool) -> Result<Self> {
        let builder = Larder::builder(folder).embed_cache(|cache| {
            if !in_memory {
                cache.own.memory_bytes = 0;
            }
        });
        let larder = builder.open().await?;
        Ok(Self { cache: larder.embed_cache(), larder, model: Model::new("minilm")? })
    }

    async fn get(&self, text: &str) -> Result<Option<Vector>> {
        Ok(self.cache.get(&self.model, text).await?)
    }

    async fn put(&self, text: &str, vector: Vec<f32>) -> Result<()> {
        Ok(self.cache.put(&self.model, text, vector).await?)
    }

    async fn get_many(&self, texts: &[String]) -> Result<Vec<Vector>> {
        let vectors = self.cache.get_or_compute_many(&self.model, texts, |missing: Vec<&String>| {
            let vectors = missing.into_iter().map(|text| entry::embed(text)).collect();
            async move { Ok::<_, Infallible>(vectors) }
        });
        Ok(vectors.await?)
    }

    async fn count(&self) -> Result<u64> {
        Ok(self.cache.statistics().await?.entry_count)
    }

    async fn close(self) -> Result<()> {
        self.larder.close().await;
        Ok(())
    }
}
