//! Opening and closing: once, twice, at the same time, without a close, and from any kind of caller.

use std::time::Duration;

use futures::future::join_all;
use larder::blocking::wait;
use larder::{Class, Larder, OpenError, Settings, StoreState};

use super::support::{assert_refused, assert_serves, within};

type Change = fn(&mut Settings);

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// The names of a folder's files that exist only while its store is open.
fn open_files(folder: &tempfile::TempDir) -> Vec<String> {
    let names = folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with("-wal") || name.ends_with("-shm")).collect()
}

#[tokio::test]
async fn closed_larder_refuses_with_a_typed_error() {
    let larder = Larder::temporary().await.unwrap();
    let other = larder.clone();
    larder.kv().bytes("a").put("k", "v").await.unwrap();
    assert!(larder.close().await.is_clean());
    let kv = other.kv().collection::<u32>("a");
    assert_refused(kv.put("k", &1).await, Class::ShuttingDown, &["kv store", "shutting down"]);
    assert_refused(kv.get("k").await, Class::ShuttingDown, &[]);
    assert_refused(kv.scan().page().await, Class::ShuttingDown, &[]);
    assert_eq!(other.observe()[0].state, StoreState::Stopped);
    assert!(!other.health().is_well);
}

#[tokio::test]
async fn larder_closed_before_its_first_use_refuses_too() {
    let larder = Larder::temporary().await.unwrap();
    let other = larder.clone();
    assert!(larder.close().await.is_clean());
    assert_refused(other.kv().collection::<u32>("a").put("k", &1).await, Class::ShuttingDown, &[]);
    assert!(other.observe().is_empty());
}

#[tokio::test]
async fn close_leaves_nothing_but_the_folded_file() {
    let folder = folder();
    let larder = Larder::open(folder.path()).await.unwrap();
    assert_serves(&larder).await;
    assert!(!open_files(&folder).is_empty());
    assert!(larder.close().await.is_clean());
    assert!(open_files(&folder).is_empty());
    assert_eq!(folder.path().join("processes").read_dir().unwrap().count(), 0);
}

#[tokio::test]
async fn closing_twice_is_closing_once() {
    let folder = folder();
    let larder = Larder::open(folder.path()).await.unwrap();
    assert_serves(&larder).await;
    let (one, two, three) = (larder.clone(), larder.clone(), larder);
    for clone in [one, two, three] {
        let report = clone.close().await;
        assert!(report.is_clean() && !report.is_still_open);
    }
    assert_serves(&Larder::open(folder.path()).await.unwrap()).await;
}

#[tokio::test]
async fn second_open_is_the_same_runtime_and_outlives_the_first_close() {
    let folder = folder();
    let one = Larder::open(folder.path()).await.unwrap();
    let two = Larder::open(folder.path().join(".").join("..").join(folder.path().file_name().unwrap())).await.unwrap();
    one.kv().collection::<u32>("c").put("k", &1).await.unwrap();
    assert_eq!(two.kv().collection::<u32>("c").get("k").await.unwrap(), Some(1));
    assert_eq!(two.observe().len(), 1);
    assert!(one.close().await.is_still_open);
    assert_serves(&two).await;
    let report = two.close().await;
    assert!(!report.is_still_open && report.is_clean());
    assert!(open_files(&folder).is_empty());
}

/// Each opening is closed once, however many of its clones are closed: another opening is not theirs to close.
#[tokio::test]
async fn closing_one_opening_twice_does_not_close_the_other() {
    let folder = folder();
    let one = Larder::open(folder.path()).await.unwrap();
    let two = Larder::open(folder.path()).await.unwrap();
    assert!(one.clone().close().await.is_still_open);
    assert!(one.close().await.is_still_open);
    assert_serves(&two).await;
    assert!(!two.close().await.is_still_open);
}

#[tokio::test]
async fn opening_that_was_dropped_holds_nothing_open() {
    let folder = folder();
    let one = Larder::open(folder.path()).await.unwrap();
    assert_serves(&one).await;
    drop(Larder::open(folder.path()).await.unwrap());
    let report = one.close().await;
    assert!(!report.is_still_open);
    assert!(open_files(&folder).is_empty());
}

#[tokio::test]
async fn other_settings_are_refused_and_the_setting_is_named() {
    let folder = folder();
    let larder = Larder::open(folder.path()).await.unwrap();
    let others: [(&str, Change); 4] = [
        ("sharing", |settings| settings.sharing = larder::Sharing::Exclusive),
        ("maintenance_interval", |settings| settings.maintenance_interval = Duration::from_millis(500)),
        ("kv.common.deadline", |settings| settings.kv.common.deadline = Duration::from_secs(1)),
        ("kv.own.value_bytes_max", |settings| settings.kv.own.value_bytes_max = 1),
    ];
    for (name, change) in others {
        let error = Larder::builder(folder.path()).settings(change).open().await.unwrap_err();
        let OpenError::OtherSettings { difference, .. } = &error else { panic!("{error:?}") };
        assert!(difference.starts_with(name), "{difference}");
        assert!(error.to_string().contains(folder.path().to_str().unwrap()), "{error}");
    }
    assert_serves(&larder).await;
    assert!(!larder.close().await.is_still_open);
}

#[tokio::test]
async fn settings_out_of_their_range_are_refused_before_anything_is_created() {
    let folder = folder();
    let path = folder.path().join("data");
    let bad: [Change; 4] = [
        |settings| settings.kv.own.value_bytes_max = 0,
        |settings| settings.kv.common.queue_messages_max = 0,
        |settings| settings.kv.common.deadline = Duration::ZERO,
        |settings| settings.maintenance_interval = Duration::ZERO,
    ];
    for change in bad {
        let error = Larder::builder(&path).settings(change).open().await.unwrap_err();
        assert!(matches!(error, OpenError::Settings(_)), "{error:?}");
    }
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn open_during_a_close_gets_a_larder_that_works() {
    let folder = folder();
    let mut larder = Larder::open(folder.path()).await.unwrap();
    for round in 0..20 {
        larder.kv().collection::<u32>("c").put("k", &round).await.unwrap();
        let path = folder.path().to_owned();
        let opened = tokio::spawn(async move { Larder::open(path).await.unwrap() });
        let (report, next) = futures::join!(within(larder.close()), within(opened));
        assert!(report.is_clean());
        larder = next.unwrap();
        assert_eq!(larder.kv().collection::<u32>("c").get("k").await.unwrap(), Some(round));
    }
    assert!(!larder.close().await.is_still_open);
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_during_a_close_are_written_exactly_if_they_were_acknowledged() {
    for _ in 0..5 {
        let folder = folder();
        let larder = Larder::open(folder.path()).await.unwrap();
        assert_serves(&larder).await;
        let kv = larder.kv().collection::<u32>("c");
        let callers: Vec<_> = (0..200)
            .map(|index| {
                let kv = kv.clone();
                tokio::spawn(async move { (index, kv.put(format!("k{index:03}"), &index).await) })
            })
            .collect();
        let report = within(larder.close()).await;
        assert!(report.is_clean());
        let answers = within(join_all(callers)).await;
        let larder = Larder::open(folder.path()).await.unwrap();
        let kv = larder.kv().collection::<u32>("c");
        for answer in answers {
            let (index, answer) = answer.unwrap();
            let found = kv.get(format!("k{index:03}")).await.unwrap();
            match answer {
                Ok(_) => assert_eq!(found, Some(index)),
                Err(error) => {
                    assert_eq!((error.class(), found), (Class::ShuttingDown, None));
                    assert_eq!(error.written(), larder::Written::NotApplied);
                }
            }
        }
        larder.close().await;
    }
}

/// A store that starts while its larder closes must not be left running behind it.
#[tokio::test(flavor = "multi_thread")]
async fn first_use_during_a_close_leaves_nothing_open() {
    for _ in 0..30 {
        let folder = folder();
        let larder = Larder::open(folder.path()).await.unwrap();
        let callers: Vec<_> = (0..4)
            .map(|index| {
                let kv = larder.kv().collection::<u32>("c");
                tokio::spawn(async move { kv.put(format!("k{index}"), &index).await })
            })
            .collect();
        assert!(within(larder.close()).await.is_clean());
        assert!(open_files(&folder).is_empty());
        for answer in within(join_all(callers)).await {
            if let Err(error) = answer.unwrap() {
                assert_eq!(error.class(), Class::ShuttingDown, "{error}");
            }
        }
        assert!(open_files(&folder).is_empty());
    }
}

#[tokio::test]
async fn larder_dropped_without_a_close_has_lost_nothing() {
    let folder = folder();
    for round in 0..5 {
        let larder = Larder::open(folder.path()).await.unwrap();
        let kv = larder.kv().collection::<u32>("c");
        assert_eq!(kv.count().await.unwrap(), round);
        kv.put(format!("k{round}"), &1).await.unwrap();
    }
    let larder = Larder::open(folder.path()).await.unwrap();
    assert_eq!(larder.kv().collection::<u32>("c").count().await.unwrap(), 5);
    larder.close().await;
}

/// The drain deadline passes while a write waits for a lock: it is reported, its caller is answered, and the folder
/// stays taken until the store has let go of its file.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_close_could_not_deliver_is_reported_and_still_answered() {
    let folder = folder();
    let builder =
        Larder::builder(folder.path()).settings(|settings| settings.close_deadline = Duration::from_millis(10));
    let larder = builder.open().await.unwrap();
    assert_serves(&larder).await;
    let lock = lock_file(&folder);
    let kv = larder.kv().collection::<u32>("c");
    let pending = tokio::spawn(async move { kv.put("k", &1).await });
    within(async {
        while larder.observe()[0].queue_messages == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let report = within(larder.close()).await;
    assert!(!report.is_clean());
    assert_eq!(report.undelivered, [(larder::protocol::StoreName::Kv, 1)]);
    let path = folder.path().to_owned();
    let reopened = tokio::spawn(async move { Larder::open(path).await.unwrap() });
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert!(!pending.is_finished() && !reopened.is_finished());
    lock.execute_batch("ROLLBACK").unwrap();
    drop(lock);
    let answer = within(pending).await.expect("its caller does not panic");
    let larder = within(reopened).await.unwrap();
    let found = larder.kv().collection::<u32>("c").get("k").await.unwrap();
    match answer {
        Ok(_) => assert_eq!(found, Some(1)),
        Err(error) => {
            assert_eq!(error.class(), Class::ShuttingDown, "{error}");
            assert!(error.written() == larder::Written::Unknown || found.is_none());
        }
    }
    larder.close().await;
}

/// Holds the kv file's write lock, as another program would.
#[expect(clippy::disallowed_methods, reason = "stands in for another program at the same file")]
fn lock_file(folder: &tempfile::TempDir) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(folder.path().join("kv.db")).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    connection
}

#[test]
fn blocking_callers_need_no_runtime() {
    let larder = wait(Larder::temporary()).unwrap();
    let kv = larder.kv().collection::<u32>("c");
    wait(kv.put("k", &1).deadline(Duration::from_secs(10))).unwrap();
    assert_eq!(wait(kv.get("k")).unwrap(), Some(1));
    assert_eq!(wait(kv.scan().page()).unwrap().entries.len(), 1);
    assert!(wait(larder.close()).is_clean());
}

#[test]
fn blocking_callers_of_many_threads_are_served() {
    let larder = wait(Larder::temporary()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let kv = larder.kv().collection::<i64>("c");
                for _ in 0..20 {
                    wait(kv.increment("k", 1)).unwrap();
                }
            });
        }
    });
    assert_eq!(wait(larder.kv().collection::<i64>("c").get("k")).unwrap(), Some(160));
    assert!(wait(larder.close()).is_clean());
}

async fn whole_life() {
    let folder = folder();
    let larder = Larder::open(folder.path()).await.unwrap();
    assert_serves(&larder).await;
    assert_eq!(larder.kv().collection::<u32>("probe").scan().page().await.unwrap().entries.len(), 1);
    assert!(larder.close().await.is_clean());
    let larder = Larder::open(folder.path()).await.unwrap();
    assert_serves(&larder).await;
    // Dropped inside async code, which must not block or panic.
}

#[test]
fn current_thread_runtime_will_do() {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(whole_life());
}

#[test]
fn multi_thread_runtime_will_do() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::spawn(whole_life()).await.unwrap() });
}

#[test]
fn runtime_without_timers_will_do() {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(whole_life());
}

#[test]
fn executor_that_is_not_tokio_will_do() {
    futures::executor::block_on(whole_life());
}

/// The larder outlives the runtime it was opened on.
#[test]
fn larder_moves_between_runtimes() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let larder = runtime().block_on(async {
        let larder = Larder::temporary().await.unwrap();
        assert_serves(&larder).await;
        larder
    });
    runtime().block_on(assert_serves(&larder));
    assert!(runtime().block_on(larder.close()).is_clean());
}

#[tokio::test]
async fn temporary_larders_are_apart_and_gone_after_close() {
    let (one, two) = (Larder::temporary().await.unwrap(), Larder::temporary().await.unwrap());
    one.kv().collection::<u32>("c").put("k", &1).await.unwrap();
    assert_eq!(two.kv().collection::<u32>("c").get("k").await.unwrap(), None);
    let path = one.settings().path.clone();
    assert!(path.is_dir() && path != two.settings().path);
    assert!(one.close().await.is_clean());
    assert!(!path.exists());
    assert_serves(&two).await;
}

#[tokio::test]
async fn first_use_and_close_are_told_as_events() {
    use futures::StreamExt;
    let larder = Larder::temporary().await.unwrap();
    let mut events = larder.events();
    assert!(larder.health().is_well && larder.observe().is_empty());
    assert_serves(&larder).await;
    assert_eq!(within(events.next()).await.unwrap().state, StoreState::Serving);
    assert!(larder.health().is_well);
    assert!(larder.close().await.is_clean());
    assert_eq!(within(events.next()).await.unwrap().state, StoreState::Stopped);
}
