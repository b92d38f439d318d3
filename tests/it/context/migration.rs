//! A documents file of before there were contexts opens, and has one.
#![expect(clippy::disallowed_methods, reason = "takes a closed file back to its earlier schema")]

use super::*;

#[tokio::test]
async fn documents_of_the_schema_before_contexts_are_kept_and_can_be_ingested() {
    let folder = tempfile::tempdir().unwrap();
    let larder = Larder::open(folder.path()).await.unwrap();
    larder.documents().put(document("d", 1), version("d", 1)).await.unwrap();
    larder.close().await;
    let file = rusqlite::Connection::open(folder.path().join("documents.db")).unwrap();
    let newest: i64 = file.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    let back = format!(
        "DROP TABLE ingested; DROP TABLE intent; DROP TABLE intent_payload; PRAGMA user_version = {}",
        newest - 1
    );
    file.execute_batch(&back).unwrap();
    drop(file);

    let larder = Larder::open(folder.path()).await.unwrap();
    assert_eq!(larder.documents().count().await.unwrap(), 3);
    let context = open(&larder).await;
    assert_eq!(context.check().await.unwrap(), [], "it is no document of the context's yet");
    // The same content: nothing is written to the documents, and everything to the other stores.
    let outcome = context.put(document("d", 1), version("d", 1)).await.unwrap();
    assert_eq!(outcome.nodes.unchanged, 3);
    assert_none(&disagreements(&context, &Corpus::from([("d".to_owned(), version("d", 1))])).await);
    assert_eq!(larder.check(larder::CheckDepth::Full).await.unwrap().findings, []);
    larder.close().await;
}
