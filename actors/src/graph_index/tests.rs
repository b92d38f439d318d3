//! The engine beside lists of edges.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::*;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: i64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from(self.0 >> 33).unwrap() % bound
    }
}

fn never() -> bool {
    false
}

fn edge(key: Key, subject: Key, object: Key) -> EdgeRecord {
    EdgeRecord { key, subject, label: 1, object, weight: 1.0, validity: (None, None) }
}

/// Edges by key, and the keys of nodes that are there.
#[derive(Clone, Default)]
struct List {
    edges: BTreeMap<Key, EdgeRecord>,
    nodes: BTreeMap<Key, bool>,
}

impl List {
    fn shown(&self, node: Key, is_outgoing: bool) -> Vec<(Key, Key, u64)> {
        let ends =
            |edge: &EdgeRecord| if is_outgoing { (edge.subject, edge.object) } else { (edge.object, edge.subject) };
        let of_node = self.edges.values().filter(|edge| ends(edge).0 == node && self.nodes[&ends(edge).1]);
        of_node.map(|edge| (edge.key, ends(edge).1, edge.weight.to_bits())).collect()
    }
}

fn assert_same(snapshot: &Snapshot, list: &List) {
    let rules = Rules::default();
    let view = View::new(snapshot, &rules, &[], usize::MAX, &never);
    for (node, is_there) in &list.nodes {
        assert_eq!(snapshot.find(*node).is_some(), *is_there);
        let Some(place) = snapshot.find(*node) else { continue };
        for (direction, is_outgoing) in [(Direction::Outgoing, true), (Direction::Incoming, false)] {
            let mut shown = Vec::new();
            view.edges(place, direction, |edge| {
                shown.push((edge.key, snapshot.node(edge.other).key, edge.weight.to_bits()));
                ControlFlow::Continue(())
            })
            .unwrap();
            assert_eq!(shown, list.shown(*node, is_outgoing), "node {node}, outgoing {is_outgoing}");
        }
        for direction in [Direction::Outgoing, Direction::Incoming, Direction::Both] {
            if let Some(ends) = view.ends(place, direction).unwrap() {
                assert_eq!(ends, ends_shown(&view, place, direction), "node {node}, {direction:?}");
            }
        }
    }
}

fn ends_shown(view: &View<'_>, place: u32, direction: Direction) -> Vec<u32> {
    let mut ends = Vec::new();
    view.edges(place, direction, |edge| {
        assert_eq!(edge.weight.to_bits(), 1.0_f64.to_bits());
        ends.push(edge.other);
        ControlFlow::Continue(())
    })
    .unwrap();
    ends
}

#[test]
fn ends_are_at_hand_of_nodes_with_nothing_special() {
    let mut builder = BaseBuilder::new(usize::MAX);
    for key in 0..4 {
        builder.push_node(key, 1, "n", false).unwrap();
    }
    for (key, (subject, object)) in [(0, 1), (1, 0), (1, 1), (2, 0), (2, 0)].into_iter().enumerate() {
        assert!(builder.push_edge(&edge(10 + i64::try_from(key).unwrap(), subject, object)).unwrap());
    }
    let mut index = GraphIndex::new(builder);
    let at_hand = |index: &GraphIndex, rules: &Rules, direction| {
        let snapshot = index.snapshot();
        let view = View::new(&snapshot, rules, &[], usize::MAX, &never);
        let mut at_hand = Vec::new();
        for place in 0..4 {
            if let Some(ends) = view.ends(place, direction).unwrap() {
                assert_eq!(ends, ends_shown(&view, place, direction));
                at_hand.push(place);
            }
        }
        at_hand
    };
    let all = Rules::default();
    assert_eq!(at_hand(&index, &all, Direction::Both), [0, 2, 3], "1 has a loop, which is shown once");
    assert_eq!(at_hand(&index, &all, Direction::Incoming), [0, 1, 2, 3]);
    let some = Rules { labels: Some(vec![1]), ..Rules::default() };
    assert!(at_hand(&index, &some, Direction::Incoming).is_empty());
    assert!(index.put_edge(&EdgeRecord { weight: 2.0, ..edge(20, 2, 3) }));
    assert_eq!(at_hand(&index, &all, Direction::Outgoing), [0, 1]);
    index.remove_node(3);
    assert!(at_hand(&index, &all, Direction::Outgoing).is_empty());
}

/// A hub of facts that came after the graph was built is as dear as any other.
#[test]
fn paths_go_on_from_the_side_that_meets_fewer_edges() {
    const LEAVES: i64 = 1_000;
    let mut index = GraphIndex::default();
    for key in 0..LEAVES + 4 {
        index.put_node(&Node { key, label: 1, name: "n", is_gone: false });
    }
    for leaf in 1..=LEAVES {
        assert!(index.put_edge(&edge(10_000 + leaf, 0, leaf)));
    }
    for at in 0..3 {
        assert!(index.put_edge(&edge(20_000 + at, LEAVES + at, LEAVES + at + 1)));
    }
    for index in [index.snapshot(), index.snapshot().rebuilt(usize::MAX).unwrap().snapshot()] {
        let (hub, end) = (index.find(0).unwrap(), index.find(LEAVES + 3).unwrap());
        let rules = Rules::default();
        for (from, to) in [(hub, end), (end, hub)] {
            let view = View::new(&index, &rules, &[], 50, &never);
            assert_eq!(shortest_path(&view, from, to, Direction::Both, 64).unwrap().unwrap().len(), 4);
        }
    }
}

#[test]
fn changed_graphs_and_those_built_anew_show_what_a_list_does() {
    let mut random = Random(3);
    let (mut index, mut list) = (GraphIndex::default(), List::default());
    let mut key = 0;
    let mut kept: Vec<(Snapshot, List)> = Vec::new();
    for step in 0..3_000 {
        key += 1;
        let nodes: Vec<Key> = list.nodes.keys().copied().collect();
        match random.below(10) {
            0..2 => {
                index.put_node(&Node { key, label: 1, name: "n", is_gone: false });
                list.nodes.insert(key, true);
            }
            2 if !nodes.is_empty() && random.below(4) == 0 => {
                let node = nodes[usize::try_from(random.below(i64::try_from(nodes.len()).unwrap())).unwrap()];
                index.remove_node(node);
                list.nodes.insert(node, false);
            }
            3 if !list.edges.is_empty() => {
                let at = usize::try_from(random.below(i64::try_from(list.edges.len()).unwrap())).unwrap();
                let (key, edge) = list.edges.iter().nth(at).map(|(key, edge)| (*key, *edge)).unwrap();
                index.remove_edge(key, edge.subject, edge.object);
                list.edges.remove(&key);
                // Some are put again, otherwise.
                if random.below(2) == 0 {
                    let changed = EdgeRecord { weight: 2.0, subject: edge.object, ..edge };
                    assert!(index.put_edge(&changed));
                    list.edges.insert(key, changed);
                }
            }
            _ if !nodes.is_empty() => {
                // The first have most of the edges.
                let mut node =
                    || nodes[usize::try_from(random.below(i64::try_from(nodes.len()).unwrap()).min(3)).unwrap()];
                let new = edge(key, node(), nodes[usize::try_from(key).unwrap() % nodes.len()]);
                assert!(index.put_edge(&new));
                list.edges.insert(key, new);
            }
            _ => {}
        }
        if step % 250 == 0 {
            kept.push((index.snapshot(), list.clone()));
            assert_same(&index.snapshot(), &list);
        }
        if step % 700 == 699 {
            index = index.snapshot().rebuilt(usize::MAX).unwrap();
            assert_same(&index.snapshot(), &list);
        }
    }
    for (snapshot, list) in &kept {
        assert_same(snapshot, list);
    }
    assert_eq!(index.snapshot().rebuilt(100).unwrap_err(), TooLarge);
}

#[test]
fn nodes_are_found_by_the_names_that_they_have_now_as_a_list_says() {
    let mut random = Random(11);
    let (mut index, mut list) = (GraphIndex::default(), BTreeMap::<Key, (LabelKey, String, bool)>::new());
    let mut others = std::collections::BTreeSet::new();
    for step in 0..1_200 {
        let key = 1 + random.below(60);
        let (label, name) = (1 + LabelKey::from(random.below(2) == 0), format!("name {}", random.below(25)));
        match random.below(40) {
            0 => {
                index.put_other_name(&name);
                others.insert(name);
            }
            1 => {
                index.remove_node(key);
                if let Some(node) = list.get_mut(&key) {
                    node.2 = true;
                }
            }
            2 => index = index.snapshot().rebuilt(usize::MAX).unwrap(),
            _ => {
                let is_gone = random.below(6) == 0;
                index.put_node(&Node { key, label, name: &name, is_gone });
                list.insert(key, (label, name, is_gone));
            }
        }
        if step % 4 > 0 {
            continue;
        }
        let snapshot = index.snapshot();
        for name in 0..25 {
            let name = format!("name {name}");
            for wanted in [None, Some(1), Some(2)] {
                let is_wanted = |label| wanted.is_none_or(|wanted| wanted == label);
                let having = list.iter().filter(|(_, (label, own, is_gone))| {
                    *own == name && !is_gone && is_wanted(*label) && !others.contains(&name)
                });
                let having: Vec<Key> = having.map(|(key, _)| *key).collect();
                let expected = if let [key] = having[..] { Some(key) } else { None };
                let found = snapshot.find_named(&name, is_wanted).map(|place| snapshot.node(place).key);
                assert_eq!(found, expected, "step {step}: {name} of label {wanted:?}");
            }
        }
    }
}

/// Returns a graph of which the first node is an end of most edges.
fn with_hub(node_count: Key) -> GraphIndex {
    let mut random = Random(7);
    let mut builder = BaseBuilder::new(usize::MAX);
    for key in 0..node_count {
        builder.push_node(key, 1, "n", false).unwrap();
    }
    for key in 0..node_count * 4 {
        let subject = if key % 3 == 0 { 0 } else { random.below(node_count) };
        let weight = [1.0, 1.0, 3.0][usize::try_from(key % 3).unwrap()];
        let edge = EdgeRecord { weight, ..edge(node_count + key, subject, random.below(node_count)) };
        assert!(builder.push_edge(&edge).unwrap());
    }
    GraphIndex::new(builder)
}

/// Returns every node's score after a hundred steps of the power method.
fn power(view: &View<'_>, node_count: usize, seeds: &[(u32, f64)], direction: Direction) -> Vec<f64> {
    let mut start = vec![0.0; node_count];
    let sum: f64 = seeds.iter().map(|(_, weight)| weight).sum();
    seeds.iter().for_each(|(seed, weight)| start[*seed as usize] += weight / sum);
    let mut scores = start.clone();
    for _ in 0..100 {
        let mut next: Vec<f64> = start.iter().map(|start| start * 0.15).collect();
        for (node, score) in scores.iter().enumerate() {
            let mut edges = Vec::new();
            let all = |edge: Edge<u32>| {
                edges.push((edge.other, edge.weight));
                ControlFlow::Continue(())
            };
            view.edges(u32::try_from(node).unwrap(), direction, all).unwrap();
            let strength: f64 = edges.iter().map(|(_, weight)| weight).sum();
            for (other, weight) in &edges {
                next[*other as usize] += 0.85 * score * weight / strength;
            }
            if edges.is_empty() {
                next.iter_mut().zip(&start).for_each(|(next, start)| *next += 0.85 * score * start);
            }
        }
        scores = next;
    }
    scores
}

#[test]
fn ranks_are_those_of_the_power_method() {
    let count = 2_000;
    let snapshot = with_hub(count).snapshot();
    let rules = Rules::default();
    let view = View::new(&snapshot, &rules, &[], usize::MAX, &never);
    for direction in [Direction::Both, Direction::Outgoing, Direction::Incoming] {
        for seeds in [vec![(5, 1.0)], vec![(0, 1.0)], vec![(17, 3.0), (900, 1.0), (17, 1.0)]] {
            let expected = power(&view, usize::try_from(count).unwrap(), &seeds, direction);
            let exact = Ranking { direction, damping: 0.85, tolerance: 1e-6, limit: 0 };
            let ranked = rank(&view, &seeds, &exact).unwrap();
            for (node, score) in &ranked {
                assert!((score - expected[*node as usize]).abs() < 1e-5, "{direction:?} {seeds:?} {node}: {score}");
            }
            let mut best: Vec<u32> = (0..u32::try_from(count).unwrap()).collect();
            best.sort_by(|a, b| expected[*b as usize].total_cmp(&expected[*a as usize]));
            let quick = Ranking { direction, damping: 0.85, tolerance: 1e-4, limit: 20 };
            let found = rank(&view, &seeds, &quick).unwrap();
            let hits = found.iter().filter(|(node, _)| best[..20].contains(node)).count();
            // From a node without edges nothing else is reached.
            let reached = expected.iter().filter(|score| **score > 1e-4).count().min(20);
            assert!(hits + 1 >= reached.max(found.len()), "{direction:?} {seeds:?}: {hits} of {reached}");
        }
    }
}

#[test]
fn ranks_from_seeds_without_edges_are_those_of_the_power_method() {
    let mut builder = BaseBuilder::new(usize::MAX);
    for key in 0..5 {
        builder.push_node(key, 1, "n", false).unwrap();
    }
    for (key, subject, object) in [(10, 0, 1), (11, 1, 1), (12, 1, 2)] {
        assert!(builder.push_edge(&edge(key, subject, object)).unwrap());
    }
    let snapshot = GraphIndex::new(builder).snapshot();
    let rules = Rules::default();
    let view = View::new(&snapshot, &rules, &[], usize::MAX, &never);
    for seeds in [vec![(3, 1.0)], vec![(3, 2.0), (4, 1.0)], vec![(0, 1.0), (3, 1.0), (4, 5.0)]] {
        let expected = power(&view, 5, &seeds, Direction::Both);
        let exact = Ranking { direction: Direction::Both, damping: 0.85, tolerance: 1e-6, limit: 0 };
        let ranked = rank(&view, &seeds, &exact).unwrap();
        for (node, expected) in expected.into_iter().enumerate() {
            let score = ranked.iter().find(|(ranked, _)| *ranked as usize == node).map_or(0.0, |(_, score)| *score);
            assert!((score - expected).abs() < 1e-5, "{seeds:?} {node}: {score}");
        }
    }
}

#[test]
fn a_node_is_met_once_however_many_there_are() {
    let snapshot = with_hub(5_000).snapshot();
    let rules = Rules::default();
    let view = View::new(&snapshot, &rules, &[], usize::MAX, &never);
    let all = neighborhood(&view, &[7], Direction::Both, 9, usize::MAX).unwrap();
    for limit in [1, 99, 100, 101, 102, all.len()] {
        let found = neighborhood(&view, &[7], Direction::Both, 9, limit).unwrap();
        assert_eq!(found, all[..limit]);
        let mut nodes: Vec<u32> = found.iter().map(|(node, _)| *node).chain([7]).collect();
        nodes.sort_unstable();
        nodes.dedup();
        assert_eq!(nodes.len(), limit + 1);
    }
}

#[test]
fn walks_end_when_they_are_called_off_or_over_their_budget() {
    let snapshot = with_hub(5_000).snapshot();
    let rules = Rules::default();
    let asked = Cell::new(0);
    let is_over = || {
        asked.set(asked.get() + 1);
        asked.get() > 2
    };
    let view = View::new(&snapshot, &rules, &[], usize::MAX, &is_over);
    assert_eq!(neighborhood(&view, &[0], Direction::Both, 9, usize::MAX), Err(Stopped::CalledOff));
    assert_eq!(asked.get(), 3);
    let view = View::new(&snapshot, &rules, &[], 1_000, &never);
    assert_eq!(neighborhood(&view, &[0], Direction::Both, 9, usize::MAX), Err(Stopped::OverBudget));
    let view = View::new(&snapshot, &rules, &[], 1, &never);
    assert_eq!(shortest_path(&view, 1, 2, Direction::Both, 9).err(), Some(Stopped::OverBudget));
    let view = View::new(&snapshot, &rules, &[], usize::MAX, &never);
    assert!(neighborhood(&view, &[0], Direction::Both, 9, usize::MAX).unwrap().len() > 4_000);
}
