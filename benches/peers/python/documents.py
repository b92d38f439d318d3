"""The documents run's peer in Python: LlamaIndex's SimpleDocumentStore, one JSON file that persist() writes anew.

Texts, loads, script and checks are those of ../harness/src/documents; both sides must make the same ones.
"""

import json
import os
import time

from shared import Random, percentiles

CHUNKS = 100
DOCUMENTS = 200
SYLLABLES = "ka lo mi ren su ta vo zel nar pi dor fe gu hal jo bri cas den el wim".split()


def word(rank):
    letters = "q"
    while True:
        letters += SYLLABLES[rank % 20]
        rank //= 20
        if rank == 0:
            return letters


def document(number):
    return f"documents/{number:06}.md"


def own_word(number, chunk):
    return f"x{number}y{chunk}"


def chunk(number, place):
    """A chunk as entry.rs makes it."""
    random = Random(number, place)
    words = [own_word(number, place)]
    for _ in range(100):
        bound = 1 + random.below(20_000)
        bound = 1 + random.below(bound)
        words.append(word(random.below(bound)))
    text, start = " ".join(words), place * 700
    metadata = f'{{"source":"{document(number)}","chunk":{place},"lang":"en"}}'
    return {"id": f"{document(number)}#{place}", "text": text, "metadata": metadata, "span": (start, start + len(text))}


def chunks(number):
    return [chunk(number, place) for place in range(CHUNKS)]


class LlamaIndex:
    durable = "persist() after each put writes its one JSON file anew, and does not sync it"
    relaxed = "the same: it has no such setting"
    callers = "in place"
    packages = ["llama-index-core"]

    def __init__(self, folder):
        from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
        from llama_index.core.storage.docstore import SimpleDocumentStore

        self.node_type, self.source, self.related = TextNode, NodeRelationship.SOURCE, RelatedNodeInfo
        self.path = os.path.join(folder, "docstore.json")
        exists = os.path.exists(self.path)
        self.store = SimpleDocumentStore.from_persist_path(self.path) if exists else SimpleDocumentStore()

    def node(self, document, chunk):
        return self.node_type(
            id_=chunk["id"],
            text=chunk["text"],
            metadata=json.loads(chunk["metadata"]),
            start_char_idx=chunk["span"][0],
            end_char_idx=chunk["span"][1],
            relationships={self.source: self.related(node_id=document)},
        )

    def put(self, document, chunks, persists=True):
        """What did not change, by LlamaIndex's own hash, is not written, as its ingestion does; answers how many were."""
        nodes = [self.node(document, chunk) for chunk in chunks]
        changed = [node for node in nodes if self.store.get_document_hash(node.node_id) != node.hash]
        info, ids = self.store.get_ref_doc_info(document), {node.node_id for node in nodes}
        gone = [node_id for node_id in (info.node_ids if info else []) if node_id not in ids]
        for node_id in gone:
            self.store.delete_document(node_id)
        if changed:
            self.store.add_documents(changed, allow_update=True)
        if persists and (changed or gone):
            self.persist()
        return len(changed)

    def persist(self):
        self.store.persist(self.path)

    def get(self, node_id):
        node = self.store.get_document(node_id, raise_error=False)
        return node and self.chunk(node)

    def chunk(self, node):
        metadata = json.dumps(node.metadata, separators=(",", ":"), ensure_ascii=False)
        span = (node.start_char_idx, node.end_char_idx)
        return {"id": node.node_id, "text": node.text, "metadata": metadata, "span": span}

    def search(self, words):
        """It has no search: the script's questions are answered by looking at every node."""
        holds = lambda text: all(word in text.split(" ") for word in words.split(" "))
        return sorted(node_id for node_id, node in self.store.docs.items() if holds(node.text))

    def count(self):
        return len(self.store.docs)


def quoted(names):
    return f"[{', '.join(json.dumps(name, ensure_ascii=False) for name in names)}]"


def script(peer):
    answers = []

    def answer():
        answers.append(f"count {peer.count()}")
        for number, place in [(0, 0), (1, 1), (1, 50), (2, 99)]:
            expected = chunk(number, place)
            found = peer.get(expected["id"])
            said = "none" if found is None else "as it was put" if found == expected else shown(found)
            answers.append(f"get {expected['id']}: {said}")
            answers.append(f"search {number} {place}: {quoted(peer.search(own_word(number, place)))}")
        answers.append(f"search two: {quoted(peer.search(f'{word(30)} {word(41)}'))}")

    answer()
    for number in range(3):
        peer.put(document(number), chunks(number))
    answer()
    written = peer.put(document(1), chunks(1))
    answers.append(f"written again: {'at most all' if written <= CHUNKS else 'too many'}")
    answer()
    changed = chunks(1)[:7]
    for one in changed[:3]:
        one["text"] = f"changed {one['text']}"
    changed.append({"id": "new #'\"", "text": "ключ 鍵 changed", "metadata": "{}", "span": (0, 0)})
    peer.put(document(1), changed)
    answer()
    answers.append(f"changed: {quoted(peer.search('changed'))}")
    answers.append(f"ключ: {quoted(peer.search('ключ'))}")
    peer.put(document(2), [])
    answer()
    return answers


def shown(found):
    """A chunk as Rust's `Debug` shows it."""
    text = lambda name: json.dumps(found[name], ensure_ascii=False)
    return f"Chunk {{ id: {text('id')}, text: {text('text')}, metadata: {text('metadata')}, span: {found['span']} }}"


class Turn:
    """One caller; only its calls are timed, and every answer is checked."""

    def __init__(self, peer, load, seed):
        self.peer, self.load, self.random, self.following = peer, load, Random(seed, 0), 0

    def call(self):
        if self.load == "get":
            expected = chunk(self.random.below(DOCUMENTS), self.random.below(CHUNKS))
            began = time.perf_counter()
            found = self.peer.get(expected["id"])
            took = time.perf_counter() - began
            if found != expected:
                raise SystemExit(f"{expected['id']} is {found}")
            return took
        is_new = self.load == "ingest"
        number = self.following if is_new else self.random.below(DOCUMENTS)
        self.following += is_new
        put = chunks(number)
        began = time.perf_counter()
        written = self.peer.put(document(number), put)
        took = time.perf_counter() - began
        if written != (CHUNKS if is_new else 0):
            raise SystemExit(f"{written} chunks of {document(number)} were written")
        return took

    def run(self, seconds):
        latencies, until = [], time.perf_counter() + seconds
        while not latencies or time.perf_counter() < until:
            latencies.append(self.call())
        return latencies

    def check(self):
        if self.load != "ingest":
            return
        if self.peer.count() != self.following * CHUNKS:
            raise SystemExit(f"{self.peer.count()} chunks where {self.following * CHUNKS} were put")
        for number in range(self.following):
            expected = chunk(number, number % CHUNKS)
            if self.peer.get(expected["id"]) != expected:
                raise SystemExit(f"{expected['id']} is not what was put")


def answer(peer, name, fields):
    if name == "Script":
        return script(peer)
    if name == "Prepare":
        for number in range(0 if fields["load"] == "ingest" else DOCUMENTS):
            peer.put(document(number), chunks(number), persists=False)
        return peer.persist()
    turn = Turn(peer, fields["load"], fields["seed"])
    turn.run(fields["warm_up_seconds"])
    latencies = turn.run(fields["seconds"])
    turn.check()
    return {"calls": len(latencies), "seconds": sum(latencies), "latency": percentiles(latencies)}
