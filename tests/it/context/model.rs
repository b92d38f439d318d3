//! Random ingests, changes, forgets and retrievals agree with maps in memory, over reopenings.
//!
//! More: `LARDER_MODEL_OPERATIONS=20000 cargo test --release --test it context::model -- --nocapture`.

use larder::protocol::SessionId;
use larder::{Error, field};

use super::*;
use crate::support::number_from_environment;
use crate::torture::Random;

const DOCUMENTS: u64 = 8;
const OPERATIONS_PER_OPENING: u64 = 40;
const OWNERS: [&str; 2] = ["ann", "bob"];
const WORDS: [&str; 6] = ["apple", "brook", "cloud", "drum", "eagle", "fern"];

/// What is expected of one document.
#[derive(Debug, Clone)]
struct Expected {
    fingerprint: u64,
    owner: Option<&'static str>,
    nodes: Vec<Node>,
}

type Model = BTreeMap<String, Expected>;

/// One thing that a context may get wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Flaw {
    None,
    ForgetsForgets,
    ForgetsUpdates,
    ForgetsOwners,
    ForgetsFailures,
}

fn any_nodes(random: &mut Random, id: &str) -> Vec<Node> {
    let mut texts = Vec::new();
    for _ in 0..random.below(5) {
        let mut words: Vec<&str> = (0..random.below(4)).map(|_| WORDS[random.index(WORDS.len())]).collect();
        if random.below(2) == 0 {
            words.extend([WORDS[random.index(WORDS.len())], "uses", WORDS[random.index(WORDS.len())]]);
        }
        texts.push(words.join(" "));
    }
    let nodes = pieces(id, texts).into_iter();
    nodes.map(|node| node.with_metadata(json(&format!(r#"{{"n": {}}}"#, random.below(3))))).collect()
}

async fn change(context: &Context, model: &mut Model, random: &mut Random, flaw: Flaw) {
    let id = format!("d{}", random.below(DOCUMENTS));
    match random.below(10) {
        0 | 1 => {
            let receipt = context.forget(&id).await.unwrap();
            assert_eq!(receipt.documents == 1, model.contains_key(&id), "forget {id}");
            if flaw != Flaw::ForgetsForgets {
                model.remove(&id);
            }
        }
        2 => {
            let owner = OWNERS[random.index(OWNERS.len())];
            context.forget_owner(owner).await.unwrap();
            if flaw != Flaw::ForgetsOwners {
                model.retain(|_, expected| expected.owner != Some(owner));
            }
        }
        3 => {
            let mut nodes = any_nodes(random, &id);
            nodes.push(Node::text(format!("{id}#bad"), "FAIL").unwrap());
            let failed = context.put(document(&id, random.next()), nodes.clone()).await;
            assert!(failed.is_err());
            if flaw == Flaw::ForgetsFailures {
                model.insert(id, Expected { fingerprint: 0, owner: None, nodes });
            }
        }
        _ => {
            let ids: BTreeSet<String> =
                (0..=random.below(3)).map(|_| format!("d{}", random.below(DOCUMENTS))).collect();
            let owner = [None, Some(OWNERS[0]), Some(OWNERS[1])][random.index(3)];
            let changes: BTreeMap<String, Expected> = ids
                .into_iter()
                .map(|id| {
                    let expected = match model.get(&id).filter(|_| random.below(3) == 0) {
                        Some(same) => Expected { owner, ..same.clone() },
                        None => {
                            let mut nodes = any_nodes(random, &id);
                            // Some of it stays as it is.
                            if let Some(old) =
                                model.get(&id).and_then(|old| old.nodes.first()).filter(|_| !nodes.is_empty())
                            {
                                nodes[0] = old.clone();
                            }
                            Expected { fingerprint: random.next(), owner, nodes }
                        }
                    };
                    (id, expected)
                })
                .collect();
            let sources: Vec<Document> =
                changes.iter().map(|(id, expected)| document(id, expected.fingerprint)).collect();
            let ingestion = context.ingest(sources);
            let ingestion = match owner {
                Some(owner) => ingestion.owner(owner).session(SessionId::new("s").unwrap()),
                None => ingestion,
            };
            let transform = |source: &Document| Ok::<_, Error>(changes[source.id.as_str()].nodes.clone());
            assert_eq!(ingestion.run(transform).await.unwrap().failed, []);
            for (id, expected) in changes {
                if flaw != Flaw::ForgetsUpdates || !model.contains_key(&id) {
                    model.insert(id, expected);
                }
            }
        }
    }
}

/// Returns how a retrieval is not as the model says.
async fn look(context: &Context, model: &Model, random: &mut Random) -> Vec<String> {
    let (word, n) = (WORDS[random.index(WORDS.len())], i64::try_from(random.below(3)).unwrap());
    let passages = || model.values().flat_map(|expected| &expected.nodes);
    let has_n = |node: &Node| node.metadata.as_ref().is_some_and(|json| json.as_str() == format!(r#"{{"n": {n}}}"#));
    let text = |node: &Node| node.content.text().unwrap().to_owned();
    let ids = |wanted: &dyn Fn(&Node) -> bool| -> BTreeSet<String> {
        passages().filter(|node| wanted(node)).map(|node| node.id.to_string()).collect()
    };
    let expected = [
        ids(&|node| has_n(node) && text(node).split(' ').any(|other| other == word)),
        ids(&|node| has_n(node) && !text(node).is_empty()),
    ];
    let question = context.retrieve(format!("what is {word}?")).k(1_000).filter(field("n").eq(n));
    let retrievals =
        [question.clone().without_vectors().without_facts(), question.clone().without_words().without_facts()];
    let mut found = Vec::new();
    for ((retrieval, expected), way) in retrievals.into_iter().zip(&expected).zip(["words", "vectors"]) {
        let retrieved = retrieval.await.unwrap();
        let retrieved: BTreeSet<String> =
            retrieved.passages.iter().map(|passage| passage.node.id.to_string()).collect();
        if retrieved != *expected {
            found.push(format!("{word}, n = {n}, by {way}: {retrieved:?}, expected {expected:?}"));
        }
    }
    // What facts find is among the passages, and all three ways together find no others.
    let everything = question.await.unwrap();
    let possible = ids(&has_n);
    for passage in everything.passages {
        if !possible.contains(passage.node.id.as_str()) {
            found.push(format!("{word}, n = {n}: {} is none of {possible:?}", passage.node.id));
        }
    }
    found
}

async fn run(operations: u64, seed: u64, flaw: Flaw) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random::of(seed, 1);
    let mut model = Model::new();
    let mut done = 0;
    while done < operations {
        let larder = Larder::builder(folder.path())
            .settings(|settings| settings.documents.common.durability = larder::Durability::Relaxed)
            .open()
            .await
            .unwrap();
        let context = open(&larder).await;
        for _ in 0..OPERATIONS_PER_OPENING.min(operations - done) {
            change(&context, &mut model, &mut random, flaw).await;
            let mut found = look(&context, &model, &mut random).await;
            if random.below(8) == 0 {
                let corpus = model.iter().map(|(id, expected)| (id.clone(), expected.nodes.clone())).collect();
                found.extend(disagreements(&context, &corpus).await);
            }
            if !found.is_empty() {
                return found;
            }
            done += 1;
        }
        larder.close().await;
    }
    Vec::new()
}

#[tokio::test]
async fn random_operations_agree_with_maps_in_memory() {
    let operations = number_from_environment("LARDER_MODEL_OPERATIONS", 120);
    let seed = number_from_environment("LARDER_SEED", 11);
    let found = run(operations, seed, Flaw::None).await;
    assert!(found.is_empty(), "LARDER_SEED={seed}: {found:#?}");
}

#[tokio::test]
async fn model_control_catches_a_wrong_oracle() {
    for flaw in [Flaw::ForgetsForgets, Flaw::ForgetsUpdates, Flaw::ForgetsOwners, Flaw::ForgetsFailures] {
        assert!(!run(200, 3, flaw).await.is_empty(), "{flaw:?} was not caught");
    }
}
