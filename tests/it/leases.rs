//! Leases over real processes: a holder that is killed holds nothing, a holder that is overtaken writes nothing, and each
//! result is worked out once.
//!
//! Start at [`lease_dies_with_its_holder`]. The other processes are this test binary, run again.

use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use larder::protocol::change::Notice;
use larder::{Class, Fencing, Larder, LeaseGrant, Sequence};

use crate::support::child::{Child, hear, tell};
use crate::support::{assert_refused, within};

const LONG: Duration = Duration::from_secs(3600);
const KEYS: u32 = 60;

async fn open(folder: &Path) -> Larder {
    let builder =
        Larder::builder(folder).settings(|settings| settings.maintenance_interval = Duration::from_millis(20));
    builder.open().await.unwrap()
}

fn on_a_runtime(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work);
}

/// A child that takes as many leases as it is told for so many milliseconds, and writes a result once it is told to.
pub(crate) fn hold_until_told(mut arguments: impl Iterator<Item = String>) {
    let folder = arguments.next().unwrap();
    let count: usize = arguments.next().unwrap().parse().unwrap();
    let duration = Duration::from_millis(arguments.next().unwrap().parse().unwrap());
    on_a_runtime(async {
        let larder = open(Path::new(&folder)).await;
        let mut last = None;
        for index in 0..count {
            last = larder.kv().take_lease(format!("lease-{index}"), duration).await.unwrap().fencing();
        }
        let fencing = last.expect("nobody else takes leases here");
        tell(&format!("HOLDS {fencing}"));
        hear();
        let answer = write_result(&larder, fencing, "the child's").await;
        tell(&format!("WRITTEN {}", answer.map_or_else(|error| format!("{:?}", error.class()), |()| "yes".to_owned())));
        hear();
        larder.close().await;
    });
}

fn holder(folder: &Path, count: usize, duration: Duration) -> (Child, Fencing) {
    let (count, millis) = (count.to_string(), duration.as_millis().to_string());
    let child = Child::spawn("leaseholder", [folder.to_str().unwrap(), &count, &millis]);
    let fencing = child.wait_for("HOLDS").parse().unwrap();
    (child, Fencing(fencing))
}

/// Writes under `lease-0`, if the holding is still the current one.
async fn write_result(larder: &Larder, fencing: Fencing, result: &str) -> larder::Result<()> {
    let (kv, results) = (larder.kv(), larder.kv().collection::<String>("results"));
    let operations = [kv.require_lease("lease-0", fencing)?, results.put_operation("result", &result.to_owned())?];
    kv.transaction(operations).await.map(drop)
}

async fn result(larder: &Larder) -> Option<String> {
    larder.kv().collection("results").get("result").await.unwrap()
}

/// Asks until it is granted.
async fn take(larder: &Larder, lease: &str) -> Fencing {
    within(async {
        loop {
            if let Some(fencing) = larder.kv().take_lease(lease, LONG).await.unwrap().fencing() {
                return fencing;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn lease_dies_with_its_holder() {
    let folder = tempfile::tempdir().unwrap();
    let (child, theirs) = holder(folder.path(), 1, LONG);
    let larder = open(folder.path()).await;
    for _ in 0..10 {
        let grant = larder.kv().take_lease("lease-0", LONG).await.unwrap();
        assert!(matches!(grant, LeaseGrant::Held { .. }), "{grant:?}");
    }
    child.kill();
    // At once, an hour before its time is over.
    let mine = larder.kv().take_lease("lease-0", LONG).await.unwrap().fencing().unwrap();
    assert!(mine > theirs);
    write_result(&larder, mine, "the parent's").await.unwrap();
    assert_eq!(result(&larder).await.as_deref(), Some("the parent's"));
    larder.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn late_result_of_an_overtaken_holder_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, theirs) = holder(folder.path(), 1, Duration::from_millis(1));
    let larder = open(folder.path()).await;
    let mine = take(&larder, "lease-0").await;
    assert!(mine > theirs);
    child.say("WRITE");
    assert_eq!(child.wait_for("WRITTEN"), "Conflict");
    assert_eq!(result(&larder).await, None);
    write_result(&larder, mine, "the parent's").await.unwrap();
    assert_eq!(result(&larder).await.as_deref(), Some("the parent's"));
    child.say("END");
    larder.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn late_result_counts_while_nobody_has_overtaken_its_holder() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, _) = holder(folder.path(), 1, Duration::ZERO);
    child.say("WRITE");
    assert_eq!(child.wait_for("WRITTEN"), "yes");
    let larder = open(folder.path()).await;
    assert_eq!(result(&larder).await.as_deref(), Some("the child's"));
    child.say("END");
    larder.close().await;
}

#[tokio::test]
async fn lease_is_neither_taken_nor_given_back_by_a_stranger() {
    let larder = Larder::temporary().await.unwrap();
    let kv = larder.kv();
    let mine = kv.take_lease("a", LONG).await.unwrap().fencing().unwrap();
    // Another task of the same process is another caller.
    assert!(matches!(kv.take_lease("a", LONG).await.unwrap(), LeaseGrant::Held { .. }));
    let stranger = Fencing(mine.0 + 1);
    assert!(!kv.release_lease("a", stranger).await.unwrap());
    assert_refused(kv.extend_lease("a", stranger, LONG).await, Class::Conflict, &["lease \"a\"", "fencing number"]);
    assert!(matches!(kv.take_lease("a", LONG).await.unwrap(), LeaseGrant::Held { .. }));
    let LeaseGrant::Held { until } = kv.take_lease("a", LONG).await.unwrap() else { panic!("it is held") };
    assert!(kv.extend_lease("a", mine, 2 * LONG).await.unwrap() > until);
    assert!(kv.release_lease("a", mine).await.unwrap());
    assert!(!kv.release_lease("a", mine).await.unwrap());
    let next = kv.take_lease("a", LONG).await.unwrap().fencing().unwrap();
    assert!(next > mine);
    assert_refused(kv.transaction([kv.require_lease("a", mine).unwrap()]).await, Class::Conflict, &[]);
    assert_refused(kv.take_lease("", LONG).await, Class::InvalidInput, &["lease name"]);
    larder.close().await;
}

/// A killed process left its rows behind for ever.
#[tokio::test(flavor = "multi_thread")]
async fn leases_of_the_dead_are_swept() {
    const COUNT: usize = 200;
    let folder = tempfile::tempdir().unwrap();
    let (child, _) = holder(folder.path(), COUNT, LONG);
    let larder = open(folder.path()).await;
    let mine = take(&larder, "mine").await;
    let mut notices = larder.kv().subscribe(Sequence(0)).await.unwrap();
    child.kill();
    let mut released = 0;
    while released < COUNT {
        let Notice::Commit(commit) = within(notices.next()).await.unwrap().unwrap() else { panic!("it fell behind") };
        let changes = commit.changes.iter().filter(|change| change.kind == "release");
        released += changes.map(|change| change.ids.len()).sum::<usize>();
    }
    assert!(larder.kv().release_lease("mine", mine).await.unwrap(), "the living keep theirs");
    larder.close().await;
    assert_eq!(lease_count(&folder.path().join("kv.db")), 0);
}

#[expect(clippy::disallowed_methods, reason = "a look from outside at a folder that is closed")]
fn lease_count(file: &Path) -> u64 {
    let connection = rusqlite::Connection::open(file).unwrap();
    connection.query_row("SELECT count(*) FROM lease", [], |row| row.get(0)).unwrap()
}

/// Works out every key that is not there, alone or (the control) as if nobody else did.
async fn compute_all(larder: &Larder, is_alone: bool) {
    let callers = (0..KEYS).map(|key| compute(larder.clone(), key, is_alone));
    futures::future::join_all(callers).await;
}

async fn compute(larder: Larder, key: u32, is_alone: bool) {
    let kv = larder.kv();
    let (results, counts) = (kv.collection::<u64>("computed"), kv.collection::<u64>("runs"));
    let name = key.to_string();
    while results.get(&name).await.unwrap().is_none() {
        let LeaseGrant::Granted { fencing, .. } = kv.take_lease(&name, LONG).await.unwrap() else {
            if !is_alone {
                run(&counts, &name).await;
            }
            continue;
        };
        // Whoever had it before may have been done just now.
        if results.get(&name).await.unwrap().is_none() {
            run(&counts, &name).await;
            let put = results.put_operation(&name, &u64::from(key * key)).unwrap();
            kv.transaction([kv.require_lease(&name, fencing).unwrap(), put]).await.unwrap();
        }
        kv.release_lease(&name, fencing).await.unwrap();
    }
}

/// The expensive part, which is counted.
async fn run(counts: &larder::Collection<u64>, name: &str) {
    counts.increment(name, 1).await.unwrap();
}

/// A child that works out every key together with others.
pub(crate) fn compute_until_done(mut arguments: impl Iterator<Item = String>) {
    let (folder, is_alone) = (arguments.next().unwrap(), arguments.next().unwrap() == "alone");
    on_a_runtime(async {
        let larder = open(Path::new(&folder)).await;
        larder.kv().sequence().await.unwrap();
        tell("READY");
        hear();
        compute_all(&larder, is_alone).await;
        larder.close().await;
        tell("DONE");
    });
}

/// Returns how often each key was worked out by two processes together.
async fn runs(mode: &str) -> Vec<u64> {
    let folder = tempfile::tempdir().unwrap();
    let spawn = |_| Child::spawn("computer", [folder.path().to_str().unwrap(), mode]);
    let mut children: Vec<Child> = (0..2).map(spawn).collect();
    children.iter().for_each(|child| drop(child.wait_for("READY")));
    children.iter_mut().for_each(|child| child.say("GO"));
    children.iter().for_each(|child| drop(child.wait_for("DONE")));
    let larder = open(folder.path()).await;
    let names: Vec<String> = (0..KEYS).map(|key| key.to_string()).collect();
    let results = larder.kv().collection::<u64>("computed").get_many(&names).await.unwrap();
    assert_eq!(results, (0..KEYS).map(|key| Some(u64::from(key * key))).collect::<Vec<_>>());
    let runs = larder.kv().collection::<u64>("runs").get_many(&names).await.unwrap();
    larder.close().await;
    assert_eq!(lease_count(&folder.path().join("kv.db")), 0, "every lease was given back");
    runs.into_iter().map(|count| count.unwrap_or(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn result_is_worked_out_once_by_all_processes_together() {
    assert_eq!(runs("alone").await, [1; KEYS as usize]);
}

#[tokio::test(flavor = "multi_thread")]
async fn control_working_without_the_lease_is_caught() {
    assert_ne!(runs("anyway").await, [1; KEYS as usize]);
}
