"""The tables of a library's catalog. A change of any of them needs a new version number."""

from __future__ import annotations

__all__ = ["APPLICATION_ID", "SCHEMA", "SCHEMA_VERSION"]

SCHEMA_VERSION = 1  # kept in SQLite's user_version
APPLICATION_ID = 0x56434C42  # "VCLB": tells a catalog from any other SQLite file

# Ids are AUTOINCREMENT: an id that was deleted never comes back, so that an index of ids cannot mean another row.
# Times are seconds. `generation` grows with every change of embeddings, so that other processes see it.
# A vector is all rows that an encoder makes of a segment, one after the other, in little-endian float32; how many they
# are, and how long, is the encoder's.
SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('generation', 0);

CREATE TABLE videos (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    path TEXT NOT NULL,
    info TEXT NOT NULL,
    transcript_source TEXT NOT NULL,
    language TEXT,
    added_at TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE segments (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    video_id TEXT NOT NULL REFERENCES videos (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    start REAL NOT NULL,
    "end" REAL NOT NULL,
    UNIQUE (video_id, number)
);

CREATE TABLE embeddings (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    segment_id INTEGER NOT NULL REFERENCES segments (id) ON DELETE CASCADE,
    fingerprint TEXT NOT NULL,
    vector BLOB NOT NULL,
    UNIQUE (segment_id, fingerprint)
);
CREATE INDEX embeddings_by_space ON embeddings (fingerprint);

CREATE TABLE utterances (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    video_id TEXT NOT NULL REFERENCES videos (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    start REAL NOT NULL,
    "end" REAL NOT NULL,
    text TEXT NOT NULL,
    UNIQUE (video_id, number)
);
CREATE VIRTUAL TABLE spoken USING fts5 (
    text, content = 'utterances', content_rowid = 'id', tokenize = 'porter unicode61 remove_diacritics 2'
);
CREATE TRIGGER utterances_added AFTER INSERT ON utterances BEGIN
    INSERT INTO spoken (rowid, text) VALUES (new.id, new.text);
END;
CREATE TRIGGER utterances_removed AFTER DELETE ON utterances BEGIN
    INSERT INTO spoken (spoken, rowid, text) VALUES ('delete', old.id, old.text);
END;
"""
