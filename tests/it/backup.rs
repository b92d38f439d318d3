//! Snapshots, restore, and looking for damage.
#![expect(clippy::disallowed_methods, reason = "files of closed larders and of snapshots, which nobody has open")]

pub(crate) mod consistency;

use std::path::Path;
use std::time::Duration;

use larder::{CheckDepth, Class, Larder, Written, backup};
use tempfile::tempdir;

use crate::support::damage::flip_a_bit_in_every_row;

async fn filled(folder: &Path, count: i64) -> Larder {
    let larder = Larder::open(folder).await.unwrap();
    let values = larder.kv().collection::<i64>("values");
    let pairs: Vec<_> = (0..count).map(|i| (format!("k{i:05}"), i)).collect();
    values.put_many(pairs.iter().map(|(key, value)| (key, value))).await.unwrap();
    larder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_under_load_holds_every_write_before_it_and_no_half_of_one() {
    let (live, snapshots) = (tempdir().unwrap(), tempdir().unwrap());
    let larder = filled(live.path(), 1).await;
    let pairs = larder.kv().collection::<u64>("pairs");
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let writer = tokio::spawn({
        let pairs = pairs.clone();
        async move {
            let mut written = 0_u64;
            while !*stopped.borrow() {
                written += 1;
                pairs.put_many([("left", &written), ("right", &written)]).await.unwrap();
            }
            written
        }
    });
    for round in 0..5_u32 {
        let acknowledged = pairs.get("left").await.unwrap().unwrap_or(0);
        let snapshot = larder.snapshot(snapshots.path()).await.unwrap();
        let restored = tempdir().unwrap();
        let folder = restored.path().join(round.to_string());
        backup::restore(&snapshot.path, &folder).unwrap();
        let copy = Larder::open(&folder).await.unwrap();
        let copied = copy.kv().collection::<u64>("pairs").get_many(["left", "right"]).await.unwrap();
        let (left, right) = (copied[0].unwrap_or(0), copied[1].unwrap_or(0));
        assert_eq!(left, right, "a batch is in a snapshot whole or not at all");
        assert!(left >= acknowledged, "{left} is older than {acknowledged}, which was acknowledged before");
        assert!(copy.check(CheckDepth::Full).await.unwrap().findings.is_empty());
        copy.close().await;
    }
    stop.send(true).unwrap();
    assert!(writer.await.unwrap() > 0);
    assert_eq!(backup::list(snapshots.path()).unwrap().len(), 5);
    larder.close().await;
}

#[tokio::test]
async fn retention_removes_the_oldest_and_never_all() {
    let (live, snapshots) = (tempdir().unwrap(), tempdir().unwrap());
    let larder = filled(live.path(), 10).await;
    for _ in 0..4 {
        larder.snapshot(snapshots.path()).await.unwrap();
    }
    let all = backup::list(snapshots.path()).unwrap();
    assert_eq!(backup::retain(snapshots.path(), 0).unwrap_err().class(), Class::InvalidInput);
    let removed = backup::retain(snapshots.path(), 1).unwrap();
    assert_eq!(removed, all[..3]);
    assert_eq!(backup::list(snapshots.path()).unwrap(), all[3..]);
    larder.close().await;
}

/// What a process that died leaves is removed by the next snapshot, and nothing else is.
#[tokio::test]
async fn unfinished_snapshots_are_removed_unless_somebody_writes_them() {
    let (live, snapshots) = (tempdir().unwrap(), tempdir().unwrap());
    let larder = filled(live.path(), 10).await;
    let complete = larder.snapshot(snapshots.path()).await.unwrap();
    let lock = complete.path.join("unfinished.lock");
    assert!(!lock.exists());
    // As one is that was completed while somebody waited for its lock.
    std::fs::write(&lock, "").unwrap();
    let folder = |name: &str, file: &str| {
        let path = snapshots.path().join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join(file), "").unwrap();
        path
    };
    let dead = folder("0192e4a1-0000-7000-8000-000000000001", "unfinished.lock");
    let written = folder("0192e4a1-0000-7000-8000-000000000002", "unfinished.lock");
    let empty = snapshots.path().join("0192e4a1-0000-7000-8000-000000000004");
    std::fs::create_dir(&empty).unwrap();
    let foreign = [folder("photographs", "unfinished.lock"), folder("0192e4a1-0000-7000-8000-000000000003", "notes")];
    let writer = std::fs::File::open(written.join("unfinished.lock")).unwrap();
    writer.lock().unwrap();
    larder.snapshot(snapshots.path()).await.unwrap();
    assert!(!dead.exists() && !empty.exists() && written.exists() && foreign.iter().all(|folder| folder.exists()));
    assert_eq!(backup::list(snapshots.path()).unwrap().len(), 2);
    assert!(!lock.exists());
    drop(writer);
    larder.snapshot(snapshots.path()).await.unwrap();
    assert!(!written.exists() && complete.path.exists());
    larder.close().await;
}

/// Its readers keep the WALs from starting over, so it may not go on for ever.
#[tokio::test]
async fn snapshot_past_its_time_is_given_up_and_leaves_nothing() {
    let (live, snapshots) = (tempdir().unwrap(), tempdir().unwrap());
    let builder = Larder::builder(live.path()).settings(|settings| settings.snapshot_time_max = Duration::ZERO);
    let larder = builder.open().await.unwrap();
    // More than is copied between two looks at the clock.
    larder.kv().bytes("large").put("one", vec![7; 8 << 20]).await.unwrap();
    let error = larder.snapshot(snapshots.path()).await.unwrap_err();
    assert_eq!((error.class(), error.written()), (Class::Deadline, Written::NotApplied), "{error}");
    assert_eq!(snapshots.path().read_dir().unwrap().count(), 0);
    larder.close().await;
}

#[tokio::test]
async fn damaged_or_malformed_snapshots_are_refused_before_anything_is_written() {
    let (live, snapshots, target) = (tempdir().unwrap(), tempdir().unwrap(), tempdir().unwrap());
    let larder = filled(live.path(), 100).await;
    let snapshot = larder.snapshot(snapshots.path()).await.unwrap().path;
    larder.close().await;
    let (manifest, file) = (snapshot.join("manifest.json"), snapshot.join("kv.db"));
    let (good_manifest, good_file) = (std::fs::read(&manifest).unwrap(), std::fs::read(&file).unwrap());
    let text = String::from_utf8(good_manifest.clone()).unwrap();

    let mut flipped = good_file.clone();
    flipped[5000] ^= 1;
    let damages: Vec<(&str, Vec<u8>, Vec<u8>, Class)> = vec![
        ("one bit", good_manifest.clone(), flipped, Class::Corrupt),
        ("cut short", good_manifest.clone(), good_file[..4096].to_vec(), Class::Corrupt),
        ("no manifest", Vec::new(), good_file.clone(), Class::Refused),
        ("not JSON", b"{".to_vec(), good_file.clone(), Class::Refused),
        ("newer", text.replace("\"format\": 1", "\"format\": 2").into_bytes(), good_file.clone(), Class::Refused),
        (
            "unknown store",
            text.replace("\"kv\"", "\"../../etc/passwd\"").into_bytes(),
            good_file.clone(),
            Class::Refused,
        ),
        ("huge", vec![b' '; 2 << 20], good_file.clone(), Class::Refused),
    ];
    for (what, manifest_bytes, file_bytes, class) in damages {
        std::fs::write(&manifest, manifest_bytes).unwrap();
        std::fs::write(&file, file_bytes).unwrap();
        let folder = target.path().join(what);
        assert_eq!(backup::restore(&snapshot, &folder).unwrap_err().class(), class, "{what}");
        assert!(!folder.exists(), "{what}: something was written");
    }
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&manifest, &good_manifest).unwrap();
    assert_eq!(backup::restore(&snapshot, target.path().join("missing")).unwrap_err().class(), Class::Refused);

    std::fs::write(&file, &good_file).unwrap();
    assert_eq!(backup::restore(&snapshot, live.path()).unwrap_err().class(), Class::Refused, "not into a used folder");
    backup::restore(&snapshot, target.path().join("good")).unwrap();
}

#[tokio::test]
async fn every_flipped_bit_is_reported_by_reads_and_by_a_full_check() {
    let folder = tempdir().unwrap();
    let larder = Larder::open(folder.path()).await.unwrap();
    let bytes = larder.kv().bytes("blobs");
    bytes.put_many((0..2_000_u32).map(|i| (format!("k{i}"), i.to_le_bytes().repeat(25)))).await.unwrap();
    assert!(larder.check(CheckDepth::Full).await.unwrap().findings.is_empty());
    larder.close().await;
    assert_eq!(flip_a_bit_in_every_row(&folder.path().join("kv.db"), "entry", &["value"]), 2_000);

    let larder = Larder::open(folder.path()).await.unwrap();
    let bytes = larder.kv().bytes("blobs");
    for i in 0..2_000 {
        assert_eq!(bytes.get(format!("k{i}")).await.unwrap_err().class(), Class::Corrupt);
    }
    assert_eq!(larder.check(CheckDepth::Full).await.unwrap().findings.len(), 2_000);
    // A damaged value is its readers' error alone: the store serves on.
    bytes.put("k0", "new").await.unwrap();
    assert_eq!(bytes.get("k0").await.unwrap().as_deref(), Some(&b"new"[..]));
    assert!(larder.health().is_well);
    larder.close().await;
}

/// The columns of a chat message's content.
const BODY_COLUMNS: [&str; 9] =
    ["role", "text", "blocks", "name", "metadata", "extra", "client_id", "checksum", "created_ms"];

/// A byte that is no UTF-8 any more set the whole store aside, where it is one message's damage.
#[tokio::test]
async fn every_flipped_bit_of_a_message_is_reported_and_the_others_are_served() {
    use larder::protocol::{ClientMessageId, JsonText};
    use larder::{ChatMessage, ContentBlock};
    const MESSAGES: usize = 1_600;
    let folder = tempdir().unwrap();
    let larder = Larder::open(folder.path()).await.unwrap();
    let json = |n: usize| JsonText::new(format!(r#"{{"number": {n}, "word": "some"}}"#)).unwrap();
    for n in 0..MESSAGES {
        let mut message = ChatMessage::user(format!("message {n} with a text"))
            .with_block(ContentBlock::image_url(format!("https://example.invalid/{n}")))
            .with_name(format!("name {n}"))
            .with_metadata(json(n))
            .with_client_id(ClientMessageId::new(format!("client {n}")).unwrap());
        message.extra = Some(json(n + 1));
        larder.chat().session(format!("s{n}")).append([message]).await.unwrap();
    }
    assert!(larder.check(CheckDepth::Full).await.unwrap().findings.is_empty());
    larder.close().await;
    assert_eq!(flip_a_bit_in_every_row(&folder.path().join("chat.db"), "body", &BODY_COLUMNS), MESSAGES);

    let larder = Larder::open(folder.path()).await.unwrap();
    let mut detected = 0;
    for n in 0..MESSAGES {
        let page = larder.chat().session(format!("s{n}")).page(1).await;
        detected += usize::from(page.is_err_and(|error| error.class() == Class::Corrupt));
    }
    println!("{detected} of {MESSAGES} flipped bits in messages are detected");
    assert_eq!(detected, MESSAGES);
    let found = larder.check(CheckDepth::Full).await.unwrap().findings;
    assert!(found.len() >= MESSAGES, "{} findings", found.len());
    let new = larder.chat().session("new");
    new.append([ChatMessage::user("new")]).await.unwrap();
    assert_eq!(new.page(1).await.unwrap().messages.len(), 1);
    assert!(larder.health().is_well, "{:?}", larder.health());
    larder.close().await;
}
