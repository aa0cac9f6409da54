//! Finds messages for the consumers of this process: on the waker's thread, whenever something was committed, by
//! whichever process, or a time has come.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
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
const FEW_TOPICS: usize = 200;
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
    topics: Topics,
    due_seq: i64,
    scheduled_at: Option<i64>,
    moving: Arc<AtomicBool>,
    nudge: Nudge,
    sweep_at: i64,
}

/// Topics and queues by number, as far as this process has seen them.
#[derive(Default)]
pub(super) struct Topics {
    known: HashMap<i64, Topic>,
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

    /// Reads the heads of the topics that are wanted, and what is new; true when there are topics that were not known.
    fn read(
        &mut self,
        connection: &Connection,
        wanted: impl Iterator<Item = i64>,
    ) -> rusqlite::Result<bool> {
        if self.known.len() > FEW_TOPICS {
            let mut statement =
                connection.prepare_cached("SELECT head FROM topic WHERE id = ?1")?;
            for id in wanted {
                if let Some(topic) = self.known.get_mut(&id)
                    && let Some(head) = statement.query_row([id], |row| row.get(0)).optional()?
                {
                    topic.head = head;
                }
            }
            return self.read_from(connection, self.newest + 1);
        }
        self.read_from(connection, 1)
    }

    fn read_from(&mut self, connection: &Connection, first: i64) -> rusqlite::Result<bool> {
        let mut statement =
            connection.prepare_cached("SELECT id, head, queue, name FROM topic WHERE id >= ?1")?;
        let mut rows = statement.query([first])?;
        let mut news = false;
        while let Some(row) = rows.next()? {
            let (id, head) = (row.get(0)?, row.get(1)?);
            self.newest = self.newest.max(id);
            if let Some(topic) = self.known.get_mut(&id) {
                topic.head = head;
                continue;
            }
            let (queue, name): (bool, String) = (row.get(2)?, row.get(3)?);
            // A name that is none cannot have been written by us.
            let Ok(name) = TopicName::new(name) else {
                continue;
            };
            let destination = if queue {
                Destination::Queue(name)
            } else {
                Destination::Topic(name)
            };
            self.known.insert(id, Topic { destination, head });
            news = true;
        }
        Ok(news)
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
        if changed || self.due_seq < 0 {
            self.read_changes(connection)?;
        }
        self.adopt(connection)?;
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
        let wanted = self.lanes.values().flat_map(Lane::topics);
        if self.topics.read(connection, wanted)? {
            for lane in self.lanes.values_mut() {
                lane.read_cursors(connection)?;
            }
        }
        transaction.finish()
    }

    /// Takes on the consumers that are new and lets go of those that left.
    fn adopt(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let open: BTreeMap<u64, Arc<Consumer>> = self
            .consumers
            .open()
            .into_iter()
            .filter(|(_, consumer)| consumer.attached().is_some())
            .collect();
        self.lanes.retain(|number, _| open.contains_key(number));
        for (number, consumer) in open {
            if let Entry::Vacant(place) = self.lanes.entry(number) {
                let mut lane = Lane::new(consumer);
                lane.read_cursors(connection)?;
                place.insert(lane);
            }
        }
        Ok(())
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
