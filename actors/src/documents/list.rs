//! Reads of nodes and documents: by id, by hash, by relationship, and pages in order.
//!
//! Start at [`get`] and [`nodes`]. The SQL is put together from constants; everything the caller said is a parameter.

use std::collections::HashSet;
use std::sync::LazyLock;

use larder_protocol::documents::{
    ContentHash, CountDocuments, CountNodes, DeclareMetadataField, FindDocumentsByHash, FindNodesByHash, GetNode,
    GetNodeHashes, GetNodes, ListDocuments, ListNodeIds, ListNodes, ListRelated, NodeCursor, NodePage, NodeScope,
    Relationship, StoredDocument, StoredNode,
};
use larder_protocol::filter::Filter;
use larder_protocol::limits::PAGE_ROWS_MAX;
use larder_protocol::{DocumentId, Error as Kind, NodeId};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params, params_from_iter};

use super::row::{self, COLUMNS, SOURCE, VISIBLE};
use super::sources;
use super::store::{Documents, Reading, Writing};
use crate::filter::{self, DeclaredField, FieldIndexes, JsonColumn};
use crate::sqlite::text::prefix_end;
use crate::store::{Outcome, PAGE_BYTES_MAX, check_count, check_limit, out_of_order, stored_name};

/// The declared fields' indexes.
pub(super) const NODE_FIELDS: FieldIndexes =
    FieldIndexes { table: "node", leading: "", column: JsonColumn { in_query: "node.metadata", in_index: "metadata" } };

const DOCUMENT_METADATA: JsonColumn = JsonColumn { in_query: "document.metadata", in_index: "metadata" };

pub(super) fn declare(context: &mut Writing<'_>, message: &DeclareMetadataField) -> Outcome<bool> {
    let field = DeclaredField::new(message.field.clone())?;
    let is_new = NODE_FIELDS.declare(context.connection, &field)?;
    if is_new {
        context.changed_all("declare", "");
    }
    Ok(is_new)
}

/// Put together once: it is asked more often than anything else.
static BY_ID: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {COLUMNS} FROM {SOURCE} WHERE node.id = ?1 AND {VISIBLE}"));

fn find(connection: &Connection, id: &NodeId) -> Outcome<Option<StoredNode>> {
    let mut statement = connection.prepare_cached(&BY_ID)?;
    let mut rows = statement.query([id.as_str()])?;
    rows.next()?.map(row::read).transpose()
}

pub(super) fn get(context: &Reading<'_>, message: &GetNode) -> Outcome<Option<StoredNode>> {
    find(context.connection, &message.id)
}

pub(super) fn get_many(context: &Reading<'_>, message: &GetNodes) -> Outcome<Vec<Option<StoredNode>>> {
    if message.ids.len() > PAGE_ROWS_MAX {
        let reason = format!("{} ids, at most {PAGE_ROWS_MAX} are allowed", message.ids.len());
        return Err(Kind::invalid("batch", reason).into());
    }
    // One transaction: the answers are from one instant, and the locks are taken once.
    context.at_one_instant(|connection| message.ids.iter().map(|id| find(connection, id)).collect())
}

pub(super) fn hashes(context: &Reading<'_>, message: &GetNodeHashes) -> Outcome<Vec<Option<ContentHash>>> {
    check_count(message.ids.len())?;
    context.at_one_instant(|connection| {
        let hash = |id| Ok(find(connection, id)?.map(|stored| stored.hash));
        message.ids.iter().map(hash).collect()
    })
}

pub(super) fn nodes_by_hash(context: &Reading<'_>, message: &FindNodesByHash) -> Outcome<Vec<NodeId>> {
    check_limit(message.limit)?;
    let sql = format!(
        "SELECT node.id FROM {SOURCE} WHERE substr(node.hash, 1, 8) = substr(?1, 1, 8) AND node.hash = ?1
             AND node.id > ?2 AND {VISIBLE} ORDER BY node.id LIMIT ?3"
    );
    let after = message.after.as_ref().map_or("", NodeId::as_str);
    let mut statement = context.connection.prepare_cached(&sql)?;
    let ids = statement.query_map(params![message.hash.0, after, message.limit], |row| row.get::<_, String>(0))?;
    ids.map(|id| stored_name::<Documents, _>(NodeId::new(id?))).collect()
}

pub(super) fn documents_by_hash(context: &Reading<'_>, message: &FindDocumentsByHash) -> Outcome<Vec<DocumentId>> {
    check_limit(message.limit)?;
    let after = message.after.as_ref().map_or("", DocumentId::as_str);
    let mut statement = context
        .connection
        .prepare_cached("SELECT id FROM document WHERE hash = ?1 AND id > ?2 ORDER BY id LIMIT ?3")?;
    let ids = statement.query_map(params![message.hash.0, after, message.limit], |row| row.get::<_, String>(0))?;
    ids.map(|id| stored_name::<Documents, _>(DocumentId::new(id?))).collect()
}

pub(super) fn nodes(context: &Reading<'_>, message: &ListNodes) -> Outcome<NodePage> {
    check_limit(message.limit)?;
    context.at_one_instant(|connection| read_page(connection, message))
}

fn read_page(connection: &Connection, message: &ListNodes) -> Outcome<NodePage> {
    let ListNodes { scope, filter, after, limit } = message;
    let mut condition = Condition::default();
    let Some(order) = condition.scope(connection, scope)? else {
        return Ok(NodePage { nodes: Vec::new(), next: None });
    };
    if let Some(after) = after {
        match scope {
            NodeScope::All => condition.and("node.id > ?", [Sql::Text(after.id.as_str().to_owned())]),
            NodeScope::Document(_) | NodeScope::Alone => {
                condition.and("node.position > ?", [Sql::Integer(after.position.cast_signed())]);
            }
        }
    }
    condition.filter(filter.as_ref(), NODE_FIELDS.column, &NODE_FIELDS.declared(connection)?)?;
    // One more than asked for tells whether there is a next page.
    let sql = format!("SELECT {COLUMNS} FROM {SOURCE} WHERE {} ORDER BY {order} LIMIT {}", condition.sql, limit + 1);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(condition.parameters))?;
    let (mut nodes, mut bytes) = (Vec::<StoredNode>::new(), 0);
    while let Some(row) = rows.next()? {
        if nodes.len() == *limit || bytes >= PAGE_BYTES_MAX {
            let next = nodes.last().map(|last| NodeCursor { id: last.node.id.clone(), position: last.position });
            return Ok(NodePage { nodes, next });
        }
        let stored = row::read(row)?;
        let is_behind = |last: &StoredNode| match scope {
            NodeScope::All => last.node.id < stored.node.id,
            NodeScope::Document(_) | NodeScope::Alone => last.position < stored.position,
        };
        if nodes.last().is_some_and(|last| !is_behind(last)) {
            return Err(out_of_order::<Documents>());
        }
        bytes += stored.node.size_bytes();
        nodes.push(stored);
    }
    Ok(NodePage { nodes, next: None })
}

pub(super) fn node_ids(context: &Reading<'_>, message: &ListNodeIds) -> Outcome<Vec<NodeCursor>> {
    check_limit(message.limit)?;
    let after = message.after.map_or(-1, |position| i64::try_from(position).unwrap_or(i64::MAX));
    let mut statement = context.connection.prepare_cached(
        "SELECT node.id, node.position FROM document CROSS JOIN node ON node.document_key = document.key
         WHERE document.id = ?1 AND node.position > ?2 ORDER BY node.position LIMIT ?3",
    )?;
    let mut rows = statement.query(params![message.document.as_str(), after, message.limit])?;
    let mut places = Vec::new();
    while let Some(row) = rows.next()? {
        let id = stored_name::<Documents, _>(NodeId::new(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?))?;
        places.push(NodeCursor { id, position: row.get(1)? });
    }
    Ok(places)
}

pub(super) fn count_nodes(context: &Reading<'_>, message: &CountNodes) -> Outcome<u64> {
    let connection = context.connection;
    if message.filter.is_none() {
        let (sql, id) = match &message.scope {
            NodeScope::All => ("SELECT coalesce(sum(node_count), 0) FROM document WHERE id IS NOT ?1", None),
            NodeScope::Alone => ("SELECT coalesce(sum(node_count), 0) FROM document WHERE id = ?1", Some("")),
            NodeScope::Document(id) => {
                ("SELECT coalesce(sum(node_count), 0) FROM document WHERE id = ?1", Some(id.as_str()))
            }
        };
        return Ok(connection.prepare_cached(sql)?.query_row([id], |row| row.get(0))?);
    }
    context.at_one_instant(|connection| {
        let mut condition = Condition::default();
        if condition.scope(connection, &message.scope)?.is_none() {
            return Ok(0);
        }
        condition.filter(message.filter.as_ref(), NODE_FIELDS.column, &NODE_FIELDS.declared(connection)?)?;
        let sql = format!("SELECT count(*) FROM {SOURCE} WHERE {}", condition.sql);
        let mut statement = connection.prepare_cached(&sql)?;
        Ok(statement.query_row(params_from_iter(condition.parameters), |row| row.get(0))?)
    })
}

pub(super) fn related(context: &Reading<'_>, message: &ListRelated) -> Outcome<Vec<StoredNode>> {
    check_limit(message.limit)?;
    context.at_one_instant(|connection| read_related(connection, message))
}

fn read_related(connection: &Connection, message: &ListRelated) -> Outcome<Vec<StoredNode>> {
    let ListRelated { id, relationship, limit } = message;
    let not_found = || Kind::NotFound { what: format!("node {:?}", id.as_str()) };
    let related = find(connection, id)?.ok_or_else(not_found)?.node.relationships;
    let named = match relationship {
        Relationship::Previous => Vec::from_iter(related.previous),
        Relationship::Next => Vec::from_iter(related.next),
        Relationship::Parent => Vec::from_iter(related.parent),
        Relationship::Child => related.children,
    };
    let (mut found, mut seen, mut bytes) = (Vec::new(), HashSet::new(), 0);
    let mut take = |stored: StoredNode| {
        if found.len() < *limit && bytes < PAGE_BYTES_MAX && seen.insert(stored.node.id.clone()) {
            bytes += stored.node.size_bytes();
            found.push(stored);
        }
        found.len() < *limit && bytes < PAGE_BYTES_MAX
    };
    for id in &named {
        if let Some(stored) = find(connection, id)?
            && !take(stored)
        {
            return Ok(found);
        }
    }
    if *relationship == Relationship::Child {
        let sql = format!(
            "SELECT {COLUMNS} FROM {SOURCE} WHERE node.parent = ?1 AND {VISIBLE}
             ORDER BY node.document_key, node.position"
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query([id.as_str()])?;
        while let Some(row) = rows.next()?
            && take(row::read(row)?)
        {}
    }
    Ok(found)
}

pub(super) fn documents(context: &Reading<'_>, message: &ListDocuments) -> Outcome<Vec<StoredDocument>> {
    check_limit(message.limit)?;
    let ListDocuments { prefix, done, filter, after, limit } = message;
    let mut condition = Condition::default();
    condition.documents(prefix, *done, filter.as_ref())?;
    if let Some(after) = after {
        condition.and("document.id > ?", [Sql::Text(after.as_str().to_owned())]);
    }
    let columns = sources::COLUMNS;
    let sql = format!("SELECT {columns} FROM document WHERE {} ORDER BY document.id LIMIT {limit}", condition.sql);
    let mut statement = context.connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(condition.parameters))?;
    let (mut documents, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let document = sources::read(row)?.document;
        if documents.last().is_some_and(|last: &StoredDocument| last.id >= document.id) {
            return Err(out_of_order::<Documents>());
        }
        bytes += document.metadata.as_ref().map_or(0, |json| json.as_str().len());
        documents.push(document);
        if bytes >= PAGE_BYTES_MAX {
            break;
        }
    }
    Ok(documents)
}

pub(super) fn count_documents(context: &Reading<'_>, message: &CountDocuments) -> Outcome<u64> {
    let mut condition = Condition::default();
    condition.documents(&message.prefix, message.done, message.filter.as_ref())?;
    let sql = format!("SELECT count(*) FROM document WHERE {}", condition.sql);
    let mut statement = context.connection.prepare_cached(&sql)?;
    Ok(statement.query_row(params_from_iter(condition.parameters), |row| row.get(0))?)
}

/// A WHERE clause in the making, with its parameters in order.
#[derive(Default)]
pub(super) struct Condition {
    pub(super) sql: String,
    pub(super) parameters: Vec<Sql>,
}

impl Condition {
    pub(super) fn and(&mut self, sql: &str, parameters: impl IntoIterator<Item = Sql>) {
        if !self.sql.is_empty() {
            self.sql.push_str(" AND ");
        }
        self.sql.push_str(sql);
        self.parameters.extend(parameters);
    }

    /// Adds which nodes a list is about; answers their order, or `None` when there are none.
    fn scope(&mut self, connection: &Connection, scope: &NodeScope) -> Outcome<Option<&'static str>> {
        let document = match scope {
            NodeScope::All => {
                self.and(VISIBLE, []);
                return Ok(Some("node.id"));
            }
            NodeScope::Document(id) => Some(id),
            NodeScope::Alone => None,
        };
        let Some(key) = sources::find_key(connection, document)? else { return Ok(None) };
        self.and("node.document_key = ?", [Sql::Integer(key)]);
        Ok(Some("node.position"))
    }

    fn documents(&mut self, prefix: &str, done: Option<bool>, filter: Option<&Filter>) -> Outcome<()> {
        self.and("document.id > ''", []);
        if !prefix.is_empty() {
            self.and("document.id >= ?", [Sql::Text(prefix.to_owned())]);
        }
        if let Some(end) = prefix_end(prefix) {
            self.and("document.id < ?", [Sql::Text(end)]);
        }
        match done {
            Some(true) => self.and("document.state = 1", []),
            Some(false) => self.and("document.state <> 1", []),
            None => {}
        }
        self.filter(filter, DOCUMENT_METADATA, &[])
    }

    pub(super) fn filter(
        &mut self,
        filter: Option<&Filter>,
        column: JsonColumn,
        declared: &[DeclaredField],
    ) -> Outcome<()> {
        let Some(filter) = filter else { return Ok(()) };
        let condition = filter::compile(filter, column, declared, self.parameters.len() + 1)?;
        self.and(&condition.sql, condition.parameters);
        Ok(())
    }
}
