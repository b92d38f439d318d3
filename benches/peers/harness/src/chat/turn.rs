//! One turn: callers run a load; every answer is checked, and after appends the contents.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::{Call, Load, Peer, SESSION, WINDOW_TOKENS, entry, model, script};
use crate::Result;
use crate::callers::{self, Carrier, Stop};
use crate::latency::Percentiles;
use crate::peer::TurnReport;
use crate::random::Random;

/// Runs one turn: the times to warm up and to measure, in seconds.
pub(super) fn run<P: Peer>(runtime: &Runtime, peer: P, load: Load, times: (f64, f64), seed: u64) -> Result<TurnReport> {
    let work = Arc::new(Work { peer, load, window: expected_window(&load) });
    let calls = |caller: Caller, stop: Stop| {
        let work = Arc::clone(&work);
        async move { caller.run(&work, &stop).await }
    };
    let (warm_up, measured) = (Duration::try_from_secs_f64(times.0)?, Duration::try_from_secs_f64(times.1)?);
    let states = (0..load.caller_count).map(|number| Caller::new(number, seed)).collect();
    let (mut states, _) = callers::run(runtime, Carrier::Task, warm_up, states, calls)?;
    for caller in &mut states {
        (caller.call_count, caller.latencies) = (0, Vec::new());
    }
    let (mut states, elapsed) = callers::run(runtime, Carrier::Task, measured, states, calls)?;
    if load.call == Call::Append {
        runtime.block_on(check_contents(&work.peer, &states))?;
    }
    let latencies = states.iter_mut().flat_map(|caller| std::mem::take(&mut caller.latencies)).collect();
    Ok(TurnReport {
        calls: states.iter().map(|caller| caller.call_count).sum(),
        seconds: elapsed.as_secs_f64(),
        latency: Percentiles::of(latencies).ok_or("no call ended in the measured time")?,
    })
}

struct Work<P> {
    peer: P,
    load: Load,
    /// What every window must hold.
    window: Vec<String>,
}

fn expected_window(load: &Load) -> Vec<String> {
    let first = load.message_count.saturating_sub(WINDOW_TOKENS / 16);
    let said: Vec<_> = (first..load.message_count).map(entry::message).collect();
    model::window(&said, WINDOW_TOKENS).iter().map(|message| message.text.clone()).collect()
}

/// One caller: what it appended, and what it measured.
struct Caller {
    number: u64,
    random: Random,
    appended: u64,
    call_count: u64,
    latencies: Vec<Duration>,
}

impl Caller {
    fn new(number: u64, seed: u64) -> Self {
        Self { number, random: Random::new(seed, number), appended: 0, call_count: 0, latencies: Vec::new() }
    }

    fn session(&self) -> String {
        format!("caller {}", self.number)
    }

    /// Messages of other numbers for each caller, so that no two sessions are alike.
    fn message(&self, at: u64) -> entry::Said {
        entry::message(self.number * 1_000_000 + at)
    }

    async fn run<P: Peer>(mut self, work: &Work<P>, stop: &Stop) -> Result<Self> {
        let peer = &work.peer;
        while !stop.is_set() {
            match work.load.call {
                Call::Append => {
                    let (session, message) = (self.session(), self.message(self.appended));
                    let start = Instant::now();
                    peer.append(&session, vec![message]).await?;
                    self.latencies.push(start.elapsed());
                    self.appended += 1;
                }
                Call::Window => {
                    let start = Instant::now();
                    let window = peer.window(SESSION, WINDOW_TOKENS).await?;
                    self.latencies.push(start.elapsed());
                    if window != work.window {
                        return Err(format!("a window of {} messages, not {}", window.len(), work.window.len()).into());
                    }
                }
                Call::Search => {
                    let number = self.random.below(work.load.message_count);
                    let topic = entry::topic(number);
                    let start = Instant::now();
                    let found = peer.search(SESSION, &topic, 10).await?;
                    self.latencies.push(start.elapsed());
                    script::check_found(&found, number, work.load.message_count)?;
                }
            }
            self.call_count += 1;
            // Calls that never wait would otherwise keep a worker from the other callers for ever.
            tokio::task::consume_budget().await;
        }
        Ok(self)
    }
}

/// Every caller's session holds what was acknowledged, and its newest turns are the last ones appended.
async fn check_contents<P: Peer>(peer: &P, callers: &[Caller]) -> Result<()> {
    for caller in callers {
        let (session, appended) = (caller.session(), caller.appended);
        let count = peer.count(&session).await?;
        if count != appended {
            return Err(format!("{session} has {count} messages where {appended} were appended").into());
        }
        let said: Vec<_> = (appended.saturating_sub(500)..appended).map(|at| caller.message(at)).collect();
        let expected = model::window(&said, WINDOW_TOKENS).iter().map(|message| message.text.clone());
        if peer.window(&session, WINDOW_TOKENS).await? != expected.collect::<Vec<_>>() {
            return Err(format!("the window of {session} does not hold what was appended last").into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::entry::Said;
    use super::super::model::Model;
    use super::*;
    use crate::peer::{About, Durability};
    use crate::random::mix;

    fn turn<P: Peer + Default>(load: &str) -> Result<TurnReport> {
        let (runtime, load) = (callers::runtime()?, load.parse::<Load>()?);
        let peer = P::default();
        runtime.block_on(peer.append(SESSION, (0..load.message_count).map(entry::message).collect()))?;
        run(&runtime, peer, load, (0.01, 0.05), 1)
    }

    #[test]
    fn the_model_passes() {
        for load in ["append-1", "append-64", "window-100"] {
            assert!(turn::<Model>(load).unwrap_or_else(|error| panic!("{load}: {error}")).calls > 0);
        }
    }

    /// The control: it forgets what assistants say every now and then.
    #[derive(Default)]
    struct Broken(Model);

    impl Peer for Broken {
        fn about() -> About {
            Model::about()
        }
        async fn open(folder: std::path::PathBuf, durability: Durability) -> Result<Self> {
            Ok(Self(Model::open(folder, durability).await?))
        }
        async fn append(&self, session: &str, mut messages: Vec<Said>) -> Result<()> {
            messages.retain(|message| message.role == "user" || !mix(message.text.len() as u64).is_multiple_of(3));
            self.0.append(session, messages).await
        }
        async fn window(&self, session: &str, tokens: u64) -> Result<Vec<String>> {
            self.0.window(session, tokens).await
        }
        async fn search(&self, session: &str, word: &str, limit: usize) -> Result<Vec<String>> {
            self.0.search(session, word, limit).await
        }
        async fn count(&self, session: &str) -> Result<u64> {
            self.0.count(session).await
        }
        async fn close(self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_forgotten_message_is_caught() {
        assert!(turn::<Broken>("append-64").is_err());
        assert!(turn::<Broken>("window-100").is_err());
    }
}
