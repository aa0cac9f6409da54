//! Publishing and receiving.

use bytes::Bytes;
use trunkline_core::{ErrorKind, Metadata, Timestamp};
use trunkline_messaging::{
    AnyBroker, Destination, Message, MessageBroker, Publish, Routed, Subscribe,
};

use crate::Scope;
use crate::broker::fixture::{
    ack, has, next, publish, refused, send, silent, subscribe, take, text, to_queue, to_topic,
    topic,
};

/// What is published to a topic reaches who subscribes to it, with the name of the topic.
pub async fn publish_reaches_a_subscriber(broker: &AnyBroker, scope: &Scope) {
    let name = topic(scope, "orders");
    let mut subscription = subscribe(broker, scope, Subscribe::topics(name.clone())).await;
    let receipt = publish(broker, scope, &name, "one").await;
    let delivery = next(scope, &mut subscription).await;
    assert_eq!(text(&delivery), "one");
    assert_eq!(delivery.message().id, receipt.id);
    assert_eq!(delivery.info().destination, Destination::Topic(name));
    assert_eq!(delivery.info().group, None);
    assert_eq!(delivery.attempt(), 1);
    assert_ne!(receipt.routed, Routed::No);
    ack(scope, delivery).await;
}

/// Subscribers without a group all get everything.
pub async fn every_subscriber_gets_a_copy(broker: &AnyBroker, scope: &Scope) {
    let name = topic(scope, "orders");
    let mut first = subscribe(broker, scope, Subscribe::topics(name.clone())).await;
    let mut second = subscribe(broker, scope, Subscribe::topics(name.clone())).await;
    for payload in ["one", "two"] {
        publish(broker, scope, &name, payload).await;
    }
    assert_eq!(take(scope, &mut first, 2).await, ["one", "two"]);
    assert_eq!(take(scope, &mut second, 2).await, ["one", "two"]);
}

/// A subscriber without a group does not get what was published before it came.
pub async fn a_subscriber_starts_with_what_comes_after_it(broker: &AnyBroker, scope: &Scope) {
    let name = topic(scope, "orders");
    publish(broker, scope, &name, "before").await;
    let mut subscription = subscribe(broker, scope, Subscribe::topics(name.clone())).await;
    publish(broker, scope, &name, "after").await;
    assert_eq!(take(scope, &mut subscription, 1).await, ["after"]);
}

/// Two topics do not mix.
pub async fn topics_are_apart(broker: &AnyBroker, scope: &Scope) {
    let (orders, users) = (topic(scope, "orders"), topic(scope, "users"));
    let mut subscription = subscribe(broker, scope, Subscribe::topics(orders.clone())).await;
    publish(broker, scope, &users, "user").await;
    publish(broker, scope, &orders, "order").await;
    assert_eq!(take(scope, &mut subscription, 1).await, ["order"]);
    silent(scope, &mut subscription).await;
}

/// Publishing to a topic nobody listens to is no error, and the receipt does not claim that it found somebody.
pub async fn a_topic_without_subscribers_takes_messages(broker: &AnyBroker, scope: &Scope) {
    let receipt = publish(broker, scope, &topic(scope, "nobody"), "one").await;
    assert_ne!(receipt.routed, Routed::Yes);
}

/// A dropped subscription no longer counts as somebody, and does not hold anything up.
pub async fn a_dropped_subscription_is_gone(broker: &AnyBroker, scope: &Scope) {
    let name = topic(scope, "orders");
    let gone = subscribe(broker, scope, Subscribe::topics(name.clone())).await;
    drop(gone);
    let unrouted = async {
        while publish(broker, scope, &name, "one").await.routed == Routed::Yes {
            tokio::task::yield_now().await;
        }
    };
    scope.within("forgetting the subscription", unrouted).await;
}

/// Every field of a message arrives as it was sent; headers keep order, spelling, repetitions and bytes.
pub async fn every_field_arrives(broker: &AnyBroker, scope: &Scope) {
    let name = topic(scope, "orders");
    let mut subscription = subscribe(broker, scope, Subscribe::topics(name.clone())).await;
    let mut headers = Metadata::new();
    headers.append("Tag", "a");
    headers.append("other", "ä ö 中");
    headers.append("tag", "b");
    headers.append("binary", Bytes::from_static(&[0, 255, 1, 254]));
    headers.append("empty", "");
    let mut message = Message::new("payload")
        .with_id("id with spaces / and ä")
        .with_content_type("application/vnd.order+json; v=1")
        .with_key(Bytes::from_static(&[0, 200, 7]));
    message.headers = headers.clone();
    message.published_at = Some(Timestamp::from_unix_micros(1_736_418_600_123_456));
    let sent = message.clone();
    send(
        broker,
        scope,
        Publish::new(Destination::Topic(name), message),
    )
    .await;
    let delivery = next(scope, &mut subscription).await;
    let received = delivery.message();
    assert_eq!(received.id, sent.id);
    assert_eq!(received.payload, sent.payload);
    assert_eq!(received.content_type, sent.content_type);
    assert_eq!(received.key, sent.key);
    assert_eq!(received.headers, headers);
    // Brokers keep time to the millisecond at least.
    let millis = received.published_at.map(Timestamp::unix_millis);
    assert_eq!(millis, sent.published_at.map(Timestamp::unix_millis));
    ack(scope, delivery).await;
}

/// A message without content type, key and headers arrives without them, and gets a time.
pub async fn absent_fields_stay_absent(broker: &AnyBroker, scope: &Scope) {
    let name = topic(scope, "orders");
    let mut subscription = subscribe(broker, scope, Subscribe::topics(name.clone())).await;
    publish(broker, scope, &name, "one").await;
    let delivery = next(scope, &mut subscription).await;
    let message = delivery.message();
    assert_eq!(message.content_type, None);
    assert_eq!(message.key, None);
    assert!(message.headers.is_empty(), "{:?}", message.headers);
    assert!(message.published_at.is_some());
    ack(scope, delivery).await;
}

/// An empty payload is a payload.
pub async fn an_empty_payload_arrives(broker: &AnyBroker, scope: &Scope) {
    payload_arrives(broker, scope, Bytes::new()).await;
}

/// A payload may be any bytes.
pub async fn a_binary_payload_arrives(broker: &AnyBroker, scope: &Scope) {
    let every_byte: Vec<u8> = (0..=255).collect();
    payload_arrives(broker, scope, Bytes::from(every_byte)).await;
}

/// A payload may be large: a mebibyte, or as much as the broker says it takes.
pub async fn a_large_payload_arrives(broker: &AnyBroker, scope: &Scope) {
    let largest = broker.capabilities().max_message_size.unwrap_or(usize::MAX);
    let room_for_id = 64;
    let size = (1024 * 1024).min(largest.saturating_sub(room_for_id));
    let payload: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
    payload_arrives(broker, scope, Bytes::from(payload)).await;
}

async fn payload_arrives(broker: &AnyBroker, scope: &Scope, payload: Bytes) {
    let name = topic(scope, "orders");
    let mut subscription = subscribe(broker, scope, Subscribe::topics(name.clone())).await;
    let message = Message::new(payload.clone());
    send(
        broker,
        scope,
        Publish::new(Destination::Topic(name), message),
    )
    .await;
    let delivery = next(scope, &mut subscription).await;
    assert!(delivery.message().payload == payload, "the payload differs");
    ack(scope, delivery).await;
}

/// A message larger than the broker says it takes is refused, and nothing of it arrives.
pub async fn an_oversized_message_is_refused(broker: &AnyBroker, scope: &Scope) {
    let Some(largest) = broker.capabilities().max_message_size else {
        has(scope, false, "max_message_size");
        return;
    };
    let name = topic(scope, "orders");
    let mut subscription = subscribe(broker, scope, Subscribe::topics(name.clone())).await;
    let oversized = Publish::new(
        Destination::Topic(name.clone()),
        Message::new(vec![7_u8; largest + 1]),
    );
    let error = refused(broker.publish(oversized).await, ErrorKind::Invalid);
    assert!(
        error.report().to_string().contains(&largest.to_string()),
        "the error names the limit: {}",
        error.report()
    );
    publish(broker, scope, &name, "small").await;
    assert_eq!(take(scope, &mut subscription, 1).await, ["small"]);
}

/// A batch arrives in the order it was given.
pub async fn a_batch_keeps_its_order(broker: &AnyBroker, scope: &Scope) {
    let name = topic(scope, "orders");
    let mut subscription = subscribe(
        broker,
        scope,
        Subscribe::topics(name.clone()).with_prefetch(500),
    )
    .await;
    let texts: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    let batch: Vec<Publish> = texts.iter().map(|text| to_topic(&name, text)).collect();
    let ids: Vec<String> = batch.iter().map(|one| one.message.id.clone()).collect();
    let outcomes = scope.within("the batch", broker.publish_batch(batch)).await;
    let confirmed: Vec<String> = outcomes
        .into_iter()
        .map(|outcome| outcome.expect("confirmed").id)
        .collect();
    assert_eq!(confirmed, ids, "one outcome each, in order");
    assert_eq!(take(scope, &mut subscription, 200).await, texts);
}

/// An empty batch is done at once.
pub async fn an_empty_batch_is_nothing(broker: &AnyBroker, scope: &Scope) {
    let outcomes = scope
        .within("the batch", broker.publish_batch(Vec::new()))
        .await;
    assert!(outcomes.is_empty());
}

/// One bad message of a batch fails alone.
pub async fn a_batch_reports_each_outcome(broker: &AnyBroker, scope: &Scope) {
    if !has(scope, broker.capabilities().queues, "queues") {
        return;
    }
    let name = topic(scope, "orders");
    let mut subscription = subscribe(broker, scope, Subscribe::topics(name.clone())).await;
    let batch = vec![
        to_topic(&name, "one"),
        to_queue(&topic(scope, "missing"), "lost"),
        to_topic(&name, "two"),
    ];
    let outcomes = scope.within("the batch", broker.publish_batch(batch)).await;
    let kinds: Vec<Option<ErrorKind>> = outcomes
        .iter()
        .map(|outcome| outcome.as_ref().err().map(trunkline_core::Error::kind))
        .collect();
    assert_eq!(kinds, [None, Some(ErrorKind::NotFound), None]);
    assert_eq!(take(scope, &mut subscription, 2).await, ["one", "two"]);
}

/// The broker works, and says so.
pub async fn a_health_check_passes(broker: &AnyBroker, scope: &Scope) {
    scope
        .within("the check", broker.health_check())
        .await
        .expect("a connected broker is healthy");
}
