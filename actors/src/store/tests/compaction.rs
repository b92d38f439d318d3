//! Writing the file anew: it shrinks, nobody's rows change, and what goes wrong leaves it as it was.

use larder_protocol::{Class, Written};

use super::super::{Compaction, Failpoint, FailpointAction};
use super::*;

/// A file of many half-empty pages.
async fn gappy() -> Opened {
    let opened = open(|_| ()).await;
    for batch in 0..20 {
        let line = |n: usize| opened.send(&format!("{batch}-{n}-{}", "x".repeat(400)), [Step::Insert]);
        for sent in (0..50).map(line).collect::<Vec<_>>() {
            answer(sent).await.unwrap();
        }
    }
    opened
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_beside_writes_and_reads_changes_no_row() {
    let opened = gappy().await;
    let before = opened.lines().await;
    let (compacted, written) = futures::join!(within(opened.store.compact()), opened.write("beside", [Step::Insert]));
    written.unwrap();
    let Compaction { bytes_before, bytes_after } = compacted.unwrap();
    assert!(bytes_after <= bytes_before);
    assert_eq!(opened.lines().await.len(), before.len() + 1);
    assert_eq!(opened.store.check(true).await.unwrap(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_that_fails_leaves_the_store_as_it_was_and_serving() {
    let opened = gappy().await;
    let before = opened.lines().await;
    for action in [FailpointAction::Fail, FailpointAction::Panic] {
        opened.failpoints.set(StoreName::Kv, Failpoint::Compact, action, 1);
        let error = within(opened.store.compact()).await.unwrap_err();
        assert_eq!(error.written(), Written::NotApplied, "{error}");
        assert_eq!(opened.lines().await, before);
    }
    within(opened.store.compact()).await.unwrap();
    opened.write("after", [Step::Insert]).await.unwrap();
    assert_eq!(opened.lines().await.len(), before.len() + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_calls_a_compaction_off() {
    let opened = gappy().await;
    let mut gate = opened.stage.gate("first");
    let sent = opened.send("first", [pause("first"), Step::Insert]);
    gate.reached().await;
    let mut compaction = Box::pin(opened.store.compact());
    assert!(futures::poll!(&mut compaction).is_pending());
    let mut close = Box::pin(opened.store.close(HANG));
    assert!(futures::poll!(&mut close).is_pending());
    gate.open();
    answer(sent).await.unwrap();
    assert_eq!(within(compaction).await.unwrap_err().class(), Class::ShuttingDown);
    assert!(within(close).await.is_drained);
}
