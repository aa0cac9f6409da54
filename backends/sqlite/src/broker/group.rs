//! Groups and their consumers: who gets which messages, from where on, and what happens when somebody goes.

use rusqlite::{Connection, OptionalExtension, params};
use trunkline_core::{Id, Timestamp};
use trunkline_messaging::{Source, Start, TopicName, TopicPattern};

use super::book::{Book, create_queue};
use super::consumer::Wish;
use super::schema::{kind, position, row};
use crate::engine::Stop;

/// A consumer as the database knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) group: i64,
    pub(super) consumer: i64,
}

/// Enters a consumer, making its queue or group where they are missing.
pub(super) fn join(
    connection: &Connection,
    book: &mut Book,
    wish: &Wish,
    process: &str,
    now: i64,
) -> Result<Member, Stop> {
    let start = wish.start;
    let group = match (&wish.source, &wish.group) {
        (Source::Queue(queue), _) => create_queue(connection, book, queue, now)?.1,
        (Source::Topics(pattern), Some(name)) => match find(connection, name, pattern)? {
            Some(group) => group,
            None => make(connection, kind::GROUP, name, pattern, None, start)?,
        },
        (Source::Topics(pattern), None) => {
            let name = Id::new().to_string();
            make(
                connection,
                kind::ALONE,
                &name,
                pattern,
                Some(process),
                start,
            )?
        }
    };
    connection
        .prepare_cached("INSERT INTO consumer(grp, process) VALUES(?1, ?2)")?
        .execute(params![group, process])?;
    let consumer = connection.last_insert_rowid();
    Ok(Member { group, consumer })
}

/// How a consumer leaves what the tables say it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// None of it was handed out: it was given, and that is all. It counts as no attempt.
    Untouched,
    /// Some of it may have been handed out.
    Seen,
}

/// Takes a consumer out: what it still holds becomes due, and a subscriber without a group leaves nothing behind. Says
/// whether there is something for others now; the caller tells them.
pub(super) fn leave(
    connection: &Connection,
    member: Member,
    left: Left,
    now: i64,
) -> rusqlite::Result<bool> {
    let Member { group, consumer } = member;
    let uncounted = i64::from(left == Left::Untouched);
    let given_back = connection
        .prepare_cached(
            "UPDATE span SET owner = 0, until = ?3, attempt = attempt - ?4 WHERE grp = ?1 AND owner = ?2",
        )?
        .execute([group, consumer, now, uncounted])?;
    connection
        .prepare_cached("DELETE FROM consumer WHERE id = ?1")?
        .execute([consumer])?;
    let alone = connection
        .prepare_cached("SELECT 1 FROM grp WHERE id = ?1 AND kind = ?2")?
        .exists([group, kind::ALONE])?;
    if alone {
        forget(connection, group)?;
    }
    Ok(given_back > 0 && !alone)
}

/// Takes out everything of a process that died.
pub(super) fn bury(connection: &Connection, process: &str, now: i64) -> rusqlite::Result<()> {
    let members: Vec<Member> = connection
        .prepare_cached("SELECT grp, id FROM consumer WHERE process = ?1")?
        .query_map([process], |row| {
            Ok(Member {
                group: row.get(0)?,
                consumer: row.get(1)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    for member in members {
        leave(connection, member, Left::Seen, now)?;
    }
    let alone: Vec<i64> = connection
        .prepare_cached("SELECT id FROM grp WHERE process = ?1")?
        .query_map([process], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for group in alone {
        forget(connection, group)?;
    }
    Ok(())
}

/// Every process that has, or had, a consumer.
pub(super) fn processes(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare_cached(
            "SELECT process FROM consumer UNION SELECT process FROM grp WHERE process IS NOT NULL",
        )?
        .query_map([], |row| row.get(0))?
        .collect()
}

/// How many consumers a group has, in all processes.
pub(super) fn consumers(connection: &Connection, group: i64) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT count(*) FROM consumer WHERE grp = ?1")?
        .query_row([group], |row| row.get(0))
}

fn forget(connection: &Connection, group: i64) -> rusqlite::Result<()> {
    for statement in [
        "DELETE FROM span WHERE grp = ?1",
        "DELETE FROM cursor WHERE grp = ?1",
        "DELETE FROM grp WHERE id = ?1",
    ] {
        connection.prepare_cached(statement)?.execute([group])?;
    }
    Ok(())
}

fn find(
    connection: &Connection,
    name: &str,
    pattern: &TopicPattern,
) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT id FROM grp WHERE kind = ?1 AND name = ?2 AND pattern = ?3")?
        .query_row(params![kind::GROUP, name, pattern.as_str()], |row| {
            row.get(0)
        })
        .optional()
}

fn make(
    connection: &Connection,
    kind: i64,
    name: &str,
    pattern: &TopicPattern,
    process: Option<&str>,
    start: Start,
) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("INSERT INTO grp(kind, name, pattern, process) VALUES(?1, ?2, ?3, ?4)")?
        .execute(params![kind, name, pattern.as_str(), process])?;
    let group = connection.last_insert_rowid();
    for (topic, head) in matching(connection, pattern)? {
        let next = match start {
            Start::Latest => head + 1,
            Start::Earliest => 1,
            Start::At(time) => first_at(connection, topic, head, time)?,
        };
        connection
            .prepare_cached("INSERT INTO cursor VALUES(?1, ?2, ?3)")?
            .execute([group, topic, next])?;
    }
    Ok(group)
}

/// Numbers and heads of the topics under a pattern.
fn matching(connection: &Connection, pattern: &TopicPattern) -> rusqlite::Result<Vec<(i64, i64)>> {
    let mut statement = connection
        .prepare_cached("SELECT id, head, name FROM topic WHERE queue = 0 AND (?1 OR name = ?2)")?;
    let mut rows = statement.query(params![!pattern.is_exact(), pattern.as_str()])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(2)?;
        if TopicName::new(name).is_ok_and(|name| pattern.matches(&name)) {
            found.push((row.get(0)?, row.get(1)?));
        }
    }
    Ok(found)
}

/// The first message published at a time or later, by halving: times grow with positions.
pub(super) fn first_at(
    connection: &Connection,
    topic: i64,
    head: i64,
    time: Timestamp,
) -> rusqlite::Result<i64> {
    let (mut low, mut high) = (1, head + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let stored: Option<(i64, i64)> = connection
            .prepare_cached(
                "SELECT id, at FROM message WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT 1",
            )?
            .query_row([row(topic, middle), row(topic, head)], |row| {
                Ok((position(row.get(0)?), row.get(1)?))
            })
            .optional()?;
        match stored {
            Some((found, at)) if at < time.unix_micros() => low = found + 1,
            // Nothing is stored behind the middle, or it is late enough: the first one is at or before it.
            _ => high = middle,
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use trunkline_messaging::{Destination, Message, Publish};

    use super::super::limits::Limits;
    use super::super::outgoing::Outgoing;
    use super::super::schema::SCHEMA;
    use super::*;

    const LIMITS: Limits = Limits {
        messages: 1000,
        bytes: 1 << 20,
    };

    fn database() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(SCHEMA.steps[0]).unwrap();
        connection
    }

    fn publish(connection: &Connection, topic: &str, now: i64) {
        let destination = Destination::Topic(topic.parse().unwrap());
        let publish = Publish::new(destination, Message::new("x"));
        let message = Outgoing::new(publish, now, 1000).unwrap();
        let mut book = Book::default();
        book.publish(connection, &LIMITS, now, &message).unwrap();
        book.save(connection).unwrap();
    }

    fn next(connection: &Connection, member: Member) -> i64 {
        connection
            .query_row(
                "SELECT next FROM cursor WHERE grp = ?1",
                [member.group],
                |row| row.get(0),
            )
            .unwrap()
    }

    fn wish(pattern: &str, group: Option<&str>, start: Start) -> Wish {
        Wish {
            source: Source::Topics(pattern.parse().unwrap()),
            group: group.map(str::to_owned),
            start,
            prefetch: 10,
            lease: 1000,
        }
    }

    fn joined(connection: &Connection, group: &str, start: Start) -> Member {
        join(
            connection,
            &mut Book::default(),
            &wish("a", Some(group), start),
            "p",
            0,
        )
        .unwrap()
    }

    #[test]
    fn a_group_starts_where_it_says() {
        let connection = database();
        for now in [100, 200, 300] {
            publish(&connection, "a", now);
        }
        let at = |micros| Start::At(Timestamp::from_unix_micros(micros));
        for (name, start, expected) in [
            ("latest", Start::Latest, 4),
            ("earliest", Start::Earliest, 1),
            ("before", at(1), 1),
            ("exact", at(200), 2),
            ("between", at(201), 3),
            ("after", at(301), 4),
        ] {
            let member = joined(&connection, name, start);
            assert_eq!(next(&connection, member), expected, "{name}");
        }
    }

    #[test]
    fn a_time_is_found_among_holes() {
        let connection = database();
        for now in 1..=100 {
            publish(&connection, "a", now);
        }
        connection
            .execute("DELETE FROM message WHERE id % 7 <> 0", [])
            .unwrap();
        let member = joined(&connection, "g", Start::At(Timestamp::from_unix_micros(50)));
        // Position and time are the same here, and multiples of another number may be left.
        let left: i64 = connection
            .query_row("SELECT min(id) FROM message WHERE at >= 50", [], |row| {
                row.get(0)
            })
            .unwrap();
        let first = next(&connection, member);
        assert!(first > 43 && first <= position(left), "{first}");
    }

    #[test]
    fn who_is_gone_leaves_nothing_behind() {
        let connection = database();
        let alone = wish("#", None, Start::Latest);
        join(&connection, &mut Book::default(), &alone, "p", 0).unwrap();
        publish(&connection, "a", 1);
        assert_eq!(processes(&connection).unwrap(), ["p"]);
        bury(&connection, "p", 2).unwrap();
        for table in ["grp", "cursor", "consumer", "span"] {
            let rows: i64 = connection
                .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| {
                    row.get(0)
                })
                .unwrap();
            assert_eq!(rows, 0, "{table}");
        }
    }
}
