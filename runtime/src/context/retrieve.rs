//! Retrieving: passages near to a question, that hold its words, or that say facts about what it names, fused.
//!
//! Start at [`Retrieve`]; [`Fused`] is how the ways become one list.
//!
//! Always true: a passage is answered only if its document is there, in this context, at the end; points of others are passed
//! over, and the next best take their places.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use futures::FutureExt;
use futures::future::BoxFuture;
use larder_actors::{Error, Result};
use larder_protocol::chat::ChatMessage;
use larder_protocol::documents::{PassageHit, ReadPassages, SearchPassages, StoredNode};
use larder_protocol::filter::Filter;
use larder_protocol::graph::{FindMentions, Mention};
use larder_protocol::limits::PAGE_ROWS_MAX;
use larder_protocol::vectors::{Hit, PointFields, SearchOptions, SearchPoints, Vector};
use larder_protocol::{Error as Kind, NodeId};

use super::prepare::SOURCE_PREFIX;
use super::{Context, words};

/// What a rank is added to before it is inverted. The usual number: Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion
/// outperforms Condorcet", SIGIR 2009.
const FUSION_RANK: f64 = 60.0;
/// Candidates of each way for each passage that is wanted, and at least so many.
const CANDIDATES_EACH: usize = 3;
const CANDIDATES_MIN: usize = 30;
/// Passages that are read at once: so many are read on the caller's thread.
const READ_AT_ONCE: usize = 32;
/// Newest facts of an entity that are looked at, on either side.
const FACTS_EACH: usize = 64;

/// A retrieval in the making: options are chained, then it is awaited as it stands.
///
/// Three ways look for candidates: embeddings near to the question's (vectors), words that it has (full text, BM25; any of the
/// rarest of them), and facts about entities that it names (graph). Each gives a ranked list; a passage's
/// score is the sum of `1 / (60 + rank)` over the lists that it is in (reciprocal-rank fusion), so that what several ways find
/// comes first. Passages of one score come in the order of their ids.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use larder::{Document, HashingEmbedder, JsonText, Node, field};
///
/// # let larder = larder::Larder::temporary().await?;
/// let notes = larder.context("notes").embedder(HashingEmbedder::default()).open().await?;
/// let lang = |lang: &str| JsonText::new(format!(r#"{{"lang": "{lang}"}}"#));
/// let nodes = [
///     Node::text("tea#1", "Tea is grown in the hills.")?.with_metadata(lang("en")?),
///     Node::text("tea#2", "Tee wird in den Hügeln angebaut.")?.with_metadata(lang("de")?),
/// ];
/// notes.put(Document::new("tea")?.with_fingerprint("v1"), nodes).await?;
/// let found = notes.retrieve("where is tea grown?").k(5).filter(field("lang").eq("en")).token_budget(100).await?;
/// assert_eq!(found.passages.len(), 1);
/// assert_eq!(found.passages[0].text(), "Tea is grown in the hills.");
/// assert!(found.tokens.is_some_and(|tokens| tokens <= 100));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a retrieval is only done when it is awaited"]
pub struct Retrieve {
    context: Context,
    question: String,
    vector: Option<Result<Vector, Kind>>,
    k: usize,
    filter: Option<Filter>,
    token_budget: Option<u64>,
    ways: Ways,
}

/// Which ways look for candidates.
#[derive(Debug, Clone, Copy)]
struct Ways {
    vectors: bool,
    words: bool,
    facts: bool,
}

/// What was retrieved.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Retrieval {
    /// The passages, best first.
    pub passages: Vec<Passage>,
    /// How many tokens their texts have, by the chat store's counter, where there is a budget.
    pub tokens: Option<u64>,
    /// How many passages were left out since they do not fit the budget.
    pub left_out: usize,
}

/// A passage that was retrieved.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Passage {
    /// The node, with its document and metadata.
    pub node: larder_protocol::documents::Node,
    /// Its document: the source.
    pub document: Option<larder_protocol::DocumentId>,
    /// The fused score: higher is better.
    pub score: f64,
    /// Why it was chosen: one reason for each way that found it.
    pub reasons: Vec<Reason>,
    /// How many tokens its text has, where there is a budget.
    pub tokens: Option<u64>,
}

impl Passage {
    /// Returns the passage's text; empty where the node has none.
    #[must_use]
    pub fn text(&self) -> &str {
        self.node.content.text().unwrap_or_default()
    }
}

/// Why a passage was chosen.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Reason {
    /// Its embedding is near to the question's.
    Vector {
        /// Its place among those nearest, from 1.
        rank: usize,
        /// As the metric says: the cosine, by default.
        score: f32,
    },
    /// It holds words of the question.
    Words {
        /// Its place among those that fit best, from 1.
        rank: usize,
        /// BM25: higher is better.
        score: f64,
    },
    /// It says a fact about something that the question names.
    Fact {
        /// Its place among those that say most, from 1.
        rank: usize,
        /// How many of the named entities its facts name, in sum.
        score: f64,
        /// One of the facts: subject, what is said, object.
        fact: (String, String, String),
    },
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Vector { rank, score } => write!(f, "near to the question (no. {rank}, {score:.3})"),
            Self::Words { rank, score } => write!(f, "holds its words (no. {rank}, {score:.2})"),
            Self::Fact { rank, fact: (subject, said, object), .. } => {
                write!(f, "says that {subject} {said} {object} (no. {rank})")
            }
        }
    }
}

impl Context {
    /// Retrieves the passages that fit a question best. Default: ten. See [`Retrieve`].
    pub fn retrieve(&self, question: impl Into<String>) -> Retrieve {
        Retrieve {
            context: self.clone(),
            question: question.into(),
            vector: None,
            k: 10,
            filter: None,
            token_budget: None,
            ways: Ways { vectors: true, words: true, facts: self.inner.record.has_facts },
        }
    }
}

impl Retrieve {
    /// How many passages to find: 0, which finds none, to 3,000. Default 10.
    pub fn k(mut self, k: usize) -> Self {
        self.k = k;
        self
    }

    /// Only passages whose metadata this is true of.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = Some(filter);
        self
    }

    /// Only so many tokens of text in all, by the chat store's counter. Passages are taken best first; one that does not fit any
    /// more is left out, and the next is tried.
    pub fn token_budget(mut self, tokens: u64) -> Self {
        self.token_budget = Some(tokens);
        self
    }

    /// Gives the question's embedding, so that the embedder is not asked.
    pub fn vector(mut self, vector: impl Into<Vec<f32>>) -> Self {
        self.vector = Some(Vector::new(vector));
        self
    }

    /// Does not look for embeddings.
    pub fn without_vectors(mut self) -> Self {
        self.ways.vectors = false;
        self
    }

    /// Does not look for words.
    pub fn without_words(mut self) -> Self {
        self.ways.words = false;
        self
    }

    /// Does not look for facts.
    pub fn without_facts(mut self) -> Self {
        self.ways.facts = false;
        self
    }

    async fn run(self) -> Result<Retrieval> {
        if self.k > PAGE_ROWS_MAX / CANDIDATES_EACH {
            let reason = format!("{} is more than {}", self.k, PAGE_ROWS_MAX / CANDIDATES_EACH);
            return Err(Kind::invalid("retrieval k", reason).into());
        }
        if self.k == 0 {
            return Ok(Retrieval { passages: Vec::new(), tokens: self.token_budget.map(|_| 0), left_out: 0 });
        }
        let vector = self.embedding().await?;
        let mut candidate_count = CANDIDATES_MIN.max(self.k * CANDIDATES_EACH);
        loop {
            let (fused, is_whole) = self.candidates(vector.as_ref(), candidate_count).await?;
            let passages = self.read(fused).await?;
            // Some were passed over, and there may be others behind them.
            if passages.len() < self.k && !is_whole && candidate_count < PAGE_ROWS_MAX {
                candidate_count = (candidate_count * 4).min(PAGE_ROWS_MAX);
                continue;
            }
            return self.within_budget(passages).await;
        }
    }

    async fn embedding(&self) -> Result<Option<Vector>> {
        match &self.vector {
            _ if !self.ways.vectors => Ok(None),
            Some(vector) => Ok(Some(vector.clone()?)),
            // Without an embedder, words and facts are left.
            None if self.context.inner.embedder.is_none() => Ok(None),
            None if self.question.trim().is_empty() => Ok(None),
            None => Ok(Some(self.context.embed_query(&self.question).await?)),
        }
    }

    /// Returns the candidates of all ways, best first, and whether there are no others.
    async fn candidates(&self, vector: Option<&Vector>, limit: usize) -> Result<(Vec<Candidate>, bool)> {
        // The ways that go to other threads begin first; the vectors are compared here meanwhile.
        let (worded, said, near) = futures::try_join!(self.worded(limit), self.said(limit), self.near(vector, limit))?;
        let is_whole = worded.len() < limit && said.len() < limit && near.len() < limit;
        let mut fused = Fused::default();
        for (rank, Hit { id, score, .. }) in (1..).zip(near) {
            fused.add(NodeId::new(&id)?, rank, Reason::Vector { rank, score });
        }
        for (rank, PassageHit { id, score }) in (1..).zip(worded) {
            fused.add(id, rank, Reason::Words { rank, score });
        }
        for (rank, Mention { source, score, fact: (subject, said, object) }) in (1..).zip(said) {
            let Some(id) = source.as_str().strip_prefix(SOURCE_PREFIX) else { continue };
            let fact = (subject.name.into(), said.into(), object.name.into());
            fused.add(NodeId::new(id)?, rank, Reason::Fact { rank, score, fact });
        }
        Ok((fused.ranked(), is_whole))
    }

    async fn near(&self, vector: Option<&Vector>, limit: usize) -> Result<Vec<Hit>> {
        let Some(vector) = vector else { return Ok(Vec::new()) };
        let options = SearchOptions {
            k: limit,
            filter: self.filter.clone(),
            fields: PointFields::NONE,
            ..SearchOptions::default()
        };
        let collection = self.context.inner.record.collection.clone();
        self.context.send(SearchPoints { collection, vector: Some(vector.clone()), text: None, options }).await
    }

    async fn worded(&self, limit: usize) -> Result<Vec<PassageHit>> {
        let words = words::sought(&self.question);
        if !self.ways.words || words.is_empty() {
            return Ok(Vec::new());
        }
        let (context, filter) = (self.context.inner.name.clone(), self.filter.clone());
        self.context.send(SearchPassages { context, words, filter, limit }).await
    }

    async fn said(&self, limit: usize) -> Result<Vec<Mention>> {
        let names = if self.ways.facts { words::possible_names(&self.question) } else { Vec::new() };
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let message = FindMentions { names, prefix: SOURCE_PREFIX.to_owned(), facts_max: FACTS_EACH, limit };
        self.context.send(message).await
    }

    /// Reads the best candidates that are there.
    async fn read(&self, candidates: Vec<Candidate>) -> Result<Vec<Passage>> {
        let mut passages = Vec::with_capacity(self.k);
        let mut candidates = candidates.into_iter().peekable();
        while passages.len() < self.k && candidates.peek().is_some() {
            let some: Vec<Candidate> = candidates.by_ref().take(READ_AT_ONCE.min(self.k - passages.len())).collect();
            // Vectors and words were filtered already; what a fact is said by was not.
            let is_unfiltered = some.iter().any(Candidate::is_by_facts_alone);
            let message = ReadPassages {
                context: self.context.inner.name.clone(),
                ids: some.iter().map(|candidate| candidate.id.clone()).collect(),
                filter: self.filter.clone().filter(|_| is_unfiltered),
            };
            let read = self.context.send(message).await?;
            for (candidate, stored) in some.into_iter().zip(read) {
                if let Some(StoredNode { node, document, .. }) = stored {
                    let Candidate { score, reasons, .. } = candidate;
                    passages.push(Passage { node, document, score, reasons, tokens: None });
                }
            }
        }
        Ok(passages)
    }

    /// Leaves out what does not fit the budget.
    async fn within_budget(self, passages: Vec<Passage>) -> Result<Retrieval> {
        let Some(budget) = self.token_budget else { return Ok(Retrieval { passages, tokens: None, left_out: 0 }) };
        let (fitting, total, left_out) = self.fit(passages, budget).await?;
        Ok(Retrieval { passages: fitting, tokens: Some(total), left_out })
    }

    async fn fit(&self, passages: Vec<Passage>, budget: u64) -> Result<(Vec<Passage>, u64, usize)> {
        let counter = self.context.inner.larder.settings().chat.own.counter.clone();
        let messages: Vec<ChatMessage> = passages.iter().map(|passage| ChatMessage::user(passage.text())).collect();
        let bytes = passages.iter().map(|passage| passage.text().len()).sum();
        let count =
            move || messages.iter().map(|message| Ok(counter.count(message)?.text)).collect::<Result<Vec<u64>, Kind>>();
        let counter = &self.context.inner.larder.settings().chat.own.counter;
        let counts = if counter.is_quick(bytes) {
            count()?
        } else {
            let lost = || Error::from(Kind::invalid("token counter", "the runtime ended before it had counted"));
            self.context.inner.larder.off_thread(count).await.ok_or_else(lost)??
        };
        let (mut fitting, mut total, mut left_out) = (Vec::new(), 0, 0);
        for (mut passage, tokens) in passages.into_iter().zip(counts) {
            if total + tokens > budget {
                left_out += 1;
                continue;
            }
            total += tokens;
            passage.tokens = Some(tokens);
            fitting.push(passage);
        }
        Ok((fitting, total, left_out))
    }
}

impl IntoFuture for Retrieve {
    type Output = Result<Retrieval>;
    type IntoFuture = BoxFuture<'static, Result<Retrieval>>;

    fn into_future(self) -> Self::IntoFuture {
        self.run().boxed()
    }
}

/// A passage that some way has found.
#[derive(Debug)]
struct Candidate {
    id: NodeId,
    score: f64,
    reasons: Vec<Reason>,
}

impl Candidate {
    fn is_by_facts_alone(&self) -> bool {
        self.reasons.iter().all(|reason| matches!(reason, Reason::Fact { .. }))
    }
}

/// The ways' lists as one.
#[derive(Debug, Default)]
struct Fused {
    candidates: HashMap<NodeId, Candidate>,
}

impl Fused {
    #[expect(clippy::cast_precision_loss, reason = "ranks are small numbers")]
    fn add(&mut self, id: NodeId, rank: usize, reason: Reason) {
        let score = 1.0 / (FUSION_RANK + rank as f64);
        match self.candidates.entry(id) {
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                known.score += score;
                known.reasons.push(reason);
            }
            Entry::Vacant(place) => {
                let id = place.key().clone();
                place.insert(Candidate { id, score, reasons: vec![reason] });
            }
        }
    }

    fn ranked(self) -> Vec<Candidate> {
        let mut ranked: Vec<Candidate> = self.candidates.into_values().collect();
        ranked.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.id.cmp(&b.id)));
        ranked
    }
}
