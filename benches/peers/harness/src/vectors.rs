//! The vectors run's side in Rust: what `python/vectors.py`, its driver, asks of a peer, and what the peer answers.
//!
//! Start at [`main`]. The driver writes vectors and queries to files, checks every answer and computes recall; a peer measures.
//!
//! Always true: the metadata of a vector and the filter of a query follow from their numbers, here as in the driver.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Result;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Fill an empty folder.
    Build,
    /// Fill an empty folder with what each of [`CALLERS`] callers puts point by point, each on the disk once it is answered.
    Durable,
    /// Open the folder, and run the loads.
    Query,
}

/// Callers of a durable insert.
pub const CALLERS: usize = 100;
/// Points of a durable insert.
const DURABLE_COUNT: usize = 10_000;

/// One job of the driver.
#[derive(Debug, Deserialize)]
pub struct Job {
    pub stage: Stage,
    /// The peer's own.
    pub folder: PathBuf,
    /// Has `base.f32` and `queries.f32`, little endian.
    pub data: PathBuf,
    pub dimensions: usize,
    /// Names of [`Load`]s.
    pub loads: Vec<String>,
    /// Moves the values of filters, so that each round has others.
    pub round: usize,
    /// How hard the peer tries.
    #[serde(default)]
    pub setting: Setting,
    /// Read when it is first asked for: who answers from its own folder never does.
    #[serde(skip)]
    base: OnceLock<Vec<f32>>,
    #[serde(skip)]
    queries: Vec<f32>,
}

/// How hard a peer tries.
#[derive(Debug, Default, Deserialize)]
pub struct Setting {
    /// Every query is answered exactly.
    #[serde(default)]
    pub exact: bool,
}

/// What was measured.
#[derive(Debug, Default, Serialize)]
pub struct Run {
    pub insert_seconds: f64,
    /// Until the last vector is found.
    pub build_seconds: f64,
    /// From then on until maintenance in the background had nothing more to do.
    pub upkeep_seconds: f64,
    /// From opening the folder to the first answer.
    pub open_seconds: f64,
    /// What the process has grown by once all loads ran.
    pub memory_bytes: u64,
    loads: BTreeMap<String, Answers>,
}

#[derive(Debug, Default, Serialize)]
struct Answers {
    times_us: Vec<f64>,
    ids: Vec<Vec<usize>>,
}

/// The loads by name.
#[derive(Debug)]
pub enum Load {}

impl Load {
    /// The field that a load filters by, and how many values it has.
    #[must_use]
    pub fn field(load: &str) -> Option<(&'static str, usize)> {
        match load {
            "query-filter-50pct" => Some(("two", 2)),
            "query-filter-10pct" => Some(("ten", 10)),
            "query-filter-1pct" => Some(("hundred", 100)),
            "query-filter-0.1pct" => Some(("thousand", 1000)),
            _ => None,
        }
    }
}

impl Job {
    fn with_queries(mut self) -> Result<Self> {
        self.queries = floats(&self.data.join("queries.f32"))?;
        Ok(self)
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.all().len() / self.dimensions
    }

    /// How many points a durable insert has.
    #[must_use]
    pub fn durable_count(&self) -> usize {
        self.count().min(DURABLE_COUNT)
    }

    #[must_use]
    pub fn query_count(&self) -> usize {
        self.queries.len() / self.dimensions
    }

    /// Queries of a load that are not measured.
    #[must_use]
    pub fn warm_up_count(&self) -> usize {
        self.query_count().min(20)
    }

    #[must_use]
    pub fn all(&self) -> &[f32] {
        self.base.get_or_init(|| floats(&self.data.join("base.f32")).expect("the driver wrote it"))
    }

    #[must_use]
    pub fn base(&self, number: usize) -> &[f32] {
        &self.all()[number * self.dimensions..][..self.dimensions]
    }

    #[must_use]
    pub fn query(&self, number: usize) -> &[f32] {
        &self.queries[number * self.dimensions..][..self.dimensions]
    }

    /// The metadata of a vector.
    #[must_use]
    pub fn metadata(number: usize) -> String {
        let [two, ten, hundred, thousand] = [2, 10, 100, 1000].map(|count| number % count);
        format!(r#"{{"two":{two},"ten":{ten},"hundred":{hundred},"thousand":{thousand}}}"#)
    }

    /// The value that a query's filter asks for: another one for each.
    #[must_use]
    pub fn value(&self, query: usize, count: usize) -> i64 {
        i64::try_from((query * 7919 + self.round * 31) % count).unwrap_or_default()
    }
}

fn floats(path: &Path) -> Result<Vec<f32>> {
    let bytes = std::fs::read(path)?;
    Ok(bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect())
}

impl Run {
    /// What an insert of so many seconds answers.
    #[must_use]
    pub fn inserted(seconds: f64) -> Self {
        Self { insert_seconds: seconds, build_seconds: seconds, ..Self::default() }
    }

    /// What begins with an opening of so many seconds.
    #[must_use]
    pub fn opened(seconds: f64) -> Self {
        Self { open_seconds: seconds, ..Self::default() }
    }

    /// Notes what one query took and found.
    pub fn add(&mut self, load: &str, time: Duration, ids: Vec<usize>) {
        let answers = self.loads.entry(load.to_owned()).or_default();
        answers.times_us.push(time.as_secs_f64() * 1e6);
        answers.ids.push(ids);
    }

    /// Notes how much more memory this process has than `before`.
    pub fn note_memory(&mut self, before: u64) {
        self.memory_bytes = memory().saturating_sub(before);
    }
}

/// The memory of this process in bytes.
#[must_use]
pub fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}

/// Does the job that the second argument holds, if the first is `vectors`; `None` if it is another store.
#[must_use]
pub fn main(serve: impl FnOnce(&Job) -> Result<Run>) -> Option<std::process::ExitCode> {
    crate::job::main("vectors", |job: Job| serve(&job.with_queries()?))
}
