//! Embedders and extractors that misbehave, documents that cannot be ingested, and very many or very large ones.

use std::time::{Duration, Instant};

use larder::protocol::documents::NodeContent;
use larder::{Class, Error, Written};

use super::*;
use crate::support::{assert_error, assert_refused, number_from_environment, within};

/// What is wrong with one passage, and what is said of it.
const FAULTS: [(&str, &str); 8] = [
    ("FAIL", "the model says no"),
    ("COUNT", "returned 1 vectors for 2 texts"),
    ("DIMENSIONS", "a vector of 9 dimensions, not 8"),
    ("NAN", "component 0 is not a number"),
    ("ZEROS", "a vector of zeros"),
    ("PANIC", "the embedder panicked"),
    ("HANG", "the embedder took longer than"),
    ("UNCLEAR", "the extractor says no"),
];

async fn impatient(larder: &Larder, name: &str) -> Context {
    let context = larder.context(name).embedder(Testing::default()).extractor(Uses);
    context.embed_time_max(Duration::from_millis(200)).open().await.unwrap()
}

#[tokio::test]
async fn passage_that_cannot_be_embedded_fails_its_document_alone() {
    let larder = Larder::temporary().await.unwrap();
    let context = impatient(&larder, "notes").await;
    let ids: Vec<String> = (0..24).map(|n| format!("d{n:02}")).collect();
    let transform = |source: &Document| {
        let id = source.id.as_str();
        let n: usize = id[1..].parse().unwrap();
        let text = FAULTS.get(n / 3).filter(|_| n.is_multiple_of(3)).map_or("harmless", |(fault, _)| fault);
        Ok::<_, Error>(pieces(id, [format!("{id} uses words"), format!("{text} of {id}")]))
    };
    let report = within(context.ingest(ids.iter().map(|id| document(id, 1))).run(transform)).await.unwrap();
    assert_eq!((report.inserted, report.failed.len()), (16, 8));
    let failed: BTreeMap<String, String> = report.failed.into_iter().map(|(id, why)| (id.to_string(), why)).collect();
    for (n, (fault, says)) in FAULTS.into_iter().enumerate() {
        let why = &failed[&format!("d{:02}", 3 * n)];
        assert!(why.contains(says), "{fault}: {why:?}");
    }
    let mut corpus = Corpus::new();
    for id in ids.iter().filter(|id| !failed.contains_key(*id)) {
        corpus.insert(id.clone(), pieces(id, [format!("{id} uses words"), format!("harmless of {id}")]));
    }
    assert_none(&disagreements(&context, &corpus).await);
    // Nothing that was refused is in the cache.
    for (fault, _) in FAULTS.iter().filter(|(fault, _)| *fault != "UNCLEAR") {
        let texts: Vec<String> = ids.iter().map(|id| format!("{fault} of {id}")).collect();
        let cached = larder.embed_cache().get_many("testing", &texts).await.unwrap();
        assert!(cached.iter().all(Option::is_none), "{fault}");
    }
}

#[tokio::test]
async fn question_that_cannot_be_embedded_is_an_error_of_its_own() {
    let larder = Larder::temporary().await.unwrap();
    let context = impatient(&larder, "notes").await;
    context.put(document("d", 1), pieces("d", ["some text"])).await.unwrap();
    for question in ["FAIL", "DIMENSIONS", "NAN", "ZEROS", "PANIC", "HANG", "COUNT"] {
        let refused = within(context.retrieve(format!("{question} text"))).await;
        assert_refused(refused, Class::Computation, &[]);
        let words = context.retrieve(format!("{question} text")).without_vectors().await.unwrap();
        assert_eq!(words.passages.len(), 1, "words are found all the same");
    }
    let wrong = context.retrieve("text").vector(vec![1.0]).await;
    assert_refused(wrong, Class::InvalidInput, &["dimensions"]);
    assert_refused(context.retrieve("text").vector(vec![f32::NAN; 8]).await, Class::InvalidInput, &[]);
    assert_eq!(context.retrieve("x".repeat(100_000)).without_vectors().await.unwrap().passages, []);
    assert_refused(context.retrieve("text").k(1_000_000).await, Class::InvalidInput, &["retrieval k"]);
}

#[tokio::test]
async fn document_that_the_store_refuses_fails_alone() {
    let larder = Larder::temporary().await.unwrap();
    let context = open(&larder).await;
    context.put(document("owner", 1), pieces("owner", ["its own"])).await.unwrap();
    let transform = |source: &Document| {
        let id = source.id.as_str();
        match id {
            "binary" => Node::text_from_bytes("binary#0", b"a\xff\xfe\0".to_vec()).map(|node| vec![node]),
            "thief" => Ok(pieces("owner", ["taken"])),
            "twice" => Ok([pieces(id, ["a"]), pieces(id, ["b"])].concat()),
            "list" => Ok(vec![Node::text("list#0", "a").unwrap().with_metadata(json("[1]"))]),
            "large" => Ok(pieces(id, ["x".repeat(5 << 20)])),
            "metadata" => {
                let metadata = json(&format!(r#"{{"a": "{}"}}"#, "x".repeat(2 << 20)));
                Ok(vec![Node::text("metadata#0", "a").unwrap().with_metadata(metadata)])
            }
            _ => Ok(pieces(id, ["fine"])),
        }
    };
    let ids = ["a", "binary", "thief", "twice", "list", "large", "metadata", "z"];
    let report = within(context.ingest(ids.map(|id| document(id, 1))).run(transform)).await.unwrap();
    let failed: BTreeMap<&str, &str> = report.failed.iter().map(|(id, why)| (id.as_str(), why.as_str())).collect();
    assert_eq!(failed.keys().copied().collect::<Vec<_>>(), ["binary", "large", "list", "metadata", "thief", "twice"]);
    for (id, says) in [
        ("binary", "not UTF-8"),
        ("thief", "owner#0"),
        ("twice", "twice#0"),
        ("list", "object"),
        ("large", "too large"),
        ("metadata", "too large"),
    ] {
        assert!(failed[id].contains(says), "{id}: {}", failed[id]);
    }
    let mut corpus: Corpus = ["a", "z"].map(|id| (id.to_owned(), pieces(id, ["fine"]))).into();
    corpus.insert("owner".to_owned(), pieces("owner", ["its own"]));
    assert_none(&disagreements(&context, &corpus).await);
}

#[tokio::test]
async fn nodes_without_words_have_no_embedding() {
    let larder = Larder::temporary().await.unwrap();
    let context = open(&larder).await;
    let mut nodes = pieces("d", ["", " \n\t", "words"]);
    nodes.push(Node::new("d#plain", NodeContent::Plain(json("[1]"))).unwrap());
    context.put(document("d", 1), nodes.clone()).await.unwrap();
    let stored = stored(&larder).await;
    assert_eq!(stored.points["d"].keys().collect::<Vec<_>>(), ["d#2"]);
    assert_eq!(context.check().await.unwrap(), []);
    // A text that goes takes its point along.
    nodes[2] = Node::text("d#2", "").unwrap();
    context.put(document("d", 2), nodes).await.unwrap();
    assert_eq!(context.check().await.unwrap(), []);
    assert_eq!(context.put(document("empty", 1), []).await.unwrap().nodes.inserted, 0);
}

#[tokio::test]
async fn fact_that_cannot_be_told_is_left_out() {
    struct Odd;
    impl Extractor for Odd {
        async fn extract(&self, _: &Node) -> Result<Vec<NewRelation>, BoxError> {
            let nobody = larder::EntityRef::Id(larder::EntityId(9_999));
            let clear = NewRelation::new(larder::EntityRef::labelled("city", "Ulm")?, "lies_in", "Swabia")?;
            Ok(vec![NewRelation::new("Mercury", "is", "near")?, NewRelation::new(nobody, "is", "near")?, clear])
        }
    }
    let larder = Larder::temporary().await.unwrap();
    let several = ["planet", "metal"].map(|label| larder::NewEntity::new(label, "Mercury").unwrap());
    larder.graph().upsert_entities(several).await.unwrap();
    let context = larder.context("notes").embedder(Testing::default()).extractor(Odd).open().await.unwrap();
    context.put(document("d", 1), pieces("d", ["text"])).await.unwrap();
    assert_eq!(larder.graph().counts().await.unwrap().relations, 1);
    assert_eq!(context.check().await.unwrap(), []);
}

/// Larger than a request may be by default: refused with its size and the setting, and neither in part nor for ever.
#[tokio::test]
async fn document_of_100_megabytes_fails_with_its_size_and_is_taken_where_that_is_set() {
    let folder = tempfile::tempdir().unwrap();
    let larder = Larder::open(folder.path()).await.unwrap();
    let open =
        async |larder: &Larder| larder.context("notes").embedder(Testing::default()).uncached().open().await.unwrap();
    let context = open(&larder).await;
    let text = "word ".repeat(200_000);
    let says = ["is too large", "67108864", "documents.common.queue_bytes_max"];
    let refused = context.put(document("text", 1).with_text(text.repeat(100)), []).await;
    assert_refused(refused, Class::InvalidInput, &[&says[..], &["document \"text\""]].concat());
    let nodes = pieces("nodes", (0..100).map(|n| format!("{n} {text}")));
    let refused = within(context.put(document("nodes", 1), nodes.clone())).await;
    assert_refused(refused, Class::InvalidInput, &[&says[..], &["document \"nodes\""]].concat());
    let transform = |source: &Document| {
        let id = source.id.as_str();
        Ok::<_, Error>(if id == "nodes" { nodes.clone() } else { pieces(id, ["served"]) })
    };
    let report = within(context.ingest(["nodes", "small"].map(|id| document(id, 1))).run(transform)).await.unwrap();
    assert_eq!((report.inserted, report.failed.len()), (1, 1));
    assert!(says.iter().all(|part| report.failed[0].1.contains(part)), "{:?}", report.failed);
    let mut corpus = Corpus::from([("small".to_owned(), pieces("small", ["served"]))]);
    assert_none(&disagreements(&context, &corpus).await);
    larder.close().await;

    let builder = Larder::builder(folder.path());
    let larder = builder.documents(|documents| documents.common.queue_bytes_max = 256 << 20).open().await.unwrap();
    let context = open(&larder).await;
    within(context.put(document("nodes", 1), nodes.clone())).await.unwrap();
    corpus.insert("nodes".to_owned(), nodes);
    assert_none(&disagreements(&context, &corpus).await);
    larder.close().await;
}

/// More points than one message has: they go in slices, and are all there.
#[tokio::test]
async fn document_of_many_nodes_goes_in_slices() {
    let larder = Larder::temporary().await.unwrap();
    let context = larder.context("notes").embedder(Testing::default()).uncached().open().await.unwrap();
    let count = 5_000;
    let nodes =
        |version: usize| pieces("d", (0..count).map(|n| format!("{n} of {}", if n % 5 == 0 { version } else { 0 })));
    for version in 0..2 {
        let outcome = within(context.put(document("d", version as u64), nodes(version))).await.unwrap();
        assert_eq!(outcome.nodes.inserted + outcome.nodes.updated, [5_000, 1_000][version]);
        assert_none(&disagreements(&context, &Corpus::from([("d".to_owned(), nodes(version))])).await);
    }
    assert_eq!(within(context.forget("d")).await.unwrap().points, 5_000);
    assert_none(&disagreements(&context, &Corpus::new()).await);
}

#[tokio::test]
async fn many_tiny_documents_share_commits() {
    let larder = Larder::temporary().await.unwrap();
    let context = open(&larder).await;
    let count = number_from_environment("LARDER_FILES", 1_000);
    let before = larder.documents().sequence().await.unwrap();
    let sources = (0..count).map(|n| document(&format!("f{n:05}"), 1));
    let transform = |source: &Document| Ok::<_, Error>(pieces(source.id.as_str(), [source.id.as_str()]));
    let began = Instant::now();
    let report = within(context.ingest(sources.clone()).run(transform)).await.unwrap();
    assert_eq!(report.inserted, count);
    println!("{count} documents: {:?}", began.elapsed());
    let mut notices = larder.documents().subscribe(before).await.unwrap();
    let (mut commits, newest) = (0, larder.documents().sequence().await.unwrap());
    while let Some(Ok(larder::Notice::Commit(commit))) = futures::StreamExt::next(&mut notices).await {
        commits += 1;
        if commit.sequence >= newest {
            break;
        }
    }
    assert!(commits <= count / 50, "{commits} commits for {count} documents");
    assert_eq!(context.ingest(sources).run(transform).await.unwrap().unchanged, count);
    assert_eq!(context.check().await.unwrap(), []);
}

#[tokio::test]
async fn store_that_is_closed_says_so() {
    let larder = Larder::temporary().await.unwrap();
    let context = open(&larder).await;
    larder.close().await;
    let refused = context.put(document("d", 1), pieces("d", ["text"])).await;
    assert_error(refused, Class::ShuttingDown, Written::NotApplied, &[]);
}
