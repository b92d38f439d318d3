"""The peers in Python: `peer.py langchain|llamaindex|diskcache STORE REQUEST`, as peer-harness starts them. Here is the chat
run; of the others, see documents.py and embed_cache.py.

LangChain: SQLChatMessageHistory on SQLite, windows by trim_messages. LlamaIndex: ChatMemoryBuffer over its SQLite chat store.
Messages, loads, script and checks are those of ../harness/src/chat; both sides must make the same ones.
"""

import functools
import json
import os
import sys
import time
from importlib.metadata import version

from shared import MASK, Callers, mix, percentiles

WORDS = """the of and report sales year market house which before river people found after number question answer little
garden because window music north paper machine green winter station letter simple travel morning""".split()
SESSION = "the one"
WINDOW_TOKENS = 8192


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
    """Loaded only by the runs that count: it takes seconds."""
    from llama_index.core.utils import get_tokenizer

    return get_tokenizer().func.__self__  # cl100k_base: llama-index-core carries it, tiktoken would download it


def tokens(text):
    return len(encoding().encode(text, disallowed_special=()))


class LangChain:
    durable = "SQLAlchemy's defaults: rollback journal, synchronous=FULL, a commit for each call"
    relaxed = "the same: it has no such setting"
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
    relaxed = "the same: it has no such setting"
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


class Turn(Callers):
    """A load over messages."""

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

    def check(self):
        for caller, appended in enumerate(self.appended if self.kind == "append" else []):
            session = f"caller {caller}"
            newest = message(caller * 1_000_000 + appended - 1)[1]
            if self.peer.count(session) != appended or self.peer.window(session, WINDOW_TOKENS)[-1] != newest:
                raise SystemExit(f"{session} does not hold what was appended")


def chat_answer(peer, name, fields):
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


def answer(kind, store_answer, request):
    if request == "About":
        versions = ", ".join(f"{package} {version(package)}" for package in kind.packages)
        return {"versions": versions, "durable": kind.durable, "relaxed": kind.relaxed, "callers": kind.callers}
    (name, fields), = request.items()
    return store_answer(kind(fields["folder"]), name, fields)


if __name__ == "__main__":
    peer, store, request = sys.argv[1:]
    import documents
    import embed_cache

    peers = {
        ("langchain", "chat"): (LangChain, chat_answer),
        ("llamaindex", "chat"): (LlamaIndex, chat_answer),
        ("llamaindex", "documents"): (documents.LlamaIndex, documents.answer),
        ("diskcache", "embed_cache"): (embed_cache.DiskCache, embed_cache.answer),
    }
    kind, store_answer = peers[peer, store]
    print(json.dumps(answer(kind, store_answer, json.loads(request))))
