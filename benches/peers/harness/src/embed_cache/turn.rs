//! One turn: callers run a load; every answer is checked, and after puts the contents.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::{Call, HOT, MANY, MISSES, Peer, VECTORS, entry};
use crate::Result;
use crate::callers::{self, Carrier, Stop};
use crate::latency::Percentiles;
use crate::peer::TurnReport;
use crate::random::Random;

/// One call in so many is timed where calls take less than reading the clock.
const TIMED_EACH: u64 = 8;
/// Numbers of new vectors begin here, apart for each caller.
const NEW: u64 = 1_000_000;

/// Runs one turn: the times to warm up and to measure, in seconds.
pub(super) fn run<P: Peer>(runtime: &Runtime, peer: P, call: Call, times: (f64, f64), seed: u64) -> Result<TurnReport> {
    let peer = Arc::new(peer);
    // Made ahead: a program has its texts.
    let texts: Arc<Vec<String>> = Arc::new((0..VECTORS).map(entry::text).collect());
    let calls = |caller: Caller, stop: Stop| {
        let (peer, texts) = (Arc::clone(&peer), Arc::clone(&texts));
        async move { caller.run(&*peer, &texts, call, &stop).await }
    };
    let caller =
        |number| Caller { number, random: Random::new(seed, number), made: 0, calls: 0, latencies: Vec::new() };
    let callers = (0..call.caller_count()).map(caller).collect();
    let (warm_up, measured) = (Duration::try_from_secs_f64(times.0)?, Duration::try_from_secs_f64(times.1)?);
    let (mut states, _) = callers::run(runtime, Carrier::Task, warm_up, callers, calls)?;
    for caller in &mut states {
        (caller.calls, caller.latencies) = (0, Vec::new());
    }
    let (states, took) = callers::run(runtime, Carrier::Task, measured, states, calls)?;
    let made = states.iter().map(|caller| caller.made).sum::<u64>();
    runtime.block_on(check_contents(&*peer, &states, made))?;
    let calls = states.iter().map(|caller| caller.calls).sum();
    let latencies = states.into_iter().flat_map(|caller| caller.latencies).collect();
    let latency = Percentiles::of(latencies).ok_or("no call ended in the measured time")?;
    Ok(TurnReport { calls, seconds: took.as_secs_f64(), latency })
}

struct Caller {
    number: u64,
    random: Random,
    /// New vectors that it made.
    made: u64,
    calls: u64,
    latencies: Vec<Duration>,
}

impl Caller {
    fn new_number(&self, made: u64) -> u64 {
        NEW * (self.number + 1) + made
    }

    async fn run<P: Peer>(mut self, peer: &P, texts: &[String], call: Call, stop: &Stop) -> Result<Self> {
        while !stop.is_set() {
            match call {
                Call::HitMemory | Call::HitSqlite => {
                    let number = self.random.below(if call == Call::HitMemory { HOT } else { VECTORS });
                    let text = &texts[usize::try_from(number)?];
                    let start = self.calls.is_multiple_of(TIMED_EACH).then(Instant::now);
                    let found = peer.get(text).await?;
                    self.latencies.extend(start.map(|start| start.elapsed()));
                    let first = found.as_ref().and_then(|vector| vector.as_ref().first());
                    if first != Some(&((number * 31 % 1_000_003) as f32)) {
                        return Err(format!("the vector of {text} begins with {first:?}").into());
                    }
                }
                Call::Put => {
                    let number = self.new_number(self.made);
                    let (text, vector) = (entry::text(number), entry::vector(number));
                    let start = Instant::now();
                    peer.put(&text, vector).await?;
                    self.latencies.push(start.elapsed());
                    self.made += 1;
                }
                Call::GetMany => {
                    let first = usize::try_from(self.random.below(VECTORS - MANY))?;
                    let mut asked = texts[first..first + usize::try_from(MANY - MISSES)?].to_vec();
                    asked.extend((0..MISSES).map(|missing| entry::text(self.new_number(self.made + missing))));
                    let start = Instant::now();
                    let vectors = peer.get_many(&asked).await?;
                    self.latencies.push(start.elapsed());
                    self.made += MISSES;
                    let is_right =
                        asked.iter().zip(&vectors).all(|(text, vector)| entry::embed(text) == vector.as_ref());
                    if vectors.len() != asked.len() || !is_right {
                        return Err("a call for many got other vectors".into());
                    }
                }
            }
            self.calls += 1;
            // Calls that never wait would otherwise keep a worker for ever.
            tokio::task::consume_budget().await;
        }
        Ok(self)
    }
}

/// Everything that was acknowledged is there.
async fn check_contents<P: Peer>(peer: &P, callers: &[Caller], made: u64) -> Result<()> {
    let count = peer.count().await?;
    if count != VECTORS + made {
        return Err(format!("{count} vectors where {} were put", VECTORS + made).into());
    }
    for caller in callers {
        for made in (0..caller.made).step_by(usize::try_from(caller.made / 50 + 1)?) {
            let number = caller.new_number(made);
            let found = peer.get(&entry::text(number)).await?;
            if found.as_ref().map(AsRef::as_ref) != Some(&entry::vector(number)[..]) {
                return Err(format!("the vector of {number} is not what was put").into());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::model::Model;
    use super::super::{fill, script};
    use super::*;
    use crate::peer::About;

    fn filled<P: Peer>(runtime: &Runtime) -> P {
        runtime.block_on(async {
            let peer = P::open(PathBuf::new(), true).await.unwrap();
            fill(&peer).await.unwrap();
            peer
        })
    }

    #[test]
    fn the_model_passes() {
        let runtime = callers::runtime().unwrap();
        for call in [Call::HitMemory, Call::Put, Call::GetMany] {
            assert!(run(&runtime, filled::<Model>(&runtime), call, (0.01, 0.05), 1).unwrap().calls > 0);
        }
    }

    /// The control: it forgets every put.
    struct Broken(Model);

    impl Peer for Broken {
        type Vector = Arc<[f32]>;

        fn about() -> About {
            Model::about()
        }
        async fn open(folder: PathBuf, in_memory: bool) -> Result<Self> {
            Ok(Self(Model::open(folder, in_memory).await?))
        }
        async fn get(&self, text: &str) -> Result<Option<Arc<[f32]>>> {
            self.0.get(text).await
        }
        async fn put(&self, _: &str, _: Vec<f32>) -> Result<()> {
            Ok(())
        }
        async fn get_many(&self, texts: &[String]) -> Result<Vec<Arc<[f32]>>> {
            self.0.get_many(texts).await
        }
        async fn count(&self) -> Result<u64> {
            self.0.count().await
        }
        async fn close(self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_forgotten_put_is_caught() {
        let runtime = callers::runtime().unwrap();
        assert!(run(&runtime, filled::<Broken>(&runtime), Call::Put, (0.01, 0.05), 1).is_err());
        let answers = runtime.block_on(script::run(&Broken(Model::default()))).unwrap();
        assert_ne!(answers, runtime.block_on(script::run(&Model::default())).unwrap());
    }
}
