//! What stands above the tables: machine, date, versions, command, and what each peer's settings mean.

use std::process::Command;

use peer_harness::Result;
use peer_harness::peer::{About, Request};

use crate::options::Options;
use crate::process::Processes;

pub(crate) fn print(options: &Options, processes: &Processes) -> Result<()> {
    println!("command   {}", options.command);
    println!("date      {}", output_of("date", &["-u", "+%Y-%m-%d %H:%M UTC"]));
    println!("machine   {}", machine());
    println!("data      {} ({})", processes.data.display(), file_system(processes));
    println!("commit    {} · {}", output_of("git", &["describe", "--always", "--dirty"]), output_of("rustc", &["-V"]));
    println!("rounds    {} at most, of {} s for each peer and load, interleaved", options.rounds, options.seconds);
    for (word, text) in &options.run.head {
        println!("{word:<10}{text}");
    }
    for peer in &processes.peers {
        let about: About = processes.ask(peer, &Request::About)?;
        println!("\n{peer}: {}", about.versions);
        println!("  durable: {}\n  relaxed: {}\n  callers: {}", about.durable, about.relaxed, about.callers);
    }
    for peer in &processes.missing {
        println!("\n{peer}: not built, so it takes no part");
    }
    println!();
    Ok(())
}

fn machine() -> String {
    let memory = proc_field("/proc/meminfo", "MemTotal").unwrap_or_default();
    let model = proc_field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{model}, {cores} cores, memory {memory}, {}", output_of("uname", &["-sr"]))
}

fn proc_field(file: &str, field: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

fn file_system(processes: &Processes) -> String {
    output_of("stat", &["-f", "-c", "%T", &processes.data.to_string_lossy()])
}

/// The output of a program, or a question mark: the head is worth having without it.
fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success());
    output.map_or("?".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
