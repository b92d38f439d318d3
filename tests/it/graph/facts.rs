//! Provenance and time.

use larder::protocol::graph::SourceRemoval;
use larder::{Class, Larder, RelationId, Timestamp};

use super::{assert_sound, each_way, fact, json, neighbors, tell};
use crate::support::assert_refused;

#[tokio::test]
async fn removing_a_source_removes_only_facts_that_nothing_else_says() {
    for larder in each_way().await {
        let graph = larder.graph();
        let said = |subject, object, sources: &[&str]| {
            sources.iter().fold(fact(subject, "r", object), |fact, source| fact.with_source(source).unwrap())
        };
        graph
            .upsert_relations([
                said("a", "b", &["one", "two"]),
                said("b", "c", &["one"]),
                said("c", "d", &["two"]),
                said("a", "d", &[]),
            ])
            .await
            .unwrap();
        assert_eq!(graph.relations().source("one").await.unwrap().relations.len(), 2);
        let removal = graph.remove_source("one").await.unwrap();
        assert_eq!(removal, SourceRemoval { deleted: 1, kept: 1, deleted_entities: 0 });
        assert_eq!(graph.counts().await.unwrap().relations, 3);
        assert_eq!(graph.remove_source("one").await.unwrap(), SourceRemoval::default());
        let removal = graph.remove_source("two").with_lone_entities().await.unwrap();
        // What no source ever said stays, and so do its ends.
        assert_eq!(removal, SourceRemoval { deleted: 2, kept: 0, deleted_entities: 2 });
        assert_eq!(neighbors(&graph, "a").await, ["d"]);
        assert_eq!(graph.get("b").await.unwrap(), None);
        assert_sound(&larder).await;
    }
}

async fn recorded(larder: &Larder, id: RelationId) -> Timestamp {
    larder.graph().get_relation(id).await.unwrap().unwrap().recorded
}

/// Waits until the clock that writes are recorded by has moved on.
async fn tick(larder: &Larder, since: Timestamp) {
    loop {
        let id = tell(&larder.graph(), &["clock ticks on"]).await[0];
        larder.graph().delete_relations([id]).await.unwrap();
        let id = tell(&larder.graph(), &["clock ticks on"]).await[0];
        let now = recorded(larder, id).await;
        larder.graph().delete_relations([id]).await.unwrap();
        if now > since {
            return;
        }
    }
}

#[tokio::test]
async fn facts_hold_from_and_until() {
    for larder in each_way().await {
        let graph = larder.graph();
        let employed = |from: i64, until: i64| {
            fact("ann", "works_at", "acme")
                .with_qualifier(from.to_string())
                .with_validity(Some(Timestamp(from)), Some(Timestamp(until)))
        };
        graph.upsert_relations([employed(100, 200), employed(300, 400), fact("ann", "knows", "bob")]).await.unwrap();
        // Neither employment holds now.
        assert_eq!(neighbors(&graph, "ann").await, ["bob"]);
        for (time, count) in [(99, 1), (100, 2), (199, 2), (200, 1), (300, 2), (399, 2), (400, 1), (i64::MIN, 1)] {
            let found = graph.neighbors("ann").valid_at(Timestamp(time)).await.unwrap();
            assert_eq!(found.len(), count, "at {time}");
            let found = graph.relations().valid_at(Timestamp(time)).await.unwrap();
            assert_eq!(found.relations.len(), count, "at {time}");
        }
        assert_eq!(graph.relations().whenever().await.unwrap().relations.len(), 3);
        assert_eq!(graph.degree("ann").await.unwrap().outgoing, 1);
        let backwards = fact("a", "r", "b").with_validity(Some(Timestamp(5)), Some(Timestamp(5)));
        assert_refused(graph.upsert_relations([backwards]).await, Class::InvalidInput, &["ends before"]);
    }
}

#[tokio::test]
async fn invalidated_facts_are_found_as_of_before() {
    for larder in each_way().await {
        let graph = larder.graph();
        let id = tell(&graph, &["ann works_at acme"]).await[0];
        let began = recorded(&larder, id).await;
        tick(&larder, began).await;
        let before = began;
        assert_eq!(graph.invalidate([id, RelationId(9_999)]).at(Timestamp(1_000)).await.unwrap(), 1);
        // It ends no earlier than it does.
        assert_eq!(graph.invalidate([id]).at(Timestamp(2_000)).await.unwrap(), 0);
        assert_eq!(neighbors(&graph, "ann").await, [""; 0]);
        assert_eq!(graph.neighbors("ann").valid_at(Timestamp(999)).await.unwrap().len(), 1);
        assert_eq!(graph.neighbors("ann").valid_at(Timestamp(1_000)).await.unwrap().len(), 0);
        // As it was known then, it held for ever.
        assert_eq!(graph.neighbors("ann").recorded_at(before).await.unwrap().len(), 1);
        let then = graph.relations().recorded_at(before).await.unwrap().relations;
        assert_eq!((then.len(), then[0].id, then[0].validity.until), (1, id, None));
        assert!(then[0].superseded.is_some());
        // Before anything was recorded there is nothing.
        assert_eq!(graph.relations().recorded_at(Timestamp(0)).await.unwrap().relations, []);
        assert_eq!(graph.neighbors("ann").recorded_at(Timestamp(0)).await.unwrap(), []);
        let late = fact("a", "r", "b").with_validity(Some(Timestamp(500)), None);
        let late = graph.upsert_relations([late]).await.unwrap()[0].id;
        assert_refused(graph.invalidate([late]).at(Timestamp(500)).await, Class::InvalidInput, &["before it begins"]);
        assert_sound(&larder).await;
    }
}

#[tokio::test]
async fn changed_facts_are_known_as_they_were() {
    let larder = Larder::temporary().await.unwrap();
    let graph = larder.graph();
    let told = |text: &str, weight| fact("a", "r", "b").with_weight(weight).with_properties(json(text));
    let id = graph.upsert_relations([told(r#"{"v": 1}"#, 1.0)]).await.unwrap()[0].id;
    let first = recorded(&larder, id).await;
    tick(&larder, first).await;
    graph.upsert_relations([told(r#"{"v": 2}"#, 2.0)]).await.unwrap();
    let second = recorded(&larder, id).await;
    tick(&larder, second).await;
    graph.upsert_relations([told(r#"{"v": 3}"#, 3.0)]).await.unwrap();
    for (time, version) in [(first, 1), (second, 2), (recorded(&larder, id).await, 3)] {
        let found = graph.relations().label("r").recorded_at(time).await.unwrap().relations;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].properties, Some(json(&format!(r#"{{"v": {version}}}"#))));
        let seen = graph.neighbors("a").recorded_at(time).await.unwrap();
        assert_eq!(seen[0].weight, f64::from(version));
        let path = graph.shortest_path("a", "b").recorded_at(time).await.unwrap().unwrap();
        assert_eq!(path.steps.len(), 1);
    }
    // Deleted with its history.
    graph.delete_relations([id]).await.unwrap();
    assert_eq!(graph.relations().label("r").recorded_at(first).await.unwrap().relations, []);
    assert_eq!(graph.counts().await.unwrap().past_relations, 0);
    assert_sound(&larder).await;
}
