//! rusqlite by hand: the limit that the others are held against.

mod chat;
mod documents;
mod embed_cache;
mod graph;
mod kv;
mod vectors;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = peer_harness::vectors::main(vectors::serve) {
        return code;
    }
    if let Some(code) = peer_harness::graph::main(graph::serve) {
        return code;
    }
    peer_harness::peer::main(&[
        ("kv", peer_harness::kv::serve::<kv::Raw>),
        ("chat", peer_harness::chat::serve::<chat::RawChat>),
        ("documents", peer_harness::documents::serve::<documents::RawDocuments>),
        ("embed_cache", peer_harness::embed_cache::serve::<embed_cache::RawCache>),
    ])
}
