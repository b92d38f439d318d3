//! The load: many callers, each taking the next id, and a log line before and after each operation.
//!
//! Start at [`run`].

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use larder::{Durability, Larder, OpenError, StoreSettings, Written};

use super::log::Log;
use super::plan::{Lie, Outcome, Plan, Random, plan, share};

/// What to run.
#[derive(Debug)]
pub(crate) struct RunOptions {
    pub(crate) folder: PathBuf,
    pub(crate) seed: u64,
    pub(crate) stores: Vec<String>,
    pub(crate) durability: Durability,
    pub(crate) callers: u64,
    pub(crate) duration: Duration,
    pub(crate) earlier_log: Option<PathBuf>,
    pub(crate) lie: Option<Lie>,
}

/// What the callers share.
struct Load {
    options: RunOptions,
    larder: Larder,
    plans: Vec<Box<dyn Plan>>,
    log: Output,
    next_id: AtomicU64,
    /// Ids of an earlier run to send again.
    repeated: Mutex<Vec<u64>>,
    until: Instant,
}

/// The log: a line is one write, so that a kill cuts none in two.
struct Output {
    lines: Mutex<Box<dyn Write + Send>>,
    is_lost: AtomicBool,
}

impl Output {
    fn line(&self, text: &str) {
        let line = format!("{text}\n");
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.write_all(line.as_bytes()).and_then(|()| lines.flush()).is_err() {
            self.is_lost.store(true, Ordering::Relaxed);
        }
    }
}

/// Runs the load on a runtime made for it.
pub(crate) fn run_on_own_runtime(options: RunOptions, output: Box<dyn Write + Send>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|e| format!("no runtime: {e}"))?.block_on(run(options, output))
}

async fn run(options: RunOptions, output: Box<dyn Write + Send>) -> Result<(), String> {
    let plans: Result<Vec<_>, _> = options.stores.iter().map(|store| plan(store)).collect();
    let plans = plans?;
    let (first_id, repeated) = match &options.earlier_log {
        None => (1, Vec::new()),
        Some(path) => continuation(path, &options, &plans)?,
    };
    let larder = open(&options, first_id).await.map_err(|e| format!("cannot open the folder: {e}"))?;
    let log = Output { lines: Mutex::new(output), is_lost: AtomicBool::new(false) };
    let (durability, callers) = (options.durability, options.callers);
    let more = format!("durability {durability:?} callers {callers} first {first_id}").to_lowercase();
    log.line(&Log::header(options.seed, &options.stores, &more));
    let until = Instant::now() + options.duration;
    let (next_id, repeated) = (AtomicU64::new(first_id), Mutex::new(repeated));
    let load = Arc::new(Load { options, larder: larder.clone(), plans, log, next_id, repeated, until });
    let callers: Vec<_> = (0..load.options.callers).map(|_| tokio::spawn(call(Arc::clone(&load)))).collect();
    compact_all_the_time(&load, first_id).await;
    for caller in callers {
        caller.await.map_err(|e| format!("a caller panicked: {e}"))?;
    }
    let report = larder.close().await;
    if load.log.is_lost.load(Ordering::Relaxed) {
        return Err("the log could not be written".to_owned());
    }
    if report.is_clean() { Ok(()) } else { Err(format!("close left requests undelivered: {:?}", report.undelivered)) }
}

/// Opens the folder; every second run checkpoints all the time, so that kills meet checkpoints too.
async fn open(options: &RunOptions, first_id: u64) -> Result<Larder, OpenError> {
    let mut common = StoreSettings { durability: options.durability, ..StoreSettings::default() };
    let mut maintenance_interval = Duration::from_secs(1);
    if Random::of(options.seed ^ 3, first_id).percent(50) {
        common.checkpoint.background_frames = 50;
        common.checkpoint.writer_soft_frames = 200;
        common.checkpoint.writer_hard_frames = 400;
        common.checkpoint.idle = Duration::from_millis(5);
        common.change_log_writes_max = 1_000;
        maintenance_interval = Duration::from_millis(10);
    }
    let builder = Larder::builder(&options.folder)
        .kv(|kv| kv.common = common.clone())
        .documents(|documents| documents.common = common.clone())
        .chat(|chat| chat.common = common.clone())
        .graph(|graph| graph.common = common.clone())
        .vectors(|vectors| {
            vectors.common = common.clone();
            // So that what an index keeps in the file is written and read.
            vectors.own.vector_bytes_max = 0;
        })
        .embed_cache(|cache| {
            cache.common = common;
            // So that reads go to the file.
            cache.own.memory_bytes = 0;
            // What was acknowledged must be there.
            cache.own.bytes_max = None;
        });
    builder.settings(|settings| settings.maintenance_interval = maintenance_interval).open().await
}

/// Returns the first id that the earlier log does not have, and the open ones that can be repeated.
fn continuation(path: &Path, options: &RunOptions, plans: &[Box<dyn Plan>]) -> Result<(u64, Vec<u64>), String> {
    let earlier = Log::parse(&super::verify::read_log(path)?)?;
    if (earlier.history.seed, &earlier.stores) != (options.seed, &options.stores) {
        return Err("the earlier log has another seed or other stores".to_owned());
    }
    let repeatable = |id: &u64| {
        let (store, own_id) = share(*id, plans.len());
        plans.get(store).is_some_and(|plan| plan.is_repeatable(options.seed, own_id))
    };
    Ok((earlier.history.last_id() + 1, earlier.open_ids().filter(repeatable).collect()))
}

/// Every fourth run writes its files anew again and again, so that kills meet that too. A compaction that fails leaves all as it was.
async fn compact_all_the_time(load: &Load, first_id: u64) {
    if !Random::of(load.options.seed ^ 5, first_id).percent(25) {
        return;
    }
    while Instant::now() < load.until && !load.log.is_lost.load(Ordering::Relaxed) {
        for store in load.larder.observe() {
            drop(load.larder.compact(store.store).await);
        }
        tokio::task::yield_now().await;
    }
}

/// One caller: an operation after the other, until the time is over or nobody reads the log.
async fn call(load: Arc<Load>) {
    while Instant::now() < load.until && !load.log.is_lost.load(Ordering::Relaxed) {
        let repeated = load.repeated.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let id = repeated.unwrap_or_else(|| load.next_id.fetch_add(1, Ordering::Relaxed));
        perform(&load, id).await;
    }
}

async fn perform(load: &Load, id: u64) {
    let Load { options, larder, log, plans, .. } = load;
    let (store, own_id) = share(id, plans.len());
    let Some(plan) = plans.get(store) else { return };
    // Violations are told under the ids that the stores count by themselves.
    log.line(&format!("TRY {id} {own_id} {}", plan.describe(options.seed, own_id)));
    if options.lie == Some(Lie::AckBeforeCommit) && plan.is_sure(options.seed, own_id) {
        log.line(&format!("ACK {id}"));
        plan.send(larder, options.seed, own_id, None).await;
        return;
    }
    match plan.send(larder, options.seed, own_id, options.lie).await {
        Outcome::Acknowledged => log.line(&format!("ACK {id}")),
        Outcome::Failed(class, written) => log.line(&format!("ERR {id} {class} {}", written_word(written))),
        Outcome::Unread(why) => log.line(&format!("BAD {id} a read failed: {why}")),
        Outcome::Wrong(what) => log.line(&format!("BAD {id} {what}")),
    }
}

/// Returns how the log names whether something was written.
fn written_word(written: Written) -> &'static str {
    match written {
        Written::Applied => "applied",
        Written::NotApplied => "not-applied",
        Written::Unknown => "unknown",
    }
}
