//! fjall: a log-structured merge tree in Rust.

use std::process::ExitCode;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use peer_harness::Result;
use peer_harness::callers::Carrier;
use peer_harness::kv::{OpenOptions, Peer, Row};
use peer_harness::peer::{About, Durability, locked_versions};

fn main() -> ExitCode {
    peer_harness::peer::main(&[("kv", peer_harness::kv::serve::<Fjall>)])
}

struct Fjall {
    database: Database,
    entries: Keyspace,
    durability: Durability,
}

impl Fjall {
    /// Syncs the journal if writes are durable; relaxed ones are in the kernel's buffers already.
    fn acknowledge(&self) -> Result<()> {
        match self.durability {
            Durability::Durable => Ok(self.database.persist(PersistMode::SyncAll)?),
            Durability::Relaxed => Ok(()),
        }
    }
}

impl Peer for Fjall {
    const WRITERS: Carrier = Carrier::Thread;

    fn about() -> About {
        About {
            versions: locked_versions(include_str!("../../Cargo.lock"), &["fjall", "lsm-tree"]),
            durable: "persist(SyncAll) after each write".to_owned(),
            relaxed:
                "the default, PersistMode::Buffer: a crash of the process loses nothing, a power cut the newest writes"
                    .to_owned(),
            callers: "writers are threads that block in the engine; reads in place on tasks".to_owned(),
        }
    }

    async fn open(options: OpenOptions) -> Result<Self> {
        let database = Database::builder(options.folder.join("entries.fjall")).open()?;
        let entries = database.keyspace("entries", KeyspaceCreateOptions::default)?;
        Ok(Self { database, entries, durability: options.durability })
    }

    async fn put(&self, key: String, value: Vec<u8>) -> Result<()> {
        self.entries.insert(key, value)?;
        self.acknowledge()
    }

    async fn put_many(&self, rows: Vec<Row>) -> Result<()> {
        let mut batch = self.database.batch();
        for (key, value) in rows {
            batch.insert(&self.entries, key, value);
        }
        batch.commit()?;
        self.acknowledge()
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.entries.get(key)?.map(|value| value.to_vec()))
    }

    async fn delete(&self, key: &str) -> Result<bool> {
        let was_there = self.entries.contains_key(key)?;
        self.entries.remove(key)?;
        self.acknowledge()?;
        Ok(was_there)
    }

    async fn scan(&self, from: &str, limit: usize) -> Result<Vec<Row>> {
        let rows = self.entries.range(from..).take(limit).map(|row| {
            let (key, value) = row.into_inner()?;
            Ok((String::from_utf8(key.to_vec())?, value.to_vec()))
        });
        rows.collect()
    }

    async fn close(self) -> Result<()> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }
}
