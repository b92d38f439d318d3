"""The embed_cache run's peer in Python: diskcache, SQLite with a file of its own for each large value.

Vectors, loads, script and checks are those of ../harness/src/embed_cache; both sides must make the same ones.
"""

import array
import os
import random
import time

from shared import Callers, percentiles

VECTORS, HOT, MANY, MISSES, DIMENSIONS = 20_000, 1_000, 1_000, 100, 384


def text_of(number):
    return f"text number {number}, of which a model makes a vector"


def vector_of(number):
    """The bytes of 32-bit floats, as entry.rs makes them."""
    return array.array("f", [(number * 31 + at * 7) % 1_000_003 for at in range(DIMENSIONS)]).tobytes()


def embed(text):
    return vector_of(int(text.split()[2].rstrip(",")))


class DiskCache:
    durable = "not measured"
    relaxed = "diskcache's defaults: WAL, synchronous=NORMAL"
    callers = "threads that share one cache; values are the vectors' bytes, so that nothing is pickled"
    packages = ["diskcache"]

    def __init__(self, folder):
        import diskcache

        # No limit: by default it drops what is over 1 GiB, and says nothing.
        self.cache = diskcache.Cache(os.path.join(folder, "cache"), size_limit=1 << 40, eviction_policy="none", timeout=60)

    def get_many(self, texts):
        vectors = []
        for text in texts:
            vector = self.cache.get(text)
            if vector is None:
                vector = embed(text)
                self.cache.set(text, vector)
            vectors.append(vector)
        return vectors


def shown(vector):
    """A vector as Rust's {:?} has it."""
    return "[" + ", ".join(f"{component:.1f}" for component in array.array("f", vector)) + "]"


def script(peer):
    cache, answers = peer.cache, []
    for number in [0, 1, 2, 1]:
        cache.set(text_of(number), vector_of(number + 5))
        answers.append(f"count {len(cache)}")
    for number in [0, 1, 3]:
        found = cache.get(text_of(number))
        answers.append(f"get {number}: " + ("None" if found is None else f"Some({shown(found)})"))
    answers += [f"many: {shown(vector)}" for vector in peer.get_many([text_of(number) for number in [1, 7, 2, 8, 7]])]
    answers.append(f"get 8: Some({shown(cache.get(text_of(8)))})")
    answers.append(f"count {len(cache)}")
    return answers


class Turn(Callers):
    """A load over vectors."""

    def __init__(self, peer, load):
        self.peer, self.kind = peer, load
        self.callers = {"hit-memory": 2, "hit-sqlite": 2, "put-64": 64, "get-many": 1}[load]
        self.made = [0] * self.callers
        self.random = [random.Random(caller) for caller in range(self.callers)]
        self.texts = [text_of(number) for number in range(VECTORS)]

    def new_text(self, caller, more=0):
        return text_of(1_000_000 * (caller + 1) + self.made[caller] + more)

    def call(self, caller):
        cache = self.peer.cache
        if self.kind == "put-64":
            text = self.new_text(caller)
            vector = embed(text)
            began = time.perf_counter()
            cache.set(text, vector)
            took = time.perf_counter() - began
            self.made[caller] += 1
            return took
        if self.kind == "get-many":
            first = self.random[caller].randrange(VECTORS - MANY)
            asked = self.texts[first : first + MANY - MISSES] + [self.new_text(caller, more) for more in range(MISSES)]
            began = time.perf_counter()
            vectors = self.peer.get_many(asked)
            took = time.perf_counter() - began
            self.made[caller] += MISSES
            if any(embed(text) != vector for text, vector in zip(asked, vectors)):
                raise SystemExit("a call for many got other vectors")
            return took
        number = self.random[caller].randrange(HOT if self.kind == "hit-memory" else VECTORS)
        began = time.perf_counter()
        found = cache.get(self.texts[number])
        took = time.perf_counter() - began
        if array.array("f", found[:4])[0] != number * 31 % 1_000_003:
            raise SystemExit(f"the vector of {number} is another one")
        return took

    def check(self):
        if len(self.peer.cache) != VECTORS + sum(self.made):
            raise SystemExit(f"{len(self.peer.cache)} vectors where {VECTORS + sum(self.made)} were put")


def answer(peer, name, fields):
    if name == "Script":
        return script(peer)
    if name == "Prepare":
        with peer.cache.transact():
            peer.get_many([text_of(number) for number in range(VECTORS)])
        peer.cache.close()
        return None
    turn = Turn(peer, fields["load"])
    turn.run(fields["warm_up_seconds"])
    latencies, seconds = turn.run(fields["seconds"])
    turn.check()
    return {"calls": len(latencies), "seconds": seconds, "latency": percentiles(latencies)}
