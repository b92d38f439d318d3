//! Histories of two processes on the same keys, with calls that are given up and processes that are killed, are linearizable.
//!
//! Start at [`histories_of_two_processes_under_kills_are_linearizable`]; [`checker`] is the oracle.
//!
//! More: `LARDER_ROUNDS=2000 cargo test --release --test it linearizability -- --nocapture`.
//!
//! Always true: a call's times are taken just before and just after it, on the machine's one clock; a call that was not
//! answered, or told "unknown", may have happened until its process died or at any later time, or never.

mod checker;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant, SystemTime};

use larder::protocol::Message;
use larder::{Class, Larder, Request, Version, Written};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use self::checker::{Answer, Ask, Call, is_linearizable};
use crate::support::child::{Child, hear, tell};
use crate::support::{alone, number_from_environment};
use crate::torture::Random;

const CALLERS: u64 = 6;
const KEYS_PER_ROUND: u64 = 3;
/// Of each caller: however long a round lasts on a machine that is busy, what it leaves can be decided.
const CALLS_PER_ROUND: u64 = 12;
/// Long enough for some twenty calls on each key.
const ROUND: Duration = Duration::from_millis(15);
/// After so many rounds one of the processes is killed.
const ROUNDS_PER_KILL: u64 = 4;

/// The round that ends them.
const OVER: u64 = u64::MAX;

/// A line of a child's.
#[derive(Debug, Serialize, Deserialize)]
enum Line {
    Began {
        id: u64,
        at: u64,
        key: String,
        ask: Ask,
    },
    Ended {
        id: u64,
        at: u64,
        answer: Option<Answer>,
    },
    /// It says that it was not applied, and is as if it had never been.
    Refused {
        id: u64,
    },
}

impl Line {
    fn tell(&self) {
        tell(&format!("LINE {}", serde_json::to_string(self).unwrap()));
    }
}

#[expect(clippy::disallowed_methods, reason = "the one clock that several processes share")]
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos().try_into().unwrap()
}

/// The child: callers on the keys of the round that it last heard of. With `stale`, reads answer what was read first.
pub(crate) fn child(mut arguments: impl Iterator<Item = String>) {
    let (folder, seed, lie) = (arguments.next().unwrap(), arguments.next().unwrap(), arguments.next().unwrap());
    let seed: u64 = seed.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let larder = Larder::open(&folder).await.unwrap();
        larder.kv().collection::<i64>("keys").get("none").await.unwrap();
        // Before the first call, since the parent passes over what comes earlier.
        tell("READY");
        let (round, rounds) = watch::channel(0);
        let callers = (0..CALLERS)
            .map(|caller| tokio::spawn(call(larder.clone(), seed * CALLERS + caller, rounds.clone(), lie == "stale")));
        let callers: Vec<_> = callers.collect();
        let listener = tokio::task::spawn_blocking(move || {
            while let Ok(next) = hear().parse() {
                round.send(next).unwrap();
            }
            round.send(OVER).unwrap();
        });
        listener.await.unwrap();
        for caller in callers {
            caller.await.unwrap();
        }
        larder.close().await;
        tell("END");
    });
}

/// One caller, until the parent has said that it is over.
async fn call(larder: Larder, caller: u64, mut rounds: watch::Receiver<u64>, is_stale: bool) {
    let keys = larder.kv().collection::<i64>("keys");
    let mut random = Random::of(caller, 1);
    let mut seen: HashMap<String, (i64, u64)> = HashMap::new();
    // The latest round, and the calls in it.
    let mut spent = (0, 0);
    for turn in 0.. {
        let has_calls_left = |round: &u64| *round > spent.0 || (*round == spent.0 && spent.1 < CALLS_PER_ROUND);
        let round = *rounds
            .wait_for(|round| *round > 0 && has_calls_left(round))
            .await
            .expect("the last round is told before the sender goes");
        if round == OVER {
            return;
        }
        spent = (round, if round == spent.0 { spent.1 + 1 } else { 1 });
        let key = format!("{round}-{}", random.below(KEYS_PER_ROUND));
        let id = caller << 32 | turn;
        let value = i64::try_from(id).unwrap() << 16;
        let ask = match (random.below(10), seen.get(&key)) {
            (0..4, _) => Ask::Read,
            (4, _) => Ask::Put { value },
            (5, _) => Ask::PutIfAbsent { value },
            (6 | 7, Some((_, version))) => Ask::Replace { expected: *version, value },
            (9, _) => Ask::Delete,
            _ => Ask::Increment,
        };
        let patience = Patience::of(&mut random);
        Line::Began { id, at: now(), key: key.clone(), ask }.tell();
        let told = match ask {
            Ask::Read => patience
                .wait(keys.entry(&key))
                .await
                .map(|told| told.map(|found| Answer::Found(found.map(|entry| (entry.value, entry.version.0))))),
            Ask::Put { value } => patience.wait(keys.put(&key, &value)).await.map(|told| told.map(written)),
            Ask::PutIfAbsent { value } => {
                let told = patience.wait(keys.put_if_absent(&key, &value)).await;
                told.map(|told| told.map(|put| put.map_or(Answer::Conflict, written)))
            }
            Ask::Replace { expected, value } => {
                let told = patience.wait(keys.compare_and_put(&key, Version(expected), &value)).await;
                told.map(|told| told.map(written).or_else(conflict))
            }
            Ask::Increment => patience.wait(keys.increment(&key, 1)).await.map(|told| told.map(Answer::Counted)),
            Ask::Delete => patience.wait(keys.delete(&key)).await.map(|told| told.map(Answer::Deleted)),
        };
        let at = now();
        let line = match told {
            Some(Ok(Answer::Found(Some(found)))) => {
                let shown =
                    *seen.entry(key).and_modify(|seen| *seen = if is_stale { *seen } else { found }).or_insert(found);
                Line::Ended { id, at, answer: Some(Answer::Found(Some(shown))) }
            }
            Some(Ok(answer)) => Line::Ended { id, at, answer: Some(answer) },
            Some(Err(error)) if error.written() == Written::NotApplied => Line::Refused { id },
            Some(Err(_)) | None => Line::Ended { id, at, answer: None },
        };
        line.tell();
    }
}

fn written(version: Version) -> Answer {
    Answer::Written(version.0)
}

fn conflict(error: larder::Error) -> larder::Result<Answer> {
    if matches!(error.class(), Class::Conflict | Class::NotFound) { Ok(Answer::Conflict) } else { Err(error) }
}

/// How long a caller waits.
enum Patience {
    Whole,
    Deadline(Duration),
    /// It goes away once the request is queued.
    Leaves,
}

impl Patience {
    fn of(random: &mut Random) -> Self {
        match random.below(100) {
            0..4 => Self::Deadline(Duration::from_micros(20 + random.below(2_000))),
            4..8 => Self::Leaves,
            _ => Self::Whole,
        }
    }

    /// Returns the answer; `None` when the caller went away before it came.
    async fn wait<M, T>(&self, request: Request<M, T>) -> Option<larder::Result<T>>
    where
        M: Message,
        Request<M, T>: IntoFuture<Output = larder::Result<T>, IntoFuture: Unpin>,
    {
        match self {
            Self::Whole => Some(request.await),
            Self::Deadline(deadline) => Some(request.deadline(*deadline).await),
            Self::Leaves => match futures::poll!(&mut request.into_future()) {
                std::task::Poll::Ready(answer) => Some(answer),
                std::task::Poll::Pending => None,
            },
        }
    }
}

/// What the children said, by key.
#[derive(Debug, Default)]
struct Record {
    calls: BTreeMap<String, Vec<Call>>,
    unknown: u64,
}

impl Record {
    /// Adds one child's life. What it left open, it may have done until it was dead.
    fn add(&mut self, lines: impl Iterator<Item = String>, dead: u64) {
        let mut open: HashMap<u64, (String, Call)> = HashMap::new();
        for line in lines {
            let Some(line) = line.trim().strip_prefix("LINE ") else { continue };
            match serde_json::from_str(line).unwrap() {
                Line::Began { id, at, key, ask } => {
                    // A reader that is not answered says nothing.
                    let ended = if ask == Ask::Read { 0 } else { dead };
                    open.insert(id, (key, Call { ask, answer: None, began: at, ended }));
                }
                Line::Ended { id, at, answer } => {
                    if let (Some((_, call)), Some(_)) = (open.get_mut(&id), answer) {
                        (call.answer, call.ended) = (answer, at);
                    }
                }
                Line::Refused { id } => _ = open.remove(&id),
            }
        }
        for (key, call) in open.into_values() {
            self.unknown += u64::from(call.answer.is_none() && call.ask != Ask::Read);
            self.calls.entry(key).or_default().push(call);
        }
    }

    fn call_count(&self) -> usize {
        self.calls.values().map(Vec::len).sum()
    }

    fn violations(&self) -> Vec<&String> {
        self.calls.iter().filter(|(_, calls)| !is_linearizable(calls)).map(|(key, _)| key).collect()
    }
}

/// Two processes, of which one is killed now and then.
async fn record(rounds: u64, seed: u64, lie: &str) -> Record {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random::of(seed, 0);
    let mut lives = 0;
    let mut start = || {
        lives += 1;
        let child = Child::spawn("linearizability", [folder.path().to_str().unwrap(), &lives.to_string(), lie]);
        child.wait_for("READY");
        child
    };
    let mut children = [(start(), Vec::new()), (start(), Vec::new())];
    let mut record = Record::default();
    for round in 1..=rounds {
        for (child, _) in &mut children {
            child.say(&round.to_string());
        }
        let end = Instant::now() + ROUND;
        for (child, lines) in &mut children {
            lines.extend(std::iter::from_fn(|| child.line_until(end)));
        }
        if round % ROUNDS_PER_KILL == 0 && round < rounds {
            let (victim, mut lines) = std::mem::replace(&mut children[random.index(2)], (start(), Vec::new()));
            lines.extend(victim.kill());
            record.add(lines.into_iter(), now());
        }
    }
    for (mut child, mut lines) in children {
        child.say("");
        lines.extend(std::iter::from_fn(|| child.next_line().filter(|line| !line.starts_with("END"))));
        record.add(lines.into_iter(), now());
    }
    read_all(folder.path(), &mut record).await;
    record
}

/// Reads every key once more, when all is over: what was acknowledged must not be gone at the end either.
async fn read_all(folder: &std::path::Path, record: &mut Record) {
    let larder = Larder::open(folder).await.unwrap();
    let keys = larder.kv().collection::<i64>("keys");
    for (key, calls) in &mut record.calls {
        let began = now();
        let found = keys.entry(key).await.unwrap().map(|entry| (entry.value, entry.version.0));
        calls.push(Call { ask: Ask::Read, answer: Some(Answer::Found(found)), began, ended: now() });
    }
    assert!(larder.close().await.is_clean());
}

#[tokio::test]
async fn histories_of_two_processes_under_kills_are_linearizable() {
    let _alone = alone().await;
    let rounds = number_from_environment("LARDER_ROUNDS", 60);
    let seed = number_from_environment("LARDER_SEED", u64::from(std::process::id()));
    println!("LARDER_SEED={seed}");
    let record = record(rounds, seed, "honest").await;
    let (keys, calls, unknown) = (record.calls.len(), record.call_count(), record.unknown);
    let kills = (rounds - 1) / ROUNDS_PER_KILL;
    let violations = record.violations();
    println!(
        "{keys} keys, {calls} calls, {unknown} of unknown outcome, {kills} kills: {} not linearizable",
        violations.len()
    );
    if let Some(key) = violations.first() {
        let mut calls = record.calls[*key].clone();
        calls.sort_by_key(|call| call.began);
        panic!("seed {seed}, key {key}: {calls:#?}");
    }
    assert!(unknown > 0, "a run without unknown outcomes tests less than it says");
    let spoiled = spoiled(&record);
    assert!(!spoiled.is_empty(), "no history has a read to spoil");
    let unseen = spoiled.iter().filter(|calls| is_linearizable(calls)).count();
    println!("controls: {} histories with one stale read each, {unseen} unseen", spoiled.len());
    assert_eq!(unseen, 0, "a stale read went unseen");
}

/// More calls than these of unknown outcome make it long to prove that no order will do.
const UNKNOWN_MAX: usize = 2;

/// Returns histories in which one read answers what was overwritten before it began.
fn spoiled(record: &Record) -> Vec<Vec<Call>> {
    let unknown = |calls: &[Call]| calls.iter().filter(|call| call.answer.is_none() && call.ask != Ask::Read).count();
    record.calls.values().filter(|calls| unknown(calls) <= UNKNOWN_MAX).filter_map(|calls| spoil(calls)).collect()
}

fn spoil(calls: &[Call]) -> Option<Vec<Call>> {
    let puts = calls.iter().filter_map(|call| match (call.ask, call.answer) {
        (Ask::Put { value }, Some(Answer::Written(version))) => Some((*call, (value, version))),
        _ => None,
    });
    let puts: Vec<_> = puts.collect();
    for (at, read) in calls.iter().enumerate().filter(|(_, call)| call.ask == Ask::Read && call.answer.is_some()) {
        let is_behind = |(put, _): &&(Call, (i64, u64))| put.ended < read.began;
        let Some((later, _)) = puts.iter().filter(is_behind).max_by_key(|(put, _)| put.began) else { continue };
        let Some((_, stale)) = puts.iter().find(|(put, _)| put.ended < later.began) else { continue };
        let mut spoiled = calls.to_vec();
        spoiled[at].answer = Some(Answer::Found(Some(*stale)));
        return Some(spoiled);
    }
    None
}

#[tokio::test]
async fn control_reads_from_a_stale_cache_are_caught() {
    let _alone = alone().await;
    let record = record(12, 1, "stale").await;
    assert!(!record.violations().is_empty(), "{} calls, and no stale read was seen", record.call_count());
}
