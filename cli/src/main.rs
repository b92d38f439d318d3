//! `larder`: a larder's folder from the command line.
//!
//! Start at [`arguments`], what can be asked, then the module with the store's word. [`output`] is all that is printed,
//! [`failure`] all that can go wrong and its exit codes, [`folder`] how a folder is found and opened.
//!
//! Always true: a command that reads creates nothing, neither a folder nor a store in it, and evicts nothing; what others stored reaches a
//! terminal with its control characters escaped; every command speaks JSON when asked to.

mod arguments;
mod chat;
mod check;
mod completions;
mod contexts;
mod documents;
mod embed_cache;
mod export;
mod failure;
mod folder;
mod forget;
mod graph;
mod ingest;
mod init;
mod json;
mod kv;
mod list;
mod output;
mod progress;
mod search;
mod snapshot;
mod stats;
mod table;
mod text;
mod time;
mod vectors;

use std::process::ExitCode;

use clap::Parser;
use larder::blocking::wait;

use arguments::{Arguments, Command};
use failure::Failure;
use folder::Place;
use output::Output;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return arguments::refuse(&error),
    };
    let mut output = Output::to_standard_streams(arguments.json, arguments.quiet);
    // Its own future on the heap: there is one, and it is as large as the largest command's.
    let done = wait(Box::pin(run(arguments, &mut output)));
    match done.and_then(|()| Ok(output.flush()?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => output.report(&failure),
    }
}

async fn run(arguments: Arguments, output: &mut Output) -> Result<(), Failure> {
    let place = Place { named: arguments.folder };
    match arguments.command {
        Command::Init(init) => init::run(init, &place, output).await,
        Command::Ingest(ingest) => ingest::run(ingest, &place.folder()?, output).await,
        Command::Search(search) => search::run(search, &place.folder()?, output).await,
        Command::Forget(forget) => forget::run(forget, &place.folder()?, output).await,
        Command::Kv(command) => kv::run(command, &place.folder()?, output).await,
        Command::Docs(command) => documents::run(command, &place.folder()?, output).await,
        Command::Chat(command) => chat::run(command, &place.folder()?, output).await,
        Command::Graph(command) => graph::run(command, &place.folder()?, output).await,
        Command::Vectors(command) => vectors::run(command, &place.folder()?, output).await,
        Command::Stats => stats::run(&place.folder()?, output).await,
        Command::Check(check) => check::run(check, &place.folder()?, output).await,
        Command::Snapshot(snapshot) => snapshot::take(snapshot, &place, output).await,
        Command::Restore(restore) => snapshot::restore(restore, &place, output).await,
        Command::Export(export) => export::run(export, &place.folder()?, output).await,
        Command::Completions(completions) => completions::run(&completions, output),
    }
}
