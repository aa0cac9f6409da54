//! What the cases of the router share.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::Instant;
use trunkline_core::Lifecycle;
use trunkline_messaging::{
    AnyBroker, Destination, Message, MessageBroker, Messaging, MessagingBuilder, Subscribe,
    Subscription, TopicName,
};

use crate::Scope;

/// What travels in these cases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) id: u64,
}

/// A delay that is short enough to wait for.
pub(super) const SHORT: Duration = Duration::from_millis(60);

/// Messaging over the broker under test, of a service that no other case has.
pub(super) fn messaging(broker: &AnyBroker, scope: &Scope) -> Messaging {
    builder(broker, scope).build()
}

pub(super) fn builder(broker: &AnyBroker, scope: &Scope) -> MessagingBuilder {
    Messaging::builder(broker.clone()).service(&scope.name("service"))
}

pub(super) fn topic(scope: &Scope, what: &str) -> TopicName {
    TopicName::new(scope.name(what)).expect("a valid name")
}

/// Whether the broker can do what a case is about; what cannot do groups has no handlers to speak of.
pub(super) fn has(scope: &Scope, capability: bool, what: &'static str) -> bool {
    crate::broker::has(scope, capability, what)
}

/// Publishes an order.
pub(super) async fn publish(messaging: &Messaging, scope: &Scope, to: &TopicName, id: u64) {
    let published = messaging.publish(to, &Order { id });
    scope
        .within("a publish", published)
        .await
        .expect("the order is published");
}

/// Ends everything that a case began.
pub(super) async fn end(messaging: &Messaging) {
    let deadline = Instant::now() + Duration::from_secs(5);
    messaging.drain(deadline).await.expect("everything ends");
    messaging.requester().shutdown(deadline).await;
}

/// Waits until every handler is attached.
pub(super) async fn ready(messaging: &Messaging, scope: &Scope) {
    scope
        .within("attaching", messaging.ready())
        .await
        .expect("every handler is attached");
}

/// What handlers saw, in order.
pub(super) struct Seen<T>(Arc<(Mutex<Vec<T>>, Notify)>);

impl<T> Clone for Seen<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Clone + fmt::Debug> Seen<T> {
    pub(super) fn new() -> Self {
        Self(Arc::new((Mutex::new(Vec::new()), Notify::new())))
    }

    /// Adds something and says how many there are.
    pub(super) fn push(&self, value: T) -> usize {
        let mut seen = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.push(value);
        let count = seen.len();
        drop(seen);
        self.0.1.notify_waiters();
        count
    }

    pub(super) fn all(&self) -> Vec<T> {
        let seen = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clone()
    }

    /// Waits until there are so many.
    pub(super) async fn wait_for(&self, scope: &Scope, count: usize) -> Vec<T> {
        let enough = async {
            loop {
                let mut more = std::pin::pin!(self.0.1.notified());
                more.as_mut().enable();
                let seen = self.all();
                if seen.len() >= count {
                    return seen;
                }
                more.await;
            }
        };
        scope.within("what handlers should see", enough).await
    }

    /// Nothing more comes.
    pub(super) async fn stays(&self, scope: &Scope, count: usize) {
        let more = async {
            loop {
                let mut more = std::pin::pin!(self.0.1.notified());
                more.as_mut().enable();
                let seen = self.all();
                if seen.len() > count {
                    return seen;
                }
                more.await;
            }
        };
        scope.never("another call of a handler", more).await;
    }
}

/// Reads the dead letters of a group or queue as they come.
pub(super) struct Dead(Subscription);

impl Dead {
    /// Must be there before the first dead letter on a broker without queues.
    pub(super) async fn of(broker: &AnyBroker, scope: &Scope, owner: &str) -> Self {
        let name = TopicName::new(format!("{owner}.dlq")).expect("a valid name");
        let subscribe = if broker.capabilities().queues {
            Subscribe::queue(name)
        } else {
            Subscribe::topics(name)
        };
        let subscription = broker.subscribe(subscribe).await.expect("it is accepted");
        crate::broker::attached(scope, &subscription).await;
        Self(subscription)
    }

    pub(super) async fn next(&mut self, scope: &Scope) -> Message {
        let delivery = scope
            .within("a dead letter", self.0.next())
            .await
            .expect("the stream goes on");
        let message = delivery.message().clone();
        delivery.ack().await.expect("it is acknowledged");
        message
    }

    pub(super) async fn none(&mut self, scope: &Scope) {
        scope.never("a dead letter", self.0.next()).await;
    }
}

/// A message that is no order.
pub(super) async fn publish_garbage(broker: &AnyBroker, scope: &Scope, to: &TopicName) {
    let message = Message::new("{ this is not").with_content_type("application/json");
    let publish = trunkline_messaging::Publish::new(Destination::Topic(to.clone()), message);
    scope
        .within("a publish", broker.publish(publish))
        .await
        .expect("garbage is published like anything else");
}
