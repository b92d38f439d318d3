//! One node as a row: its SQL, its decoding, and the checksum that every read verifies.
//!
//! Start at [`Columns`], what is written, and [`read`], which gives it back.

use std::sync::LazyLock;

use larder_protocol::documents::{CharSpan, ContentHash, Node, NodeContent, Relationships, StoredNode};
use larder_protocol::{DocumentId, Error as Kind, JsonText, NodeId, StoreName, Timestamp, Written};
use rusqlite::types::{Null, ToSqlOutput, ValueRef};
use rusqlite::{Connection, Row, params_from_iter};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::store::{Failure, Outcome, decoded};

/// The columns that [`read`] decodes, in its order.
pub(super) const COLUMNS: &str = "node.key, node.id, document.id, node.position, node.kind, node.hash, node.created_ms, \
     node.updated_ms, node.checksum, node.span_start, node.span_end, node.previous, node.next, node.parent, \
     node.children, node.metadata, node.content, node.text";

/// How many they are.
pub(super) const COLUMN_COUNT: usize = 18;

/// What [`COLUMNS`] are selected from; a query adds [`VISIBLE`].
pub(super) const SOURCE: &str = "node CROSS JOIN document ON document.key = node.document_key";

/// Nodes of a document that was deleted are there until they are swept.
pub(super) const VISIBLE: &str = "document.id IS NOT NULL";

/// The columns that every write of a row sets, in the order of [`Columns::written`].
const WRITTEN: &str = "document_key, position, kind, hash, updated_ms, checksum, span_start, span_end, previous, next, \
     parent, children, metadata, content, text";
const PLACES: &str = "?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?";

static INSERT: LazyLock<String> =
    LazyLock::new(|| format!("INSERT INTO node (id, created_ms, {WRITTEN}) VALUES (?, ?, {PLACES})"));
static UPDATE: LazyLock<String> = LazyLock::new(|| format!("UPDATE node SET ({WRITTEN}) = ({PLACES}) WHERE key = ?"));

/// A node's columns but its place, borrowed where that is possible.
pub(super) struct Columns<'a> {
    kind: i64,
    span: Option<(i64, i64)>,
    relationships: &'a Relationships,
    children: Option<String>,
    metadata: Option<&'a str>,
    content: Option<std::borrow::Cow<'a, str>>,
    text: Option<&'a str>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(node: &'a Node) -> Self {
        let children = &node.relationships.children;
        Self {
            kind: kind(&node.content),
            span: node.span.map(|span| (span.start.cast_signed(), span.end.cast_signed())),
            relationships: &node.relationships,
            children: (!children.is_empty())
                .then(|| serde_json::Value::from_iter(children.iter().map(NodeId::as_str)).to_string()),
            metadata: node.metadata.as_ref().map(JsonText::as_str),
            content: match &node.content {
                NodeContent::Image { source, .. } => serde_json::to_string(source).ok().map(Into::into),
                NodeContent::Index { target, .. } => Some(target.as_str().into()),
                NodeContent::Plain(json) => Some(json.as_str().into()),
                _ => None,
            },
            text: node.content.text(),
        }
    }

    /// Returns what of a row, whose columns are [`STORED`], differs.
    pub(super) fn compare(&self, row: &Row<'_>, position: u64) -> Outcome<Difference> {
        decoded(self.difference(row, position).map(Some), || damaged(format!("the node {}", shown(row, 1))))
    }

    fn difference(&self, row: &Row<'_>, position: u64) -> rusqlite::Result<Difference> {
        let related = |id: &'a Option<NodeId>| id.as_ref().map(NodeId::as_str);
        let Relationships { previous, next, parent, .. } = self.relationships;
        let is_same = row.get::<_, i64>(3)? == self.kind
            && row.get::<_, Option<i64>>(4)?.zip(row.get::<_, Option<i64>>(5)?) == self.span
            && text_of(row, 6)? == related(previous)
            && text_of(row, 7)? == related(next)
            && text_of(row, 8)? == related(parent)
            && text_of(row, 9)? == self.children.as_deref()
            && is_same_json(text_of(row, 10)?, self.metadata)
            && (text_of(row, 11)? == self.content.as_deref()
                || self.kind == PLAIN && is_same_json(text_of(row, 11)?, self.content.as_deref()));
        let has_same_text = text_of(row, 12)? == self.text;
        Ok(match (is_same, has_same_text) {
            (true, true) if row.get::<_, u64>(2)? == position => Difference::None,
            (true, true) => Difference::Position,
            (false, true) => Difference::AllButText,
            (_, false) => Difference::Text,
        })
    }

    pub(super) fn insert(
        &self,
        connection: &Connection,
        id: &NodeId,
        hash: ContentHash,
        place: Place,
        now: Timestamp,
    ) -> rusqlite::Result<i64> {
        let checksum = self.checksum(id.as_str(), hash, now.0);
        let first = [id.as_str().into(), now.0.into()];
        let values = first.into_iter().chain(self.written(&hash, place, now, checksum));
        connection.prepare_cached(&INSERT)?.insert(params_from_iter(values))
    }

    /// Replaces everything but the key, the id and the time of creation.
    pub(super) fn update(
        &self,
        connection: &Connection,
        key: i64,
        id: &NodeId,
        hash: ContentHash,
        place: Place,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        let created_ms: i64 = connection
            .prepare_cached("SELECT created_ms FROM node WHERE key = ?1")?
            .query_row([key], |row| row.get(0))?;
        let checksum = self.checksum(id.as_str(), hash, created_ms);
        let values = self.written(&hash, place, now, checksum).into_iter().chain([key.into()]);
        connection.prepare_cached(&UPDATE)?.execute(params_from_iter(values))?;
        Ok(())
    }

    /// The values of [`WRITTEN`].
    fn written<'b>(
        &'b self,
        hash: &'b ContentHash,
        place: Place,
        now: Timestamp,
        checksum: i64,
    ) -> [ToSqlOutput<'b>; 15] {
        let null = || ToSqlOutput::from(Null);
        let text = |text: Option<&'b str>| text.map_or_else(null, ToSqlOutput::from);
        let number = |number: Option<i64>| number.map_or_else(null, ToSqlOutput::from);
        let related = |id: &'b Option<NodeId>| text(id.as_ref().map(NodeId::as_str));
        let Relationships { previous, next, parent, .. } = self.relationships;
        [
            place.document_key.into(),
            place.position.cast_signed().into(),
            self.kind.into(),
            hash.0.as_slice().into(),
            now.0.into(),
            checksum.into(),
            number(self.span.map(|span| span.0)),
            number(self.span.map(|span| span.1)),
            related(previous),
            related(next),
            related(parent),
            text(self.children.as_deref()),
            text(self.metadata),
            text(self.content.as_deref()),
            text(self.text),
        ]
    }

    fn checksum(&self, id: &str, hash: ContentHash, created_ms: i64) -> i64 {
        let Relationships { previous, next, parent, .. } = self.relationships;
        let related = |id: &'a Option<NodeId>| id.as_ref().map(NodeId::as_str);
        let parts = [
            related(previous),
            related(next),
            related(parent),
            self.children.as_deref(),
            self.metadata,
            self.content.as_deref(),
            self.text,
        ];
        checksum(id, &hash.0, self.kind, created_ms, self.span, parts)
    }
}

/// Where a node stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) document_key: i64,
    pub(super) position: u64,
}

/// How a node that is put differs from the one that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Difference {
    None,
    /// Only where it stands.
    Position,
    /// Something that is not searched.
    AllButText,
    Text,
}

/// The columns that [`Columns::compare`] reads, in its order.
pub(super) const STORED: &str = "key, id, position, kind, span_start, span_end, previous, next, parent, children, \
     metadata, content, text";

const PLAIN: i64 = 3;

fn kind(content: &NodeContent) -> i64 {
    match content {
        NodeContent::Image { .. } => 1,
        NodeContent::Index { .. } => 2,
        NodeContent::Plain(_) => PLAIN,
        // Kinds of a newer protocol are refused before this.
        _ => 0,
    }
}

/// Each part seeds the next one's hash, so that a byte that moves from one to the other is noticed.
fn checksum(
    id: &str,
    hash: &[u8],
    kind: i64,
    created_ms: i64,
    span: Option<(i64, i64)>,
    parts: [Option<&str>; 7],
) -> i64 {
    let mut seed = xxh3_64_with_seed(id.as_bytes(), kind.cast_unsigned());
    seed = xxh3_64_with_seed(hash, seed);
    seed = xxh3_64_with_seed(&created_ms.to_le_bytes(), seed);
    for end in [span.map(|span| span.0), span.map(|span| span.1)] {
        // A missing part is not a zero or an empty one.
        seed = end.map_or(seed ^ 1, |end| xxh3_64_with_seed(&end.to_le_bytes(), seed));
    }
    let next = |seed, part: Option<&str>| part.map_or(seed ^ 1, |part| xxh3_64_with_seed(part.as_bytes(), seed));
    parts.into_iter().fold(seed, next).cast_signed()
}

pub(super) fn text_of<'a>(row: &'a Row<'_>, at: usize) -> rusqlite::Result<Option<&'a str>> {
    match row.get_ref(at)? {
        ValueRef::Null => Ok(None),
        other => Ok(Some(other.as_str()?)),
    }
}

/// Tells whether two JSON texts say the same; the order of members and blanks do not count.
fn is_same_json(stored: Option<&str>, put: Option<&str>) -> bool {
    if stored == put {
        return true;
    }
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    match (stored.and_then(parse), put.and_then(parse)) {
        (Some(stored), Some(put)) => stored == put,
        _ => false,
    }
}

/// Decodes the columns of [`COLUMNS`], which begin at the first, and verifies them.
pub(super) fn read(row: &Row<'_>) -> Outcome<StoredNode> {
    decoded(decode(row), || damaged(format!("the node {}", shown(row, 1))))
}

/// Returns the row's node; `None` when it is not what was written.
fn decode(row: &Row<'_>) -> rusqlite::Result<Option<StoredNode>> {
    let id = row.get_ref(1)?.as_str()?;
    let (kind, created_ms): (i64, i64) = (row.get(4)?, row.get(6)?);
    let hash = row.get_ref(5)?.as_blob()?;
    let span = row.get::<_, Option<i64>>(9)?.zip(row.get::<_, Option<i64>>(10)?);
    let parts = [
        text_of(row, 11)?,
        text_of(row, 12)?,
        text_of(row, 13)?,
        text_of(row, 14)?,
        text_of(row, 15)?,
        text_of(row, 16)?,
        text_of(row, 17)?,
    ];
    if checksum(id, hash, kind, created_ms, span, parts) != row.get::<_, i64>(8)? {
        return Ok(None);
    }
    let document = text_of(row, 2)?.filter(|id| !id.is_empty()).map(DocumentId::new).transpose();
    let (Ok(node), Ok(hash), Ok(document)) = (to_node(id, kind, span, parts), hash.try_into(), document) else {
        return Ok(None);
    };
    Ok(Some(StoredNode {
        node,
        document,
        position: row.get(3)?,
        hash: ContentHash(hash),
        created: Timestamp(created_ms),
        updated: Timestamp(row.get(7)?),
    }))
}

fn to_node(id: &str, kind: i64, span: Option<(i64, i64)>, parts: [Option<&str>; 7]) -> Result<Node, Kind> {
    let [previous, next, parent, children, metadata, content, text] = parts;
    let unreadable = |_| Kind::invalid("node", "a part of it is not what was written");
    let text = text.map(str::to_owned);
    let content = match (kind, content) {
        (0, None) => NodeContent::Text(text.unwrap_or_default()),
        (1, Some(source)) => {
            NodeContent::Image { source: serde_json::from_str(source).map_err(unreadable)?, caption: text }
        }
        (2, Some(target)) => NodeContent::Index { text: text.unwrap_or_default(), target: target.to_owned() },
        (PLAIN, Some(json)) => NodeContent::Plain(JsonText::from_stored(json)),
        _ => return Err(Kind::invalid("node", "its kind is unknown")),
    };
    let children = children.map(|ids| serde_json::from_str(ids).map_err(unreadable)).transpose()?;
    let related = |id: Option<&str>| id.map(NodeId::new).transpose();
    Ok(Node {
        id: NodeId::new(id)?,
        content,
        metadata: metadata.map(JsonText::from_stored),
        relationships: Relationships {
            previous: related(previous)?,
            next: related(next)?,
            parent: related(parent)?,
            children: children.unwrap_or_default(),
        },
        span: span.map(|(start, end)| CharSpan { start: start.cast_unsigned(), end: end.cast_unsigned() }),
    })
}

/// Returns a row's name for an error, also where the name itself is damaged.
pub(super) fn shown(row: &Row<'_>, at: usize) -> String {
    let bytes = row.get_ref(at).ok().and_then(|name| name.as_bytes().ok()).unwrap_or_default();
    format!("{:?}", String::from_utf8_lossy(bytes))
}

/// Returns the error for a row that is not what was written.
pub(super) fn damaged(row: String) -> Failure {
    let detail = row + " does not match its checksum, or cannot be read";
    Kind::Corrupt { store: StoreName::Documents, detail, written: Written::NotApplied }.into()
}

/// Checks what the types of a node cannot.
pub(super) fn check(node: &Node, bytes_max: usize) -> Outcome<()> {
    let bytes = node.size_bytes();
    if bytes > bytes_max {
        let (bytes, bytes_max) = (bytes as u64, bytes_max as u64);
        return Err(Kind::TooLarge { what: format!("node {:?}", node.id.as_str()), bytes, bytes_max }.into());
    }
    let invalid = |reason: &str| Err(Kind::invalid(format!("node {:?}", node.id.as_str()), reason).into());
    if !matches!(
        node.content,
        NodeContent::Text(_) | NodeContent::Image { .. } | NodeContent::Index { .. } | NodeContent::Plain(_)
    ) {
        return invalid("this build of larder does not know its kind");
    }
    match node.span {
        Some(CharSpan { start, end }) if start > end => invalid("its span ends before it starts"),
        Some(CharSpan { end, .. }) if i64::try_from(end).is_err() => invalid("its span ends past 2^63"),
        _ => Ok(()),
    }
}

/// Parses metadata as filters will see it.
pub(super) fn check_metadata(metadata: Option<&JsonText>) -> Outcome<Option<serde_json::Value>> {
    let Some(metadata) = metadata else { return Ok(None) };
    let value = crate::filter::read_json(metadata.as_str().as_bytes())?;
    if !value.is_object() {
        return Err(Kind::invalid("metadata", "it is not a JSON object").into());
    }
    Ok(Some(value))
}
