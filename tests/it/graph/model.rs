//! Random operations and reopens beside a multigraph that knows names, provenance and both times: every answer is the same, over
//! memory and over rows. A multigraph that is wrong in one respect is told apart.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use futures::FutureExt;
use larder::protocol::graph::{MergeId, Outcome, Validity};
use larder::{Durability, EntityId, Larder, NewRelation, RelationId, Result, Timestamp};

use super::{assert_sound, entity, fact, json};
use crate::support::number_from_environment;

const NAMES: u64 = 24;
const LABELS: [&str; 3] = ["knows", "likes", "is"];

/// A pseudo-random sequence.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn name(&mut self) -> String {
        format!("n{}", self.below(NAMES))
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> Option<T> {
        if list.is_empty() { None } else { list.get(usize::try_from(self.below(list.len() as u64)).unwrap()).copied() }
    }
}

/// In what the multigraph is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
    None,
    /// An invalidation changes nothing.
    IgnoresInvalidation,
    /// A fact goes with the first of its sources.
    RemovesSharedFacts,
    /// A merge leaves the facts where they are.
    LosesMovedFacts,
    /// What was changed is known as it is now, whatever it was.
    ForgetsHistory,
}

#[derive(Debug, Clone, PartialEq)]
struct Fact {
    subject: EntityId,
    label: &'static str,
    object: EntityId,
    qualifier: String,
    weight: f64,
    validity: Validity,
    sources: BTreeSet<String>,
}

#[derive(Debug, Clone)]
struct Merge {
    id: MergeId,
    from: EntityId,
    into: EntityId,
    names: BTreeSet<String>,
    facts: BTreeMap<RelationId, (bool, bool)>,
}

/// What is known at one time.
#[derive(Debug, Clone, Default)]
struct State {
    names: BTreeMap<String, EntityId>,
    facts: BTreeMap<RelationId, Fact>,
}

struct Oracle {
    defect: Defect,
    now: State,
    /// Entities that are there or were merged; a deleted one was never there.
    known: BTreeSet<EntityId>,
    merges: Vec<Merge>,
    past: Vec<(Timestamp, State)>,
}

impl Oracle {
    fn new(defect: Defect) -> Self {
        Self { defect, now: State::default(), known: BTreeSet::new(), merges: Vec::new(), past: Vec::new() }
    }

    fn ids(&self) -> Vec<EntityId> {
        self.now.names.values().copied().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Returns what was known at a time of what was not deleted since.
    fn at(&self, state: &State) -> BTreeMap<RelationId, Fact> {
        let is_kept = |id: &RelationId, fact: &Fact| {
            self.now.facts.contains_key(id) && self.known.contains(&fact.subject) && self.known.contains(&fact.object)
        };
        let state = if self.defect == Defect::ForgetsHistory { &self.now } else { state };
        state.facts.iter().filter(|(id, fact)| is_kept(id, fact)).map(|(id, fact)| (*id, fact.clone())).collect()
    }

    fn delete_entity(&mut self, id: EntityId) {
        self.now.names.retain(|_, entity| *entity != id);
        self.now.facts.retain(|_, fact| fact.subject != id && fact.object != id);
        self.merges.retain(|merge| merge.from != id && merge.into != id);
        self.known.remove(&id);
    }

    fn merge(&mut self, id: MergeId, from: EntityId, into: EntityId) {
        let names: BTreeSet<_> =
            self.now.names.iter().filter(|(_, entity)| **entity == from).map(|(name, _)| name.clone()).collect();
        for name in &names {
            self.now.names.insert(name.clone(), into);
        }
        let mut facts = BTreeMap::new();
        for (id, fact) in &mut self.now.facts {
            let ends = (fact.subject == from, fact.object == from);
            if ends != (false, false) {
                facts.insert(*id, ends);
            }
            if self.defect != Defect::LosesMovedFacts {
                fact.subject = if ends.0 { into } else { fact.subject };
                fact.object = if ends.1 { into } else { fact.object };
            }
        }
        self.merges.push(Merge { id, from, into, names, facts });
    }

    fn undo(&mut self, at: usize) {
        let merge = self.merges.remove(at);
        for name in &merge.names {
            self.now.names.insert(name.clone(), merge.from);
        }
        for (id, ends) in &merge.facts {
            let Some(fact) = self.now.facts.get_mut(id) else { continue };
            if ends.0 && fact.subject == merge.into {
                fact.subject = merge.from;
            }
            if ends.1 && fact.object == merge.into {
                fact.object = merge.from;
            }
        }
    }

    fn remove_source(&mut self, source: &str) {
        let removes_shared = self.defect == Defect::RemovesSharedFacts;
        self.now.facts.retain(|_, fact| !fact.sources.remove(source) || !removes_shared && !fact.sources.is_empty());
    }
}

/// Edges seen from one end: the fact, the other end, whether it goes out.
type Edges = BTreeSet<(RelationId, EntityId, bool)>;

fn edges(facts: &BTreeMap<RelationId, Fact>, of: EntityId, at: Timestamp) -> Edges {
    let mut edges = Edges::new();
    for (id, fact) in facts.iter().filter(|(_, fact)| fact.validity.holds_at(at)) {
        if fact.subject == of {
            edges.insert((*id, fact.object, true));
        } else if fact.object == of {
            edges.insert((*id, fact.subject, false));
        }
    }
    edges
}

fn distances(facts: &BTreeMap<RelationId, Fact>, from: EntityId, at: Timestamp) -> BTreeMap<EntityId, usize> {
    let mut distances = BTreeMap::from([(from, 0)]);
    let mut queue = VecDeque::from([from]);
    while let Some(node) = queue.pop_front() {
        let hops = distances[&node] + 1;
        for (_, other, _) in edges(facts, node, at) {
            distances.entry(other).or_insert_with(|| {
                queue.push_back(other);
                hops
            });
        }
    }
    distances
}

/// Far in the future, where only what has no end holds; stands for now, too, since all intervals lie in the past.
const NOW: Timestamp = Timestamp(i64::MAX - 1);

async fn step(random: &mut Random, larder: &Larder, oracle: &mut Oracle) -> Result<()> {
    let graph = larder.graph();
    let ids = oracle.ids();
    let relations: Vec<_> = oracle.now.facts.keys().copied().collect();
    match random.below(20) {
        0..10 => {
            let count = 1 + random.below(4);
            let new: Vec<_> = (0..count).map(|_| random_fact(random)).collect();
            put(larder, oracle, new).await?;
        }
        10 => {
            let name = random.name();
            let properties = json(&format!(r#"{{"version": {}}}"#, random.below(3)));
            let put = graph.upsert_entities([entity(&name).with_properties(properties)]).await?[0];
            oracle.now.names.entry(name).or_insert(put.id);
            oracle.known.insert(put.id);
        }
        11 => {
            let Some(id) = random.of(&ids) else { return Ok(()) };
            assert_eq!(graph.delete([id]).await?, 1);
            oracle.delete_entity(id);
        }
        12 => {
            let Some(id) = random.of(&relations) else { return Ok(()) };
            assert_eq!(graph.delete_relations([id, RelationId(u64::from(u32::MAX))]).await?, 1);
            oracle.now.facts.remove(&id);
        }
        13 => {
            let Some(id) = random.of(&relations) else { return Ok(()) };
            let at = Timestamp(500 + i64::try_from(random.below(500)).unwrap());
            let fact = oracle.now.facts.get_mut(&id).unwrap();
            let is_longer = fact.validity.until.is_none_or(|until| until > at);
            assert_eq!(graph.invalidate([id]).at(at).await?, u64::from(is_longer));
            if is_longer && oracle.defect != Defect::IgnoresInvalidation {
                fact.validity.until = Some(at);
            }
        }
        14 => {
            let (Some(id), name) = (random.of(&ids), random.name()) else { return Ok(()) };
            let is_free = oracle.now.names.get(&name).is_none_or(|other| *other == id);
            assert_eq!(graph.rename(id, &name).await.is_ok(), is_free);
            if is_free {
                oracle.now.names.insert(name, id);
            }
        }
        15 => {
            let (Some(id), name) = (random.of(&ids), random.name()) else { return Ok(()) };
            let is_free = oracle.now.names.get(&name).is_none_or(|other| *other == id);
            assert_eq!(graph.add_alias(id, &name).await.is_ok(), is_free);
            if is_free {
                oracle.now.names.insert(name, id);
            }
        }
        16 | 17 => {
            let (Some(from), Some(into)) = (random.of(&ids), random.of(&ids)) else { return Ok(()) };
            match graph.merge(from, into).await {
                Ok(merge) => oracle.merge(merge, from, into),
                Err(_) => assert_eq!(from, into),
            }
        }
        18 => {
            if oracle.merges.is_empty() {
                return Ok(());
            }
            let at = usize::try_from(random.below(oracle.merges.len() as u64)).unwrap();
            let merge = &oracle.merges[at];
            // What stayed must still be there.
            let can_be_undone = oracle.now.names.values().any(|id| *id == merge.into)
                && merge.names.iter().all(|name| oracle.now.names.get(name) == Some(&merge.into));
            match graph.undo_merge(merge.id).await {
                Ok(id) => {
                    assert_eq!(id, merge.from);
                    oracle.undo(at);
                }
                Err(error) => assert!(!can_be_undone, "{error}"),
            }
        }
        _ => {
            let source = format!("s{}", random.below(4));
            graph.remove_source(&source).await?;
            oracle.remove_source(&source);
        }
    }
    Ok(())
}

fn random_fact(random: &mut Random) -> (String, &'static str, String, NewRelation) {
    let (subject, object) = (random.name(), random.name());
    let label = random.of(&LABELS).unwrap();
    let mut new = fact(&subject, label, &object);
    if random.below(4) == 0 {
        new = new.with_qualifier("q");
    }
    if random.below(3) == 0 {
        new = new.with_weight([1.0, 2.0, 0.5][usize::try_from(random.below(3)).unwrap()]);
    }
    if random.below(3) == 0 {
        let from = i64::try_from(random.below(400)).unwrap();
        let until = (random.below(2) == 0).then(|| Timestamp(from + 1 + i64::try_from(random.below(400)).unwrap()));
        new = new.with_validity(Some(Timestamp(from)), until);
    }
    for _ in 0..random.below(3) {
        new = new.with_source(format!("s{}", random.below(4))).unwrap();
    }
    (subject, label, object, new)
}

async fn put(
    larder: &Larder,
    oracle: &mut Oracle,
    new: Vec<(String, &'static str, String, NewRelation)>,
) -> Result<()> {
    let graph = larder.graph();
    let put = graph.upsert_relations(new.iter().map(|(.., relation)| relation.clone())).await?;
    for ((subject, label, object, relation), put) in new.into_iter().zip(put) {
        let mut ends = Vec::new();
        for name in [&subject, &object] {
            if !oracle.now.names.contains_key(name) {
                let id = graph.get(name).await?.unwrap().id;
                oracle.now.names.insert(name.clone(), id);
                oracle.known.insert(id);
            }
            ends.push(oracle.now.names[name]);
        }
        let fresh = Fact {
            subject: ends[0],
            label,
            object: ends[1],
            qualifier: relation.qualifier.clone(),
            weight: 1.0,
            validity: Validity::default(),
            sources: BTreeSet::new(),
        };
        let is_same = |fact: &Fact| {
            (fact.subject, fact.label, fact.object, &fact.qualifier)
                == (fresh.subject, fresh.label, fresh.object, &fresh.qualifier)
        };
        let known = oracle.now.facts.iter().find(|(_, fact)| is_same(fact)).map(|(id, _)| *id);
        if oracle.defect == Defect::None {
            assert_eq!(known.is_none(), put.outcome == Outcome::Inserted);
            assert!(known.is_none_or(|known| known == put.id));
        }
        let stored = oracle.now.facts.entry(put.id).or_insert(fresh);
        stored.weight = relation.weight.unwrap_or(stored.weight);
        stored.validity = relation.validity.unwrap_or(stored.validity);
        stored.sources.extend(relation.sources.iter().map(|source| source.as_str().to_owned()));
    }
    Ok(())
}

macro_rules! same {
    ($found:expr, $expected:expr, $($what:tt)*) => {{
        let (found, expected) = (&$found, &$expected);
        if found != expected {
            return Ok(Err(format!("{}: {found:?}, expected {expected:?}", format!($($what)*))));
        }
    }};
}

/// Compares every answer; the inner error says what differs.
async fn compare(random: &mut Random, larder: &Larder, oracle: &Oracle) -> Result<Result<(), String>> {
    let graph = larder.graph();
    let ids = oracle.ids();
    for (name, id) in &oracle.now.names {
        same!(graph.get(name).await?.map(|found| found.id), Some(*id), "the entity {name}");
    }
    let mut stored = BTreeMap::new();
    for relation in graph.relations().whenever().limit(10_000).await?.relations {
        if relation.label.as_str() == "ticks" {
            continue;
        }
        let label = LABELS.into_iter().find(|label| *label == relation.label.as_str()).unwrap();
        let sources = relation.sources.iter().map(|source| source.as_str().to_owned()).collect();
        let (subject, object) = (relation.subject.id, relation.object.id);
        let (qualifier, weight, validity) = (relation.qualifier, relation.weight, relation.validity);
        stored.insert(relation.id, Fact { subject, label, object, qualifier, weight, validity, sources });
    }
    same!(stored, oracle.now.facts, "the facts");
    let counts = graph.counts().await?;
    // The clock's two and its fact are counted, too.
    same!((counts.entities, counts.relations), (ids.len() as u64 + 2, oracle.now.facts.len() as u64 + 1), "the counts");
    let then = Timestamp(i64::try_from(random.below(1_000)).unwrap());
    for id in &ids {
        for at in [NOW, then] {
            let found = graph.neighbors(*id).valid_at(at).limit(10_000).await?;
            let found: Edges = found.iter().map(|n| (n.relation, n.entity.id, n.is_outgoing)).collect();
            same!(found, edges(&oracle.now.facts, *id, at), "neighbors of {id} at {at:?}");
        }
    }
    for _ in 0..4 {
        let (Some(from), Some(to)) = (random.of(&ids), random.of(&ids)) else { break };
        let distances = distances(&oracle.now.facts, from, NOW);
        let found: BTreeMap<_, _> =
            graph.neighborhood([from], 64).await?.iter().map(|reached| (reached.entity.id, reached.hops)).collect();
        let expected: BTreeMap<_, _> =
            distances.iter().filter(|(id, _)| **id != from).map(|(id, hops)| (*id, *hops)).collect();
        same!(found, expected, "the neighborhood of {from}");
        let path = graph.shortest_path(from, to).await?;
        same!(path.as_ref().map(|path| path.steps.len()), distances.get(&to).copied(), "the path from {from} to {to}");
        let mut at = from;
        for step in path.iter().flat_map(|path| &path.steps) {
            let fact = &oracle.now.facts[&step.relation];
            let ends = if step.is_forward { (fact.subject, fact.object) } else { (fact.object, fact.subject) };
            same!((at, step.entity.id), ends, "a step from {from} to {to}");
            at = step.entity.id;
        }
    }
    if let Some((time, state)) = random.of(&(0..oracle.past.len()).collect::<Vec<_>>()).map(|at| &oracle.past[at]) {
        let expected = oracle.at(state);
        let found = graph.relations().whenever().recorded_at(*time).limit(10_000).await?.relations;
        let found: BTreeMap<_, _> = found
            .iter()
            .filter(|relation| relation.label.as_str() != "ticks")
            .map(|r| (r.id, (r.subject.id, r.object.id, r.weight, r.validity)))
            .collect();
        let facts: BTreeMap<_, _> =
            expected.iter().map(|(id, fact)| (*id, (fact.subject, fact.object, fact.weight, fact.validity))).collect();
        same!(found, facts, "the facts as of {time:?}");
        for id in ids.iter().take(6) {
            let found = graph.neighbors(*id).valid_at(NOW).recorded_at(*time).limit(10_000).await?;
            let found: Edges = found.iter().map(|n| (n.relation, n.entity.id, n.is_outgoing)).collect();
            same!(found, edges(&expected, *id, NOW), "neighbors of {id} as of {time:?}");
        }
    }
    Ok(Ok(()))
}

/// Moves the clock on: what is written from now on is recorded later than the time that is returned.
async fn tick(larder: &Larder, weight: &mut f64) -> Result<Timestamp> {
    let graph = larder.graph();
    let mut first = None;
    loop {
        *weight = if *weight == 1.0 { 2.0 } else { 1.0 };
        let id = graph.upsert_relations([fact("clock", "ticks", "on").with_weight(*weight)]).await?[0].id;
        let time = graph.get_relation(id).await?.unwrap().recorded;
        match first {
            None => first = Some(time),
            Some(first) if time > first => return Ok(first),
            Some(_) => {}
        }
    }
}

/// Runs random operations; the inner error says where answers differ.
async fn run(seed: u64, steps: u64, defect: Defect) -> Result<Result<(), String>> {
    let folder = tempfile::tempdir().unwrap();
    let (mut random, mut oracle, mut weight) = (Random(seed), Oracle::new(defect), 1.0);
    let open = async |index_bytes_max| {
        let builder = Larder::builder(folder.path())
            .graph(|graph| {
                graph.own.index_bytes_max = index_bytes_max;
                graph.common.durability = Durability::Relaxed;
            })
            .settings(|settings| settings.maintenance_interval = std::time::Duration::from_millis(10));
        builder.open().await.unwrap()
    };
    let mut larder = open(1 << 30).await;
    for number in 0..steps {
        step(&mut random, &larder, &mut oracle).await?;
        if number % 6 == 5 {
            let time = tick(&larder, &mut weight).await?;
            oracle.past.push((time, oracle.now.clone()));
            if let Err(difference) = compare(&mut random, &larder, &oracle).await? {
                return Ok(Err(format!("step {number}: {difference}")));
            }
        }
        if number % 60 == 59 {
            assert_sound(&larder).await;
            larder.close().await;
            // By turns over memory and over rows.
            larder = open(if number % 120 == 59 { 0 } else { 1 << 30 }).await;
        }
    }
    assert_sound(&larder).await;
    Ok(Ok(()))
}

#[tokio::test]
async fn answers_are_those_of_a_multigraph_with_time_and_provenance() {
    let seed = number_from_environment("LARDER_SEED", 1);
    let steps = number_from_environment("LARDER_GRAPH_STEPS", 300);
    for seed in [seed, seed + 1] {
        assert_eq!(run(seed, steps, Defect::None).await.unwrap(), Ok(()), "seed {seed}");
    }
}

#[tokio::test]
async fn a_multigraph_that_is_wrong_is_told_apart() {
    for defect in
        [Defect::IgnoresInvalidation, Defect::RemovesSharedFacts, Defect::LosesMovedFacts, Defect::ForgetsHistory]
    {
        let mut is_caught = false;
        for seed in 1..=5 {
            if is_caught {
                break;
            }
            // One that is wrong may also ask for what is not there any more, or wonder at an outcome.
            let told = std::panic::AssertUnwindSafe(run(seed, 300, defect)).catch_unwind().await;
            is_caught = !matches!(told, Ok(Ok(Ok(()))));
        }
        assert!(is_caught, "{defect:?}");
    }
}
