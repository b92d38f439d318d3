//! Supervision through the public API: a store that panics at any stage restarts and loses nothing, and the stores beside
//! it do not notice.
//!
//! Start at [`panics_at_any_stage_lose_nothing_and_count_nothing_twice`]. The stages one by one:
//! `actors/src/store/tests/stages.rs`.
//!
//! More: `LARDER_RESTARTS=1000 cargo test --release --test it supervision -- --nocapture` prints how long restarts take.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use larder::protocol::StoreName;
use larder::{ChatMessage, Class, Failpoint, FailpointAction, Larder, StoreState, Written};

use crate::support::{alone, assert_serves, number_from_environment, within};
use crate::torture::Random;

const CALLERS: usize = 16;
/// A kv store that fails all the time never gives up in these tests, unless they say so.
const RESTARTS_ENDLESS: u32 = u32::MAX;

async fn open(folder: &tempfile::TempDir, restart_limit: u32) -> Larder {
    let builder = Larder::builder(folder.path()).settings(|settings| {
        settings.restart_limit = restart_limit;
        settings.maintenance_interval = Duration::from_millis(10);
    });
    builder.open().await.unwrap()
}

/// How a caller repeats a write that was not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Repeat {
    UnderTheSameKey,
    /// The control: as if nothing failed had ever been written.
    WithoutKey,
}

/// Counts up a counter of its own until told to end; answers how far it counted.
async fn count_up(larder: Larder, caller: usize, repeat: Repeat, is_over: Arc<AtomicBool>) -> i64 {
    let counters = larder.kv().collection::<i64>("counters");
    let mut count = 0;
    while !is_over.load(Ordering::Acquire) {
        loop {
            let counting = counters.increment(caller.to_string(), 1);
            let counting = match repeat {
                Repeat::UnderTheSameKey => counting.idempotency_key(format!("{caller} {count}")),
                Repeat::WithoutKey => counting,
            };
            match counting.await {
                Ok(_) => break,
                Err(error) => assert!(
                    matches!(error.class(), Class::Restarting | Class::Internal | Class::Io),
                    "{error} ({:?}, {:?})",
                    error.class(),
                    error.written()
                ),
            }
        }
        count += 1;
    }
    count
}

/// Appends to the other store, which must not fail once; answers how often it did.
async fn talk(larder: Larder, is_over: Arc<AtomicBool>) -> (u64, Duration) {
    let session = larder.chat().session("beside");
    let (mut count, mut longest) = (0, Duration::ZERO);
    while !is_over.load(Ordering::Acquire) {
        let began = Instant::now();
        session.append([ChatMessage::user("still here")]).await.unwrap();
        longest = longest.max(began.elapsed());
        count += 1;
    }
    (count, longest)
}

/// What a run under panics showed.
struct Shown {
    counted: Vec<i64>,
    found: Vec<i64>,
    /// From the moment the fault was provoked to the next acknowledged write.
    outages: Vec<Duration>,
}

/// Makes the kv store fail `faults` times, at random stages, while callers count in it and talk to the other store.
async fn run(seed: u64, faults: u64, repeat: Repeat) -> Shown {
    hush_failpoints();
    let folder = tempfile::tempdir().unwrap();
    let larder = open(&folder, RESTARTS_ENDLESS).await;
    assert_serves(&larder).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let counting: Vec<_> = (0..CALLERS)
        .map(|caller| tokio::spawn(count_up(larder.clone(), caller, repeat, Arc::clone(&is_over))))
        .collect();
    let talking = tokio::spawn(talk(larder.clone(), Arc::clone(&is_over)));
    let mut random = Random::of(seed, 0);
    let mut outages = Vec::new();
    for _ in 0..faults {
        outages.push(fail_once(&larder, &mut random).await);
    }
    is_over.store(true, Ordering::Release);
    let mut counted = Vec::new();
    for caller in counting {
        counted.push(within(caller).await.unwrap());
    }
    let (said, longest) = within(talking).await.unwrap();
    assert!(said > 0);
    let info = larder.chat().session("beside").description().await.unwrap().unwrap();
    assert_eq!(info.message_count, said);
    println!("the other store took {said} messages meanwhile, longest wait {longest:.0?}");
    assert!(larder.health().is_well, "{:?}", larder.health());
    assert!(within(larder.close()).await.is_clean());
    let larder = open(&folder, 3).await;
    let keys: Vec<String> = (0..CALLERS).map(|caller| caller.to_string()).collect();
    let found = larder.kv().collection::<i64>("counters").get_many(&keys).await.unwrap();
    larder.close().await;
    Shown { counted, found: found.into_iter().map(|count| count.unwrap_or(0)).collect(), outages }
}

/// Keeps panics on purpose from printing a backtrace each, which takes longer than the restart that is measured.
fn hush_failpoints() {
    static HUSHED: std::sync::Once = std::sync::Once::new();
    HUSHED.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !panic.payload_as_str().is_some_and(|text| text.starts_with("failpoint ")) {
                loud(panic);
            }
        }));
    });
}

/// Provokes one fault and waits until the store answers a write again; answers how long that took.
async fn fail_once(larder: &Larder, random: &mut Random) -> Duration {
    let (point, action) = match random.below(8) {
        0 => (Failpoint::BeforeTransaction, FailpointAction::Panic),
        1 => (Failpoint::BeforeTransaction, FailpointAction::Fail),
        2 => (Failpoint::Handler, FailpointAction::Panic),
        3 => (Failpoint::Commit, FailpointAction::Fail),
        4 => (Failpoint::Maintenance, FailpointAction::Panic),
        5 => (Failpoint::AfterCommit, FailpointAction::Panic),
        _ => (Failpoint::Commit, FailpointAction::Panic),
    };
    let before = kv_counters(larder);
    let began = Instant::now();
    larder.set_failpoint(StoreName::Kv, point, action, 1);
    let probe = larder.kv().bytes("probe");
    within(async {
        loop {
            let written = probe.put("probe", "").await;
            // Failures leave no count, but an error for somebody; this caller is one of many.
            let has_failed = kv_counters(larder) != before || action == FailpointAction::Fail;
            if written.is_ok() && has_failed {
                return;
            }
        }
    })
    .await;
    began.elapsed()
}

fn kv_counters(larder: &Larder) -> (u64, u64) {
    let seen = larder.observe().into_iter().find(|store| store.store == StoreName::Kv).unwrap();
    (seen.panic_count, seen.restart_count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn panics_at_any_stage_lose_nothing_and_count_nothing_twice() {
    let _alone = alone().await;
    let faults = number_from_environment("LARDER_RESTARTS", 40);
    let seed = number_from_environment("LARDER_SEED", u64::from(std::process::id()));
    println!("LARDER_SEED={seed}");
    let Shown { counted, found, mut outages } = run(seed, faults, Repeat::UnderTheSameKey).await;
    assert_eq!(counted, found);
    outages.sort_unstable();
    let at = |per_mille: usize| outages[(outages.len() - 1) * per_mille / 1000];
    println!(
        "{faults} faults, {} counts: serving again after p50 {:.1?}, p99 {:.1?}, at most {:.1?}",
        counted.iter().sum::<i64>(),
        at(500),
        at(990),
        at(1000)
    );
}

/// A caller that takes every error for "not written" counts twice; the comparison above must show it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_repeating_without_a_key_is_caught() {
    let _alone = alone().await;
    for seed in 0..20 {
        let Shown { counted, found, .. } = run(seed, 20, Repeat::WithoutKey).await;
        if counted != found {
            return;
        }
    }
    panic!("writes that were applied and repeated went unseen");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_store_is_told_once_and_the_other_serves_on() {
    let folder = tempfile::tempdir().unwrap();
    let larder = open(&folder, 2).await;
    assert_serves(&larder).await;
    let session = larder.chat().session("beside");
    session.append([ChatMessage::user("before")]).await.unwrap();
    let mut events = larder.events();
    let mut notices = larder.kv().subscribe(larder.kv().sequence().await.unwrap()).await.unwrap();

    larder.set_failpoint(StoreName::Kv, Failpoint::Start, FailpointAction::Fail, u64::MAX);
    larder.set_failpoint(StoreName::Kv, Failpoint::Commit, FailpointAction::Panic, 1);
    let kv = larder.kv().bytes("c");
    let waiting: Vec<_> = (0..50)
        .map(|index| {
            let kv = kv.clone();
            tokio::spawn(async move { kv.put(index.to_string(), "").await })
        })
        .collect();
    // Nobody hangs, whether the request was in hand, in the queue, or came later.
    for waiting in waiting {
        let error = within(waiting).await.unwrap().unwrap_err();
        assert_eq!(error.written(), Written::NotApplied, "{error}");
        assert!(matches!(error.class(), Class::Restarting | Class::StoreFailed), "{error}");
    }
    let mut states = Vec::new();
    while states.last() != Some(&StoreState::Failed) {
        let event = within(events.next()).await.unwrap();
        assert_eq!(event.store, StoreName::Kv);
        assert!(event.reason.is_some_and(|reason| !reason.is_empty()));
        states.push(event.state);
    }
    assert_eq!(states, [StoreState::Restarting, StoreState::Failed]);
    assert_eq!(within(kv.put("late", "")).await.unwrap_err().class(), Class::StoreFailed);
    assert_eq!(within(kv.get("late")).await.unwrap_err().class(), Class::StoreFailed);
    assert!(within(notices.next()).await.is_none_or(|notice| notice.is_err()));
    let health = larder.health();
    assert!(!health.is_well);

    session.append([ChatMessage::user("after")]).await.unwrap();
    assert_eq!(session.description().await.unwrap().unwrap().message_count, 2);
    assert!(within(larder.close()).await.is_clean());
    assert_serves(&open(&folder, 3).await).await;
}

/// The host hears of every panic by the counter, and of no state change where the store need not restart.
#[tokio::test(flavor = "multi_thread")]
async fn reads_that_panic_are_counted_and_change_no_state() {
    let folder = tempfile::tempdir().unwrap();
    let larder = open(&folder, 3).await;
    assert_serves(&larder).await;
    for point in [Failpoint::ReadInPlace, Failpoint::ReadOnThread] {
        larder.set_failpoint(StoreName::Kv, point, FailpointAction::Panic, 1);
        let kv = larder.kv().collection::<u32>("probe");
        let read =
            if point == Failpoint::ReadInPlace { kv.get("probe").await.map(drop) } else { kv.count().await.map(drop) };
        let error = read.unwrap_err();
        assert_eq!((error.class(), error.written()), (Class::Internal, Written::NotApplied));
        assert_serves(&larder).await;
    }
    assert_eq!(kv_counters(&larder), (2, 0));
    assert!(larder.health().is_well);
    larder.close().await;
}

/// A commit that failed may have harmed the file, and nobody would hear of it before a read meets the harm.
#[tokio::test(flavor = "multi_thread")]
async fn failed_commit_is_followed_by_a_full_check_in_the_background() {
    let folder = tempfile::tempdir().unwrap();
    let larder = open(&folder, 3).await;
    assert_serves(&larder).await;
    let checks = || larder.observe()[0].doubt_check_count;
    assert_eq!(checks(), 0, "no commit failed yet");
    let error = loop {
        larder.set_failpoint(StoreName::Kv, Failpoint::Commit, FailpointAction::Fail, 1);
        // A slice of maintenance may have met it before.
        if let Err(error) = larder.kv().bytes("c").put("key", "").await {
            break error;
        }
    };
    assert_eq!((error.class(), error.written()), (Class::Io, Written::NotApplied), "{error}");
    within(async {
        while checks() == 0 {
            tokio::task::yield_now().await
        }
    })
    .await;
    assert_serves(&larder).await;
    assert!(larder.health().is_well);
    larder.close().await;
}

/// A sync that failed lost committed frames for good, and the next checkpoint carried others over a sound file.
#[tokio::test(flavor = "multi_thread")]
async fn relaxed_store_folds_nothing_in_after_a_failed_sync() {
    let folder = tempfile::tempdir().unwrap();
    let builder = Larder::builder(folder.path()).kv(|kv| {
        kv.common.durability = larder::Durability::Relaxed;
        kv.common.checkpoint.idle = Duration::from_millis(1);
        kv.common.checkpoint.background_frames = 50;
        kv.common.checkpoint.writer_soft_frames = 100;
        kv.common.checkpoint.writer_hard_frames = 200;
    });
    let builder = builder.settings(|settings| settings.maintenance_interval = Duration::from_millis(10));
    let larder = builder.open().await.unwrap();
    assert_serves(&larder).await;
    larder.flush().await.unwrap();
    let mut events = larder.events();
    larder.set_failpoint(StoreName::Kv, Failpoint::Checkpoint, FailpointAction::FailToSync, 1);
    let values = larder.kv().bytes("c");
    values.put("before", "").await.unwrap();
    while within(events.next()).await.unwrap().state != StoreState::Degraded {}
    let file = folder.path().join("kv.db");
    let modified = || file.metadata().unwrap().modified().unwrap();
    let (before, checkpoints) = (modified(), kv_checkpoints(&larder));
    // Far past every cap, and idle in between.
    for index in 0..400 {
        values.put(index.to_string(), vec![7; 2_000]).await.unwrap();
    }
    let error = within(larder.flush()).await.unwrap_err();
    assert_eq!((error.class(), error.written()), (Class::Io, Written::Unknown), "{error}");
    let health = larder.health();
    assert_eq!(health.stores[0].state, StoreState::Degraded);
    assert!(health.stores[0].reason.as_ref().is_some_and(|reason| reason.contains("a sync failed")));
    assert_eq!(kv_checkpoints(&larder), checkpoints);
    // What is committed can be had as a whole.
    let snapshots = tempfile::tempdir().unwrap();
    let snapshot = larder.snapshot(snapshots.path()).await.unwrap();
    assert!(within(larder.close()).await.is_clean());
    assert_eq!(modified(), before, "something was folded into the main file");
    assert!(folder.path().join("kv.db-wal").metadata().unwrap().len() > 200 * 4_096);
    let restored = folder.path().join("restored");
    larder::backup::restore(&snapshot.path, &restored).unwrap();
    let larder = Larder::open(&restored).await.unwrap();
    assert_eq!(larder.kv().bytes("c").get("399").await.unwrap().map(|value| value.len()), Some(2_000));
    assert!(larder.health().is_well);
    larder.close().await;

    // Opened again on the same start of the machine, it still folds nothing in, and is not taken for durable.
    let larder = Larder::open(folder.path()).await.unwrap();
    let refused = larder.kv().bytes("c").get("399").await.unwrap_err();
    assert_eq!(refused.class(), Class::Refused, "{refused}");
    larder.close().await;
    let relaxed = || Larder::builder(folder.path()).kv(|kv| kv.common.durability = larder::Durability::Relaxed).open();
    let larder = relaxed().await.unwrap();
    assert_eq!(larder.kv().bytes("c").get("399").await.unwrap().map(|value| value.len()), Some(2_000));
    assert!(!larder.health().is_well);
    larder.kv().bytes("c").put("again", "").await.unwrap();
    assert!(within(larder.close()).await.is_clean());
    assert_eq!(modified(), before, "something was folded into the main file");
    // After a new start of the machine the WAL holds what the disk does.
    another_start(&folder.path().join("locks/kv.unsynced"));
    let larder = relaxed().await.unwrap();
    assert!(larder.kv().bytes("c").get("again").await.unwrap().is_some());
    assert!(larder.health().is_well);
    larder.close().await;
    assert!(modified() > before);
}

#[expect(clippy::disallowed_methods, reason = "a mark, not a store's file")]
fn another_start(mark: &std::path::Path) {
    assert!(mark.exists());
    std::fs::write(mark, "another start of the machine").unwrap();
}

fn kv_checkpoints(larder: &Larder) -> u64 {
    larder.observe().into_iter().find(|store| store.store == StoreName::Kv).unwrap().checkpoint_count
}

/// Readers would take what they have in memory for the newest.
#[cfg(target_os = "linux")]
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the watermark, which is no file of SQLite's")]
async fn what_cannot_be_told_to_other_processes_is_not_committed() {
    let folder = tempfile::tempdir().unwrap();
    let larder = Larder::open(folder.path()).await.unwrap();
    larder.kv().bytes("a").put("before", "x").await.unwrap();
    larder.close().await;
    let watermark = folder.path().join("locks/kv.watermark");
    std::fs::remove_file(&watermark).unwrap();
    std::os::unix::fs::symlink("/dev/full", &watermark).unwrap();
    let larder = Larder::open(folder.path()).await.unwrap();
    let values = larder.kv().bytes("a");
    let refused = values.put("after", "x").await.unwrap_err();
    assert_eq!((refused.class(), refused.written()), (Class::DiskFull, Written::NotApplied), "{refused:?}");
    assert!(values.get("before").await.unwrap().is_some() && values.get("after").await.unwrap().is_none());
    larder.close().await;
    std::fs::remove_file(&watermark).unwrap();
    let larder = Larder::open(folder.path()).await.unwrap();
    let values = larder.kv().bytes("a");
    values.put("last", "x").await.unwrap();
    assert!(values.get("before").await.unwrap().is_some() && values.get("after").await.unwrap().is_none());
    larder.close().await;
}
