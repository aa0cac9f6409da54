//! Looking at what is stored, removing it, and numbers about it.

use rusqlite::{Connection, OptionalExtension, params};
use trunkline_core::{Error, Timestamp};
use trunkline_messaging::{
    Browse, BrowsePage, DeliveryInfo, Destination, QueueInfo, StoredMessage, TopicName,
};

use super::book::{Book, first_wanted};
use super::row;
use super::schema::{kind, position, row as row_of};
use super::settle::remove_messages;
use super::span::Spans;
use crate::engine::Stop;

/// Messages and bytes of one page at most.
const PAGE: usize = 1000;
const PAGE_BYTES: usize = 16 << 20;

struct Found {
    id: i64,
    head: i64,
    count: i64,
}

fn find(connection: &Connection, destination: &Destination) -> rusqlite::Result<Option<Found>> {
    let queue = matches!(destination, Destination::Queue(_));
    connection
        .prepare_cached("SELECT id, head, count FROM topic WHERE queue = ?1 AND name = ?2")?
        .query_row(params![queue, destination.name().as_str()], |row| {
            Ok(Found {
                id: row.get(0)?,
                head: row.get(1)?,
                count: row.get(2)?,
            })
        })
        .optional()
}

fn missing(queue: &TopicName) -> Error {
    Error::not_found(format!("there is no queue {queue}"))
}

/// Some stored messages.
pub(super) fn page(connection: &Connection, browse: &Browse, now: i64) -> Result<BrowsePage, Stop> {
    let Some(topic) = find(connection, &browse.destination)? else {
        return match &browse.destination {
            Destination::Queue(name) => Err(missing(name).into()),
            Destination::Topic(_) => Ok(BrowsePage::default()),
        };
    };
    let mut page = BrowsePage::default();
    let limit = browse.limit.min(PAGE);
    let after = i64::try_from(browse.after)
        .unwrap_or(i64::MAX)
        .min(topic.head);
    let mut statement = connection.prepare_cached(
        "SELECT id, at, key, head, payload, coalesce((SELECT max(attempt) FROM span JOIN grp ON grp.id = span.grp \
         WHERE grp.kind = ?4 AND topic = ?5 AND (message.id & 1099511627775) BETWEEN lo AND hi), 0) \
         FROM message WHERE id BETWEEN ?1 AND ?2 AND (expires IS NULL OR expires > ?3) ORDER BY id",
    )?;
    let range = params![
        row_of(topic.id, after + 1),
        row_of(topic.id, topic.head),
        now,
        kind::QUEUE,
        topic.id,
    ];
    let mut rows = statement.query(range)?;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let full = page.messages.len() >= limit || bytes >= PAGE_BYTES;
        if full {
            page.next = page.messages.last().and_then(|last| last.info.position);
            break;
        }
        let stored = read(row, &browse.destination)?;
        bytes += stored.as_ref().map_or(0, |stored| stored.message.size());
        page.messages.extend(stored);
    }
    let scheduled: i64 = connection
        .prepare_cached("SELECT count(*) FROM scheduled WHERE topic = ?1")?
        .query_row([topic.id], |row| row.get(0))?;
    page.total = u64::try_from(topic.count - scheduled).ok();
    Ok(page)
}

fn read(
    row: &rusqlite::Row<'_>,
    destination: &Destination,
) -> rusqlite::Result<Option<StoredMessage>> {
    let place = position(row.get(0)?);
    let at: i64 = row.get(1)?;
    let key = row.get_ref(2)?.as_blob_or_null()?;
    let (head, payload) = (row.get_ref(3)?.as_blob()?, row.get_ref(4)?.as_blob()?);
    let attempt: u32 = row.get(5)?;
    let message = row::decode(head, key, payload);
    let info = DeliveryInfo::new(destination.clone())
        .with_attempt(attempt.max(1))
        .at(place.unsigned_abs());
    Ok(message.map(|message| StoredMessage::new(message, info, Timestamp::from_unix_micros(at))))
}

/// Removes messages of a queue by their positions, from the hands of consumers as well; says how many were there.
pub(super) fn remove(
    connection: &Connection,
    book: &mut Book,
    queue: &TopicName,
    positions: &[u64],
    now: i64,
) -> Result<u64, Stop> {
    let destination = Destination::Queue(queue.clone());
    let Some(topic) = book.find(connection, &destination)?.map(|topic| topic.id) else {
        return Err(missing(queue).into());
    };
    let group: i64 = connection
        .prepare_cached("SELECT id FROM grp WHERE kind = ?1 AND pattern = ?2")?
        .query_row(params![kind::QUEUE, queue.as_str()], |row| row.get(0))?;
    let spans = Spans::of(connection, group);
    let mut removed = 0;
    for place in positions
        .iter()
        .filter_map(|place| i64::try_from(*place).ok())
    {
        let (count, bytes) = remove_messages(connection, topic, place, place)?;
        if count == 0 {
            continue;
        }
        removed += count.unsigned_abs();
        if let Some(topic) = book.find(connection, &destination)? {
            topic.removed(count, bytes);
        }
        for span in spans.take_any(topic, place, place)? {
            if let Some(key) = span.key {
                spans.unblock(key.digest, super::span::NOBODY, now)?;
                book.due(connection)?;
            }
        }
    }
    book.save(connection)?;
    Ok(removed)
}

/// Every queue.
pub(super) fn queues(connection: &Connection) -> rusqlite::Result<Vec<QueueInfo>> {
    let mut statement =
        connection.prepare_cached("SELECT name, count FROM topic WHERE queue = 1 ORDER BY name")?;
    let mut rows = statement.query([])?;
    let mut queues = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        // A name that is none cannot have been written by us.
        if let Ok(name) = TopicName::new(name) {
            queues.push(QueueInfo::new(name, row.get(1)?));
        }
    }
    Ok(queues)
}

/// A topic or queue in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DestinationStatistics {
    /// The topic or queue.
    pub destination: Destination,
    /// Messages stored, those kept for later groups and those for later included.
    pub messages: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Messages that somebody still wants.
    pub wanted: u64,
    /// The groups that get its messages; a queue has one, without a name.
    pub groups: Vec<GroupStatistics>,
}

/// How far a group is in a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupStatistics {
    /// Its name; `None` for a queue's consumers and a subscriber without a group.
    pub name: Option<String>,
    /// The pattern it subscribed to.
    pub pattern: String,
    /// Messages not given out yet.
    pub waiting: u64,
    /// Messages given out, or to be given out again, and not settled.
    pub unsettled: u64,
    /// Consumers of all processes.
    pub consumers: u64,
}

/// Every topic and queue in numbers, by name.
pub(super) fn statistics(connection: &Connection) -> rusqlite::Result<Vec<DestinationStatistics>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, queue, name, head, count, bytes FROM topic WHERE id > 0 ORDER BY name, queue",
    )?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let (id, head): (i64, i64) = (row.get(0)?, row.get(3)?);
        let (queue, name): (bool, String) = (row.get(1)?, row.get(2)?);
        let Ok(name) = TopicName::new(name) else {
            continue;
        };
        let wanted = head + 1 - first_wanted(connection, id, head)?;
        all.push(DestinationStatistics {
            destination: if queue {
                Destination::Queue(name)
            } else {
                Destination::Topic(name)
            },
            messages: row.get(4)?,
            bytes: row.get(5)?,
            wanted: wanted.unsigned_abs(),
            groups: groups(connection, id, head)?,
        });
    }
    Ok(all)
}

fn groups(
    connection: &Connection,
    topic: i64,
    head: i64,
) -> rusqlite::Result<Vec<GroupStatistics>> {
    connection
        .prepare_cached(
            "SELECT grp.kind, grp.name, grp.pattern, next, \
             (SELECT coalesce(sum(hi - lo + 1), 0) FROM span WHERE span.grp = grp.id AND span.topic = cursor.topic), \
             (SELECT count(*) FROM consumer WHERE consumer.grp = grp.id) \
             FROM cursor JOIN grp ON grp.id = cursor.grp WHERE topic = ?1 ORDER BY grp.name, grp.pattern",
        )?
        .query_map([topic], |row| {
            let (of, name, next): (i64, String, i64) = (row.get(0)?, row.get(1)?, row.get(3)?);
            Ok(GroupStatistics {
                name: (of == kind::GROUP).then_some(name),
                pattern: row.get(2)?,
                waiting: (head + 1 - next).max(0).unsigned_abs(),
                unsettled: row.get(4)?,
                consumers: row.get(5)?,
            })
        })?
        .collect()
}
