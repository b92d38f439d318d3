//! Handlers that take messages out: delete, archive, pin.

use std::collections::BTreeSet;

use larder_protocol::SessionId;
use larder_protocol::chat::{ArchiveMessages, DeleteMessages, MessageId, PinMessage};
use rusqlite::{OptionalExtension, params};

use super::append::check_batch;
use super::body::release;
use super::place::{IS_SUMMARY, Place};
use super::store::Writing;
use super::{links, sessions};
use crate::store::Outcome;

/// With the setting `secure_delete`, SQLite and FTS5 overwrite what they delete from here on.
pub(super) fn erase_securely(context: &Writing<'_>) -> rusqlite::Result<()> {
    if context.settings.secure_delete {
        context.connection.pragma_update_and_check(None, "secure_delete", true, |_| Ok(()))?;
        context
            .connection
            .prepare_cached("INSERT INTO body_text (body_text, rank) VALUES ('secure-delete', 1)")?
            .execute([])?;
    }
    Ok(())
}

pub(super) fn delete(context: &mut Writing<'_>, message: &DeleteMessages) -> Outcome<u64> {
    check_batch(message.ids.len())?;
    let Some(session_id) = sessions::find_id(context.connection, message.session.as_str())? else { return Ok(0) };
    delete_ids(context, &message.session, session_id, message.ids.iter().map(|id| id.0))
}

pub(super) fn delete_ids(
    context: &mut Writing<'_>,
    session: &SessionId,
    session_id: i64,
    ids: impl Iterator<Item = u64>,
) -> Outcome<u64> {
    let (mut deleted, mut tokens) = (0_i64, 0_i64);
    for id in ids {
        let Some((body_id, cost, is_summary)) = delete_place(context, session_id, id)? else { continue };
        if deleted == 0 {
            erase_securely(context)?;
        }
        links::delete(context.connection, session_id, id)?;
        release(context.connection, body_id)?;
        deleted += 1;
        if is_summary {
            context
                .connection
                .prepare_cached(
                    "UPDATE session SET summary_through = NULL, message_count = message_count + 1 WHERE id = ?1",
                )?
                .execute([session_id])?;
        } else {
            tokens += cost;
        }
        context.changed("delete", session.as_str(), &id.to_string());
    }
    if deleted > 0 {
        sessions::adjust(context, session_id, -deleted, -tokens)?;
    }
    Ok(deleted.unsigned_abs())
}

/// Deletes a message's place; answers its content's id, its cost, and whether it was the summary.
fn delete_place(context: &Writing<'_>, session_id: i64, id: u64) -> rusqlite::Result<Option<(u64, i64, bool)>> {
    context
        .connection
        .prepare_cached(&format!(
            "DELETE FROM place WHERE session_id = ?1 AND archived IN (0, 1) AND id = ?2
             RETURNING body_id, cost_tokens, {IS_SUMMARY}"
        ))?
        .query_row(params![session_id, id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()
}

pub(super) fn archive(context: &mut Writing<'_>, message: &ArchiveMessages) -> Outcome<u64> {
    let ArchiveMessages { session, ids, archived } = message;
    check_batch(ids.len())?;
    let Some(session_id) = sessions::find_id(context.connection, session.as_str())? else { return Ok(0) };
    let mut changed = 0;
    let mut seen = BTreeSet::new();
    let mut waiting: Vec<u64> = ids.iter().rev().map(|id| id.0).collect();
    while let Some(id) = waiting.pop() {
        if !seen.insert(id) {
            continue;
        }
        let is_moved = if *archived {
            waiting.extend(links::partners(context.connection, session_id, id)?);
            archive_one(context, session_id, id)?
        } else {
            restore(context, session_id, id, &mut waiting)?
        };
        if is_moved {
            changed += 1;
            context.changed("archive", session.as_str(), &id.to_string());
        }
    }
    // Links go last: they say what belongs together.
    if *archived {
        for id in &seen {
            links::delete(context.connection, session_id, *id)?;
        }
    }
    if changed > 0 {
        sessions::adjust(context, session_id, 0, 0)?;
    }
    Ok(changed)
}

/// Takes an archived message back in, with its links; `waiting` gets what belongs to it.
fn restore(context: &Writing<'_>, session_id: i64, id: u64, waiting: &mut Vec<u64>) -> Outcome<bool> {
    let Some(found) = sessions::find_message(context.connection, session_id, MessageId(id))? else { return Ok(false) };
    if !found.place.archived {
        return Ok(false);
    }
    found.place.move_to(context.connection, session_id, false)?;
    links::insert(context.connection, session_id, id, &found.stored.message)?;
    waiting.extend(archived_partners(context, session_id, &found.stored)?);
    Ok(true)
}

/// Archived messages have no links, so their neighbourhood is read: what one turn called and answered stands together.
fn archived_partners(
    context: &Writing<'_>,
    session_id: i64,
    message: &larder_protocol::chat::StoredMessage,
) -> Outcome<Vec<u64>> {
    use super::row::{self, COLUMNS, SOURCE};
    let own = super::window::Row::of(message.id, &message.message, Default::default());
    if own.calls.is_empty() && own.answered().next().is_none() {
        return Ok(Vec::new());
    }
    let near = |comparison: &str, order: &str| -> Outcome<Vec<super::window::Row>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM {SOURCE} WHERE place.session_id = ?1 AND place.archived = 1 AND place.id {comparison} ?2
             ORDER BY place.id {order} LIMIT 100"
        );
        let found = row::read_all(context.connection, &sql, params![session_id, message.id.0])?;
        Ok(found
            .iter()
            .map(|one| super::window::Row::of(one.stored.id, &one.stored.message, one.place.tokens))
            .collect())
    };
    let mut partners = Vec::new();
    let before = near("<", "DESC")?;
    for call_id in own.answered() {
        partners.extend(before.iter().find(|row| row.makes_call(call_id)).map(|row| row.id.0));
    }
    let behind = near(">", "ASC")?;
    for (at, row) in behind.iter().enumerate() {
        let is_ours = |call_id: &str| {
            own.makes_call(call_id) && !behind.iter().take(at).any(|between| between.makes_call(call_id))
        };
        if row.answered().any(is_ours) {
            partners.push(row.id.0);
        }
    }
    Ok(partners)
}

/// The summary is never archived.
fn archive_one(context: &Writing<'_>, session_id: i64, id: u64) -> Outcome<bool> {
    let found = sessions::find_message(context.connection, session_id, MessageId(id))?;
    let Some(found) = found.filter(|found| !found.place.archived && !found.place.summary) else { return Ok(false) };
    found.place.move_to(context.connection, session_id, true)?;
    Ok(true)
}

pub(super) fn pin(context: &mut Writing<'_>, message: &PinMessage) -> Outcome<bool> {
    let PinMessage { session, id, pinned } = message;
    let Some(session_id) = sessions::find_id(context.connection, session.as_str())? else { return Ok(false) };
    let Some(found) = sessions::find_message(context.connection, session_id, *id)? else { return Ok(false) };
    let place = Place { pinned: *pinned, ..found.place };
    place.update(context.connection, session_id, &found.stored.message)?;
    sessions::adjust(context, session_id, 0, 0)?;
    context.changed("pin", session.as_str(), &id.to_string());
    Ok(true)
}
