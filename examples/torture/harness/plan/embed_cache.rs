//! The embedding cache's plan: vectors that say which id put them under which key, and every kind of change to those of an
//! id's own. Nothing is evicted, so that what was acknowledged must be there.
//!
//! Start at [`CacheOperation::of`], which says what an id does; [`shown`] says what of that a cache shows.
//!
//! Always true: a key belongs to one id and part; the entries of an id's own are changed by at most one later id. What
//! `get_or_compute` brings is only ever asked to be right: a value that could not be kept is no error.

mod shown;

use std::fmt;
use std::time::Duration;

use futures::future::{BoxFuture, join};
use larder::protocol::embed_cache::{CachedValue, Claim, ClaimValues, Producer, PutOutcome, PutValues, ValuePut};
use larder::protocol::vectors::Vector;
use larder::{EmbedCache, ErrorKind, Larder, Result, Written};

use super::{FAR, History, Lie, NEAR, Outcome, Plan, Random, Shown, must_fail};

const MODEL: &str = "torture";
const DIMENSIONS: usize = 4;
/// A claim that nobody takes over while the run lasts.
const HOUR: Duration = Duration::from_secs(3600);

pub(crate) struct CachePlan;

/// What an id does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CacheOperation {
    /// Puts entries under a tag of its own, all or none.
    Own { count: u64 },
    /// Puts entries that nobody changes, all or none.
    Alone { count: u64 },
    /// Claims its keys, and puts the values under the claims, all or none.
    Claimed { count: u64 },
    /// Two callers compute its keys at the same time.
    Compute { count: u64 },
    /// Puts entries of which the last has other dimensions: nothing may be left.
    Refused { count: u64 },
    /// Changes an earlier id's own entries.
    Change { target: u64, change: CacheChange },
}

/// What an id does to an earlier one's entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CacheChange {
    /// Puts another value under the first key.
    Replace,
    RemoveLast,
    /// Lets the first expire.
    Expire,
    RemoveTagged,
}

impl CacheOperation {
    fn of(seed: u64, id: u64) -> Self {
        let mut random = Random::of(seed, id);
        let count = 2 + random.below(20);
        match id % 10 {
            // The distances lead to ids that end in 0 and 1.
            0 | 1 => Self::Own { count },
            4 if id >= FAR => Self::Change { target: id - FAR, change: CacheChange::of(&mut random) },
            5 if id >= NEAR => Self::Change { target: id - NEAR, change: CacheChange::of(&mut random) },
            6 => Self::Claimed { count },
            7 => Self::Compute { count },
            8 => Self::Refused { count },
            _ => Self::Alone { count },
        }
    }
}

impl CacheChange {
    const ALL: [Self; 4] = [Self::Replace, Self::RemoveLast, Self::Expire, Self::RemoveTagged];

    fn of(random: &mut Random) -> Self {
        Self::ALL.get(random.index(Self::ALL.len())).copied().unwrap_or(Self::Replace)
    }
}

impl fmt::Display for CacheOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own { count } => write!(f, "embed_cache.own {count}"),
            Self::Alone { count } => write!(f, "embed_cache.alone {count}"),
            Self::Claimed { count } => write!(f, "embed_cache.claimed {count}"),
            Self::Compute { count } => write!(f, "embed_cache.compute {count}"),
            Self::Refused { count } => write!(f, "embed_cache.refused {count}"),
            Self::Change { target, change } => write!(f, "embed_cache.{change:?} {target}"),
        }
    }
}

/// Returns the one id that may change own entries, and how.
fn changer(seed: u64, target: u64) -> Option<(u64, CacheChange)> {
    [target + NEAR, target + FAR].into_iter().find_map(|id| match CacheOperation::of(seed, id) {
        CacheOperation::Change { target: found, change } if found == target => Some((id, change)),
        _ => None,
    })
}

fn tag(id: u64) -> String {
    format!("own-{id}")
}

fn input(id: u64, part: u64) -> String {
    format!("{id} {part}")
}

/// What `by` puts under the key of an id and part.
#[expect(clippy::cast_precision_loss, reason = "numbers below 2^20")]
fn value(id: u64, part: u64, by: u64) -> [f32; DIMENSIONS] {
    [(id & 0xf_ffff) as f32, (id >> 20 & 0xf_ffff) as f32, part as f32, (by & 0xf_ffff) as f32]
}

fn producer() -> Result<Producer> {
    Ok(Producer::model(MODEL)?)
}

impl Plan for CachePlan {
    fn describe(&self, seed: u64, id: u64) -> String {
        CacheOperation::of(seed, id).to_string()
    }

    fn is_repeatable(&self, seed: u64, id: u64) -> bool {
        matches!(CacheOperation::of(seed, id), CacheOperation::Alone { .. } | CacheOperation::Compute { .. })
    }

    fn is_sure(&self, seed: u64, id: u64) -> bool {
        matches!(CacheOperation::of(seed, id), CacheOperation::Own { .. } | CacheOperation::Alone { .. })
    }

    fn send<'a>(&'a self, larder: &'a Larder, seed: u64, id: u64, lie: Option<Lie>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let sent = send(larder, seed, id, lie).await;
            sent.unwrap_or_else(|error| Outcome::Wrong(format!("the plan makes bad input: {error}")))
        })
    }

    fn inspect<'a>(&'a self, larder: &'a Larder, history: &'a History) -> BoxFuture<'a, Result<Shown>> {
        Box::pin(shown::inspect(larder, history))
    }

    fn lose_last(&self, connection: &rusqlite::Connection, history: &History) -> Result<String, String> {
        let certain = history.possible().filter(|(_, is_certain)| *is_certain).map(|(id, _)| id);
        let is_lasting = |id: &u64| matches!(CacheOperation::of(history.seed, *id), CacheOperation::Alone { .. });
        let id = certain.filter(is_lasting).last().ok_or("no acknowledged entry to lose")?;
        let key = producer().map_err(|e| e.to_string())?.key(&input(id, 0));
        connection
            .execute("DELETE FROM entry WHERE key = ?1", [&key.0[..]])
            .map_err(|e| format!("cannot delete the entry of {id}: {e}"))?;
        Ok(format!("the first entry of {id}"))
    }

    fn add_row<'a>(&'a self, larder: &'a Larder) -> BoxFuture<'a, Result<()>> {
        let stray = u64::from(u32::MAX);
        Box::pin(async move { larder.embed_cache().put(MODEL, &input(stray, 0), value(stray, 0, stray)).await })
    }
}

/// Sends the operation of an id. An error is the plan's own fault.
async fn send(larder: &Larder, seed: u64, id: u64, lie: Option<Lie>) -> Result<Outcome> {
    let cache = larder.embed_cache();
    Ok(match CacheOperation::of(seed, id) {
        CacheOperation::Own { count } => Outcome::of(put(&cache.tags([tag(id)]), id, count).await),
        CacheOperation::Alone { count } => {
            let sent = if lie == Some(Lie::SkipBatchHalf) { count.div_ceil(2) } else { count };
            Outcome::of(put(&cache, id, sent).await)
        }
        CacheOperation::Claimed { count } => put_claimed(larder, id, count).await?,
        CacheOperation::Compute { count } => compute_twice(&cache, id, count).await,
        CacheOperation::Refused { count } => {
            // The first says how many dimensions the model has, where nobody did before.
            let mut vectors: Vec<_> = (0..count).map(|part| (input(id, part), value(id, part, id).to_vec())).collect();
            vectors.push((input(id, count), vec![1.0; DIMENSIONS + 1]));
            let puts = vectors.iter().map(|(input, vector)| (input, vector.clone()));
            must_fail(Outcome::of(cache.put_many(MODEL, puts).await))
        }
        CacheOperation::Change { target, change } => {
            let CacheOperation::Own { count } = CacheOperation::of(seed, target) else {
                return Ok(Outcome::Wrong(format!("{target} has no entries of its own")));
            };
            self::change(&cache, id, target, count, change).await
        }
    })
}

async fn put(cache: &EmbedCache, id: u64, count: u64) -> Result<()> {
    let inputs: Vec<String> = (0..count).map(|part| input(id, part)).collect();
    cache.put_many(MODEL, inputs.iter().zip((0..).map(|part| value(id, part, id)))).await?;
    Ok(())
}

async fn put_claimed(larder: &Larder, id: u64, count: u64) -> Result<Outcome> {
    let producer = producer()?;
    let keys: Vec<_> = (0..count).map(|part| producer.key(&input(id, part))).collect();
    let claims = match larder.ask(ClaimValues { keys: keys.clone(), duration: HOUR }).await {
        Ok(claims) => claims,
        Err(error) => return Ok(Outcome::unread(&error)),
    };
    let mut puts = Vec::new();
    for ((part, key), claim) in (0..).zip(&keys).zip(&claims) {
        let Claim::Granted { fencing } = claim else {
            return Ok(Outcome::Wrong(format!("nobody else wants key {part} of {id}: {claim:?}")));
        };
        let value = CachedValue::Vector(Vector::new(value(id, part, id))?);
        puts.push(ValuePut { key: *key, value, compute_time: Duration::from_micros(id), claim: Some(*fencing) });
    }
    let message = PutValues { producer, puts, time_to_live: None, tags: Vec::new() };
    Ok(match larder.ask(message).await {
        Ok(outcomes) if outcomes.iter().any(|outcome| *outcome != PutOutcome::Stored) => {
            Outcome::Wrong(format!("nobody took the claims of {id} over: {outcomes:?}"))
        }
        answer => Outcome::of(answer),
    })
}

/// Both callers must get the right vectors, or an error; what is kept of them is open.
async fn compute_twice(cache: &EmbedCache, id: u64, count: u64) -> Outcome {
    let inputs: Vec<String> = (0..count).map(|part| input(id, part)).collect();
    let compute = || async {
        let compute = |missing: Vec<&String>| {
            let parts = missing.iter().filter_map(|text| text.split(' ').nth(1)?.parse().ok());
            let vectors: Vec<Vec<f32>> = parts.map(|part| value(id, part, id).to_vec()).collect();
            async move { Ok::<_, std::convert::Infallible>(vectors) }
        };
        cache.get_or_compute_many(MODEL, &inputs, compute).await
    };
    let (first, second) = join(compute(), compute()).await;
    let expected: Vec<Vec<f32>> = (0..count).map(|part| value(id, part, id).to_vec()).collect();
    for vectors in [&first, &second].into_iter().flatten() {
        if !vectors.iter().map(Vector::as_slice).eq(expected.iter().map(Vec::as_slice)) {
            return Outcome::Wrong(format!("{id} was computed, and the answer is {vectors:?}"));
        }
    }
    if let (Err(error), _) | (_, Err(error)) = (&first, &second)
        && matches!(error.kind(), ErrorKind::Invalid { .. })
    {
        return Outcome::Wrong(format!("{id} cannot be computed: {error}"));
    }
    Outcome::Failed("kept or not".to_owned(), Written::Unknown)
}

/// Changes entries that are there.
async fn change(cache: &EmbedCache, by: u64, target: u64, count: u64, change: CacheChange) -> Outcome {
    match cache.contains(MODEL, &input(target, count - 1)).await {
        Ok(true) => {}
        Ok(false) => return Outcome::not_found(),
        Err(error) => return Outcome::unread(&error),
    }
    let (first, last) = (input(target, 0), input(target, count - 1));
    let changed = match change {
        CacheChange::Replace => {
            let tagged = cache.clone().tags([tag(target)]);
            tagged.put(MODEL, &first, value(target, 0, by)).await.map(|()| 1)
        }
        CacheChange::RemoveLast => cache.remove(MODEL, [last.as_str()]).await,
        CacheChange::Expire => cache.clone().ttl(Duration::ZERO).touch(MODEL, [first.as_str()]).await,
        CacheChange::RemoveTagged => cache.remove_tagged(tag(target)).await,
    };
    match changed {
        Ok(0) => Outcome::Wrong(format!("{change:?} changed nothing, and nobody else changes the entries")),
        other => Outcome::of(other),
    }
}
