//! Which message makes and which answers which tool call; what belongs together.
//!
//! Always true: only unarchived messages that are no summary have links; a result belongs to the nearest message before
//! it that makes its call, since programs use ids again; the empty id stands for any call.

use std::collections::BTreeSet;

use larder_protocol::chat::{ChatMessage, MessageId, MessageTokens};
use rusqlite::{Connection, params};

use super::window::Row;

pub(super) fn insert(connection: &Connection, session_id: i64, id: u64, message: &ChatMessage) -> rusqlite::Result<()> {
    let row = Row::of(MessageId(id), message, MessageTokens::default());
    for (call_id, is_answer) in expected(&row) {
        connection
            .prepare_cached("INSERT INTO link (session_id, call_id, message_id, is_answer) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![session_id, call_id, id, is_answer])?;
    }
    Ok(())
}

/// Returns the call ids of a message, each with whether it answers the call.
pub(super) fn expected(row: &Row) -> BTreeSet<(String, bool)> {
    let unnamed = (!row.calls.is_empty()).then_some("");
    let calls = row.calls.iter().map(String::as_str).chain(unnamed).map(|call_id| (call_id.to_owned(), false));
    let answers = row.answered().map(|call_id| (call_id.to_owned(), true));
    calls.chain(answers).collect()
}

/// Returns the same as it is stored.
pub(super) fn of(connection: &Connection, session_id: i64, id: u64) -> rusqlite::Result<BTreeSet<(String, bool)>> {
    let mut statement =
        connection.prepare_cached("SELECT call_id, is_answer FROM link WHERE session_id = ?1 AND message_id = ?2")?;
    statement.query_map(params![session_id, id], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

pub(super) fn delete(connection: &Connection, session_id: i64, id: u64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM link WHERE session_id = ?1 AND message_id = ?2")?
        .execute(params![session_id, id])?;
    Ok(())
}

/// Returns the messages whose calls this one answers, and those that answer its calls.
pub(super) fn partners(connection: &Connection, session_id: i64, id: u64) -> rusqlite::Result<Vec<u64>> {
    let mut statement = connection.prepare_cached(
        "SELECT (SELECT max(caller.message_id) FROM link AS caller
                 WHERE caller.session_id = ?1 AND caller.call_id = own.call_id AND caller.message_id < ?2
                   AND caller.is_answer = 0)
         FROM link AS own WHERE own.session_id = ?1 AND own.message_id = ?2 AND own.is_answer = 1
         UNION
         SELECT result.message_id FROM link AS own JOIN link AS result
             ON result.session_id = ?1 AND result.call_id = own.call_id AND result.message_id > ?2 AND result.is_answer = 1
         WHERE own.session_id = ?1 AND own.message_id = ?2 AND own.is_answer = 0
           AND result.message_id < coalesce(
               (SELECT min(again.message_id) FROM link AS again
                WHERE again.session_id = ?1 AND again.call_id = own.call_id AND again.message_id > ?2
                  AND again.is_answer = 0), 9223372036854775807)",
    )?;
    let found = statement.query_map(params![session_id, id], |row| row.get::<_, Option<u64>>(0))?;
    found.filter_map(Result::transpose).collect()
}
