//! The tables of the broker.
//!
//! Messages of all topics and queues are in one table, clustered by topic: the key is the topic's number and the
//! message's position in it. A group is a cursor per topic — everything before it was given to a consumer once — and
//! spans: runs of messages that were given out and are not settled yet, or that wait to be given out again. So a message
//! that is consumed in order costs no row of its own.

use crate::engine::Schema;

pub(super) const SCHEMA: Schema = Schema {
    steps: &["
CREATE TABLE topic(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue INTEGER NOT NULL,
    name TEXT NOT NULL,
    -- The position of the last message.
    head INTEGER NOT NULL,
    -- What is stored now.
    count INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    -- The time of the last message, or of the topic's creation.
    used_at INTEGER NOT NULL,
    UNIQUE(queue, name)
);
-- The state of the whole, beside the topics so that a publish changes one page less: in used_at the time of the last
-- message of all, in microseconds, which grows with every message; in head a number that grows whenever a span may have
-- become due earlier than was known.
INSERT INTO topic VALUES(0, -1, '', 0, 0, 0, 0);

CREATE TABLE message(
    -- Topic << 40 | position.
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    expires INTEGER,
    key BLOB,
    head BLOB NOT NULL,
    payload BLOB NOT NULL
);

-- Messages for later.
CREATE TABLE scheduled(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    due INTEGER NOT NULL,
    topic INTEGER NOT NULL,
    expires INTEGER,
    key BLOB,
    head BLOB NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX scheduled_due ON scheduled(due);

CREATE TABLE grp(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    -- 0: a group on topics, 1: the consumers of a queue, 2: one subscriber without a group.
    kind INTEGER NOT NULL,
    name TEXT NOT NULL,
    pattern TEXT NOT NULL,
    -- The process that a subscriber without a group lives in.
    process TEXT,
    UNIQUE(kind, name, pattern)
);

CREATE TABLE cursor(
    grp INTEGER NOT NULL,
    topic INTEGER NOT NULL,
    -- The first position that was not given out yet.
    next INTEGER NOT NULL,
    PRIMARY KEY(grp, topic)
) WITHOUT ROWID;
CREATE INDEX cursor_topic ON cursor(topic);

CREATE TABLE span(
    grp INTEGER NOT NULL,
    topic INTEGER NOT NULL,
    lo INTEGER NOT NULL,
    hi INTEGER NOT NULL,
    -- The consumer that has it; 0: nobody.
    owner INTEGER NOT NULL,
    -- When it may be given to another.
    until INTEGER NOT NULL,
    -- How often it was given out.
    attempt INTEGER NOT NULL,
    -- Digest of the message's key, and the message's time; only for single messages with a key.
    key INTEGER,
    ord INTEGER,
    PRIMARY KEY(grp, topic, lo)
) WITHOUT ROWID;
CREATE INDEX span_due ON span(grp, until);
CREATE INDEX span_key ON span(grp, key, ord) WHERE key IS NOT NULL;

CREATE TABLE consumer(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    grp INTEGER NOT NULL,
    process TEXT NOT NULL
);
"],
};

/// Bits of a message's key that hold its position: a billion messages a day for three years.
const POSITION_BITS: u32 = 40;
/// The last position a topic can have.
pub(super) const LAST_POSITION: i64 = (1 << POSITION_BITS) - 1;
/// The last number a topic can have.
pub(super) const LAST_TOPIC: i64 = (1 << (62 - POSITION_BITS)) - 1;

/// The key of a message.
pub(super) const fn row(topic: i64, position: i64) -> i64 {
    topic << POSITION_BITS | position
}

/// The position within a key.
pub(super) const fn position(row: i64) -> i64 {
    row & LAST_POSITION
}

/// The kinds of groups.
pub(super) mod kind {
    pub(in crate::broker) const GROUP: i64 = 0;
    pub(in crate::broker) const QUEUE: i64 = 1;
    pub(in crate::broker) const ALONE: i64 = 2;
}

/// `until` of a message that waits for an earlier one with the same key.
pub(super) const BLOCKED: i64 = i64::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_holds_topic_and_position() {
        let key = row(LAST_TOPIC, LAST_POSITION);
        assert!(key > 0);
        assert_eq!(position(key), LAST_POSITION);
        assert!(row(1, LAST_POSITION) < row(2, 1));
    }
}
