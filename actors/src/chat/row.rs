//! A message as its rows say it: place and content, decoded and verified.
//!
//! Start at [`COLUMNS`] and [`read`].
//!
//! Always true: a row that does not match its checksums, or cannot be decoded, is its reader's error and harms no other row.

use larder_protocol::chat::{MessageId, StoredMessage};
use larder_protocol::{Error as Kind, StoreName, Written};
use rusqlite::{Connection, Row};

use super::body::{self, Columns};
use super::place::{self, Place};
use crate::store::{Failure, Outcome, decoded};

/// The columns that [`read`] decodes, in its order: a place's, then its content's.
pub(super) const COLUMNS: &str = "place.id, place.body_id, place.archived, place.flags, place.counter_id, \
     place.text_tokens, place.spaced_text_tokens, place.cost_tokens, place.checksum, \
     body.role, body.text, body.blocks, body.name, body.metadata, body.extra, body.client_id, \
     body.created_ms, body.checksum";

/// How many columns [`COLUMNS`] are.
pub(super) const COLUMN_COUNT: usize = place::COLUMN_COUNT + body::COLUMN_COUNT;

/// What [`COLUMNS`] are selected from: places first, since every query names a session; a place without its content is
/// read, too, and found damaged.
pub(super) const SOURCE: &str = "place LEFT JOIN body ON body.id = place.body_id";

/// The same for mandatory messages. By name: SQLite would walk the whole session, which its key finds as well.
pub(super) const MANDATORY_SOURCE: &str = "place INDEXED BY place_mandatory LEFT JOIN body ON body.id = place.body_id";

/// A message as its rows say it, verified.
#[derive(Debug)]
pub(super) struct ReadMessage {
    pub(super) place: Place,
    pub(super) stored: StoredMessage,
}

/// Decodes the columns of [`COLUMNS`], which begin at `first`, and verifies them.
///
/// Inlined, as what it calls: a window moves a hundred messages of 200 bytes through it.
#[inline]
pub(super) fn read(row: &Row<'_>, first: usize) -> Outcome<ReadMessage> {
    let place = verified(row, first, Place::read(row, first))?;
    let body = verified(row, first, Columns::read(row, first + place::COLUMN_COUNT, place.body_id))?;
    let message = verified(row, first, Ok(body.to_message()))?;
    let stored = StoredMessage {
        id: MessageId(place.id),
        message,
        revision: place.body_id,
        tokens: place.counter_id.map(|_| place.tokens.cost),
        pinned: place.pinned,
        summary: place.summary,
        archived: place.archived,
    };
    Ok(ReadMessage { place, stored })
}

#[inline]
fn verified<T>(row: &Row<'_>, first: usize, read: rusqlite::Result<Option<T>>) -> Outcome<T> {
    decoded(read, || damaged(row.get(first).unwrap_or_default()))
}

fn damaged(id: u64) -> Failure {
    let detail = format!("message {id} does not match its checksum, or cannot be read");
    Kind::Corrupt { store: StoreName::Chat, detail, written: Written::NotApplied }.into()
}

/// Reads all rows of a query that selects [`COLUMNS`] first.
pub(super) fn read_all(
    connection: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
) -> Outcome<Vec<ReadMessage>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(parameters)?;
    let mut messages = Vec::new();
    while let Some(row) = rows.next()? {
        messages.push(read(row, 0)?);
    }
    Ok(messages)
}
