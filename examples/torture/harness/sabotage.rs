//! The controls: ways to break a promise on purpose, each of which the verifier must catch.

use std::path::Path;

use larder::Larder;

use super::log::Log;
use super::plan::{Lie, plan};

/// Reads how a run is to lie.
pub(crate) fn parse_lie(word: &str) -> Result<Lie, String> {
    match word {
        "ack-before-commit" => Ok(Lie::AckBeforeCommit),
        "skip-batch-half" => Ok(Lie::SkipBatchHalf),
        other => Err(format!("no sabotage {other:?} of a run")),
    }
}

/// A store that is not what it was told to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoil {
    /// The last acknowledged row is gone.
    LoseLast,
    /// There is a row that nobody put.
    AddRow,
}

impl Spoil {
    pub(crate) fn parse(word: &str) -> Result<Self, String> {
        match word {
            "lose-last" => Ok(Self::LoseLast),
            "add-row" => Ok(Self::AddRow),
            other => Err(format!("no sabotage {other:?} of a verification")),
        }
    }
}

/// Returns a spoiled copy of the folder. No process may have the folder open.
pub(crate) async fn spoiled(folder: &Path, log: &Log, spoil: Spoil) -> Result<tempfile::TempDir, String> {
    let copy = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
    for (index, store) in log.stores.iter().enumerate() {
        copy_store(folder, copy.path(), store).map_err(|e| format!("cannot copy {store}: {e}"))?;
        let plan = plan(store)?;
        match spoil {
            Spoil::LoseLast => {
                let connection = super::verify::connect(&copy.path().join(format!("{store}.db")))?;
                plan.lose_last(&connection, &log.of_store(index))?;
            }
            Spoil::AddRow => {
                let larder = Larder::open(copy.path()).await.map_err(|e| format!("cannot open the copy: {e}"))?;
                plan.add_row(&larder).await.map_err(|e| format!("cannot add a row: {e}"))?;
                larder.close().await;
            }
        }
    }
    Ok(copy)
}

#[expect(clippy::disallowed_methods, reason = "no process has the folder open, which the usage demands")]
fn copy_store(from: &Path, to: &Path, store: &str) -> std::io::Result<()> {
    for name in [format!("{store}.db"), format!("{store}.db-wal")] {
        if from.join(&name).exists() {
            std::fs::copy(from.join(&name), to.join(&name))?;
        }
    }
    Ok(())
}
