//! Load tests of the embedding cache through the public API: hits from memory and from the file, puts, many at once, one
//! computation for many callers, and puts at the limit.
//!
//! ```sh
//! cargo bench --bench embed_cache              # all of it
//! cargo bench --bench embed_cache -- hit       # what matches a word
//! ```
//!
//! Vectors have 384 components. Side by side with other caches: `benches/peers/run embed_cache`.
#![expect(clippy::expect_used, reason = "a bench that cannot begin has nothing to measure")]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use larder::{EmbedCacheSettings, Larder, Model};
use tokio::runtime::Runtime;

const VALUES: u64 = 20_000;
const CALLERS: u64 = 64;

fn model() -> Model {
    Model::new("minilm").expect("a short name")
}

#[expect(clippy::cast_precision_loss, reason = "numbers below 2^20")]
fn vector(number: u64) -> Vec<f32> {
    (0..384).map(|at| ((number * 31 + at) % 1_000_003) as f32).collect()
}

fn inputs() -> Vec<String> {
    (0..VALUES).map(|number| format!("text number {number}")).collect()
}

/// A larder with vectors for the inputs.
async fn filled(folder: &std::path::Path, change: impl FnOnce(&mut EmbedCacheSettings)) -> Larder {
    let larder =
        Larder::builder(folder).embed_cache(|cache| change(&mut cache.own)).open().await.expect("a temporary folder");
    let inputs = inputs();
    for (at, some) in inputs.chunks(1_000).enumerate() {
        let numbers = (at as u64 * 1_000)..;
        let puts = some.iter().zip(numbers.map(vector));
        larder.embed_cache().put_many(model(), puts).await.expect("vectors are put");
    }
    larder
}

/// Runs `calls` calls from each of some tasks, and answers how long that took.
async fn from_tasks<F, Fut>(tasks: u64, calls: u64, call: F) -> Duration
where
    F: Fn(u64, u64) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let began = Instant::now();
    let tasks = (0..tasks).map(|task| {
        let call = call.clone();
        tokio::spawn(async move {
            for number in 0..calls {
                call(task, number).await;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("calls do not panic");
    }
    began.elapsed()
}

fn hits(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("threads");
    let mut group = criterion.benchmark_group("embed_cache");
    group.throughput(Throughput::Elements(2)).sample_size(20);
    for (name, memory_bytes) in [("hit-memory-2-tasks", 64 << 20), ("hit-sqlite-2-tasks", 0)] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let larder = runtime.block_on(filled(folder.path(), |own| own.memory_bytes = memory_bytes));
        let (inputs, model) = (Arc::new(inputs()), Arc::new(model()));
        group.bench_function(name, |bencher| {
            bencher.to_async(&runtime).iter_custom(|calls| {
                let (cache, inputs, model) = (larder.embed_cache(), Arc::clone(&inputs), Arc::clone(&model));
                from_tasks(2, calls, move |task, number| {
                    let (cache, inputs, model) = (cache.clone(), Arc::clone(&inputs), Arc::clone(&model));
                    async move {
                        let at = usize::try_from((task * 7_919 + number * 31) % VALUES).unwrap_or(0);
                        let found = cache.get(&*model, inputs.get(at).map_or("", String::as_str)).await;
                        assert!(found.expect("it can be read").is_some());
                    }
                })
            });
        });
        runtime.block_on(larder.close());
    }
    group.finish();
}

/// Puts of 64 callers, without a limit and at one: what eviction costs is the ratio.
fn puts(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("threads");
    let mut group = criterion.benchmark_group("embed_cache");
    group.throughput(Throughput::Elements(CALLERS)).sample_size(10).measurement_time(Duration::from_secs(5));
    for (name, bytes_max) in [("put-64", None), ("put-64-at-limit", Some(32 << 20))] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let larder = runtime.block_on(filled(folder.path(), |own| own.bytes_max = bytes_max));
        let (next, model) = (Arc::new(AtomicU64::new(0)), Arc::new(model()));
        group.bench_function(name, |bencher| {
            bencher.to_async(&runtime).iter_custom(|calls| {
                let (cache, next, model) = (larder.embed_cache(), Arc::clone(&next), Arc::clone(&model));
                from_tasks(CALLERS, calls, move |_, _| {
                    let (cache, model) = (cache.clone(), Arc::clone(&model));
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    async move {
                        let input = format!("new {number}");
                        cache.put(&*model, &input, vector(number)).await.expect("it is put");
                    }
                })
            });
        });
        runtime.block_on(larder.close());
    }
    group.finish();
}

fn many(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("threads");
    let mut group = criterion.benchmark_group("embed_cache");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let larder = runtime.block_on(filled(folder.path(), |_| ()));
    let (cache, model, inputs) = (larder.embed_cache(), model(), inputs());
    let next = AtomicU64::new(0);
    group.bench_function("get-many-1000-with-100-misses", |bencher| {
        bencher.to_async(&runtime).iter_batched(
            || {
                let first = next.fetch_add(1, Ordering::Relaxed);
                let at = usize::try_from(first * 900 % (VALUES - 900)).unwrap_or(0);
                let mut asked: Vec<String> = inputs.iter().skip(at).take(900).cloned().collect();
                asked.extend((0..100).map(|number| format!("missing {first} {number}")));
                asked
            },
            |asked| {
                let (cache, model) = (&cache, &model);
                async move {
                    let compute = |missing: Vec<&String>| {
                        let vectors = (0..missing.len() as u64).map(vector).collect();
                        async move { Ok::<_, Infallible>(vectors) }
                    };
                    let vectors = cache.get_or_compute_many(model, &asked, compute).await;
                    assert_eq!(vectors.expect("all of them").len(), 1_000);
                }
            },
            criterion::BatchSize::PerIteration,
        );
    });
    group.sample_size(10);
    let cold = AtomicU64::new(0);
    group.bench_function("1000-callers-one-cold-key", |bencher| {
        bencher.to_async(&runtime).iter(|| {
            let input = format!("cold {}", cold.fetch_add(1, Ordering::Relaxed));
            let (cache, model) = (&cache, &model);
            async move {
                let runs = AtomicU64::new(0);
                let calls = (0..1_000).map(|_| {
                    cache.get_or_compute(model, &input, || async {
                        runs.fetch_add(1, Ordering::Relaxed);
                        tokio::task::yield_now().await;
                        Ok::<_, Infallible>(vector(1))
                    })
                });
                futures::future::try_join_all(calls).await.expect("all of them");
                assert_eq!(runs.load(Ordering::Relaxed), 1);
            }
        });
    });
    group.finish();
    runtime.block_on(larder.close());
}

criterion_group!(benches, hits, puts, many);
criterion_main!(benches);
