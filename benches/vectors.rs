//! How long searches take through the public API, at what recall, and how quickly points go in and come back at an opening.
//!
//! ```sh
//! cargo bench --bench vectors                        # 20,480 and 200,000 vectors of 384 dimensions; some minutes
//! cargo bench --bench vectors -- --quick             # 20,480
//! cargo bench --bench vectors -- --sizes 1000000     # these
//! LARDER_EMBEDDINGS=../shared/data/embeddings cargo bench --bench vectors    # of these vectors, not of random ones
//! ```
//!
//! A table rather than criterion's statistics: what matters is the ratio between the lines. Beside other engines:
//! `benches/peers/run vectors`. The nearest that recall counts are those of `exact()`.
#![expect(clippy::print_stdout, reason = "a bench talks to whoever runs it")]
#![expect(clippy::disallowed_methods, reason = "reads the user's data, never a store's file")]
#![expect(clippy::cast_precision_loss, reason = "counts, for rates and means")]

use std::path::Path;
use std::time::{Duration, Instant};

use larder::protocol::filter::Filter;
use larder::{Durability, JsonText, Larder, Point, PointFields, VectorCollection, field};

const DIMENSIONS: usize = 384;
const BATCH: usize = 1_000;
const QUERIES: usize = 300;
/// Callers of the durable insert, each with one point at a time.
const CALLERS: usize = 100;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

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

    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u32 << 24) as f32
    }
}

/// What vectors are made of: real embeddings, or the centres of clusters.
struct Source(Vec<Vec<f32>>);

impl Source {
    fn read(random: &mut Random) -> Result<(Self, &'static str)> {
        if let Some(folder) = std::env::var_os("LARDER_EMBEDDINGS") {
            let bytes = std::fs::read(Path::new(&folder).join("base.npy"))?;
            let values = bytes.get(128..).unwrap_or_default().as_chunks().0;
            let rows = values.chunks_exact(DIMENSIONS);
            let rows = rows.map(|row| row.iter().map(|value| f32::from_le_bytes(*value)).collect());
            return Ok((Self(rows.collect()), "all-MiniLM-L6-v2 embeddings"));
        }
        let mut normal = || (0..12).map(|_| random.unit()).sum::<f32>() - 6.0;
        // Components of falling weight, as embeddings have.
        let weight = |place: usize| 1.0 / (1.0 + place as f32 / 40.0);
        let row = |_| (0..DIMENSIONS).map(|place| weight(place) * normal()).collect();
        Ok((Self((0..20_480).map(row).collect()), "random vectors of falling weights"))
    }

    /// A row, or, past them, a mixture of the same covariance: a + 0.6·u·(b − c), at a length of 1.
    fn vector(&self, number: usize, random: &mut Random) -> Vec<f32> {
        if let Some(row) = self.0.get(number) {
            return row.clone();
        }
        let mut row = || self.0.get(random.below(self.0.len())).map_or(&[] as &[f32], Vec::as_slice);
        let (a, b, c) = (row(), row(), row());
        let weight = 0.6 * random.unit();
        let mixed: Vec<f32> = a.iter().zip(b).zip(c).map(|((a, b), c)| a + weight * (b - c)).collect();
        let length = mixed.iter().map(|value| value * value).sum::<f32>().sqrt();
        mixed.iter().map(|value| value / length).collect()
    }
}

fn point(number: usize, vector: Vec<f32>) -> Result<Point> {
    let (half, tenth, hundredth, thousandth) = (number % 2, number % 10, number % 100, number % 1000);
    let metadata = format!(r#"{{"two":{half},"ten":{tenth},"hundred":{hundredth},"thousand":"v{thousandth}"}}"#);
    Ok(Point::new(format!("p{number}"), vector)?.with_metadata(JsonText::new(metadata)?))
}

fn percentile(times: &mut [Duration], share: f64) -> f64 {
    times.sort();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    let at = (times.len() as f64 * share) as usize;
    times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e6)
}

/// Memory of this process in bytes.
fn memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}

#[tokio::main]
async fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().collect();
    let named = words.iter().skip_while(|word| *word != "--sizes").nth(1);
    let sizes: Vec<usize> = match named {
        Some(named) => named.split(',').map(str::parse).collect::<Result<_, _>>()?,
        None if words.iter().any(|word| word == "--quick") => vec![20_480],
        None => vec![20_480, 200_000],
    };
    let mut random = Random(1);
    let (source, name) = Source::read(&mut random)?;
    println!("{name}, {DIMENSIONS} dimensions, cosine, k = 10; {QUERIES} queries a line");
    for size in sizes {
        run(&source, &mut random, size).await?;
    }
    durable(&source, &mut random).await
}

async fn run(source: &Source, random: &mut Random, size: usize) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let open =
        || Larder::builder(folder.path()).vectors(|vectors| vectors.common.durability = Durability::Relaxed).open();
    let larder = open().await?;
    let notes = larder.vectors().collection("notes").dimensions(DIMENSIONS).open().await?;
    let before = memory();
    let mut time = Duration::ZERO;
    for first in (0..size).step_by(BATCH) {
        let points = (first..size.min(first + BATCH)).map(|number| point(number, source.vector(number, random)));
        let points = points.collect::<Result<Vec<_>>>()?;
        let began = Instant::now();
        notes.upsert(points).await?;
        time += began.elapsed();
    }
    println!("\n{size} vectors");
    println!("{:>24} {:>10.0} points/s, relaxed, batches of {BATCH}", "insert", size as f64 / time.as_secs_f64());
    let began = Instant::now();
    notes.search(source.vector(usize::MAX, random)).await?;
    println!("{:>24} {:>10.1} ms after the last batch", "first answer", began.elapsed().as_secs_f64() * 1e3);
    println!("{:>24} {:>10} {:>10} {:>10} {:>10}", "load", "p50 us", "p99 us", "recall", "exact us");
    loads(&notes, source, random).await?;
    if let Some((before, after)) = before.zip(memory()) {
        let each = (after.saturating_sub(before)) as f64 / size as f64;
        println!("{:>24} {each:>10.0} B a vector, SQLite's caches and vectors as they are included", "memory");
    }
    disk(folder.path(), size)?;
    larder.close().await;
    reopen(open().await?, source, random).await
}

async fn loads(notes: &VectorCollection, source: &Source, random: &mut Random) -> Result<()> {
    // A fresh value each time, so that no answer of before is measured.
    let value = |random: &mut Random, end| i64::try_from(random.below(end)).unwrap_or_default();
    let filter = |name: &str, random: &mut Random| match name {
        "query-filter-50pct" => Some(field("two").eq(value(random, 2))),
        "query-filter-10pct" => Some(field("ten").eq(value(random, 10))),
        "query-filter-1pct" => Some(field("hundred").eq(value(random, 100))),
        "query-filter-0.1pct" => Some(field("thousand").eq(format!("v{}", value(random, 1000)))),
        _ => None,
    };
    for name in ["query", "query-filter-50pct", "query-filter-10pct", "query-filter-1pct", "query-filter-0.1pct"] {
        let mut queries = (0..QUERIES).map(|_| (source.vector(usize::MAX, random), filter(name, random)));
        let queries: Vec<_> = queries.by_ref().collect();
        line(notes, name, &queries).await?;
    }
    Ok(())
}

async fn line(notes: &VectorCollection, name: &str, queries: &[(Vec<f32>, Option<Filter>)]) -> Result<()> {
    let search = |(vector, filter): &(Vec<f32>, Option<Filter>)| {
        let search = notes.search(vector).k(10).fields(PointFields::NONE);
        match filter {
            Some(filter) => search.filter(filter.clone()),
            None => search,
        }
    };
    // The first makes what later ones use.
    for query in queries.iter().take(20) {
        search(query).await?;
    }
    let (mut times, mut exact_times) = (Vec::new(), Vec::new());
    let (mut found, mut wanted) = (0, 0);
    for query in queries {
        let (request, exact) = (search(query), search(query).exact());
        let began = Instant::now();
        let hits = request.await?;
        times.push(began.elapsed());
        let began = Instant::now();
        let nearest = exact.await?;
        exact_times.push(began.elapsed());
        wanted += nearest.len();
        found += nearest.iter().filter(|hit| hits.iter().any(|other| other.id == hit.id)).count();
    }
    let (p50, p99) = (percentile(&mut times, 0.5), percentile(&mut times, 0.99));
    let (recall, exact) = (found as f64 / wanted.max(1) as f64, percentile(&mut exact_times, 0.5));
    println!("{name:>24} {p50:>10.1} {p99:>10.1} {recall:>10.4} {exact:>10.1}");
    Ok(())
}

fn disk(folder: &Path, size: usize) -> Result<()> {
    let mut bytes = 0;
    for name in ["vectors.db", "vectors.db-wal"] {
        bytes += std::fs::metadata(folder.join(name)).map_or(0, |file| file.len());
    }
    // Vectors as they are, in 8 bits, and in one.
    let least = size * (4 * DIMENSIONS + DIMENSIONS + DIMENSIONS / 8);
    let ratio = bytes as f64 / least as f64;
    println!("{:>24} {:>10.0} MB, {ratio:.2} times f32, int8 and codes", "disk", bytes as f64 / 1e6);
    Ok(())
}

async fn reopen(larder: Larder, source: &Source, random: &mut Random) -> Result<()> {
    let query = source.vector(usize::MAX, random);
    let began = Instant::now();
    let notes = larder.vectors().collection("notes").open().await?;
    notes.search(&query).await?;
    println!("{:>24} {:>10.1} ms to the first answer", "open", began.elapsed().as_secs_f64() * 1e3);
    let began = Instant::now();
    notes.search(&query).filter(field("ten").eq(3)).await?;
    println!("{:>24} {:>10.1} ms to the first filtered answer", "", began.elapsed().as_secs_f64() * 1e3);
    larder.close().await;
    Ok(())
}

/// Many callers, each of whose points is on the disk when it is told so.
async fn durable(source: &Source, random: &mut Random) -> Result<()> {
    let larder = Larder::temporary().await?;
    let notes = larder.vectors().collection("notes").dimensions(DIMENSIONS).open().await?;
    let points = (0..CALLERS * 50).map(|number| point(number, source.vector(number, random)));
    let points = points.collect::<Result<Vec<_>>>()?;
    let began = Instant::now();
    let callers = points.chunks(50).map(|own| {
        let (notes, own) = (notes.clone(), own.to_vec());
        tokio::spawn(async move {
            for point in own {
                notes.upsert([point]).await?;
            }
            Ok::<_, larder::Error>(())
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await??;
    }
    let rate = points.len() as f64 / began.elapsed().as_secs_f64();
    println!("\n{:>24} {rate:>10.0} points/s, durable, {CALLERS} callers", "insert");
    larder.close().await;
    Ok(())
}
