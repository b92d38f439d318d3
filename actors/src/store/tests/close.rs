//! Close: what was accepted is committed and answered; what cannot be, is reported.

use larder_protocol::{Class, Written};

use super::super::{CloseReport, Failpoint, FailpointAction};
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn close_commits_and_answers_what_was_accepted() {
    let opened = open(|_| ()).await;
    let mut gate = opened.stage.gate("first");
    let mut sent = vec![opened.send("first", [pause("first"), Step::Insert])];
    gate.reached().await;
    sent.extend((0..20).map(|_| opened.send("queued", [Step::Insert])));
    opened.queued(21).await;
    let mut close = Box::pin(opened.store.close(HANG));
    assert!(futures::poll!(&mut close).is_pending());
    gate.open();
    assert_eq!(within(close).await, CloseReport { is_drained: true, undelivered_count: 0 });
    for sent in sent {
        answer(sent).await.unwrap();
    }
    let error = opened.write("late", [Step::Insert]).await.unwrap_err();
    assert_eq!((error.class(), error.written()), (Class::ShuttingDown, Written::NotApplied));
    assert_eq!(opened.read([], true).await.unwrap_err().class(), Class::ShuttingDown);
    assert_eq!(opened.store.observe().state, StoreState::Stopped);
    let again = open_in(opened.folder, 3, |_| ()).await;
    assert_eq!(again.lines().await.len(), 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn close_leaves_neither_wal_nor_shared_memory() {
    let opened = open(|_| ()).await;
    opened.write("line", [Step::Insert]).await.unwrap();
    opened.lines().await;
    opened.read([], false).await.unwrap();
    assert!(within(opened.store.close(HANG)).await.is_drained);
    let mut names: Vec<_> = opened.folder.path().read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["kv.db"]);
}

/// It may take minutes, and nobody asked for it.
#[tokio::test(flavor = "multi_thread")]
async fn close_ends_the_check_that_follows_a_failed_commit() {
    let opened = open(|_| ()).await;
    opened.failpoints.set(StoreName::Kv, Failpoint::Commit, FailpointAction::Fail, 1);
    opened.write("line", [Step::Insert]).await.unwrap_err();
    let mut gate = opened.stage.gate("check");
    opened.stage.checks_forever.store(true, Ordering::Release);
    let store = opened.store.clone();
    let check = tokio::spawn(async move { store.check_after_doubt().await });
    gate.reached().await;
    gate.open();
    assert!(within(opened.store.close(HANG)).await.is_drained);
    within(check).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_drain_deadline_cuts_off_is_counted_and_answered_truly() {
    let opened = open(|_| ()).await;
    let mut gate = opened.stage.gate("stuck");
    let stuck = opened.send("stuck", [Step::Insert, pause("stuck")]);
    gate.reached().await;
    let queued = opened.send("queued", [Step::Insert]);
    opened.queued(2).await;
    let report = within(opened.store.close(Duration::from_millis(1))).await;
    assert_eq!(report, CloseReport { is_drained: false, undelivered_count: 2 });
    gate.open();
    // Whatever each caller was told must be what the file says.
    let (stuck, queued) = (answer(stuck).await, answer(queued).await);
    let report = within(opened.store.close(HANG)).await;
    assert!(report.is_drained);
    let again = open_in(opened.folder, 3, |_| ()).await;
    let lines = again.lines().await;
    for (line, answer) in [("stuck", stuck), ("queued", queued)] {
        let is_there = lines.iter().any(|found| found == line);
        match answer {
            Ok(_) => assert!(is_there, "{line} was acknowledged"),
            Err(error) => {
                assert_eq!(error.class(), Class::ShuttingDown, "{error}");
                assert!(error.written() == Written::Unknown || !is_there, "{line} was called not applied");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn close_waits_for_reads_that_have_begun() {
    let opened = open(|_| ()).await;
    opened.write("line", [Step::Insert]).await.unwrap();
    let mut gate = opened.stage.gate("read");
    let store = opened.store.clone();
    let read = tokio::spawn(async move {
        store.read(Read { steps: vec![pause("read")], is_in_place: false }, RequestOptions::default()).await
    });
    gate.reached().await;
    let mut close = Box::pin(opened.store.close(HANG));
    assert!(futures::poll!(&mut close).is_pending());
    gate.open();
    assert!(within(close).await.is_drained);
    assert_eq!(answer(read).await.unwrap(), ["line"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn second_close_finds_nothing_to_do() {
    let opened = open(|_| ()).await;
    opened.write("line", [Step::Insert]).await.unwrap();
    assert!(within(opened.store.close(HANG)).await.is_drained);
    assert!(within(opened.store.close(HANG)).await.is_drained);
}

#[tokio::test(flavor = "multi_thread")]
async fn subscription_ends_with_the_store() {
    use futures::StreamExt;
    let opened = open(|_| ()).await;
    opened.write("line", [Step::Insert]).await.unwrap();
    let notices = opened.store.subscribe(larder_protocol::Sequence(0));
    let followed = tokio::spawn(notices.collect::<Vec<_>>());
    assert!(within(opened.store.close(HANG)).await.is_drained);
    // An end is not an error.
    for notice in answer(followed).await {
        notice.unwrap();
    }
}
