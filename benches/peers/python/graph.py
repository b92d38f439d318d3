"""The graph run: larder and its peers on the same graphs and questions, every answer checked before times are compared.

    benches/peers/run graph [--quick] [--only PEER,…] [--loads LOAD,…] [--graphs wordnet,powerlaw] [--rounds N] [--dir FOLDER]

Start at `main`. Those in Rust (`larder`, `raw`, `petgraph`) are processes that `job` starts; those in Python are classes below,
each in a process of its own as well. A round runs every peer once, in an order that rotates; the tables give medians over rounds.

Always true: what is right is found here by brute force over a sparse matrix (`Truth`); a peer that answers otherwise is named, gets
no ratio, and the run exits with 1. `larder-exclusive` is larder in a folder that no other process may open.
"""

import argparse
import importlib
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
LIMIT, RANKED, FOUND, SUBGRAPH, WARM_UP_SECONDS = 1000, 20, 10, (50, 100), 0.5  # as harness/src/graph.rs has them
RECALL_MIN = 0.95  # of PageRank's top 20 and of misspelt lookups
READS = ["1-hop", "2-hop", "3-hop", "shortest-path", "subgraph", "pagerank", "lookup"]
WRITES = ["upsert-1", "upsert-64"]
LOADS = [*READS, *WRITES, "load", "open"]
RUST = {
    "larder": [*READS, *WRITES],
    "larder-exclusive": READS,
    "raw": ["1-hop", "2-hop", "3-hop", "lookup", *WRITES],
    "petgraph": ["1-hop", "2-hop", "3-hop"],
}
STORED = ["larder", "raw", "ladybug"]  # those whose load, opening and disk are compared


# --- graphs ----------------------------------------------------------------------------------------------------------


def wordnet(folder):
    """WordNet 3.0, its facts in a random order; None where it is not there."""
    if not folder or not (folder / "train.entities.tsv").exists():
        return None
    entities = [line.rstrip("\n").split("\t") for line in open(folder / "train.entities.tsv", encoding="utf-8")]
    facts = [line.rstrip("\n").split("\t") for line in open(folder / "train.triples.tsv", encoding="utf-8")]
    random.Random(1).shuffle(facts)
    questions = json.loads((folder / "train.queries.json").read_text())
    half = 100
    return entities, facts, {
        "hops": questions["uniform"][:half] + questions["biased"][:half],
        "pairs": questions["pairs"],
        "seeds": questions["seedsets"][:60],
        "upserts": [[subject, object_] for subject, _, object_ in questions["new_triples"]],
        **typos([name for name, *_ in entities]),
    }


def powerlaw(count=150_000, fact_count=700_000, degree_min=20_000):
    """Ends drawn by Zipf's law, so that the first has over 20,000 facts; no loops, no fact twice."""
    draw = np.random.default_rng(2)
    share = np.arange(1, count + 1) ** -0.8
    share /= share.sum()
    seen, facts = set(), []
    while len(facts) < fact_count:
        ends = draw.choice(count, size=(200_000, 2), p=share)
        for (subject, object_), label in zip(ends.tolist(), draw.integers(0, 12, len(ends)).tolist()):
            fact = (subject, label, object_)
            if subject != object_ and fact not in seen and len(facts) < fact_count:
                seen.add(fact)
                facts.append([f"entity {subject}", f"relation {label}", f"entity {object_}", "{}"])
    degrees = np.zeros(count, int)
    for subject, _, object_ in seen:
        degrees[subject] += 1
        degrees[object_] += 1
    if degrees.max() < degree_min:
        raise SystemExit(f"the power-law graph has a largest degree of {degrees.max()}")
    name = lambda: f"entity {int(draw.integers(count))}"
    biased = lambda: facts[int(draw.integers(len(facts)))][0]
    entities = [[f"entity {number}", "node", f'{{"number":{number}}}'] for number in range(count)]
    draw_many = lambda count, one: [one() for _ in range(count)]
    return entities, facts, {
        "hops": draw_many(100, name) + draw_many(100, biased),
        "pairs": draw_many(200, lambda: [name(), name()]),
        "seeds": draw_many(60, lambda: draw_many(5, name)),
        "upserts": draw_many(2_000, lambda: [name(), name()]),
        "typos": [],
        "meant": [],
    }


def written(name):
    """A name of WordNet as people write it."""
    return re.sub(r"\.[a-z]\.\d+$", "", name.removeprefix("w:")).replace("_", " ")


def typos(names, count=500):
    """Misspelt names: one letter changed, left out, put in, or swapped with the next. Not those that the score was tuned by."""
    draw, letters = random.Random(20261123), "abcdefghijklmnopqrstuvwxyz"
    misspelt, meant = [], []
    while len(misspelt) < count:
        name = draw.choice(names)
        text = written(name)
        if len(text) < 5 or not text.isascii():
            continue
        at, kind = draw.randrange(1, len(text) - 1), len(misspelt) % 4
        other = draw.choice([letter for letter in letters if letter != text[at]])
        changed = {
            0: text[:at] + other + text[at + 1 :],
            1: text[:at] + text[at + 1 :],
            2: text[:at] + other + text[at:],
            3: text[:at] + text[at + 1] + text[at] + text[at + 2 :],
        }[kind]
        if changed != text:
            misspelt.append(changed)
            meant.append(name)
    return {"typos": misspelt, "meant": meant}


class Truth:
    """What is right, by brute force."""

    def __init__(self, entities, facts, questions):
        from scipy.sparse import csr_array

        self.line = {name: line for line, (name, *_) in enumerate(entities)}
        self.questions = questions
        count = len(entities)
        subjects = np.array([self.line[fact[0]] for fact in facts])
        objects = np.array([self.line[fact[2]] for fact in facts])
        is_loop = subjects == objects
        rows = np.concatenate([subjects, objects[~is_loop]])
        others = np.concatenate([objects, subjects[~is_loop]])
        # A loop is one edge; two facts of the same two are two.
        self.both = csr_array((np.ones(len(rows)), (rows, others)), shape=(count, count))
        self.both.sum_duplicates()
        self.facts = set(zip(subjects.tolist(), objects.tolist()))
        self.pairs = {}
        for pair in zip(subjects.tolist(), objects.tolist()):
            self.pairs[pair] = self.pairs.get(pair, 0) + 1
        self.out = csr_array((np.ones(len(subjects)), (subjects, objects)), shape=(count, count))
        self.levels, self.ranks = {}, {}

    def neighbors(self, node):
        """Each as often as there are facts."""
        row = slice(self.both.indptr[node], self.both.indptr[node + 1])
        return dict(zip(self.both.indices[row].tolist(), self.both.data[row].astype(int).tolist()))

    def hops(self, start, depth):
        """How many hops each node is away, −1 beyond."""
        if (start, depth) not in self.levels:
            hops = np.full(self.both.shape[0], -1, np.int8)
            hops[start], level = 0, np.array([start])
            for hop in range(1, depth + 1):
                indptr = self.both.indptr
                parts = [self.both.indices[indptr[node] : indptr[node + 1]] for node in level.tolist()]
                if not parts:
                    break
                level = np.unique(np.concatenate(parts))
                level = level[hops[level] < 0]
                hops[level] = hop
            self.levels[start, depth] = hops
        return self.levels[start, depth]

    def distance(self, start, end):
        hops = self.hops(start, 64)
        return int(hops[end])

    def rank(self, seeds):
        """100 steps of the power method: personalised PageRank both ways, by the number of facts."""
        key = tuple(seeds)
        if key not in self.ranks:
            begin = np.zeros(self.both.shape[0])
            np.add.at(begin, seeds, 1 / len(seeds))
            degrees = self.both.sum(axis=1)
            inverse = np.divide(1, degrees, out=np.zeros_like(degrees), where=degrees > 0)
            scores = begin
            for _ in range(100):
                onward = self.both.T @ (scores * inverse) + scores[degrees == 0].sum() * begin
                scores = 0.85 * onward + 0.15 * begin
            self.ranks[key] = scores
        return self.ranks[key]

    def check(self, load, answers):
        """What is wrong with a peer's answers, or None; and the recall, where that is what counts."""
        hits, wanted = 0, 0
        q, line = self.questions, self.line
        asked = q[{"shortest-path": "pairs", "subgraph": "seeds", "pagerank": "seeds", "lookup": "typos"}.get(load, "hops")]
        if len(answers) != len(asked):
            return f"{len(answers)} answers to {len(asked)} questions", None
        for number, (question, answer) in enumerate(zip(asked, answers)):
            if load == "1-hop":
                wrong = self.wrong_neighbors(line[question], answer)
            elif load in ("2-hop", "3-hop"):
                wrong = self.wrong_hops(line[question], int(load[0]), answer)
            elif load == "shortest-path":
                wrong = self.wrong_path(line[question[0]], line[question[1]], answer)
            elif load == "subgraph":
                wrong = self.wrong_subgraph([line[seed] for seed in question], answer)
            elif load == "pagerank":
                scores = self.rank([line[seed] for seed in question])
                least = np.partition(scores, -RANKED)[-RANKED]
                # As good as the last is as good.
                hits += sum(scores[node] >= least * (1 - 1e-9) for node in set(answer))
                wanted, wrong = wanted + RANKED, None
            else:
                hits += line[q["meant"][number]] in answer[:FOUND]
                wanted, wrong = wanted + 1, None
            if wrong:
                return f"{question}: {wrong}", None
        return None, hits / wanted if wanted else None

    def catches(self, load, answers, recall):
        """The control: whether answers with something left out, and with something else in its place, are found to be worse."""
        number = max(range(len(answers)), key=lambda number: len(answers[number]))
        first, stranger = 1 if load == "subgraph" else 0, len(self.line) - 1
        for broken in (answers[number][:-1], [*answers[number][:first], stranger, *answers[number][first + 1 :]]):
            if broken == answers[number]:
                continue
            others = answers if load not in ("pagerank", "lookup") else [broken] * len(answers)
            fault, found = self.check(load, [*others[:number], broken, *others[number + 1 :]])
            if not fault and (recall is None or found >= recall):
                return False
        return True

    def wrong_neighbors(self, node, answer):
        right, found = self.neighbors(node), {}
        for other in answer:
            found[other] = found.get(other, 0) + 1
        if len(answer) != min(LIMIT, sum(right.values())):
            return f"{len(answer)} neighbours of {sum(right.values())}"
        return next((f"{other} {times} times" for other, times in found.items() if times > right.get(other, 0)), None)

    def wrong_hops(self, node, depth, answer):
        right, found = self.hops(node, depth), dict(zip(answer[::2], answer[1::2]))
        reached = int((right > 0).sum())
        if len(found) * 2 != len(answer) or len(found) != min(LIMIT, reached):
            return f"{len(found)} of {reached} entities, {len(answer) // 2 - len(found)} twice"
        return next((f"{other} after {hops} hops" for other, hops in found.items() if right[other] != hops), None)

    def wrong_path(self, start, end, answer):
        distance = self.distance(start, end)
        if len(answer) - 1 != distance and not (distance < 0 and not answer):
            return f"{len(answer) - 1} hops instead of {distance}"
        if answer and (answer[0], answer[-1]) != (start, end):
            return "it ends elsewhere"
        broken = (step for step in zip(answer, answer[1:]) if not {step, step[::-1]} & self.facts)
        return next((f"no fact says {step}" for step in broken), None)

    def wrong_subgraph(self, seeds, answer):
        """Entities within two hops of the seeds, and the facts among them."""
        entities, ends = answer[1 : 1 + answer[0]], answer[1 + answer[0] :]
        near = np.zeros(self.both.shape[0], bool)
        for seed in seeds:
            near |= self.hops(seed, 2) >= 0
        if len(set(entities)) != min(SUBGRAPH[0], int(near.sum())) or not near[entities].all():
            return f"{len(entities)} entities, of which {int((~near[entities]).sum())} are too far"
        scores = self.rank(seeds)
        if scores[entities].sum() < 0.9 * np.sort(scores[near])[-SUBGRAPH[0] :].sum():
            return "it leaves out entities that count more"
        chosen, facts = set(entities), list(zip(ends[::2], ends[1::2]))
        among = sum(int(self.out[[node]][:, list(chosen)].sum()) for node in chosen)
        if len(facts) != min(SUBGRAPH[1], among):
            return f"{len(facts)} facts of {among}"
        wrong = (fact for fact in set(facts) if not {*fact} <= chosen or facts.count(fact) > self.pairs.get(fact, 0))
        return next((f"no fact is {fact}" for fact in wrong), None)


# --- peers in Python -------------------------------------------------------------------------------------------------


class Networkx:
    """A MultiDiGraph for facts, and a Graph of the same for what goes both ways, all in memory."""

    module, loads = "networkx", ["1-hop", "2-hop", "3-hop", "shortest-path", "subgraph", "pagerank"]

    def __init__(self, folder):
        import networkx

        self.nx = networkx

    def fill(self, entities, facts):
        self.facts = self.nx.MultiDiGraph()
        self.facts.add_nodes_from((name, {"label": label}) for name, label, _ in entities)
        self.facts.add_edges_from((fact[0], fact[2], fact[1]) for fact in facts)
        self.both = self.nx.Graph()
        self.both.add_nodes_from(self.facts)
        for subject, object_ in self.facts.edges():
            before = self.both.get_edge_data(subject, object_, {"weight": 0})["weight"]
            self.both.add_edge(subject, object_, weight=before + 1)

    def one_hop(self, name):
        out = [other for _, other, _ in islice(self.facts.out_edges(name, keys=True), LIMIT)]
        incoming = (other for other, _, _ in self.facts.in_edges(name, keys=True) if other != name)
        return out + list(islice(incoming, LIMIT - len(out)))

    def hops(self, name, depth):
        hops = {name: 0}
        for parent, other in islice(self.nx.bfs_edges(self.both, name, depth_limit=depth), LIMIT):
            hops[other] = hops[parent] + 1
        del hops[name]
        return list(hops.items())

    def path(self, start, end):
        try:
            return self.nx.bidirectional_shortest_path(self.both, start, end)
        except self.nx.NetworkXNoPath:
            return []

    def rank(self, seeds):
        scores = self.nx.pagerank(self.both, personalization={seed: 1 for seed in seeds}, weight="weight")
        return sorted(scores, key=scores.get, reverse=True)[:RANKED]

    def subgraph(self, seeds):
        near = {*seeds}
        for seed in seeds:
            near.update(other for _, other in self.nx.bfs_edges(self.both, seed, depth_limit=2))
        scores = self.nx.pagerank(self.both, personalization={seed: 1 for seed in seeds}, weight="weight")
        chosen = sorted(near, key=scores.get, reverse=True)[: SUBGRAPH[0]]
        among = self.facts.subgraph(chosen).edges()
        facts = sorted(among, key=lambda fact: -scores[fact[0]] * scores[fact[1]])[: SUBGRAPH[1]]
        return chosen, facts


class Igraph:
    """A directed multigraph and the same undirected, in memory; PageRank by PRPACK."""

    module, loads = "igraph", ["2-hop", "3-hop", "shortest-path", "subgraph", "pagerank"]

    def __init__(self, folder):
        import igraph

        self.igraph = igraph

    def fill(self, entities, facts):
        self.names = [name for name, *_ in entities]
        self.number = {name: number for number, name in enumerate(self.names)}
        ends = [(self.number[fact[0]], self.number[fact[2]]) for fact in facts]
        self.facts = self.igraph.Graph(n=len(entities), edges=ends, directed=True)
        self.both = self.igraph.Graph(n=len(entities), edges=ends)

    def hops(self, name, depth):
        start, found = self.number[name], []
        # It has no limit, and answers nearest first.
        for hops in range(1, depth + 1):
            ring = self.both.neighborhood(start, order=hops, mindist=hops)
            found += [(self.names[other], hops) for other in ring[: LIMIT - len(found)]]
            if len(found) == LIMIT:
                break
        return found

    def path(self, start, end):
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is no path
            found = self.both.get_shortest_paths(self.number[start], self.number[end])[0]
        return [self.names[node] for node in found]

    def scores(self, seeds):
        return np.array(self.both.personalized_pagerank(reset_vertices=[self.number[seed] for seed in seeds], implementation="prpack"))

    def rank(self, seeds):
        scores = self.scores(seeds)
        best = np.argpartition(scores, -RANKED)[-RANKED:]
        return [self.names[node] for node in best[np.argsort(-scores[best])]]

    def subgraph(self, seeds):
        near = {node for ball in self.both.neighborhood([self.number[seed] for seed in seeds], order=2) for node in ball}
        scores, near = self.scores(seeds), np.array(list(near))
        chosen = near[np.argsort(-scores[near])][: SUBGRAPH[0]].tolist()
        among = self.facts.induced_subgraph(chosen)
        # It keeps the order of the whole graph.
        kept = sorted(chosen)
        ends = [(kept[edge.source], kept[edge.target]) for edge in among.es]
        ends.sort(key=lambda fact: -scores[fact[0]] * scores[fact[1]])
        return [self.names[node] for node in chosen], [(self.names[a], self.names[b]) for a, b in ends[: SUBGRAPH[1]]]


class Ladybug:
    """A node table keyed by name and a relationship table, with properties, filled by COPY; prepared Cypher statements, one thread."""

    module, loads = "ladybug", ["1-hop", "2-hop", "3-hop", "shortest-path"]
    ONE_HOP = "MATCH (a:Entity {name: $name})-[e:Fact]-(b:Entity) RETURN b.name, b.label, e.label LIMIT 1000"
    HOPS = "MATCH (a:Entity {name: $name})-[e:Fact* SHORTEST 1..%d]-(b:Entity) RETURN b.name, length(e) AS hops ORDER BY hops LIMIT 1000"
    PATH = """MATCH (a:Entity {name: $first})-[e:Fact* SHORTEST 1..30]-(b:Entity {name: $last})
              RETURN properties(nodes(e), 'name')"""

    def __init__(self, folder):
        import ladybug

        self.database = ladybug.Database(os.path.join(folder, "graph.lbug"))
        self.connection = ladybug.Connection(self.database, num_threads=int(os.environ.get("LADYBUG_THREADS", "1")))
        self.prepared = {}

    def load(self, data):
        run = self.connection.execute
        self.connection.set_max_threads_for_exec(os.cpu_count())
        run("CREATE NODE TABLE Entity(name STRING, label STRING, properties STRING, PRIMARY KEY(name))")
        run("CREATE REL TABLE Fact(FROM Entity TO Entity, label STRING, properties STRING)")
        run(f"COPY Entity FROM '{data}/entities.csv' (HEADER=false)")
        run(f"COPY Fact FROM '{data}/facts.csv' (HEADER=false)")
        run("CHECKPOINT")

    def rows(self, text, **parameters):
        if text not in self.prepared:
            self.prepared[text] = self.connection.prepare(text)
        return self.connection.execute(self.prepared[text], parameters).get_all()

    def one_hop(self, name):
        return [row[0] for row in self.rows(self.ONE_HOP, name=name)]

    def hops(self, name, depth):
        return [tuple(row) for row in self.rows(self.HOPS % depth, name=name)]

    def path(self, start, end):
        if start == end:
            return [start]
        found = self.rows(self.PATH, first=start, last=end)
        return [start, *found[0][0], end] if found else []


PYTHON = {"networkx": Networkx, "igraph": Igraph, "ladybug": Ladybug}


def run_python(peer, job):
    """A job of a peer in Python, answered as those in Rust answer."""
    kind = PYTHON[peer]
    importlib.import_module(kind.module)
    if job["stage"] == "load":
        engine, began = kind(job["folder"]), time.perf_counter()
        engine.load(job["data"])
        return {"load_seconds": time.perf_counter() - began, "open_seconds": 0, "loads": {}}
    data = Path(job["data"])
    read = lambda name: [line.rstrip("\n").split("\t") for line in open(data / name, encoding="utf-8")]
    questions, entities = json.loads((data / "questions.json").read_text()), read("entities.tsv")
    line = {name: number for number, (name, *_) in enumerate(entities)}
    began = time.perf_counter()
    engine = kind(job["folder"])
    answer = {"load_seconds": 0, "open_seconds": 0, "loads": {}}
    if peer in STORED:
        engine.hops(questions["hops"][0], 2)
        answer["open_seconds"] = time.perf_counter() - began
    else:
        engine.fill(entities, read("facts.tsv"))
    lines = lambda names: [line[name] for name in names]
    flat = lambda pairs: [number for name, hops in pairs for number in (line[name], hops)]
    subgraph = lambda found: [len(found[0]), *lines(found[0]), *(line[end] for fact in found[1] for end in fact)]
    calls = {
        "1-hop": ("hops", lambda name: engine.one_hop(name), lines),
        "2-hop": ("hops", lambda name: engine.hops(name, 2), flat),
        "3-hop": ("hops", lambda name: engine.hops(name, 3), flat),
        "shortest-path": ("pairs", lambda pair: engine.path(*pair), lines),
        "subgraph": ("seeds", lambda seeds: engine.subgraph(seeds), subgraph),
        "pagerank": ("seeds", lambda seeds: engine.rank(seeds), lines),
    }
    for load in job["loads"]:
        asked, call, told = calls[load]
        began = time.perf_counter()
        for question in questions[asked]:
            if time.perf_counter() - began > WARM_UP_SECONDS:
                break
            call(question)
        times, answers = [], []
        for question in questions[asked]:
            began = time.perf_counter()
            found = call(question)
            times.append((time.perf_counter() - began) * 1e6)
            answers.append(told(found))
        answer["loads"][load] = {"times_us": times, "answers": answers}
    return answer


# --- the driver ------------------------------------------------------------------------------------------------------


def job(peer, programs, **fields):
    text = json.dumps({"loads": [], "round": 0, "exclusive": peer == "larder-exclusive", **fields})
    if peer in RUST:
        command = [str(programs / f"peer-{peer.removesuffix('-exclusive')}"), "graph", text]
    else:
        command = [sys.executable, "-W", "ignore", __file__, "--peer", peer, text]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        print(f"{peer} failed: it takes no further part", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def write(data, entities, facts, questions, options):
    import csv

    data.mkdir(parents=True)
    lists = {key: questions[key][: options.questions] for key in ("hops", "pairs", "typos", "meant", "upserts")}
    if options.quick:  # as many of both kinds
        lists["hops"] = questions["hops"][:: max(1, len(questions["hops"]) // options.questions)]
        lists["upserts"] = questions["upserts"][:1_000]
    else:
        lists["upserts"] = questions["upserts"]
    questions = {**lists, "seeds": questions["seeds"][: options.rankings]}
    for name, rows in (("entities", entities), ("facts", facts)):
        (data / f"{name}.tsv").write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
        with open(data / f"{name}.csv", "w", encoding="utf-8", newline="") as file:
            order = (lambda row: row) if name == "entities" else (lambda row: [row[0], row[2], row[1], row[3]])
            csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(order(row) for row in rows)
    (data / "questions.json").write_text(json.dumps(questions))
    return questions


def disk_bytes(folder):
    """Without larder's ballast, which is as large however much is stored."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and file.name != "ballast")


def folder_of(options, peer):
    return options.dir / peer.removesuffix("-exclusive")


def measure(graph, options, entities, facts, questions):
    """Runs every load on one graph; answers with the ratio lines, and whether everything was right."""
    shutil.rmtree(options.dir, ignore_errors=True)
    data = options.dir / "data"
    questions = write(data, entities, facts, questions, options)
    truth = Truth(entities, facts, questions)
    degrees = truth.both.sum(axis=1)
    print(f"\n=== {graph}: {len(entities):,} entities, {len(facts):,} facts, largest degree {int(degrees.max()):,}")
    loaded, peers = {}, []
    for peer in options.peers:
        folder = folder_of(options, peer)
        folder.mkdir(exist_ok=True)
        if peer in STORED:
            answers = []
            for _ in range(options.rounds if "load" in options.loads and not options.quick else 1):
                shutil.rmtree(folder)
                folder.mkdir()
                os.sync()
                answers.append(job(peer, options.programs, stage="load", data=str(data), folder=str(folder)))
            if not all(answers):
                continue
            loaded[peer] = (statistics.median(answer["load_seconds"] for answer in answers), disk_bytes(folder))
        peers.append(peer)
    if "larder-exclusive" in peers and "larder" not in peers:
        raise SystemExit("larder-exclusive opens what larder loaded")
    rounds, wrong = {peer: [] for peer in peers}, {}
    for round_ in range(options.rounds):
        for turn in range(len(peers)):
            peer = peers[(round_ + turn) % len(peers)]
            if options.quick and round_ > 0 and peer in PYTHON:  # half a minute to fill, and to ask
                continue
            fields = {"data": str(data), "folder": str(folder_of(options, peer)), "round": round_}
            own = RUST.get(peer) or PYTHON[peer].loads
            reads = [load for load in options.loads if load in READS and load in own and (load != "lookup" or questions["typos"])]
            if peer == "networkx" and options.quick:  # seconds a question
                reads = [load for load in reads if load not in ("subgraph", "pagerank")]
            if peer == "petgraph":
                reads += [f"{load}-borrows" for load in reads if load != "1-hop"]
            got = job(peer, options.programs, stage="query", loads=reads, **fields) if reads or peer in STORED else None
            for load, answer in (got or {"loads": {}})["loads"].items():
                answers = answer.pop("answers")
                fault, answer["recall"] = truth.check(load.removesuffix("-borrows"), answers)
                if not fault and load in READS and not truth.catches(load, answers, answer["recall"]):
                    raise SystemExit(f"{load}: answers that were broken on purpose pass the check")
                if fault:
                    wrong[peer, load] = fault
            rounds[peer].append(got)
            if got is None and peer.startswith("larder"):
                wrong[peer, "open"] = "it failed"
    writes = [load for load in options.loads if load in WRITES]
    for round_ in range(options.rounds + 1 if writes else 0):
        for peer in [peer for peer in peers if peer in ("larder", "raw")][:: 1 if round_ % 2 else -1]:
            os.sync()
            got = job(peer, options.programs, stage="upsert", loads=writes, data=str(data), folder=str(options.dir / peer), round=round_)
            rounds[peer].append(got)
    ratios = report(graph, options, peers, loaded, rounds, wrong)
    shutil.rmtree(options.dir, ignore_errors=True)
    return ratios, not wrong


def table(title, heads, rows):
    print(f"\n{title}\n{'':>18}" + "".join(f"{head:>14}" for head in heads))
    for peer, row in rows.items():
        print(f"{peer:>18}" + "".join("" if number is None else f"{number:>14,.4f}" if number < 10 else f"{number:>14,.1f}" for number in row))


def report(graph, options, peers, loaded, rounds, wrong):
    ratios = []
    median = lambda numbers: statistics.median(numbers)

    def compare(load, rows, is_rate=False, column=0):
        for ours in ("larder", "larder-exclusive"):
            for peer, row in rows.items():
                if ours not in rows or peer.startswith("larder") or any(key in wrong for key in ((ours, load), (peer, load))):
                    continue
                mine, theirs = rows[ours][column], row[column]
                mode = ours.removeprefix("larder")
                ratios.append(f"ratio graph {load}-{graph}{mode} durable {peer} {mine / theirs if is_rate else theirs / mine:.2f}")

    for load in options.loads:
        rows, is_rate = {}, load == "upsert-64"
        if load == "load":
            rows = {peer: (seconds, size / 1e6) for peer, (seconds, size) in loaded.items()}
            table(f"load, {graph}", ("s", "MB on disk"), rows)
            compare("load", rows)
            compare("disk", rows, column=1)
            continue
        for peer in peers:
            done = [got for got in rounds[peer] if got]
            if load == "open":
                opened = [got["open_seconds"] for got in done if got["open_seconds"]]
                if opened:
                    rows[peer] = (median(opened),)
                continue
            for variant in ("", "-borrows", "-hop"):
                name = load + variant
                got = [one["loads"][name] for one in done if name in one["loads"]]
                if not got:
                    continue
                percentile = lambda share: median(np.percentile(one["times_us"], share) for one in got)
                last = median(one["rate"] for one in got) if load in WRITES else got[0]["recall"]
                row = (last, percentile(50), percentile(99)) if is_rate else (percentile(50), percentile(99), last)
                rows[peer + variant] = row
                if (peer, name) in wrong:
                    wrong[peer + variant, load] = wrong[peer, name]
        if not rows:
            continue
        heads = {"open": ("s to 2 hops",), "upsert-1": ("p50 us", "p99 us", "a second"), "upsert-64": ("a second", "p50 us", "p99 us")}
        table(f"{load}, {graph}", heads.get(load, ("p50 us", "p99 us", "recall")), rows)
        if load == "upsert-64":
            print("(raw's latencies are of 64 rows committed by hand)")
        compare(load, rows, is_rate)
    for (peer, load), fault in wrong.items():
        print(f"\nWRONG: {peer} {load} {graph}: {fault}")
    for load in ("pagerank", "lookup"):
        for peer in ("larder", "larder-exclusive"):
            recalls = [got["loads"][load]["recall"] for got in rounds.get(peer, []) if got and load in got["loads"]]
            if recalls and min(recalls) < RECALL_MIN:
                print(f"\nBELOW: {peer}'s recall of {load} on {graph} is {min(recalls):.3f}, under {RECALL_MIN}")
    return ratios


def main():
    parser = argparse.ArgumentParser(prog="benches/peers/run graph")
    parser.add_argument("--quick", action="store_true", help="fewer questions; 2 rounds, of peers in Python and of loading 1")
    parser.add_argument("--only")
    parser.add_argument("--loads", default=",".join(LOADS))
    parser.add_argument("--graphs", default="wordnet,powerlaw")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--dir", type=Path)
    parser.add_argument("--wordnet", type=Path, default=HERE.parents[3] / "shared/data/graph", help="has train.tar.xz, or what is in it")
    parser.add_argument("--programs", type=Path, default=HERE.parent / "target/release")
    options, began = parser.parse_args(), time.monotonic()
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.questions, options.rankings = (60, 8) if options.quick else (500, 60)
    options.dir = (options.dir or options.programs) / f"larder-peers-{os.getpid()}"
    options.loads = options.loads.split(",")
    options.peers = options.only.split(",") if options.only else [*RUST, *PYTHON]
    wrong = set(options.loads) - set(LOADS) | set(options.peers) - {*RUST, *PYTHON} | set(options.graphs.split(",")) - {"wordnet", "powerlaw"}
    if wrong:
        parser.error(f"there is no {', '.join(sorted(wrong))}")
    options.peers = [peer for peer in options.peers if peer in RUST or has(PYTHON[peer].module)]
    print(f"load      average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {options.rounds} rounds")
    for peer in options.peers:
        if peer in PYTHON:
            print(f"{peer:<9} {version(PYTHON[peer].module)}; {PYTHON[peer].__doc__}")
    ratios, is_right = [], True
    for graph in options.graphs.split(","):
        made = powerlaw() if graph == "powerlaw" else unpacked(options.wordnet)
        if made is None:
            parser.error(f"no WordNet at {options.wordnet}: --wordnet says where it is, --graphs powerlaw does without")
        own, right = measure(graph, options, *made)
        ratios, is_right = ratios + own, is_right and right
    print("\n" + "\n".join(ratios))
    print(f"took {time.monotonic() - began:.0f} s", file=sys.stderr)
    sys.exit(0 if is_right else 1)


def unpacked(folder):
    import tarfile
    import tempfile

    if not (folder / "train.tar.xz").exists():
        return wordnet(folder)
    with tempfile.TemporaryDirectory() as temporary, tarfile.open(folder / "train.tar.xz") as archive:
        archive.extractall(temporary, filter="data")
        found = next(Path(temporary).rglob("train.entities.tsv"), None)
        return wordnet(found.parent if found else None)


def has(module):
    try:
        importlib.import_module(module)
        return True
    except ImportError:
        print(f"{module} is not installed: it takes no part", file=sys.stderr)
        return False


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peer"]:
        print(json.dumps(run_python(sys.argv[2], json.loads(sys.argv[3]))))
    else:
        main()
