//! A new session of another's messages, in slices.
//!
//! Start at [`fork`]. The contents stay where they are: only places and links are copied.
//!
//! Always true: a fork has no name, and so is seen by nobody, before everything is copied; one that was left half made is
//! swept as a deleted session is.

use larder_protocol::chat::{ForkProgress, ForkSession, Forked, MessageId};
use larder_protocol::{Error as Kind, SessionId};
use rusqlite::{Connection, OptionalExtension, ToSql, params};

use super::place::{IS_NO_SUMMARY, IS_SUMMARY};
use super::sessions::{self, Description, SessionRow};
use super::store::Writing;
use crate::store::Outcome;

/// Places that one slice copies: about 20 ms.
const SLICE_ROWS: usize = 4_000;

/// How long a fork may stay half made before it is swept, in milliseconds.
pub(super) const IDLE_MS_MAX: i64 = 3_600_000;

pub(super) fn fork(context: &mut Writing<'_>, message: &ForkSession) -> Outcome<Forked> {
    let ForkSession { session, through, into, progress } = message;
    let not_found = || Kind::NotFound { what: format!("session {:?}", session.as_str()) };
    let from = sessions::find(context.connection, session.as_str())?.ok_or_else(not_found)?;
    if sessions::find_id(context.connection, into.as_str())?.is_some() {
        return Err(conflict(into, "no session", "a session").into());
    }
    let progress = match progress {
        Some(progress) => resume(context, session, &from, *progress)?,
        None => begin(context, session, &from, *through)?,
    };
    let slice_end = slice_end(context.connection, &progress)?;
    let copied = slice_end.unwrap_or(progress.last);
    let message_count = copy_slice(context, &progress, copied)?;
    if slice_end.is_some() {
        context.changed_all("fork", "");
        return Ok(Forked { message_count, next: Some(ForkProgress { copied, ..progress }) });
    }
    finish(context, &from, &progress, into)?;
    context.changed_all("fork", into.as_str());
    Ok(Forked { message_count, next: None })
}

fn conflict(session: &SessionId, expected: &str, found: &str) -> Kind {
    let what = format!("session {:?}", session.as_str());
    Kind::Conflict { what, expected: expected.to_owned(), found: found.to_owned() }
}

fn begin(
    context: &Writing<'_>,
    session: &SessionId,
    from: &SessionRow,
    through: Option<MessageId>,
) -> Outcome<ForkProgress> {
    if let Some(id) = through
        && sessions::find_message(context.connection, from.id, id)?.is_none()
    {
        return Err(Kind::NotFound { what: format!("message {id} in session {:?}", session.as_str()) }.into());
    }
    // Ids grow over the whole store, so that whatever is appended from now on is larger.
    let last = through.unwrap_or(MessageId(context.next_version().0));
    let fork = context
        .connection
        .prepare_cached(
            "INSERT INTO session (archived, created_ms, updated_ms, message_count, token_count, checksum, forming_ms)
             VALUES (0, ?1, ?1, 0, 0, 0, ?1) RETURNING id",
        )?
        .query_row([context.now.0], |row| row.get(0))?;
    Ok(ForkProgress { source: from.id, fork, copied: MessageId(0), last })
}

/// Checks that both sessions are what they were at the slice before.
fn resume(
    context: &Writing<'_>,
    session: &SessionId,
    from: &SessionRow,
    progress: ForkProgress,
) -> Outcome<ForkProgress> {
    let is_forming = context
        .connection
        .prepare_cached("UPDATE session SET forming_ms = ?2 WHERE id = ?1 AND name IS NULL AND forming_ms IS NOT NULL")?
        .execute(params![progress.fork, context.now.0])?;
    if is_forming != 1 || from.id != progress.source {
        return Err(conflict(session, "the session of which a fork was begun", "another one, or no such fork").into());
    }
    Ok(progress)
}

/// Returns the last message of the next slice; `None` when the rest is less than one.
fn slice_end(connection: &Connection, progress: &ForkProgress) -> rusqlite::Result<Option<MessageId>> {
    // Each half is in the order of the key; together they would be sorted, all of them.
    let half = |archived: u8| {
        format!(
            "SELECT id FROM (SELECT id FROM place WHERE session_id = ?1 AND archived = {archived} AND id > ?2 AND id <= ?3
                 ORDER BY id LIMIT ?4)"
        )
    };
    let sql = format!("{} UNION ALL {} ORDER BY id LIMIT 1 OFFSET ?4 - 1", half(0), half(1));
    let ForkProgress { source, copied, last, .. } = progress;
    connection
        .prepare_cached(&sql)?
        .query_row(params![source, copied.0, last.0, SLICE_ROWS], |row| Ok(MessageId(row.get(0)?)))
        .optional()
}

/// Copies what stands behind the last slice, up to `end`; answers how many messages the fork has then.
fn copy_slice(context: &Writing<'_>, progress: &ForkProgress, end: MessageId) -> rusqlite::Result<u64> {
    let parameters = params![progress.source, progress.fork, progress.copied.0, end.0];
    let slice = format!("archived IN (0, 1) AND id > ?3 AND id <= ?4 AND {IS_NO_SUMMARY}");
    copy_places(context.connection, &slice, parameters)?;
    context
        .connection
        .prepare_cached(
            "INSERT INTO link (session_id, call_id, message_id, is_answer)
             SELECT ?2, call_id, message_id, is_answer FROM link
             WHERE session_id = ?1 AND message_id > ?3 AND message_id <= ?4",
        )?
        .execute(parameters)?;
    context
        .connection
        .prepare_cached(&format!(
            "UPDATE session SET (message_count, token_count) =
                 (SELECT session.message_count + count(*), session.token_count + coalesce(sum(place.cost_tokens), 0)
                  FROM place WHERE place.session_id = ?2 AND {slice})
             WHERE id = ?2 RETURNING message_count"
        ))?
        .query_row(parameters, |row| row.get(0))
}

fn copy_places(connection: &Connection, condition: &str, parameters: &[&dyn ToSql]) -> rusqlite::Result<usize> {
    connection
        .prepare_cached(&format!(
            "INSERT INTO place (session_id, archived, id, body_id, flags, mandatory, counter_id, text_tokens,
                 spaced_text_tokens, cost_tokens, client_id, checksum)
             SELECT ?2, archived, id, body_id, flags, mandatory, counter_id, text_tokens,
                 spaced_text_tokens, cost_tokens, client_id, checksum
             FROM place WHERE session_id = ?1 AND {condition}"
        ))?
        .execute(parameters)
}

/// Gives the fork its name and what is said of the session now.
fn finish(context: &Writing<'_>, from: &SessionRow, progress: &ForkProgress, into: &SessionId) -> Outcome<()> {
    let ForkProgress { source, fork, last, .. } = progress;
    let summary_through = from.session.summary_through.filter(|covered| covered <= last);
    if summary_through.is_some() {
        let condition = format!("archived = 0 AND mandatory = 1 AND {IS_SUMMARY}");
        copy_places(context.connection, &condition, params![source, fork])?;
    }
    let said = Description { name: into.as_str(), created_ms: context.now.0, ..Description::of(&from.session) };
    let Description { name, title, owner, metadata, archived, created_ms } = said;
    context
        .connection
        .prepare_cached(
            "UPDATE session SET name = ?2, title = ?3, owner = ?4, metadata = ?5, archived = ?6, created_ms = ?7,
                 updated_ms = ?7, checksum = ?8, summary_through = ?9, forming_ms = NULL
             WHERE id = ?1",
        )?
        .execute(params![
            fork,
            name,
            title,
            owner,
            metadata,
            archived,
            created_ms,
            said.checksum(),
            summary_through.map(|id| id.0),
        ])?;
    Ok(())
}
