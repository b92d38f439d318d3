//! Computing once over real processes, some of which are killed.
//!
//! Start at [`each_key_is_computed_once_by_all_processes_together`]. The other processes are this test binary, run again; each
//! says which key it begins to compute before it does.
//!
//! Always true: what a killed process was computing may be computed once more; nothing else is.

use std::collections::BTreeMap;
use std::time::Instant;

use super::*;
use crate::support::child::{Child, hear, tell};
use crate::support::{number_from_environment, within};
use crate::torture::Random;

/// Sizes of a run.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    processes: u64,
    tasks: u64,
    keys: u64,
    kills: u64,
}

impl Sizes {
    fn from_environment() -> Self {
        Self {
            processes: 4,
            tasks: number_from_environment("LARDER_TASKS", 16),
            keys: number_from_environment("LARDER_KEYS", 400),
            kills: number_from_environment("LARDER_KILLS", 3),
        }
    }
}

fn on_a_runtime(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work);
}

/// A computation of a few milliseconds that says that it has begun.
async fn slow(number: u64) -> Vec<f32> {
    tell(&format!("RUN {number}"));
    let wait = Duration::from_millis(1 + number % 5);
    tokio::time::timeout(wait, std::future::pending::<()>()).await.unwrap_err();
    vector(number)
}

/// One task of a child: every key, in an order of its own.
async fn ask_for_all(cache: EmbedCache, mode: String, task: u64, keys: u64) {
    let mut order: Vec<u64> = (0..keys).collect();
    let mut random = Random::of(u64::from(std::process::id()), task);
    for at in (1..order.len()).rev() {
        order.swap(at, random.index(at + 1));
    }
    match mode.as_str() {
        "many" => {
            for some in order.chunks(50) {
                let inputs: Vec<String> = some.iter().map(|number| input(*number)).collect();
                let computed = cache.get_or_compute_many(MODEL, &inputs, |missing| async move {
                    let mut vectors = Vec::new();
                    for text in missing {
                        vectors.push(slow(text.split(' ').nth(1).unwrap().parse().unwrap()).await);
                    }
                    Ok::<_, Infallible>(vectors)
                });
                let vectors = computed.await.unwrap();
                let expected: Vec<_> = some.iter().map(|number| vector(*number)).collect();
                assert_eq!(vectors.iter().map(|found| found.as_slice().to_vec()).collect::<Vec<_>>(), expected);
            }
        }
        "one" => {
            for number in order {
                let text = input(number);
                let computed = cache.get_or_compute(MODEL, &text, || async { Ok::<_, Infallible>(slow(number).await) });
                assert_eq!(computed.await.unwrap().as_slice(), vector(number));
            }
        }
        // The control: it looks, computes and puts, as people do.
        _ => {
            for number in order {
                if get(&cache, number).await.is_none() {
                    let computed = slow(number).await;
                    cache.put(MODEL, &input(number), computed).await.unwrap();
                }
            }
        }
    }
}

/// A child whose tasks ask for every key.
pub(crate) fn compute_until_done(mut arguments: impl Iterator<Item = String>) {
    let (folder, mode) = (arguments.next().unwrap(), arguments.next().unwrap());
    let mut number = || arguments.next().unwrap().parse::<u64>().unwrap();
    let (tasks, keys) = (number(), number());
    on_a_runtime(async {
        let larder = open(Path::new(&folder), |_| ()).await;
        larder.embed_cache().sequence().await.unwrap();
        tell("READY");
        hear();
        // Nobody waits longer than this for anybody.
        let cache = larder.embed_cache().deadline(Duration::from_secs(50));
        let tasks = (0..tasks).map(|task| tokio::spawn(ask_for_all(cache.clone(), mode.clone(), task, keys)));
        for task in futures::future::join_all(tasks).await {
            task.unwrap();
        }
        larder.close().await;
        tell("DONE");
    });
}

/// What a run has shown: by key, how often processes that lived and that were killed began to compute it.
#[derive(Debug, Default)]
struct Runs {
    by_survivors: BTreeMap<u64, u64>,
    by_killed: BTreeMap<u64, u64>,
    kill_count: u64,
}

impl Runs {
    fn note(runs: &mut BTreeMap<u64, u64>, line: &str) {
        if let Some(key) = line.strip_prefix("RUN ") {
            *runs.entry(key.trim().parse().unwrap()).or_default() += 1;
        }
    }

    /// Returns what no rule allows.
    fn violations(&self, sizes: Sizes) -> Vec<String> {
        let mut violations = Vec::new();
        let runs = |runs: &BTreeMap<u64, u64>, key| runs.get(&key).copied().unwrap_or(0);
        for key in 0..sizes.keys {
            let (lived, killed) = (runs(&self.by_survivors, key), runs(&self.by_killed, key));
            if lived > 1 {
                violations.push(format!("key {key} was computed {lived} times by processes that lived"));
            }
            if lived + killed == 0 {
                violations.push(format!("key {key} was never computed"));
            }
        }
        // A killed process held at most one key a task.
        let all: u64 = self.by_survivors.values().chain(self.by_killed.values()).sum();
        let again = all.saturating_sub(sizes.keys);
        if again > self.kill_count * sizes.tasks {
            violations.push(format!("{again} computations too many, for {} kills", self.kill_count));
        }
        violations
    }
}

fn spawn(folder: &Path, mode: &str, sizes: Sizes) -> Child {
    let child =
        Child::spawn("embedder", [folder.to_str().unwrap(), mode, &sizes.tasks.to_string(), &sizes.keys.to_string()]);
    child.wait_for("READY");
    child
}

/// Lets processes compute all keys together, kills some in the middle, and starts others in their place.
async fn run(mode: &str, sizes: Sizes) -> Runs {
    let folder = tempfile::tempdir().unwrap();
    let mut children: Vec<Child> = (0..sizes.processes).map(|_| spawn(folder.path(), mode, sizes)).collect();
    children.iter_mut().for_each(|child| child.say("GO"));
    let mut runs = Runs::default();
    let mut lines: Vec<Vec<String>> = children.iter().map(|_| Vec::new()).collect();
    for kill in 0..sizes.kills {
        // Once it has begun some computations.
        let victim = usize::try_from(kill % sizes.processes).unwrap();
        let begun = sizes.keys / (sizes.processes * (sizes.kills + 2));
        while (lines[victim].iter().filter(|line| line.starts_with("RUN")).count() as u64) < begun {
            let Some(line) = children[victim].next_line() else { break };
            lines[victim].push(line);
        }
        let mut next = spawn(folder.path(), mode, sizes);
        next.say("GO");
        let killed = std::mem::replace(&mut children[victim], next);
        let said = killed.kill();
        let was_alive = !said.iter().any(|line| line.starts_with("DONE"));
        runs.kill_count += u64::from(was_alive);
        let begun = std::mem::take(&mut lines[victim]);
        begun.iter().chain(&said).for_each(|line| Runs::note(&mut runs.by_killed, line));
    }
    for (child, said) in children.iter().zip(&lines) {
        said.iter().for_each(|line| Runs::note(&mut runs.by_survivors, line));
        loop {
            let line = child.next_line().expect("it says when it is done");
            if line.starts_with("DONE") {
                break;
            }
            Runs::note(&mut runs.by_survivors, &line);
        }
    }
    let larder = open(folder.path(), |_| ()).await;
    for number in 0..sizes.keys {
        assert_eq!(get(&larder.embed_cache(), number).await, Some(vector(number)), "{number}");
    }
    assert_sound(&larder).await;
    larder.close().await;
    runs
}

#[tokio::test(flavor = "multi_thread")]
async fn each_key_is_computed_once_by_all_processes_together() {
    let sizes = Sizes::from_environment();
    let began = Instant::now();
    let runs = run("one", sizes).await;
    assert_eq!(runs.violations(sizes), Vec::<String>::new());
    let again: u64 = runs.by_survivors.values().chain(runs.by_killed.values()).sum::<u64>() - sizes.keys;
    println!("{sizes:?}: {} kills, {again} keys computed again, {:?}", runs.kill_count, began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_a_thousand_keys_in_batches() {
    let sizes = Sizes { processes: 2, tasks: 2, keys: 1_000, kills: 0 };
    assert_eq!(run("many", sizes).await.violations(sizes), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn control_looking_and_putting_without_a_claim_is_caught() {
    let sizes = Sizes { processes: 2, tasks: 4, keys: 60, kills: 0 };
    assert_ne!(run("anyway", sizes).await.violations(sizes), Vec::<String>::new());
}

/// A child that begins to compute one key, and never ends.
pub(crate) fn hang(mut arguments: impl Iterator<Item = String>) {
    let folder = arguments.next().unwrap();
    on_a_runtime(async {
        let larder = open(Path::new(&folder), |_| ()).await;
        let cache = larder.embed_cache();
        let computed = cache.get_or_compute(MODEL, "x", || async {
            tell("BEGAN");
            std::future::pending::<Result<Vec<f32>, Infallible>>().await
        });
        computed.await.unwrap();
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn claim_of_a_killed_process_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let child = Child::spawn("hanging-embedder", [folder.path().to_str().unwrap()]);
    child.wait_for("BEGAN");
    let larder = open(folder.path(), |_| ()).await;
    let brief = larder.embed_cache().deadline(Duration::from_millis(20));
    let waits = brief.get_or_compute(MODEL, "x", || async { Ok::<_, Infallible>(vector(1)) }).await;
    crate::support::assert_refused(waits, larder::Class::Deadline, &["another caller"]);
    let cache = larder.embed_cache();
    let waiting =
        tokio::spawn(
            async move { cache.get_or_compute(MODEL, "x", || async { Ok::<_, Infallible>(vector(1)) }).await },
        );
    child.kill();
    // Long before the five minutes that a computation may take.
    assert_eq!(within(waiting).await.unwrap().unwrap().as_slice(), vector(1));
    larder.close().await;
}

/// What one process removes, another one's memory forgets with its next slice of maintenance.
#[tokio::test(flavor = "multi_thread")]
async fn removal_by_another_process_reaches_this_one_s_memory() {
    let folder = tempfile::tempdir().unwrap();
    let builder = Larder::builder(folder.path());
    let larder =
        builder.settings(|settings| settings.maintenance_interval = Duration::from_millis(10)).open().await.unwrap();
    let cache = larder.embed_cache();
    put(&cache, 1).await;
    put(&cache, 2).await;
    let mut child = Child::spawn("cache-remover", [folder.path().to_str().unwrap()]);
    child.wait_for("REMOVED");
    within(async {
        while get(&cache, 1).await.is_some() || get(&cache, 2).await != Some(vector(7)) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    child.say("END");
    larder.close().await;
}

/// A child that removes one value and replaces another.
pub(crate) fn remove_until_told(mut arguments: impl Iterator<Item = String>) {
    let folder = arguments.next().unwrap();
    on_a_runtime(async {
        let larder = open(Path::new(&folder), |_| ()).await;
        let cache = larder.embed_cache();
        cache.remove(MODEL, [input(1).as_str()]).await.unwrap();
        cache.put(MODEL, &input(2), vector(7)).await.unwrap();
        tell("REMOVED");
        hear();
        larder.close().await;
    });
}
