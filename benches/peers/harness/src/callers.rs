//! N concurrent callers for a while: tokio tasks on two workers, or OS threads.
//!
//! Always true: callers start together; each finishes the call it is in when time is up, and that call counts, as does the
//! time until the last one ends.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Barrier;

use crate::Result;

/// What carries one caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// A tokio task: the engine's calls are asynchronous, or so short that they run in place.
    Task,
    /// An OS thread that blocks in the engine's own synchronous call, with no hop in between: the fastest honest way to have
    /// N callers wait for a synchronous engine.
    Thread,
}

/// Told to every caller when its time is up.
#[derive(Debug, Clone)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Whether to stop before the next call.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The runtime every peer gets: multi-thread with two workers.
///
/// # Errors
/// The operating system refuses threads.
pub fn runtime() -> Result<Runtime> {
    Ok(Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// Runs one caller per element of `states` for `duration`; gives the states back, and the time until the last caller ended.
///
/// # Errors
/// The first error of a caller.
pub fn run<S, Call, Calls>(
    runtime: &Runtime,
    carrier: Carrier,
    duration: Duration,
    states: Vec<S>,
    caller: Call,
) -> Result<(Vec<S>, Duration)>
where
    S: Send + 'static,
    Call: Fn(S, Stop) -> Calls,
    Calls: Future<Output = Result<S>> + Send + 'static,
{
    let stop = Stop(Arc::new(AtomicBool::new(false)));
    let gate = Arc::new(Barrier::new(states.len() + 1));
    let mut callers = Vec::with_capacity(states.len());
    for state in states {
        let (gate, calls) = (Arc::clone(&gate), caller(state, stop.clone()));
        let work = async move {
            gate.wait().await;
            let state = calls.await?;
            Ok((state, Instant::now()))
        };
        callers.push(Caller::start(runtime, carrier, work)?);
    }
    runtime.block_on(gate.wait());
    let start = Instant::now();
    // This is no worker of the runtime: it may sleep.
    std::thread::sleep(duration);
    stop.0.store(true, Ordering::Relaxed);

    let mut states = Vec::with_capacity(callers.len());
    let mut end = start;
    for caller in callers {
        let (state, ended) = caller.join(runtime)?;
        states.push(state);
        end = end.max(ended);
    }
    Ok((states, end - start))
}

enum Caller<T> {
    Task(tokio::task::JoinHandle<Result<T>>),
    Thread(std::thread::JoinHandle<Result<T>>),
}

impl<T: Send + 'static> Caller<T> {
    fn start(
        runtime: &Runtime,
        carrier: Carrier,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<Self> {
        Ok(match carrier {
            Carrier::Task => Self::Task(runtime.spawn(work)),
            Carrier::Thread => {
                let handle = runtime.handle().clone();
                Self::Thread(std::thread::Builder::new().spawn(move || handle.block_on(work))?)
            }
        })
    }

    fn join(self, runtime: &Runtime) -> Result<T> {
        match self {
            Self::Task(task) => runtime.block_on(task)?,
            Self::Thread(thread) => thread.join().map_err(|_| "a caller's thread panicked")?,
        }
    }
}
