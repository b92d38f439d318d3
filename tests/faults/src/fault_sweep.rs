//! Fails the calls of a workload one after another and checks what it answers then and afterwards.
//!
//! Start at [`FaultSweep::run`].
//!
//! Always true: a point is judged by what the callers were told, during the fault, after it clears, and after a reopening;
//! a fault that never fired counts as a point only in `points`, not in `fired`.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::faults::{self, Call, Fault};
use crate::history::{History, Op, Outcome, Verdict, Witness};
use crate::random::mix;
use crate::scratch;
use crate::workload::Workload;

/// How to sweep.
#[derive(Debug, Clone)]
pub struct FaultSweep {
    /// Decides everything that chance decides.
    pub seed: u64,
    /// How many faults to try, each in a fresh folder; spread evenly over all that the dry run shows to be possible.
    pub points: u64,
    /// Faults of the same steps; each round has other steps, and a dry run to find their calls.
    pub points_per_round: u64,
    /// Only faults on files whose name starts so; `""` for all.
    pub place: String,
    /// Only these calls.
    pub calls: Vec<Call>,
    /// Steps before the fault is armed, so that there is something to damage.
    pub steps_before: u64,
    /// Steps with the fault armed, after a reopening that is under fault too.
    pub steps: u64,
    /// A step or check that takes longer is a hang.
    pub hang: Duration,
    /// How long the workload may need to serve again once the fault is cleared.
    pub recovery: Duration,
}

impl FaultSweep {
    /// Returns a sweep over `points` faults with the usual settings: hung past 5 s, serving again within 1 s.
    #[must_use]
    pub fn new(seed: u64, points: u64) -> Self {
        Self {
            seed,
            points,
            points_per_round: 40,
            place: String::new(),
            calls: Call::ALL.to_vec(),
            steps_before: 3,
            steps: 8,
            hang: Duration::from_secs(5),
            recovery: Duration::from_secs(1),
        }
    }

    /// Runs it. It holds the process's fault state, so nothing else may run meanwhile.
    ///
    /// # Panics
    /// When a workload does not open in an empty folder, or the scratch folder cannot be written.
    pub fn run<W: Workload>(&self, workload: &W) -> FaultReport {
        let began = Instant::now();
        let mut report = FaultReport::default();
        let watchdog = Watchdog::start(self.hang * 6);
        for round in 0..self.points.div_ceil(self.points_per_round) {
            let points = (self.points - report.points).min(self.points_per_round);
            let one = Self { seed: mix(self.seed, round), points, ..self.clone() };
            one.run_round(workload, &watchdog, &mut report);
        }
        report.elapsed = began.elapsed();
        report
    }

    fn run_round<W: Workload>(&self, workload: &W, watchdog: &Watchdog, report: &mut FaultReport) {
        let possible = self.possible_faults(workload);
        assert!(!possible.is_empty(), "the workload makes none of the calls that should fail");
        report.possible += possible.len() as u64;
        for (index, fault) in spread(&possible, self.points, self.seed).enumerate() {
            watchdog.expect_sign(fault);
            self.try_fault(workload, fault, mix(self.seed, index as u64), report);
        }
    }

    /// Runs the steps without a fault and lists every way in which a call they made could fail.
    fn possible_faults<W: Workload>(&self, workload: &W) -> Vec<Fault> {
        let folder = scratch::folder().expect("the scratch folder is writable");
        let witness = Witness::alone();
        let session = self.prepare(workload, folder.path(), self.seed, &witness);
        workload.close(session);
        faults::reset_counts();
        let mut session = workload.open(folder.path()).expect("a closed folder opens");
        self.steps(workload, &mut session, self.seed, &witness, &mut FaultReport::default());
        workload.close(session);
        let mut possible = Vec::new();
        for (name, call, count) in
            faults::counts().iter().filter(|(name, call, _)| name.starts_with(&self.place) && self.calls.contains(call))
        {
            for nth in 1..=count {
                for (&error, &effect) in
                    call.errors().iter().flat_map(|error| call.effects().iter().map(move |e| (error, e)))
                {
                    let once = Fault::new(call, nth).on(name).with(error).after(effect);
                    possible.extend([once.clone(), once.lasting()]);
                }
            }
        }
        possible
    }

    fn prepare<W: Workload>(&self, workload: &W, folder: &Path, seed: u64, witness: &Witness) -> W::Session {
        let mut session = workload.open(folder).expect("an empty folder opens");
        (0..self.steps_before).for_each(|step| workload.step(&mut session, mix(seed, 1_000 + step), witness));
        session
    }

    fn steps<W: Workload>(
        &self,
        workload: &W,
        session: &mut W::Session,
        seed: u64,
        witness: &Witness,
        report: &mut FaultReport,
    ) {
        for step in 0..self.steps {
            self.timed(report, || workload.step(session, mix(seed, step), witness));
        }
    }

    fn timed<T>(&self, report: &mut FaultReport, run: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = run();
        let took = began.elapsed();
        report.longest = report.longest.max(took);
        report.hangs += u64::from(took > self.hang);
        result
    }

    fn try_fault<W: Workload>(&self, workload: &W, fault: &Fault, seed: u64, report: &mut FaultReport) {
        report.points += 1;
        let folder = scratch::folder().expect("the scratch folder is writable");
        let witness = Witness::alone();
        let session = self.prepare(workload, folder.path(), self.seed, &witness);
        workload.close(session);
        faults::arm(fault.clone());
        let session = self.under_fault(workload, folder.path(), &witness, fault, report);
        let fired = faults::fired();
        faults::clear();
        report.fired += u64::from(fired > 0);
        if let Some(verdict) = strangers_hurt(workload, &witness.history(), fault) {
            report.add(&verdict, fault, "another store was hurt");
        }
        let cleared = Instant::now();
        let Some(mut session) = self.serve_again(workload, session, folder.path(), seed, &witness, report) else {
            report.unserved += 1;
            report.add(&Verdict::corrupt("not serving"), fault, "after the fault");
            return;
        };
        report.longest_recovery = report.longest_recovery.max(cleared.elapsed());
        report.slow_recoveries += u64::from(cleared.elapsed() > self.recovery);
        let mut history = witness.history();
        let verdict = session_check(workload, &mut session, &history);
        report.add(&verdict, fault, "after the fault");
        history.settle(&verdict);
        workload.close(session);
        report.add(&workload.verify(folder.path(), &history), fault, "after a reopening");
    }

    /// Opens and steps with the fault armed. Answers may be refused, but those given must be right.
    fn under_fault<W: Workload>(
        &self,
        workload: &W,
        folder: &Path,
        witness: &Witness,
        fault: &Fault,
        report: &mut FaultReport,
    ) -> Option<W::Session> {
        let Ok(mut session) = self.timed(report, || workload.open(folder)) else {
            report.refused_opens += 1;
            return None;
        };
        self.steps(workload, &mut session, self.seed, witness, report);
        match self.timed(report, || workload.check(&mut session, &witness.history())) {
            Ok(verdict) => report.add(&verdict, fault, "during the fault"),
            Err(_) => report.refused_checks += 1,
        }
        Some(session)
    }

    /// Steps until an operation on every place is applied, opening first where that failed under the fault.
    fn serve_again<W: Workload>(
        &self,
        workload: &W,
        session: Option<W::Session>,
        folder: &Path,
        seed: u64,
        witness: &Witness,
        report: &mut FaultReport,
    ) -> Option<W::Session> {
        let places: BTreeSet<&str> = witness.history().all().map(|(_, op)| op.place).collect();
        let mut session = match session {
            Some(session) => session,
            None => self.timed(report, || workload.open(folder)).ok()?,
        };
        let cleared = Instant::now();
        let first = witness.history().len();
        for step in 0.. {
            self.timed(report, || workload.step(&mut session, mix(seed, 2_000 + step), witness));
            let applied = |(id, op): (u64, Op)| (id >= first && op.is(Outcome::Applied)).then_some(op.place);
            if witness.history().all().filter_map(applied).collect::<BTreeSet<_>>().is_superset(&places) {
                return Some(session);
            }
            if cleared.elapsed() > self.hang {
                break;
            }
        }
        None
    }
}

fn session_check<W: Workload>(workload: &W, session: &mut W::Session, history: &History) -> Verdict {
    workload.check(session, history).unwrap_or_else(|why| Verdict::corrupt(format!("reading: {why}")))
}

/// A fault on one store's files must not fail an operation on another's.
fn strangers_hurt<W: Workload>(workload: &W, history: &History, fault: &Fault) -> Option<Verdict> {
    let hit = |place: &str| fault.path_suffix.starts_with(place);
    let aimed = history.all().any(|(_, op)| hit(op.place));
    let hurt = |(id, op): &(u64, Op)| !hit(op.place) && !op.is(Outcome::Applied) && workload.must_succeed(*id);
    let (id, op) = history.all().filter(|_| aimed).find(hurt)?;
    Some(Verdict::corrupt(format!("operation {id} on {} failed", op.place)))
}

/// Takes `wanted` faults of `possible`, evenly spread from where `seed` says, and going round when there are fewer.
fn spread(possible: &[Fault], wanted: u64, seed: u64) -> impl Iterator<Item = &Fault> {
    let count = possible.len() as u64;
    let stride = (count / wanted).max(1);
    (0..wanted).map(move |index| &possible[((seed % stride + index * stride) % count) as usize])
}

/// Ends the process with a message when a point gives no sign of life: a hang in SQLite cannot be interrupted from here.
#[derive(Debug)]
struct Watchdog {
    signs: mpsc::Sender<String>,
}

impl Watchdog {
    fn start(patience: Duration) -> Self {
        let (signs, sign) = mpsc::channel::<String>();
        std::thread::spawn(move || {
            let mut last = String::from("the first point");
            loop {
                match sign.recv_timeout(patience) {
                    Ok(next) => last = next,
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        eprintln!("hung for {patience:?} at {last}");
                        std::process::abort();
                    }
                }
            }
        });
        Self { signs }
    }

    fn expect_sign(&self, fault: &Fault) {
        self.signs.send(format!("{fault:?}")).expect("the watchdog outlives the sweep");
    }
}

/// What a sweep saw.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct FaultReport {
    /// Ways to fail that the dry run showed.
    pub possible: u64,
    /// Faults tried.
    pub points: u64,
    /// Faults that failed a call at least once.
    pub fired: u64,
    /// Checks with anything wrong: lost, back again, half there, or a wrong answer.
    pub wrong: u64,
    /// Steps and checks longer than `hang`.
    pub hangs: u64,
    /// Faults after which the workload did not serve within `hang`.
    pub unserved: u64,
    /// Faults after which it took longer than `recovery`.
    pub slow_recoveries: u64,
    /// Openings refused under a fault, as they may.
    pub refused_opens: u64,
    /// Checks refused under a fault, as they may.
    pub refused_checks: u64,
    /// The longest step or check.
    pub longest: Duration,
    /// The longest time from clearing a fault to serving.
    pub longest_recovery: Duration,
    /// The first few findings.
    pub examples: Vec<String>,
    /// How long it took.
    pub elapsed: Duration,
}

impl FaultReport {
    /// Returns whether nothing was wrong, hung or slow to recover.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.wrong + self.hangs + self.unserved + self.slow_recoveries == 0
    }

    fn add(&mut self, verdict: &Verdict, fault: &Fault, when: &str) {
        if verdict.is_clean() {
            return;
        }
        self.wrong += 1;
        if self.examples.len() < 5 {
            self.examples.push(format!("{when}, {fault:?}: {:?}", verdict.findings.first()));
        }
    }
}

impl fmt::Display for FaultReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "points={} fired={} of {} possible, wrong={} hangs={} unserved={} slow={} longest={:.0?} recovery={:.0?} in {:.1} s",
            self.points,
            self.fired,
            self.possible,
            self.wrong,
            self.hangs,
            self.unserved,
            self.slow_recoveries,
            self.longest,
            self.longest_recovery,
            self.elapsed.as_secs_f64(),
        )
    }
}
