//! How much waits for a group or in a queue.

use rusqlite::{Connection, OptionalExtension, params};
use trunkline_messaging::{Source, Subscribe, TopicName};

use super::schema::{BLOCKED, kind, position, row as row_of};

/// Messages that could be handed out by now and are in nobody's hands; `None` where there is no such place.
pub(super) fn lag(
    connection: &Connection,
    subscribe: &Subscribe,
    now: i64,
) -> rusqlite::Result<Option<u64>> {
    let (of, name) = match (&subscribe.source, &subscribe.group) {
        (Source::Queue(_), _) => (kind::QUEUE, ""),
        (Source::Topics(_), Some(group)) => (kind::GROUP, group.as_str()),
        (Source::Topics(_), None) => return Ok(None),
    };
    let group: Option<i64> = connection
        .prepare_cached("SELECT id FROM grp WHERE kind = ?1 AND name = ?2 AND pattern = ?3")?
        .query_row(params![of, name, subscribe.source.name()], |row| row.get(0))
        .optional()?;
    let Some(group) = group else {
        return Ok(None);
    };
    let waiting = match &subscribe.source {
        Source::Queue(queue) => {
            let (_, elsewhere) = spans(connection, group, now)?;
            in_queue(connection, queue)? - elsewhere
        }
        Source::Topics(_) => {
            let (again, _) = spans(connection, group, now)?;
            again + fresh(connection, group)?
        }
    };
    Ok(Some(u64::try_from(waiting).unwrap_or_default()))
}

/// What is not done of a queue, without what is for later.
fn in_queue(connection: &Connection, queue: &TopicName) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(
            "SELECT count - (SELECT count(*) FROM scheduled WHERE scheduled.topic = topic.id) \
             FROM topic WHERE queue = 1 AND name = ?1",
        )?
        .query_row([queue.as_str()], |row| row.get(0))
}

/// What a group was never given.
fn fresh(connection: &Connection, group: i64) -> rusqlite::Result<i64> {
    let mut topics = connection.prepare_cached(
        "SELECT cursor.topic, next, head FROM cursor JOIN topic ON topic.id = cursor.topic WHERE grp = ?1 AND next <= head",
    )?;
    let mut rows = topics.query([group])?;
    let mut waiting = 0;
    while let Some(row) = rows.next()? {
        let (topic, next, head): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        // Of a topic only the oldest go unread, those that retention takes: behind the first one all are there.
        let first: Option<i64> = connection
            .prepare_cached("SELECT min(id) FROM message WHERE id BETWEEN ?1 AND ?2")?
            .query_row(params![row_of(topic, next), row_of(topic, head)], |row| {
                row.get(0)
            })?;
        waiting += first.map_or(0, |first| head + 1 - position(first));
    }
    Ok(waiting)
}

/// Of what was looked at before: how many could be given out by now, those behind one of their key included, and how many are
/// in somebody's hands or put off.
fn spans(connection: &Connection, group: i64, now: i64) -> rusqlite::Result<(i64, i64)> {
    connection
        .prepare_cached(
            "SELECT coalesce(sum(iif(until <= ?2 OR until = ?3, hi - lo + 1, 0)), 0), \
             coalesce(sum(iif(until <= ?2 OR until = ?3, 0, hi - lo + 1)), 0) FROM span WHERE grp = ?1",
        )?
        .query_row(params![group, now, BLOCKED], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
}
