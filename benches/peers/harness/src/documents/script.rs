//! The fixed script every peer must answer alike before any time is compared.

use super::entry::{self, Chunk};
use super::{CHUNKS, Peer};
use crate::Result;

/// Runs the script on an empty peer; a line for each answer.
///
/// # Errors
/// The peer's own.
pub async fn run(peer: &impl Peer) -> Result<Vec<String>> {
    let mut answers = Vec::new();
    answer(peer, &mut answers).await?;
    for number in 0..3 {
        peer.put(&entry::document(number), entry::chunks(number)).await?;
    }
    answer(peer, &mut answers).await?;
    // The same again, then with other texts, fewer, and more.
    let written = peer.put(&entry::document(1), entry::chunks(1)).await?;
    answers.push(format!("written again: {}", if written <= CHUNKS { "at most all" } else { "too many" }));
    answer(peer, &mut answers).await?;
    let mut changed = entry::chunks(1);
    changed.truncate(7);
    for chunk in changed.iter_mut().take(3) {
        chunk.text = format!("changed {}", chunk.text);
    }
    changed.push(Chunk {
        id: "new #'\"".to_owned(),
        text: "ключ 鍵 changed".to_owned(),
        metadata: "{}".to_owned(),
        span: (0, 0),
    });
    peer.put(&entry::document(1), changed).await?;
    answer(peer, &mut answers).await?;
    answers.push(format!("changed: {:?}", ids(peer, "changed").await?));
    answers.push(format!("ключ: {:?}", ids(peer, "ключ").await?));
    peer.put(&entry::document(2), Vec::new()).await?;
    answer(peer, &mut answers).await?;
    Ok(answers)
}

async fn ids(peer: &impl Peer, words: &str) -> Result<Vec<String>> {
    let mut ids: Vec<String> = peer.search(words, 1_000).await?.into_iter().map(|hit| hit.id).collect();
    ids.sort();
    Ok(ids)
}

async fn answer(peer: &impl Peer, answers: &mut Vec<String>) -> Result<()> {
    answers.push(format!("count {}", peer.count().await?));
    for (number, chunk) in [(0, 0), (1, 1), (1, 50), (2, 99)] {
        let expected = entry::chunk(number, chunk);
        let found = peer.get(&expected.id).await?;
        let said = match &found {
            None => "none".to_owned(),
            Some(found) if *found == expected => "as it was put".to_owned(),
            Some(other) => format!("{other:?}"),
        };
        answers.push(format!("get {}: {said}", expected.id));
        answers.push(format!("search {number} {chunk}: {:?}", ids(peer, &entry::own_word(number, chunk)).await?));
    }
    // Of two words: every chunk that holds both.
    answers.push(format!("search two: {:?}", ids(peer, &format!("{} {}", entry::word(30), entry::word(41))).await?));
    Ok(())
}
