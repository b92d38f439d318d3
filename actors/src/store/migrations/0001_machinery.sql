CREATE TABLE change_log (
    sequence     INTEGER PRIMARY KEY, -- of the last write in the commit; every write takes the next number
    first        INTEGER NOT NULL,    -- sequence of the commit's first write
    committed_ms INTEGER NOT NULL,    -- milliseconds since 1970-01-01 UTC
    origin       INTEGER NOT NULL,    -- which opening of the store committed it: a random number
    changes      TEXT NOT NULL        -- JSON: [{"kind", "scope", "ids", "runs"}...]; runs: pairs, from the first
                                      -- to the last of ids that count up; no ids and no runs: everything in the scope
);
CREATE TABLE idempotency (
    key          TEXT PRIMARY KEY,    -- the caller's name for one write
    message_hash BLOB NOT NULL,       -- of the message; another message under this key is a conflict
    outcome      BLOB NOT NULL,       -- the reply that a repetition gets, in the codec's encoding
    created_ms   INTEGER NOT NULL
);
CREATE INDEX idempotency_by_age ON idempotency (created_ms);
CREATE TABLE lease (
    name         TEXT PRIMARY KEY,    -- what its holder may do alone
    holder       TEXT NOT NULL,       -- the file below processes/ that the holder's process keeps locked while it lives
    fencing      INTEGER NOT NULL,    -- which holding: the sequence of the write that took it
    until_ms     INTEGER NOT NULL     -- from then on somebody else may take it
);
