use larder::protocol::graph::Outcome::{Inserted, Unchanged, Updated};
use larder::{Class, Larder, NewEntity, field};

use super::{assert_sound, each_way, entity, entity_outcomes, fact, json, names, neighbors, outcomes, tell};
use crate::support::assert_refused;

#[tokio::test]
async fn entities_are_put_read_and_put_again_with_their_outcomes() {
    let folder = tempfile::tempdir().unwrap();
    let larder = Larder::open(folder.path()).await.unwrap();
    let graph = larder.graph();
    let sqlite = || NewEntity::new("software", "SQLite").unwrap();
    let put = graph.upsert_entities([sqlite().with_properties(json(r#"{"since": 2000}"#)), entity("a")]).await.unwrap();
    assert_eq!(entity_outcomes(&put), [Inserted, Inserted]);
    let again = graph.upsert_entities([sqlite(), sqlite().with_description("A database.")]).await.unwrap();
    assert_eq!(entity_outcomes(&again), [Unchanged, Updated]);
    assert_eq!([again[0].id, again[1].id], [put[0].id; 2]);
    let last = graph.upsert_entities([sqlite().with_properties(json(r#"{"since": 2001}"#))]).await.unwrap();
    assert_eq!(entity_outcomes(&last), [Updated]);
    larder.close().await;
    let larder = Larder::open(folder.path()).await.unwrap();
    let graph = larder.graph();
    let found = graph.get("SQLite").await.unwrap().unwrap();
    assert_eq!((found.id, found.label.as_str()), (put[0].id, "software"));
    assert_eq!(found.description.as_deref(), Some("A database."));
    assert_eq!(found.properties, Some(json(r#"{"since": 2001}"#)));
    assert_eq!(graph.get(put[0].id).await.unwrap(), Some(found.clone()));
    assert_eq!(graph.get(("software", "SQLite")).await.unwrap(), Some(found));
    assert_eq!(graph.get(("hardware", "SQLite")).await.unwrap(), None);
    // An empty object leaves none.
    graph.upsert_entities([sqlite().with_properties(json("{}"))]).await.unwrap();
    assert_eq!(graph.get("SQLite").await.unwrap().unwrap().properties, None);
    assert_eq!(graph.get_many(["a", "b", "SQLite"]).await.unwrap().iter().filter(|found| found.is_some()).count(), 2);
    assert_sound(&larder).await;
}

#[tokio::test]
async fn one_name_means_one_entity_of_its_label() {
    let larder = Larder::temporary().await.unwrap();
    let graph = larder.graph();
    graph
        .upsert_entities([NewEntity::new("language", "Go").unwrap(), NewEntity::new("game", "Go").unwrap()])
        .await
        .unwrap();
    assert_refused(graph.get("Go").await, Class::Conflict, &["several"]);
    assert_refused(graph.upsert_triplet("Go", "is", "old").await, Class::Conflict, &["several"]);
    assert!(graph.get(("game", "Go")).await.unwrap().is_some());
    // Nothing of the refused write is there.
    assert_eq!(graph.counts().await.unwrap().entities, 2);
    let found = graph.named("Go").await.unwrap();
    assert_eq!(found.len(), 2);
}

#[tokio::test]
async fn relations_are_put_read_and_put_again_with_their_outcomes() {
    for larder in each_way().await {
        let graph = larder.graph();
        let knows = || fact("ann", "knows", "bob");
        let put = graph.upsert_relations([knows(), knows(), knows().with_qualifier("school")]).await.unwrap();
        assert_eq!(outcomes(&put), [Inserted, Unchanged, Inserted]);
        let again = graph
            .upsert_relations([
                knows().with_weight(2.5),
                knows().with_properties(json(r#"{"since": 1999}"#)),
                knows().with_source("chunk 1").unwrap(),
                knows().with_source("chunk 1").unwrap(),
            ])
            .await
            .unwrap();
        assert_eq!(outcomes(&again), [Updated, Updated, Updated, Unchanged]);
        assert_eq!(again[0].id, put[0].id);
        let found = graph.get_relation(put[0].id).await.unwrap().unwrap();
        assert_eq!(
            (found.subject.name.as_str(), found.label.as_str(), found.object.name.as_str()),
            ("ann", "knows", "bob")
        );
        assert_eq!((found.weight, found.properties), (2.5, Some(json(r#"{"since": 1999}"#))));
        assert_eq!(found.sources[0].as_str(), "chunk 1");
        let counts = graph.counts().await.unwrap();
        assert_eq!((counts.entities, counts.relations, counts.past_relations), (2, 2, 2));
        assert_eq!(neighbors(&graph, "ann").await, ["bob", "bob"]);
        assert_sound(&larder).await;
    }
}

#[tokio::test]
async fn unknown_ends_are_made_or_refused() {
    let larder = Larder::temporary().await.unwrap();
    let graph = larder.graph();
    let refused = graph.upsert_relations([fact("a", "r", "b")]).only_known_entities().await;
    assert_refused(refused, Class::NotFound, &["\"a\""]);
    assert_eq!(graph.counts().await.unwrap().entities, 0);
    let unknown = larder::EntityId(77);
    assert_refused(graph.upsert_triplet(unknown, "r", "b").await, Class::NotFound, &["77"]);
    assert_eq!(graph.counts().await.unwrap().entities, 0);
    graph.upsert_triplet(("person", "a"), "r", "b").await.unwrap();
    assert_eq!(graph.get("a").await.unwrap().unwrap().label.as_str(), "person");
    assert_eq!(graph.get("b").await.unwrap().unwrap().label.as_str(), "entity");
    graph.upsert_relations([fact("b", "r", "a")]).only_known_entities().await.unwrap();
}

#[tokio::test]
async fn pages_of_entities_and_relations_hold_each_once() {
    let larder = Larder::temporary().await.unwrap();
    let graph = larder.graph();
    let people = (0..25).map(|number| {
        let properties = json(&format!(r#"{{"number": {number}}}"#));
        NewEntity::new(if number % 2 == 0 { "even" } else { "odd" }, format!("n{number}"))
            .unwrap()
            .with_properties(properties)
    });
    graph.upsert_entities(people).await.unwrap();
    let (mut after, mut found) = (None, Vec::new());
    loop {
        let mut page = graph.entities().limit(4).label("even");
        if let Some(after) = after {
            page = page.after(after);
        }
        let page = page.await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        found.extend(page);
    }
    assert_eq!(found.len(), 13);
    let few = graph.entities().matching(field("number").gte(20)).await.unwrap();
    assert_eq!(few.len(), 5);
    assert!(graph.declare_field(field("number")).await.unwrap());
    assert!(!graph.declare_field(field("number")).await.unwrap());
    assert_eq!(graph.entities().matching(field("number").gte(20)).await.unwrap(), few);
    let facts: Vec<_> = (0..24).map(|number| format!("n{number} next n{}", number + 1)).collect();
    tell_of_known(&larder, &facts).await;
    let (mut request, mut seen) = (graph.relations().limit(7), Vec::new());
    loop {
        let page = request.await.unwrap();
        seen.extend(page.relations.iter().map(|relation| relation.id));
        let Some(next) = page.next else { break };
        request = graph.relations().limit(7).after(next);
    }
    assert_eq!(seen.len(), 24);
    assert!(seen.is_sorted());
    let narrowed = graph.relations().subject("n3").label("next").object("n4").await.unwrap();
    assert_eq!(narrowed.relations.len(), 1);
    assert_eq!(graph.relations().subject("nobody").await.unwrap().relations, []);
}

async fn tell_of_known(larder: &Larder, facts: &[String]) {
    let facts: Vec<_> = facts.iter().map(String::as_str).collect();
    let graph = larder.graph();
    let relations = facts.iter().map(|text| {
        let parts: Vec<_> = text.split(' ').collect();
        fact(parts[0], parts[1], parts[2])
    });
    graph.upsert_relations(relations).only_known_entities().await.unwrap();
}

#[tokio::test]
async fn names_change_and_aliases_find_the_same_entity() {
    for larder in each_way().await {
        let graph = larder.graph();
        tell(&graph, &["Sequel is language"]).await;
        let id = graph.rename("Sequel", "SQL").await.unwrap();
        assert_eq!(graph.get("Sequel").await.unwrap().unwrap().name.as_str(), "SQL");
        assert!(graph.add_alias("SQL", "Structured Query Language").await.unwrap());
        assert!(!graph.add_alias("SQL", "Structured Query Language").await.unwrap());
        let found = graph.get(id).await.unwrap().unwrap();
        assert_eq!(
            found.aliases.iter().map(|alias| alias.as_str()).collect::<Vec<_>>(),
            ["Sequel", "Structured Query Language"]
        );
        assert_eq!(neighbors(&graph, "language").await, ["SQL"]);
        // An upsert under an alias is of the same entity.
        graph.upsert_triplet("Sequel", "is", "old").await.unwrap();
        assert_eq!(neighbors(&graph, "SQL").await, ["language", "old"]);
        assert_refused(graph.rename("SQL", "old").await, Class::Conflict, &["\"old\""]);
        assert_refused(graph.add_alias("SQL", "old").await, Class::Conflict, &["\"old\""]);
        assert!(graph.remove_alias("SQL", "Sequel").await.unwrap());
        assert!(!graph.remove_alias("SQL", "Sequel").await.unwrap());
        assert!(!graph.remove_alias("SQL", "SQL").await.unwrap());
        assert_eq!(graph.get("Sequel").await.unwrap(), None);
        graph.rename("SQL", "SQL:2023").without_alias().await.unwrap();
        assert_eq!(graph.get("SQL").await.unwrap(), None);
        // To one of its own aliases, and the same twice.
        graph.rename(id, "Structured Query Language").await.unwrap();
        graph.rename(id, "Structured Query Language").await.unwrap();
        assert_eq!(
            names(graph.search("structured").await.unwrap().iter().map(|hit| &hit.entity)),
            ["Structured Query Language"]
        );
        assert_sound(&larder).await;
    }
}

#[tokio::test]
async fn deleted_entities_are_gone_at_once_and_their_rows_bit_by_bit() {
    for larder in each_way().await {
        let graph = larder.graph();
        tell(&graph, &["hub r a", "b r hub", "a r b"]).await;
        let many: Vec<_> = (0..1_200).map(|number| fact("hub", "r", &format!("n{number}"))).collect();
        graph.upsert_relations(many).await.unwrap();
        assert_eq!(graph.degree("hub").await.unwrap().outgoing, 1_201);
        let old = graph.get("hub").await.unwrap().unwrap().id;
        assert_eq!(graph.delete(["hub", "hub", "nobody"]).await.unwrap(), 1);
        assert_eq!(graph.get("hub").await.unwrap(), None);
        assert_eq!(neighbors(&graph, "a").await, ["b"]);
        assert_eq!(graph.counts().await.unwrap().relations, 1);
        assert_eq!(graph.relations().await.unwrap().relations.len(), 1);
        // The name is free for another one, which has none of the facts.
        let new = graph.upsert_entities([entity("hub")]).await.unwrap()[0].id;
        assert_ne!(new, old);
        assert_eq!(neighbors(&graph, "hub").await, [""; 0]);
        assert_refused(graph.neighbors(old).await, Class::NotFound, &[]);
        assert_sound(&larder).await;
    }
}
