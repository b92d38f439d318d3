//! The graph store through the public API: every operation over memory and over rows, bad input, and answers beside those of a
//! multigraph that knows time and provenance.

mod bad_input;
mod damage;
mod defects;
mod facts;
mod large;
mod lookup;
mod merge;
mod model;
mod operations;
mod processes;
mod traversal;

pub(crate) use processes::walk_until_told;

use larder::protocol::graph::{EntitySummary, Outcome, UpsertedEntity, UpsertedRelation};
use larder::{Graph, JsonText, Larder, NewEntity, NewRelation, RelationId};

/// A larder in a folder of its own, which goes with it.
struct InFolder {
    larder: Larder,
    _folder: tempfile::TempDir,
}

impl std::ops::Deref for InFolder {
    type Target = Larder;
    fn deref(&self) -> &Larder {
        &self.larder
    }
}

/// Returns a larder that walks the graph in memory, one that does so without asking SQLite, and one that walks rows.
async fn each_way() -> [InFolder; 3] {
    [open(2 << 30, false).await, open(2 << 30, true).await, open(0, false).await]
}

async fn open(index_bytes_max: u64, is_exclusive: bool) -> InFolder {
    let folder = tempfile::tempdir().unwrap();
    let builder = Larder::builder(folder.path()).graph(|graph| graph.own.index_bytes_max = index_bytes_max);
    let builder = if is_exclusive { builder.exclusive() } else { builder };
    InFolder { larder: builder.open().await.unwrap(), _folder: folder }
}

fn json(text: &str) -> JsonText {
    JsonText::new(text).unwrap()
}

fn fact(subject: &str, label: &str, object: &str) -> NewRelation {
    NewRelation::new(subject, label, object).unwrap()
}

fn entity(name: &str) -> NewEntity {
    NewEntity::new("entity", name).unwrap()
}

/// Stores facts written as `subject label object`.
async fn tell(graph: &Graph, facts: &[&str]) -> Vec<RelationId> {
    let relations = facts.iter().map(|text| {
        let [subject, label, object] = text.split(' ').collect::<Vec<_>>()[..] else { panic!("{text} is no fact") };
        fact(subject, label, object)
    });
    graph.upsert_relations(relations).await.unwrap().into_iter().map(|upserted| upserted.id).collect()
}

fn names<'a>(entities: impl IntoIterator<Item = &'a EntitySummary>) -> Vec<&'a str> {
    entities.into_iter().map(|entity| entity.name.as_str()).collect()
}

async fn neighbors(graph: &Graph, of: &str) -> Vec<String> {
    let found = graph.neighbors(of).await.unwrap();
    found.into_iter().map(|neighbor| neighbor.entity.name.as_str().to_owned()).collect()
}

fn entity_outcomes(upserted: &[UpsertedEntity]) -> Vec<Outcome> {
    upserted.iter().map(|upserted| upserted.outcome).collect()
}

fn outcomes(upserted: &[UpsertedRelation]) -> Vec<Outcome> {
    upserted.iter().map(|upserted| upserted.outcome).collect()
}

/// Checks that a full check finds nothing.
async fn assert_sound(larder: &Larder) {
    assert_eq!(larder.check(larder::CheckDepth::Full).await.unwrap().findings, []);
}
