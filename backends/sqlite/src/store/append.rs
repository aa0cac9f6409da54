//! Appending: all events or none, under the expected version, once for each id.

use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::Value;
use trunkline_core::{Error, Result};
use trunkline_events::{AppendOutcome, Event, ExpectedVersion, StreamName, VersionConflict};

use super::read::highest;
use crate::engine::{Stop, Tx};

/// An append that can be tried again.
pub(super) struct Append {
    stream: StreamName,
    expected: ExpectedVersion,
    events: Vec<(Event, String)>,
    now: i64,
}

/// A stream as it stands.
struct Standing {
    id: Option<i64>,
    version: u64,
}

impl Append {
    pub(super) fn new(
        stream: StreamName,
        expected: ExpectedVersion,
        events: Vec<Event>,
        now: i64,
    ) -> Result<Self> {
        if events.is_empty() {
            return Err(Error::invalid("there are no events to append").with_operation("append"));
        }
        let mut written = Vec::with_capacity(events.len());
        for event in events {
            if written.iter().any(|(before, _): &(Event, String)| before.event_id == event.event_id) {
                return Err(Error::invalid(format!("the event id {} stands twice", event.event_id))
                    .with_operation("append"));
            }
            let body = serde_json::to_string(&event).map_err(|error| {
                Error::invalid("an event cannot be written as JSON").with_source(error)
            })?;
            written.push((event, body));
        }
        Ok(Self { stream, expected, events: written, now })
    }

    pub(super) fn run(&self, tx: &mut Tx<'_>) -> Result<AppendOutcome, Stop> {
        let connection = tx.connection();
        if let Some(outcome) = self.repeated(connection)? {
            return Ok(outcome);
        }
        let standing = self.standing(connection)?;
        self.check(&standing)?;
        let outcome = self.insert(connection, &standing)?;
        tx.ring();
        Ok(outcome)
    }

    fn standing(&self, connection: &Connection) -> rusqlite::Result<Standing> {
        let found = connection
            .prepare_cached("SELECT id, version FROM stream WHERE name = ?1")?
            .query_row([self.stream.as_str()], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))
            .optional()?;
        Ok(match found {
            Some((id, version)) => Standing { id: Some(id), version: version.cast_unsigned() },
            None => Standing { id: None, version: 0 },
        })
    }

    fn check(&self, standing: &Standing) -> Result<()> {
        let (fits, expected) = match self.expected {
            ExpectedVersion::Any => (true, String::new()),
            ExpectedVersion::NoStream => (standing.version == 0, "no stream".to_owned()),
            ExpectedVersion::Exists => (standing.version > 0, "an existing stream".to_owned()),
            ExpectedVersion::Exact(version) => {
                (standing.version == version, format!("version {version}"))
            }
        };
        if !fits {
            let stream = self.stream.clone();
            let conflict = VersionConflict { stream, expected, actual: standing.version };
            return Err(Error::conflict(conflict.to_string()).with_source(conflict));
        }
        for ((event, _), version) in self.events.iter().zip(standing.version + 1..) {
            if event.aggregate_version != 0 && event.aggregate_version != version {
                return Err(Error::invalid(format!(
                    "event {} states aggregate_version {}, and would get {version}",
                    event.event_id, event.aggregate_version
                )));
            }
        }
        Ok(())
    }

    fn insert(&self, connection: &Connection, standing: &Standing) -> rusqlite::Result<AppendOutcome> {
        let count = self.events.len() as u64;
        let version = standing.version + count;
        let stream = match standing.id {
            Some(id) => {
                connection
                    .prepare_cached("UPDATE stream SET version = ?2 WHERE id = ?1")?
                    .execute(params![id, version.cast_signed()])?;
                id
            }
            None => connection
                .prepare_cached(
                    "INSERT INTO stream (name, category, version) VALUES (?1, ?2, ?3) RETURNING id",
                )?
                .query_row(
                    params![self.stream.as_str(), self.stream.category(), version.cast_signed()],
                    |row| row.get(0),
                )?,
        };
        let mut insert = connection.prepare_cached(
            "INSERT INTO event (stream, version, event_id, event_type, recorded_at, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        for ((event, body), version) in self.events.iter().zip(standing.version.cast_signed() + 1..) {
            insert.execute(params![stream, version, event.event_id, event.event_type, self.now, body])?;
        }
        Ok(AppendOutcome::new(version, highest(connection)?, false))
    }

    /// What an earlier append of the same events answered. A part of them, in another order, or with other facts is a
    /// conflict.
    fn repeated(&self, connection: &Connection) -> Result<Option<AppendOutcome>, Stop> {
        let mut outcome: Option<(u64, u64)> = None;
        for (index, (event, _)) in self.events.iter().enumerate() {
            let found = find(connection, &event.event_id)?;
            let known = index > 0 && outcome.is_some();
            let Some(found) = found else {
                if known {
                    return Err(Stop::Refused(used(event, "was appended only in part")));
                }
                continue;
            };
            let follows = outcome.is_none_or(|(version, _)| found.version == version + 1);
            let first_of_all = index == 0 || known;
            if !first_of_all || !follows {
                return Err(Stop::Refused(used(event, "was appended among other events")));
            }
            if found.stream != self.stream.as_str() {
                return Err(Stop::Refused(used(event, "is in another stream")));
            }
            if !same_facts(event, &found.event) {
                return Err(Stop::Refused(used(event, "is there with other facts")));
            }
            outcome = Some((found.version, found.position));
        }
        Ok(outcome.map(|(version, position)| AppendOutcome::new(version, position, true)))
    }
}

struct Found {
    stream: String,
    version: u64,
    position: u64,
    event: Value,
}

fn find(connection: &Connection, event_id: &str) -> rusqlite::Result<Option<Found>> {
    connection
        .prepare_cached(
            "SELECT stream.name, event.version, event.position, event.body
             FROM event JOIN stream ON stream.id = event.stream WHERE event.event_id = ?1",
        )?
        .query_row([event_id], |row| {
            let body: String = row.get(3)?;
            Ok(Found {
                stream: row.get(0)?,
                version: row.get::<_, i64>(1)?.cast_unsigned(),
                position: row.get::<_, i64>(2)?.cast_unsigned(),
                // A body that cannot be read has other facts than any event.
                event: serde_json::from_str(&body).unwrap_or(Value::Null),
            })
        })
        .optional()
}

/// A repetition may be dated anew; what it says must be the same.
fn same_facts(event: &Event, before: &Value) -> bool {
    before["event_type"] == event.event_type.as_str()
        && before["aggregate_id"] == event.aggregate_id.as_str()
        && before["event_data"] == event.event_data
}

fn used(event: &Event, how: &str) -> Error {
    Error::conflict(format!("the event id {} {how}", event.event_id))
}
