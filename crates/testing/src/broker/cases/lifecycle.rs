//! Before `connect`, after `disconnect`, and futures that are dropped.

use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::{Context, ErrorKind};
use trunkline_messaging::{
    AnyBroker, Browse, Destination, MessageBroker, Subscribe, SubscriptionState,
};

use crate::Scope;
use crate::broker::OpenBroker;
use crate::broker::fixture::{
    ack, attached, cancel_after, collects, has, member, next, publish, refused, silent, subscribe,
    take, text, to_topic, topic,
};

async fn open(harness: &dyn OpenBroker, scope: &Scope) -> AnyBroker {
    harness
        .open_boxed(scope)
        .await
        .expect("it was there a moment ago")
}

async fn disconnect(broker: &AnyBroker, scope: &Scope) {
    let deadline = Instant::now() + Duration::from_secs(5);
    scope
        .within("disconnecting", broker.disconnect(deadline))
        .await
        .expect("it disconnects in time");
}

/// A subscription made before `connect` is detached, says why, and attaches by itself.
pub async fn subscribe_before_connect_attaches_later(harness: &dyn OpenBroker, scope: &Scope) {
    let broker = open(harness, scope).await;
    let name = topic(scope, "orders");
    let mut subscription = scope
        .within(
            "a subscribe",
            broker.subscribe(Subscribe::topics(name.clone())),
        )
        .await
        .expect("it is accepted before the connection");
    let state = subscription.state().borrow().clone();
    assert!(
        matches!(&state, SubscriptionState::Detached { reason } if !reason.is_empty()),
        "{state:?}"
    );
    broker.connect().await.expect("connects");
    attached(scope, &subscription).await;
    publish(&broker, scope, &name, "one").await;
    assert_eq!(take(scope, &mut subscription, 1).await, ["one"]);
    disconnect(&broker, scope).await;
}

/// A publish made before `connect` waits, and goes out when the connection is there.
pub async fn publish_before_connect_waits(harness: &dyn OpenBroker, scope: &Scope) {
    let broker = open(harness, scope).await;
    let name = topic(scope, "orders");
    let early = broker.publish(to_topic(&name, "one"));
    let connect = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        broker.connect().await
    };
    let (receipt, connected) = scope
        .within("both", futures_util::future::join(early, connect))
        .await;
    connected.expect("connects");
    receipt.expect("the early publish is confirmed");
    disconnect(&broker, scope).await;
}

/// A publish that waits for a connection gives up at the deadline of its context.
pub async fn publish_without_connection_ends_at_the_deadline(
    harness: &dyn OpenBroker,
    scope: &Scope,
) {
    let broker = open(harness, scope).await;
    let context = Context::new().with_timeout(Duration::from_millis(100));
    let lonely = context.scope(broker.publish(to_topic(&topic(scope, "orders"), "one")));
    let outcome = scope.within("giving up", lonely).await;
    refused(outcome, ErrorKind::Unavailable);
    disconnect(&broker, scope).await;
}

/// Connecting and disconnecting twice does nothing the second time.
pub async fn connect_and_disconnect_may_be_repeated(harness: &dyn OpenBroker, scope: &Scope) {
    let broker = open(harness, scope).await;
    for _ in 0..2 {
        scope
            .within("connecting", broker.connect())
            .await
            .expect("connects");
    }
    broker.health_check().await.expect("healthy");
    for _ in 0..2 {
        disconnect(&broker, scope).await;
    }
}

/// A broker that was never connected can be disconnected.
pub async fn an_unconnected_broker_can_be_disconnected(harness: &dyn OpenBroker, scope: &Scope) {
    let broker = open(harness, scope).await;
    disconnect(&broker, scope).await;
}

/// After `disconnect` every call fails with `Cancelled`, at once.
pub async fn calls_after_disconnect_are_cancelled(harness: &dyn OpenBroker, scope: &Scope) {
    let broker = open(harness, scope).await;
    broker.connect().await.expect("connects");
    disconnect(&broker, scope).await;
    let capabilities = broker.capabilities();
    let name = topic(scope, "orders");
    let queue = Destination::Queue(name.clone());
    let calls = async {
        let kind = ErrorKind::Cancelled;
        refused(broker.connect().await, kind);
        refused(broker.health_check().await, kind);
        refused(broker.publish(to_topic(&name, "one")).await, kind);
        let batch = vec![to_topic(&name, "one"), to_topic(&name, "two")];
        for outcome in broker.publish_batch(batch).await {
            refused(outcome, kind);
        }
        let wanted = Subscribe::topics(name.clone());
        refused(broker.subscribe(wanted).await, kind);
        if capabilities.queues {
            refused(broker.declare(queue.clone()).await, kind);
        }
        if capabilities.browse || capabilities.peek {
            refused(broker.browse(Browse::new(queue.clone())).await, kind);
            refused(broker.remove(name.clone(), vec![1]).await, kind);
        }
        if capabilities.browse {
            refused(broker.queues().await, kind);
        }
    };
    scope.within("refusing", calls).await;
}

/// `disconnect` ends the streams and tells their state, also while somebody waits.
pub async fn disconnect_ends_streams(harness: &dyn OpenBroker, scope: &Scope) {
    let broker = open(harness, scope).await;
    broker.connect().await.expect("connects");
    let wanted = Subscribe::topics(topic(scope, "orders"));
    let mut waiting = subscribe(&broker, scope, wanted.clone()).await;
    let mut idle = subscribe(&broker, scope, wanted).await;
    let leave = async {
        tokio::task::yield_now().await;
        disconnect(&broker, scope).await;
    };
    let (end, ()) = scope
        .within("the end", futures_util::future::join(waiting.next(), leave))
        .await;
    assert!(end.is_none(), "the stream ends: {end:?}");
    let end = scope.within("the end", idle.next()).await;
    assert!(end.is_none(), "the stream ends: {end:?}");
    for subscription in [&waiting, &idle] {
        assert_eq!(*subscription.state().borrow(), SubscriptionState::Closed);
    }
}

/// `disconnect` does not wait for deliveries that are held; settling one afterwards fails and does not hang.
pub async fn disconnect_with_work_in_flight(harness: &dyn OpenBroker, scope: &Scope) {
    let broker = open(harness, scope).await;
    broker.connect().await.expect("connects");
    let name = topic(scope, "orders");
    let mut subscription = subscribe(&broker, scope, Subscribe::topics(name.clone())).await;
    for payload in ["one", "two", "three"] {
        publish(&broker, scope, &name, payload).await;
    }
    let held = next(scope, &mut subscription).await;
    let dropped = next(scope, &mut subscription).await;
    disconnect(&broker, scope).await;
    let outcome = scope.within("settling late", held.ack()).await;
    refused(outcome, ErrorKind::Cancelled);
    drop(dropped);
    drop(subscription);
}

/// A publish that is dropped on the way is published once or not at all, and breaks nothing.
pub async fn a_dropped_publish_breaks_nothing(broker: &AnyBroker, scope: &Scope) {
    let name = topic(scope, "orders");
    let wanted = Subscribe::topics(name.clone()).with_prefetch(100);
    let mut subscription = subscribe(broker, scope, wanted).await;
    for polls in 0..6 {
        cancel_after(polls, broker.publish(to_topic(&name, &polls.to_string()))).await;
    }
    publish(broker, scope, &name, "end").await;
    let mut seen = std::collections::BTreeSet::new();
    while !seen.contains("end") {
        let delivery = next(scope, &mut subscription).await;
        assert!(seen.insert(text(&delivery)), "twice: {}", text(&delivery));
        ack(scope, delivery).await;
    }
    let wait = Duration::from_millis(100);
    while let Ok(Some(delivery)) = tokio::time::timeout(wait, subscription.next()).await {
        assert!(seen.insert(text(&delivery)), "twice: {}", text(&delivery));
        ack(scope, delivery).await;
    }
}

/// A wait for a delivery that is dropped loses nothing and counts no attempt.
pub async fn a_dropped_wait_loses_nothing(broker: &AnyBroker, scope: &Scope) {
    let name = topic(scope, "orders");
    let mut subscription = subscribe(broker, scope, Subscribe::topics(name.clone())).await;
    for round in 0..20 {
        let payload = round.to_string();
        let before = cancel_after(round % 5, subscription.next()).await;
        assert!(before.is_none(), "nothing was published: {before:?}");
        publish(broker, scope, &name, &payload).await;
        let early = cancel_after(round % 3, subscription.next()).await.flatten();
        let delivery = match early {
            Some(delivery) => delivery,
            None => next(scope, &mut subscription).await,
        };
        assert_eq!((text(&delivery), delivery.attempt()), (payload, 1));
        ack(scope, delivery).await;
    }
}

/// One waiting member that is cancelled does not swallow the message another member could have.
pub async fn a_dropped_wait_does_not_starve_others(broker: &AnyBroker, scope: &Scope) {
    if !collects(broker, scope) {
        return;
    }
    let (name, group) = (topic(scope, "orders"), scope.name("mail"));
    let mut lazy = subscribe(broker, scope, member(&name, &group)).await;
    let mut keen = subscribe(broker, scope, member(&name, &group)).await;
    for round in 0..10 {
        let before = cancel_after(3, lazy.next()).await;
        assert!(before.is_none(), "nothing was published: {before:?}");
        let payload = round.to_string();
        let (delivery, _) = scope
            .within(
                "a delivery to the other member",
                futures_util::future::join(keen.next(), publish(broker, scope, &name, &payload)),
            )
            .await;
        let delivery = delivery.expect("the stream goes on");
        assert_eq!(text(&delivery), payload);
        ack(scope, delivery).await;
    }
}

/// A settlement that is dropped on the way takes effect or not; the message is never lost in between.
pub async fn a_dropped_settlement_loses_nothing(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    let able = capabilities.groups && capabilities.redelivery && capabilities.lease_extension;
    if !has(scope, able, "redelivery with leases") {
        return;
    }
    let name = topic(scope, "orders");
    let wanted = member(&name, &scope.name("mail")).with_lease(crate::broker::fixture::SHORT_LEASE);
    let mut subscription = subscribe(broker, scope, wanted).await;
    for polls in 0..4 {
        let payload = polls.to_string();
        publish(broker, scope, &name, &payload).await;
        let delivery = next(scope, &mut subscription).await;
        assert_eq!(text(&delivery), payload);
        cancel_after(polls, delivery.nack(None)).await;
        // Whether the nack went through or the lease must run out first: it comes again.
        let again = next(scope, &mut subscription).await;
        assert_eq!(text(&again), payload);
        ack(scope, again).await;
    }
    silent(scope, &mut subscription).await;
}

/// What is not claimed is refused, not ignored.
pub async fn unclaimed_capabilities_are_refused(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    let kind = ErrorKind::Unsupported;
    let name = topic(scope, "orders");
    let minute = Duration::from_secs(60);
    let one = || to_topic(&name, "one");
    if !capabilities.groups {
        refused(broker.subscribe(member(&name, "mail")).await, kind);
    }
    if !capabilities.wildcards {
        let all = trunkline_messaging::TopicPattern::new("#").expect("a pattern");
        refused(broker.subscribe(Subscribe::topics(all)).await, kind);
    }
    if !capabilities.queues {
        let queue = Destination::Queue(name.clone());
        refused(broker.declare(queue).await, kind);
        refused(broker.subscribe(Subscribe::queue(name.clone())).await, kind);
    }
    if !capabilities.delayed_publish {
        refused(broker.publish(one().with_delay(minute)).await, kind);
    }
    if !capabilities.expiry {
        refused(broker.publish(one().with_expiry(minute)).await, kind);
    }
    if !capabilities.mandatory {
        refused(broker.publish(one().mandatory()).await, kind);
    }
}
