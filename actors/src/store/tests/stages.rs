//! Every stage of a message panics or fails once: its caller's answer is typed and true, neighbours are not harmed, and
//! the store serves on.

use larder_protocol::{Class, Written};

use super::super::{Failpoint, FailpointAction};
use super::*;

/// Makes a group of three, `first`, `hit` and `last`, pass `point`, and answers what each caller was told.
async fn group_at(opened: &Opened, point: Failpoint, action: FailpointAction) -> Vec<Result<u64>> {
    let mut gate = opened.stage.gate("first");
    let mut sent = vec![opened.send("first", [pause("first"), Step::Insert])];
    gate.reached().await;
    sent.push(opened.send("hit", [Step::Insert]));
    opened.queued(2).await;
    sent.push(opened.send("last", [Step::Insert]));
    opened.queued(3).await;
    // The first handler is at its gate: what comes next is the second's, or the group's end.
    opened.failpoints.set(StoreName::Kv, point, action, 1);
    gate.open();
    let mut answers = Vec::new();
    for sent in sent {
        answers.push(answer(sent).await);
    }
    answers
}

/// Whatever was answered must be what the file says, and the store must serve on.
async fn assert_true_and_serving(opened: &Opened, answers: &[Result<u64>]) {
    opened.write("next", [Step::Insert]).await.unwrap();
    let lines = opened.lines().await;
    for (line, answer) in ["first", "hit", "last"].into_iter().zip(answers) {
        let is_there = lines.iter().any(|found| found == line);
        match answer.as_ref().map_err(crate::Error::written) {
            Ok(_) | Err(Written::Applied) => assert!(is_there, "{line} is missing: {answer:?}"),
            Err(Written::NotApplied) => assert!(!is_there, "{line} is there: {answer:?}"),
            Err(Written::Unknown) => {}
        }
    }
    assert!(lines.iter().any(|line| line == "next"));
    assert_eq!(opened.store.observe().state, StoreState::Serving);
    opened.queued(0).await;
}

fn outcomes(answers: &[Result<u64>]) -> Vec<Option<(Class, Written)>> {
    answers.iter().map(|answer| answer.as_ref().err().map(|error| (error.class(), error.written()))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn handler_that_panics_or_fails_is_its_callers_alone() {
    for (action, class) in [(FailpointAction::Panic, Class::Internal), (FailpointAction::Fail, Class::Io)] {
        let opened = open(|_| ()).await;
        let answers = group_at(&opened, Failpoint::Handler, action).await;
        assert_eq!(outcomes(&answers), [None, Some((class, Written::NotApplied)), None], "{action:?}");
        assert_true_and_serving(&opened, &answers).await;
        assert_eq!(opened.store.observe().restart_count, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn panic_at_commit_undoes_the_group_and_restarts_the_store() {
    let opened = open(|_| ()).await;
    let answers = group_at(&opened, Failpoint::Commit, FailpointAction::Panic).await;
    assert_eq!(outcomes(&answers), [Some((Class::Restarting, Written::NotApplied)); 3]);
    assert_true_and_serving(&opened, &answers).await;
    let seen = opened.store.observe();
    assert_eq!((seen.restart_count, seen.panic_count), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn failure_at_commit_is_resolved_in_place() {
    let opened = open(|_| ()).await;
    let answers = group_at(&opened, Failpoint::Commit, FailpointAction::Fail).await;
    assert_eq!(outcomes(&answers), [Some((Class::Io, Written::NotApplied)); 3]);
    assert_true_and_serving(&opened, &answers).await;
    assert_eq!(opened.store.observe().restart_count, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn panic_after_commit_tells_every_caller_that_it_is_applied() {
    let opened = open(|_| ()).await;
    let answers = group_at(&opened, Failpoint::AfterCommit, FailpointAction::Panic).await;
    assert_eq!(outcomes(&answers), [Some((Class::Restarting, Written::Applied)); 3]);
    assert_true_and_serving(&opened, &answers).await;
    assert_eq!(opened.store.observe().restart_count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn panic_or_failure_before_the_transaction_writes_nothing_and_keeps_what_is_queued() {
    for (action, class, restarts) in
        [(FailpointAction::Panic, Class::Restarting, 1), (FailpointAction::Fail, Class::Io, 0)]
    {
        // Each write is a group of its own.
        let opened = open(|settings| settings.group_messages_max = 1).await;
        let answers = group_at(&opened, Failpoint::BeforeTransaction, action).await;
        assert_eq!(outcomes(&answers), [None, Some((class, Written::NotApplied)), None], "{action:?}");
        assert_true_and_serving(&opened, &answers).await;
        assert_eq!(opened.store.observe().restart_count, restarts);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn read_that_panics_or_fails_is_its_callers_alone_and_is_counted() {
    let opened = open(|_| ()).await;
    opened.write("line", [Step::Insert]).await.unwrap();
    for (point, is_in_place) in [(Failpoint::ReadInPlace, true), (Failpoint::ReadOnThread, false)] {
        for (action, class) in [(FailpointAction::Panic, Class::Internal), (FailpointAction::Fail, Class::Io)] {
            opened.failpoints.set(StoreName::Kv, point, action, 1);
            let error = opened.read([], is_in_place).await.unwrap_err();
            assert_eq!((error.class(), error.written()), (class, Written::NotApplied), "{point:?} {action:?}");
            assert_eq!(opened.read([], is_in_place).await.unwrap(), ["line"]);
        }
    }
    let seen = opened.store.observe();
    assert_eq!((seen.panic_count, seen.restart_count, seen.state), (2, 0, StoreState::Serving));
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_that_panics_or_fails_harms_no_neighbour_and_is_tried_again() {
    for action in [FailpointAction::Panic, FailpointAction::Fail] {
        let opened = open(|_| ()).await;
        let mut gate = opened.stage.gate("first");
        let first = opened.send("first", [pause("first"), Step::Insert]);
        gate.reached().await;
        opened.failpoints.set(StoreName::Kv, Failpoint::Maintenance, action, 1);
        opened.store.maintain();
        let last = opened.send("last", [Step::Insert]);
        gate.open();
        answer(first).await.unwrap();
        answer(last).await.unwrap();
        opened.store.maintain();
        opened.write("next", [Step::Insert]).await.unwrap();
        assert_eq!(opened.lines().await, ["first", "last", "next"], "{action:?}");
        assert_eq!(opened.store.observe().restart_count, 0);
    }
}

/// A background checkpoint that panicked left its lock poisoned, and was the last there ever was.
#[tokio::test(flavor = "multi_thread")]
async fn checkpoint_that_panics_or_fails_is_tried_again() {
    let opened = open(|settings| settings.checkpoint.background_frames = 1).await;
    for action in [FailpointAction::Panic, FailpointAction::Fail] {
        opened.write("line", [Step::Insert]).await.unwrap();
        opened.failpoints.set(StoreName::Kv, Failpoint::Checkpoint, action, 1);
        let store = opened.store.clone();
        let done = tokio::task::spawn_blocking(move || store.checkpoint_if_due()).await;
        assert!(done.is_err() || done.unwrap().is_err(), "{action:?}");
        let before = opened.store.observe().checkpoint_count;
        opened.store.checkpoint_if_due().unwrap();
        assert_eq!(opened.store.observe().checkpoint_count, before + 1, "{action:?}");
    }
    opened.write("next", [Step::Insert]).await.unwrap();
}

/// A first start that failed was tried again and again by kameo in the background, long after its caller was told.
#[tokio::test(flavor = "multi_thread")]
async fn first_start_that_fails_or_panics_is_told_once_and_leaves_nothing_behind() {
    for action in [FailpointAction::Panic, FailpointAction::Fail] {
        let failpoints = Arc::new(Failpoints::default());
        failpoints.set(StoreName::Kv, Failpoint::Start, action, 1);
        let folder = tempfile::tempdir().unwrap();
        let (refused, folder) = try_open_in(folder, 3, Arc::clone(&failpoints), |_| ()).await.err().unwrap();
        assert_eq!(refused.written(), Written::NotApplied, "{refused}");
        // Were another start under way in the background, it would use up what this one is told to do.
        failpoints.set(StoreName::Kv, Failpoint::Start, action, 1);
        let (_, folder) = try_open_in(folder, 3, Arc::clone(&failpoints), |_| ()).await.err().unwrap();
        let opened = try_open_in(folder, 3, failpoints, |_| ()).await.ok().unwrap();
        opened.write("line", [Step::Insert]).await.unwrap();
        assert_eq!(opened.store.observe().restart_count, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_that_fails_or_panics_is_tried_again_and_keeps_what_is_queued() {
    for action in [FailpointAction::Panic, FailpointAction::Fail] {
        let mut opened = open(|_| ()).await;
        opened.write("before", [Step::Insert]).await.unwrap();
        opened.failpoints.set(StoreName::Kv, Failpoint::Start, action, 2);
        let answers = group_at(&opened, Failpoint::Commit, FailpointAction::Panic).await;
        let queued = opened.send("queued", [Step::Insert]);
        answer(queued).await.unwrap();
        assert_true_and_serving(&opened, &answers).await;
        opened.state(StoreState::Restarting).await;
        opened.state(StoreState::Serving).await;
        assert_eq!(opened.store.observe().restart_count, 3, "{action:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn store_whose_restarts_all_fail_has_failed_and_hangs_nobody() {
    let mut opened = open_in(tempfile::tempdir().unwrap(), 3, |_| ()).await;
    opened.failpoints.set(StoreName::Kv, Failpoint::Start, FailpointAction::Fail, u64::MAX);
    let answers = group_at(&opened, Failpoint::Commit, FailpointAction::Panic).await;
    assert_eq!(outcomes(&answers), [Some((Class::Restarting, Written::NotApplied)); 3]);
    opened.state(StoreState::Failed).await;
    let error = opened.write("late", [Step::Insert]).await.unwrap_err();
    assert_eq!((error.class(), error.written()), (Class::StoreFailed, Written::NotApplied));
    for is_in_place in [true, false] {
        assert_eq!(opened.read([], is_in_place).await.unwrap_err().class(), Class::StoreFailed);
    }
    assert_eq!(within(opened.store.flush()).await.unwrap_err().class(), Class::StoreFailed);
    assert!(within(opened.store.close(HANG)).await.is_drained);
    opened.queued(0).await;
}
