//! `larder snapshot` and `larder restore`.

use std::path::{Path, PathBuf};

use clap::Args;
use larder::backup::{self, Snapshot};
use larder::protocol::StoreName;
use serde::Serialize;

use crate::arguments::at_least_one;
use crate::export::StoreArgument;
use crate::failure::Failure;
use crate::folder::Place;
use crate::list::{self, Row};
use crate::output::Output;
use crate::table::Column;
use crate::{progress, text, time};

#[derive(Debug, Args)]
pub(crate) struct Take {
    /// The folder that holds the snapshots; it is made where it is missing
    snapshots: PathBuf,
    /// Then remove the oldest until so many are left
    #[arg(long, value_name = "COUNT", value_parser = at_least_one)]
    keep: Option<usize>,
    /// Take none, and list those that are there
    #[arg(long, conflicts_with = "keep")]
    list: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// A snapshot, or the folder that holds the snapshots: the newest of them then
    snapshot: PathBuf,
    /// The new larder's folder, which must be empty or missing
    #[arg(required_unless_present = "store", conflicts_with = "store")]
    into: Option<PathBuf>,
    /// Instead, put the newest sound copy in the place of this damaged store; its files are kept in `quarantine`
    #[arg(long, value_enum)]
    store: Option<StoreArgument>,
}

/// A snapshot as it is printed.
#[derive(Debug, Serialize)]
struct SnapshotRow {
    path: PathBuf,
    taken_ms: i64,
    bytes: u64,
    stores: Vec<StoreName>,
}

impl From<Snapshot> for SnapshotRow {
    fn from(snapshot: Snapshot) -> Self {
        Self { taken_ms: snapshot.taken.0, bytes: snapshot.bytes, stores: snapshot.stores, path: snapshot.path }
    }
}

impl SnapshotRow {
    fn stores_for_people(&self) -> String {
        self.stores.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

impl Row for SnapshotRow {
    const COLUMNS: &'static [Column] =
        &[Column::text("TAKEN"), Column::number("SIZE"), Column::text("STORES"), Column::text("SNAPSHOT")];

    fn cells(&self) -> Vec<String> {
        let taken = time::shown(larder::Timestamp(self.taken_ms));
        vec![taken, time::bytes(self.bytes), self.stores_for_people(), self.path.display().to_string()]
    }

    fn cursor(&self) -> String {
        self.path.display().to_string()
    }
}

#[derive(Debug, Serialize)]
struct Taken {
    #[serde(flatten)]
    snapshot: SnapshotRow,
    removed: Vec<PathBuf>,
}

pub(crate) async fn take(take: Take, place: &Place, output: &mut Output) -> Result<(), Failure> {
    if take.list {
        let rows = listed(&take.snapshots)?.into_iter().map(|snapshot| Ok(SnapshotRow::from(snapshot)));
        return list::print(output, usize::MAX, futures::stream::iter(rows)).await;
    }
    let larder = place.folder()?.open().await?;
    let progress = progress::spinner(output, "copying and verifying");
    let taken = larder.snapshot(&take.snapshots).await;
    larder.close().await;
    progress.finish_and_clear();
    let snapshot = SnapshotRow::from(taken?);
    let removed = match take.keep {
        Some(keep) => backup::retain(&take.snapshots, keep)?.into_iter().map(|old| old.path).collect(),
        None => Vec::new(),
    };
    output.answer(&Taken { snapshot, removed }, |output, Taken { snapshot, removed }| {
        output.line(text::line(&snapshot.path.display().to_string()))?;
        output.note(format!("{} of {}", time::bytes(snapshot.bytes), snapshot.stores_for_people()));
        removed.iter().for_each(|old| output.note(format!("removed {}", text::line(&old.display().to_string()))));
        Ok(())
    })
}

fn listed(snapshots: &Path) -> Result<Vec<Snapshot>, Failure> {
    if !snapshots.is_dir() {
        return Err(Failure::not_found(format!("{} is no folder", snapshots.display())));
    }
    Ok(backup::list(snapshots)?)
}

pub(crate) async fn restore(restore: Restore, place: &Place, output: &mut Output) -> Result<(), Failure> {
    match (restore.store, restore.into) {
        (Some(store), _) => restore_store(store.into(), &restore.snapshot, place, output).await,
        (None, Some(into)) => restore_all(&restore.snapshot, &into, output),
        (None, None) => Err(Failure::usage("a folder to restore into is missing")),
    }
}

#[derive(Debug, Serialize)]
struct Restored {
    snapshot: PathBuf,
    folder: PathBuf,
    taken_ms: i64,
    bytes: u64,
    stores: Vec<StoreName>,
}

fn restore_all(snapshot: &Path, into: &Path, output: &mut Output) -> Result<(), Failure> {
    let snapshot = if snapshot.join("manifest.json").is_file() { snapshot.to_owned() } else { newest(snapshot)? };
    let progress = progress::spinner(output, "verifying and copying");
    let restored = backup::restore(&snapshot, into);
    progress.finish_and_clear();
    let Snapshot { taken, bytes, stores, .. } = restored?;
    let restored = Restored { snapshot, folder: into.to_owned(), taken_ms: taken.0, bytes, stores };
    output.answer(&restored, |output, restored| {
        let (folder, snapshot) = (restored.folder.display().to_string(), restored.snapshot.display().to_string());
        let taken = time::shown(larder::Timestamp(restored.taken_ms));
        output.line(format!("made a larder in {} of {}, taken {taken}", text::line(&folder), text::line(&snapshot)))
    })
}

fn newest(snapshots: &Path) -> Result<PathBuf, Failure> {
    let none = || Failure::not_found(format!("no snapshot is in {}", snapshots.display()));
    let newest = listed(snapshots)?.pop().ok_or_else(none)?;
    Ok(newest.path)
}

/// The way out for those whose store is not set aside.
const NOT_EXCHANGED: &str = "only a store whose file is damaged as a whole is exchanged; a damaged value goes when it is written anew or \
     deleted, and `larder restore SNAPSHOTS FOLDER` makes a larder of how all was";

#[derive(Debug, Serialize)]
struct RestoredStore {
    store: StoreName,
    snapshot: PathBuf,
    taken_ms: i64,
    damaged: PathBuf,
}

async fn restore_store(store: StoreName, snapshots: &Path, place: &Place, output: &mut Output) -> Result<(), Failure> {
    let folder = place.folder()?;
    let larder = folder.open_to_write().await?;
    // Damage is noticed by looking, and only a store that noticed is replaced.
    let checked = larder.check(larder::CheckDepth::Quick).await;
    let restored = match checked {
        Ok(_) => larder.restore_store(store, snapshots).await,
        Err(error) => Err(error),
    };
    larder.close().await;
    let restored = restored.map_err(|error| {
        let is_sound = error.class() == larder::Class::Refused;
        let failure = Failure::from(error);
        if is_sound { failure.with_hint(NOT_EXCHANGED) } else { failure }
    })?;
    let (snapshot, taken_ms) = (restored.snapshot.path, restored.snapshot.taken.0);
    let shown = RestoredStore { store, snapshot, taken_ms, damaged: restored.damaged };
    output.answer(&shown, |output, shown| {
        let taken = time::shown(larder::Timestamp(shown.taken_ms));
        output.line(format!("{} is as it was at {taken}", shown.store))?;
        output.note(format!("the damaged files are in {}", text::line(&shown.damaged.display().to_string())));
        Ok(())
    })
}
