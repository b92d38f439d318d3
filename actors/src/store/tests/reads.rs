//! Reads: in place and on threads, whatever a handler does.

use larder_protocol::{Class, Error as Kind, Written};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn panic_in_a_read_is_its_callers_alone() {
    let opened = open(|_| ()).await;
    opened.write("line", [Step::Insert]).await.unwrap();
    for is_in_place in [true, false] {
        let error = opened.read([Step::Panic], is_in_place).await.unwrap_err();
        assert!(matches!(error.kind(), Kind::Panicked { message, .. } if message == Read::NAME));
        assert_eq!(error.written(), Written::NotApplied);
        assert_eq!(opened.read([], is_in_place).await.unwrap(), ["line"]);
    }
    assert_eq!(opened.store.observe().state, StoreState::Serving);
}

/// More panics than there are connections: each must give its place back.
#[tokio::test(flavor = "multi_thread")]
async fn panicking_reads_use_no_connection_up() {
    let opened = open(|settings| settings.in_place_connections_max = 2).await;
    for _ in 0..10 {
        opened.read([Step::Panic], true).await.unwrap_err();
    }
    let before = opened.store.observe().in_place_read_count;
    opened.read([], true).await.unwrap();
    assert_eq!(opened.store.observe().in_place_read_count, before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_read_keeps_its_class() {
    let opened = open(|_| ()).await;
    for is_in_place in [true, false] {
        let error = opened.read([Step::Refuse], is_in_place).await.unwrap_err();
        assert_eq!(error.class(), Class::NotFound);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn read_runs_on_a_thread_when_every_connection_is_in_use() {
    let opened = open(|settings| settings.in_place_connections_max = 1).await;
    let mut gate = opened.stage.gate("read");
    let store = opened.store.clone();
    let blocked = std::thread::spawn(move || {
        let read = Read { steps: vec![pause("read")], is_in_place: true };
        futures::executor::block_on(store.read(read, RequestOptions::default()))
    });
    gate.reached().await;
    opened.read([], true).await.unwrap();
    assert_eq!(opened.store.observe().thread_read_count, 1);
    gate.open();
    blocked.join().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_do_not_wait_for_a_write_that_hangs() {
    let opened = open(|_| ()).await;
    let mut gate = opened.stage.gate("write");
    let write = opened.send("line", [Step::Insert, pause("write")]);
    gate.reached().await;
    assert!(opened.read([], true).await.unwrap().is_empty());
    assert!(opened.read([], false).await.unwrap().is_empty());
    gate.open();
    answer(write).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_go_to_threads_where_the_setting_says_so() {
    let opened = open(|settings| settings.reads_in_place = false).await;
    opened.read([], true).await.unwrap();
    let seen = opened.store.observe();
    assert_eq!((seen.in_place_read_count, seen.thread_read_count), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn read_connection_cannot_write() {
    let opened = open(|_| ()).await;
    let reader = opened.store.reader_for_test().unwrap();
    assert!(reader.execute("INSERT INTO line (text) VALUES ('x')", []).is_err());
    drop(reader);
    assert!(opened.lines().await.is_empty());
}

/// A read that nobody ends would pin the WAL for as long as it runs.
#[tokio::test(flavor = "multi_thread")]
async fn reader_past_its_age_is_ended_though_its_deadline_is_far() {
    let opened = open(|settings| {
        settings.reader_age_max = Duration::from_millis(50);
        settings.reader_threads = 1;
    })
    .await;
    let error = opened.read([Step::ReadForever], false).await.unwrap_err();
    assert_eq!((error.class(), error.written()), (Class::Deadline, Written::NotApplied));
    // The only reader thread is free again, and the WAL starts over.
    opened.write("line", [Step::Insert]).await.unwrap();
    assert_eq!(opened.read([], false).await.unwrap(), ["line"]);
}
