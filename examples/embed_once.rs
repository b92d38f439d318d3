//! Embeds a folder of texts twice with a slow embedder: the second run computes nothing.
//!
//! ```sh
//! cargo run --example embed_once                        # this repository's documentation, a folder of its own, both runs
//! cargo run --example embed_once -- DATA                # keeps the cache in DATA: run it twice
//! cargo run --example embed_once -- DATA TEXTS          # other texts: every .md and .txt below TEXTS
//! ```
//!
//! The embedder stands for a real one: it hashes words into 384 numbers and takes a few milliseconds a text. Two tasks embed
//! all of it at the same time, as two parts of a program might, and each text is computed once.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use larder::{EmbedCache, Larder, Model, Vector};

type Error = Box<dyn std::error::Error + Send + Sync>;

const DIMENSIONS: usize = 384;
/// What a small model takes for a text on a processor, in a batch.
const TIME_PER_TEXT: Duration = Duration::from_millis(4);
/// Texts that go to the model at once.
const BATCH: usize = 32;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (data, texts) = (arguments.next(), arguments.next());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
    let outcome = runtime.map_err(Error::from).and_then(|runtime| runtime.block_on(run(data, texts)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print(&format!("embed_once failed: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(data: Option<PathBuf>, texts: Option<PathBuf>) -> Result<(), Error> {
    let folder = texts.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("docs"));
    let chunks = chunks(&folder)?;
    print(&format!("{} chunks of text below {}", chunks.len(), folder.display()));
    match data {
        Some(data) => embed_all(&data, &chunks).await.map(drop),
        None => {
            let data = tempfile::tempdir()?;
            let first = embed_all(data.path(), &chunks).await?;
            let second = embed_all(data.path(), &chunks).await?;
            if first == 0 || second != 0 {
                return Err(format!("the first run computed {first} texts, the second one {second}").into());
            }
            Ok(())
        }
    }
}

/// Opens the cache, embeds everything from two tasks at once, and prints the statistics; answers how many were computed.
async fn embed_all(data: &Path, chunks: &[String]) -> Result<u64, Error> {
    let larder = Larder::open(data).await?;
    let (cache, began) = (larder.embed_cache(), Instant::now());
    let (one, other) = futures::future::try_join(embed(&cache, chunks), embed(&cache, chunks)).await?;
    if one != other || one.len() != chunks.len() {
        return Err("two tasks got different vectors".into());
    }
    let took = began.elapsed();
    let statistics = cache.statistics().await?;
    print(&format!(
        "{:>6.2} s: {} computed, {} shared with another task, {} found in memory and {} in the file; {:.2} s saved; {} KiB",
        took.as_secs_f64(),
        statistics.computed,
        statistics.shared,
        statistics.memory_hits,
        statistics.file_hits,
        statistics.time_saved.as_secs_f64(),
        statistics.file_bytes / 1024,
    ));
    larder.close().await;
    Ok(statistics.computed)
}

async fn embed(cache: &EmbedCache, chunks: &[String]) -> Result<Vec<Vector>, Error> {
    let model = Model::new("hashed-words")?.with_parameters("dimensions=384")?;
    let mut vectors = Vec::new();
    for batch in chunks.chunks(BATCH) {
        // Only what is missing gets here, in one batch.
        let embedded = cache.get_or_compute_many(&model, batch, slow_embedder);
        vectors.extend(embedded.await?);
    }
    Ok(vectors)
}

/// The model: words hashed into numbers, at a model's pace.
async fn slow_embedder(texts: Vec<&String>) -> Result<Vec<Vec<f32>>, Error> {
    let time = TIME_PER_TEXT * u32::try_from(texts.len())?;
    // A wait that nothing ends but its time.
    let _ = tokio::time::timeout(time, std::future::pending::<()>()).await;
    let vectors = texts.into_iter().map(|text| {
        let mut vector = vec![0.0; DIMENSIONS];
        for word in text.split_whitespace() {
            let hash = word
                .bytes()
                .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
            let place = usize::try_from(hash % DIMENSIONS as u64).unwrap_or(0);
            if let Some(component) = vector.get_mut(place) {
                *component += if hash >> 63 == 0 { 1.0 } else { -1.0 };
            }
        }
        vector
    });
    Ok(vectors.collect())
}

/// Returns the paragraphs of every `.md` and `.txt` below a folder.
fn chunks(folder: &Path) -> Result<Vec<String>, Error> {
    let (mut folders, mut chunks) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md" || extension == "txt") {
                let text = read(&path)?;
                chunks.extend(text.split("\n\n").map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned));
            }
        }
    }
    if chunks.is_empty() {
        return Err(format!("{} holds no .md or .txt file with text", folder.display()).into());
    }
    Ok(chunks)
}

#[expect(clippy::disallowed_methods, reason = "a text to embed, not a store's file")]
fn read(path: &Path) -> Result<String, Error> {
    Ok(String::from_utf8_lossy(&std::fs::read(path)?).into_owned())
}

fn print(text: &str) {
    use std::io::Write;
    // With nobody to read it there is nothing to say.
    let _ = writeln!(std::io::stdout(), "{text}");
}
