//! What a vectors store shows of the ids that wrote to it.
//!
//! Start at [`inspect`].
//!
//! Always true: points that are absent though two ids may explain it are never taken as proof against either.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;
use larder::{Hit, Larder, PointFields, Result, Sequence, TextQuery, VectorCollection};

use super::super::changes::replay;
use super::super::{Fate, History, Shown};
use super::{PointChange, VectorsOperation, WORD, changer, collection, own, place, point_id, text};

/// Hits of one search.
const HITS: usize = 10_000;
/// Ids that one search is narrowed to.
const IDS: usize = 5_000;

/// Everything that the store answers: by id and part, who wrote it, and whether it belongs to the id's document.
type Seen = BTreeMap<(u64, u64), (u64, bool)>;

pub(super) async fn inspect(larder: &Larder, history: &History) -> Result<Shown> {
    let mut shown = Shown::default();
    let collection = collection(larder).await?;
    let seen = read(&collection, &mut shown.violations).await?;
    let mut by_id: BTreeMap<u64, BTreeMap<u64, (u64, bool)>> = BTreeMap::new();
    for ((id, part), written) in &seen {
        by_id.entry(*id).or_default().insert(*part, *written);
    }
    for (id, parts) in &by_id {
        tell_points(history, *id, parts, &mut shown);
    }
    tell_deleted(history, &by_id, &mut shown);
    compare_with_search(&collection, &seen, &mut shown.violations).await?;
    compare_with_text_search(&collection, &seen, &mut shown.violations).await?;
    compare_with_log(larder, &seen, &mut shown.violations).await?;
    Ok(shown)
}

async fn read(collection: &VectorCollection, violations: &mut Vec<String>) -> Result<Seen> {
    let stored: Vec<Hit> = collection.page().fields(PointFields::ALL).limit(1_000).stream().try_collect().await?;
    let mut seen = Seen::new();
    for point in &stored {
        match parse(point) {
            Some((id, part, by, is_own)) => _ = seen.insert((id, part), (by, is_own)),
            None => violations.push(format!("nobody wrote the point {point:?}")),
        }
    }
    let count = collection.count().await?;
    if count != stored.len() as u64 {
        violations.push(format!("the collection counts {count} points and has {}", stored.len()));
    }
    Ok(seen)
}

/// Returns id, part, writer, and whether it belongs to the id's document, if all of the point says the same.
fn parse(point: &Hit) -> Option<(u64, u64, u64, bool)> {
    let mut numbers = point.id.as_str().strip_prefix("p-")?.split('-').map(str::parse);
    let (id, part) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    let by = point.text.as_ref()?.split(' ').next()?.parse().ok()?;
    let document = point.document.as_ref().map(|document| document.as_str() == own(id));
    let is_whole = point.text.as_deref()? == text(by, part)
        && point.metadata.as_ref()?.to_value() == serde_json::json!({"id": id, "part": part, "by": by})
        && point.vector.as_ref()?.as_slice() == place(id, part, by)
        && document != Some(false);
    is_whole.then_some((id, part, by, document == Some(true)))
}

fn tell_points(history: &History, id: u64, parts: &BTreeMap<u64, (u64, bool)>, shown: &mut Shown) {
    shown.found.insert(id);
    let whole = |count: u64, is_own: bool| (0..count).map(|part| (part, (id, is_own))).collect::<BTreeMap<_, _>>();
    let is_right = match VectorsOperation::of(history.seed, id) {
        VectorsOperation::Alone { count } | VectorsOperation::PutOnce { count } => *parts == whole(count, false),
        VectorsOperation::Own { count } => {
            let before = whole(count, true);
            match changer(history.seed, id) {
                Some((by, change)) if *parts == changed(before.clone(), by, change) => {
                    shown.found.insert(by);
                    true
                }
                _ => *parts == before,
            }
        }
        VectorsOperation::Refused { .. } | VectorsOperation::Change { .. } => false,
    };
    if !is_right {
        let operation = VectorsOperation::of(history.seed, id);
        shown.violations.push(format!("id {id} is there in part: {parts:?}, and it does {operation}"));
    }
}

/// What own points are after their one change.
fn changed(mut parts: BTreeMap<u64, (u64, bool)>, by: u64, change: PointChange) -> BTreeMap<u64, (u64, bool)> {
    match change {
        PointChange::Update => _ = parts.insert(0, (by, true)),
        PointChange::DeleteLast => _ = parts.pop_last(),
        PointChange::DeleteDocument | PointChange::DeleteByFilter => parts.clear(),
    }
    parts
}

/// Tells of ids that delete all points of another; every other change is seen in the points themselves.
fn tell_deleted(history: &History, by_id: &BTreeMap<u64, BTreeMap<u64, (u64, bool)>>, shown: &mut Shown) {
    for (id, _) in history.possible() {
        let VectorsOperation::Change { target, change } = VectorsOperation::of(history.seed, id) else { continue };
        if !change.deletes_all() {
            continue;
        }
        match (history.fate(target), by_id.contains_key(&target)) {
            // They were put, and only this id can have deleted them.
            (Some(Fate::Applied), false) => shown.found.extend([id, target]),
            (_, false) => shown.untold.extend([id, target]),
            // Deleted before they were put, or not deleted.
            (_, true) if !history.is_before(target, id) => _ = shown.untold.insert(id),
            (_, true) => {}
        }
    }
}

/// The index must find what is there, each point at its own place, and only that.
async fn compare_with_search(collection: &VectorCollection, seen: &Seen, violations: &mut Vec<String>) -> Result<()> {
    let ids: BTreeSet<String> = seen.keys().map(|(id, part)| point_id(*id, *part)).collect();
    let all: Vec<&String> = ids.iter().collect();
    for some in all.chunks(IDS) {
        let hits = collection.search(place(0, 0, 0)).include(some).k(HITS).fields(PointFields::NONE).await?;
        let found: BTreeSet<&str> = hits.iter().map(|hit| hit.id.as_str()).collect();
        if let Some(missing) = some.iter().find(|id| !found.contains(id.as_str())) {
            violations.push(format!("no search finds point {missing}"));
        }
    }
    let hits = collection.search(place(0, 0, 0)).k(HITS).fields(PointFields::NONE).await?;
    if hits.len() != ids.len().min(HITS) {
        violations.push(format!("a search for all finds {} of {} points", hits.len(), ids.len()));
    }
    if let Some(ghost) = hits.iter().find(|hit| !ids.contains(hit.id.as_str())) {
        violations.push(format!("a search finds point {}, which is not there", ghost.id));
    }
    // Some of them, spread over all.
    for ((id, part), (by, _)) in seen.iter().step_by(seen.len() / 50 + 1) {
        let hits = collection.search(place(*id, *part, *by)).k(1).await?;
        if hits.first().is_none_or(|hit| hit.id.as_str() != point_id(*id, *part) || hit.score != 0.0) {
            violations.push(format!("point {} is not found at its place: {hits:?}", point_id(*id, *part)));
        }
    }
    Ok(())
}

/// The full-text index must find what is there, and only that.
async fn compare_with_text_search(
    collection: &VectorCollection,
    seen: &Seen,
    violations: &mut Vec<String>,
) -> Result<()> {
    let hits = collection.search_text(WORD).k(HITS).fields(PointFields::NONE).await?;
    if hits.len() != seen.len().min(HITS) {
        violations.push(format!("a text search for all finds {} of {} points", hits.len(), seen.len()));
    }
    for ((id, part), (by, _)) in seen.iter().filter(|((id, _), (by, _))| id != by) {
        let finds = async |by: u64| -> Result<bool> {
            // As a phrase: the words alone may stand in the other order, or be one.
            let hits = collection.search_text(TextQuery::default().phrase(format!("{by} {part}"))).k(100).await?;
            Ok(hits.iter().any(|hit| hit.id.as_str() == point_id(*id, *part)))
        };
        if finds(*id).await? || !finds(*by).await? {
            violations
                .push(format!("point {} was put anew, and its text search does not say so", point_id(*id, *part)));
        }
    }
    Ok(())
}

/// Where the change log reaches back to the first commit, it must leave the points that are there.
async fn compare_with_log(larder: &Larder, seen: &Seen, violations: &mut Vec<String>) -> Result<()> {
    let observed = larder.observe().into_iter().find(|seen| seen.store.as_str() == "vectors");
    let newest = observed.map_or(0, |seen| seen.sequence);
    let Some(changes) = replay(larder.vectors().subscribe(Sequence(0)).await?, newest, violations).await? else {
        return Ok(());
    };
    let mut logged = BTreeSet::new();
    for change in changes {
        match change.kind.as_str() {
            // No more than that anything may have changed.
            "put" | "delete" if change.ids.is_empty() => return Ok(()),
            "put" => logged.extend(change.ids),
            "delete" => change.ids.iter().for_each(|id| _ = logged.remove(id)),
            _ => {}
        }
    }
    let there: BTreeSet<String> = seen.keys().map(|(id, part)| point_id(*id, *part)).collect();
    if let Some(id) = logged.symmetric_difference(&there).next() {
        violations.push(format!("the change log and the points disagree about point {id}"));
    }
    Ok(())
}
