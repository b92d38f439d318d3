//! The fixed script every peer must answer alike before any time is compared.

use super::{Peer, entry};
use crate::Result;
use crate::random::{Random, mix};

/// Runs the script on an empty peer; a line for each answer, with values as length and hash.
///
/// # Errors
/// The peer's own.
pub async fn run(peer: &impl Peer) -> Result<Vec<String>> {
    let mut answers = Vec::new();
    chosen_cases(peer, &mut answers).await?;
    random_steps(peer, &mut answers).await?;
    answer_scan(peer, "", usize::MAX >> 1, &mut answers).await?;
    Ok(answers)
}

/// Missing keys, overwriting, empty and large values, other scripts than Latin, repeated keys in a batch, deleting twice.
async fn chosen_cases(peer: &impl Peer, answers: &mut Vec<String>) -> Result<()> {
    answer_get(peer, "missing", answers).await?;
    answer_delete(peer, "missing", answers).await?;
    answer_scan(peer, "", 10, answers).await?;
    peer.put("a".to_owned(), b"first".to_vec()).await?;
    peer.put("a".to_owned(), b"second".to_vec()).await?;
    answer_get(peer, "a", answers).await?;
    peer.put("empty".to_owned(), Vec::new()).await?;
    answer_get(peer, "empty", answers).await?;
    peer.put("clé/ключ/鍵 %_'\";--".to_owned(), vec![0, 255, 0]).await?;
    answer_get(peer, "clé/ключ/鍵 %_'\";--", answers).await?;
    peer.put("large".to_owned(), entry::value(1, 1, 100_000)).await?;
    answer_get(peer, "large", answers).await?;
    let batch = [("b", 1), ("c", 2), ("b", 3), ("a", 4)];
    peer.put_many(batch.map(|(key, version)| (key.to_owned(), entry::value(9, version, 50))).to_vec()).await?;
    for key in ["a", "b", "c", "B"] {
        answer_get(peer, key, answers).await?;
    }
    answer_delete(peer, "b", answers).await?;
    answer_delete(peer, "b", answers).await?;
    answer_get(peer, "b", answers).await?;
    answer_scan(peer, "b", 2, answers).await?;
    answer_scan(peer, "zzz", 2, answers).await
}

/// 600 drawn steps over 80 keys, so that most meet an entry that is there, was replaced, or was deleted.
async fn random_steps(peer: &impl Peer, answers: &mut Vec<String>) -> Result<()> {
    let mut random = Random::new(2, 9);
    for version in 0..600 {
        let index = random.below(80);
        let key = entry::key(index);
        match random.below(10) {
            0..=3 => peer.put(key, entry::value(index, version, 20 + (version as usize % 3_000))).await?,
            4..=5 => answer_get(peer, &key, answers).await?,
            6..=7 => answer_delete(peer, &key, answers).await?,
            8 => answer_scan(peer, &key, 7, answers).await?,
            _ => {
                let rows = (0..20).map(|step| (index + step * step) % 80);
                peer.put_many(rows.map(|index| (entry::key(index), entry::value(index, version, 64))).collect())
                    .await?;
            }
        }
    }
    Ok(())
}

async fn answer_get(peer: &impl Peer, key: &str, answers: &mut Vec<String>) -> Result<()> {
    let value = peer.get(key).await?;
    answers.push(format!("get {key}: {}", value.map_or("none".to_owned(), |value| digest(&value))));
    Ok(())
}

async fn answer_delete(peer: &impl Peer, key: &str, answers: &mut Vec<String>) -> Result<()> {
    let was_there = peer.delete(key).await?;
    answers.push(format!("delete {key}: {was_there}"));
    Ok(())
}

/// Reads up to `limit` rows in pages, so that a peer's own limit of a page does not matter.
async fn answer_scan(peer: &impl Peer, from: &str, limit: usize, answers: &mut Vec<String>) -> Result<()> {
    let mut next = from.to_owned();
    let mut left = limit;
    while left > 0 {
        let rows = peer.scan(&next, left.min(100)).await?;
        answers.extend(rows.iter().map(|(key, value)| format!("scan {from}: {key} {}", digest(value))));
        left -= rows.len();
        let Some((last, _)) = rows.last() else { break };
        next = format!("{last}\0");
    }
    answers.push(format!("scan {from}: end"));
    Ok(())
}

fn digest(value: &[u8]) -> String {
    let hash = value.iter().fold(value.len() as u64, |hash, &byte| mix(hash ^ u64::from(byte)));
    format!("{} bytes {hash:016x}", value.len())
}
