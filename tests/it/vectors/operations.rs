use futures::TryStreamExt;
use larder::{Class, Hit, Larder, Metric, Notice, PointFields, field};

use super::{assert_sound, collection, ids, json, point};
use crate::support::{assert_refused, within};

fn full(id: &str, vector: &[f32]) -> larder::Point {
    point(id, vector)
        .with_metadata(json(r#"{"lang": "en", "year": 2020}"#))
        .with_text("some text")
        .with_document("d")
        .unwrap()
}

#[tokio::test]
async fn points_come_back_as_they_were_put() {
    let larder = Larder::temporary().await.unwrap();
    let notes = collection(&larder, 3, Metric::Cosine).await;
    let (a, b) = (full("a", &[1.0, 2.0, 3.0]), point("b", &[1e-30, -1e15, 0.0]));
    let counts = notes.upsert([a.clone(), b.clone()]).await.unwrap();
    assert_eq!((counts.inserted, counts.replaced), (2, 0));
    assert_eq!(notes.get("a").await.unwrap(), Some(a.clone()));
    assert_eq!(notes.get_many(["b", "none", "a"]).await.unwrap(), [Some(b), None, Some(a)]);
    let replaced = point("a", &[3.0, 2.0, 1.0]);
    let counts = notes.upsert([replaced.clone(), point("c", &[1.0, 0.0, 0.0])]).await.unwrap();
    assert_eq!((counts.inserted, counts.replaced), (1, 1));
    assert_eq!(notes.get("a").await.unwrap(), Some(replaced));
    assert_eq!(notes.count().await.unwrap(), 3);
    assert_sound(&larder).await;
}

#[tokio::test]
async fn points_survive_a_reopen_and_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let larder = Larder::open(folder.path()).await.unwrap();
    let notes = collection(&larder, 2, Metric::L2).await;
    notes.upsert([full("a", &[0.0, 1.0]), full("b", &[5.0, 5.0])]).await.unwrap();
    notes.delete(["b"]).await.unwrap();
    larder.close().await;
    let larder = Larder::open(folder.path()).await.unwrap();
    let notes = larder.vectors().collection("notes").open().await.unwrap();
    assert_eq!((notes.dimensions(), notes.metric()), (2, Metric::L2));
    let hits = notes.search([0.0, 3.0]).await.unwrap();
    assert_eq!(ids(&hits), ["a"]);
    assert_eq!(hits[0].score, -4.0);
    assert_sound(&larder).await;
}

#[tokio::test]
async fn a_write_is_in_the_next_answer() {
    let larder = Larder::temporary().await.unwrap();
    let notes = collection(&larder, 2, Metric::Dot).await;
    let near = async |k| notes.search([1.0, 0.0]).k(k).await.unwrap();
    assert_eq!(near(3).await, []);
    for n in 0..50_u8 {
        notes.upsert([point(&format!("{n:02}"), &[f32::from(n), 1.0])]).await.unwrap();
        assert_eq!(near(1).await[0].id.as_str(), format!("{n:02}"));
    }
    notes.delete(["49", "48", "48", "none"]).await.unwrap();
    assert_eq!(ids(&near(2).await), ["47", "46"]);
    notes.upsert([point("47", &[-1.0, 0.0])]).await.unwrap();
    assert_eq!(ids(&near(2).await), ["46", "45"]);
    assert_eq!(near(100).await.len(), 48);
}

#[tokio::test]
async fn deletes_take_what_they_name_and_no_more() {
    let larder = Larder::temporary().await.unwrap();
    let notes = collection(&larder, 1, Metric::Dot).await;
    let points = (0..10_u8).map(|n| {
        let metadata = json(&format!(r#"{{"n": {n}}}"#));
        let document = format!("d{}", n % 3);
        point(&n.to_string(), &[f32::from(n) + 1.0]).with_metadata(metadata).with_document(document).unwrap()
    });
    notes.upsert(points).await.unwrap();
    assert_eq!(notes.count().of_document("d0").await.unwrap(), 4);
    assert_eq!(notes.delete_by_document("d0").await.unwrap(), 4);
    assert_eq!(notes.delete_by_document("d0").await.unwrap(), 0);
    assert_eq!(notes.count().matching(field("n").gte(5)).await.unwrap(), 3);
    assert_eq!(notes.delete_by_filter(field("n").gte(5)).await.unwrap(), 3);
    assert_eq!(ids(&notes.search([1.0]).await.unwrap()), ["4", "2", "1"]);
    assert_eq!(notes.delete(["4", "4", "9"]).await.unwrap(), 1);
    assert_eq!(notes.count().await.unwrap(), 2);
    assert_sound(&larder).await;
}

#[tokio::test]
async fn pages_go_by_id_and_filters_narrow_them() {
    let larder = Larder::temporary().await.unwrap();
    let notes = collection(&larder, 1, Metric::Dot).await;
    let points = (0..25_u8)
        .map(|n| point(&format!("{n:02}"), &[1.0]).with_metadata(json(&format!(r#"{{"even": {}}}"#, n % 2 == 0))));
    notes.upsert(points).await.unwrap();
    let all: Vec<Hit> = notes.page().limit(7).stream().try_collect().await.unwrap();
    assert_eq!(ids(&all), (0..25).map(|n| format!("{n:02}")).collect::<Vec<_>>());
    assert!(all.iter().all(|hit| hit.vector.is_none()));
    let even: Vec<Hit> = notes.page().matching(field("even").eq(true)).limit(5).stream().try_collect().await.unwrap();
    assert_eq!(even.len(), 13);
    let page = notes.page().fields(PointFields::ALL).limit(1).await.unwrap();
    assert_eq!(page.points[0].vector.as_ref().unwrap().as_slice(), [1.0]);
    assert_eq!(page.next.unwrap().as_str(), "00");
}

#[tokio::test]
async fn settings_are_fixed_when_the_collection_is_made() {
    let larder = Larder::temporary().await.unwrap();
    collection(&larder, 3, Metric::Cosine).await;
    collection(&larder, 3, Metric::Cosine).await;
    let open = |dimensions: usize, metric: Metric| {
        larder.vectors().collection("notes").dimensions(dimensions).metric(metric).open()
    };
    assert_refused(open(4, Metric::Cosine).await, Class::Conflict, &["notes", "4 dimensions", "3 dimensions"]);
    assert_refused(open(3, Metric::Dot).await, Class::Conflict, &["dot", "cosine"]);
    let by_metric = larder.vectors().collection("notes").metric(Metric::L2).open().await;
    assert_refused(by_metric, Class::Conflict, &["l2", "cosine"]);
    let missing = larder.vectors().collection("other").open().await;
    assert_refused(missing, Class::NotFound, &["other"]);
    let listed = larder.vectors().collections(None, 10).await.unwrap();
    assert_eq!(listed.iter().map(|info| info.name.as_str()).collect::<Vec<_>>(), ["notes"]);
}

/// Counts what a dropped or cleared collection has left, itself included.
#[expect(clippy::disallowed_methods, reason = "a look from outside, through SQLite")]
fn rows_of_no_collection(folder: &std::path::Path) -> u64 {
    let connection = rusqlite::Connection::open(folder.join("vectors.db")).unwrap();
    let sql =
        "SELECT count(*) FROM collection LEFT JOIN point ON point.collection_key = collection.key WHERE name IS NULL";
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn a_cleared_or_dropped_collection_is_gone_at_once_and_its_rows_follow() {
    let folder = tempfile::tempdir().unwrap();
    let larder = Larder::builder(folder.path())
        .settings(|settings| settings.maintenance_interval = std::time::Duration::from_millis(10))
        .open()
        .await
        .unwrap();
    let notes = collection(&larder, 2, Metric::L2).await;
    let before = larder.vectors().sequence().await.unwrap();
    let points = |count: usize| (0..count).map(|n| full(&n.to_string(), &[1.0, 2.0]));
    notes.upsert(points(1_500)).await.unwrap();
    assert_eq!(notes.search([1.0, 2.0]).await.unwrap().len(), 10);
    assert_eq!(notes.clear().await.unwrap(), 1_500);
    assert_eq!(notes.clear().await.unwrap(), 0);
    assert_eq!(notes.search([1.0, 2.0]).await.unwrap(), []);
    assert_eq!(notes.search_text("some").await.unwrap(), []);
    notes.upsert(points(3)).await.unwrap();
    assert_eq!(ids(&notes.search([1.0, 2.0]).await.unwrap()), ["0", "1", "2"]);
    assert!(larder.vectors().drop_collection("notes").await.unwrap());
    assert!(!larder.vectors().drop_collection("notes").await.unwrap());
    assert_refused(notes.search([1.0, 2.0]).await, Class::NotFound, &["notes"]);
    assert_refused(notes.upsert([point("a", &[1.0, 2.0])]).await, Class::NotFound, &["notes"]);
    // Another collection of that name has nothing to do with it.
    let other = collection(&larder, 3, Metric::Dot).await;
    other.upsert([point("x", &[1.0, 0.0, 0.0])]).await.unwrap();
    assert_eq!(ids(&other.search([1.0, 0.0, 0.0]).await.unwrap()), ["x"]);
    // Slice by slice; several may be in one commit.
    let mut notices = larder.vectors().subscribe(before).await.unwrap();
    while rows_of_no_collection(folder.path()) > 0 {
        let notice = within(notices.try_next()).await.unwrap();
        assert!(matches!(notice, Some(Notice::Commit(_))), "{notice:?}");
    }
    assert_sound(&larder).await;
}

#[tokio::test]
async fn subscribers_hear_which_points_changed() {
    let larder = Larder::temporary().await.unwrap();
    let notes = collection(&larder, 1, Metric::Dot).await;
    let before = larder.vectors().sequence().await.unwrap();
    notes.upsert([point("a", &[1.0]), point("b", &[1.0])]).await.unwrap();
    notes.delete(["a"]).await.unwrap();
    let mut notices = larder.vectors().subscribe(before).await.unwrap();
    let mut heard = Vec::new();
    while heard.len() < 2 {
        let Some(Notice::Commit(commit)) = within(notices.try_next()).await.unwrap() else { panic!("a commit") };
        heard.extend(commit.changes.into_iter().map(|change| (change.kind, change.scope, change.ids)));
    }
    let change = |kind: &str, ids: &[&str]| {
        (kind.to_owned(), "notes".to_owned(), ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(heard, [change("put", &["a", "b"]), change("delete", &["a"])]);
}

#[tokio::test]
async fn an_upsert_under_a_key_that_is_sent_again_changes_nothing() {
    let larder = Larder::temporary().await.unwrap();
    let notes = collection(&larder, 1, Metric::Dot).await;
    let put = |value: f32| notes.upsert([point("a", &[value])]).idempotency_key("first");
    assert_eq!(put(1.0).await.unwrap().inserted, 1);
    notes.upsert([point("a", &[2.0])]).await.unwrap();
    assert_eq!(put(1.0).await.unwrap().inserted, 1);
    assert_eq!(notes.get("a").await.unwrap().unwrap().vector.as_slice(), [2.0]);
    assert_refused(put(3.0).await, Class::Conflict, &[]);
}
