//! What a documents store shows of the ids that wrote to it.
//!
//! Start at [`inspect`].
//!
//! Always true: a document that is absent though two ids may explain it is never taken as proof against either.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;
use larder::protocol::documents::{IngestionState, StoredDocument, StoredNode};
use larder::{Larder, Result, Sequence};

use super::super::changes::replay;
use super::super::{Fate, History, Shown};
use super::{DocumentChange, DocumentsOperation, NEW_COUNT, WORD, changer, kept, own, text};

/// Hits of one page of a search.
const HITS: usize = 10_000;

/// A node as far as ids tell of it: whose it is, and who wrote its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    id: u64,
    part: u64,
    by: u64,
}

/// A document as far as ids tell of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    /// Who put it.
    by: u64,
    is_failed: bool,
    pieces: Vec<Piece>,
}

/// Everything that the store answers.
#[derive(Debug, Default)]
struct Everything {
    documents: BTreeMap<String, Seen>,
    alone: Vec<Piece>,
    /// By document, the ids of its nodes; none of those that stand alone.
    node_ids: BTreeMap<String, BTreeSet<String>>,
}

pub(super) async fn inspect(larder: &Larder, history: &History) -> Result<Shown> {
    let mut shown = Shown::default();
    let everything = Everything::read(larder, &mut shown.violations).await?;
    for (name, seen) in &everything.documents {
        tell_document(history, name, seen, &everything.alone, &mut shown);
    }
    tell_pairs(&everything, &mut shown);
    tell_alone(history, &everything, &mut shown);
    tell_deleted(history, &everything, &mut shown);
    tell_indexes(larder, history, &mut shown).await?;
    compare_with_search(larder, &everything, &mut shown.violations).await?;
    compare_with_log(larder, &everything, &mut shown.violations).await?;
    Ok(shown)
}

impl Everything {
    async fn read(larder: &Larder, violations: &mut Vec<String>) -> Result<Self> {
        let mut everything = Self::default();
        let stored: Vec<StoredDocument> = larder.documents().documents().stream().try_collect().await?;
        for document in stored {
            let name = document.id.as_str().to_owned();
            let nodes: Vec<StoredNode> = larder.documents().nodes(&name).stream().try_collect().await?;
            if document.node_count != nodes.len() as u64 {
                violations.push(format!("{name} counts {} nodes and has {}", document.node_count, nodes.len()));
            }
            let Some(by) = document.fingerprint.as_deref().and_then(|by| by.parse().ok()) else {
                violations.push(format!("{name} was put by nobody"));
                continue;
            };
            let is_failed = matches!(document.state, IngestionState::Failed { .. });
            everything.node_ids.insert(name.clone(), ids(&nodes));
            let pieces = pieces(&nodes, violations);
            everything.documents.insert(name, Seen { by, is_failed, pieces });
        }
        let alone: Vec<StoredNode> = larder.documents().nodes_alone().stream().try_collect().await?;
        everything.alone = pieces(&alone, violations);
        everything.node_ids.insert(String::new(), ids(&alone));
        Ok(everything)
    }
}

fn ids(nodes: &[StoredNode]) -> BTreeSet<String> {
    nodes.iter().map(|stored| stored.node.id.as_str().to_owned()).collect()
}

fn pieces(nodes: &[StoredNode], violations: &mut Vec<String>) -> Vec<Piece> {
    let read = |stored: &StoredNode| {
        let mut numbers = stored.node.id.as_str().strip_prefix("n-")?.split('-').map(str::parse);
        let (id, part) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        let said = stored.node.content.text()?;
        let by = said.split(' ').next()?.parse().ok()?;
        let metadata = stored.node.metadata.as_ref()?.to_value();
        let is_whole = said == text(by, part) && metadata == serde_json::json!({"id": by, "part": part});
        (is_whole && stored.hash == stored.node.hash()).then_some(Piece { id, part, by })
    };
    let mut pieces = Vec::with_capacity(nodes.len());
    for stored in nodes {
        match read(stored) {
            Some(piece) => pieces.push(piece),
            None => violations.push(format!("nobody wrote the node {:?}", stored.node)),
        }
    }
    pieces
}

fn whole(id: u64, parts: std::ops::Range<u64>) -> Vec<Piece> {
    parts.map(|part| Piece { id, part, by: id }).collect()
}

fn tell_document(history: &History, name: &str, seen: &Seen, alone: &[Piece], shown: &mut Shown) {
    let mut parts = name.splitn(3, '-');
    let (kind, id, rest) = (parts.next(), parts.next().and_then(|id| id.parse().ok()), parts.next());
    let Some(id) = id else { return shown.violations.push(format!("document {name} is there, which nobody put")) };
    shown.found.insert(id);
    let expected = match (kind, DocumentsOperation::of(history.seed, id), rest) {
        (Some("own"), DocumentsOperation::Own { count }, None) => {
            return tell_own(history, id, count, seen, alone, shown);
        }
        (Some("once"), DocumentsOperation::PutOnce { count }, None) => 0..count,
        (Some("pair"), DocumentsOperation::Pair { .. }, Some("a")) => 0..1,
        (Some("pair"), DocumentsOperation::Pair { count }, Some("b")) => 1..count,
        (_, operation, _) => {
            return shown.violations.push(format!("document {name} is there, and id {id} does {operation}"));
        }
    };
    if *seen != (Seen { by: id, is_failed: false, pieces: whole(id, expected) }) {
        shown.violations.push(format!("{name} is there in part: {seen:?}"));
    }
}

/// What an own document is after its one change; `None` when it is gone.
fn changed(mut seen: Seen, target: u64, by: u64, change: DocumentChange) -> Option<Seen> {
    match change {
        DocumentChange::Replace => {
            seen.by = by;
            seen.pieces = whole(target, 0..kept(seen.pieces.len() as u64));
            seen.pieces.extend(whole(by, 0..NEW_COUNT));
        }
        DocumentChange::Update => seen.pieces.iter_mut().take(1).for_each(|first| first.by = by),
        DocumentChange::DeleteNode => _ = seen.pieces.pop(),
        DocumentChange::Move => _ = seen.pieces.remove(0),
        DocumentChange::Fail => seen.is_failed = true,
        DocumentChange::DeleteDocument => return None,
    }
    Some(seen)
}

fn tell_own(history: &History, id: u64, count: u64, seen: &Seen, alone: &[Piece], shown: &mut Shown) {
    let before = Seen { by: id, is_failed: false, pieces: whole(id, 0..count) };
    let changer = changer(history.seed, id);
    let after = changer.and_then(|(by, change)| Some((by, changed(before.clone(), id, by, change)?)));
    let has_moved = alone.contains(&Piece { id, part: 0, by: id });
    let is_moved = match after {
        Some((by, after)) if *seen == after => {
            shown.found.insert(by);
            changer.is_some_and(|(_, change)| change == DocumentChange::Move)
        }
        _ if *seen == before => false,
        _ => return shown.violations.push(format!("own-{id} is {seen:?}, which nobody may have left")),
    };
    if is_moved != has_moved {
        shown.violations.push(format!("the first node of own-{id} is in two places or in none"));
    }
}

fn tell_pairs(everything: &Everything, shown: &mut Shown) {
    for name in everything.documents.keys() {
        let other = match name.strip_suffix("-a").zip(name.strip_prefix("pair")) {
            Some((stem, _)) => format!("{stem}-b"),
            None => match name.strip_suffix("-b").zip(name.strip_prefix("pair")) {
                Some((stem, _)) => format!("{stem}-a"),
                None => continue,
            },
        };
        if !everything.documents.contains_key(&other) {
            shown.violations.push(format!("{name} is there in part: without {other}"));
        }
    }
}

/// Nodes that stand alone: whole batches, and first nodes that were moved, of which the documents tell.
fn tell_alone(history: &History, everything: &Everything, shown: &mut Shown) {
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    for piece in &everything.alone {
        match DocumentsOperation::of(history.seed, piece.id) {
            DocumentsOperation::Alone { count } if piece.by == piece.id && piece.part < count => {
                *counts.entry(piece.id).or_default() += 1;
            }
            DocumentsOperation::Own { .. } if everything.documents.contains_key(&own(piece.id)) => {}
            operation => {
                let Piece { id, part, .. } = piece;
                shown.found.insert(*id);
                shown.violations.push(format!("node {part} of id {id} stands alone, and it does {operation}"));
            }
        }
    }
    for (id, found) in counts {
        shown.found.insert(id);
        if let DocumentsOperation::Alone { count } = DocumentsOperation::of(history.seed, id)
            && count != found
        {
            shown.violations.push(format!("id {id} is there in part: {found} of {count}"));
        }
    }
}

/// Tells of ids that delete a document; every other change is seen in the document itself.
fn tell_deleted(history: &History, everything: &Everything, shown: &mut Shown) {
    for (id, _) in history.possible() {
        let DocumentsOperation::Change { target, change } = DocumentsOperation::of(history.seed, id) else { continue };
        if change != DocumentChange::DeleteDocument {
            continue;
        }
        match (history.fate(target), everything.documents.contains_key(&own(target))) {
            // It was put, and only this id can have deleted it.
            (Some(Fate::Applied), false) => shown.found.extend([id, target]),
            (_, false) => shown.untold.extend([id, target]),
            // Deleted before it was put, or not deleted.
            (_, true) if !history.is_before(target, id) => _ = shown.untold.insert(id),
            (_, true) => {}
        }
    }
}

async fn tell_indexes(larder: &Larder, history: &History, shown: &mut Shown) -> Result<()> {
    let mut after = None;
    loop {
        let page = larder.documents().indexes(after.as_ref(), 1_000).await?;
        for record in &page {
            let id: Option<u64> = record.id.as_str().strip_prefix("index-").and_then(|id| id.parse().ok());
            let is_ours = |id: &u64| {
                DocumentsOperation::of(history.seed, *id) == DocumentsOperation::Index
                    && (record.kind.as_str(), record.content.as_str()) == ("number", id.to_string().as_str())
            };
            match id.filter(is_ours) {
                Some(id) => _ = shown.found.insert(id),
                None => shown.violations.push(format!("nobody put the index record {record:?}")),
            }
        }
        match page.last() {
            Some(last) => after = Some(last.id.clone()),
            None => return Ok(()),
        }
    }
}

/// The full-text index must find what is there, and only that.
async fn compare_with_search(larder: &Larder, everything: &Everything, violations: &mut Vec<String>) -> Result<()> {
    let mut hits = BTreeSet::new();
    let mut count = 0;
    loop {
        let page = larder.documents().search(WORD).offset(count).limit(HITS).await?;
        // A page also ends at a size.
        if page.is_empty() {
            break;
        }
        count += page.len();
        hits.extend(page.into_iter().map(|hit| hit.found.node.id.as_str().to_owned()));
    }
    let there: BTreeSet<String> = everything.node_ids.values().flatten().cloned().collect();
    if let Some(node) = hits.symmetric_difference(&there).next() {
        violations.push(format!("the search and the documents disagree about node {node}"));
    }
    // By two numbers alone: a word that every node holds makes a search read every node.
    for piece in everything.documents.values().flat_map(|seen| &seen.pieces).filter(|piece| piece.by != piece.id) {
        let finds = async |by: u64| -> Result<bool> {
            let hits = larder.documents().search(format!("{by} {}", piece.part)).limit(100).await?;
            let name = format!("n-{}-{}", piece.id, piece.part);
            let is_it = |node: &larder::Node| {
                node.id.as_str() == name && node.content.text() == Some(text(by, piece.part).as_str())
            };
            Ok(hits.iter().any(|hit| is_it(&hit.found.node)))
        };
        if finds(piece.id).await? || !finds(piece.by).await? {
            violations.push(format!("node {piece:?} was updated, and its search does not say so"));
        }
    }
    Ok(())
}

/// Where the change log reaches back to the first commit, it must leave the nodes that are there.
async fn compare_with_log(larder: &Larder, everything: &Everything, violations: &mut Vec<String>) -> Result<()> {
    let observed = larder.observe().into_iter().find(|seen| seen.store.as_str() == "documents");
    let newest = observed.map_or(0, |seen| seen.sequence);
    let Some(changes) = replay(larder.documents().subscribe(Sequence(0)).await?, newest, violations).await? else {
        return Ok(());
    };
    // By document; `None` where the log says no more than that anything may have changed.
    let mut logged: BTreeMap<String, Option<BTreeSet<String>>> = BTreeMap::new();
    for change in changes {
        let ids = change.ids;
        match change.kind.as_str() {
            "document" => ids.into_iter().for_each(|id| _ = logged.entry(id).or_insert_with(|| Some(BTreeSet::new()))),
            "delete" if ids.is_empty() => _ = logged.remove(&change.scope),
            "put" | "delete" | "move" => {
                let is_delete = change.kind == "delete";
                let known = logged.entry(change.scope).or_insert_with(|| Some(BTreeSet::new()));
                if ids.is_empty() {
                    *known = None;
                }
                let Some(known) = known else { continue };
                for id in ids {
                    // A move is said of where the node was and of where it is.
                    if is_delete || change.kind == "move" && known.contains(&id) {
                        known.remove(&id);
                    } else {
                        known.insert(id);
                    }
                }
            }
            _ => {}
        }
    }
    for name in everything.documents.keys().filter(|name| !logged.contains_key(*name)) {
        violations.push(format!("the change log does not know document {name}"));
    }
    for (name, ids) in logged {
        let there = everything.node_ids.get(&name);
        if ids.is_some_and(|ids| Some(&ids) != there) && !(name.is_empty() && there.is_none()) {
            violations.push(format!("the change log and document {name} disagree about its nodes"));
        }
    }
    Ok(())
}
