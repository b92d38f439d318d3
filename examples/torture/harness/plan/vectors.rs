//! The vectors store's plan: points whose vectors, texts and metadata say which id wrote them, and every kind of change to
//! the points of an id's own.
//!
//! Start at [`VectorsOperation::of`], which says what an id does; [`shown`] says what of that a store shows.
//!
//! Always true: a vector belongs to one id and part, so that a search for it has one answer; the points of an id's own are
//! changed by at most one later id.

mod shown;

use std::fmt;

use futures::future::{BoxFuture, join};
use larder::protocol::JsonText;
use larder::{Larder, Metric, Point, Result, VectorCollection, field};

use super::{FAR, History, Lie, NEAR, Outcome, Plan, Random, Shown, must_fail};

/// A word of every text.
const WORD: &str = "torture";
/// Points of the few batches that fill more than a chunk of an index.
const LARGE: u64 = 1_500;
const DIMENSIONS: usize = 4;

pub(crate) struct VectorsPlan;

/// What an id does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum VectorsOperation {
    /// Puts points of a document of its own.
    Own { count: u64 },
    /// Puts points without a document.
    Alone { count: u64 },
    /// Puts points twice at the same time under one key: once.
    PutOnce { count: u64 },
    /// Puts points of which the last has other dimensions: nothing may be left.
    Refused { count: u64 },
    /// Changes an earlier id's own points.
    Change { target: u64, change: PointChange },
}

/// What an id does to an earlier one's points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PointChange {
    /// Puts the first anew.
    Update,
    DeleteLast,
    DeleteDocument,
    DeleteByFilter,
}

impl VectorsOperation {
    fn of(seed: u64, id: u64) -> Self {
        let mut random = Random::of(seed, id);
        let count = 2 + random.below(5);
        match id % 10 {
            // The distances lead to ids that end in 0 and 1.
            0 | 1 => Self::Own { count: if id.is_multiple_of(500) && id > 0 { LARGE } else { count } },
            4 if id >= FAR => Self::Change { target: id - FAR, change: PointChange::of(&mut random) },
            5 if id >= NEAR => Self::Change { target: id - NEAR, change: PointChange::of(&mut random) },
            6 | 7 => Self::PutOnce { count },
            8 => Self::Refused { count },
            _ => Self::Alone { count },
        }
    }
}

impl PointChange {
    const ALL: [Self; 4] = [Self::Update, Self::DeleteLast, Self::DeleteDocument, Self::DeleteByFilter];

    fn of(random: &mut Random) -> Self {
        Self::ALL.get(random.index(Self::ALL.len())).copied().unwrap_or(Self::Update)
    }

    /// Whether nothing of the target is left.
    fn deletes_all(self) -> bool {
        matches!(self, Self::DeleteDocument | Self::DeleteByFilter)
    }
}

impl fmt::Display for VectorsOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own { count } => write!(f, "vectors.own {count}"),
            Self::Alone { count } => write!(f, "vectors.alone {count}"),
            Self::PutOnce { count } => write!(f, "vectors.put_once {count}"),
            Self::Refused { count } => write!(f, "vectors.refused {count}"),
            Self::Change { target, change } => write!(f, "vectors.{change:?} {target}"),
        }
    }
}

/// Returns the one id that may change own points, and how.
fn changer(seed: u64, target: u64) -> Option<(u64, PointChange)> {
    [target + NEAR, target + FAR].into_iter().find_map(|id| match VectorsOperation::of(seed, id) {
        VectorsOperation::Change { target: found, change } if found == target => Some((id, change)),
        _ => None,
    })
}

fn own(id: u64) -> String {
    format!("own-{id}")
}

fn text(by: u64, part: u64) -> String {
    format!("{by} {part} written in the {WORD}")
}

fn point_id(id: u64, part: u64) -> String {
    format!("p-{id}-{part}")
}

/// The place of the point under an id and part as `by` puts it: whole numbers, which no rounding makes one.
#[expect(clippy::cast_precision_loss, reason = "numbers below 2^20")]
fn place(id: u64, part: u64, by: u64) -> [f32; DIMENSIONS] {
    [(id & 0xf_ffff) as f32, (id >> 20 & 0xf_ffff) as f32, part as f32, (by & 0xf_ffff) as f32]
}

fn point(id: u64, part: u64, by: u64) -> Result<Point> {
    let metadata = JsonText::new(format!(r#"{{"id": {id}, "part": {part}, "by": {by}}}"#))?;
    Ok(Point::new(point_id(id, part), place(id, part, by))?.with_metadata(metadata).with_text(text(by, part)))
}

fn points(id: u64, count: u64) -> Result<Vec<Point>> {
    (0..count).map(|part| point(id, part, id)).collect()
}

async fn collection(larder: &Larder) -> Result<VectorCollection> {
    larder.vectors().collection(WORD).dimensions(DIMENSIONS).metric(Metric::L2).open().await
}

impl Plan for VectorsPlan {
    fn describe(&self, seed: u64, id: u64) -> String {
        VectorsOperation::of(seed, id).to_string()
    }

    fn is_repeatable(&self, seed: u64, id: u64) -> bool {
        matches!(VectorsOperation::of(seed, id), VectorsOperation::PutOnce { .. } | VectorsOperation::Alone { .. })
    }

    fn is_sure(&self, seed: u64, id: u64) -> bool {
        matches!(VectorsOperation::of(seed, id), VectorsOperation::Own { .. } | VectorsOperation::Alone { .. })
    }

    fn send<'a>(&'a self, larder: &'a Larder, seed: u64, id: u64, lie: Option<Lie>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let collection = match collection(larder).await {
                Ok(collection) => collection,
                Err(error) => return Outcome::unread(&error),
            };
            let sent = send(&collection, seed, id, lie).await;
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
                VectorsOperation::of(history.seed, *id),
                VectorsOperation::Alone { .. } | VectorsOperation::PutOnce { .. }
            )
        };
        let id = certain.filter(is_lasting).last().ok_or("no acknowledged point to lose")?;
        let lost = point_id(id, 0);
        connection
            .execute("DELETE FROM point WHERE id = ?1", [&lost])
            .map_err(|e| format!("cannot delete {lost:?}: {e}"))?;
        Ok(lost)
    }

    fn add_row<'a>(&'a self, larder: &'a Larder) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let stray = point(u64::from(u32::MAX), 0, u64::from(u32::MAX))?;
            collection(larder).await?.upsert([stray]).await.map(|_| ())
        })
    }
}

/// Sends the operation of an id. An error is the plan's own fault.
async fn send(collection: &VectorCollection, seed: u64, id: u64, lie: Option<Lie>) -> Result<Outcome> {
    Ok(match VectorsOperation::of(seed, id) {
        VectorsOperation::Own { count } => put_own(collection, seed, id, count).await?,
        VectorsOperation::Alone { count } => {
            let sent = if lie == Some(Lie::SkipBatchHalf) { count.div_ceil(2) } else { count };
            Outcome::of(collection.upsert(points(id, sent)?).await)
        }
        VectorsOperation::PutOnce { count } => put_once(collection, id, count).await?,
        VectorsOperation::Refused { count } => {
            let mut points = points(id, count)?;
            points.push(Point::new(point_id(id, count), vec![1.0; DIMENSIONS + 1])?);
            must_fail(Outcome::of(collection.upsert(points).await))
        }
        VectorsOperation::Change { target, change } => make(change, collection, target, id).await?,
    })
}

/// Puts points that are not there yet; where nobody changes them later, the next search must find them.
async fn put_own(collection: &VectorCollection, seed: u64, id: u64, count: u64) -> Result<Outcome> {
    let document = own(id);
    let points = points(id, count)?.into_iter().map(|point| point.with_document(&document));
    let put = collection.upsert(points.collect::<Result<Vec<_>, _>>()?).await;
    if put.is_err() || changer(seed, id).is_some() {
        return Ok(Outcome::of(put));
    }
    match collection.search(place(id, count - 1, id)).k(1).await {
        Ok(hits) if hits.first().is_none_or(|hit| hit.id.as_str() != point_id(id, count - 1)) => {
            Ok(Outcome::Wrong("its search does not find its own write".to_owned()))
        }
        // A failed read is no wrong answer.
        _ => Ok(Outcome::Acknowledged),
    }
}

/// Sends one write twice at the same time under one key; both get the first outcome.
async fn put_once(collection: &VectorCollection, id: u64, count: u64) -> Result<Outcome> {
    let put = || -> Result<_> {
        Ok(collection.upsert(points(id, count)?).idempotency_key(format!("once-{id}")).into_future())
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

/// Changes own points, which are counted first.
async fn make(change: PointChange, collection: &VectorCollection, target: u64, id: u64) -> Result<Outcome> {
    let document = own(target);
    let count = match collection.count().of_document(&document).await {
        Ok(0) => return Ok(Outcome::not_found()),
        Ok(count) => count,
        Err(error) => return Ok(Outcome::unread(&error)),
    };
    let changed = match change {
        PointChange::Update => {
            let anew = point(target, 0, id)?.with_document(&document)?;
            collection.upsert([anew]).await.map(|counts| counts.replaced)
        }
        PointChange::DeleteLast => collection.delete([point_id(target, count - 1)]).await,
        PointChange::DeleteDocument => collection.delete_by_document(&document).await,
        PointChange::DeleteByFilter => {
            let number = i64::try_from(target).unwrap_or(i64::MAX);
            collection.delete_by_filter(field("id").eq(number)).await
        }
    };
    Ok(match changed {
        Ok(0) => Outcome::Wrong(format!("{change:?} changed nothing, and nobody else changes the points")),
        other => Outcome::of(other),
    })
}
