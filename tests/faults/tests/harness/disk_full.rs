//! A real small file system that is filled to the brim: what callers are told, what still answers, and how it ends.
//!
//! Start at [`run`]. Each size is a tmpfs of its own, so it needs root and says so where it is not.
//!
//! Always true: nothing but the ballast's presence is known here of how a store does it; requests are sent, answers judged.

use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use larder::{Class, Larder, StoreState, Written};
use larder_faults::random::{Random, mix};

/// Callers that fill the disk at once.
const CALLERS: u64 = 8;
/// So many refusals in a row mean that the disk is full for good.
const REFUSALS: u64 = 12;
/// Room for more than twice the largest group: eight values of at most 60 kB.
pub(crate) const BALLAST_BYTES: u64 = 1 << 20;
/// A store must serve again within this once there is room.
pub(crate) const RECOVERY_MAX: Duration = Duration::from_secs(5);

/// What was seen over all sizes.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) sizes: u64,
    pub(crate) stored: u64,
    /// Refused for the full disk and not written.
    pub(crate) refused: u64,
    /// Told that it is unknown whether they were written.
    pub(crate) unknown: u64,
    /// Sizes at which deleting made writes succeed again, or removing another program's file did.
    pub(crate) freed: u64,
    pub(crate) slowest: Duration,
    /// What must never be.
    pub(crate) wrong: Vec<String>,
}

/// A mounted tmpfs.
pub(crate) struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    pub(crate) fn mount(bytes: u64) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "larder-faults"]).arg(folder.path());
        match command.output() {
            Ok(output) if output.status.success() => Ok(Self { folder }),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: threads of a larder that was closed may still be letting go of its files.
        let _ = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
    }
}

/// Fills `sizes` disks, or says why none can be had.
pub(crate) fn run(sizes: u64, seed: u64) -> Result<Report, String> {
    drop(SmallDisk::mount(1 << 20)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let mut report = Report { sizes, ..Report::default() };
    for index in 0..sizes {
        // From 4 to 20 MiB, in steps that are no multiple of anything the store rounds to but the page.
        let bytes = (4 << 20) + (16 << 20) * index / sizes / 4096 * 4096 + index % 7 * 4096;
        let disk = SmallDisk::mount(bytes)?;
        runtime.block_on(fill_and_free(&disk, bytes, mix(seed, index), index % 3 == 2, &mut report));
    }
    Ok(report)
}

async fn fill_and_free(disk: &SmallDisk, bytes: u64, seed: u64, by_stranger: bool, report: &mut Report) {
    let at = format!("{} KiB", bytes >> 10);
    let opened = Larder::builder(disk.path().join("store"))
        .settings(|settings| {
            settings.ballast_bytes = BALLAST_BYTES;
            settings.maintenance_interval = Duration::from_millis(50);
        })
        .open()
        .await;
    let larder = match opened {
        Ok(larder) => larder,
        Err(error) => return report.wrong.push(format!("{at}: opening an empty disk: {error}")),
    };
    let mut stored = BTreeMap::new();
    let stranger = disk.path().join("stranger");
    if by_stranger {
        // Something to read, and then another program takes the rest of the disk.
        fill(&larder, seed, 50, &mut stored, report, &at).await;
        ballast_is_there(disk, &larder).await;
        take_all_but(&stranger, 0);
    }
    fill(&larder, seed, u64::MAX, &mut stored, report, &at).await;
    report.stored += stored.len() as u64;
    let state = larder.observe().first().map(|store| store.state);
    if state != Some(StoreState::Degraded) {
        report.wrong.push(format!("{at}: full, and {state:?}"));
    }
    check_reads(&larder, &stored, report, &at).await;
    if by_stranger {
        give_back(&stranger);
    } else {
        delete_half(&larder, &mut stored, report, &at).await;
    }
    let began = Instant::now();
    match serves_again(&larder, seed, &mut stored, began).await {
        Ok(took) => {
            report.freed += 1;
            report.slowest = report.slowest.max(took);
        }
        Err(why) => println!("  {at}, by_stranger={by_stranger}: not freed: {why}"),
    }
    check_reads(&larder, &stored, report, &at).await;
    larder.close().await;
    reopen(disk, &stored, report, &at).await;
}

/// Fills a disk with cached values: what is there is found, what is missing is computed and not kept, and a limit keeps the
/// disk from filling. Answers how many values were found.
pub(crate) fn cache() -> Result<u64, String> {
    const DISK: u64 = 12 << 20;
    let disk = SmallDisk::mount(DISK)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let vector = |id: u64| vec![(id % 4_096) as f32; 384];
    let open = async |disk: &SmallDisk, bytes_max: Option<u64>| {
        let builder = Larder::builder(disk.path().join("store")).embed_cache(|cache| {
            cache.own.bytes_max = bytes_max;
            cache.own.memory_bytes = 0;
            // A WAL that may take most of the disk would fill it whatever the limit is.
            cache.common.checkpoint.background_frames = 20;
            cache.common.checkpoint.writer_soft_frames = 40;
            cache.common.checkpoint.writer_hard_frames = 60;
        });
        builder.settings(|settings| settings.ballast_bytes = BALLAST_BYTES).open().await.expect("an almost empty disk")
    };
    let found = runtime.block_on(async {
        let larder = open(&disk, None).await;
        let (cache, mut stored) = (larder.embed_cache().tags(["all"]), 0);
        let refused = loop {
            match cache.put("model", &stored.to_string(), vector(stored)).await {
                Ok(()) => stored += 1,
                Err(error) => break error,
            }
            assert!(stored * 1_536 < DISK, "the disk does not fill");
        };
        assert_eq!((refused.class(), refused.written()), (Class::DiskFull, Written::NotApplied), "{refused:?}");
        for id in 0..stored {
            let found = cache.get("model", &id.to_string()).await.expect("a full disk can be read");
            assert_eq!(found.expect("it was acknowledged").as_slice(), vector(id));
        }
        // What little room is left is used up; from then on, what is computed is answered and not kept.
        let mut computed = 0;
        while cache.statistics().await.expect("a full disk can be read").unkept == 0 {
            let compute = || async { Ok::<_, std::convert::Infallible>(vector(computed)) };
            let answer = cache.get_or_compute("model", &format!("missing {computed}"), compute).await;
            assert_eq!(answer.expect("it is computed").as_slice(), vector(computed));
            computed += 1;
            assert!(computed * 1_536 < DISK, "the disk does not fill");
        }
        // Thousands of values are more than the room kept back could take in one write; in slices they go, and there is room. A
        // slice may have to wait until a checkpoint has made some.
        let all: Vec<String> = (0..stored).map(|id| id.to_string()).collect();
        let half = all.get(..all.len() / 2).expect("half of them");
        let began = Instant::now();
        let is_freed = |removed: larder::Result<u64>| match removed {
            Ok(_) => true,
            Err(error) => {
                assert_eq!((error.class(), error.written()), (Class::DiskFull, Written::NotApplied), "{error:?}");
                assert!(began.elapsed() < RECOVERY_MAX, "a full disk cannot be freed");
                false
            }
        };
        while !is_freed(cache.remove("model", half).await) {}
        while !is_freed(cache.remove_tagged("all").await) {}
        for id in &all {
            assert!(!cache.contains("model", id).await.expect("it can be read"), "{id} was removed");
        }
        let began = Instant::now();
        while let Err(error) = cache.put("model", "behind", vector(1)).await {
            assert_eq!(error.class(), Class::DiskFull, "{error:?}");
            assert!(began.elapsed() < RECOVERY_MAX, "a disk that was freed is still full");
        }
        assert_eq!(cache.remove_model("model").await.expect("there is room"), 1);
        larder.close().await;
        stored
    });
    // A limit that the disk has room for: the oldest go, and nobody is refused.
    let disk = SmallDisk::mount(DISK)?;
    runtime.block_on(async {
        let larder = open(&disk, Some(4 << 20)).await;
        let cache = larder.embed_cache();
        for id in 0..2 * found {
            cache.put("model", &id.to_string(), vector(id)).await.expect("there is room for it");
        }
        assert!(cache.statistics().await.expect("it can be read").evicted > 0);
        larder.close().await;
    });
    Ok(found)
}

/// Waits for the ballast, which is laid down in the background: without it a failed COMMIT's outcome may stay unknown.
pub(crate) async fn ballast_is_there(disk: &SmallDisk, larder: &Larder) {
    let ballast = disk.path().join("store/ballast");
    let began = Instant::now();
    while ballast.metadata().map_or(0, |file| file.len()) < BALLAST_BYTES {
        assert!(began.elapsed() < RECOVERY_MAX, "the ballast was not laid down");
        // A request, so that the store's threads get on with it.
        larder.kv().bytes("ballast").get("none").await.expect("an absent key can be read");
    }
}

fn value(seed: u64, id: u64) -> Vec<u8> {
    let mut random = Random::new(mix(seed, id));
    let most = [200, 4_000, 60_000][(seed % 3) as usize];
    let len = 1 + random.below(most);
    random.bytes(len as usize)
}

/// Puts until the disk stays full, or `most` puts.
async fn fill(
    larder: &Larder,
    seed: u64,
    most: u64,
    stored: &mut BTreeMap<u64, Vec<u8>>,
    report: &mut Report,
    at: &str,
) {
    let first = stored.keys().next_back().map_or(0, |id| id + 1);
    let (mut id, mut refused_in_a_row) = (first, 0);
    while refused_in_a_row < REFUSALS && id - first < most {
        let kv = larder.kv().bytes("fill");
        let puts = (id..id + CALLERS).map(|id| {
            let kv = kv.clone();
            async move { (id, kv.put(format!("{id:08}"), value(seed, id)).await) }
        });
        for (id, answer) in futures::future::join_all(puts).await {
            match answer {
                Ok(_) => {
                    stored.insert(id, value(seed, id));
                    refused_in_a_row = 0;
                }
                Err(error) => {
                    refused_in_a_row += 1;
                    match (error.class(), error.written()) {
                        (Class::DiskFull, Written::NotApplied) => report.refused += 1,
                        (Class::DiskFull, Written::Unknown) => report.unknown += 1,
                        other => report.wrong.push(format!("{at}: a put failed as {other:?}: {error:?}")),
                    }
                }
            }
        }
        id += CALLERS;
    }
}

async fn check_reads(larder: &Larder, stored: &BTreeMap<u64, Vec<u8>>, report: &mut Report, at: &str) {
    let kv = larder.kv().bytes("fill");
    let stride = (stored.len() / 200).max(1);
    for (id, value) in stored.iter().step_by(stride) {
        match kv.get(format!("{id:08}")).await {
            Ok(Some(found)) if found == value[..] => {}
            other => report.wrong.push(format!("{at}: reading {id}: {:?}", other.map(|found| found.map(|v| v.len())))),
        }
    }
    if let Err(error) = kv.scan().limit(10).page().await {
        report.wrong.push(format!("{at}: a scan: {error:?}"));
    }
}

async fn delete_half(larder: &Larder, stored: &mut BTreeMap<u64, Vec<u8>>, report: &mut Report, at: &str) {
    let kv = larder.kv().bytes("fill");
    let ids: Vec<u64> = stored.keys().copied().step_by(2).collect();
    for id in ids {
        match kv.delete(format!("{id:08}")).await {
            Ok(true) => _ = stored.remove(&id),
            Ok(false) => report.wrong.push(format!("{at}: {id} was not there to delete")),
            // Where there is no room even for that, the store stays full: it is not counted as freed.
            Err(error) if error.class() == Class::DiskFull && error.written() == Written::NotApplied => {}
            Err(error) => report.wrong.push(format!("{at}: deleting {id}: {error:?}")),
        }
    }
}

/// Waits until the store says itself that it serves, and then writes.
#[expect(clippy::disallowed_methods, reason = "what is waited for is that nobody has to do anything")]
async fn serves_again(
    larder: &Larder,
    seed: u64,
    stored: &mut BTreeMap<u64, Vec<u8>>,
    began: Instant,
) -> Result<Duration, String> {
    loop {
        let state = larder.observe().first().map(|store| (store.state, store.reason.clone()));
        let mut told = format!("{state:?}");
        if matches!(state, Some((StoreState::Serving, _))) {
            let id = stored.keys().next_back().map_or(0, |id| id + 1) + 1_000_000;
            match larder.kv().bytes("fill").put(format!("{id:08}"), value(seed, id)).await {
                Ok(_) => {
                    stored.insert(id, value(seed, id));
                    return Ok(began.elapsed());
                }
                Err(error) => told = format!("{error:?}"),
            }
        }
        if began.elapsed() > RECOVERY_MAX {
            return Err(told);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Everything acknowledged is there after a reopening.
async fn reopen(disk: &SmallDisk, stored: &BTreeMap<u64, Vec<u8>>, report: &mut Report, at: &str) {
    match Larder::builder(disk.path().join("store")).settings(|settings| settings.ballast_bytes = 0).open().await {
        Ok(larder) => {
            check_reads(&larder, stored, report, at).await;
            match larder.check(larder::CheckDepth::Full).await {
                Ok(check) => report.wrong.extend(check.findings.iter().map(|finding| format!("{at}: {finding:?}"))),
                Err(error) => report.wrong.push(format!("{at}: checking: {error:?}")),
            }
            larder.close().await;
        }
        Err(error) => report.wrong.push(format!("{at}: reopening: {error}")),
    }
}

/// Another program's file that takes what is left, but for so many bytes.
#[expect(clippy::disallowed_methods, reason = "another program's file")]
pub(crate) fn take_all_but(path: &Path, room: u64) {
    let mut file = std::fs::File::create(path).expect("a name costs nothing on tmpfs");
    while file.write_all(&[1; 4096]).is_ok() {}
    let taken = file.seek(SeekFrom::End(0)).expect("a file of memory");
    file.set_len(taken.saturating_sub(room)).expect("a file of memory");
}

#[expect(clippy::disallowed_methods, reason = "another program's file")]
pub(crate) fn give_back(path: &Path) {
    std::fs::remove_file(path).expect("it was made above");
}
