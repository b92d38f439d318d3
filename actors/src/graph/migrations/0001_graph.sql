CREATE TABLE label (
    key      INTEGER PRIMARY KEY,
    text     TEXT NOT NULL UNIQUE, -- what kind of thing an entity is, or what a relation says
    checksum INTEGER NOT NULL      -- the lower 32 bits of XXH3-64 over key and text; verified on every read
) STRICT;
CREATE TABLE entity (
    key              INTEGER PRIMARY KEY, -- the sequence of the write that made it; never repeats
    label_key        INTEGER NOT NULL,    -- label.key
    name             TEXT NOT NULL,
    created_ms       INTEGER NOT NULL,
    updated_ms       INTEGER,             -- NULL: created_ms
    gone_ms          INTEGER,             -- when it was deleted or merged into another; NULL: it is there
    merged_into      INTEGER,             -- entity.key, if it was merged; NULL beside gone_ms: its rows go bit by bit
    checksum         INTEGER NOT NULL,    -- as label's, over the columns before it; verified on every read
    description      TEXT,
    properties       TEXT,                -- JSON: an object
    payload_checksum INTEGER              -- as label's, over key, description and properties; NULL: there are none
) STRICT;
CREATE INDEX entity_by_label ON entity (label_key) WHERE gone_ms IS NULL; -- with the key, as every index has it
CREATE INDEX entity_gone ON entity (merged_into) WHERE gone_ms IS NOT NULL;
-- What full-text lookups find entities by.
CREATE VIEW entity_document AS
    SELECT key, name || char(10) || coalesce(description, '') AS text FROM entity WHERE gone_ms IS NULL;
-- Every name by which an entity that is there is found.
CREATE TABLE name (
    name       TEXT NOT NULL,
    label_key  INTEGER NOT NULL,
    entity_key INTEGER NOT NULL,
    is_alias   INTEGER NOT NULL, -- 0: it is the entity's own
    checksum   INTEGER NOT NULL, -- as label's, over the columns before it; verified on every read
    PRIMARY KEY (name, label_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX name_alias ON name (entity_key) WHERE is_alias = 1;
CREATE TABLE relation (
    key              INTEGER PRIMARY KEY, -- the sequence of the write that made it; never repeats
    subject          INTEGER NOT NULL,    -- entity.key; while the entity is gone, nobody sees the relation
    label_key        INTEGER NOT NULL,    -- label.key
    object           INTEGER NOT NULL,    -- entity.key
    qualifier        TEXT,                -- tells it from others of the same three; NULL: the usual one
    weight           REAL,                -- NULL: 1
    valid_from_ms    INTEGER,             -- since when it holds; NULL: always
    valid_until_ms   INTEGER,             -- until when it holds; NULL: for ever
    recorded_ms      INTEGER NOT NULL,    -- when it became as it is here
    checksum         INTEGER NOT NULL,    -- as label's, over the columns before it; verified on every read
    properties       TEXT,                -- JSON: an object
    payload_checksum INTEGER              -- as label's, over key and properties; NULL: there are none
) STRICT;
CREATE INDEX relation_out ON relation (subject, label_key, object);
CREATE INDEX relation_in ON relation (object); -- with the key, in whose order facts are read
-- What relations were before they were changed.
CREATE TABLE relation_past (
    version          INTEGER PRIMARY KEY, -- the sequence of the write that changed it
    superseded_ms    INTEGER NOT NULL,    -- when that was
    key              INTEGER NOT NULL,    -- relation.key; from here on as there
    subject          INTEGER NOT NULL,
    label_key        INTEGER NOT NULL,
    object           INTEGER NOT NULL,
    qualifier        TEXT,
    weight           REAL,
    valid_from_ms    INTEGER,
    valid_until_ms   INTEGER,
    recorded_ms      INTEGER NOT NULL,
    checksum         INTEGER NOT NULL,    -- as label's, over the columns before it; verified on every read
    properties       TEXT,
    payload_checksum INTEGER
) STRICT;
CREATE INDEX relation_past_by_key ON relation_past (key);
CREATE INDEX relation_past_out ON relation_past (subject);
CREATE INDEX relation_past_in ON relation_past (object);
CREATE TABLE source (
    key      INTEGER PRIMARY KEY AUTOINCREMENT,
    id       TEXT NOT NULL UNIQUE, -- the program's id of a chunk, a message, …
    checksum INTEGER NOT NULL      -- as label's, over key and id; verified on every read
) STRICT;
-- Which source says which fact.
CREATE TABLE said (
    relation_key INTEGER NOT NULL, -- relation.key
    source_key   INTEGER NOT NULL, -- source.key
    PRIMARY KEY (relation_key, source_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX said_by_source ON said (source_key);
CREATE TABLE merge (
    key       INTEGER PRIMARY KEY, -- the sequence of the first write of it
    last      INTEGER NOT NULL,    -- the sequence of the last: what relation_past has between them was moved
    from_key  INTEGER NOT NULL,    -- entity.key of the one that went
    into_key  INTEGER NOT NULL,    -- entity.key of the one that stayed
    merged_ms INTEGER NOT NULL,
    undone_ms INTEGER,             -- NULL: it holds
    names     TEXT NOT NULL,       -- JSON: the names that went over, each as label_key, name, is_alias
    checksum  INTEGER NOT NULL     -- as label's, over the columns before it; verified on every read
) STRICT;
CREATE INDEX merge_by_from ON merge (from_key);
CREATE INDEX merge_by_into ON merge (into_key);
-- What was changed or deleted, for graphs in memory; what was made is told by its key. Kept for the newest million writes.
CREATE TABLE touched (
    sequence INTEGER PRIMARY KEY, -- of the write
    key      INTEGER NOT NULL,    -- entity.key or relation.key
    subject  INTEGER,             -- of a relation, as it was before; NULL: it is an entity
    object   INTEGER
) STRICT;
CREATE TABLE embedding (
    slot       INTEGER PRIMARY KEY,     -- the sequence of the write that made it; one that is put again gets another
    entity_key INTEGER NOT NULL UNIQUE, -- entity.key
    checksum   INTEGER NOT NULL,        -- XXH3-64 over slot, entity_key and components; verified on every read
    components BLOB NOT NULL            -- 32-bit floats, little endian
) STRICT;
CREATE TABLE declared_field (
    id   INTEGER PRIMARY KEY,  -- its index on entity is entity_field_<id>
    path TEXT NOT NULL UNIQUE  -- JSON: the field's keys from the outermost in
) STRICT;
