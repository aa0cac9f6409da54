//! Everything between the tables and the streams, driven by hand on one thread: consumers come and go, time passes,
//! and whatever happens, no message is lost, none is given to two at once, and every key keeps its order.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::Stream;
use proptest::prelude::*;
use rusqlite::Connection;
use trunkline_core::{Clock, ErrorKind, ManualClock, Result, SharedClock, Timestamp};
use trunkline_messaging::{
    Delivery, Destination, Message, Publish, Settlement, Source, Start, TopicName,
};

use super::book::Book;
use super::config::EmbeddedBrokerConfig;
use super::consumer::{Attached, Consumer, Consumers, Deliveries, Wish};
use super::feeder::Feeder;
use super::group;
use super::limits::Limits;
use super::outbox::Outbox;
use super::outgoing::{Outgoing, micros};
use super::schema::SCHEMA;
use crate::engine::{Cache, EmbeddedDirectory, Job, JobSender, Listener, Nudge, Tx};
use crate::error::Failure;

const LEASE: Duration = Duration::from_secs(1);
const TOPICS: [&str; 2] = ["order.created", "order.paid"];

#[derive(Clone, Copy, Debug)]
enum Step {
    Publish {
        topic: usize,
        key: Option<u8>,
    },
    Join {
        prefetch: usize,
    },
    Leave {
        consumer: usize,
    },
    /// A stream is asked for a message.
    Ask {
        consumer: usize,
    },
    Settle {
        delivery: usize,
        how: How,
    },
    Wait {
        millis: u64,
    },
    Look,
    Write {
        fate: Fate,
    },
}

/// What becomes of the jobs that are queued.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Each has a transaction of its own.
    Apart,
    /// They share one.
    Together,
    /// They share one that is rolled back and tried again.
    Twice,
    /// They share one, and a consumer leaves between its commit and whoever hears of it.
    Overtaken,
    /// The disk fails.
    Failed,
}

#[derive(Clone, Copy, Debug)]
enum How {
    Ack,
    Reject,
    Nack,
    NackLater,
    Drop,
    Extend,
    /// The handler is stuck: nothing until the lease is over.
    Nothing,
}

fn step() -> impl Strategy<Value = Step> {
    let how = prop_oneof![
        6 => Just(How::Ack),
        1 => Just(How::Reject),
        2 => Just(How::Nack),
        1 => Just(How::NackLater),
        2 => Just(How::Drop),
        1 => Just(How::Extend),
        1 => Just(How::Nothing),
    ];
    prop_oneof![
        8 => (0..TOPICS.len(), proptest::option::weighted(0.7, 0_u8..3))
            .prop_map(|(topic, key)| Step::Publish { topic, key }),
        1 => (1_usize..6).prop_map(|prefetch| Step::Join { prefetch }),
        1 => any::<usize>().prop_map(|consumer| Step::Leave { consumer }),
        8 => any::<usize>().prop_map(|consumer| Step::Ask { consumer }),
        8 => (any::<usize>(), how).prop_map(|(delivery, how)| Step::Settle { delivery, how }),
        2 => (1_u64..1500).prop_map(|millis| Step::Wait { millis }),
        6 => Just(Step::Look),
        6 => fate().prop_map(|fate| Step::Write { fate }),
    ]
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => Just(Fate::Apart),
        4 => Just(Fate::Together),
        3 => Just(Fate::Twice),
        1 => Just(Fate::Overtaken),
        1 => Just(Fate::Failed),
    ]
}

/// A message as the test knows it.
#[derive(Debug, Default)]
struct Known {
    key: Option<u8>,
    attempt: u32,
    done: bool,
}

struct Held {
    number: usize,
    delivery: Delivery,
    until: Timestamp,
}

struct World {
    connection: Connection,
    cache: Cache,
    jobs: JobSender,
    clock: ManualClock,
    consumers: Consumers,
    feeder: Feeder,
    outbox: Outbox,
    streams: Vec<Deliveries>,
    known: Vec<Known>,
    held: Vec<Held>,
    process: Arc<str>,
    _directory: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let directory = EmbeddedDirectory::open(folder.path()).unwrap();
        let process = Arc::clone(directory.liveness().token());
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(SCHEMA.steps[0]).unwrap();
        let clock = ManualClock::new(Timestamp::from_unix_millis(1_000_000));
        let shared: SharedClock = Arc::new(clock.clone());
        let (jobs, consumers) = (JobSender::new(), Consumers::default());
        let config = EmbeddedBrokerConfig::default();
        let feeder = Feeder::new(
            consumers.clone(),
            directory,
            jobs.clone(),
            Arc::clone(&shared),
            Nudge::idle(),
        );
        let mut world = Self {
            connection,
            cache: Cache::default(),
            outbox: Outbox::new(jobs.clone(), shared, &config),
            jobs,
            clock,
            consumers,
            feeder,
            streams: Vec::new(),
            known: Vec::new(),
            held: Vec::new(),
            process,
            _directory: folder,
        };
        world.join(3);
        world
    }

    fn now(&self) -> i64 {
        self.clock.now().unix_micros()
    }

    fn join(&mut self, prefetch: usize) {
        let wish = Wish {
            source: Source::Topics("order.*".parse().unwrap()),
            group: Some("g".to_owned()),
            start: Start::Earliest,
            prefetch,
            lease: micros(LEASE),
        };
        let mut book = Book::default();
        let now = self.now();
        let member = group::join(&self.connection, &mut book, &wish, &self.process, now).unwrap();
        book.save(&self.connection).unwrap();
        self.cache.clear();
        let consumer = Consumer::new(wish, Arc::new(self.clock.clone()), "new");
        consumer.attach(Attached {
            member,
            jobs: self.jobs.clone(),
            outbox: self.outbox.clone(),
            nudge: Nudge::idle(),
            max_message_size: 1 << 20,
        });
        assert!(self.consumers.add(&consumer));
        self.streams.push(Deliveries(consumer));
    }

    fn publish(&mut self, topic: usize, key: Option<u8>) {
        self.publish_to(TopicName::new(TOPICS[topic]).unwrap(), key);
    }

    fn publish_to(&mut self, name: TopicName, key: Option<u8>) {
        let mut message = Message::new("x").with_id(self.known.len().to_string());
        if let Some(key) = key {
            message = message.with_key(vec![key]);
        }
        let publish = Publish::new(Destination::Topic(name), message);
        let now = self.now();
        let outgoing = Outgoing::new(publish, now, 1 << 20).unwrap();
        let limits = Limits::of(&EmbeddedBrokerConfig::default());
        let mut book = Book::default();
        book.publish(&self.connection, &limits, now, &outgoing)
            .unwrap();
        book.save(&self.connection).unwrap();
        self.cache.clear();
        self.known.push(Known {
            key,
            ..Known::default()
        });
    }

    /// Runs what is queued, and what that queues.
    fn write(&mut self, fate: Fate) {
        loop {
            let jobs = self
                .jobs
                .take(if matches!(fate, Fate::Apart) { 1 } else { 100 });
            if jobs.is_empty() {
                return;
            }
            self.write_group(jobs, fate);
        }
    }

    fn write_group(&mut self, mut jobs: Vec<Box<dyn Job>>, fate: Fate) {
        let times = if matches!(fate, Fate::Twice) { 2 } else { 1 };
        for time in 1..=times {
            self.connection.execute_batch("BEGIN").unwrap();
            for job in &mut jobs {
                let mut ring = false;
                let mut tx = Tx::new(&self.connection, &mut self.cache, &mut ring);
                job.run(&mut tx).unwrap();
            }
            let stays = time == times && !matches!(fate, Fate::Failed);
            let end = if stays { "COMMIT" } else { "ROLLBACK" };
            self.connection.execute_batch(end).unwrap();
            if !stays {
                self.cache.clear();
            }
        }
        if matches!(fate, Fate::Overtaken) {
            drop(self.streams.pop());
        }
        let failure = Failure::gone("the disk failed");
        for job in jobs {
            job.done(match fate {
                Fate::Failed => Err(&failure),
                _ => Ok(()),
            });
        }
    }

    fn look(&mut self) {
        self.feeder.wake(&self.connection, true);
    }

    fn settle_everything(&mut self) {
        for _ in 0..3 {
            self.write(Fate::Together);
            self.look();
        }
        self.write(Fate::Together);
    }

    fn ask(&mut self, consumer: usize) -> bool {
        if self.streams.is_empty() {
            return false;
        }
        let at = consumer % self.streams.len();
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(delivery) = pin!(&mut self.streams[at]).poll_next(&mut cx) else {
            return false;
        };
        self.check(delivery.expect("the broker is connected"));
        true
    }

    fn check(&mut self, delivery: Delivery) {
        let number: usize = delivery.message().id.parse().unwrap();
        let now = self.clock.now();
        let key = self.known[number].key;
        assert!(
            !self.known[number].done,
            "{number} comes although it is done"
        );
        assert!(
            delivery.attempt() > self.known[number].attempt,
            "attempt {} of {number} again",
            delivery.attempt()
        );
        for held in self.held.iter().filter(|held| held.until > now) {
            let same_key = key.is_some() && self.known[held.number].key == key;
            assert!(
                held.number != number && !same_key,
                "{number} comes while {} is held",
                held.number
            );
        }
        if key.is_some() {
            let before = self.known[..number].iter().enumerate();
            let open: Vec<usize> = before
                .filter(|(_, other)| other.key == key && !other.done)
                .map(|(number, _)| number)
                .collect();
            assert!(open.is_empty(), "{number} overtakes {open:?}");
        }
        self.known[number].attempt = delivery.attempt();
        self.held.push(Held {
            number,
            delivery,
            until: now.after(LEASE),
        });
    }

    fn settle(&mut self, delivery: usize, how: How) {
        if self.held.is_empty() {
            return;
        }
        let at = delivery % self.held.len();
        if matches!(how, How::Nothing) {
            return;
        }
        if matches!(how, How::Extend) {
            self.extend(at);
            return;
        }
        let Held {
            number, delivery, ..
        } = self.held.remove(at);
        let delay = Duration::from_millis(700);
        let outcome = match how {
            How::Ack => self.wait_for(delivery.settle(Settlement::Ack)),
            How::Reject => self.wait_for(delivery.settle(Settlement::Reject)),
            How::NackLater => self.wait_for(delivery.nack(Some(delay))),
            How::Nack => self.wait_for(delivery.nack(None)),
            How::Drop | How::Extend | How::Nothing => return,
        };
        match outcome {
            Ok(()) => self.known[number].done = matches!(how, How::Ack | How::Reject),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.report()),
        }
    }

    fn extend(&mut self, at: usize) {
        let held = self.held.remove(at);
        let outcome = self.wait_for(held.delivery.extend(LEASE));
        let until = match outcome {
            Ok(()) => self.clock.now().after(LEASE),
            Err(_) => held.until,
        };
        self.held.push(Held { until, ..held });
    }

    fn wait_for(&mut self, future: impl Future<Output = Result<()>>) -> Result<()> {
        let mut future = pin!(future);
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(outcome) = future.as_mut().poll(&mut cx) {
                return outcome;
            }
            self.write(Fate::Apart);
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Publish { topic, key } => self.publish(topic, key),
            Step::Join { prefetch } => {
                if self.streams.len() < 4 {
                    self.join(prefetch);
                }
            }
            Step::Leave { consumer } => {
                if !self.streams.is_empty() {
                    let at = consumer % self.streams.len();
                    drop(self.streams.remove(at));
                }
            }
            Step::Ask { consumer } => {
                self.ask(consumer);
            }
            Step::Settle { delivery, how } => self.settle(delivery, how),
            Step::Wait { millis } => self.clock.advance(Duration::from_millis(millis)),
            Step::Look => self.look(),
            Step::Write { fate } => self.write(fate),
        }
    }

    /// Whatever went before: with a willing consumer everything is done in the end.
    fn finish(&mut self) {
        self.join(4);
        for _ in 0..(self.known.len() * 4 + 40) {
            self.settle_everything();
            self.clock.advance(Duration::from_millis(300));
            for consumer in 0..self.streams.len() {
                while self.ask(consumer) {}
            }
            while !self.held.is_empty() {
                self.settle(0, How::Ack);
            }
            if self.known.iter().all(|known| known.done) {
                break;
            }
        }
        let left: BTreeMap<usize, &Known> = self
            .known
            .iter()
            .enumerate()
            .filter(|(_, known)| !known.done)
            .collect();
        assert!(left.is_empty(), "lost: {left:?}");
        self.settle_everything();
        let spans: i64 = self
            .connection
            .query_row("SELECT count(*) FROM span", [], |row| row.get(0))
            .unwrap();
        assert_eq!(spans, 0, "what is done leaves nothing behind");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_doubled_or_out_of_order(steps in proptest::collection::vec(step(), 1..150)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        world.finish();
    }
}

#[test]
fn topics_that_nobody_here_gets_are_not_remembered() {
    let mut world = World::new();
    for number in 0..300 {
        let name = TopicName::new(format!("reply.{number}")).unwrap();
        world.publish_to(name, None);
    }
    (0..TOPICS.len()).for_each(|topic| world.publish(topic, None));
    world.look();
    assert_eq!(world.feeder.known_topics(), TOPICS.len());
    world.join(3);
    world.publish_to(TopicName::new("order.sent").unwrap(), None);
    world.look();
    assert_eq!(world.feeder.known_topics(), TOPICS.len() + 1);
    world.streams.clear();
    world.look();
    assert_eq!(world.feeder.known_topics(), 0);
}

#[test]
fn messages_in_a_row_take_one_span() {
    let mut world = World::new();
    world.join(50);
    (0..50).for_each(|_| world.publish(0, None));
    world.ask(1);
    world.look();
    world.write(Fate::Together);
    let spans: Vec<(i64, i64)> = world
        .connection
        .prepare("SELECT lo, hi FROM span")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<rusqlite::Result<_>>()
        .unwrap();
    assert_eq!(spans, [(1, 50)]);
    let mut seen = BTreeSet::new();
    while world.ask(1) {
        seen.insert(world.held.last().unwrap().number);
    }
    assert_eq!(seen.len(), 50);
}

#[test]
fn what_was_never_handed_out_is_not_counted() {
    let mut world = World::new();
    world.publish(0, None);
    world.ask(0);
    world.settle_everything();
    assert!(world.ask(0));
    world.settle(0, How::Nack);
    assert!(!world.ask(0));
    world.look();
    // It was given to the consumer, which leaves before it hears of that.
    world.write(Fate::Overtaken);
    world.join(3);
    world.ask(0);
    world.settle_everything();
    assert!(world.ask(0));
    assert_eq!(world.known[0].attempt, 2);
}

#[test]
fn what_was_found_for_one_who_left_is_not_counted() {
    let mut world = World::new();
    world.publish(0, None);
    world.ask(0);
    world.look();
    // It leaves after a message was found for it, and before that is written down.
    drop(world.streams.pop());
    world.settle_everything();
    world.join(3);
    world.ask(0);
    world.settle_everything();
    assert!(world.ask(0));
    assert_eq!(world.known[0].attempt, 1);
}
