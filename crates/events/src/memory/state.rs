//! The events in the order in which they were appended.

use std::collections::HashMap;

use trunkline_core::{Result, Timestamp};

use crate::append::{AppendDecision, decide};
use crate::event::{Event, RecordedEvent, StreamName};
use crate::store::{AppendOutcome, Direction, ExpectedVersion, ReadAll, ReadStream};

#[derive(Debug, Default)]
pub(super) struct State {
    /// The event at index n has position n + 1.
    log: Vec<RecordedEvent>,
    /// The indexes of a stream's events: the one at index n has version n + 1.
    streams: HashMap<StreamName, Vec<usize>>,
    /// Where each event id is.
    ids: HashMap<String, usize>,
    checkpoints: HashMap<String, u64>,
    pub(super) closed: bool,
}

impl State {
    pub(super) fn append(
        &mut self,
        stream: &StreamName,
        expected: ExpectedVersion,
        events: Vec<Event>,
        now: Timestamp,
    ) -> Result<AppendOutcome> {
        let current = self.streams.get(stream).map_or(0, Vec::len) as u64;
        let stored = |event: &Event| {
            self.ids
                .get(&event.event_id)
                .map(|at| self.log[*at].clone())
        };
        let found: Vec<Option<RecordedEvent>> = events.iter().map(stored).collect();
        let mut version = match decide(stream, expected, &events, current, &found)? {
            AppendDecision::Repeated(outcome) => return Ok(outcome),
            AppendDecision::Append { first_version } => first_version,
        };
        let indexes = self.streams.entry(stream.clone()).or_default();
        for event in events {
            let at = self.log.len();
            indexes.push(at);
            self.ids.insert(event.event_id.clone(), at);
            let position = at as u64 + 1;
            let recorded = RecordedEvent::new(event, stream.clone(), version, position, now);
            self.log.push(recorded);
            version += 1;
        }
        Ok(AppendOutcome::new(
            version - 1,
            self.log.len() as u64,
            false,
        ))
    }

    pub(super) fn read_stream(&self, read: &ReadStream) -> Vec<RecordedEvent> {
        let none = Vec::new();
        let indexes = self.streams.get(&read.stream).unwrap_or(&none);
        let from = usize::try_from(read.from_version).unwrap_or(usize::MAX);
        let event = |at: &usize| self.log[*at].clone();
        match read.direction {
            Direction::Forwards => {
                let skipped = from.saturating_sub(1);
                indexes
                    .iter()
                    .skip(skipped)
                    .take(read.limit)
                    .map(event)
                    .collect()
            }
            Direction::Backwards => {
                let kept = if from == 0 { indexes.len() } else { from };
                indexes
                    .iter()
                    .take(kept)
                    .rev()
                    .take(read.limit)
                    .map(event)
                    .collect()
            }
        }
    }

    pub(super) fn read_all(&self, read: &ReadAll) -> Vec<RecordedEvent> {
        let from = usize::try_from(read.from_position).unwrap_or(usize::MAX);
        let wanted = |event: &&RecordedEvent| {
            let of_type =
                read.event_types.is_empty() || read.event_types.contains(&event.event.event_type);
            let of_category = read
                .category
                .as_deref()
                .is_none_or(|category| category == event.stream.category());
            of_type && of_category
        };
        match read.direction {
            Direction::Forwards => {
                let events = self.log.iter().skip(from);
                events.filter(wanted).take(read.limit).cloned().collect()
            }
            Direction::Backwards => {
                let kept = if from == 0 { self.log.len() } else { from - 1 };
                let events = self.log.iter().take(kept).rev();
                events.filter(wanted).take(read.limit).cloned().collect()
            }
        }
    }

    pub(super) fn checkpoint(&self, reader: &str) -> u64 {
        self.checkpoints.get(reader).copied().unwrap_or(0)
    }

    pub(super) fn save_checkpoint(&mut self, reader: &str, position: u64) {
        let known = self.checkpoints.entry(reader.to_owned()).or_default();
        *known = position.max(*known);
    }
}
