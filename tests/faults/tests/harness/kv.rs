//! larder's key–value store under attack: many callers at once, and what each of them was told.
//!
//! Start at [`Workload::step`] for what is done, and at [`Shown::judge`] for how it is proven.
//!
//! Always true: what an operation writes follows from its id; the change log, which every commit writes in the commit's own
//! transaction, must say exactly what the rows say, so that an image which is not a commit's boundary is noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use larder::protocol::change::Notice;
use larder::protocol::kv::{DeleteValue, IncrementValue, Operation, PutValue, RequiredState};
use larder::protocol::{CollectionName, Key, Sequence, Value};
use larder::{CheckDepth, Error, Larder, StoreState, Written};
use larder_faults::random::{Random, mix};
use larder_faults::{Durability, Finding, History, Outcome, Verdict, Witness, Workload};
use tokio::runtime::Runtime;

/// The store's file, which is the place of its operations.
const PLACE: &str = "kv.db";
/// A key or more for each operation.
const OWNED: &str = "owned";
/// Few keys that operations overwrite.
const HOT: &str = "hot";
const HOT_COUNT: u64 = 12;
/// One counter that each transaction adds 1 to.
const COUNTS: &str = "counts";
/// How far back the put lies that an operation removes; each put has at most one that does.
const DELETED_BEFORE: u64 = 36;
const MOVED_BEFORE: u64 = 44;
/// The change log must reach the newest commit within this.
const LOG_TIME_MAX: Duration = Duration::from_secs(3);

/// The store, and how it is to be opened.
#[derive(Debug)]
pub(crate) struct Kv {
    durability: Durability,
    /// A store that nobody else may open answers hot values from memory.
    is_exclusive: bool,
    /// Most callers of one step.
    callers_max: u64,
    runtime: Runtime,
    pub(crate) tally: Tally,
}

/// What the callers were told, for the record: a store that refuses everything would pass every other check.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) applied: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) unknown: AtomicU64,
    /// Sessions opened anew after the store had failed for good.
    pub(crate) mended: AtomicU64,
    pub(crate) largest_group: AtomicU64,
}

impl Tally {
    /// Returns how many writes were not acknowledged.
    pub(crate) fn failed(&self) -> u64 {
        self.refused.load(Ordering::Relaxed) + self.unknown.load(Ordering::Relaxed)
    }

    fn add(&self, outcome: Outcome) {
        let counter = match outcome {
            Outcome::Applied => &self.applied,
            Outcome::NotApplied => &self.refused,
            Outcome::Unknown => &self.unknown,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Self { applied, refused, unknown, mended, largest_group } = self;
        let told = (read(applied), read(refused), read(unknown));
        write!(f, "acknowledged={} not_applied={} unknown={}", told.0, told.1, told.2)?;
        write!(f, " largest_group={} mended={}", read(largest_group), read(mended))
    }
}

/// An open larder, and what its callers know.
#[derive(Debug)]
pub(crate) struct Session {
    /// `None`: it could not be opened again.
    larder: Option<Larder>,
    /// Acknowledged operations that put one key, which nothing has removed yet.
    present: BTreeSet<u64>,
    /// Answers that were no errors and yet wrong.
    wrong: Vec<String>,
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Puts its one key.
    Put,
    /// Puts that many keys, all or none.
    PutMany(u64),
    /// Puts its keys, adds to the counter and overwrites a hot key.
    Transact(u64),
    /// Deletes the key of an earlier put; puts its own where that was never acknowledged.
    Delete(u64),
    /// Removes the key of an earlier put in a transaction that puts its own and counts.
    Move(u64),
}

impl Kind {
    fn of(op: u64) -> Self {
        match op % 8 {
            2 => Self::PutMany(2 + mix(op, 1) % 12),
            3 | 6 => Self::Transact(1 + mix(op, 1) % 4),
            4 if op >= DELETED_BEFORE => Self::Delete(op - DELETED_BEFORE),
            5 if op >= MOVED_BEFORE => Self::Move(op - MOVED_BEFORE),
            _ => Self::Put,
        }
    }

    fn items(self) -> u64 {
        match self {
            Self::PutMany(items) | Self::Transact(items) => items,
            Self::Put | Self::Delete(_) | Self::Move(_) => 1,
        }
    }

    fn counts(self) -> bool {
        matches!(self, Self::Transact(_) | Self::Move(_))
    }
}

fn owned_key(op: u64, item: u64) -> String {
    format!("{op:08}-{item:02}")
}

/// The value of an operation's item: mostly small, sometimes more than a page. The first byte says whether a move moved.
fn content(op: u64, item: u64, has_moved: bool) -> Vec<u8> {
    let mut random = Random::new(mix(op, 10 + item));
    let len = if random.percent(3) { 4_000 + random.below(5_000) } else { 1 + random.below(300) };
    let mut content = vec![u8::from(has_moved)];
    content.extend(random.bytes(len as usize));
    content
}

fn hot_content(op: u64) -> Vec<u8> {
    let mut content = op.to_le_bytes().to_vec();
    content.extend(Random::new(mix(op, 2)).bytes((mix(op, 3) % 600) as usize));
    content
}

fn collection(name: &str) -> CollectionName {
    CollectionName::new(name).expect("a plain word")
}

fn key(key: impl AsRef<str>) -> Key {
    Key::new(key).expect("short and plain")
}

fn put(name: &str, at: String, value: Vec<u8>) -> Operation {
    let (collection, key, value) = (collection(name), key(at), Value::bytes(value));
    Operation::Put(PutValue { collection, key, value, time_to_live: None, tags: Vec::new() })
}

fn outcome<T>(answer: &Result<T, Error>) -> Outcome {
    match answer.as_ref().map_err(Error::written) {
        Ok(_) | Err(Written::Applied) => Outcome::Applied,
        Err(Written::NotApplied) => Outcome::NotApplied,
        Err(Written::Unknown) => Outcome::Unknown,
    }
}

impl Kv {
    pub(crate) fn new(durability: Durability) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
        let runtime = runtime.expect("threads for the callers");
        Self { durability, is_exclusive: false, callers_max: 16, runtime, tally: Tally::default() }
    }

    /// Lets no other process have the folder, so that reads come from memory.
    pub(crate) fn exclusive(mut self) -> Self {
        self.is_exclusive = true;
        self
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    async fn open_larder(&self, folder: &Path) -> Result<Larder, String> {
        let builder = Larder::builder(folder).settings(|settings| {
            // A file of its own that the VFS does not see, and thousands of folders to lay it down in.
            settings.ballast_bytes = 0;
            settings.maintenance_interval = Duration::from_millis(10);
            let common = &mut settings.kv.common;
            common.durability = match self.durability {
                Durability::Durable => larder::Durability::Durable,
                Durability::Relaxed => larder::Durability::Relaxed,
            };
            // Small, so that every kind of checkpoint and a spilling cache come up within a few steps.
            common.cache_bytes = 64 << 10;
            common.checkpoint.background_frames = 25;
            common.checkpoint.writer_idle_frames = 80;
            common.checkpoint.writer_hard_frames = 160;
            common.checkpoint.idle = Duration::from_millis(5);
            common.group_messages_max = 12;
        });
        let builder = if self.is_exclusive { builder.exclusive() } else { builder };
        let larder = builder.open().await.map_err(|error| format!("{error:?}"))?;
        // The store itself opens at its first use.
        match larder.kv().bytes(OWNED).get("none").await {
            Ok(_) => Ok(larder),
            Err(error) => {
                larder.close().await;
                Err(format!("{error:?}"))
            }
        }
    }

    /// Sends what `op` stands for.
    async fn send(larder: Larder, op: u64, is_target_there: bool) -> Result<(), Error> {
        let owned = larder.kv().bytes(OWNED);
        let own = |item| content(op, item, false);
        match Kind::of(op) {
            Kind::Put => owned.put(owned_key(op, 0), own(0)).await.map(|_| ()),
            Kind::PutMany(items) => {
                owned.put_many((0..items).map(|item| (owned_key(op, item), own(item)))).await.map(|_| ())
            }
            Kind::Transact(items) => {
                let puts = (0..items).map(|item| put(OWNED, owned_key(op, item), own(item)));
                let hot = put(HOT, (mix(op, 4) % HOT_COUNT).to_string(), hot_content(op));
                larder.kv().transaction(puts.chain([count_one(), hot])).await.map(|_| ())
            }
            Kind::Delete(target) if is_target_there => owned.delete(owned_key(target, 0)).await.map(|_| ()),
            Kind::Delete(_) => owned.put(owned_key(op, 0), own(0)).await.map(|_| ()),
            Kind::Move(target) => {
                let mut operations = vec![put(OWNED, owned_key(op, 0), content(op, 0, is_target_there)), count_one()];
                if is_target_there {
                    let (collection, key) = (collection(OWNED), key(owned_key(target, 0)));
                    let state = RequiredState::Present;
                    operations.push(Operation::Require { collection: collection.clone(), key: key.clone(), state });
                    operations.push(Operation::Delete(DeleteValue { collection, key }));
                }
                larder.kv().transaction(operations).await.map(|_| ())
            }
        }
    }

    /// One caller: asks, takes down the answer, and where that was good reads its own write.
    async fn call(larder: Larder, op: u64, is_target_there: bool, witness: Witness) -> Called {
        let answer = Self::send(larder.clone(), op, is_target_there).await;
        let outcome = outcome(&answer);
        witness.settle(op, outcome);
        let mut called = Called { op, outcome, wrong: None };
        if let (Ok(()), false) = (&answer, is_target_there && matches!(Kind::of(op), Kind::Delete(_))) {
            let expected = content(op, 0, is_target_there);
            match larder.kv().bytes(OWNED).get(owned_key(op, 0)).await {
                Ok(found) if found.as_deref() != Some(&expected[..]) => {
                    called.wrong = Some(format!("operation {op} does not read its own write"));
                }
                // An error is no wrong answer.
                _ => {}
            }
        }
        called
    }

    async fn call_many(&self, session: &mut Session, count: u64, witness: &Witness) {
        let Some(larder) = session.larder.clone() else {
            // Nobody to ask.
            return (0..count).for_each(|_| witness.settle(witness.begin(PLACE), Outcome::NotApplied));
        };
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..count {
            let op = witness.begin(PLACE);
            let target = match Kind::of(op) {
                // In a relaxed store an absent key would not tell a deletion from a put that was lost.
                Kind::Delete(target) => Some(target).filter(|_| self.durability == Durability::Durable),
                Kind::Move(target) => Some(target),
                _ => None,
            };
            let is_target_there = target.is_some_and(|target| session.present.remove(&target));
            callers.spawn(Self::call(larder.clone(), op, is_target_there, witness.clone()));
        }
        while let Some(called) = callers.join_next().await {
            let Called { op, outcome, wrong } = called.expect("callers do not panic");
            self.tally.add(outcome);
            session.wrong.extend(wrong);
            if outcome == Outcome::Applied && Kind::of(op) == Kind::Put {
                session.present.insert(op);
            }
        }
        let group = larder.observe().first().map_or(0, |store| store.largest_group_messages);
        self.tally.largest_group.fetch_max(group, Ordering::Relaxed);
    }

    /// Opens the larder again where the store has failed for good, as its host would.
    async fn mend(&self, session: &mut Session, folder: &Path) {
        let is_over = session.larder.as_ref().is_none_or(|larder| {
            let over = |state| matches!(state, StoreState::Failed | StoreState::Quarantined | StoreState::Stopped);
            larder.observe().iter().any(|store| over(store.state))
        });
        if is_over {
            self.tally.mended.fetch_add(1, Ordering::Relaxed);
            self.reopen(session, folder, true).await;
        }
    }

    async fn reopen(&self, session: &mut Session, folder: &Path, is_closed: bool) {
        match session.larder.take() {
            Some(larder) if is_closed => _ = larder.close().await,
            // As a crash would; opening waits until the threads have let go.
            other => drop(other),
        }
        session.larder = self.open_larder(folder).await.ok();
    }
}

/// Makes what was acknowledged safe, in a relaxed store.
async fn flush(session: &Session, witness: &Witness) {
    if let Some(larder) = &session.larder {
        let flush = witness.flush_begins(PLACE);
        if larder.flush().await.is_ok() {
            witness.flushed(&flush);
        }
    }
}

fn count_one() -> Operation {
    Operation::Increment(IncrementValue { collection: collection(COUNTS), key: key("transactions"), by: 1 })
}

struct Called {
    op: u64,
    outcome: Outcome,
    wrong: Option<String>,
}

/// A session remembers its folder, to be opened again.
#[derive(Debug)]
pub(crate) struct Folder {
    path: std::path::PathBuf,
    session: Session,
}

impl Workload for Kv {
    type Session = Folder;

    fn open(&self, folder: &Path) -> Result<Folder, String> {
        let larder = self.wait(self.open_larder(folder))?;
        let session = Session { larder: Some(larder), present: BTreeSet::new(), wrong: Vec::new() };
        Ok(Folder { path: folder.to_owned(), session })
    }

    #[expect(clippy::disallowed_methods, reason = "an idle store is one in which time passes")]
    fn step(&self, Folder { path, session }: &mut Folder, seed: u64, witness: &Witness) {
        let mut random = Random::new(seed);
        self.wait(async {
            self.mend(session, path).await;
            let count = if random.percent(25) { 1 } else { 1 + random.below(self.callers_max) };
            self.call_many(session, count, witness).await;
            match random.below(100) {
                0..6 => self.reopen(session, path, true).await,
                6..9 => self.reopen(session, path, false).await,
                13..25 if self.durability == Durability::Relaxed => flush(session, witness).await,
                // Long enough for an idle checkpoint.
                9..13 => tokio::time::sleep(Duration::from_millis(20)).await,
                _ => {}
            }
        });
    }

    fn check(&self, Folder { session, .. }: &mut Folder, history: &History) -> Result<Verdict, String> {
        let larder = session.larder.as_ref().ok_or("the larder could not be opened again")?;
        let shown = self.wait(Shown::read(larder))?;
        let mut verdict = shown.judge(history, self.durability);
        verdict.findings.extend(session.wrong.drain(..).map(Finding::Corrupt));
        Ok(verdict)
    }

    fn close(&self, Folder { session, .. }: Folder) {
        if let Some(larder) = session.larder {
            self.wait(larder.close());
        }
    }
}

/// Everything a store answers.
#[derive(Debug)]
struct Shown {
    owned: BTreeMap<String, Vec<u8>>,
    hot: Vec<(Key, Vec<u8>)>,
    count: i64,
    /// The keys of `OWNED` that the change log leaves.
    logged: BTreeSet<String>,
    damage: Vec<String>,
}

impl Shown {
    async fn read(larder: &Larder) -> Result<Self, String> {
        let said = |error: Error| format!("{error:?}");
        let report = larder.check(CheckDepth::Full).await.map_err(said)?;
        let damage: Vec<String> = report.findings.into_iter().map(|finding| finding.what).collect();
        if let Some(failed) = damage.iter().find(|what| what.contains("error code=")) {
            // SQLite's check takes a read that failed for damage.
            return Err(failed.clone());
        }
        let scan = |name| larder.kv().bytes(name).scan().stream().map_ok(|(key, value)| (key, value.to_vec()));
        let owned: Vec<_> = scan(OWNED).try_collect().await.map_err(said)?;
        let hot = scan(HOT).try_collect().await.map_err(said)?;
        let count = larder.kv().collection::<i64>(COUNTS).get("transactions").await.map_err(said)?.unwrap_or(0);
        let owned = owned.into_iter().map(|(key, value)| (key.as_str().to_owned(), value)).collect();
        Ok(Self { owned, hot, count, logged: logged_keys(larder).await?, damage })
    }

    fn judge(&self, history: &History, durability: Durability) -> Verdict {
        let mut findings: Vec<Finding> = self.damage.iter().cloned().map(Finding::Corrupt).collect();
        let mut found = BTreeSet::new();
        let mut moved = BTreeSet::new();
        for (op, items) in self.by_operation(&mut findings) {
            let kind = Kind::of(op);
            let has_moved = items.first().is_some_and(|(_, value)| value.first() == Some(&1));
            let expected: Vec<_> = (0..kind.items()).map(|item| (item, content(op, item, has_moved))).collect();
            if items != expected {
                findings.push(Finding::Torn(format!("operation {op} is not what was written")));
            }
            if let (true, Kind::Move(target)) = (has_moved, kind) {
                moved.insert(target);
            }
            found.insert(op);
        }
        let reappeared = moved.iter().filter(|target| found.contains(target));
        findings.extend(reappeared.map(|op| Finding::Torn(format!("operation {op} was moved and is there"))));
        let count = found.iter().filter(|op| Kind::of(**op).counts()).count();
        if self.count != i64::try_from(count).unwrap_or(i64::MAX) {
            findings.push(Finding::Torn(format!("the counter says {}, the rows {count}", self.count)));
        }
        found.extend(&moved);
        if durability == Durability::Durable {
            found.extend(deleted(history, &found));
        }
        self.judge_hot(history, &mut findings);
        if !self.owned.keys().eq(&self.logged) {
            findings.push(Finding::Torn("the change log and the rows disagree".to_owned()));
        }
        let mut verdict = history.judge(PLACE, durability, &found);
        verdict.findings.extend(findings);
        verdict
    }

    fn by_operation(&self, findings: &mut Vec<Finding>) -> BTreeMap<u64, Vec<(u64, Vec<u8>)>> {
        let mut operations: BTreeMap<u64, Vec<_>> = BTreeMap::new();
        for (key, value) in &self.owned {
            let parsed = key.split_once('-').and_then(|(op, item)| Some((op.parse().ok()?, item.parse().ok()?)));
            match parsed {
                Some((op, item)) => operations.entry(op).or_default().push((item, value.clone())),
                None => findings.push(Finding::Corrupt(format!("nobody wrote key {key:?}"))),
            }
        }
        operations
    }

    fn judge_hot(&self, history: &History, findings: &mut Vec<Finding>) {
        for (key, value) in &self.hot {
            let op = value.first_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
            if op >= history.len() || *value != hot_content(op) {
                findings.push(Finding::Corrupt(format!("nobody wrote the value of hot key {key}")));
            }
        }
    }
}

/// The deletions that must have taken effect: what they removed was acknowledged, and is not there.
fn deleted(history: &History, found: &BTreeSet<u64>) -> BTreeSet<u64> {
    let applied: BTreeSet<u64> =
        history.ops(PLACE).filter(|(_, outcome)| *outcome == Some(Outcome::Applied)).map(|(op, _)| op).collect();
    let deletions = history.ops(PLACE).filter_map(|(op, _)| match Kind::of(op) {
        // Its own key is there where it had nothing to delete.
        Kind::Delete(target) if !found.contains(&op) => Some((op, target)),
        _ => None,
    });
    let effective = deletions.filter(|(_, target)| applied.contains(target) && !found.contains(target));
    effective.flat_map(|(op, target)| [op, target]).collect()
}

/// Replays the change log: which keys of [`OWNED`] it leaves.
async fn logged_keys(larder: &Larder) -> Result<BTreeSet<String>, String> {
    let mut keys = BTreeSet::new();
    let newest = larder.observe().first().map_or(0, |store| store.sequence);
    let mut notices = larder.kv().subscribe(Sequence(0)).await.map_err(|error| format!("{error:?}"))?;
    let mut position = 0;
    while position < newest {
        let next = tokio::time::timeout(LOG_TIME_MAX, notices.next()).await;
        let commit = match next.map_err(|_| format!("the change log ends at {position}, the store is at {newest}"))? {
            Some(Ok(Notice::Commit(commit))) => commit,
            other => return Err(format!("reading the change log: {other:?}")),
        };
        for change in commit.changes.into_iter().filter(|change| change.scope == OWNED) {
            for id in change.ids {
                let _ = if change.kind == "put" { keys.insert(id) } else { keys.remove(&id) };
            }
        }
        position = commit.sequence.0;
    }
    Ok(keys)
}
