//! A damaged file never stops anybody: it is set aside and begun anew, while other stores serve; a damaged value is a miss.
#![expect(
    clippy::disallowed_methods,
    reason = "damages files of closed larders, and looks at files that were set aside"
)]

use futures::StreamExt;
use larder::protocol::StoreName;
use larder::{Class, StoreEvent, StoreState};

use super::*;
use crate::support::child::Child;
use crate::support::{assert_refused, assert_serves, within};

const ENTRIES: u64 = 2_000;
const PAGE_BYTES: usize = 16_384;
/// Schema, machinery and roots come first; from here on pages hold values.
const PAGES_KEPT: usize = 24;

/// A closed folder with values and, beside them, an entry of kv.
async fn filled() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let larder = open(folder.path(), |_| ()).await;
    assert_serves(&larder).await;
    let inputs: Vec<String> = (0..ENTRIES).map(input).collect();
    let long = |number| vector(number).into_iter().cycle().take(384).collect::<Vec<_>>();
    larder.embed_cache().put_many("long", inputs.iter().zip((0..).map(long))).await.unwrap();
    larder.close().await;
    folder
}

/// Writes noise over the pages of values; answers the file's content then.
fn damage(file: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(file).unwrap();
    assert!(bytes.len() > 2 * PAGES_KEPT * PAGE_BYTES);
    for (index, byte) in bytes[PAGES_KEPT * PAGE_BYTES..].iter_mut().enumerate() {
        *byte = index.to_le_bytes()[0] ^ 0x5a;
    }
    std::fs::write(file, &bytes).unwrap();
    bytes
}

/// Asks for every value, and checks the answers.
async fn ask_for_all(larder: &Larder) {
    let cache = larder.embed_cache();
    for number in (0..ENTRIES).step_by(40) {
        let text = input(number);
        let computed = cache.get_or_compute("long", &text, || async {
            Ok::<_, Infallible>(vector(number).into_iter().cycle().take(384).collect())
        });
        assert_eq!(within(computed).await.unwrap().as_slice()[..3], vector(number));
    }
}

fn set_aside(folder: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder.join("quarantine")) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_file_is_set_aside_and_begun_anew_while_others_serve() {
    let folder = filled().await;
    let damaged = damage(&folder.path().join("embed_cache.db"));
    let larder = open(folder.path(), |_| ()).await;
    let mut events = larder.events();
    // kv is written all the while.
    let (kv, stop) = (larder.kv().collection::<u64>("values"), std::sync::Arc::new(AtomicU64::new(0)));
    let stopped = stop.clone();
    let beside = tokio::spawn(async move {
        let mut count = 0;
        while stopped.load(Ordering::Relaxed) == 0 {
            kv.put("k", &count).await.unwrap();
            count += 1;
        }
        count
    });
    ask_for_all(&larder).await;
    for state in [StoreState::Quarantined, StoreState::Serving] {
        loop {
            let event = within(events.next()).await.unwrap();
            assert!(event.store == StoreName::EmbedCache || event.state == StoreState::Serving, "{event:?}");
            if (event.store, event.state) == (StoreName::EmbedCache, state) {
                break;
            }
        }
    }
    ask_for_all(&larder).await;
    ask_for_all(&larder).await;
    stop.store(1, Ordering::Relaxed);
    assert!(within(beside).await.unwrap() > 0);
    let statistics = larder.embed_cache().statistics().await.unwrap();
    assert_eq!(statistics.entry_count, ENTRIES / 40, "{statistics:?}");
    assert!(larder.health().is_well);
    assert_sound(&larder).await;
    assert!(larder.close().await.is_clean());
    let [aside] = &set_aside(folder.path())[..] else { panic!("one file was set aside") };
    assert_eq!(std::fs::read(aside.join("embed_cache.db")).unwrap(), damaged, "it is kept as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn file_that_cannot_be_opened_is_set_aside_too() {
    let folder = filled().await;
    let file = folder.path().join("embed_cache.db");
    std::fs::write(&file, vec![7; 100_000]).unwrap();
    let larder = open(folder.path(), |_| ()).await;
    ask_for_all(&larder).await;
    assert_eq!(larder.embed_cache().statistics().await.unwrap().entry_count, ENTRIES / 40);
    assert_serves(&larder).await;
    larder.close().await;
    let [aside] = &set_aside(folder.path())[..] else { panic!("one file was set aside") };
    assert_eq!(std::fs::read(aside.join("embed_cache.db")).unwrap(), vec![7; 100_000]);
}

/// Of another program, or of a newer larder: it is not ours to move.
#[tokio::test(flavor = "multi_thread")]
async fn foreign_file_stays_where_it_is_and_values_are_computed_and_not_kept() {
    let folder = filled().await;
    let file = folder.path().join("embed_cache.db");
    rusqlite::Connection::open(&file).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    let before = std::fs::read(&file).unwrap();
    let larder = open(folder.path(), |_| ()).await;
    let (cache, runs) = (larder.embed_cache(), AtomicU64::new(0));
    assert_refused(cache.get(MODEL, "x").await, Class::Refused, &["newer"]);
    assert_refused(cache.put(MODEL, "x", vector(1)).await, Class::Refused, &["newer"]);
    assert_eq!(within(compute(&cache, 1, &runs)).await.unwrap(), vector(1));
    assert_serves(&larder).await;
    larder.close().await;
    assert_eq!(std::fs::read(&file).unwrap(), before);
    assert!(set_aside(folder.path()).is_empty());
}

/// A bit of a value flips: SQLite does not see it, the checksum does.
#[tokio::test]
async fn damaged_value_is_a_miss_and_computed_again() {
    let folder = tempfile::tempdir().unwrap();
    let larder = open(folder.path(), |_| ()).await;
    for number in 0..6 {
        put(&larder.embed_cache(), number).await;
    }
    larder.close().await;
    let connection = rusqlite::Connection::open(folder.path().join("embed_cache.db")).unwrap();
    let changes = [
        "UPDATE body SET value = x'000000000000803f000000bb' WHERE id = (SELECT id FROM body ORDER BY id LIMIT 1 OFFSET 0)",
        "UPDATE body SET stored_ms = stored_ms + 1 WHERE id = (SELECT id FROM body ORDER BY id LIMIT 1 OFFSET 1)",
        "UPDATE body SET format = 1 WHERE id = (SELECT id FROM body ORDER BY id LIMIT 1 OFFSET 2)",
        "UPDATE body SET compute_us = 7 WHERE id = (SELECT id FROM body ORDER BY id LIMIT 1 OFFSET 3)",
        "UPDATE entry SET producer_id = 2 WHERE body_id = (SELECT id FROM body ORDER BY id LIMIT 1 OFFSET 4)",
    ];
    for change in changes {
        assert_eq!(connection.execute(change, []).unwrap(), 1, "{change}");
    }
    drop(connection);
    let larder = open(folder.path(), |_| ()).await;
    let (cache, runs) = (larder.embed_cache(), AtomicU64::new(0));
    let findings = larder.check(CheckDepth::Full).await.unwrap().findings;
    // One more for the producer that is not there.
    assert_eq!(findings.len(), changes.len() + 1, "{findings:?}");
    for number in 0..5 {
        assert_eq!(get(&cache, number).await, None, "{number}");
    }
    for number in 0..6 {
        assert_eq!(compute(&cache, number, &runs).await.unwrap(), vector(number));
    }
    assert_eq!(runs.load(Ordering::Relaxed), 5);
    assert_sound(&larder).await;
    larder.close().await;
}

/// Two processes: a file that another process has open is not moved, and nobody waits for that.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_file_that_another_process_has_open_waits_and_nobody_else_does() {
    let folder = filled().await;
    damage(&folder.path().join("embed_cache.db"));
    let mut holder = Child::spawn("cache-holder", [folder.path().to_str().unwrap()]);
    holder.wait_for("READY");
    let larder = open(folder.path(), |_| ()).await;
    let mut events = larder.events();
    ask_for_all(&larder).await;
    ask_for_all(&larder).await;
    let statistics = crate::support::within(larder.embed_cache().get("long", "x")).await.unwrap();
    assert_eq!(statistics, None);
    assert!(set_aside(folder.path()).is_empty());
    holder.say("END");
    holder.wait_for("CLOSED");
    while within(events.next()).await.unwrap() != StoreEvent::new(StoreName::EmbedCache, StoreState::Quarantined, None)
        && set_aside(folder.path()).is_empty()
    {}
    within(async {
        while larder.embed_cache().statistics().await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    ask_for_all(&larder).await;
    assert_eq!(larder.embed_cache().statistics().await.unwrap().entry_count, ENTRIES / 40);
    assert_eq!(set_aside(folder.path()).len(), 1);
    larder.close().await;
}

/// Two processes meet the damage: one sets the file aside, the other goes on with the new one.
#[tokio::test(flavor = "multi_thread")]
async fn two_processes_that_meet_the_damage_go_on_with_one_new_file() {
    let folder = filled().await;
    damage(&folder.path().join("embed_cache.db"));
    let mut other = Child::spawn("cache-holder", [folder.path().to_str().unwrap()]);
    other.wait_for("READY");
    let larder = open(folder.path(), |_| ()).await;
    ask_for_all(&larder).await;
    other.say("ASK");
    other.wait_for("COMPUTED");
    within(async {
        while larder.embed_cache().statistics().await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    ask_for_all(&larder).await;
    other.say("ASK");
    // What this process has computed since, the other one finds.
    let computed: u64 = other.wait_for("COMPUTED").parse().unwrap();
    assert_eq!(computed, 0);
    assert_eq!(set_aside(folder.path()).len(), 1);
    other.say("END");
    other.wait_for("CLOSED");
    larder.close().await;
}

/// A child that has the cache open until it is told to end, and asks for everything when it is told to.
pub(crate) fn hold_until_told(mut arguments: impl Iterator<Item = String>) {
    let folder = arguments.next().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let larder = open(Path::new(&folder), |own| own.memory_bytes = 0).await;
        larder.embed_cache().sequence().await.unwrap();
        crate::support::child::tell("READY");
        while crate::support::child::hear() == "ASK" {
            // Until it has met the damage, and is over it.
            within(async {
                while larder.embed_cache().statistics().await.is_err() {
                    tokio::task::yield_now().await;
                }
            })
            .await;
            let before = larder.embed_cache().statistics().await.map_or(0, |statistics| statistics.computed);
            ask_for_all(&larder).await;
            within(async {
                while larder.embed_cache().statistics().await.is_err() {
                    tokio::task::yield_now().await;
                }
            })
            .await;
            let after = larder.embed_cache().statistics().await.unwrap().computed;
            crate::support::child::tell(&format!("COMPUTED {}", after - before));
        }
        larder.close().await;
        crate::support::child::tell("CLOSED");
    });
}
