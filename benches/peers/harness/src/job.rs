//! A peer as a program that a driver in Python starts: one job in JSON as its argument, one answer in JSON on its last line.

use std::process::ExitCode;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Result;

/// Does the job that the second argument holds, if the first is `store`; `None` if it is another store.
#[must_use]
pub fn main<J: DeserializeOwned, A: Serialize>(store: &str, serve: impl FnOnce(J) -> Result<A>) -> Option<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [named, job] = arguments.as_slice() else { return None };
    if named != store {
        return None;
    }
    let answer = serde_json::from_str(job).map_err(Into::into).and_then(serve);
    Some(match answer.and_then(|answer| Ok(serde_json::to_string(&answer)?)) {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    })
}
