//! Retention: a session's oldest messages beyond what is to be kept, in slices.
//!
//! Start at [`trim`].
//!
//! Always true: a slice looks at a bounded number of messages, from the oldest on; mandatory ones are neither deleted nor
//! counted.

use larder_protocol::Error as Kind;
use larder_protocol::chat::{MessageId, Retention, TrimSession, Trimmed};
use rusqlite::params;

use super::place::IS_NO_SUMMARY;
use super::store::Writing;
use super::{edit, sessions};
use crate::store::Outcome;

/// Messages that one slice looks at: deleting one takes about 20 µs.
const SLICE_ROWS: usize = 500;

/// A message that may go.
struct Candidate {
    id: u64,
    cost_tokens: u64,
    created_ms: i64,
}

/// What is still there that may go, from the message in hand on.
struct Remaining {
    message_count: u64,
    token_count: u64,
}

pub(super) fn trim(context: &mut Writing<'_>, message: &TrimSession) -> Outcome<Trimmed> {
    let TrimSession { session, keep, after } = message;
    let Some(found) = sessions::find(context.connection, session.as_str())? else { return Ok(Trimmed::default()) };
    let slice = oldest(context, found.id, *after)?;
    let mut remaining = remaining(context, &found)?;
    let mut ids = Vec::new();
    let mut next = (slice.len() == SLICE_ROWS).then(|| slice.last().map(|last| MessageId(last.id))).flatten();
    for candidate in &slice {
        if goes(context, *keep, candidate, &remaining)? {
            ids.push(candidate.id);
        } else if !matches!(keep, Retention::Age(_)) {
            // What is newer is kept, too; of messages with times of their own, a newer one may be older.
            next = None;
            break;
        }
        remaining.message_count = remaining.message_count.saturating_sub(1);
        remaining.token_count = remaining.token_count.saturating_sub(candidate.cost_tokens);
    }
    let deleted_count = edit::delete_ids(context, session, found.id, ids.into_iter())?;
    Ok(Trimmed { deleted_count, next })
}

/// Returns whether a message is beyond what is to be kept, when `remaining` counts it and all newer ones.
fn goes(context: &Writing<'_>, keep: Retention, candidate: &Candidate, remaining: &Remaining) -> Outcome<bool> {
    match keep {
        Retention::Age(age) => {
            let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            Ok(candidate.created_ms < context.now.0.saturating_sub(age_ms))
        }
        Retention::Count(kept) => Ok(remaining.message_count > kept),
        Retention::Tokens(kept) => Ok(remaining.token_count > kept),
        other => Err(Kind::invalid("retention", format!("{other:?} is not known here")).into()),
    }
}

/// Returns the oldest messages behind `after` that are not mandatory, archived ones too.
fn oldest(context: &Writing<'_>, session_id: i64, after: Option<MessageId>) -> Outcome<Vec<Candidate>> {
    // Each half is in the order of the key; together they would be sorted, all of them.
    let half = |archived: u8| {
        format!(
            "SELECT * FROM (SELECT place.id AS id, place.cost_tokens, body.created_ms
                 FROM place CROSS JOIN body ON body.id = place.body_id
                 WHERE place.session_id = ?1 AND place.archived = {archived} AND place.id > ?2 AND place.mandatory = 0
                 ORDER BY place.id LIMIT ?3)"
        )
    };
    let sql = format!("{} UNION ALL {} ORDER BY id LIMIT ?3", half(0), half(1));
    let mut statement = context.connection.prepare_cached(&sql)?;
    let after = after.map_or(0, |id| id.0);
    let rows = statement.query_map(params![session_id, after, SLICE_ROWS], |row| {
        Ok(Candidate { id: row.get(0)?, cost_tokens: row.get(1)?, created_ms: row.get(2)? })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Counts what may go in the whole session: everything but the mandatory messages.
fn remaining(context: &Writing<'_>, found: &sessions::SessionRow) -> Outcome<Remaining> {
    let (message_count, token_count): (u64, u64) = context
        .connection
        .prepare_cached(&format!(
            "SELECT count(*), coalesce(sum(cost_tokens), 0) FROM place INDEXED BY place_mandatory
             WHERE session_id = ?1 AND archived IN (0, 1) AND mandatory = 1 AND {IS_NO_SUMMARY}"
        ))?
        .query_row([found.id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(Remaining {
        message_count: found.session.message_count.saturating_sub(message_count),
        token_count: found.session.token_count.saturating_sub(token_count),
    })
}
