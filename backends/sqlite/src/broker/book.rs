//! Topics and queues as the writer knows them: numbers, heads and sizes, kept in memory for as long as no other process
//! writes.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};
use trunkline_core::Error;
use trunkline_messaging::{Destination, Receipt, Routed, TopicName, TopicPattern};

use super::limits::{DestinationFull, Limits};
use super::outgoing::Outgoing;
use super::schema::{LAST_POSITION, LAST_TOPIC, kind, row};
use crate::engine::Stop;

/// Consumed messages that are removed at a time to make room.
const EVICTED: i64 = 500;

#[derive(Debug, Default)]
pub(super) struct Book {
    state: Option<State>,
    topics: HashMap<Destination, Topic>,
    changed: bool,
}

#[derive(Clone, Copy, Debug)]
struct State {
    last_at: i64,
    due_seq: i64,
    changed: bool,
}

/// A topic or queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Topic {
    pub(super) id: i64,
    pub(super) head: i64,
    pub(super) count: i64,
    pub(super) bytes: i64,
    used_at: i64,
    /// Whether a group gets its messages.
    routed: bool,
    changed: bool,
}

impl Topic {
    pub(super) fn removed(&mut self, count: i64, bytes: i64) {
        self.count -= count;
        self.bytes -= bytes;
        self.changed = true;
    }
}

impl Book {
    /// Publishes one message, or refuses it without writing it.
    pub(super) fn publish(
        &mut self,
        connection: &Connection,
        limits: &Limits,
        now: i64,
        message: &Outgoing,
    ) -> Result<Receipt, Stop> {
        self.open(connection, &message.destination, message.mandatory, now)?;
        let size = message.size();
        self.make_room(connection, limits, &message.destination, size)?;
        let at = self.tick(connection, now)?;
        let (Some(topic), changed) = (self.topics.get_mut(&message.destination), &mut self.changed)
        else {
            return Err(Error::internal("the topic vanished").into());
        };
        let later = message.delay.map(|delay| now.saturating_add(delay));
        let position = match later {
            Some(due) => {
                schedule(connection, topic.id, due, now, message)?;
                None
            }
            None => Some(topic.append(connection, at, now, message)?),
        };
        topic.count += 1;
        topic.bytes += size;
        topic.changed = true;
        *changed = true;
        let routed = if topic.routed {
            Routed::Yes
        } else {
            Routed::No
        };
        if later.is_some() {
            self.due(connection)?;
        }
        let receipt = Receipt::new(message.id.clone(), routed);
        Ok(match position {
            Some(position) => receipt.at(position.cast_unsigned()),
            None => receipt,
        })
    }

    /// Moves a scheduled message, whose row the caller removes, into its topic.
    pub(super) fn deliver_scheduled(
        &mut self,
        connection: &Connection,
        now: i64,
        message: &Outgoing,
    ) -> rusqlite::Result<()> {
        if self.find(connection, &message.destination)?.is_none() {
            return Ok(());
        }
        let at = self.tick(connection, now)?;
        if let Some(topic) = self.topics.get_mut(&message.destination) {
            topic.append(connection, at, now, message)?;
            topic.changed = true;
        }
        Ok(())
    }

    /// Finds a topic or queue.
    pub(super) fn find(
        &mut self,
        connection: &Connection,
        destination: &Destination,
    ) -> rusqlite::Result<Option<&mut Topic>> {
        if !self.topics.contains_key(destination) {
            let Some(topic) = load(connection, destination)? else {
                return Ok(None);
            };
            self.topics.insert(destination.clone(), topic);
        }
        // The caller may change it.
        self.changed = true;
        Ok(self.topics.get_mut(destination))
    }

    /// Says that a span, or a scheduled message, may be due earlier than was known.
    pub(super) fn due(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let state = self.state(connection)?;
        state.due_seq += 1;
        state.changed = true;
        Ok(())
    }

    /// Writes down what changed. Every job that used the book calls it last.
    pub(super) fn save(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if let Some(state) = self.state.as_mut().filter(|state| state.changed) {
            state.changed = false;
            connection
                .prepare_cached("UPDATE topic SET used_at = ?1, head = ?2 WHERE id = 0")?
                .execute([state.last_at, state.due_seq])?;
        }
        if !std::mem::take(&mut self.changed) {
            return Ok(());
        }
        for topic in self.topics.values_mut().filter(|topic| topic.changed) {
            topic.changed = false;
            connection
                .prepare_cached(
                    "UPDATE topic SET head = ?2, count = ?3, bytes = ?4, used_at = ?5 WHERE id = ?1",
                )?
                .execute([topic.id, topic.head, topic.count, topic.bytes, topic.used_at])?;
        }
        Ok(())
    }

    /// Finds or makes the topic. A queue must exist, and somebody must listen where that is asked for.
    fn open(
        &mut self,
        connection: &Connection,
        destination: &Destination,
        mandatory: bool,
        now: i64,
    ) -> Result<(), Stop> {
        let nobody = || {
            Error::not_found(format!("nobody subscribes to {destination}"))
                .with_context("destination", destination)
        };
        if let Some(topic) = self.find(connection, destination)? {
            let wanted = topic.routed || !mandatory;
            return if wanted { Ok(()) } else { Err(nobody().into()) };
        }
        if let Destination::Queue(name) = destination {
            return Err(Error::not_found(format!(
                "there is no queue {name}; declare it or subscribe to it first"
            ))
            .into());
        }
        let groups = groups_for(connection, destination.name())?;
        if mandatory && groups.is_empty() {
            return Err(nobody().into());
        }
        let at = self.tick(connection, now)?;
        let topic = create(connection, destination, at, &groups)?;
        self.topics.insert(destination.clone(), topic);
        Ok(())
    }

    fn make_room(
        &mut self,
        connection: &Connection,
        limits: &Limits,
        destination: &Destination,
        size: i64,
    ) -> Result<(), Stop> {
        let Some(topic) = self.topics.get_mut(destination) else {
            return Ok(());
        };
        while topic.count >= limits.messages || topic.bytes.saturating_add(size) > limits.bytes {
            let (count, bytes) = remove_consumed(connection, topic.id, topic.head, EVICTED)?;
            if count == 0 {
                let cause = DestinationFull {
                    destination: destination.to_string(),
                    messages: topic.count.unsigned_abs(),
                    bytes: topic.bytes.unsigned_abs(),
                };
                return Err(cause.error().into());
            }
            topic.removed(count, bytes);
            self.changed = true;
        }
        if topic.head >= LAST_POSITION {
            return Err(Error::exhausted(format!(
                "{destination} has used up its positions; use another name"
            ))
            .into());
        }
        Ok(())
    }

    /// The time of the next message: never the same twice, never going back.
    fn tick(&mut self, connection: &Connection, now: i64) -> rusqlite::Result<i64> {
        let state = self.state(connection)?;
        state.last_at = now.max(state.last_at + 1);
        state.changed = true;
        Ok(state.last_at)
    }

    fn state(&mut self, connection: &Connection) -> rusqlite::Result<&mut State> {
        let known = match self.state {
            Some(state) => state,
            None => connection
                .prepare_cached("SELECT used_at, head FROM topic WHERE id = 0")?
                .query_row([], |row| {
                    Ok(State {
                        last_at: row.get(0)?,
                        due_seq: row.get(1)?,
                        changed: false,
                    })
                })?,
        };
        Ok(self.state.insert(known))
    }
}

impl Topic {
    fn append(
        &mut self,
        connection: &Connection,
        at: i64,
        now: i64,
        message: &Outgoing,
    ) -> rusqlite::Result<i64> {
        self.head += 1;
        self.used_at = at;
        connection
            .prepare_cached("INSERT INTO message VALUES(?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute(params![
                row(self.id, self.head),
                at,
                message.expires.at(now),
                message.key.as_deref(),
                &message.head[..],
                &message.payload[..],
            ])?;
        Ok(self.head)
    }
}

fn schedule(
    connection: &Connection,
    topic: i64,
    due: i64,
    now: i64,
    message: &Outgoing,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO scheduled(due, topic, expires, key, head, payload) VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            due,
            topic,
            message.expires.at(now),
            message.key.as_deref(),
            &message.head[..],
            &message.payload[..],
        ])?;
    Ok(())
}

fn load(connection: &Connection, destination: &Destination) -> rusqlite::Result<Option<Topic>> {
    let queue = matches!(destination, Destination::Queue(_));
    connection
        .prepare_cached(
            "SELECT id, head, count, bytes, used_at, EXISTS(SELECT 1 FROM cursor WHERE topic = topic.id) \
             FROM topic WHERE queue = ?1 AND name = ?2",
        )?
        .query_row(params![queue, destination.name().as_str()], |row| {
            Ok(Topic {
                id: row.get(0)?,
                head: row.get(1)?,
                count: row.get(2)?,
                bytes: row.get(3)?,
                used_at: row.get(4)?,
                routed: row.get(5)?,
                changed: false,
            })
        })
        .optional()
}

/// The groups whose pattern a topic falls under.
fn groups_for(connection: &Connection, topic: &TopicName) -> rusqlite::Result<Vec<i64>> {
    let mut statement =
        connection.prepare_cached("SELECT id, pattern FROM grp WHERE kind <> ?1")?;
    let mut rows = statement.query([kind::QUEUE])?;
    let mut groups = Vec::new();
    while let Some(row) = rows.next()? {
        let pattern: String = row.get(1)?;
        if TopicPattern::new(pattern).is_ok_and(|pattern| pattern.matches(topic)) {
            groups.push(row.get(0)?);
        }
    }
    Ok(groups)
}

/// Makes a topic or queue, with a cursor at its beginning for every group that wants it.
pub(super) fn create(
    connection: &Connection,
    destination: &Destination,
    at: i64,
    groups: &[i64],
) -> Result<Topic, Stop> {
    let queue = matches!(destination, Destination::Queue(_));
    connection
        .prepare_cached(
            "INSERT INTO topic(queue, name, head, count, bytes, used_at) VALUES(?1, ?2, 0, 0, 0, ?3)",
        )?
        .execute(params![queue, destination.name().as_str(), at])?;
    let id = connection.last_insert_rowid();
    if id > LAST_TOPIC {
        let error = rusqlite::Error::IntegralValueOutOfRange(0, id);
        return Err(Stop::Sql(error));
    }
    for group in groups {
        connection
            .prepare_cached("INSERT INTO cursor VALUES(?1, ?2, 1)")?
            .execute([*group, id])?;
    }
    Ok(Topic {
        id,
        head: 0,
        count: 0,
        bytes: 0,
        used_at: at,
        routed: !groups.is_empty(),
        changed: false,
    })
}

/// Makes a queue with its group, unless it is there; returns the numbers of both.
pub(super) fn create_queue(
    connection: &Connection,
    book: &mut Book,
    name: &TopicName,
    now: i64,
) -> Result<(i64, i64), Stop> {
    let destination = Destination::Queue(name.clone());
    let group = |connection: &Connection| {
        connection
            .prepare_cached("SELECT id FROM grp WHERE kind = ?1 AND name = '' AND pattern = ?2")?
            .query_row(params![kind::QUEUE, name.as_str()], |row| row.get(0))
    };
    if let Some(topic) = book.find(connection, &destination)? {
        let id = topic.id;
        return Ok((id, group(connection)?));
    }
    connection
        .prepare_cached("INSERT INTO grp(kind, name, pattern) VALUES(?1, '', ?2)")?
        .execute(params![kind::QUEUE, name.as_str()])?;
    let group = connection.last_insert_rowid();
    let at = book.tick(connection, now)?;
    let topic = create(connection, &destination, at, &[group])?;
    let id = topic.id;
    book.topics.insert(destination, topic);
    Ok((id, group))
}

/// Removes the oldest messages that nobody wants any more, at most so many; returns their number and size.
pub(super) fn remove_consumed(
    connection: &Connection,
    topic: i64,
    head: i64,
    at_most: i64,
) -> rusqlite::Result<(i64, i64)> {
    let wanted = first_wanted(connection, topic, head)?;
    remove_before(connection, topic, wanted, at_most)
}

/// The first message that a group has not finished.
pub(super) fn first_wanted(
    connection: &Connection,
    topic: i64,
    head: i64,
) -> rusqlite::Result<i64> {
    let mut statement = connection.prepare_cached(
        "SELECT min(next, coalesce((SELECT min(lo) FROM span WHERE grp = cursor.grp AND topic = cursor.topic), next)) \
         FROM cursor WHERE topic = ?1",
    )?;
    let floors = statement.query_map([topic], |row| row.get::<_, i64>(0))?;
    let mut first = head + 1;
    for floor in floors {
        first = first.min(floor?);
    }
    Ok(first)
}

/// Removes the oldest messages before a position, at most so many; returns their number and size.
pub(super) fn remove_before(
    connection: &Connection,
    topic: i64,
    position: i64,
    at_most: i64,
) -> rusqlite::Result<(i64, i64)> {
    let (last, count, bytes): (Option<i64>, i64, i64) = connection
        .prepare_cached(
            "SELECT max(id), count(*), coalesce(sum(size), 0) FROM (SELECT id, \
             length(payload) + length(head) + coalesce(length(key), 0) AS size FROM message \
             WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT ?3)",
        )?
        .query_row([row(topic, 0), row(topic, position) - 1, at_most], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    if let Some(last) = last {
        connection
            .prepare_cached("DELETE FROM message WHERE id BETWEEN ?1 AND ?2")?
            .execute([row(topic, 0), last])?;
    }
    Ok((count, bytes))
}
