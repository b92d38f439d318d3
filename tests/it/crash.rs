//! Kill -9 under load: nothing acknowledged is lost, no batch is there in part, and the folder opens again.
//!
//! Start at [`kills_lose_nothing_acknowledged`]. The load, its log and the proof are those of `examples/torture`.
//!
//! More: `LARDER_KILLS=300 cargo test --release --test it crash -- --nocapture`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::child::Child;
use crate::support::{alone, integrity_check, number_from_environment};
use crate::torture::{self, End, Fate, Log, Random, Spoil, verify};

/// Kills on one folder before the next begins with an empty one.
const KILLS_PER_FOLDER: u64 = 10;
/// The kill comes after at most so many lines of the log, and this long behind the line.
const LINES_MAX: u64 = 2_000;
const DELAY_MICROS_MAX: u64 = 4_000;
/// One kill in so many comes while the folder is being opened.
const STARTUP_KILLS: u64 = 8;

/// The child's side: a torture run with the parent's arguments.
pub(crate) fn child(arguments: impl Iterator<Item = String>) {
    assert_eq!(torture::command(arguments), End::Good);
}

/// When a run is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// At any time, while the folder is being opened among them.
    Any,
    /// Once it has acknowledged enough for the controls to lose something of.
    UnderLoad,
}

/// A folder that is run, killed and run again, with the log of all its runs.
struct Victim {
    folder: tempfile::TempDir,
    seed: u64,
    stores: String,
    log: String,
}

impl Victim {
    fn of(stores: &str, seed: u64) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), seed, stores: stores.to_owned(), log: String::new() }
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn arguments(&self, durability: &str, more: &[&str]) -> Vec<String> {
        let mut arguments: Vec<String> = ["run", "--dir", self.store().to_str().unwrap()].map(str::to_owned).to_vec();
        let (seed, seconds) = (self.seed.to_string(), "600");
        for word in [
            "--stores",
            &self.stores,
            "--seed",
            &seed,
            "--durability",
            durability,
            "--callers",
            "64",
            "--seconds",
            seconds,
        ] {
            arguments.push(word.to_owned());
        }
        arguments.extend(more.iter().map(|word| (*word).to_owned()));
        if !self.log.is_empty() {
            let path = self.folder.path().join("log");
            write_log(&path, &self.log);
            arguments.extend(["--after".to_owned(), path.to_str().unwrap().to_owned()]);
        }
        arguments
    }

    /// Runs the load and kills it.
    fn run_and_kill(&mut self, random: &mut Random, durability: &str, more: &[&str], moment: Moment) {
        let child = Child::spawn("torture", self.arguments(durability, more));
        let mut lines: Vec<String> = Vec::new();
        let (is_at_startup, line_count) = match moment {
            Moment::Any => (random.below(STARTUP_KILLS) == 0, random.below(LINES_MAX)),
            Moment::UnderLoad => (false, LINES_MAX / 2 + random.below(LINES_MAX / 2)),
        };
        let delay = if is_at_startup {
            Duration::from_micros(random.below(50_000))
        } else {
            lines.push(format!("# {}\n", child.wait_for("# ")));
            for _ in 0..line_count {
                lines.push(child.next_line().expect("the load runs until it is killed"));
            }
            Duration::from_micros(random.below(DELAY_MICROS_MAX))
        };
        let end = Instant::now() + delay;
        while let Some(line) = child.line_until(end) {
            lines.push(line);
        }
        lines.extend(child.kill());
        // The test binary's own greeting comes first.
        self.log.extend(lines.into_iter().filter(|line| is_logged(line)));
    }

    async fn violations(&self, spoil: Option<Spoil>) -> Vec<String> {
        if self.log.is_empty() {
            // It was killed before it could say anything; that the folder opens is all there is to see.
            larder::Larder::open(self.store()).await.unwrap().close().await;
            return Vec::new();
        }
        verify(&self.store(), &self.log, spoil).await.unwrap().violations
    }
}

fn is_logged(line: &str) -> bool {
    ["# ", "TRY ", "ACK ", "ERR ", "BAD "].iter().any(|kind| line.starts_with(kind))
}

#[expect(clippy::disallowed_methods, reason = "a log, not a store's file")]
fn write_log(path: &Path, log: &str) {
    std::fs::write(path, log).unwrap();
}

#[tokio::test]
async fn kills_lose_nothing_acknowledged() {
    kill_and_verify("kv").await;
}

#[tokio::test]
async fn kills_lose_no_message_acknowledged() {
    kill_and_verify("chat").await;
}

#[tokio::test]
async fn kills_lose_no_document_acknowledged() {
    kill_and_verify("documents").await;
}

#[tokio::test]
async fn kills_lose_no_point_acknowledged() {
    kill_and_verify("vectors").await;
}

#[tokio::test]
async fn kills_lose_no_cached_value_acknowledged() {
    kill_and_verify("embed_cache").await;
}

#[tokio::test]
async fn kills_lose_no_fact_acknowledged() {
    kill_and_verify("graph").await;
}

/// All stores in one folder: each has its own file, and none's fate is another's.
#[tokio::test]
async fn kills_of_all_stores_at_once_lose_nothing() {
    kill_and_verify("kv,documents,chat,vectors,embed_cache,graph").await;
}

async fn kill_and_verify(stores: &str) {
    let _alone = alone().await;
    let kills = number_from_environment("LARDER_KILLS", KILLS_PER_FOLDER);
    let seed = number_from_environment("LARDER_SEED", u64::from(std::process::id()));
    println!("LARDER_SEED={seed}");
    let (mut random, began) = (Random::of(seed, 0), Instant::now());
    let (mut acknowledged, mut refused, mut open) = (0, 0, 0);
    let mut victim = Victim::of(stores, seed);
    for kill in 1..=kills {
        let is_last = kill % KILLS_PER_FOLDER == 0 || kill == kills;
        let moment = if is_last { Moment::UnderLoad } else { Moment::Any };
        victim.run_and_kill(&mut random, if kill % 2 == 0 { "relaxed" } else { "durable" }, &[], moment);
        let violations = victim.violations(None).await;
        assert!(violations.is_empty(), "{stores}, seed {seed}, kill {kill}: {violations:#?}");
        if is_last {
            let history = Log::parse(&victim.log).unwrap().history;
            acknowledged += history.count(Fate::Applied);
            refused += history.count(Fate::NotApplied);
            open += history.count(Fate::Open);
            assert_controls_are_caught(&victim).await;
            victim = Victim::of(stores, seed + kill);
        }
    }
    println!(
        "{stores}: {kills} kills in {:.1} s: {acknowledged} acknowledged, {refused} refused, {open} open; 0 lost, 0 in part, 0 damaged",
        began.elapsed().as_secs_f64()
    );
}

/// A process that died while it created its file left one that was refused for ever: with a page, but no application id.
#[tokio::test]
async fn kills_while_a_folder_is_created_leave_one_that_opens() {
    let _alone = alone().await;
    let kills = number_from_environment("LARDER_KILLS", 20);
    let mut random = Random::of(u64::from(std::process::id()), 3);
    let mut unfinished = 0;
    for kill in 1..=kills {
        let folder = tempfile::tempdir().unwrap();
        let child = Child::spawn("holder", [folder.path().to_str().unwrap(), "shared"]);
        // The first commit is there about 20 ms after the start, and READY right behind it.
        let moment = Instant::now() + Duration::from_micros(random.below(40_000));
        let mut is_ready = false;
        while let Some(line) = child.line_until(moment) {
            is_ready |= line.starts_with("READY");
        }
        is_ready |= child.kill().iter().any(|line| line.starts_with("READY"));
        unfinished += u32::from(!is_ready && folder.path().join("kv.db").exists());
        let larder = larder::Larder::open(folder.path()).await.unwrap();
        let held = larder.kv().bytes("held");
        let found = held.get("by").await.unwrap_or_else(|e| panic!("kill {kill}: {e}"));
        assert!(found.is_some() || !is_ready, "kill {kill}: the acknowledged write is missing");
        held.put("by", "the next").await.unwrap();
        larder.close().await;
        assert_eq!(integrity_check(&folder.path().join("kv.db")), ["ok"]);
    }
    println!("{kills} kills at the start, {unfinished} between the file's creation and the first acknowledgement");
}

/// The same proof over a spoiled copy of the folder must fail.
async fn assert_controls_are_caught(victim: &Victim) {
    for spoil in [Spoil::LoseLast, Spoil::AddRow] {
        assert!(!victim.violations(Some(spoil)).await.is_empty(), "seed {}: {spoil:?} went unseen", victim.seed);
    }
}

#[tokio::test]
async fn control_acknowledging_before_the_commit_is_caught() {
    let mut random = Random::of(u64::from(std::process::id()), 1);
    for stores in ["kv", "documents", "chat", "vectors", "embed_cache", "graph"] {
        let mut victim = Victim::of(stores, 1);
        for _ in 0..3 {
            victim.run_and_kill(&mut random, "durable", &["--sabotage", "ack-before-commit"], Moment::UnderLoad);
        }
        let violations = victim.violations(None).await;
        assert!(violations.iter().any(|violation| violation.contains("is missing")), "{stores}: {violations:#?}");
    }
}

#[tokio::test]
async fn control_half_a_batch_is_caught() {
    let mut random = Random::of(u64::from(std::process::id()), 2);
    for stores in ["kv", "documents", "chat", "vectors", "embed_cache", "graph"] {
        let mut victim = Victim::of(stores, 2);
        for _ in 0..2 {
            victim.run_and_kill(&mut random, "durable", &["--sabotage", "skip-batch-half"], Moment::UnderLoad);
        }
        let violations = victim.violations(None).await;
        assert!(violations.iter().any(|violation| violation.contains("is there in part")), "{stores}: {violations:#?}");
    }
}
