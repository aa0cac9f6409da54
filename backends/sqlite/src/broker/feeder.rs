//! Finds messages for the consumers of this process: on the waker's thread, whenever something was committed, by
//! whichever process, or a time has come.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};
use trunkline_core::SharedClock;
use trunkline_messaging::{Destination, TopicName};

use super::book::Book;
use super::consumer::{Consumer, Consumers};
use super::group;
use super::lane::Lane;
use super::schedule;
use crate::engine::{EmbeddedDirectory, JobSender, Listener, Nudge};
use crate::error::Failure;

/// Up to so many topics it is cheaper to read all their heads than to look for each.
const FEW_TOPICS: i64 = 200;
/// How often to look for processes that died with messages in their hands.
const SWEEP: i64 = 250_000;
const SECOND: i64 = 1_000_000;
/// After an error.
const LATER: Duration = Duration::from_secs(1);

pub(super) struct Feeder {
    consumers: Consumers,
    directory: EmbeddedDirectory,
    jobs: JobSender,
    clock: SharedClock,
    lanes: BTreeMap<u64, Lane>,
    /// Consumers came or went since the topics were read.
    moved: bool,
    topics: Topics,
    due_seq: i64,
    scheduled_at: Option<i64>,
    moving: Arc<AtomicBool>,
    nudge: Nudge,
    sweep_at: i64,
}

/// The topics and queues that the consumers of this process get messages of, by number. The others, which may come and
/// go by the thousand, are not kept.
#[derive(Default)]
pub(super) struct Topics {
    known: HashMap<i64, Topic>,
    /// The newest of all.
    newest: i64,
}

pub(super) struct Topic {
    pub(super) destination: Destination,
    pub(super) head: i64,
}

impl Topics {
    pub(super) fn get(&self, topic: i64) -> Option<&Topic> {
        self.known.get(&topic)
    }

    /// Whether there are topics that were not there before.
    fn has_news(&mut self, connection: &Connection) -> rusqlite::Result<bool> {
        let newest = connection
            .prepare_cached("SELECT max(id) FROM topic")?
            .query_row([], |row| row.get(0))?;
        // Numbers are not used again.
        Ok(std::mem::replace(&mut self.newest, newest) < newest)
    }

    /// Knows these topics and no others.
    fn keep(&mut self, connection: &Connection, wanted: &BTreeSet<i64>) -> rusqlite::Result<()> {
        self.known.retain(|id, _| wanted.contains(id));
        let mut statement =
            connection.prepare_cached("SELECT head, queue, name FROM topic WHERE id = ?1")?;
        for id in wanted {
            if self.known.contains_key(id) {
                continue;
            }
            let mut rows = statement.query([id])?;
            // A name that is none cannot have been written by us.
            if let Some(row) = rows.next()?
                && let Ok(name) = TopicName::new(row.get::<_, String>(2)?)
            {
                let destination = if row.get(1)? {
                    Destination::Queue(name)
                } else {
                    Destination::Topic(name)
                };
                let head = row.get(0)?;
                self.known.insert(*id, Topic { destination, head });
            }
        }
        Ok(())
    }

    fn read_heads(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if self.newest <= FEW_TOPICS {
            let mut statement = connection.prepare_cached("SELECT id, head FROM topic")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                if let Some(topic) = self.known.get_mut(&row.get(0)?) {
                    topic.head = row.get(1)?;
                }
            }
            return Ok(());
        }
        let mut statement = connection.prepare_cached("SELECT head FROM topic WHERE id = ?1")?;
        for (id, topic) in &mut self.known {
            if let Some(head) = statement.query_row([id], |row| row.get(0)).optional()? {
                topic.head = head;
            }
        }
        Ok(())
    }
}

impl Feeder {
    pub(super) fn new(
        consumers: Consumers,
        directory: EmbeddedDirectory,
        jobs: JobSender,
        clock: SharedClock,
        nudge: Nudge,
    ) -> Self {
        Self {
            consumers,
            directory,
            jobs,
            clock,
            lanes: BTreeMap::new(),
            moved: false,
            topics: Topics::default(),
            due_seq: -1,
            scheduled_at: None,
            moving: Arc::default(),
            nudge,
            sweep_at: 0,
        }
    }

    fn look(&mut self, connection: &Connection, changed: bool) -> rusqlite::Result<i64> {
        let now = self.clock.now().unix_micros();
        self.adopt();
        if changed || self.moved || self.due_seq < 0 {
            self.read_changes(connection)?;
        }
        self.move_scheduled(now);
        self.sweep(connection, now)?;
        let mut next = self.scheduled_at.unwrap_or(i64::MAX);
        if !self.lanes.is_empty() {
            next = next.min(self.sweep_at);
        }
        for lane in self.lanes.values_mut() {
            lane.feed(connection, &self.topics, now)?;
            next = next.min(lane.next_look());
        }
        Ok(next.saturating_sub(now))
    }

    fn read_changes(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        // One moment: what was published before what is seen is seen too.
        let transaction = connection.unchecked_transaction()?;
        let due_seq = connection
            .prepare_cached("SELECT head FROM topic WHERE id = 0")?
            .query_row([], |row| row.get(0))?;
        if due_seq != self.due_seq {
            self.due_seq = due_seq;
            self.scheduled_at = schedule::next_due(connection)?;
            self.lanes.values_mut().for_each(Lane::may_be_due);
        }
        let news = self.topics.has_news(connection)?;
        if news || self.moved {
            for lane in self.lanes.values_mut() {
                if news || lane.is_new() {
                    lane.read_cursors(connection)?;
                }
            }
            let wanted = self.lanes.values().flat_map(Lane::topics).collect();
            self.topics.keep(connection, &wanted)?;
            self.moved = false;
        }
        self.topics.read_heads(connection)?;
        transaction.finish()
    }

    /// Takes on the consumers that are new and lets go of those that left.
    fn adopt(&mut self) {
        let open: BTreeMap<u64, Arc<Consumer>> = self
            .consumers
            .open()
            .into_iter()
            .filter(|(_, consumer)| consumer.attached().is_some())
            .collect();
        let before = self.lanes.len();
        self.lanes.retain(|number, _| open.contains_key(number));
        self.moved |= self.lanes.len() < before;
        for (number, consumer) in open {
            if let Entry::Vacant(place) = self.lanes.entry(number) {
                place.insert(Lane::new(consumer));
                self.moved = true;
            }
        }
    }

    #[cfg(test)]
    pub(super) fn known_topics(&self) -> usize {
        self.topics.known.len()
    }

    fn move_scheduled(&mut self, now: i64) {
        if self.scheduled_at.is_some_and(|at| at <= now)
            && !self.moving.swap(true, Ordering::AcqRel)
        {
            // A move that succeeds changes the sequence, and the next time is read again; one that fails is repeated.
            self.scheduled_at = Some(now + SECOND);
            schedule::submit(
                &self.jobs,
                &self.clock,
                Arc::clone(&self.moving),
                self.nudge.clone(),
            );
        }
    }

    fn sweep(&mut self, connection: &Connection, now: i64) -> rusqlite::Result<()> {
        if now < self.sweep_at {
            return Ok(());
        }
        self.sweep_at = now + SWEEP;
        let liveness = self.directory.liveness();
        for process in group::processes(connection)? {
            if !liveness.is_alive(&process) {
                bury(&self.jobs, &self.clock, process);
            }
        }
        Ok(())
    }
}

impl Listener for Feeder {
    fn wake(&mut self, connection: &Connection, changed: bool) -> Option<Duration> {
        match self.look(connection, changed) {
            Ok(next) => Some(Duration::from_micros(u64::try_from(next).unwrap_or(0))),
            Err(error) => {
                tracing::error!(target: "trunkline", %error, "cannot look for messages; trying again");
                // What was missed is read again.
                self.due_seq = -1;
                self.topics.newest = 0;
                Some(LATER)
            }
        }
    }

    fn is_over(&self) -> bool {
        self.consumers.is_closed()
    }
}

fn bury(jobs: &JobSender, clock: &SharedClock, process: String) {
    tracing::info!(target: "trunkline", process, "a process died; its messages go to others");
    let clock = Arc::clone(clock);
    jobs.errand(
        false,
        move |tx| {
            let (connection, book) = tx.cached::<Book>();
            group::bury(connection, &process, clock.now().unix_micros())?;
            book.due(connection)?;
            book.save(connection)?;
            tx.forget_cached();
            tx.ring();
            Ok(())
        },
        |outcome: Result<(), &Failure>| {
            if let Err(failure) = outcome {
                let error = failure.to_error("subscribe");
                tracing::warn!(target: "trunkline", error = %error.report(), "cannot take over from a dead process yet");
            }
        },
    );
}
