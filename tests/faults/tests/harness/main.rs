//! Attacks larder's stores, and proves the harness on raw SQLite: what holds is found to hold, and each control is caught.
//!
//! Start at [`main`]; [`stores`] is larder as a workload, [`contexts`] a context over its stores, [`disk_full`] and
//! [`context_on_a_full_disk`] fill real small disks. Sizes:
//! `LARDER_POWER_POINTS` (default 300 a sweep of SQLite alone, 60 of larder, 40 of a context), `LARDER_FAULT_POINTS` (default 100, 40 of
//! larder) and `LARDER_DISK_SIZES` (default 6); `LARDER_FAULTS_STORES` (default every store with a plan, in one folder);
//! `LARDER_FAULTS_SEED` (default 1); `LARDER_FAULTS_TRACE=file` keeps the events before the first bad image. A word as
//! argument runs only the proofs whose name holds it. The full sizes: CONTRIBUTING, "Attack".
//!
//! Always true: proofs run one after another, since the VFS belongs to the process; every figure is printed, passed or not.

mod context_on_a_full_disk;
mod contexts;
mod disk_full;
mod stores;
// The plans of the torture: one way to say what a store's operations are and what they must have left.
#[expect(dead_code, reason = "the torture alone describes and spoils")]
#[path = "../../../../examples/torture/harness/plan/mod.rs"]
mod plan;

use std::time::Instant;

use contexts::Contexts;
use larder_faults::Durability;
use larder_faults::faults::{self, Call, Fault};
use larder_faults::raw::{Defect, RawWorkload, Synchronous};
use larder_faults::{FaultReport, FaultSweep, PowerControl, PowerReport, PowerSweep};
use stores::Stores;

fn main() {
    larder_faults::install();
    println!("SQLite {}", rusqlite::version());
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let proofs: [(&str, fn()); 34] = [
        ("fault_hits_only_the_chosen_call", fault_hits_only_the_chosen_call),
        ("power_full_loses_nothing", power_full_loses_nothing),
        ("power_full_loses_nothing_with_strict_directories", power_full_loses_nothing_with_strict_directories),
        ("power_full_survives_failed_syncs", power_full_survives_failed_syncs),
        ("power_normal_loses_only_the_newest", power_normal_loses_only_the_newest),
        ("control_synchronous_off_is_caught", control_synchronous_off_is_caught),
        ("control_forgotten_syncs_are_caught", control_forgotten_syncs_are_caught),
        ("control_forgotten_flush_is_caught", control_forgotten_flush_is_caught),
        ("control_early_acknowledgement_is_caught", control_early_acknowledgement_is_caught),
        ("control_shifted_acknowledgement_is_caught", control_shifted_acknowledgement_is_caught),
        ("control_reopening_without_guard_is_caught", control_reopening_without_guard_is_caught),
        ("faults_give_no_wrong_answer", faults_give_no_wrong_answer),
        ("faults_on_one_store_leave_the_other_alone", faults_on_one_store_leave_the_other_alone),
        ("control_skipped_rollback_is_caught", control_skipped_rollback_is_caught),
        ("note_normal_after_failed_syncs", note_normal_after_failed_syncs),
        ("stores_durable_lose_nothing", stores_durable_lose_nothing),
        ("stores_durable_survive_failed_syncs", stores_durable_survive_failed_syncs),
        ("stores_relaxed_lose_only_the_newest", stores_relaxed_lose_only_the_newest),
        ("stores_relaxed_survive_failed_syncs", stores_relaxed_survive_failed_syncs),
        ("stores_control_forgotten_syncs_are_caught", stores_control_forgotten_syncs_are_caught),
        ("stores_control_early_acknowledgement_is_caught", stores_control_early_acknowledgement_is_caught),
        ("stores_control_forgotten_flush_is_caught", stores_control_forgotten_flush_is_caught),
        ("chat_ranks_after_any_failed_read", chat_ranks_after_any_failed_read),
        ("stores_faults_give_no_wrong_answer", stores_faults_give_no_wrong_answer),
        ("stores_faults_give_no_wrong_answer_from_memory", stores_faults_give_no_wrong_answer_from_memory),
        ("stores_control_cache_set_aside_is_caught", stores_control_cache_set_aside_is_caught),
        ("disk_full_refuses_and_recovers", disk_full_refuses_and_recovers),
        ("disk_full_cache_reads_and_computes", disk_full_cache_reads_and_computes),
        ("disk_full_context_is_as_before_or_as_after", disk_full_context_is_as_before_or_as_after),
        ("disk_full_context_control_lost_journal_is_caught", disk_full_context_control_lost_journal_is_caught),
        ("context_durable_is_as_before_or_as_after", context_durable_is_as_before_or_as_after),
        ("context_control_forgotten_syncs_are_caught", context_control_forgotten_syncs_are_caught),
        ("context_control_early_acknowledgement_is_caught", context_control_early_acknowledgement_is_caught),
        ("context_control_lost_journal_is_caught", context_control_lost_journal_is_caught),
    ];
    for (name, proof) in proofs {
        if wanted.is_empty() || wanted.iter().any(|word| name.contains(word.as_str())) {
            let began = Instant::now();
            proof();
            println!("{name}: ok in {:.1} s\n", began.elapsed().as_secs_f64());
        }
    }
}

fn size(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().expect("a size is a number"),
        Err(_) => default,
    }
}

fn power(points: u64) -> PowerSweep {
    PowerSweep::new(size("LARDER_FAULTS_SEED", 1), points)
}

fn power_points() -> u64 {
    size("LARDER_POWER_POINTS", 300)
}

/// A control needs only enough points to be caught.
fn control_points() -> u64 {
    (power_points() / 3).min(1_000)
}

#[expect(clippy::disallowed_methods, reason = "a report, not a store's file")]
fn show(name: &str, report: &PowerReport) {
    println!("{name}: {report}");
    report.examples.iter().for_each(|example| println!("  {example}"));
    if let (Some(file), Some(trace)) = (std::env::var_os("LARDER_FAULTS_TRACE"), &report.trace) {
        std::fs::write(file, trace).expect("the trace file is writable");
    }
}

fn show_faults(name: &str, report: &FaultReport) {
    println!("{name}: {report}");
    report.examples.iter().for_each(|example| println!("  {example}"));
}

#[expect(clippy::disallowed_methods, reason = "SQLite alone")]
fn fault_hits_only_the_chosen_call() {
    let folder = larder_faults::scratch::folder().expect("a scratch folder");
    let connection = rusqlite::Connection::open(folder.path().join("kv.db")).expect("opening");
    connection.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t(x)").expect("writing");
    faults::reset_counts();
    faults::arm(Fault::new(Call::Sync, 2).on("kv.db-wal"));
    connection.execute("INSERT INTO t VALUES(1)", []).expect("the first sync works");
    let error = connection.execute("INSERT INTO t VALUES(2)", []).expect_err("the second fails");
    let code = error.sqlite_error().map(|error| error.extended_code);
    assert_eq!((code, faults::fired()), (Some(rusqlite::ffi::SQLITE_IOERR_FSYNC), 1));
    connection.execute("INSERT INTO t VALUES(3)", []).expect("the third works");
    assert_eq!(faults::counts().of(Call::Sync, "kv.db-wal"), 3);
    assert_eq!(faults::counts().of(Call::Sync, "kv.db"), 0);
    faults::clear();
}

fn power_full_loses_nothing() {
    let report = power(power_points()).run(&RawWorkload::new(Synchronous::Full));
    show("FULL", &report);
    assert!(report.is_clean() && report.newest_lost == 0);
}

fn power_full_loses_nothing_with_strict_directories() {
    let mut sweep = power(power_points() / 2);
    sweep.strict_directories = true;
    let report = sweep.run(&RawWorkload::new(Synchronous::Full));
    show("FULL, strict directories", &report);
    assert!(report.is_clean());
}

/// Every second step has a failing sync, and what it covered is lost for good.
fn with_failing_syncs(mut sweep: PowerSweep) -> PowerSweep {
    sweep.sync_fault_every = 2;
    sweep
}

fn power_full_survives_failed_syncs() {
    let report = with_failing_syncs(power(power_points() / 2)).run(&RawWorkload::new(Synchronous::Full));
    show("FULL with failing syncs", &report);
    assert!(report.is_clean());
}

fn power_normal_loses_only_the_newest() {
    let report = power(power_points()).run(&RawWorkload::new(Synchronous::Normal));
    show("NORMAL", &report);
    assert!(report.is_clean());
    assert!(report.newest_lost > 0, "a sweep that loses nothing in NORMAL does not cut the power");
}

fn control_synchronous_off_is_caught() {
    let report = power(control_points()).run(&RawWorkload::new(Synchronous::Off));
    show("OFF, caught", &report);
    assert!(report.corrupt > 0 && report.lost > 0);
}

fn control_forgotten_syncs_are_caught() {
    let mut sweep = power(control_points());
    sweep.control = PowerControl::ForgetSyncs;
    let report = sweep.run(&RawWorkload::new(Synchronous::Full));
    show("FULL on a disk that lies, caught", &report);
    assert!(report.corrupt > 0 && report.lost > 0);
}

fn control_forgotten_flush_is_caught() {
    let mut sweep = power(control_points());
    sweep.control = PowerControl::ForgetSyncs;
    let report = sweep.run(&RawWorkload::new(Synchronous::Normal));
    show("NORMAL on a disk that lies, caught", &report);
    assert!(report.lost > 0, "what was flushed is gone, and that must show");
}

fn control_early_acknowledgement_is_caught() {
    let report =
        power(control_points()).run(&RawWorkload::new(Synchronous::Full).with(Defect::AcknowledgesBeforeCommit));
    show("acknowledged before COMMIT, caught", &report);
    assert!(report.lost > 0 && report.corrupt == 0);
}

fn control_shifted_acknowledgement_is_caught() {
    let mut sweep = power(control_points());
    sweep.control = PowerControl::AcknowledgeEarly;
    let report = sweep.run(&RawWorkload::new(Synchronous::Full));
    show("acknowledgements moved to the beginning, caught", &report);
    assert!(report.lost > 0 && report.corrupt == 0);
}

fn control_reopening_without_guard_is_caught() {
    // The situation is rare, so it needs its points whatever the size asked for: many rounds, few points of each.
    let mut sweep = with_failing_syncs(power(300));
    sweep.points_per_round = 30;
    let report = sweep.run(&RawWorkload::new(Synchronous::Full).with(Defect::ReopensWithoutGuard));
    show("FULL with failing syncs, reopened without a guard, caught", &report);
    assert!(report.lost + report.corrupt > 0);
}

fn fault_sweep(points: u64) -> FaultSweep {
    FaultSweep::new(size("LARDER_FAULTS_SEED", 1), points)
}

fn fault_points() -> u64 {
    size("LARDER_FAULT_POINTS", 100)
}

fn faults_give_no_wrong_answer() {
    let report = fault_sweep(fault_points()).run(&RawWorkload::new(Synchronous::Full));
    show_faults("faults", &report);
    assert!(report.is_clean());
    assert!(report.fired * 10 > report.points * 8, "most faults fire, or the dry run shows another program");
}

fn faults_on_one_store_leave_the_other_alone() {
    let mut sweep = fault_sweep(fault_points() / 3);
    sweep.place = "left.db".to_owned();
    let report = sweep.run(&RawWorkload::new(Synchronous::Full));
    show_faults("faults on left.db", &report);
    assert!(report.is_clean());
}

fn control_skipped_rollback_is_caught() {
    // Only a fault in the middle of a transaction shows it, about 2 points in 100; ten pages of cache make most reads such.
    let workload = RawWorkload::new(Synchronous::Full).with(Defect::SkipsRollback);
    let caught = (0..20).any(|round| {
        let mut sweep = fault_sweep(80);
        sweep.seed += 1_000 * round;
        sweep.place = "left.db".to_owned();
        sweep.calls = vec![Call::Read];
        let report = sweep.run(&workload);
        show_faults("skipped rollback, caught", &report);
        report.wrong > 0
    });
    assert!(caught, "none of 1600 faults showed it");
}

/// No promise of SQLite's: after a failed sync in NORMAL the WAL's newest frames may never reach the disk, while a later
/// checkpoint takes them for synced; cutting the power in the middle of that checkpoint damages the database. The figure is
/// printed so that larder's policy for relaxed stores can be measured against it.
fn note_normal_after_failed_syncs() {
    let report = with_failing_syncs(power(control_points())).run(&RawWorkload::new(Synchronous::Normal));
    show("NORMAL with failing syncs", &report);
}

/// The stores that take part.
fn stores(durability: Durability) -> Stores {
    let wanted = std::env::var("LARDER_FAULTS_STORES").unwrap_or_else(|_| plan::STORES.join(","));
    let chosen = |name: &str| plan::STORES.into_iter().find(|store| *store == name).expect("a store with a plan");
    let names: Vec<&'static str> = wanted.split(',').map(chosen).collect();
    Stores::new(&names, size("LARDER_FAULTS_SEED", 1), durability)
}

/// Prints what the callers were told, and returns how many writes failed that had to succeed.
fn show_tally(stores: &Stores) -> u64 {
    println!("  {}", stores.tally);
    stores.tally.failed()
}

/// A larder takes ten times as long to open as a bare file, so the test-sized sweeps have fewer points.
fn stores_power_points() -> u64 {
    size("LARDER_POWER_POINTS", 60)
}

fn stores_fault_points() -> u64 {
    size("LARDER_FAULT_POINTS", 40)
}

fn stores_durable_lose_nothing() {
    let stores = stores(Durability::Durable);
    let report = power(stores_power_points()).run(&stores);
    show("stores, durable", &report);
    assert_eq!(show_tally(&stores), 0, "a disk without faults fails nothing");
    assert!(report.is_clean() && report.newest_lost == 0);
}

fn stores_durable_survive_failed_syncs() {
    let stores = stores(Durability::Durable);
    let report = with_failing_syncs(power(stores_power_points() / 2)).run(&stores);
    show("stores, durable, with failing syncs", &report);
    show_tally(&stores);
    assert!(report.is_clean());
}

fn stores_relaxed_lose_only_the_newest() {
    let stores = stores(Durability::Relaxed);
    let report = power(stores_power_points()).run(&stores);
    show("stores, relaxed", &report);
    assert_eq!(show_tally(&stores), 0, "a disk without faults fails nothing");
    assert!(report.is_clean());
    assert!(report.newest_lost > 0, "a sweep that loses nothing in a relaxed store does not cut the power");
}

/// SQLite alone is damaged here now and then (`note_normal_after_failed_syncs`); larder folds nothing in any more.
fn stores_relaxed_survive_failed_syncs() {
    let stores = stores(Durability::Relaxed);
    let report = with_failing_syncs(power(stores_power_points() / 2)).run(&stores);
    show("stores, relaxed, with failing syncs", &report);
    show_tally(&stores);
    assert!(report.is_clean());
}

fn stores_control_points() -> u64 {
    control_points().min(stores_power_points())
}

fn stores_control_forgotten_syncs_are_caught() {
    let mut sweep = power(stores_control_points());
    sweep.control = PowerControl::ForgetSyncs;
    let report = sweep.run(&stores(Durability::Durable));
    show("stores, durable, on a disk that lies, caught", &report);
    assert!(report.corrupt > 0 && report.lost > 0);
}

fn stores_control_early_acknowledgement_is_caught() {
    let mut sweep = power(stores_control_points());
    sweep.control = PowerControl::AcknowledgeEarly;
    let report = sweep.run(&stores(Durability::Durable));
    show("stores, acknowledgements moved to the beginning, caught", &report);
    assert!(report.lost > 0 && report.corrupt == 0);
}

fn stores_control_forgotten_flush_is_caught() {
    let mut sweep = power(stores_control_points());
    sweep.control = PowerControl::ForgetSyncs;
    let report = sweep.run(&stores(Durability::Relaxed));
    show("stores, relaxed, on a disk that lies, caught", &report);
    assert!(report.lost > 0, "what was flushed is gone, and that must show");
}

/// A read that failed inside FTS5 made SQLite end the transaction, and FTS5 kept totals of zero for the next one: from then
/// on no search could rank, in every later process too.
fn chat_ranks_after_any_failed_read() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().expect("threads");
    let mut failed = 0;
    for nth in 1..=40 {
        let folder = larder_faults::scratch::folder().expect("a scratch folder");
        runtime.block_on(async {
            let open = || larder::Larder::builder(folder.path()).chat(|chat| chat.common.cache_bytes = 64 << 10).open();
            let append = async |larder: &larder::Larder, text: &str| {
                larder.chat().session("s").append([larder::ChatMessage::user(text)]).await
            };
            let larder = open().await.expect("opening");
            for n in 0..20 {
                append(&larder, &format!("word {n}")).await.expect("appending");
            }
            larder.close().await;
            // With nothing in its cache, so that the write has to read.
            let larder = open().await.expect("opening again");
            larder.chat().count(None).await.expect("the store starts");
            faults::arm(Fault::new(Call::Read, nth).on("chat.db"));
            failed += u64::from(append(&larder, "word under fault").await.is_err());
            faults::clear();
            append(&larder, "word after it").await.expect("appending");
            let found = larder.chat().search("word").limit(100).await.map(|hits| hits.len());
            assert!(found.as_ref().is_ok_and(|found| *found >= 21), "read {nth} failed, and a search says {found:?}");
            let findings = larder.check(larder::CheckDepth::Full).await.expect("checking").findings;
            assert!(findings.is_empty(), "read {nth}: {findings:?}");
            larder.close().await;
        });
    }
    println!("chat: {failed} of 40 appends failed by a failed read");
    assert!(failed > 5, "a read that fails nothing shows nothing");
}

fn stores_faults_give_no_wrong_answer() {
    check_faults("stores, faults", stores_fault_points(), &stores(Durability::Durable));
}

fn stores_faults_give_no_wrong_answer_from_memory() {
    check_faults("stores, exclusive, faults", stores_fault_points() / 3, &stores(Durability::Durable).exclusive());
}

/// A cache whose file is said to be damaged begins anew, and loses what it held: the sweep sees it.
fn stores_control_cache_set_aside_is_caught() {
    let mut sweep = fault_sweep(8);
    sweep.place = "embed_cache.db".to_owned();
    sweep.calls = vec![Call::Read];
    let stores = Stores::new(&["embed_cache"], sweep.seed, Durability::Durable).unforgiving();
    let report = sweep.run(&stores);
    show_faults("a damaged cache that may lose nothing, caught", &report);
    assert!(report.wrong > 0);
}

fn check_faults(name: &str, points: u64, stores: &Stores) {
    let report = fault_sweep(points).run(stores);
    show_faults(name, &report);
    show_tally(stores);
    assert!(report.is_clean());
    assert!(report.fired * 10 > report.points * 8, "most faults fire, or the dry run shows another program");
}

fn disk_full_cache_reads_and_computes() {
    match disk_full::cache() {
        Ok(stored) => println!("a cache on a full disk: {stored} values found, others computed and not kept"),
        Err(why) => println!("a cache on a full disk: skipped, since no tmpfs can be mounted here: {why}"),
    }
}

fn disk_full_refuses_and_recovers() {
    let report = match disk_full::run(size("LARDER_DISK_SIZES", 6), size("LARDER_FAULTS_SEED", 1)) {
        Ok(report) => report,
        Err(why) => return println!("disk full: skipped, since no tmpfs can be mounted here: {why}"),
    };
    let disk_full::Report { sizes, stored, refused, unknown, freed, slowest, wrong } = &report;
    println!("disk full: sizes={sizes} stored={stored} refused={refused} unknown={unknown} freed={freed}");
    println!("  serving again after at most {slowest:.0?}, wrong={}", wrong.len());
    wrong.iter().take(10).for_each(|what| println!("  {what}"));
    assert!(wrong.is_empty());
    assert_eq!(*unknown, 0, "the ballast has room for the marker that settles a failed COMMIT");
    assert!(freed * 100 >= sizes * 95, "deleting must free the store");
}

fn context_on_full_disks(loses_journal: bool) -> Option<context_on_a_full_disk::Report> {
    let report = match context_on_a_full_disk::run(size("LARDER_DISK_SIZES", 4), loses_journal) {
        Ok(report) => report,
        Err(why) => {
            println!("context on a full disk: skipped, since no tmpfs can be mounted here: {why}");
            return None;
        }
    };
    let context_on_a_full_disk::Report { disks, acknowledged, refused, unknown, unfinished, interrupted, wrong } =
        &report;
    println!("context on a full disk: disks={disks} acknowledged={acknowledged} refused={refused} unknown={unknown}");
    println!("  unfinished={unfinished}, disks with an open intent={interrupted}, wrong={}", wrong.len());
    wrong.iter().take(10).for_each(|what| println!("  {what}"));
    Some(report)
}

fn disk_full_context_is_as_before_or_as_after() {
    let Some(report) = context_on_full_disks(false) else { return };
    assert!(report.wrong.is_empty());
    assert!(report.refused > 0, "a disk that refuses nothing is not full");
    assert!(report.interrupted > 0, "no disk was full between two stores");
}

fn disk_full_context_control_lost_journal_is_caught() {
    let Some(report) = context_on_full_disks(true) else { return };
    assert!(!report.wrong.is_empty());
}

/// A context opens three files, and recovers by a write.
fn context_power_points() -> u64 {
    size("LARDER_POWER_POINTS", 40)
}

fn context_control_points() -> u64 {
    control_points().min(context_power_points() / 2)
}

fn context_durable_is_as_before_or_as_after() {
    let report = power(context_power_points()).run(&Contexts::new());
    show("context, durable", &report);
    assert!(report.is_clean() && report.newest_lost == 0);
}

fn context_control_forgotten_syncs_are_caught() {
    let mut sweep = power(context_control_points());
    sweep.control = PowerControl::ForgetSyncs;
    let report = sweep.run(&Contexts::new());
    show("context, durable, on a disk that lies, caught", &report);
    assert!(!report.is_clean() && report.lost > 0);
}

fn context_control_early_acknowledgement_is_caught() {
    let mut sweep = power(context_control_points());
    sweep.control = PowerControl::AcknowledgeEarly;
    let report = sweep.run(&Contexts::new());
    show("context, acknowledgements moved to the beginning, caught", &report);
    assert!(report.lost > 0 && report.corrupt == 0);
}

fn context_control_lost_journal_is_caught() {
    let mut sweep = power(context_control_points());
    // The journal is also lost between two steps of a recovery, where nothing was cut.
    sweep.recover_every = 0;
    let report = sweep.run(&Contexts::new().losing_the_journal());
    show("context whose journal is lost, caught", &report);
    assert!(report.torn > 0);
}
