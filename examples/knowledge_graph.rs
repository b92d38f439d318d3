//! Asks a knowledge graph by name, path and PageRank, and draws a part of it.
//!
//! ```sh
//! cargo run --release --example knowledge_graph                              # a small bundled graph
//! cargo run --release --example knowledge_graph -- ../shared/data/graph      # WordNet 3.0: 264,965 entities, 571,493 facts
//! ```
//!
//! Given a folder with `train.tar.xz` (or unpacked, with `train.entities.tsv` and `train.triples.tsv`) it loads that, and says how
//! quick the answers are. It writes `knowledge_graph.dot` and `knowledge_graph.svg` to the system's folder for temporary files.
//!
//! Start at [`bundled`] or [`wordnet`], then [`draw`].
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to whoever runs it")]
#![expect(clippy::disallowed_methods, reason = "reads the user's data and writes pictures, never a store's file")]
#![expect(clippy::cast_precision_loss, reason = "places in a picture")]

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use larder::protocol::graph::{GraphPath, Subgraph};
use larder::{Graph, JsonText, Larder, NewEntity, NewRelation};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Entities or facts stored at once.
const BATCH: usize = 20_000;

/// A graph small enough to read: subject, relation, object.
const FACTS: [(&str, &str, &str); 16] = [
    ("larder", "uses", "SQLite"),
    ("larder", "uses", "kameo"),
    ("larder", "written in", "Rust"),
    ("kameo", "written in", "Rust"),
    ("kameo", "runs on", "tokio"),
    ("tokio", "written in", "Rust"),
    ("SQLite", "written in", "C"),
    ("SQLite", "created by", "D. Richard Hipp"),
    ("Fossil", "created by", "D. Richard Hipp"),
    ("Fossil", "uses", "SQLite"),
    ("Rust", "begun by", "Graydon Hoare"),
    ("Rust", "compiles with", "LLVM"),
    ("LLVM", "written in", "C++"),
    ("C++", "grew from", "C"),
    ("C", "created by", "Dennis Ritchie"),
    ("Unix", "created by", "Dennis Ritchie"),
];

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match std::env::args_os().nth(1) {
        Some(folder) => wordnet(Path::new(&folder)).await,
        None => bundled().await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("knowledge_graph: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn bundled() -> Result<()> {
    let larder = Larder::temporary().await?;
    let graph = larder.graph();
    let facts = FACTS.iter().enumerate().map(|(line, (subject, relation, object))| {
        NewRelation::new(*subject, relation, *object)?.with_source(format!("bundled#{line}"))
    });
    graph.upsert_relations(facts.collect::<Result<Vec<_>, _>>()?).await?;
    graph.add_alias("D. Richard Hipp", "drh").await?;

    let named = graph.misspelt("sqllite").limit(1).await?;
    println!("\"sqllite\" is {}", named.first().map_or("nobody", |hit| hit.entity.name.as_str()));
    for neighbor in graph.neighbors("drh").await? {
        println!("drh: {} {}", neighbor.label, neighbor.entity.name);
    }
    let path = graph.shortest_path("larder", "Unix").await?.ok_or("there is no path")?;
    println!("from larder to Unix: {}", shown(&path));
    println!("what counts around larder:");
    for ranked in graph.rank(["larder"]).limit(5).await? {
        println!("  {:.3}  {}", ranked.score, ranked.entity.name);
    }
    draw(&graph.subgraph(["larder"]).limits(10, 20).await?)?;
    larder.close().await;
    Ok(())
}

/// Loads WordNet, asks it, and says how long everything took.
async fn wordnet(folder: &Path) -> Result<()> {
    let unpacked = unpack(folder)?;
    let data = unpacked.as_ref().map_or(folder, |unpacked| unpacked.path());
    let store = tempfile::tempdir()?;
    let larder = Larder::open(store.path()).await?;
    let began = Instant::now();
    let (entities, facts) = load(&larder.graph(), data).await?;
    println!("{entities} entities and {facts} facts stored in {:.1} s", began.elapsed().as_secs_f64());
    larder.close().await;
    let bytes = std::fs::metadata(store.path().join("graph.db"))?.len();
    println!("{:.1} MB on the disk", bytes as f64 / 1e6);

    let began = Instant::now();
    let larder = Larder::open(store.path()).await?;
    let graph = larder.graph();
    let near = graph.neighbors("dog.n.02084071").depth(2).await?;
    println!(
        "opened, and {} entities within two hops of a dog found, in {:.2} s",
        near.len(),
        began.elapsed().as_secs_f64()
    );
    for hit in graph.misspelt("w:architectural ornamint").limit(3).await? {
        println!("\"architectural ornamint\" may be {} ({:.2})", hit.entity.name, hit.score);
    }
    let path = graph.shortest_path("dog.n.02084071", "cat.n.02121620").await?.ok_or("there is no path")?;
    println!("from dog to cat: {}", shown(&path));
    for ranked in graph.rank(["dog.n.02084071"]).limit(5).await? {
        println!("  {:.4}  {}", ranked.score, ranked.entity.name);
    }
    measure(&graph, data).await?;
    draw(&graph.subgraph(["dog.n.02084071"]).limits(12, 30).await?)?;
    larder.close().await;
    Ok(())
}

/// Unpacks the archive, where the folder holds one and not its files.
fn unpack(folder: &Path) -> Result<Option<tempfile::TempDir>> {
    if folder.join("train.triples.tsv").exists() {
        return Ok(None);
    }
    let target = tempfile::tempdir()?;
    let status =
        Command::new("tar").arg("-xJf").arg(folder.join("train.tar.xz")).arg("-C").arg(target.path()).status()?;
    if !status.success() {
        return Err("tar cannot unpack train.tar.xz".into());
    }
    Ok(Some(target))
}

async fn load(graph: &Graph, data: &Path) -> Result<(usize, usize)> {
    let entities = std::fs::read_to_string(data.join("train.entities.tsv"))?;
    let entities: Vec<_> = entities.lines().map(entity).collect::<Result<_>>()?;
    let facts = std::fs::read_to_string(data.join("train.triples.tsv"))?;
    let facts: Vec<_> = facts.lines().map(fact).collect::<Result<_>>()?;
    let counts = (entities.len(), facts.len());
    let began = Instant::now();
    for batch in entities.chunks(BATCH) {
        graph.upsert_entities(batch.to_vec()).await?;
    }
    println!("entities: {:.1} s", began.elapsed().as_secs_f64());
    for batch in facts.chunks(BATCH) {
        graph.upsert_relations(batch.to_vec()).await?;
    }
    println!("facts, too: {:.1} s", began.elapsed().as_secs_f64());
    Ok(counts)
}

fn entity(line: &str) -> Result<NewEntity> {
    let mut columns = line.split('\t');
    let (name, label) = (columns.next().ok_or("no name")?, columns.next().ok_or("no label")?);
    let properties = columns.next().unwrap_or("{}");
    Ok(NewEntity::new(label, name)?.with_properties(JsonText::new(properties)?))
}

fn fact(line: &str) -> Result<NewRelation> {
    let mut columns = line.split('\t');
    let mut next = || columns.next().ok_or("a fact lacks a column");
    let (subject, relation, object) = (next()?, next()?, next()?);
    let properties = columns.next().unwrap_or("{}");
    Ok(NewRelation::new(subject, relation, object)?.with_properties(JsonText::new(properties)?))
}

/// Asks for the entities and pairs of `train.queries.json`.
async fn measure(graph: &Graph, data: &Path) -> Result<()> {
    let Ok(text) = std::fs::read_to_string(data.join("train.queries.json")) else { return Ok(()) };
    let queries: serde_json::Value = serde_json::from_str(&text)?;
    let list = |name: &str| queries.get(name).and_then(|list| list.as_array()).cloned().unwrap_or_default();
    for name in ["uniform", "biased", "hubs"] {
        let entities: Vec<String> = list(name).iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
        for depth in 1..=3 {
            let (mut times, mut found) = (Vec::new(), 0);
            for entity in &entities {
                let began = Instant::now();
                found += match depth {
                    1 => graph.neighbors(entity).limit(1_000).await?.len(),
                    depth => graph.neighborhood([entity], depth).limit(1_000).await?.len(),
                };
                times.push(began.elapsed());
            }
            println!("{depth} hops from {name} entities: {} ({found} found)", percentiles(times));
        }
    }
    let mut times = Vec::new();
    for pair in list("pairs") {
        let (Some(from), Some(to)) = (text_at(&pair, 0), text_at(&pair, 1)) else { continue };
        let began = Instant::now();
        graph.shortest_path(from, to).await?;
        times.push(began.elapsed());
    }
    println!("shortest paths: {}", percentiles(times));
    let (mut ranks, mut subgraphs) = (Vec::new(), Vec::new());
    for seeds in list("seedsets").iter().take(50) {
        let seeds: Vec<&str> = seeds.as_array().into_iter().flatten().filter_map(serde_json::Value::as_str).collect();
        let began = Instant::now();
        graph.rank(seeds.clone()).limit(20).await?;
        ranks.push(began.elapsed());
        let began = Instant::now();
        graph.subgraph(seeds).await?;
        subgraphs.push(began.elapsed());
    }
    println!("PageRank: {}\nsubgraphs: {}", percentiles(ranks), percentiles(subgraphs));
    let (mut times, mut right) = (Vec::new(), 0);
    let texts = list("text");
    for text in &texts {
        let (Some(name), Some(typo)) = (member(text, "name"), member(text, "typo")) else { continue };
        let began = Instant::now();
        let hits = graph.misspelt(typo).limit(10).await?;
        times.push(began.elapsed());
        right += usize::from(hits.iter().any(|hit| hit.entity.name.as_str() == name));
    }
    println!("misspelt names: {}, {right} of {} among the first ten", percentiles(times), texts.len());
    Ok(())
}

fn text_at(list: &serde_json::Value, at: usize) -> Option<&str> {
    list.get(at)?.as_str()
}

fn member<'a>(object: &'a serde_json::Value, name: &str) -> Option<&'a str> {
    object.get(name)?.as_str()
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    format!("p50 {:.1?}, p99 {:.1?}", at(50), at(99))
}

fn shown(path: &GraphPath) -> String {
    let mut text = path.start.name.as_str().to_owned();
    for step in &path.steps {
        let (before, after) = if step.is_forward { (" -", "-> ") } else { (" <-", "- ") };
        let _ = write!(text, "{before}{}{after}{}", step.label, step.entity.name);
    }
    text
}

/// Writes a subgraph as DOT, for Graphviz, and as SVG, which any browser shows.
fn draw(subgraph: &Subgraph) -> Result<()> {
    let folder = std::env::temp_dir();
    for (name, text) in [("knowledge_graph.dot", dot(subgraph)), ("knowledge_graph.svg", svg(subgraph))] {
        let path: PathBuf = folder.join(name);
        std::fs::write(&path, text)?;
        println!("written: {}", path.display());
    }
    Ok(())
}

fn dot(subgraph: &Subgraph) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut text = "digraph knowledge {\n".to_owned();
    for ranked in &subgraph.entities {
        let _ = writeln!(text, "  e{} [label={}];", ranked.entity.id, quoted(ranked.entity.name.as_str()));
    }
    for ranked in &subgraph.relations {
        let relation = &ranked.relation;
        let label = quoted(relation.label.as_str());
        let _ = writeln!(text, "  e{} -> e{} [label={label}];", relation.subject.id, relation.object.id);
    }
    text + "}\n"
}

/// Draws the best entity in the middle and the others around it.
fn svg(subgraph: &Subgraph) -> String {
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let count = subgraph.entities.len().saturating_sub(1).max(1) as f64;
    let place = |at: usize| match at {
        0 => (400.0, 300.0),
        _ => {
            let angle = at as f64 / count * std::f64::consts::TAU;
            (400.0 + 300.0 * angle.cos(), 300.0 + 230.0 * angle.sin())
        }
    };
    let places: std::collections::HashMap<_, _> =
        subgraph.entities.iter().enumerate().map(|(at, ranked)| (ranked.entity.id, place(at))).collect();
    let mut text = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 800 600\" font-family=\"sans-serif\" \
         font-size=\"11\" text-anchor=\"middle\">\n<rect width=\"800\" height=\"600\" fill=\"white\"/>\n"
        .to_owned();
    for ranked in &subgraph.relations {
        let relation = &ranked.relation;
        let (Some((x1, y1)), Some((x2, y2))) = (places.get(&relation.subject.id), places.get(&relation.object.id))
        else {
            continue;
        };
        let _ = writeln!(text, "<line x1=\"{x1:.0}\" y1=\"{y1:.0}\" x2=\"{x2:.0}\" y2=\"{y2:.0}\" stroke=\"#aaa\"/>");
        // Nearer to the object, so that it says which way it goes.
        let (x, y) = (x1 + (x2 - x1) * 0.6, y1 + (y2 - y1) * 0.6);
        let _ =
            writeln!(text, "<text x=\"{x:.0}\" y=\"{y:.0}\" fill=\"#777\">{}</text>", escaped(relation.label.as_str()));
    }
    for ranked in &subgraph.entities {
        let Some((x, y)) = places.get(&ranked.entity.id) else { continue };
        let _ = writeln!(text, "<circle cx=\"{x:.0}\" cy=\"{y:.0}\" r=\"5\" fill=\"#357\"/>");
        let name = escaped(ranked.entity.name.as_str());
        let _ = writeln!(text, "<text x=\"{x:.0}\" y=\"{:.0}\">{name}</text>", y - 9.0);
    }
    text + "</svg>\n"
}
