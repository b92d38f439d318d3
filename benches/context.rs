//! How quickly a context ingests, ingests again what is unchanged, and retrieves, with embeddings that are given.
//!
//! ```sh
//! cargo bench --bench context                    # 20,480 made-up passages of 384 dimensions
//! cargo bench --bench context -- --rounds 1      # once instead of three times
//! zcat ../shared/data/embeddings/meta.jsonl.gz > /tmp/meta.jsonl
//! LARDER_EMBEDDINGS=../shared/data/embeddings LARDER_TEXTS=/tmp/meta.jsonl cargo bench --bench context    # real ones
//! ```
//!
//! A table rather than criterion's statistics: what matters is the ratio between the lines; medians of interleaved rounds.
#![expect(clippy::print_stdout, reason = "a bench talks to whoever runs it")]
#![expect(clippy::disallowed_methods, reason = "reads the user's data, never a store's file")]
#![expect(clippy::cast_precision_loss, reason = "counts, for rates and means")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use larder::{BoxError, Context, Document, Durability, Embedder, JsonText, Larder, Node, Retrieve, field};

const DIMENSIONS: usize = 384;
const PASSAGES: usize = 20_480;
const QUERIES: usize = 1_000;

type Result<T, E = BoxError> = std::result::Result<T, E>;

/// Passages with their embeddings, and questions with theirs.
struct Corpus {
    /// Of a document each: its id and its passages.
    documents: Vec<(String, Vec<String>)>,
    questions: Vec<(String, Vec<f32>)>,
    vectors: Arc<HashMap<String, Vec<f32>>>,
}

/// The embeddings are given.
#[derive(Clone)]
struct Given(Arc<HashMap<String, Vec<f32>>>);

impl Embedder for Given {
    fn model(&self) -> &'static str {
        "given"
    }

    fn dimensions(&self) -> usize {
        DIMENSIONS
    }

    async fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        texts.iter().map(|text| Ok(self.0.get(*text).ok_or("no embedding is given")?.clone())).collect()
    }
}

fn read_vectors(path: &Path) -> Result<Vec<Vec<f32>>> {
    let bytes = std::fs::read(path)?;
    let values = bytes.get(128..).unwrap_or_default().as_chunks().0;
    let rows = values.chunks_exact(DIMENSIONS);
    Ok(rows.map(|row| row.iter().map(|value| f32::from_le_bytes(*value)).collect()).collect())
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

    fn vector(&mut self) -> Vec<f32> {
        (0..DIMENSIONS).map(|_| (self.next() >> 40) as f32 / (1_u32 << 24) as f32 - 0.5).collect()
    }

    /// Words of which few are frequent, as in texts.
    fn words(&mut self, count: usize) -> String {
        let word = |n: u64| format!("w{}", 20_000 / (1 + n % 20_000));
        (0..count).map(|_| word(self.next())).collect::<Vec<_>>().join(" ")
    }
}

impl Corpus {
    fn load() -> Result<Self> {
        match (std::env::var_os("LARDER_EMBEDDINGS"), std::env::var_os("LARDER_TEXTS")) {
            (Some(folder), Some(texts)) => Self::read(Path::new(&folder), Path::new(&texts)),
            _ => Ok(Self::made_up()),
        }
    }

    fn read(folder: &Path, texts: &Path) -> Result<Self> {
        println!("passages: {}", texts.display());
        let mut corpus = Self { documents: Vec::new(), questions: Vec::new(), vectors: Arc::default() };
        let mut vectors = HashMap::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        let rows = std::fs::read_to_string(texts)?;
        for (line, vector) in rows.lines().zip(read_vectors(&folder.join("base.npy"))?) {
            let row: serde_json::Value = serde_json::from_str(line)?;
            let said = |field: &str| row.get(field).and_then(|text| text.as_str()).unwrap_or_default().to_owned();
            let place = *places.entry(said("doc")).or_insert_with(|| {
                corpus.documents.push((said("doc"), Vec::new()));
                corpus.documents.len() - 1
            });
            if let Some((_, passages)) = corpus.documents.get_mut(place) {
                passages.push(said("text"));
            }
            vectors.insert(said("text"), vector);
        }
        let rows = std::fs::read_to_string(folder.join("queries.jsonl"))?;
        for (line, vector) in rows.lines().zip(read_vectors(&folder.join("queries.npy"))?) {
            let row: serde_json::Value = serde_json::from_str(line)?;
            let text = row.get("text").and_then(|text| text.as_str()).unwrap_or_default().to_owned();
            corpus.questions.push((text, vector));
        }
        corpus.vectors = Arc::new(vectors);
        Ok(corpus)
    }

    fn made_up() -> Self {
        println!("passages: made up");
        let mut random = Random(7);
        let (mut documents, mut vectors) = (Vec::new(), HashMap::new());
        for document in 0..PASSAGES / 5 {
            let passages: Vec<String> = (0..5).map(|_| random.words(55)).collect();
            for passage in &passages {
                vectors.insert(passage.clone(), random.vector());
            }
            documents.push((format!("documents/{document}"), passages));
        }
        let questions = (0..QUERIES).map(|_| (random.words(12), random.vector())).collect();
        Self { documents, questions, vectors: Arc::new(vectors) }
    }

    fn passage_count(&self) -> usize {
        self.documents.iter().map(|(_, passages)| passages.len()).sum()
    }

    fn sources(&self) -> Vec<Document> {
        let text = |passages: &[String]| passages.join("\n");
        let made = self
            .documents
            .iter()
            .map(|(id, passages)| Ok::<_, BoxError>(Document::new(id)?.with_fingerprint_of(text(passages).as_bytes())));
        made.collect::<Result<_>>().unwrap_or_default()
    }

    /// Returns a document's nodes: one of ten carries another language.
    fn nodes(&self, places: &HashMap<&str, usize>, id: &str) -> Result<Vec<Node>> {
        let Some((_, passages)) = places.get(id).and_then(|place| self.documents.get(*place)) else {
            return Ok(Vec::new());
        };
        let node = |(at, text): (usize, &String)| {
            let lang = if at % 10 == 9 { "de" } else { "en" };
            let metadata = JsonText::new(format!(r#"{{"lang": "{lang}", "para": {at}}}"#))?;
            Ok(Node::text(format!("{id}#{at}"), text)?.with_metadata(metadata))
        };
        passages.iter().enumerate().map(node).collect()
    }
}

async fn open(folder: &Path, durability: Durability, given: &Given, is_cached: bool) -> Result<Context> {
    let larder = Larder::builder(folder)
        .documents(|store| store.common.durability = durability)
        .vectors(|store| store.common.durability = durability)
        .embed_cache(|store| store.common.durability = durability)
        .open()
        .await?;
    let context = larder.context("notes").embedder(given.clone());
    let context = if is_cached { context } else { context.uncached() };
    Ok(context.open().await?)
}

/// Ingests everything; answers how long that took.
async fn ingest(context: &Context, corpus: &Corpus) -> Result<Duration> {
    let places: HashMap<&str, usize> =
        corpus.documents.iter().enumerate().map(|(place, (id, _))| (id.as_str(), place)).collect();
    let sources = corpus.sources();
    let began = Instant::now();
    let report = context.ingest(sources).run(|document: &Document| corpus.nodes(&places, document.id.as_str()));
    let report = report.await?;
    let took = began.elapsed();
    if !report.failed.is_empty() {
        return Err(format!("{} documents failed: {:?}", report.failed.len(), report.failed.first()).into());
    }
    Ok(took)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

async fn retrieve(name: &str, context: &Context, corpus: &Corpus, change: impl Fn(Retrieve) -> Retrieve) -> Result<()> {
    let (mut times, mut found) = (Vec::new(), 0);
    for (question, vector) in &corpus.questions {
        let retrieve = change(context.retrieve(question.as_str()).vector(vector.clone()).k(10));
        let began = Instant::now();
        found += retrieve.await?.passages.len();
        times.push(began.elapsed());
    }
    times.sort();
    let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
    let mean = found as f64 / times.len() as f64;
    println!("{name:<42} p50 {:>9.1?}  p90 {:>9.1?}  p99 {:>9.1?}  {mean:.1} passages", at(50), at(90), at(99));
    Ok(())
}

async fn run(rounds: usize) -> Result<()> {
    let corpus = Corpus::load()?;
    let given = Given(Arc::clone(&corpus.vectors));
    let count = corpus.passage_count();
    println!("{} documents, {count} passages, {} questions", corpus.documents.len(), corpus.questions.len());
    let kinds = [
        ("relaxed, uncached", Durability::Relaxed, false),
        ("durable, uncached", Durability::Durable, false),
        ("relaxed, cached", Durability::Relaxed, true),
        ("durable, cached", Durability::Durable, true),
    ];
    let (mut first, mut again) = (vec![Vec::new(); kinds.len()], vec![Vec::new(); kinds.len()]);
    for _ in 0..rounds {
        for ((_, durability, is_cached), (first, again)) in kinds.into_iter().zip(first.iter_mut().zip(&mut again)) {
            let folder = tempfile::tempdir()?;
            let context = open(folder.path(), durability, &given, is_cached).await?;
            first.push(ingest(&context, &corpus).await?);
            again.push(ingest(&context, &corpus).await?);
            context.larder().clone().close().await;
        }
    }
    for ((name, ..), (first, again)) in kinds.into_iter().zip(first.into_iter().zip(again)) {
        let (first, again) = (median(first), median(again));
        let (rate, ratio) = (count as f64 / first.as_secs_f64(), first.as_secs_f64() / again.as_secs_f64());
        println!(
            "ingest, {name:<20} {first:>9.2?} = {rate:>7.0} passages/s; again {again:>9.2?}, {ratio:.0} times faster"
        );
    }
    let folder = tempfile::tempdir()?;
    let context = open(folder.path(), Durability::Relaxed, &given, false).await?;
    ingest(&context, &corpus).await?;
    let english = || field("lang").eq("en");
    retrieve("(warming up)", &context, &corpus, |retrieve| retrieve).await?;
    retrieve("hybrid, k = 10, filtered", &context, &corpus, |retrieve| retrieve.filter(english())).await?;
    retrieve("hybrid, k = 10", &context, &corpus, |retrieve| retrieve).await?;
    retrieve("vectors alone, filtered", &context, &corpus, |retrieve| retrieve.without_words().filter(english()))
        .await?;
    retrieve("words alone, filtered", &context, &corpus, |retrieve| retrieve.without_vectors().filter(english()))
        .await?;
    retrieve("hybrid, filtered, 1,000 tokens", &context, &corpus, |retrieve| {
        retrieve.filter(english()).token_budget(1_000)
    })
    .await?;
    context.larder().clone().close().await;
    Ok(())
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let mut rounds = 3;
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), arguments.next()) {
            ("--rounds", Some(number)) => rounds = number.parse()?,
            (other, _) => return Err(format!("what is {other:?}? there is --rounds NUMBER").into()),
        }
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(rounds))
}
