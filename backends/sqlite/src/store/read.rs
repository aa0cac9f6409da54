//! Reading events.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use trunkline_core::Timestamp;
use trunkline_events::{Direction, Event, ReadAll, ReadStream, RecordedEvent, StreamName};

const SELECT: &str = "SELECT position, stream.name, event.version, word.word, event_id, aggregate_id, data, metadata, \
                      timestamp, correlation_id, recorded_at FROM event \
                      JOIN stream ON stream.id = event.stream JOIN word ON word.id = event.type";

/// The position of the last event; 0 when there is none.
pub(super) fn head(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT coalesce(max(position), 0) FROM event")?
        .query_row([], |row| row.get(0))
}

pub(super) fn by_id(
    connection: &Connection,
    event_id: &str,
) -> rusqlite::Result<Option<RecordedEvent>> {
    connection
        .prepare_cached(&format!("{SELECT} WHERE event_id = ?1"))?
        .query_row([event_id], read)
        .optional()
}

pub(super) fn stream(
    connection: &Connection,
    wanted: &ReadStream,
) -> rusqlite::Result<Vec<RecordedEvent>> {
    let id: Option<i64> = connection
        .prepare_cached("SELECT id FROM stream WHERE name = ?1")?
        .query_row([wanted.stream.as_str()], |row| row.get(0))
        .optional()?;
    let Some(id) = id else {
        return Ok(Vec::new());
    };
    let limit = number(wanted.limit as u64);
    let from = number(wanted.from_version);
    match wanted.direction {
        Direction::Forwards => connection
            .prepare_cached(&format!(
                "{SELECT} WHERE event.stream = ?1 AND event.version >= ?2 ORDER BY event.version LIMIT ?3"
            ))?
            .query_map(params![id, from, limit], read)?
            .collect(),
        Direction::Backwards => connection
            .prepare_cached(&format!(
                "{SELECT} WHERE event.stream = ?1 AND event.version <= ?2 ORDER BY event.version DESC LIMIT ?3"
            ))?
            .query_map(params![id, end(from), limit], read)?
            .collect(),
    }
}

pub(super) fn all(
    connection: &Connection,
    wanted: &ReadAll,
) -> rusqlite::Result<Vec<RecordedEvent>> {
    let from = number(wanted.from_position);
    let (comparison, order, from) = match wanted.direction {
        Direction::Forwards => (">", "", from),
        Direction::Backwards => ("<", " DESC", end(from)),
    };
    let mut sql = format!("{SELECT} WHERE position {comparison} ?");
    let mut values: Vec<Value> = vec![from.into()];
    if !wanted.event_types.is_empty() {
        let places = vec!["?"; wanted.event_types.len()].join(", ");
        sql.push_str(&format!(
            " AND event.type IN (SELECT id FROM word WHERE word IN ({places}))"
        ));
        values.extend(wanted.event_types.iter().cloned().map(Value::from));
    }
    if let Some(category) = &wanted.category {
        sql.push_str(" AND event.category = (SELECT id FROM word WHERE word = ?)");
        values.push(category.clone().into());
    }
    sql.push_str(&format!(" ORDER BY position{order} LIMIT ?"));
    values.push(number(wanted.limit as u64).into());
    connection
        .prepare_cached(&sql)?
        .query_map(params_from_iter(values), read)?
        .collect()
}

pub(super) fn checkpoint(connection: &Connection, reader: &str) -> rusqlite::Result<u64> {
    let position = connection
        .prepare_cached("SELECT position FROM checkpoint WHERE reader = ?1")?
        .query_row([reader], |row| row.get(0))
        .optional()?;
    Ok(position.unwrap_or(0))
}

/// SQLite's numbers end in the middle of ours.
pub(super) fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Backwards, 0 is the end.
fn end(from: i64) -> i64 {
    if from == 0 { i64::MAX } else { from }
}

fn read(row: &Row<'_>) -> rusqlite::Result<RecordedEvent> {
    let damaged = |column, error: Box<dyn std::error::Error + Send + Sync>| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error)
    };
    let name: String = row.get(1)?;
    let stream = StreamName::new(name).map_err(|error| damaged(1, error.into()))?;
    let version: u64 = row.get(2)?;
    let timestamp: Timestamp = row
        .get_ref(8)?
        .as_str()?
        .parse()
        .map_err(|error: trunkline_core::TimestampError| damaged(8, error.into()))?;
    let event = Event {
        event_id: row.get(4)?,
        event_type: row.get(3)?,
        aggregate_id: row.get(5)?,
        aggregate_version: version,
        event_data: serde_json::from_str(row.get_ref(6)?.as_str()?)
            .map_err(|error| damaged(6, error.into()))?,
        metadata: serde_json::from_str(row.get_ref(7)?.as_str()?)
            .map_err(|error| damaged(7, error.into()))?,
        timestamp,
        correlation_id: row.get(9)?,
    };
    let recorded_at = Timestamp::from_unix_micros(row.get(10)?);
    Ok(RecordedEvent::new(
        event,
        stream,
        version,
        row.get(0)?,
        recorded_at,
    ))
}
