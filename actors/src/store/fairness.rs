//! How reads on the caller's own threads leave room for the caller's other tasks.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

/// What reads that never wait cost, in parts of about 0.1 µs.
pub(super) const IN_PLACE_READ_COST: u32 = 64;
pub(super) const MEMORY_READ_COST: u32 = 4;
/// A thread does so much, 100 µs, before it lets another task run, and so much less among many readers that all of them
/// together have had their turn within about 1.6 ms. tokio looks at its timers once all tasks had theirs: with its own
/// budget of 128 steps a task, a timer beside 256 readers came 200 ms late. Letting others run costs a lone reader as much
/// as a read.
const TURN_COST_MAX: u32 = 1_000;
const ROUND_COST_MAX: u32 = 16_000;

thread_local! {
    /// What this thread read since it last let another task run.
    static COST: Cell<u32> = const { Cell::new(0) };
}

/// How many callers of this process let others run, and wait for their next turn.
static WAITING_COUNT: AtomicU32 = AtomicU32::new(0);

/// Lets the caller's other tasks run now and then: a read in place never waits, so a loop of them would hold the thread.
pub(super) async fn let_others_run(cost: u32) {
    let sum = COST.get() + cost;
    let reader_count = WAITING_COUNT.load(Ordering::Relaxed) + 1;
    if sum < TURN_COST_MAX.min(ROUND_COST_MAX / reader_count) {
        COST.set(sum);
        return;
    }
    COST.set(0);
    let _waiting = Waiting::new();
    tokio::task::yield_now().await;
}

/// Lets the caller's other tasks run now and then, behind so many answers from memory.
pub async fn let_others_run_after_memory_reads(count: u32) {
    let_others_run(count.saturating_mul(MEMORY_READ_COST)).await;
}

/// Counts a waiting caller, cancelled ones only as long as they wait.
struct Waiting;

impl Waiting {
    fn new() -> Self {
        WAITING_COUNT.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING_COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}
