//! A table for each load and durability, and the ratio lines.

use peer_harness::kv::load::{Call, Load};
use peer_harness::kv::sqlite;
use peer_harness::peer::Durability;

use crate::rounds::Standing;

const LARDER: &str = "larder";
const RAW: &str = "raw";

pub(crate) fn print(load: &Load, durability: Durability, standings: &[Standing]) {
    println!(
        "\n{load} {} · values of {} B · one call is {} · medians of {} · raw is {}",
        durability.name(),
        load.value_bytes,
        call_words(load),
        rounds_words(standings),
        sqlite::SCHEMA.trim_start_matches("CREATE TABLE IF NOT EXISTS ")
    );
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

/// `ratio kv LOAD DURABILITY PEER RATIO` for every peer but larder: above 1, larder is faster.
pub(crate) fn ratios(load: &Load, durability: Durability, standings: &[Standing]) -> Vec<String> {
    let Some(larder) = speed_of(LARDER, standings) else { return Vec::new() };
    let others = standings.iter().filter(|standing| standing.peer != LARDER);
    let line = |other: &Standing| {
        let ratio = larder / other.calls_per_second;
        format!("ratio kv {load} {} {} {ratio:.2}", durability.name(), other.peer)
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

const fn call_words(load: &Load) -> &'static str {
    match load.call {
        Call::Put => "a put",
        Call::Batch => "a transaction of 1,000 puts",
        Call::Get => "a get",
        Call::HotGet => "a get of one of 1,000 keys",
        Call::Mix => "a put or a get",
        Call::Scan => "a scan of 1,000 rows",
    }
}
