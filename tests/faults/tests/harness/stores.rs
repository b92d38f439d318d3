//! larder's stores under attack, all in one folder: many callers at once, and what each of them was told.
//!
//! Start at [`Workload::step`] for what is done, and at [`Stores::judge`] for how it is proven. What an operation does, and
//! what of it a store shows, is said by the store's plan, which the torture and the kills use too.
//!
//! Always true: the oracle is what the callers were told; a plan only says what is there.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder::{CheckDepth, Counter, Error, Larder, Settings, StoreSettings, StoreState, Written};
use larder_faults::faults;
use larder_faults::random::Random;
use larder_faults::{Durability, Finding, History, Op, Outcome, Verdict, Witness, Workload};
use tokio::runtime::Runtime;

use crate::plan::{self, Fate, Plan, Shown, Trial, plan, share};

/// Some of larder's stores, and how they are to be opened.
pub(crate) struct Stores {
    /// By name, which is the place of a store's operations: its files' names begin with it.
    plans: Arc<Vec<(&'static str, Box<dyn Plan>)>>,
    seed: u64,
    durability: Durability,
    /// A folder that nobody else may open answers hot values from memory.
    is_exclusive: bool,
    /// Whether a cache may lose what it held when its file is said to be damaged.
    may_begin_anew: bool,
    runtime: Runtime,
    pub(crate) tally: Tally,
}

/// The one store that begins anew by itself when its file is damaged.
const CACHE: &str = "embed_cache";

/// Returns how often the cache of a folder was set aside.
fn set_aside(folder: &Path) -> usize {
    let Ok(names) = std::fs::read_dir(folder.join("quarantine")) else { return 0 };
    names.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(CACHE)).count()
}

/// Most callers of one step, for each store.
const CALLERS_MAX: u64 = 12;

/// What the callers were told, for the record: a store that refuses everything would pass every other check.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    applied: AtomicU64,
    refused: AtomicU64,
    unknown: AtomicU64,
    /// Of those that nothing but a fault may refuse.
    failed: AtomicU64,
    /// Sessions opened anew after a store had failed for good.
    mended: AtomicU64,
    largest_group: AtomicU64,
}

impl Tally {
    /// Returns how many writes failed that must succeed where nothing else does.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    fn add(&self, outcome: Outcome, must_succeed: bool) {
        let counter = match outcome {
            Outcome::Applied => &self.applied,
            Outcome::NotApplied => &self.refused,
            Outcome::Unknown => &self.unknown,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let has_failed = must_succeed && outcome != Outcome::Applied;
        self.failed.fetch_add(u64::from(has_failed), Ordering::Relaxed);
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Self { applied, refused, unknown, failed, mended, largest_group } = self;
        let told = (read(applied), read(refused), read(unknown));
        write!(f, "acknowledged={} not_applied={} unknown={}", told.0, told.1, told.2)?;
        write!(f, " failed={} largest_group={} mended={}", read(failed), read(largest_group), read(mended))
    }
}

/// An open larder, and the folder that it is opened in again.
#[derive(Debug)]
pub(crate) struct Session {
    folder: PathBuf,
    /// `None`: it could not be opened again.
    larder: Option<Larder>,
    /// Answers that were no errors and yet wrong.
    wrong: Vec<String>,
    /// How many damaged caches were set aside, as far as the witness knows.
    set_aside: usize,
}

/// Sets limits so low that every kind of checkpoint and a spilling cache come up within a few steps.
pub(crate) fn under_attack(settings: &mut Settings, durability: larder::Durability) {
    let common = |common: &mut StoreSettings| {
        common.durability = durability;
        common.cache_bytes = 64 << 10;
        common.checkpoint.background_frames = 25;
        common.checkpoint.writer_soft_frames = 80;
        common.checkpoint.writer_hard_frames = 160;
        common.checkpoint.idle = Duration::from_millis(5);
        common.group_messages_max = 12;
    };
    // A file of its own that the VFS does not see, and thousands of folders to lay it down in.
    settings.ballast_bytes = 0;
    settings.maintenance_interval = Duration::from_millis(10);
    common(&mut settings.kv.common);
    common(&mut settings.documents.common);
    common(&mut settings.chat.common);
    common(&mut settings.vectors.common);
    common(&mut settings.graph.common);
    // So that what an index keeps in the file is written and read.
    settings.vectors.own.vector_bytes_max = 0;
    common(&mut settings.embed_cache.common);
    settings.embed_cache.own.bytes_max = None;
    settings.embed_cache.own.memory_bytes = 0;
    // Nothing to load in each of thousands of folders.
    settings.chat.own.counter = Counter::named("estimate-1").expect("larder's own");
}

impl Stores {
    /// Returns the stores of these names, which are the plans'.
    pub(crate) fn new(names: &[&'static str], seed: u64, durability: Durability) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
        let runtime = runtime.expect("threads for the callers");
        let plans = names.iter().map(|name| (*name, plan(name).expect("a store with a plan"))).collect();
        let (is_exclusive, may_begin_anew, tally) = (false, true, Tally::default());
        Self { plans: Arc::new(plans), seed, durability, is_exclusive, may_begin_anew, runtime, tally }
    }

    /// Lets no other process have the folder, so that reads come from memory.
    pub(crate) fn exclusive(mut self) -> Self {
        self.is_exclusive = true;
        self
    }

    /// The control: a cache that is set aside counts as one that lost what it held.
    pub(crate) fn unforgiving(mut self) -> Self {
        self.may_begin_anew = false;
        self
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Returns the plan that an operation belongs to, with its store's name and its id there.
    fn share(&self, op: u64) -> (&'static str, &dyn Plan, u64) {
        let (store, own_id) = share(op, self.plans.len());
        let (name, plan) = &self.plans[store];
        (name, &**plan, own_id)
    }

    async fn open_larder(&self, folder: &Path) -> Result<Larder, String> {
        let durability = match self.durability {
            Durability::Durable => larder::Durability::Durable,
            Durability::Relaxed => larder::Durability::Relaxed,
        };
        let builder = Larder::builder(folder).settings(|settings| under_attack(settings, durability));
        let builder = if self.is_exclusive { builder.exclusive() } else { builder };
        builder.open().await.map_err(|error| format!("{error:?}"))
    }

    async fn call_many(&self, session: &mut Session, count: u64, witness: &Witness) {
        let Some(larder) = session.larder.clone() else {
            // Nobody to ask.
            for _ in 0..count {
                witness.settle(witness.begin_at(|op| self.share(op).0), Outcome::NotApplied);
            }
            return;
        };
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..count {
            let op = witness.begin_at(|op| self.share(op).0);
            let (larder, plans, seed, witness) = (larder.clone(), Arc::clone(&self.plans), self.seed, witness.clone());
            callers.spawn(async move {
                let (store, own_id) = share(op, plans.len());
                let told = plans[store].1.send(&larder, seed, own_id, None).await;
                let (outcome, wrong) = told_outcome(told);
                witness.settle(op, outcome);
                (op, outcome, wrong)
            });
        }
        while let Some(called) = callers.join_next().await {
            let (op, outcome, wrong) = called.expect("callers do not panic");
            self.tally.add(outcome, self.must_succeed(op));
            session.wrong.extend(wrong.map(|what| format!("operation {op}: {what}")));
        }
        let group = larder.observe().iter().map(|store| store.largest_group_messages).max().unwrap_or(0);
        self.tally.largest_group.fetch_max(group, Ordering::Relaxed);
    }

    /// Opens the larder again where a store has failed for good, as its host would.
    async fn mend(&self, session: &mut Session) {
        let is_over = session.larder.as_ref().is_none_or(|larder| {
            let over = |state| matches!(state, StoreState::Failed | StoreState::Quarantined | StoreState::Stopped);
            larder.observe().iter().any(|store| over(store.state))
        });
        if is_over {
            self.tally.mended.fetch_add(1, Ordering::Relaxed);
            self.reopen(session, true).await;
        }
    }

    /// Tells the witness of a damaged cache that was set aside since it was last told.
    fn note_set_aside(&self, session: &mut Session, witness: &Witness) {
        let set_aside = set_aside(&session.folder);
        if set_aside > session.set_aside && self.may_begin_anew {
            witness.begun_anew(CACHE);
        }
        session.set_aside = set_aside;
    }

    async fn reopen(&self, session: &mut Session, is_closed: bool) {
        match session.larder.take() {
            Some(larder) if is_closed => _ = larder.close().await,
            // As a crash would; opening waits until the threads have let go.
            other => drop(other),
        }
        session.larder = self.open_larder(&session.folder).await.ok();
    }

    /// Makes what was acknowledged safe, in relaxed stores.
    async fn flush(&self, session: &Session, witness: &Witness) {
        if let Some(larder) = &session.larder {
            let flushes: Vec<_> = self.plans.iter().map(|(name, _)| witness.flush_begins(name)).collect();
            if larder.flush().await.is_ok() {
                flushes.iter().for_each(|flush| witness.flushed(flush));
            }
        }
    }

    /// Writes every file anew; where that fails, all is as it was.
    async fn compact(&self, session: &Session) {
        let Some(larder) = &session.larder else { return };
        for store in larder.observe() {
            drop(larder.compact(store.store).await);
        }
    }

    async fn judge(&self, larder: &Larder, history: &History) -> Result<Verdict, String> {
        let said = |error: Error| format!("{error:?}");
        let report = larder.check(CheckDepth::Full).await.map_err(said)?;
        let damage: Vec<String> =
            report.findings.into_iter().map(|one| format!("{}: {}", one.store, one.what)).collect();
        if let Some(claimed) = damage.first().filter(|_| faults::claims_damage()) {
            return Err(claimed.clone());
        }
        let mut verdict =
            Verdict { findings: damage.into_iter().map(Finding::Corrupt).collect(), ..Verdict::default() };
        let store_count = self.plans.len();
        for (store, (name, plan)) in self.plans.iter().enumerate() {
            let told = self.told(history, name).of_store(store, store_count);
            let Shown { found, untold, violations } = plan.inspect(larder, &told).await.map_err(said)?;
            let ids = |own_ids: BTreeSet<u64>| -> BTreeSet<u64> {
                own_ids.into_iter().map(|id| id.saturating_mul(store_count as u64) + store as u64).collect()
            };
            verdict.merge(history.judge(name, self.durability, &ids(found), &ids(untold)));
            verdict.findings.extend(violations.into_iter().map(|what| Finding::Torn(format!("{name}: {what}"))));
        }
        Ok(verdict)
    }

    /// Returns the history as plans know it. What a relaxed store may still lose is open to them.
    fn told(&self, history: &History, place: &str) -> plan::History {
        let flushed = history.flushed(place);
        let trial = |(op, seen): (u64, Op)| {
            let (fate, settled_at) = match seen.settled {
                Some((at, Outcome::Applied)) if self.durability == Durability::Relaxed && at > flushed => {
                    (Fate::Open, Some(at))
                }
                Some((at, Outcome::Applied)) => (Fate::Applied, Some(at)),
                Some((at, Outcome::NotApplied)) => (Fate::NotApplied, Some(at)),
                // It may be applied at any later time.
                Some((_, Outcome::Unknown)) | None => (Fate::Open, None),
            };
            (op, Trial { fate, tried_at: seen.begun, settled_at })
        };
        plan::History { seed: self.seed, trials: history.ops(place).map(trial).collect() }
    }
}

/// Returns what a caller was told, and what is wrong with it whatever else is so.
fn told_outcome(told: plan::Outcome) -> (Outcome, Option<String>) {
    match told {
        plan::Outcome::Acknowledged | plan::Outcome::Failed(_, Written::Applied) => (Outcome::Applied, None),
        plan::Outcome::Failed(_, Written::NotApplied) | plan::Outcome::Unread(_) => (Outcome::NotApplied, None),
        plan::Outcome::Failed(_, Written::Unknown) => (Outcome::Unknown, None),
        plan::Outcome::Wrong(what) => (Outcome::Unknown, Some(what)),
    }
}

impl Workload for Stores {
    type Session = Session;

    fn open(&self, folder: &Path) -> Result<Session, String> {
        let larder = self.wait(self.open_larder(folder))?;
        Ok(Session { folder: folder.to_owned(), larder: Some(larder), wrong: Vec::new(), set_aside: 0 })
    }

    #[expect(clippy::disallowed_methods, reason = "an idle store is one in which time passes")]
    fn step(&self, session: &mut Session, seed: u64, witness: &Witness) {
        let mut random = Random::new(seed);
        self.wait(async {
            self.mend(session).await;
            self.note_set_aside(session, witness);
            let store_count = self.plans.len() as u64;
            let count = if random.percent(25) { store_count } else { 1 + random.below(CALLERS_MAX * store_count) };
            self.call_many(session, count, witness).await;
            self.note_set_aside(session, witness);
            match random.below(100) {
                0..6 => self.reopen(session, true).await,
                6..9 => self.reopen(session, false).await,
                13..25 if self.durability == Durability::Relaxed => self.flush(session, witness).await,
                // Long enough for an idle checkpoint.
                9..13 => tokio::time::sleep(Duration::from_millis(20)).await,
                25..28 => self.compact(session).await,
                _ => {}
            }
        });
    }

    fn check(&self, session: &mut Session, history: &History) -> Result<Verdict, String> {
        let larder = session.larder.as_ref().ok_or("the larder could not be opened again")?;
        let before = session.set_aside;
        let mut verdict = self.wait(self.judge(larder, history))?;
        if self.may_begin_anew && faults::claims_damage() && set_aside(&session.folder) > before {
            // The next step tells the witness.
            return Err("the cache was set aside while it was read".to_owned());
        }
        verdict.findings.extend(session.wrong.drain(..).map(Finding::Corrupt));
        Ok(verdict)
    }

    fn must_succeed(&self, op: u64) -> bool {
        let (_, plan, own_id) = self.share(op);
        plan.is_sure(self.seed, own_id)
    }

    fn close(&self, session: Session) {
        if let Some(larder) = session.larder {
            self.wait(larder.close());
        }
    }
}
