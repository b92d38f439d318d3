//! Defects of the systems that larder replaces, as DESIGN §9 names them, where they touch graphs.

use larder::Larder;

use super::{assert_sound, fact, json, neighbors, tell};

/// LlamaIndex's SimpleGraphStore leaves a triplet behind that it was told to delete.
#[tokio::test]
async fn delete_deletes() {
    let folder = tempfile::tempdir().unwrap();
    let larder = Larder::open(folder.path()).await.unwrap();
    let graph = larder.graph();
    tell(&graph, &["a r b", "a r c"]).await;
    assert_eq!(graph.delete_triplet("a", "r", "b").await.unwrap(), 1);
    assert_eq!(neighbors(&graph, "a").await, ["c"]);
    assert_eq!(neighbors(&graph, "b").await, [""; 0]);
    assert_eq!(graph.delete_triplet("a", "r", "b").await.unwrap(), 0);
    larder.close().await;
    let larder = Larder::open(folder.path()).await.unwrap();
    assert_eq!(neighbors(&larder.graph(), "a").await, ["c"]);
    assert_sound(&larder).await;
}

/// LlamaIndex's SimplePropertyGraphStore deletes everything when it is told a relation's label.
#[tokio::test]
async fn delete_by_relation_deletes_only_that() {
    let larder = Larder::temporary().await.unwrap();
    let graph = larder.graph();
    tell(&graph, &["a r b", "a s b", "b r a", "c r d"]).await;
    assert_eq!(graph.delete_triplet("a", "r", "b").await.unwrap(), 1);
    let counts = graph.counts().await.unwrap();
    assert_eq!((counts.entities, counts.relations), (4, 3));
    let left = graph.relations().await.unwrap().relations;
    let left: Vec<_> = left.iter().map(|r| format!("{}{}{}", r.subject.name, r.label, r.object.name)).collect();
    assert_eq!(left, ["asb", "bra", "crd"]);
    assert_sound(&larder).await;
}

/// Some stores find an entity or a relation and leave its new properties out.
#[tokio::test]
async fn upsert_takes_new_properties() {
    let larder = Larder::temporary().await.unwrap();
    let graph = larder.graph();
    for version in 1..=3 {
        let properties = || json(&format!(r#"{{"version": {version}}}"#));
        graph.upsert_entities([super::entity("a").with_properties(properties())]).await.unwrap();
        let put = graph.upsert_relations([fact("a", "r", "b").with_properties(properties())]).await.unwrap();
        assert_eq!(graph.get("a").await.unwrap().unwrap().properties, Some(properties()));
        assert_eq!(graph.get_relation(put[0].id).await.unwrap().unwrap().properties, Some(properties()));
    }
}

/// Elsewhere a limit of 0 returns everything.
#[tokio::test]
async fn a_limit_of_zero_finds_nothing() {
    let larder = Larder::temporary().await.unwrap();
    let graph = larder.graph();
    tell(&graph, &["a r b", "b r c"]).await;
    assert_eq!(graph.neighbors("a").limit(0).await.unwrap(), []);
    assert_eq!(graph.neighborhood(["a"], 2).limit(0).await.unwrap(), []);
    assert_eq!(graph.relation_map(["a"]).limit(0).await.unwrap(), []);
    assert_eq!(graph.paths("a", "c").limit(0).await.unwrap(), []);
    assert_eq!(graph.rank(["a"]).limit(0).await.unwrap(), []);
    assert_eq!(graph.search("a").limit(0).await.unwrap(), []);
    assert_eq!(graph.named("a").limit(0).await.unwrap(), []);
    assert_eq!(graph.misspelt("a").limit(0).await.unwrap(), []);
    assert_eq!(graph.schema(0).await.unwrap().triples, []);
}

/// Deleted things come back elsewhere when an index is loaded again, or a name is used again.
#[tokio::test]
async fn deleted_facts_do_not_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let larder = Larder::open(folder.path()).await.unwrap();
    let graph = larder.graph();
    tell(&graph, &["a r b", "b r c"]).await;
    graph.delete(["b"]).await.unwrap();
    tell(&graph, &["b s d"]).await;
    assert_eq!(neighbors(&graph, "b").await, ["d"]);
    larder.close().await;
    let larder = Larder::open(folder.path()).await.unwrap();
    let graph = larder.graph();
    assert_eq!(neighbors(&graph, "b").await, ["d"]);
    assert_eq!(neighbors(&graph, "a").await, [""; 0]);
    assert_eq!(graph.misspelt("b").limit(10).await.unwrap().len(), 1);
    assert_sound(&larder).await;
}
