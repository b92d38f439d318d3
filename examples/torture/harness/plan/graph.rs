//! The graph store's plan: facts whose names and properties say which id wrote them, and every kind of change to the facts of an
//! id's own entity.
//!
//! Start at [`GraphOperation::of`], which says what an id does; [`shown`] says what of that a store shows.
//!
//! Always true: a fact belongs to one id and part; the facts of an id's own entity are changed by at most one later id.

mod shown;

use std::fmt;

use futures::future::{BoxFuture, join};
use larder::protocol::JsonText;
use larder::{Graph, Larder, NewRelation, Result};

use super::{FAR, History, Lie, NEAR, Outcome, Plan, Random, Shown, must_fail};

/// Facts of the few entities whose rows are deleted in several slices.
const LARGE: u64 = 1_500;
/// What a fact of an entity's parts says.
const PART: &str = "has part";
/// What the one fact says whose object may be merged into its subject.
const SAME: &str = "same as";

pub(crate) struct GraphPlan;

/// What an id does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GraphOperation {
    /// Puts facts of an entity of its own, from a source of its own.
    Own { count: u64 },
    /// Puts facts that nobody changes.
    Alone { count: u64 },
    /// Puts facts twice at the same time under one key: once.
    PutOnce { count: u64 },
    /// Puts facts of which the last has no weight: nothing may be left.
    Refused { count: u64 },
    /// Changes an earlier id's own entity.
    Change { target: u64, change: EntityChange },
}

/// What an id does to an earlier one's entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntityChange {
    /// Puts the first fact anew.
    Update,
    DeleteLast,
    DeleteEntity,
    RemoveSource,
    /// Merges the other entity into it.
    Merge,
}

impl GraphOperation {
    fn of(seed: u64, id: u64) -> Self {
        let mut random = Random::of(seed, id);
        let count = 2 + random.below(5);
        match id % 10 {
            // The distances lead to ids that end in 0 and 1.
            0 | 1 => Self::Own { count: if id.is_multiple_of(500) && id > 0 { LARGE } else { count } },
            4 if id >= FAR => Self::Change { target: id - FAR, change: EntityChange::of(&mut random) },
            5 if id >= NEAR => Self::Change { target: id - NEAR, change: EntityChange::of(&mut random) },
            6 | 7 => Self::PutOnce { count },
            8 => Self::Refused { count },
            _ => Self::Alone { count },
        }
    }
}

impl EntityChange {
    const ALL: [Self; 5] = [Self::Update, Self::DeleteLast, Self::DeleteEntity, Self::RemoveSource, Self::Merge];

    fn of(random: &mut Random) -> Self {
        Self::ALL.get(random.index(Self::ALL.len())).copied().unwrap_or(Self::Update)
    }

    /// Whether nothing of the target's facts is left.
    fn deletes_all(self) -> bool {
        matches!(self, Self::DeleteEntity | Self::RemoveSource)
    }
}

impl fmt::Display for GraphOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own { count } => write!(f, "graph.own {count}"),
            Self::Alone { count } => write!(f, "graph.alone {count}"),
            Self::PutOnce { count } => write!(f, "graph.put_once {count}"),
            Self::Refused { count } => write!(f, "graph.refused {count}"),
            Self::Change { target, change } => write!(f, "graph.{change:?} {target}"),
        }
    }
}

/// Returns the one id that may change an own entity, and how.
fn changer(seed: u64, target: u64) -> Option<(u64, EntityChange)> {
    [target + NEAR, target + FAR].into_iter().find_map(|id| match GraphOperation::of(seed, id) {
        GraphOperation::Change { target: found, change } if found == target => Some((id, change)),
        _ => None,
    })
}

fn own(id: u64) -> String {
    format!("own-{id}")
}

/// The entity that may be merged into an id's own.
fn other(id: u64) -> String {
    format!("other-{id}")
}

fn alone(id: u64) -> String {
    format!("alone-{id}")
}

fn source(id: u64) -> String {
    format!("source-{id}")
}

fn part_name(id: u64, part: u64) -> String {
    format!("part-{id}-{part}")
}

fn properties(id: u64, part: u64, by: u64) -> String {
    format!(r#"{{"id": {id}, "part": {part}, "by": {by}}}"#)
}

fn fact(subject: &str, id: u64, part: u64, by: u64) -> Result<NewRelation> {
    let object = part_name(id, part);
    Ok(NewRelation::new(subject, PART, object)?.with_properties(JsonText::new(properties(id, part, by))?))
}

fn alone_facts(id: u64, count: u64) -> Result<Vec<NewRelation>> {
    (0..count).map(|part| fact(&alone(id), id, part, id)).collect()
}

/// The facts of an own entity; the last may come to relate it to itself.
fn own_facts(id: u64, count: u64) -> Result<Vec<NewRelation>> {
    let mut facts = (0..count)
        .map(|part| Ok(fact(&own(id), id, part, id)?.with_source(source(id))?))
        .collect::<Result<Vec<_>>>()?;
    let same = NewRelation::new(own(id), SAME, other(id))?;
    facts.push(same.with_properties(JsonText::new(properties(id, count, id))?).with_source(source(id))?);
    Ok(facts)
}

impl Plan for GraphPlan {
    fn describe(&self, seed: u64, id: u64) -> String {
        GraphOperation::of(seed, id).to_string()
    }

    fn is_repeatable(&self, seed: u64, id: u64) -> bool {
        matches!(GraphOperation::of(seed, id), GraphOperation::PutOnce { .. } | GraphOperation::Alone { .. })
    }

    fn is_sure(&self, seed: u64, id: u64) -> bool {
        matches!(GraphOperation::of(seed, id), GraphOperation::Own { .. } | GraphOperation::Alone { .. })
    }

    fn send<'a>(&'a self, larder: &'a Larder, seed: u64, id: u64, lie: Option<Lie>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let sent = send(&larder.graph(), seed, id, lie).await;
            sent.unwrap_or_else(|error| Outcome::Wrong(format!("the plan makes bad input: {error}")))
        })
    }

    fn inspect<'a>(&'a self, larder: &'a Larder, history: &'a History) -> BoxFuture<'a, Result<Shown>> {
        Box::pin(shown::inspect(larder, history))
    }

    fn lose_last(&self, connection: &rusqlite::Connection, history: &History) -> Result<String, String> {
        let certain = history.possible().filter(|(_, is_certain)| *is_certain).map(|(id, _)| id);
        let is_lasting = |id: &u64| {
            matches!(
                GraphOperation::of(history.seed, *id),
                GraphOperation::Alone { .. } | GraphOperation::PutOnce { .. }
            )
        };
        let id = certain.filter(is_lasting).last().ok_or("no acknowledged fact to lose")?;
        let lost = properties(id, 0, id);
        connection
            .execute("DELETE FROM relation WHERE properties = ?1", [&lost])
            .map_err(|e| format!("cannot delete {lost:?}: {e}"))?;
        Ok(lost)
    }

    fn add_row<'a>(&'a self, larder: &'a Larder) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let id = u64::from(u32::MAX);
            larder.graph().upsert_relations([fact(&alone(id), id, 0, id)?]).await.map(|_| ())
        })
    }
}

/// Sends the operation of an id. An error is the plan's own fault.
async fn send(graph: &Graph, seed: u64, id: u64, lie: Option<Lie>) -> Result<Outcome> {
    Ok(match GraphOperation::of(seed, id) {
        GraphOperation::Own { count } => put_own(graph, seed, id, count).await?,
        GraphOperation::Alone { count } => {
            let sent = if lie == Some(Lie::SkipBatchHalf) { count.div_ceil(2) } else { count };
            Outcome::of(graph.upsert_relations(alone_facts(id, sent)?).await)
        }
        GraphOperation::PutOnce { count } => put_once(graph, id, count).await?,
        GraphOperation::Refused { count } => {
            let mut facts = alone_facts(id, count)?;
            facts.push(fact(&alone(id), id, count, id)?.with_weight(0.0));
            must_fail(Outcome::of(graph.upsert_relations(facts).await))
        }
        GraphOperation::Change { target, change } => make(change, graph, target, id).await?,
    })
}

/// Puts facts that are not there yet; where nobody changes them later, the next walk must meet them.
async fn put_own(graph: &Graph, seed: u64, id: u64, count: u64) -> Result<Outcome> {
    let put = graph.upsert_relations(own_facts(id, count)?).await;
    if put.is_err() || changer(seed, id).is_some() {
        return Ok(Outcome::of(put));
    }
    match graph.neighborhood([own(id)], 1).limit(10_000).await {
        Ok(reached) if reached.len() as u64 != count + 1 => {
            Ok(Outcome::Wrong(format!("a walk meets {} of its own {} facts", reached.len(), count + 1)))
        }
        // A failed read is no wrong answer.
        _ => Ok(Outcome::Acknowledged),
    }
}

/// Sends one write twice at the same time under one key; both get the first outcome.
async fn put_once(graph: &Graph, id: u64, count: u64) -> Result<Outcome> {
    let put = || -> Result<_> {
        let facts = alone_facts(id, count)?;
        Ok(graph.upsert_relations(facts).idempotency_key(format!("once-{id}")).into_future())
    };
    Ok(match join(put()?, put()?).await {
        (Ok(first), Ok(second)) if first != second => {
            Outcome::Wrong("two writes under one key have two outcomes".to_owned())
        }
        (Ok(_), _) | (_, Ok(_)) => Outcome::Acknowledged,
        // The first error may say "not applied" while the second leaves it open.
        (Err(first), second) if first.written() == larder::Written::NotApplied => Outcome::of(second),
        (first, _) => Outcome::of(first),
    })
}

/// Changes an own entity, whose parts are counted first.
async fn make(change: EntityChange, graph: &Graph, target: u64, id: u64) -> Result<Outcome> {
    let count = match graph.relations().subject(own(target)).label(PART).limit(10_000).await {
        Ok(page) if page.relations.is_empty() => return Ok(Outcome::not_found()),
        Ok(page) => page.relations.len() as u64,
        Err(error) => return Ok(Outcome::unread(&error)),
    };
    let changed = match change {
        EntityChange::Update => {
            let anew = fact(&own(target), target, 0, id)?;
            graph.upsert_relations([anew]).await.map(|upserted| upserted.len() as u64)
        }
        EntityChange::DeleteLast => graph.delete_triplet(own(target), PART, part_name(target, count - 1)).await,
        EntityChange::DeleteEntity => graph.delete([own(target)]).await,
        EntityChange::RemoveSource => graph.remove_source(source(target)).await.map(|removal| removal.deleted),
        EntityChange::Merge => graph.merge(other(target), own(target)).await.map(|_| 1),
    };
    Ok(match changed {
        Ok(0) => Outcome::Wrong(format!("{change:?} changed nothing, and nobody else changes the entity")),
        other => Outcome::of(other),
    })
}
