//! Events and short ways that cases share.

use serde_json::json;
use trunkline_core::{Error, ErrorKind};
use trunkline_events::{
    AppendOutcome, Event, EventStore, ExpectedVersion, ReadAll, ReadStream, RecordedEvent,
    StreamName, VersionConflict,
};

use super::StoreUnderTest;
use crate::Scope;

/// A stream of the category `order` that no other scope has.
pub(super) fn stream(scope: &Scope, what: &str) -> StreamName {
    StreamName::of("order", &scope.name(what)).expect("a sound name")
}

/// A stream of a category that no other scope has.
pub(super) fn stream_in(scope: &Scope, category: &str, what: &str) -> StreamName {
    // A category ends at the first dash, so this one has none.
    let category = format!("{category}{}", scope.unique());
    StreamName::of(&category, what).expect("a sound name")
}

/// An event of a new id whose data is its number.
pub(super) fn event(number: u64) -> Event {
    typed("order.changed", number)
}

pub(super) fn typed(event_type: &str, number: u64) -> Event {
    Event::new(event_type, "42", &json!({ "number": number })).expect("plain data")
}

pub(super) fn events(numbers: std::ops::Range<u64>) -> Vec<Event> {
    numbers.map(event).collect()
}

pub(super) fn number(recorded: &RecordedEvent) -> u64 {
    recorded.event.event_data["number"]
        .as_u64()
        .expect("the data is a number")
}

pub(super) fn numbers(recorded: &[RecordedEvent]) -> Vec<u64> {
    recorded.iter().map(number).collect()
}

pub(super) fn versions(recorded: &[RecordedEvent]) -> Vec<u64> {
    recorded.iter().map(|event| event.version).collect()
}

pub(super) fn assert_kind<T>(result: Result<T, Error>, kind: ErrorKind, what: &str) {
    match result {
        Ok(_) => panic!("{what} succeeded, it should fail as {kind}"),
        Err(error) => assert_eq!(error.kind(), kind, "{what}: {}", error.report()),
    }
}

/// Fails unless it is a conflict of versions that tells the present one.
pub(super) fn assert_conflict_at(result: Result<AppendOutcome, Error>, actual: u64) {
    let error = result.expect_err("the stream is not as expected");
    assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.report());
    let conflict = error
        .find::<VersionConflict>()
        .expect("the cause tells the versions");
    assert_eq!(conflict.actual, actual);
}

/// Fails unless it is a conflict about an id, which no other expectation would help.
pub(super) fn assert_id_taken(result: Result<AppendOutcome, Error>) {
    let error = result.expect_err("the id is taken");
    assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.report());
    assert!(
        error.find::<VersionConflict>().is_none(),
        "{}",
        error.report()
    );
}

impl StoreUnderTest<'_> {
    pub(super) async fn append(&self, stream: &StreamName, events: Vec<Event>) -> AppendOutcome {
        let appended = self
            .store
            .append(stream, ExpectedVersion::Any, events)
            .await;
        appended.expect("events can be appended")
    }

    pub(super) async fn read(&self, read: ReadStream) -> Vec<RecordedEvent> {
        self.store
            .read_stream(read)
            .await
            .expect("a stream can be read")
    }

    pub(super) async fn whole(&self, stream: &StreamName) -> Vec<RecordedEvent> {
        self.read(ReadStream::new(stream.clone()).with_limit(usize::MAX))
            .await
    }

    pub(super) async fn all(&self, read: ReadAll) -> Vec<RecordedEvent> {
        self.store
            .read_all(read)
            .await
            .expect("all streams can be read")
    }
}
