//! Folders and files that cannot be used: each is refused with what and why, left as it was, and harms nobody else.
#![expect(clippy::disallowed_methods, reason = "makes and compares files that no larder has open")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use larder::blocking::wait;
use larder::{Class, Larder, OpenError, Sharing};
use rusqlite::Connection;

use super::support::{assert_refused, assert_serves, within};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A closed folder with one entry in it.
async fn kept() -> tempfile::TempDir {
    let folder = folder();
    let larder = Larder::open(folder.path()).await.unwrap();
    larder.kv().collection::<u32>("c").put("k", &1).await.unwrap();
    assert!(larder.close().await.is_clean());
    folder
}

/// Every file of the stores in the folder, with its content; the shared memory's is SQLite's scratch, made anew at will.
fn content(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = folder.read_dir().unwrap().map(|entry| entry.unwrap()).filter(|entry| entry.path().is_file());
    let files = files.filter(|entry| entry.file_name() != "larder.lock");
    let named = files.map(|entry| (entry.file_name().into_string().unwrap(), entry.path()));
    named
        .map(|(name, path)| if name.ends_with("-shm") { (name, vec![]) } else { (name, std::fs::read(path).unwrap()) })
        .collect()
}

fn change(folder: &Path, sql: &str) {
    let connection = Connection::open(folder.join("kv.db")).unwrap();
    connection.execute_batch(sql).unwrap();
}

/// Opens the folder, whose kv file is to be refused at each use, saying `says`, and to stay as it is byte for byte.
async fn assert_file_refused(folder: &Path, class: Class, says: &[&str]) {
    let before = content(folder);
    let larder = Larder::open(folder).await.unwrap();
    let kv = larder.kv().collection::<u32>("c");
    let path = folder.canonicalize().unwrap().join("kv.db");
    let mut says = says.to_vec();
    says.push(path.to_str().unwrap());
    for _ in 0..2 {
        assert_refused(within(kv.put("k", &2)).await, class, &says);
        assert_refused(within(kv.get("k")).await, class, &says);
        assert_refused(within(kv.scan().page()).await, class, &says);
    }
    // Nobody else notices.
    assert_serves(&Larder::temporary().await.unwrap()).await;
    assert!(larder.close().await.is_clean());
    assert!(before == content(folder), "the folder was changed: {:?}", content(folder).keys());
}

#[tokio::test]
async fn missing_folder_is_created_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let path = folder.path().join("a").join("b");
    let larder = Larder::open(&path).await.unwrap();
    assert_serves(&larder).await;
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for name in ["kv.db", "kv.db-wal", "kv.db-shm", "larder.lock"] {
        assert_eq!(mode(&path.join(name)), 0o600, "{name}");
    }
    assert!(larder.close().await.is_clean());
}

/// Root writes past permission bits, so these are places where nobody can.
#[tokio::test]
async fn folders_that_cannot_be_used_are_refused_by_name() {
    let folder = folder();
    let file = folder.path().join("file");
    std::fs::write(&file, "not a folder").unwrap();
    for path in [file.clone(), file.join("below"), "/proc/larder".into(), "/proc".into()] {
        let error = within(Larder::open(&path)).await.unwrap_err();
        let OpenError::Folder { path: named, .. } = &error else { panic!("{path:?}: {error:?}") };
        assert!(named.starts_with(&path), "{named:?}");
        assert!(std::error::Error::source(&error).is_some());
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"not a folder");
    // Refusing one leaves the way to others free.
    assert_serves(&Larder::open(folder.path().join("good")).await.unwrap()).await;
}

#[tokio::test]
async fn folder_made_usable_is_used_at_the_next_open() {
    let folder = folder();
    let path = folder.path().join("data");
    std::fs::write(&path, "in the way").unwrap();
    Larder::open(&path).await.unwrap_err();
    std::fs::remove_file(&path).unwrap();
    assert_serves(&Larder::open(&path).await.unwrap()).await;
}

#[tokio::test]
async fn newer_schema_is_refused_untouched() {
    let folder = kept().await;
    change(folder.path(), "PRAGMA user_version = 99");
    assert_file_refused(folder.path(), Class::Refused, &["schema version 99 is newer than 2"]).await;
}

/// The newer version stands in the WAL alone, as after a crash of the newer build.
#[tokio::test]
async fn newer_schema_in_an_unfolded_wal_is_refused_untouched() {
    let folder = kept().await;
    let newer = Connection::open(folder.path().join("kv.db")).unwrap();
    newer.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    newer.execute_batch("PRAGMA user_version = 99").unwrap();
    drop(newer);
    assert!(content(folder.path())["kv.db-wal"].len() > 4096);
    assert_file_refused(folder.path(), Class::Refused, &["schema version 99 is newer than 2"]).await;
}

#[tokio::test]
async fn file_of_another_application_is_refused_untouched() {
    let folder = folder();
    for sql in [
        "CREATE TABLE t (a)",
        "PRAGMA application_id = 7; CREATE TABLE t (a)",
        "PRAGMA journal_mode = WAL; CREATE TABLE t (a)",
    ] {
        let path = tempfile::tempdir_in(folder.path()).unwrap().keep();
        change(&path, sql);
        assert_file_refused(&path, Class::Refused, &["another application or store"]).await;
    }
}

#[tokio::test]
async fn file_that_is_no_database_is_refused_untouched() {
    let folder = folder();
    for bytes in [b"not a database, but long enough to have a header".repeat(100), vec![0; 8_192], vec![1; 3]] {
        let path = tempfile::tempdir_in(folder.path()).unwrap().keep();
        std::fs::write(path.join("kv.db"), bytes).unwrap();
        assert_file_refused(&path, Class::Refused, &["cannot be read as a database"]).await;
    }
}

#[tokio::test]
async fn folder_in_place_of_the_file_is_refused() {
    let folder = folder();
    std::fs::create_dir(folder.path().join("kv.db")).unwrap();
    assert_file_refused(folder.path(), Class::Refused, &["cannot be opened"]).await;
}

#[tokio::test]
async fn planted_triggers_views_and_tables_are_refused_untouched() {
    for (name, sql) in [
        ("planted", "CREATE TRIGGER planted AFTER INSERT ON entry BEGIN DELETE FROM entry; END"),
        ("planted", "CREATE VIEW planted AS SELECT 1"),
        ("planted", "CREATE TABLE planted (a)"),
        ("entry_field_1", "CREATE INDEX entry_field_1 ON entry (abs(version))"),
        ("entry_by_expiry", "DROP INDEX entry_by_expiry"),
        ("tag", "ALTER TABLE tag ADD COLUMN planted TEXT"),
    ] {
        let folder = kept().await;
        change(folder.path(), sql);
        assert_file_refused(folder.path(), Class::Refused, &["its schema", name]).await;
    }
}

#[tokio::test]
async fn refused_file_is_used_once_it_is_well_again() {
    let folder = kept().await;
    change(folder.path(), "CREATE VIEW planted AS SELECT 1");
    let larder = Larder::open(folder.path()).await.unwrap();
    let kv = larder.kv().collection::<u32>("c");
    assert_refused(kv.get("k").await, Class::Refused, &["planted"]);
    change(folder.path(), "DROP VIEW planted");
    assert_eq!(kv.get("k").await.unwrap(), Some(1));
    larder.close().await;
}

#[tokio::test]
async fn empty_file_is_a_new_one() {
    let folder = folder();
    std::fs::write(folder.path().join("kv.db"), "").unwrap();
    let larder = Larder::open(folder.path()).await.unwrap();
    assert_serves(&larder).await;
    larder.close().await;
}

/// A crash between the file's first page and its schema left a file that was refused as another application's for ever;
/// so was a file that another process was just creating.
#[tokio::test]
async fn file_whose_creation_was_cut_short_is_a_new_one() {
    for sql in [
        "PRAGMA page_size = 4096; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL",
        "PRAGMA auto_vacuum = INCREMENTAL; VACUUM",
    ] {
        let folder = folder();
        change(folder.path(), sql);
        let larder = Larder::open(folder.path()).await.unwrap();
        assert_serves(&larder).await;
        assert!(larder.close().await.is_clean());
    }
}

#[tokio::test]
async fn value_changed_behind_larders_back_is_reported_and_not_answered() {
    let folder = kept().await;
    change(folder.path(), "UPDATE entry SET value = '2'");
    let larder = Larder::open(folder.path()).await.unwrap();
    let kv = larder.kv().collection::<u32>("c");
    assert_refused(kv.get("k").await, Class::Corrupt, &["key \"k\"", "does not match its checksum"]);
    assert_refused(kv.scan().page().await, Class::Corrupt, &["checksum"]);
    assert_serves(&larder).await;
    // Replacing it mends it.
    kv.put("k", &3).await.unwrap();
    assert_eq!(kv.get("k").await.unwrap(), Some(3));
    larder.close().await;
}

/// Names the folder that the child process opens, and how.
const CHILD: &str = "LARDER_TEST_FOLDER";

/// Not a test by itself: it is what the tests below run in another process.
#[test]
fn child_process_holds_the_folder_it_is_told_to() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let (sharing, path) = told.split_once(':').unwrap();
    let sharing = if sharing == "exclusive" { Sharing::Exclusive } else { Sharing::Shared };
    let larder = wait(Larder::builder(path).settings(|settings| settings.sharing = sharing).open()).unwrap();
    wait(larder.kv().collection::<u32>("c").put("child", &1)).unwrap();
    println!("\nholding");
    // Until the parent lets go, or is gone itself.
    std::io::stdin().read_line(&mut String::new()).unwrap();
    assert!(wait(larder.close()).is_clean());
}

/// Another process that has the folder open, until it is ended.
struct Holder(Child);

impl Holder {
    fn start(folder: &Path, sharing: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["folder::child_process_holds_the_folder_it_is_told_to", "--exact", "--nocapture"])
            .env(CHILD, format!("{sharing}:{}", folder.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "holding"), "the child ended early");
        // Read on, so that the child never waits for somebody to.
        std::thread::spawn(move || lines.count());
        Self(child)
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn folder_held_exclusively_is_refused_and_its_holder_named() {
    let folder = folder();
    let holder = Holder::start(folder.path(), "exclusive");
    let error = Larder::open(folder.path()).await.unwrap_err();
    let OpenError::Held { held_by, .. } = &error else { panic!("{error:?}") };
    assert!(held_by.contains(&holder.0.id().to_string()), "{held_by}");
    assert!(error.to_string().contains(folder.path().file_name().unwrap().to_str().unwrap()), "{error}");
    let error = Larder::builder(folder.path()).exclusive().open().await.unwrap_err();
    assert!(matches!(error, OpenError::Held { .. }), "{error:?}");
    holder.end();
    let larder = Larder::open(folder.path()).await.unwrap();
    assert_eq!(larder.kv().collection::<u32>("c").get("child").await.unwrap(), Some(1));
    larder.close().await;
}

#[tokio::test]
async fn shared_folder_cannot_be_had_exclusively() {
    let folder = folder();
    let holder = Holder::start(folder.path(), "shared");
    let error = Larder::builder(folder.path()).exclusive().open().await.unwrap_err();
    assert!(matches!(error, OpenError::Held { .. }), "{error:?}");
    // Together they may.
    let larder = Larder::open(folder.path()).await.unwrap();
    let kv = larder.kv().collection::<u32>("c");
    assert_eq!(kv.get("child").await.unwrap(), Some(1));
    kv.put("parent", &2).await.unwrap();
    holder.end();
    assert_serves(&larder).await;
    assert!(larder.close().await.is_clean());
}

#[tokio::test]
async fn lock_of_a_killed_process_is_free() {
    let folder = folder();
    let mut holder = Holder::start(folder.path(), "exclusive");
    holder.0.kill().unwrap();
    holder.0.wait().unwrap();
    let larder = Larder::builder(folder.path()).exclusive().open().await.unwrap();
    assert_eq!(larder.kv().collection::<u32>("c").get("child").await.unwrap(), Some(1));
    // What the dead left behind is cleared away.
    assert_eq!(folder.path().join("processes").read_dir().unwrap().count(), 1);
    larder.close().await;
}
