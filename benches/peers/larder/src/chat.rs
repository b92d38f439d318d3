//! The chat store through its public handles.

use std::path::PathBuf;

use larder::protocol::chat::StoredMessage;
use larder::{ChatMessage, ContentBlock, Durability, Larder, Role};
use peer_harness::Result;
use peer_harness::chat::Peer;
use peer_harness::chat::entry::Said;
use peer_harness::kv;
use peer_harness::peer::{self, About};

pub(crate) struct LarderChat(Larder);

/// The text of a plain message, taken out of it.
fn text(message: StoredMessage) -> String {
    match message.message.blocks.into_iter().next() {
        Some(ContentBlock::Text { text, .. }) => text,
        _ => String::new(),
    }
}

impl Peer for LarderChat {
    fn about() -> About {
        About {
            callers: "tasks, which count; windows in place, searches on reader threads".to_owned(),
            ..<crate::LarderKv as kv::Peer>::about()
        }
    }

    async fn open(folder: PathBuf, durability: peer::Durability) -> Result<Self> {
        let durability = match durability {
            peer::Durability::Durable => Durability::Durable,
            peer::Durability::Relaxed => Durability::Relaxed,
        };
        Ok(Self(Larder::builder(folder).chat(|chat| chat.common.durability = durability).open().await?))
    }

    async fn append(&self, session: &str, messages: Vec<Said>) -> Result<()> {
        let messages = messages.into_iter().map(|said| ChatMessage::new(Role::from(said.role), said.text));
        self.0.chat().session(session).append(messages).await?;
        Ok(())
    }

    async fn window(&self, session: &str, tokens: u64) -> Result<Vec<String>> {
        let window = self.0.chat().session(session).window(tokens).await?;
        Ok(window.messages.into_iter().map(text).collect())
    }

    async fn search(&self, session: &str, word: &str, limit: usize) -> Result<Vec<String>> {
        let hits = self.0.chat().session(session).search(word).limit(limit).await?;
        Ok(hits.into_iter().map(|hit| text(hit.message)).collect())
    }

    async fn count(&self, session: &str) -> Result<u64> {
        let described = self.0.chat().session(session).description().await?;
        Ok(described.map_or(0, |described| described.message_count))
    }

    async fn close(self) -> Result<()> {
        self.0.close().await;
        Ok(())
    }
}
