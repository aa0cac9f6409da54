//! Consuming: one task, one channel and one consumer for each subscription.

mod acks;
mod intake;
mod session;
mod task;
mod unread;

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trunkline_core::task::Scope;
use trunkline_core::{Context, Error, Result};
use trunkline_messaging::{Source, Start, Subscribe, Subscription, SubscriptionState, TopicName};

use crate::config::RabbitMqConfig;
use crate::names;
use crate::native::Queue;
use crate::pool::Pool;
use crate::publisher::Publisher;
use intake::{Deliveries, Intake};
use session::About;
use task::Task;
use unread::Unread;

/// What all consumers of a broker share.
pub(crate) struct Shared {
    pub(crate) config: Arc<RabbitMqConfig>,
    /// Takes the copies of messages that are put off.
    pub(crate) publisher: Publisher,
    /// The broker was disconnected.
    pub(crate) closed: CancellationToken,
}

impl Shared {
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }
}

pub(crate) struct Consumers {
    shared: Arc<Shared>,
    scope: Scope,
}

impl Consumers {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            scope: Scope::new(),
        }
    }

    pub(crate) fn subscribe(&self, pool: &Pool, subscribe: Subscribe) -> Result<Subscription> {
        if subscribe.start != Start::Latest {
            return Err(Error::unsupported(
                "the rabbitmq broker cannot do this: replay; queues keep no message that is done",
            ));
        }
        let queue = queue_name(&subscribe)?;
        let dropped = CancellationToken::new();
        let state = watch::Sender::new(SubscriptionState::Detached {
            reason: "not connected yet".to_owned(),
        });
        let (watched, intake) = (state.subscribe(), Arc::new(Intake::new()));
        let task = Task {
            about: Arc::new(About {
                source: subscribe.source,
                group: subscribe.group,
                queue,
                shared: Arc::clone(&self.shared),
                unread: Unread::default(),
            }),
            prefetch: u16::try_from(subscribe.prefetch.max(1)).unwrap_or(u16::MAX),
            place: pool.place(),
            intake: Arc::clone(&intake),
            state,
            dropped: dropped.clone(),
        };
        // It outlives the call: the caller's deadline is not its own.
        self.scope
            .spawn("consuming", Context::new().scope(task.run()));
        let latest = std::sync::Weak::new();
        let deliveries = Deliveries {
            intake,
            dropped,
            latest,
        };
        Ok(Subscription::new(deliveries, watched))
    }

    /// Waits until every consumer has ended; says how many had to be ended by force.
    pub(crate) async fn shutdown(&self, deadline: Instant) -> usize {
        self.scope.shutdown(deadline).await
    }
}

/// The server's name of the queue of a subscription.
pub(crate) fn queue_name(subscribe: &Subscribe) -> Result<String> {
    match (&subscribe.source, &subscribe.group) {
        (Source::Queue(_), Some(_)) => Err(Error::invalid(
            "a queue has no groups: all its consumers compete",
        )),
        (Source::Queue(queue), None) => Ok(queue.as_str().to_owned()),
        (Source::Topics(_), Some(group)) => {
            TopicName::new(group).map_err(|error| {
                Error::invalid(format!("`{group}` is no name of a group")).with_source(error)
            })?;
            Ok(names::group_queue(group, &subscribe.source))
        }
        (Source::Topics(_), None) => Ok(names::subscriber_queue(&subscribe.source)),
    }
}

/// A queue of a group or of a `queue` destination.
pub(crate) fn work_queue(name: &str, config: &RabbitMqConfig) -> Queue {
    let mut queue = Queue::new(name).with_type(config.queue_type);
    if let Some(messages) = config.max_length {
        queue = queue.with_argument("x-max-length", messages);
    }
    if let Some(bytes) = config.max_length_bytes {
        queue = queue.with_argument("x-max-length-bytes", bytes.bytes());
    }
    if config.max_length.is_some() || config.max_length_bytes.is_some() {
        queue = queue.with_argument("x-overflow", "reject-publish");
    }
    queue
}
