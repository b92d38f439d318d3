//! What the checkpoint policy is worth: sustained writes through larder, beside the same writes on SQLite alone with its
//! default autocheckpoint.
//!
//! ```sh
//! cargo bench --bench checkpoints                    # 20 s each, three rounds
//! LARDER_SECONDS=5 LARDER_ROUNDS=1 cargo bench --bench checkpoints
//! LARDER_FRAMES=1000,2000,4000 cargo bench --bench checkpoints     # another policy: background, writer idle, writer hard
//! ```
//!
//! Two loads: keys chosen evenly, where nearly every write touches another page and checkpoints save nothing, and keys chosen by
//! Zipf's law (exponent 0.99, as YCSB's), where a page is written many times before it has to be moved once.
//!
//! Start at [`main`]. Both sides have the same callers, who wait for each answer, the same tables, values and durability, and
//! commit what is queued together: the raw side is one thread that drains a channel into one transaction. They take turns.
//! A figure is the median of the rounds.
//!
//! Always true: a request's latency is from before it is sent until its commit is acknowledged; the WAL's length is its
//! file's, looked at every few milliseconds.
#![expect(clippy::print_stdout, reason = "prints its figures")]
#![expect(
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "figures of rounds that there are, exact below 2^53"
)]
#![expect(clippy::expect_used, reason = "a load that fails has nothing to measure")]
#![expect(clippy::disallowed_methods, reason = "SQLite alone, and files' sizes")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder::Larder;
use rusqlite::{Connection, params};
use tokio::sync::{mpsc, oneshot};

const CALLERS: u64 = 64;
const KEYS: u64 = 100_000;
const VALUE_BYTES: usize = 1_024;
/// As many as larder puts into one commit by default.
const GROUP_MAX: usize = 1_024;

/// What one side did in one round.
#[derive(Debug, Clone, Copy)]
struct Measured {
    writes_per_second: f64,
    p50: Duration,
    p99: Duration,
    p999: Duration,
    longest: Duration,
    wal_bytes: u64,
}

fn main() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let (duration, rounds) = (Duration::from_secs(number("LARDER_SECONDS", 20)), number("LARDER_ROUNDS", 3));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("the runtime starts");
    for (name, keys) in [("even", Keys::even()), ("Zipf", Keys::zipf())] {
        println!("\nkeys: {name}");
        compare(&runtime, &keys, duration, rounds);
    }
}

fn compare(runtime: &tokio::runtime::Runtime, keys: &Keys, duration: Duration, rounds: u64) {
    let (mut raw, mut ours) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        raw.push(runtime.block_on(measure(duration, keys, raw_side)));
        println!("round {round}, raw SQLite: {}", shown(raw[raw.len() - 1]));
        ours.push(runtime.block_on(measure(duration, keys, larder_side)));
        println!("round {round}, larder:     {}", shown(ours[ours.len() - 1]));
    }
    let median = |side: &[Measured], read: fn(&Measured) -> f64| {
        let mut values: Vec<f64> = side.iter().map(read).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let ratio = |read| median(&ours, read) / median(&raw, read);
    println!("throughput: {:.2} × raw SQLite's", ratio(|one| one.writes_per_second));
    println!("p99:        {:.2} × raw SQLite's", ratio(|one| one.p99.as_secs_f64()));
    println!("p99.9:      {:.1} ms", median(&ours, |one| one.p999.as_secs_f64()) * 1e3);
    println!(
        "largest WAL: {:.1} MiB",
        ours.iter().map(|one| one.wal_bytes).max().unwrap_or(0) as f64 / f64::from(1 << 20)
    );
}

fn shown(measured: Measured) -> String {
    let Measured { writes_per_second, p50, p99, p999, longest, wal_bytes } = measured;
    let wal = wal_bytes as f64 / f64::from(1 << 20);
    format!(
        "{writes_per_second:.0}/s, p50 {p50:.1?}, p99 {p99:.1?}, p99.9 {p999:.1?}, longest {longest:.1?}, WAL {wal:.1} MiB"
    )
}

/// One side: how to write an entry, from any task.
trait Side: Clone + Send + 'static {
    fn put(&self, key: u64, value: Vec<u8>) -> impl Future<Output = ()> + Send;
    fn close(self) -> impl Future<Output = ()>;
}

async fn measure<S: Side, F: Future<Output = S>>(
    duration: Duration,
    keys: &Keys,
    open: impl FnOnce(PathBuf) -> F,
) -> Measured {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder is made");
    let side = open(folder.path().to_owned()).await;
    load(&side, Duration::MAX, None).await;
    let wal = watch(folder.path().join("kv.db-wal"));
    let began = Instant::now();
    let mut latencies = load(&side, duration, Some(keys)).await;
    let took = began.elapsed();
    let wal_bytes = wal();
    side.close().await;
    latencies.sort_unstable();
    let at = |per_mille: usize| latencies[(latencies.len() * per_mille / 1_000).min(latencies.len() - 1)];
    Measured {
        writes_per_second: latencies.len() as f64 / took.as_secs_f64(),
        p50: at(500),
        p99: at(990),
        p999: at(999),
        longest: at(1_000),
        wal_bytes,
    }
}

/// Lets the callers write random keys for a while, or (`None`) each key once.
async fn load<S: Side>(side: &S, duration: Duration, keys: Option<&Keys>) -> Vec<Duration> {
    let began = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (side, next, keys) = (side.clone(), Arc::clone(&next), keys.cloned());
            tokio::spawn(async move {
                let mut random = Random(caller * 2 + 1);
                let mut latencies = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if keys.is_none() && number >= KEYS || began.elapsed() >= duration {
                        return latencies;
                    }
                    let key = keys.as_ref().map_or(number, |keys| keys.choose(&mut random));
                    let value = random.value();
                    let asked = Instant::now();
                    side.put(key, value).await;
                    latencies.push(asked.elapsed());
                }
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for caller in callers {
        latencies.extend(caller.await.expect("a caller ends"));
    }
    latencies
}

/// Looks at a file's size until asked for the largest.
fn watch(file: PathBuf) -> impl FnOnce() -> u64 {
    let is_over = Arc::new(AtomicBool::new(false));
    let watcher = std::thread::spawn({
        let is_over = Arc::clone(&is_over);
        move || {
            let mut largest = 0;
            while !is_over.load(Ordering::Relaxed) {
                largest = file.metadata().map_or(0, |file| file.len()).max(largest);
                std::thread::sleep(Duration::from_millis(5));
            }
            largest
        }
    });
    move || {
        is_over.store(true, Ordering::Relaxed);
        watcher.join().expect("the watcher ends")
    }
}

#[derive(Clone)]
struct Ours(Larder);

async fn larder_side(folder: PathBuf) -> Ours {
    let mut builder = Larder::builder(folder);
    if let Ok(text) = std::env::var("LARDER_FRAMES") {
        let frames: Vec<u32> = text.split(',').map(|number| number.parse().expect("three numbers")).collect();
        builder = builder.kv(|kv| {
            kv.common.checkpoint.background_frames = frames[0];
            kv.common.checkpoint.writer_soft_frames = frames[1];
            kv.common.checkpoint.writer_hard_frames = frames[2];
        });
    }
    Ours(builder.open().await.expect("the larder opens"))
}

impl Side for Ours {
    async fn put(&self, key: u64, value: Vec<u8>) {
        self.0.kv().bytes("bench").put(format!("{key:08}"), value).await.expect("the put succeeds");
    }

    async fn close(self) {
        self.0.close().await;
    }
}

type Write = (u64, Vec<u8>, oneshot::Sender<()>);

#[derive(Clone)]
struct Raw(mpsc::UnboundedSender<Write>);

async fn raw_side(folder: PathBuf) -> Raw {
    let (sender, receiver) = mpsc::unbounded_channel();
    let connection = Connection::open(folder.join("kv.db")).expect("the file opens");
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -16384;
             CREATE TABLE entry (id INTEGER PRIMARY KEY, collection TEXT NOT NULL, key TEXT NOT NULL, value ANY NOT NULL,
                 format INTEGER NOT NULL, version INTEGER NOT NULL, created_ms INTEGER NOT NULL,
                 updated_ms INTEGER NOT NULL, expires_ms INTEGER, tagged INTEGER NOT NULL, checksum INTEGER NOT NULL,
                 UNIQUE (collection, key)) STRICT;
             CREATE INDEX entry_by_expiry ON entry (expires_ms) WHERE expires_ms IS NOT NULL;
             CREATE TABLE change_log (sequence INTEGER PRIMARY KEY, changes TEXT NOT NULL) STRICT",
        )
        .expect("the table is made");
    std::thread::spawn(move || drain(&connection, receiver));
    Raw(sender)
}

/// Commits what is queued, and then answers.
fn drain(connection: &Connection, mut receiver: mpsc::UnboundedReceiver<Write>) {
    let mut version = 0_i64;
    let run = |sql: &str| connection.prepare_cached(sql).and_then(|mut run| run.execute([])).map(|_| ());
    while let Some(first) = receiver.blocking_recv() {
        let mut group = vec![first];
        while group.len() < GROUP_MAX
            && let Ok(next) = receiver.try_recv()
        {
            group.push(next);
        }
        run("BEGIN IMMEDIATE").expect("beginning");
        for (key, value, _) in &group {
            version += 1;
            connection
                .prepare_cached(
                    "INSERT INTO entry (collection, key, value, format, version, created_ms, updated_ms, tagged, checksum)
                     VALUES ('bench', ?1, ?2, 0, ?3, ?3, ?3, 0, ?3)
                     ON CONFLICT (collection, key) DO UPDATE SET value = excluded.value, version = excluded.version,
                         updated_ms = excluded.updated_ms, checksum = excluded.checksum",
                )
                .and_then(|mut put| put.execute(params![format!("{key:08}"), value, version]))
                .expect("putting");
        }
        let keys: Vec<String> = group.iter().map(|(key, ..)| format!("{key:08}")).collect();
        connection
            .prepare_cached("INSERT INTO change_log (sequence, changes) VALUES (?1, ?2)")
            .and_then(|mut log| log.execute(params![version, keys.join(",")]))
            .expect("logging");
        run("COMMIT").expect("committing");
        for (.., reply) in group {
            // The caller waits.
            let _ = reply.send(());
        }
    }
}

impl Side for Raw {
    async fn put(&self, key: u64, value: Vec<u8>) {
        let (reply, answer) = oneshot::channel();
        self.0.send((key, value, reply)).expect("the thread runs");
        answer.await.expect("the thread answers");
    }

    async fn close(self) {}
}

/// How keys are chosen: for each rank of popularity, how likely it or a more popular one is.
#[derive(Clone)]
struct Keys(Arc<Vec<f64>>);

impl Keys {
    fn even() -> Self {
        Self::by(|_| 1.0)
    }

    fn zipf() -> Self {
        Self::by(|rank| (rank as f64).powf(-0.99))
    }

    fn by(weight: impl Fn(u64) -> f64) -> Self {
        let total: f64 = (1..=KEYS).map(&weight).sum();
        let sums = (1..=KEYS).scan(0.0, |sum, rank| {
            *sum += weight(rank) / total;
            Some(*sum)
        });
        Self(Arc::new(sums.collect()))
    }

    fn choose(&self, random: &mut Random) -> u64 {
        let chance = (random.next() >> 11) as f64 / (1_u64 << 53) as f64;
        let rank = self.0.partition_point(|sum| *sum <= chance) as u64;
        // The popular ones are not neighbours: a prime that does not divide the number of keys scatters them.
        rank.min(KEYS - 1) * 7_919 % KEYS
    }
}

/// Numbers and bytes that cost next to nothing beside a write.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn value(&mut self) -> Vec<u8> {
        (0..VALUE_BYTES / 8).flat_map(|_| self.next().to_le_bytes()).collect()
    }
}
