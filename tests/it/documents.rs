//! The documents store through the public API: every operation, bad input, and what survives a reopen.

mod bad_input;
mod damage;
mod defects;
mod filters;
mod ingestion;
mod large;
mod model;
mod operations;
mod search;

use futures::TryStreamExt;
use larder::protocol::documents::StoredNode;
use larder::{Document, JsonText, Larder, Node};

fn document(id: &str) -> Document {
    Document::new(id).unwrap()
}

fn node(id: &str, text: &str) -> Node {
    Node::text(id, text).unwrap()
}

fn json(text: &str) -> JsonText {
    JsonText::new(text).unwrap()
}

/// Returns nodes `<document>#0`, `<document>#1`, … of these texts.
fn pieces(id: &str, texts: &[&str]) -> Vec<Node> {
    texts.iter().enumerate().map(|(n, text)| node(&format!("{id}#{n}"), text)).collect()
}

fn ids(nodes: &[StoredNode]) -> Vec<&str> {
    nodes.iter().map(|stored| stored.node.id.as_str()).collect()
}

fn texts(nodes: &[StoredNode]) -> Vec<&str> {
    nodes.iter().map(|stored| stored.node.content.text().unwrap_or_default()).collect()
}

async fn nodes_of(larder: &Larder, id: &str) -> Vec<StoredNode> {
    larder.documents().nodes(id).limit(100).stream().try_collect().await.unwrap()
}

async fn found(larder: &Larder, query: &str) -> Vec<String> {
    let hits = larder.documents().search(query).limit(10_000).await.unwrap();
    let mut ids: Vec<String> = hits.iter().map(|hit| hit.found.node.id.to_string()).collect();
    ids.sort();
    ids
}

/// Checks that a full check finds nothing.
async fn assert_sound(larder: &Larder) {
    assert_eq!(larder.check(larder::CheckDepth::Full).await.unwrap().findings, []);
}
