//! Which documents belong to a context, and reads that see only those.
//!
//! Start at [`Member`]. A document that is put by itself keeps its context, and is told by its hash.

use std::sync::LazyLock;

use larder_protocol::documents::{
    ContentHash, ContextDocument, ContextNode, IngestionDecision, IngestionPlan, ListContextDocuments,
    ListContextNodes, PassageHit, PlanContext, ReadPassages, SearchPassages, StoredNode,
};
use larder_protocol::full_text::TextQuery;
use larder_protocol::limits::{PAGE_ROWS_MAX, QUERY_WORDS_MAX};
use larder_protocol::{ContextName, DocumentId, Error as Kind, NodeId, SessionId, Tokenizer};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::ingestion;
use super::list::{Condition, NODE_FIELDS};
use super::row::{self, damaged};
use super::sources;
use super::store::{Documents, Reading};
use super::text_index::TABLE;
use crate::filter;
use crate::full_text;
use crate::sqlite::text::prefix_end;
use crate::store::{Failure, Outcome, PAGE_BYTES_MAX, check_count, check_limit, decoded, out_of_order, stored_name};

/// The columns that [`Member::read`] decodes, in its order.
const COLUMNS: &str =
    "ingested.document_key, ingested.context, ingested.hash, ingested.owner, ingested.session, ingested.checksum";

/// Texts that are counted for a word: one that stands in more is as good as any other such word.
const COUNTED_MAX: usize = 400;
/// Texts that are ranked, about 1.3 µs each, unless there is only one word.
const RANKED_MAX: usize = 600;

/// A document's place in a context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) context: ContextName,
    pub(super) hash: ContentHash,
    pub(super) owner: Option<String>,
    pub(super) session: Option<SessionId>,
}

impl Member {
    pub(super) fn find(connection: &Connection, document_key: i64) -> Outcome<Option<Self>> {
        let sql = format!("SELECT {COLUMNS} FROM ingested WHERE document_key = ?1");
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query([document_key])?;
        rows.next()?.map(|row| Self::read(row, 0)).transpose()
    }

    /// Decodes the columns of [`COLUMNS`], which begin at `first`, and verifies them.
    fn read(row: &Row<'_>, first: usize) -> Outcome<Self> {
        let key = row.get::<_, i64>(first)?;
        decoded(Self::decode(row, first), || damaged(format!("the context of the document with key {key}")))
    }

    fn decode(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<Self>> {
        let (key, context): (i64, String) = (row.get(first)?, row.get(first + 1)?);
        let (hash, owner): ([u8; 32], Option<String>) = (row.get(first + 2)?, row.get(first + 3)?);
        let session: Option<String> = row.get(first + 4)?;
        let stored: i64 = row.get(first + 5)?;
        if stored != checksum(key, &context, &hash, owner.as_deref(), session.as_deref()) {
            return Ok(None);
        }
        let Ok(session) = session.map(SessionId::new).transpose() else { return Ok(None) };
        let Ok(context) = ContextName::new(&context) else { return Ok(None) };
        Ok(Some(Self { context, hash: ContentHash(hash), owner, session }))
    }

    /// Makes the document a member, in the place of what it was before.
    pub(super) fn put(&self, connection: &Connection, document_key: i64) -> Outcome<()> {
        let Self { context, hash, owner, session } = self;
        let (owner, session) = (owner.as_deref(), session.as_ref().map(SessionId::as_str));
        let checksum = checksum(document_key, context.as_str(), &hash.0, owner, session);
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO ingested (document_key, context, hash, owner, session, checksum)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![document_key, context.as_str(), hash.0, owner, session, checksum])?;
        Ok(())
    }

    /// Refuses a document of another context.
    pub(super) fn require(&self, document: &DocumentId, context: &ContextName) -> Result<(), Kind> {
        if self.context == *context {
            return Ok(());
        }
        Err(Kind::Conflict {
            what: format!("document {:?}", document.as_str()),
            expected: format!("none, or one of the context {:?}", context.as_str()),
            found: format!("one of the context {:?}", self.context.as_str()),
        })
    }
}

/// Each part seeds the next one's hash; a missing part is not an empty one.
fn checksum(key: i64, context: &str, hash: &[u8; 32], owner: Option<&str>, session: Option<&str>) -> i64 {
    let next = |seed, part: Option<&[u8]>| part.map_or(seed ^ 1, |part| xxh3_64_with_seed(part, seed));
    [Some(context.as_bytes()), Some(hash.as_slice()), owner.map(str::as_bytes), session.map(str::as_bytes)]
        .into_iter()
        .fold(key.cast_unsigned(), next)
        .cast_signed()
}

/// Verifies every row.
pub(super) fn check(connection: &Connection, found: &mut dyn FnMut(String)) -> Outcome<()> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM ingested"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        match Member::read(row, 0) {
            Ok(_) => {}
            Err(Failure::Refused(damage)) => found(damage.to_string()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(super) fn plan(context: &Reading<'_>, message: &PlanContext) -> Outcome<IngestionPlan> {
    check_count(message.sources.len())?;
    context.at_one_instant(|connection| {
        let decide = |(document, hash): &(DocumentId, ContentHash)| decide(connection, message, document, *hash);
        Ok(IngestionPlan { decisions: message.sources.iter().map(decide).collect::<Outcome<_>>()? })
    })
}

fn decide(
    connection: &Connection,
    message: &PlanContext,
    document: &DocumentId,
    hash: ContentHash,
) -> Outcome<IngestionDecision> {
    let decision = ingestion::decide(connection, document, hash)?;
    if decision == IngestionDecision::Insert {
        return Ok(decision);
    }
    let Some(found) = sources::find(connection, document)? else { return Ok(IngestionDecision::Insert) };
    let is_member = Member::find(connection, found.key)?.is_some_and(|member| {
        member.context == message.context
            && Some(member.hash) == found.document.hash
            && member.owner == message.owner
            && member.session == message.session
    });
    if !is_member || is_open(connection, document)? {
        return Ok(IngestionDecision::Retry);
    }
    Ok(decision)
}

fn is_open(connection: &Connection, document: &DocumentId) -> Outcome<bool> {
    let mut statement =
        connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM intent WHERE subject_kind = 0 AND subject = ?1)")?;
    Ok(statement.query_row([document.as_str()], |row| row.get(0))?)
}

pub(super) fn documents(context: &Reading<'_>, message: &ListContextDocuments) -> Outcome<Vec<ContextDocument>> {
    check_limit(message.limit)?;
    let ListContextDocuments { context: name, prefix, owner, session, after, limit } = message;
    let mut condition = Condition::default();
    condition.and("ingested.context = ?", [Sql::Text(name.as_str().to_owned())]);
    condition.and("document.id >= ?", [Sql::Text(prefix.clone())]);
    if let Some(end) = prefix_end(prefix) {
        condition.and("document.id < ?", [Sql::Text(end)]);
    }
    if let Some(owner) = owner {
        condition.and("ingested.owner = ?", [Sql::Text(owner.clone())]);
    }
    if let Some(session) = session {
        condition.and("ingested.session = ?", [Sql::Text(session.as_str().to_owned())]);
    }
    if let Some(after) = after {
        condition.and("document.id > ?", [Sql::Text(after.as_str().to_owned())]);
    }
    // Of an owner or a session there are few, found by their index; of a context many, read in order.
    let tables = if owner.is_some() || session.is_some() {
        "ingested CROSS JOIN document ON document.key = ingested.document_key"
    } else {
        "document CROSS JOIN ingested ON ingested.document_key = document.key"
    };
    let sql = format!(
        "SELECT {}, {COLUMNS} FROM {tables} WHERE {} ORDER BY document.id LIMIT {limit}",
        sources::COLUMNS,
        condition.sql
    );
    let mut statement = context.connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(condition.parameters))?;
    let (mut documents, mut bytes) = (Vec::<ContextDocument>::new(), 0);
    while let Some(row) = rows.next()? {
        let document = sources::read(row)?.document;
        let damaged = || damaged(format!("the context of document {:?}", document.id.as_str()));
        let Member { hash, owner, session, .. } = decoded(Member::decode(row, sources::COLUMN_COUNT), damaged)?;
        if documents.last().is_some_and(|last| last.document.id >= document.id) {
            return Err(out_of_order::<Documents>());
        }
        bytes += document.metadata.as_ref().map_or(0, |json| json.as_str().len());
        let is_as_ingested = document.hash == Some(hash);
        documents.push(ContextDocument { document, owner, session, is_as_ingested });
        if bytes >= PAGE_BYTES_MAX {
            break;
        }
    }
    Ok(documents)
}

pub(super) fn nodes(context: &Reading<'_>, message: &ListContextNodes) -> Outcome<Vec<ContextNode>> {
    check_limit(message.limit)?;
    let mut statement = context.connection.prepare_cached(
        "SELECT node.id, document.id, node.text FROM node CROSS JOIN document ON document.key = node.document_key
             CROSS JOIN ingested ON ingested.document_key = document.key
         WHERE node.id > ?1 AND document.id IS NOT NULL AND ingested.context = ?2 ORDER BY node.id LIMIT ?3",
    )?;
    let after = message.after.as_ref().map_or("", NodeId::as_str);
    let mut rows = statement.query(params![after, message.context.as_str(), message.limit])?;
    let mut nodes = Vec::new();
    while let Some(row) = rows.next()? {
        let id = stored_name::<Documents, _>(NodeId::new(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?))?;
        let document =
            stored_name::<Documents, _>(DocumentId::new(row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?))?;
        // Damaged or not, a text is there.
        let text = row.get_ref(2)?.as_bytes_or_null().map_err(rusqlite::Error::from)?;
        let has_text = text.is_some_and(|text| !String::from_utf8_lossy(text).trim().is_empty());
        nodes.push(ContextNode { id, document, has_text });
    }
    Ok(nodes)
}

static PASSAGE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {} FROM {} CROSS JOIN ingested ON ingested.document_key = document.key
         WHERE node.id = ?1 AND {} AND ingested.context = ?2",
        row::COLUMNS,
        row::SOURCE,
        row::VISIBLE
    )
});

pub(super) fn read_passages(context: &Reading<'_>, message: &ReadPassages) -> Outcome<Vec<Option<StoredNode>>> {
    if message.ids.len() > PAGE_ROWS_MAX {
        let reason = format!("{} ids, at most {PAGE_ROWS_MAX} are allowed", message.ids.len());
        return Err(Kind::invalid("batch", reason).into());
    }
    if let Some(filter) = &message.filter {
        filter.check()?;
    }
    context.at_one_instant(|connection| {
        let mut statement = connection.prepare_cached(&PASSAGE)?;
        let mut read = |id: &NodeId| {
            let mut rows = statement.query(params![id.as_str(), message.context.as_str()])?;
            let Some(stored) = rows.next()?.map(row::read).transpose()? else { return Ok(None) };
            Ok(is_wanted(&stored, message)?.then_some(stored))
        };
        message.ids.iter().map(&mut read).collect()
    })
}

fn is_wanted(stored: &StoredNode, message: &ReadPassages) -> Outcome<bool> {
    let Some(wanted) = &message.filter else { return Ok(true) };
    let metadata = match &stored.node.metadata {
        Some(metadata) => filter::read_json(metadata.as_str().as_bytes())?,
        None => serde_json::Value::Object(serde_json::Map::new()),
    };
    Ok(filter::matches(wanted, &metadata))
}

pub(super) fn search(context: &Reading<'_>, message: &SearchPassages) -> Outcome<Vec<PassageHit>> {
    check_limit(message.limit)?;
    if message.words.len() > QUERY_WORDS_MAX {
        let reason = format!("{} words, at most {QUERY_WORDS_MAX} are allowed", message.words.len());
        return Err(Kind::invalid("search", reason).into());
    }
    context.at_one_instant(|connection| {
        let Some(query) = rarest(connection, &message.words, context.settings.tokenizer)? else {
            return Ok(Vec::new());
        };
        rank(connection, query, message)
    })
}

/// Returns the FTS5 query for the rarest of the words, as many as do not stand in too many texts together; `None`: none of
/// them stands in any.
fn rarest(connection: &Connection, words: &[String], tokenizer: Tokenizer) -> Outcome<Option<String>> {
    let sql = format!("SELECT count(*) FROM (SELECT 1 FROM {TABLE} WHERE {TABLE} MATCH ?1 LIMIT {COUNTED_MAX})");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut counted = Vec::new();
    for word in words {
        let Some(query) = full_text::typed_query(&TextQuery::words(word.as_str()), tokenizer)? else { continue };
        let count: usize = statement.query_row([&query], |row| row.get(0))?;
        if count > 0 {
            counted.push((count, query));
        }
    }
    counted.sort();
    let mut sum = 0;
    let chosen = counted.into_iter().enumerate().take_while(|(place, (count, _))| {
        sum += count;
        *place == 0 || sum <= RANKED_MAX
    });
    let chosen: Vec<String> = chosen.map(|(_, (_, query))| query).collect();
    Ok((!chosen.is_empty()).then(|| chosen.join(" OR ")))
}

fn rank(connection: &Connection, query: String, message: &SearchPassages) -> Outcome<Vec<PassageHit>> {
    let mut condition = Condition::default();
    condition.and(&format!("{TABLE} MATCH ?"), [Sql::Text(query)]);
    condition.and("ingested.context = ?", [Sql::Text(message.context.as_str().to_owned())]);
    if message.filter.is_some() {
        condition.filter(message.filter.as_ref(), NODE_FIELDS.column, &NODE_FIELDS.declared(connection)?)?;
    }
    let sql = format!(
        "SELECT node.id, -{TABLE}.rank FROM {TABLE} CROSS JOIN node ON node.key = {TABLE}.rowid
             CROSS JOIN ingested ON ingested.document_key = node.document_key
         WHERE {} ORDER BY {TABLE}.rank LIMIT {}",
        condition.sql, message.limit
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(condition.parameters))?;
    let mut hits = Vec::new();
    while let Some(row) = rows.next()? {
        let id = stored_name::<Documents, _>(NodeId::new(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?))?;
        hits.push(PassageHit { id, score: row.get(1)? });
    }
    Ok(hits)
}

/// Returns the key of a document, and its context, if it has one.
pub(super) fn place(connection: &Connection, document: &DocumentId) -> Outcome<Option<(i64, Option<Member>)>> {
    let mut statement = connection.prepare_cached("SELECT key FROM document WHERE id = ?1")?;
    let key: Option<i64> = statement.query_row([document.as_str()], |row| row.get(0)).optional()?;
    key.map(|key| Ok((key, Member::find(connection, key)?))).transpose()
}
