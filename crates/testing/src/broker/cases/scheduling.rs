//! Messages for later, and messages that expire.

use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::ErrorKind;
use trunkline_messaging::{AnyBroker, MessageBroker, Subscribe};

use crate::Scope;
use crate::broker::fixture::{
    ack, collects, declare, has, member, nack, next, publish, refused, send, silent, subscribe,
    take, text, to_queue, to_topic, topic,
};

/// A message published for later comes later, not before, and after those published meanwhile.
pub async fn delayed_publish_waits(broker: &AnyBroker, scope: &Scope) {
    let name = topic(scope, "orders");
    let delay = Duration::from_millis(500);
    let later = to_topic(&name, "later").with_delay(delay);
    if !has(
        scope,
        broker.capabilities().delayed_publish,
        "delayed_publish",
    ) {
        refused(broker.publish(later).await, ErrorKind::Unsupported);
        return;
    }
    let mut subscription = subscribe(broker, scope, Subscribe::topics(name.clone())).await;
    let asked = Instant::now();
    send(broker, scope, later).await;
    publish(broker, scope, &name, "now").await;
    assert_eq!(take(scope, &mut subscription, 1).await, ["now"]);
    let delivery = next(scope, &mut subscription).await;
    assert_eq!(text(&delivery), "later");
    // Brokers count whole milliseconds.
    let early = Duration::from_millis(5);
    assert!(asked.elapsed() + early >= delay, "{:?}", asked.elapsed());
    assert_eq!(delivery.attempt(), 1);
    ack(scope, delivery).await;
}

/// Messages for later come in the order in which they are due, to queues too.
pub async fn delayed_messages_come_when_due(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    if !has(
        scope,
        capabilities.delayed_publish && capabilities.queues,
        "delayed_publish to queues",
    ) {
        return;
    }
    let name = topic(scope, "work");
    let mut consumer = subscribe(broker, scope, Subscribe::queue(name.clone())).await;
    // What a broker sets up for its first message for later is no part of the delays.
    let begin = to_queue(&name, "begin").with_delay(Duration::from_millis(1));
    send(broker, scope, begin).await;
    assert_eq!(take(scope, &mut consumer, 1).await, ["begin"]);
    // Due at points in time that are settled before: a publish that takes long changes nothing about their order.
    let asked = Instant::now();
    for (payload, millis) in [("third", 1500), ("first", 300), ("second", 900)] {
        let due = asked + Duration::from_millis(millis);
        let delay = due.saturating_duration_since(Instant::now());
        let later = to_queue(&name, payload).with_delay(delay.max(Duration::from_millis(1)));
        send(broker, scope, later).await;
    }
    let expected = ["first", "second", "third"];
    assert_eq!(take(scope, &mut consumer, 3).await, expected);
}

/// A message for later does not hold up its key.
pub async fn a_delayed_publish_does_not_hold_its_key(broker: &AnyBroker, scope: &Scope) {
    if !has(
        scope,
        broker.capabilities().delayed_publish,
        "delayed_publish",
    ) {
        return;
    }
    let name = topic(scope, "orders");
    let mut subscription = subscribe(broker, scope, Subscribe::topics(name.clone())).await;
    let keyed = |payload: &str| {
        let mut publish = to_topic(&name, payload);
        publish.message = publish.message.with_key("k");
        publish
    };
    send(
        broker,
        scope,
        keyed("later").with_delay(Duration::from_secs(3)),
    )
    .await;
    send(broker, scope, keyed("now")).await;
    assert_eq!(take(scope, &mut subscription, 2).await, ["now", "later"]);
}

/// An expired message is not delivered; one that has time left is.
pub async fn an_expired_message_is_not_delivered(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    let name = topic(scope, "orders");
    let soon = Duration::from_millis(100);
    let short = to_topic(&name, "short").with_expiry(soon);
    if !has(scope, capabilities.expiry, "expiry") {
        refused(broker.publish(short).await, ErrorKind::Unsupported);
        return;
    }
    if !collects(broker, scope) {
        return;
    }
    let group = scope.name("mail");
    drop(subscribe(broker, scope, member(&name, &group)).await);
    send(broker, scope, short).await;
    let long = to_topic(&name, "long").with_expiry(Duration::from_secs(600));
    send(broker, scope, long).await;
    tokio::time::sleep(soon * 2).await;
    let mut back = subscribe(broker, scope, member(&name, &group)).await;
    assert_eq!(take(scope, &mut back, 1).await, ["long"]);
    silent(scope, &mut back).await;
}

/// A message that expires while it waits does not hold up the others of its key.
pub async fn an_expired_message_frees_its_key(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    let able = capabilities.expiry && capabilities.groups && capabilities.redelivery;
    if !has(scope, able, "expiry with redelivery") {
        return;
    }
    let name = topic(scope, "orders");
    let mut subscription = subscribe(broker, scope, member(&name, &scope.name("mail"))).await;
    let soon = Duration::from_millis(300);
    for (payload, expiry) in [("short", soon), ("long", Duration::from_secs(600))] {
        let mut publish = to_topic(&name, payload).with_expiry(expiry);
        publish.message = publish.message.with_key("k");
        send(broker, scope, publish).await;
    }
    let first = next(scope, &mut subscription).await;
    if text(&first) == "short" {
        tokio::time::sleep(soon * 2).await;
        nack(scope, first).await;
        assert_eq!(take(scope, &mut subscription, 1).await, ["long"]);
    } else {
        // A machine so slow that the first one expired on its way.
        ack(scope, first).await;
    }
}

/// An expired message in a queue is neither delivered nor shown.
pub async fn an_expired_message_leaves_its_queue(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    if !has(
        scope,
        capabilities.expiry && capabilities.queues,
        "expiry with queues",
    ) {
        return;
    }
    let name = topic(scope, "work");
    declare(broker, scope, &name).await;
    let soon = Duration::from_millis(100);
    send(broker, scope, to_queue(&name, "short").with_expiry(soon)).await;
    send(broker, scope, to_queue(&name, "kept")).await;
    tokio::time::sleep(soon * 2).await;
    if capabilities.browse || capabilities.peek {
        let queue = trunkline_messaging::Destination::Queue(name.clone());
        let page = broker
            .browse(trunkline_messaging::Browse::new(queue))
            .await
            .expect("the queue can be browsed");
        assert_eq!(page.messages.len(), 1);
    }
    let mut consumer = subscribe(broker, scope, Subscribe::queue(name)).await;
    assert_eq!(take(scope, &mut consumer, 1).await, ["kept"]);
    silent(scope, &mut consumer).await;
}
