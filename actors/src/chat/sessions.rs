//! Handlers over whole sessions, and the rows of sessions that the other handlers use.
//!
//! Start at [`find`]. A large session that is cleared or deleted loses its name at once and its rows bit by bit, in
//! [`sweep`], so that no write takes long.

use larder_protocol::chat::{
    ClearSession, CountSessions, DeleteSession, GetSession, ListSessions, MessageId, PutSession, Session, SessionPage,
};
use larder_protocol::limits::{OWNER_BYTES_MAX, SESSION_METADATA_BYTES_MAX, SESSION_TITLE_BYTES_MAX};
use larder_protocol::{Error as Kind, JsonText, SessionId, StoreName, Timestamp, Written};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::append::check_object;
use super::body::release;
use super::place::IS_SUMMARY;
use super::row::{self, COLUMNS, ReadMessage, SOURCE};
use super::store::{Reading, Writing};
use super::{edit, fork, links};
use crate::filter::{self, JsonColumn};
use crate::store::{Failure, Outcome, PAGE_BYTES_MAX, check_limit, decoded};

/// Rows that go with their session at once: about 20 ms.
const ROWS_AT_ONCE_MAX: u16 = 1_000;

/// A session's metadata, as filters read it.
const METADATA: JsonColumn = JsonColumn { in_query: "session.metadata", in_index: "metadata" };

const SESSION_COLUMNS: &str = "id, name, title, owner, metadata, archived, created_ms, checksum, updated_ms, message_count, token_count, summary_through";

/// A session with the columns that only the store sees.
pub(super) struct SessionRow {
    pub(super) id: i64,
    pub(super) session: Session,
}

pub(super) fn find(connection: &Connection, name: &str) -> Outcome<Option<SessionRow>> {
    let mut statement = connection.prepare_cached(&format!("SELECT {SESSION_COLUMNS} FROM session WHERE name = ?1"))?;
    let mut rows = statement.query([name])?;
    rows.next()?.map(read).transpose()
}

/// Returns the session's row id alone.
pub(super) fn find_id(connection: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
    connection.prepare_cached("SELECT id FROM session WHERE name = ?1")?.query_row([name], |row| row.get(0)).optional()
}

fn read(row: &Row<'_>) -> Outcome<SessionRow> {
    decoded(decode(row), || {
        let detail = "a session's description does not match its checksum, or cannot be read".to_owned();
        Kind::Corrupt { store: StoreName::Chat, detail, written: Written::NotApplied }.into()
    })
}

/// Returns the row's session; `None` when it is not what was stored.
fn decode(row: &Row<'_>) -> rusqlite::Result<Option<SessionRow>> {
    let metadata = row.get::<_, Option<String>>(4)?.map(JsonText::new).transpose();
    let (Ok(id), Ok(metadata)) = (SessionId::new(row.get::<_, String>(1)?), metadata) else { return Ok(None) };
    let session = Session {
        id,
        title: row.get(2)?,
        owner: row.get(3)?,
        metadata,
        archived: row.get(5)?,
        created: Timestamp(row.get(6)?),
        updated: Timestamp(row.get(8)?),
        message_count: row.get(9)?,
        token_count: row.get(10)?,
        summary_through: row.get::<_, Option<u64>>(11)?.map(MessageId),
    };
    let is_intact = Description::of(&session).checksum() == row.get::<_, i64>(7)?;
    Ok(is_intact.then_some(SessionRow { id: row.get(0)?, session }))
}

/// What is said of a session, as its checksum covers it; counts change too often for that and can be counted again.
pub(super) struct Description<'a> {
    pub(super) name: &'a str,
    pub(super) title: Option<&'a str>,
    pub(super) owner: Option<&'a str>,
    pub(super) metadata: Option<&'a str>,
    pub(super) archived: bool,
    pub(super) created_ms: i64,
}

impl<'a> Description<'a> {
    pub(super) fn of(session: &'a Session) -> Self {
        Self {
            name: session.id.as_str(),
            title: session.title.as_deref(),
            owner: session.owner.as_deref(),
            metadata: session.metadata.as_ref().map(JsonText::as_str),
            archived: session.archived,
            created_ms: session.created.0,
        }
    }

    /// Each part seeds the next one's hash; a missing one is not an empty one.
    pub(super) fn checksum(&self) -> i64 {
        let seed = xxh3_64_with_seed(&self.created_ms.to_le_bytes(), u64::from(self.archived));
        let parts = [Some(self.name), self.title, self.owner, self.metadata];
        let next = |seed, part: Option<&str>| part.map_or(seed ^ 1, |part| xxh3_64_with_seed(part.as_bytes(), seed));
        parts.into_iter().fold(seed, next).cast_signed()
    }

    fn insert(&self, connection: &Connection, now: Timestamp) -> rusqlite::Result<i64> {
        let Self { name, title, owner, metadata, archived, created_ms } = self;
        connection
            .prepare_cached(
                "INSERT INTO session (name, title, owner, metadata, archived, created_ms, updated_ms, message_count,
                     token_count, checksum)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, 0, ?8) RETURNING id",
            )?
            .query_row(params![name, title, owner, metadata, archived, created_ms, now.0, self.checksum()], |row| {
                row.get(0)
            })
    }
}

/// Returns the row of the session, which is made where it is missing.
pub(super) fn id_or_create(
    context: &mut Writing<'_>,
    session: &SessionId,
    found: Option<i64>,
) -> rusqlite::Result<i64> {
    if let Some(found) = found {
        return Ok(found);
    }
    let (name, created_ms) = (session.as_str(), context.now.0);
    let nothing_said = Description { name, title: None, owner: None, metadata: None, archived: false, created_ms };
    nothing_said.insert(context.connection, context.now)
}

/// Brings a session's counts and time up to date.
pub(super) fn adjust(context: &Writing<'_>, id: i64, messages: i64, tokens: i64) -> rusqlite::Result<()> {
    context
        .connection
        .prepare_cached(
            "UPDATE session SET message_count = message_count + ?2, token_count = max(0, token_count + ?3), updated_ms = ?4
             WHERE id = ?1",
        )?
        .execute(params![id, messages, tokens, context.now.0])?;
    Ok(())
}

/// Brings a session's tokens up to date, which is no change that its user made.
pub(super) fn add_tokens(connection: &Connection, id: i64, tokens: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE session SET token_count = max(0, token_count + ?2) WHERE id = ?1")?
        .execute(params![id, tokens])?;
    Ok(())
}

/// Returns a message of a session, archived or not.
pub(super) fn find_message(connection: &Connection, session_id: i64, id: MessageId) -> Outcome<Option<ReadMessage>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM {SOURCE} WHERE place.session_id = ?1 AND place.archived IN (0, 1) AND place.id = ?2"
    );
    Ok(row::read_all(connection, &sql, params![session_id, id.0])?.pop())
}

/// Returns the message that carries a client id.
pub(super) fn find_client(connection: &Connection, session_id: i64, client_id: &str) -> Outcome<Option<ReadMessage>> {
    let sql = format!("SELECT {COLUMNS} FROM {SOURCE} WHERE place.session_id = ?1 AND place.client_id = ?2");
    Ok(row::read_all(connection, &sql, params![session_id, client_id])?.pop())
}

/// Deletes the summary, if there is one.
pub(super) fn delete_summary(context: &Writing<'_>, session_id: i64) -> rusqlite::Result<()> {
    let body_id: Option<u64> = context
        .connection
        .prepare_cached(&format!(
            "DELETE FROM place INDEXED BY place_mandatory
             WHERE session_id = ?1 AND archived = 0 AND mandatory = 1 AND {IS_SUMMARY} RETURNING body_id"
        ))?
        .query_row([session_id], |row| row.get(0))
        .optional()?;
    if let Some(body_id) = body_id {
        release(context.connection, body_id)?;
    }
    Ok(())
}

pub(super) fn put(context: &mut Writing<'_>, message: &PutSession) -> Outcome<bool> {
    let PutSession { session, title, owner, metadata, archived } = message;
    check_text("title", title.as_deref(), SESSION_TITLE_BYTES_MAX)?;
    check_text("owner", owner.as_deref(), OWNER_BYTES_MAX)?;
    check_text("metadata", metadata.as_ref().map(JsonText::as_str), SESSION_METADATA_BYTES_MAX)?;
    if let Some(metadata) = metadata {
        check_object("metadata", metadata)?;
    }
    let found = find_id(context.connection, session.as_str())?;
    let id = id_or_create(context, session, found)?;
    let created_ms = context
        .connection
        .prepare_cached("SELECT created_ms FROM session WHERE id = ?1")?
        .query_row([id], |row| row.get(0))?;
    let (title, owner) = (title.as_deref(), owner.as_deref());
    let metadata = metadata.as_ref().map(JsonText::as_str);
    let said = Description { name: session.as_str(), title, owner, metadata, archived: *archived, created_ms };
    context
        .connection
        .prepare_cached(
            "UPDATE session SET title = ?2, owner = ?3, metadata = ?4, archived = ?5, updated_ms = ?6, checksum = ?7
             WHERE id = ?1",
        )?
        .execute(params![id, title, owner, metadata, archived, context.now.0, said.checksum()])?;
    context.changed("session", session.as_str(), session.as_str());
    Ok(found.is_none())
}

fn check_text(what: &str, text: Option<&str>, bytes_max: usize) -> Outcome<()> {
    match text {
        Some(text) if text.len() > bytes_max => {
            let (bytes, bytes_max) = (text.len() as u64, bytes_max as u64);
            Err(Kind::TooLarge { what: what.to_owned(), bytes, bytes_max }.into())
        }
        Some(text) if text.contains('\0') => Err(Kind::invalid(what, "it contains a NUL character").into()),
        _ => Ok(()),
    }
}

pub(super) fn get(context: &Reading<'_>, message: &GetSession) -> Outcome<Option<Session>> {
    Ok(find(context.connection, message.session.as_str())?.map(|found| found.session))
}

pub(super) fn list(context: &Reading<'_>, message: &ListSessions) -> Outcome<SessionPage> {
    check_limit(message.limit)?;
    let owner = if message.owner.is_some() { "owner = ?1" } else { "?1 IS NULL" };
    let filter = message.filter.as_ref().map(|filter| filter::compile(filter, METADATA, &[], 5)).transpose()?;
    let condition = filter.as_ref().map_or("1", |filter| &filter.sql);
    let sql = format!(
        "SELECT {SESSION_COLUMNS} FROM session
         WHERE {owner} AND name > ?2 AND (?3 IS NULL OR archived = ?3) AND {condition} ORDER BY name LIMIT ?4"
    );
    let mut statement = context.connection.prepare_cached(&sql)?;
    let after = message.after.as_ref().map_or("", SessionId::as_str);
    let mut parameters: Vec<Sql> = vec![
        message.owner.clone().into(),
        after.to_owned().into(),
        message.archived.into(),
        // One more than asked for tells whether there is a next page.
        i64::try_from(message.limit + 1).unwrap_or(i64::MAX).into(),
    ];
    parameters.extend(filter.into_iter().flat_map(|filter| filter.parameters));
    let mut rows = statement.query(params_from_iter(parameters))?;
    let (mut sessions, mut bytes) = (Vec::<Session>::new(), 0);
    while let Some(row) = rows.next()? {
        if sessions.len() == message.limit || bytes >= PAGE_BYTES_MAX {
            let next = sessions.last().map(|last| last.id.clone());
            return Ok(SessionPage { sessions, next });
        }
        let session = read(row)?.session;
        bytes += session.size_bytes();
        sessions.push(session);
    }
    Ok(SessionPage { sessions, next: None })
}

pub(super) fn count(context: &Reading<'_>, message: &CountSessions) -> Outcome<u64> {
    let owner = if message.owner.is_some() { "owner = ?1" } else { "?1 IS NULL" };
    let sql = format!("SELECT count(*) FROM session WHERE {owner} AND name IS NOT NULL");
    Ok(context.connection.prepare_cached(&sql)?.query_row([&message.owner], |row| row.get(0))?)
}

/// Verifies what is said of each session.
pub(super) fn check(connection: &Connection, found: &mut dyn FnMut(String)) -> Outcome<()> {
    let sql =
        format!("SELECT {SESSION_COLUMNS} FROM session WHERE id > ?1 AND name IS NOT NULL ORDER BY id LIMIT 1000");
    let mut after = 0;
    loop {
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query([after])?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            (after, count) = (row.get(0)?, count + 1);
            if let Err(Failure::Refused(damage)) = read(row) {
                found(format!("{damage} (row {after})"));
            }
        }
        if count == 0 {
            return Ok(());
        }
    }
}

pub(super) fn delete(context: &mut Writing<'_>, message: &DeleteSession) -> Outcome<bool> {
    let Some(id) = find_id(context.connection, message.session.as_str())? else { return Ok(false) };
    edit::erase_securely(context)?;
    remove(context, id)?;
    context.changed_all("delete", message.session.as_str());
    Ok(true)
}

pub(super) fn clear(context: &mut Writing<'_>, message: &ClearSession) -> Outcome<u64> {
    let Some(found) = find(context.connection, message.session.as_str())? else { return Ok(0) };
    edit::erase_securely(context)?;
    remove(context, found.id)?;
    Description::of(&found.session).insert(context.connection, context.now)?;
    context.changed_all("clear", message.session.as_str());
    Ok(found.session.message_count)
}

/// Takes a session's name away, and with it everything that anybody sees of it; a small one's rows go with it.
fn remove(context: &Writing<'_>, id: i64) -> rusqlite::Result<()> {
    let message_count: u64 = context
        .connection
        .prepare_cached(
            "UPDATE session SET name = NULL, title = NULL, owner = NULL, metadata = NULL WHERE id = ?1
             RETURNING message_count",
        )?
        .query_row([id], |row| row.get(0))?;
    if message_count <= u64::from(ROWS_AT_ONCE_MAX) {
        delete_rows(context.connection, id, usize::from(ROWS_AT_ONCE_MAX) + 2)?;
    }
    Ok(())
}

/// Deletes some rows of a session without a name, and the session once it has none; answers how many went.
fn delete_rows(connection: &Connection, id: i64, rows_max: usize) -> rusqlite::Result<usize> {
    let places = {
        let mut statement =
            connection.prepare_cached("SELECT archived, id, body_id FROM place WHERE session_id = ?1 LIMIT ?2")?;
        let rows = statement.query_map(params![id, rows_max], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        rows.collect::<rusqlite::Result<Vec<(bool, u64, u64)>>>()?
    };
    for (archived, message_id, body_id) in &places {
        connection
            .prepare_cached("DELETE FROM place WHERE session_id = ?1 AND archived = ?2 AND id = ?3")?
            .execute(params![id, archived, message_id])?;
        links::delete(connection, id, *message_id)?;
        release(connection, *body_id)?;
    }
    // A summary is no message, so there may be one row more than messages.
    if places.len() < rows_max {
        connection.prepare_cached("DELETE FROM session WHERE id = ?1")?.execute([id])?;
    }
    Ok(places.len())
}

/// Deletes rows of sessions that were deleted or cleared, and of forks that were left half made.
pub(super) fn sweep(context: &mut Writing<'_>, rows_max: usize) -> Outcome<usize> {
    let unnamed: Option<i64> = context
        .connection
        .prepare_cached(
            "SELECT id FROM session WHERE name IS NULL AND (forming_ms IS NULL OR forming_ms < ?1) LIMIT 1",
        )?
        .query_row([context.now.0.saturating_sub(fork::IDLE_MS_MAX)], |row| row.get(0))
        .optional()?;
    let Some(id) = unnamed else { return Ok(0) };
    edit::erase_securely(context)?;
    let deleted = delete_rows(context.connection, id, rows_max)?;
    context.changed_all("sweep", "");
    Ok(deleted)
}
