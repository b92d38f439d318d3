"""The vectors run: larder and its peers on the same vectors and queries, recall checked before times are compared.

    benches/peers/run vectors [--quick] [--only PEER,…] [--loads LOAD,…] [--sizes N,…] [--rounds N] [--dir FOLDER]

Start at `main`. The two in Rust (`larder`, `raw`) are processes that `job` starts; those in Python are classes below, each in a
process of its own as well. A round runs every peer once, in an order that rotates; the tables give medians over rounds.

Always true: the exact neighbours are numpy's, of all vectors; a peer below the recall that its row must have is named and gets
no ratio; every query of a filtered load asks for another value than the one before, so that no cached answer is measured.
"""

import argparse
import importlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
DIMENSIONS, K, QUERIES = 384, 10, 200
DURABLE_COUNT = 10_000  # as harness/src/vectors.rs has it
RECALL_MIN = 0.99  # of a tuned peer: what larder must reach with its defaults
FILTERS = {
    "query-filter-50pct": ("two", 2),
    "query-filter-10pct": ("ten", 10),
    "query-filter-1pct": ("hundred", 100),
    "query-filter-0.1pct": ("thousand", 1000),
}
QUERY_LOADS = ["query", *FILTERS]
LOADS = [*QUERY_LOADS, "insert", "open"]
RUST = ["larder", "raw"]
RUST_SETTINGS = {"larder": [{}, {"exact": True}], "raw": [{}]}  # larder's defaults come first
# From here on the graphs would take longer to build than everything else: --only names them where they are wanted.
LARGE = 100_000
OF_LARGE = ["larder", "raw", "sqlite-vec", "lancedb"]


def value(query, count, round_):
    return (query * 7919 + round_ * 31) % count


def rss():
    for line in open("/proc/self/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# --- peers -----------------------------------------------------------------------------------------------------------


class Hnswlib:
    """M=16, ef_construction=200; ef the smallest that reaches the recall. Filters are callbacks into Python."""

    module, filters = "hnswlib", ["query-filter-50pct", "query-filter-10pct", "query-filter-1pct"]
    settings = [{"ef": ef} for ef in (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024)]

    def __init__(self, folder, count):
        import hnswlib

        self.path, self.count = os.path.join(folder, "index.bin"), count
        self.index = hnswlib.Index(space="cosine", dim=DIMENSIONS)

    def build(self, base):
        self.index.init_index(max_elements=len(base), M=16, ef_construction=200)
        for first in range(0, len(base), 1000):
            self.index.add_items(base[first : first + 1000], np.arange(first, min(len(base), first + 1000)))
        self.index.save_index(self.path)

    def open(self):
        self.index.load_index(self.path, max_elements=self.count)

    def set(self, ef):
        self.index.set_ef(ef)

    def search(self, query, wanted):
        filter_ = None
        if wanted:
            (_, count), asked = wanted
            filter_ = lambda number: number % count == asked
        try:
            return self.index.knn_query(query, k=K, num_threads=1, filter=filter_)[0][0]
        except RuntimeError:  # it found fewer than k
            return []


class Usearch:
    """f32, connectivity 16, expansion_add 128; expansion_search the smallest that reaches the recall. It has no filters."""

    module, filters = "usearch", []
    settings = [{"expansion": expansion} for expansion in (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024)]

    def __init__(self, folder, count):
        from usearch.index import Index

        self.path = os.path.join(folder, "index.usearch")
        self.index = Index(ndim=DIMENSIONS, metric="cos", dtype="f32", connectivity=16, expansion_add=128)

    def build(self, base):
        for first in range(0, len(base), 1000):
            batch = base[first : first + 1000]
            self.index.add(np.arange(first, first + len(batch)), batch)
        self.index.save(self.path)

    def open(self):
        self.index.load(self.path)

    def set(self, expansion):
        self.index.expansion_search = expansion

    def search(self, query, wanted):
        return self.index.search(query, K).keys


class SqliteVec:
    """vec0 with cosine distance and metadata columns, which it filters inside its scan; exact. WAL, synchronous=NORMAL."""

    module, filters = "sqlite_vec", list(FILTERS)
    settings = [{}]

    def __init__(self, folder, count):
        import apsw  # not every Python's own sqlite3 loads extensions
        import sqlite_vec

        self.db = apsw.Connection(os.path.join(folder, "vec.db"))
        self.db.enable_load_extension(True)
        self.db.load_extension(sqlite_vec.loadable_path())
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=NORMAL")

    def build(self, base):
        fields = ", ".join(f"{name} INTEGER" for name, _ in FILTERS.values())
        self.db.execute(f"CREATE VIRTUAL TABLE v USING vec0(e float[{DIMENSIONS}] distance_metric=cosine, {fields})")
        for first in range(0, len(base), 1000):
            self.db.execute("BEGIN IMMEDIATE")
            rows = ((n, base[n].tobytes(), n % 2, n % 10, n % 100, n % 1000) for n in range(first, min(len(base), first + 1000)))
            self.db.executemany("INSERT INTO v (rowid, e, two, ten, hundred, thousand) VALUES (?, ?, ?, ?, ?, ?)", rows)
            self.db.execute("COMMIT")

    def open(self):
        pass

    def set(self):
        pass

    def search(self, query, wanted):
        condition, parameters = "", [query.tobytes(), K]
        if wanted:
            (name, _), asked = wanted
            condition, parameters = f" AND {name} = ?", [*parameters, asked]
        rows = self.db.execute(f"SELECT rowid FROM v WHERE e MATCH ? AND k = ?{condition}", parameters)
        return [row[0] for row in rows]


class LanceDb:
    """IVF_PQ with its defaults and a scalar index a field; nprobes and refine_factor the smallest that reach the recall."""

    module, filters = "lancedb", list(FILTERS)
    settings = [{"nprobes": p, "refine": r} for p, r in ((10, 5), (20, 10), (40, 10), (80, 20), (160, 40), (400, 100))]

    def __init__(self, folder, count):
        import lancedb

        self.db, self.count = lancedb.connect(folder), count

    def build(self, base):
        import pyarrow as pa

        numbers = np.arange(len(base))
        columns = {"id": numbers, **{name: numbers % count for name, count in FILTERS.values()}}
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(base.reshape(-1)), DIMENSIONS)
        table = self.db.create_table("v", pa.table({"vector": vectors, **columns}))
        table.create_index(metric="cosine", num_partitions=max(1, int(len(base) ** 0.5)), num_sub_vectors=DIMENSIONS // 8)
        for name, _ in FILTERS.values():
            table.create_scalar_index(name)

    def open(self):
        self.table = self.db.open_table("v")

    def set(self, nprobes, refine):
        self.nprobes, self.refine = nprobes, refine

    def search(self, query, wanted):
        search = self.table.search(query).distance_type("cosine").nprobes(self.nprobes).refine_factor(self.refine).limit(K)
        if wanted:
            (name, _), asked = wanted
            search = search.where(f"{name} = {asked}", prefilter=True)
        return search.select(["id", "_distance"]).to_arrow()["id"].to_pylist()


class QdrantEdge:
    """HNSW with m=16, ef_construct=128 and an integer index a field, optimised once filled; hnsw_ef the smallest that reaches the recall."""

    module, filters = "qdrant_edge", list(FILTERS)
    settings = [{"ef": ef} for ef in (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024)]

    def __init__(self, folder, count):
        import qdrant_edge

        self.q, self.path = qdrant_edge, os.path.join(folder, "shard")

    def build(self, base):
        q = self.q
        config = q.EdgeConfig(
            vectors=q.EdgeVectorParams(size=DIMENSIONS, distance=q.Distance.Cosine),
            hnsw_config=q.HnswIndexConfig(m=16, ef_construct=128, full_scan_threshold=1000),
            optimizers=q.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1000),
        )
        os.makedirs(self.path)
        shard = q.EdgeShard.create(self.path, config)
        for name, _ in FILTERS.values():
            shard.update(q.UpdateOperation.create_field_index(name, q.PayloadSchemaType.Integer))
        for first in range(0, len(base), 1000):
            payload = lambda n: {name: n % count for name, count in FILTERS.values()}
            points = [q.Point(n, base[n].tolist(), payload(n)) for n in range(first, min(len(base), first + 1000))]
            shard.update(q.UpdateOperation.upsert_points(points))
        shard.optimize()
        shard.flush()
        shard.close()

    def open(self):
        self.shard = self.q.EdgeShard.load(self.path)

    def set(self, ef):
        self.params = self.q.SearchParams(hnsw_ef=ef)

    def search(self, query, wanted):
        q, filter_ = self.q, None
        if wanted:
            (name, _), asked = wanted
            filter_ = q.Filter(must=[q.FieldCondition(key=name, match=q.MatchValue(asked))])
        request = q.QueryRequest(limit=K, query=q.Query.Nearest(query.tolist()), filter=filter_, params=self.params)
        return [hit.id for hit in self.shard.query(request)]


PYTHON = {"hnswlib": Hnswlib, "usearch": Usearch, "sqlite-vec": SqliteVec, "lancedb": LanceDb, "qdrant-edge": QdrantEdge}


def run_python(peer, job):
    """A job of a peer in Python, answered as those in Rust answer."""
    kind = PYTHON[peer]
    # Mapped, so that it counts as nobody's memory once it is built from.
    base = np.memmap(Path(job["data"]) / "base.f32", np.float32, mode="r").reshape(-1, DIMENSIONS)
    queries = np.fromfile(Path(job["data"]) / "queries.f32", np.float32).reshape(-1, DIMENSIONS)
    importlib.import_module(kind.module)
    before, began = rss(), time.perf_counter()
    engine = kind(job["folder"], len(base))
    if job["stage"] == "build":
        engine.build(base)
        seconds = time.perf_counter() - began
        return {"insert_seconds": seconds, "build_seconds": seconds}
    engine.open()
    engine.set(**job["setting"])
    engine.search(queries[0], None)
    answer = {"open_seconds": time.perf_counter() - began, "loads": {}}
    for load in job["loads"]:
        field = FILTERS.get(load)
        times, ids = [], []
        for query in range(-20, len(queries)):
            wanted = field and (field, value(query % len(queries), field[1], job["round"]))
            began = time.perf_counter()
            found = engine.search(queries[query], wanted)
            if query >= 0:
                times.append((time.perf_counter() - began) * 1e6)
                ids.append([int(number) for number in found])
        answer["loads"][load] = {"times_us": times, "ids": ids}
    return {**answer, "memory_bytes": max(0, rss() - before)}


# --- the driver ------------------------------------------------------------------------------------------------------


def embeddings(folder):
    """Real passages and queries, if they are there; else random vectors with components of falling weight."""
    if folder and (folder / "base.npy").exists():
        return np.load(folder / "base.npy"), np.load(folder / "queries.npy")[:QUERIES], f"all-MiniLM-L6-v2 embeddings of {folder}"
    random = np.random.default_rng(1)
    rows = random.standard_normal((20_480 + QUERIES, DIMENSIONS)) / (1 + np.arange(DIMENSIONS) / 40)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return rows[:20_480], rows[20_480:], "random vectors with components of falling weight"


def grown(base, size):
    """The first `size` vectors: those given, then mixtures of the same covariance, a + 0.6·u·(b − c) at a length of 1."""
    random, parts = np.random.default_rng(2), [base[:size]]
    for first in range(len(base), size, 50_000):
        a, b, c = (base[random.integers(0, len(base), min(50_000, size - first))] for _ in range(3))
        mixed = a + 0.6 * random.random((len(a), 1), dtype=np.float32) * (b - c)
        parts.append((mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32))
    return np.concatenate(parts)


def scores(base, queries):
    return np.concatenate([queries @ base[first : first + 50_000].T for first in range(0, len(base), 50_000)], axis=1)


def truth(all_scores, load, round_):
    """For each query the score that the k-th best match has: whatever reaches it is one of the nearest."""
    field, least = FILTERS.get(load), []
    for query, row in enumerate(all_scores):
        matching = row[value(query, field[1], round_) :: field[1]] if field else row
        k = min(K, len(matching))
        least.append((k, np.partition(matching, -k)[-k]))
    return least


def recall(all_scores, load, round_, ids):
    field, found, wanted = FILTERS.get(load), 0, 0
    for query, (k, least) in enumerate(truth(all_scores, load, round_)):
        own = set(ids[query])
        if field and any(number % field[1] != value(query, field[1], round_) for number in own):
            raise SystemExit(f"{load}: an answer holds what the filter excludes")
        found += sum(all_scores[query][number] >= least - 1e-6 for number in own)
        wanted += k
    return min(1.0, found / wanted)


def job(peer, programs, **fields):
    text = json.dumps({"dimensions": DIMENSIONS, "loads": [], "round": 0, **fields})
    if peer in RUST:
        command = [str(programs / f"peer-{peer}"), "vectors", text]
    else:
        command = [sys.executable, "-W", "ignore", __file__, "--peer", peer, text]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        print(f"{peer} failed: it takes no further part", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def tune(peer, data, folder, all_scores, programs, tries_all):
    """The first setting that reaches the recall, and every setting's recall and p50, for the plot."""
    points, chosen = [], None
    for setting in PYTHON[peer].settings if peer in PYTHON else RUST_SETTINGS[peer]:
        answer = job(peer, programs, stage="query", data=data, folder=folder, loads=["query"], setting=setting)
        if answer is None:
            return None, points
        got = answer["loads"]["query"]
        points.append((recall(all_scores, "query", 0, got["ids"]), statistics.median(got["times_us"]), setting))
        if chosen is None and points[-1][0] >= RECALL_MIN:
            chosen = setting
            if not tries_all:
                break
    return chosen if chosen is not None else (points[-1][2] if points else None), points


def loads_of(peer, chosen):
    filters = PYTHON[peer].filters if peer in PYTHON else list(FILTERS)
    return [load for load in chosen if load == "query" or load in filters]


def measure(size, options, base, queries):
    data = options.dir / "data"
    shutil.rmtree(options.dir, ignore_errors=True)
    data.mkdir(parents=True)
    vectors = grown(base, size)
    vectors.tofile(data / "base.f32")
    queries.tofile(data / "queries.f32")
    all_scores = scores(vectors, queries)
    del vectors
    peers, built, settings, points = [], {}, {}, {}
    for peer in options.peers if options.only or size < LARGE else [peer for peer in options.peers if peer in options.of_large]:
        folder = options.dir / peer
        folder.mkdir()
        built[peer] = job(peer, options.programs, stage="build", data=str(data), folder=str(folder))
        if built[peer] is None:
            continue
        built[peer]["disk_bytes"] = disk_bytes(folder)
        settings[peer], points[peer] = tune(peer, str(data), str(folder), all_scores, options.programs, bool(options.points))
        if settings[peer] is not None:
            peers.append(peer)
            print(f"{size} {peer}: {settings[peer] or 'no setting'}", file=sys.stderr)
    rounds = {peer: [] for peer in peers}
    chosen = [load for load in options.loads if load in QUERY_LOADS]
    for round_ in range(options.rounds):
        for turn in range(len(peers)):
            peer = peers[(round_ + turn) % len(peers)]
            fields = {"stage": "query", "data": str(data), "folder": str(options.dir / peer), "setting": settings[peer]}
            answer = job(peer, options.programs, **fields, loads=loads_of(peer, chosen), round=round_)
            for load, got in (answer or {"loads": {}})["loads"].items():
                got["recall"] = recall(all_scores, load, round_, got.pop("ids"))
            rounds[peer].append(answer)
    report(size, options, peers, built, rounds)
    if "insert" in options.loads and {*RUST} <= {*peers}:
        durable(size, options, data)
    shutil.rmtree(options.dir, ignore_errors=True)
    return {peer: [(share, time_us) for share, time_us, _ in points[peer]] for peer in points}


def disk_bytes(folder):
    """Without larder's ballast, which is as large however much is stored."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and file.name != "ballast")


def durable(size, options, data):
    """100 callers of larder, each with one point at a time, beside a loop that commits the same rows 100 at a time."""
    rates = {peer: [] for peer in RUST}
    for round_ in range(options.rounds + 1):
        for peer in RUST[:: 1 if round_ % 2 else -1]:
            folder = options.dir / f"{peer}-durable"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            answer = job(peer, options.programs, stage="durable", data=str(data), folder=str(folder))
            if answer:
                rates[peer].append(min(size, DURABLE_COUNT) / answer["insert_seconds"])
    if not all(rates.values()):
        return
    rates = {peer: statistics.median(own) for peer, own in rates.items()}
    print(f"\ninsert, durable, 100 callers of one point each beside 100 rows a commit by hand, {options.rounds + 1} rounds")
    for peer, rate in rates.items():
        print(f"{peer:>12}{rate:>16,.1f} vectors/s")
    print(f"\nratio vectors insert-{size} durable raw {rates['larder'] / rates['raw']:.2f}")


def report(size, options, peers, built, rounds):
    done = {peer: [answer for answer in rounds[peer] if answer] for peer in peers}
    ratios = []
    for load in options.loads:
        rows = {}
        for peer in peers:
            if load == "insert" and built[peer]["insert_seconds"]:
                rows[peer] = (size / built[peer]["insert_seconds"], built[peer]["build_seconds"], built[peer]["disk_bytes"] / size)
            if load == "open":
                opened = [answer["open_seconds"] for answer in done[peer] if answer.get("open_seconds")]
                memory = [answer["memory_bytes"] for answer in done[peer]]
                if opened:
                    rows[peer] = (statistics.median(opened), statistics.median(memory) / size)
            got = [answer["loads"][load] for answer in done[peer] if load in answer["loads"]]
            if got:
                percentile = lambda share: statistics.median(np.percentile(one["times_us"], share) for one in got)
                rows[peer] = (percentile(50), percentile(99), statistics.mean(one["recall"] for one in got))
        heads = {"insert": ("vectors/s", "build s", "disk B a vector"), "open": ("first answer s", "B a vector")}.get(load, ("p50 us", "p99 us", "recall"))
        print(f"\n{load}, {size} x {DIMENSIONS}, {len(done.get('larder', []))} rounds")
        print(f"{'':>12}" + "".join(f"{head:>16}" for head in heads))
        for peer, row in rows.items():
            print(f"{peer:>12}" + "".join(f"{number:>16,.4f}" if number < 10 else f"{number:>16,.1f}" for number in row))
        if load == "insert" and "larder" in rows:
            print(f"larder: maintenance was done {built['larder'].get('upkeep_seconds', 0):.1f} s after the first answer")
        for peer, row in rows.items():
            if peer == "larder" or "larder" not in rows:
                continue
            if load in QUERY_LOADS and row[2] < RECALL_MIN:
                print(f"{peer}: its recall is {row[2]:.4f}, below {RECALL_MIN}; no ratio")
                continue
            ours, theirs = rows["larder"][0], row[0]
            ratios.append(f"ratio vectors {load}-{size} relaxed {peer} {ours / theirs if load == 'insert' else theirs / ours:.2f}")
        if load in QUERY_LOADS and "larder" in rows and rows["larder"][2] < 0.99:
            raise SystemExit(f"larder's recall is {rows['larder'][2]:.4f}, below 0.99")
    print("\n" + "\n".join(ratios))


def main():
    parser = argparse.ArgumentParser(prog="benches/peers/run vectors")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 20,480 vectors, and of 200,000 with larder and raw alone")
    parser.add_argument("--only")
    parser.add_argument("--loads", default=",".join(LOADS))
    parser.add_argument("--sizes")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--dir", type=Path)
    parser.add_argument("--embeddings", type=Path, default=HERE.parents[3] / "shared/data/embeddings")
    parser.add_argument("--points", type=Path, help="where to write recall and latency of each setting, for plot.py")
    parser.add_argument("--programs", type=Path, default=HERE.parent / "target/release")
    options = parser.parse_args()
    options.sizes = [int(size) for size in (options.sizes or ("20480,200000" if options.quick else "20480,200000,1000000")).split(",")]
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.of_large = RUST if options.quick else OF_LARGE
    options.dir = (options.dir or options.programs) / f"larder-peers-{os.getpid()}"
    options.loads = options.loads.split(",")
    wrong = set(options.loads) - set(LOADS) | set((options.only or "larder").split(",")) - {*RUST, *PYTHON}
    if wrong:
        parser.error(f"there is no {', '.join(sorted(wrong))}")
    options.peers = options.only.split(",") if options.only else [*RUST, *PYTHON]
    options.peers = [peer for peer in options.peers if peer in RUST or has(PYTHON[peer].module)]
    base, queries, name = embeddings(options.embeddings)
    print(f"data      {name}; {DIMENSIONS} dimensions, cosine, k = {K}, {len(queries)} queries")
    print(f"load      average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for peer in options.peers:
        if peer in PYTHON:
            package = {"qdrant_edge": "qdrant-edge-py"}.get(PYTHON[peer].module, PYTHON[peer].module.replace("_", "-"))
            print(f"{peer:<11} {version(package)}; {PYTHON[peer].__doc__}")
    points = {size: measure(size, options, base, np.ascontiguousarray(queries)) for size in options.sizes}
    if options.points:
        options.points.write_text(json.dumps(points))


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
