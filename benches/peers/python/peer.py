"""The peers in Python: `peer.py langchain|llamaindex chat REQUEST` and `peer.py diskcache embed_cache REQUEST`, as
peer-harness starts them.

LangChain: SQLChatMessageHistory on SQLite, windows by trim_messages. LlamaIndex: ChatMemoryBuffer over its SQLite chat store.
Messages, loads, script and checks are those of ../harness/src/chat; both sides must make the same ones.
"""

import array
import functools
import json
import os
import random
import sys
import threading
import time
from importlib.metadata import version

MASK = (1 << 64) - 1
WORDS = """the of and report sales year market house which before river people found after number question answer little
garden because window music north paper machine green winter station letter simple travel morning""".split()
SESSION = "the one"
WINDOW_TOKENS = 8192


def mix(number):
    z = (number + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def message(number):
    """(role, text), as entry.rs makes it."""
    state = mix(mix(4) ^ number)
    words = [f"m{number}", f"topic{number % 1000}"]
    for _ in range(55):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        words.append(WORDS[mix(state) % len(WORDS)])
    return ("user" if number % 2 == 0 else "assistant", " ".join(words))


@functools.cache
def encoding():
    from llama_index.core.utils import get_tokenizer

    return get_tokenizer().func.__self__  # cl100k_base: llama-index-core carries it, tiktoken would download it


def tokens(text):
    return len(encoding().encode(text, disallowed_special=()))


class LangChain:
    durable = "SQLAlchemy's defaults: rollback journal, synchronous=FULL, a commit for each call"
    callers = "threads that share one engine; trim_messages counts with cl100k_base"
    packages = ["langchain-community", "langchain-core", "SQLAlchemy"]

    def __init__(self, folder):
        from langchain_community.chat_message_histories import SQLChatMessageHistory
        from langchain_core.messages import AIMessage, HumanMessage, trim_messages
        from sqlalchemy import create_engine

        path = os.path.join(folder, "history.db")
        # Waits for locks, and has a connection for each caller.
        self.engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 60}, pool_size=64)
        self.open = lambda session: SQLChatMessageHistory(session, connection=self.engine)
        self.kinds = {"user": HumanMessage, "assistant": AIMessage}
        self.trim = trim_messages
        # Made once: the first history creates the table.
        self.open("first")
        self.histories = {}

    def history(self, session):
        if session not in self.histories:
            self.histories[session] = self.open(session)
        return self.histories[session]

    def append(self, session, messages):
        self.history(session).add_messages([self.kinds[role](text) for role, text in messages])

    def window(self, session, limit):
        kept = self.trim(
            self.history(session).messages,
            max_tokens=limit,
            strategy="last",
            start_on="human",
            token_counter=lambda messages: sum(tokens(one.content) for one in messages),
        )
        return [one.content for one in kept]

    def count(self, session):
        return len(self.history(session).messages)


class LlamaIndex:
    durable = "SQLAlchemy's defaults: rollback journal, synchronous=FULL, a commit for each call"
    callers = "threads that share one chat store; ChatMemoryBuffer counts with cl100k_base, its default"
    packages = ["llama-index-core", "llama-index-storage-chat-store-sqlite", "SQLAlchemy"]

    def __init__(self, folder):
        from llama_index.core.llms import ChatMessage
        from llama_index.core.memory import ChatMemoryBuffer
        from llama_index.storage.chat_store.sqlite import SQLiteChatStore

        self.message, self.buffer = ChatMessage, ChatMemoryBuffer
        path = os.path.join(folder, "chat.db")
        self.store = SQLiteChatStore.from_uri(f"sqlite:///{path}?timeout=60")

    def memory(self, session, limit=WINDOW_TOKENS):
        return self.buffer.from_defaults(chat_store=self.store, chat_store_key=session, token_limit=limit)

    def append(self, session, messages):
        for role, text in messages:
            self.store.add_message(session, self.message(role=role, content=text))

    def window(self, session, limit):
        return [one.content for one in self.memory(session, limit).get()]

    def count(self, session):
        return len(self.store.get_messages(session))


def script(peer):
    answers = []
    sessions = [("a", 0, [1, 1, 40]), ("b", 500, [2, 18, 30]), ("ключ %_'\";--", 1000, [1, 2, 3])]
    for session, first, batches in sessions:
        following = first
        for count in batches:
            peer.append(session, [message(number) for number in range(following, following + count)])
            following += count
            answers.append(f"{session}: {peer.count(session)} messages")
            for limit in [200, 500, 1000, 2100, 8192]:
                if limit < 200 * min(count, 2):
                    continue
                window = peer.window(session, limit)
                head = f'Some("{window[0].split(" ")[0]}")' if window else "None"
                answers.append(f"{session} of {limit}: {len(window)} from {head}")
    return answers


def load_of(name):
    kind, number = name.rsplit("-", 1)
    return kind, int(number)


class Turn:
    """Callers that start together, each finishing the call it is in when time is up."""

    def __init__(self, peer, load):
        self.peer, (self.kind, self.number) = peer, load
        self.callers = self.number if self.kind == "append" else 1
        self.appended = [0] * self.callers
        if self.kind == "window":
            # What every window must hold, by the peer's own first answer: whole turns, and the newest message last.
            self.expected = peer.window(SESSION, WINDOW_TOKENS)
            newest = message(self.number - 1)[1]
            fits = sum(tokens(text) for text in self.expected) <= WINDOW_TOKENS + len(self.expected)
            if self.expected[-1] != newest or not fits or len(self.expected) < min(self.number, 90):
                raise SystemExit("the window is not what it must be")

    def call(self, caller):
        began = time.perf_counter()
        if self.kind == "append":
            number = caller * 1_000_000 + self.appended[caller]
            self.peer.append(f"caller {caller}", [message(number)])
            self.appended[caller] += 1
        elif self.peer.window(SESSION, WINDOW_TOKENS) != self.expected:
            raise SystemExit("a window differs from the one before")
        return time.perf_counter() - began

    def run(self, seconds):
        gate, latencies, failures, ends = threading.Barrier(self.callers + 1), [[] for _ in range(self.callers)], [], []
        until = [0.0]

        def work(caller):
            try:
                gate.wait()
                while True:
                    latencies[caller].append(self.call(caller))
                    if time.perf_counter() >= until[0]:
                        break
            except BaseException as error:  # a caller's thread must not end unseen
                failures.append(error)
            ends.append(time.perf_counter())

        threads = [threading.Thread(target=work, args=[caller]) for caller in range(self.callers)]
        for thread in threads:
            thread.start()
        began = time.perf_counter()
        until[0] = began + seconds
        gate.wait()
        for thread in threads:
            thread.join()
        if failures:
            raise SystemExit(f"a caller failed: {failures[0]!r}")
        return [latency for list_ in latencies for latency in list_], max(ends) - began

    def check(self):
        for caller, appended in enumerate(self.appended if self.kind == "append" else []):
            session = f"caller {caller}"
            newest = message(caller * 1_000_000 + appended - 1)[1]
            if self.peer.count(session) != appended or self.peer.window(session, WINDOW_TOKENS)[-1] != newest:
                raise SystemExit(f"{session} does not hold what was appended")


def percentiles(latencies):
    latencies.sort()
    at = lambda share: latencies[max(0, -int(-share * len(latencies) // 1) - 1)] * 1e6
    return {"p50_us": at(0.50), "p99_us": at(0.99), "p999_us": at(0.999)}


def answer(kind, request):
    if request == "About":
        versions = ", ".join(f"{package} {version(package)}" for package in kind.packages)
        relaxed = "the same: it has no such setting"
        return {"versions": versions, "durable": kind.durable, "relaxed": relaxed, "callers": kind.callers}
    (name, fields), = request.items()
    peer = kind(fields["folder"])
    if name == "Script":
        return script(peer)
    load = ("window", 10_000) if fields["load"] == "search" else load_of(fields["load"])
    if name == "Prepare":
        if load[0] == "window":
            for first in range(0, load[1], 1000):
                peer.append(SESSION, [message(number) for number in range(first, min(load[1], first + 1000))])
        return None
    turn = Turn(peer, load)
    turn.run(fields["warm_up_seconds"])
    latencies, seconds = turn.run(fields["seconds"])
    turn.check()
    return {"calls": len(latencies), "seconds": seconds, "latency": percentiles(latencies)}


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


def cache_script(peer):
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


class CacheTurn(Turn):
    """A load over vectors; Turn's threads run it."""

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


def cache_answer(request):
    if request == "About":
        versions = ", ".join(f"{package} {version(package)}" for package in DiskCache.packages)
        relaxed = "diskcache's defaults: WAL, synchronous=NORMAL"
        return {"versions": versions, "durable": DiskCache.durable, "relaxed": relaxed, "callers": DiskCache.callers}
    (name, fields), = request.items()
    peer = DiskCache(fields["folder"])
    if name == "Script":
        return cache_script(peer)
    if name == "Prepare":
        with peer.cache.transact():
            peer.get_many([text_of(number) for number in range(VECTORS)])
        peer.cache.close()
        return None
    turn = CacheTurn(peer, fields["load"])
    turn.run(fields["warm_up_seconds"])
    latencies, seconds = turn.run(fields["seconds"])
    turn.check()
    return {"calls": len(latencies), "seconds": seconds, "latency": percentiles(latencies)}


if __name__ == "__main__":
    peer, store, request = sys.argv[1:]
    if peer == "diskcache":
        assert store == "embed_cache", "this peer has no such store"
        print(json.dumps(cache_answer(json.loads(request))))
    else:
        assert store == "chat", "this peer has no such store"
        print(json.dumps(answer({"langchain": LangChain, "llamaindex": LlamaIndex}[peer], json.loads(request))))
