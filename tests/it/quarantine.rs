//! Damage that SQLite finds: the store is set aside, its files are kept as they are, other stores serve on, and the newest
//! sound snapshot takes its place on request.
//!
//! Start at [`damaged_store_is_quarantined_and_restored_on_request`].
#![expect(
    clippy::disallowed_methods,
    reason = "damages files of closed larders, and looks at files that were set aside"
)]

use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use larder::protocol::StoreName;
use larder::protocol::change::Notice;
use larder::{
    ChatMessage, CheckDepth, Class, Failpoint, FailpointAction, Larder, Sequence, StoreEvent, StoreState, Written,
    backup,
};
use tempfile::TempDir;

use crate::support::child::Child;
use crate::support::{assert_refused, integrity_check, within};

const PAGE_BYTES: usize = 4096;
/// Schema and machinery come first; from here on pages hold entries.
const PAGES_KEPT: usize = 12;
const ENTRIES: u64 = 2_000;

async fn open(folder: &Path) -> Larder {
    // No slice of maintenance touches the file behind a test's back.
    let builder =
        Larder::builder(folder).settings(|settings| settings.maintenance_interval = Duration::from_secs(3600));
    builder.open().await.unwrap()
}

/// A closed folder with entries, a session, and two snapshots, of which the newer one has twice the entries.
async fn filled() -> (TempDir, TempDir) {
    let (folder, snapshots) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let larder = open(folder.path()).await;
    let values = larder.kv().collection::<u64>("values");
    larder.chat().session("beside").append([ChatMessage::user("hello")]).await.unwrap();
    for first in [0, ENTRIES / 2] {
        let entries: Vec<_> = (first..first + ENTRIES / 2).map(|i| (format!("k{i:05}"), i)).collect();
        values.put_many(entries.iter().map(|(key, value)| (key, value))).await.unwrap();
        larder.snapshot(snapshots.path()).await.unwrap();
    }
    values.put("after", &1).await.unwrap();
    larder.close().await;
    (folder, snapshots)
}

/// Writes noise over the pages of entries; answers the file's content then.
fn damage(file: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(file).unwrap();
    assert!(bytes.len() > 2 * PAGES_KEPT * PAGE_BYTES);
    for (index, byte) in bytes[PAGES_KEPT * PAGE_BYTES..].iter_mut().enumerate() {
        *byte = index.to_le_bytes()[0] ^ 0x5a;
    }
    std::fs::write(file, &bytes).unwrap();
    bytes
}

/// Reads until the damage is met.
async fn meet_damage(larder: &Larder) {
    let values = larder.kv().collection::<u64>("values");
    for i in 0..ENTRIES {
        if let Err(error) = values.get(format!("k{i:05}")).await {
            assert_eq!((error.class(), error.written()), (Class::Corrupt, Written::NotApplied), "{error}");
            return;
        }
    }
    panic!("noise was read as entries");
}

/// Damage that no read has met yet, found because a commit failed.
#[tokio::test(flavor = "multi_thread")]
async fn damage_found_after_a_failed_commit_quarantines_the_store() {
    let (folder, _snapshots) = filled().await;
    let file = folder.path().join("kv.db");
    let mut bytes = std::fs::read(&file).unwrap();
    // In the middle: a new key of a later collection is on the last pages.
    let page = bytes.len() / PAGE_BYTES / 2 * PAGE_BYTES;
    bytes[page..page + PAGE_BYTES].fill(0x5a);
    std::fs::write(&file, &bytes).unwrap();
    let builder =
        Larder::builder(folder.path()).settings(|settings| settings.maintenance_interval = Duration::from_millis(10));
    let larder = builder.open().await.unwrap();
    larder.kv().bytes("zoo").put("before", "").await.unwrap();
    let mut events = larder.events();
    larder.set_failpoint(StoreName::Kv, Failpoint::Commit, FailpointAction::Fail, 1);
    // Whether this put meets it or a slice of maintenance before it: a check follows.
    let _ = larder.kv().bytes("zoo").put("key", "").await;
    while within(events.next()).await.unwrap().state != StoreState::Quarantined {}
    larder.chat().session("beside").append([ChatMessage::user("served")]).await.unwrap();
    larder.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_store_is_quarantined_and_restored_on_request() {
    let (folder, snapshots) = filled().await;
    let file = folder.path().join("kv.db");
    let damaged = damage(&file);
    let larder = open(folder.path()).await;
    let values = larder.kv().collection::<u64>("values");
    let told = larder.kv().sequence().await.unwrap();
    let mut notices = larder.kv().subscribe(told).await.unwrap();
    let mut events = larder.events();
    meet_damage(&larder).await;
    let event = within(events.next()).await.unwrap();
    assert_eq!((event.store, event.state), (StoreName::Kv, StoreState::Quarantined));
    assert!(event.reason.is_some_and(|reason| reason.contains("malformed")));
    assert!(!larder.health().is_well);
    // Reads, writes and everything else say so, and nothing hangs.
    assert_refused(within(values.get("k00000")).await, Class::Corrupt, &["kv store is damaged"]);
    assert_refused(within(values.put("new", &1)).await, Class::Corrupt, &["kv store is damaged"]);
    assert_refused(within(values.count()).await, Class::Corrupt, &[]);
    assert_refused(within(larder.kv().sequence()).await, Class::Corrupt, &[]);
    // A check goes on with the others.
    let report = within(larder.check(CheckDepth::Full)).await.unwrap();
    assert_eq!(report.findings.len(), 1, "{report:?}");
    assert_eq!(report.findings[0].store, StoreName::Kv);
    // The other store does not notice.
    larder.chat().session("beside").append([ChatMessage::user("still here")]).await.unwrap();

    let restored = within(larder.restore_store(StoreName::Kv, snapshots.path())).await.unwrap();
    assert_eq!(restored.snapshot, *backup::list(snapshots.path()).unwrap().last().unwrap());
    assert_eq!(std::fs::read(restored.damaged.join("kv.db")).unwrap(), damaged, "the damaged file is kept as it was");
    assert_eq!(values.count().await.unwrap(), ENTRIES);
    assert_eq!(values.get("k01999").await.unwrap(), Some(1_999));
    assert_eq!(values.get("after").await.unwrap(), None, "it came after the snapshot");
    while within(events.next()).await.unwrap() != StoreEvent::new(StoreName::Kv, StoreState::Serving, None) {}
    // Versions do not come back, and who follows the store hears of it.
    let version = values.put("new", &2).await.unwrap();
    assert!(version.0 > told.0, "{version} was told before");
    match within(notices.next()).await.unwrap().unwrap() {
        Notice::Commit(commit) => {
            assert!(commit.sequence > told);
            assert_eq!(commit.changes[0].kind, "restore");
            assert!(commit.changes[0].ids.is_empty());
        }
        other => assert!(matches!(other, Notice::Lagged { .. }), "{other:?}"),
    }
    assert!(larder.health().is_well);
    assert!(larder.close().await.is_clean());
    assert_eq!(integrity_check(&file), ["ok"]);
    let larder = open(folder.path()).await;
    assert_eq!(larder.kv().collection::<u64>("values").get("new").await.unwrap(), Some(2));
    assert_eq!(larder.chat().session("beside").description().await.unwrap().unwrap().message_count, 2);
    larder.close().await;
}

/// A header that is no database's: the store cannot even start.
#[tokio::test(flavor = "multi_thread")]
async fn store_that_cannot_be_opened_is_restored_too() {
    let (folder, snapshots) = filled().await;
    let file = folder.path().join("kv.db");
    std::fs::write(&file, vec![7; 100_000]).unwrap();
    let larder = open(folder.path()).await;
    let values = larder.kv().collection::<u64>("values");
    assert_eq!(within(values.get("k00000")).await.unwrap_err().class(), Class::Refused);
    let restored = within(larder.restore_store(StoreName::Kv, snapshots.path())).await.unwrap();
    assert_eq!(std::fs::read(restored.damaged.join("kv.db")).unwrap(), vec![7; 100_000]);
    assert_eq!(values.count().await.unwrap(), ENTRIES);
    larder.close().await;
}

/// The newest snapshot is damaged as well: the one before is taken, and never half of one.
#[tokio::test(flavor = "multi_thread")]
async fn snapshot_that_is_not_sound_is_passed_over() {
    let (folder, snapshots) = filled().await;
    damage(&folder.path().join("kv.db"));
    let all = backup::list(snapshots.path()).unwrap();
    damage(&all[1].path.join("kv.db"));
    let larder = open(folder.path()).await;
    meet_damage(&larder).await;
    let restored = within(larder.restore_store(StoreName::Kv, snapshots.path())).await.unwrap();
    assert_eq!(restored.snapshot, all[0]);
    assert_eq!(larder.kv().collection::<u64>("values").count().await.unwrap(), ENTRIES / 2);
    larder.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_is_refused_where_nothing_is_damaged_or_nothing_can_be_restored() {
    let (folder, snapshots) = filled().await;
    let larder = open(folder.path()).await;
    let restore = larder.restore_store(StoreName::Kv, snapshots.path());
    assert_refused(within(restore).await, Class::Refused, &["kv store", "it is not quarantined"]);
    larder.close().await;

    let damaged = damage(&folder.path().join("kv.db"));
    let larder = open(folder.path()).await;
    meet_damage(&larder).await;
    let none = tempfile::tempdir().unwrap();
    assert_refused(within(larder.restore_store(StoreName::Kv, none.path())).await, Class::NotFound, &["snapshot"]);
    for snapshot in backup::list(snapshots.path()).unwrap() {
        damage(&snapshot.path.join("kv.db"));
    }
    assert_refused(within(larder.restore_store(StoreName::Kv, snapshots.path())).await, Class::Corrupt, &[]);
    // It is as it was.
    assert_eq!(larder.health().stores[0].state, StoreState::Quarantined);
    assert!(within(larder.close()).await.is_clean());
    assert_eq!(std::fs::read(folder.path().join("kv.db")).unwrap(), damaged);
    assert!(!folder.path().join("quarantine").exists());
}

/// Two processes: a file that another process has open is never moved.
#[tokio::test(flavor = "multi_thread")]
async fn file_that_another_process_has_open_is_not_moved() {
    let (folder, snapshots) = filled().await;
    let damaged = damage(&folder.path().join("kv.db"));
    let mut holder = Child::spawn("opener", [folder.path().to_str().unwrap()]);
    holder.wait_for("READY");
    let larder = open(folder.path()).await;
    meet_damage(&larder).await;
    let refused = within(larder.restore_store(StoreName::Kv, snapshots.path())).await;
    assert_refused(refused, Class::Refused, &["another process has it open"]);
    holder.say("END");
    holder.wait_for("CLOSED");
    let restored = within(larder.restore_store(StoreName::Kv, snapshots.path())).await.unwrap();
    assert_eq!(std::fs::read(restored.damaged.join("kv.db")).unwrap(), damaged);
    assert_eq!(larder.kv().collection::<u64>("values").count().await.unwrap(), ENTRIES);
    larder.close().await;
}

/// A child that has the kv store open until it is told to end.
pub(crate) fn open_until_told(mut arguments: impl Iterator<Item = String>) {
    let folder = arguments.next().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let larder = open(Path::new(&folder)).await;
        assert!(larder.kv().sequence().await.unwrap() > Sequence(0));
        crate::support::child::tell("READY");
        crate::support::child::hear();
        larder.close().await;
        crate::support::child::tell("CLOSED");
    });
}
