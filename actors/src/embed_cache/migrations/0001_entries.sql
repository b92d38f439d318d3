CREATE TABLE producer (
    id         INTEGER PRIMARY KEY,
    kind       INTEGER NOT NULL, -- 0: an embedding model, 1: a memoised function
    name       TEXT NOT NULL,
    parameters TEXT NOT NULL,    -- a model's parameters, a function's version, in the program's own form
    dimensions INTEGER,          -- of a model's vectors, said by the first; NULL: a function
    UNIQUE (kind, name, parameters)
) STRICT;
CREATE TABLE entry (
    key         BLOB PRIMARY KEY, -- 32 bytes: BLAKE3 of producer and input
    body_id     INTEGER NOT NULL, -- body.id
    producer_id INTEGER NOT NULL, -- producer.id
    turn        INTEGER NOT NULL, -- the smallest is evicted first: microseconds since 1970-01-01 UTC when it was put (or used), or a little more
    expires_ms  INTEGER,          -- hidden from then on, and swept; NULL: never
    tagged      INTEGER NOT NULL  -- 1: it has rows in tag
) STRICT, WITHOUT ROWID;
CREATE INDEX entry_by_turn ON entry (turn);
CREATE INDEX entry_by_expiry ON entry (expires_ms) WHERE expires_ms IS NOT NULL;
CREATE TABLE body (
    id         INTEGER PRIMARY KEY, -- the turn it was put at, unique: bodies stand in the order in which they were stored
    stored_ms  INTEGER NOT NULL,    -- milliseconds since 1970-01-01 UTC
    compute_us INTEGER NOT NULL,    -- microseconds that the computation took
    format     INTEGER NOT NULL,    -- 0: a vector, 1: encoded by larder's codec
    checksum   INTEGER NOT NULL,    -- XXH3-64 over all of it, key and producer; verified on every read
    value      BLOB NOT NULL        -- a vector: 32-bit floats, little endian
) STRICT;
CREATE TABLE tag (
    tag TEXT NOT NULL,
    key BLOB NOT NULL, -- entry.key
    PRIMARY KEY (tag, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX tag_by_key ON tag (key);
CREATE TABLE total (
    id            INTEGER PRIMARY KEY CHECK (id = 0), -- one row
    entry_count   INTEGER NOT NULL, -- rows of entry
    value_bytes   INTEGER NOT NULL, -- the sum of the sizes of body.value
    evicted_count INTEGER NOT NULL, -- entries evicted to keep the limits, ever
    last_turn     INTEGER NOT NULL  -- the newest turn that a put got
) STRICT;
INSERT INTO total VALUES (0, 0, 0, 0, 0);
