CREATE TABLE collection (
    key           INTEGER PRIMARY KEY, -- the sequence of the write that made it; never repeats
    name          TEXT UNIQUE,         -- NULL: dropped or cleared, its rows go bit by bit
    dimensions    INTEGER NOT NULL,    -- components of each vector
    metric        TEXT NOT NULL,       -- cosine, dot or l2
    point_count   INTEGER NOT NULL,
    removals_from INTEGER NOT NULL,    -- the first sequence of which removal is complete
    checksum      INTEGER NOT NULL     -- XXH3-64 over key, dimensions and metric
) STRICT;
CREATE INDEX collection_dropped ON collection (key) WHERE name IS NULL;
CREATE TABLE point (
    slot            INTEGER PRIMARY KEY, -- the sequence of the write that made it; a point that is put again gets another
    collection_key  INTEGER NOT NULL,    -- collection.key
    id              TEXT NOT NULL,       -- the program's id
    document        TEXT,                -- the document that it was made from
    metadata        TEXT,                -- JSON: an object
    checksum        INTEGER NOT NULL,    -- XXH3-64 over slot, collection_key, id, document and metadata; verified on every read
    vector_checksum INTEGER NOT NULL,    -- XXH3-64 over slot and vector; verified on every read
    text_checksum   INTEGER,             -- XXH3-64 over slot and text; verified on every read
    vector          BLOB NOT NULL,       -- 32-bit floats, little endian
    text            TEXT                 -- what hybrid searches read
) STRICT;
CREATE UNIQUE INDEX point_by_id ON point (collection_key, id);
CREATE INDEX point_by_collection ON point (collection_key); -- with the slot, as every index has it
CREATE INDEX point_by_document ON point (collection_key, document) WHERE document IS NOT NULL;
CREATE TABLE declared_field (
    id   INTEGER PRIMARY KEY,  -- its index on point is point_field_<id>
    path TEXT NOT NULL UNIQUE  -- JSON: the field's keys from the outermost in
) STRICT;
CREATE TABLE removal (
    collection_key INTEGER NOT NULL,
    sequence       INTEGER NOT NULL, -- of the write that removed it
    slot           INTEGER NOT NULL, -- what is no longer in point
    PRIMARY KEY (collection_key, sequence)
) STRICT, WITHOUT ROWID;
-- What an index holds of a large collection, so that it is read back instead of made anew from the points; it can be deleted.
CREATE TABLE chunk (
    key            INTEGER PRIMARY KEY,
    collection_key INTEGER NOT NULL,
    first_slot     INTEGER NOT NULL, -- of its points, removed ones included
    last_slot      INTEGER NOT NULL,
    slot_count     INTEGER NOT NULL,
    centre_id      INTEGER,          -- centre.id; NULL: it has no codes
    checksum       INTEGER NOT NULL, -- XXH3-64 over collection_key and content
    columns_checksum INTEGER NOT NULL, -- XXH3-64 over collection_key and columns
    columns        BLOB NOT NULL,    -- the points' metadata by field, for filters
    content        BLOB NOT NULL     -- codes and rows of 8 bits
) STRICT;
CREATE INDEX chunk_by_slot ON chunk (collection_key, first_slot, last_slot, slot_count);
CREATE TABLE centre (
    collection_key INTEGER NOT NULL,
    id             INTEGER NOT NULL, -- XXH3-64 over collection_key and mean
    mean           BLOB NOT NULL,    -- what codes are made around: 32-bit floats, little endian
    PRIMARY KEY (collection_key, id)
) STRICT, WITHOUT ROWID;
