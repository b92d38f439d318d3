//! larder's graph store through its public handle, for `graph.py`. Every setting is at its default, so durable.

use std::time::Instant;

use futures::future::try_join_all;
use larder::protocol::graph::{EntityHit, EntitySummary, GraphPath, Neighbor, RankedEntity, Reached, Subgraph};
use larder::{JsonText, Larder, NewEntity, NewRelation};
use peer_harness::Result;
use peer_harness::graph::{CALLERS, FOUND, Job, LIMIT, Lines, Questions, RANKED, Run, SUBGRAPH, Stage};

const BATCH: usize = 20_000;

pub(crate) async fn serve(job: &Job) -> Result<Run> {
    match job.stage {
        Stage::Load => load(job).await,
        Stage::Query => query(job).await,
        Stage::Upsert => upsert(job).await,
    }
}

async fn load(job: &Job) -> Result<Run> {
    let (entities, facts) = (job.entities()?, job.facts()?);
    let began = Instant::now();
    let larder = Larder::open(&job.folder).await?;
    let graph = larder.graph();
    let properties = |json: String| (json != "{}").then(|| JsonText::new(json)).transpose();
    let mut entities = entities.into_iter().peekable();
    while entities.peek().is_some() {
        let entity = |entity: peer_harness::graph::Entity| -> Result<_> {
            let mut new = NewEntity::new(entity.label, entity.name)?;
            new.properties = properties(entity.properties)?;
            Ok(new)
        };
        graph.upsert_entities(entities.by_ref().take(BATCH).map(entity).collect::<Result<Vec<_>>>()?).await?;
    }
    let mut facts = facts.into_iter().peekable();
    while facts.peek().is_some() {
        let fact = |fact: peer_harness::graph::Fact| -> Result<_> {
            let mut new = NewRelation::new(fact.subject, fact.label, fact.object)?;
            new.properties = properties(fact.properties)?;
            Ok(new)
        };
        graph.upsert_relations(facts.by_ref().take(BATCH).map(fact).collect::<Result<Vec<_>>>()?).await?;
    }
    let seconds = began.elapsed().as_secs_f64();
    larder.close().await;
    Ok(Run::loaded(seconds))
}

async fn query(job: &Job) -> Result<Run> {
    let (questions, lines) = (job.questions()?, job.lines()?);
    let Some(first) = questions.hops.first() else { return Ok(Run::default()) };
    let began = Instant::now();
    let builder = Larder::builder(&job.folder);
    let larder = if job.exclusive { builder.exclusive().open().await? } else { builder.open().await? };
    larder.graph().neighborhood([first], 2).limit(LIMIT).await?;
    let mut run = Run::opened(began.elapsed().as_secs_f64());
    for load in &job.loads {
        ask(&larder, load, &questions, &lines, &mut run).await?;
    }
    larder.close().await;
    Ok(run)
}

fn hops(lines: &Lines) -> impl Fn(Vec<Reached>) -> Result<Vec<usize>> + '_ {
    |found| {
        let pairs = found.iter().map(|reached| Ok([lines.of(reached.entity.name.as_str())?, reached.hops]));
        Ok(pairs.collect::<Result<Vec<_>>>()?.concat())
    }
}

async fn ask(larder: &Larder, load: &str, questions: &Questions, lines: &Lines, run: &mut Run) -> Result<()> {
    let graph = &larder.graph();
    let line = |entity: &EntitySummary| lines.of(entity.name.as_str());
    match load {
        "1-hop" => {
            let told = |found: Vec<Neighbor>| found.iter().map(|neighbor| line(&neighbor.entity)).collect();
            run.ask(load, &questions.hops, async |name| Ok(graph.neighbors(name).limit(LIMIT).await?), told).await
        }
        "2-hop" | "3-hop" => {
            let depth = if load == "2-hop" { 2 } else { 3 };
            let call = async |name: &String| Ok(graph.neighborhood([name], depth).limit(LIMIT).await?);
            run.ask(load, &questions.hops, call, hops(lines)).await
        }
        "shortest-path" => {
            let call = async |(from, to): &(String, String)| Ok(graph.shortest_path(from, to).await?);
            let told = |path: Option<GraphPath>| {
                let Some(path) = path else { return Ok(Vec::new()) };
                std::iter::once(&path.start).chain(path.steps.iter().map(|step| &step.entity)).map(line).collect()
            };
            run.ask(load, &questions.pairs, call, told).await
        }
        "subgraph" => {
            let (entities, facts) = SUBGRAPH;
            let call = async |seeds: &Vec<String>| Ok(graph.subgraph(seeds).limits(entities, facts).await?);
            let told = |found: Subgraph| {
                let mut told = vec![found.entities.len()];
                for ranked in &found.entities {
                    told.push(line(&ranked.entity)?);
                }
                for ranked in &found.relations {
                    told.extend([line(&ranked.relation.subject)?, line(&ranked.relation.object)?]);
                }
                Ok(told)
            };
            run.ask(load, &questions.seeds, call, told).await
        }
        "pagerank" => {
            let call = async |seeds: &Vec<String>| Ok(graph.rank(seeds).limit(RANKED).await?);
            let told = |found: Vec<RankedEntity>| found.iter().map(|ranked| line(&ranked.entity)).collect();
            run.ask(load, &questions.seeds, call, told).await
        }
        "lookup" => {
            let call = async |text: &String| Ok(graph.misspelt(text).limit(FOUND).await?);
            let told = |found: Vec<EntityHit>| found.iter().map(|hit| line(&hit.entity)).collect();
            run.ask(load, &questions.typos, call, told).await
        }
        _ => Ok(()),
    }
}

async fn upsert(job: &Job) -> Result<Run> {
    let (questions, mut run) = (job.questions()?, Run::default());
    let larder = Larder::open(&job.folder).await?;
    for load in &job.loads {
        let (graph, label) = (&larder.graph(), &job.new_label(load));
        let callers = if load == "upsert-1" { 1 } else { CALLERS };
        // The store is there before the time begins.
        graph.upsert_triplet(&questions.hops[0], label, &questions.hops[0]).await?;
        let caller = async |first: usize| -> Result<Vec<f64>> {
            let mut times = Vec::new();
            for (subject, object) in questions.upserts.iter().skip(first).step_by(callers) {
                let began = Instant::now();
                graph.upsert_triplet(subject, label, object).await?;
                times.push(began.elapsed().as_secs_f64() * 1e6);
            }
            Ok(times)
        };
        let began = Instant::now();
        let times = try_join_all((0..callers).map(caller)).await?.concat();
        run.wrote(load, times, questions.upserts.len(), began.elapsed().as_secs_f64());
    }
    larder.close().await;
    Ok(run)
}
