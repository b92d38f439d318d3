use larder::protocol::graph::EntityHit;
use larder::{Class, Larder, NewEntity};

use super::{assert_sound, each_way, entity};
use crate::support::assert_refused;

fn found(hits: &[EntityHit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.entity.name.as_str()).collect()
}

#[tokio::test]
async fn entities_are_found_by_name_beginning_words_and_misspelt() {
    for larder in each_way().await {
        let graph = larder.graph();
        let described = entity("SQLite").with_description("An embedded database engine.");
        let others = ["SQL", "PostgreSQL", "sqlite", "O'Brien; DROP TABLE", "日本語"].map(entity);
        graph.upsert_entities(others.into_iter().chain([described])).await.unwrap();
        graph.add_alias("PostgreSQL", "Postgres").await.unwrap();
        assert_eq!(found(&graph.named("SQLite").await.unwrap()), ["SQLite"]);
        assert_eq!(found(&graph.named("Postgres").await.unwrap()), ["PostgreSQL"]);
        assert_eq!(found(&graph.named("nobody").await.unwrap()), [""; 0]);
        assert_eq!(found(&graph.names_beginning("SQL").await.unwrap()), ["SQL", "SQLite"]);
        assert_eq!(found(&graph.names_beginning("").limit(2).await.unwrap()), ["O'Brien; DROP TABLE", "PostgreSQL"]);
        assert_eq!(found(&graph.names_beginning("日").await.unwrap()), ["日本語"]);
        assert_eq!(found(&graph.search("embedded engine").await.unwrap()), ["SQLite"]);
        assert_eq!(found(&graph.search("\" OR *").await.unwrap()), [""; 0]);
        assert_eq!(found(&graph.misspelt("postgras").limit(1).await.unwrap()), ["PostgreSQL"]);
        assert_eq!(found(&graph.misspelt("o'brein drop table").limit(1).await.unwrap()), ["O'Brien; DROP TABLE"]);
        let hit = &graph.misspelt("Postgers").limit(1).await.unwrap()[0];
        assert_eq!((hit.entity.name.as_str(), hit.matched.as_ref().unwrap().as_str()), ("PostgreSQL", "Postgres"));
        assert!(graph.misspelt("SQLite").limit(0).await.unwrap().is_empty());
        assert_eq!(graph.misspelt("SQLite").label("nothing").await.unwrap(), []);
        // Names that change are followed.
        graph.rename("SQL", "Structured").without_alias().await.unwrap();
        graph.delete(["sqlite"]).await.unwrap();
        graph.upsert_entities([entity("Redis")]).await.unwrap();
        assert_eq!(found(&graph.misspelt("SQLite").limit(1).await.unwrap()), ["SQLite"]);
        assert_eq!(found(&graph.misspelt("Structured7").limit(1).await.unwrap()), ["Structured"]);
        assert_eq!(found(&graph.misspelt("Rediss").limit(1).await.unwrap()), ["Redis"]);
        assert!(!found(&graph.misspelt("sql").await.unwrap()).contains(&"SQL"));
        assert_refused(graph.misspelt("x".repeat(5_000)).await, Class::InvalidInput, &["too large"]);
        assert_refused(graph.misspelt("x").limit(1_001).await, Class::InvalidInput, &["limit"]);
        assert_refused(graph.named("x").limit(10_001).await, Class::InvalidInput, &["limit"]);
        assert_sound(&larder).await;
    }
}

#[tokio::test]
async fn lookups_are_narrowed_to_a_label() {
    for larder in each_way().await {
        let graph = larder.graph();
        let labelled = |label: &str, name: &str| NewEntity::new(label, name).unwrap();
        let entities = (0..50).map(|number| labelled("town", &format!("Springfield {number}")));
        graph.upsert_entities(entities.chain([labelled("person", "Springfields")])).await.unwrap();
        assert_eq!(found(&graph.misspelt("Springfield").label("person").limit(3).await.unwrap()), ["Springfields"]);
        assert_eq!(graph.names_beginning("Spring").label("town").limit(100).await.unwrap().len(), 50);
        assert_eq!(found(&graph.search("Springfields").label("person").await.unwrap()), ["Springfields"]);
        assert_eq!(graph.search("Springfields").label("town").await.unwrap(), []);
    }
}

#[tokio::test]
async fn similar_entities_are_found_by_their_embeddings() {
    let folder = tempfile::tempdir().unwrap();
    let larder = Larder::open(folder.path()).await.unwrap();
    let graph = larder.graph();
    assert_eq!(graph.similar([1.0, 0.0]).await.unwrap(), []);
    let with = |label: &str, name: &str, vector: [f32; 2]| {
        NewEntity::new(label, name).unwrap().with_embedding(vector).unwrap()
    };
    graph
        .upsert_entities([
            with("a", "east", [1.0, 0.0]),
            with("a", "north", [0.0, 1.0]),
            with("b", "north-east", [1.0, 1.0]),
            entity("none"),
        ])
        .await
        .unwrap();
    assert_eq!(found(&graph.similar([1.0, 0.1]).await.unwrap()), ["east", "north-east", "north"]);
    assert_eq!(found(&graph.similar([1.0, 0.1]).label("b").limit(1).await.unwrap()), ["north-east"]);
    assert_eq!(graph.similar([1.0, 0.1]).limit(0).await.unwrap(), []);
    graph.upsert_entities([with("a", "east", [-1.0, 0.0])]).await.unwrap();
    assert_eq!(found(&graph.similar([1.0, 0.1]).limit(1).await.unwrap()), ["north-east"]);
    assert_eq!(graph.embedding("east").await.unwrap().unwrap().as_slice(), [-1.0, 0.0]);
    assert_eq!(graph.embedding("none").await.unwrap(), None);
    let merge = graph.merge("north-east", "north").await.unwrap();
    assert_eq!(found(&graph.similar([1.0, 0.1]).await.unwrap()), ["north", "east"]);
    graph.undo_merge(merge).await.unwrap();
    graph.delete(["north"]).await.unwrap();
    assert_eq!(found(&graph.similar([1.0, 0.1]).await.unwrap()), ["north-east", "east"]);
    for (vector, says) in [(vec![1.0], "1 dimensions"), (vec![0.0, 0.0], "no direction")] {
        assert_refused(graph.similar(&vector).await, Class::InvalidInput, &[says]);
        let bad = entity("bad").with_embedding(vector).unwrap();
        assert_refused(graph.upsert_entities([bad]).await, Class::InvalidInput, &[says]);
    }
    assert_eq!(graph.get("bad").await.unwrap(), None);
    larder.close().await;
    let larder = Larder::open(folder.path()).await.unwrap();
    assert_eq!(found(&larder.graph().similar([1.0, 0.1]).await.unwrap()), ["north-east", "east"]);
    assert_sound(&larder).await;
}
