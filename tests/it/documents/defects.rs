//! The defects of the stores that larder replaces, each by its name (the design's §9), as far as documents can have them.

use larder::protocol::documents::{IngestionState, UpsertOutcome};
use larder::{Document, IngestionStrategy, Larder, Node, Relationship};

use super::{assert_sound, document, found, ids, json, node, nodes_of, pieces};

/// Delete that does not delete.
#[tokio::test]
async fn a_deleted_node_or_document_is_gone_in_every_way_of_reading() {
    let folder = tempfile::tempdir().unwrap();
    let larder = Larder::open(folder.path()).await.unwrap();
    let documents = larder.documents();
    let child = node("child", "word").with_relationships(larder::protocol::documents::Relationships {
        parent: Some("a#0".try_into().unwrap()),
        ..Default::default()
    });
    documents.put(document("a").with_metadata(json("{}")), pieces("a", &["word", "word"])).await.unwrap();
    documents.put(document("b"), [child]).await.unwrap();
    documents.delete(["a#1"]).await.unwrap();
    documents.delete_document("b").await.unwrap();
    for is_reopened in [false, true] {
        let larder = if is_reopened { Larder::open(folder.path()).await.unwrap() } else { larder.clone() };
        let documents = larder.documents();
        assert_eq!(documents.get("a#1").await.unwrap(), None);
        assert_eq!(documents.get_many(["a#1", "child"]).await.unwrap(), [None, None]);
        assert_eq!(documents.hashes(["a#1", "child"]).await.unwrap(), [None, None]);
        assert_eq!(documents.nodes_by_hash(node("x", "word").hash(), None, 9).await.unwrap().len(), 1);
        assert_eq!(ids(&documents.page().await.unwrap().nodes), ["a#0"]);
        assert_eq!(ids(&nodes_of(&larder, "a").await), ["a#0"]);
        assert_eq!(found(&larder, "word").await, ["a#0"]);
        assert_eq!(documents.related("a#0", Relationship::Child).await.unwrap(), []);
        assert_eq!(documents.count().await.unwrap(), 1);
        assert_eq!(documents.documents().await.unwrap().len(), 1);
        assert_eq!(documents.nodes("b").await.unwrap().nodes, []);
        assert_sound(&larder).await;
        larder.close().await;
    }
}

/// Delete that deletes everything.
#[tokio::test]
async fn deleting_one_document_leaves_all_others() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    for id in ["a", "a/", "A", "aa", "%", "_", "a#0"] {
        documents.put(document(id), pieces(&format!("{id}!"), &["same", "same"])).await.unwrap();
    }
    documents.upsert([node("alone", "same")]).await.unwrap();
    assert!(documents.delete_document("a").await.unwrap());
    assert!(documents.delete_document("%").await.unwrap());
    assert_eq!(documents.count().await.unwrap(), 11);
    assert_eq!(found(&larder, "same").await.len(), 11);
    assert_eq!(documents.delete(Vec::<String>::new()).await.unwrap(), 0);
    assert_eq!(documents.count().await.unwrap(), 11);
}

/// Upsert that ignores new properties.
#[tokio::test]
async fn an_upsert_that_changes_any_part_is_stored() {
    use larder::protocol::documents::Relationships;
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    let id = |id: &str| Some(larder::protocol::NodeId::new(id).unwrap());
    let related = |relationships| node("n", "x").with_relationships(relationships);
    let versions: Vec<Node> = vec![
        node("n", "x"),
        node("n", "y"),
        node("n", ""),
        node("n", "x").with_metadata(json("{}")),
        node("n", "x").with_metadata(json(r#"{"a": null}"#)),
        node("n", "x").with_metadata(json(r#"{"a": 1}"#)),
        node("n", "x").with_metadata(json(r#"{"a": 1.0}"#)),
        node("n", "x").with_span(0, 0),
        node("n", "x").with_span(0, 1),
        related(Relationships { previous: id("a"), ..Default::default() }),
        related(Relationships { next: id("a"), ..Default::default() }),
        related(Relationships { parent: id("a"), ..Default::default() }),
        related(Relationships { children: vec!["a".try_into().unwrap()], ..Default::default() }),
        Node::new("n", larder::NodeContent::Index { text: "x".into(), target: "t".into() }).unwrap(),
        Node::new("n", larder::NodeContent::Index { text: "x".into(), target: "u".into() }).unwrap(),
        Node::new("n", larder::NodeContent::Plain(json("1"))).unwrap(),
        Node::new("n", larder::NodeContent::Plain(json("2"))).unwrap(),
    ];
    // From each to each other.
    for from in &versions {
        for to in &versions {
            documents.upsert([from.clone()]).await.unwrap();
            let expected = if from == to { UpsertOutcome::Unchanged } else { UpsertOutcome::Updated };
            assert_eq!(documents.upsert([to.clone()]).await.unwrap(), [expected], "{from:?} to {to:?}");
            let stored = documents.get("n").await.unwrap().unwrap();
            assert_eq!((&stored.node, stored.hash), (to, to.hash()));
        }
    }
    // And of a document.
    let sources: Vec<Document> = vec![
        document("d"),
        document("d").with_text(""),
        document("d").with_text("x"),
        document("d").with_fingerprint("x"),
        document("d").with_metadata(json("{}")),
        document("d").with_metadata(json(r#"{"a": 1}"#)),
    ];
    for from in &sources {
        for to in &sources {
            documents.put(from.clone(), []).await.unwrap();
            documents.put(to.clone(), []).await.unwrap();
            let stored = documents.document("d").await.unwrap().unwrap();
            assert_eq!((stored.fingerprint, stored.metadata), (to.fingerprint.clone(), to.metadata.clone()));
            assert_eq!(documents.document_text("d").await.unwrap(), to.text);
        }
    }
    assert_sound(&larder).await;
}

/// `top_k = 0` returning all.
#[tokio::test]
async fn a_limit_of_zero_is_refused_and_not_unlimited() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    documents.upsert([node("n", "x")]).await.unwrap();
    assert!(documents.search("x").limit(0).await.is_err());
    assert!(documents.page().limit(0).await.is_err());
    assert!(documents.documents().limit(0).await.is_err());
    assert!(documents.indexes(None, 0).await.is_err());
    assert!(documents.node_ids("d", None, 0).await.is_err());
    assert!(documents.nodes_by_hash(node("n", "x").hash(), None, 0).await.is_err());
    assert!(documents.related("n", Relationship::Next).limit(0).await.is_err());
}

/// Two documents of equal content colliding.
#[tokio::test]
async fn two_documents_of_equal_content_are_two() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    let source = |id: &str| document(id).with_text("the same");
    let pieces = |id: &str| pieces(id, &["the same", "the same"]);
    documents.put_many([(source("a"), pieces("a")), (source("b"), pieces("b"))]).await.unwrap();
    assert_eq!(documents.count().await.unwrap(), 4);
    let hash = source("a").hash();
    let both = documents.documents_by_hash(hash, None, 10).await.unwrap();
    assert_eq!(both.iter().map(|id| id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let hash = pieces("a")[0].hash();
    let all = documents.nodes_by_hash(hash, None, 3).await.unwrap();
    assert_eq!(all.iter().map(|id| id.as_str()).collect::<Vec<_>>(), ["a#0", "a#1", "b#0"]);
    assert_eq!(documents.nodes_by_hash(hash, all.last(), 3).await.unwrap().len(), 1);
    documents.delete_document("a").await.unwrap();
    assert_eq!(found(&larder, "same").await, ["b#0", "b#1"]);
    assert_eq!(documents.documents_by_hash(source("b").hash(), None, 10).await.unwrap().len(), 1);
}

/// A failed ingest marking its input as done.
#[tokio::test]
async fn a_failed_or_begun_ingestion_is_not_done() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    let source = || document("a").with_text("x");
    let failing = async |_: &Document| Err::<Vec<Node>, _>("no");
    documents.ingest([source()]).run(failing).await.unwrap();
    documents.mark_begun(&source()).await.unwrap();
    assert_ne!(documents.document("a").await.unwrap().unwrap().state, IngestionState::Done);
    assert_eq!(documents.documents_by_hash(source().hash(), None, 1).await.unwrap(), []);
    for strategy in [IngestionStrategy::Upsert, IngestionStrategy::DuplicatesOnly] {
        let plan = documents.plan(&[source()], strategy).await.unwrap();
        assert!(plan.decisions[0].is_to_ingest(), "{strategy:?}");
    }
    // Nor does a put that the store refuses.
    let refused =
        documents.ingest([source()]).run(async |_| Ok::<_, String>(vec![node("n", "x"), node("n", "y")])).await;
    assert!(refused.is_err());
    assert_ne!(documents.document("a").await.unwrap().unwrap().state, IngestionState::Done);
    let report = documents.ingest([source()]).run(async |_| Ok::<_, String>(vec![node("n", "x")])).await.unwrap();
    assert_eq!((report.updated, documents.document("a").await.unwrap().unwrap().state), (1, IngestionState::Done));
}

/// `set_messages` appending: putting a document again must replace its nodes.
#[tokio::test]
async fn putting_a_document_replaces_its_nodes() {
    let larder = Larder::temporary().await.unwrap();
    for round in 0..3 {
        let nodes = (0..4).map(|n| node(&format!("{round}/{n}"), "word"));
        larder.documents().put(document("a"), nodes).await.unwrap();
    }
    assert_eq!(ids(&nodes_of(&larder, "a").await), ["2/0", "2/1", "2/2", "2/3"]);
    assert_eq!(found(&larder, "word").await.len(), 4);
}

/// Deleted vectors coming back: an id that is used again must not bring anything of the old one.
#[tokio::test]
async fn nothing_of_a_deleted_document_comes_back_with_its_id() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    // More rows than go at once, so that the old ones are still there.
    let many = (0..3_000).map(|n| node(&format!("n{n}"), "old word").with_metadata(json(r#"{"old": true}"#)));
    documents.put(document("a").with_text("old"), many).await.unwrap();
    documents.delete_document("a").await.unwrap();
    assert_eq!(documents.count().await.unwrap(), 0);
    documents.put(document("a"), [node("n1", "new word")]).await.unwrap();
    documents.put(document("b"), [node("n2", "new word")]).await.unwrap();
    assert_eq!(documents.document_text("a").await.unwrap(), None);
    assert_eq!(found(&larder, "word").await, ["n1", "n2"]);
    assert_eq!(documents.get("n1").await.unwrap().unwrap().node.metadata, None);
    assert_eq!(documents.filter(larder::field("old").eq(true)).await.unwrap().nodes, []);
    assert_sound(&larder).await;
}

/// Silent eviction of data that is not cache.
#[tokio::test]
async fn nothing_is_evicted() {
    let larder = Larder::temporary().await.unwrap();
    let documents = larder.documents();
    for batch in 0..20 {
        let id = format!("d{batch}");
        let text = "x".repeat(2_000);
        let nodes = (0..100).map(|n| node(&format!("{id}#{n}"), &text));
        documents.put(document(&id), nodes).await.unwrap();
    }
    assert_eq!(documents.count().await.unwrap(), 2_000);
    let all: Vec<_> = futures::TryStreamExt::try_collect(documents.page().stream()).await.unwrap();
    assert_eq!(all.len(), 2_000);
}
