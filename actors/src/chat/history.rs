//! A window: the session's rows behind the window policies.
//!
//! Start at [`window`]. One read transaction; the newest rows are read one by one, with their contents, until the policy
//! has enough.
//!
//! Always true: in place, no more is read than takes about a millisecond, and nothing is counted.

use std::borrow::Cow;
use std::collections::BTreeMap;

use larder_protocol::Error as Kind;
use larder_protocol::chat::{
    ChatMessage, ChatWindow, ContentBlock, GetWindow, LeftOut, MessageId, OrphanResult, StoredMessage, WindowPolicy,
};
use rusqlite::{Connection, Rows, params};

use super::append::find_counter;
use super::place::{IS_NO_SUMMARY, Place};
use super::row::{self, COLUMNS, MANDATORY_SOURCE, ReadMessage, SOURCE};
use super::store::Reading;
use super::tokens::{Joining, TEXT_OF_NONE, TokenCounter, count_message};
use super::window::{History, Row, StrictLimits, WindowError, chat_memory_buffer, strict};
use super::{links, sessions};
use crate::store::{Failure, Outcome};

/// Most rows that are read in place, at about 1 µs each.
const IN_PLACE_ROWS_MAX: usize = 500;
/// Most bytes of messages that are read in place.
const IN_PLACE_BYTES_MAX: usize = 512 << 10;

/// Room for so many contents is made at once; a window of 8,192 tokens holds about 100 messages.
const ROWS_EXPECTED: usize = 128;

/// Why a row was not read.
enum Stop {
    /// It is to be counted, or it is one too many, and the answer may not take long.
    TakesLong,
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
    if !is_strict && !message.may_take_long && counter.joining() != Joining::SplitsAtWords {
        // It counts the joined texts themselves.
        return Ok(None);
    }
    context.at_one_instant(|connection| read_window(connection, counter, message, is_strict))
}

fn read_window(
    connection: &Connection,
    counter: &dyn TokenCounter,
    message: &GetWindow,
    is_strict: bool,
) -> Outcome<Option<ChatWindow>> {
    // A session without rows: its window is empty, and its limits are checked all the same.
    let session_id = sessions::find_id(connection, message.session.as_str())?.unwrap_or(-1);
    let condition = if is_strict { "1" } else { IS_NO_SUMMARY };
    let sql = format!(
        "SELECT {COLUMNS} FROM {SOURCE} WHERE place.session_id = ?1 AND place.archived = 0 AND {condition}
         ORDER BY place.id DESC"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let newest_first = statement.query([session_id])?;
    let counter_id = find_counter(connection, counter.id())?;
    let mut history = SqlHistory {
        connection,
        session_id,
        newest_first,
        counter,
        counter_id,
        room: (!message.may_take_long).then_some(Room { rows: IN_PLACE_ROWS_MAX, bytes: IN_PLACE_BYTES_MAX }),
        uncounted_count: 0,
        read: Vec::with_capacity(ROWS_EXPECTED),
        beside: BTreeMap::new(),
    };
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
    let mut messages: Vec<StoredMessage> = rows.iter().filter_map(|row| history.take(row.id)).collect();
    without_orphans(&mut messages, &left_out.orphan_results);
    let uncounted_count = history.uncounted_count;
    Ok(Some(ChatWindow { session: message.session.clone(), messages, tokens, limit, left_out, uncounted_count }))
}

fn answer_for(error: WindowError<Stop>) -> Outcome<Option<ChatWindow>> {
    match error {
        WindowError::TooSmall { needed_tokens, limit } => Err(Kind::WindowTooSmall { needed_tokens, limit }.into()),
        WindowError::InitialOverLimit { initial_tokens, limit } => {
            Err(Kind::WindowTooSmall { needed_tokens: initial_tokens, limit }.into())
        }
        WindowError::Read(Stop::TakesLong) => Ok(None),
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
    /// What may still be read. `None`: the answer may take long.
    room: Option<Room>,
    uncounted_count: u64,
    /// The contents read so far, newest first; taken out where they are in the window.
    read: Vec<(MessageId, Option<StoredMessage>)>,
    /// Those of mandatory messages and what belongs to them.
    beside: BTreeMap<MessageId, StoredMessage>,
}

/// What may still be read.
struct Room {
    rows: usize,
    bytes: usize,
}

impl Room {
    fn take(&mut self, message: &ChatMessage) -> Result<(), Stop> {
        let rows = self.rows.checked_sub(1);
        let bytes = self.bytes.checked_sub(message.size_bytes());
        let (Some(rows), Some(bytes)) = (rows, bytes) else { return Err(Stop::TakesLong) };
        *self = Self { rows, bytes };
        Ok(())
    }
}

impl SqlHistory<'_> {
    /// Returns the row of a message, with its counts by this window's counter.
    #[inline]
    fn row(&mut self, place: &Place, stored: &mut StoredMessage) -> Result<Row, Stop> {
        if let Some(room) = &mut self.room {
            room.take(&stored.message)?;
        }
        let mut tokens = place.tokens;
        if place.counter_id.is_none() || place.counter_id != self.counter_id {
            if self.room.is_some() {
                return Err(Stop::TakesLong);
            }
            tokens = count_message(self.counter, &stored.message).map_err(|error| Stop::Failed(error.into()))?;
            stored.tokens = Some(tokens.cost);
            self.uncounted_count += 1;
        }
        let mut row = Row::of(stored.id, &stored.message, tokens);
        row.pinned = stored.pinned;
        row.summary = stored.summary;
        Ok(row)
    }

    fn keep_beside(&mut self, message: ReadMessage) -> Result<Row, Stop> {
        let ReadMessage { place, mut stored } = message;
        let row = self.row(&place, &mut stored)?;
        self.beside.insert(row.id, stored);
        Ok(row)
    }

    /// Returns the place of a message among those read newest first.
    fn place(&self, id: MessageId) -> Option<usize> {
        self.read.binary_search_by(|(read, _)| id.cmp(read)).ok()
    }

    fn take(&mut self, id: MessageId) -> Option<StoredMessage> {
        let place = self.place(id);
        place.and_then(|at| self.read.get_mut(at)?.1.take()).or_else(|| self.beside.remove(&id))
    }

    /// Returns the newest message before `oldest`: what a window that begins there left out.
    fn older_than(&self, oldest: Option<&Row>) -> Outcome<Option<MessageId>> {
        let Some(oldest) = oldest else { return Ok(None) };
        let id = self
            .connection
            .prepare_cached(&format!(
                "SELECT max(id) FROM place WHERE session_id = ?1 AND archived = 0 AND id < ?2 AND {IS_NO_SUMMARY}"
            ))?
            .query_row(params![self.session_id, oldest.id.0], |row| row.get::<_, Option<u64>>(0))?;
        Ok(id.map(MessageId))
    }
}

impl History for SqlHistory<'_> {
    type Error = Stop;

    #[inline]
    fn older(&mut self) -> Result<Option<Row>, Stop> {
        let Some(row) = self.newest_first.next()? else { return Ok(None) };
        let ReadMessage { place, mut stored } = row::read(row, 0)?;
        let row = self.row(&place, &mut stored)?;
        self.read.push((row.id, Some(stored)));
        Ok(Some(row))
    }

    fn text(&mut self, row: &Row) -> Result<Cow<'_, str>, Stop> {
        let read = self.place(row.id).and_then(|at| self.read.get(at)?.1.as_ref());
        let text = read.and_then(|stored| stored.message.text());
        Ok(text.map_or(Cow::Borrowed(TEXT_OF_NONE), Cow::Owned))
    }

    fn mandatory(&mut self) -> Result<Vec<Row>, Stop> {
        let sql = format!(
            "SELECT {COLUMNS} FROM {MANDATORY_SOURCE}
             WHERE place.session_id = ?1 AND place.archived = 0 AND place.mandatory = 1"
        );
        let found = row::read_all(self.connection, &sql, [self.session_id])?;
        found.into_iter().map(|message| self.keep_beside(message)).collect()
    }

    fn partners(&mut self, row: &Row) -> Result<Vec<Row>, Stop> {
        let mut rows = Vec::new();
        for id in links::partners(self.connection, self.session_id, row.id.0)? {
            let sql = format!(
                "SELECT {COLUMNS} FROM {SOURCE} WHERE place.session_id = ?1 AND place.archived = 0 AND place.id = ?2"
            );
            for message in row::read_all(self.connection, &sql, params![self.session_id, id])? {
                rows.push(self.keep_beside(message)?);
            }
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests;
