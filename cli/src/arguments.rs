//! What the tool can be asked, as clap reads it; a command's own options stand with the command.
//!
//! Start at [`Arguments`] and [`Command`].

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{chat, check, completions, documents, export, forget, graph, ingest, init, kv, search, snapshot, vectors};

const EXIT_CODES: &str = "\
Exit codes:
  0  it is done
  1  it failed
  2  the command cannot be used like this
  3  what was asked for is not there
  4  busy: another process has the folder to itself, or too much is waiting; try again
  5  damage was found

Examples:
  larder init data                      make a larder in ./data
  larder -C data ingest notes           keep and index the texts below ./notes
  larder -C data search what did we say about tea
  larder -C data kv put settings theme dark
  larder -C data --json stats | jq .
  LARDER_FOLDER=data larder check";

/// Look into a larder and work with it: the folder that an application keeps its state in.
///
/// Commands that read do so while an application has the folder open, and make nothing that is not there.
#[derive(Debug, Parser)]
#[command(name = "larder", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    /// The larder's folder; without it the current folder, if that is one
    #[arg(short = 'C', long, global = true, env = "LARDER_FOLDER", hide_env_values = true, value_name = "FOLDER")]
    pub(crate) folder: Option<PathBuf>,
    /// Print JSON: one document, or a line for each row of a list; errors too, to stderr
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Show no progress
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a larder in a folder
    Init(init::Init),
    /// Bring documents up to date with a folder of texts: passages, their words and embeddings
    Ingest(ingest::Ingest),
    /// Find the passages that fit a question best, by words, embeddings and facts
    Search(search::Search),
    /// Forget documents, a conversation or an owner, in every store
    Forget(forget::Forget),
    /// Key-value state: get, put, delete and list
    #[command(subcommand)]
    Kv(kv::Command),
    /// Documents and the passages they are cut into
    #[command(subcommand)]
    Docs(documents::Command),
    /// Chat memory: sessions and their messages
    #[command(subcommand)]
    Chat(chat::Command),
    /// The knowledge graph: entities, facts and ways between them
    #[command(subcommand)]
    Graph(graph::Command),
    /// Collections of vectors
    #[command(subcommand)]
    Vectors(vectors::Command),
    /// How much is in each store, and how large its file is
    Stats,
    /// Look for damage in every store
    Check(check::Check),
    /// Copy every store, as all are at one instant, to a new folder below SNAPSHOTS
    Snapshot(snapshot::Take),
    /// Make a new larder of a snapshot, or put a sound copy in the place of a damaged store
    Restore(snapshot::Restore),
    /// Print everything in a store as JSON lines
    Export(export::Export),
    /// Print a shell's completions for this tool
    Completions(completions::Completions),
}

/// How much of a list is printed.
#[derive(Debug, Args)]
pub(crate) struct Page {
    /// Most rows to print
    #[arg(short = 'n', long, default_value_t = 100, value_name = "ROWS", value_parser = at_least_one)]
    pub(crate) limit: usize,
    /// Go on behind this row, which the note about more rows named
    #[arg(long, value_name = "ROW")]
    pub(crate) after: Option<String>,
}

pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("it is 0".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

/// Answers arguments that clap did not take: help and the version, which were asked for, and mistakes.
pub(crate) fn refuse(error: &clap::Error) -> ExitCode {
    let is_answer = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let wants_json = std::env::args_os().skip(1).take_while(|word| word != "--").any(|word| word == "--json");
    if wants_json && !is_answer {
        let text = error.render().to_string();
        let text = text.split("\n\nUsage:").next().unwrap_or_default();
        let words = text.strip_prefix("error: ").unwrap_or(text).split_whitespace().collect::<Vec<_>>().join(" ");
        let failure = Failure::usage(words).with_hint("see larder --help");
        return Output::to_standard_streams(true, true).report(&failure);
    }
    // To a reader that went away there is nothing more to say.
    let _ = error.print();
    if is_answer { ExitCode::SUCCESS } else { Code::Usage.into() }
}
