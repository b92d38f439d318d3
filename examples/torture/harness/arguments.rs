//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use larder::Durability;

use super::plan::STORES;
use super::run::RunOptions;
use super::sabotage::{Spoil, parse_lie};

pub(crate) const USAGE: &str = "\
usage: torture run --dir D --seed S [--stores kv] [--durability durable|relaxed] [--callers 64] [--seconds 10]
                   [--after LOG] [--sabotage ack-before-commit|skip-batch-half]
       torture verify --dir D --log FILE [--sabotage lose-last|add-row]

run     loads the stores and prints a line each, unbuffered: TRY <id> <op>, then ACK <id> or ERR <id> <class> <written>,
        where <written> is applied, not-applied or unknown; BAD <id> <what> where an answer was wrong by itself.
        --after goes on where an earlier log of the same folder ends, and repeats what can be repeated of its open ids.
        The logs are then verified together: cat first.log second.log > all.log
verify  proves that what was acknowledged is there, what was refused is not, and nothing else is. No process may have
        the folder open.
--sabotage  breaks a promise on purpose: verify must then fail. On verify it spoils a copy of the folder.

exit codes: 0 all held, 1 a promise was broken or the harness failed, 2 the command line cannot be used";

/// A command line that makes sense.
#[derive(Debug)]
pub(crate) enum Arguments {
    Run(RunOptions),
    Verify { folder: PathBuf, log: PathBuf, spoil: Option<Spoil> },
}

impl Arguments {
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut arguments = arguments.into_iter();
        let command = arguments.next().ok_or("no command")?;
        let mut flags = Flags::read(arguments)?;
        let parsed = match command.as_str() {
            "run" => Self::Run(run_options(&mut flags)?),
            "verify" => Self::Verify {
                folder: flags.need("dir")?.into(),
                log: flags.need("log")?.into(),
                spoil: flags.take("sabotage").map(|word| Spoil::parse(&word)).transpose()?,
            },
            other => return Err(format!("no command {other:?}")),
        };
        flags.end()?;
        Ok(parsed)
    }
}

fn run_options(flags: &mut Flags) -> Result<RunOptions, String> {
    let stores: Vec<String> = flags.take("stores").unwrap_or("kv".into()).split(',').map(str::to_owned).collect();
    if let Some(unknown) = stores.iter().find(|store| !STORES.contains(&store.as_str())) {
        return Err(format!("no store {unknown:?}; there are: {}", STORES.join(" ")));
    }
    let durability = match flags.take("durability").as_deref() {
        None | Some("durable") => Durability::Durable,
        Some("relaxed") => Durability::Relaxed,
        Some(other) => return Err(format!("no durability {other:?}")),
    };
    Ok(RunOptions {
        folder: flags.need("dir")?.into(),
        seed: number("seed", &flags.need("seed")?)?,
        stores,
        durability,
        callers: flags.take("callers").map_or(Ok(64), |text| number("callers", &text))?,
        duration: Duration::from_secs(flags.take("seconds").map_or(Ok(10), |text| number("seconds", &text))?),
        earlier_log: flags.take("after").map(PathBuf::from),
        lie: flags.take("sabotage").map(|word| parse_lie(&word)).transpose()?,
    })
}

fn number(flag: &str, text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("--{flag} {text:?} is not a number"))
}

/// `--flag value` pairs.
struct Flags(Vec<(String, String)>);

impl Flags {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut flags = Vec::new();
        while let Some(argument) = arguments.next() {
            let name = argument.strip_prefix("--").ok_or_else(|| format!("{argument:?} is not a flag"))?.to_owned();
            let value = arguments.next().ok_or_else(|| format!("--{name} needs a value"))?;
            flags.push((name, value));
        }
        Ok(Self(flags))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(flag, _)| flag == name)?;
        Some(self.0.remove(at).1)
    }

    fn need(&mut self, name: &str) -> Result<String, String> {
        self.take(name).ok_or_else(|| format!("--{name} is missing"))
    }

    fn end(self) -> Result<(), String> {
        self.0.first().map_or(Ok(()), |(name, _)| Err(format!("no flag --{name}, or it stands twice")))
    }
}
