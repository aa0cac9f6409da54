//! What the cases share: names, publishing, receiving with a deadline.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use trunkline_core::{Error, ErrorKind};
use trunkline_messaging::{
    AnyBroker, Delivery, Destination, Message, MessageBroker, Publish, Receipt, Subscribe,
    Subscription, SubscriptionState, TopicName,
};

use crate::Scope;
use crate::live::{self, Missing};

/// A lease that a case can wait for, and that a disk which stalls for a second does not outlast.
pub(super) const SHORT_LEASE: Duration = Duration::from_secs(2);

/// Whether a capability is there; says that the case is skipped when it is not.
pub(crate) fn has(scope: &Scope, capability: bool, what: &'static str) -> bool {
    if !capability {
        live::skip(scope, Missing::Capability(what));
    }
    capability
}

/// Whether groups collect messages while nobody takes them; says that the case is skipped when they do not. Who delivers at
/// most once keeps nothing for a member that is away or busy.
pub(super) fn collects(broker: &AnyBroker, scope: &Scope) -> bool {
    let capabilities = broker.capabilities();
    has(
        scope,
        capabilities.groups && capabilities.redelivery,
        "groups with redelivery",
    )
}

/// A topic's name that no other case has.
pub(super) fn topic(scope: &Scope, what: &str) -> TopicName {
    TopicName::new(scope.name(what)).expect("a valid name")
}

/// A name below a first segment that no other case has.
pub(super) fn under(scope: &Scope, rest: &str) -> TopicName {
    TopicName::new(format!("{}.{rest}", scope.name("t"))).expect("a valid name")
}

/// A pattern below the same first segment.
pub(super) fn pattern(scope: &Scope, rest: &str) -> trunkline_messaging::TopicPattern {
    trunkline_messaging::TopicPattern::new(format!("{}.{rest}", scope.name("t")))
        .expect("a valid pattern")
}

pub(super) fn to_topic(name: &TopicName, payload: &str) -> Publish {
    Publish::new(
        Destination::Topic(name.clone()),
        Message::new(payload.to_owned()),
    )
}

pub(super) fn to_queue(name: &TopicName, payload: &str) -> Publish {
    Publish::new(
        Destination::Queue(name.clone()),
        Message::new(payload.to_owned()),
    )
}

/// Publishes text to a topic.
pub(super) async fn publish(
    broker: &AnyBroker,
    scope: &Scope,
    topic: &TopicName,
    payload: &str,
) -> Receipt {
    send(broker, scope, to_topic(topic, payload)).await
}

/// Publishes text under a key.
pub(super) async fn publish_keyed(
    broker: &AnyBroker,
    scope: &Scope,
    topic: &TopicName,
    key: &str,
    payload: &str,
) -> Receipt {
    let mut publish = to_topic(topic, payload);
    publish.message = publish.message.with_key(key.to_owned());
    send(broker, scope, publish).await
}

pub(super) async fn send(broker: &AnyBroker, scope: &Scope, publish: Publish) -> Receipt {
    scope
        .within("a publish", broker.publish(publish))
        .await
        .expect("the publish is confirmed")
}

/// Creates a queue.
pub(super) async fn declare(broker: &AnyBroker, scope: &Scope, queue: &TopicName) {
    scope
        .within(
            "a declaration",
            broker.declare(Destination::Queue(queue.clone())),
        )
        .await
        .expect("the queue is declared");
}

/// Subscribes and waits until messages can come.
pub(crate) async fn subscribe(
    broker: &AnyBroker,
    scope: &Scope,
    subscribe: Subscribe,
) -> Subscription {
    let subscription = scope
        .within("a subscribe", broker.subscribe(subscribe))
        .await
        .expect("the subscription is accepted");
    attached(scope, &subscription).await;
    subscription
}

/// Waits until messages can come.
pub(crate) fn attached(
    scope: &Scope,
    subscription: &Subscription,
) -> impl Future<Output = ()> + Send + use<> {
    let (scope, mut state) = (scope.clone(), subscription.state());
    async move {
        let attach = state.wait_for(|state| *state == SubscriptionState::Attached);
        scope
            .within("attaching", attach)
            .await
            .expect("the subscription lives");
    }
}

/// A member of a group that wants one topic.
pub(super) fn member(topic: &TopicName, group: &str) -> Subscribe {
    Subscribe::topics(topic.clone()).with_group(group)
}

/// The next delivery.
pub(crate) async fn next(scope: &Scope, subscription: &mut Subscription) -> Delivery {
    scope
        .within("a delivery", subscription.next())
        .await
        .expect("the stream goes on")
}

/// Nothing comes.
pub(super) async fn silent(scope: &Scope, subscription: &mut Subscription) {
    scope.never("a delivery", subscription.next()).await;
}

/// Acknowledges.
pub(super) async fn ack(scope: &Scope, delivery: Delivery) {
    scope
        .within("an acknowledgement", delivery.ack())
        .await
        .expect("the broker takes the acknowledgement");
}

/// Gives back at once.
pub(super) async fn nack(scope: &Scope, delivery: Delivery) {
    scope
        .within("a nack", delivery.nack(None))
        .await
        .expect("the broker takes the nack");
}

/// Receives and acknowledges so many messages; their texts in order of arrival.
pub(super) async fn take(
    scope: &Scope,
    subscription: &mut Subscription,
    count: usize,
) -> Vec<String> {
    let mut texts = Vec::with_capacity(count);
    while texts.len() < count {
        let delivery = next(scope, subscription).await;
        texts.push(text(&delivery));
        ack(scope, delivery).await;
    }
    texts
}

/// The payload as text.
pub(super) fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(&delivery.message().payload).into_owned()
}

/// The error that must have come.
pub(super) fn refused<T: std::fmt::Debug>(result: Result<T, Error>, kind: ErrorKind) -> Error {
    match result {
        Ok(value) => panic!("expected an error of kind {kind}, got {value:?}"),
        Err(error) => {
            assert_eq!(error.kind(), kind, "unexpected error: {}", error.report());
            error
        }
    }
}

/// Polls a future so often, then drops it; its output if it got there.
pub(super) async fn cancel_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..polls {
        if let std::task::Poll::Ready(output) = futures_util::poll!(future.as_mut()) {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}
