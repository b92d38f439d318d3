//! Load tests of the graph store through the public API: upserts, neighbourhoods, paths, PageRank, lookups.
//!
//! ```sh
//! cargo bench --bench graph              # all of it
//! cargo bench --bench graph -- hops      # what matches a word
//! ```
//!
//! 20,000 entities and 100,000 facts, of which a few entities have most; the folder is on the disk of the temporary folder.
#![expect(clippy::expect_used, reason = "a bench that cannot begin has nothing to measure")]

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use larder::{Larder, NewRelation};
use tokio::runtime::Runtime;

const ENTITIES: u64 = 20_000;
const FACTS: u64 = 100_000;
const BATCH: u64 = 10_000;

/// SplitMix64: the same graph in every run.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// An entity; low ones come up far more often.
fn name(state: &mut u64) -> String {
    let bound = 1 + random(state) % ENTITIES;
    let bound = 1 + random(state) % bound;
    format!("entity number {}", random(state) % bound)
}

fn fact(state: &mut u64) -> NewRelation {
    let (subject, object) = (name(state), name(state));
    NewRelation::new(subject, "knows", object).expect("short names")
}

async fn filled() -> larder::Result<Larder> {
    let larder = Larder::temporary().await.expect("a temporary folder");
    let mut state = 1;
    for _ in 0..FACTS / BATCH {
        let facts: Vec<_> = (0..BATCH).map(|_| fact(&mut state)).collect();
        larder.graph().upsert_relations(facts).await?;
    }
    // Loads it into memory.
    larder.graph().neighborhood(["entity number 0"], 2).await?;
    Ok(larder)
}

fn writes(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("threads");
    let larder = runtime.block_on(filled()).expect("a larder with facts");
    let mut group = criterion.benchmark_group("graph");
    group.sample_size(20).measurement_time(Duration::from_secs(6));
    let mut state = 2;
    group.bench_function("upsert-1-durable", |bencher| {
        bencher.to_async(&runtime).iter_batched(
            || fact(&mut state),
            |fact| async { larder.graph().upsert_relations([fact]).await },
            criterion::BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn walks(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("threads");
    let larder = runtime.block_on(filled()).expect("a larder with facts");
    let graph = larder.graph();
    let mut group = criterion.benchmark_group("graph");
    group.sample_size(30);
    let mut state = 3;
    for depth in 1..=3 {
        group.bench_function(format!("{depth}-hops"), |bencher| {
            bencher.to_async(&runtime).iter_batched(
                || name(&mut state),
                |name| async { graph.neighbors(name).depth(depth).limit(1_000).await },
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.bench_function("shortest-path", |bencher| {
        bencher.to_async(&runtime).iter_batched(
            || (name(&mut state), name(&mut state)),
            |(from, to)| async { graph.shortest_path(from, to).await },
            criterion::BatchSize::SmallInput,
        );
    });
    group.bench_function("pagerank", |bencher| {
        bencher.to_async(&runtime).iter_batched(
            || [name(&mut state), name(&mut state)],
            |seeds| async { graph.rank(seeds).limit(20).await },
            criterion::BatchSize::SmallInput,
        );
    });
    group.bench_function("misspelt", |bencher| {
        bencher.to_async(&runtime).iter_batched(
            || name(&mut state).replace('u', "o"),
            |name| async { graph.misspelt(name).await },
            criterion::BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, writes, walks);
criterion_main!(benches);
