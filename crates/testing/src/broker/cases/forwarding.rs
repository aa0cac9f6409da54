//! Acknowledging and publishing in one step.

use trunkline_core::ErrorKind;
use trunkline_messaging::{
    AnyBroker, Destination, MessageBroker, Publish, Settlement, Subscribe, TopicName,
};

use crate::Scope;
use crate::broker::fixture::{
    ack, declare, has, member, next, publish, refused, silent, subscribe, take, text, topic,
};

fn forward(delivery: &trunkline_messaging::Delivery, queue: &TopicName) -> Settlement {
    let message = delivery.message().clone();
    let destination = Destination::Queue(queue.clone());
    Settlement::Forward(Box::new(Publish::new(destination, message)))
}

/// A forwarded message is done here and arrives there.
pub async fn a_forwarded_message_moves(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    let (name, queue) = (topic(scope, "orders"), topic(scope, "dead"));
    let mut source = subscribe(broker, scope, Subscribe::topics(name.clone())).await;
    publish(broker, scope, &name, "one").await;
    let delivery = next(scope, &mut source).await;
    let settlement = forward(&delivery, &queue);
    if !has(scope, capabilities.atomic_forward, "atomic_forward") {
        refused(delivery.settle(settlement).await, ErrorKind::Unsupported);
        return;
    }
    if !has(scope, capabilities.queues, "queues") {
        ack(scope, delivery).await;
        return;
    }
    declare(broker, scope, &queue).await;
    let id = delivery.message().id.clone();
    scope
        .within("a forward", delivery.settle(settlement))
        .await
        .expect("the message is forwarded");
    let mut target = subscribe(broker, scope, Subscribe::queue(queue)).await;
    let moved = next(scope, &mut target).await;
    assert_eq!(moved.message().id, id);
    assert_eq!(moved.attempt(), 1);
    ack(scope, moved).await;
    silent(scope, &mut source).await;
}

/// When the publish is refused the delivery is not done: it comes again.
pub async fn a_refused_forward_gives_back(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    if !has(
        scope,
        capabilities.atomic_forward && capabilities.groups && capabilities.queues,
        "atomic_forward to queues",
    ) {
        return;
    }
    let name = topic(scope, "orders");
    let mut source = subscribe(broker, scope, member(&name, &scope.name("mail"))).await;
    publish(broker, scope, &name, "one").await;
    let delivery = next(scope, &mut source).await;
    let settlement = forward(&delivery, &topic(scope, "missing"));
    refused(delivery.settle(settlement).await, ErrorKind::NotFound);
    let again = next(scope, &mut source).await;
    assert_eq!(text(&again), "one");
    ack(scope, again).await;
}

/// A forward whose delivery was lost meanwhile publishes nothing.
pub async fn a_late_forward_publishes_nothing(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    let able = capabilities.atomic_forward
        && capabilities.queues
        && capabilities.lease_extension
        && capabilities.groups;
    if !has(scope, able, "atomic_forward with leases") {
        return;
    }
    let (name, queue) = (topic(scope, "orders"), topic(scope, "dead"));
    let wanted = member(&name, &scope.name("mail")).with_lease(crate::broker::fixture::SHORT_LEASE);
    let mut source = subscribe(broker, scope, wanted).await;
    let mut target = subscribe(broker, scope, Subscribe::queue(queue.clone())).await;
    publish(broker, scope, &name, "one").await;
    let held = next(scope, &mut source).await;
    assert_eq!(take(scope, &mut source, 1).await, ["one"]);
    let settlement = forward(&held, &queue);
    refused(held.settle(settlement).await, ErrorKind::Conflict);
    silent(scope, &mut target).await;
}
