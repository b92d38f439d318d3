//! Waiting for another process's lock: short jittered sleeps up to a deadline, where SQLite's own back-off starves.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::fault::Fault;

/// A waiting connection gives up after this; the caller then gets a typed error, never `SQLITE_BUSY`.
pub(super) const LOCK_WAIT_MAX: Duration = Duration::from_secs(10);

/// The longest single sleep. A group takes 1–4 ms, so a waiter notices a free lock within a fraction of one.
const SLEEP_MAX: Duration = Duration::from_micros(800);

thread_local! {
    /// When the wait in progress began. rusqlite 0.39 takes a plain function here, so the state is the thread's.
    static WAITING_SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
    /// A cheap random sequence; only its spread between threads matters.
    static JITTER: Cell<u32> = Cell::new(std::process::id() ^ 0x9E37_79B9);
}

/// SQLite's busy callback: sleeps and says whether to try again. `attempt` is 0 when a new wait begins.
#[expect(
    clippy::disallowed_methods,
    reason = "SQLite asks for a synchronous wait, on a thread that is the store's own"
)]
pub(super) fn wait_for_lock(attempt: i32) -> bool {
    let since = match WAITING_SINCE.get() {
        Some(since) if attempt > 0 => since,
        _ => {
            let now = Instant::now();
            WAITING_SINCE.set(Some(now));
            now
        }
    };
    if since.elapsed() > LOCK_WAIT_MAX {
        return false;
    }
    std::thread::sleep(next_sleep());
    true
}

/// Tries `work` again for as long as another process is in its way. For the few steps that SQLite refuses at once instead
/// of waiting, since two that wait for each other there would wait for ever: entering WAL mode is one.
#[expect(clippy::disallowed_methods, reason = "waits for another process, on a thread that serves nobody yet")]
pub(super) fn retry<T>(mut work: impl FnMut() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let since = Instant::now();
    loop {
        match work() {
            Err(error) if Fault::of(&error) == Fault::Contention && since.elapsed() < LOCK_WAIT_MAX => {
                std::thread::sleep(next_sleep());
            }
            result => return result,
        }
    }
}

fn next_sleep() -> Duration {
    let mut state = JITTER.get().max(1);
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    JITTER.set(state);
    SLEEP_MAX / 8 + SLEEP_MAX * (state % 7) / 8
}
