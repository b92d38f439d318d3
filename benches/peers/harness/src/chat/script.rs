//! The fixed script every peer must answer alike before any time is compared.
//!
//! Its limits lie apart from the sums of whole turns, so that a count of joined texts (LlamaIndex's) cuts where a sum of
//! counts does.

use super::{Peer, entry};
use crate::Result;

/// Runs the script on an empty peer; a line for each answer.
///
/// # Errors
/// The peer's own.
pub async fn run(peer: &impl Peer) -> Result<Vec<String>> {
    let mut answers = Vec::new();
    for (session, first, batches) in
        [("a", 0, [1, 1, 40]), ("b", 500, [2, 18, 30]), ("ключ %_'\";--", 1_000, [1, 2, 3])]
    {
        let mut next = first;
        for count in batches {
            peer.append(session, (next..next + count).map(entry::message).collect()).await?;
            next += count;
            answers.push(format!("{session}: {} messages", peer.count(session).await?));
            for tokens in [200, 500, 1_000, 2_100, 8_192] {
                if tokens < 200 * count.min(2) {
                    continue;
                }
                let window = peer.window(session, tokens).await?;
                answers.push(format!(
                    "{session} of {tokens}: {} from {:?}",
                    window.len(),
                    window.first().map(|text| head(text))
                ));
            }
        }
    }
    Ok(answers)
}

fn head(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}

/// Checks what a search for a message's topic found, by the numbers that texts begin with: cheap enough for timed loops.
///
/// # Errors
/// The answer is not what it must be.
pub(super) fn check_found(found: &[String], number: u64, message_count: u64) -> Result<()> {
    let mut numbers: Vec<u64> = found.iter().filter_map(|text| head(text).strip_prefix('m')?.parse().ok()).collect();
    numbers.sort_unstable();
    let expected = (number % entry::TOPICS..message_count).step_by(entry::TOPICS as usize);
    let is_right = found.len() == numbers.len() && expected.eq(numbers.iter().copied());
    if is_right { Ok(()) } else { Err(format!("a search for {} found {numbers:?}", entry::topic(number)).into()) }
}
