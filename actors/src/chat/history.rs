//! A window read in place: the session's rows behind the window policies.
//!
//! Start at [`window`]. One read transaction; the newest rows are read one by one, with their contents, until the policy
//! has enough.

use std::borrow::Cow;
use std::collections::HashMap;

use larder_protocol::Error as Kind;
use larder_protocol::chat::{ChatWindow, ContentBlock, GetWindow, LeftOut, OrphanResult, StoredMessage, WindowPolicy};
use rusqlite::{Connection, Rows, params};

use super::append::find_counter;
use super::row::{self, COLUMNS, MANDATORY_SOURCE, ReadMessage, SOURCE};
use super::store::Reading;
use super::tokens::{Joining, TEXT_OF_NONE, TokenCounter, count_message};
use super::window::{History, Row, StrictLimits, WindowError, chat_memory_buffer, strict};
use super::{links, sessions};
use crate::store::{Failure, Outcome};

/// Why a row was not read.
enum Stop {
    /// It is to be counted, and that was not asked for.
    Uncounted,
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error.into())
    }
}

pub(super) fn window(context: &Reading<'_>, message: &GetWindow) -> Outcome<Option<ChatWindow>> {
    let counter = context.settings.counter.counter();
    let is_strict = match message.policy {
        WindowPolicy::Strict => true,
        WindowPolicy::ChatMemoryBuffer => false,
        other => return Err(Kind::invalid("window policy", format!("{other:?} is not known here")).into()),
    };
    if !is_strict && !message.may_count && counter.joining() != Joining::SplitsAtWords {
        // It counts the joined texts themselves.
        return Ok(None);
    }
    let transaction = context.connection.unchecked_transaction()?;
    let answer = read_window(&transaction, counter, message, is_strict);
    transaction.finish()?;
    answer
}

fn read_window(
    connection: &Connection,
    counter: &dyn TokenCounter,
    message: &GetWindow,
    is_strict: bool,
) -> Outcome<Option<ChatWindow>> {
    // A session without rows: its window is empty, and its limits are checked all the same.
    let session_id = sessions::find_id(connection, message.session.as_str())?.unwrap_or(-1);
    let sql = format!(
        "SELECT {COLUMNS} FROM {SOURCE} WHERE place.session_id = ?1 AND place.archived = 0 AND (?2 OR place.summary = 0)
         ORDER BY place.id DESC"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let newest_first = statement.query(params![session_id, is_strict])?;
    let counter_id = find_counter(connection, counter.id())?;
    let (may_count, read) = (message.may_count, HashMap::new());
    let mut history = SqlHistory { connection, session_id, newest_first, counter, counter_id, may_count, read };
    let limit = message.limit.tokens();
    let (rows, tokens, left_out) = if is_strict {
        let initial_tokens = message.initial_tokens;
        let overhead_tokens_per_message = message.overhead_tokens_per_message;
        let limits = StrictLimits { limit, initial_tokens, overhead_tokens_per_message };
        match strict(&mut history, limits) {
            Ok(window) => (window.rows, window.tokens, window.left_out),
            Err(error) => return answer_for(error),
        }
    } else {
        match chat_memory_buffer(&mut history, counter, limit, message.initial_tokens) {
            Ok(window) => {
                let through = history.older_than(window.rows.first())?;
                (window.rows, window.tokens, LeftOut { through, orphan_results: Vec::new() })
            }
            Err(error) => return answer_for(error),
        }
    };
    let mut messages: Vec<StoredMessage> = rows.iter().filter_map(|row| history.read.remove(&row.id.0)).collect();
    without_orphans(&mut messages, &left_out.orphan_results);
    Ok(Some(ChatWindow { session: message.session.clone(), messages, tokens, limit, left_out }))
}

fn answer_for(error: WindowError<Stop>) -> Outcome<Option<ChatWindow>> {
    match error {
        WindowError::TooSmall { needed_tokens, limit } => Err(Kind::WindowTooSmall { needed_tokens, limit }.into()),
        WindowError::InitialOverLimit { initial_tokens, limit } => {
            Err(Kind::WindowTooSmall { needed_tokens: initial_tokens, limit }.into())
        }
        WindowError::Read(Stop::Uncounted) => Ok(None),
        WindowError::Read(Stop::Failed(failure)) => Err(failure),
    }
}

/// Takes the results whose calls are not in the window out of messages that hold more than those.
fn without_orphans(messages: &mut [StoredMessage], orphans: &[OrphanResult]) {
    for orphan in orphans {
        if let Some(message) = messages.iter_mut().find(|message| message.id == orphan.id) {
            message.message.blocks.retain(
                |block| !matches!(block, ContentBlock::ToolResult { call_id, .. } if *call_id == orphan.call_id),
            );
        }
    }
}

/// The rows of one session, read as the policy asks for them.
struct SqlHistory<'a> {
    connection: &'a Connection,
    session_id: i64,
    newest_first: Rows<'a>,
    counter: &'a dyn TokenCounter,
    /// Rows counted under another id are counted again. `None`: nothing was ever counted by this counter.
    counter_id: Option<i64>,
    may_count: bool,
    /// The contents of the rows read so far.
    read: HashMap<u64, StoredMessage>,
}

impl SqlHistory<'_> {
    fn keep(&mut self, message: ReadMessage) -> Result<Row, Stop> {
        let ReadMessage { mut stored, counter_id, mut tokens } = message;
        if counter_id.is_none() || counter_id != self.counter_id {
            if !self.may_count {
                return Err(Stop::Uncounted);
            }
            tokens = count_message(self.counter, &stored.message).map_err(|error| Stop::Failed(error.into()))?;
            stored.tokens = Some(tokens.cost);
        }
        let mut row = Row::of(stored.id, &stored.message, tokens);
        row.pinned = stored.pinned;
        row.summary = stored.summary;
        self.read.insert(stored.id.0, stored);
        Ok(row)
    }

    /// Returns the newest message before `oldest`: what a window that begins there left out.
    fn older_than(&self, oldest: Option<&Row>) -> Outcome<Option<larder_protocol::chat::MessageId>> {
        let Some(oldest) = oldest else { return Ok(None) };
        let id = self
            .connection
            .prepare_cached(
                "SELECT max(id) FROM place WHERE session_id = ?1 AND archived = 0 AND id < ?2 AND summary = 0",
            )?
            .query_row(params![self.session_id, oldest.id.0], |row| row.get::<_, Option<u64>>(0))?;
        Ok(id.map(larder_protocol::chat::MessageId))
    }
}

impl History for SqlHistory<'_> {
    type Error = Stop;

    fn older(&mut self) -> Result<Option<Row>, Stop> {
        let Some(row) = self.newest_first.next()? else { return Ok(None) };
        let message = row::read(row, 0)?;
        self.keep(message).map(Some)
    }

    fn text(&mut self, row: &Row) -> Result<Cow<'_, str>, Stop> {
        let text = self.read.get(&row.id.0).and_then(|stored| stored.message.text());
        Ok(text.map_or(Cow::Borrowed(TEXT_OF_NONE), Cow::Owned))
    }

    fn mandatory(&mut self) -> Result<Vec<Row>, Stop> {
        let sql = format!(
            "SELECT {COLUMNS} FROM {MANDATORY_SOURCE}
             WHERE place.session_id = ?1 AND place.archived = 0 AND place.mandatory = 1"
        );
        let found = row::read_all(self.connection, &sql, [self.session_id])?;
        found.into_iter().map(|message| self.keep(message)).collect()
    }

    fn partners(&mut self, row: &Row) -> Result<Vec<Row>, Stop> {
        let mut rows = Vec::new();
        for id in links::partners(self.connection, self.session_id, row.id.0)? {
            let sql = format!(
                "SELECT {COLUMNS} FROM {SOURCE} WHERE place.session_id = ?1 AND place.archived = 0 AND place.id = ?2"
            );
            for message in row::read_all(self.connection, &sql, params![self.session_id, id])? {
                rows.push(self.keep(message)?);
            }
        }
        Ok(rows)
    }
}
