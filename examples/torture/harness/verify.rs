//! The proof: the stores hold what the log says they must, and nothing that it does not allow.
//!
//! Start at [`verify`].

use std::io::Write;
use std::path::Path;

use larder::{CheckDepth, Larder};

use super::log::Log;
use super::plan::plan;
use super::sabotage::{Spoil, spoiled};

/// Violations printed in full; the rest is counted.
const SHOWN_MAX: usize = 20;

/// What a verification found.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) log: Log,
    pub(crate) violations: Vec<String>,
}

/// Reads a whole log.
#[expect(clippy::disallowed_methods, reason = "a log, not a store's file")]
pub(crate) fn read_log(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}

/// Verifies against a log file, on a runtime made for it, and prints the outcome.
pub(crate) fn verify_file(folder: &Path, log: &Path, spoil: Option<Spoil>) -> Result<(), String> {
    let log = read_log(log)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(|e| format!("no runtime: {e}"))?;
    let report = runtime.block_on(verify(folder, &log, spoil))?;
    let mut output = std::io::stdout();
    let mut line = |text: &str| writeln!(output, "{text}").map_err(|e| format!("cannot print: {e}"));
    for violation in report.violations.iter().take(SHOWN_MAX) {
        line(&format!("VIOLATION {violation}"))?;
    }
    line(&report.log.summary())?;
    match report.violations.len() {
        0 => line("all of it is as the log says"),
        count => Err(format!("{count} violations")),
    }
}

/// Verifies the folder, or a spoiled copy of it, against a log.
pub(crate) async fn verify(folder: &Path, log: &str, spoil: Option<Spoil>) -> Result<Report, String> {
    let log = Log::parse(log)?;
    let Some(spoil) = spoil else { return verify_folder(folder, log).await };
    let copy = spoiled(folder, &log, spoil).await?;
    verify_folder(copy.path(), log).await
}

async fn verify_folder(folder: &Path, log: Log) -> Result<Report, String> {
    let mut violations = log.violations.clone();
    let larder = Larder::open(folder).await.map_err(|e| format!("cannot open the folder: {e}"))?;
    for (index, store) in log.stores.iter().enumerate() {
        let history = log.of_store(index);
        match plan(store)?.inspect(&larder, &history).await {
            Ok(shown) => {
                violations.extend(history.contradictions(shown).into_iter().map(|text| format!("{store}: {text}")));
            }
            Err(error) => violations.push(format!("{store}: cannot be read: {error}")),
        }
    }
    match larder.check(CheckDepth::Full).await {
        Ok(report) => violations.extend(report.findings.into_iter().map(|one| format!("{}: {}", one.store, one.what))),
        Err(error) => violations.push(format!("it cannot be checked: {error}")),
    }
    if !larder.close().await.is_clean() {
        violations.push("the folder did not close".to_owned());
    }
    for store in &log.stores {
        violations.extend(integrity(&folder.join(format!("{store}.db")))?);
    }
    Ok(Report { log, violations })
}

/// Returns what SQLite's own full check finds. The folder must be closed.
fn integrity(file: &Path) -> Result<Vec<String>, String> {
    let connection = connect(file)?;
    let check = || -> rusqlite::Result<Vec<String>> {
        let mut statement = connection.prepare("PRAGMA integrity_check")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        rows.collect()
    };
    let mut found = check().map_err(|e| format!("integrity_check of {} failed: {e}", file.display()))?;
    found.retain(|line| line != "ok");
    Ok(found)
}

#[expect(clippy::disallowed_methods, reason = "a look from outside, through SQLite, at a folder that is closed")]
pub(crate) fn connect(file: &Path) -> Result<rusqlite::Connection, String> {
    rusqlite::Connection::open(file).map_err(|e| format!("cannot open {}: {e}", file.display()))
}
