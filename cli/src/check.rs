//! `larder check`: looks for damage, and says so by its exit code.

use std::collections::BTreeSet;
use std::ffi::OsString;

use clap::Args;
use larder::protocol::StoreName;
use larder::{CheckDepth, Finding, Larder};
use serde::Serialize;

use crate::contexts::{self, Opened};
use crate::failure::{Code, Failure};
use crate::folder::Folder;
use crate::output::{BAD, GOOD, Output};
use crate::{progress, text};

/// Reads every value against its checksum, and looks in every context for passages without vectors, and vectors and facts
/// without passages. Writers go on meanwhile.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Only the structure of the files
    #[arg(long)]
    quick: bool,
    /// Mend what does not agree between stores; damage within a store is for `larder restore`
    #[arg(long, conflicts_with = "quick")]
    repair: bool,
}

/// What does not agree between the stores of a context.
#[derive(Debug, Serialize)]
struct ContextReport {
    context: String,
    issues: Vec<String>,
    is_repaired: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    is_sound: bool,
    stores: Vec<String>,
    findings: Vec<Finding>,
    contexts: Vec<ContextReport>,
    /// Why contexts could not be looked at, or mended.
    #[serde(skip_serializing_if = "Option::is_none")]
    contexts_failed: Option<String>,
    /// Damaged files that larder set aside, now or earlier, in the folder's `quarantine`.
    set_aside: Vec<String>,
}

pub(crate) async fn run(check: Check, folder: &Folder, output: &mut Output) -> Result<(), Failure> {
    let stores: Vec<_> = crate::folder::STORES.into_iter().filter(|store| folder.has(*store)).collect();
    let before = set_aside(folder);
    let larder = folder.open().await?;
    let progress = progress::spinner(output, "looking at every value");
    let checked = look(&check, folder, &larder).await;
    larder.close().await;
    progress.finish_and_clear();
    let Looked { findings, contexts, contexts_failed } = checked?;
    let after = set_aside(folder);
    let is_whole = contexts.iter().all(|context| context.issues.is_empty() || context.is_repaired);
    // A damaged cache begins anew by itself when it is opened, and this was the opening.
    let is_sound = findings.is_empty() && is_whole && contexts_failed.is_none() && before == after;
    let set_aside = after.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    let stores = stores.iter().map(ToString::to_string).collect();
    output.answer(&Report { is_sound, stores, findings, contexts, contexts_failed, set_aside }, print)?;
    if is_sound { Ok(()) } else { Err(Failure::Reported(Code::Damaged)) }
}

async fn look(check: &Check, folder: &Folder, larder: &Larder) -> Result<Looked, Failure> {
    let depth = if check.quick { CheckDepth::Quick } else { CheckDepth::Full };
    let findings = larder.check(depth).await?.findings;
    // Between stores that are damaged nothing can be said to agree, unless what is damaged is what a repair does again.
    if check.quick || !folder.has(StoreName::Documents) || (!findings.is_empty() && !check.repair) {
        return Ok(Looked { findings, ..Looked::default() });
    }
    match look_at_contexts(check, larder).await {
        Ok(contexts) if findings.is_empty() => Ok(Looked { findings, contexts, contexts_failed: None }),
        Err(failure) if findings.is_empty() => Err(failure),
        mended => {
            // A repair that got to some of them has changed what there is to find.
            let findings = larder.check(depth).await?.findings;
            match mended {
                Ok(contexts) => Ok(Looked { findings, contexts, contexts_failed: None }),
                Err(Failure::Told(told)) => {
                    Ok(Looked { findings, contexts: Vec::new(), contexts_failed: Some(told.message) })
                }
                Err(failure) => Err(failure),
            }
        }
    }
}

/// What a look found.
#[derive(Default)]
struct Looked {
    findings: Vec<Finding>,
    contexts: Vec<ContextReport>,
    contexts_failed: Option<String>,
}

async fn look_at_contexts(check: &Check, larder: &Larder) -> Result<Vec<ContextReport>, Failure> {
    let mut contexts = Vec::new();
    for name in larder.contexts().await? {
        let Opened { context, .. } = contexts::open(larder, name.as_str()).await?;
        let issues = if check.repair { context.repair().await? } else { context.check().await? };
        let issues = issues.iter().map(ToString::to_string).collect();
        contexts.push(ContextReport { context: name.to_string(), issues, is_repaired: check.repair });
    }
    Ok(contexts)
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
    for ContextReport { context, issues, is_repaired } in &report.contexts {
        let label = if *is_repaired { "mended".to_owned() } else { output.styled(BAD, "at odds") };
        for issue in issues {
            output.line(format!("{label} context {}: {}", text::line(context), text::line(issue)))?;
        }
    }
    if let Some(why) = &report.contexts_failed {
        output.line(format!("{} contexts: {}", output.styled(BAD, "not mended"), text::line(why)))?;
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
    if report.findings.is_empty() {
        output.note("what is at odds is mended by `larder check --repair`");
    } else {
        output.note("a damaged value goes when it is written anew or deleted, and the record of an ingest with `larder check --repair`;");
        output.note("a store that cannot be opened comes back with `larder restore --store STORE SNAPSHOTS`");
    }
    Ok(())
}
