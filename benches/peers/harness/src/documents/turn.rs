//! One turn: one caller runs a load; every answer is checked, and after puts the contents.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::{CHUNKS, Call, DOCUMENTS, Hit, Peer, entry};
use crate::Result;
use crate::callers::{self, Carrier, Stop};
use crate::latency::Percentiles;
use crate::peer::TurnReport;
use crate::random::Random;

/// Hits of one search.
const LIMIT: usize = 10;

/// Runs one turn: the times to warm up and to measure, in seconds.
pub(super) fn run<P: Peer>(runtime: &Runtime, peer: P, call: Call, times: (f64, f64), seed: u64) -> Result<TurnReport> {
    let peer = Arc::new(peer);
    let calls = |caller: Caller, stop: Stop| {
        let peer = Arc::clone(&peer);
        async move { caller.run(&*peer, call, &stop).await }
    };
    let (warm_up, measured) = (Duration::try_from_secs_f64(times.0)?, Duration::try_from_secs_f64(times.1)?);
    let caller = Caller { random: Random::new(seed, 0), next_document: 0, latencies: Vec::new(), busy: Duration::ZERO };
    let (mut states, _) = callers::run(runtime, Carrier::Task, warm_up, vec![caller], calls)?;
    for caller in &mut states {
        (caller.latencies, caller.busy) = (Vec::new(), Duration::ZERO);
    }
    let (states, _) = callers::run(runtime, Carrier::Task, measured, states, calls)?;
    let caller = states.into_iter().next().ok_or("no caller")?;
    if call == Call::Ingest {
        runtime.block_on(check_contents(&*peer, caller.next_document))?;
    }
    Ok(TurnReport {
        calls: caller.latencies.len() as u64,
        // Making the texts and checking the answers are not the peer's time.
        seconds: caller.busy.as_secs_f64(),
        latency: Percentiles::of(caller.latencies).ok_or("no call ended in the measured time")?,
    })
}

struct Caller {
    random: Random,
    next_document: u64,
    latencies: Vec<Duration>,
    busy: Duration,
}

impl Caller {
    fn note(&mut self, start: Instant) {
        let took = start.elapsed();
        self.busy += took;
        self.latencies.push(took);
    }

    async fn run<P: Peer>(mut self, peer: &P, call: Call, stop: &Stop) -> Result<Self> {
        while !stop.is_set() {
            match call {
                Call::Ingest => {
                    let (id, chunks) = (entry::document(self.next_document), entry::chunks(self.next_document));
                    let start = Instant::now();
                    let written = peer.put(&id, chunks).await?;
                    self.note(start);
                    self.next_document += 1;
                    if written != CHUNKS {
                        return Err(format!("{written} chunks of {id} were written").into());
                    }
                }
                Call::Reingest => {
                    let number = self.random.below(DOCUMENTS);
                    let (id, chunks) = (entry::document(number), entry::chunks(number));
                    let start = Instant::now();
                    let written = peer.put(&id, chunks).await?;
                    self.note(start);
                    if written != 0 {
                        return Err(format!("{written} chunks of {id} were written though nothing changed").into());
                    }
                }
                Call::Search => {
                    let words = [entry::word(20 + self.random.below(100)), entry::word(20 + self.random.below(100))];
                    let query = words.join(" ");
                    let start = Instant::now();
                    let hits = peer.search(&query, LIMIT).await?;
                    self.note(start);
                    let holds = |text: &str| words.iter().all(|word| text.split(' ').any(|other| other == word));
                    let is_ranked = hits.is_sorted_by(|better, worse| better.score >= worse.score);
                    let is_right = |hit: &Hit| holds(&hit.text) && !hit.snippet.is_empty() && hit.score > 0.0;
                    if hits.len() != LIMIT || !is_ranked || !hits.iter().all(is_right) {
                        return Err(format!("a search for {query} found {hits:?}").into());
                    }
                }
                Call::Get => {
                    let expected = entry::chunk(self.random.below(DOCUMENTS), self.random.below(CHUNKS));
                    let start = Instant::now();
                    let found = peer.get(&expected.id).await?;
                    self.note(start);
                    if found.as_ref() != Some(&expected) {
                        return Err(format!("{} is {found:?}", expected.id).into());
                    }
                }
            }
            // Calls that never wait would otherwise keep a worker for ever.
            tokio::task::consume_budget().await;
        }
        Ok(self)
    }
}

/// Every document holds what was acknowledged, and is found.
async fn check_contents<P: Peer>(peer: &P, document_count: u64) -> Result<()> {
    let count = peer.count().await?;
    if count != document_count * CHUNKS {
        return Err(format!("{count} chunks where {} were put", document_count * CHUNKS).into());
    }
    for number in 0..document_count {
        let expected = entry::chunk(number, number % CHUNKS);
        let found = peer.get(&expected.id).await?;
        let hits = peer.search(&entry::own_word(number, number % CHUNKS), 2).await?;
        if found.as_ref() != Some(&expected) || hits.len() != 1 || hits.iter().any(|hit| hit.id != expected.id) {
            return Err(format!("{} is not what was put, or is not found", expected.id).into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::entry::Chunk;
    use super::super::model::Model;
    use super::super::script;
    use super::*;
    use crate::peer::{About, Durability};

    #[test]
    fn the_model_passes_what_it_can() {
        let runtime = callers::runtime().unwrap();
        assert!(run(&runtime, Model::default(), Call::Ingest, (0.01, 0.05), 1).unwrap().calls > 0);
        let peer = Model::default();
        runtime.block_on(async {
            for number in 0..DOCUMENTS {
                peer.put(&entry::document(number), entry::chunks(number)).await.unwrap();
            }
        });
        assert!(run(&runtime, peer, Call::Get, (0.01, 0.05), 1).unwrap().calls > 0);
    }

    /// The control: it forgets the last chunk of each document.
    #[derive(Default)]
    struct Broken(Model);

    impl Peer for Broken {
        fn about() -> About {
            Model::about()
        }
        async fn open(folder: PathBuf, durability: Durability) -> Result<Self> {
            Ok(Self(Model::open(folder, durability).await?))
        }
        async fn put(&self, document: &str, mut chunks: Vec<Chunk>) -> Result<u64> {
            chunks.pop();
            self.0.put(document, chunks).await.map(|written| written + 1)
        }
        async fn get(&self, id: &str) -> Result<Option<Chunk>> {
            self.0.get(id).await
        }
        async fn search(&self, words: &str, limit: usize) -> Result<Vec<Hit>> {
            self.0.search(words, limit).await
        }
        async fn count(&self) -> Result<u64> {
            self.0.count().await
        }
        async fn close(self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_forgotten_chunk_is_caught() {
        let runtime = callers::runtime().unwrap();
        assert!(run(&runtime, Broken::default(), Call::Ingest, (0.01, 0.05), 1).is_err());
        let answers = |peer: &Broken| runtime.block_on(script::run(peer)).unwrap();
        assert_ne!(answers(&Broken::default()), runtime.block_on(script::run(&Model::default())).unwrap());
    }
}
