//! The graph run's side in Rust: what `python/graph.py`, its driver, asks of a peer, and what the peer answers.
//!
//! Start at [`main`]. The driver writes entities, facts and questions to files and checks every answer; a peer measures.
//!
//! Always true: an answer tells of entities by their line in the driver's file, and that is made of it outside the time measured.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::Result;

/// Most neighbours, and most entities of a neighbourhood.
pub const LIMIT: usize = 1_000;
/// The best of a PageRank.
pub const RANKED: usize = 20;
/// What a misspelt lookup finds.
pub const FOUND: usize = 10;
/// Entities and facts of a subgraph.
pub const SUBGRAPH: (usize, usize) = (50, 100);
/// Callers of `upsert-64`, and rows that are committed at a time by hand.
pub const CALLERS: usize = 64;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Fill an empty folder.
    Load,
    /// Open the folder, ask for two hops, and run the loads that ask.
    Query,
    /// Run the loads that write, durably.
    Upsert,
}

/// One job of the driver.
#[derive(Debug, Deserialize)]
pub struct Job {
    pub stage: Stage,
    /// The peer's own.
    pub folder: PathBuf,
    /// Has `entities.tsv`, `facts.tsv` and `questions.json`.
    pub data: PathBuf,
    pub loads: Vec<String>,
    /// Facts that are upserted have another label each round.
    pub round: usize,
    /// No other process may open the folder; for larder alone.
    #[serde(default)]
    pub exclusive: bool,
}

/// What is asked.
#[derive(Debug, Deserialize)]
pub struct Questions {
    /// Where neighbourhoods begin.
    pub hops: Vec<String>,
    /// Between which the shortest path is asked for.
    pub pairs: Vec<(String, String)>,
    /// From where PageRank and subgraphs begin.
    pub seeds: Vec<Vec<String>>,
    /// Misspelt names.
    pub typos: Vec<String>,
    /// Ends of new facts.
    pub upserts: Vec<(String, String)>,
}

/// An entity of the driver's file.
#[derive(Debug)]
pub struct Entity {
    pub name: String,
    pub label: String,
    /// JSON.
    pub properties: String,
}

/// A fact of the driver's file.
#[derive(Debug)]
pub struct Fact {
    pub subject: String,
    pub label: String,
    pub object: String,
    /// JSON; `{}` for none.
    pub properties: String,
}

/// What was measured.
#[derive(Debug, Default, Serialize)]
pub struct Run {
    load_seconds: f64,
    /// From opening the folder to the first answer.
    open_seconds: f64,
    loads: BTreeMap<String, Answers>,
}

#[derive(Debug, Default, Serialize)]
struct Answers {
    times_us: Vec<f64>,
    answers: Vec<Vec<usize>>,
    /// Calls per second of all callers.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<f64>,
}

/// Every question is asked once before it is measured, until so much time has passed: a file is read into its caches by then.
const WARM_UP: Duration = Duration::from_millis(500);

impl Job {
    /// # Errors
    /// When the file cannot be read.
    pub fn questions(&self) -> Result<Questions> {
        Ok(serde_json::from_str(&std::fs::read_to_string(self.data.join("questions.json"))?)?)
    }

    /// # Errors
    /// When the file cannot be read.
    pub fn entities(&self) -> Result<Vec<Entity>> {
        rows(&self.data.join("entities.tsv"), |[name, label, properties]| Entity { name, label, properties })
    }

    /// # Errors
    /// When the file cannot be read.
    pub fn facts(&self) -> Result<Vec<Fact>> {
        rows(&self.data.join("facts.tsv"), |[subject, label, object, properties]| Fact {
            subject,
            label,
            object,
            properties,
        })
    }

    /// Returns which line each entity is.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn lines(&self) -> Result<Lines> {
        let names = self.entities()?.into_iter().map(|entity| entity.name);
        Ok(Lines(names.enumerate().map(|(line, name)| (name, line)).collect()))
    }

    /// The label of facts that this round upserts.
    #[must_use]
    pub fn new_label(&self, load: &str) -> String {
        format!("new_{load}_{}", self.round)
    }
}

fn rows<const N: usize, T>(path: &Path, make: impl Fn([String; N]) -> T) -> Result<Vec<T>> {
    let text = std::fs::read_to_string(path)?;
    let row = |line: &str| {
        let fields: Vec<String> = line.split('\t').map(str::to_owned).collect();
        fields.try_into().map(&make).map_err(|_| format!("{}: a line of other fields: {line}", path.display()).into())
    };
    text.lines().map(row).collect()
}

/// Which line of the driver's file each entity is.
#[derive(Debug)]
pub struct Lines(HashMap<String, usize>);

impl Lines {
    /// # Errors
    /// When no entity has the name.
    pub fn of(&self, name: &str) -> Result<usize> {
        self.0.get(name).copied().ok_or_else(|| format!("an answer names {name:?}, which is not there").into())
    }
}

impl Run {
    /// What loading for so many seconds answers.
    #[must_use]
    pub fn loaded(seconds: f64) -> Self {
        Self { load_seconds: seconds, ..Self::default() }
    }

    /// What begins with an opening of so many seconds.
    #[must_use]
    pub fn opened(seconds: f64) -> Self {
        Self { open_seconds: seconds, ..Self::default() }
    }

    /// Asks every question, one after another; `line` makes of an answer what the driver checks.
    ///
    /// # Errors
    /// The first of a call.
    pub async fn ask<Q, A>(
        &mut self,
        load: &str,
        questions: &[Q],
        mut call: impl AsyncFnMut(&Q) -> Result<A>,
        told: impl Fn(A) -> Result<Vec<usize>>,
    ) -> Result<()> {
        let began = Instant::now();
        for question in questions {
            if began.elapsed() > WARM_UP {
                break;
            }
            call(question).await?;
        }
        let mut answers = Answers::default();
        for question in questions {
            let began = Instant::now();
            let answer = call(question).await?;
            answers.times_us.push(began.elapsed().as_secs_f64() * 1e6);
            answers.answers.push(told(answer)?);
        }
        self.loads.insert(load.to_owned(), answers);
        Ok(())
    }

    /// Notes a load of writes: what each took, and all together.
    pub fn wrote(&mut self, load: &str, times_us: Vec<f64>, count: usize, seconds: f64) {
        let answers = Answers { times_us, answers: Vec::new(), rate: Some(count as f64 / seconds) };
        self.loads.insert(load.to_owned(), answers);
    }
}

/// Does the job that the second argument holds, if the first is `graph`; `None` if it is another store.
#[must_use]
pub fn main(serve: impl FnOnce(&Job) -> Result<Run>) -> Option<std::process::ExitCode> {
    crate::job::main("graph", |job: Job| serve(&job))
}
