//! larder's documents store through its public handle, with every setting at its default but durability.

use std::path::PathBuf;

use larder::protocol::documents::{NodeContent, StoredNode};
use larder::{Document, Durability, JsonText, Larder, Node};
use peer_harness::Result;
use peer_harness::documents::entry::Chunk;
use peer_harness::documents::{Hit, Peer};
use peer_harness::peer::{self, About, locked_versions};

pub(crate) struct LarderDocuments(Larder);

fn node(chunk: Chunk) -> Result<Node> {
    let node = Node::text(chunk.id, chunk.text)?.with_metadata(JsonText::new(chunk.metadata)?);
    Ok(node.with_span(chunk.span.0, chunk.span.1))
}

fn chunk(stored: StoredNode) -> Chunk {
    let Node { id, content, metadata, span, .. } = stored.node;
    let NodeContent::Text(text) = content else { unreachable!("only texts are put") };
    Chunk {
        id: id.into(),
        text,
        metadata: metadata.map(String::from).unwrap_or_default(),
        span: span.map_or((0, 0), |span| (span.start, span.end)),
    }
}

impl Peer for LarderDocuments {
    fn about() -> About {
        About {
            versions: locked_versions(include_str!("../../Cargo.lock"), &["larder", "kameo", "rusqlite"]),
            durable: "Durable, the default: each commit group is synced before its writes are acknowledged".to_owned(),
            relaxed: "Relaxed: a crash of the process loses nothing, a power cut may lose the newest commits, never \
                      consistency"
                .to_owned(),
            callers: "tasks; point reads in place, searches on a reader thread".to_owned(),
        }
    }

    async fn open(folder: PathBuf, durability: peer::Durability) -> Result<Self> {
        let durability = match durability {
            peer::Durability::Durable => Durability::Durable,
            peer::Durability::Relaxed => Durability::Relaxed,
        };
        let builder = Larder::builder(folder).documents(|documents| documents.common.durability = durability);
        Ok(Self(builder.open().await?))
    }

    async fn put(&self, document: &str, chunks: Vec<Chunk>) -> Result<u64> {
        let nodes = chunks.into_iter().map(node).collect::<Result<Vec<_>>>()?;
        let outcome = self.0.documents().put(Document::new(document)?, nodes).await?;
        Ok(outcome.nodes.inserted + outcome.nodes.updated)
    }

    async fn get(&self, id: &str) -> Result<Option<Chunk>> {
        Ok(self.0.documents().get(id).await?.map(chunk))
    }

    async fn search(&self, words: &str, limit: usize) -> Result<Vec<Hit>> {
        let hits = self.0.documents().search(words).limit(limit).await?;
        let hit = |hit: larder::protocol::documents::NodeHit| {
            let Chunk { id, text, .. } = chunk(hit.found);
            Hit { id, text, snippet: hit.snippet, score: hit.score }
        };
        Ok(hits.into_iter().map(hit).collect())
    }

    async fn count(&self) -> Result<u64> {
        Ok(self.0.documents().count().await?)
    }

    async fn close(self) -> Result<()> {
        self.0.close().await;
        Ok(())
    }
}
