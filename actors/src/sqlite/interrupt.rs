//! Ending a request's statements from outside: SQLite asks every few steps whether the request it works for is over.
//!
//! Start at [`Scope::enter`]. An `InterruptHandle` alone ends only the statement that runs at that instant; called off
//! between two statements, a handler would run on to its end.
//!
//! Always true: what SQLite does for nobody's request (COMMIT, checkpoints, the machinery's own rows) is never ended here.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Steps of SQLite's virtual machine between two questions. Few enough that any statement on a table asks at least once.
pub(super) const STEPS: i32 = 16;

/// Questions between two looks at the clock, about a thousand steps.
const CLOCK_QUESTIONS: u32 = 64;

thread_local! {
    /// The request that this thread works for. rusqlite's callback is a plain function here, so the state is the thread's.
    static RUNNING: RefCell<Option<Running>> = const { RefCell::new(None) };
}

/// Whether a request is called off, seen by caller and server.
#[derive(Debug, Default)]
pub(crate) struct CallOff(AtomicBool);

impl CallOff {
    pub(crate) fn call_off(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_called_off(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What this thread's connection works for, and until when at most.
#[derive(Debug)]
struct Running {
    call_off: Arc<CallOff>,
    age_max: Option<Duration>,
    until: Option<Instant>,
    questions: Cell<u32>,
}

/// This thread works for a request until this is dropped.
#[derive(Debug)]
pub(crate) struct Scope;

impl Scope {
    /// Lets this thread's statements end when the request is called off, or after `age_max`.
    pub(crate) fn enter(call_off: &Arc<CallOff>, age_max: Option<Duration>) -> Self {
        let mut running = Running { call_off: Arc::clone(call_off), age_max, until: None, questions: Cell::new(0) };
        running.begin_age();
        RUNNING.set(Some(running));
        Self
    }
}

/// Lets the age of this thread's request begin anew, where it has just ended its transaction: the age is there so that none lasts.
pub(crate) fn renew_age() {
    RUNNING.with_borrow_mut(|running| running.as_mut().map(Running::begin_age));
}

impl Drop for Scope {
    fn drop(&mut self) {
        RUNNING.set(None);
    }
}

impl Running {
    fn begin_age(&mut self) {
        self.until = self.age_max.and_then(|age_max| Instant::now().checked_add(age_max));
    }

    fn is_over(&self) -> bool {
        if self.call_off.is_called_off() {
            return true;
        }
        let Some(until) = self.until else { return false };
        let questions = self.questions.get().wrapping_add(1);
        self.questions.set(questions);
        questions.is_multiple_of(CLOCK_QUESTIONS) && Instant::now() >= until
    }
}

/// Whether this thread's request is over: SQLite's progress callback, where `true` ends the statement, and what a handler
/// asks that works for long beside SQLite.
pub(crate) fn is_over() -> bool {
    // Not `with_borrow` alone: SQLite may ask while the thread's locals are being destroyed.
    RUNNING.try_with(|running| running.borrow().as_ref().is_some_and(Running::is_over)).unwrap_or(false)
}

/// Returns SQLite's error for a statement that was ended here, for what works beside SQLite.
pub(crate) fn interrupted() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_INTERRUPT), None)
}
