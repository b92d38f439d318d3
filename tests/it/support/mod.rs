//! What several modules need: waits with a limit, one way to look at an error, children, and looks from outside.

pub(crate) mod child;
pub(crate) mod damage;

use std::path::Path;
use std::time::Duration;

use larder::{Class, Error, Larder, Written};

/// A wait in a test that takes this long is a hang.
const HANG: Duration = Duration::from_secs(60);

/// Waits, but not for ever.
pub(crate) async fn within<F: IntoFuture>(future: F) -> F::Output {
    // A thread's timer and not tokio's, since some tests run without one.
    let (expired, hang) = futures::channel::oneshot::channel::<()>();
    let watch = std::thread::spawn(move || {
        std::thread::park_timeout(HANG);
        drop(expired);
    });
    let done = futures::future::select(Box::pin(future.into_future()), hang).await;
    watch.thread().unpark();
    match done {
        futures::future::Either::Left((output, _)) => output,
        futures::future::Either::Right(_) => panic!("it hangs"),
    }
}

/// Checks the three things that every error says: what a caller can do, whether it was written, and what was wrong.
#[track_caller]
pub(crate) fn assert_error<T: std::fmt::Debug>(
    result: Result<T, Error>,
    class: Class,
    written: Written,
    says: &[&str],
) {
    let error = result.unwrap_err();
    let text = match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    assert_eq!((error.class(), error.written()), (class, written), "{text}");
    for part in says {
        assert!(text.contains(part), "{text:?} does not say {part:?}");
    }
}

/// As [`assert_error`] for a request that changed nothing.
#[track_caller]
pub(crate) fn assert_refused<T: std::fmt::Debug>(result: Result<T, Error>, class: Class, says: &[&str]) {
    assert_error(result, class, Written::NotApplied, says);
}

/// Checks that a larder still answers reads and writes.
pub(crate) async fn assert_serves(larder: &Larder) {
    let probe = larder.kv().collection::<u32>("probe");
    within(probe.put("probe", &1)).await.unwrap();
    assert_eq!(within(probe.get("probe")).await.unwrap(), Some(1));
}

use tokio::sync::{Mutex, MutexGuard};

static ALONE: Mutex<()> = Mutex::const_new(());

/// Waits until no other test that measures shares or floods the disk runs in this binary: on a small machine they would
/// measure each other.
pub(crate) async fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().await
}

/// Returns a number that an environment variable may set, for sizes beyond the test's own.
pub(crate) fn number_from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Returns what SQLite's own full check says of a store's file; `ok` alone is good. The folder must be closed.
#[expect(clippy::disallowed_methods, reason = "a look from outside, through SQLite, at a folder that is closed")]
pub(crate) fn integrity_check(file: &Path) -> Vec<String> {
    let connection = rusqlite::Connection::open(file).unwrap();
    let mut statement = connection.prepare("PRAGMA integrity_check").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>().unwrap()
}
