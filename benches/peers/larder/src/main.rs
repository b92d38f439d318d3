//! larder through its public handles, with every setting at its default but durability.

mod chat;
mod documents;
mod embed_cache;
mod graph;
mod vectors;

use std::process::ExitCode;

use futures::{StreamExt, TryStreamExt};
use larder::{Durability, Larder, RawCollection};
use peer_harness::Result;
use peer_harness::callers::Carrier;
use peer_harness::kv::{OpenOptions, Peer, Row};
use peer_harness::peer::{self, About, locked_versions};

fn main() -> ExitCode {
    let vectors = |job: &_| peer_harness::callers::runtime()?.block_on(vectors::serve(job));
    if let Some(code) = peer_harness::vectors::main(vectors) {
        return code;
    }
    let graph = |job: &_| peer_harness::callers::runtime()?.block_on(graph::serve(job));
    if let Some(code) = peer_harness::graph::main(graph) {
        return code;
    }
    peer::main(&[
        ("kv", peer_harness::kv::serve::<LarderKv>),
        ("documents", peer_harness::documents::serve::<documents::LarderDocuments>),
        ("chat", peer_harness::chat::serve::<chat::LarderChat>),
        ("embed_cache", peer_harness::embed_cache::serve::<embed_cache::LarderCache>),
    ])
}

struct LarderKv {
    larder: Larder,
    entries: RawCollection,
}

impl Peer for LarderKv {
    const WRITERS: Carrier = Carrier::Task;

    fn about() -> About {
        About {
            versions: locked_versions(include_str!("../../Cargo.lock"), &["larder", "kameo", "rusqlite"]),
            durable: "Durable, the default: each commit group is synced before its writes are acknowledged".to_owned(),
            relaxed: "Relaxed: a crash of the process loses nothing, a power cut may lose the newest commits, never \
                      consistency"
                .to_owned(),
            callers: "tasks; reads in place; only hot-64 opens the folder as Exclusive, with the value cache"
                .to_owned(),
        }
    }

    async fn open(options: OpenOptions) -> Result<Self> {
        let durability = match options.durability {
            peer::Durability::Durable => Durability::Durable,
            peer::Durability::Relaxed => Durability::Relaxed,
        };
        let builder = Larder::builder(options.folder).kv(|kv| kv.common.durability = durability);
        let builder = if options.is_hot { builder.exclusive() } else { builder };
        let larder = builder.open().await?;
        let entries = larder.kv().bytes("bench");
        Ok(Self { larder, entries })
    }

    async fn put(&self, key: String, value: Vec<u8>) -> Result<()> {
        self.entries.put(key, value).await?;
        Ok(())
    }

    async fn put_many(&self, rows: Vec<Row>) -> Result<()> {
        self.entries.put_many(rows).await?;
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.entries.get(key).await?.map(|value| value.to_vec()))
    }

    async fn delete(&self, key: &str) -> Result<bool> {
        Ok(self.entries.delete(key).await?)
    }

    async fn scan(&self, from: &str, limit: usize) -> Result<Vec<Row>> {
        // A start is any text to the script; larder's keys are checked: "" is the beginning, and a key with a NUL appended
        // is the place behind that key.
        let scan = match (from, from.strip_suffix('\0')) {
            ("", _) => self.entries.scan(),
            (_, Some(key)) => self.entries.scan().after(key),
            (key, None) => self.entries.scan().starting_at(key),
        };
        // A stream, since a page also ends after 4 MiB.
        let rows = scan.limit(limit).stream().take(limit).map_ok(|(key, value)| (key.into(), value.to_vec()));
        Ok(rows.try_collect().await?)
    }

    async fn close(self) -> Result<()> {
        self.larder.close().await;
        Ok(())
    }
}
