//! The load report: what agents do to all six stores, each store alone and all together.
//!
//! ```sh
//! cargo bench --bench agents                                  # all of it: about six minutes
//! cargo bench --bench agents -- --quick                       # shorter rounds, data of 1 and 10 times; two minutes
//! LARDER_POINTS=points.json cargo bench --bench agents        # also writes what agents_plot.py draws
//! ```
//!
//! Start at [`Load`]. Every caller waits for its answer before it asks again. Four tables:
//!
//! 1. The same work by store one after another, and all at once: criterion measures the times, and the ratio says what being
//!    together costs.
//! 2. Throughput and latency by store in both, and how late a timer of 1 ms on the callers' threads was.
//! 3. The p99 of one caller while another store is saturated by [`SATURATING`] callers who only write.
//! 4. The latency of reads as the data grows tenfold and a hundredfold.
//!
//! Durability is every store's default: durable, and relaxed for the cache.
#![expect(clippy::print_stdout, reason = "prints the tables")]
#![expect(clippy::cast_precision_loss, reason = "counts, for rates and ratios")]
#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "places of percentiles and small weights")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput};
use larder::{ChatMessage, Document, JsonText, Larder, NewRelation, Node, Point, PointFields, VectorCollection, field};
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// As many as the smallest machine that matters has cores.
const WORKER_THREADS: usize = 2;
/// Callers who saturate a store.
const SATURATING: usize = 64;
const DIMENSIONS: usize = 384;
/// Items of each store where nothing else is said.
const ITEMS: usize = 20_000;
/// Passages of a document.
const NODES: usize = 5;
const WORDS: usize = 5_000;

/// What agents do to one store.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Load {
    /// Three lookups of a state of 1 KiB, then one put.
    Kv,
    /// A turn: two messages appended, then the window of 8,192 tokens.
    Chat,
    /// Nine searches, then a document of five passages.
    Documents,
    /// Nine filtered searches, then a point.
    Vectors,
    /// Nine neighbourhoods of two hops, then a fact.
    Graph,
    /// Nine embeddings that are there, then one that is not.
    Cache,
}

const LOADS: [Load; 6] = [Load::Kv, Load::Chat, Load::Documents, Load::Vectors, Load::Graph, Load::Cache];

impl Load {
    fn name(self) -> &'static str {
        match self {
            Self::Kv => "kv",
            Self::Chat => "chat",
            Self::Documents => "documents",
            Self::Vectors => "vectors",
            Self::Graph => "graph",
            Self::Cache => "embed_cache",
        }
    }

    fn callers(self) -> usize {
        match self {
            Self::Kv | Self::Cache => 16,
            Self::Chat => 8,
            Self::Documents | Self::Vectors | Self::Graph => 4,
        }
    }
}

/// Random numbers that are the same in every run (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap_or_default()
    }

    /// Low numbers come up far more often.
    fn skewed(&mut self, end: usize) -> usize {
        let bound = 1 + self.below(end);
        self.below(bound)
    }

    fn text(&mut self, words: usize) -> String {
        (0..words).map(|_| format!("w{}", self.skewed(WORDS))).collect::<Vec<_>>().join(" ")
    }

    fn vector(&mut self) -> Vec<f32> {
        // Around one of a hundred centres, as embeddings lie.
        let centre = self.below(100) as u64;
        let mut of_centre = Self(centre);
        let unit = |random: &mut Self| (random.next() >> 40) as f32 / (1_u32 << 24) as f32 - 0.5;
        (0..DIMENSIONS).map(|_| unit(&mut of_centre) + 0.7 * unit(self)).collect()
    }
}

/// A larder with data in all stores.
struct Bed {
    larder: Larder,
    notes: VectorCollection,
    items: usize,
    /// Numbers what is added, so that it is new.
    added: AtomicU64,
    // Last, so that it is removed after the larder has closed.
    _folder: TempDir,
}

impl Bed {
    /// Fills a folder below `target/`, which is more often a disk than the system's temporary folder is.
    async fn prepare(items: usize) -> Result<Self> {
        let folder = tempfile::tempdir_in(PathBuf::from(env!("CARGO_TARGET_TMPDIR")))?;
        let larder = Larder::open(folder.path()).await?;
        let notes = larder.vectors().collection("notes").dimensions(DIMENSIONS).open().await?;
        let bed = Self { larder, notes, items, added: AtomicU64::new(0), _folder: folder };
        let mut random = Random(7);
        for first in (0..items).step_by(1_000) {
            bed.fill(&mut random, first..items.min(first + 1_000)).await?;
        }
        // What is loaded once is loaded here.
        for load in LOADS {
            for step in 0..10 {
                bed.request(load, 0, step, &mut random).await?;
            }
        }
        Ok(bed)
    }

    async fn fill(&self, random: &mut Random, numbers: std::ops::Range<usize>) -> Result<()> {
        let states = self.larder.kv().collection::<String>("states");
        let values: Vec<_> = numbers.clone().map(|number| (format!("s{number}"), value(random))).collect();
        states.put_many(values.iter().map(|(key, value)| (key, value))).await?;

        let turns = numbers.clone().map(|_| ChatMessage::user(random.text(40)));
        self.larder.chat().session("c0").append(turns.collect::<Vec<_>>()).await?;

        let documents = numbers.clone().step_by(NODES).map(|number| document(random, &format!("d{number}")));
        self.larder.documents().put_many(documents.collect::<Result<Vec<_>>>()?).await?;

        let points = numbers.clone().map(|number| point(random, number)).collect::<Result<Vec<_>>>()?;
        self.notes.upsert(points).await?;

        let facts = numbers.clone().flat_map(|number| [number; 5]).map(|number| fact(random, number, self.items));
        self.larder.graph().upsert_relations(facts.collect::<Result<Vec<_>>>()?).await?;

        let embeddings: Vec<_> = numbers.map(|number| (format!("t{number}"), random.vector())).collect();
        let embeddings = embeddings.iter().map(|(text, vector)| (text.as_str(), vector.clone()));
        self.larder.embed_cache().put_many("model", embeddings.collect::<Vec<_>>()).await?;
        Ok(())
    }

    /// Does one request of a caller, which is its `step`-th.
    async fn request(&self, load: Load, caller: usize, step: usize, random: &mut Random) -> Result<()> {
        let is_tenth = step % 10 == 9;
        match load {
            Load::Kv if step % 4 == 3 => self.write(load, random).await,
            Load::Documents | Load::Vectors | Load::Graph if is_tenth => self.write(load, random).await,
            Load::Cache if is_tenth => {
                let text = format!("new {}", self.added.fetch_add(1, Ordering::Relaxed));
                let vector = random.vector();
                self.larder
                    .embed_cache()
                    .get_or_compute("model", &text, || async { Ok::<_, std::convert::Infallible>(vector) })
                    .await?;
                Ok(())
            }
            Load::Chat => {
                let chat = self.larder.chat().session(format!("c{caller}"));
                let turn = [ChatMessage::user(random.text(40)), ChatMessage::assistant(random.text(60))];
                chat.append(turn).await?;
                chat.window(8_192).await?;
                Ok(())
            }
            _ => self.read(load, random).await,
        }
    }

    async fn read(&self, load: Load, random: &mut Random) -> Result<()> {
        let number = random.skewed(self.items);
        match load {
            Load::Kv => drop(self.larder.kv().collection::<String>("states").get(format!("s{number}")).await?),
            Load::Chat => drop(self.larder.chat().session("c0").window(8_192).await?),
            Load::Documents => {
                let words = format!("w{} w{}", 50 + random.below(WORDS - 50), 50 + random.below(WORDS - 50));
                drop(self.larder.documents().search(words.as_str()).limit(10).await?);
            }
            Load::Vectors => {
                let search = self.notes.search(random.vector()).k(10).fields(PointFields::NONE);
                drop(search.filter(field("tenth").eq(i64::try_from(random.below(10))?)).await?);
            }
            Load::Graph => {
                let entity = format!("e{}", random.below(self.items));
                drop(self.larder.graph().neighbors(entity.as_str()).depth(2).limit(50).await?);
            }
            Load::Cache => drop(self.larder.embed_cache().get("model", format!("t{number}").as_str()).await?),
        }
        Ok(())
    }

    async fn write(&self, load: Load, random: &mut Random) -> Result<()> {
        let number = usize::try_from(self.added.fetch_add(1, Ordering::Relaxed))?;
        match load {
            Load::Kv => {
                let states = self.larder.kv().collection::<String>("states");
                states.put(format!("s{}", random.below(self.items)), &value(random)).await?;
            }
            Load::Chat => {
                let chat = self.larder.chat().session(format!("w{}", number % SATURATING));
                chat.append([ChatMessage::user(random.text(40))]).await?;
            }
            Load::Documents => {
                let (document, nodes) = document(random, &format!("new{number}"))?;
                self.larder.documents().put(document, nodes).await?;
            }
            Load::Vectors => drop(self.notes.upsert([point(random, self.items + number)?]).await?),
            Load::Graph => {
                let subject = random.below(self.items);
                let fact = fact(random, subject, self.items)?;
                self.larder.graph().upsert_relations([fact]).await?;
            }
            Load::Cache => {
                let text = format!("new {number}");
                self.larder.embed_cache().put("model", text.as_str(), random.vector()).await?;
            }
        }
        Ok(())
    }
}

fn value(random: &mut Random) -> String {
    random.text(180)
}

fn document(random: &mut Random, id: &str) -> Result<(Document, Vec<Node>)> {
    let nodes = (0..NODES).map(|place| Node::text(format!("{id}#{place}"), random.text(80)));
    let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
    Ok((Document::new(id)?.with_fingerprint(id), nodes))
}

fn point(random: &mut Random, number: usize) -> Result<Point> {
    let metadata = JsonText::new(json!({ "tenth": number % 10 }).to_string())?;
    Ok(Point::new(format!("p{number}"), random.vector())?.with_metadata(metadata))
}

fn fact(random: &mut Random, subject: usize, items: usize) -> Result<NewRelation> {
    let object = random.skewed(items);
    Ok(NewRelation::new(format!("e{subject}"), "knows", format!("e{object}"))?)
}

/// What was measured of one load.
#[derive(Default, Clone)]
struct Measured {
    latencies: Vec<Duration>,
    took: Duration,
}

impl Measured {
    fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    /// In ms.
    fn percentile(&mut self, share: f64) -> f64 {
        self.latencies.sort_unstable();
        let at = (self.latencies.len() as f64 * share) as usize;
        let latency = self.latencies.get(at.min(self.latencies.len().saturating_sub(1)));
        latency.map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
    }

    fn add(&mut self, mut other: Self) {
        self.latencies.append(&mut other.latencies);
        self.took += other.took;
    }
}

/// What callers do: the load's mix, or only writes.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Mix,
    Writes,
}

/// Runs so many callers, each until `goes_on` says no to the number of its next request.
async fn run(
    bed: &Arc<Bed>,
    load: Load,
    kind: Kind,
    callers: usize,
    goes_on: impl Fn(usize) -> bool + Clone + Send + 'static,
) -> Result<Measured> {
    let began = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let (bed, goes_on) = (Arc::clone(bed), goes_on.clone());
            let mut random = Random(bed.added.fetch_add(1, Ordering::Relaxed) << 20 | caller as u64);
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while goes_on(latencies.len()) {
                    let began = Instant::now();
                    match kind {
                        Kind::Mix => bed.request(load, caller, latencies.len(), &mut random).await?,
                        Kind::Writes => bed.write(load, &mut random).await?,
                    }
                    latencies.push(began.elapsed());
                }
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(latencies)
            })
        })
        .collect();
    let mut measured = Measured::default();
    for task in tasks {
        measured.latencies.append(&mut task.await??);
    }
    measured.took = began.elapsed();
    Ok(measured)
}

/// Runs a load's callers for some time.
async fn run_for(bed: &Arc<Bed>, load: Load, kind: Kind, callers: usize, time: Duration) -> Result<Measured> {
    let end = Instant::now() + time;
    run(bed, load, kind, callers, move |_| Instant::now() < end).await
}

/// Runs a load's mix, so many requests of each of its callers.
async fn run_share(bed: &Arc<Bed>, load: Load, requests: usize) -> Result<Measured> {
    run(bed, load, Kind::Mix, load.callers(), move |done| done < requests).await
}

/// By how much a timer of 1 ms is late while something runs, at p99, in ms.
async fn lateness<T>(work: impl Future<Output = T>) -> (T, f64) {
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let ticks = tokio::spawn(async move {
        let mut late = Measured::default();
        while !over.load(Ordering::Relaxed) {
            let began = Instant::now();
            #[expect(clippy::disallowed_methods, reason = "the timer is what is measured")]
            tokio::time::sleep(Duration::from_millis(1)).await;
            late.latencies.push(began.elapsed().saturating_sub(Duration::from_millis(1)));
        }
        late.percentile(0.99)
    });
    let done = work.await;
    is_over.store(true, Ordering::Relaxed);
    (done, ticks.await.unwrap_or(f64::NAN))
}

/// Requests of each of a load's callers, so that its share takes about `time` alone.
async fn share(bed: &Arc<Bed>, load: Load, time: Duration) -> Result<usize> {
    let tried = run_for(bed, load, Kind::Mix, load.callers(), time / 4).await?;
    Ok((4 * tried.latencies.len() / load.callers()).max(10))
}

struct Report {
    runtime: Runtime,
    bed: Arc<Bed>,
    /// By load, in their order: its requests of each caller, what it measured alone and together.
    shares: Vec<usize>,
    alone: Vec<Measured>,
    together: Vec<Measured>,
    /// How long all shares took.
    took_alone: Vec<Duration>,
    took_together: Vec<Duration>,
    lateness: [f64; 2],
}

impl Report {
    fn new(time: Duration) -> Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(WORKER_THREADS).enable_all().build()?;
        let bed = Arc::new(runtime.block_on(Bed::prepare(ITEMS))?);
        let shares = LOADS.map(|load| runtime.block_on(share(&bed, load, time)));
        let shares = shares.into_iter().collect::<Result<Vec<_>>>()?;
        let none = vec![Measured::default(); LOADS.len()];
        let (took_alone, took_together) = Default::default();
        Ok(Self {
            runtime,
            bed,
            shares,
            alone: none.clone(),
            together: none,
            took_alone,
            took_together,
            lateness: [0.0; 2],
        })
    }

    fn one_after_another(&mut self) -> Result<Duration> {
        let mut took = Duration::ZERO;
        for (at, load) in LOADS.into_iter().enumerate() {
            let (measured, late) =
                self.runtime.block_on(lateness(run_share(&self.bed, load, self.shares.get(at).copied().unwrap_or(1))));
            let measured = measured?;
            took += measured.took;
            self.lateness[0] = self.lateness[0].max(late);
            if let Some(alone) = self.alone.get_mut(at) {
                alone.add(measured);
            }
        }
        self.took_alone.push(took);
        Ok(took)
    }

    fn at_once(&mut self) -> Result<Duration> {
        let began = Instant::now();
        let all = LOADS.into_iter().zip(&self.shares).map(|(load, share)| run_share(&self.bed, load, *share));
        let (all, late) = self.runtime.block_on(lateness(futures::future::join_all(all)));
        let took = began.elapsed();
        for (together, measured) in self.together.iter_mut().zip(all) {
            together.add(measured?);
        }
        self.lateness[1] = self.lateness[1].max(late);
        self.took_together.push(took);
        Ok(took)
    }

    /// The p99 of one caller of each load, alone and while each other store is saturated.
    fn neighbours(&self, time: Duration) -> Result<Vec<Vec<f64>>> {
        let mut rows = Vec::new();
        for victim in LOADS {
            let mut row = vec![self.runtime.block_on(run_for(&self.bed, victim, Kind::Mix, 1, time))?.percentile(0.99)];
            for busy in LOADS {
                let both = async {
                    let saturate = run_for(&self.bed, busy, Kind::Writes, SATURATING, time);
                    futures::future::try_join(run_for(&self.bed, victim, Kind::Mix, 1, time), saturate).await
                };
                let p99 = if busy == victim { f64::NAN } else { self.runtime.block_on(both)?.0.percentile(0.99) };
                row.push(p99);
            }
            rows.push(row);
        }
        Ok(rows)
    }
}

fn main() -> Result<()> {
    let is_quick = std::env::args().any(|word| word == "--quick");
    let time = Duration::from_millis(if is_quick { 300 } else { 1_000 });
    let mut report = Report::new(time)?;
    let before = memory();
    criterion(&mut report)?;
    print_mix(&mut report, before.zip(memory()));
    print_neighbours(&report.neighbours(time)?);
    let growth = growth(&report.runtime, if is_quick { &[2_000, 20_000] } else { &[2_000, 20_000, 200_000] }, time)?;
    if let Some(path) = std::env::var_os("LARDER_POINTS") {
        let rates = |all: &[Measured]| all.iter().map(Measured::rate).collect::<Vec<_>>();
        let (alone, together) = (rates(&report.alone), rates(&report.together));
        let points = json!({ "loads": LOADS.map(Load::name), "alone": alone, "together": together, "growth": growth });
        #[expect(clippy::disallowed_methods, reason = "the user's file, never a store's")]
        std::fs::write(path, points.to_string())?;
    }
    report.runtime.block_on(report.bed.larder.clone().close());
    Ok(())
}

/// Has criterion time the shares one after another, and at once.
fn criterion(report: &mut Report) -> Result<()> {
    // Ten samples of one round each: a round is a fixed amount of work, of seconds.
    let shortest = Duration::from_millis(1);
    let mut criterion = Criterion::default().warm_up_time(shortest).measurement_time(shortest).sample_size(10);
    let mut group = criterion.benchmark_group("agents");
    group.sampling_mode(SamplingMode::Flat);
    let requests: usize = LOADS.into_iter().zip(&report.shares).map(|(load, share)| load.callers() * share).sum();
    group.throughput(Throughput::Elements(requests as u64));
    let mut failure = None;
    for (name, is_at_once) in [("one-after-another", false), ("at-once", true)] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let mut sum = Duration::ZERO;
                for _ in 0..rounds {
                    let took = if is_at_once { report.at_once() } else { report.one_after_another() };
                    sum += took.unwrap_or_else(|error| {
                        failure = Some(error);
                        Duration::from_nanos(1)
                    });
                }
                sum
            });
        });
    }
    group.finish();
    failure.map_or(Ok(()), Err)
}

fn print_mix(report: &mut Report, memory: Option<(u64, u64)>) {
    println!("\n{:>14} {:>8} {:>32} {:>32}", "", "callers", "alone", "together");
    println!(
        "{:>14} {:>8} {:>12} {:>9} {:>9} {:>12} {:>9} {:>9}",
        "store", "", "requests/s", "p50 ms", "p99 ms", "requests/s", "p50 ms", "p99 ms"
    );
    for ((load, alone), together) in LOADS.into_iter().zip(&mut report.alone).zip(&mut report.together) {
        print!("{:>14} {:>8}", load.name(), load.callers());
        for measured in [alone, together] {
            let (p50, p99) = (measured.percentile(0.5), measured.percentile(0.99));
            print!(" {:>12.0} {p50:>9.3} {p99:>9.3}", measured.rate());
        }
        println!();
    }
    let [alone, together] = [&mut report.took_alone, &mut report.took_together].map(|times| {
        times.sort_unstable();
        times.get(times.len() / 2).map_or(f64::NAN, Duration::as_secs_f64)
    });
    println!("\nthe same work one store after another {alone:.2} s, all at once {together:.2} s");
    println!("ratio agents work-together {:.2}", alone / together);
    println!(
        "a timer of 1 ms is late, p99: {:.2} ms while one store works, {:.2} ms while all do",
        report.lateness[0], report.lateness[1]
    );
    if let Some((before, after)) = memory {
        println!("memory {:.0} MB once filled, {:.0} MB after all of this", before as f64 / 1e6, after as f64 / 1e6);
    }
}

fn print_neighbours(rows: &[Vec<f64>]) {
    println!("\np99 in ms of one caller of a store, alone and beside {SATURATING} callers who write to another:\n");
    let names = LOADS.map(|load| format!("{:>12}", load.name())).concat();
    println!("{:>14} {:>12}{names}", "store", "alone");
    let mut largest = 0.0_f64;
    for (load, row) in LOADS.into_iter().zip(rows) {
        let cells: String = row.iter().map(|p99| format!("{p99:>12.3}")).collect();
        println!("{:>14} {}", load.name(), cells.replace("NaN", "  -"));
        if let [alone, beside @ ..] = row.as_slice() {
            largest = beside.iter().fold(largest, |largest, p99| largest.max(p99 / alone));
        }
    }
    println!("ratio agents p99-beside-a-saturated-store {largest:.2}");
}

/// What a read costs with so many items in each store; by load and number, p50 and p99 in ms.
fn growth(runtime: &Runtime, sizes: &[usize], time: Duration) -> Result<serde_json::Value> {
    println!("\nreads of one caller, p50 / p99 in ms, by items in each store:\n");
    println!("{:>14}{}", "store", sizes.iter().map(|size| format!("{size:>20}")).collect::<String>());
    let mut columns = Vec::new();
    for size in sizes {
        let bed = runtime.block_on(Bed::prepare(*size))?;
        let mut column = Vec::new();
        for load in LOADS {
            let reads = runtime.block_on(async {
                let (mut random, mut reads, end) = (Random(9), Measured::default(), Instant::now() + time);
                while Instant::now() < end {
                    let began = Instant::now();
                    bed.read(load, &mut random).await?;
                    reads.latencies.push(began.elapsed());
                }
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(reads)
            });
            let mut reads = reads?;
            column.push((reads.percentile(0.5), reads.percentile(0.99)));
        }
        runtime.block_on(bed.larder.close());
        columns.push(column);
    }
    for (at, load) in LOADS.into_iter().enumerate() {
        let cells = columns.iter().filter_map(|column| column.get(at));
        let cells: String = cells.map(|(p50, p99)| format!("{:>20}", format!("{p50:.3} / {p99:.3}"))).collect();
        println!("{:>14}{cells}", load.name());
    }
    Ok(json!({ "sizes": sizes, "columns": columns }))
}

/// Memory of this process in bytes.
fn memory() -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "not a store's file")]
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}
