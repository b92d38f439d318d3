//! A disk that fills in the middle of an ingest: what callers are told, and that every document is whole once there is room.
//!
//! Start at [`run`]. On each disk another program's file leaves a little room, another amount each time, so that another store
//! is the one that finds none.
//!
//! Always true: a document may be as it was acknowledged last, or as what was begun since; never between the two.

use std::collections::BTreeMap;
use std::time::Instant;

use larder::{CheckDepth, Class, Context, ErrorKind, Larder, Written};

use crate::contexts::{Corpus, Stored, id, lose_journal};
use crate::disk_full::{BALLAST_BYTES, RECOVERY_MAX, SmallDisk, ballast_is_there, give_back, take_all_but};

const DISK_BYTES: u64 = 16 << 20;
const DOCUMENTS: u64 = 12;
/// Each disk has so much more room for the ingest than the one before.
const ROOM_STEP: u64 = 150 << 10;
/// So many refusals in a row mean that the disk is full for good.
const REFUSALS: u64 = 24;
/// Vectors of 6 KiB beside texts of 3 KiB, so that each of the files grows.
const CORPUS: Corpus = Corpus { dimensions: 1_536, padding: 3 << 10 };

/// What was seen over all disks.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) disks: u64,
    pub(crate) acknowledged: u64,
    /// Refused for the full disk, and as before.
    pub(crate) refused: u64,
    /// Told that it is unknown whether it is committed.
    pub(crate) unknown: u64,
    /// Committed, and not in every store while the disk was full.
    pub(crate) unfinished: u64,
    /// Disks that held an open intent while they were full.
    pub(crate) interrupted: u64,
    /// What must never be.
    pub(crate) wrong: Vec<String>,
}

/// What may be there of each document: the last version that was acknowledged, and what was begun since.
type Possible = BTreeMap<String, Vec<Option<u64>>>;

/// Fills `disks` disks, or says why none can be had. The control takes the journal out before there is room again.
pub(crate) fn run(disks: u64, loses_journal: bool) -> Result<Report, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let mut report = Report { disks, ..Report::default() };
    for index in 0..disks {
        let disk = SmallDisk::mount(DISK_BYTES)?;
        runtime.block_on(fill_and_free(&disk, index * ROOM_STEP, loses_journal, &mut report));
        if loses_journal && !report.wrong.is_empty() {
            break;
        }
    }
    Ok(report)
}

async fn open(disk: &SmallDisk) -> Context {
    let builder = Larder::builder(disk.path().join("store")).settings(|settings| {
        settings.ballast_bytes = BALLAST_BYTES;
        settings.embed_cache.own.memory_bytes = 0;
    });
    let larder = builder.open().await.expect("a disk with room");
    CORPUS.open(&larder).await.expect("a disk with room")
}

async fn fill_and_free(disk: &SmallDisk, room: u64, loses_journal: bool, report: &mut Report) {
    let at = format!("{} KiB of room", room >> 10);
    let context = open(disk).await;
    let mut possible = Possible::new();
    for number in 0..DOCUMENTS {
        CORPUS.put(&context, &id(number), 1).await.expect("a disk with room");
        possible.insert(id(number), vec![Some(1)]);
    }
    ballast_is_there(disk, context.larder()).await;
    let stranger = disk.path().join("stranger");
    take_all_but(&stranger, room);
    fill(&context, &mut possible, report, &at).await;
    check_reads(&context, report, &at).await;

    let context = if loses_journal {
        context.larder().clone().close().await;
        give_back(&stranger);
        report.interrupted += u64::from(lose_journal(&disk.path().join("store")) > 0);
        open(disk).await
    } else {
        report.interrupted += u64::from(!context.check().await.expect("a full disk can be read").is_empty());
        give_back(&stranger);
        let began = Instant::now();
        while let Err(error) = context.recover().await {
            assert_eq!(error.class(), Class::DiskFull, "{error:?}");
            assert!(began.elapsed() < RECOVERY_MAX, "a disk that was freed is still full");
        }
        context
    };
    judge(&context, &possible, report, &at).await;
    let began = Instant::now();
    while let Err(error) = CORPUS.put(&context, "behind", 2).await {
        assert_eq!(error.class(), Class::DiskFull, "{error:?}");
        assert!(began.elapsed() < RECOVERY_MAX, "a disk that was freed is still full");
    }
    context.larder().clone().close().await;
    let context = open(disk).await;
    judge(&context, &possible, report, &at).await;
    let findings = context.larder().check(CheckDepth::Full).await.expect("it can be read").findings;
    report.wrong.extend(findings.iter().map(|finding| format!("{at}: {finding:?}")));
    context.larder().clone().close().await;
}

/// Puts new versions until the disk stays full.
async fn fill(context: &Context, possible: &mut Possible, report: &mut Report, at: &str) {
    let (mut version, mut refused_in_a_row) = (2, 0);
    while refused_in_a_row < REFUSALS {
        let document = id(version % DOCUMENTS);
        let versions = possible.entry(document.clone()).or_default();
        match CORPUS.put(context, &document, version).await {
            Ok(()) => {
                *versions = vec![Some(version)];
                report.acknowledged += 1;
                refused_in_a_row = 0;
            }
            Err(error) => {
                refused_in_a_row += 1;
                match (error.class(), error.written(), error.kind()) {
                    (Class::DiskFull, Written::Applied, ErrorKind::Unfinished { .. }) => {
                        // Either this version, or what had to be finished before it.
                        versions.push(Some(version));
                        report.unfinished += 1;
                    }
                    (Class::DiskFull, Written::NotApplied, _) => report.refused += 1,
                    // One store has taken all of the room kept back, and another one's COMMIT cannot be settled.
                    (Class::DiskFull, Written::Unknown, _) => {
                        versions.push(Some(version));
                        report.unknown += 1;
                    }
                    other => report.wrong.push(format!("{at}: a put failed as {other:?}: {error:?}")),
                }
            }
        }
        version += 1;
        assert!(version < 10_000, "the disk does not fill");
    }
}

/// A full disk is read as any other.
async fn check_reads(context: &Context, report: &mut Report, at: &str) {
    match context.retrieve("always uses itself").k(3).await {
        Ok(found) if found.passages.len() == 3 => {}
        other => report.wrong.push(format!("{at}: a retrieval: {:?}", other.map(|found| found.passages.len()))),
    }
}

/// Every document is as one of the versions that it may have.
async fn judge(context: &Context, possible: &Possible, report: &mut Report, at: &str) {
    let stored = Stored::read(context).await.expect("a disk with room can be read");
    report.wrong.extend(stored.issues().iter().map(|issue| format!("{at}: {issue}")));
    for (id, versions) in possible {
        match stored.version(&CORPUS, id) {
            Ok(version) if versions.contains(&version) => {}
            Ok(version) => {
                report.wrong.push(format!("{at}: {id} is in version {version:?}, not in any of {versions:?}"))
            }
            Err(what) => report.wrong.push(format!("{at}: {what}")),
        }
    }
}
