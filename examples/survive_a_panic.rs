//! A store panics, restarts and loses nothing, while another store beside it serves on.
//!
//! ```sh
//! cargo run --example survive_a_panic
//! ```
//!
//! Callers write to both stores all the time. The key–value store is made to panic in a handler, outside any message, and
//! while it restarts; larder's failpoints do that, which only tests and examples have compiled in. At the end every
//! write must be exactly as its caller was told, and chat's callers must not have noticed anything.
//!
//! Start at [`run`]; [`count_up`] shows how a program goes on after a restart: it repeats its write under the same key.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to whoever runs it")]

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use larder::protocol::StoreName;
use larder::{ChatMessage, Failpoint, FailpointAction, Larder, StoreEvent, StoreState};

const CALLERS: usize = 8;
/// A caller who repeats a write so often without an answer gives up.
const ATTEMPTS_MAX: usize = 100;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> ExitCode {
    // The panics on purpose say so in one line, not with a message each.
    std::panic::set_hook(Box::new(|panic| println!("  panic: {}", panic.payload_as_str().unwrap_or("no text"))));
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("survive_a_panic: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("larder-survive-a-panic-").tempdir()?;
    // By default a store that restarts more than three times in five seconds has failed for good.
    let larder = Larder::builder(folder.path()).settings(|settings| settings.restart_limit = 10).open().await?;
    // The first message waits until the tokens' vocabulary is loaded.
    larder.chat().session("warm-up").append([ChatMessage::user("ready?")]).await?;
    let is_over = Arc::new(AtomicBool::new(false));
    let counting: Vec<_> =
        (0..CALLERS).map(|caller| tokio::spawn(count_up(larder.clone(), caller, Arc::clone(&is_over)))).collect();
    let talking: Vec<_> =
        (0..CALLERS).map(|caller| tokio::spawn(talk(larder.clone(), caller, Arc::clone(&is_over)))).collect();

    println!("{CALLERS} callers count in the key-value store, {CALLERS} talk in the chat store. The first panics:");
    panic_and_recover(&larder, "in a message's handler", Failpoint::Handler, 0).await?;
    panic_and_recover(&larder, "before it commits", Failpoint::Commit, 1).await?;
    panic_and_recover(&larder, "after it committed, before it answered", Failpoint::AfterCommit, 2).await?;
    larder.set_failpoint(StoreName::Kv, Failpoint::Start, FailpointAction::Panic, 1);
    panic_and_recover(&larder, "before it commits, and while it restarts", Failpoint::Commit, 4).await?;
    is_over.store(true, Ordering::Release);

    let mut told = Told::default();
    let mut counts = Vec::new();
    for caller in counting {
        let (count, told_here) = caller.await??;
        counts.push(count);
        told.add(&told_here);
    }
    let mut said = Vec::new();
    let mut longest = Duration::ZERO;
    for caller in talking {
        let (count, longest_here) = caller.await??;
        said.push(count);
        longest = longest.max(longest_here);
    }
    println!("\n{:>8} counts acknowledged; {told}", counts.iter().sum::<u64>());
    println!("{:>8} messages kept by chat, 0 errors, longest wait {longest:.0?}", said.iter().sum::<u64>());
    verify(&larder, &counts, &said).await?;
    larder.close().await;
    // And what is on the disk says the same.
    let larder = Larder::open(folder.path()).await?;
    verify(&larder, &counts, &said).await?;
    println!("Every count and message is there once, before and after the folder was opened again.");
    larder.close().await;
    Ok(())
}

/// Makes the key–value store panic, and waits until it serves again, after so many restarts in all.
async fn panic_and_recover(larder: &Larder, moment: &str, point: Failpoint, restarts: u64) -> Result<()> {
    println!("\n{moment}");
    let mut events = larder.events();
    let written = writes(larder);
    wait_until(&mut events, || writes(larder).iter().zip(&written).all(|(now, before)| *now > before + 100)).await?;
    let (panics, began) = (kv(larder).map_or(0, |kv| kv.panic_count), Instant::now());
    larder.set_failpoint(StoreName::Kv, point, FailpointAction::Panic, 1);
    let is_well = |kv: larder::StoreObservation| {
        kv.panic_count > panics && kv.restart_count == restarts && kv.state == StoreState::Serving
    };
    wait_until(&mut events, || kv(larder).is_some_and(is_well)).await?;
    println!("  serving again after {:.1?}, restarts so far: {restarts}", began.elapsed());
    Ok(())
}

/// Looks whenever a store changes its state, and now and then in between, since not everything is such a change.
async fn wait_until(
    events: &mut (impl Stream<Item = StoreEvent> + Unpin),
    mut is_so: impl FnMut() -> bool,
) -> Result<()> {
    let waiting = async {
        while !is_so() {
            let _ = tokio::time::timeout(Duration::from_millis(1), events.next()).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.map_err(|_| "the store does not recover".into())
}

/// How many writes each of the two stores has answered.
fn writes(larder: &Larder) -> [u64; 2] {
    let stores = larder.observe();
    [StoreName::Kv, StoreName::Chat]
        .map(|name| stores.iter().find(|store| store.store == name).map_or(0, |s| s.write_count))
}

fn kv(larder: &Larder) -> Option<larder::StoreObservation> {
    larder.observe().into_iter().find(|store| store.store == StoreName::Kv)
}

/// What the callers of a failing store were told.
#[derive(Debug, Default)]
struct Told {
    applied: u64,
    not_applied: u64,
    unknown: u64,
}

impl Told {
    fn add(&mut self, other: &Self) {
        self.applied += other.applied;
        self.not_applied += other.not_applied;
        self.unknown += other.unknown;
    }
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { applied, not_applied, unknown } = self;
        write!(f, "on the way {applied} errors said applied, {not_applied} not applied, {unknown} unknown")
    }
}

/// Counts up its own counter; repeats a count that was not acknowledged, under the same key, so that it counts once.
async fn count_up(larder: Larder, caller: usize, is_over: Arc<AtomicBool>) -> Result<(u64, Told)> {
    let counters = larder.kv().collection::<u64>("counters");
    let (mut count, mut told) = (0, Told::default());
    while !is_over.load(Ordering::Acquire) {
        let mut attempts = 0;
        let reached = loop {
            let counting = counters.increment(caller.to_string(), 1).idempotency_key(format!("{caller}-{count}"));
            match counting.await {
                Ok(reached) => break reached,
                Err(error) if attempts == ATTEMPTS_MAX => return Err(error.into()),
                Err(error) => {
                    match error.written() {
                        larder::Written::Applied => told.applied += 1,
                        larder::Written::NotApplied => told.not_applied += 1,
                        larder::Written::Unknown => told.unknown += 1,
                    }
                    attempts += 1;
                }
            }
        };
        count += 1;
        if reached != i64::try_from(count)? {
            return Err(format!("caller {caller} counted {count}, the store {reached}").into());
        }
    }
    Ok((count, told))
}

/// Appends messages, and accepts no error at all.
async fn talk(larder: Larder, caller: usize, is_over: Arc<AtomicBool>) -> Result<(u64, Duration)> {
    let session = larder.chat().session(format!("caller-{caller}"));
    let (mut count, mut longest) = (0, Duration::ZERO);
    while !is_over.load(Ordering::Acquire) {
        let began = Instant::now();
        session.append([ChatMessage::user(format!("message {count}"))]).await?;
        longest = longest.max(began.elapsed());
        count += 1;
    }
    Ok((count, longest))
}

async fn verify(larder: &Larder, counts: &[u64], said: &[u64]) -> Result<()> {
    for (caller, count) in counts.iter().enumerate() {
        let found = larder.kv().collection::<u64>("counters").get(caller.to_string()).await?;
        if found != Some(*count) {
            return Err(format!("caller {caller} counted {count}, the store has {found:?}").into());
        }
    }
    for (caller, count) in said.iter().enumerate() {
        let found = larder.chat().session(format!("caller-{caller}")).description().await?;
        let found = found.map_or(0, |session| session.message_count);
        if found != *count {
            return Err(format!("caller {caller} said {count} messages, the store has {found}").into());
        }
    }
    Ok(())
}
