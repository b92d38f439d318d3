//! `larder stats`: how much is in each store, and how large its file is.

use std::collections::BTreeMap;
use std::path::Path;

use futures::{Stream, TryStreamExt};
use larder::Larder;
use larder::protocol::StoreName;
use larder::protocol::embed_cache::DescribeCache;
use serde::Serialize;

use crate::failure::{Code, Failure};
use crate::folder::{Folder, STORES};
use crate::output::Output;
use crate::table::{Column, Table};
use crate::{chat, kv, text, time, vectors};

/// A store as it is told of.
#[derive(Debug, Serialize)]
struct StoreStats {
    store: StoreName,
    file_bytes: u64,
    wal_bytes: u64,
    /// What it holds, by its words.
    counts: BTreeMap<&'static str, u64>,
    /// Why that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Stats {
    folder: String,
    stores: Vec<StoreStats>,
}

pub(crate) async fn run(folder: &Folder, output: &mut Output) -> Result<(), Failure> {
    let larder = folder.open().await?;
    let mut stores = Vec::new();
    for store in STORES.into_iter().filter(|store| folder.has(*store)) {
        // One store that cannot be read hides no other.
        let (counts, error) = match Box::pin(counts(store, &larder)).await {
            Ok(counts) => (counts, None),
            Err(Failure::Told(told)) => (BTreeMap::new(), Some(told)),
            Err(other) => return Err(other),
        };
        let (file_bytes, wal_bytes) = (size(&folder.file(store)), size(&wal(&folder.file(store))));
        stores.push((
            StoreStats { store, file_bytes, wal_bytes, counts, error: error.as_ref().map(|told| told.message.clone()) },
            error,
        ));
    }
    larder.close().await;
    let (stores, errors): (Vec<_>, Vec<_>) = stores.into_iter().unzip();
    let path = folder.path.canonicalize().unwrap_or_else(|_| folder.path.clone());
    output.answer(&Stats { folder: path.display().to_string(), stores }, print)?;
    match errors.into_iter().flatten().next() {
        None => Ok(()),
        Some(told) if told.code == Code::Damaged as u8 => Err(Failure::Reported(Code::Damaged)),
        Some(told) => Err(Failure::Told(told)),
    }
}

fn wal(file: &Path) -> std::path::PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// Its size by its name: a store's file is never opened beside SQLite.
fn size(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
}

async fn counts(store: StoreName, larder: &Larder) -> Result<BTreeMap<&'static str, u64>, Failure> {
    let counted = match store {
        StoreName::Kv => {
            let (collections, entries) = sum(kv::collections(larder, None), |each| each.entry_count).await?;
            vec![("collections", collections), ("entries", entries)]
        }
        StoreName::Documents => {
            let documents = larder.documents().count_documents().await?;
            vec![("documents", documents), ("passages", larder.documents().count().await?)]
        }
        StoreName::Chat => {
            let (sessions, messages) = sum(chat::sessions(larder, None, None), |each| each.message_count).await?;
            vec![("sessions", sessions), ("messages", messages)]
        }
        StoreName::Vectors => {
            let (collections, points) = sum(vectors::collections(larder, None), |each| each.point_count).await?;
            vec![("collections", collections), ("points", points)]
        }
        StoreName::Graph => {
            let counts = larder.graph().counts().await?;
            vec![("entities", counts.entities), ("facts", counts.relations), ("past_facts", counts.past_relations)]
        }
        StoreName::EmbedCache => {
            let cache = larder.ask(DescribeCache {}).await?;
            vec![("values", cache.entry_count), ("value_bytes", cache.value_bytes)]
        }
        _ => Vec::new(),
    };
    Ok(counted.into_iter().collect())
}

/// Returns how many rows there are, and the sum of what each has.
async fn sum<R>(rows: impl Stream<Item = Result<R, Failure>>, of: impl Fn(&R) -> u64) -> Result<(u64, u64), Failure> {
    let add = |(rows, sum): (u64, u64), row: R| std::future::ready(Ok((rows + 1, sum + of(&row))));
    rows.try_fold((0, 0), add).await
}

fn print(output: &mut Output, stats: &Stats) -> Result<(), Failure> {
    if stats.stores.is_empty() {
        return output.line(format!("{} holds no store yet", text::line(&stats.folder)));
    }
    let mut table = Table::new(
        const { &[Column::text("STORE"), Column::number("FILE"), Column::number("WAL"), Column::text("HOLDS")] },
    );
    for StoreStats { store, file_bytes, wal_bytes, counts, error } in &stats.stores {
        let counts: Vec<_> = counts.iter().map(|(what, count)| format!("{count} {}", what.replace('_', " "))).collect();
        let holds = error.clone().unwrap_or_else(|| counts.join(", "));
        table.add(&[store.to_string(), time::bytes(*file_bytes), time::bytes(*wal_bytes), holds]);
    }
    table.print(output)
}
