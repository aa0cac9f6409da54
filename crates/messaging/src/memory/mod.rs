//! A broker in memory: everything a broker can do, for one process, as long as it runs.
//!
//! Use it for tests and for services that are one process. It is bounded in messages and bytes: when it is full,
//! publishers wait, then fail with `Exhausted`. Messages that nobody needs any more are kept for replay while there is
//! room. It spawns no task.
//!
//! A subscriber without a group that never reads holds publishers up in the end, like any other consumer: nothing
//! accepted is dropped silently.

mod config;
mod consumer;
mod shared;
mod state;

use std::sync::Arc;

use tokio::time::Instant;
use trunkline_core::{Error, Result, SharedClock, SystemClock};

pub use config::MemoryConfig;
use consumer::Deliveries;
use shared::Shared;

use crate::broker::{Browse, BrowsePage, MessageBroker, QueueInfo};
use crate::capabilities::{Capabilities, OrderingGuarantee};
use crate::config::MessageBrokerConfig;
use crate::message::{Publish, Receipt};
use crate::subscription::{Subscribe, Subscription};
use crate::topic::{Destination, Source, TopicName};

/// A broker in memory. Clones are the same broker.
///
/// ```
/// use trunkline_messaging::memory::MemoryBroker;
/// use trunkline_messaging::{Destination, Message, MessageBroker, Publish, Subscribe, TopicName};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
/// let broker = MemoryBroker::default();
/// broker.connect().await?;
/// let topic = TopicName::new("order.created")?;
/// let mut orders = broker.subscribe(Subscribe::topics(topic.clone()).with_group("mail")).await?;
/// broker.publish(Publish::new(Destination::Topic(topic), Message::new("42"))).await?;
/// let delivery = orders.next().await.expect("the broker is connected");
/// assert_eq!(delivery.message().payload, "42");
/// delivery.ack().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct MemoryBroker(Arc<Shared>);

impl Default for MemoryBroker {
    fn default() -> Self {
        Self::with_checked(MemoryConfig::default(), SystemClock::shared())
    }
}

impl MemoryBroker {
    /// A broker with these settings.
    ///
    /// # Errors
    /// `Config` when the limits do not fit together.
    pub fn new(config: MemoryConfig) -> Result<Self> {
        Self::with_clock(config, SystemClock::shared())
    }

    /// A broker as configuration describes it: its `options` are those of [`MemoryConfig`].
    ///
    /// # Errors
    /// `Config` when an option is unknown or wrong; says which.
    pub fn from_config(config: &MessageBrokerConfig) -> Result<Self> {
        Self::new(MemoryConfig::from_options(&config.options)?)
    }

    /// A broker whose messages are dated by this clock.
    ///
    /// # Errors
    /// As [`MemoryBroker::new`].
    pub fn with_clock(config: MemoryConfig, clock: SharedClock) -> Result<Self> {
        config.check()?;
        Ok(Self::with_checked(config, clock))
    }

    fn with_checked(config: MemoryConfig, clock: SharedClock) -> Self {
        Self(Arc::new(Shared::new(config, clock)))
    }
}

impl MessageBroker for MemoryBroker {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            durable: false,
            shared: false,
            groups: true,
            wildcards: true,
            queues: true,
            redelivery: true,
            attempts: true,
            delayed_redelivery: true,
            delayed_publish: true,
            expiry: true,
            mandatory: true,
            replay: true,
            lease_extension: true,
            atomic_forward: true,
            browse: true,
            peek: false,
            lag: true,
            ordering: OrderingGuarantee::PerKey,
            max_message_size: Some(self.0.config.max_message_size.as_usize()),
        }
    }

    async fn connect(&self) -> Result<()> {
        self.0.connect()
    }

    async fn disconnect(&self, _: Instant) -> Result<()> {
        self.0.close();
        Ok(())
    }

    async fn health_check(&self) -> Result<()> {
        self.0.check_open()
    }

    async fn publish(&self, publish: Publish) -> Result<Receipt> {
        match self.0.publish_now(publish) {
            Ok(outcome) => outcome,
            // Boxed, so that the way that does not wait is not as large as the one that does.
            Err(later) => Box::pin(self.0.publish_later(later)).await,
        }
    }

    async fn publish_batch(&self, batch: Vec<Publish>) -> Vec<Result<Receipt>> {
        self.0.publish_batch(batch).await
    }

    async fn declare(&self, destination: Destination) -> Result<()> {
        self.0.check_not_closed()?;
        if let Destination::Queue(name) = destination {
            self.0.with(|state, _, _| state.declare_queue(&name));
        }
        Ok(())
    }

    async fn subscribe(&self, subscribe: Subscribe) -> Result<Subscription> {
        self.0.check_not_closed()?;
        check_group(&subscribe)?;
        let (mailbox, consumer) = self
            .0
            .with(|state, now, _| state.subscribe(&subscribe, now));
        let deliveries = Deliveries::new(Arc::clone(&self.0), mailbox, consumer);
        Ok(Subscription::new(deliveries, self.0.phase()))
    }

    async fn browse(&self, browse: Browse) -> Result<BrowsePage> {
        self.0.check_not_closed()?;
        self.0
            .with(|state, now, _| state.browse(&browse, now.get()))
    }

    async fn remove(&self, queue: TopicName, positions: Vec<u64>) -> Result<u64> {
        self.0.check_not_closed()?;
        self.0
            .with(|state, _, wake| state.remove(&queue, &positions, wake))
    }

    async fn queues(&self) -> Result<Vec<QueueInfo>> {
        self.0.check_not_closed()?;
        Ok(self.0.with(|state, now, _| state.queue_infos(now.get())))
    }

    async fn lag(&self, subscribe: &Subscribe) -> Result<Option<u64>> {
        self.0.check_not_closed()?;
        Ok(self.0.with(|state, now, _| state.lag(subscribe, now.get())))
    }
}

fn check_group(subscribe: &Subscribe) -> Result<()> {
    let Some(group) = &subscribe.group else {
        return Ok(());
    };
    if let Source::Queue(queue) = &subscribe.source {
        return Err(Error::invalid(format!(
            "the queue {queue} has no groups: all its consumers compete; leave the group `{group}` out"
        )));
    }
    TopicName::new(group)
        .map(drop)
        .map_err(|error| Error::invalid("the group's name is wrong").with_source(error))
}
