//! Reads of a session's messages: pages in order, those that are to be counted, and search.

use larder_protocol::chat::{
    ListMessages, ListUncounted, MessageOrder, MessagePage, Role, SearchHit, SearchMessages, SearchScope, StoredMessage,
};
use larder_protocol::full_text::TextQuery;
use larder_protocol::limits::SEARCH_SESSIONS_MAX;
use larder_protocol::{Error as Kind, SessionId};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params, params_from_iter};

use super::append::find_counter;
use super::place::IS_NO_SUMMARY;
use super::row::{self, COLUMN_COUNT, COLUMNS, SOURCE};
use super::sessions;
use super::store::{Chat, Reading};
use crate::filter::{self, JsonColumn};
use crate::full_text::{self, SNIPPET_BYTES_MAX};
use crate::store::{Outcome, PAGE_BYTES_MAX, check_limit, out_of_order, stored_name};

/// A message's metadata, as filters read it.
const METADATA: JsonColumn = JsonColumn { in_query: "body.metadata", in_index: "metadata" };

pub(super) fn page(context: &Reading<'_>, message: &ListMessages) -> Outcome<MessagePage> {
    check_limit(message.limit)?;
    context.at_one_instant(|connection| read_page(connection, message))
}

fn read_page(connection: &Connection, message: &ListMessages) -> Outcome<MessagePage> {
    let Some(session_id) = sessions::find_id(connection, message.session.as_str())? else {
        return Ok(MessagePage { messages: Vec::new(), next: None });
    };
    // Each of both is in the order of an index; together they would be sorted.
    let mut messages = part(connection, session_id, false, message)?;
    if message.include_archived {
        messages.extend(part(connection, session_id, true, message)?);
        match message.order {
            MessageOrder::OldestFirst => messages.sort_by_key(|message| message.id),
            MessageOrder::NewestFirst => messages.sort_by_key(|message| std::cmp::Reverse(message.id)),
        }
    }
    let mut bytes = 0;
    let fits = |message: &&StoredMessage| {
        let fits = bytes < PAGE_BYTES_MAX;
        bytes += message.message.size_bytes();
        fits
    };
    let count = messages.iter().take(message.limit).take_while(fits).count();
    let is_last = count == messages.len();
    messages.truncate(count);
    let next = messages.last().filter(|_| !is_last).map(|message| message.id);
    Ok(MessagePage { messages, next })
}

/// Reads archived or unarchived messages up to the page's bounds, and one more, which tells of a next page.
fn part(
    connection: &Connection,
    session_id: i64,
    archived: bool,
    message: &ListMessages,
) -> Outcome<Vec<StoredMessage>> {
    let (comparison, order) = match message.order {
        MessageOrder::OldestFirst => (">", "ASC"),
        MessageOrder::NewestFirst => ("<", "DESC"),
    };
    let sql = format!(
        "SELECT {COLUMNS} FROM {SOURCE} WHERE place.session_id = ?1 AND place.archived = ?2 AND {IS_NO_SUMMARY}
             AND (?3 IS NULL OR place.id {comparison} ?3) ORDER BY place.id {order} LIMIT ?4"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![session_id, archived, message.after.map(|id| id.0), message.limit + 1])?;
    let (mut messages, mut bytes) = (Vec::<StoredMessage>::new(), 0);
    while let Some(row) = rows.next()? {
        let read = row::read(row, 0)?.stored;
        let behind = messages.last().map(|last| last.id).or(message.after);
        let is_ordered = behind.is_none_or(|behind| match message.order {
            MessageOrder::OldestFirst => behind < read.id,
            MessageOrder::NewestFirst => behind > read.id,
        });
        if !is_ordered {
            return Err(out_of_order::<Chat>());
        }
        let is_enough = bytes >= PAGE_BYTES_MAX;
        bytes += read.message.size_bytes();
        messages.push(read);
        if is_enough {
            break;
        }
    }
    Ok(messages)
}

pub(super) fn uncounted(context: &Reading<'_>, message: &ListUncounted) -> Outcome<Vec<StoredMessage>> {
    check_limit(message.limit)?;
    let connection = context.connection;
    let Some(session_id) = sessions::find_id(connection, message.session.as_str())? else { return Ok(Vec::new()) };
    let counter_id = find_counter(connection, context.settings.counter.id())?;
    let sql = format!(
        "SELECT {COLUMNS} FROM {SOURCE} WHERE place.session_id = ?1 AND place.archived = 0
             AND place.counter_id IS NOT ?2 ORDER BY place.id DESC LIMIT ?3"
    );
    // A counter that never counted has no row, and NULL would say that uncounted messages are counted.
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![session_id, counter_id.unwrap_or(-1), message.limit])?;
    let (mut messages, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let message = row::read(row, 0)?.stored;
        bytes += message.message.size_bytes();
        messages.push(message);
        if bytes >= PAGE_BYTES_MAX {
            break;
        }
    }
    Ok(messages)
}

/// A message that was found: where it stands, and how well it fits.
struct Place {
    session_id: i64,
    archived: bool,
    id: u64,
    session: SessionId,
    score: f64,
}

/// Finds the best places first; contents and snippets are read for those alone, until the answer is large enough.
pub(super) fn search(context: &Reading<'_>, message: &SearchMessages) -> Outcome<Vec<SearchHit>> {
    check_limit(message.limit)?;
    let Some(query) = full_text::plain_query(&message.query, message.prefix)? else { return Ok(Vec::new()) };
    context.at_one_instant(|connection| {
        let (mut hits, mut bytes) = (Vec::new(), 0);
        for place in best(connection, message, &query)? {
            let hit = read_hit(context, message, &query, place)?;
            bytes += hit.message.message.size_bytes();
            hits.push(hit);
            if bytes >= PAGE_BYTES_MAX {
                break;
            }
        }
        Ok(hits)
    })
}

fn best(connection: &Connection, message: &SearchMessages, query: &str) -> Outcome<Vec<Place>> {
    let mut parameters = vec![Sql::Text(query.to_owned())];
    let conditions = conditions(message, &mut parameters)?;
    let integer = |number: usize| Sql::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    parameters.extend([integer(message.limit), integer(message.offset)]);
    let (limit, offset) = (parameters.len() - 1, parameters.len());
    let sql = format!(
        "SELECT place.session_id, place.archived, place.id, session.name, -bm25(body_text) AS score
         FROM body_text CROSS JOIN place ON place.body_id = body_text.rowid
             CROSS JOIN session ON session.id = place.session_id
             CROSS JOIN body ON body.id = place.body_id
         WHERE body_text MATCH ?1 AND {IS_NO_SUMMARY} AND session.name IS NOT NULL{conditions}
         ORDER BY score DESC, place.id DESC, session.name LIMIT ?{limit} OFFSET ?{offset}"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(parameters))?;
    let mut places = Vec::new();
    while let Some(row) = rows.next()? {
        let session = SessionId::new(row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?);
        places.push(Place {
            session_id: row.get(0)?,
            archived: row.get(1)?,
            id: row.get(2)?,
            session: stored_name::<Chat, _>(session)?,
            score: row.get(4)?,
        });
    }
    Ok(places)
}

fn read_hit(context: &Reading<'_>, message: &SearchMessages, query: &str, place: Place) -> Outcome<SearchHit> {
    let snippet = full_text::snippet("body_text", context.settings.tokenizer);
    let sql = format!(
        "SELECT {COLUMNS}, CASE WHEN octet_length(body.text) <= {SNIPPET_BYTES_MAX} THEN {snippet} END
         FROM place CROSS JOIN body_text ON body_text.rowid = place.body_id CROSS JOIN body ON body.id = place.body_id
         WHERE place.session_id = ?1 AND place.archived = ?2 AND place.id = ?3 AND body_text MATCH ?4"
    );
    let Place { session_id, archived, id, session, score } = place;
    let mut statement = context.connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![session_id, archived, id, query])?;
    let row = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    let found = row::read(row, 0)?.stored;
    let snippet = match row.get(COLUMN_COUNT)? {
        Some(snippet) => snippet,
        None => full_text::excerpt(&found.message.text().unwrap_or_default(), &typed(message)),
    };
    Ok(SearchHit { session, message: found, snippet, score })
}

/// Returns what was looked for, as [`full_text::excerpt`] takes it.
fn typed(message: &SearchMessages) -> TextQuery {
    if message.prefix { TextQuery::begun(&message.query) } else { TextQuery::words(&message.query) }
}

/// Returns the conditions beside the words, as SQL over numbered parameters, which are added to the list.
fn conditions(message: &SearchMessages, parameters: &mut Vec<Sql>) -> Outcome<String> {
    let mut sql = String::new();
    let mut bind = |value: Sql| {
        parameters.push(value);
        format!("?{}", parameters.len())
    };
    match &message.scope {
        SearchScope::All => {}
        SearchScope::Owner(owner) => sql += &format!(" AND session.owner = {}", bind(Sql::Text(owner.clone()))),
        SearchScope::Sessions(sessions) => {
            if sessions.len() > SEARCH_SESSIONS_MAX {
                let reason = format!("{} sessions, at most {SEARCH_SESSIONS_MAX} are allowed", sessions.len());
                return Err(Kind::invalid("search scope", reason).into());
            }
            let names: Vec<String> =
                sessions.iter().map(|session| bind(Sql::Text(session.as_str().to_owned()))).collect();
            sql += &format!(" AND session.name IN ({})", names.join(", "));
        }
    }
    if let Some(role) = &message.role {
        sql += &format!(" AND body.role = {}", bind(Sql::Text(Role::as_str(role).to_owned())));
    }
    if let Some(since) = message.since {
        sql += &format!(" AND body.created_ms >= {}", bind(Sql::Integer(since.0)));
    }
    if let Some(until) = message.until {
        sql += &format!(" AND body.created_ms < {}", bind(Sql::Integer(until.0)));
    }
    if !message.include_archived {
        sql += " AND place.archived = 0";
    }
    if let Some(filter) = &message.filter {
        let condition = filter::compile(filter, METADATA, &[], parameters.len() + 1)?;
        sql += &format!(" AND {}", condition.sql);
        parameters.extend(condition.parameters);
    }
    Ok(sql)
}
