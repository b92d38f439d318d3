//! A table for each load and durability, and the ratio lines.

use peer_harness::peer::Durability;
use peer_harness::run::Load;

use crate::rounds::Standing;

const LARDER: &str = "larder";
const RAW: &str = "raw";

pub(crate) fn print(load: &Load, durability: Durability, standings: &[Standing]) {
    println!("\n{} {} · {} · medians of {}", load.name, durability.name(), load.about, rounds_words(standings));
    println!(
        "  {:<15}{:>11}  {:>21}  {:>11}{:>11}{:>11}  {:>7}",
        "peer", "calls/s", "slowest … fastest", "p50 µs", "p99 µs", "p99.9 µs", "÷ raw"
    );
    let raw = speed_of(RAW, standings);
    for standing in standings {
        let range = format!("{:.0} … {:.0}", standing.slowest_round, standing.fastest_round);
        let of_raw = raw.map_or(String::new(), |raw| format!("{:.2}", standing.calls_per_second / raw));
        println!(
            "  {:<15}{:>11.0}  {:>21}  {:>11.1}{:>11.1}{:>11.1}  {:>7}",
            standing.peer,
            standing.calls_per_second,
            range,
            standing.latency.p50_us,
            standing.latency.p99_us,
            standing.latency.p999_us,
            of_raw
        );
    }
}

/// `ratio STORE LOAD DURABILITY PEER RATIO` for every peer but larder: above 1, larder is faster.
pub(crate) fn ratios(store: &str, load: &Load, durability: Durability, standings: &[Standing]) -> Vec<String> {
    let Some(larder) = speed_of(LARDER, standings) else { return Vec::new() };
    let others = standings.iter().filter(|standing| standing.peer != LARDER);
    let line = |other: &Standing| {
        let ratio = larder / other.calls_per_second;
        format!("ratio {store} {} {} {} {ratio:.2}", load.name, durability.name(), other.peer)
    };
    others.map(line).collect()
}

fn speed_of(peer: &str, standings: &[Standing]) -> Option<f64> {
    standings.iter().find(|standing| standing.peer == peer).map(|standing| standing.calls_per_second)
}

fn rounds_words(standings: &[Standing]) -> String {
    match standings.first().map_or(0, |standing| standing.rounds) {
        1 => "1 round only".to_owned(),
        rounds => format!("{rounds} rounds"),
    }
}
