//! Random upserts, deletes, filters and reopens beside the [`Oracle`]: exact answers are equal bit for bit, in order.

use larder::{Larder, Metric, Point, VectorCollection, field};

use super::oracle::{Oracle, Random};
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
    let made = point(&id, &vector).with_metadata(json(&format!(r#"{{"group": {group}}}"#)));
    made.with_document(format!("d{}", random.below(50))).unwrap()
}

fn group(point: &Point) -> usize {
    let metadata: serde_json::Value = serde_json::from_str(point.metadata.as_ref().unwrap().as_str()).unwrap();
    usize::try_from(metadata["group"].as_u64().unwrap()).unwrap()
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
    for (k, below) in [(10, None), (10, Some(10)), (50, Some(1))] {
        let query = random.vector(dimensions);
        let mut search = notes.search(&query).k(k).exact();
        if let Some(below) = below {
            search = search.filter(field("group").lt(below));
        }
        let is_wanted = |point: &Point| below.is_none_or(|below| group(point) < below.try_into().unwrap());
        let expected = oracle.nearest(&query, k, is_wanted);
        let found: Vec<_> = search.await.unwrap().iter().map(|hit| (hit.id.to_string(), hit.score)).collect();
        let bits = |hits: &[(String, f32)]| hits.iter().map(|(id, s)| (id.clone(), s.to_bits())).collect::<Vec<_>>();
        assert_eq!(bits(&found), bits(&expected));
    }
}

async fn run(dimensions: usize, metric: Metric, seed: u64) {
    let steps = number_from_environment("LARDER_VECTORS_STEPS", 60);
    let folder = tempfile::tempdir().unwrap();
    let (mut random, mut oracle) = (Random::new(seed), Oracle::new(metric));
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
        run(dimensions, metric, seed + dimensions as u64).await;
    }
}
