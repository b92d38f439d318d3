//! The change log read back: it is written in each commit's own transaction, so a store whose rows and log disagree is not
//! at the boundary of a commit.

use std::time::Duration;

use futures::StreamExt;
use larder::{Change, Notice, Notices, Result};

/// The log reaches its newest commit within this, or does not hold it.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Reads the log up to the commit `newest`; `None` where it does not reach back to the first.
pub(super) async fn replay(
    mut notices: Notices,
    newest: u64,
    violations: &mut Vec<String>,
) -> Result<Option<Vec<Change>>> {
    let (mut position, mut changes) = (0, Vec::new());
    while position < newest {
        let Ok(Some(notice)) = tokio::time::timeout(WAIT_MAX, notices.next()).await else {
            violations.push(format!("the change log ends at {position}, the store is at {newest}"));
            break;
        };
        // Another notice says that the log was pruned.
        let Notice::Commit(commit) = notice? else { return Ok(None) };
        position = commit.sequence.0;
        changes.extend(commit.changes);
    }
    Ok(Some(changes))
}
