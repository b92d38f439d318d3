//! `larder completions`: what a shell needs to complete this tool's commands.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Which shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(crate) fn run(completions: &Completions, output: &mut Output) -> Result<(), Failure> {
    // Not to the stream itself: its writer ends the process where nobody reads.
    let mut script = Vec::new();
    clap_complete::generate(completions.shell, &mut Arguments::command(), "larder", &mut script);
    if output.is_json() {
        let script = String::from_utf8_lossy(&script);
        return output.json(&serde_json::json!({ "shell": completions.shell.to_string(), "script": script }));
    }
    output.bytes(&script)
}
