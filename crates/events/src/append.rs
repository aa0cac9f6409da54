//! Deciding about an append: the same for every store.

use std::collections::HashSet;

use trunkline_core::{Error, Result};

use crate::event::{Event, RecordedEvent, StreamName};
use crate::store::{AppendOutcome, ExpectedVersion, VersionConflict};

/// Most events of one append.
pub const MOST_EVENTS: usize = 10_000;

/// What to do with an append; for backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendDecision {
    /// Append all of them, the first with this version.
    Append {
        /// The version of the first event.
        first_version: u64,
    },
    /// They have been appended before: answer this and change nothing.
    Repeated(AppendOutcome),
}

/// Checks what can be checked without looking into the store; for backends, before anything else.
///
/// # Errors
/// `Invalid` when there are no events or more than 10 000, when one is not sound (see [`Event::validate`]), or when two
/// have the same id.
pub fn check_batch(events: &[Event]) -> Result<()> {
    if events.is_empty() {
        return Err(Error::invalid("an append needs at least one event"));
    }
    if events.len() > MOST_EVENTS {
        return Err(Error::invalid(format!(
            "an append may have at most {MOST_EVENTS} events, this one has {}",
            events.len()
        )));
    }
    let mut ids = HashSet::with_capacity(events.len());
    for event in events {
        event.validate()?;
        if !ids.insert(event.event_id.as_str()) {
            let id = &event.event_id;
            return Err(Error::invalid(format!(
                "event id {id} stands twice in one append"
            )));
        }
    }
    Ok(())
}

/// Decides about an append whose batch was checked; for backends, within the transaction that appends.
///
/// `current` is the version of the stream, 0 when it does not exist. `found` holds for each event what is stored under
/// its id, in whichever stream.
///
/// # Errors
/// `Conflict` when an id is taken by something else, when only some of the events are stored, or, with
/// [`VersionConflict`], when the stream is not as expected; `Invalid` when a stated version does not fit.
pub fn decide(
    stream: &StreamName,
    expected: ExpectedVersion,
    events: &[Event],
    current: u64,
    found: &[Option<RecordedEvent>],
) -> Result<AppendDecision> {
    let stored = found.iter().flatten().count();
    for (event, known) in events.iter().zip(found) {
        if let Some(known) = known {
            check_same(stream, event, known)?;
        }
    }
    if stored == events.len()
        && let Some(Some(last)) = found.last()
    {
        let outcome = AppendOutcome::new(last.version, last.position, true);
        return Ok(AppendDecision::Repeated(outcome));
    }
    if stored > 0 {
        return Err(Error::conflict(format!(
            "{stored} of {} events are in stream {stream} already: only the same events can be appended again",
            events.len()
        )));
    }
    check_expected(stream, expected, current)?;
    for (event, version) in events.iter().zip(current + 1..) {
        let stated = event.aggregate_version;
        if stated != 0 && stated != version {
            return Err(Error::invalid(format!(
                "event {} states version {stated}, in stream {stream} it would have version {version}",
                event.event_id
            )));
        }
    }
    let first_version = current + 1;
    Ok(AppendDecision::Append { first_version })
}

/// A repetition is the same fact. When it was written and in which conversation may differ: whoever tries again after a
/// crash makes the event anew.
fn check_same(stream: &StreamName, event: &Event, known: &RecordedEvent) -> Result<()> {
    let id = &event.event_id;
    if known.stream != *stream {
        let other = &known.stream;
        return Err(Error::conflict(format!(
            "event id {id} is taken in stream {other}"
        )));
    }
    let other_version = event.aggregate_version != 0 && event.aggregate_version != known.version;
    let same = event.event_type == known.event.event_type
        && event.aggregate_id == known.event.aggregate_id
        && event.event_data == known.event.event_data;
    if !same || other_version {
        return Err(Error::conflict(format!(
            "event id {id} is taken in stream {stream} by an event with other data"
        )));
    }
    Ok(())
}

fn check_expected(stream: &StreamName, expected: ExpectedVersion, current: u64) -> Result<()> {
    let fits = match expected {
        ExpectedVersion::Any => true,
        ExpectedVersion::NoStream => current == 0,
        ExpectedVersion::Exists => current > 0,
        ExpectedVersion::Exact(version) => current == version,
    };
    if fits {
        return Ok(());
    }
    let conflict = VersionConflict {
        stream: stream.clone(),
        expected: expected.to_string(),
        actual: current,
    };
    Err(Error::conflict(conflict.to_string()).with_source(conflict))
}
