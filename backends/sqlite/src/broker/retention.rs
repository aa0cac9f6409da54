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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use trunkline_core::size::ByteSize;
    use trunkline_core::{Clock, ManualClock, Timestamp};
    use trunkline_messaging::{Message, Publish, Source, Start};

    use super::super::book::create_queue;
    use super::super::consumer::Wish;
    use super::super::group;
    use super::super::limits::Limits;
    use super::super::outgoing::Outgoing;
    use super::super::schema::SCHEMA;
    use super::*;
    use crate::engine::{Cache, Tx};

    const HOUR: Duration = Duration::from_secs(3600);
    const PLENTY: ByteSize = ByteSize::mib(100);

    struct World {
        connection: Connection,
        cache: Cache,
        clock: ManualClock,
        jobs: JobSender,
        retention: Retention,
    }

    impl World {
        fn new(config: &EmbeddedBrokerConfig) -> Self {
            let connection = Connection::open_in_memory().unwrap();
            connection.execute_batch(SCHEMA.steps[0]).unwrap();
            let clock = ManualClock::new(Timestamp::from_unix_millis(1_000_000));
            let shared: SharedClock = Arc::new(clock.clone());
            let jobs = JobSender::new();
            let outbox = Outbox::new(jobs.clone(), Arc::clone(&shared), config);
            Self {
                connection,
                cache: Cache::default(),
                clock,
                jobs: jobs.clone(),
                retention: Retention::new(jobs, shared, outbox, config),
            }
        }

        fn publish(&mut self, destination: &Destination, count: usize) {
            let now = self.clock.now().unix_micros();
            let limits = Limits::of(&EmbeddedBrokerConfig::default());
            let mut book = Book::default();
            for _ in 0..count {
                let publish = Publish::new(destination.clone(), Message::new(vec![7; 1000]));
                let outgoing = Outgoing::new(publish, now, 1 << 20).unwrap();
                book.publish(&self.connection, &limits, now, &outgoing)
                    .unwrap();
            }
            book.save(&self.connection).unwrap();
            self.cache.clear();
        }

        /// A group that wants everything and has finished what stands before a position.
        fn group_at(&mut self, next: i64) {
            let wish = Wish {
                source: Source::Topics("orders".parse().unwrap()),
                group: Some("mail".to_owned()),
                start: Start::Earliest,
                prefetch: 1,
                lease: 1,
            };
            let mut book = Book::default();
            group::join(&self.connection, &mut book, &wish, "process", 0).unwrap();
            self.connection
                .execute("UPDATE cursor SET next = ?1", [next])
                .unwrap();
            self.cache.clear();
        }

        /// Does what is to be done, and says which positions are left.
        fn left(&mut self) -> Vec<i64> {
            self.retention.look(&self.connection);
            loop {
                let jobs = self.jobs.take(100);
                if jobs.is_empty() {
                    break;
                }
                for mut job in jobs {
                    let mut ring = false;
                    let mut tx = Tx::new(&self.connection, &mut self.cache, &mut ring);
                    job.run(&mut tx).unwrap();
                    job.done(Ok(()));
                }
            }
            self.check_sums();
            let mut statement = self.connection.prepare("SELECT id FROM message").unwrap();
            let rows = statement.query_map([], |row| Ok(position(row.get(0)?)));
            rows.unwrap().map(Result::unwrap).collect()
        }

        fn check_sums(&self) {
            let sql = "SELECT (SELECT total(count) FROM topic) = (SELECT count(*) FROM message) \
                 AND (SELECT total(bytes) FROM topic) = \
                 (SELECT total(length(head) + length(payload)) FROM message)";
            let right: bool = self
                .connection
                .query_row(sql, [], |row| row.get(0))
                .unwrap();
            assert!(right, "the topic knows what it holds");
        }
    }

    fn kept(span: Duration, messages: u64, bytes: ByteSize) -> EmbeddedBrokerConfig {
        EmbeddedBrokerConfig::default().with_kept(span, messages, bytes)
    }

    fn nothing() -> EmbeddedBrokerConfig {
        kept(Duration::ZERO, 0, ByteSize::new(0))
    }

    fn orders() -> Destination {
        Destination::Topic("orders".parse().unwrap())
    }

    #[test]
    fn what_nobody_needs_is_kept_for_a_time() {
        let mut world = World::new(&kept(HOUR, 1000, PLENTY));
        world.publish(&orders(), 2);
        world.clock.advance(HOUR / 2);
        world.publish(&orders(), 1);
        world.clock.advance(HOUR / 2);
        assert_eq!(world.left(), [1, 2, 3]);
        world.clock.advance(Duration::from_secs(1));
        assert_eq!(world.left(), [3]);
    }

    #[test]
    fn so_many_messages_are_kept() {
        let mut world = World::new(&kept(HOUR, 2, PLENTY));
        world.publish(&orders(), 5);
        assert_eq!(world.left(), [4, 5]);
    }

    #[test]
    fn so_many_bytes_are_kept() {
        let mut world = World::new(&kept(HOUR, 1000, ByteSize::new(2500)));
        world.publish(&orders(), 5);
        assert_eq!(world.left(), [4, 5]);
    }

    #[test]
    fn a_great_many_go_in_steps() {
        let mut world = World::new(&nothing());
        world.publish(&orders(), 2 * usize::try_from(STEP).unwrap() + 1);
        world.clock.advance(HOUR);
        assert_eq!(world.left(), Vec::<i64>::new());
    }

    #[test]
    fn what_a_group_wants_is_kept_until_its_age_is_reached() {
        let mut world = World::new(&nothing());
        world.publish(&orders(), 5);
        world.group_at(3);
        world.clock.advance(24 * HOUR);
        assert_eq!(world.left(), [3, 4, 5]);
        world.retention.max_age = Some(micros(25 * HOUR));
        assert_eq!(world.left(), [3, 4, 5]);
        world.publish(&orders(), 1);
        world.clock.advance(2 * HOUR);
        assert_eq!(world.left(), [6]);
    }

    #[test]
    fn a_queue_keeps_what_nobody_took_until_its_age_is_reached() {
        let mut world = World::new(&nothing().with_max_age(Some(25 * HOUR)));
        let name: TopicName = "work".parse().unwrap();
        let mut book = Book::default();
        create_queue(&world.connection, &mut book, &name, 0).unwrap();
        world.publish(&Destination::Queue(name), 2);
        world.clock.advance(24 * HOUR);
        assert_eq!(world.left(), [1, 2]);
        world.clock.advance(2 * HOUR);
        assert_eq!(world.left(), Vec::<i64>::new());
    }

    #[test]
    fn a_topic_that_nobody_uses_is_forgotten() {
        let mut world = World::new(&nothing());
        world.publish(&orders(), 1);
        world.clock.advance(HOUR / 2);
        world.left();
        let topics = |world: &World| -> i64 {
            let sql = "SELECT count(*) FROM topic WHERE id > 0";
            let count = world.connection.query_row(sql, [], |row| row.get(0));
            count.unwrap()
        };
        assert_eq!(topics(&world), 1);
        world.clock.advance(HOUR);
        world.left();
        assert_eq!(topics(&world), 0);
    }
}
