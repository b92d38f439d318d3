//! A context under attack: documents that are put and forgotten over four stores, and whether each is whole afterwards.
//!
//! Start at [`Contexts`], the workload, and [`Stored::judge`], what of each document is there.
//!
//! Always true: every version of a document has texts, points and facts of its own, so that a mixture of two is seen; no two
//! operations of one step are about the same document, so that their order is known.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::{Path, PathBuf};

use futures::TryStreamExt;
use larder::protocol::documents::StoredNode;
use larder::protocol::vectors::PointFields;
use larder::{BoxError, CheckDepth, Context, Document, Embedder, Extractor, Hit, Larder, NewRelation, Node};
use larder_faults::random::Random;
use larder_faults::{Durability, Finding, History, Op, Outcome, Verdict, Witness, Workload};
use tokio::runtime::Runtime;

use crate::stores::under_attack;

/// What operations are about, as the witness knows it.
const PLACE: &str = "context";
/// Documents: more than callers of a step, and odd, so that each is both put and forgotten.
const DOCUMENTS: u64 = 23;
const CALLERS_MAX: u64 = 8;

/// Makes a vector of a text's hash.
struct Testing {
    dimensions: usize,
}

impl Testing {
    fn vector(&self, text: &str) -> Vec<f32> {
        let seed = text.bytes().fold(1, |seed: u64, byte| seed.wrapping_mul(0x100_0000_01b3) ^ u64::from(byte));
        let mut random = Random::new(seed);
        (0..self.dimensions).map(|_| random.below(200) as f32 - 99.5).collect()
    }
}

impl Embedder for Testing {
    fn model(&self) -> &'static str {
        "testing"
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }

    async fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, BoxError> {
        Ok(texts.iter().map(|text| self.vector(text)).collect())
    }
}

/// "X uses Y" is a fact.
struct Uses;

impl Extractor for Uses {
    async fn extract(&self, node: &Node) -> Result<Vec<NewRelation>, BoxError> {
        let words: Vec<&str> = node.content.text().unwrap_or_default().split_whitespace().collect();
        let facts = words.windows(3).filter(|three| three[1] == "uses");
        facts.map(|three| Ok(NewRelation::new(three[0], "uses", three[2])?)).collect()
    }
}

/// What is written, and how large it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Corpus {
    pub(crate) dimensions: usize,
    /// What is added to each text.
    pub(crate) padding: usize,
}

impl Corpus {
    pub(crate) async fn open(&self, larder: &Larder) -> larder::Result<Context> {
        larder.context("notes").embedder(Testing { dimensions: self.dimensions }).extractor(Uses).open().await
    }

    pub(crate) async fn put(&self, context: &Context, id: &str, version: u64) -> larder::Result<()> {
        let document = Document::new(id)?.with_fingerprint(version.to_string());
        context.put(document, self.nodes(id, version)?).await.map(drop)
    }

    /// Some nodes are as in the version before, some are not, some go.
    fn nodes(&self, id: &str, version: u64) -> larder::Result<Vec<Node>> {
        let mut texts = vec![format!("{id} uses version{version}"), format!("{id} always uses itself")];
        texts.extend((0..version % 3).map(|part| format!("{id} part {part} of {}", version / 2)));
        let padding = " x".repeat(self.padding / 2);
        let node = |(n, text): (usize, String)| Ok(Node::text(format!("{id}#{n}"), text + &padding)?);
        texts.into_iter().enumerate().map(node).collect()
    }
}

/// What the stores hold of each document.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    nodes: BTreeMap<String, BTreeMap<String, String>>,
    points: BTreeMap<String, BTreeMap<String, Vec<f32>>>,
    facts: BTreeMap<String, BTreeSet<String>>,
    /// What `check()` of the context says.
    issues: Vec<String>,
}

impl Stored {
    pub(crate) async fn read(context: &Context) -> larder::Result<Self> {
        let (larder, mut stored) = (context.larder(), Self::default());
        let nodes: Vec<StoredNode> = larder.documents().page().stream().try_collect().await?;
        for StoredNode { node, document, .. } in nodes {
            let document = document.map_or_else(String::new, |id| id.to_string());
            let text = node.content.text().unwrap_or_default().to_owned();
            stored.nodes.entry(document).or_default().insert(node.id.to_string(), text);
        }
        let collection = larder.vectors().collection("notes").open().await?;
        let points: Vec<Hit> = collection.page().fields(PointFields::ALL).stream().try_collect().await?;
        for point in points {
            let document = point.document.map_or_else(String::new, |id| id.to_string());
            let vector = point.vector.map(|vector| vector.as_slice().to_vec()).unwrap_or_default();
            stored.points.entry(document).or_default().insert(point.id.to_string(), vector);
        }
        for relation in larder.graph().relations().limit(10_000).await?.relations {
            for source in relation.sources {
                let document = source.as_str().trim_start_matches("node:").split('#').next().unwrap_or_default();
                let fact = format!("{source} {} {} {}", relation.subject.name, relation.label, relation.object.name);
                stored.facts.entry(document.to_owned()).or_default().insert(fact);
            }
        }
        stored.issues = context.check().await?.iter().map(ToString::to_string).collect();
        Ok(stored)
    }

    pub(crate) fn issues(&self) -> &[String] {
        &self.issues
    }

    /// Returns the version of a document that is there, whole; `None`: nothing of it is. Anything else is an error.
    pub(crate) fn version(&self, corpus: &Corpus, id: &str) -> Result<Option<u64>, String> {
        let nodes = self.nodes.get(id);
        let version = nodes.and_then(|nodes| nodes.get(&format!("{id}#0"))).and_then(|text| {
            text.split_whitespace().find_map(|word| word.strip_prefix("version")).and_then(|word| word.parse().ok())
        });
        let expected = match version {
            Some(version) => corpus.nodes(id, version).map_err(|error| error.to_string())?,
            None => Vec::new(),
        };
        let text = |node: &Node| node.content.text().unwrap_or_default().to_owned();
        let testing = Testing { dimensions: corpus.dimensions };
        let texts: BTreeMap<_, _> = expected.iter().map(|node| (node.id.to_string(), text(node))).collect();
        let points: BTreeMap<_, _> = texts.iter().map(|(id, text)| (id.clone(), testing.vector(text))).collect();
        let mut facts = BTreeSet::new();
        for (id, text) in &texts {
            let words: Vec<&str> = text.split_whitespace().collect();
            let said = words.windows(3).filter(|three| three[1] == "uses");
            facts.extend(said.map(|three| format!("node:{id} {}", three.join(" "))));
        }
        if nodes.cloned().unwrap_or_default() != texts {
            return Err(format!("{id} has nodes of several versions"));
        }
        if self.points.get(id).cloned().unwrap_or_default() != points {
            return Err(format!("{id} has points that are not those of version {version:?}"));
        }
        if self.facts.get(id).cloned().unwrap_or_default() != facts {
            return Err(format!("{id} has facts that are not those of version {version:?}"));
        }
        Ok(version)
    }
}

pub(crate) fn id(number: u64) -> String {
    format!("d{number}")
}

/// Operation n is about document n % [`DOCUMENTS`], and one in four forgets it.
fn is_forget(op: u64) -> bool {
    op % 4 == 3
}

/// A context as a workload.
pub(crate) struct Contexts {
    corpus: Corpus,
    /// The control: what was begun is not finished, since the journal is lost.
    loses_journal: bool,
    runtime: Runtime,
}

/// An open context, and the folder that it is opened in again.
pub(crate) struct Session {
    folder: PathBuf,
    context: Context,
}

impl Contexts {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
        let corpus = Corpus { dimensions: 4, padding: 0 };
        Self { corpus, loses_journal: false, runtime: runtime.expect("threads for the callers") }
    }

    pub(crate) fn losing_the_journal(mut self) -> Self {
        self.loses_journal = true;
        self
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    async fn open_context(&self, folder: &Path) -> Result<Context, String> {
        let said = |error: larder::Error| format!("{error:?}");
        let builder = Larder::builder(folder).settings(|settings| under_attack(settings, larder::Durability::Durable));
        let larder = builder.open().await.map_err(|error| format!("{error:?}"))?;
        self.corpus.open(&larder).await.map_err(said)
    }

    async fn judge(&self, context: &Context, history: &History) -> larder::Result<Verdict> {
        let damage = context.larder().check(CheckDepth::Full).await?.findings;
        let damage = damage.into_iter().map(|one| Finding::Corrupt(format!("{}: {}", one.store, one.what)));
        let stored = Stored::read(context).await?;
        let (mut found, mut untold) = (BTreeSet::new(), BTreeSet::new());
        let mut torn: Vec<String> = stored.issues().to_vec();
        for document in 0..DOCUMENTS {
            let ops: Vec<(u64, Op)> = history.ops(PLACE).filter(|(op, _)| op % DOCUMENTS == document).collect();
            let shown = match stored.version(&self.corpus, &id(document)) {
                Ok(Some(version)) => Some(version),
                // Nothing is there: the last forget that may have been did it.
                Ok(None) => {
                    let forgets = ops.iter().filter(|(op, seen)| is_forget(*op) && !seen.is(Outcome::NotApplied));
                    forgets.map(|(op, _)| *op).next_back()
                }
                Err(what) => {
                    torn.push(what);
                    continue;
                }
            };
            found.extend(shown);
            // What came before it cannot be told any more.
            untold.extend(ops.iter().map(|(op, _)| *op).filter(|op| shown.is_some_and(|shown| *op < shown)));
        }
        let mut verdict = history.judge(PLACE, Durability::Durable, &found, &untold);
        verdict.findings.extend(damage.chain(torn.into_iter().map(Finding::Torn)));
        Ok(verdict)
    }
}

impl Workload for Contexts {
    type Session = Session;

    fn open(&self, folder: &Path) -> Result<Session, String> {
        if self.loses_journal {
            lose_journal(folder);
        }
        let context = self.wait(self.open_context(folder))?;
        Ok(Session { folder: folder.to_owned(), context })
    }

    fn step(&self, session: &mut Session, seed: u64, witness: &Witness) {
        let mut random = Random::new(seed);
        self.wait(async {
            let mut callers = tokio::task::JoinSet::new();
            for _ in 0..=random.below(CALLERS_MAX) {
                let (context, corpus, witness) = (session.context.clone(), self.corpus, witness.clone());
                let op = witness.begin(PLACE);
                callers.spawn(async move {
                    let document = id(op % DOCUMENTS);
                    let told = if is_forget(op) {
                        context.forget(&document).await.map(drop)
                    } else {
                        corpus.put(&context, &document, op).await
                    };
                    let outcome = told.map_or_else(|error| outcome(&error), |()| Outcome::Applied);
                    witness.settle(op, outcome);
                });
            }
            while let Some(called) = callers.join_next().await {
                called.expect("callers do not panic");
            }
            if random.percent(10) {
                session.context.larder().clone().close().await;
                session.context = self.open_context(&session.folder).await.expect("a disk without faults");
            }
        });
    }

    fn check(&self, session: &mut Session, history: &History) -> Result<Verdict, String> {
        self.wait(self.judge(&session.context, history)).map_err(|error| format!("{error:?}"))
    }

    fn close(&self, session: Session) {
        self.wait(session.context.larder().clone().close());
    }
}

fn outcome(error: &larder::Error) -> Outcome {
    match error.written() {
        larder::Written::Applied => Outcome::Applied,
        larder::Written::NotApplied => Outcome::NotApplied,
        larder::Written::Unknown => Outcome::Unknown,
    }
}

/// Takes the journal out of a folder that nobody has open; answers how many intents it held.
#[expect(clippy::disallowed_methods, reason = "a control takes the journal out of a closed file")]
pub(crate) fn lose_journal(folder: &Path) -> u64 {
    let file = folder.join("documents.db");
    if !file.is_file() {
        return 0;
    }
    let connection = rusqlite::Connection::open(file).expect("a file of larder's");
    let count = connection.query_row("SELECT count(*) FROM intent", [], |row| row.get(0));
    // It may have been cut off before its tables were made.
    let Ok(count) = count else { return 0 };
    connection.execute_batch("DELETE FROM intent; DELETE FROM intent_payload").expect("a sound file");
    count
}
