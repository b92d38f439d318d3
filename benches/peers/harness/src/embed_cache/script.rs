//! The fixed script: what every cache must answer alike.

use super::{Peer, entry};
use crate::Result;

/// Runs the script; a line for each answer.
///
/// # Errors
/// The peer failed.
pub async fn run<P: Peer>(peer: &P) -> Result<Vec<String>> {
    let mut answers = Vec::new();
    for number in [0, 1, 2, 1] {
        peer.put(&entry::text(number), entry::vector(number + 5)).await?;
        answers.push(format!("count {}", peer.count().await?));
    }
    for number in [0, 1, 3] {
        let found = peer.get(&entry::text(number)).await?;
        answers.push(format!("get {number}: {:?}", found.map(|vector| vector.as_ref().to_vec())));
    }
    // Two are there with another vector than the model's, one is repeated.
    let texts: Vec<String> = [1, 7, 2, 8, 7].into_iter().map(entry::text).collect();
    let vectors = peer.get_many(&texts).await?;
    answers.extend(vectors.iter().map(|vector| format!("many: {:?}", vector.as_ref())));
    let found = peer.get(&entry::text(8)).await?;
    answers.push(format!("get 8: {:?}", found.map(|vector| vector.as_ref().to_vec())));
    answers.push(format!("count {}", peer.count().await?));
    Ok(answers)
}
