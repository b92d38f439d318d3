//! Two processes write to one folder at the same time: this program, and a copy of itself that it starts.
//!
//! ```sh
//! cargo run --example two_processes
//! ```
//!
//! Both count up one shared counter and put keys of their own, as fast as they can, for two seconds. At the end the
//! counter must be exact, neither may have seen an error, and the first must have heard of every put of the second.
//!
//! Start at [`parent`]; [`work`] is what both processes do.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to whoever runs it")]

use std::error::Error;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use futures::StreamExt;
use larder::protocol::Sequence;
use larder::protocol::change::{Commit, Notice};
use larder::{Larder, Notices};

/// Callers in each process, each waiting for its own write before it sends the next.
const CALLERS: usize = 32;
const DURATION: Duration = Duration::from_secs(2);
/// How long the last news of the other process may take.
const NEWS_WITHIN: Duration = Duration::from_secs(10);

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let outcome = match arguments.as_slice() {
        [] => parent().await,
        [word, folder] if word == "--child" => child(Path::new(folder)).await,
        _ => Err("it takes no arguments".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("two_processes: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn parent() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("larder-two-processes-").tempdir()?;
    let larder = Larder::open(folder.path()).await?;
    let news = larder.kv().subscribe(Sequence(0)).await?;
    let mut other = Other::start(folder.path())?;
    println!("Processes {} and {} both have {} open.", std::process::id(), other.process.id(), folder.path().display());

    other.expect_line("ready")?;
    other.say("go")?;
    println!("Each writes with {CALLERS} callers for {DURATION:?}: one shared counter, and keys of its own …\n");
    let hearing = tokio::spawn(hear(news));
    let mine = work(&larder, "first").await?;
    let theirs: u64 = tokio::task::spawn_blocking(move || other.finish()).await??;

    let total = mine + theirs;
    println!("{mine:>8} rounds by this process, {} % of all", percent(mine, total));
    println!("{theirs:>8} rounds by the other, {} %", percent(theirs, total));
    let counter = larder.kv().collection::<u64>("shared").get("counter").await?.unwrap_or(0);
    println!("{counter:>8} on the shared counter, which both counted up once a round: {}", verdict(counter == total));

    // The end of the other's work is the last of its puts that the subscription will hear.
    larder.kv().collection::<u64>("done").put("first", &theirs).await?;
    let heard = tokio::time::timeout(NEWS_WITHIN, hearing).await???;
    println!("{heard:>8} puts of the other process heard by subscription: {}", verdict(heard == theirs));
    println!("       0 errors: nobody saw \"database is locked\"");
    larder.close().await;
    if counter == total && heard == theirs { Ok(()) } else { Err("the numbers above do not agree".into()) }
}

fn percent(part: u64, whole: u64) -> u64 {
    (part * 100 + whole / 2) / whole.max(1)
}

fn verdict(is_right: bool) -> &'static str {
    if is_right { "exact" } else { "WRONG" }
}

async fn child(folder: &Path) -> Result<()> {
    let larder = Larder::open(folder).await?;
    println!("ready");
    if std::io::stdin().lock().read_line(&mut String::new())? == 0 {
        return Err("the first process ended before the start".into());
    }
    let rounds = work(&larder, "second").await?;
    larder.close().await;
    println!("{rounds}");
    Ok(())
}

/// Counts up the shared counter and puts a key of its own, over and over; answers how many rounds all callers did.
async fn work(larder: &Larder, name: &'static str) -> Result<u64> {
    let started = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let shared = larder.kv().collection::<u64>("shared");
            let own = larder.kv().collection::<u64>(name);
            tokio::spawn(async move {
                let mut rounds = 0_u64;
                while started.elapsed() < DURATION {
                    shared.increment("counter", 1).await?;
                    own.put(format!("{caller}-{rounds}"), &rounds).await?;
                    rounds += 1;
                }
                Ok::<_, larder::Error>(rounds)
            })
        })
        .collect();
    let mut rounds = 0;
    for caller in callers {
        rounds += caller.await??;
    }
    Ok(rounds)
}

/// Counts the other process's puts, up to the mark that this process leaves in `done` after both have ended.
async fn hear(mut news: Notices) -> Result<u64> {
    let mut heard = 0;
    while let Some(notice) = news.next().await {
        let Notice::Commit(Commit { changes, .. }) = notice? else { return Err("fell behind the change log".into()) };
        for change in changes {
            match change.scope.as_str() {
                "second" => heard += change.ids.len() as u64,
                "done" => return Ok(heard),
                _ => {}
            }
        }
    }
    Err("the subscription ended early".into())
}

/// The copy of this program, and what it says.
struct Other {
    process: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Other {
    fn start(folder: &Path) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let command = command.arg("--child").arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let output = process.stdout.take().ok_or("the other process has no output")?;
        Ok(Self { process, lines: BufReader::new(output).lines() })
    }

    fn line(&mut self) -> Result<String> {
        Ok(self.lines.next().ok_or("the other process ended early")??)
    }

    fn expect_line(&mut self, expected: &str) -> Result<()> {
        let said = self.line()?;
        if said == expected { Ok(()) } else { Err(format!("the other process said {said:?}").into()) }
    }

    fn say(&mut self, word: &str) -> Result<()> {
        let input = self.process.stdin.as_mut().ok_or("the other process has no input")?;
        Ok(writeln!(input, "{word}")?)
    }

    /// Waits for its end; answers how many rounds it did.
    fn finish(mut self) -> Result<u64> {
        let rounds = self.line()?.parse()?;
        let status = self.process.wait()?;
        if status.success() { Ok(rounds) } else { Err(format!("the other process failed: {status}").into()) }
    }
}
