//! Messages for later: they wait in a table of their own and enter their topic when they are due, by whichever process
//! is the first to notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rusqlite::{Connection, params};
use trunkline_core::SharedClock;
use trunkline_messaging::{Destination, TopicName};

use super::book::Book;
use super::outgoing::{Expiry, Outgoing};
use crate::engine::{JobSender, Nudge};
use crate::error::Failure;

/// Messages moved at a time.
const TOGETHER: i64 = 500;

/// When the next message is due.
pub(super) fn next_due(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT min(due) FROM scheduled")?
        .query_row([], |row| row.get(0))
}

/// Queues a move of what is due.
pub(super) fn submit(jobs: &JobSender, clock: &SharedClock, moving: Arc<AtomicBool>, nudge: Nudge) {
    let clock = Arc::clone(clock);
    jobs.errand(
        true,
        move |tx| {
            let now = clock.now().unix_micros();
            let (connection, book) = tx.cached::<Book>();
            let moved = move_due(connection, book, now)?;
            // Moved or not, the next time is to be read again.
            book.due(connection)?;
            book.save(connection)?;
            if moved > 0 {
                tx.ring();
            }
            Ok(())
        },
        move |outcome: Result<(), &Failure>| {
            if let Err(failure) = outcome {
                let error = failure.to_error("publish");
                tracing::warn!(target: "trunkline", error = %error.report(), "messages that are due cannot be moved yet");
            }
            moving.store(false, Ordering::Release);
            nudge.now();
        },
    );
}

fn move_due(connection: &Connection, book: &mut Book, now: i64) -> rusqlite::Result<usize> {
    let rows = read(connection, now)?;
    for (id, message) in &rows {
        book.deliver_scheduled(connection, now, message)?;
        connection
            .prepare_cached("DELETE FROM scheduled WHERE id = ?1")?
            .execute([*id])?;
    }
    Ok(rows.len())
}

/// What is due, with its row.
fn read(connection: &Connection, now: i64) -> rusqlite::Result<Vec<(i64, Outgoing)>> {
    let mut statement = connection.prepare_cached(
        "SELECT scheduled.id, queue, name, expires, key, scheduled.head, payload FROM scheduled JOIN topic ON topic.id = topic \
         WHERE due <= ?1 ORDER BY due, scheduled.id LIMIT ?2",
    )?;
    let mut rows = statement.query(params![now, TOGETHER])?;
    let mut due = Vec::new();
    while let Some(row) = rows.next()? {
        let (queue, name): (bool, String) = (row.get(1)?, row.get(2)?);
        // A name that is none cannot have been written by us.
        let Ok(name) = TopicName::new(name) else {
            continue;
        };
        let expires: Option<i64> = row.get(3)?;
        let key: Option<Vec<u8>> = row.get(4)?;
        let payload: Vec<u8> = row.get(6)?;
        let message = Outgoing {
            destination: if queue {
                Destination::Queue(name)
            } else {
                Destination::Topic(name)
            },
            id: String::new(),
            key: key.map(Bytes::from),
            head: row.get(5)?,
            payload: Bytes::from(payload),
            delay: None,
            expires: expires.map_or(Expiry::Never, Expiry::At),
            mandatory: false,
        };
        due.push((row.get(0)?, message));
    }
    Ok(due)
}
