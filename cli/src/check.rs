//! `larder check`: looks for damage, and says so by its exit code.

use std::collections::BTreeSet;
use std::ffi::OsString;

use clap::Args;
use larder::{CheckDepth, Finding};
use serde::Serialize;

use crate::failure::{Code, Failure};
use crate::folder::Folder;
use crate::output::{BAD, GOOD, Output};
use crate::{progress, text};

/// Reads every value against its checksum, unless told to be quick. Writers go on meanwhile.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Only the structure of the files
    #[arg(long)]
    quick: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    is_sound: bool,
    stores: Vec<String>,
    findings: Vec<Finding>,
    /// Damaged files that larder set aside, now or earlier, in the folder's `quarantine`.
    set_aside: Vec<String>,
}

pub(crate) async fn run(check: Check, folder: &Folder, output: &mut Output) -> Result<(), Failure> {
    let stores: Vec<_> = crate::folder::STORES.into_iter().filter(|store| folder.has(*store)).collect();
    let before = set_aside(folder);
    let larder = folder.open().await?;
    let progress = progress::spinner(output, "looking at every value");
    let checked = larder.check(if check.quick { CheckDepth::Quick } else { CheckDepth::Full }).await;
    larder.close().await;
    progress.finish_and_clear();
    let findings = checked?.findings;
    let after = set_aside(folder);
    // A damaged cache begins anew by itself when it is opened, and this was the opening.
    let is_sound = findings.is_empty() && before == after;
    let set_aside = after.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    let stores = stores.iter().map(ToString::to_string).collect();
    output.answer(&Report { is_sound, stores, findings, set_aside }, print)?;
    if is_sound { Ok(()) } else { Err(Failure::Reported(Code::Damaged)) }
}

fn set_aside(folder: &Folder) -> BTreeSet<OsString> {
    let entries = std::fs::read_dir(folder.path.join("quarantine"));
    entries.into_iter().flatten().flatten().map(|entry| entry.file_name()).collect()
}

fn print(output: &mut Output, report: &Report) -> Result<(), Failure> {
    for Finding { store, what, .. } in &report.findings {
        let label = output.styled(BAD, "damaged");
        output.line(format!("{label} {store}: {}", text::line(what)))?;
    }
    for name in &report.set_aside {
        output.line(format!("set aside quarantine/{}", text::line(name)))?;
    }
    if report.is_sound {
        let sound = output.styled(GOOD, "sound");
        return output.line(format!(
            "{sound}: {}",
            if report.stores.is_empty() { "no store yet".to_owned() } else { report.stores.join(", ") }
        ));
    }
    output.note("a store that is set aside comes back with `larder restore --store STORE SNAPSHOTS`");
    Ok(())
}
