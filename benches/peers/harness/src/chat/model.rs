//! A peer that keeps lists in memory: the answers every peer must give, and the control of the checks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::Peer;
use super::entry::{self, Said};
use crate::Result;
use crate::peer::{About, Durability};

/// The model; it keeps nothing on disk.
#[derive(Debug, Default)]
pub struct Model(Mutex<BTreeMap<String, Vec<Said>>>);

impl Model {
    fn said(&self, session: &str) -> Vec<Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(session).cloned().unwrap_or_default()
    }
}

/// The newest whole turns that have at most `tokens`.
#[must_use]
pub fn window(said: &[Said], tokens: u64) -> &[Said] {
    let (mut start, mut sum) = (said.len(), 0);
    for (at, message) in said.iter().enumerate().rev() {
        sum += entry::tokens(&message.text);
        if sum > tokens {
            break;
        }
        if message.role == "user" {
            start = at;
        }
    }
    said.get(start..).unwrap_or_default()
}

impl Peer for Model {
    fn about() -> About {
        let nothing = "nothing is kept".to_owned();
        About { versions: String::new(), durable: nothing.clone(), relaxed: nothing, callers: "in place".to_owned() }
    }

    async fn open(_: PathBuf, _: Durability) -> Result<Self> {
        Ok(Self::default())
    }

    async fn append(&self, session: &str, messages: Vec<Said>) -> Result<()> {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.entry(session.to_owned()).or_default().extend(messages);
        Ok(())
    }

    async fn window(&self, session: &str, tokens: u64) -> Result<Vec<String>> {
        let said = self.said(session);
        Ok(window(&said, tokens).iter().map(|message| message.text.clone()).collect())
    }

    async fn search(&self, session: &str, word: &str, limit: usize) -> Result<Vec<String>> {
        let holds = |message: &Said| message.text.split(' ').any(|part| part == word);
        let found = self.said(session).into_iter().filter(holds).map(|message| message.text);
        Ok(found.take(limit).collect())
    }

    async fn count(&self, session: &str) -> Result<u64> {
        Ok(self.said(session).len() as u64)
    }

    async fn close(self) -> Result<()> {
        Ok(())
    }
}
