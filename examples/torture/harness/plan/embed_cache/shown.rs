//! What an embedding cache shows of the ids that wrote to it.
//!
//! Start at [`inspect`].
//!
//! Always true: entries that are absent though two ids may explain it are never taken as proof against either.

use std::collections::BTreeMap;

use larder::protocol::embed_cache::{CachedValue, ListedValue};
use larder::{Larder, Result};

use super::super::{Fate, History, Shown};
use super::{CacheChange, CacheOperation, MODEL, changer, input, producer, tag, value};

/// Entries of one id: by part, who put it, and whether it carries the id's tag.
type Parts = BTreeMap<u64, (u64, bool)>;

pub(super) async fn inspect(larder: &Larder, history: &History) -> Result<Shown> {
    let mut shown = Shown::default();
    let by_id = read(larder, &mut shown.violations).await?;
    for (id, parts) in &by_id {
        tell_parts(history, *id, parts, &mut shown);
    }
    tell_removed(history, &by_id, &mut shown);
    Ok(shown)
}

/// Reads every entry, and each by its key as well.
async fn read(larder: &Larder, violations: &mut Vec<String>) -> Result<BTreeMap<u64, Parts>> {
    let (cache, mut after) = (larder.embed_cache(), None);
    let (mut by_id, mut count): (BTreeMap<u64, Parts>, u64) = (BTreeMap::new(), 0);
    loop {
        let page = cache.list(after, 1_000).await?;
        let mut inputs = Vec::new();
        for entry in &page.entries {
            match parse(entry)? {
                Some((id, part, by, is_tagged)) => {
                    by_id.entry(id).or_default().insert(part, (by, is_tagged));
                    inputs.push(input(id, part));
                }
                None => violations.push(format!("nobody put the entry {entry:?}")),
            }
        }
        count += page.entries.len() as u64;
        let found = cache.get_many(MODEL, &inputs).await?;
        if let Some((missing, _)) = inputs.iter().zip(found).find(|(_, vector)| vector.is_none()) {
            violations.push(format!("the entry of {missing} is listed and not found"));
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    // Expired ones may not be swept yet.
    let statistics = cache.statistics().await?;
    if statistics.entry_count < count || statistics.evicted > 0 {
        violations.push(format!("{count} entries are listed, and the cache says {statistics:?}"));
    }
    Ok(by_id)
}

/// Returns id, part, who put it, and whether it carries the id's tag, if all of the entry says the same.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole numbers below 2^20, compared below")]
fn parse(entry: &ListedValue) -> Result<Option<(u64, u64, u64, bool)>> {
    let CachedValue::Vector(vector) = &entry.cached.value else { return Ok(None) };
    let [low, high, part, by] = vector.as_slice() else { return Ok(None) };
    let (id, part, by) = (*low as u64 | (*high as u64) << 20, *part as u64, *by as u64);
    let tags: Vec<&str> = entry.tags.iter().map(larder::protocol::Tag::as_str).collect();
    let is_whole = vector.as_slice() == value(id, part, by)
        && entry.producer == producer()?
        && entry.key == producer()?.key(&input(id, part))
        && (tags.is_empty() || tags == [tag(id)]);
    Ok(is_whole.then_some((id, part, by, !tags.is_empty())))
}

fn tell_parts(history: &History, id: u64, parts: &Parts, shown: &mut Shown) {
    shown.found.insert(id);
    let whole = |count: u64, is_own: bool| (0..count).map(|part| (part, (id, is_own))).collect::<Parts>();
    let is_right = match CacheOperation::of(history.seed, id) {
        CacheOperation::Alone { count } | CacheOperation::Claimed { count } => *parts == whole(count, false),
        // One caller may have kept its part where the other failed.
        CacheOperation::Compute { count } => parts.iter().all(|(part, put)| *part < count && *put == (id, false)),
        CacheOperation::Own { count } => {
            let before = whole(count, true);
            match changer(history.seed, id) {
                Some((by, change)) if *parts == changed(before.clone(), by, change) => {
                    shown.found.insert(by);
                    true
                }
                _ => *parts == before,
            }
        }
        CacheOperation::Refused { .. } | CacheOperation::Change { .. } => false,
    };
    if !is_right {
        let operation = CacheOperation::of(history.seed, id);
        shown.violations.push(format!("id {id} is there in part: {parts:?}, and it does {operation}"));
    }
}

/// What own entries are after their one change.
fn changed(mut parts: Parts, by: u64, change: CacheChange) -> Parts {
    match change {
        // By the low bits of its number.
        CacheChange::Replace => _ = parts.insert(0, (by & 0xf_ffff, true)),
        CacheChange::RemoveLast => _ = parts.pop_last(),
        CacheChange::Expire => _ = parts.remove(&0),
        CacheChange::RemoveTagged => parts.clear(),
    }
    parts
}

/// Tells of ids that remove all entries of another; every other change is seen in the entries themselves.
fn tell_removed(history: &History, by_id: &BTreeMap<u64, Parts>, shown: &mut Shown) {
    for (id, _) in history.possible() {
        let operation = CacheOperation::of(history.seed, id);
        let CacheOperation::Change { target, change: CacheChange::RemoveTagged } = operation else { continue };
        match (history.fate(target), by_id.contains_key(&target)) {
            // They were put, and only this id can have removed them.
            (Some(Fate::Applied), false) => shown.found.extend([id, target]),
            (_, false) => shown.untold.extend([id, target]),
            // Removed before they were put, or not removed.
            (_, true) if !history.is_before(target, id) => _ = shown.untold.insert(id),
            (_, true) => {}
        }
    }
}
