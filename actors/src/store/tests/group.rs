//! Group commit: what one write's failure does to itself, and that it does nothing to its neighbours.

use larder_protocol::{Class, Error as Kind, Written};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn writes_queued_together_are_one_commit() {
    let opened = open(|_| ()).await;
    let mut gate = opened.stage.gate("first");
    let first = opened.send("a", [pause("first"), Step::Insert]);
    gate.reached().await;
    let others: Vec<_> = (0..9).map(|_| opened.send("b", [Step::Insert])).collect();
    opened.queued(10).await;
    gate.open();
    answer(first).await.unwrap();
    for other in others {
        answer(other).await.unwrap();
    }
    let seen = opened.store.observe();
    assert_eq!((seen.commit_count, seen.largest_group_messages, seen.write_count), (1, 10, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_reply_good_or_bad_leaves_before_the_commit() {
    let opened = open(|_| ()).await;
    let (mut first_gate, mut last_gate) = (opened.stage.gate("first"), opened.stage.gate("last"));
    let mut good = opened.send("good", [pause("first"), Step::Insert]);
    first_gate.reached().await;
    let mut bad = opened.send("bad", [Step::Refuse]);
    opened.queued(2).await;
    let last = opened.send("last", [pause("last"), Step::Insert]);
    opened.queued(3).await;
    first_gate.open();
    last_gate.reached().await;
    // Both handlers have run; their group is open, and nobody may know.
    assert!(futures::poll!(&mut good).is_pending());
    assert!(futures::poll!(&mut bad).is_pending());
    assert!(opened.lines().await.is_empty());
    last_gate.open();
    answer(good).await.unwrap();
    assert_eq!(answer(bad).await.unwrap_err().class(), Class::NotFound);
    answer(last).await.unwrap();
    assert_eq!(opened.lines().await, ["good", "last"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_write_is_visible_when_its_reply_arrives() {
    let opened = open(|_| ()).await;
    for index in 0..50 {
        opened.write("line", [Step::Insert]).await.unwrap();
        assert_eq!(opened.lines().await.len(), index + 1);
    }
}

/// Sends `steps` in the middle of a group of five and answers what became of it and of the lines.
async fn among_neighbours(steps: impl Into<Vec<Step>>) -> (crate::Error, Opened) {
    let opened = open(|_| ()).await;
    let mut gate = opened.stage.gate("first");
    let first = opened.send("first", [pause("first"), Step::Insert]);
    gate.reached().await;
    let mut neighbours = vec![first];
    neighbours.push(opened.send("before", [Step::Insert]));
    opened.queued(2).await;
    let failing = opened.send("failing", steps);
    opened.queued(3).await;
    neighbours.push(opened.send("after", [Step::Insert]));
    opened.queued(4).await;
    neighbours.push(opened.send("last", [Step::Insert]));
    opened.queued(5).await;
    gate.open();
    let error = answer(failing).await.unwrap_err();
    for neighbour in neighbours {
        answer(neighbour).await.unwrap();
    }
    assert_eq!(opened.lines().await, ["first", "before", "after", "last"]);
    (error, opened)
}

#[tokio::test(flavor = "multi_thread")]
async fn refusal_before_any_change_leaves_the_group_as_it_is() {
    let (error, opened) = among_neighbours([Step::Refuse]).await;
    assert_eq!((error.class(), error.written()), (Class::NotFound, Written::NotApplied));
    assert_eq!(opened.store.observe().commit_count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusal_after_a_change_undoes_that_change_alone() {
    let (error, _) = among_neighbours([Step::Insert, Step::Insert, Step::Refuse]).await;
    assert_eq!((error.class(), error.written()), (Class::NotFound, Written::NotApplied));
}

#[tokio::test(flavor = "multi_thread")]
async fn statement_error_after_a_change_undoes_that_change_alone() {
    let (error, _) = among_neighbours([Step::Insert, Step::Violate]).await;
    assert_eq!((error.class(), error.written()), (Class::InvalidInput, Written::NotApplied));
}

#[tokio::test(flavor = "multi_thread")]
async fn panic_before_any_change_is_its_callers_alone() {
    let (error, opened) = among_neighbours([Step::Panic]).await;
    assert!(matches!(error.kind(), Kind::Panicked { message, .. } if message == Write::NAME));
    assert_eq!(error.written(), Written::NotApplied);
    assert_eq!(opened.store.observe().panic_count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn panic_after_a_change_is_undone_and_its_callers_alone() {
    let (error, opened) = among_neighbours([Step::Insert, Step::Panic]).await;
    assert!(matches!(error.kind(), Kind::Panicked { .. }));
    // Recovered in place: the supervisor had nothing to do.
    let seen = opened.store.observe();
    assert_eq!((seen.panic_count, seen.restart_count, seen.state), (1, 0, StoreState::Serving));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_poison_messages_in_one_queue_lose_nothing() {
    let opened = open(|_| ()).await;
    let mut gate = opened.stage.gate("first");
    let first = opened.send("0", [pause("first"), Step::Insert]);
    gate.reached().await;
    let mut sent = Vec::new();
    for index in 1..40 {
        let steps = match index % 4 {
            0 => vec![Step::Insert, Step::Panic],
            1 => vec![Step::Insert, Step::Refuse],
            2 => vec![Step::Insert, Step::Violate],
            _ => vec![Step::Insert],
        };
        sent.push((index, opened.send(&index.to_string(), steps)));
        opened.queued(index + 1).await;
    }
    gate.open();
    answer(first).await.unwrap();
    for (index, sent) in sent {
        let outcome = answer(sent).await;
        assert_eq!(outcome.is_ok(), index % 4 == 3, "{index}: {outcome:?}");
        if let Err(error) = outcome {
            assert_eq!(error.written(), Written::NotApplied);
        }
    }
    let expected: Vec<String> = (0..40).filter(|i| *i == 0 || i % 4 == 3).map(|i| i.to_string()).collect();
    assert_eq!(opened.lines().await, expected);
}

/// A write that ran before its neighbour's failure runs again, and must see the state without that neighbour.
#[tokio::test(flavor = "multi_thread")]
async fn replayed_write_answers_what_is_committed() {
    let opened = open(|_| ()).await;
    let mut gate = opened.stage.gate("first");
    let failing_later = opened.send("x", [pause("first"), Step::Insert, pause("second"), Step::Panic]);
    let mut second = opened.stage.gate("second");
    gate.reached().await;
    gate.open();
    second.reached().await;
    let counted = opened.send("y", [Step::Insert]);
    opened.queued(2).await;
    second.open();
    answer(failing_later).await.unwrap_err();
    assert_eq!(answer(counted).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn group_takes_no_more_messages_than_its_limit() {
    let opened = open(|settings| settings.group_messages_max = 4).await;
    let mut gate = opened.stage.gate("first");
    let mut sent = vec![opened.send("first", [pause("first"), Step::Insert])];
    gate.reached().await;
    sent.extend((0..9).map(|_| opened.send("other", [Step::Insert])));
    opened.queued(10).await;
    gate.open();
    for sent in sent {
        answer(sent).await.unwrap();
    }
    assert_eq!(opened.store.observe().largest_group_messages, 4);
    assert_eq!(opened.lines().await.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn group_ends_once_it_holds_its_bytes() {
    let opened = open(|settings| settings.group_bytes_max = 10_000).await;
    let mut gate = opened.stage.gate("first");
    let line = "x".repeat(4_000);
    let mut sent = vec![opened.send(&line, [pause("first"), Step::Insert])];
    gate.reached().await;
    sent.extend((0..9).map(|_| opened.send(&line, [Step::Insert])));
    opened.queued(10).await;
    gate.open();
    for sent in sent {
        answer(sent).await.unwrap();
    }
    // The third message reaches the limit.
    assert_eq!(opened.store.observe().largest_group_messages, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn same_idempotency_key_twice_in_one_group_writes_once() {
    let opened = open(|_| ()).await;
    let mut gate = opened.stage.gate("first");
    let first = opened.send("first", [pause("first")]);
    gate.reached().await;
    let one = opened.send_with("once", [Step::Insert], idempotency_key("k"));
    opened.queued(2).await;
    let two = opened.send_with("once", [Step::Insert], idempotency_key("k"));
    opened.queued(3).await;
    let other = opened.send_with("other", [Step::Insert], idempotency_key("k"));
    opened.queued(4).await;
    gate.open();
    answer(first).await.unwrap();
    assert_eq!((answer(one).await.unwrap(), answer(two).await.unwrap()), (1, 1));
    assert_eq!(answer(other).await.unwrap_err().class(), Class::Conflict);
    assert_eq!(opened.lines().await, ["once"]);
}

/// The first use of a key fails; its outcome must not be kept, or the retry would never be tried.
#[tokio::test(flavor = "multi_thread")]
async fn failed_write_leaves_its_idempotency_key_free() {
    let opened = open(|_| ()).await;
    let failed = opened.send_with("a", [Step::Insert, Step::Panic], idempotency_key("k"));
    answer(failed).await.unwrap_err();
    let retried = opened.send_with("b", [Step::Insert], idempotency_key("k"));
    assert_eq!(answer(retried).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn undone_write_leaves_no_trace_in_the_change_log() {
    use futures::StreamExt;
    use larder_protocol::Sequence;
    use larder_protocol::change::Notice;

    let (_, opened) = among_neighbours([Step::Insert, Step::Insert, Step::Panic]).await;
    let mut notices = opened.store.subscribe(Sequence(0));
    let mut ids = Vec::new();
    while ids.len() < 4 {
        match within(notices.next()).await.unwrap().unwrap() {
            Notice::Commit(commit) => ids.extend(commit.changes.into_iter().flat_map(|change| change.ids)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ids, ["first", "before", "after", "last"]);
    // Four writes took four sequences: those that were undone gave theirs back.
    assert_eq!(opened.store.observe().sequence, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn group_ends_once_its_time_is_over() {
    let opened = open(|settings| settings.group_time_max = Duration::ZERO).await;
    let mut gate = opened.stage.gate("first");
    let mut sent = vec![opened.send("first", [pause("first"), Step::Insert])];
    gate.reached().await;
    sent.extend((0..5).map(|_| opened.send("other", [Step::Insert])));
    opened.queued(6).await;
    gate.open();
    for sent in sent {
        answer(sent).await.unwrap();
    }
    assert_eq!(opened.store.observe().largest_group_messages, 1);
}
