//! Damaged records of what was begun: the context opens, says so, and is made whole again.
#![expect(clippy::disallowed_methods, reason = "takes the journal out of a closed file")]

use std::path::Path;

use larder::protocol::StoreName;
use larder::{CheckDepth, Class, ContextIssue, Failpoint, FailpointAction};

use super::*;
use crate::support::damage::{Noticed, flip};
use crate::support::{assert_refused, within};

/// Leaves a context in a folder whose document "a" is committed in its fourth version, which no other store has followed.
async fn interrupted(folder: &Path) -> Corpus {
    let larder = Larder::open(folder).await.unwrap();
    let context = open(&larder).await;
    let mut corpus = Corpus::new();
    for id in ["a", "b", "c"] {
        context.put(document(id, 3), version(id, 3)).await.unwrap();
        corpus.insert(id.to_owned(), version(id, 3));
    }
    larder.set_failpoint(StoreName::Vectors, Failpoint::Commit, FailpointAction::Fail, 1_000_000);
    context.put(document("a", 4), version("a", 4)).await.unwrap_err();
    corpus.insert("a".to_owned(), version("a", 4));
    larder.close().await;
    corpus
}

/// Flips a bit of the intent, or of the last part of its payload.
fn damage(folder: &Path, table: &'static str, column: &'static str) {
    let condition = if table == "intent" { "1" } else { "part = (SELECT max(part) FROM intent_payload)" };
    flip(&folder.join("documents.db"), (table, column, condition, Noticed::ByCheck));
}

async fn found(context: &Context) -> Vec<String> {
    context.check().await.unwrap().iter().map(ToString::to_string).collect()
}

async fn assert_sound(larder: &Larder) {
    assert_eq!(larder.check(CheckDepth::Full).await.unwrap().findings, []);
}

/// Nobody could open the context any more, nor repair it.
#[tokio::test]
async fn intent_whose_payload_is_damaged_is_redone_by_repair() {
    for column in ["payload", "checksum", "part", "intent_key"] {
        let folder = tempfile::tempdir().unwrap();
        let mut corpus = interrupted(folder.path()).await;
        damage(folder.path(), "intent_payload", column);
        let larder = Larder::open(folder.path()).await.unwrap();
        let context = open(&larder).await;
        assert_eq!(found(&context).await, ["what was begun on document \"a\" is not finished"], "{column}");
        assert_ne!(larder.check(CheckDepth::Full).await.unwrap().findings, [], "{column}");
        // It is in no other's way.
        context.put(document("d", 1), version("d", 1)).await.unwrap();
        corpus.insert("d".to_owned(), version("d", 1));
        assert!(!context.retrieve("uses itself").await.unwrap().passages.is_empty());
        within(context.repair()).await.unwrap();
        assert_none(&disagreements(&context, &corpus).await);
        assert_sound(&larder).await;
        larder.close().await;
    }
}

#[tokio::test]
async fn intent_whose_payload_is_damaged_is_redone_by_the_next_call_about_its_document() {
    let folder = tempfile::tempdir().unwrap();
    let mut corpus = interrupted(folder.path()).await;
    damage(folder.path(), "intent_payload", "payload");
    let larder = Larder::open(folder.path()).await.unwrap();
    let context = open(&larder).await;
    let transform = |source: &Document| Ok::<_, larder::Error>(version(source.id.as_str(), 6));
    let report = context.ingest(["a", "b"].map(|id| document(id, 6))).run(transform).await.unwrap();
    assert_eq!((report.updated, report.failed.len()), (2, 0));
    for id in ["a", "b"] {
        corpus.insert(id.to_owned(), version(id, 6));
    }
    assert_none(&disagreements(&context, &corpus).await);
    assert_sound(&larder).await;
    larder.close().await;
}

/// To forget needs no embedder, and neither does what it begins with.
#[tokio::test]
async fn document_whose_payload_is_damaged_is_forgotten_without_an_embedder() {
    let folder = tempfile::tempdir().unwrap();
    let mut corpus = interrupted(folder.path()).await;
    damage(folder.path(), "intent_payload", "payload");
    let larder = Larder::open(folder.path()).await.unwrap();
    let context = larder.context("notes").open().await.unwrap();
    assert_refused(context.repair().await, Class::Refused, &["without an embedder"]);
    assert_eq!(found(&context).await, ["what was begun on document \"a\" is not finished"]);
    assert_eq!(context.forget("a").await.unwrap().documents, 1);
    corpus.remove("a");
    assert_none(&disagreements(&context, &corpus).await);
    assert_sound(&larder).await;
    larder.close().await;
}

/// It took over the other context's intent first, and asked whose the document is then.
#[tokio::test]
async fn document_of_another_context_is_not_forgotten_whatever_its_intent_is() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = interrupted(folder.path()).await;
    damage(folder.path(), "intent_payload", "payload");
    let larder = Larder::open(folder.path()).await.unwrap();
    let other = larder.context("other").without_vectors().open().await.unwrap();
    assert_refused(other.forget("a").await, Class::Conflict, &["notes"]);
    let context = open(&larder).await;
    within(context.repair()).await.unwrap();
    assert_none(&disagreements(&context, &corpus).await);
    larder.close().await;
}

/// A forget that cannot be ended is one that is open: the document is as before, or goes.
#[tokio::test]
async fn forget_of_a_document_with_a_damaged_payload_goes_on_where_it_was_broken_off() {
    let folder = tempfile::tempdir().unwrap();
    let mut corpus = interrupted(folder.path()).await;
    damage(folder.path(), "intent_payload", "payload");
    let larder = Larder::open(folder.path()).await.unwrap();
    let context = larder.context("notes").open().await.unwrap();
    larder.set_failpoint(StoreName::Graph, Failpoint::Commit, FailpointAction::Fail, 1_000_000);
    context.forget("a").await.unwrap_err();
    larder.close().await;
    let larder = Larder::open(folder.path()).await.unwrap();
    let context = larder.context("notes").open().await.unwrap();
    corpus.remove("a");
    assert_none(&disagreements(&context, &corpus).await);
    assert_sound(&larder).await;
    larder.close().await;
}

#[tokio::test]
async fn intent_whose_row_is_damaged_is_redone_by_repair() {
    for column in ["key", "context", "subject_kind", "subject", "kind", "leaving", "created_ms", "checksum"] {
        let folder = tempfile::tempdir().unwrap();
        let mut corpus = interrupted(folder.path()).await;
        damage(folder.path(), "intent", column);
        let larder = Larder::open(folder.path()).await.unwrap();
        let context = open(&larder).await;
        let issues = context.check().await.unwrap();
        assert!(issues.iter().any(|issue| matches!(issue, ContextIssue::DamagedIntent { .. })), "{column}: {issues:?}");
        if column == "checksum" {
            let refused = context.put(document("a", 6), version("a", 6)).await;
            assert_refused(refused, Class::Corrupt, &["the intent on \"a\""]);
        }
        context.put(document("d", 1), version("d", 1)).await.unwrap();
        corpus.insert("d".to_owned(), version("d", 1));
        within(context.repair()).await.unwrap();
        assert_none(&disagreements(&context, &corpus).await);
        assert_sound(&larder).await;
        larder.close().await;
    }
}

/// Whoever holds it is dead by any name, and a number that nobody holds it under is given anew.
#[tokio::test]
async fn intent_whose_holder_is_damaged_is_finished_at_the_opening() {
    for column in ["holder", "fencing"] {
        let folder = tempfile::tempdir().unwrap();
        let corpus = interrupted(folder.path()).await;
        damage(folder.path(), "intent", column);
        let larder = Larder::open(folder.path()).await.unwrap();
        assert_none(&disagreements(&open(&larder).await, &corpus).await);
        larder.close().await;
    }
}

/// A repair that drops what it cannot read leaves points of the version before, which nothing but the oracle sees.
#[tokio::test]
async fn control_record_that_is_dropped_and_not_redone_is_caught() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = interrupted(folder.path()).await;
    let connection = rusqlite::Connection::open(folder.path().join("documents.db")).unwrap();
    connection.execute_batch("DELETE FROM intent; DELETE FROM intent_payload").unwrap();
    drop(connection);
    let larder = Larder::open(folder.path()).await.unwrap();
    let context = open(&larder).await;
    assert_ne!(disagreements(&context, &corpus).await, [""; 0]);
    larder.close().await;
}
