//! Appending under an expected version, and what is kept.

use serde_json::{Map, Value, json};
use trunkline_core::{ErrorKind, Timestamp};
use trunkline_events::{Event, EventStore, ExpectedVersion, MOST_EVENTS, ReadAll};

use crate::Scope;
use crate::store::StoreUnderTest;
use crate::store::fixture::{
    assert_conflict_at, assert_kind, event, events, numbers, stream, versions,
};

/// The first event has version 1, and the outcome tells where the last one is.
pub async fn versions_begin_with_one(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    let first = subject.append(&stream, events(0..1)).await;
    assert_eq!((first.version, first.repeated), (1, false));
    let second = subject.append(&stream, events(1..4)).await;
    assert_eq!(second.version, 4);
    assert!(second.position > first.position);
    let recorded = subject.whole(&stream).await;
    assert_eq!(versions(&recorded), [1, 2, 3, 4]);
    assert_eq!(recorded[0].position, first.position);
    assert_eq!(recorded[3].position, second.position);
}

/// Nothing of an event is lost or changed.
pub async fn every_field_is_kept(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    let mut metadata = Map::new();
    metadata.insert("causation_id".into(), "é☂\u{1F682}\"\\\n".into());
    metadata.insert("actor".into(), json!({ "id": 7, "roles": ["a", "b"] }));
    let full = Event {
        event_id: format!("id/{}:!", scope.unique()),
        event_type: "order.line_added-v2".into(),
        aggregate_id: "42 / ü".into(),
        aggregate_version: 1,
        event_data: json!({ "a": [1, -2, 3.5], "b": { "c": null }, "d": true, "e": "\u{0}☂" }),
        metadata,
        timestamp: Timestamp::from_unix_micros(1_736_418_600_123_456),
        correlation_id: "checkout-1".into(),
    };
    let mut bare = event(0);
    bare.metadata = Map::new();
    bare.event_data = Value::Null;
    bare.correlation_id = String::new();
    bare.timestamp = Timestamp::UNIX_EPOCH;
    subject
        .append(&stream, vec![full.clone(), bare.clone()])
        .await;
    let recorded = subject.whole(&stream).await;
    assert_eq!(recorded[0].event, full);
    bare.aggregate_version = 2;
    assert_eq!(
        recorded[1].event, bare,
        "the version that was left to the store is filled in"
    );
    assert_eq!(recorded[1].stream, stream);
    assert!(recorded[1].recorded_at > Timestamp::UNIX_EPOCH);
}

/// Data of every JSON type, the edges of numbers included.
pub async fn any_json_is_kept(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    let values = [
        json!(null),
        json!(false),
        json!(""),
        json!([]),
        json!({}),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(0.1),
        json!(-1.5e300),
        json!("'; DROP TABLE events; --"),
        json!({ "": { "key with \" and ☂": [[[]]] } }),
    ];
    let told = values.iter().map(|value| Event {
        event_data: value.clone(),
        ..event(0)
    });
    subject.append(&stream, told.collect()).await;
    let recorded = subject.whole(&stream).await;
    let kept: Vec<Value> = recorded.into_iter().map(|it| it.event.event_data).collect();
    assert_eq!(kept, values);
}

/// A megabyte in one event.
pub async fn a_large_event_is_kept(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    let text = "0123456789abcdef".repeat(64 * 1024);
    let large = Event {
        event_data: json!({ "text": text, "number": 1 }),
        ..event(1)
    };
    subject.append(&stream, vec![large.clone()]).await;
    assert_eq!(
        subject.whole(&stream).await[0].event.event_data,
        large.event_data
    );
}

/// As many events as one append may have; more are refused.
pub async fn an_append_is_bounded(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    let most = MOST_EVENTS as u64;
    let over = subject
        .store
        .append(&stream, ExpectedVersion::Any, events(0..most + 1))
        .await;
    assert_kind(over, ErrorKind::Invalid, "too many events");
    let outcome = subject.append(&stream, events(0..most)).await;
    assert_eq!(outcome.version, most);
    let recorded = subject.whole(&stream).await;
    assert!(versions(&recorded).into_iter().eq(1..=most));
    assert!(numbers(&recorded).into_iter().eq(0..most));
}

/// An append of nothing is refused.
pub async fn an_empty_append_is_refused(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let result = subject
        .store
        .append(&stream(scope, "a"), ExpectedVersion::Any, vec![])
        .await;
    assert_kind(result, ErrorKind::Invalid, "an append of nothing");
}

/// Any version: it does not matter what is there.
pub async fn any_version_always_fits(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    for number in 0..3 {
        let outcome = subject.append(&stream, vec![event(number)]).await;
        assert_eq!(outcome.version, number + 1);
    }
}

/// No stream: only the first append.
pub async fn no_stream_fits_once(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    let new = ExpectedVersion::NoStream;
    subject
        .store
        .append(&stream, new, events(0..2))
        .await
        .expect("it does not exist");
    assert_conflict_at(subject.store.append(&stream, new, events(2..3)).await, 2);
    assert_eq!(subject.whole(&stream).await.len(), 2);
}

/// An existing stream: not the first append.
pub async fn exists_fits_all_but_the_first(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    let exists = ExpectedVersion::Exists;
    assert_conflict_at(subject.store.append(&stream, exists, events(0..1)).await, 0);
    subject.append(&stream, events(1..2)).await;
    subject
        .store
        .append(&stream, exists, events(2..3))
        .await
        .expect("it exists");
    assert_eq!(numbers(&subject.whole(&stream).await), [1, 2]);
}

/// An exact version: neither less nor more; 0 is a stream that does not exist.
pub async fn an_exact_version_fits_exactly(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    let exact = ExpectedVersion::Exact;
    assert_conflict_at(
        subject.store.append(&stream, exact(1), events(0..1)).await,
        0,
    );
    subject
        .store
        .append(&stream, exact(0), events(0..3))
        .await
        .expect("version 0");
    for wrong in [0, 1, 2, 4, u64::MAX] {
        assert_conflict_at(
            subject
                .store
                .append(&stream, exact(wrong), events(3..4))
                .await,
            3,
        );
    }
    subject
        .store
        .append(&stream, exact(3), events(3..5))
        .await
        .expect("version 3");
    assert_eq!(numbers(&subject.whole(&stream).await), [0, 1, 2, 3, 4]);
}

/// An append that is refused leaves nothing behind: all of its events or none.
pub async fn a_refused_append_leaves_nothing(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    subject.append(&stream, events(0..1)).await;
    let head = subject.append(&stream, events(1..2)).await.position;
    let expected = ExpectedVersion::Exact(1);
    assert_conflict_at(
        subject.store.append(&stream, expected, events(2..50)).await,
        2,
    );
    let mut last_is_unsound = events(2..50);
    last_is_unsound[47].event_type = "not a type".into();
    let result = subject
        .store
        .append(&stream, ExpectedVersion::Any, last_is_unsound)
        .await;
    assert_kind(result, ErrorKind::Invalid, "an unsound event");
    let mut last_misfits = events(2..50);
    last_misfits[47].aggregate_version = 7;
    let result = subject
        .store
        .append(&stream, ExpectedVersion::Any, last_misfits)
        .await;
    assert_kind(result, ErrorKind::Invalid, "a version that does not fit");
    assert_eq!(subject.whole(&stream).await.len(), 2);
    assert!(subject.all(ReadAll::after(head)).await.is_empty());
}

/// Stated versions that fit are taken, those that do not are refused.
pub async fn stated_versions_must_fit(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    let stated = vec![event(0).with_version(1), event(1), event(2).with_version(3)];
    subject.append(&stream, stated).await;
    for wrong in [1, 3, 5, u64::MAX] {
        let events = vec![event(3).with_version(wrong)];
        let result = subject
            .store
            .append(&stream, ExpectedVersion::Any, events)
            .await;
        assert_kind(
            result,
            ErrorKind::Invalid,
            "a stated version that does not fit",
        );
    }
    subject
        .append(&stream, vec![event(3).with_version(4)])
        .await;
    assert_eq!(versions(&subject.whole(&stream).await), [1, 2, 3, 4]);
}

/// The seed's call: the version of the event says what is expected.
pub async fn append_event_expects_the_version_before(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    let store = &subject.store;
    assert_conflict_at(
        store.append_event(&stream, event(0).with_version(2)).await,
        0,
    );
    store
        .append_event(&stream, event(0).with_version(1))
        .await
        .expect("the first");
    assert_conflict_at(
        store.append_event(&stream, event(1).with_version(1)).await,
        1,
    );
    store
        .append_event(&stream, event(1).with_version(2))
        .await
        .expect("the second");
    let outcome = store
        .append_event(&stream, event(2))
        .await
        .expect("0 expects any");
    assert_eq!(outcome.version, 3);
}

/// Events that are not sound are refused.
pub async fn an_unsound_event_is_refused(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    let mut unsound: Vec<Event> = events(0..8);
    unsound[0].event_id = String::new();
    unsound[1].event_id = "x".repeat(129);
    unsound[2].event_id = "a b".into();
    unsound[3].event_type = String::new();
    unsound[4].event_type = "order..created".into();
    unsound[5].aggregate_id = String::new();
    unsound[6].aggregate_id = "a\nb".into();
    unsound[7].correlation_id = "x".repeat(129);
    for event in unsound {
        let what = format!("{event:?}");
        let result = subject
            .store
            .append(&stream, ExpectedVersion::Any, vec![event])
            .await;
        assert_kind(result, ErrorKind::Invalid, &what);
    }
    assert!(subject.whole(&stream).await.is_empty());
}

/// Streams whose names are alike are apart.
pub async fn streams_are_apart(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let names = ["a", "A", "a-b", "a%", "a_", "ä"].map(|what| stream(scope, what));
    for (number, name) in names.iter().enumerate() {
        subject.append(name, vec![event(number as u64)]).await;
    }
    for (number, name) in names.iter().enumerate() {
        assert_eq!(
            numbers(&subject.whole(name).await),
            [number as u64],
            "{name}"
        );
    }
}

/// The store says that it works.
pub async fn a_health_check_passes(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let check = scope
        .within("a health check", subject.store.health_check())
        .await;
    check.expect("a store that works says so");
}
