//! The record that a message was handled, in the same transaction as its effect.

use std::time::Duration;

use rusqlite::{Connection, params};
use trunkline_core::{Clock as _, SystemClock};

/// How long a message is remembered: far longer than any broker keeps redelivering it.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Records that each new one clears away when their time is over: more than it adds.
const CLEARED_AT_ONCE: i64 = 2;

pub(super) const TABLE: &str = "CREATE TABLE trunkline_inbox (
        id INTEGER PRIMARY KEY,
        consumer TEXT NOT NULL,
        message_id TEXT NOT NULL,
        handled_at INTEGER NOT NULL,
        UNIQUE (consumer, message_id)
    ) STRICT";

/// Records that a consumer group handles a message, and says whether it is the first time. Call it in the transaction
/// that writes the effect, and write the effect only when it answers true. A record is kept for 30 days.
///
/// # Errors
/// Those of SQLite; the transaction fails with them.
pub fn record(connection: &Connection, group: &str, message_id: &str) -> rusqlite::Result<bool> {
    let now = SystemClock.now().unix_micros();
    let is_new = connection
        .prepare_cached(
            "INSERT INTO trunkline_inbox (consumer, message_id, handled_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
        )?
        .execute(params![group, message_id, now])?
        == 1;
    if is_new {
        let forgotten = now - i64::try_from(REMEMBERED.as_micros()).unwrap_or(i64::MAX);
        // Rows are numbered as they are made: the oldest come first without another index.
        connection
            .prepare_cached(
                "DELETE FROM trunkline_inbox WHERE id IN
                 (SELECT id FROM trunkline_inbox ORDER BY id LIMIT ?2) AND handled_at < ?1",
            )?
            .execute([forgotten, CLEARED_AT_ONCE])?;
    }
    Ok(is_new)
}
