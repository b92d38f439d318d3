//! Contexts through the public API: documents, embeddings and facts as one, over crashes, processes and failing stores.
//!
//! Start at [`Corpus`], what a context should hold, and [`disagreements`], which looks into every store.
//!
//! Always true: every version of a document has other texts, points and facts, so that a mixture of two is seen.

mod bad_input;
mod cancelled;
mod damage;
mod faults;
pub(crate) mod kills;
mod mending;
mod migration;
mod model;
mod operations;
pub(crate) mod processes;
mod readers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::TryStreamExt;
use larder::protocol::documents::StoredNode;
use larder::protocol::full_text::TextQuery;
use larder::protocol::vectors::PointFields;
use larder::{BoxError, Context, Document, Embedder, Extractor, JsonText, Larder, NewRelation, Node};

const DIMENSIONS: usize = 8;

/// Makes a vector of a text's hash, counts its texts, and misbehaves when a text tells it to.
#[derive(Debug, Clone, Default)]
struct Testing {
    embedded: Arc<AtomicU64>,
}

impl Testing {
    fn count(&self) -> u64 {
        self.embedded.load(Ordering::Relaxed)
    }
}

fn vector_of(text: &str) -> Vec<f32> {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    hash.to_le_bytes().map(|byte| f32::from(byte) - 127.5).to_vec()
}

impl Embedder for Testing {
    fn model(&self) -> &'static str {
        "testing"
    }

    fn dimensions(&self) -> usize {
        DIMENSIONS
    }

    async fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, BoxError> {
        let says = |word: &str| texts.iter().any(|text| text.contains(word));
        if says("FAIL") {
            return Err("the model says no".into());
        }
        if says("HANG") {
            std::future::pending::<()>().await;
        }
        assert!(!says("PANIC"), "the model panics");
        self.embedded.fetch_add(texts.len() as u64, Ordering::Relaxed);
        let mut vectors: Vec<Vec<f32>> = texts.iter().map(|text| vector_of(text)).collect();
        if says("COUNT") {
            vectors.pop();
        }
        for (text, vector) in texts.iter().zip(&mut vectors) {
            match *text {
                text if text.contains("DIMENSIONS") => vector.push(1.0),
                text if text.contains("NAN") => vector[0] = f32::NAN,
                text if text.contains("ZEROS") => vector.fill(0.0),
                _ => {}
            }
        }
        Ok(vectors)
    }
}

/// "X uses Y" is a fact.
struct Uses;

impl Extractor for Uses {
    async fn extract(&self, node: &Node) -> Result<Vec<NewRelation>, BoxError> {
        let words: Vec<&str> = node.content.text().unwrap_or_default().split_whitespace().collect();
        if words.contains(&"UNCLEAR") {
            return Err("the extractor says no".into());
        }
        let facts = words.windows(3).filter(|three| three[1] == "uses");
        facts.map(|three| Ok(NewRelation::new(three[0], "uses", three[2])?)).collect()
    }
}

async fn open(larder: &Larder) -> Context {
    larder.context("notes").embedder(Testing::default()).extractor(Uses).open().await.unwrap()
}

fn document(id: &str, version: u64) -> Document {
    Document::new(id).unwrap().with_fingerprint(version.to_string())
}

/// Returns nodes `<document>#0`, `<document>#1`, … of these texts.
fn pieces<T: AsRef<str>>(id: &str, texts: impl IntoIterator<Item = T>) -> Vec<Node> {
    let node = |(n, text): (usize, T)| Node::text(format!("{id}#{n}"), text.as_ref()).unwrap();
    texts.into_iter().enumerate().map(node).collect()
}

fn json(text: &str) -> JsonText {
    JsonText::new(text).unwrap()
}

/// The nodes of a document's version: some as in the version before, some changed, some gone; each version says another fact.
fn version(id: &str, version: u64) -> Vec<Node> {
    let name = id.replace('/', "_");
    let mut texts = vec![format!("{name} uses version{version}"), format!("{name} always uses itself")];
    texts.extend((0..version % 4).map(|part| format!("{name} part {part} of every other {}", version / 2)));
    pieces(id, texts)
}

/// What a context should hold, by document: its nodes.
type Corpus = BTreeMap<String, Vec<Node>>;

/// What is in the stores, by document.
#[derive(Debug, Default)]
struct Stored {
    nodes: BTreeMap<String, BTreeMap<String, String>>,
    points: BTreeMap<String, BTreeMap<String, Vec<f32>>>,
    /// By source: what it says.
    facts: BTreeMap<String, BTreeSet<String>>,
}

async fn stored(larder: &Larder) -> Stored {
    let mut stored = Stored::default();
    let nodes: Vec<StoredNode> = larder.documents().page().stream().try_collect().await.unwrap();
    for StoredNode { node, document, .. } in nodes {
        let text = node.content.text().unwrap_or_default().to_owned();
        let document = document.map_or_else(String::new, |id| id.to_string());
        stored.nodes.entry(document).or_default().insert(node.id.to_string(), text);
    }
    let collection = larder.vectors().collection("notes").open().await.unwrap();
    let points: Vec<larder::Hit> = collection.page().fields(PointFields::ALL).stream().try_collect().await.unwrap();
    for point in points {
        let document = point.document.map_or_else(String::new, |id| id.to_string());
        let vector = point.vector.unwrap().as_slice().to_vec();
        stored.points.entry(document).or_default().insert(point.id.to_string(), vector);
    }
    for relation in larder.graph().relations().limit(10_000).await.unwrap().relations {
        let fact = format!("{} {} {}", relation.subject.name, relation.label, relation.object.name);
        for source in relation.sources {
            stored.facts.entry(source.to_string()).or_default().insert(fact.clone());
        }
    }
    stored
}

/// Returns what of one document is not as these nodes say, in any store.
fn disagreement(stored: &Stored, id: &str, nodes: &[Node]) -> Option<String> {
    let text = |node: &Node| node.content.text().unwrap_or_default().to_owned();
    let expected: BTreeMap<_, _> = nodes.iter().map(|node| (node.id.to_string(), text(node))).collect();
    let found = stored.nodes.get(id).cloned().unwrap_or_default();
    if found != expected {
        return Some(format!("{id} has nodes {found:?}, expected {expected:?}"));
    }
    let embedded = nodes.iter().filter(|node| !text(node).trim().is_empty());
    let expected: BTreeMap<_, _> = embedded.map(|node| (node.id.to_string(), vector_of(&text(node)))).collect();
    let found = stored.points.get(id).cloned().unwrap_or_default();
    if found != expected {
        return Some(format!("{id} has points {found:?}, expected {expected:?}"));
    }
    let prefix = format!("node:{id}#");
    let found: BTreeMap<_, _> =
        stored.facts.range(prefix.clone()..).take_while(|(source, _)| source.starts_with(&prefix)).collect();
    let mut expected: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for node in nodes {
        let text = text(node);
        let words: Vec<&str> = text.split_whitespace().collect();
        for fact in words.windows(3).filter(|three| three[1] == "uses") {
            expected.entry(format!("node:{}", node.id)).or_default().insert(fact.join(" "));
        }
    }
    let expected: BTreeMap<_, _> = expected.iter().collect();
    (found != expected).then(|| format!("{id} has facts {found:?}, expected {expected:?}"))
}

/// Returns everything that is not as the corpus says: a document's nodes, points and facts, and what is of no document of it.
async fn disagreements(context: &Context, corpus: &Corpus) -> Vec<String> {
    let stored = stored(context.larder()).await;
    let mut found: Vec<String> = corpus.iter().filter_map(|(id, nodes)| disagreement(&stored, id, nodes)).collect();
    let known = stored.nodes.keys().chain(stored.points.keys());
    found.extend(known.filter(|id| !corpus.contains_key(*id)).map(|id| format!("{id} is there")));
    found.extend(context.check().await.unwrap().into_iter().map(|issue| issue.to_string()));
    found
}

#[track_caller]
fn assert_none(disagreements: &[String]) {
    assert!(disagreements.is_empty(), "{disagreements:#?}");
}

async fn retrieved(context: &Context, question: &str) -> Vec<String> {
    let found = context.retrieve(question).k(20).await.unwrap();
    found.passages.into_iter().map(|passage| passage.node.id.to_string()).collect()
}

async fn found_by_words(larder: &Larder, words: &str) -> usize {
    larder.documents().search(TextQuery::from(words)).limit(1_000).await.unwrap().len()
}
