CREATE TABLE entry (
    id         INTEGER PRIMARY KEY,
    collection TEXT NOT NULL,
    key        TEXT NOT NULL,
    value      ANY NOT NULL,     -- TEXT: JSON; BLOB: bytes, or a value behind a codec header, as format says
    format     INTEGER NOT NULL, -- 0: bytes, 1: JSON, 2: encoded by larder's codec
    version    INTEGER NOT NULL, -- the sequence of the write that made it; never repeats
    created_ms INTEGER NOT NULL, -- milliseconds since 1970-01-01 UTC
    updated_ms INTEGER NOT NULL,
    expires_ms INTEGER,          -- hidden from then on, and swept; NULL: never
    tagged     INTEGER NOT NULL, -- 1: it has rows in tag
    checksum   INTEGER NOT NULL, -- XXH3-64 over collection, key, format and value; verified on every read
    UNIQUE (collection, key)
) STRICT;
CREATE INDEX entry_by_expiry ON entry (expires_ms) WHERE expires_ms IS NOT NULL;
CREATE TABLE tag (
    collection TEXT NOT NULL,
    tag        TEXT NOT NULL,
    entry_id   INTEGER NOT NULL, -- entry.id
    PRIMARY KEY (collection, tag, entry_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX tag_by_entry ON tag (entry_id);
CREATE TABLE declared_field (
    id   INTEGER PRIMARY KEY,  -- its index on entry is entry_field_<id>
    path TEXT NOT NULL UNIQUE  -- JSON: the field's keys from the outermost in
) STRICT;
