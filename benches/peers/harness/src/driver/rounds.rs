//! Equal answers, then rounds.

use std::fs;
use std::time::{Duration, Instant};

use peer_harness::Result;
use peer_harness::latency::{Percentiles, median};
use peer_harness::peer::{Durability, Request, TurnReport};
use peer_harness::run::Load;

use crate::options::Options;
use crate::process::{Processes, remove};

/// How long a turn runs its load before it measures, as a share of the measured time.
const WARM_UP_SHARE: f64 = 0.2;

/// One peer's medians over the rounds of a load.
pub(crate) struct Standing {
    pub(crate) peer: String,
    pub(crate) calls_per_second: f64,
    pub(crate) rounds: usize,
    pub(crate) slowest_round: f64,
    pub(crate) fastest_round: f64,
    pub(crate) latency: Percentiles,
}

/// Every peer must answer the script as the model does.
pub(crate) fn check_answers(options: &Options, processes: &Processes) -> Result<()> {
    let expected = (options.run.expected)()?;
    for peer in &processes.peers {
        for &durability in options.run.durabilities {
            let folder = processes.empty_folder()?;
            let answers: Vec<String> = processes.ask(peer, &Request::Script { folder, durability })?;
            if let Some(difference) = first_difference(&expected, &answers) {
                return Err(format!("{peer} ({}) answers differently: {difference}", durability.name()).into());
            }
        }
    }
    println!(
        "answers   {} peers gave the same {} answers to the {} script as the model in memory",
        processes.peers.len(),
        expected.len(),
        options.run.store
    );
    Ok(())
}

fn first_difference(expected: &[String], answers: &[String]) -> Option<String> {
    let lines = expected.len().max(answers.len());
    let differing = (0..lines).find(|&line| expected.get(line) != answers.get(line))?;
    let text = |lines: &[String]| lines.get(differing).cloned().unwrap_or_else(|| "nothing".to_owned());
    Some(format!("line {differing} should be {:?} and is {:?}", text(expected), text(answers)))
}

/// Has every peer write the entries that turns of `load` start from.
pub(crate) fn prepare(load: &Load, processes: &Processes) -> Result<()> {
    remove(&processes.prepared(""))?;
    for peer in &processes.peers {
        let folder = processes.prepared(peer);
        fs::create_dir_all(&folder)?;
        let () = processes.ask(peer, &Request::Prepare { folder, load: load.name.clone() })?;
    }
    Ok(())
}

/// Runs the rounds of one load at one durability; fewer, but one, when another would end after `time_max`.
pub(crate) fn measure(
    load: &Load,
    durability: Durability,
    options: &Options,
    processes: &Processes,
    time_max: Option<Duration>,
) -> Result<Vec<Standing>> {
    let start = Instant::now();
    let takes_part = |peer: &&String| !load.without.contains(&peer.as_str());
    let peers: Vec<&String> = processes.peers.iter().filter(takes_part).collect();
    let mut reports: Vec<Vec<TurnReport>> = peers.iter().map(|_| Vec::new()).collect();
    for round in 0..options.rounds {
        if time_max.is_some_and(|time_max| time_after(round, start.elapsed()) > time_max) {
            break;
        }
        for turn in 0..peers.len() {
            let at = (round + turn) % peers.len();
            if let (Some(&peer), Some(reports)) = (peers.get(at), reports.get_mut(at)) {
                reports.push(run_turn(peer, load, durability, round, options, processes)?);
            }
        }
    }
    Ok(peers.iter().zip(reports).filter_map(|(peer, reports)| Standing::of(peer, &reports)).collect())
}

/// The time `done` rounds and another take, if the other takes as long; nothing before the first.
fn time_after(done: usize, elapsed: Duration) -> Duration {
    let rounds = u32::try_from(done).unwrap_or(u32::MAX);
    elapsed.checked_div(rounds).map_or(Duration::ZERO, |round| elapsed + round)
}

fn run_turn(
    peer: &str,
    load: &Load,
    durability: Durability,
    round: usize,
    options: &Options,
    processes: &Processes,
) -> Result<TurnReport> {
    processes.ask(
        peer,
        &Request::Turn {
            folder: processes.copied_folder(peer)?,
            load: load.name.clone(),
            durability,
            seconds: options.seconds,
            warm_up_seconds: options.seconds * WARM_UP_SHARE,
            seed: round as u64,
        },
    )
}

impl Standing {
    fn of(peer: &str, reports: &[TurnReport]) -> Option<Self> {
        let speeds: Vec<f64> = reports.iter().map(|report| report.calls as f64 / report.seconds).collect();
        let middle = |of: fn(&Percentiles) -> f64| median(reports.iter().map(|report| of(&report.latency)).collect());
        Some(Self {
            peer: peer.to_owned(),
            rounds: speeds.len(),
            slowest_round: speeds.iter().copied().fold(f64::INFINITY, f64::min),
            fastest_round: speeds.iter().copied().fold(0.0, f64::max),
            calls_per_second: median(speeds)?,
            latency: Percentiles {
                p50_us: middle(|latency| latency.p50_us)?,
                p99_us: middle(|latency| latency.p99_us)?,
                p999_us: middle(|latency| latency.p999_us)?,
            },
        })
    }
}
