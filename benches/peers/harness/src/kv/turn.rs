//! One turn: callers run a load over the prepared entries; then the contents must be exactly what was acknowledged.
//!
//! Always true: a caller writes only its own share of the keys, so that the order of its own writes decides the contents,
//! however callers interleave.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::load::{BATCH_PUTS, Call, HOT_KEYS, Load, NEW_KEY_ONE_IN, SCAN_ROWS};
use super::{PAGE_ROWS, Peer, Row, entry};
use crate::Result;
use crate::callers::{self, Carrier, Stop};
use crate::latency::Percentiles;
use crate::peer::TurnReport;
use crate::random::Random;

/// Reads that take a microsecond are timed once in this many, since reading the clock twice costs a tenth of one.
const READS_PER_TIMED: u64 = 8;

/// How long to measure, and how long to run the same load before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    measured: Duration,
    warm_up: Duration,
}

impl Times {
    pub(super) fn new(seconds: f64, warm_up_seconds: f64) -> Result<Self> {
        let measured = Duration::try_from_secs_f64(seconds)?;
        Ok(Self { measured, warm_up: Duration::try_from_secs_f64(warm_up_seconds)? })
    }
}

/// Runs one turn.
pub(super) fn run<P: Peer>(runtime: &Runtime, peer: P, load: &Load, times: Times, seed: u64) -> Result<TurnReport> {
    let work = Arc::new(Work { peer, load: load.clone(), scan_keys: scan_keys(load) });
    let carrier = if load.writes() { P::WRITERS } else { Carrier::Task };
    let calls = |caller: Caller, stop: Stop| {
        let work = Arc::clone(&work);
        async move { caller.run(&work, &stop).await }
    };
    let states = (0..load.caller_count).map(|number| Caller::new(number, load, seed)).collect();
    let (mut states, _) = callers::run(runtime, carrier, times.warm_up, states, calls)?;
    states.iter_mut().for_each(Caller::forget_times);
    let (mut states, elapsed) = callers::run(runtime, carrier, times.measured, states, calls)?;
    if load.writes() {
        runtime.block_on(check_contents(&work.peer, load, &states))?;
    }
    let latencies = states.iter_mut().flat_map(|caller| std::mem::take(&mut caller.latencies)).collect();
    Ok(TurnReport {
        calls: states.iter().map(|caller| caller.call_count).sum(),
        seconds: elapsed.as_secs_f64(),
        latency: Percentiles::of(latencies).ok_or("no call ended in the measured time")?,
    })
}

/// What all callers share.
struct Work<P> {
    peer: P,
    load: Load,
    /// In order; empty unless the load scans.
    scan_keys: Vec<String>,
}

fn scan_keys(load: &Load) -> Vec<String> {
    if load.call != Call::Scan {
        return Vec::new();
    }
    let mut keys: Vec<String> = (0..load.entry_count()).map(entry::key).collect();
    keys.sort_unstable();
    keys
}

/// One caller: its draws, what it wrote, and what it measured.
struct Caller {
    number: u64,
    caller_count: u64,
    /// Preloaded entries whose number is the caller's, modulo the number of callers.
    own_entry_count: u64,
    random: Random,
    version: u64,
    new_key_count: u64,
    written: BTreeMap<u64, u64>,
    call_count: u64,
    latencies: Vec<Duration>,
}

impl Caller {
    fn new(number: u64, load: &Load, seed: u64) -> Self {
        Self {
            number,
            caller_count: load.caller_count,
            own_entry_count: load.entry_count() / load.caller_count,
            random: Random::new(seed, number),
            version: 0,
            new_key_count: 0,
            written: BTreeMap::new(),
            call_count: 0,
            latencies: Vec::new(),
        }
    }

    fn forget_times(&mut self) {
        self.call_count = 0;
        self.latencies.clear();
    }

    async fn run<P: Peer>(mut self, work: &Work<P>, stop: &Stop) -> Result<Self> {
        let load = &work.load;
        let timed_every = if matches!(load.call, Call::Get | Call::HotGet) { READS_PER_TIMED } else { 1 };
        while !stop.is_set() {
            let is_timed = self.call_count.is_multiple_of(timed_every);
            let latency = match load.call {
                Call::Put => self.put(work, is_timed).await?,
                Call::Batch => self.put_batch(work, is_timed).await?,
                Call::Get => self.get(work, load.entry_count(), is_timed).await?,
                Call::HotGet => self.get(work, HOT_KEYS, is_timed).await?,
                Call::Mix if self.random.below(2) == 0 => self.put(work, is_timed).await?,
                Call::Mix => self.get(work, load.entry_count(), is_timed).await?,
                Call::Scan => self.scan(work, is_timed).await?,
            };
            self.call_count += 1;
            self.latencies.extend(latency);
            // Calls that never wait would otherwise keep a worker from the other callers for ever.
            tokio::task::consume_budget().await;
        }
        Ok(self)
    }

    async fn put<P: Peer>(&mut self, work: &Work<P>, is_timed: bool) -> Result<Option<Duration>> {
        let (key, value) = self.next_row(work.load.value_bytes);
        let (result, latency) = timed(is_timed, work.peer.put(key, value)).await;
        result.map(|()| latency)
    }

    async fn put_batch<P: Peer>(&mut self, work: &Work<P>, is_timed: bool) -> Result<Option<Duration>> {
        let rows = (0..BATCH_PUTS).map(|_| self.next_row(work.load.value_bytes)).collect();
        let (result, latency) = timed(is_timed, work.peer.put_many(rows)).await;
        result.map(|()| latency)
    }

    async fn get<P: Peer>(&mut self, work: &Work<P>, key_count: u64, is_timed: bool) -> Result<Option<Duration>> {
        let index = self.random.below(key_count);
        let key = entry::key(index);
        let (value, latency) = timed(is_timed, work.peer.get(&key)).await;
        entry::check_stamp(value?.as_deref(), index, work.load.value_bytes)?;
        Ok(latency)
    }

    async fn scan<P: Peer>(&mut self, work: &Work<P>, is_timed: bool) -> Result<Option<Duration>> {
        let last_start = (work.scan_keys.len() - SCAN_ROWS) as u64;
        let start = self.random.below(last_start + 1) as usize;
        let expected = work.scan_keys.get(start..start + SCAN_ROWS).unwrap_or_default();
        let from = expected.first().ok_or("too few entries to scan")?;
        let (rows, latency) = timed(is_timed, work.peer.scan(from, SCAN_ROWS)).await;
        let rows = rows?;
        let is_right = rows.len() == SCAN_ROWS
            && rows.first().map(|(key, _)| key) == expected.first()
            && rows.last().map(|(key, _)| key) == expected.last()
            && rows.iter().all(|(_, value)| value.len() == work.load.value_bytes);
        if is_right { Ok(latency) } else { Err(format!("the scan from {from} gave wrong rows").into()) }
    }

    /// Draws a key of the caller's own and its next value, and notes them as written: every put either succeeds or ends the
    /// turn.
    fn next_row(&mut self, value_bytes: usize) -> Row {
        let entry_number = if self.random.below(NEW_KEY_ONE_IN) == 0 {
            self.new_key_count += 1;
            self.own_entry_count + self.new_key_count
        } else {
            self.random.below(self.own_entry_count)
        };
        let index = entry_number * self.caller_count + self.number;
        self.version += 1;
        self.written.insert(index, self.version);
        (entry::key(index), entry::value(index, self.version, value_bytes))
    }
}

async fn timed<T>(is_timed: bool, call: impl Future<Output = T>) -> (T, Option<Duration>) {
    if !is_timed {
        return (call.await, None);
    }
    let start = Instant::now();
    let result = call.await;
    (result, Some(start.elapsed()))
}

/// Reads everything and compares it, byte for byte, with the preloaded entries and every caller's last writes.
async fn check_contents<P: Peer>(peer: &P, load: &Load, callers: &[Caller]) -> Result<()> {
    let mut versions: BTreeMap<u64, u64> = (0..load.entry_count()).map(|index| (index, 0)).collect();
    versions.extend(callers.iter().flat_map(|caller| caller.written.iter().map(|(&index, &version)| (index, version))));
    let mut expected: Vec<(String, u64, u64)> =
        versions.into_iter().map(|(index, version)| (entry::key(index), index, version)).collect();
    expected.sort_unstable();

    let mut next = String::new();
    for page in expected.chunks(PAGE_ROWS) {
        let rows = peer.scan(&next, PAGE_ROWS).await?;
        if rows.len() != page.len() {
            return Err(format!("{} rows from {next:?} where {} were written", rows.len(), page.len()).into());
        }
        for ((key, index, version), row) in page.iter().zip(&rows) {
            if (key, &entry::value(*index, *version, load.value_bytes)) != (&row.0, &row.1) {
                return Err(format!("{key} does not hold the write numbered {version}, the last acknowledged").into());
            }
        }
        next = page.last().map_or_else(String::new, |(key, ..)| format!("{key}\0"));
    }
    let rest = peer.scan(&next, 1).await?;
    if rest.is_empty() { Ok(()) } else { Err("there are rows that nobody wrote".into()) }
}

#[cfg(test)]
mod tests {
    use super::super::model::Model;
    use super::super::{OpenOptions, script};
    use super::*;
    use crate::peer::About;
    use crate::random::mix;

    fn filled(load: &Load) -> Vec<Row> {
        (0..load.entry_count()).map(|index| (entry::key(index), entry::value(index, 0, load.value_bytes))).collect()
    }

    fn turn<P: Peer + Default>(load: &str) -> Result<TurnReport> {
        let (runtime, load) = (callers::runtime()?, load.parse()?);
        let peer = P::default();
        runtime.block_on(peer.put_many(filled(&load)))?;
        run(&runtime, peer, &load, Times::new(0.05, 0.01)?, 1)
    }

    #[test]
    fn the_model_passes_every_load() {
        for load in Load::quick() {
            let report = turn::<Model>(&load.to_string()).unwrap_or_else(|error| panic!("{load}: {error}"));
            assert!(report.calls > 0, "{load}");
        }
    }

    /// The control: it forgets one put in about a hundred, and says of every deletion that there was something.
    #[derive(Default)]
    struct Broken(Model);

    impl Peer for Broken {
        const WRITERS: Carrier = Carrier::Thread;

        fn about() -> About {
            Model::about()
        }
        async fn open(options: OpenOptions) -> Result<Self> {
            Ok(Self(Model::open(options).await?))
        }
        async fn put(&self, key: String, value: Vec<u8>) -> Result<()> {
            let is_forgotten = value.get(8).is_some_and(|&byte| mix(u64::from(byte)).is_multiple_of(100));
            if is_forgotten { Ok(()) } else { self.0.put(key, value).await }
        }
        async fn put_many(&self, entries: Vec<Row>) -> Result<()> {
            self.0.put_many(entries).await
        }
        async fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
            self.0.get(key).await
        }
        async fn delete(&self, key: &str) -> Result<bool> {
            self.0.delete(key).await.map(|_| true)
        }
        async fn scan(&self, from: &str, limit: usize) -> Result<Vec<Row>> {
            self.0.scan(from, limit).await
        }
        async fn close(self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_forgotten_put_is_caught() {
        assert!(turn::<Broken>("put-64").is_err());
        assert!(turn::<Broken>("put-1").is_err());
    }

    #[test]
    fn a_wrong_answer_differs_from_the_model() {
        let runtime = callers::runtime().unwrap();
        let right = runtime.block_on(script::run(&Model::default())).unwrap();
        let wrong = runtime.block_on(script::run(&Broken::default())).unwrap();
        assert_ne!(right, wrong);
    }
}
