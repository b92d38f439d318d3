//! Time to live: hidden at once, swept later.

use std::time::Duration;

use futures::StreamExt;
use larder::protocol::Sequence;
use larder::protocol::change::Notice;
use larder::{Larder, field};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

async fn swept_every_10_ms(folder: &TempDir) -> Larder {
    let builder = Larder::builder(folder.path());
    builder.settings(|settings| settings.maintenance_interval = Duration::from_millis(10)).open().await.unwrap()
}

/// Waits until the sweep has removed `key`.
async fn swept(larder: &Larder, key: &str) {
    let mut notices = larder.kv().subscribe(Sequence(0)).await.unwrap();
    loop {
        let notice = within(notices.next()).await.unwrap().unwrap();
        let Notice::Commit(commit) = notice else { panic!("{notice:?}") };
        if commit.changes.iter().any(|change| change.kind == "expire" && change.ids.iter().any(|id| id == key)) {
            return;
        }
    }
}

#[tokio::test]
async fn expired_entry_is_hidden_from_everything_before_it_is_swept() {
    for exclusive in [false, true] {
        let folder = folder();
        let builder = Larder::builder(folder.path()).settings(|settings| settings.maintenance_interval = HOUR);
        let larder = if exclusive { builder.exclusive() } else { builder }.open().await.unwrap();
        let kv = larder.kv().collection::<u32>("c");
        let put = || kv.put("k", &1).ttl(Duration::ZERO).tags(["t"]);
        put().await.unwrap();
        assert_eq!(kv.get("k").await.unwrap(), None);
        assert_eq!(kv.get_many(["k"]).await.unwrap(), [None]);
        assert!(!kv.contains("k").await.unwrap());
        assert_eq!(kv.count().await.unwrap(), 0);
        assert_eq!(kv.scan().filter(field("x").eq(1).not()).count().await.unwrap(), 0);
        assert!(kv.scan().page().await.unwrap().entries.is_empty());
        assert!(larder.kv().collections(None, 10).await.unwrap().is_empty());
        assert!(!kv.touch("k", Some(HOUR)).await.unwrap());
        assert!(!kv.delete("k").await.unwrap());
        put().await.unwrap();
        assert_eq!(kv.pop("k").await.unwrap(), None);
        assert_eq!(kv.delete_tagged("t").await.unwrap(), 0);
        put().await.unwrap();
        assert_eq!(kv.delete_many(["k"]).await.unwrap(), 0);
        put().await.unwrap();
        assert_eq!(kv.drop_all().await.unwrap(), 0);
        put().await.unwrap();
        assert_eq!(kv.put_if_absent("k", &2).await.unwrap().map(|_| ()), Some(()));
        assert_eq!(kv.get("k").await.unwrap(), Some(2));
        larder.close().await;
    }
}

#[tokio::test]
async fn key_that_expired_begins_anew() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<i64>("c");
    kv.put("k", &40).ttl(Duration::ZERO).tags(["t"]).await.unwrap();
    assert_eq!(kv.increment("k", 2).await.unwrap(), 2);
    let entry = kv.entry("k").await.unwrap().unwrap();
    assert_eq!((entry.created, entry.expires), (entry.updated, None));
    assert_eq!(kv.delete_tagged("t").await.unwrap(), 0);
}

#[tokio::test]
async fn expired_entries_are_swept_with_their_tags() {
    let folder = folder();
    let larder = swept_every_10_ms(&folder).await;
    let kv = larder.kv().collection::<u32>("c");
    kv.put("gone", &1).ttl(Duration::from_millis(1)).tags(["t"]).await.unwrap();
    kv.put("kept", &1).ttl(HOUR).await.unwrap();
    swept(&larder, "gone").await;
    assert_eq!(keys(&kv.scan().page().await.unwrap().entries), ["kept"]);
    assert!(larder.close().await.is_clean());
    let file = rows(&folder, "SELECT (SELECT count(*) FROM entry) || ',' || (SELECT count(*) FROM tag)");
    assert_eq!(file, "1,0");
}

/// More than one slice of the sweep holds.
#[tokio::test]
async fn sweep_gets_through_any_number_of_rows() {
    let folder = folder();
    let larder = swept_every_10_ms(&folder).await;
    let kv = larder.kv().collection::<u32>("c");
    let operations: Vec<_> = (0..1_200).map(|i| format!("k{i:04}")).collect();
    let puts = operations.iter().map(|key| {
        let operation = kv.put_operation(key, &1).unwrap();
        let larder::protocol::kv::Operation::Put(mut put) = operation else { unreachable!("it is a put") };
        put.time_to_live = Some(Duration::ZERO);
        larder::protocol::kv::Operation::Put(put)
    });
    larder.kv().transaction(puts).await.unwrap();
    swept(&larder, "k1199").await;
    assert!(larder.close().await.is_clean());
    assert_eq!(rows(&folder, "SELECT count(*) || '' FROM entry"), "0");
}

#[tokio::test]
async fn touch_changes_the_expiry_and_nothing_else() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<u32>("c");
    let version = kv.put("k", &1).tags(["t"]).await.unwrap();
    assert!(kv.touch("k", Some(HOUR)).await.unwrap());
    let touched = kv.entry("k").await.unwrap().unwrap();
    assert!(touched.expires.unwrap() > touched.created + HOUR / 2);
    assert_eq!((touched.value, touched.version), (1, version));
    assert!(kv.touch("k", None).await.unwrap());
    assert_eq!(kv.entry("k").await.unwrap().unwrap().expires, None);
    assert!(kv.touch("k", Some(Duration::ZERO)).await.unwrap());
    assert_eq!(kv.get("k").await.unwrap(), None);
    assert!(!kv.touch("missing", None).await.unwrap());
}

#[tokio::test]
async fn put_replaces_the_expiry() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<u32>("c");
    kv.put("k", &1).ttl(Duration::ZERO).await.unwrap();
    kv.put("k", &2).await.unwrap();
    assert_eq!(kv.entry("k").await.unwrap().unwrap().expires, None);
}

#[tokio::test]
async fn endless_time_to_live_never_expires() {
    let larder = temporary().await;
    let kv = larder.kv().collection::<u32>("c");
    kv.put("k", &1).ttl(Duration::MAX).await.unwrap();
    assert_eq!(kv.get("k").await.unwrap(), Some(1));
    assert_eq!(kv.scan().page().await.unwrap().entries.len(), 1);
    // Far away, but a time all the same.
    assert!(kv.entry("k").await.unwrap().unwrap().expires.is_some());
}

/// Reads a closed folder's file as the `sqlite3` shell would.
#[expect(clippy::disallowed_methods, reason = "looks into a file that is closed")]
fn rows(folder: &TempDir, sql: &str) -> String {
    let connection = rusqlite::Connection::open(folder.path().join("kv.db")).unwrap();
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}
