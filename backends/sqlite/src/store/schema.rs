//! The tables of an event store.

use crate::engine::Schema;

pub(super) const SCHEMA: Schema = Schema {
    steps: &["
CREATE TABLE stream(
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    category INTEGER NOT NULL,
    version INTEGER NOT NULL
);

-- Event types and categories of streams.
CREATE TABLE word(
    id INTEGER PRIMARY KEY,
    word TEXT NOT NULL UNIQUE
);

CREATE TABLE event(
    -- Positions have no gaps: they are given within the transaction, and transactions are one behind the other.
    position INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL,
    version INTEGER NOT NULL,
    type INTEGER NOT NULL,
    category INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    aggregate_id TEXT NOT NULL,
    -- JSON.
    data TEXT NOT NULL,
    metadata TEXT NOT NULL,
    -- RFC 3339, as precise as it was given.
    timestamp TEXT NOT NULL,
    correlation_id TEXT NOT NULL,
    -- In microseconds.
    recorded_at INTEGER NOT NULL
);
CREATE UNIQUE INDEX event_stream ON event(stream, version);
CREATE UNIQUE INDEX event_event_id ON event(event_id);
CREATE INDEX event_type ON event(type);
CREATE INDEX event_category ON event(category);

CREATE TABLE checkpoint(
    reader TEXT PRIMARY KEY,
    position INTEGER NOT NULL
) WITHOUT ROWID;
"],
};
