//! `larder search`: the passages that fit a question best.
//!
//! Always true: where there is a context, it is asked, by every way that it has; without one the documents' words are.

use clap::Args;
use larder::protocol::StoreName;
use larder::{Larder, Passage, Reason};
use serde::Serialize;

use crate::arguments::at_least_one;
use crate::contexts::{self, Opened};
use crate::documents;
use crate::failure::Failure;
use crate::folder::Folder;
use crate::json;
use crate::output::{BOLD, DIM, Output};
use crate::text;

/// Characters of a passage that people are shown.
const SHOWN_CHARS: usize = 400;

#[derive(Debug, Args)]
pub(crate) struct Search {
    /// The question
    #[arg(required = true)]
    text: Vec<String>,
    /// Most passages to print, up to 1,000
    #[arg(short = 'n', long, default_value_t = 10, value_name = "PASSAGES", value_parser = passages)]
    limit: usize,
    /// In which context; without it the only one, or the one that `ingest` makes
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

/// More are no answer to a question: `larder docs search` and `larder export` print all there is.
const PASSAGES_MAX: usize = 1_000;

fn passages(text: &str) -> Result<usize, String> {
    match at_least_one(text)? {
        number if number > PASSAGES_MAX => Err(format!("it is more than {PASSAGES_MAX}")),
        number => Ok(number),
    }
}

/// A passage that was found.
#[derive(Debug, Serialize)]
struct PassageRow {
    id: String,
    document: Option<String>,
    score: f64,
    reasons: Vec<ReasonView>,
    text: String,
    metadata: Option<Box<serde_json::value::RawValue>>,
    span: Option<larder::protocol::documents::CharSpan>,
}

/// Why it was found.
#[derive(Debug, Serialize)]
struct ReasonView {
    /// `vector`, `words` or `fact`.
    way: &'static str,
    rank: usize,
    score: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    fact: Option<(String, String, String)>,
    #[serde(skip)]
    for_people: String,
}

impl From<Reason> for ReasonView {
    fn from(reason: Reason) -> Self {
        let for_people = reason.to_string();
        let (way, rank, score, fact) = match reason {
            Reason::Vector { rank, score } => ("vector", rank, f64::from(score), None),
            Reason::Words { rank, score } => ("words", rank, score, None),
            Reason::Fact { rank, score, fact } => ("fact", rank, score, Some(fact)),
            _ => ("other", 0, 0.0, None),
        };
        Self { way, rank, score, fact, for_people }
    }
}

impl From<Passage> for PassageRow {
    fn from(passage: Passage) -> Self {
        let text = passage.text().to_owned();
        let Passage { node, document, score, reasons, .. } = passage;
        Self {
            id: node.id.to_string(),
            document: document.map(|id| id.to_string()),
            score,
            reasons: reasons.into_iter().map(ReasonView::from).collect(),
            text,
            metadata: json::stored(node.metadata.as_ref()),
            span: node.span,
        }
    }
}

pub(crate) async fn run(search: Search, folder: &Folder, output: &mut Output) -> Result<(), Failure> {
    let Some(larder) = folder.open_store(StoreName::Documents).await? else {
        output.note("no documents are there yet: `larder ingest` brings some");
        return Ok(());
    };
    let found = find(search, &larder, output).await;
    larder.close().await;
    found
}

async fn find(search: Search, larder: &Larder, output: &mut Output) -> Result<(), Failure> {
    let Search { text, limit, context } = search;
    let question = text.join(" ");
    let Some(name) = contexts::choose(larder, context, output).await? else {
        return documents::print_found(larder, question, limit, output).await;
    };
    let Opened { context, model, has_vectors } = contexts::open(larder, &name).await?;
    let mut retrieve = context.retrieve(question).k(limit);
    if !has_vectors {
        retrieve = retrieve.without_vectors();
        if model != contexts::NONE {
            let model = format!("{model:?}");
            output.note(format!("by words and facts alone: this tool has no embedder {}", text::line(&model)));
        }
    }
    let passages = retrieve.await?.passages;
    if passages.is_empty() {
        output.note("nothing found: no passage holds words of the question");
    }
    let mut rows = passages.into_iter().map(PassageRow::from);
    if output.is_json() {
        return rows.try_for_each(|row| output.json(&row));
    }
    (1..).zip(rows).try_for_each(|(n, row)| print(n, &row, output))
}

fn print(n: usize, row: &PassageRow, output: &mut Output) -> Result<(), Failure> {
    let PassageRow { id, score, reasons, text, .. } = row;
    let heading = output.styled(BOLD, &text::line(id));
    output.line(format!("{n}. {heading}"))?;
    let reasons: Vec<&str> = reasons.iter().map(|reason| reason.for_people.as_str()).collect();
    let why = output.styled(DIM, &text::line(&format!("{score:.4}: {}", reasons.join("; "))));
    output.line(format!("   {why}"))?;
    output.line(format!("   {}\n", text::preview(text, SHOWN_CHARS)))
}
