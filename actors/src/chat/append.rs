//! Handlers that put messages in: append, edit, summary, counts.
//!
//! Start at [`append`]. Everything is checked before the first change, so that a refusal costs no neighbour anything.

use std::collections::HashMap;

use larder_protocol::chat::{
    AppendMessages, Appended, ChatMessage, EditMessage, MessageId, MessageTokens, PutCounts, PutSummary, TokenCounts,
};
use larder_protocol::limits::{APPEND_MESSAGES_MAX, BATCH_ITEMS_MAX, COUNTER_ID_BYTES_MAX, ROLE_BYTES_MAX};
use larder_protocol::{Error as Kind, JsonText, SessionId};
use rusqlite::{Connection, OptionalExtension, params};

use super::body::{Body, release};
use super::links;
use super::place::Place;
use super::sessions;
use super::store::Writing;
use crate::filter::read_json;
use crate::store::Outcome;

/// What became of one message of a batch before anything is written.
enum Slot {
    New,
    /// It is in the session already.
    Stored(MessageId),
    /// It stands earlier in the same batch, at this place.
    Repeated(usize),
}

pub(super) fn append(context: &mut Writing<'_>, message: &AppendMessages) -> Outcome<Appended> {
    let AppendMessages { session, messages, counts } = message;
    check_items(messages.len(), APPEND_MESSAGES_MAX)?;
    check_counts(counts.as_ref(), messages.len())?;
    for one in messages {
        check(context, one)?;
    }
    let found = sessions::find_id(context.connection, session.as_str())?;
    let slots = place_batch(context.connection, found, messages)?;
    let session_id = sessions::id_or_create(context, session, found)?;
    let counter_id = counter_id(context.connection, counts.as_ref())?;
    let (mut ids, mut added, mut added_tokens): (Vec<MessageId>, u64, u64) = (Vec::new(), 0, 0);
    for (at, (one, slot)) in messages.iter().zip(slots).enumerate() {
        let id = match slot {
            Slot::Stored(id) => id,
            Slot::Repeated(earlier) => ids.get(earlier).copied().unwrap_or(MessageId(0)),
            Slot::New => {
                let tokens = counts.as_ref().and_then(|counts| counts.tokens.get(at)).copied().unwrap_or_default();
                added += 1;
                added_tokens += tokens.cost;
                insert(context, session, &NewPlace { session_id, tokens, counter_id, summary: false }, one)?
            }
        };
        ids.push(id);
    }
    sessions::adjust(context, session_id, added.cast_signed(), added_tokens.cast_signed())?;
    Ok(Appended { ids, new_count: added })
}

/// Decides for each message whether it is new; a client id that stands for another content is a conflict.
fn place_batch(connection: &Connection, session_id: Option<i64>, messages: &[ChatMessage]) -> Outcome<Vec<Slot>> {
    let mut earlier: HashMap<&str, usize> = HashMap::new();
    let mut slots = Vec::with_capacity(messages.len());
    for (at, message) in messages.iter().enumerate() {
        let Some(client_id) = message.client_id.as_ref().map(|id| id.as_str()) else {
            slots.push(Slot::New);
            continue;
        };
        let stored = session_id.map(|id| sessions::find_client(connection, id, client_id)).transpose()?;
        let slot = if let Some(stored) = stored.flatten() {
            require_same(&stored.stored.message, message, client_id)?;
            Slot::Stored(stored.stored.id)
        } else if let Some(&place) = earlier.get(client_id) {
            if let Some(first) = messages.get(place) {
                require_same(first, message, client_id)?;
            }
            Slot::Repeated(place)
        } else {
            earlier.insert(client_id, at);
            Slot::New
        };
        slots.push(slot);
    }
    Ok(slots)
}

/// A message without a time of its own gets one when it is stored, so that time does not count.
fn require_same(stored: &ChatMessage, sent: &ChatMessage, client_id: &str) -> Outcome<()> {
    let created = sent.created.and(stored.created);
    let same = ChatMessage { created, ..stored.clone() } == *sent;
    if same {
        return Ok(());
    }
    let what = format!("client message id {client_id:?}");
    let (expected, found) = ("the message stored under it".to_owned(), "another message".to_owned());
    Err(Kind::Conflict { what, expected, found }.into())
}

/// Where and how a new message goes.
struct NewPlace {
    session_id: i64,
    counter_id: Option<i64>,
    tokens: MessageTokens,
    summary: bool,
}

fn insert(
    context: &mut Writing<'_>,
    session: &SessionId,
    place: &NewPlace,
    message: &ChatMessage,
) -> Outcome<MessageId> {
    let id = context.next_version().0;
    let body = Body::of(message, context.now)?;
    body.insert(context.connection, id)?;
    let &NewPlace { session_id, counter_id, tokens, summary } = place;
    let place = Place { id, body_id: id, archived: false, pinned: false, summary, counter_id, tokens };
    place.insert(context.connection, session_id, message)?;
    if !summary {
        links::insert(context.connection, session_id, id, message)?;
    }
    context.changed(if summary { "summary" } else { "append" }, session.as_str(), &id.to_string());
    Ok(MessageId(id))
}

pub(super) fn edit(context: &mut Writing<'_>, message: &EditMessage) -> Outcome<()> {
    let EditMessage { session, id, message, counts } = message;
    check(context, message)?;
    check_counts(counts.as_ref(), 1)?;
    let not_found = || Kind::NotFound { what: format!("message {id} in session {:?}", session.as_str()) };
    let session_id = sessions::find_id(context.connection, session.as_str())?.ok_or_else(not_found)?;
    let old = sessions::find_message(context.connection, session_id, *id)?.ok_or_else(not_found)?;
    let mut edited = message.clone();
    edited.created = edited.created.or(old.stored.message.created);
    edited.client_id = edited.client_id.or_else(|| old.stored.message.client_id.clone());
    if let Some(client_id) = &edited.client_id {
        let other = sessions::find_client(context.connection, session_id, client_id.as_str())?;
        if let Some(other) = other.filter(|other| other.stored.id != *id) {
            let found = format!("message {}", other.stored.id);
            let what = format!("client message id {:?}", client_id.as_str());
            return Err(Kind::Conflict { what, expected: "no other message".to_owned(), found }.into());
        }
    }
    let counter_id = counter_id(context.connection, counts.as_ref())?;
    let tokens = counts.as_ref().and_then(|counts| counts.tokens.first()).copied().unwrap_or_default();
    let body_id = context.next_version().0;
    let body = Body::of(&edited, context.now)?;
    body.insert(context.connection, body_id)?;
    let place = Place { body_id, counter_id, tokens, ..old.place };
    place.update(context.connection, session_id, &edited)?;
    if !old.stored.archived && !old.stored.summary {
        links::delete(context.connection, session_id, id.0)?;
        links::insert(context.connection, session_id, id.0, &edited)?;
    }
    release(context.connection, old.stored.revision)?;
    if !old.stored.summary {
        let difference = tokens.cost.cast_signed() - old.place.tokens.cost.cast_signed();
        sessions::adjust(context, session_id, 0, difference)?;
    }
    context.changed("edit", session.as_str(), &id.to_string());
    Ok(())
}

pub(super) fn put_summary(context: &mut Writing<'_>, message: &PutSummary) -> Outcome<MessageId> {
    let PutSummary { session, message, through, counts } = message;
    check(context, message)?;
    check_counts(counts.as_ref(), 1)?;
    if message.client_id.is_some() {
        return Err(Kind::invalid("summary", "it cannot have a client message id").into());
    }
    let not_found = || Kind::NotFound { what: format!("session {:?}", session.as_str()) };
    let session_id = sessions::find_id(context.connection, session.as_str())?.ok_or_else(not_found)?;
    sessions::delete_summary(context, session_id)?;
    let counter_id = counter_id(context.connection, counts.as_ref())?;
    let tokens = counts.as_ref().and_then(|counts| counts.tokens.first()).copied().unwrap_or_default();
    let place = NewPlace { session_id, tokens, counter_id, summary: true };
    let id = insert(context, session, &place, message)?;
    context
        .connection
        .prepare_cached("UPDATE session SET summary_through = ?2, updated_ms = ?3 WHERE id = ?1")?
        .execute(params![session_id, through.0, context.now.0])?;
    Ok(id)
}

pub(super) fn put_counts(context: &mut Writing<'_>, message: &PutCounts) -> Outcome<u64> {
    let PutCounts { session, counted, counts } = message;
    check_batch(counted.len())?;
    check_counts(Some(counts), counted.len())?;
    let Some(session_id) = sessions::find_id(context.connection, session.as_str())? else { return Ok(0) };
    let counter_id = counter_id(context.connection, Some(counts))?;
    let (mut stored, mut difference) = (0, 0_i64);
    for ((id, revision), tokens) in counted.iter().zip(&counts.tokens) {
        let found = sessions::find_message(context.connection, session_id, *id)?;
        let Some(old) = found.filter(|old| old.place.body_id == *revision) else { continue };
        let place = Place { counter_id, tokens: *tokens, ..old.place };
        place.update(context.connection, session_id, &old.stored.message)?;
        stored += 1;
        if !old.place.summary {
            difference += tokens.cost.cast_signed() - old.place.tokens.cost.cast_signed();
        }
        context.changed("count", session.as_str(), &id.to_string());
    }
    sessions::add_tokens(context.connection, session_id, difference)?;
    Ok(stored)
}

/// Returns the row of the counter, which is made where it is missing.
fn counter_id(connection: &Connection, counts: Option<&TokenCounts>) -> rusqlite::Result<Option<i64>> {
    let Some(TokenCounts { counter, .. }) = counts else { return Ok(None) };
    if let Some(id) = find_counter(connection, counter)? {
        return Ok(Some(id));
    }
    connection
        .prepare_cached("INSERT INTO counter (name) VALUES (?1) RETURNING id")?
        .query_row([counter], |row| row.get(0))
        .map(Some)
}

pub(super) fn find_counter(connection: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
    connection.prepare_cached("SELECT id FROM counter WHERE name = ?1")?.query_row([name], |row| row.get(0)).optional()
}

/// Checks what the types of a message cannot.
fn check(context: &Writing<'_>, message: &ChatMessage) -> Outcome<()> {
    let role = message.role.as_str();
    if role.is_empty() || role.len() > ROLE_BYTES_MAX || role.contains('\0') {
        let reason = format!("{} bytes, 1 to {ROLE_BYTES_MAX} without NUL are allowed", role.len());
        return Err(Kind::invalid("role", reason).into());
    }
    let (bytes, bytes_max) = (message.size_bytes() as u64, context.settings.message_bytes_max as u64);
    if bytes > bytes_max {
        return Err(Kind::TooLarge { what: "message".to_owned(), bytes, bytes_max }.into());
    }
    for (what, json) in [("metadata", &message.metadata), ("extra", &message.extra)] {
        if let Some(json) = json {
            check_object(what, json)?;
        }
    }
    Ok(())
}

/// Checks that it is an object, and one that filters can read.
pub(super) fn check_object(what: &str, json: &JsonText) -> Outcome<()> {
    if read_json(json.as_str().as_bytes())?.is_object() {
        return Ok(());
    }
    Err(Kind::invalid(what, "it is not a JSON object").into())
}

fn check_counts(counts: Option<&TokenCounts>, message_count: usize) -> Outcome<()> {
    let Some(TokenCounts { counter, tokens }) = counts else { return Ok(()) };
    if counter.is_empty() || counter.len() > COUNTER_ID_BYTES_MAX || counter.contains('\0') {
        let reason = format!("its id has {} bytes, 1 to {COUNTER_ID_BYTES_MAX} without NUL are allowed", counter.len());
        return Err(Kind::invalid("token counter", reason).into());
    }
    if tokens.len() != message_count {
        let reason = format!("{} counts for {message_count} messages", tokens.len());
        return Err(Kind::invalid("token counts", reason).into());
    }
    // Sums of a whole session must fit a 64-bit column.
    let most = u64::from(u32::MAX);
    if tokens.iter().any(|one| one.text > most || one.spaced_text > most || one.cost > most) {
        return Err(Kind::invalid("token counts", format!("a count is over {most}")).into());
    }
    Ok(())
}

/// Messages are named, or appended, at least one at a time.
pub(super) fn check_batch(count: usize) -> Outcome<()> {
    check_items(count, BATCH_ITEMS_MAX)
}

fn check_items(count: usize, count_max: usize) -> Outcome<()> {
    if (1..=count_max).contains(&count) {
        return Ok(());
    }
    Err(Kind::invalid("batch", format!("{count} items, 1 to {count_max} are allowed")).into())
}
