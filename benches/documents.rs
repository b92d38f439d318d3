//! Load tests of the documents store through the public API: ingest, the same again, search, get.
//!
//! ```sh
//! cargo bench --bench documents              # all of it
//! cargo bench --bench documents -- search    # what matches a word
//! ```
//!
//! Texts are words drawn as often as a language has them, 100 a chunk, 100 chunks a document; the folder is on the disk of
//! the temporary folder. Side by side with other stores: `benches/peers/run documents`.
#![expect(clippy::expect_used, reason = "a bench that cannot begin has nothing to measure")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use larder::{Document, JsonText, Larder, Node, field};
use tokio::runtime::Runtime;

const CHUNKS: u64 = 100;
const DOCUMENTS: u64 = 200;

/// SplitMix64: the same texts in every run.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

fn word(rank: u64) -> String {
    format!("q{}", radix(rank))
}

fn radix(mut rank: u64) -> String {
    let mut letters = String::new();
    loop {
        letters.push(char::from(b'a' + u8::try_from(rank % 26).unwrap_or(0)));
        rank /= 26;
        if rank == 0 {
            return letters;
        }
    }
}

fn id(document: u64) -> String {
    format!("documents/{document:06}.md")
}

fn document(number: u64) -> (Document, Vec<Node>) {
    let source = Document::new(id(number)).expect("a short id").with_fingerprint("1");
    let node = |chunk: u64| {
        let mut state = number * CHUNKS + chunk;
        let words: Vec<String> = (0..100)
            .map(|_| {
                let bound = 1 + random(&mut state) % 20_000;
                let bound = 1 + random(&mut state) % bound;
                word(random(&mut state) % bound)
            })
            .collect();
        let metadata = JsonText::new(format!(r#"{{"document": {number}, "chunk": {chunk}}}"#)).expect("JSON");
        Node::text(format!("{}#{chunk}", id(number)), words.join(" ")).expect("a short id").with_metadata(metadata)
    };
    (source, (0..CHUNKS).map(node).collect())
}

/// A larder with 20,000 chunks.
async fn filled() -> larder::Result<Larder> {
    let larder = Larder::temporary().await.expect("a temporary folder");
    for number in 0..DOCUMENTS {
        let (source, nodes) = document(number);
        larder.documents().put(source, nodes).await?;
    }
    Ok(larder)
}

fn puts(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("threads");
    let mut group = criterion.benchmark_group("documents");
    group.throughput(Throughput::Elements(CHUNKS)).sample_size(20).measurement_time(Duration::from_secs(6));
    let larder = runtime.block_on(Larder::temporary()).expect("a temporary folder");
    let next = AtomicU64::new(0);
    group.bench_function("ingest-100-chunks-durable", |bencher| {
        bencher.to_async(&runtime).iter_batched(
            || document(next.fetch_add(1, Ordering::Relaxed)),
            |(source, nodes)| async { larder.documents().put(source, nodes).await },
            criterion::BatchSize::PerIteration,
        );
    });
    let larder = runtime.block_on(filled()).expect("a larder with chunks");
    group.bench_function("reingest-100-chunks-unchanged", |bencher| {
        bencher.to_async(&runtime).iter_batched(
            || document(next.fetch_add(1, Ordering::Relaxed) % DOCUMENTS),
            |(source, nodes)| async { larder.documents().put(source, nodes).await },
            criterion::BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn reads(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("threads");
    let larder = runtime.block_on(filled()).expect("a larder with chunks");
    let documents = larder.documents();
    let mut group = criterion.benchmark_group("documents");
    group.sample_size(30);
    let mut state = 1;
    group.bench_function("get-by-id", |bencher| {
        bencher.to_async(&runtime).iter_batched(
            || format!("{}#{}", id(random(&mut state) % DOCUMENTS), random(&mut state) % CHUNKS),
            |id| async { documents.get(id).await },
            criterion::BatchSize::SmallInput,
        );
    });
    let query = |state: &mut u64| format!("{} {}", word(20 + random(state) % 100), word(20 + random(state) % 100));
    group.bench_function("search-two-words", |bencher| {
        bencher.to_async(&runtime).iter_batched(
            || query(&mut state),
            |query| async { documents.search(query).limit(10).await },
            criterion::BatchSize::SmallInput,
        );
    });
    group.bench_function("search-two-words-filtered", |bencher| {
        bencher.to_async(&runtime).iter_batched(
            || query(&mut state),
            |query| async { documents.search(query).filter(field("chunk").lt(20)).limit(10).await },
            criterion::BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, puts, reads);
criterion_main!(benches);
