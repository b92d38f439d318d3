use larder::protocol::graph::{GraphPath, NeighborOrder};
use larder::{Graph, NewEntity, field};

use super::{assert_sound, each_way, fact, json, names, tell};

/// A line a–b–c–d, a way around by e, and someone alone.
async fn told(graph: &Graph) {
    tell(graph, &["a to b", "b to c", "c to d", "a by e", "e by d", "x to x"]).await;
}

fn shown(path: &GraphPath) -> String {
    let steps = path.steps.iter().map(|step| {
        let (label, name) = (step.label.as_str(), step.entity.name.as_str());
        if step.is_forward { format!(" -{label}-> {name}") } else { format!(" <-{label}- {name}") }
    });
    path.start.name.as_str().to_owned() + &steps.collect::<String>()
}

#[tokio::test]
async fn neighbors_are_found_each_way_in_any_order() {
    for larder in each_way().await {
        let graph = larder.graph();
        graph
            .upsert_entities(["z", "y", "w"].map(|name| {
                NewEntity::new("late", name).unwrap().with_properties(json(&format!(r#"{{"name": "{name}"}}"#)))
            }))
            .await
            .unwrap();
        graph
            .upsert_relations([
                fact("a", "r", "z").with_weight(1.0),
                fact("y", "s", "a").with_weight(3.0),
                fact("a", "s", "w").with_weight(2.0),
                fact("a", "loop", "a"),
                fact("a", "r", "b").with_weight(0.5),
            ])
            .await
            .unwrap();
        let found = |found: Vec<larder::protocol::graph::Neighbor>| {
            found.iter().map(|neighbor| neighbor.entity.name.as_str().to_owned()).collect::<Vec<_>>().join(" ")
        };
        let of = || graph.neighbors("a");
        assert_eq!(found(of().await.unwrap()), "z y w a b");
        assert_eq!(found(of().outgoing().await.unwrap()), "z w a b");
        assert_eq!(found(of().incoming().await.unwrap()), "y a");
        assert_eq!(found(of().relation("s").await.unwrap()), "y w");
        assert_eq!(found(of().relation("s").relation("loop").await.unwrap()), "y w a");
        assert_eq!(found(of().relation("nothing").await.unwrap()), "");
        assert_eq!(found(of().entity_label("late").await.unwrap()), "z y w");
        assert_eq!(found(of().matching(field("name").gte("y")).await.unwrap()), "z y");
        assert_eq!(found(of().order(NeighborOrder::Newest).await.unwrap()), "b a w y z");
        assert_eq!(found(of().order(NeighborOrder::Heaviest).await.unwrap()), "y w z a b");
        assert_eq!(found(of().order(NeighborOrder::Name).await.unwrap()), "a b w y z");
        assert_eq!(found(of().offset(1).limit(2).await.unwrap()), "y w");
        assert_eq!(found(of().limit(0).await.unwrap()), "");
        assert_eq!(found(of().offset(9).await.unwrap()), "");
        let first = &of().await.unwrap()[1];
        assert_eq!((first.label.as_str(), first.is_outgoing, first.weight), ("s", false, 3.0));
        let degree = graph.degree("a").await.unwrap();
        assert_eq!((degree.outgoing, degree.incoming), (4, 2));
        let degree = graph.degree("a").relation("s").await.unwrap();
        assert_eq!((degree.outgoing, degree.incoming), (1, 1));
    }
}

#[tokio::test]
async fn neighborhoods_grow_by_hops_and_end_at_limits() {
    for larder in each_way().await {
        let graph = larder.graph();
        told(&graph).await;
        let found = |found: Vec<larder::protocol::graph::Reached>| {
            found.iter().map(|reached| format!("{}{}", reached.entity.name, reached.hops)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(found(graph.neighbors("a").depth(0).await.unwrap()), "");
        assert_eq!(found(graph.neighbors("a").depth(1).await.unwrap()), "b1 e1");
        assert_eq!(found(graph.neighbors("a").depth(2).await.unwrap()), "b1 e1 c2 d2");
        assert_eq!(found(graph.neighbors("a").depth(64).await.unwrap()), "b1 e1 c2 d2");
        assert_eq!(found(graph.neighbors("a").depth(64).limit(3).await.unwrap()), "b1 e1 c2");
        assert_eq!(found(graph.neighbors("a").depth(64).limit(0).await.unwrap()), "");
        assert_eq!(found(graph.neighborhood(["a", "d", "a"], 1).await.unwrap()), "b1 e1 c1");
        assert_eq!(found(graph.neighborhood(["d"], 3).outgoing().await.unwrap()), "");
        assert_eq!(found(graph.neighborhood(["a"], 3).outgoing().relation("to").await.unwrap()), "b1 c2 d3");
        assert_eq!(found(graph.neighborhood(["x"], 3).await.unwrap()), "");
        assert_eq!(found(graph.neighborhood([""; 0], 3).await.unwrap()), "");
        let map = graph.relation_map(["a"]).await.unwrap();
        let map: Vec<_> = map
            .iter()
            .map(|hop| {
                format!("{}{}{}{}", hop.triplet.subject.name, hop.triplet.label, hop.triplet.object.name, hop.hops)
            })
            .collect();
        assert_eq!(map, ["atob1", "abye1", "btoc2", "ebyd2"]);
        assert_eq!(graph.relation_map(["a"]).depth(9).limit(3).await.unwrap().len(), 3);
        assert_eq!(graph.relation_map(["a"]).depth(0).await.unwrap(), []);
        // A loop is met once.
        assert_eq!(graph.relation_map(["x"]).both_ways().await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn paths_are_shortest_first_and_pass_nothing_twice() {
    for larder in each_way().await {
        let graph = larder.graph();
        told(&graph).await;
        let path = graph.shortest_path("a", "d").await.unwrap().unwrap();
        assert_eq!(shown(&path), "a -by-> e -by-> d");
        let back = graph.shortest_path("d", "a").await.unwrap().unwrap();
        assert_eq!(shown(&back), "d <-by- e <-by- a");
        let along = graph.shortest_path("a", "d").relation("to").outgoing().await.unwrap().unwrap();
        assert_eq!(shown(&along), "a -to-> b -to-> c -to-> d");
        assert_eq!(graph.shortest_path("d", "a").outgoing().await.unwrap(), None);
        assert_eq!(graph.shortest_path("a", "x").await.unwrap(), None);
        assert_eq!(graph.shortest_path("a", "d").hops(1).await.unwrap(), None);
        assert!(graph.shortest_path("a", "d").hops(2).await.unwrap().is_some());
        assert_eq!(graph.shortest_path("a", "a").await.unwrap().unwrap().steps, []);
        let all: Vec<_> = graph.paths("a", "d").await.unwrap().iter().map(shown).collect();
        assert_eq!(all, ["a -by-> e -by-> d", "a -to-> b -to-> c -to-> d"]);
        assert_eq!(graph.paths("a", "d").limit(1).await.unwrap().len(), 1);
        assert_eq!(graph.paths("a", "d").limit(0).await.unwrap(), []);
        assert_eq!(graph.paths("a", "d").hops(2).await.unwrap().len(), 1);
        assert_eq!(graph.paths("a", "d").hops(0).await.unwrap(), []);
        assert_eq!(graph.paths("a", "a").await.unwrap().len(), 1);
        // Parallel facts are different ways.
        tell(&graph, &["a for e"]).await;
        assert_eq!(graph.paths("a", "d").hops(2).await.unwrap().len(), 2);
    }
}

#[tokio::test]
async fn entity_labels_bar_the_way_but_not_its_ends() {
    for larder in each_way().await {
        let graph = larder.graph();
        graph
            .upsert_entities([NewEntity::new("bridge", "b").unwrap(), NewEntity::new("ford", "f").unwrap()])
            .await
            .unwrap();
        tell(&graph, &["a to f", "f to d", "a to b", "b to c", "c to d"]).await;
        let path = graph.shortest_path("a", "d").entity_label("bridge").entity_label("entity").await.unwrap().unwrap();
        assert_eq!(path.steps.len(), 3);
        assert_eq!(graph.shortest_path("a", "d").entity_label("ford").await.unwrap().unwrap().steps.len(), 2);
        assert_eq!(graph.shortest_path("a", "d").entity_label("nothing").await.unwrap(), None);
        assert_eq!(
            names(graph.neighborhood(["a"], 9).entity_label("bridge").await.unwrap().iter().map(|r| &r.entity)),
            ["b"]
        );
    }
}

#[tokio::test]
async fn rankings_and_subgraphs_hold_what_is_near_the_seeds() {
    for larder in each_way().await {
        let graph = larder.graph();
        let spokes: Vec<_> = (0..30).map(|number| fact("hub", "r", &format!("spoke{number}"))).collect();
        graph.upsert_relations(spokes).await.unwrap();
        tell(&graph, &["hub to far", "far to farther", "seed to hub"]).await;
        let ranked = graph.rank(["seed"]).limit(3).await.unwrap();
        assert_eq!(names(ranked.iter().map(|ranked| &ranked.entity))[..2], ["hub", "seed"]);
        let all = graph.rank(["seed"]).limit(1_000).tolerance(1e-6).await.unwrap();
        let sum: f64 = all.iter().map(|ranked| ranked.score).sum();
        assert!((0.999..1.001).contains(&sum), "{sum}");
        assert_eq!(all.len(), 34);
        // Where walks cannot go on they go back: all of it is the seed's.
        let alone = graph.rank(["farther"]).outgoing().await.unwrap();
        assert_eq!((alone.len(), alone[0].entity.name.as_str()), (1, "farther"));
        assert!(alone[0].score > 0.99);
        let two = graph.rank(["spoke1"]).seed("spoke2", 3.0).limit(1_000).tolerance(1e-6).await.unwrap();
        let score = |name: &str| two.iter().find(|ranked| ranked.entity.name.as_str() == name).unwrap().score;
        assert!(score("spoke2") > 2.0 * score("spoke1"));
        let subgraph = graph.subgraph(["seed"]).limits(5, 3).await.unwrap();
        assert_eq!(subgraph.entities.len(), 5);
        assert_eq!(subgraph.relations.len(), 3);
        assert_eq!(subgraph.relations[0].relation.subject.name.as_str(), "seed");
        assert!(subgraph.relations.is_sorted_by(|a, b| a.score >= b.score));
        let near = graph.subgraph(["seed"]).depth(1).await.unwrap();
        assert_eq!(near.entities.len(), 2);
        assert_eq!(graph.subgraph(["seed"]).depth(0).await.unwrap().entities.len(), 1);
        assert_eq!(graph.subgraph(["seed"]).limits(0, 9).await.unwrap().entities, []);
        let schema = graph.schema(10).await.unwrap();
        assert_eq!(schema.entity_labels[0].1, 34);
        assert_eq!((schema.triples[0].relation.as_str(), schema.triples[0].count), ("r", 30));
        assert_eq!(graph.schema(1).await.unwrap().triples.len(), 1);
        assert_sound(&larder).await;
    }
}

#[tokio::test]
async fn a_write_is_seen_by_the_next_walk_and_by_walks_of_another_opening() {
    let folder = tempfile::tempdir().unwrap();
    let larder = larder::Larder::open(folder.path()).await.unwrap();
    let graph = larder.graph();
    tell(&graph, &["a to b"]).await;
    for number in 0..200 {
        assert_eq!(graph.neighborhood(["a"], 2).limit(1_000).await.unwrap().len(), number + 1);
        tell(&graph, &[&format!("b to n{number}")]).await;
    }
    graph.delete(["n7"]).await.unwrap();
    let weights =
        (0..200).filter(|number| *number != 7).map(|number| fact("b", "to", &format!("n{number}")).with_weight(2.0));
    graph.upsert_relations(weights).await.unwrap();
    assert_eq!(graph.neighborhood(["a"], 2).limit(1_000).await.unwrap().len(), 200);
    let heavy = graph.neighbors("b").order(NeighborOrder::Heaviest).limit(1_000).await.unwrap();
    assert_eq!(heavy.iter().filter(|neighbor| neighbor.weight == 2.0).count(), 199);
    larder.close().await;
    let larder = larder::Larder::open(folder.path()).await.unwrap();
    assert_eq!(larder.graph().neighborhood(["a"], 2).limit(1_000).await.unwrap().len(), 200);
    assert_eq!(larder.graph().neighbors("b").order(NeighborOrder::Heaviest).limit(1_000).await.unwrap(), heavy);
    assert_sound(&larder).await;
}
