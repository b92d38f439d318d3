//! Bits that rot in a closed file: no read answers with them, `check()` tells of each, and the store serves on.

use std::path::Path;

use larder::protocol::graph::MergeId;
use larder::{CheckDepth, Class, Larder, NewRelation, RelationId, Timestamp};

use super::{entity, fact, json};
use crate::support::damage::{Case, Noticed, each_damaged_column_is_noticed, flip_a_bit_in_every_row};

/// The columns that a relation's checksums cover, but for its key.
const RELATION_COLUMNS: [&str; 11] = [
    "subject",
    "label_key",
    "object",
    "qualifier",
    "weight",
    "valid_from_ms",
    "valid_until_ms",
    "recorded_ms",
    "checksum",
    "properties",
    "payload_checksum",
];

/// A fact with something in every column.
fn full(subject: &str, object: &str, since: i64) -> NewRelation {
    let fact = fact(subject, "knows", object).with_qualifier("well").with_weight(2.5);
    let fact = fact.with_properties(json(r#"{"from": "school"}"#)).with_source("letter 1").unwrap();
    fact.with_validity(Some(Timestamp(since)), Some(Timestamp(i64::MAX >> 8)))
}

/// A graph with a row in every table: a fact with a past, a merge, an alias and an embedding.
async fn fill(folder: &Path) {
    let larder = Larder::open(folder).await.unwrap();
    let graph = larder.graph();
    let ann = entity("ann").with_description("who writes").with_properties(json(r#"{"born": 1815}"#));
    let named = ["bob", "cid", "twin"].map(entity);
    graph.upsert_entities([ann.with_embedding([0.5, 0.25]).unwrap()].into_iter().chain(named)).await.unwrap();
    graph.upsert_relations([full("ann", "bob", 1)]).await.unwrap();
    graph.upsert_relations([full("ann", "bob", 2)]).await.unwrap();
    graph.merge("twin", "cid").await.unwrap();
    assert!(larder.check(CheckDepth::Full).await.unwrap().findings.is_empty());
    assert!(larder.close().await.is_clean());
}

#[tokio::test]
async fn every_damaged_column_is_noticed() {
    const ANN: &str = "name = 'ann'";
    const FIRST: &str = "rowid = (SELECT min(rowid) FROM relation)";
    let entity = ["label_key", "name", "created_ms", "updated_ms", "checksum", "description", "properties"];
    let past = ["superseded_ms", "key"].into_iter().chain(RELATION_COLUMNS);
    // At another end, or none, it is no fact of those who are asked about.
    let noticed = |column| if matches!(column, "subject" | "object") { Noticed::ByCheck } else { Noticed::OnRead };
    let cases: Vec<Case> = RELATION_COLUMNS
        .map(|column| ("relation", column, FIRST, noticed(column)))
        .into_iter()
        .chain(entity.into_iter().chain(["payload_checksum"]).map(|column| ("entity", column, ANN, Noticed::OnRead)))
        .chain(past.map(|column| ("relation_past", column, "1", Noticed::ByCheck)))
        .chain(["text", "checksum"].map(|column| ("label", column, "text = 'knows'", Noticed::ByCheck)))
        .chain(["entity_key", "is_alias", "checksum"].map(|column| ("name", column, ANN, Noticed::ByCheck)))
        .chain(["name", "label_key"].map(|column| ("name", column, ANN, Noticed::ByCheck)))
        .chain(["id", "checksum"].map(|column| ("source", column, "1", Noticed::OnRead)))
        .chain(["source_key", "relation_key"].map(|column| ("said", column, "1", Noticed::ByCheck)))
        .chain(["components", "checksum"].map(|column| ("embedding", column, "1", Noticed::OnRead)))
        .chain(
            ["last", "from_key", "into_key", "merged_ms", "names", "checksum"]
                .map(|column| ("merge", column, "1", Noticed::OnRead)),
        )
        .collect();
    let read = async |larder: &Larder, table: &str| {
        let graph = larder.graph();
        match table {
            "entity" => vec![graph.get("ann").await.err()],
            "embedding" => vec![graph.embedding("ann").await.err()],
            "relation" | "source" => vec![graph.relations().subject("ann").await.err()],
            "relation_past" => vec![graph.relations().recorded_at(Timestamp(i64::MAX)).await.err()],
            "merge" => vec![graph.undo_merge(the_merge(larder).await).await.err()],
            _ => vec![graph.neighbors("bob").await.err(), graph.named("ann").await.err()],
        }
    };
    let write = async |larder: &Larder| {
        // Where the label, or an end of it, is damaged, a fact is refused.
        if let Err(error) = larder.graph().upsert_relations([full("ann", "bob", 3), full("new", "other", 3)]).await {
            assert!(matches!(error.class(), Class::Corrupt | Class::Conflict), "{error}");
        }
    };
    each_damaged_column_is_noticed("graph.db", &cases, fill, read, write).await;
}

/// The merge of [`fill`]: the last change but that which it ends with.
async fn the_merge(larder: &Larder) -> MergeId {
    let before_last = larder.graph().sequence().await.unwrap().0 - 1;
    MergeId(before_last)
}

#[tokio::test]
async fn every_flipped_bit_of_a_relation_is_reported_and_the_others_are_served() {
    const RELATIONS: usize = RELATION_COLUMNS.len() * 60;
    let folder = tempfile::tempdir().unwrap();
    let larder = Larder::open(folder.path()).await.unwrap();
    let graph = larder.graph();
    let facts = (0..RELATIONS).map(|number| full("ann", &format!("friend {number}"), 1));
    let ids: Vec<RelationId> =
        graph.upsert_relations(facts).await.unwrap().into_iter().map(|upserted| upserted.id).collect();
    larder.close().await;
    // In their order: the first begins with the first of the columns.
    let columns: Vec<&str> = RELATION_COLUMNS.into_iter().collect();
    assert_eq!(flip_a_bit_in_every_row(&folder.path().join("graph.db"), "relation", &columns), RELATIONS);
    let larder = Larder::open(folder.path()).await.unwrap();
    let graph = larder.graph();
    let mut detected = 0;
    for id in ids {
        let read = graph.get_relation(id).await;
        detected += usize::from(read.is_err_and(|error| error.class() == Class::Corrupt));
    }
    println!("{detected} of {RELATIONS} flipped bits in relations are detected");
    assert_eq!(detected, RELATIONS);
    assert!(larder.check(CheckDepth::Full).await.unwrap().findings.len() >= RELATIONS);
    assert_eq!(graph.get("ann").await.unwrap().unwrap().name.as_str(), "ann");
    assert!(larder.health().is_well);
}
