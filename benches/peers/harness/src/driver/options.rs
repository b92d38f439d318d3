//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use peer_harness::Result;
use peer_harness::run::{Load, Run, runs};

pub(crate) const USAGE: &str = "\
usage: benches/peers/run STORE [--quick] [--only PEER,…] [--loads LOAD,…] [--dir FOLDER] [--rounds N] [--seconds S]

  STORE      kv, documents, chat or embed_cache
  --quick    few rounds, and not every load where there are many: within 10 minutes once built, with fewer rounds where
             the machine is slow
  --only     these peers; the default is all of them
  --loads    these loads, such as put-256,get-1-1k; the default is all of them (or those of --quick)
  --dir      where to keep data while running; the default is a folder beside the built programs
  --rounds   rounds of each load (default 5, with --quick 3)
  --seconds  measured time of one peer in one round (default 1.5, with --quick 0.4)

Exits with 1 when a peer's answers or contents are wrong, with 2 when the command is.";

/// Of `--quick`: ten minutes with some to spare for a last round that takes longer than those before.
const QUICK_TIME_MAX: Duration = Duration::from_secs(8 * 60 + 30);

pub(crate) enum Wish {
    Help,
    /// For the script, which builds them.
    ListPeers(Vec<String>),
    Run(Options),
}

pub(crate) struct Options {
    pub(crate) run: Run,
    pub(crate) peers: Vec<String>,
    pub(crate) loads: Vec<Load>,
    pub(crate) folder: Option<PathBuf>,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    /// Rounds are left out, and the tables say so, to end within this.
    pub(crate) time_max: Option<Duration>,
    /// As it was typed.
    pub(crate) command: String,
}

pub(crate) fn parse(arguments: &[String]) -> Result<Wish> {
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        return Ok(Wish::Help);
    }
    let (store, rest) = arguments.split_first().ok_or("which store?")?;
    let run = runs().into_iter().find(|run| run.store == store);
    let run = run.ok_or_else(|| format!("there is no run for the store {store:?}"))?;
    let mut given = Given::default();
    let mut words = rest.iter();
    while let Some(word) = words.next() {
        given.take(word, &mut words)?;
    }
    let peers = chosen_peers(&run, given.only.as_deref())?;
    if given.lists_peers {
        return Ok(Wish::ListPeers(peers));
    }
    let (rounds, seconds) = if given.is_quick { (3, 0.4) } else { (5, 1.5) };
    Ok(Wish::Run(Options {
        peers,
        loads: chosen_loads(&run, given.loads.as_deref(), given.is_quick)?,
        run,
        folder: given.folder,
        rounds: given.rounds.unwrap_or(rounds),
        seconds: given.seconds.unwrap_or(seconds),
        time_max: given.is_quick.then_some(QUICK_TIME_MAX),
        command: format!("benches/peers/run {}", arguments.join(" ")),
    }))
}

#[derive(Default)]
struct Given {
    is_quick: bool,
    lists_peers: bool,
    only: Option<String>,
    loads: Option<String>,
    folder: Option<PathBuf>,
    rounds: Option<usize>,
    seconds: Option<f64>,
}

impl Given {
    fn take<'a>(&mut self, word: &str, words: &mut impl Iterator<Item = &'a String>) -> Result<()> {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word {
            "--quick" => self.is_quick = true,
            "--list-peers" => self.lists_peers = true,
            "--only" => self.only = Some(value()?.clone()),
            "--loads" => self.loads = Some(value()?.clone()),
            "--dir" => self.folder = Some(PathBuf::from(value()?)),
            "--rounds" => self.rounds = Some(value()?.parse().ok().filter(|n| *n > 0).ok_or("--rounds: from 1")?),
            "--seconds" => self.seconds = Some(seconds(value()?)?),
            _ => return Err(format!("{word:?} is not an option").into()),
        }
        Ok(())
    }
}

fn seconds(text: &str) -> Result<f64> {
    let seconds = text.parse().ok().filter(|seconds| (0.01..=600.0).contains(seconds));
    seconds.ok_or_else(|| "--seconds: from 0.01 to 600".into())
}

fn chosen_peers(run: &Run, only: Option<&str>) -> Result<Vec<String>> {
    let Some(only) = only else {
        return Ok(run.peers.iter().map(|&peer| peer.to_owned()).collect());
    };
    for name in only.split(',') {
        if !run.peers.contains(&name) {
            return Err(format!("--only: no peer is named {name:?}; there are {}", run.peers.join(", ")).into());
        }
    }
    let is_chosen = |peer: &&&str| only.split(',').any(|name| name == **peer);
    Ok(run.peers.iter().filter(is_chosen).map(|&peer| peer.to_owned()).collect())
}

fn chosen_loads(run: &Run, loads: Option<&str>, is_quick: bool) -> Result<Vec<Load>> {
    let named = |name: &str| {
        let load = run.loads.iter().find(|load| load.name == name).cloned();
        load.ok_or_else(|| format!("there is no load named {name}").into())
    };
    match loads {
        Some(names) => names.split(',').map(named).collect(),
        None => Ok(run.loads.iter().filter(|load| load.is_quick || !is_quick).cloned().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &str) -> Result<Wish> {
        parse(&words.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn wrong_commands_are_refused() {
        for words in [
            "",
            "graph",
            "chat --loads put-1",
            "kv --fast",
            "kv --only mysql",
            "kv --only",
            "kv --loads put-3",
            "kv --rounds 0",
            "kv --seconds -1",
            "kv --seconds nan",
            "kv extra",
        ] {
            assert!(parse_words(words).is_err(), "{words}");
        }
    }

    #[test]
    fn peers_keep_their_order() {
        let Ok(Wish::ListPeers(peers)) = parse_words("kv --only redb,raw --list-peers") else { panic!("not a list") };
        assert_eq!(peers, ["raw", "redb"]);
    }
}
