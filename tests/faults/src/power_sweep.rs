//! Cuts the power at many points of a workload's runs and checks what is left.
//!
//! Start at [`PowerSweep::run`].
//!
//! Always true: the same sweep and seed visit the same seeds of rounds and images; threads of a workload may interleave
//! differently, so an example is replayed from its recording, not from its seed alone.

use std::fmt;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::faults::{self, Call, Effect, Error, Fault};
use crate::history::{Finding, History, Verdict};
use crate::power::{Disk, Image, Recorder, Recording, Survival};
use crate::random::{Random, mix};
use crate::scratch;
use crate::workload::Workload;

/// What a sweep deliberately breaks, and must then catch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerControl {
    /// Nothing.
    None,
    /// The disk forgets syncs; see [`Recording::forget_syncs`].
    ForgetSyncs,
    /// Answers come before commits; see [`Recording::acknowledge_early`].
    AcknowledgeEarly,
}

/// How to sweep.
#[derive(Debug, Clone)]
pub struct PowerSweep {
    /// Decides everything that chance decides.
    pub seed: u64,
    /// How many points to cut the power at, each with one image. Not counting crashes during recovery.
    pub points: u64,
    /// Steps of the workload in a round; a round is one recorded run in a fresh folder.
    pub steps: u64,
    /// Of a longer round, evenly chosen points. Few: more rounds, so more situations; many: more moments of each.
    pub points_per_round: u64,
    /// One image in so many is recovered under a recorder, written to, and crashed again; 0: none.
    pub recover_every: u64,
    /// How often that recovery is crashed.
    pub recovery_points: u64,
    /// One step in so many has a failing sync; 0: none.
    pub sync_fault_every: u64,
    /// Only syncs of directories secure their entries; see [`Recording::strict_directories`].
    pub strict_directories: bool,
    /// What to break.
    pub control: PowerControl,
    /// Threads that check images.
    pub threads: usize,
}

impl PowerSweep {
    /// Returns a sweep over `points` points with the usual settings.
    #[must_use]
    pub fn new(seed: u64, points: u64) -> Self {
        Self {
            seed,
            points,
            steps: 40,
            points_per_round: 250,
            recover_every: 20,
            recovery_points: 5,
            sync_fault_every: 0,
            strict_directories: false,
            control: PowerControl::None,
            threads: std::thread::available_parallelism().map_or(1, usize::from).min(4),
        }
    }

    /// Runs it.
    ///
    /// # Panics
    /// When a workload does not open in an empty folder, or the scratch folder cannot be written.
    pub fn run<W: Workload>(&self, workload: &W) -> PowerReport {
        let began = Instant::now();
        let mut report = PowerReport::default();
        while report.points < self.points {
            let seed = mix(self.seed, report.rounds);
            let recording = self.record(workload, seed);
            let wanted = (self.points - report.points).min(self.points_per_round);
            let points = chosen_points(recording.points(), wanted, seed);
            report.merge(self.check(workload, &recording, &points, seed));
            report.rounds += 1;
        }
        report.elapsed = began.elapsed();
        report
    }

    fn record<W: Workload>(&self, workload: &W, seed: u64) -> Recording {
        let folder = scratch::folder().expect("the scratch folder is writable");
        let recorder = Recorder::start(folder.path()).expect("the scratch folder is readable");
        let witness = recorder.witness();
        let mut session = workload.open(folder.path()).expect("an empty folder opens");
        let mut random = Random::new(seed);
        for step in 0..self.steps {
            if self.sync_fault_every > 0 && random.below(self.sync_fault_every) == 0 {
                let effect = random.choose(&[Effect::Nothing, Effect::Done]);
                let fault = Fault::new(Call::Sync, 1 + random.below(4)).with(Error::Io).after(effect);
                faults::arm(if random.percent(30) { fault.lasting() } else { fault });
            }
            workload.step(&mut session, mix(seed, step), &witness);
            faults::disarm();
        }
        faults::clear();
        // Half of the runs end with a close, which checkpoints and deletes the WAL; the others while still open.
        let recording = if seed.is_multiple_of(2) {
            workload.close(session);
            recorder.stop()
        } else {
            let recording = recorder.stop();
            workload.close(session);
            recording
        };
        let recording = if self.strict_directories { recording.strict_directories() } else { recording };
        match self.control {
            PowerControl::None => recording,
            PowerControl::ForgetSyncs => recording.forget_syncs(),
            PowerControl::AcknowledgeEarly => recording.acknowledge_early(),
        }
    }

    fn check<W: Workload>(&self, workload: &W, recording: &Recording, points: &[usize], seed: u64) -> PowerReport {
        let report = Mutex::new(PowerReport::default());
        // In turns: by chance alone, a few dozen points may go without one kind.
        let kinds = (seed as usize % Survival::ALL.len()..).map(|turn| Survival::ALL[turn % Survival::ALL.len()]);
        let points: Vec<_> = points.iter().copied().zip(kinds).collect();
        std::thread::scope(|scope| {
            for share in points.chunks(points.len().div_ceil(self.threads).max(1)) {
                let report = &report;
                scope.spawn(move || {
                    let mut disk = recording.disk();
                    let mut own = PowerReport::default();
                    for &(point, survival) in share {
                        disk.advance(point);
                        let clean_before = own.is_clean();
                        self.check_point(workload, &disk, survival, mix(seed, point as u64), &mut own);
                        if clean_before && !own.is_clean() {
                            own.trace = Some(recording.trace(point.saturating_sub(TRACE_EVENTS)..point));
                        }
                    }
                    report.lock().expect("no checker panics while it adds its report").merge(own);
                });
            }
        });
        report.into_inner().expect("no checker panicked")
    }

    fn check_point<W: Workload>(
        &self,
        workload: &W,
        disk: &Disk<'_>,
        survival: Survival,
        seed: u64,
        report: &mut PowerReport,
    ) {
        let mut random = Random::new(seed);
        let image = disk.image(survival, random.bits());
        let folder = scratch::folder().expect("the scratch folder is writable");
        image.materialise(folder.path()).expect("the scratch folder is writable");
        report.points += 1;
        let again = self.recover_every > 0 && random.below(self.recover_every) == 0;
        if !again {
            report
                .add(&workload.verify(folder.path(), image.history()), || format!("{survival:?} at {}", disk.point()));
            return;
        }
        report.recoveries += 1;
        match recover(workload, &image, folder.path(), seed) {
            Ok(recording) => self.check_recovery(workload, &recording, &mut random, report),
            Err(verdict) => report.add(&verdict, || {
                let ops = image.history().len();
                format!("{survival:?} at {}, recovered and one step on from operation {ops}", disk.point())
            }),
        }
    }

    fn check_recovery<W: Workload>(
        &self,
        workload: &W,
        recording: &Recording,
        random: &mut Random,
        report: &mut PowerReport,
    ) {
        let recording_points = recording.points() as u64;
        let mut points: Vec<u64> = (0..self.recovery_points).map(|_| random.below(recording_points)).collect();
        points.sort_unstable();
        let mut disk = recording.disk();
        for point in points {
            disk.advance(point as usize);
            let survival = random.choose(&Survival::ALL);
            let image = disk.image(survival, random.bits());
            let folder = scratch::folder().expect("the scratch folder is writable");
            image.materialise(folder.path()).expect("the scratch folder is writable");
            report.recovery_points += 1;
            report.add(&workload.verify(folder.path(), image.history()), || {
                format!("{survival:?} at {point} of a recovery")
            });
        }
    }
}

/// Recovers an image under a recorder, writes one more step, and returns the recording; or what was wrong.
fn recover<W: Workload>(workload: &W, image: &Image, folder: &Path, seed: u64) -> Result<Recording, Verdict> {
    let recorder = Recorder::continuing(folder, image.history()).expect("the scratch folder is readable");
    let witness = recorder.witness();
    let mut session = workload.open(folder).map_err(|why| Verdict::corrupt(format!("opening: {why}")))?;
    let check = |session: &mut W::Session, history: &History| {
        let verdict =
            workload.check(session, history).unwrap_or_else(|why| Verdict::corrupt(format!("reading: {why}")));
        if verdict.is_clean() { Ok(verdict) } else { Err(verdict) }
    };
    let mut history = image.history().clone();
    history.settle(&check(&mut session, &history)?);
    workload.step(&mut session, seed, &witness);
    check(&mut session, &witness.history_after(&history))?;
    workload.close(session);
    Ok(recorder.stop().after(history))
}

/// All points of a round, or an even choice of as many as are still wanted.
fn chosen_points(points: usize, wanted: u64, seed: u64) -> Vec<usize> {
    let stride = (points as u64).div_ceil(wanted).max(1);
    (seed % stride..points as u64).step_by(stride as usize).map(|point| point as usize).collect()
}

/// What a sweep saw.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct PowerReport {
    /// Recorded runs.
    pub rounds: u64,
    /// Points at which the power was cut, each with one image.
    pub points: u64,
    /// Images recovered under a recorder, with a step after it.
    pub recoveries: u64,
    /// Points at which such a recovery was crashed in turn.
    pub recovery_points: u64,
    /// Images with anything wrong.
    pub bad_images: u64,
    /// Images that lost an acknowledged operation they had to keep.
    pub lost: u64,
    /// Images that do not open, fail the integrity check or answer wrongly.
    pub corrupt: u64,
    /// Images that hold part of a batch.
    pub torn: u64,
    /// Images that hold a refused operation, or one that nobody began.
    pub phantom: u64,
    /// Images that lost newest operations of a relaxed store, as they may.
    pub newest_lost: u64,
    /// The first few findings.
    pub examples: Vec<String>,
    /// The events before the first bad point; see [`Recording::trace`].
    pub trace: Option<String>,
    /// How long it took.
    pub elapsed: Duration,
}

/// As many as a reader wants to see.
const EXAMPLES_MAX: usize = 5;

/// Some ten commits and the checkpoint before them.
const TRACE_EVENTS: usize = 600;

impl PowerReport {
    /// Returns whether no image had anything wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.bad_images == 0
    }

    fn add(&mut self, verdict: &Verdict, what: impl Fn() -> String) {
        self.newest_lost += u64::from(verdict.newest_lost > 0);
        if verdict.is_clean() {
            return;
        }
        self.bad_images += 1;
        let any = |wanted: fn(&Finding) -> bool| u64::from(verdict.findings.iter().any(wanted));
        self.lost += any(|finding| {
            matches!(finding, Finding::Lost { .. } | Finding::LostAcrossFlush { .. } | Finding::Hole { .. })
        });
        self.corrupt += any(|finding| matches!(finding, Finding::Corrupt(_)));
        self.torn += any(|finding| matches!(finding, Finding::Torn(_)));
        self.phantom += any(|finding| matches!(finding, Finding::Phantom { .. }));
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(format!("{}: {:?}", what(), verdict.findings[0]));
        }
    }

    fn merge(&mut self, other: Self) {
        self.points += other.points;
        self.recoveries += other.recoveries;
        self.recovery_points += other.recovery_points;
        self.bad_images += other.bad_images;
        self.lost += other.lost;
        self.corrupt += other.corrupt;
        self.torn += other.torn;
        self.phantom += other.phantom;
        self.newest_lost += other.newest_lost;
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES_MAX);
        self.trace = self.trace.take().or(other.trace);
    }
}

impl fmt::Display for PowerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "points={} recovery_points={} rounds={} lost={} corrupt={} torn={} phantom={} newest_lost={} bad={} in {:.1} s",
            self.points,
            self.recovery_points,
            self.rounds,
            self.lost,
            self.corrupt,
            self.torn,
            self.phantom,
            self.newest_lost,
            self.bad_images,
            self.elapsed.as_secs_f64(),
        )
    }
}
