//! Removing messages that nobody needs any more, in small steps, so that nobody waits for it.

use rusqlite::Connection;
use trunkline_core::SharedClock;
use trunkline_messaging::{Destination, TopicName};

use super::book::{Book, first_wanted, remove_before};
use super::config::EmbeddedBrokerConfig;
use super::consumer::Consumers;
use super::group::first_at;
use super::outbox::Outbox;
use super::outgoing::micros;
use super::schema::{position, row};
use crate::engine::{Chore, JobSender, Next};
use crate::error::Failure;

/// Messages removed in one transaction.
const STEP: i64 = 1000;
/// Topics that nobody uses are forgotten after this, or after the time messages are kept if that is longer.
const UNUSED: i64 = 3_600_000_000;

/// What is kept.
#[derive(Clone, Debug)]
pub(super) struct Retention {
    jobs: JobSender,
    clock: SharedClock,
    outbox: Outbox,
    keep_for: i64,
    keep_messages: i64,
    keep_bytes: i64,
    max_age: Option<i64>,
}

#[derive(Clone, Debug)]
struct Stored {
    id: i64,
    destination: Destination,
    head: i64,
    count: i64,
    bytes: i64,
}

impl Retention {
    pub(super) fn new(
        jobs: JobSender,
        clock: SharedClock,
        outbox: Outbox,
        config: &EmbeddedBrokerConfig,
    ) -> Self {
        let clamp = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Self {
            jobs,
            clock,
            outbox,
            keep_for: micros(config.keep_for),
            keep_messages: clamp(config.keep_messages),
            keep_bytes: clamp(config.keep_bytes.bytes()),
            max_age: config.max_age.map(micros),
        }
    }

    /// Looks at every topic and queues what is to be done.
    pub(super) fn look(&self, connection: &Connection) {
        if let Err(error) = self.try_look(connection) {
            tracing::warn!(target: "trunkline", %error, "cannot look for messages to remove; trying again");
        }
    }

    fn try_look(&self, connection: &Connection) -> rusqlite::Result<()> {
        for topic in stored(connection)? {
            if self.boundary(connection, &topic)?.is_some() {
                self.clone().trim(topic);
            }
        }
        let unused_since = self.clock.now().unix_micros() - UNUSED.max(self.keep_for);
        if has_unused(connection, unused_since)? {
            self.forget_unused(unused_since);
        }
        Ok(())
    }

    /// The position before which everything can go, if there is anything.
    fn boundary(&self, connection: &Connection, topic: &Stored) -> rusqlite::Result<Option<i64>> {
        let range = [row(topic.id, 0), row(topic.id, topic.head)];
        let first: Option<i64> = connection
            .prepare_cached("SELECT min(id) FROM message WHERE id BETWEEN ?1 AND ?2")?
            .query_row(range, |row| row.get(0))?;
        let Some(first) = first.map(position) else {
            return Ok(None);
        };
        let now = self.clock.now().unix_micros();
        let older = |age: i64| {
            let time = trunkline_core::Timestamp::from_unix_micros(now.saturating_sub(age));
            first_at(connection, topic.id, topic.head, time)
        };
        let mut boundary = first;
        if let Destination::Topic(_) = topic.destination {
            // A queue forgets what is done at once.
            let wanted = first_wanted(connection, topic.id, topic.head)?;
            let surplus = self.surplus(topic, wanted - first);
            let old = older(self.keep_for)?;
            boundary = (first + surplus).max(old).min(wanted).max(first);
        }
        if let Some(age) = self.max_age {
            boundary = boundary.max(older(age)?);
        }
        Ok((boundary > first).then_some(boundary))
    }

    /// How many of the finished messages are more than is kept; sizes are taken as the average.
    fn surplus(&self, topic: &Stored, finished: i64) -> i64 {
        let average = (topic.bytes / topic.count.max(1)).max(1);
        let by_bytes = self.keep_bytes / average;
        (finished - self.keep_messages.min(by_bytes)).max(0)
    }

    fn trim(self, topic: Stored) {
        let again = (self.clone(), topic.clone());
        self.jobs.clone().errand(
            false,
            move |tx| {
                let (connection, book) = tx.cached::<Book>();
                let Some(now) = book.find(connection, &topic.destination)? else {
                    return Ok(false);
                };
                let state = Stored {
                    head: now.head,
                    count: now.count,
                    bytes: now.bytes,
                    ..topic.clone()
                };
                let Some(boundary) = self.boundary(connection, &state)? else {
                    return Ok(false);
                };
                let (count, bytes) = remove_before(connection, topic.id, boundary, STEP)?;
                now.removed(count, bytes);
                book.save(connection)?;
                Ok(count == STEP)
            },
            move |outcome: Result<bool, &Failure>| {
                let (retention, topic) = again;
                retention.outbox.made_room();
                match outcome {
                    Ok(true) => retention.trim(topic),
                    Ok(false) => {}
                    Err(failure) => {
                        let error = failure.to_error("retention");
                        tracing::debug!(target: "trunkline", error = %error.report(), "cannot remove messages now");
                    }
                }
            },
        );
    }

    fn forget_unused(&self, since: i64) {
        self.jobs.errand(
            false,
            move |tx| {
                tx.connection()
                    .prepare_cached(&format!("DELETE FROM topic WHERE {IS_UNUSED}"))?
                    .execute([since])?;
                tx.forget_cached();
                Ok(())
            },
            |_: Result<(), &Failure>| {},
        );
    }
}

/// Topics of replies and the like come and go; without messages and groups nothing is lost with them.
const IS_UNUSED: &str = "id > 0 AND used_at < ?1 AND queue = 0 AND count = 0 AND NOT EXISTS (SELECT 1 FROM cursor WHERE topic = topic.id)";

fn has_unused(connection: &Connection, since: i64) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(&format!("SELECT 1 FROM topic WHERE {IS_UNUSED} LIMIT 1"))?
        .exists([since])
}

fn stored(connection: &Connection) -> rusqlite::Result<Vec<Stored>> {
    let mut statement = connection
        .prepare_cached("SELECT id, queue, name, head, count, bytes FROM topic WHERE count > 0")?;
    let mut rows = statement.query([])?;
    let mut stored = Vec::new();
    while let Some(row) = rows.next()? {
        let (queue, name): (bool, String) = (row.get(1)?, row.get(2)?);
        // A name that is none cannot have been written by us.
        let Ok(name) = TopicName::new(name) else {
            continue;
        };
        let destination = if queue {
            Destination::Queue(name)
        } else {
            Destination::Topic(name)
        };
        stored.push(Stored {
            id: row.get(0)?,
            destination,
            head: row.get(3)?,
            count: row.get(4)?,
            bytes: row.get(5)?,
        });
    }
    Ok(stored)
}

/// The chore that looks after every topic whenever somebody has written something.
pub(super) fn chore(retention: Retention, consumers: Consumers) -> Chore {
    // What only age makes removable is noticed a little later.
    const IDLE_TICKS: u32 = 30;
    let mut version = -1;
    let mut idle = 0;
    Box::new(move |connection| {
        if consumers.is_closed() {
            return Next::Over;
        }
        let now = connection
            .query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0))
            .unwrap_or(version - 1);
        idle += 1;
        if now != version || idle >= IDLE_TICKS {
            version = now;
            idle = 0;
            retention.look(connection);
        }
        Next::GoOn
    })
}
