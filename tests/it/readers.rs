//! Readers and the WAL: none of ours keeps it from starting over, and a stranger's makes it grow to a bound and no further.
//!
//! Start at [`stranger_that_reads_makes_the_wal_grow_to_its_bound`].
//!
//! More: `LARDER_SECONDS=30 LARDER_WAL_BYTES=1073741824 cargo test --release --test it readers -- --nocapture` holds our reader
//! idle for that long, and lets a stranger's grow the WAL to the default bound.

use std::path::Path;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use larder::{ChatMessage, Class, Durability, Larder, StoreObservation, StoreState, Written};

use crate::support::child::{Child, hear, tell};
use crate::support::{alone, number_from_environment, within};

const CALLERS: usize = 64;
const VALUE_BYTES: usize = 1024;
const ROWS: usize = 1_000;
/// What our own WAL may reach: the writer's hard cap, and what a checkpoint meets on its way.
const OWN_WAL_BYTES_MAX: u64 = 64 << 20;

fn wal_bytes(folder: &Path) -> u64 {
    folder.join("kv.db-wal").metadata().map_or(0, |file| file.len())
}

fn kv(larder: &Larder) -> StoreObservation {
    larder.observe().into_iter().find(|store| store.store.as_str() == "kv").unwrap()
}

/// What writers saw while a reader was held.
#[derive(Debug, Default)]
struct Load {
    writes: u64,
    longest: Duration,
    wal_bytes_max: u64,
    was_pinned: bool,
}

/// Overwrites random keys with 64 callers at once, for so long.
async fn load(larder: &Larder, folder: &Path, duration: Duration) -> Load {
    let until = Instant::now() + duration;
    let callers = (0..CALLERS).map(|caller| {
        let values = larder.kv().bytes("load");
        tokio::spawn(async move {
            let (mut writes, mut longest) = (0_u64, Duration::ZERO);
            while Instant::now() < until {
                let began = Instant::now();
                let key = (writes * 7919 + caller as u64 * 104_729) % 20_000;
                // Other bytes each time: a page that stays the same is not written.
                let value = [writes.to_le_bytes(), (caller as u64).to_le_bytes()].concat().repeat(VALUE_BYTES / 16);
                values.put(key.to_string(), value).await.unwrap();
                longest = longest.max(began.elapsed());
                writes += 1;
            }
            (writes, longest)
        })
    });
    let callers: Vec<_> = callers.collect();
    let mut load = Load::default();
    while Instant::now() < until {
        load.wal_bytes_max = load.wal_bytes_max.max(wal_bytes(folder));
        load.was_pinned |= kv(larder).is_wal_pinned;
        // Waits for a commit, so that this is no idle loop, nor a reader that is always there.
        larder.kv().bytes("asks").put("key", "").await.unwrap();
    }
    for caller in callers {
        let (writes, longest) = within(caller).await.unwrap();
        load.writes += writes;
        load.longest = load.longest.max(longest);
    }
    load
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_that_nobody_reads_on_pins_nothing() {
    let _alone = alone().await;
    let seconds = number_from_environment("LARDER_SECONDS", 3);
    let folder = tempfile::tempdir().unwrap();
    let larder = Larder::open(folder.path()).await.unwrap();
    let rows = larder.kv().collection::<u64>("rows");
    let entries: Vec<_> = (0..ROWS as u64).map(|row| (format!("{row:05}"), row)).collect();
    rows.put_many(entries.iter().map(|(key, row)| (key, row))).await.unwrap();
    let mut stream = rows.scan().stream();
    let first = within(stream.next()).await.unwrap().unwrap();
    assert_eq!(first.1, 0);
    // Held idle, while others write.
    let load = load(&larder, folder.path(), Duration::from_secs(seconds)).await;
    println!(
        "a reader of ours held idle {seconds} s: {} writes, longest {:.1?}, WAL at most {:.1} MiB",
        load.writes,
        load.longest,
        mebibytes(load.wal_bytes_max)
    );
    assert!(!load.was_pinned, "our reader pinned the WAL");
    assert!(load.wal_bytes_max <= OWN_WAL_BYTES_MAX, "the WAL grew to {} bytes", load.wal_bytes_max);
    // Every row that was there throughout comes exactly once.
    let rest: Vec<(larder::Key, u64)> = within(stream.try_collect()).await.unwrap();
    assert_eq!(rest.iter().map(|(_, row)| *row).collect::<Vec<_>>(), (1..ROWS as u64).collect::<Vec<_>>());
    larder.close().await;
}

#[expect(clippy::cast_precision_loss, reason = "a figure to read")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A child that reads through SQLite alone, as a shell does that somebody left in a transaction.
#[expect(clippy::disallowed_methods, reason = "stands in for another program at the same file")]
pub(crate) fn read_until_told(mut arguments: impl Iterator<Item = String>) {
    let connection = rusqlite::Connection::open(arguments.next().unwrap()).unwrap();
    connection.execute_batch("BEGIN; SELECT count(*) FROM entry").unwrap();
    tell("READY");
    hear();
    connection.execute_batch("COMMIT").unwrap();
    drop(connection);
    tell("ENDED");
    hear();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stranger_that_reads_makes_the_wal_grow_to_its_bound() {
    let _alone = alone().await;
    let wal_bytes_max = number_from_environment("LARDER_WAL_BYTES", 8 << 20);
    let folder = tempfile::tempdir().unwrap();
    let builder = Larder::builder(folder.path()).kv(|kv| {
        kv.common.wal_bytes_max = wal_bytes_max;
        if wal_bytes_max < 128 << 20 {
            // In proportion: the WAL passes its usual length long before the bound.
            kv.common.checkpoint.background_frames = 250;
            kv.common.checkpoint.writer_soft_frames = 500;
            kv.common.checkpoint.writer_hard_frames = 1_000;
        }
    });
    let larder = builder.open().await.unwrap();
    let values = larder.kv().bytes("load");
    values.put("kept", "as it is").await.unwrap();
    let mut stranger = Child::spawn("stranger", [folder.path().join("kv.db").to_str().unwrap()]);
    stranger.wait_for("READY");

    let refused = grow(&larder).await;
    assert_eq!((refused.class(), refused.written()), (Class::Overloaded, Written::NotApplied), "{refused}");
    assert!(refused.retry_after().is_some());
    assert!(refused.to_string().contains("reader outside"), "{refused}");
    let seen = kv(&larder);
    assert!(seen.is_wal_pinned);
    let pinned_bytes = wal_bytes(folder.path());
    // Past it by the group that reached it.
    assert!(pinned_bytes <= wal_bytes_max + (16 << 20), "the WAL grew to {pinned_bytes} bytes");
    // Reads go on, and so does the other store.
    assert_eq!(values.get("kept").await.unwrap().as_deref(), Some(&b"as it is"[..]));
    larder.chat().session("beside").append([ChatMessage::user("hello")]).await.unwrap();
    assert_eq!(kv(&larder).state, StoreState::Serving);

    stranger.say("END");
    stranger.wait_for("ENDED");
    let began = Instant::now();
    within(async {
        while wal_bytes(folder.path()) >= 4 << 20 || kv(&larder).is_wal_pinned {
            values.get("kept").await.unwrap();
        }
    })
    .await;
    println!(
        "a stranger's reader: Overloaded at {:.1} MiB of WAL; under 4 MiB {:.1?} after it ended",
        mebibytes(pinned_bytes),
        began.elapsed()
    );
    values.put("after", "").await.unwrap();
    larder.close().await;
}

/// Writes until the first refusal, which it returns.
async fn grow(larder: &Larder) -> larder::Error {
    let mut turn = 0_u64;
    loop {
        let puts = (0..CALLERS as u64).map(|caller| {
            let value = vec![(turn % 251) as u8; 4 * VALUE_BYTES];
            larder.kv().bytes("load").put((turn * CALLERS as u64 + caller).to_string(), value)
        });
        let answers = within(futures::future::join_all(puts.map(IntoFuture::into_future))).await;
        if let Some(refused) = answers.into_iter().find_map(Result::err) {
            return refused;
        }
        turn += 1;
    }
}

/// The checkpointer may be gone, or never come: the writer's own cap bounds the WAL as SQLite's autocheckpoint would.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wal_is_bounded_where_no_background_checkpoint_ever_succeeds() {
    let _alone = alone().await;
    let folder = tempfile::tempdir().unwrap();
    let builder = Larder::builder(folder.path()).kv(|kv| {
        kv.common.checkpoint.background_frames = 250;
        kv.common.checkpoint.writer_soft_frames = 500;
        kv.common.checkpoint.writer_hard_frames = 1_000;
    });
    let larder = builder.open().await.unwrap();
    let point = (larder::Failpoint::Checkpoint, larder::FailpointAction::Fail);
    larder.set_failpoint(larder::protocol::StoreName::Kv, point.0, point.1, u64::MAX);
    larder.kv().bytes("load").put("first", "").await.unwrap();
    let (mut writes, mut wal_bytes_max) = (0, 0);
    // Several times what the cap lets stand.
    while writes < 6_000 {
        let load = load(&larder, folder.path(), Duration::from_millis(500)).await;
        (writes, wal_bytes_max) = (writes + load.writes, wal_bytes_max.max(load.wal_bytes_max));
    }
    println!("without a checkpointer: {writes} writes, WAL at most {:.1} MiB", mebibytes(wal_bytes_max));
    // The cap, and the largest group that passes it.
    assert!(wal_bytes_max <= (1_000 + 2_000) * 4_096, "the WAL grew to {wal_bytes_max} bytes");
    assert!(kv(&larder).checkpoint_count > 0);
    larder.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_store_cuts_its_wal_back_to_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let larder = open_soon_idle(folder.path(), 0).await;
    let values = larder.kv().bytes("load");
    values.put("kept", vec![7; 100_000]).await.unwrap();
    within(async {
        // The file is cut back first, and the checkpoint counted then.
        while wal_bytes(folder.path()) > 0 || kv(&larder).checkpoint_count == 0 {
            values.get("kept").await.unwrap();
        }
    })
    .await;
    assert_eq!(values.get("kept").await.unwrap().map(|value| value.len()), Some(100_000));
    larder.close().await;
}

/// Opens a folder whose kv store is idle as soon as nobody has written for 50 ms.
async fn open_soon_idle(folder: &Path, kept_frames: u32) -> Larder {
    let builder = Larder::builder(folder).kv(|kv| {
        kv.common.checkpoint.idle = Duration::from_millis(50);
        kv.common.checkpoint.kept_frames = kept_frames;
    });
    builder.settings(|settings| settings.maintenance_interval = Duration::from_millis(10)).open().await.unwrap()
}

/// Commits into a file that grows wait twice as long as those that overwrite.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wal_of_a_store_that_is_idle_now_and_then_does_not_grow_anew() {
    let folder = tempfile::tempdir().unwrap();
    let larder = open_soon_idle(folder.path(), 1_000).await;
    let values = larder.kv().bytes("load");
    values.put("kept", "started").await.unwrap();
    for round in 0..20 {
        let checkpoint_count = kv(&larder).checkpoint_count;
        values.put("kept", vec![round; 100_000]).await.unwrap();
        within(async {
            while kv(&larder).checkpoint_count == checkpoint_count {
                values.get("kept").await.unwrap();
            }
        })
        .await;
        // Each adds 100 KiB where the one before was not checkpointed yet, or a read was just looking at it.
        assert!((100_000..1 << 20).contains(&wal_bytes(folder.path())), "round {round}");
    }
    larder.close().await;
    assert_eq!(wal_bytes(folder.path()), 0, "a closed folder has no WAL");
}

/// What grew with a load and was written over since is as long as it was then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_wal_that_started_over_is_cut_back_once_it_is_idle() {
    let folder = tempfile::tempdir().unwrap();
    let larder = Larder::builder(folder.path())
        .kv(|kv| {
            kv.common.checkpoint.background_frames = 10;
            kv.common.checkpoint.writer_soft_frames = 20;
            kv.common.checkpoint.writer_hard_frames = 20;
            kv.common.checkpoint.kept_frames = 50;
            kv.common.checkpoint.idle = Duration::from_millis(50);
        })
        .settings(|settings| settings.maintenance_interval = Duration::from_millis(10))
        .open()
        .await
        .unwrap();
    let values = larder.kv().bytes("load");
    values.put("long", vec![7; 400_000]).await.unwrap();
    values.put("short", vec![7; 10]).await.unwrap();
    within(async {
        while wal_bytes(folder.path()) > 0 {
            values.get("short").await.unwrap();
        }
    })
    .await;
    larder.close().await;
}

/// Only commits that somebody waits for have room made for them.
#[tokio::test]
async fn wal_has_room_ahead_where_a_commit_is_synced() {
    for (durability, has_room) in [(Durability::Durable, true), (Durability::Relaxed, false)] {
        let folder = tempfile::tempdir().unwrap();
        let larder = Larder::builder(folder.path()).kv(|kv| kv.common.durability = durability).open().await.unwrap();
        larder.kv().bytes("load").put("a", "b").await.unwrap();
        assert_eq!(wal_bytes(folder.path()) >= 256 << 10, has_room, "{durability:?}");
        larder.close().await;
    }
}

/// A replicator copies the WAL: larder must neither fold it in nor cut it back, whatever its length, not even at close.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn external_replicator_is_left_every_checkpoint() {
    let _alone = alone().await;
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let builder = Larder::builder(folder.path()).external_replicator().kv(|kv| {
            kv.common.checkpoint.background_frames = 250;
            kv.common.checkpoint.writer_soft_frames = 500;
            kv.common.checkpoint.writer_hard_frames = 1_000;
            kv.common.checkpoint.idle = Duration::from_millis(1);
        });
        builder.settings(|settings| settings.maintenance_interval = Duration::from_millis(10)).open()
    };
    let larder = open().await.unwrap();
    larder.kv().bytes("load").put("first", "").await.unwrap();
    let file = folder.path().join("kv.db");
    let main_bytes = file.metadata().unwrap().len();
    // Twice what the writer's hard cap would let stand.
    while wal_bytes(folder.path()) < 2_000 * 4_096 {
        load(&larder, folder.path(), Duration::from_millis(500)).await;
    }
    let wal = wal_bytes(folder.path());
    assert_eq!(kv(&larder).checkpoint_count, 0);
    assert!(larder.close().await.is_clean());
    // And after everything was closed.
    assert!(wal_bytes(folder.path()) >= wal);
    assert_eq!(file.metadata().unwrap().len(), main_bytes);
    let larder = open().await.unwrap();
    assert!(larder.kv().bytes("load").get("first").await.unwrap().is_some());
    assert!(wal_bytes(folder.path()) >= wal);
    larder.close().await;
}
