use std::time::Duration;

use larder::protocol::limits::{ENTITY_NAME_BYTES_MAX, LABEL_BYTES_MAX};
use larder::{Class, Larder, NewEntity, NewRelation};

use super::{assert_sound, each_way, entity, fact, json, neighbors, tell};
use crate::support::assert_refused;

#[tokio::test]
async fn names_with_any_signs_are_names() {
    for larder in each_way().await {
        let graph = larder.graph();
        let odd = ["'; DROP TABLE entity; --", "\"", "a|b\tc\nd", "%_*", "->", " ", "日本語", "\u{202e}x", "."];
        for name in odd {
            graph.upsert_triplet(name, "'\" --", "center").await.unwrap();
        }
        assert_eq!(neighbors(&graph, "center").await, odd);
        for name in odd {
            assert_eq!(neighbors(&graph, name).await, ["center"]);
            assert_eq!(graph.named(name).await.unwrap().len(), 1, "{name:?}");
        }
        assert_eq!(graph.neighbors("center").relation("'\" --").limit(100).await.unwrap().len(), odd.len());
        let longest = "é".repeat(ENTITY_NAME_BYTES_MAX / 2);
        graph.upsert_entities([entity(&longest)]).await.unwrap();
        assert!(graph.get(&longest).await.unwrap().is_some());
        assert!(!graph.misspelt(&longest).limit(1).await.unwrap().is_empty());
        assert_sound(&larder).await;
    }
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused_and_nothing_of_its_batch_is_there() {
    let larder = Larder::temporary().await.unwrap();
    let graph = larder.graph();
    let too_long = "x".repeat(ENTITY_NAME_BYTES_MAX + 1);
    for name in ["", "a\0b", &too_long] {
        assert!(NewEntity::new("entity", name).is_err());
        assert_refused(graph.neighbors(name).await, Class::InvalidInput, &["entity name"]);
        assert_refused(graph.upsert_triplet("a", "r", name).await, Class::InvalidInput, &["entity name"]);
    }
    assert!(NewRelation::new("a", "r".repeat(LABEL_BYTES_MAX + 1), "b").is_err());
    assert!(NewRelation::new("a", "", "b").is_err());
    for (bad, says) in [
        (fact("a", "r", "b").with_weight(f64::NAN), "weight"),
        (fact("a", "r", "b").with_weight(0.0), "weight"),
        (fact("a", "r", "b").with_weight(-1.0), "weight"),
        (fact("a", "r", "b").with_weight(f64::INFINITY), "weight"),
        (fact("a", "r", "b").with_qualifier("x".repeat(1_000)), "qualifier"),
        (fact("a", "r", "b").with_qualifier("\0"), "qualifier"),
        (fact("a", "r", "b").with_properties(json("[1]")), "not a JSON object"),
        (fact("a", "r", "b").with_properties(json(r#"{"a": 1, "a": 2}"#)), "names a member twice"),
        (fact("a", "r", "b").with_properties(json(&format!("{{\"a\": \"{}\"}}", "x".repeat(2 << 20)))), "too large"),
    ] {
        assert_refused(graph.upsert_relations([fact("good", "r", "b"), bad]).await, Class::InvalidInput, &[says]);
    }
    for (bad, says) in [
        (entity("bad").with_properties(json("1")), "not a JSON object"),
        (entity("bad").with_description("x".repeat(2 << 20)), "too large"),
    ] {
        assert_refused(graph.upsert_entities([entity("good"), bad]).await, Class::InvalidInput, &[says]);
    }
    let counts = graph.counts().await.unwrap();
    assert_eq!((counts.entities, counts.relations), (0, 0));
    assert_eq!(graph.upsert_entities([]).await.unwrap(), []);
    assert_eq!(graph.upsert_relations([]).await.unwrap(), []);
    assert_eq!(graph.delete([""; 0]).await.unwrap(), 0);
}

#[tokio::test]
async fn questions_beyond_the_bounds_are_refused() {
    for larder in each_way().await {
        let graph = larder.graph();
        tell(&graph, &["a r b"]).await;
        assert_refused(graph.neighbors("a").limit(10_001).await, Class::InvalidInput, &["limit"]);
        assert_refused(graph.neighbors("a").depth(65).await, Class::InvalidInput, &["depth"]);
        assert_refused(graph.neighborhood(["a"], 1).limit(100_001).await, Class::InvalidInput, &["limit"]);
        assert_refused(graph.neighborhood(vec!["a"; 1_001], 1).await, Class::InvalidInput, &["start from"]);
        assert_refused(graph.shortest_path("a", "b").hops(65).await, Class::InvalidInput, &["depth"]);
        assert_refused(graph.paths("a", "b").limit(10_001).await, Class::InvalidInput, &["limit"]);
        assert_refused(graph.rank(["a"]).damping(1.0).await, Class::InvalidInput, &["damping"]);
        assert_refused(graph.rank(["a"]).damping(f64::NAN).await, Class::InvalidInput, &["damping"]);
        assert_refused(graph.rank(["a"]).tolerance(0.0).await, Class::InvalidInput, &["tolerance"]);
        assert_refused(graph.rank([""; 0]).await, Class::InvalidInput, &["seeds"]);
        assert_refused(graph.rank(["a"]).seed("b", -1.0).await, Class::InvalidInput, &["seed weight"]);
        assert_refused(graph.subgraph(["a"]).limits(10_001, 1).await, Class::InvalidInput, &["limit"]);
        assert_refused(graph.schema(10_001).await, Class::InvalidInput, &["limit"]);
        assert_refused(graph.entities().limit(0).await, Class::InvalidInput, &["limit"]);
        assert_refused(graph.relations().limit(0).await, Class::InvalidInput, &["limit"]);
        let labels = (0..1_001).fold(graph.neighbors("a"), |request, number| request.relation(number.to_string()));
        assert_refused(labels.await, Class::InvalidInput, &["labels"]);
        for missing in [
            graph.shortest_path("a", "nobody").await.map(drop),
            graph.rank(["nobody"]).await.map(drop),
            graph.degree("nobody").await.map(drop),
            graph.relation_map(["nobody"]).await.map(drop),
        ] {
            assert_refused(missing, Class::NotFound, &["nobody"]);
        }
    }
}

#[tokio::test]
async fn walks_end_at_their_deadline() {
    for larder in each_way().await {
        let graph = larder.graph();
        // Paths through a complete graph are without number.
        let nodes = 40;
        let pairs = (0..nodes).flat_map(|a| (0..nodes).filter(move |b| a != *b).map(move |b| (a, b)));
        let facts = pairs.map(|(a, b)| fact(&format!("n{a}"), "r", &format!("n{b}")));
        graph.upsert_relations(facts.collect::<Vec<_>>()).await.unwrap();
        let endless = graph.paths("n0", "n1").hops(64).limit(10_000).deadline(Duration::from_millis(30));
        // Either the steps are used up, which is an answer, or the deadline passes.
        match endless.await {
            Ok(paths) => assert!(paths.len() <= 10_000),
            Err(error) => assert_eq!(error.class(), Class::Deadline),
        }
        assert_eq!(neighbors(&graph, "n0").await.len(), 78);
    }
}
