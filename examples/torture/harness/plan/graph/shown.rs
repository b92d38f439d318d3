//! What a graph store shows of the ids that wrote to it.
//!
//! Start at [`inspect`].
//!
//! Always true: facts that are absent though two ids may explain it are never taken as proof against either.

use std::collections::{BTreeMap, BTreeSet};

use larder::{Graph, Larder, Relation, Result, Sequence};

use super::super::changes::replay;
use super::super::{Fate, History, Shown};
use super::{EntityChange, GraphOperation, PART, SAME, alone, changer, other, own, part_name, source};

/// Facts that a removed source loses in one commit.
const SLICE: usize = 500;

/// One fact as it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    by: u64,
    is_own: bool,
    /// It relates an entity to itself.
    is_merged: bool,
}

/// Everything that the store answers, by id and part.
type Seen = BTreeMap<u64, BTreeMap<u64, Part>>;

pub(super) async fn inspect(larder: &Larder, history: &History) -> Result<Shown> {
    let mut shown = Shown::default();
    let graph = larder.graph();
    let stored = read(&graph).await?;
    let mut seen = Seen::new();
    for relation in &stored {
        match parse(relation) {
            Some((id, part, state)) => _ = seen.entry(id).or_default().insert(part, state),
            None => shown.violations.push(format!("nobody wrote the fact {relation:?}")),
        }
    }
    for (id, parts) in &seen {
        tell_facts(history, *id, parts, &mut shown);
    }
    tell_deleted(history, &seen, &mut shown);
    compare_with_walks(&graph, &seen, &mut shown.violations).await?;
    compare_with_log(larder, &stored, &mut shown.violations).await?;
    Ok(shown)
}

async fn read(graph: &Graph) -> Result<Vec<Relation>> {
    let mut stored = Vec::new();
    let mut request = graph.relations().whenever().limit(2_000);
    loop {
        let page = request.await?;
        stored.extend(page.relations);
        let Some(next) = page.next else { return Ok(stored) };
        request = graph.relations().whenever().limit(2_000).after(next);
    }
}

/// Returns id, part and state, if all of the fact says the same.
fn parse(relation: &Relation) -> Option<(u64, u64, Part)> {
    let properties = relation.properties.as_ref()?.to_value();
    let number = |name: &str| properties.get(name)?.as_u64();
    let (id, part, by) = (number("id")?, number("part")?, number("by")?);
    let (subject, label, object) =
        (relation.subject.name.as_str(), relation.label.as_str(), relation.object.name.as_str());
    let is_own = subject == own(id);
    let is_merged = subject == object;
    let is_whole = (is_own || subject == alone(id))
        && match label {
            PART => object == part_name(id, part),
            SAME => is_own && (is_merged || object == other(id)),
            _ => false,
        };
    let sources: Vec<_> = relation.sources.iter().map(|source| source.as_str()).collect();
    let is_said = if is_own { sources == [source(id)] } else { sources.is_empty() };
    (is_whole && is_said).then_some((id, part, Part { by, is_own, is_merged }))
}

fn tell_facts(history: &History, id: u64, parts: &BTreeMap<u64, Part>, shown: &mut Shown) {
    shown.found.insert(id);
    let whole = |count: u64, is_own: bool| {
        (0..count).map(|part| (part, Part { by: id, is_own, is_merged: false })).collect::<BTreeMap<_, _>>()
    };
    let is_right = match GraphOperation::of(history.seed, id) {
        GraphOperation::Alone { count } | GraphOperation::PutOnce { count } => *parts == whole(count, false),
        GraphOperation::Own { count } => {
            let before = whole(count + 1, true);
            match changer(history.seed, id) {
                Some((by, change)) if *parts == changed(before.clone(), count, by, change) => {
                    shown.found.insert(by);
                    true
                }
                // It goes in slices, and was not answered yet.
                Some((by, EntityChange::RemoveSource)) if is_begun(parts, &before) => {
                    shown.untold.insert(by);
                    history.fate(by) != Some(Fate::Applied)
                }
                _ => *parts == before,
            }
        }
        GraphOperation::Refused { .. } | GraphOperation::Change { .. } => false,
    };
    if !is_right {
        let operation = GraphOperation::of(history.seed, id);
        shown.violations.push(format!("id {id} is there in part: {parts:?}, and it does {operation}"));
    }
}

/// Whether some slices of facts went, the first ones first, and some are left.
fn is_begun(parts: &BTreeMap<u64, Part>, before: &BTreeMap<u64, Part>) -> bool {
    let gone_count = before.len() - parts.len().min(before.len());
    gone_count > 0 && gone_count.is_multiple_of(SLICE) && parts.iter().eq(before.iter().skip(gone_count))
}

/// What the facts of an own entity are after its one change.
fn changed(mut parts: BTreeMap<u64, Part>, count: u64, by: u64, change: EntityChange) -> BTreeMap<u64, Part> {
    match change {
        EntityChange::Update => parts.entry(0).and_modify(|part| part.by = by).or_insert_with(|| unreachable_part(by)),
        EntityChange::DeleteLast => {
            parts.remove(&(count - 1));
            return parts;
        }
        EntityChange::DeleteEntity | EntityChange::RemoveSource => {
            parts.clear();
            return parts;
        }
        EntityChange::Merge => {
            parts.entry(count).and_modify(|part| part.is_merged = true).or_insert_with(|| unreachable_part(by))
        }
    };
    parts
}

/// A part that no whole entity lacks, and that no fact equals.
fn unreachable_part(by: u64) -> Part {
    Part { by, is_own: false, is_merged: true }
}

/// Tells of ids that delete all facts of another; every other change is seen in the facts themselves.
fn tell_deleted(history: &History, seen: &Seen, shown: &mut Shown) {
    for (id, _) in history.possible() {
        let GraphOperation::Change { target, change } = GraphOperation::of(history.seed, id) else { continue };
        if !change.deletes_all() {
            continue;
        }
        match (history.fate(target), seen.contains_key(&target)) {
            // They were put, and only this id can have deleted them.
            (Some(Fate::Applied), false) => shown.found.extend([id, target]),
            (_, false) => shown.untold.extend([id, target]),
            // Deleted before they were put, or not deleted.
            (_, true) if !history.is_before(target, id) => _ = shown.untold.insert(id),
            (_, true) => {}
        }
    }
}

/// Walks must meet what is there, from either end, and only that.
async fn compare_with_walks(graph: &Graph, seen: &Seen, violations: &mut Vec<String>) -> Result<()> {
    // Some of them, spread over all.
    for (id, parts) in seen.iter().step_by(seen.len() / 100 + 1) {
        let Some(first) = parts.values().next() else { continue };
        let name = if first.is_own { own(*id) } else { alone(*id) };
        let met = graph.neighbors(&name).outgoing().limit(10_000).await?;
        let met: BTreeSet<_> = met.iter().map(|neighbor| neighbor.entity.name.as_str().to_owned()).collect();
        if met.len() != parts.len() {
            violations.push(format!("a walk from {name} meets {} of {} facts", met.len(), parts.len()));
        }
        for part in parts.iter().filter(|(_, part)| !part.is_merged).map(|(part, _)| *part).take(3) {
            let object = part_name(*id, part);
            if met.contains(&object) {
                let back = graph.neighbors(&object).incoming().await?;
                if back.len() != 1 || back.iter().any(|neighbor| neighbor.entity.name.as_str() != name) {
                    violations.push(format!("a walk back from {object} does not meet {name}"));
                }
            }
        }
    }
    let counts = graph.counts().await?;
    let count: usize = seen.values().map(BTreeMap::len).sum();
    if counts.relations != count as u64 {
        violations.push(format!("the graph counts {} facts and has {count}", counts.relations));
    }
    Ok(())
}

/// Where the change log reaches back to the first commit, it must tell of every fact that is there, and of none as deleted.
async fn compare_with_log(larder: &Larder, stored: &[Relation], violations: &mut Vec<String>) -> Result<()> {
    let observed = larder.observe().into_iter().find(|seen| seen.store.as_str() == "graph");
    let newest = observed.map_or(0, |seen| seen.sequence);
    let Some(changes) = replay(larder.graph().subscribe(Sequence(0)).await?, newest, violations).await? else {
        return Ok(());
    };
    let mut logged = BTreeSet::new();
    for change in changes.into_iter().filter(|change| change.scope == "relation") {
        match change.kind.as_str() {
            // No more than that anything may have changed.
            "insert" | "delete" if change.ids.is_empty() => return Ok(()),
            "insert" => logged.extend(change.ids),
            "delete" => change.ids.iter().for_each(|id| _ = logged.remove(id)),
            _ => {}
        }
    }
    if let Some(lost) = stored.iter().find(|relation| !logged.contains(&relation.id.to_string())) {
        violations.push(format!("the change log and the facts disagree about {}", lost.id));
    }
    Ok(())
}
