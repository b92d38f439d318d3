-- Which documents belong to a context, which keeps them together with what other stores hold of them.
CREATE TABLE ingested (
    document_key INTEGER PRIMARY KEY, -- document.key
    context      TEXT NOT NULL,       -- its name
    hash         BLOB NOT NULL,       -- BLAKE3 of the content that was ingested; another than the document's: it was put by itself since
    owner        TEXT,                -- whose it is
    session      TEXT,                -- the conversation it came in
    checksum     INTEGER NOT NULL     -- XXH3-64 over the columns before it; verified on every read
) STRICT;
CREATE INDEX ingested_by_owner ON ingested (owner) WHERE owner IS NOT NULL;
CREATE INDEX ingested_by_session ON ingested (session) WHERE session IS NOT NULL;
-- What is about to be done in several stores: redone until it is finished.
CREATE TABLE intent (
    key          INTEGER PRIMARY KEY, -- the sequence of the write that recorded it; never repeats
    context      TEXT NOT NULL,
    subject_kind INTEGER NOT NULL,    -- 0: document, 1: session, 2: owner
    subject      TEXT NOT NULL,       -- its id
    kind         INTEGER NOT NULL,    -- 0: ingest, 1: forget
    leaving      TEXT NOT NULL,       -- JSON: a list of the ids of nodes that its write took from the document
    created_ms   INTEGER NOT NULL,    -- milliseconds since 1970-01-01 UTC
    checksum     INTEGER NOT NULL,    -- XXH3-64 over the columns before it; verified on every read
    holder       TEXT NOT NULL,       -- the file in processes/ that its process keeps locked
    fencing      INTEGER NOT NULL     -- grows with every holder
) STRICT;
CREATE UNIQUE INDEX intent_by_subject ON intent (subject_kind, subject);
CREATE TABLE intent_payload (
    key        INTEGER PRIMARY KEY,
    intent_key INTEGER NOT NULL, -- intent.key
    part       INTEGER NOT NULL, -- in their order
    checksum   INTEGER NOT NULL, -- XXH3-64 over intent_key, part and payload; verified on every read
    payload    BLOB NOT NULL     -- what is needed to do it again
) STRICT;
CREATE UNIQUE INDEX intent_payload_by_part ON intent_payload (intent_key, part);
