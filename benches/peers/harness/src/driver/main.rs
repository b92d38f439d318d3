//! Runs a store's peers side by side: equal answers first, then interleaved rounds, then a table and ratios.
//!
//! Start at [`run`]. Peers are the processes of `peer-x` beside this program; see [`process`].
//!
//! Always true: each round runs every peer once, in an order that rotates; every turn starts from a copy of the same
//! entries, after everything before it reached the disk; nothing is printed of a load where a peer's contents were wrong.

mod head;
mod options;
mod process;
mod rounds;
mod table;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use options::{Options, Wish};
use peer_harness::Result;
use process::Processes;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match options::parse(&arguments) {
        Err(error) => {
            eprintln!("{error}\n\n{}", options::USAGE);
            ExitCode::from(2)
        }
        Ok(Wish::Help) => {
            println!("{}", options::USAGE);
            ExitCode::SUCCESS
        }
        Ok(Wish::ListPeers(peers)) => {
            println!("{}", peers.join("\n"));
            ExitCode::SUCCESS
        }
        Ok(Wish::Run(options)) => report(run(&options)),
    }
}

fn report(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let end = options.time_max.map(|time_max| Instant::now() + time_max);
    let processes = Processes::find(options)?;
    head::print(options, &processes)?;
    rounds::check_answers(options, &processes)?;
    let mut ratios = Vec::new();
    let mut prepared = None;
    let mut tables_left: usize = options.loads.iter().map(|load| load.durabilities.len()).sum();
    for load in &options.loads {
        if prepared.replace(&load.data) != Some(&load.data) {
            rounds::prepare(load, &processes)?;
        }
        for &durability in load.durabilities {
            let standings = rounds::measure(load, durability, options, &processes, share(end, tables_left))?;
            tables_left -= 1;
            table::print(load, durability, &standings);
            ratios.extend(table::ratios(options.run.store, load, durability, &standings));
        }
    }
    println!();
    for ratio in &ratios {
        println!("{ratio}");
    }
    if ratios.is_empty() {
        println!("no ratio lines: larder and another peer are needed for them");
    }
    Ok(())
}

/// What one of the tables that are left may take.
fn share(end: Option<Instant>, tables_left: usize) -> Option<Duration> {
    let left = end?.saturating_duration_since(Instant::now());
    Some(left / u32::try_from(tables_left.max(1)).unwrap_or(u32::MAX))
}
