//! Two processes on one folder: what one has acknowledged is in the other's next answer.

use larder::{Larder, Metric, Point, VectorCollection};

use super::oracle::{Oracle, Random};
use super::{assert_sound, point};
use crate::support::child::{Child, hear, tell};

const DIMENSIONS: usize = 64;

fn vector(id: usize) -> Vec<f32> {
    Random::new(1 + id as u64).vector(DIMENSIONS)
}

fn points(first: usize, count: usize) -> Vec<Point> {
    (first..first + count).map(|id| point(&id.to_string(), &vector(id))).collect()
}

fn ids(first: usize, count: usize) -> Vec<String> {
    (first..first + count).map(|id| id.to_string()).collect()
}

async fn open(folder: &str) -> (Larder, VectorCollection) {
    // Without memory for vectors as they are: both processes keep chunks in the file.
    let larder = Larder::builder(folder)
        .vectors(|vectors| vectors.own.vector_bytes_max = 0)
        .settings(|settings| settings.maintenance_interval = std::time::Duration::from_millis(10));
    let larder = larder.open().await.unwrap();
    let notes = super::collection(&larder, DIMENSIONS, Metric::Cosine).await;
    (larder, notes)
}

/// The ids of an exact answer, in order.
async fn nearest(notes: &VectorCollection, query: usize) -> String {
    let hits = notes.search(vector(query)).exact().await.unwrap();
    hits.iter().map(|hit| hit.id.as_str()).collect::<Vec<_>>().join(",")
}

/// A child that does what each line says: `put` or `delete` with a first id and a count, or `find` with the id of a query.
pub(crate) fn search_until_told(mut arguments: impl Iterator<Item = String>) {
    let folder = arguments.next().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (larder, notes) = open(&folder).await;
        tell("READY");
        loop {
            let line = hear();
            let mut words = line.split(' ');
            let verb = words.next().unwrap_or_default();
            let numbers: Vec<usize> = words.map(|word| word.parse().unwrap()).collect();
            match (verb, numbers.as_slice()) {
                ("put", [first, count]) => drop(notes.upsert(points(*first, *count)).await.unwrap()),
                ("delete", [first, count]) => assert!(notes.delete(ids(*first, *count)).await.unwrap() > 0),
                ("find", [query]) => tell(&format!("FOUND {}", nearest(&notes, *query).await)),
                _ => break,
            }
            tell("DONE");
        }
        assert!(larder.close().await.is_clean());
        tell("CLOSED");
    });
}

#[tokio::test]
async fn each_process_sees_what_the_other_has_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let (larder, notes) = open(path).await;
    let mut other = Child::spawn("searcher", [path]);
    other.wait_for("READY");
    let mut tell_other = |line: String| -> Option<String> {
        other.say(&line);
        let found = line.starts_with("find").then(|| other.wait_for("FOUND"));
        other.wait_for("DONE");
        found
    };
    let (mut oracle, mut random) = (Oracle::new(Metric::Cosine), Random::new(5));
    for round in 0..60 {
        let (first, count) = (random.below(3_000), 1 + random.below(200));
        let is_put = oracle.points.len() < 500 || random.below(3) > 0;
        match (is_put, round % 2) {
            (true, 0) => drop(notes.upsert(points(first, count)).await.unwrap()),
            (true, _) => drop(tell_other(format!("put {first} {count}"))),
            (false, 0) => drop(notes.delete(ids(first, count)).await.unwrap()),
            (false, _) if ids(first, count).iter().any(|id| oracle.points.contains_key(id)) => {
                drop(tell_other(format!("delete {first} {count}")));
            }
            (false, _) => continue,
        }
        if is_put {
            oracle.upsert(points(first, count));
        } else {
            ids(first, count).iter().for_each(|id| drop(oracle.points.remove(id)));
        }
        let query = 10_000 + round;
        let expected: Vec<_> = oracle.nearest(&vector(query), 10, |_| true).into_iter().map(|(id, _)| id).collect();
        assert_eq!(nearest(&notes, query).await, expected.join(","), "round {round}, here");
        assert_eq!(tell_other(format!("find {query}")), Some(expected.join(",")), "round {round}, there");
    }
    other.say("end");
    other.wait_for("CLOSED");
    assert_sound(&larder).await;
}
