//! The outer ring: what happens when the store cannot help itself and its supervisor must.

use larder_protocol::{Class, Written};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn store_that_cannot_reopen_its_file_is_restarted_until_it_can() {
    let mut opened = open_in(tempfile::tempdir().unwrap(), 1_000, |_| ()).await;
    opened.write("before", [Step::Insert]).await.unwrap();
    let error = opened.write("lost", [Step::Insert, Step::LoseFile, Step::Panic]).await.unwrap_err();
    assert_eq!(error.written(), Written::NotApplied, "{error}");
    let event = opened.state(StoreState::Restarting).await;
    assert!(event.reason.is_some());
    let queued = opened.send("queued", [Step::Insert]);
    opened.stage.find_file();
    opened.state(StoreState::Serving).await;
    // What arrived while it was away was kept.
    answer(queued).await.unwrap();
    opened.write("after", [Step::Insert]).await.unwrap();
    assert_eq!(opened.lines().await, ["before", "queued", "after"]);
    let seen = opened.store.observe();
    assert_eq!(seen.state, StoreState::Serving);
    assert!(seen.restart_count > 0);
    assert!(within(opened.store.close(HANG)).await.is_drained);
}

#[tokio::test(flavor = "multi_thread")]
async fn store_past_its_restart_limit_has_failed_and_says_so_at_once() {
    let mut opened = open(|_| ()).await;
    opened.write("before", [Step::Insert]).await.unwrap();
    opened.write("lost", [Step::LoseFile, Step::Panic]).await.unwrap_err();
    let event = opened.state(StoreState::Failed).await;
    assert!(event.reason.is_some_and(|reason| !reason.is_empty()));
    let error = opened.write("late", [Step::Insert]).await.unwrap_err();
    assert_eq!((error.class(), error.written()), (Class::StoreFailed, Written::NotApplied));
    assert_eq!(opened.read([], false).await.unwrap_err().class(), Class::StoreFailed);
    assert_eq!(opened.store.observe().state, StoreState::Failed);
    // It is told once.
    assert!(opened.events.try_recv().is_err());
    assert!(within(opened.store.close(HANG)).await.is_drained);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_who_wait_while_a_store_fails_are_answered() {
    let mut opened = open(|_| ()).await;
    let mut gate = opened.stage.gate("first");
    let first = opened.send("first", [pause("first"), Step::LoseFile, Step::Panic]);
    gate.reached().await;
    let waiting: Vec<_> = (0..100).map(|_| opened.send("waiting", [Step::Insert])).collect();
    opened.queued(101).await;
    gate.open();
    answer(first).await.unwrap_err();
    for waiting in waiting {
        let error = answer(waiting).await.unwrap_err();
        assert_eq!(error.written(), Written::NotApplied, "{error}");
    }
    opened.state(StoreState::Failed).await;
    opened.queued(0).await;
}

/// A restart must not take a file that vanished for one that was never there: that would be silent loss.
#[tokio::test(flavor = "multi_thread")]
async fn restart_never_creates_the_file_anew() {
    let mut opened = open(|_| ()).await;
    opened.write("before", [Step::Insert]).await.unwrap();
    let mut gate = opened.stage.gate("lost");
    let lost = opened.send("lost", [Step::LoseFile, pause("lost"), Step::Panic]);
    gate.reached().await;
    let path = opened.stage.file.get().unwrap();
    std::fs::remove_dir(path).unwrap();
    gate.open();
    answer(lost).await.unwrap_err();
    opened.state(StoreState::Failed).await;
    assert!(!opened.stage.file.get().unwrap().exists());
}

/// The group was committed; only its callers' answers are lost. They must not be told that nothing was written.
#[tokio::test(flavor = "multi_thread")]
async fn panic_after_commit_is_answered_as_applied_and_the_store_serves_on() {
    let mut opened = open(|_| ()).await;
    opened.stage.panics_after_commit.store(true, Ordering::Release);
    let error = opened.write("line", [Step::Insert]).await.unwrap_err();
    assert_eq!((error.class(), error.written()), (Class::Restarting, Written::Applied));
    opened.state(StoreState::Restarting).await;
    opened.state(StoreState::Serving).await;
    opened.write("next", [Step::Insert]).await.unwrap();
    assert_eq!(opened.lines().await, ["line", "next"]);
    assert_eq!(opened.store.observe().state, StoreState::Serving);
}

#[tokio::test(flavor = "multi_thread")]
async fn last_panic_past_the_limit_is_answered_as_truly() {
    let opened = open_in(tempfile::tempdir().unwrap(), 0, |_| ()).await;
    opened.stage.panics_after_commit.store(true, Ordering::Release);
    let error = opened.write("line", [Step::Insert]).await.unwrap_err();
    assert_eq!(error.written(), Written::Applied, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_within_the_limit_do_not_add_up_once_it_serves_again() {
    let mut opened = open_in(tempfile::tempdir().unwrap(), 5, |_| ()).await;
    for round in 0..4 {
        opened.stage.panics_after_commit.store(true, Ordering::Release);
        opened.write("line", [Step::Insert]).await.unwrap_err();
        opened.state(StoreState::Serving).await;
        opened.write("line", [Step::Insert]).await.unwrap();
        assert_eq!(opened.store.observe().restart_count, round + 1);
    }
}
