//! Too much at once: thousands of callers on a short queue, and callers that go away at any moment.
//!
//! Start at [`crowd_is_answered_in_time_and_truly`] and [`cancelled_calls_are_applied_once_or_not_at_all`].
//!
//! More: `LARDER_CALLERS=10000 LARDER_CANCELS=100000 cargo test --release --test it overload -- --nocapture`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::StreamExt;
use larder::{Class, Larder, Written};

use crate::support::child::{Child, tell};
use crate::support::{alone, number_from_environment, within};
use crate::torture::Random;

const VALUE_BYTES: usize = 8 << 10;
const QUEUE_BYTES_MAX: usize = 4 << 20;
const QUEUE_MESSAGES_MAX: usize = 1_024;
/// An answer so long after its deadline counts as none: far more than a loaded machine's delay, far less than a hang.
const LATE_MAX: Duration = Duration::from_secs(5);

/// What one caller saw.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Answer {
    Done,
    Refused(Class, Written),
    /// Long past its deadline there was none.
    None,
}

/// One caller's answer, and by how much it came after the deadline.
type Call = (Answer, Duration);

/// Puts under a deadline; `believed` is the deadline that the caller counts on, and the control's differs from it.
async fn call(larder: Larder, key: String, value: Bytes, deadline: Duration, believed: Duration) -> Call {
    let began = Instant::now();
    let put = larder.kv().bytes("crowd").put(key, value).deadline(deadline);
    let answer = match tokio::time::timeout(believed + LATE_MAX, put.into_future()).await {
        Ok(Ok(_)) => Answer::Done,
        Ok(Err(error)) => Answer::Refused(error.class(), error.written()),
        Err(_) => Answer::None,
    };
    (answer, began.elapsed().saturating_sub(believed))
}

/// Returns what is wrong with the answers.
fn judge(calls: &[Call]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (index, (answer, _)) in calls.iter().enumerate() {
        match answer {
            Answer::Done | Answer::Refused(Class::Deadline | Class::Overloaded, _) => {}
            other => wrong.push(format!("caller {index}: {other:?}")),
        }
    }
    wrong
}

async fn open(folder: &Path) -> Larder {
    let builder = Larder::builder(folder).kv(|kv| {
        kv.common.queue_bytes_max = QUEUE_BYTES_MAX;
        kv.common.queue_messages_max = QUEUE_MESSAGES_MAX;
    });
    builder.open().await.unwrap()
}

/// A child that lets so many callers come at once, twice, and tells what became of them and of its memory.
///
/// `bounded`: as larder is. `hoarding`, the control: what waits is kept in memory by whoever waits, without a bound.
pub(crate) fn crowd(mut arguments: impl Iterator<Item = String>) {
    let mut next = || arguments.next().unwrap();
    let (folder, callers, mode) = (next(), next().parse().unwrap(), next());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let larder = open(Path::new(&folder)).await;
        larder.kv().bytes("crowd").put("first", "").await.unwrap();
        let (base, is_over) = (memory_peak_kib(), Arc::new(AtomicBool::new(false)));
        let watch = tokio::spawn(watch(larder.clone(), Arc::clone(&is_over)));
        let calls = send(&larder, callers, mode == "hoarding").await;
        is_over.store(true, Ordering::Release);
        let (messages_max, bytes_max) = watch.await.unwrap();
        tell(&format!("PEAK {}", memory_peak_kib() - base));
        tell(&format!("QUEUE {messages_max} {bytes_max}"));
        tell(&format!("WRONG {}", [judge(&calls), untrue(&larder, &calls).await].concat().join("; ")));
        let done = calls.iter().filter(|(answer, _)| *answer == Answer::Done).count();
        let latest = calls.iter().map(|(_, late)| *late).max().unwrap();
        tell(&format!(
            "FIGURES {done} written, {} refused, latest answer {latest:.1?} past its deadline",
            calls.len() - done
        ));
        larder.close().await;
    });
}

async fn send(larder: &Larder, callers: u64, is_hoarding: bool) -> Vec<Call> {
    // Shared, so that what is measured is not the callers' own memory.
    let value = Bytes::from(vec![7; VALUE_BYTES]);
    let mut hoard = Vec::new();
    let sent: Vec<_> = (0..callers)
        .map(|caller| {
            if is_hoarding {
                hoard.extend((0..8).map(|_| value.to_vec()));
            }
            // From hopeless to comfortable.
            let deadline = Duration::from_millis(1 + caller % 4 * 400);
            tokio::spawn(call(larder.clone(), caller.to_string(), value.clone(), deadline, deadline))
        })
        .collect();
    let mut calls = Vec::new();
    for call in sent {
        calls.push(call.await.unwrap());
    }
    drop(hoard);
    calls
}

/// Looks at the queue all the time; answers the most that ever waited.
async fn watch(larder: Larder, is_over: Arc<AtomicBool>) -> (usize, usize) {
    let (mut messages, mut bytes) = (0, 0);
    while !is_over.load(Ordering::Acquire) {
        let seen = larder.observe().remove(0);
        (messages, bytes) = (messages.max(seen.queue_messages), bytes.max(seen.queue_bytes));
        tokio::task::yield_now().await;
    }
    (messages, bytes)
}

/// What was acknowledged must be there, and what was called not applied must not.
async fn untrue(larder: &Larder, calls: &[Call]) -> Vec<String> {
    let mut wrong = Vec::new();
    let crowd = larder.kv().bytes("crowd");
    for (index, (answer, _)) in calls.iter().enumerate() {
        let is_there = crowd.get(index.to_string()).await.unwrap().is_some();
        let is_true = match answer {
            Answer::Done | Answer::Refused(_, Written::Applied) => is_there,
            Answer::Refused(_, Written::NotApplied) => !is_there,
            Answer::Refused(_, Written::Unknown) | Answer::None => true,
        };
        if !is_true {
            wrong.push(format!("caller {index} was told {answer:?}, and is_there={is_there}"));
        }
    }
    wrong
}

/// The most memory that this process ever had.
#[expect(clippy::disallowed_methods, reason = "the kernel's own file")]
fn memory_peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The queue's budget; page caches of the writer and of those readers that are used; the WAL's index; a task for each caller.
fn memory_bound_kib(callers: u64) -> u64 {
    let caches = 16 << 10;
    (QUEUE_BYTES_MAX as u64 >> 10) + 3 * caches + 8 * callers
}

/// Runs a crowd in a process of its own; answers by how much its memory passed its bound, and what was wrong.
fn run_crowd(callers: u64, mode: &str) -> (u64, String) {
    let folder = tempfile::tempdir().unwrap();
    let child = Child::spawn("crowd", [folder.path().to_str().unwrap(), &callers.to_string(), mode]);
    let peak: u64 = child.wait_for("PEAK").parse().unwrap();
    let queue = child.wait_for("QUEUE");
    let (messages, bytes) = queue.split_once(' ').unwrap();
    assert!(
        messages.parse::<usize>().unwrap() <= QUEUE_MESSAGES_MAX && bytes.parse::<usize>().unwrap() <= QUEUE_BYTES_MAX
    );
    let wrong = child.wait_for("WRONG");
    println!(
        "{callers} callers ({mode}): {}; at most {messages} requests of {bytes} bytes waited; memory grew by {:.1} MiB, {:.1} are allowed",
        child.wait_for("FIGURES"),
        mebibytes(peak),
        mebibytes(memory_bound_kib(callers))
    );
    (peak.saturating_sub(memory_bound_kib(callers)), wrong)
}

#[expect(clippy::cast_precision_loss, reason = "a figure to read")]
fn mebibytes(kibibytes: u64) -> f64 {
    kibibytes as f64 / 1024.0
}

#[tokio::test]
async fn crowd_is_answered_in_time_and_truly() {
    let _alone = alone().await;
    let callers = number_from_environment("LARDER_CALLERS", 3_000);
    let (excess, wrong) = run_crowd(callers, "bounded");
    assert_eq!(wrong, "");
    assert_eq!(excess, 0, "KiB of memory past the bound");
}

#[tokio::test]
async fn control_memory_without_a_bound_is_caught() {
    let _alone = alone().await;
    let callers = number_from_environment("LARDER_CALLERS", 3_000);
    let (excess, _) = run_crowd(callers, "hoarding");
    assert!(excess > 0);
}

/// A store that answers by another deadline than its caller's, while the file is locked: nobody is answered in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_answer_long_past_its_deadline_is_caught() {
    let folder = tempfile::tempdir().unwrap();
    let larder = open(folder.path()).await;
    larder.kv().bytes("crowd").put("first", "").await.unwrap();
    let lock = lock(&folder.path().join("kv.db"));
    let (hour, short) = (Duration::from_secs(3600), Duration::from_millis(10));
    let good = call(larder.clone(), "good".to_owned(), Bytes::new(), short, short).await;
    assert!(judge(&[good]).is_empty(), "{good:?}");
    let late = call(larder.clone(), "late".to_owned(), Bytes::new(), hour, short).await;
    assert!(!judge(&[late]).is_empty(), "{late:?}");
    drop(lock);
    within(larder.close()).await;
}

/// Holds the file's write lock, as another program would.
#[expect(clippy::disallowed_methods, reason = "stands in for another program at the same file")]
fn lock(file: &Path) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(file).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    connection
}

/// Whether a caller sends a cancelled call again.
#[derive(Debug, Clone, Copy, PartialEq)]
enum AfterCancel {
    LeaveIt,
    /// The control: as if a cancelled call could not have been applied.
    SendAgain,
}

/// Counts of calls by what became of them.
#[derive(Debug, Default)]
struct Cancelled {
    answered: u64,
    applied: u64,
    not_applied: u64,
    /// Applied more than once, or answered and not applied.
    wrong: u64,
}

/// Cancels `count` increments, each of a counter of its own, at random moments, and looks what they did.
async fn cancel(count: u64, seed: u64, after: AfterCancel) -> Cancelled {
    let folder = tempfile::tempdir().unwrap();
    let larder = Larder::open(folder.path()).await.unwrap();
    let calls = (0..count).map(|call| cancel_one(larder.clone(), call, Random::of(seed, call), after));
    let answered: Vec<(u64, bool)> = within(futures::stream::iter(calls).buffer_unordered(256).collect()).await;
    within(larder.close()).await;
    let larder = Larder::open(folder.path()).await.unwrap();
    let counters = larder.kv().collection::<i64>("counters");
    let mut cancelled = Cancelled::default();
    for (call, was_answered) in answered {
        let found = counters.get(call.to_string()).await.unwrap().unwrap_or(0);
        cancelled.answered += u64::from(was_answered);
        cancelled.applied += u64::from(found == 1);
        cancelled.not_applied += u64::from(found == 0);
        cancelled.wrong += u64::from(found > 1 || (was_answered && found != 1));
    }
    larder.close().await;
    cancelled
}

async fn cancel_one(larder: Larder, call: u64, mut random: Random, after: AfterCancel) -> (u64, bool) {
    let increment = || larder.kv().collection::<i64>("counters").increment(call.to_string(), 1).into_future();
    // Most never begin, some end before they are cancelled, and some are cancelled in between.
    let patience = 1 << random.below(12);
    let given_up = async {
        for _ in 0..patience {
            tokio::task::yield_now().await;
        }
    };
    let was_answered = tokio::select! {
        biased;
        answer = increment() => { answer.unwrap(); true }
        () = given_up => false,
    };
    if !was_answered && after == AfterCancel::SendAgain {
        increment().await.unwrap();
    }
    (call, was_answered)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_calls_are_applied_once_or_not_at_all() {
    let _alone = alone().await;
    let count = number_from_environment("LARDER_CANCELS", 5_000);
    let seed = number_from_environment("LARDER_SEED", u64::from(std::process::id()));
    println!("LARDER_SEED={seed}");
    let Cancelled { answered, applied, not_applied, wrong } = cancel(count, seed, AfterCancel::LeaveIt).await;
    println!(
        "{count} calls, {answered} answered, the others cancelled: {applied} applied once, {not_applied} not; {wrong} wrong"
    );
    assert_eq!(wrong, 0, "seed {seed}");
    assert!(applied > answered && not_applied > 0, "the calls must be cancelled before and after they are applied");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_sending_a_cancelled_call_again_is_caught() {
    let _alone = alone().await;
    assert!(cancel(5_000, 1, AfterCancel::SendAgain).await.wrong > 0);
}
