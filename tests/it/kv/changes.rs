//! Subscriptions: what was committed, in order, from any point of the kept log on.

use std::time::Duration;

use futures::{Stream, StreamExt};
use larder::protocol::Sequence;
use larder::protocol::change::{Commit, Notice};
use larder::{Larder, Result};

use super::*;

async fn commit(notices: &mut (impl Stream<Item = Result<Notice>> + Unpin)) -> Commit {
    match within(notices.next()).await.unwrap().unwrap() {
        Notice::Commit(commit) => commit,
        other => panic!("{other:?}"),
    }
}

fn told(commit: &Commit) -> Vec<(&str, &str, Vec<&str>)> {
    let told = commit.changes.iter();
    told.map(|c| (c.kind.as_str(), c.scope.as_str(), c.ids.iter().map(String::as_str).collect())).collect()
}

#[tokio::test]
async fn subscriber_from_the_start_hears_everything_in_order() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<i64>("c");
    kv.put("a", &1).await.unwrap();
    let mut notices = larder.kv().subscribe(Sequence(0)).await.unwrap();
    kv.put_many([("b", &1), ("c", &2)]).await.unwrap();
    kv.increment("a", 1).await.unwrap();
    kv.touch("a", None).await.unwrap();
    kv.delete("missing").await.unwrap();
    kv.delete_many(["a", "b"]).await.unwrap();
    kv.drop_all().await.unwrap();
    let expected: [Vec<(&str, &str, Vec<&str>)>; 6] = [
        vec![("put", "c", vec!["a"])],
        vec![("put", "c", vec!["b", "c"])],
        vec![("put", "c", vec!["a"])],
        vec![("touch", "c", vec!["a"])],
        vec![("delete", "c", vec!["a", "b"])],
        vec![("drop", "c", vec![])],
    ];
    let mut position = Sequence(0);
    for expected in expected {
        let commit = commit(&mut notices).await;
        assert_eq!(told(&commit), expected);
        assert!(commit.sequence > position);
        position = commit.sequence;
    }
}

#[tokio::test]
async fn subscriber_continues_behind_the_sequence_it_names() {
    let folder = folder();
    let larder = Larder::open(folder.path()).await.unwrap();
    let kv = larder.kv().collection::<i64>("c");
    let first = kv.put("a", &1).await.unwrap();
    kv.put("b", &1).await.unwrap();
    larder.close().await;
    let larder = Larder::open(folder.path()).await.unwrap();
    // A version is the sequence of its write.
    let mut notices = larder.kv().subscribe(Sequence(first.0)).await.unwrap();
    assert_eq!(told(&commit(&mut notices).await), [("put", "c", vec!["b"])]);
    larder.kv().collection::<i64>("c").put("d", &1).await.unwrap();
    assert_eq!(told(&commit(&mut notices).await), [("put", "c", vec!["d"])]);
    larder.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriber_misses_nothing_under_load() {
    let larder = temporary().await;
    let mut notices = larder.kv().subscribe(Sequence(0)).await.unwrap();
    let writers = (0..16).map(|writer| {
        let kv = larder.kv().collection::<u32>("c");
        tokio::spawn(async move {
            for index in 0..50 {
                kv.put(format!("{writer}-{index}"), &1).await.unwrap();
            }
        })
    });
    let writers = futures::future::join_all(writers);
    let followed = async {
        let (mut ids, mut newest) = (std::collections::HashSet::new(), 0);
        while ids.len() < 800 {
            let commit = commit(&mut notices).await;
            assert!(commit.sequence.0 > newest);
            newest = commit.sequence.0;
            for id in commit.changes.into_iter().flat_map(|change| change.ids) {
                assert!(ids.insert(id), "a change was told twice");
            }
        }
    };
    let (writers, ()) = futures::join!(writers, followed);
    writers.into_iter().for_each(|writer| writer.unwrap());
}

#[tokio::test]
async fn subscriber_behind_the_kept_log_hears_that_it_lagged() {
    let folder = folder();
    let builder = Larder::builder(folder.path()).settings(|settings| {
        settings.maintenance_interval = Duration::from_millis(10);
        settings.kv.common.change_log_writes_max = 2;
    });
    let larder = builder.open().await.unwrap();
    let kv = larder.kv().collection::<i64>("c");
    for index in 0..10 {
        kv.put("k", &index).await.unwrap();
    }
    let newest = kv.entry("k").await.unwrap().unwrap().version;
    let oldest = within(async {
        loop {
            let mut notices = larder.kv().subscribe(Sequence(0)).await.unwrap();
            if let Notice::Lagged { oldest } = notices.next().await.unwrap().unwrap() {
                // It goes on with the oldest that is kept.
                let next = commit(&mut notices).await;
                assert_eq!(next.sequence, oldest);
                return oldest;
            }
        }
    })
    .await;
    assert!(oldest.0 > 1 && oldest.0 <= newest.0);
    // Whoever is within the kept log hears nothing of it.
    let mut current = larder.kv().subscribe(Sequence(newest.0 - 1)).await.unwrap();
    assert_eq!(commit(&mut current).await.sequence.0, newest.0);
}

#[tokio::test]
async fn subscription_ends_when_the_larder_closes() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<i64>("c");
    kv.put("k", &1).await.unwrap();
    let notices = larder.kv().subscribe(Sequence(0)).await.unwrap();
    let followed = tokio::spawn(notices.collect::<Vec<_>>());
    assert!(larder.close().await.is_clean());
    let heard = within(followed).await.unwrap();
    assert!(heard.iter().all(Result::is_ok), "{heard:?}");
}
