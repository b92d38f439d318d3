//! Kill -9 during ingests and forgets: after the next opening each document is as before or as after, in every store.
//!
//! Start at [`kills_leave_each_document_whole`]. A child ingests and forgets, and says before and after what it does; the parent
//! kills it at a random moment, opens the folder, and looks into every store.
//!
//! More: `LARDER_KILLS=200 cargo test --release --test it context::kills -- --nocapture`.
#![expect(clippy::disallowed_methods, reason = "a control takes the journal out of a closed file")]

use std::path::Path;
use std::time::{Duration, Instant};

use super::*;
use crate::support::child::{Child, tell};
use crate::support::{alone, number_from_environment};
use crate::torture::Random;

/// Documents of each task, and tasks of a child.
const DOCUMENTS: u64 = 6;
const TASKS: u64 = 3;
/// The kill comes at most so long after the child is ready.
const DELAY_MICROS_MAX: u64 = 80_000;
/// One kill in so many comes while the folder is being opened.
const STARTUP_KILLS: u64 = 6;
/// What stands for a document that is forgotten.
const FORGOTTEN: u64 = 0;

/// How the child works, and what is done to the folder before it is opened again.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Contexts,
    /// The control: store by store, as people do without a journal.
    Careless,
    /// The control: what was begun is not finished, since the journal is lost.
    WithoutRecovery,
}

fn id(task: u64, number: u64) -> String {
    format!("t{task}/d{number}")
}

/// A child that changes documents until it is killed.
pub(crate) fn write_until_killed(mut arguments: impl Iterator<Item = String>) {
    let (folder, way) = (arguments.next().unwrap(), arguments.next().unwrap());
    let mut number = || arguments.next().unwrap().parse::<u64>().unwrap();
    let (seed, first) = (number(), number());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let larder = Larder::open(Path::new(&folder)).await.unwrap();
        let context = open(&larder).await;
        tell("READY");
        let tasks = (0..TASKS).map(|task| {
            let (context, is_careless) = (context.clone(), way == "careless");
            tokio::spawn(async move { change(&context, Random::of(seed, task), task, first, is_careless).await })
        });
        futures::future::join_all(tasks).await;
    });
}

/// Changes one task's documents for ever. Numbers of versions only grow, over all children.
async fn change(context: &Context, mut random: Random, task: u64, first: u64, is_careless: bool) {
    for n in first.. {
        let target = id(task, random.below(DOCUMENTS));
        match random.below(4) {
            0 => {
                tell(&format!("BEGIN {target} {FORGOTTEN}"));
                if is_careless {
                    forget_carelessly(context.larder(), &target).await;
                } else {
                    context.forget(&target).await.unwrap();
                }
                tell(&format!("DONE {target} {FORGOTTEN}"));
            }
            1 | 2 => {
                tell(&format!("BEGIN {target} {n}"));
                if is_careless {
                    put_carelessly(context.larder(), &target, n).await;
                } else {
                    context.put(document(&target, n), version(&target, n)).await.unwrap();
                }
                tell(&format!("DONE {target} {n}"));
            }
            // Several in one commit.
            _ if !is_careless => {
                let ids: Vec<String> = (0..DOCUMENTS).map(|number| id(task, number)).collect();
                ids.iter().for_each(|id| tell(&format!("BEGIN {id} {n}")));
                let transform = |source: &Document| Ok::<_, larder::Error>(version(source.id.as_str(), n));
                let ingestion = context.ingest(ids.iter().map(|id| document(id, n)));
                let ingestion = ingestion.on_progress(|progress| tell(&format!("DONE {} {n}", progress.document)));
                assert_eq!(ingestion.run(transform).await.unwrap().failed, []);
            }
            _ => {}
        }
    }
}

async fn put_carelessly(larder: &Larder, id: &str, n: u64) {
    let nodes = version(id, n);
    larder.documents().put(document(id, n), nodes.clone()).await.unwrap();
    let points = larder.vectors().collection("notes").open().await.unwrap();
    points.delete_by_document(id).await.unwrap();
    let point = |node: &Node| {
        larder::Point::new(&node.id, vector_of(node.content.text().unwrap())).unwrap().with_document(id).unwrap()
    };
    points.upsert(nodes.iter().map(point)).await.unwrap();
    for node in &nodes {
        let source = format!("node:{}", node.id);
        larder.graph().remove_source(&source).await.unwrap();
        for fact in Uses.extract(node).await.unwrap() {
            larder.graph().upsert_relations([fact.with_source(&source).unwrap()]).await.unwrap();
        }
    }
}

async fn forget_carelessly(larder: &Larder, id: &str) {
    larder.documents().delete_document(id).await.unwrap();
    larder.vectors().collection("notes").open().await.unwrap().delete_by_document(id).await.unwrap();
    for part in 0..8 {
        larder.graph().remove_source(format!("node:{id}#{part}")).await.unwrap();
    }
}

/// What may be in the stores, by document: the last that was acknowledged, and what was begun since.
#[derive(Debug, Default)]
struct Possible(BTreeMap<String, Vec<u64>>);

impl Possible {
    fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [kind, id, version] = words[..] else { return };
        let Ok(version) = version.parse() else { return };
        let versions = self.0.entry(id.to_owned()).or_insert_with(|| vec![FORGOTTEN]);
        match kind {
            "BEGIN" => versions.push(version),
            "DONE" => *versions = vec![version],
            _ => {}
        }
    }

    /// Looks into every store; answers what is in no way as it may be, and keeps what was found.
    async fn violations(&mut self, context: &Context) -> Vec<String> {
        let stored = stored(context.larder()).await;
        let mut violations = Vec::new();
        for (id, versions) in &mut self.0 {
            let nodes = |n: u64| if n == FORGOTTEN { Vec::new() } else { version(id, n) };
            let found = versions.iter().copied().find(|n| disagreement(&stored, id, &nodes(*n)).is_none());
            match found {
                Some(found) => *versions = vec![found],
                None => {
                    let last = versions.last().copied().unwrap_or(FORGOTTEN);
                    let why = disagreement(&stored, id, &nodes(last)).unwrap_or_default();
                    violations.push(format!("{id} is as in none of {versions:?}: {why}"));
                }
            }
        }
        violations.extend(context.check().await.unwrap().into_iter().map(|issue| issue.to_string()));
        violations
    }
}

/// Kills a child so many times; answers what was wrong, and how many intents were open at a kill.
async fn kill(way: Way, kills: u64, seed: u64) -> (Vec<String>, u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let mut random = Random::of(seed, 0);
    let (mut possible, mut open_count) = (Possible::default(), 0);
    for round in 0..kills {
        let word = if way == Way::Careless { "careless" } else { "contexts" };
        let first = 1 + round * 1_000_000;
        let child = Child::spawn("context-writer", [path, word, &random.next().to_string(), &first.to_string()]);
        let mut lines = Vec::new();
        let delay = if random.below(STARTUP_KILLS) == 0 {
            Duration::from_micros(random.below(3 * DELAY_MICROS_MAX))
        } else {
            child.wait_for("READY");
            Duration::from_micros(random.below(DELAY_MICROS_MAX))
        };
        let moment = Instant::now() + delay;
        while let Some(line) = child.line_until(moment) {
            lines.push(line);
        }
        lines.extend(child.kill());
        lines.iter().for_each(|line| possible.hear(line));
        open_count += open_intents(folder.path(), way == Way::WithoutRecovery);

        let larder = Larder::open(folder.path()).await.unwrap();
        let context = open(&larder).await;
        let violations = possible.violations(&context).await;
        larder.close().await;
        if !violations.is_empty() {
            return (violations, open_count);
        }
    }
    (Vec::new(), open_count)
}

/// Counts the intents in a folder that nobody has open; takes them out, if the control wants that.
fn open_intents(folder: &Path, takes_out: bool) -> u64 {
    let Ok(connection) = rusqlite::Connection::open(folder.join("documents.db")) else { return 0 };
    let count = connection.query_row("SELECT count(*) FROM intent", [], |row| row.get(0));
    if takes_out && count.is_ok() {
        connection.execute_batch("DELETE FROM intent; DELETE FROM intent_payload").unwrap();
    }
    count.unwrap_or(0)
}

#[tokio::test]
async fn kills_leave_each_document_whole() {
    let _alone = alone().await;
    let kills = number_from_environment("LARDER_KILLS", 8);
    let seed = number_from_environment("LARDER_SEED", u64::from(std::process::id()));
    let (mut open_count, folders) = (0, kills.div_ceil(20));
    for folder in 0..folders {
        let count = (kills - folder * 20).min(20);
        let (violations, open) = kill(Way::Contexts, count, seed + folder).await;
        assert!(violations.is_empty(), "LARDER_SEED={}: {violations:#?}", seed + folder);
        open_count += open;
    }
    println!("{kills} kills, {open_count} intents open at them, 0 documents in part");
    assert!(open_count > 0, "no kill came between two stores (LARDER_SEED={seed})");
}

async fn assert_caught(way: Way) {
    let _alone = alone().await;
    // Whether a kill comes between two stores is chance.
    for seed in 0..5 {
        let (violations, _) = kill(way, 10, seed).await;
        if !violations.is_empty() {
            return;
        }
    }
    panic!("{way:?} was not caught");
}

#[tokio::test]
async fn kills_control_catches_what_is_done_store_by_store() {
    assert_caught(Way::Careless).await;
}

#[tokio::test]
async fn kills_control_catches_a_recovery_that_is_left_out() {
    assert_caught(Way::WithoutRecovery).await;
}
