//! Load tests of the key–value store through its public API: how many operations a second, and how long the slowest took.
//!
//! ```sh
//! cargo bench --bench kv                    # everything: a few minutes
//! cargo bench --bench kv -- put/durable     # only the loads whose name holds this
//! ```
//!
//! Start at [`LOADS`]. A load is named `<work>/<durability>/<value size>/<callers>`; each caller waits for its answer before
//! it asks again, so `callers` is how many requests are on their way. Throughput counts entries: a batch is 1,000 of them.
//! Criterion knows means only, so every request's latency is recorded here as well and printed as a table at the end; and
//! how late a timer of 1 ms was that ran on the callers' threads meanwhile, since a store must not hold those up.
//!
//! Always true: keys and values vary from write to write, since SQLite skips the page write where the bytes are equal.
#![expect(clippy::print_stdout, reason = "prints the table of tail latencies")]
#![expect(clippy::expect_used, reason = "a load that fails has nothing to measure")]

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use futures::TryStreamExt;
use larder::{Durability, Larder, RawCollection};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// As many as the smallest machine that matters has cores.
const WORKER_THREADS: usize = 2;
/// Entries of one batch and of one scan.
const BATCH: usize = 1_000;
/// Data of one larder, so that large values do not make the preparation the longest part.
const DATA_BYTES_MAX: usize = 32 << 20;
const KEYS_MAX: usize = 20_000;

const SIZES: [(&str, usize); 3] = [("100B", 100), ("1KiB", 1 << 10), ("16KiB", 16 << 10)];

/// What the callers do.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Work {
    Put,
    Get,
    /// Every other request a put.
    Mixed,
    Batch,
    Scan,
}

/// Work, the durabilities that make a difference to it, and the callers.
const LOADS: [(Work, &[Durability], &[usize]); 5] = [
    (Work::Put, &[Durability::Durable, Durability::Relaxed], &[1, 64, 256]),
    (Work::Mixed, &[Durability::Durable, Durability::Relaxed], &[1, 64, 256]),
    // A read is the same in both; one request of these is enough to keep the store busy.
    (Work::Get, &[Durability::Durable], &[1, 64, 256]),
    (Work::Batch, &[Durability::Durable, Durability::Relaxed], &[1]),
    (Work::Scan, &[Durability::Durable], &[1]),
];

impl Work {
    fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Mixed => "mixed",
            Self::Batch => "batch-1000",
            Self::Scan => "scan-1000",
        }
    }

    /// Entries that one request writes or reads.
    fn entries(self) -> u64 {
        match self {
            Self::Put | Self::Get | Self::Mixed => 1,
            Self::Batch | Self::Scan => BATCH as u64,
        }
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let bench = Bench::new();
    for (work, durabilities, callers) in LOADS {
        for durability in durabilities {
            for (size_name, value_bytes) in SIZES {
                bench.run(&mut criterion, work, *durability, (size_name, value_bytes), callers);
            }
        }
    }
    criterion.final_summary();
    bench.print_tails();
}

/// The larders that loads share, and what they recorded.
struct Bench {
    runtime: Runtime,
    beds: Mutex<HashMap<(Durability, usize), Arc<Bed>>>,
    tails: Mutex<Vec<(String, Measured)>>,
}

/// What one load recorded.
#[derive(Default)]
struct Measured {
    latencies: Vec<Duration>,
    /// By how much each tick of a 1 ms timer came too late.
    timer_delays: Vec<Duration>,
}

/// A larder full of values of one size.
struct Bed {
    larder: Larder,
    key_count: usize,
    value_bytes: usize,
    // Last, so that it is removed after the larder has closed.
    _folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKER_THREADS).enable_all().build();
        let (beds, tails) = Default::default();
        Self { runtime: runtime.expect("the runtime starts"), beds, tails }
    }

    /// Measures one group of loads, which differ in the number of callers.
    fn run(
        &self,
        criterion: &mut Criterion,
        work: Work,
        durability: Durability,
        (size_name, value_bytes): (&str, usize),
        callers: &[usize],
    ) {
        let durability_name = if durability == Durability::Durable { "durable" } else { "relaxed" };
        let group_name = format!("{}/{durability_name}/{size_name}", work.name());
        let mut group = criterion.benchmark_group(&group_name);
        group.sampling_mode(SamplingMode::Flat);
        for &callers in callers {
            group.throughput(Throughput::Elements(callers as u64 * work.entries()));
            group.bench_function(BenchmarkId::from_parameter(callers), |bencher| {
                // Not before: a load that the command line leaves out prepares nothing.
                let bed = self.bed(durability, value_bytes);
                bencher.to_async(&self.runtime).iter_custom(|rounds| {
                    let measured = measure(Arc::clone(&bed), work, callers, rounds);
                    async {
                        let (took, measured) = measured.await;
                        self.record(format!("{group_name}/{callers}"), measured);
                        took
                    }
                });
            });
        }
        group.finish();
    }

    fn bed(&self, durability: Durability, value_bytes: usize) -> Arc<Bed> {
        let mut beds = self.beds.lock().unwrap_or_else(PoisonError::into_inner);
        let bed = beds.entry((durability, value_bytes));
        Arc::clone(bed.or_insert_with(|| Arc::new(self.runtime.block_on(Bed::prepare(durability, value_bytes)))))
    }

    /// Adds to what the load recorded in its earlier samples.
    fn record(&self, load: String, mut measured: Measured) {
        let mut tails = self.tails.lock().unwrap_or_else(PoisonError::into_inner);
        match tails.last_mut().filter(|(last, _)| *last == load) {
            Some((_, recorded)) => {
                recorded.latencies.append(&mut measured.latencies);
                recorded.timer_delays.append(&mut measured.timer_delays);
            }
            None => tails.push((load, measured)),
        }
    }

    fn print_tails(&self) {
        let mut tails = self.tails.lock().unwrap_or_else(PoisonError::into_inner);
        if tails.is_empty() {
            return;
        }
        println!("\nLatency of single requests in ms, warm-up included (-: too few requests to tell):\n");
        for (name, measured) in tails.iter_mut() {
            print_row(name, &mut measured.latencies);
        }
        println!("\nHow late a 1 ms timer on the callers' {WORKER_THREADS} threads was, in ms:\n");
        for (name, measured) in tails.iter_mut() {
            print_row(name, &mut measured.timer_delays);
        }
    }
}

fn print_row(name: &str, durations: &mut [Duration]) {
    durations.sort_unstable();
    let [p50, p99, p999, max] = [500, 990, 999, 1_000].map(|per_mille| percentile(durations, per_mille));
    println!("{name:<24} {:>10} of them: p50 {p50:>9} p99 {p99:>9} p99.9 {p999:>9} max {max:>9}", durations.len());
}

/// Returns the latency in ms that so many of a thousand do not exceed, where there are enough requests to say.
fn percentile(sorted: &[Duration], per_mille: usize) -> String {
    let is_known = sorted.len() * (1_000 - per_mille) >= 1_000 || per_mille == 1_000;
    let index = (sorted.len() * per_mille / 1_000).min(sorted.len().saturating_sub(1));
    match sorted.get(index) {
        Some(latency) if is_known => format!("{:.3}", latency.as_secs_f64() * 1e3),
        _ => "-".to_owned(),
    }
}

impl Bed {
    /// Opens a larder below `target/`, which is more often a disk than the system's temporary folder is, and fills it.
    async fn prepare(durability: Durability, value_bytes: usize) -> Self {
        let folder = tempfile::tempdir_in(PathBuf::from(env!("CARGO_TARGET_TMPDIR"))).expect("a folder is made");
        let open = Larder::builder(folder.path()).kv(|kv| kv.common.durability = durability).open();
        let larder = open.await.expect("the larder opens");
        let key_count = KEYS_MAX.min(DATA_BYTES_MAX / value_bytes);
        let bed = Self { larder, key_count, value_bytes, _folder: folder };
        let mut random = Random(1);
        for first in (0..key_count).step_by(BATCH) {
            let entries = (first..key_count.min(first + BATCH)).map(|n| (key(n), random.value(value_bytes)));
            bed.collection().put_many(entries.collect::<Vec<_>>()).await.expect("the larder fills");
        }
        bed
    }

    fn collection(&self) -> RawCollection {
        self.larder.kv().bytes("bench")
    }

    /// One request.
    async fn ask(&self, collection: &RawCollection, work: Work, random: &mut Random) -> larder::Result<()> {
        let key_number = random.below(self.key_count);
        match work {
            Work::Put => put(self, collection, key_number, random).await,
            Work::Mixed if random.below(2) == 0 => put(self, collection, key_number, random).await,
            Work::Get | Work::Mixed => {
                let found = collection.get(key(key_number)).await?;
                assert_eq!(found.map(|value| value.len()), Some(self.value_bytes), "every key is there");
                Ok(())
            }
            Work::Batch => {
                let numbers: Vec<_> = (0..BATCH).map(|_| random.below(self.key_count)).collect();
                let entries: Vec<_> = numbers.into_iter().map(|n| (key(n), random.value(self.value_bytes))).collect();
                collection.put_many(entries).await.map(|_| ())
            }
            Work::Scan => {
                let first = random.below(self.key_count - BATCH + 1);
                let scan = collection.scan().between(key(first), key(first + BATCH)).limit(BATCH);
                // A stream, since a page ends after 4 MiB.
                let seen = scan.stream().try_fold(0, |seen, _| async move { Ok(seen + 1) }).await?;
                assert_eq!(seen, BATCH, "every key is there");
                Ok(())
            }
        }
    }
}

async fn put(bed: &Bed, collection: &RawCollection, key_number: usize, random: &mut Random) -> larder::Result<()> {
    collection.put(key(key_number), random.value(bed.value_bytes)).await.map(|_| ())
}

/// Lets every caller make `rounds` requests; returns how long that took, and what was recorded.
async fn measure(bed: Arc<Bed>, work: Work, callers: usize, rounds: u64) -> (Duration, Measured) {
    let is_over = Arc::new(AtomicBool::new(false));
    let timer = tokio::spawn(watch_timer(Arc::clone(&is_over)));
    let started = Instant::now();
    let tasks: Vec<_> = (0..callers as u64)
        .map(|caller| {
            let bed = Arc::clone(&bed);
            tokio::spawn(async move {
                let collection = bed.collection();
                let mut random = Random::of(caller, rounds);
                let mut latencies = Vec::new();
                for _ in 0..rounds {
                    let asked = Instant::now();
                    bed.ask(&collection, work, &mut random).await.expect("the store answers");
                    latencies.push(asked.elapsed());
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.append(&mut task.await.expect("a caller ends"));
    }
    let took = started.elapsed();
    is_over.store(true, Ordering::Relaxed);
    let timer_delays = timer.await.expect("the timer ends");
    (took, Measured { latencies, timer_delays })
}

/// Notes how late each tick of a 1 ms timer comes, until the load is over.
async fn watch_timer(is_over: Arc<AtomicBool>) -> Vec<Duration> {
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut delays = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let due = ticks.tick().await;
        delays.push(tokio::time::Instant::now().saturating_duration_since(due));
    }
    delays
}

/// Ordered as the numbers are.
fn key(number: usize) -> String {
    format!("key-{number:08}")
}

/// A sequence of numbers and bytes that costs next to nothing beside a request.
struct Random(u64);

impl Random {
    fn of(caller: u64, rounds: u64) -> Self {
        Self((caller + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ rounds.wrapping_mul(0xD1B5_4A32_D192_ED03) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    #[expect(clippy::cast_possible_truncation, reason = "less than `bound`, which is a usize")]
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Bytes that differ from one call to the next, all through.
    fn value(&mut self, bytes: usize) -> Vec<u8> {
        let mut value = Vec::with_capacity(bytes + 8);
        while value.len() < bytes {
            value.extend_from_slice(&self.next().to_le_bytes());
        }
        value.truncate(bytes);
        value
    }
}
