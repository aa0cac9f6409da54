//! What becomes of a delivery.

use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::ErrorKind;
use trunkline_messaging::{AnyBroker, Delivery, MessageBroker, Subscribe, Subscription, TopicName};

use crate::Scope;
use crate::broker::fixture::{
    SHORT_LEASE, ack, has, member, nack, next, publish, refused, silent, subscribe, take, text,
    topic,
};

/// A group with one message waiting, or nothing when the broker delivers at most once. The lease outlasts the case.
async fn one_message(
    broker: &AnyBroker,
    scope: &Scope,
) -> Option<(TopicName, String, Subscription, Delivery)> {
    one_message_for(broker, scope, Duration::from_secs(3600)).await
}

async fn one_message_for(
    broker: &AnyBroker,
    scope: &Scope,
    lease: Duration,
) -> Option<(TopicName, String, Subscription, Delivery)> {
    let capabilities = broker.capabilities();
    if !has(
        scope,
        capabilities.groups && capabilities.redelivery,
        "groups with redelivery",
    ) {
        return None;
    }
    let (name, group) = (topic(scope, "orders"), scope.name("mail"));
    let wanted = member(&name, &group).with_lease(lease);
    let mut subscription = subscribe(broker, scope, wanted).await;
    publish(broker, scope, &name, "one").await;
    let delivery = next(scope, &mut subscription).await;
    Some((name, group, subscription, delivery))
}

/// An acknowledged message does not come again, not even after its lease.
pub async fn ack_is_final(broker: &AnyBroker, scope: &Scope) {
    let Some((_, _, mut subscription, delivery)) =
        one_message_for(broker, scope, SHORT_LEASE).await
    else {
        return;
    };
    ack(scope, delivery).await;
    tokio::time::sleep(SHORT_LEASE).await;
    silent(scope, &mut subscription).await;
}

/// A message given back comes again.
pub async fn nack_redelivers(broker: &AnyBroker, scope: &Scope) {
    let Some((_, _, mut subscription, delivery)) = one_message(broker, scope).await else {
        return;
    };
    let id = delivery.message().id.clone();
    nack(scope, delivery).await;
    let again = next(scope, &mut subscription).await;
    assert_eq!(again.message().id, id);
    assert!(again.attempt() >= 2, "attempt {}", again.attempt());
    ack(scope, again).await;
}

/// A dropped delivery comes again without waiting for its lease.
pub async fn drop_redelivers(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    if !has(
        scope,
        capabilities.groups && capabilities.redelivery,
        "groups with redelivery",
    ) {
        return;
    }
    let name = topic(scope, "orders");
    let hour = Duration::from_secs(3600);
    let wanted = member(&name, &scope.name("mail")).with_lease(hour);
    let mut subscription = subscribe(broker, scope, wanted).await;
    publish(broker, scope, &name, "one").await;
    drop(next(scope, &mut subscription).await);
    let again = next(scope, &mut subscription).await;
    assert_eq!(text(&again), "one");
    assert!(again.attempt() >= 2, "attempt {}", again.attempt());
    ack(scope, again).await;
}

/// A rejected message does not come again.
pub async fn reject_is_final(broker: &AnyBroker, scope: &Scope) {
    let Some((_, _, mut subscription, delivery)) =
        one_message_for(broker, scope, SHORT_LEASE).await
    else {
        return;
    };
    scope
        .within("a reject", delivery.reject())
        .await
        .expect("the broker takes the rejection");
    tokio::time::sleep(SHORT_LEASE).await;
    silent(scope, &mut subscription).await;
}

/// Attempts are counted whatever became of the delivery, and whoever gets the next one.
pub async fn attempts_are_counted(broker: &AnyBroker, scope: &Scope) {
    if !has(scope, broker.capabilities().attempts, "attempts") {
        return;
    }
    let Some((name, group, mut subscription, first)) = one_message(broker, scope).await else {
        return;
    };
    assert_eq!(first.attempt(), 1);
    nack(scope, first).await;
    let second = next(scope, &mut subscription).await;
    assert_eq!(second.attempt(), 2);
    drop(second);
    let third = next(scope, &mut subscription).await;
    assert_eq!(third.attempt(), 3);
    nack(scope, third).await;
    drop(subscription);
    let mut other = subscribe(broker, scope, member(&name, &group)).await;
    let fourth = next(scope, &mut other).await;
    assert_eq!(fourth.attempt(), 4);
    ack(scope, fourth).await;
}

/// One group's nack does not repeat anything for another group.
pub async fn a_nack_concerns_one_group(broker: &AnyBroker, scope: &Scope) {
    let Some((name, _, mut mail, first)) = one_message(broker, scope).await else {
        return;
    };
    ack(scope, first).await;
    let mut audit = subscribe(broker, scope, member(&name, &scope.name("audit"))).await;
    publish(broker, scope, &name, "two").await;
    let delivery = next(scope, &mut audit).await;
    nack(scope, delivery).await;
    assert_eq!(take(scope, &mut mail, 1).await, ["two"]);
    let again = next(scope, &mut audit).await;
    assert!(again.attempt() >= 2, "attempt {}", again.attempt());
    ack(scope, again).await;
    silent(scope, &mut mail).await;
}

/// A message given back for later comes later, not before.
pub async fn delayed_redelivery_waits(broker: &AnyBroker, scope: &Scope) {
    let Some((_, _, mut subscription, delivery)) = one_message(broker, scope).await else {
        return;
    };
    let delay = Duration::from_millis(500);
    if !has(
        scope,
        broker.capabilities().delayed_redelivery,
        "delayed_redelivery",
    ) {
        refused(delivery.nack(Some(delay)).await, ErrorKind::Unsupported);
        return;
    }
    let asked = Instant::now();
    scope
        .within("a delayed nack", delivery.nack(Some(delay)))
        .await
        .expect("the broker takes the nack");
    let again = next(scope, &mut subscription).await;
    // Brokers count whole milliseconds.
    let early = Duration::from_millis(5);
    assert!(asked.elapsed() + early >= delay, "{:?}", asked.elapsed());
    assert!(again.attempt() >= 2, "attempt {}", again.attempt());
    ack(scope, again).await;
}

/// A message that waits for its redelivery does not hold up those without its key.
pub async fn a_delayed_message_holds_up_no_other(broker: &AnyBroker, scope: &Scope) {
    if !has(
        scope,
        broker.capabilities().delayed_redelivery,
        "delayed_redelivery",
    ) {
        return;
    }
    let Some((name, _, mut subscription, delivery)) = one_message(broker, scope).await else {
        return;
    };
    let delay = Duration::from_secs(3);
    delivery.nack(Some(delay)).await.expect("the nack is taken");
    publish(broker, scope, &name, "two").await;
    assert_eq!(take(scope, &mut subscription, 2).await, ["two", "one"]);
}

/// A message whose consumer says nothing comes again when its lease is over.
pub async fn a_lease_that_runs_out_redelivers(broker: &AnyBroker, scope: &Scope) {
    if !has(
        scope,
        broker.capabilities().lease_extension,
        "lease_extension",
    ) {
        return;
    }
    let Some((_, _, mut subscription, held)) = one_message_for(broker, scope, SHORT_LEASE).await
    else {
        return;
    };
    let again = next(scope, &mut subscription).await;
    assert_eq!(again.message().id, held.message().id);
    assert!(again.attempt() >= 2, "attempt {}", again.attempt());
    ack(scope, again).await;
    drop(held);
    silent(scope, &mut subscription).await;
}

/// A settlement that comes after the lease is refused and does not touch the message in its new hands.
pub async fn a_late_settlement_changes_nothing(broker: &AnyBroker, scope: &Scope) {
    if !has(
        scope,
        broker.capabilities().lease_extension,
        "lease_extension",
    ) {
        return;
    }
    let Some((name, group, mut subscription, held)) =
        one_message_for(broker, scope, SHORT_LEASE).await
    else {
        return;
    };
    drop(subscription);
    let patient = member(&name, &group).with_lease(Duration::from_secs(60));
    subscription = subscribe(broker, scope, patient).await;
    let again = next(scope, &mut subscription).await;
    refused(held.extend(SHORT_LEASE).await, ErrorKind::Conflict);
    refused(held.ack().await, ErrorKind::Conflict);
    nack(scope, again).await;
    let third = next(scope, &mut subscription).await;
    assert_eq!(text(&third), "one");
    ack(scope, third).await;
}

/// An extended lease holds the message while its handler works on.
pub async fn an_extended_lease_holds(broker: &AnyBroker, scope: &Scope) {
    let Some((_, _, mut subscription, held)) = one_message_for(broker, scope, SHORT_LEASE).await
    else {
        return;
    };
    if !has(
        scope,
        broker.capabilities().lease_extension,
        "lease_extension",
    ) {
        refused(held.extend(SHORT_LEASE).await, ErrorKind::Unsupported);
        ack(scope, held).await;
        return;
    }
    held.extend(Duration::from_secs(60))
        .await
        .expect("the lease is extended");
    tokio::time::sleep(SHORT_LEASE).await;
    silent(scope, &mut subscription).await;
    ack(scope, held).await;
}

/// A subscription that is dropped leaves what it handed out to its owner.
pub async fn a_delivery_outlives_its_subscription(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    if !has(
        scope,
        capabilities.groups && capabilities.redelivery,
        "groups with redelivery",
    ) {
        return;
    }
    let (name, group) = (topic(scope, "orders"), scope.name("mail"));
    let mut first = subscribe(broker, scope, member(&name, &group)).await;
    publish(broker, scope, &name, "one").await;
    let held = next(scope, &mut first).await;
    drop(first);
    ack(scope, held).await;
    let mut second = subscribe(broker, scope, member(&name, &group)).await;
    silent(scope, &mut second).await;
}

/// A subscriber without a group has its messages redelivered too, while it is there.
pub async fn a_subscriber_without_a_group_gets_redeliveries(broker: &AnyBroker, scope: &Scope) {
    if !has(scope, broker.capabilities().redelivery, "redelivery") {
        return;
    }
    let name = topic(scope, "orders");
    let mut subscription = subscribe(broker, scope, Subscribe::topics(name.clone())).await;
    publish(broker, scope, &name, "one").await;
    let delivery = next(scope, &mut subscription).await;
    nack(scope, delivery).await;
    let again = next(scope, &mut subscription).await;
    assert!(again.attempt() >= 2, "attempt {}", again.attempt());
    ack(scope, again).await;
}

/// Without the capability, asking for a message again is refused instead of forgotten.
pub async fn without_redelivery_a_nack_is_refused(broker: &AnyBroker, scope: &Scope) {
    if broker.capabilities().redelivery {
        return;
    }
    let name = topic(scope, "orders");
    let mut subscription = subscribe(broker, scope, Subscribe::topics(name.clone())).await;
    publish(broker, scope, &name, "one").await;
    let delivery = next(scope, &mut subscription).await;
    refused(delivery.nack(None).await, ErrorKind::Unsupported);
}
