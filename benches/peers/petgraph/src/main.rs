//! petgraph in memory: its adjacency lists, for the graph run. Its answers hold the names, as every peer's do;
//! with `borrows` in a load's name they point to them, which only somebody in the same process can have.

use std::collections::HashMap;
use std::process::ExitCode;

use fixedbitset::FixedBitSet;
use peer_harness::Result;
use peer_harness::graph::{Job, LIMIT, Run, Stage};
use petgraph::Direction::{Incoming, Outgoing};
use petgraph::Graph;
use petgraph::graph::NodeIndex;
use petgraph::visit::EdgeRef;

type Facts = Graph<(String, u32), u32>;

fn main() -> ExitCode {
    peer_harness::graph::main(|job| peer_harness::callers::runtime()?.block_on(query(job))).unwrap_or(ExitCode::FAILURE)
}

async fn query(job: &Job) -> Result<Run> {
    let mut run = Run::default();
    if job.stage != Stage::Query {
        return Ok(run);
    }
    let (questions, lines) = (job.questions()?, job.lines()?);
    let (graph, nodes) = build(job)?;
    for load in &job.loads {
        let depth = match load.as_str() {
            "2-hop" | "2-hop-borrows" => 2,
            "3-hop" | "3-hop-borrows" => 3,
            "1-hop" => {
                let told = |found: Vec<(usize, u32, u32, String)>| found.iter().map(|row| lines.of(&row.3)).collect();
                run.ask(load, &questions.hops, async |name| Ok(neighbors(&graph, nodes[name])), told).await?;
                continue;
            }
            _ => continue,
        };
        if load.ends_with("borrows") {
            let told = |found: Vec<(NodeIndex, usize)>| {
                Ok(found.iter().flat_map(|(node, hops)| [node.index(), *hops]).collect())
            };
            let call = async |name: &String| Ok(neighborhood(&graph, nodes[name], depth));
            run.ask(load, &questions.hops, call, told).await?;
        } else {
            let told = |found: Vec<(String, u32, usize)>| {
                let pairs = found.iter().map(|(name, _, hops)| Ok([lines.of(name)?, *hops]));
                Ok(pairs.collect::<Result<Vec<_>>>()?.concat())
            };
            let call = async |name: &String| {
                let found = neighborhood(&graph, nodes[name], depth).into_iter();
                Ok(found.map(|(node, hops)| (graph[node].0.clone(), graph[node].1, hops)).collect())
            };
            run.ask(load, &questions.hops, call, told).await?;
        }
    }
    Ok(run)
}

fn build(job: &Job) -> Result<(Facts, HashMap<String, NodeIndex>)> {
    let (mut graph, mut nodes, mut labels) = (Facts::new(), HashMap::new(), HashMap::new());
    let mut number = |label: String| {
        let next = labels.len() as u32;
        *labels.entry(label).or_insert(next)
    };
    for entity in job.entities()? {
        nodes.insert(entity.name.clone(), graph.add_node((entity.name, number(entity.label))));
    }
    for fact in job.facts()? {
        graph.add_edge(nodes[&fact.subject], nodes[&fact.object], number(fact.label));
    }
    Ok((graph, nodes))
}

fn neighbors(graph: &Facts, start: NodeIndex) -> Vec<(usize, u32, u32, String)> {
    let outgoing = graph.edges_directed(start, Outgoing).map(|edge| (edge.id(), *edge.weight(), edge.target()));
    let incoming = graph.edges_directed(start, Incoming).map(|edge| (edge.id(), *edge.weight(), edge.source()));
    let both = outgoing.chain(incoming.filter(|(_, _, other)| *other != start));
    both.take(LIMIT).map(|(edge, label, other)| (edge.index(), label, graph[other].1, graph[other].0.clone())).collect()
}

fn neighborhood(graph: &Facts, start: NodeIndex, depth: usize) -> Vec<(NodeIndex, usize)> {
    let mut met = FixedBitSet::with_capacity(graph.node_count());
    met.insert(start.index());
    let (mut found, mut level) = (Vec::new(), vec![start]);
    for hops in 1..=depth {
        let first = found.len();
        for node in level {
            for other in graph.neighbors_undirected(node) {
                if !met.put(other.index()) {
                    found.push((other, hops));
                    if found.len() == LIMIT {
                        return found;
                    }
                }
            }
        }
        level = found[first..].iter().map(|(node, _)| *node).collect();
    }
    found
}
