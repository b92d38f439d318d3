//! What the torture example and the crash tests share: a load, its log, and the proof.
//!
//! Start at [`command`]; [`plan::Plan`] is what a store brings.
//!
//! Always true: no module here trusts the store under test for what should be in it; that comes from the log alone.

mod arguments;
mod log;
mod plan;
mod run;
mod sabotage;
mod verify;

use arguments::{Arguments, USAGE};
#[cfg(test)]
pub(crate) use {
    log::Log,
    plan::{Fate, Random},
    sabotage::Spoil,
    verify::verify,
};

use std::io::Write;
use std::process::ExitCode;

/// How a command ended, as its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Everything held.
    Good = 0,
    /// A promise was broken, or the harness could not do its work.
    Violation = 1,
    /// The command line cannot be used.
    Usage = 2,
}

impl From<End> for ExitCode {
    fn from(end: End) -> Self {
        Self::from(end as u8)
    }
}

/// Runs one command line, without the program's name.
pub(crate) fn command(arguments: impl IntoIterator<Item = String>) -> End {
    let outcome = match Arguments::parse(arguments) {
        Err(reason) => {
            complain(&format!("{reason}\n\n{USAGE}"));
            return End::Usage;
        }
        Ok(Arguments::Run(options)) => run::run_on_own_runtime(options, Box::new(std::io::stdout())),
        Ok(Arguments::Verify { folder, log, spoil }) => verify::verify_file(&folder, &log, spoil),
    };
    match outcome {
        Ok(()) => End::Good,
        Err(reason) => {
            complain(&reason);
            End::Violation
        }
    }
}

fn complain(text: &str) {
    // Nothing is left to tell it to when even this fails; the exit code says it as well.
    let _ = writeln!(std::io::stderr(), "torture: {text}");
}
