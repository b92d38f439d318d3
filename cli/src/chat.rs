//! `larder chat`: sessions and what was said in them.
//!
//! Start at [`Command`]; [`SessionRow`] and [`MessageRow`] are what is printed and exported.

use clap::{Args, Subcommand};
use futures::{Stream, StreamExt, TryStreamExt};
use larder::protocol::chat::{
    ContentBlock, GetSession, ListMessages, ListSessions, MessageOrder, SearchHit, SearchMessages, SearchScope,
    Session, StoredMessage,
};
use larder::protocol::{SessionId, StoreName};
use larder::{Larder, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::arguments::{Page, at_least_one};
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
    /// List sessions
    List(List),
    /// Print the newest messages of a session, the oldest of them first
    Show(Show),
    /// Find messages by their words, best first
    Search(Search),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only this owner's
    #[arg(long)]
    owner: Option<String>,
    #[command(flatten)]
    page: Page,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Its id, as `larder chat list` prints it
    session: String,
    /// Most messages to print
    #[arg(short = 'n', long, default_value_t = 20, value_name = "MESSAGES", value_parser = at_least_one)]
    limit: usize,
    /// Archived messages too
    #[arg(long)]
    archived: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Search {
    /// The words to look for
    #[arg(required = true)]
    text: Vec<String>,
    /// Only in this session
    #[arg(long)]
    session: Option<String>,
    /// Most messages to print
    #[arg(short = 'n', long, default_value_t = 10, value_name = "ROWS", value_parser = at_least_one)]
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
    let Some(larder) = folder.open_store(StoreName::Chat).await? else { return Ok(()) };
    let after = list.page.after.map(SessionId::new).transpose()?;
    let listed = list::print(output, list.page.limit, sessions(&larder, list.owner, after)).await;
    larder.close().await;
    listed
}

async fn show(show: Show, folder: &Folder, output: &mut Output) -> Result<(), Failure> {
    let session = SessionId::new(&show.session)?;
    let absent =
        || Failure::not_found(format!("session {:?} is not there", show.session)).with_hint("see `larder chat list`");
    let Some(larder) = folder.open_store(StoreName::Chat).await? else { return Err(absent()) };
    let read = read_newest(&larder, session, &show).await;
    larder.close().await;
    let (about, mut messages) = read?.ok_or_else(absent)?;
    messages.reverse();
    if output.is_json() {
        return messages.iter().try_for_each(|message| output.json(message));
    }
    let title = about.title.as_deref().map(|title| format!(": {title}")).unwrap_or_default();
    let heading = output.styled(BOLD, &text::line(&format!("{}{title}", about.id)));
    output.line(heading)?;
    messages.iter().try_for_each(|message| print_message(output, message))?;
    let left_out = about.message_count.saturating_sub(messages.len() as u64);
    if left_out > 0 {
        output.note(format!(
            "{left_out} more messages, older or archived: --limit takes a higher number, --archived shows all"
        ));
    }
    Ok(())
}

async fn read_newest(
    larder: &Larder,
    session: SessionId,
    show: &Show,
) -> Result<Option<(SessionRow, Vec<MessageRow>)>, Failure> {
    let Some(about) = larder.ask(GetSession { session: session.clone() }).await? else { return Ok(None) };
    let newest = messages(larder, session, MessageOrder::NewestFirst, show.archived, show.limit.min(PAGE_ROWS));
    let newest: Vec<MessageRow> = newest.take(show.limit).try_collect().await?;
    Ok(Some((SessionRow::from(about), newest)))
}

fn print_message(output: &mut Output, message: &MessageRow) -> Result<(), Failure> {
    let mut heading = format!("[{}] {}", message.id, message.role);
    for (is_set, word) in [(message.pinned, "pinned"), (message.summary, "summary"), (message.archived, "archived")] {
        if is_set {
            heading += &format!(", {word}");
        }
    }
    if let Some(created) = message.created_ms {
        heading += &format!(", {}", time::shown(Timestamp(created)));
    }
    let heading = output.styled(DIM, &text::line(&heading));
    output.line(format!("\n{heading}"))?;
    for block in &message.blocks {
        output.line(text::block(&block_for_people(block)))?;
    }
    Ok(())
}

fn block_for_people(block: &ContentBlock) -> String {
    match block {
        ContentBlock::Text { text, .. } => text.clone(),
        ContentBlock::ToolCall { name, arguments, .. } => format!("→ {name} {arguments}"),
        ContentBlock::ToolResult { text, is_error, .. } => {
            format!("← {}{text}", if *is_error { "error: " } else { "" })
        }
        ContentBlock::Thinking { text, .. } => format!("(thinking) {text}"),
        ContentBlock::Image { .. } => "(image)".to_owned(),
        ContentBlock::Audio { .. } => "(audio)".to_owned(),
        ContentBlock::Document { .. } => "(document)".to_owned(),
        _ => "(something else: --json shows it)".to_owned(),
    }
}

async fn search(search: Search, folder: &Folder, output: &mut Output) -> Result<(), Failure> {
    let Some(larder) = folder.open_store(StoreName::Chat).await? else { return Ok(()) };
    let scope = match search.session {
        Some(session) => SearchScope::Sessions(vec![SessionId::new(session)?]),
        None => SearchScope::All,
    };
    let message = SearchMessages {
        query: search.text.join(" "),
        prefix: false,
        scope,
        role: None,
        since: None,
        until: None,
        filter: None,
        include_archived: true,
        offset: 0,
        limit: search.limit.min(larder::protocol::limits::PAGE_ROWS_MAX),
    };
    let hits = larder.ask(message).await;
    larder.close().await;
    let rows = hits?.into_iter().map(|hit| Ok(HitRow::from(hit)));
    list::print(output, search.limit, futures::stream::iter(rows)).await
}

/// Returns an owner's sessions behind one, in the order of their ids.
pub(crate) fn sessions(
    larder: &Larder,
    owner: Option<String>,
    after: Option<SessionId>,
) -> impl Stream<Item = Result<SessionRow, Failure>> {
    let sessions = list::pages(after, move |after| {
        let list = ListSessions { owner: owner.clone(), archived: None, filter: None, after, limit: PAGE_ROWS };
        let larder = larder.clone();
        async move { larder.ask(list).await.map(|page| (page.sessions, page.next)) }
    });
    sessions.map_ok(SessionRow::from)
}

/// Returns a session's messages in an order, `page_rows` read at once.
pub(crate) fn messages(
    larder: &Larder,
    session: SessionId,
    order: MessageOrder,
    include_archived: bool,
    page_rows: usize,
) -> impl Stream<Item = Result<MessageRow, Failure>> {
    let name = session.to_string();
    let messages = list::pages(None, move |after| {
        let list = ListMessages { session: session.clone(), order, after, include_archived, limit: page_rows };
        let larder = larder.clone();
        async move { larder.ask(list).await.map(|page| (page.messages, page.next)) }
    });
    messages.map_ok(move |message| MessageRow::of(&name, message))
}

/// A session as it is printed and exported.
#[derive(Debug, Serialize)]
pub(crate) struct SessionRow {
    pub(crate) id: String,
    title: Option<String>,
    owner: Option<String>,
    metadata: Option<Box<RawValue>>,
    archived: bool,
    pub(crate) message_count: u64,
    token_count: u64,
    summary_through: Option<u64>,
    created_ms: i64,
    updated_ms: i64,
}

impl From<Session> for SessionRow {
    fn from(session: Session) -> Self {
        Self {
            id: session.id.to_string(),
            title: session.title,
            owner: session.owner,
            metadata: json::stored(session.metadata.as_ref()),
            archived: session.archived,
            message_count: session.message_count,
            token_count: session.token_count,
            summary_through: session.summary_through.map(|id| id.0),
            created_ms: session.created.0,
            updated_ms: session.updated.0,
        }
    }
}

impl Row for SessionRow {
    const COLUMNS: &'static [Column] = &[
        Column::text("SESSION"),
        Column::number("MESSAGES"),
        Column::number("TOKENS"),
        Column::text("UPDATED"),
        Column::text("OWNER"),
        Column::text("TITLE"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.message_count.to_string(),
            self.token_count.to_string(),
            time::shown(Timestamp(self.updated_ms)),
            self.owner.clone().unwrap_or_default(),
            text::preview(self.title.as_deref().unwrap_or_default(), 60),
        ]
    }

    fn cursor(&self) -> String {
        self.id.clone()
    }
}

/// A message as it is printed and exported.
#[derive(Debug, Serialize)]
pub(crate) struct MessageRow {
    session: String,
    id: u64,
    role: String,
    name: Option<String>,
    /// The texts of all blocks.
    text: Option<String>,
    blocks: Vec<ContentBlock>,
    metadata: Option<Box<RawValue>>,
    extra: Option<Box<RawValue>>,
    client_id: Option<String>,
    created_ms: Option<i64>,
    revision: u64,
    tokens: Option<u64>,
    pinned: bool,
    summary: bool,
    archived: bool,
}

impl MessageRow {
    fn of(session: &str, stored: StoredMessage) -> Self {
        let StoredMessage { id, message, revision, tokens, pinned, summary, archived } = stored;
        Self {
            session: session.to_owned(),
            id: id.0,
            role: message.role.to_string(),
            text: message.text(),
            name: message.name,
            metadata: json::stored(message.metadata.as_ref()),
            extra: json::stored(message.extra.as_ref()),
            client_id: message.client_id.map(|id| id.to_string()),
            created_ms: message.created.map(|time| time.0),
            blocks: message.blocks,
            revision,
            tokens,
            pinned,
            summary,
            archived,
        }
    }
}

/// A message that was found.
#[derive(Debug, Serialize)]
struct HitRow {
    score: f64,
    snippet: String,
    #[serde(flatten)]
    message: MessageRow,
}

impl From<SearchHit> for HitRow {
    fn from(hit: SearchHit) -> Self {
        let SearchHit { session, message, snippet, score } = hit;
        Self { score, snippet, message: MessageRow::of(session.as_str(), message) }
    }
}

impl Row for HitRow {
    const COLUMNS: &'static [Column] = &[
        Column::number("SCORE"),
        Column::text("SESSION"),
        Column::number("MESSAGE"),
        Column::text("ROLE"),
        Column::text("TEXT"),
    ];

    fn cells(&self) -> Vec<String> {
        let MessageRow { session, id, role, .. } = &self.message;
        let snippet = text::preview(&self.snippet, 120);
        vec![format!("{:.2}", self.score), session.clone(), id.to_string(), role.clone(), snippet]
    }

    fn cursor(&self) -> String {
        self.message.id.to_string()
    }
}
