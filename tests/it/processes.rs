//! Several real processes on one folder: nobody sees SQLITE_BUSY, nobody starves, no update is lost, everybody hears of all.
//!
//! Start at [`processes_share_a_folder`]. The other processes are this test binary, run again.
//!
//! More processes: `LARDER_PROCESSES=4 cargo test --release --test it processes -- --nocapture`; longer: `LARDER_SECONDS=30`.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use larder::protocol::change::Notice;
use larder::protocol::{Sequence, Version};
use larder::{Larder, OpenError};

use crate::support::child::{Child, hear, tell};
use crate::support::{alone, integrity_check, number_from_environment};

const CALLERS: usize = 64;
const COUNTERS: usize = 8;
/// No write waits longer, whoever else writes. The full-size figure is stricter; this one holds on a loaded test machine.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// How long anything here may take before the test fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the callers of one process did.
#[derive(Debug, Default)]
struct Tally {
    increments: Vec<u64>,
    versions: Vec<u64>,
    longest: Duration,
    errors: Vec<String>,
}

impl Tally {
    fn write_count(&self) -> u64 {
        self.increments.iter().sum::<u64>() + self.versions.len() as u64
    }

    fn add(&mut self, other: Self) {
        self.increments.resize(COUNTERS, 0);
        for (sum, count) in self.increments.iter_mut().zip(other.increments) {
            *sum += count;
        }
        self.versions.extend(other.versions);
        self.longest = self.longest.max(other.longest);
        self.errors.extend(other.errors);
    }

    /// Tells the parent, in the lines that [`Tally::hear`] reads.
    fn tell(&self) {
        tell(&format!("INCREMENTS {}", joined(&self.increments)));
        tell(&format!("VERSIONS {}", joined(&self.versions)));
        tell(&format!("LONGEST {}", self.longest.as_micros()));
        tell(&format!("ERRORS {}", self.errors.join("; ")));
    }

    fn hear(child: &Child) -> Self {
        let numbers = |word| -> Vec<u64> {
            child.wait_for(word).split(',').filter(|text| !text.is_empty()).map(|text| text.parse().unwrap()).collect()
        };
        Self {
            increments: numbers("INCREMENTS"),
            versions: numbers("VERSIONS"),
            longest: Duration::from_micros(numbers("LONGEST")[0]),
            errors: Some(child.wait_for("ERRORS")).filter(|text| !text.is_empty()).into_iter().collect(),
        }
    }
}

fn joined(numbers: &[u64]) -> String {
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
}

/// A child that waits for `GO` and then writes: the folder, its own word for its keys, and for how many seconds.
pub(crate) fn write_until_told(mut arguments: impl Iterator<Item = String>) {
    let mut next = || arguments.next().unwrap();
    let (folder, word, seconds) = (next(), next(), next().parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let tally = runtime.block_on(async {
        let larder = Larder::open(&folder).await.unwrap();
        larder.kv().bytes("ready").put(&word, "").await.unwrap();
        tell("READY");
        hear();
        let until = Instant::now() + Duration::from_secs(seconds);
        let callers = (0..CALLERS).map(|caller| tokio::spawn(write(larder.clone(), word.clone(), caller, until)));
        let mut tally = Tally::default();
        for caller in callers.collect::<Vec<_>>() {
            tally.add(caller.await.unwrap());
        }
        assert!(larder.close().await.is_clean());
        tally
    });
    tally.tell();
}

/// One caller: a shared counter and a key of its own, in turns.
async fn write(larder: Larder, word: String, caller: usize, until: Instant) -> Tally {
    let counters = larder.kv().collection::<u64>("counters");
    let own = larder.kv().bytes("own");
    let counter = caller % COUNTERS;
    let mut tally = Tally { increments: vec![0; COUNTERS], ..Tally::default() };
    for turn in 0_u64.. {
        let began = Instant::now();
        if began >= until {
            break;
        }
        let written = if turn % 2 == 0 {
            counters.increment(counter.to_string(), 1).await.map(|_| None)
        } else {
            own.put(format!("{word} {caller} {}", turn / 2), turn.to_be_bytes().to_vec()).await.map(Some)
        };
        tally.longest = tally.longest.max(began.elapsed());
        match written {
            Ok(None) => tally.increments[counter] += 1,
            Ok(Some(Version(version))) => tally.versions.push(version),
            Err(error) => tally.errors.push(format!("{error} ({:?}, {:?})", error.class(), error.written())),
        }
        if turn % 64 == 63 && caller == 0 {
            tell("PROGRESS");
        }
    }
    tally
}

/// A child that holds a folder, for itself or not, until it is told to end.
pub(crate) fn hold_until_told(mut arguments: impl Iterator<Item = String>) {
    let (folder, sharing) = (arguments.next().unwrap(), arguments.next().unwrap());
    larder::blocking::wait(async {
        let builder = Larder::builder(&folder);
        let larder = if sharing == "exclusive" { builder.exclusive() } else { builder }.open().await.unwrap();
        larder.kv().bytes("held").put("by", sharing).await.unwrap();
        tell("READY");
        hear();
        larder.close().await;
    });
}

fn writer(folder: &Path, word: &str, seconds: u64) -> Child {
    let child = Child::spawn("writer", [folder.to_str().unwrap(), word, &seconds.to_string()]);
    child.wait_for("READY");
    child
}

// Several threads: waiting for the children must not hold up the listener.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_share_a_folder() {
    let _alone = alone().await;
    let process_count = number_from_environment("LARDER_PROCESSES", 2);
    let seconds = number_from_environment("LARDER_SECONDS", 3);
    let folder = tempfile::tempdir().unwrap();
    let mut children: Vec<Child> =
        (0..process_count).map(|n| writer(folder.path(), &format!("p{n}"), seconds)).collect();
    let larder = Larder::open(folder.path()).await.unwrap();
    let listener = tokio::spawn(listen(larder.clone()));
    for child in &mut children {
        child.say("GO");
    }
    let tallies: Vec<Tally> = children.iter().map(Tally::hear).collect();
    // The listener's sign that there is no more to come.
    larder.kv().bytes("end").put("end", "").await.unwrap();
    let heard = tokio::time::timeout(PATIENCE, listener).await.expect("the listener hears of the end").unwrap();

    let total: u64 = tallies.iter().map(Tally::write_count).sum();
    for (n, tally) in tallies.iter().enumerate() {
        let writes = tally.write_count();
        let share = writes * 100 / total;
        println!("process {n}: {writes} writes, {share} % of all, longest wait {:?}", tally.longest);
        assert!(tally.errors.is_empty(), "errors reached callers: {:?}", tally.errors);
        // A quarter for two: half of an equal share.
        assert!(writes * process_count * 2 >= total, "process {n} starved: {writes} of {total} writes");
        assert!(tally.longest <= WAIT_MAX, "a write of process {n} waited {:?}", tally.longest);
    }
    assert_counters_are_exact(&larder, &tallies).await;
    assert_versions_are_unique(&tallies);
    assert_eq!(heard.increments, tallies.iter().map(|tally| tally.increments.iter().sum::<u64>()).sum::<u64>());
    assert_eq!(heard.puts, tallies.iter().map(|tally| tally.versions.len() as u64).sum::<u64>());
    println!("{process_count} processes: {} writes/s, all heard of in order", total / seconds);
    larder.close().await;
    assert_eq!(integrity_check(&folder.path().join("kv.db")), ["ok"]);
}

async fn assert_counters_are_exact(larder: &Larder, tallies: &[Tally]) {
    let counters = larder.kv().collection::<u64>("counters");
    for counter in 0..COUNTERS {
        let expected: u64 = tallies.iter().map(|tally| tally.increments[counter]).sum();
        assert_eq!(counters.get(counter.to_string()).await.unwrap().unwrap_or(0), expected, "counter {counter}");
    }
}

fn assert_versions_are_unique(tallies: &[Tally]) {
    let mut seen = HashSet::new();
    for version in tallies.iter().flat_map(|tally| &tally.versions) {
        assert!(seen.insert(version), "version {version} was given to two writes");
    }
}

/// What a subscriber heard of.
#[derive(Debug, Default)]
struct Heard {
    increments: u64,
    puts: u64,
}

/// Follows the store from its first commit to the one that says `end`, and checks that none is left out.
async fn listen(larder: Larder) -> Heard {
    let mut notices = larder.kv().subscribe(Sequence(0)).await.unwrap();
    let mut position = 0;
    let mut turns: BTreeMap<String, u64> = BTreeMap::new();
    let mut heard = Heard::default();
    while let Some(notice) = notices.next().await {
        let Notice::Commit(commit) = notice.unwrap() else { panic!("the subscriber is behind the kept log") };
        // Each write takes one number, so the ids of a commit lead from the commit before to this one.
        let write_count: u64 = commit.changes.iter().map(|change| change.ids.len() as u64).sum();
        assert_eq!(commit.sequence.0, position + write_count, "commits are missing before {}", commit.sequence);
        position = commit.sequence.0;
        for change in &commit.changes {
            match change.scope.as_str() {
                "counters" => heard.increments += change.ids.len() as u64,
                "own" => {
                    heard.puts += change.ids.len() as u64;
                    change.ids.iter().for_each(|id| assert_next_turn(&mut turns, id));
                }
                "end" => return heard,
                _ => {}
            }
        }
    }
    panic!("the stream ended before the store did");
}

/// A caller's puts are numbered: they must come in that order.
fn assert_next_turn(turns: &mut BTreeMap<String, u64>, id: &str) {
    let (caller, turn) = id.rsplit_once(' ').unwrap();
    let next = turns.entry(caller.to_owned()).or_default();
    assert_eq!(turn.parse::<u64>().unwrap(), *next, "a put of {caller} came out of order");
    *next += 1;
}

#[tokio::test]
async fn a_process_killed_while_writing_leaves_the_other_serving() {
    let _alone = alone().await;
    let folder = tempfile::tempdir().unwrap();
    let larder = Larder::open(folder.path()).await.unwrap();
    let mut child = writer(folder.path(), "killed", 600);
    let is_killed = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> =
        (0..CALLERS).map(|caller| tokio::spawn(count(larder.clone(), caller, Arc::clone(&is_killed)))).collect();
    child.say("GO");
    for _ in 0..4 {
        // In a task that may block, so that this process's callers go on meanwhile.
        child = tokio::task::spawn_blocking(move || {
            child.wait_for("PROGRESS");
            child
        })
        .await
        .unwrap();
    }
    tokio::task::spawn_blocking(move || child.kill()).await.unwrap();
    is_killed.store(true, Ordering::Release);
    let mut longest = Duration::ZERO;
    for (caller, counted) in callers.into_iter().enumerate() {
        let (count, longest_here) = tokio::time::timeout(PATIENCE, counted).await.expect("callers go on").unwrap();
        longest = longest.max(longest_here);
        let found = larder.kv().collection::<i64>("alive").get(caller.to_string()).await.unwrap();
        assert_eq!(found, Some(count), "caller {caller}");
    }
    println!("the other process was killed: longest wait {longest:?}");
    assert!(longest <= WAIT_MAX, "a write waited {longest:?}");
    larder.close().await;
    assert_eq!(integrity_check(&folder.path().join("kv.db")), ["ok"]);
}

/// Counts up a counter of its own until the other process is killed, and then some more.
async fn count(larder: Larder, caller: usize, is_killed: Arc<AtomicBool>) -> (i64, Duration) {
    let counters = larder.kv().collection::<i64>("alive");
    let (mut count, mut more, mut longest) = (0, 20, Duration::ZERO);
    while more > 0 {
        let began = Instant::now();
        count = counters.increment(caller.to_string(), 1).await.unwrap();
        longest = longest.max(began.elapsed());
        more -= i32::from(is_killed.load(Ordering::Acquire));
    }
    (count, longest)
}

#[tokio::test]
async fn exclusive_folder_refuses_a_second_process_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let holder = Child::spawn("holder", [folder.path().to_str().unwrap(), "exclusive"]);
    holder.wait_for("READY");
    let refused = Larder::open(folder.path()).await.unwrap_err();
    let OpenError::Held { held_by, .. } = &refused else { panic!("not refused as held: {refused:?}") };
    assert!(held_by.contains(&format!("process {} ", holder.id())), "{held_by}");
    let refused = Larder::builder(folder.path()).exclusive().open().await.unwrap_err();
    assert!(matches!(refused, OpenError::Held { .. }), "{refused:?}");
    // The lock is the kernel's: it goes with its holder, however that ends.
    holder.kill();
    let larder = Larder::builder(folder.path()).exclusive().open().await.unwrap();
    assert_eq!(larder.kv().bytes("held").get("by").await.unwrap().as_deref(), Some(&b"exclusive"[..]));
    larder.close().await;
}

#[test]
fn processes_create_a_folder_together() {
    for _ in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        let holder = |_| Child::spawn("holder", [folder.path().to_str().unwrap(), "shared"]);
        let holders: Vec<Child> = (0..4).map(holder).collect();
        holders.iter().for_each(|holder| drop(holder.wait_for("READY")));
    }
}

#[tokio::test]
async fn shared_folder_refuses_a_process_that_wants_it_for_itself() {
    let folder = tempfile::tempdir().unwrap();
    let mut holder = Child::spawn("holder", [folder.path().to_str().unwrap(), "shared"]);
    holder.wait_for("READY");
    let refused = Larder::builder(folder.path()).exclusive().open().await.unwrap_err();
    assert!(matches!(refused, OpenError::Held { .. }), "{refused:?}");
    let larder = Larder::open(folder.path()).await.unwrap();
    assert_eq!(larder.kv().bytes("held").get("by").await.unwrap().as_deref(), Some(&b"shared"[..]));
    larder.close().await;
    holder.say("END");
}
