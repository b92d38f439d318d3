//! A store that fails in the middle: the document is committed and says so, and is finished when the store is well again.
#![expect(clippy::disallowed_methods, reason = "damages the file of a closed larder")]

use std::time::Duration;

use futures::StreamExt;
use larder::protocol::StoreName;
use larder::protocol::documents::ListIntents;
use larder::{Class, ErrorKind, Failpoint, FailpointAction, StoreState, Written};

use super::*;
use crate::support::{assert_error, within};

async fn open_intents(larder: &Larder) -> usize {
    larder.ask(ListIntents { context: None, after: None, limit: 100 }).await.unwrap().len()
}

/// Every store that follows fails once in an ingest: nothing is lost, and the next call finishes it.
#[tokio::test]
async fn store_that_fails_in_an_ingest_is_told_again_by_the_next_call() {
    for store in [StoreName::Vectors, StoreName::Graph] {
        let larder = Larder::temporary().await.unwrap();
        let context = open(&larder).await;
        context.put(document("d", 2), version("d", 2)).await.unwrap();
        larder.set_failpoint(store, Failpoint::Commit, FailpointAction::Fail, 1_000);
        let unfinished = within(context.put(document("d", 3), version("d", 3))).await.unwrap_err();
        assert_eq!(unfinished.written(), Written::Applied, "{unfinished}");
        assert!(
            matches!(unfinished.kind(), ErrorKind::Unfinished { store: failed, .. } if *failed == store),
            "{unfinished:?}"
        );
        assert_eq!(open_intents(&larder).await, 1);
        let issues: Vec<String> = context.check().await.unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(issues, ["what was begun on document \"d\" is not finished"]);
        larder.set_failpoint(store, Failpoint::Commit, FailpointAction::Fail, 0);
        // Unchanged by its hash, and yet not done.
        within(context.put(document("d", 3), version("d", 3))).await.unwrap();
        assert_eq!(open_intents(&larder).await, 0);
        assert_none(&disagreements(&context, &Corpus::from([("d".to_owned(), version("d", 3))])).await);
    }
}

#[tokio::test]
async fn store_that_fails_in_a_forget_is_told_again_by_recover() {
    for (store, point) in [
        (StoreName::Vectors, Failpoint::Handler),
        (StoreName::Graph, Failpoint::Commit),
        (StoreName::EmbedCache, Failpoint::Commit),
    ] {
        let larder = Larder::temporary().await.unwrap();
        let context = open(&larder).await;
        context.put(document("d", 2), version("d", 2)).await.unwrap();
        larder.set_failpoint(store, point, FailpointAction::Fail, 1_000);
        let unfinished = within(context.forget("d")).await;
        assert_error(unfinished, Class::Io, Written::Applied, &["document \"d\"", store.as_str()]);
        assert!(within(context.recover()).await.is_err());
        larder.set_failpoint(store, point, FailpointAction::Fail, 0);
        assert_eq!(within(context.recover()).await.unwrap(), 1);
        assert_none(&disagreements(&context, &Corpus::new()).await);
    }
}

#[tokio::test]
async fn unfinished_forget_of_an_owner_is_finished_at_the_next_opening() {
    let folder = tempfile::tempdir().unwrap();
    let larder = Larder::open(folder.path()).await.unwrap();
    let context = open(&larder).await;
    let ingestion = context.ingest(["a", "b"].map(|id| document(id, 1))).owner("ann");
    ingestion.run(|source| Ok::<_, larder::Error>(version(source.id.as_str(), 1))).await.unwrap();
    let chat = larder.chat().session("s");
    chat.append([larder::ChatMessage::user("hello")]).await.unwrap();
    chat.describe().owner("ann").await.unwrap();
    larder.set_failpoint(StoreName::Chat, Failpoint::Commit, FailpointAction::Fail, 1_000);
    assert_error(context.forget_owner("ann").await, Class::Io, Written::Applied, &["owner \"ann\"", "chat"]);
    larder.close().await;
    let larder = Larder::open(folder.path()).await.unwrap();
    let context = open(&larder).await;
    assert_eq!(larder.chat().count(None).await.unwrap(), 0);
    assert_none(&disagreements(&context, &Corpus::new()).await);
    larder.close().await;
}

/// Before the decisive commit nothing has happened.
#[tokio::test]
async fn documents_store_that_fails_leaves_everything_as_it_was() {
    let larder = Larder::temporary().await.unwrap();
    let context = open(&larder).await;
    context.put(document("d", 2), version("d", 2)).await.unwrap();
    larder.set_failpoint(StoreName::Documents, Failpoint::Handler, FailpointAction::Panic, 1);
    let refused = within(context.put(document("d", 3), version("d", 3))).await.unwrap_err();
    assert_eq!(refused.written(), Written::NotApplied, "{refused}");
    assert_none(&disagreements(&context, &Corpus::from([("d".to_owned(), version("d", 2))])).await);
}

#[tokio::test]
async fn cache_that_fails_costs_embeddings_and_no_document() {
    let larder = Larder::temporary().await.unwrap();
    let context = open(&larder).await;
    larder.embed_cache().sequence().await.unwrap();
    larder.set_failpoint(StoreName::EmbedCache, Failpoint::Commit, FailpointAction::Fail, 1_000);
    context.put(document("d", 2), version("d", 2)).await.unwrap();
    assert_none(&disagreements(&context, &Corpus::from([("d".to_owned(), version("d", 2))])).await);
}

/// The vectors' file is damaged in the middle of an ingest: it is quarantined, restored from a snapshot, and mended.
#[tokio::test(flavor = "multi_thread")]
async fn quarantined_store_is_restored_and_brought_up_to_date() {
    let (folder, snapshots) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let open_folder = || async {
        let builder = Larder::builder(folder.path())
            .settings(|settings| settings.maintenance_interval = Duration::from_secs(3600));
        builder.open().await.unwrap()
    };
    let ids: Vec<String> = (0..60).map(|n| format!("d{n:02}")).collect();
    let transform = |source: &Document| Ok::<_, larder::Error>(version(source.id.as_str(), 3));
    let larder = open_folder().await;
    let context = open(&larder).await;
    context.ingest(ids[..40].iter().map(|id| document(id, 3))).run(transform).await.unwrap();
    larder.snapshot(snapshots.path()).await.unwrap();
    // What the snapshot does not have.
    context.ingest(ids[40..50].iter().map(|id| document(id, 3))).run(transform).await.unwrap();
    context.forget(&ids[0]).await.unwrap();
    larder.close().await;

    let file = folder.path().join("vectors.db");
    let mut bytes = std::fs::read(&file).unwrap();
    // Not the first pages: they hold the schema, and the file shall open.
    let from = bytes.len() / 2;
    bytes[from..].iter_mut().for_each(|byte| *byte ^= 0x5a);
    std::fs::write(&file, &bytes).unwrap();

    let larder = open_folder().await;
    let Ok(context) = larder.context("notes").embedder(Testing::default()).extractor(Uses).open().await else {
        panic!("the damage is where an opening meets it");
    };
    let mut events = larder.events();
    larder.set_failpoint(StoreName::Vectors, Failpoint::Commit, FailpointAction::Fail, 1);
    let unfinished = within(context.ingest(ids.iter().map(|id| document(id, 3))).run(transform)).await.unwrap_err();
    assert_eq!(unfinished.written(), Written::Applied, "{unfinished}");
    // A check follows the commit that failed.
    while within(events.next()).await.unwrap().state != StoreState::Quarantined {}
    // Others serve on.
    assert!(found_by_words(&larder, "always").await > 0);
    let refused = within(context.put(document("new", 1), version("new", 1))).await;
    assert_error(refused, Class::Corrupt, Written::Applied, &["vectors"]);

    larder.restore_store(StoreName::Vectors, snapshots.path()).await.unwrap();
    within(context.repair()).await.unwrap();
    within(context.ingest(ids.iter().map(|id| document(id, 3))).run(transform)).await.unwrap();
    let mut corpus: Corpus = ids.iter().map(|id| (id.clone(), version(id, 3))).collect();
    corpus.insert("new".to_owned(), version("new", 1));
    assert_none(&disagreements(&context, &corpus).await);
    larder.close().await;
}
