//! redb: a copy-on-write B-tree in Rust, one writer.

use std::process::ExitCode;

use peer_harness::Result;
use peer_harness::callers::Carrier;
use peer_harness::kv::{OpenOptions, Peer, Row};
use peer_harness::peer::{self, About, locked_versions};
use redb::{Database, Durability, ReadableDatabase, Table, TableDefinition};

fn main() -> ExitCode {
    peer::main(&[("kv", peer_harness::kv::serve::<Redb>)])
}

type Entries<'a> = Table<'a, &'static str, &'static [u8]>;
const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("entries");

struct Redb {
    database: Database,
    durability: Durability,
}

impl Redb {
    fn write<T>(&self, work: impl FnOnce(&mut Entries<'_>) -> Result<T>) -> Result<T> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(self.durability)?;
        let result = work(&mut transaction.open_table(ENTRIES)?)?;
        transaction.commit()?;
        Ok(result)
    }
}

impl Peer for Redb {
    const WRITERS: Carrier = Carrier::Thread;

    fn about() -> About {
        About {
            versions: locked_versions(include_str!("../../Cargo.lock"), &["redb"]),
            durable: "Durability::Immediate: each commit is synced".to_owned(),
            relaxed:
                "Durability::None, weaker than SQLite's NORMAL: a crash of the process loses every commit since the \
                      last durable one, of which there is none here"
                    .to_owned(),
            callers:
                "writers are threads that block in the engine, a transaction for each put; reads in place on tasks"
                    .to_owned(),
        }
    }

    async fn open(options: OpenOptions) -> Result<Self> {
        let database = Database::create(options.folder.join("entries.redb"))?;
        let durability = match options.durability {
            peer::Durability::Durable => Durability::Immediate,
            peer::Durability::Relaxed => Durability::None,
        };
        // The table must exist before the first read.
        let transaction = database.begin_write()?;
        transaction.open_table(ENTRIES)?;
        transaction.commit()?;
        Ok(Self { database, durability })
    }

    async fn put(&self, key: String, value: Vec<u8>) -> Result<()> {
        self.write(|entries| {
            entries.insert(key.as_str(), value.as_slice())?;
            Ok(())
        })
    }

    async fn put_many(&self, rows: Vec<Row>) -> Result<()> {
        self.write(|entries| {
            for (key, value) in &rows {
                entries.insert(key.as_str(), value.as_slice())?;
            }
            Ok(())
        })
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let entries = self.database.begin_read()?.open_table(ENTRIES)?;
        Ok(entries.get(key)?.map(|value| value.value().to_vec()))
    }

    async fn delete(&self, key: &str) -> Result<bool> {
        self.write(|entries| Ok(entries.remove(key)?.is_some()))
    }

    async fn scan(&self, from: &str, limit: usize) -> Result<Vec<Row>> {
        let entries = self.database.begin_read()?.open_table(ENTRIES)?;
        let rows = entries.range(from..)?.take(limit).map(|row| {
            let (key, value) = row?;
            Ok((key.value().to_owned(), value.value().to_vec()))
        });
        rows.collect()
    }

    async fn close(self) -> Result<()> {
        // What was committed without durability becomes durable with the next commit that is.
        let transaction = self.database.begin_write()?;
        Ok(transaction.commit()?)
    }
}
