//! Bits that rot in a closed file: no read answers with them, `check()` tells of each, and the store serves on.

use std::path::Path;

use larder::protocol::documents::{ListContextDocuments, ListIntents, NodeContent, Relationships};
use larder::protocol::{ContextName, NodeId, SessionId, StoreName};
use larder::{CheckDepth, Class, Document, Failpoint, FailpointAction, HashingEmbedder, Larder, Node};

use super::{document, json};
use crate::support::damage::{Case, Noticed, each_damaged_column_is_noticed, flip_a_bit_in_every_row};

/// The columns that a node's checksum covers.
const NODE_COLUMNS: [&str; 14] = [
    "kind",
    "id",
    "hash",
    "created_ms",
    "checksum",
    "span_start",
    "span_end",
    "previous",
    "next",
    "parent",
    "children",
    "metadata",
    "content",
    "text",
];

/// A node with something in every column.
fn full_node(id: &str) -> Node {
    let related = |what: &str| Some(NodeId::new(format!("{what} of {id}")).unwrap());
    let content = NodeContent::Index { text: format!("what {id} says"), target: format!("tables/{id}") };
    Node::new(id, content)
        .unwrap()
        .with_metadata(json(r#"{"lang": "en", "page": 12}"#))
        .with_span(3, 900)
        .with_relationships(Relationships {
            previous: related("previous"),
            next: related("next"),
            parent: related("parent"),
            children: Vec::from_iter(related("child")),
        })
}

fn source() -> Document {
    document("a").with_text("the whole of a").with_fingerprint("one").with_metadata(json(r#"{"owner": "ann"}"#))
}

/// A document whose newest content failed, with two nodes, its text and an index record; and one of a context, which is begun
/// and not finished.
async fn fill(folder: &Path) {
    let larder = Larder::open(folder).await.unwrap();
    let documents = larder.documents();
    documents.put(source(), [full_node("a#0"), full_node("a#1")]).await.unwrap();
    documents.mark_failed(&source().with_fingerprint("two"), "the splitter choked").await.unwrap();
    documents.put_index("tree", "summary", json(r#"{"root": "a#0"}"#)).await.unwrap();
    let context = larder.context("notes").embedder(HashingEmbedder::new(8)).open().await.unwrap();
    larder.set_failpoint(StoreName::Vectors, Failpoint::Commit, FailpointAction::Fail, 1_000);
    let ingestion = context.ingest([document("c")]).owner("ann").session(SessionId::new("s").unwrap());
    ingestion.run(|_| Ok::<_, larder::Error>(vec![full_node("c#0")])).await.unwrap_err();
    assert!(larder.check(CheckDepth::Full).await.unwrap().findings.is_empty());
    assert!(larder.close().await.is_clean());
}

fn members() -> ListContextDocuments {
    let (context, prefix) = (ContextName::new("notes").unwrap(), String::new());
    ListContextDocuments { context, prefix, owner: None, session: None, after: None, limit: 10 }
}

#[tokio::test]
async fn every_damaged_column_is_noticed() {
    const FIRST: &str = "id = 'a#0'";
    const SOURCE: &str = "id = 'a'";
    let of_document = ["id", "state", "hash", "attempted_hash", "failure", "failure_count", "fingerprint", "metadata"];
    let of_document = of_document.into_iter().chain(["created_ms", "checksum"]);
    let of_index = ["id", "kind", "content", "created_ms", "checksum"];
    let of_intent = ["key", "context", "subject_kind", "subject", "kind", "leaving", "created_ms", "checksum"];
    let cases: Vec<Case> = NODE_COLUMNS
        .into_iter()
        .map(|column| ("node", column, FIRST, Noticed::OnRead))
        .chain(of_document.map(|column| ("document", column, SOURCE, Noticed::OnRead)))
        .chain(of_index.map(|column| ("index_record", column, "id = 'tree'", Noticed::OnRead)))
        .chain(["hash", "owner", "session", "checksum"].map(|column| ("ingested", column, "1", Noticed::OnRead)))
        // Under another context's name, or key, it is another row; what reads of the journal do stands in tests/it/context/damage.rs.
        .chain(["document_key", "context"].map(|column| ("ingested", column, "1", Noticed::ByCheck)))
        .chain(of_intent.map(|column| ("intent", column, "1", Noticed::ByCheck)))
        .chain(
            ["payload", "checksum", "part", "intent_key"]
                .map(|column| ("intent_payload", column, "1", Noticed::ByCheck)),
        )
        .chain(["text", "checksum"].map(|column| ("source_text", column, "1", Noticed::OnRead)))
        .chain([
            ("source_text", "document_key", "1", Noticed::ByCheck),
            ("node", "document_key", FIRST, Noticed::ByCheck),
            ("node", "position", FIRST, Noticed::ByCheck),
            ("document", "node_count", SOURCE, Noticed::ByCheck),
        ])
        .collect();
    let read = async |larder: &Larder, table: &str| {
        let documents = larder.documents();
        match table {
            "node" => vec![documents.nodes("a").limit(10).await.err()],
            "document" => vec![documents.documents().limit(10).await.err()],
            "source_text" => vec![documents.document_text("a").await.err()],
            "ingested" => vec![larder.ask(members()).await.err()],
            "intent" | "intent_payload" => {
                vec![larder.ask(ListIntents { context: None, after: None, limit: 10 }).await.err()]
            }
            _ => vec![documents.indexes(None, 10).await.err()],
        }
    };
    let write = async |larder: &Larder| {
        let documents = larder.documents();
        documents.put(document("b"), [full_node("b#0")]).await.unwrap();
        assert_eq!(documents.get("b#0").await.unwrap().unwrap().node, full_node("b#0"));
        // Under a damaged id the nodes belong to another document.
        if let Err(error) = documents.put(source(), [full_node("a#0"), full_node("a#1")]).await {
            assert!(matches!(error.class(), Class::Corrupt | Class::Conflict), "{error}");
        }
    };
    each_damaged_column_is_noticed("documents.db", &cases, fill, read, write).await;
}

/// A byte that is no UTF-8 any more set the whole store aside, where it is one node's damage.
#[tokio::test]
async fn every_flipped_bit_of_a_node_is_reported_and_the_others_are_served() {
    const NODES: usize = NODE_COLUMNS.len() * 100;
    let folder = tempfile::tempdir().unwrap();
    let larder = Larder::open(folder.path()).await.unwrap();
    let puts = (0..NODES).map(|n| (document(&format!("d{n}")), vec![full_node(&format!("n{n}"))]));
    larder.documents().put_many(puts).await.unwrap();
    assert!(larder.check(CheckDepth::Full).await.unwrap().findings.is_empty());
    larder.close().await;
    assert_eq!(flip_a_bit_in_every_row(&folder.path().join("documents.db"), "node", &NODE_COLUMNS), NODES);

    let larder = Larder::open(folder.path()).await.unwrap();
    let documents = larder.documents();
    let mut detected = 0;
    for n in 0..NODES {
        let page = documents.nodes(format!("d{n}")).limit(10).await;
        detected += usize::from(page.is_err_and(|error| error.class() == Class::Corrupt));
    }
    println!("{detected} of {NODES} flipped bits in nodes are detected");
    assert_eq!(detected, NODES);
    let found = larder.check(CheckDepth::Full).await.unwrap().findings;
    assert!(found.len() >= NODES, "{} findings", found.len());
    documents.put(document("new"), [full_node("new")]).await.unwrap();
    assert_eq!(documents.get("new").await.unwrap().unwrap().node, full_node("new"));
    assert!(larder.health().is_well, "{:?}", larder.health());
    larder.close().await;
}

#[tokio::test]
#[should_panic(expected = "node.text is answered")]
async fn control_read_that_verifies_nothing_is_caught() {
    let cases = [("node", "text", "id = 'a#0'", Noticed::OnRead)];
    let read = async |_: &Larder, _: &str| vec![None];
    each_damaged_column_is_noticed("documents.db", &cases, fill, read, async |_: &Larder| ()).await;
}
