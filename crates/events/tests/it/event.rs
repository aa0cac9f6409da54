//! Events, commands and names of streams.

use serde_json::json;
use trunkline_core::{Context, CorrelationId, ErrorKind};
use trunkline_events::{
    Command, Event, EventStore, ExpectedVersion, MemoryEventStore, MeteredStore, StreamName,
};
use trunkline_telemetry::{Format, Metrics};

#[test]
fn an_event_has_the_fields_of_the_seed() {
    let event = Event::new("order.created", "42", &json!({ "total": 1 })).unwrap();
    let written = serde_json::to_value(&event).unwrap();
    let fields: Vec<&String> = written.as_object().unwrap().keys().collect();
    let expected = [
        "aggregate_id",
        "aggregate_version",
        "correlation_id",
        "event_data",
        "event_id",
        "event_type",
        "metadata",
        "timestamp",
    ];
    let mut sorted = fields.clone();
    sorted.sort();
    assert_eq!(sorted, expected.iter().collect::<Vec<_>>());
    let read: Event = serde_json::from_value(written).unwrap();
    assert_eq!(read, event);
}

#[test]
fn a_command_has_the_fields_of_the_seed() {
    let command = Command::new("order.place", "42", &json!({ "total": 1 })).unwrap();
    let written = serde_json::to_value(&command).unwrap();
    for field in [
        "command_id",
        "command_type",
        "aggregate_id",
        "command_data",
        "metadata",
        "timestamp",
        "correlation_id",
    ] {
        assert!(written.get(field).is_some(), "{field}");
    }
    let read: Command = serde_json::from_value(written).unwrap();
    assert_eq!(read, command);
}

#[tokio::test]
async fn an_event_belongs_to_the_conversation_of_its_scope() {
    let context = Context::with_id(CorrelationId::accept("checkout-7").unwrap());
    let event = context
        .scope(async { Event::new("order.created", "42", &json!({})).unwrap() })
        .await;
    assert_eq!(event.correlation_id, "checkout-7");
    assert_eq!(event.metadata["traceparent"], context.trace().traceparent());
    let alone = Event::new("order.created", "42", &json!({})).unwrap();
    assert!(!alone.correlation_id.is_empty());
    assert!(alone.metadata.is_empty());
}

#[test]
fn the_data_of_another_shape_is_an_error_that_names_the_event() {
    let event = Event::new("order.created", "42", &json!({ "total": "much" })).unwrap();
    #[derive(Debug, serde::Deserialize)]
    struct Created {
        #[expect(dead_code, reason = "only its type matters")]
        total: u64,
    }
    let error = event.data::<Created>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(
        error.report().to_string().contains(&event.event_id),
        "{}",
        error.report()
    );
}

#[test]
fn a_stream_is_named_by_type_and_aggregate() {
    let stream = StreamName::of("order", "eu-42").unwrap();
    assert_eq!(
        (stream.as_str(), stream.category()),
        ("order-eu-42", "order")
    );
    assert_eq!(StreamName::new("plain").unwrap().category(), "plain");
    for wrong in ["", "a\nb", &"x".repeat(256)] {
        assert_eq!(
            StreamName::new(wrong).unwrap_err().kind(),
            ErrorKind::Invalid
        );
    }
}

#[tokio::test]
async fn appended_events_are_counted_and_repetitions_are_not() {
    let metrics = Metrics::new();
    let store = MeteredStore::new(MemoryEventStore::new(), metrics.events("orders"));
    let stream = StreamName::of("order", "42").unwrap();
    let event = |n: u32| Event::new("order.changed", "42", &n).unwrap();
    let decision: Vec<Event> = (0..3).map(event).collect();
    let any = ExpectedVersion::Any;
    store.append(&stream, any, decision.clone()).await.unwrap();
    store.append(&stream, any, decision).await.unwrap();
    store
        .append(&stream, ExpectedVersion::NoStream, vec![event(4)])
        .await
        .unwrap_err();
    let text = metrics.render(Format::Prometheus).unwrap();
    assert!(
        text.contains(r#"trunkline_events_appended_total{store="orders"} 3"#),
        "{text}"
    );
}
