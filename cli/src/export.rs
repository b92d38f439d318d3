//! `larder export`: everything in a store as JSON lines, each with its kind.
//!
//! Always true: no row is left out in silence; a store that is not there is an error and no empty export.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::pin::pin;

use clap::{Args, ValueEnum};
use futures::{Stream, TryStreamExt};
use indicatif::ProgressBar;
use larder::Larder;
use larder::protocol::chat::MessageOrder;
use larder::protocol::kv::{Direction, KeyRange, ScanValues};
use larder::protocol::vectors::PointFields;
use larder::protocol::{CollectionName, SessionId, StoreName};
use serde::Serialize;

use crate::failure::Failure;
use crate::folder::Folder;
use crate::list::PAGE_ROWS;
use crate::output::Output;
use crate::{chat, documents, embed_cache, graph, json, kv, progress, vectors};

/// Each row is one JSON object with its "kind". Rows that are there throughout are printed once; what changes meanwhile may
/// or may not be: for all stores at one instant export a snapshot.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Which store
    #[arg(value_enum)]
    store: StoreArgument,
    /// To this new file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// A store by its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum StoreArgument {
    Kv,
    Documents,
    Chat,
    Vectors,
    Graph,
    EmbedCache,
}

impl From<StoreArgument> for StoreName {
    fn from(store: StoreArgument) -> Self {
        match store {
            StoreArgument::Kv => Self::Kv,
            StoreArgument::Documents => Self::Documents,
            StoreArgument::Chat => Self::Chat,
            StoreArgument::Vectors => Self::Vectors,
            StoreArgument::Graph => Self::Graph,
            StoreArgument::EmbedCache => Self::EmbedCache,
        }
    }
}

/// A row with what it is.
#[derive(Debug, Serialize)]
struct Kinded<'a, R> {
    kind: &'static str,
    #[serde(flatten)]
    row: &'a R,
}

/// Where the lines go.
struct Lines<'a> {
    file: Option<BufWriter<std::fs::File>>,
    output: &'a mut Output,
    progress: ProgressBar,
}

pub(crate) async fn run(export: Export, folder: &Folder, output: &mut Output) -> Result<(), Failure> {
    let store = StoreName::from(export.store);
    let Some(larder) = folder.open_store(store).await? else {
        return Err(Failure::not_found(format!("the {store} store is not there")).with_hint("see `larder stats`"));
    };
    // On a terminal the lines themselves show that something happens.
    let progress = if export.output.is_none() && output.is_terminal() {
        ProgressBar::hidden()
    } else {
        progress::counter(output, "rows")
    };
    let file = export.output.as_ref().map(create).transpose()?;
    let mut lines = Lines { file, output, progress };
    let written = write(export.store, &larder, &mut lines).await.and_then(|()| lines.finish(export.output));
    larder.close().await;
    written
}

/// A file that is there is not overwritten: it could be anything.
#[expect(clippy::disallowed_methods, reason = "a new file of the user's, which no store has open")]
fn create(path: &PathBuf) -> Result<BufWriter<std::fs::File>, Failure> {
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    file.map(BufWriter::new).map_err(|error| Failure::file(path, "creating", &error))
}

async fn write(store: StoreArgument, larder: &Larder, lines: &mut Lines<'_>) -> Result<(), Failure> {
    match store {
        StoreArgument::Kv => write_kv(larder, lines).await,
        StoreArgument::Documents => {
            lines.write_all("document", documents::documents(larder)).await?;
            lines.write_all("node", documents::nodes(larder)).await
        }
        StoreArgument::Chat => write_chat(larder, lines).await,
        StoreArgument::Vectors => write_vectors(larder, lines).await,
        StoreArgument::Graph => {
            lines.write_all("entity", graph::entities(larder, None, None)).await?;
            lines.write_all("fact", graph::relations(larder, graph::every_relation(), None)).await
        }
        StoreArgument::EmbedCache => lines.write_all("value", embed_cache::values(larder)).await,
    }
}

async fn write_kv(larder: &Larder, lines: &mut Lines<'_>) -> Result<(), Failure> {
    let mut collections = pin!(kv::collections(larder, None));
    while let Some(collection) = collections.try_next().await? {
        let (range, direction) = (KeyRange::All, Direction::Ascending);
        let scan =
            ScanValues { collection: collection.name, range, direction, after: None, filter: None, limit: PAGE_ROWS };
        lines.write_all("entry", kv::entries(larder, scan)).await?;
    }
    Ok(())
}

async fn write_chat(larder: &Larder, lines: &mut Lines<'_>) -> Result<(), Failure> {
    let mut sessions = pin!(chat::sessions(larder, None, None));
    while let Some(session) = sessions.try_next().await? {
        lines.write("session", &session)?;
        let id = SessionId::new(&session.id)?;
        lines.write_all("message", chat::messages(larder, id, MessageOrder::OldestFirst, true, PAGE_ROWS)).await?;
    }
    Ok(())
}

async fn write_vectors(larder: &Larder, lines: &mut Lines<'_>) -> Result<(), Failure> {
    let mut collections = pin!(vectors::collections(larder, None));
    while let Some(collection) = collections.try_next().await? {
        lines.write("collection", &collection)?;
        let name = CollectionName::new(&collection.name)?;
        lines.write_all("point", vectors::points(larder, name, PointFields::ALL, None)).await?;
    }
    Ok(())
}

impl Lines<'_> {
    async fn write_all<R: Serialize>(
        &mut self,
        kind: &'static str,
        rows: impl Stream<Item = Result<R, Failure>>,
    ) -> Result<(), Failure> {
        let mut rows = pin!(rows);
        while let Some(row) = rows.try_next().await? {
            self.write(kind, &row)?;
        }
        Ok(())
    }

    fn write<R: Serialize>(&mut self, kind: &'static str, row: &R) -> Result<(), Failure> {
        self.progress.inc(1);
        let row = Kinded { kind, row };
        match &mut self.file {
            Some(file) => {
                let line = json::line(&row)?;
                writeln!(file, "{line}").map_err(|error| Failure::file(&PathBuf::from("the export"), "writing", &error))
            }
            None => self.output.json(&row),
        }
    }

    fn finish(self, path: Option<PathBuf>) -> Result<(), Failure> {
        self.progress.finish_and_clear();
        let (Some(file), Some(path)) = (self.file, path) else { return Ok(()) };
        let failed = |error: &std::io::Error| Failure::file(&path, "writing", error);
        let file = file.into_inner().map_err(|error| failed(error.error()))?;
        file.sync_all().map_err(|error| failed(&error))?;
        self.output.note(format!("exported to {}", path.display()));
        Ok(())
    }
}
