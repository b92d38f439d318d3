//! Searches texts by meaning: nearest vectors, filters, and both beside words.
//!
//! ```sh
//! cargo run --release --example semantic_search                                   # a few sentences
//! cargo run --release --example semantic_search -- ../shared/data/embeddings      # 20,480 passages, and how quick it is
//! ```
//!
//! It has no embedding model. Given a folder with `base.npy`, `meta.jsonl.gz`, `queries.npy`, `queries.jsonl` and `gt10.npy`,
//! it takes their vectors, which a model made (all-MiniLM-L6-v2). Without one it counts hashed words, which finds what shares
//! words and knows nothing of meaning.
//!
//! Start at [`tell`] (the sentences) and [`measure`] (the folder).
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to whoever runs it")]
#![expect(clippy::disallowed_methods, reason = "reads the user's data, never a store's file")]
#![expect(clippy::cast_precision_loss, reason = "counts of a few thousand, for rates")]

use std::collections::HashSet;
use std::error::Error;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use larder::{Hit, JsonText, Larder, Metric, Point, PointFields, VectorCollection, field};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Components of a hashed text.
const HASHED_DIMENSIONS: usize = 256;
const BATCH: usize = 1_000;
/// Queries under a filter: each is also asked exactly, for its recall.
const FILTERED_QUERIES: usize = 50;
const SENTENCES: [(&str, &str); 8] = [
    ("storage", "SQLite writes committed pages to a write-ahead log before they reach the main file"),
    ("storage", "A checkpoint moves pages from the write-ahead log into the database file"),
    ("storage", "Deleted rows leave free pages that are given back to the file system in slices"),
    ("search", "The nearest vectors are found by scanning one-bit codes and scoring the best exactly"),
    ("search", "A filter on metadata narrows the search without making it miss results"),
    ("search", "Hybrid search fuses the ranks of words and of vectors"),
    ("actors", "Each store is an actor that owns its own file and commits many writes in one group"),
    ("actors", "A supervisor restarts a store that panicked, and the others do not notice"),
];

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match std::env::args_os().nth(1) {
        Some(folder) => measure(Path::new(&folder)).await,
        None => tell().await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("semantic_search: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Counts the words of a text, each in the place that its hash names. No model: it knows words, and not what they mean.
fn hashed(text: &str) -> Vec<f32> {
    let mut counts = vec![0.0; HASHED_DIMENSIONS];
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.len() > 2) {
        // FNV-1a, so that it is the same in every run.
        let fnv = |hash: u32, byte: u8| (hash ^ u32::from(byte.to_ascii_lowercase())).wrapping_mul(16_777_619);
        let hash = word.bytes().fold(2_166_136_261, fnv);
        if let Some(count) = counts.get_mut(hash as usize % HASHED_DIMENSIONS) {
            *count += 1.0;
        }
    }
    counts
}

async fn tell() -> Result<()> {
    println!("No folder with a model's vectors is given, so texts are compared by hashed words: no embedding model.\n");
    let larder = Larder::temporary().await?;
    let notes =
        larder.vectors().collection("notes").dimensions(HASHED_DIMENSIONS).metric(Metric::Cosine).open().await?;
    let mut points = Vec::new();
    for (number, (topic, text)) in SENTENCES.iter().enumerate() {
        let metadata = JsonText::new(format!(r#"{{"topic": "{topic}"}}"#))?;
        points.push(Point::new(number.to_string(), hashed(text))?.with_metadata(metadata).with_text(*text));
    }
    notes.upsert(points).await?;
    for question in ["how are the nearest vectors found", "pages of the write-ahead log"] {
        println!("{question}?");
        show(&notes.search(hashed(question)).k(2).await?);
        println!("  … only of the topic \"actors\":");
        show(&notes.search(hashed(question)).k(1).filter(field("topic").eq("actors")).await?);
    }
    println!("words and vectors together, for \"supervisor\":");
    show(&notes.search(hashed("what happens after a panic")).text("supervisor").k(2).await?);
    larder.close().await;
    Ok(())
}

fn show(hits: &[Hit]) {
    for hit in hits {
        let text: String = hit.text.as_deref().unwrap_or_default().chars().take(90).collect();
        println!("  {:.3}  {text}", hit.score);
    }
}

/// Imports the folder's passages, shows some answers, and measures recall and latency through the public API.
async fn measure(folder: &Path) -> Result<()> {
    let (dimensions, base) = read_npy(&folder.join("base.npy"))?;
    let (_, queries) = read_npy(&folder.join("queries.npy"))?;
    let (_, truth) = read_npy_of(&folder.join("gt10.npy"), i32::from_le_bytes)?;
    let texts = read_texts(&folder.join("meta.jsonl.gz"))?;
    let (base, queries): (Vec<_>, Vec<_>) =
        (base.chunks_exact(dimensions).collect(), queries.chunks_exact(dimensions).collect());
    println!("{} passages of {dimensions} dimensions, by all-MiniLM-L6-v2; {} queries.", base.len(), queries.len());

    let first_query = *queries.first().ok_or("queries.npy is empty")?;
    let larder_folder = tempfile::Builder::new().prefix("larder-semantic-search-").tempdir()?;
    let larder = Larder::open(larder_folder.path()).await?;
    let notes = larder.vectors().collection("passages").dimensions(dimensions).metric(Metric::Cosine).open().await?;
    larder.vectors().declare_field(field("draw")).await?;
    let began = Instant::now();
    for (number, batch) in base.chunks(BATCH).enumerate() {
        let point = |(at, vector): (usize, &&[f32])| -> Result<Point> {
            let row = number * BATCH + at;
            // A number of 0 to 999 that has nothing to do with the text, for filters of any selectivity.
            let metadata = JsonText::new(format!(r#"{{"draw": {}}}"#, row * 7_919 % 1_000))?;
            let text = texts.get(row).cloned().unwrap_or_default();
            Ok(Point::new(row.to_string(), *vector)?.with_metadata(metadata).with_text(text))
        };
        notes.upsert(batch.iter().enumerate().map(point).collect::<Result<Vec<_>>>()?).await?;
    }
    let took = began.elapsed();
    println!(
        "Put with texts in batches of {BATCH}: {:?}, {:.0} a second.",
        took,
        base.len() as f64 / took.as_secs_f64()
    );
    let began = Instant::now();
    notes.search(first_query).await?;
    println!("The first search, which loads the index: {:?}.\n", began.elapsed());

    for query in queries.iter().take(2) {
        println!("Nearest to a query of the folder:");
        show(&notes.search(query).k(3).await?);
    }
    println!("\n{:<28} {:>9} {:>9} {:>9}", "search", "recall@10", "p50", "p99");
    for is_exact in [false, true] {
        run(if is_exact { "exact" } else { "default" }, &notes, &queries, is_exact, &truth, None).await?;
    }
    for per_mille in [500_u32, 100, 10, 1] {
        run(
            &format!("filter, {} % wanted", f64::from(per_mille) / 10.0),
            &notes,
            queries.get(..FILTERED_QUERIES).unwrap_or(&queries),
            false,
            &truth,
            Some(per_mille.into()),
        )
        .await?;
    }
    println!("\nOne search explained: {:?}", {
        let explained = notes.search(first_query).fields(PointFields::NONE).explain().await?;
        (
            explained.plan,
            explained.code_count,
            explained.row_count,
            explained.exact_count,
            explained.scan_time,
            explained.read_time,
        )
    });
    larder.close().await;
    Ok(())
}

/// Searches for every query and prints recall and latencies. With a filter, a fresh value is drawn for each query, and recall
/// is against the exact answer under the same filter.
async fn run(
    what: &str,
    notes: &VectorCollection,
    queries: &[&[f32]],
    is_exact: bool,
    truth: &[i32],
    per_mille: Option<i64>,
) -> Result<()> {
    let (mut latencies, mut found) = (Vec::with_capacity(queries.len()), 0);
    for (number, query) in queries.iter().enumerate() {
        let narrowed = |is_exact: bool| {
            let search = notes.search(query).fields(PointFields::NONE);
            let search = if is_exact { search.exact() } else { search };
            match per_mille {
                Some(per_mille) => {
                    let first = first_of_draw(number, per_mille);
                    search.filter(field("draw").gte(first).and(field("draw").lt(first + per_mille)))
                }
                None => search,
            }
        };
        let began = Instant::now();
        let hits = narrowed(is_exact).await?;
        latencies.push(began.elapsed());
        let expected: HashSet<String> = match per_mille {
            Some(_) => narrowed(true).await?.into_iter().map(|hit| hit.id.to_string()).collect(),
            None => truth.iter().skip(10 * number).take(10).map(i32::to_string).collect(),
        };
        found += hits.iter().filter(|hit| expected.contains(hit.id.as_str())).count();
    }
    latencies.sort_unstable();
    let at = |share: usize| latencies.get(latencies.len() * share / 100).copied().unwrap_or(Duration::ZERO);
    let recall = found as f64 / (10 * queries.len()) as f64;
    println!("{what:<28} {recall:>9.4} {:>9.1?} {:>9.1?}", at(50), at(99));
    Ok(())
}

/// The first number of a filter, another for each query.
fn first_of_draw(query: usize, per_mille: i64) -> i64 {
    i64::try_from(query).unwrap_or(0) * 37 % (1_000 - per_mille + 1)
}

fn read_npy(path: &Path) -> Result<(usize, Vec<f32>)> {
    read_npy_of(path, f32::from_le_bytes)
}

/// Reads an array of two dimensions in NumPy's format, version 1, of numbers of four bytes; returns its width with it.
fn read_npy_of<T>(path: &Path, read: impl Fn([u8; 4]) -> T) -> Result<(usize, Vec<T>)> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let malformed = || format!("{} is not an array that this reads", path.display());
    let header_len = bytes.get(8..10).and_then(|bytes| bytes.try_into().ok()).map(u16::from_le_bytes);
    let end = 10 + usize::from(header_len.filter(|_| bytes.starts_with(b"\x93NUMPY\x01")).ok_or_else(malformed)?);
    let (header, content) = bytes.split_at_checked(end).ok_or_else(malformed)?;
    let header = String::from_utf8_lossy(header);
    let shape = header.split_once("'shape': (").and_then(|(_, rest)| rest.split_once(')'));
    let width = shape.and_then(|(shape, _)| shape.split(", ").nth(1)?.trim().parse().ok()).ok_or_else(malformed)?;
    let (numbers, _) = content.as_chunks::<4>();
    Ok((width, numbers.iter().map(|number| read(*number)).collect()))
}

/// Reads the passages' texts, a JSON object a line, through the system's gzip.
fn read_texts(path: &Path) -> Result<Vec<String>> {
    let output = Command::new("gzip").arg("-dc").arg(path).output()?;
    let text = String::from_utf8(output.stdout)?;
    let parse = |line: &str| -> Result<String> {
        let passage: serde_json::Value = serde_json::from_str(line)?;
        Ok(passage.get("text").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned())
    };
    text.lines().map(parse).collect()
}
