//! What several modules need: waits with a limit, and one way to look at an error.

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
