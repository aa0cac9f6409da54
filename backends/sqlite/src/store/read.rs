//! Reading events, of one stream or of all.

use rusqlite::{Connection, Row, params};
use trunkline_core::{Error, Result, Timestamp};
use trunkline_events::{Direction, Event, ReadAll, ReadStream, RecordedEvent, StreamName};

/// Rows as they were read; made into events off the database's thread.
pub(super) struct Rows(Vec<Raw>);

struct Raw {
    stream: String,
    version: u64,
    position: u64,
    recorded_at: i64,
    body: String,
}

impl Rows {
    /// # Errors
    /// `Internal` when a row is not an event.
    pub(super) fn collect(self) -> Result<Vec<RecordedEvent>> {
        self.0.into_iter().map(Raw::into_event).collect()
    }
}

impl Raw {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            stream: row.get(0)?,
            version: row.get::<_, i64>(1)?.cast_unsigned(),
            position: row.get::<_, i64>(2)?.cast_unsigned(),
            recorded_at: row.get(3)?,
            body: row.get(4)?,
        })
    }

    fn into_event(self) -> Result<RecordedEvent> {
        let damaged = |error: serde_json::Error| {
            Error::internal(format!("the event at position {} cannot be read", self.position))
                .with_source(error)
        };
        let event: Event = serde_json::from_str(&self.body).map_err(damaged)?;
        let stream = StreamName::new(&self.stream)?;
        let recorded_at = Timestamp::from_unix_micros(self.recorded_at);
        Ok(RecordedEvent::new(event, stream, self.version, self.position, recorded_at))
    }
}

const COLUMNS: &str = "stream.name, event.version, event.position, event.recorded_at, event.body
    FROM event JOIN stream ON stream.id = event.stream";

pub(super) fn stream(connection: &Connection, read: &ReadStream) -> rusqlite::Result<Rows> {
    let (filter, from) = match read.direction {
        Direction::Forwards => ("event.version >= ?2 ORDER BY event.version", read.from_version),
        Direction::Backwards if read.from_version == 0 => {
            ("event.version <= ?2 ORDER BY event.version DESC", u64::MAX)
        }
        Direction::Backwards => {
            ("event.version <= ?2 ORDER BY event.version DESC", read.from_version)
        }
    };
    // The stream first: its events are found by the index over stream and version.
    let sql = format!(
        "SELECT {COLUMNS} WHERE event.stream = (SELECT id FROM stream WHERE name = ?1) AND {filter} LIMIT ?3"
    );
    let mut select = connection.prepare_cached(&sql)?;
    let rows = select.query_map(
        params![read.stream.as_str(), signed(from), limit(read.limit)],
        Raw::of,
    )?;
    rows.collect::<rusqlite::Result<_>>().map(Rows)
}

pub(super) fn all(connection: &Connection, read: &ReadAll) -> rusqlite::Result<Rows> {
    let (filter, from) = match read.direction {
        Direction::Forwards => ("event.position > ?1", read.from_position),
        Direction::Backwards if read.from_position == 0 => ("event.position < ?1", u64::MAX),
        Direction::Backwards => ("event.position < ?1", read.from_position),
    };
    let order = match read.direction {
        Direction::Forwards => "",
        Direction::Backwards => "DESC",
    };
    let types = if read.event_types.is_empty() {
        "?2 IS NOT NULL"
    } else {
        "event.event_type IN (SELECT value FROM json_each(?2))"
    };
    let sql = format!(
        "SELECT {COLUMNS} WHERE {filter} AND {types} AND (?3 IS NULL OR stream.category = ?3)
         ORDER BY event.position {order} LIMIT ?4"
    );
    let mut select = connection.prepare_cached(&sql)?;
    let wanted = serde_json::Value::from(read.event_types.clone()).to_string();
    let rows = select.query_map(
        params![signed(from), wanted, read.category, limit(read.limit)],
        Raw::of,
    )?;
    rows.collect::<rusqlite::Result<_>>().map(Rows)
}

/// The highest position; 0 when there are no events.
pub(super) fn highest(connection: &Connection) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT max(position) FROM event")?
        .query_row([], |row| row.get::<_, Option<i64>>(0))
        .map(|highest| highest.unwrap_or(0).cast_unsigned())
}

/// Numbers beyond SQLite's are beyond everything that is stored.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
