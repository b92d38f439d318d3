//! Deadlines, and callers that go away: before a request begins, while it runs, and after.

use larder_protocol::{Class, Written};

use super::*;

const SHORT: Duration = Duration::from_millis(1);
/// Long enough for a request to begin, short enough to wait for its end.
const RUNNING: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread")]
async fn write_whose_deadline_passes_in_the_queue_never_runs() {
    let opened = open(|_| ()).await;
    let mut gate = opened.stage.gate("first");
    let first = opened.send("first", [pause("first"), Step::Insert]);
    gate.reached().await;
    let error = answer(opened.send_with("late", [Step::Insert], deadline(SHORT))).await.unwrap_err();
    assert_eq!((error.class(), error.written()), (Class::Deadline, Written::NotApplied));
    gate.open();
    answer(first).await.unwrap();
    assert_eq!(opened.write("next", [Step::Insert]).await.unwrap(), 2);
    assert_eq!(opened.lines().await, ["first", "next"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn write_whose_deadline_passes_while_it_runs_is_interrupted_and_undone() {
    let opened = open(|_| ()).await;
    let mut gate = opened.stage.gate("first");
    let first = opened.send("first", [pause("first"), Step::Insert]);
    gate.reached().await;
    let long = opened.send_with("long", [Step::Insert, Step::InsertForever], deadline(RUNNING));
    opened.queued(2).await;
    let after = opened.send("after", [Step::Insert]);
    opened.queued(3).await;
    gate.open();
    let error = answer(long).await.unwrap_err();
    assert_eq!(error.class(), Class::Deadline);
    // SQLite ends the whole transaction with an interrupted INSERT; the neighbours ran again.
    answer(first).await.unwrap();
    answer(after).await.unwrap();
    assert_eq!(opened.lines().await, ["first", "after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn read_whose_deadline_passes_while_it_runs_is_interrupted() {
    let opened = open(|settings| settings.reader_threads = 1).await;
    let read = Read { steps: vec![Step::ReadForever], is_in_place: false };
    let error = within(opened.store.read(read, deadline(RUNNING))).await.unwrap_err();
    assert_eq!((error.class(), error.written()), (Class::Deadline, Written::NotApplied));
    // The only reader thread is free again.
    opened.read([], false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn read_whose_deadline_passes_in_the_queue_never_runs() {
    let opened = open(|settings| settings.reader_threads = 1).await;
    let mut gate = opened.stage.gate("read");
    let store = opened.store.clone();
    let first = tokio::spawn(async move {
        store.read(Read { steps: vec![pause("read")], is_in_place: false }, RequestOptions::default()).await
    });
    gate.reached().await;
    let late = Read { steps: vec![Step::Panic], is_in_place: false };
    let error = within(opened.store.read(late, deadline(SHORT))).await.unwrap_err();
    assert_eq!(error.class(), Class::Deadline);
    gate.open();
    answer(first).await.unwrap();
    opened.read([], false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn write_whose_caller_goes_away_in_the_queue_never_runs() {
    let opened = open(|_| ()).await;
    let mut gate = opened.stage.gate("first");
    let first = opened.send("first", [pause("first"), Step::Insert]);
    gate.reached().await;
    let mut dropped = Box::pin(opened.store.write(message("dropped", [Step::Insert]), RequestOptions::default()));
    assert!(futures::poll!(&mut dropped).is_pending());
    opened.queued(2).await;
    drop(dropped);
    gate.open();
    answer(first).await.unwrap();
    opened.write("next", [Step::Insert]).await.unwrap();
    assert_eq!(opened.lines().await, ["first", "next"]);
    // What it held of the queue's budget is free again.
    opened.queued(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn write_whose_caller_goes_away_while_it_runs_ends_whole_or_not_at_all() {
    let opened = open(|_| ()).await;
    let mut gate = opened.stage.gate("middle");
    let steps = [Step::Insert, pause("middle"), Step::Insert];
    let mut dropped = Box::pin(opened.store.write(message("dropped", steps), RequestOptions::default()));
    assert!(futures::poll!(&mut dropped).is_pending());
    gate.reached().await;
    drop(dropped);
    gate.open();
    opened.write("next", [Step::Insert]).await.unwrap();
    // No statement was running then; the next one is ended.
    assert_eq!(opened.lines().await, ["next"]);
    opened.queued(0).await;
}

/// An interrupt between two statements hit nothing, and the handler ran on to its end.
#[tokio::test(flavor = "multi_thread")]
async fn write_whose_deadline_passes_between_two_statements_is_undone() {
    let opened = open(|_| ()).await;
    let mut gate = opened.stage.gate("between");
    let steps = [Step::Insert, pause("between"), Step::Insert];
    let late = opened.send_with("late", steps, deadline(RUNNING));
    gate.reached().await;
    let error = answer(late).await.unwrap_err();
    assert_eq!((error.class(), error.written()), (Class::Deadline, Written::Unknown));
    gate.open();
    assert_eq!(opened.write("next", [Step::Insert]).await.unwrap(), 1);
    assert_eq!(opened.lines().await, ["next"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn read_whose_deadline_passes_between_two_statements_is_ended() {
    let opened = open(|settings| settings.reader_threads = 1).await;
    let mut gate = opened.stage.gate("between");
    let steps = vec![pause("between"), Step::ReadForever];
    let read = opened.store.read(Read { steps, is_in_place: false }, deadline(RUNNING));
    assert_eq!(within(read).await.unwrap_err().class(), Class::Deadline);
    gate.reached().await;
    gate.open();
    // The only reader thread is free again.
    opened.read([], false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn write_whose_caller_goes_away_before_the_commit_is_committed() {
    let opened = open(|_| ()).await;
    let mut last = opened.stage.gate("last");
    let mut first = opened.stage.gate("first");
    let mut dropped =
        Box::pin(opened.store.write(message("dropped", [pause("first"), Step::Insert]), RequestOptions::default()));
    assert!(futures::poll!(&mut dropped).is_pending());
    first.reached().await;
    let held = opened.send("held", [pause("last"), Step::Insert]);
    opened.queued(2).await;
    first.open();
    last.reached().await;
    drop(dropped);
    last.open();
    answer(held).await.unwrap();
    assert_eq!(opened.lines().await, ["dropped", "held"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_deadline_is_no_overflow() {
    let opened = open(|_| ()).await;
    answer(opened.send_with("line", [Step::Insert], deadline(Duration::MAX))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn zero_deadline_is_answered_as_one_that_passed() {
    let opened = open(|_| ()).await;
    let mut gate = opened.stage.gate("first");
    let first = opened.send("first", [pause("first")]);
    gate.reached().await;
    let error = answer(opened.send_with("line", [Step::Insert], deadline(Duration::ZERO))).await.unwrap_err();
    assert_eq!((error.class(), error.written()), (Class::Deadline, Written::NotApplied));
    gate.open();
    answer(first).await.unwrap();
}
