//! Random operations on the key–value store agree with a model in memory, over bursts of writes, reads, and reopening.
//!
//! Start at [`run`]; `steps` makes operations and sends them, `oracle` knows what they must answer.
//!
//! More: `LARDER_MODEL_OPERATIONS=1000000 cargo test --release --test it model -- --nocapture`; again: `LARDER_SEED=…`.
//!
//! Always true: writes that one task sends in a burst reach the store in that order, so the model needs no guess; lifetimes
//! are none or an hour, so no answer depends on the clock.

mod oracle;
mod steps;

use std::path::Path;
use std::time::{Duration, Instant};

use larder::{Durability, Larder};

use crate::support::number_from_environment;
use crate::torture::Random;
use oracle::Model;
use steps::{Broken, Question, Write};

/// Writes sent at once: they share groups, and a refused one must harm no neighbour.
const BURST_MAX: u64 = 24;
const QUESTIONS_MAX: u64 = 6;
/// Writes and reads between two openings of the folder.
const STEPS_PER_OPENING: u64 = 1_500;

/// What a run did.
#[derive(Debug, Default)]
struct Tally {
    openings: u64,
    writes: u64,
    refused: u64,
    questions: u64,
}

impl Tally {
    fn operations(&self) -> u64 {
        self.writes + self.questions
    }
}

/// Runs so many operations; an error is where store and model part.
async fn run(seed: u64, operations: u64, broken: Broken) -> Result<Tally, String> {
    let folder = tempfile::tempdir().unwrap();
    let (mut random, mut model) = (Random::of(seed, 0), Model::default());
    let mut tally = Tally::default();
    while tally.operations() < operations {
        let larder = open(folder.path(), random.percent(50)).await;
        tally.openings += 1;
        check_everything(&larder, &mut model).await.map_err(|e| format!("after opening {}: {e}", tally.openings))?;
        let end = operations.min(tally.operations() + 1 + random.below(STEPS_PER_OPENING));
        while tally.operations() < end {
            let done = tally.operations();
            let stepped = step(&larder, &mut random, &mut model, broken, &mut tally).await;
            stepped.map_err(|e| format!("after {done} operations: {e}"))?;
        }
        // Dropped without closing is as safe; the next opening waits for its threads.
        if random.percent(70) {
            assert!(larder.close().await.is_clean());
        }
    }
    check_everything(&open(folder.path(), false).await, &mut model).await.map_err(|e| format!("at the end: {e}"))?;
    Ok(tally)
}

async fn open(folder: &Path, is_exclusive: bool) -> Larder {
    let builder = Larder::builder(folder)
        .kv(|kv| {
            kv.common.durability = Durability::Relaxed;
            // Small, so that the log is pruned all along.
            kv.common.change_log_writes_max = 500;
        })
        .settings(|settings| settings.maintenance_interval = Duration::from_millis(10));
    if is_exclusive { builder.exclusive() } else { builder }.open().await.unwrap()
}

/// A burst of writes, then some questions.
async fn step(
    larder: &Larder,
    random: &mut Random,
    model: &mut Model,
    broken: Broken,
    tally: &mut Tally,
) -> Result<(), String> {
    let writes: Vec<Write> = (0..1 + random.below(BURST_MAX)).map(|_| Write::any(random, model)).collect();
    let sent = writes.iter().map(|write| steps::send(larder, write.clone(), broken));
    let replies = futures::future::join_all(sent).await;
    tally.writes += writes.len() as u64;
    for (write, reply) in writes.iter().zip(replies) {
        tally.refused += u64::from(reply.is_err());
        model.write(write, &reply).map_err(|e| format!("{e}\n  by {write:?}\n  answered {reply:?}"))?;
    }
    let questions: Vec<Question> = (0..1 + random.below(QUESTIONS_MAX)).map(|_| Question::any(random)).collect();
    let asked = questions.iter().map(|question| steps::ask(larder, question.clone()));
    for (question, answer) in questions.iter().zip(futures::future::join_all(asked).await) {
        model.answer(question, &answer).map_err(|e| format!("{e}\n  asked {question:?}"))?;
    }
    tally.questions += questions.len() as u64;
    Ok(())
}

/// Compares the whole store with the model.
async fn check_everything(larder: &Larder, model: &mut Model) -> Result<(), String> {
    for question in Question::everything() {
        let answer = steps::ask(larder, question.clone()).await;
        model.answer(&question, &answer).map_err(|e| format!("{e}\n  asked {question:?}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn random_operations_agree_with_a_model() {
    let operations = number_from_environment("LARDER_MODEL_OPERATIONS", 20_000);
    let seed = number_from_environment("LARDER_SEED", u64::from(std::process::id()));
    let began = Instant::now();
    let tally = run(seed, operations, Broken::No).await.unwrap_or_else(|e| panic!("LARDER_SEED={seed}: {e}"));
    let seconds = began.elapsed().as_secs_f64();
    let Tally { openings, writes, refused, questions } = tally;
    println!(
        "{writes} writes ({refused} refused), {questions} reads and {openings} openings agree in {seconds:.1} s (LARDER_SEED={seed})"
    );
}

#[tokio::test]
async fn control_each_broken_store_is_caught() {
    for broken in Broken::ALL {
        let caught = run(1, 20_000, broken).await.expect_err(&format!("{broken:?} went unseen"));
        println!("{broken:?}: {}", caught.lines().next().unwrap_or_default());
    }
}
