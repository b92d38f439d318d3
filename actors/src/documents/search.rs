//! Full-text search over nodes, best first.
//!
//! FTS5 hands its rows out in the order of their rank, so that nodes are read, and filters asked, only until there are
//! enough.

use larder_protocol::documents::{NodeHit, SearchNodes};
use larder_protocol::limits::SEARCH_DOCUMENTS_MAX;
use larder_protocol::{DocumentId, Error as Kind};
use rusqlite::params_from_iter;
use rusqlite::types::Value as Sql;

use super::list::{Condition, NODE_FIELDS};
use super::row::{self, COLUMN_COUNT, COLUMNS, VISIBLE};
use super::store::Reading;
use super::text_index::TABLE;
use crate::full_text::{self, SNIPPET_BYTES_MAX};
use crate::store::{Outcome, PAGE_BYTES_MAX, check_limit};

pub(super) fn search(context: &Reading<'_>, message: &SearchNodes) -> Outcome<Vec<NodeHit>> {
    let SearchNodes { query, filter, documents, offset, limit } = message;
    check_limit(*limit)?;
    query.check()?;
    if documents.len() > SEARCH_DOCUMENTS_MAX {
        let reason = format!("{} documents, at most {SEARCH_DOCUMENTS_MAX} are allowed", documents.len());
        return Err(Kind::invalid("search", reason).into());
    }
    let Some(match_query) = full_text::typed_query(query, context.settings.tokenizer)? else { return Ok(Vec::new()) };
    let mut condition = Condition::default();
    condition.and(&format!("{TABLE} MATCH ?"), [Sql::Text(match_query)]);
    condition.and(VISIBLE, []);
    if !documents.is_empty() {
        let places = vec!["?"; documents.len()].join(", ");
        let ids = documents.iter().map(|id| Sql::Text(DocumentId::as_str(id).to_owned()));
        condition.and(&format!("document.id IN ({places})"), ids);
    }
    if filter.is_some() {
        condition.filter(filter.as_ref(), NODE_FIELDS.column, &NODE_FIELDS.declared(context.connection)?)?;
    }
    let integer = |number: usize| Sql::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    condition.parameters.extend([integer(*limit), integer(*offset)]);
    let snippet = full_text::snippet(TABLE, context.settings.tokenizer);
    let sql = format!(
        "SELECT {COLUMNS}, CASE WHEN octet_length(node.text) <= {SNIPPET_BYTES_MAX} THEN {snippet} END, -{TABLE}.rank
         FROM {TABLE} CROSS JOIN node ON node.key = {TABLE}.rowid
             CROSS JOIN document ON document.key = node.document_key
         WHERE {} ORDER BY {TABLE}.rank LIMIT ? OFFSET ?",
        condition.sql
    );
    let mut statement = context.connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(condition.parameters))?;
    let (mut hits, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let found = row::read(row)?;
        bytes += found.node.size_bytes();
        let snippet = match row.get(COLUMN_COUNT)? {
            Some(snippet) => snippet,
            None => full_text::excerpt(found.node.content.text().unwrap_or_default(), query),
        };
        hits.push(NodeHit { found, snippet, score: row.get(COLUMN_COUNT + 1)? });
        if bytes >= PAGE_BYTES_MAX {
            break;
        }
    }
    Ok(hits)
}
