//! Real processes for tests: this test binary runs itself again, in a role that an environment variable names.
//!
//! Start at [`Child::spawn`]. No path to another binary is guessed, and the child is built from the same code as the test.
//!
//! Always true: a child dies with its test; every wait for one has a time limit.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The role and its arguments, a line each. Absent: this process is the test itself.
const ROLE: &str = "LARDER_TEST_CHILD";
/// A child that says nothing for so long hangs.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A process of ours.
pub(crate) struct Child {
    process: std::process::Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Child {
    /// Starts this test binary again in `role`.
    pub(crate) fn spawn<S: AsRef<str>>(role: &str, arguments: impl IntoIterator<Item = S>) -> Self {
        let mut words = role.to_owned();
        for argument in arguments {
            words.push('\n');
            words.push_str(argument.as_ref());
        }
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["support::child::runs_its_role", "--exact", "--nocapture", "--quiet"])
            .env(ROLE, words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = process.stdout.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = String::new();
            // A last line without its end was cut off by a kill.
            while output.read_line(&mut line).is_ok() && line.ends_with('\n') {
                if sender.send(std::mem::take(&mut line)).is_err() {
                    return;
                }
            }
        });
        Self { input: process.stdin.take().unwrap(), process, lines }
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Returns the next line, with its end; `None` when the child has closed its output.
    pub(crate) fn next_line(&self) -> Option<String> {
        match self.lines.recv_timeout(SILENCE_MAX) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("child {} said nothing for {SILENCE_MAX:?}", self.id()),
        }
    }

    /// Returns the next line that comes until `moment`.
    pub(crate) fn line_until(&self, moment: Instant) -> Option<String> {
        self.lines.recv_timeout(moment.saturating_duration_since(Instant::now())).ok()
    }

    /// Returns the rest of the next line that begins with `word`.
    pub(crate) fn wait_for(&self, word: &str) -> String {
        loop {
            let line = self.next_line().unwrap_or_else(|| panic!("child {} ended before it said {word}", self.id()));
            if let Some(rest) = line.strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
    }

    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    /// Kills it as the kernel would, and returns what it had said.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        std::iter::from_fn(|| self.next_line()).collect()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Says a line to the parent.
pub(crate) fn tell(line: &str) {
    // Not `println!`, which a test's output capture may hold back.
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Waits for a line of the parent's; empty when the parent is gone.
pub(crate) fn hear() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line.trim().to_owned()
}

/// The entry of every child; as a test among others it has nothing to do.
#[test]
fn runs_its_role() {
    let Ok(words) = std::env::var(ROLE) else { return };
    let mut words = words.lines().map(str::to_owned);
    let role = words.next().unwrap();
    match role.as_str() {
        "torture" => crate::crash::child(words),
        "linearizability" => crate::linearizability::child(words),
        "snapshots" => crate::backup::consistency::child(words),
        "writer" => crate::processes::write_until_told(words),
        "leaseholder" => crate::leases::hold_until_told(words),
        "computer" => crate::leases::compute_until_done(words),
        "stranger" => crate::readers::read_until_told(words),
        "crowd" => crate::overload::crowd(words),
        "opener" => crate::quarantine::open_until_told(words),
        "searcher" => crate::vectors::search_until_told(words),
        "embedder" => crate::embed_cache::processes::compute_until_done(words),
        "hanging-embedder" => crate::embed_cache::processes::hang(words),
        "cache-remover" => crate::embed_cache::processes::remove_until_told(words),
        "cache-holder" => crate::embed_cache::damage::hold_until_told(words),
        "co-ingester" => crate::context::processes::ingest_when_told(words),
        "intent-holder" => crate::context::processes::hold_an_intent(words),
        "context-writer" => crate::context::kills::write_until_killed(words),
        "walker" => crate::graph::walk_until_told(words),
        "holder" => crate::processes::hold_until_told(words),
        other => panic!("no role {other:?}"),
    }
}
