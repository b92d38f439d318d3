//! heed: LMDB, a memory-mapped copy-on-write B-tree in C, one writer.

use std::process::ExitCode;

use heed::types::{Bytes, Str};
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions};
use peer_harness::Result;
use peer_harness::callers::Carrier;
use peer_harness::kv::{OpenOptions, Peer, Row};
use peer_harness::peer::{About, Durability, locked_versions};

fn main() -> ExitCode {
    peer_harness::peer::main(&[("kv", peer_harness::kv::serve::<Heed>)])
}

/// Address space only.
const MAP_BYTES: usize = 16 << 30;
/// A reader slot for each thread.
const READERS_MAX: u32 = 512;

struct Heed {
    env: Env,
    entries: Database<'static, Str, Bytes>,
}

impl Peer for Heed {
    const WRITERS: Carrier = Carrier::Thread;

    fn about() -> About {
        About {
            versions: locked_versions(include_str!("../../Cargo.lock"), &["heed", "lmdb-master-sys"]),
            durable: "LMDB's default: each commit is synced".to_owned(),
            relaxed:
                "MDB_NOSYNC, weaker than SQLite's NORMAL: a crash of the process loses nothing, but a power cut may \
                      corrupt the file"
                    .to_owned(),
            callers:
                "writers are threads that block in the engine, a transaction for each put; reads in place on tasks"
                    .to_owned(),
        }
    }

    #[expect(unsafe_code, reason = "heed cannot open without: it maps a file")]
    async fn open(options: OpenOptions) -> Result<Self> {
        let mut settings = EnvOpenOptions::new();
        settings.map_size(MAP_BYTES).max_readers(READERS_MAX);
        if options.durability == Durability::Relaxed {
            // SAFETY: of NO_SYNC's effects, the file's state after a power cut is not used here.
            unsafe { settings.flags(EnvFlags::NO_SYNC) };
        }
        // SAFETY: the folder is this process's own, and it opens it once.
        let env = unsafe { settings.open(options.folder) }?;
        let entries = env
            .create_databases_and_commit(env.write_txn()?, |opener, transaction| {
                opener.create_database(transaction, None).map(CommitOrAbort::<_, ()>::Commit)
            })?
            .unwrap_commit();
        Ok(Self { env, entries })
    }

    async fn put(&self, key: String, value: Vec<u8>) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        self.entries.put(&mut transaction, &key, &value)?;
        Ok(transaction.commit()?)
    }

    async fn put_many(&self, rows: Vec<Row>) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        for (key, value) in &rows {
            self.entries.put(&mut transaction, key, value)?;
        }
        Ok(transaction.commit()?)
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let transaction = self.env.read_txn()?;
        Ok(self.entries.get(&transaction, key)?.map(<[u8]>::to_vec))
    }

    async fn delete(&self, key: &str) -> Result<bool> {
        let mut transaction = self.env.write_txn()?;
        let was_there = self.entries.delete(&mut transaction, key)?;
        transaction.commit()?;
        Ok(was_there)
    }

    async fn scan(&self, from: &str, limit: usize) -> Result<Vec<Row>> {
        // LMDB refuses the empty key; no key comes before one NUL.
        let from = if from.is_empty() { "\0" } else { from };
        let transaction = self.env.read_txn()?;
        let range = (std::ops::Bound::Included(from), std::ops::Bound::Unbounded);
        let rows = self.entries.range(&transaction, &range)?.take(limit).map(|row| {
            let (key, value) = row?;
            Ok((key.to_owned(), value.to_vec()))
        });
        rows.collect()
    }

    async fn close(self) -> Result<()> {
        Ok(self.env.force_sync()?)
    }
}
