//! Random operations on documents agree with maps in memory, over reopenings.
//!
//! More: `LARDER_MODEL_OPERATIONS=100000 cargo test --release --test it documents::model -- --nocapture`.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;
use larder::protocol::DocumentId;
use larder::protocol::documents::{IngestionState, StoredNode, UpsertOutcome};
use larder::{Durability, Larder, Node, field};

use super::{document, json, node};
use crate::support::{integrity_check, number_from_environment};
use crate::torture::Random;

const DOCUMENTS: u64 = 5;
const NODES: u64 = 24;
const OPERATIONS_PER_OPENING: u64 = 250;
const WORDS: [&str; 5] = ["apple", "brook", "cloud", "drum", "eagle"];

#[derive(Debug, Clone, Default)]
struct Model {
    /// By id: the fingerprint, whether it is done, its nodes in order. The empty id: nodes that stand alone.
    documents: BTreeMap<String, (String, bool, Vec<Node>)>,
}

impl Model {
    fn new() -> Self {
        let mut model = Self::default();
        model.documents.insert(String::new(), (String::new(), true, Vec::new()));
        model
    }

    fn owner(&self, id: &str) -> Option<String> {
        let has = |nodes: &[Node]| nodes.iter().any(|node| node.id.as_str() == id);
        self.documents.iter().find(|(_, (_, _, nodes))| has(nodes)).map(|(owner, _)| owner.clone())
    }

    fn remove(&mut self, id: &str) -> Option<Node> {
        let owner = self.owner(id)?;
        let nodes = &mut self.documents.get_mut(&owner)?.2;
        let at = nodes.iter().position(|node| node.id.as_str() == id)?;
        Some(nodes.remove(at))
    }

    fn all(&self) -> impl Iterator<Item = (&String, &Node)> {
        self.documents.iter().flat_map(|(owner, (_, _, nodes))| nodes.iter().map(move |node| (owner, node)))
    }
}

/// One thing that a store may get wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Flaw {
    None,
    ForgetsNodeDeletes,
    ForgetsDocumentDeletes,
    ForgetsUpdates,
    ForgetsMoves,
    ForgetsFailures,
}

fn any_node(random: &mut Random, id: &str) -> Node {
    let words: Vec<&str> = (0..random.below(6)).map(|_| WORDS[random.index(WORDS.len())]).collect();
    let node = node(id, &words.join(" "));
    match random.below(3) {
        0 => node,
        n => node.with_metadata(json(&format!(r#"{{"n": {}, "kind": {n}}}"#, random.below(3)))),
    }
}

fn any_id(random: &mut Random) -> String {
    format!("n{}", random.below(NODES))
}

async fn change(larder: &Larder, model: &mut Model, random: &mut Random, flaw: Flaw) -> Result<(), String> {
    let documents = larder.documents();
    let name = format!("d{}", random.below(DOCUMENTS));
    let same = |what: &str, found: u64, expected: u64| {
        if found == expected { Ok(()) } else { Err(format!("{what} {name}: {found}, expected {expected}")) }
    };
    match random.below(100) {
        0..35 => {
            // Some of the nodes that are there, changed or not, and some others, in any order.
            let mut ids: BTreeSet<String> = (0..random.below(8)).map(|_| any_id(random)).collect();
            let before = model.documents.get(&name).map_or(Vec::new(), |(_, _, nodes)| nodes.clone());
            ids.extend(before.iter().filter(|_| random.percent(60)).map(|node| node.id.to_string()));
            let mut nodes: Vec<Node> = Vec::new();
            for id in ids {
                let old = before.iter().find(|node| node.id.as_str() == id);
                let new = any_node(random, &id);
                nodes.insert(random.index(nodes.len() + 1), old.filter(|_| random.percent(60)).cloned().unwrap_or(new));
            }
            let fingerprint = random.below(3).to_string();
            let is_stolen = nodes.iter().any(|node| model.owner(node.id.as_str()).is_some_and(|owner| owner != name));
            let put = documents.put(document(&name).with_fingerprint(&fingerprint), nodes.clone()).await;
            if is_stolen {
                return same("put a stolen node into", u64::from(put.is_ok()), 0);
            }
            let outcome = put.map_err(|e| format!("put {name}: {e}"))?;
            let is_new = |node: &&Node| !before.iter().any(|old| old.id == node.id);
            same("inserted into", outcome.nodes.inserted, nodes.iter().filter(is_new).count() as u64)?;
            let is_gone = |old: &&Node| !nodes.iter().any(|node| node.id == old.id);
            same("deleted from", outcome.nodes.deleted, before.iter().filter(is_gone).count() as u64)?;
            model.documents.insert(name.clone(), (fingerprint, true, nodes));
            Ok(())
        }
        35..55 => {
            let into = if random.percent(40) { String::new() } else { name.clone() };
            let ids: BTreeSet<String> = (0..1 + random.below(4)).map(|_| any_id(random)).collect();
            let nodes: Vec<Node> = ids.iter().map(|id| any_node(random, id)).collect();
            let request = documents.upsert(nodes.clone());
            let request = if into.is_empty() { request } else { request.into_document(&into) };
            let is_stolen = ids.iter().any(|id| model.owner(id).is_some_and(|owner| owner != into));
            let upserted = request.await;
            if is_stolen || !model.documents.contains_key(&into) {
                return same("upsert what may not be into", u64::from(upserted.is_ok()), 0);
            }
            let outcomes = upserted.map_err(|e| format!("upsert into {into:?}: {e}"))?;
            let kept = &mut model.documents.get_mut(&into).unwrap().2;
            for (node, outcome) in nodes.into_iter().zip(outcomes) {
                let place = kept.iter_mut().find(|old| old.id == node.id);
                let expected = match &place {
                    None => UpsertOutcome::Inserted,
                    Some(old) if **old == node => UpsertOutcome::Unchanged,
                    Some(_) => UpsertOutcome::Updated,
                };
                if outcome != expected {
                    return Err(format!("upsert of {:?}: {outcome:?}, expected {expected:?}", node.id));
                }
                match place {
                    None => kept.push(node),
                    Some(old) if flaw != Flaw::ForgetsUpdates => *old = node,
                    Some(_) => {}
                }
            }
            Ok(())
        }
        55..68 => {
            let ids: BTreeSet<String> = (0..1 + random.below(3)).map(|_| any_id(random)).collect();
            let deleted = documents.delete(&ids).await.unwrap();
            let there = ids.iter().filter(|id| model.owner(id).is_some()).count() as u64;
            if flaw != Flaw::ForgetsNodeDeletes {
                ids.iter().for_each(|id| drop(model.remove(id)));
            }
            same("delete", deleted, there)
        }
        68..76 => {
            let deleted = documents.delete_document(&name).await.unwrap();
            let is_there = model.documents.contains_key(&name);
            if flaw != Flaw::ForgetsDocumentDeletes {
                model.documents.remove(&name);
            }
            same("delete document", u64::from(deleted), u64::from(is_there))
        }
        76..86 => {
            let into = if random.percent(40) { String::new() } else { name.clone() };
            let ids: BTreeSet<String> = (0..1 + random.below(3)).map(|_| any_id(random)).collect();
            let target = (!into.is_empty()).then(|| DocumentId::new(&into).unwrap());
            let moved = documents.move_nodes(&ids, target.as_ref()).await;
            if !model.documents.contains_key(&into) {
                return same("move to nowhere", u64::from(moved.is_ok()), 0);
            }
            let elsewhere: Vec<&String> =
                ids.iter().filter(|id| model.owner(id).is_some_and(|owner| owner != into)).collect();
            if flaw != Flaw::ForgetsMoves {
                for id in &elsewhere {
                    let node = model.remove(id).unwrap();
                    model.documents.get_mut(&into).unwrap().2.push(node);
                }
            }
            same("move", moved.unwrap(), elsewhere.len() as u64)
        }
        86..94 => {
            let source = document(&name).with_fingerprint(random.below(5).to_string());
            let is_done_with_it = model
                .documents
                .get(&name)
                .is_some_and(|(fingerprint, is_done, _)| *is_done && source.fingerprint.as_ref() == Some(fingerprint));
            let marked = documents.mark_failed(&source, "no").await.unwrap();
            if !is_done_with_it && flaw != Flaw::ForgetsFailures {
                model.documents.entry(name.clone()).or_default().1 = false;
            }
            same("mark", u64::from(marked), u64::from(!is_done_with_it))
        }
        _ => {
            let keep: Vec<String> = (0..DOCUMENTS).filter(|_| random.percent(80)).map(|n| format!("d{n}")).collect();
            let deleted = documents.delete_missing(&keep).await.unwrap();
            let is_missing = |id: &&String| !id.is_empty() && !keep.contains(id);
            let expected: Vec<String> = model.documents.keys().filter(is_missing).cloned().collect();
            model.documents.retain(|id, _| !expected.contains(id));
            same("delete missing", deleted.len() as u64, expected.len() as u64)
        }
    }
}

fn nodes(stored: &[StoredNode]) -> Vec<Node> {
    stored.iter().map(|stored| stored.node.clone()).collect()
}

async fn compare(larder: &Larder, model: &Model, random: &mut Random) -> Result<(), String> {
    let documents = larder.documents();
    let said = |e: larder::Error| e.to_string();
    let listed: Vec<_> = documents.documents().limit(2).stream().try_collect().await.map_err(said)?;
    let found: Vec<_> = listed
        .into_iter()
        .map(|one| {
            (one.id.to_string(), one.fingerprint.unwrap_or_default(), one.state == IngestionState::Done, one.node_count)
        })
        .collect();
    let of_model = |(id, (fingerprint, is_done, nodes)): (&String, &(String, bool, Vec<Node>))| {
        (id.clone(), fingerprint.clone(), *is_done, nodes.len() as u64)
    };
    let expected: Vec<_> = model.documents.iter().filter(|(id, _)| !id.is_empty()).map(of_model).collect();
    if found != expected {
        return Err(format!("documents {found:?}\n  expected {expected:?}"));
    }
    for (id, (_, _, expected)) in &model.documents {
        let page = if id.is_empty() { documents.nodes_alone() } else { documents.nodes(id) };
        let found: Vec<StoredNode> = page.limit(3).stream().try_collect().await.map_err(said)?;
        if nodes(&found) != *expected {
            return Err(format!("{id:?} holds {found:?}\n  expected {expected:?}"));
        }
    }
    let id = any_id(random);
    let found = documents.get(&id).await.map_err(said)?;
    let found = found.map(|stored| (stored.document.map(String::from).unwrap_or_default(), stored.node));
    let expected =
        model.all().find(|(_, node)| node.id.as_str() == id).map(|(owner, node)| (owner.clone(), node.clone()));
    if found != expected {
        return Err(format!("{id}: {found:?}, expected {expected:?}"));
    }
    let word = WORDS[random.index(WORDS.len())];
    let n = i64::try_from(random.below(3)).unwrap();
    let has = |node: &Node| node.content.text().unwrap().contains(word);
    let matches = |node: &Node| node.metadata.as_ref().is_some_and(|metadata| metadata.to_value()["n"] == n);
    for (filtered, expected) in [
        (None, model.all().filter(|(_, node)| has(node)).map(|(_, node)| node.id.to_string()).collect::<BTreeSet<_>>()),
        (
            Some(field("n").eq(n)),
            model.all().filter(|(_, node)| has(node) && matches(node)).map(|(_, node)| node.id.to_string()).collect(),
        ),
    ] {
        let search = documents.search(word).limit(1_000);
        let search = match filtered {
            Some(filter) => search.filter(filter),
            None => search,
        };
        let hits = search.await.map_err(said)?;
        let found: BTreeSet<String> = hits.iter().map(|hit| hit.found.node.id.to_string()).collect();
        if found != expected {
            return Err(format!("{word}: {found:?}, expected {expected:?}"));
        }
    }
    let counted = documents.count().matching(field("n").eq(n)).await.map_err(said)?;
    let expected = model.all().filter(|(_, node)| matches(node)).count() as u64;
    if counted != expected { Err(format!("n = {n}: {counted}, expected {expected}")) } else { Ok(()) }
}

async fn run(seed: u64, operations: u64, flaw: Flaw) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let (mut random, mut model) = (Random::of(seed, 9), Model::new());
    let mut done = 0;
    while done < operations {
        let builder = Larder::builder(folder.path()).documents(|documents| {
            documents.common.durability = Durability::Relaxed;
        });
        let larder = builder.open().await.unwrap();
        for _ in 0..OPERATIONS_PER_OPENING.min(operations - done) {
            done += 1;
            change(&larder, &mut model, &mut random, flaw).await.map_err(|e| format!("operation {done}: {e}"))?;
            if done.is_multiple_of(5) {
                compare(&larder, &model, &mut random).await.map_err(|e| format!("after {done} operations: {e}"))?;
            }
        }
        let findings = larder.check(larder::CheckDepth::Full).await.unwrap().findings;
        if !findings.is_empty() {
            return Err(format!("after {done} operations: {findings:?}"));
        }
        assert!(larder.close().await.is_clean());
        assert_eq!(integrity_check(&folder.path().join("documents.db")), ["ok"]);
    }
    Ok(())
}

#[tokio::test]
async fn random_operations_agree_with_a_model() {
    let operations = number_from_environment("LARDER_MODEL_OPERATIONS", 3_000);
    let seed = number_from_environment("LARDER_SEED", u64::from(std::process::id()));
    run(seed, operations, Flaw::None).await.unwrap_or_else(|e| panic!("LARDER_SEED={seed}: {e}"));
    println!("{operations} operations agree (LARDER_SEED={seed})");
}

#[tokio::test]
async fn control_each_flaw_is_caught() {
    use Flaw::{ForgetsDocumentDeletes, ForgetsFailures, ForgetsMoves, ForgetsNodeDeletes, ForgetsUpdates};
    for flaw in [ForgetsNodeDeletes, ForgetsDocumentDeletes, ForgetsUpdates, ForgetsMoves, ForgetsFailures] {
        run(1, 2_000, flaw).await.expect_err(&format!("{flaw:?} went unseen"));
    }
}
