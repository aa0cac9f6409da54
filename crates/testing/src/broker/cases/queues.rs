//! Named queues.

use std::collections::BTreeSet;

use trunkline_core::ErrorKind;
use trunkline_messaging::{AnyBroker, Destination, MessageBroker, Routed, Subscribe};

use crate::Scope;
use crate::broker::fixture::{
    ack, declare, has, next, publish, refused, send, silent, subscribe, take, text, to_queue, topic,
};

/// Consumers of a queue compete, and a delivery names the queue.
pub async fn consumers_of_a_queue_compete(broker: &AnyBroker, scope: &Scope) {
    if !has(scope, broker.capabilities().queues, "queues") {
        return;
    }
    let name = topic(scope, "work");
    let one_at_a_time = || Subscribe::queue(name.clone()).with_prefetch(1);
    let mut first = subscribe(broker, scope, one_at_a_time()).await;
    let mut second = subscribe(broker, scope, one_at_a_time()).await;
    for payload in ["one", "two"] {
        let receipt = send(broker, scope, to_queue(&name, payload)).await;
        assert_ne!(receipt.routed, Routed::No);
    }
    let (one, two) = (
        next(scope, &mut first).await,
        next(scope, &mut second).await,
    );
    let both: BTreeSet<String> = [text(&one), text(&two)].into();
    assert_eq!(both, ["one".to_owned(), "two".to_owned()].into());
    assert_eq!(one.info().destination, Destination::Queue(name));
    ack(scope, one).await;
    ack(scope, two).await;
    silent(scope, &mut first).await;
    silent(scope, &mut second).await;
}

/// Publishing to a queue that does not exist is an error that names it.
pub async fn a_missing_queue_is_an_error(broker: &AnyBroker, scope: &Scope) {
    if !has(scope, broker.capabilities().queues, "queues") {
        return;
    }
    let name = topic(scope, "missing");
    let mut publish = to_queue(&name, "one");
    publish.mandatory = false;
    let error = refused(broker.publish(publish).await, ErrorKind::NotFound);
    assert!(
        error.report().to_string().contains(name.as_str()),
        "{}",
        error.report()
    );
}

/// A declared queue keeps messages until somebody consumes them, in order.
pub async fn a_declared_queue_keeps_messages(broker: &AnyBroker, scope: &Scope) {
    if !has(scope, broker.capabilities().queues, "queues") {
        return;
    }
    let name = topic(scope, "work");
    declare(broker, scope, &name).await;
    for payload in ["one", "two", "three"] {
        send(broker, scope, to_queue(&name, payload)).await;
    }
    let mut consumer = subscribe(broker, scope, Subscribe::queue(name)).await;
    let expected = ["one", "two", "three"];
    assert_eq!(take(scope, &mut consumer, 3).await, expected);
}

/// Declaring what is there changes nothing.
pub async fn declaring_twice_changes_nothing(broker: &AnyBroker, scope: &Scope) {
    if !has(scope, broker.capabilities().queues, "queues") {
        return;
    }
    let name = topic(scope, "work");
    declare(broker, scope, &name).await;
    send(broker, scope, to_queue(&name, "one")).await;
    declare(broker, scope, &name).await;
    let topic_too = Destination::Topic(topic(scope, "orders"));
    for _ in 0..2 {
        broker
            .declare(topic_too.clone())
            .await
            .expect("a topic can be declared");
    }
    let mut consumer = subscribe(broker, scope, Subscribe::queue(name)).await;
    assert_eq!(take(scope, &mut consumer, 1).await, ["one"]);
}

/// A queue and a topic of one name have nothing to do with each other.
pub async fn a_queue_and_a_topic_are_apart(broker: &AnyBroker, scope: &Scope) {
    if !has(scope, broker.capabilities().queues, "queues") {
        return;
    }
    let name = topic(scope, "both");
    let mut consumer = subscribe(broker, scope, Subscribe::queue(name.clone())).await;
    let mut listener = subscribe(broker, scope, Subscribe::topics(name.clone())).await;
    send(broker, scope, to_queue(&name, "queue")).await;
    publish(broker, scope, &name, "topic").await;
    assert_eq!(take(scope, &mut consumer, 1).await, ["queue"]);
    assert_eq!(take(scope, &mut listener, 1).await, ["topic"]);
    silent(scope, &mut consumer).await;
    silent(scope, &mut listener).await;
}

/// A queue's messages stay when its last consumer goes.
pub async fn a_queue_outlives_its_consumers(broker: &AnyBroker, scope: &Scope) {
    if !has(scope, broker.capabilities().queues, "queues") {
        return;
    }
    let name = topic(scope, "work");
    drop(subscribe(broker, scope, Subscribe::queue(name.clone())).await);
    send(broker, scope, to_queue(&name, "one")).await;
    let mut back = subscribe(broker, scope, Subscribe::queue(name)).await;
    assert_eq!(take(scope, &mut back, 1).await, ["one"]);
}
