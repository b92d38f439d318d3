CREATE TABLE document (
    key            INTEGER PRIMARY KEY,
    id             TEXT UNIQUE,      -- the program's id; NULL: deleted, its rows go bit by bit; empty: no document
    state          INTEGER NOT NULL, -- 0: begun, 1: done, 2: failed
    hash           BLOB,             -- BLAKE3 of the content whose nodes are committed; NULL: none are
    attempted_hash BLOB,             -- of the content that was begun or failed; NULL: done
    failure        TEXT,             -- why it failed
    failure_count  INTEGER NOT NULL, -- in a row
    fingerprint    TEXT,             -- the program's own, of the source's state
    metadata       TEXT,             -- JSON: an object
    node_count     INTEGER NOT NULL, -- its rows in node
    created_ms     INTEGER NOT NULL, -- milliseconds since 1970-01-01 UTC
    updated_ms     INTEGER NOT NULL,
    checksum       INTEGER NOT NULL  -- XXH3-64 over key, id, state, hashes, failure, fingerprint, metadata, created_ms
) STRICT;
CREATE INDEX document_by_hash ON document (hash) WHERE hash IS NOT NULL;
CREATE INDEX document_deleted ON document (key) WHERE id IS NULL;
CREATE INDEX document_not_done ON document (id) WHERE state <> 1;
-- Nodes that stand alone belong to it.
INSERT INTO document (key, id, state, failure_count, node_count, created_ms, updated_ms, checksum)
VALUES (0, '', 1, 0, 0, 0, 0, 0);
CREATE TABLE source_text (
    document_key INTEGER PRIMARY KEY, -- document.key
    text         TEXT NOT NULL,       -- the document's whole text, where the program wants it kept
    checksum     INTEGER NOT NULL     -- XXH3-64 over document_key and text; verified on every read
) STRICT;
CREATE TABLE node (
    key          INTEGER PRIMARY KEY, -- the same as long as the node is there
    id           TEXT NOT NULL,       -- the program's id; unique among the nodes of documents that are not deleted
    document_key INTEGER NOT NULL,    -- document.key
    position     INTEGER NOT NULL,    -- the order in the document
    kind         INTEGER NOT NULL,    -- 0: text, 1: image, 2: index, 3: plain
    hash         BLOB NOT NULL,       -- BLAKE3 of content and metadata
    created_ms   INTEGER NOT NULL,    -- milliseconds since 1970-01-01 UTC
    updated_ms   INTEGER NOT NULL,
    checksum     INTEGER NOT NULL,    -- XXH3-64 over all columns but document_key, position, updated_ms; verified on every read
    span_start   INTEGER,             -- where its text is in the document's, in characters
    span_end     INTEGER,
    previous     TEXT,                -- ids of other nodes, which need not be there
    next         TEXT,
    parent       TEXT,
    children     TEXT,                -- JSON: a list of ids
    metadata     TEXT,                -- JSON: an object
    content      TEXT,                -- image: where it is, as JSON; index: its target; plain: JSON
    text         TEXT                 -- what is searched
) STRICT;
CREATE UNIQUE INDEX node_by_id ON node (id, document_key);
CREATE INDEX node_by_document ON node (document_key, position);
CREATE INDEX node_by_hash ON node (substr(hash, 1, 8)); -- half the pages of the whole hash
CREATE INDEX node_by_parent ON node (parent) WHERE parent IS NOT NULL;
CREATE TABLE declared_field (
    id   INTEGER PRIMARY KEY,  -- its index on node is node_field_<id>
    path TEXT NOT NULL UNIQUE  -- JSON: the field's keys from the outermost in
) STRICT;
CREATE TABLE index_record (
    id         TEXT PRIMARY KEY,
    kind       TEXT NOT NULL,
    content    TEXT NOT NULL,    -- JSON
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    checksum   INTEGER NOT NULL  -- XXH3-64 over created_ms, id, kind and content; verified on every read
) STRICT, WITHOUT ROWID;
