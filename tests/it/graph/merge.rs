use larder::Class;
use larder::protocol::graph::MergeId;

use super::{assert_sound, each_way, entity, fact, json, neighbors, tell};
use crate::support::assert_refused;

#[tokio::test]
async fn merged_entities_are_one_until_it_is_undone() {
    for larder in each_way().await {
        let graph = larder.graph();
        tell(&graph, &["NYC in USA", "ann lives_in NYC", "bob lives_in New_York", "NYC same_as New_York"]).await;
        graph.upsert_entities([entity("NYC").with_description("the big apple")]).await.unwrap();
        graph.add_alias("NYC", "Big Apple").await.unwrap();
        let nyc = graph.get("NYC").await.unwrap().unwrap();
        let merge = graph.merge("NYC", "New_York").await.unwrap();
        let one = graph.get("NYC").await.unwrap().unwrap();
        assert_eq!(one.name.as_str(), "New_York");
        assert_eq!(one.aliases.iter().map(|alias| alias.as_str()).collect::<Vec<_>>(), ["Big Apple", "NYC"]);
        assert_eq!(graph.get(nyc.id).await.unwrap(), None);
        assert_eq!(neighbors(&graph, "Big Apple").await, ["USA", "ann", "bob", "New_York"]);
        assert_eq!(graph.counts().await.unwrap().entities, 4);
        assert!(graph.search("apple").await.unwrap().is_empty());
        // The same fact of both stays two facts, and an upsert is of the older.
        assert_refused(graph.merge("NYC", "New_York").await, Class::Conflict, &["two entities"]);
        tell(&graph, &["New_York has parks"]).await;
        assert_sound(&larder).await;
        assert_eq!(graph.undo_merge(merge).await.unwrap(), nyc.id);
        assert_eq!(neighbors(&graph, "NYC").await, ["USA", "ann", "New_York"]);
        assert_eq!(neighbors(&graph, "New_York").await, ["bob", "NYC", "parks"]);
        let back = graph.get("Big Apple").await.unwrap().unwrap();
        assert_eq!((back.id, back.aliases.len(), back.description), (nyc.id, 1, Some("the big apple".to_owned())));
        assert_eq!(graph.search("apple").await.unwrap().len(), 1);
        assert_refused(graph.undo_merge(merge).await, Class::Conflict, &["undone"]);
        assert_refused(graph.undo_merge(MergeId(9_999)).await, Class::NotFound, &["9999"]);
        assert_sound(&larder).await;
    }
}

#[tokio::test]
async fn an_entity_is_not_merged_with_itself() {
    let [larder, ..] = each_way().await;
    let graph = larder.graph();
    graph.upsert_entities([entity("a")]).await.unwrap();
    graph.add_alias("a", "b").await.unwrap();
    assert_refused(graph.merge("a", "a").await, Class::InvalidInput, &["itself"]);
    assert_refused(graph.merge("a", "b").await, Class::Conflict, &["two entities"]);
    assert_refused(graph.merge("a", "nobody").await, Class::NotFound, &["nobody"]);
}

#[tokio::test]
async fn merges_of_merges_are_undone_from_the_last() {
    for larder in each_way().await {
        let graph = larder.graph();
        tell(&graph, &["a r x", "b r y", "c r z"]).await;
        let first = graph.merge("a", "b").await.unwrap();
        let second = graph.merge("b", "c").await.unwrap();
        assert_eq!(neighbors(&graph, "a").await, ["x", "y", "z"]);
        assert_refused(graph.undo_merge(first).await, Class::Conflict, &["gone"]);
        graph.undo_merge(second).await.unwrap();
        assert_eq!(neighbors(&graph, "a").await, ["x", "y"]);
        graph.undo_merge(first).await.unwrap();
        for (name, other) in [("a", "x"), ("b", "y"), ("c", "z")] {
            assert_eq!(neighbors(&graph, name).await, [other]);
        }
        assert_sound(&larder).await;
    }
}

#[tokio::test]
async fn undo_gives_back_what_is_still_there() {
    let [larder, ..] = each_way().await;
    let graph = larder.graph();
    let ids = tell(&graph, &["a r x", "a r y", "a r z"]).await;
    graph.upsert_entities([entity("b")]).await.unwrap();
    let merge = graph.merge("a", "b").await.unwrap();
    graph.delete_relations([ids[0]]).await.unwrap();
    graph.upsert_relations([fact("b", "r", "y").with_properties(json(r#"{"new": true}"#))]).await.unwrap();
    assert!(graph.remove_alias("b", "a").await.unwrap());
    graph.upsert_entities([entity("a")]).await.unwrap();
    assert_refused(graph.undo_merge(merge).await, Class::Conflict, &["another entity"]);
    graph.delete(["a"]).await.unwrap();
    graph.undo_merge(merge).await.unwrap();
    assert_eq!(neighbors(&graph, "a").await, ["y", "z"]);
    let kept = graph.get_relation(ids[1]).await.unwrap().unwrap();
    assert_eq!(kept.properties, Some(json(r#"{"new": true}"#)));
    // Once the other is deleted there is nothing to undo any more.
    let merge = graph.merge("a", "b").await.unwrap();
    graph.delete(["b"]).await.unwrap();
    assert!(graph.undo_merge(merge).await.is_err());
    assert_sound(&larder).await;
}
