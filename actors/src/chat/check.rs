//! Damage that SQLite cannot see: rows that do not match their checksums, and rows that contradict each other.

use larder_protocol::chat::{MessageId, MessageTokens};
use rusqlite::{Connection, params};

use super::row::{self, COLUMN_COUNT, COLUMNS, ReadMessage, SOURCE};
use super::store::Reading;
use super::window::Row;
use super::{links, sessions};
use crate::full_text;
use crate::store::{Failure, Outcome};

/// Rows read in one transaction: a check must not pin the WAL.
const PAGE_ROWS: usize = 2_000;

/// What one query each counts, with what is wrong then.
const CONTRADICTIONS: [(&str, &str); 4] = [
    (
        "SELECT count(*) FROM body WHERE NOT EXISTS (SELECT 1 FROM place WHERE place.body_id = body.id)",
        "contents belong to no message",
    ),
    (
        "SELECT count(*) FROM place WHERE NOT EXISTS (SELECT 1 FROM session WHERE session.id = place.session_id)",
        "messages belong to no session",
    ),
    (
        "SELECT count(*) FROM link WHERE NOT EXISTS (SELECT 1 FROM place WHERE place.session_id = link.session_id
             AND place.archived = 0 AND place.id = link.message_id AND place.flags & 2 = 0)",
        "links of tool calls belong to no message in a window",
    ),
    (
        "SELECT count(*) FROM session WHERE name IS NOT NULL AND (message_count, token_count) IS NOT
         (SELECT count(*), coalesce(sum(cost_tokens), 0) FROM place WHERE session_id = session.id AND flags & 2 = 0)",
        "sessions have wrong counts",
    ),
];

pub(super) fn check(context: &Reading<'_>, found: &mut dyn FnMut(String)) -> Outcome<()> {
    let mut after = (0, 0, 0);
    while let Some(last) = check_messages(context.connection, after, found)? {
        if last <= after {
            found(format!("the message {} stands behind the message {}: the rows are out of order", last.2, after.2));
            break;
        }
        after = last;
    }
    sessions::check(context.connection, found)?;
    for (sql, what) in CONTRADICTIONS {
        let count: u64 = context.connection.query_row(sql, [], |row| row.get(0))?;
        if count > 0 {
            found(format!("{count} {what}"));
        }
    }
    let texts = "SELECT id FROM body WHERE text IS NOT NULL";
    Ok(full_text::check(context.connection, "body_text", texts, found)?)
}

/// A place's key: session, archived, id.
type Key = (i64, i64, i64);

/// Verifies one page of messages; answers the last one's key, or `None` at the end.
fn check_messages(connection: &Connection, after: Key, found: &mut dyn FnMut(String)) -> Outcome<Option<Key>> {
    let sql = format!(
        "SELECT {COLUMNS}, place.session_id, place.mandatory, place.client_id FROM {SOURCE}
         WHERE (place.session_id, place.archived, place.id) > (?1, ?2, ?3)
         ORDER BY place.session_id, place.archived, place.id LIMIT ?4"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![after.0, after.1, after.2, PAGE_ROWS])?;
    let (mut last, beside) = (None, COLUMN_COUNT);
    while let Some(row) = rows.next()? {
        let key: Key = (row.get(beside)?, row.get(2)?, row.get(0)?);
        last = Some(key);
        match row::read(row, 0) {
            Ok(message) => {
                // A column of another type than it was written with equals nothing.
                let beside = Beside { mandatory: row.get(beside + 1).ok(), client_id: row.get(beside + 2).ok() };
                contradictions(connection, key, &message, &beside, found)?;
            }
            Err(Failure::Refused(damage)) => found(damage.to_string()),
            Err(error) => found(format!("the message {} cannot be read ({error})", key.2)),
        }
    }
    Ok(last)
}

/// What a place says that no checksum covers, since it stands elsewhere, too.
struct Beside {
    mandatory: Option<bool>,
    client_id: Option<Option<String>>,
}

/// Compares what stands beside the checksums with the message it was taken from.
fn contradictions(
    connection: &Connection,
    (session_id, _, id): Key,
    ReadMessage { place, stored }: &ReadMessage,
    beside: &Beside,
    found: &mut dyn FnMut(String),
) -> Outcome<()> {
    let message = &stored.message;
    if beside.mandatory != Some(place.is_mandatory(message)) {
        found(format!("message {id} is marked as mandatory, or not, against its role, pin and summary"));
    }
    if beside.client_id != Some(message.client_id.as_ref().map(|id| id.as_str().to_owned())) {
        found(format!("message {id} has another client id in its session than in its content"));
    }
    if !place.archived && !place.summary {
        let row = Row::of(MessageId(place.id), message, MessageTokens::default());
        if links::of(connection, session_id, place.id)? != links::expected(&row) {
            found(format!("message {id} is linked to other tool calls than it makes and answers"));
        }
    }
    Ok(())
}
