//! `larder docs`: documents and their nodes, the passages that are found, embedded and handed to a model.
//!
//! Start at [`Command`]; [`DocumentRow`] and [`NodeRow`] are what is printed and exported.

use clap::{Args, Subcommand, ValueEnum};
use futures::{Stream, StreamExt, TryStreamExt};
use larder::protocol::documents::{
    CharSpan, GetDocument, GetDocumentText, IngestionState, NodeContent, Relationships, StoredDocument, StoredNode,
};
use larder::protocol::limits::PAGE_ROWS_MAX;
use larder::protocol::{DocumentId, StoreName};
use larder::{Larder, TextQuery};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::arguments::Page;
use crate::failure::Failure;
use crate::folder::Folder;
use crate::json;
use crate::list::{self, PAGE_ROWS, Row};
use crate::output::{BOLD, DIM, Output};
use crate::table::Column;
use crate::text;
use crate::time;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List documents
    List(List),
    /// Print what is known of a document, and its passages
    Show(Show),
    /// Find passages by their words, best first
    Search(Search),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only documents whose ids begin so
    #[arg(long, default_value = "")]
    prefix: String,
    /// Only documents in this state
    #[arg(long, value_enum)]
    state: Option<StateFilter>,
    #[command(flatten)]
    page: Page,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StateFilter {
    /// All their passages are stored
    Done,
    /// Begun or failed
    Unfinished,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Its id, as `larder docs list` prints it
    id: String,
    /// Print the document's whole text alone, where it was kept
    #[arg(long)]
    text: bool,
    /// Most passages to print
    #[arg(short = 'n', long, default_value_t = 100, value_name = "ROWS", value_parser = crate::arguments::at_least_one)]
    limit: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Search {
    /// The words to look for
    #[arg(required = true)]
    text: Vec<String>,
    /// Most passages to print
    #[arg(short = 'n', long, default_value_t = 10, value_name = "ROWS", value_parser = crate::arguments::at_least_one)]
    limit: usize,
}

pub(crate) async fn run(command: Command, folder: &Folder, output: &mut Output) -> Result<(), Failure> {
    match command {
        Command::List(list) => self::list(list, folder, output).await,
        Command::Show(show) => self::show(show, folder, output).await,
        Command::Search(search) => self::search(search, folder, output).await,
    }
}

async fn list(list: List, folder: &Folder, output: &mut Output) -> Result<(), Failure> {
    let Some(larder) = folder.open_store(StoreName::Documents).await? else { return Ok(()) };
    let mut request = larder.documents().documents().below(list.prefix);
    request = request.limit(list.page.limit.saturating_add(1).min(PAGE_ROWS));
    if let Some(state) = list.state {
        request = request.done(state == StateFilter::Done);
    }
    if let Some(after) = list.page.after {
        request = request.after(DocumentId::new(after)?);
    }
    let rows = request.stream().map_ok(DocumentRow::from).err_into();
    let listed = list::print(output, list.page.limit, rows).await;
    larder.close().await;
    listed
}

async fn show(show: Show, folder: &Folder, output: &mut Output) -> Result<(), Failure> {
    let id = DocumentId::new(&show.id)?;
    let absent =
        || Failure::not_found(format!("document {:?} is not there", show.id)).with_hint("see `larder docs list`");
    let Some(larder) = folder.open_store(StoreName::Documents).await? else { return Err(absent()) };
    let read = read_shown(&larder, id, &show).await;
    larder.close().await;
    let Some(Shown { document, text, nodes }) = read? else { return Err(absent()) };
    if show.text {
        let unkept = || {
            Failure::not_found(format!("the text of document {:?} was not kept", show.id))
                .with_hint("without --text its passages are shown")
        };
        let text = text.ok_or_else(unkept)?;
        return output.answer(&TextOnly { id: show.id.clone(), text }, |output, shown| output.stored_text(&shown.text));
    }
    output.answer(&WithNodes { document, nodes }, print_document)
}

struct Shown {
    document: DocumentRow,
    text: Option<String>,
    nodes: Vec<NodeRow>,
}

async fn read_shown(larder: &Larder, id: DocumentId, show: &Show) -> Result<Option<Shown>, Failure> {
    let Some(document) = larder.ask(GetDocument { id: id.clone() }).await?.map(DocumentRow::from) else {
        return Ok(None);
    };
    if show.text {
        let text = larder.ask(GetDocumentText { id }).await?;
        return Ok(Some(Shown { document, text, nodes: Vec::new() }));
    }
    let nodes = larder.documents().nodes(&id).limit(show.limit.min(PAGE_ROWS)).stream();
    let nodes = nodes.take(show.limit).map_ok(NodeRow::from).try_collect().await?;
    Ok(Some(Shown { document, text: None, nodes }))
}

#[derive(Debug, Serialize)]
struct TextOnly {
    id: String,
    text: String,
}

#[derive(Debug, Serialize)]
struct WithNodes {
    #[serde(flatten)]
    document: DocumentRow,
    nodes: Vec<NodeRow>,
}

fn print_document(output: &mut Output, shown: &WithNodes) -> Result<(), Failure> {
    let WithNodes { document, nodes } = shown;
    let heading = output.styled(BOLD, &text::line(&document.id));
    output.line(heading)?;
    output.line(format!(
        "  {}, {} passages, updated {}",
        text::line(&document.state_for_people()),
        document.node_count,
        time::shown(larder::Timestamp(document.updated_ms))
    ))?;
    if let Some(metadata) = &document.metadata {
        output.line(format!("  {}", text::line(metadata.get())))?;
    }
    for node in nodes {
        let span =
            node.span.map(|CharSpan { start, end }| format!(" (characters {start} to {end})")).unwrap_or_default();
        let heading = output.styled(DIM, &text::line(&format!("{}{span}", node.id)));
        output.line(format!("\n{heading}"))?;
        output.line(text::block(node.text.as_deref().unwrap_or("(no text)")))?;
    }
    let left_out = document.node_count.saturating_sub(nodes.len() as u64);
    if left_out > 0 {
        output.note(format!("{left_out} more passages: --limit takes a higher number"));
    }
    Ok(())
}

async fn search(search: Search, folder: &Folder, output: &mut Output) -> Result<(), Failure> {
    let Some(larder) = folder.open_store(StoreName::Documents).await? else { return Ok(()) };
    let found = print_found(&larder, search.text.join(" "), search.limit, output).await;
    larder.close().await;
    found
}

/// Prints the passages that hold all of the words, best first.
pub(crate) async fn print_found(
    larder: &Larder,
    words: String,
    limit: usize,
    output: &mut Output,
) -> Result<(), Failure> {
    let hits = larder.documents().search(TextQuery::words(words)).limit(limit.min(PAGE_ROWS_MAX)).await?;
    let rows = hits
        .into_iter()
        .map(|hit| Ok(HitRow { score: hit.score, snippet: hit.snippet, node: NodeRow::from(hit.found) }));
    list::print(output, limit, futures::stream::iter(rows)).await
}

/// A passage that was found.
#[derive(Debug, Serialize)]
struct HitRow {
    score: f64,
    snippet: String,
    #[serde(flatten)]
    node: NodeRow,
}

impl Row for HitRow {
    const COLUMNS: &'static [Column] = &[Column::number("SCORE"), Column::text("PASSAGE"), Column::text("TEXT")];

    fn cells(&self) -> Vec<String> {
        vec![format!("{:.2}", self.score), self.node.id.clone(), text::preview(&self.snippet, 120)]
    }

    fn cursor(&self) -> String {
        self.node.id.clone()
    }
}

/// Returns every document, in the order of their ids.
pub(crate) fn documents(larder: &Larder) -> impl Stream<Item = Result<DocumentRow, Failure>> {
    larder.documents().documents().limit(PAGE_ROWS).stream().map_ok(DocumentRow::from).err_into()
}

/// Returns every node, in the order of their ids.
pub(crate) fn nodes(larder: &Larder) -> impl Stream<Item = Result<NodeRow, Failure>> {
    larder.documents().page().limit(PAGE_ROWS).stream().map_ok(NodeRow::from).err_into()
}

/// A document as it is printed and exported.
#[derive(Debug, Serialize)]
pub(crate) struct DocumentRow {
    id: String,
    /// `done`, `begun` or `failed`.
    state: &'static str,
    failure: Option<String>,
    node_count: u64,
    hash: Option<String>,
    fingerprint: Option<String>,
    metadata: Option<Box<RawValue>>,
    created_ms: i64,
    updated_ms: i64,
}

impl From<StoredDocument> for DocumentRow {
    fn from(document: StoredDocument) -> Self {
        let (state, failure) = match document.state {
            IngestionState::Done => ("done", None),
            IngestionState::Begun { .. } => ("begun", None),
            IngestionState::Failed { reason, .. } => ("failed", Some(reason)),
        };
        Self {
            id: document.id.to_string(),
            state,
            failure,
            node_count: document.node_count,
            hash: document.hash.map(|hash| hash.to_string()),
            fingerprint: document.fingerprint,
            metadata: json::stored(document.metadata.as_ref()),
            created_ms: document.created.0,
            updated_ms: document.updated.0,
        }
    }
}

impl DocumentRow {
    fn state_for_people(&self) -> String {
        let failure = self.failure.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("{}{failure}", self.state)
    }
}

impl Row for DocumentRow {
    const COLUMNS: &'static [Column] =
        &[Column::text("DOCUMENT"), Column::number("PASSAGES"), Column::text("UPDATED"), Column::text("STATE")];

    fn cells(&self) -> Vec<String> {
        let updated = time::shown(larder::Timestamp(self.updated_ms));
        vec![self.id.clone(), self.node_count.to_string(), updated, text::preview(&self.state_for_people(), 60)]
    }

    fn cursor(&self) -> String {
        self.id.clone()
    }
}

/// A node as it is printed and exported.
#[derive(Debug, Serialize)]
pub(crate) struct NodeRow {
    id: String,
    document: Option<String>,
    position: u64,
    /// What is searched.
    text: Option<String>,
    /// What it holds, where that is more than text.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<NodeContent>,
    span: Option<CharSpan>,
    metadata: Option<Box<RawValue>>,
    relationships: Relationships,
    hash: String,
    created_ms: i64,
    updated_ms: i64,
}

impl From<StoredNode> for NodeRow {
    fn from(stored: StoredNode) -> Self {
        let StoredNode { node, document, position, hash, created, updated } = stored;
        Self {
            id: node.id.to_string(),
            document: document.map(|id| id.to_string()),
            position,
            text: node.content.text().map(str::to_owned),
            content: Some(node.content).filter(|content| !matches!(content, NodeContent::Text(_))),
            span: node.span,
            metadata: json::stored(node.metadata.as_ref()),
            relationships: node.relationships,
            hash: hash.to_string(),
            created_ms: created.0,
            updated_ms: updated.0,
        }
    }
}
