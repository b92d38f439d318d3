//! What a key–value store shows of the ids that wrote to it.
//!
//! Start at [`inspect`].
//!
//! Always true: a key that is absent though two ids may explain it is never taken as proof against either.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;
use larder::{Key, Larder, Result, Sequence};

use super::super::changes::replay;
use super::super::{FAR, Fate, History, NEAR, Shown};
use super::{COUNTERS, KvOperation, MOVED, OWNED, REGISTERS, batch_key, content, moved_key, put_key};

/// Everything that the store answers.
#[derive(Debug)]
struct Rows {
    owned: BTreeMap<String, Vec<u8>>,
    moved: BTreeMap<String, u64>,
    counters: BTreeMap<String, i64>,
    registers: BTreeMap<String, (u64, u64)>,
    collections: Vec<String>,
}

pub(super) async fn inspect(larder: &Larder, history: &History) -> Result<Shown> {
    let rows = Rows::read(larder).await?;
    let mut shown = Shown::default();
    for (key, value) in &rows.owned {
        tell_owned(history, &rows, key, value, &mut shown);
    }
    tell_changes(history, &rows, &mut shown);
    let sums = tell_moved(history, &rows, &mut shown);
    tell_counters(history, &rows, &sums, &mut shown);
    tell_registers(history, &rows, &mut shown);
    let strange = rows.collections.iter().filter(|name| ![OWNED, MOVED, COUNTERS, REGISTERS].contains(&name.as_str()));
    shown.violations.extend(strange.map(|name| format!("collection {name} is there, which nobody wrote to")));
    compare_with_log(larder, &rows, &mut shown.violations).await?;
    Ok(shown)
}

fn named<T>((key, value): (Key, T)) -> (String, T) {
    (key.as_str().to_owned(), value)
}

impl Rows {
    async fn read(larder: &Larder) -> Result<Self> {
        let kv = larder.kv();
        let owned = kv.bytes(OWNED).scan().limit(2_000).stream();
        Ok(Self {
            owned: owned.map_ok(|(key, value)| (key.as_str().to_owned(), value.to_vec())).try_collect().await?,
            moved: kv.collection(MOVED).scan().limit(2_000).stream().map_ok(named).try_collect().await?,
            counters: kv.collection(COUNTERS).scan().stream().map_ok(named).try_collect().await?,
            registers: kv.collection(REGISTERS).scan().stream().map_ok(named).try_collect().await?,
            collections: kv.collections(None, 100).await?.into_iter().map(|one| one.name.as_str().to_owned()).collect(),
        })
    }

    /// Returns whether the key of the put `target` holds what `writer` writes there; `None` when it is absent.
    fn holds(&self, seed: u64, target: u64, writer: u64) -> Option<bool> {
        self.owned.get(&put_key(target)).map(|value| *value == content(seed, writer, 0))
    }
}

/// Tells which id put a key, and whether it holds what it may.
fn tell_owned(history: &History, rows: &Rows, key: &str, value: &[u8], shown: &mut Shown) {
    let seed = history.seed;
    let mut words = key.split('-');
    let kind = words.next().unwrap_or_default();
    let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
    match (kind, number(), number()) {
        ("put", Some(id), None) if KvOperation::of(seed, id) == KvOperation::Put => {
            shown.found.insert(id);
            // What a later id made of it is seen from there.
            if *value != content(seed, id, 0) && replacer(history, rows, id).is_none() {
                shown.violations.push(format!("key {key} holds what nobody may have left there"));
            }
        }
        ("batch", Some(id), Some(item)) => {
            shown.found.insert(id);
            if *value != content(seed, id, item) {
                shown.violations.push(format!("key {key} holds what nobody may have left there"));
            }
            let KvOperation::PutMany { count } = KvOperation::of(seed, id) else {
                return shown.violations.push(format!("key {key} is there, which nobody may have left"));
            };
            // Once a batch, at whichever item comes first.
            let is_there = |item: &u64| rows.owned.contains_key(&batch_key(id, *item));
            let found = (0..count).filter(is_there).count() as u64;
            if found != count && (0..item).all(|earlier| !is_there(&earlier)) {
                shown.violations.push(format!("batch {id} is there in part: {found} of {count} items"));
            }
        }
        _ => shown.violations.push(format!("key {key} is there, which nobody put")),
    }
}

/// Returns the id that replaced the value of a put, if its value is there.
fn replacer(history: &History, rows: &Rows, target: u64) -> Option<u64> {
    let replaces = |id: &u64| KvOperation::of(history.seed, *id) == KvOperation::CompareAndPut { target };
    [target + NEAR, target + FAR]
        .into_iter()
        .filter(replaces)
        .find(|id| rows.holds(history.seed, target, *id) == Some(true))
}

/// Tells of ids that delete or replace what an earlier one put.
fn tell_changes(history: &History, rows: &Rows, shown: &mut Shown) {
    let seed = history.seed;
    for (id, _) in history.possible() {
        match KvOperation::of(seed, id) {
            KvOperation::CompareAndPut { target } if rows.holds(seed, target, id) == Some(true) => {
                shown.found.insert(id);
            }
            KvOperation::Delete { target } => match (history.fate(target), rows.holds(seed, target, target)) {
                // It was put, and only this id can have removed it.
                (Some(Fate::Applied), None) => shown.found.extend([id, target]),
                (_, None) => shown.untold.extend([id, target]),
                // Deleted before it was put, or not deleted.
                (_, Some(_)) if !history.is_before(target, id) => _ = shown.untold.insert(id),
                (_, Some(_)) => {}
            },
            _ => {}
        }
    }
}

/// Returns what the rows of moved amounts add up to, by counter.
fn tell_moved(history: &History, rows: &Rows, shown: &mut Shown) -> BTreeMap<String, i64> {
    let mut sums: BTreeMap<String, i64> = BTreeMap::new();
    for (key, found) in &rows.moved {
        let id = key.parse().unwrap_or(u64::MAX);
        shown.found.insert(id);
        match KvOperation::of(history.seed, id) {
            KvOperation::Move { counter, amount, .. } if amount == *found && moved_key(id) == *key => {
                *sums.entry(format!("moved-{counter}")).or_default() += i64::try_from(amount).unwrap_or(i64::MAX);
            }
            other => shown.violations.push(format!("moved {key} says {found}, and its id is {other}")),
        }
    }
    sums
}

fn tell_counters(history: &History, rows: &Rows, sums: &BTreeMap<String, i64>, shown: &mut Shown) {
    // A counter of moved amounts is known exactly, from rows of the same transactions.
    let mut bounds: BTreeMap<String, (i64, i64)> =
        sums.iter().map(|(name, sum)| (name.clone(), (*sum, *sum))).collect();
    for (id, is_certain) in history.possible() {
        let name = match KvOperation::of(history.seed, id) {
            KvOperation::Increment { counter } => format!("plain-{counter}"),
            KvOperation::IncrementOnce { counter } => format!("once-{counter}"),
            _ => continue,
        };
        shown.untold.insert(id);
        let (least, most) = bounds.entry(name).or_default();
        *least += i64::from(is_certain);
        *most += 1;
    }
    for (name, (least, most)) in &bounds {
        let value = rows.counters.get(name).copied().unwrap_or(0);
        if value < *least || value > *most {
            shown.violations.push(format!("counter {name} is {value}, not {least} to {most}"));
        }
    }
    let strays = rows.counters.keys().filter(|name| !bounds.contains_key(*name));
    shown.violations.extend(strays.map(|name| format!("counter {name} is there, which nobody added to")));
}

fn tell_registers(history: &History, rows: &Rows, shown: &mut Shown) {
    let mut bounds: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for (id, is_certain) in history.possible() {
        if let KvOperation::Register { register } = KvOperation::of(history.seed, id) {
            shown.untold.insert(id);
            let (least, most) = bounds.entry(register).or_default();
            *least += u64::from(is_certain);
            *most += 1;
        }
    }
    for (key, (count, last)) in &rows.registers {
        let register = key.parse().unwrap_or(u64::MAX);
        shown.found.insert(*last);
        if KvOperation::of(history.seed, *last) != (KvOperation::Register { register }) {
            shown.violations.push(format!("register {key} was last set by id {last}, which does not"));
        }
        let (least, most) = bounds.remove(&register).unwrap_or_default();
        if *count < least.max(1) || *count > most {
            shown.violations.push(format!("register {key} was counted to {count}, not {least} to {most}"));
        }
    }
    let missing = bounds.iter().filter(|(_, (least, _))| *least > 0);
    shown.violations.extend(missing.map(|(register, _)| format!("register {register} is missing")));
}

/// Where the change log reaches back to the first commit, it must leave the keys that are there.
async fn compare_with_log(larder: &Larder, rows: &Rows, violations: &mut Vec<String>) -> Result<()> {
    let newest = larder.kv().sequence().await?;
    let Some(changes) = replay(larder.kv().subscribe(Sequence(0)).await?, newest.0, violations).await? else {
        return Ok(());
    };
    let mut logged: BTreeSet<(String, String)> = BTreeSet::new();
    for change in changes {
        for id in change.ids {
            let at = (change.scope.clone(), id);
            let _ = if change.kind == "put" { logged.insert(at) } else { logged.remove(&at) };
        }
    }
    let keys = [
        (OWNED, rows.owned.keys().collect::<Vec<_>>()),
        (MOVED, rows.moved.keys().collect()),
        (COUNTERS, rows.counters.keys().collect()),
        (REGISTERS, rows.registers.keys().collect()),
    ];
    let there = keys.into_iter().flat_map(|(collection, keys)| keys.into_iter().map(move |key| (collection, key)));
    let there: BTreeSet<(String, String)> =
        there.map(|(collection, key)| (collection.to_owned(), key.clone())).collect();
    if let Some((collection, key)) = there.symmetric_difference(&logged).next() {
        violations.push(format!("the change log and the rows disagree about {key} in {collection}"));
    }
    Ok(())
}
