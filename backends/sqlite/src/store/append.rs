//! Appending within one transaction.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};
use trunkline_core::{Error, Result};
use trunkline_events::{
    AppendDecision, AppendOutcome, Event, ExpectedVersion, RecordedEvent, StreamName, decide,
};

use super::read;
use crate::engine::Stop;

/// Words that are remembered; beyond that they are looked up.
const WORDS: usize = 1000;

/// What this process remembers of the file while no other writes.
#[derive(Debug, Default)]
pub(super) struct Book {
    head: Option<i64>,
    words: HashMap<String, i64>,
}

/// An append, written down outside the writer thread.
#[derive(Debug)]
pub(super) struct Append {
    stream: StreamName,
    expected: ExpectedVersion,
    events: Vec<Event>,
    /// Data and metadata as JSON, for each event.
    json: Vec<(String, String)>,
}

impl Append {
    pub(super) fn new(
        stream: &StreamName,
        expected: ExpectedVersion,
        events: Vec<Event>,
    ) -> Result<Self> {
        let text = |value: serde_json::Result<String>| {
            value.map_err(|error| {
                Error::invalid("an event cannot be written as JSON").with_source(error)
            })
        };
        let json = events
            .iter()
            .map(|event| {
                let data = text(serde_json::to_string(&event.event_data))?;
                Ok((data, text(serde_json::to_string(&event.metadata))?))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            stream: stream.clone(),
            expected,
            events,
            json,
        })
    }

    pub(super) fn run(
        &self,
        connection: &Connection,
        book: &mut Book,
        now: i64,
    ) -> Result<AppendOutcome, Stop> {
        let stream: Option<(i64, i64, i64)> = connection
            .prepare_cached("SELECT id, version, category FROM stream WHERE name = ?1")?
            .query_row([self.stream.as_str()], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()?;
        let current = stream.map_or(0, |(_, version, _)| version);
        let found = self.found(connection)?;
        let decision = decide(
            &self.stream,
            self.expected,
            &self.events,
            current.unsigned_abs(),
            &found,
        )?;
        if let AppendDecision::Repeated(outcome) = decision {
            return Ok(outcome);
        }
        let (stream, category) = match stream {
            Some((id, _, category)) => (id, category),
            None => self.create(connection, book)?,
        };
        let head = match book.head {
            Some(head) => head,
            None => read::head(connection)?,
        };
        let mut at = At {
            stream,
            category,
            version: current,
            position: head,
            now,
        };
        for (event, json) in self.events.iter().zip(&self.json) {
            at.version += 1;
            at.position += 1;
            insert(connection, book, &at, event, json)?;
        }
        connection
            .prepare_cached("UPDATE stream SET version = ?2 WHERE id = ?1")?
            .execute([stream, at.version])?;
        book.head = Some(at.position);
        let (version, position) = (at.version.unsigned_abs(), at.position.unsigned_abs());
        Ok(AppendOutcome::new(version, position, false))
    }

    /// What is stored under the ids of the events.
    fn found(&self, connection: &Connection) -> Result<Vec<Option<RecordedEvent>>, Stop> {
        self.events
            .iter()
            .map(|event| Ok(read::by_id(connection, &event.event_id)?))
            .collect()
    }

    fn create(&self, connection: &Connection, book: &mut Book) -> rusqlite::Result<(i64, i64)> {
        let category = book.word(connection, self.stream.category())?;
        connection
            .prepare_cached("INSERT INTO stream(name, category, version) VALUES(?1, ?2, 0)")?
            .execute(params![self.stream.as_str(), category])?;
        Ok((connection.last_insert_rowid(), category))
    }
}

/// Where an event goes.
struct At {
    stream: i64,
    category: i64,
    version: i64,
    position: i64,
    now: i64,
}

fn insert(
    connection: &Connection,
    book: &mut Book,
    at: &At,
    event: &Event,
    (data, metadata): &(String, String),
) -> rusqlite::Result<()> {
    let event_type = book.word(connection, &event.event_type)?;
    connection
        .prepare_cached(
            "INSERT INTO event VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?
        .execute(params![
            at.position,
            at.stream,
            at.version,
            event_type,
            at.category,
            event.event_id,
            event.aggregate_id,
            data,
            metadata,
            event.timestamp.to_string(),
            event.correlation_id,
            at.now,
        ])?;
    Ok(())
}

impl Book {
    fn word(&mut self, connection: &Connection, word: &str) -> rusqlite::Result<i64> {
        if let Some(id) = self.words.get(word) {
            return Ok(*id);
        }
        let known = connection
            .prepare_cached("SELECT id FROM word WHERE word = ?1")?
            .query_row([word], |row| row.get(0))
            .optional()?;
        let id = match known {
            Some(id) => id,
            None => {
                connection
                    .prepare_cached("INSERT INTO word(word) VALUES(?1)")?
                    .execute([word])?;
                connection.last_insert_rowid()
            }
        };
        if self.words.len() < WORDS {
            self.words.insert(word.to_owned(), id);
        }
        Ok(id)
    }
}
