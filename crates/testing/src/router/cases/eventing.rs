//! Messages as CloudEvents.

use trunkline_core::Timestamp;
use trunkline_core::names::message_header as header;
use trunkline_messaging::cloudevents::{CloudEvent, CloudEventsMode};
use trunkline_messaging::{AnyBroker, Destination, Message, MessageBroker, Publish, Subscribe};

use crate::Scope;
use crate::router::fixture::{Dead, Order, Seen, builder, end, has, messaging, ready, topic};

fn able(broker: &AnyBroker, scope: &Scope) -> bool {
    has(scope, broker.capabilities().groups, "groups")
}

/// A handler gets the same event whichever mode it was written in, and so do others: one as headers, one as an object.
pub async fn events_are_the_same_in_both_modes(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let name = topic(scope, "orders");
    let messaging = messaging(broker, scope);
    let structured = builder(broker, scope)
        .cloudevents(CloudEventsMode::Structured)
        .build();
    let seen = Seen::new();
    let record = seen.clone();
    let handler = move |order: Order, event: CloudEvent, message: Message| {
        record.push((order.id, event, message.id, message.content_type));
        async {}
    };
    let subscribing = messaging.subscribe(name.clone());
    subscribing.handle(handler).await.expect("it begins");
    ready(&messaging, scope).await;
    let subscribe = Subscribe::topics(name.clone());
    let mut raw = broker.subscribe(subscribe).await.expect("it is accepted");
    crate::broker::attached(scope, &raw).await;
    for (id, writer) in [(1, &messaging), (2, &structured)] {
        let outgoing = writer.to(&name).attribute("subject", "order/7");
        let outgoing = outgoing.attribute("tenant", "a").id(format!("id-{id}"));
        let sent = scope.within("a publish", outgoing.send(&Order { id }));
        sent.await.expect("published");
        let delivery = scope
            .within("the message", raw.next())
            .await
            .expect("it comes");
        let message = delivery.message().clone();
        delivery.ack().await.expect("it is acknowledged");
        let event = CloudEvent::read(&message).expect("it is an event");
        assert_eq!(event.id, format!("id-{id}"));
        if id == 1 {
            assert_eq!(message.headers.get(header::CE_SUBJECT), Some("order/7"));
            assert_eq!(message.content_type.as_deref(), Some("application/json"));
            continue;
        }
        let object: serde_json::Value =
            serde_json::from_slice(&message.payload).expect("one JSON object");
        assert_eq!(object["specversion"], "1.0");
        assert_eq!(object["subject"], "order/7");
        assert_eq!(object["data"], serde_json::json!({ "id": 2 }));
        assert_eq!(object["datacontenttype"], "application/json");
        let content_type = message.content_type.unwrap_or_default();
        assert!(content_type.starts_with("application/cloudevents+json"));
    }
    for (at, (order, event, id, content_type)) in
        seen.wait_for(scope, 2).await.into_iter().enumerate()
    {
        assert_eq!(order, at as u64 + 1);
        assert_eq!((id.clone(), event.id), (format!("id-{order}"), id));
        assert_eq!(event.source, scope.name("service"));
        assert_eq!(event.event_type, name.as_str());
        assert_eq!(event.subject.as_deref(), Some("order/7"));
        assert_eq!(event.extensions["tenant"], "a");
        assert_eq!(content_type.as_deref(), Some("application/json"));
        assert_eq!(event.data_content_type, content_type);
        let time: Timestamp = event.time.expect("a time").parse().expect("RFC 3339");
        assert!(time.unix_millis() > 0);
    }
    end(&messaging).await;
}

/// An event that somebody else wrote as an object reaches the handler as its data; what only says that it is one is a dead
/// letter at once.
pub async fn a_foreign_structured_event_is_read(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (name, group) = (topic(scope, "orders"), scope.name("mail"));
    let messaging = messaging(broker, scope);
    let seen = Seen::new();
    let record = seen.clone();
    let handler = move |order: Order, event: CloudEvent, message: Message| {
        record.push((order.id, event.event_type, message.id));
        async {}
    };
    let mut dead = Dead::of(broker, scope, &group).await;
    let subscribing = messaging.subscribe(name.clone()).group(&group);
    subscribing.handle(handler).await.expect("it begins");
    ready(&messaging, scope).await;
    for text in [
        r#"{"specversion":"1.0","id":"1","source":"/shop","type":"order.paid","data":{"id":7},"partition":3}"#,
        r#"{"specversion":"1.0","id":"1","source":"/else","type":"order.paid","data_base64":"eyJpZCI6OH0="}"#,
        r#"{"specversion":"1.0","id":"1"}"#,
    ] {
        let message = Message::new(text).with_content_type("application/cloudevents+json");
        let publish = Publish::new(Destination::Topic(name.clone()), message);
        let sent = scope.within("a publish", broker.publish(publish)).await;
        sent.expect("published");
    }
    let letter = dead.next(scope).await;
    assert_eq!(letter.headers.get(header::DEAD_REASON), Some("undecodable"));
    let error = letter.headers.get(header::DEAD_ERROR).unwrap_or_default();
    assert!(error.contains("source"), "{error}");
    let mut seen = seen.wait_for(scope, 2).await;
    seen.sort();
    let kind = "order.paid".to_owned();
    // An id is unique within its source only.
    let expected = [
        (7, kind.clone(), "/shop/1".to_owned()),
        (8, kind, "/else/1".to_owned()),
    ];
    assert_eq!(seen, expected);
    end(&messaging).await;
}
