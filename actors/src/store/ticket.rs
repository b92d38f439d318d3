//! One request's life: waiting, running, over. Decides who may still call it off, and interrupts SQLite for it.
//!
//! Always true: a request that was called off while waiting never runs; an interrupt only ever hits the statements of the
//! request that it was meant for.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, InterruptHandle};

use crate::sqlite::interrupt::{CallOff, Scope};

/// Shared by the caller and the thread that serves it.
#[derive(Debug)]
pub(super) struct Ticket {
    deadline: Instant,
    stage: Mutex<Stage>,
    /// Ends the request's next statement, where none runs at the moment.
    call_off: Arc<CallOff>,
}

enum Stage {
    Waiting,
    Running(InterruptHandle),
    /// It ran, and waits for its group's COMMIT; a replay of the group may run it again.
    Ran,
    CalledOff,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Waiting => "Waiting",
            Self::Running(_) => "Running",
            Self::Ran => "Ran",
            Self::CalledOff => "CalledOff",
        })
    }
}

/// What became of calling a request off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CalledOff {
    /// It had not begun and never will.
    BeforeStart,
    /// It had begun; a running statement was interrupted, but the change may be committed.
    TooLate,
}

impl Ticket {
    pub(super) fn new(deadline: Instant) -> Self {
        Self { deadline, stage: Mutex::new(Stage::Waiting), call_off: Arc::default() }
    }

    pub(super) fn is_past_deadline(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Marks the request as running on `connection`; answers `false` when it was called off.
    pub(super) fn start(&self, connection: &Connection) -> bool {
        let mut stage = self.stage();
        if matches!(*stage, Stage::CalledOff) {
            return false;
        }
        *stage = Stage::Running(connection.get_interrupt_handle());
        true
    }

    /// Lets this thread's statements end once the request is called off, or is older than `age_max`.
    pub(super) fn scope(&self, age_max: Option<Duration>) -> Scope {
        Scope::enter(&self.call_off, age_max)
    }

    /// Marks the end of a run: from here on an interrupt would hit another request.
    pub(super) fn finish(&self) {
        *self.stage() = Stage::Ran;
    }

    /// Calls the request off, because its deadline passed or its caller went away.
    pub(super) fn call_off(&self) -> CalledOff {
        let mut stage = self.stage();
        match &*stage {
            Stage::Waiting | Stage::CalledOff => {
                *stage = Stage::CalledOff;
                CalledOff::BeforeStart
            }
            // The lock is held, so the statement that is interrupted is this request's own.
            Stage::Running(handle) => {
                self.call_off.call_off();
                handle.interrupt();
                CalledOff::TooLate
            }
            Stage::Ran => CalledOff::TooLate,
        }
    }

    /// Returns whether the request ever began.
    pub(super) fn has_begun(&self) -> bool {
        matches!(*self.stage(), Stage::Running(_) | Stage::Ran)
    }

    fn stage(&self) -> std::sync::MutexGuard<'_, Stage> {
        // A panic while the lock is held cannot leave a half-made stage: each change is one assignment.
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
