//! Snapshots of two stores that two processes write to, by a third process that is killed now and then while it copies.
//!
//! Each writer does one thing after the other: a number goes to kv, when that is acknowledged to chat, and then to kv again. A
//! snapshot with a later step must have the earlier ones.
//!
//! More: `LARDER_SNAPSHOTS=500 cargo test --release --test it backup::consistency -- --nocapture`.

use std::path::Path;
use std::time::{Duration, Instant};

use larder::{ChatMessage, CheckDepth, Larder, backup};

use crate::support::child::{Child, hear, tell};
use crate::support::{alone, number_from_environment};
use crate::torture::Random;

const WRITERS: [&str; 2] = ["one", "two"];
/// Rows that nobody changes, so that a copy takes a while.
const BALLAST: usize = 1_000;

/// A child that writes (`write <folder> <word>`) or takes snapshots (`take <folder> <snapshots>`) until it is killed.
pub(crate) fn child(mut arguments: impl Iterator<Item = String>) {
    let mut next = || arguments.next().unwrap();
    let (task, folder, word) = (next(), next(), next());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let larder = Larder::open(&folder).await.unwrap();
        match task.as_str() {
            "write" => write(&larder, &word).await,
            _ => take(&larder, Path::new(&word)).await,
        }
    });
}

async fn write(larder: &Larder, word: &str) {
    let numbers = larder.kv().collection::<u64>("numbers");
    let session = larder.chat().session(word);
    for number in 1.. {
        numbers.put(format!("{word} before"), &number).await.unwrap();
        session.append([ChatMessage::user(number.to_string())]).await.unwrap();
        numbers.put(format!("{word} after"), &number).await.unwrap();
        if number == 1 {
            tell("READY");
        }
    }
}

async fn take(larder: &Larder, snapshots: &Path) {
    tell("READY");
    loop {
        larder.snapshot(snapshots).await.unwrap();
        tell("TAKEN");
        // The parent says whether to go on.
        hear();
    }
}

/// Returns what a restored snapshot holds that it must not, or lacks.
async fn contradictions(folder: &Path) -> Vec<String> {
    let larder = Larder::open(folder).await.unwrap();
    let mut found: Vec<String> = Vec::new();
    let report = larder.check(CheckDepth::Full).await.unwrap();
    found.extend(report.findings.into_iter().map(|one| format!("{}: {}", one.store, one.what)));
    let numbers = larder.kv().collection::<u64>("numbers");
    for word in WRITERS {
        let read = |name: &str| numbers.get(format!("{word} {name}")).into_future();
        let (before, after) = (read("before").await.unwrap().unwrap_or(0), read("after").await.unwrap().unwrap_or(0));
        let page = larder.chat().session(word).page(1).newest_first().await.unwrap();
        let said = page.messages.first().and_then(|one| one.message.text()).map_or(0, |text| text.parse().unwrap());
        let count = larder.chat().session(word).description().await.unwrap().map_or(0, |session| session.message_count);
        if count != said {
            found.push(format!("{word}: message {said} is the newest of {count}"));
        }
        if !(after <= said && said <= before && before <= after + 1) {
            found.push(format!("{word}: {before} before, {said} said, {after} after"));
        }
    }
    larder.close().await;
    found
}

#[tokio::test]
async fn snapshots_of_two_stores_under_load_and_kills_are_consistent() {
    let _alone = alone().await;
    let wanted = usize::try_from(number_from_environment("LARDER_SNAPSHOTS", 50)).unwrap();
    let seed = number_from_environment("LARDER_SEED", u64::from(std::process::id()));
    let (live, snapshots, target) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let larder = Larder::open(live.path()).await.unwrap();
    let ballast = (0..BALLAST).map(|n| (n.to_string(), vec![0_u8; 4_000]));
    larder.kv().bytes("ballast").put_many(ballast).await.unwrap();
    larder.close().await;
    let folder = live.path().to_str().unwrap();
    let start = |task: &str, word: &str| {
        let child = Child::spawn("snapshots", [task, folder, word]);
        child.wait_for("READY");
        child
    };
    let writers = WRITERS.map(|word| start("write", word));
    let (mut taker, mut kills, mut random) =
        (start("take", snapshots.path().to_str().unwrap()), 0, Random::of(seed, 0));
    while backup::list(snapshots.path()).unwrap().len() < wanted {
        if random.percent(25) {
            // While it pins, copies, verifies or writes the manifest.
            let moment = Instant::now() + Duration::from_micros(random.below(60_000));
            while taker.line_until(moment).is_some() {}
            taker.kill();
            kills += 1;
            taker = start("take", snapshots.path().to_str().unwrap());
        } else {
            taker.wait_for("TAKEN");
            taker.say("ON");
        }
    }
    taker.kill();
    writers.into_iter().for_each(|writer| drop(writer.kill()));
    let complete = backup::list(snapshots.path()).unwrap();
    let unfinished = snapshots.path().read_dir().unwrap().count() - complete.len();
    for (index, snapshot) in complete.iter().enumerate() {
        let folder = target.path().join(index.to_string());
        backup::restore(&snapshot.path, &folder).unwrap();
        let found = contradictions(&folder).await;
        assert!(found.is_empty(), "LARDER_SEED={seed}, snapshot {index}: {found:?}");
    }
    println!(
        "{} of {} snapshots restore to a consistent state; {kills} kills, {unfinished} left unfinished",
        complete.len(),
        complete.len()
    );
    assert!(kills > 0);
    assert!(unfinished <= 1, "the next snapshot removes what a killed one left");
    control_files_of_two_instants_are_caught(&complete, target.path()).await;
}

/// The files of two snapshots put together are what a copy without pins would be.
#[expect(clippy::disallowed_methods, reason = "files of snapshots, which nobody has open")]
async fn control_files_of_two_instants_are_caught(complete: &[backup::Snapshot], target: &Path) {
    let (Some(first), Some(last)) = (complete.first(), complete.last()) else { panic!("no snapshots") };
    for (name, kv, chat) in [("kv first", first, last), ("chat first", last, first)] {
        let folder = target.join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::copy(kv.path.join("kv.db"), folder.join("kv.db")).unwrap();
        std::fs::copy(chat.path.join("chat.db"), folder.join("chat.db")).unwrap();
        assert!(!contradictions(&folder).await.is_empty(), "{name}: two instants went unseen");
    }
}
