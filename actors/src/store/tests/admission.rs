//! Admission: what waits is bounded, and whoever finds no room hears it.

use larder_protocol::{Class, Error as Kind, Written};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn full_queue_is_overloaded_by_the_deadline_with_a_hint() {
    let opened = open(|settings| settings.queue_messages_max = 2).await;
    let mut gate = opened.stage.gate("first");
    let first = opened.send("first", [pause("first"), Step::Insert]);
    gate.reached().await;
    let second = opened.send("second", [Step::Insert]);
    opened.queued(2).await;
    let refused = opened.send_with("third", [Step::Insert], deadline(Duration::from_millis(1)));
    let error = answer(refused).await.unwrap_err();
    assert_eq!((error.class(), error.written()), (Class::Overloaded, Written::NotApplied));
    assert!(error.retry_after().is_some_and(|after| !after.is_zero()));
    assert!(error.to_string().contains("2 of 2 requests"), "{error}");
    gate.open();
    answer(first).await.unwrap();
    answer(second).await.unwrap();
    assert_eq!(opened.lines().await, ["first", "second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn queue_full_of_bytes_is_overloaded_too() {
    let opened = open(|settings| settings.queue_bytes_max = 10_000).await;
    let mut gate = opened.stage.gate("first");
    let first = opened.send(&"x".repeat(9_000), [pause("first"), Step::Insert]);
    gate.reached().await;
    let refused = opened.send_with(&"y".repeat(2_000), [Step::Insert], deadline(Duration::from_millis(1)));
    let error = answer(refused).await.unwrap_err();
    assert_eq!((error.class(), error.written()), (Class::Overloaded, Written::NotApplied));
    // Somebody smaller still finds room.
    let small = opened.send("z", [Step::Insert]);
    opened.queued(2).await;
    gate.open();
    answer(first).await.unwrap();
    answer(small).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn request_over_the_whole_budget_is_refused_at_once() {
    let opened = open(|settings| settings.queue_bytes_max = 1 << 10).await;
    let error = opened.write(&"x".repeat(2_000), [Step::Insert]).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::TooLarge { bytes_max: 1024, .. }), "{error}");
    assert_eq!((error.class(), error.written()), (Class::InvalidInput, Written::NotApplied));
    opened.write("small", [Step::Insert]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_callers_on_a_short_queue_are_all_served() {
    let opened = open(|settings| settings.queue_messages_max = 16).await;
    let sent: Vec<_> = (0..3_000).map(|_| opened.send("line", [Step::Insert])).collect();
    let mut counts: Vec<u64> = Vec::new();
    for sent in sent {
        counts.push(answer(sent).await.unwrap());
    }
    counts.sort_unstable();
    assert_eq!(counts, (1..=3_000).collect::<Vec<_>>());
    assert!(opened.store.observe().largest_group_messages <= 16);
    assert_eq!((opened.store.observe().queue_messages, opened.store.observe().queue_bytes), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_who_wait_for_room_hear_of_a_close() {
    let opened = open(|settings| settings.queue_messages_max = 1).await;
    let mut gate = opened.stage.gate("first");
    let first = opened.send("first", [pause("first"), Step::Insert]);
    gate.reached().await;
    let mut waiting = Box::pin(opened.store.write(message("second", [Step::Insert]), RequestOptions::default()));
    assert!(futures::poll!(&mut waiting).is_pending());
    let mut close = Box::pin(opened.store.close(HANG));
    assert!(futures::poll!(&mut close).is_pending());
    let error = within(waiting).await.unwrap_err();
    assert_eq!((error.class(), error.written()), (Class::ShuttingDown, Written::NotApplied));
    gate.open();
    assert!(within(close).await.is_drained);
    answer(first).await.unwrap();
}
