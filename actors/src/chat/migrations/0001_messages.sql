CREATE TABLE session (
    id              INTEGER PRIMARY KEY,
    name            TEXT UNIQUE,      -- the program's id for it; NULL: deleted, its rows go bit by bit
    title           TEXT,
    owner           TEXT,             -- a label of the program's
    metadata        TEXT,             -- JSON: an object
    archived        INTEGER NOT NULL, -- 1: the program put it away
    created_ms      INTEGER NOT NULL, -- milliseconds since 1970-01-01 UTC
    updated_ms      INTEGER NOT NULL,
    message_count   INTEGER NOT NULL, -- its rows in place that are no summary
    token_count     INTEGER NOT NULL, -- the sum of their cost_tokens
    summary_through INTEGER,          -- the newest message that its summary covers; NULL: it has none
    forming_ms      INTEGER,          -- a fork without a name yet, begun then; NULL: no such thing
    checksum        INTEGER NOT NULL  -- XXH3-64 over the columns from name to created_ms; verified on every read
) STRICT;
CREATE INDEX session_by_owner ON session (owner, name) WHERE owner IS NOT NULL;
CREATE TABLE body (                   -- a message's content, stored once however many sessions hold it; never updated
    id         INTEGER PRIMARY KEY,   -- the sequence of the write that made it; never repeats
    role       TEXT NOT NULL,
    text       TEXT,                  -- its text and tool results, as searched; NULL: none
    blocks     TEXT,                  -- JSON: its parts; NULL: one plain text, which is in text
    name       TEXT,
    metadata   TEXT,                  -- JSON: an object
    extra      TEXT,                  -- JSON: fields that have no column
    client_id  TEXT,
    created_ms INTEGER NOT NULL,
    checksum   INTEGER NOT NULL       -- XXH3-64 over all columns before it; verified on every read
) STRICT;
CREATE TABLE place (                  -- a message in a session
    session_id          INTEGER NOT NULL, -- session.id
    archived            INTEGER NOT NULL, -- 1: not in windows
    id                  INTEGER NOT NULL, -- the message's id; the order in the session
    body_id             INTEGER NOT NULL, -- body.id; the same number until it is edited
    flags               INTEGER NOT NULL, -- 1: pinned, 2: the session's summary, 4: its text is empty or ends in
                                          -- whitespace, 8: its text holds a control token
    mandatory           INTEGER NOT NULL, -- 1: pinned, the summary, or an instruction: in every strict window
    counter_id          INTEGER,          -- counter.id: who counted; NULL: not counted yet
    text_tokens         INTEGER NOT NULL, -- of the text
    spaced_text_tokens  INTEGER NOT NULL, -- of the text behind a space
    cost_tokens         INTEGER NOT NULL, -- of all parts
    client_id           TEXT,             -- unique in the session
    checksum            INTEGER NOT NULL, -- XXH3-64 over the columns from archived to cost_tokens, but mandatory
    PRIMARY KEY (session_id, archived, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX place_by_body ON place (body_id);
CREATE INDEX place_mandatory ON place (session_id, archived) WHERE mandatory = 1;
CREATE UNIQUE INDEX place_by_client ON place (session_id, client_id) WHERE client_id IS NOT NULL;
CREATE TABLE link (                   -- which unarchived message makes or answers which tool call
    session_id INTEGER NOT NULL,
    call_id    TEXT NOT NULL,         -- empty: any call
    message_id INTEGER NOT NULL,      -- place.id
    is_answer  INTEGER NOT NULL,      -- 0: makes the call, 1: holds its result
    PRIMARY KEY (session_id, call_id, message_id, is_answer)
) STRICT, WITHOUT ROWID;
CREATE INDEX link_by_message ON link (session_id, message_id);
CREATE TABLE counter (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE         -- a token counter's lasting id
) STRICT;
