//! Appending the same again: whoever does not know whether it happened tries once more, and it has happened once.

use serde_json::json;
use trunkline_core::{ErrorKind, Timestamp};
use trunkline_events::{Event, EventStore, ExpectedVersion, ReadAll};

use crate::Scope;
use crate::store::StoreUnderTest;
use crate::store::fixture::{assert_id_taken, assert_kind, event, events, numbers, stream};

/// The same events again change nothing and answer where they are.
pub async fn a_repeated_append_happens_once(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    let decision = events(0..3);
    let first = subject.append(&stream, decision.clone()).await;
    let again = subject.append(&stream, decision).await;
    assert!(!first.repeated && again.repeated);
    assert_eq!(
        (again.version, again.position),
        (first.version, first.position)
    );
    assert_eq!(numbers(&subject.whole(&stream).await), [0, 1, 2]);
}

/// A repetition succeeds whatever has come after, and whatever version it expected at first.
pub async fn a_repetition_succeeds_later_too(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    let decision = events(0..2);
    let new = ExpectedVersion::NoStream;
    let store = &subject.store;
    let first = store
        .append(&stream, new, decision.clone())
        .await
        .expect("the first time");
    subject.append(&stream, events(2..5)).await;
    let again = store
        .append(&stream, new, decision.clone())
        .await
        .expect("the second time");
    assert!(again.repeated);
    assert_eq!(
        (again.version, again.position),
        (first.version, first.position)
    );
    let exact = ExpectedVersion::Exact(0);
    assert!(
        store
            .append(&stream, exact, decision)
            .await
            .expect("once more")
            .repeated
    );
    assert_eq!(subject.whole(&stream).await.len(), 5);
}

/// A repetition may be made anew: its time, conversation and metadata do not matter, and the first ones stay.
pub async fn a_repetition_may_be_made_anew(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    let first = event(1).with_metadata("attempt", 1);
    subject.append(&stream, vec![first.clone()]).await;
    let mut anew = event(1)
        .with_id(first.event_id.clone())
        .with_metadata("attempt", 2);
    anew.timestamp = Timestamp::UNIX_EPOCH;
    anew.correlation_id = "another".into();
    assert!(subject.append(&stream, vec![anew.clone()]).await.repeated);
    // The version that it has may be stated or not.
    anew.aggregate_version = 1;
    assert!(subject.append(&stream, vec![anew]).await.repeated);
    let kept = &subject.whole(&stream).await[0].event;
    assert_eq!(kept.metadata, first.metadata);
    assert_eq!(kept.correlation_id, first.correlation_id);
}

/// An id that is taken by other data, another type, aggregate or version is a conflict.
pub async fn an_id_with_other_data_is_a_conflict(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    let first = event(1);
    subject.append(&stream, vec![first.clone()]).await;
    let other_data = Event {
        event_data: json!({ "number": 2 }),
        ..first.clone()
    };
    let other_type = Event {
        event_type: "order.removed".into(),
        ..first.clone()
    };
    let other_aggregate = Event {
        aggregate_id: "43".into(),
        ..first.clone()
    };
    let other_version = Event {
        aggregate_version: 2,
        ..first
    };
    for other in [other_data, other_type, other_aggregate, other_version] {
        let result = subject
            .store
            .append(&stream, ExpectedVersion::Any, vec![other])
            .await;
        assert_id_taken(result);
    }
    assert_eq!(subject.whole(&stream).await.len(), 1);
}

/// An id is unique in the whole store.
pub async fn an_id_of_another_stream_is_a_conflict(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let (one, other) = (stream(scope, "a"), stream(scope, "b"));
    let first = event(1);
    subject.append(&one, vec![first.clone()]).await;
    assert_id_taken(
        subject
            .store
            .append(&other, ExpectedVersion::Any, vec![first])
            .await,
    );
    assert!(subject.whole(&other).await.is_empty());
}

/// When only some of the events are there, nothing is appended.
pub async fn a_partial_repetition_is_a_conflict(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    let known = events(0..2);
    let head = subject.append(&stream, known.clone()).await.position;
    let beginning = [known.clone(), events(2..3)].concat();
    let end = [events(2..3), known.clone()].concat();
    let between = vec![known[0].clone(), event(2), known[1].clone()];
    for partial in [beginning, end, between] {
        assert_id_taken(
            subject
                .store
                .append(&stream, ExpectedVersion::Any, partial)
                .await,
        );
    }
    // A part of what was appended together is there as a whole.
    assert!(subject.append(&stream, known[..1].to_vec()).await.repeated);
    assert!(subject.all(ReadAll::after(head)).await.is_empty());
}

/// Two events of one append may not have the same id.
pub async fn an_id_twice_in_one_append_is_refused(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    let first = event(1);
    let result = subject
        .store
        .append(
            &stream,
            ExpectedVersion::Any,
            vec![first.clone(), event(2), first],
        )
        .await;
    assert_kind(result, ErrorKind::Invalid, "an id twice");
    assert!(subject.whole(&stream).await.is_empty());
}
