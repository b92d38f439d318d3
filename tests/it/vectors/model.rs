//! Random upserts, deletes, filters and reopens beside the [`Oracle`]: exact answers are equal bit for bit, in order.

use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use larder::protocol::filter::Filter;
use larder::{Larder, Metric, Point, VectorCollection, field};

use super::oracle::{Kernel, Oracle, Random, dot};
use super::{assert_sound, json, point};
use crate::support::number_from_environment;

/// Few, so that points are replaced and deleted often.
const IDS: usize = 3_000;

fn random_point(random: &mut Random, dimensions: usize) -> Point {
    let id = format!("p{}", random.below(IDS));
    let group = random.below(20);
    // Some lie in the same place, for ties.
    let vector = match random.below(10) {
        0 => vec![1.0; dimensions],
        _ => random.vector(dimensions),
    };
    // So long that columns in memory give it up once a block has many.
    let long = format!("{}{:01$}", random.below(IDS), 120);
    let metadata = format!(r#"{{"group": {group}, "deep": {{"n": {}}}, "long": "{long}"}}"#, random.below(IDS));
    let made = point(&id, &vector).with_metadata(json(&metadata));
    made.with_document(format!("d{}", random.below(50))).unwrap()
}

fn metadata(point: &Point) -> serde_json::Value {
    serde_json::from_str(point.metadata.as_ref().unwrap().as_str()).unwrap()
}

fn group(point: &Point) -> usize {
    usize::try_from(metadata(point)["group"].as_u64().unwrap()).unwrap()
}

/// A filter and what it means.
type Wanted = (Filter, Box<dyn Fn(&Point) -> bool>);

/// Filters that columns in memory answer, leave partly open, and cannot answer.
fn wanted(random: &mut Random, kind: usize) -> Wanted {
    let number = random.below(20);
    let below = i64::try_from(number).unwrap();
    let digit = random.below(10).to_string();
    let has_digit = {
        let digit = digit.clone();
        move |point: &Point| metadata(point)["long"].as_str().unwrap().contains(&digit)
    };
    let long = field("long").text_match(digit);
    match kind {
        0 => (field("group").lt(below), Box::new(move |point| group(point) < number)),
        1 => (
            field("deep").key("n").gte(below * 100).and(field("group").ne(below)),
            Box::new(move |point| {
                metadata(point)["deep"]["n"].as_u64().unwrap() >= 100 * number as u64 && group(point) != number
            }),
        ),
        2 => (field("group").eq(below).and(long), Box::new(move |point| group(point) == number && has_digit(point))),
        _ => (long.or(field("none").eq(1)), Box::new(has_digit)),
    }
}

async fn step(random: &mut Random, dimensions: usize, notes: &VectorCollection, oracle: &mut Oracle) {
    match random.below(10) {
        0..6 => {
            let mut points: Vec<Point> = (0..random.below(300)).map(|_| random_point(random, dimensions)).collect();
            points.sort_by(|a, b| a.id.cmp(&b.id));
            points.dedup_by(|a, b| a.id == b.id);
            let known = points.iter().filter(|point| oracle.points.contains_key(point.id.as_str())).count();
            let counts = notes.upsert(points.clone()).await.unwrap();
            assert_eq!(counts.replaced, known as u64);
            oracle.upsert(points);
        }
        6 | 7 => {
            let ids: Vec<String> = (0..random.below(200)).map(|_| format!("p{}", random.below(IDS))).collect();
            let before = oracle.points.len();
            oracle.points.retain(|id, _| !ids.contains(id));
            assert_eq!(notes.delete(ids).await.unwrap(), (before - oracle.points.len()) as u64);
        }
        8 => {
            let document = format!("d{}", random.below(50));
            let before = oracle.points.len();
            oracle.points.retain(|_, point| point.document.as_ref().unwrap().as_str() != document);
            assert_eq!(notes.delete_by_document(document).await.unwrap(), (before - oracle.points.len()) as u64);
        }
        _ => {
            let number = random.below(20);
            let before = oracle.points.len();
            oracle.points.retain(|_, point| group(point) != number);
            let deleted = notes.delete_by_filter(field("group").eq(i64::try_from(number).unwrap())).await.unwrap();
            assert_eq!(deleted, (before - oracle.points.len()) as u64);
        }
    }
}

async fn compare(random: &mut Random, dimensions: usize, notes: &VectorCollection, oracle: &Oracle) {
    assert_eq!(notes.count().await.unwrap(), oracle.points.len() as u64);
    for (k, kind) in [(10, None), (10, Some(0)), (50, Some(1)), (10, Some(2)), (10, Some(3))] {
        let query = random.vector(dimensions);
        let mut search = notes.search(&query).k(k).exact();
        let (filter, is_match) = wanted(random, kind.unwrap_or_default());
        if kind.is_some() {
            search = search.filter(filter);
        }
        let is_wanted = |point: &Point| kind.is_none() || is_match(point);
        let expected = oracle.nearest(&query, k, is_wanted);
        let found: Vec<_> = search.await.unwrap().iter().map(|hit| (hit.id.to_string(), hit.score)).collect();
        let bits = |hits: &[(String, f32)]| hits.iter().map(|(id, s)| (id.clone(), s.to_bits())).collect::<Vec<_>>();
        assert_eq!(bits(&found), bits(&expected));
    }
}

async fn run(dimensions: usize, metric: Metric, seed: u64, steps: u64, kernel: Kernel) {
    let folder = tempfile::tempdir().unwrap();
    let (mut random, mut oracle) = (Random::new(seed), Oracle::with_kernel(metric, kernel));
    // A budget for half of the vectors, so that both ways to an exact score are taken.
    let open = || async {
        let bytes = 4 * dimensions * IDS / 2;
        let larder = Larder::builder(folder.path())
            .vectors(|vectors| vectors.own.vector_bytes_max = bytes as u64)
            .settings(|settings| settings.maintenance_interval = std::time::Duration::from_millis(10));
        larder.open().await.unwrap()
    };
    let mut larder = open().await;
    let mut notes = super::collection(&larder, dimensions, metric).await;
    for number in 0..steps {
        step(&mut random, dimensions, &notes, &mut oracle).await;
        if number % 3 == 0 {
            compare(&mut random, dimensions, &notes, &oracle).await;
        }
        if number % 25 == 24 {
            larder.close().await;
            larder = open().await;
            notes = larder.vectors().collection("notes").open().await.unwrap();
        }
    }
    compare(&mut random, dimensions, &notes, &oracle).await;
    assert_sound(&larder).await;
}

#[tokio::test]
async fn exact_answers_are_those_of_comparing_with_every_vector() {
    let seed = number_from_environment("LARDER_SEED", 1);
    for (dimensions, metric) in [(3, Metric::L2), (64, Metric::Cosine), (100, Metric::Dot)] {
        let steps = number_from_environment("LARDER_VECTORS_STEPS", 60);
        run(dimensions, metric, seed + dimensions as u64, steps, dot).await;
    }
}

/// What makes the model worth something: it tells kernels apart that differ in the order of a sum, in rounding, or in a component.
#[tokio::test]
async fn a_kernel_that_is_broken_is_told_apart() {
    let in_order: Kernel = |a, b| a.iter().zip(b).map(|(a, b)| a * b).sum();
    let fused: Kernel = |a, b| a.iter().zip(b).fold(0.0, |sum, (a, b)| a.mul_add(*b, sum));
    let short: Kernel = |a, b| dot(&a[1..], &b[1..]);
    for (name, kernel) in [("in order", in_order), ("fused", fused), ("short", short)] {
        let told = AssertUnwindSafe(run(64, Metric::Cosine, 1, 8, kernel)).catch_unwind().await;
        assert!(told.is_err(), "{name}");
    }
    run(64, Metric::Cosine, 1, 8, dot).await;
}
