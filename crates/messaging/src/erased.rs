//! Any broker, behind one cheap handle.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;
use trunkline_core::{BoxFuture, Result};

use crate::broker::{Browse, BrowsePage, MessageBroker, QueueInfo};
use crate::capabilities::Capabilities;
use crate::message::{Publish, Receipt};
use crate::prefix::Prefixed;
use crate::subscription::{Subscribe, Subscription};
use crate::topic::{Destination, TopicName};

/// The erased twin of [`MessageBroker`]: the same calls with boxed futures.
trait DynBroker: Any + Send + Sync {
    fn kind_dyn(&self) -> &'static str;
    fn capabilities_dyn(&self) -> Capabilities;
    fn connect_dyn(&self) -> BoxFuture<'_, Result<()>>;
    fn disconnect_dyn(&self, deadline: Instant) -> BoxFuture<'_, Result<()>>;
    fn health_check_dyn(&self) -> BoxFuture<'_, Result<()>>;
    fn publish_dyn(&self, publish: Publish) -> BoxFuture<'_, Result<Receipt>>;
    fn publish_batch_dyn(&self, batch: Vec<Publish>) -> BoxFuture<'_, Vec<Result<Receipt>>>;
    fn declare_dyn(&self, destination: Destination) -> BoxFuture<'_, Result<()>>;
    fn subscribe_dyn(&self, subscribe: Subscribe) -> BoxFuture<'_, Result<Subscription>>;
    fn browse_dyn(&self, browse: Browse) -> BoxFuture<'_, Result<BrowsePage>>;
    fn remove_dyn(&self, queue: TopicName, positions: Vec<u64>) -> BoxFuture<'_, Result<u64>>;
    fn queues_dyn(&self) -> BoxFuture<'_, Result<Vec<QueueInfo>>>;
    fn lag_dyn<'a>(&'a self, subscribe: &'a Subscribe) -> BoxFuture<'a, Result<Option<u64>>>;
}

impl<B: MessageBroker> DynBroker for B {
    fn kind_dyn(&self) -> &'static str {
        self.kind()
    }

    fn capabilities_dyn(&self) -> Capabilities {
        self.capabilities()
    }

    fn connect_dyn(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.connect())
    }

    fn disconnect_dyn(&self, deadline: Instant) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.disconnect(deadline))
    }

    fn health_check_dyn(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.health_check())
    }

    fn publish_dyn(&self, publish: Publish) -> BoxFuture<'_, Result<Receipt>> {
        Box::pin(self.publish(publish))
    }

    fn publish_batch_dyn(&self, batch: Vec<Publish>) -> BoxFuture<'_, Vec<Result<Receipt>>> {
        Box::pin(self.publish_batch(batch))
    }

    fn declare_dyn(&self, destination: Destination) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.declare(destination))
    }

    fn subscribe_dyn(&self, subscribe: Subscribe) -> BoxFuture<'_, Result<Subscription>> {
        Box::pin(self.subscribe(subscribe))
    }

    fn browse_dyn(&self, browse: Browse) -> BoxFuture<'_, Result<BrowsePage>> {
        Box::pin(self.browse(browse))
    }

    fn remove_dyn(&self, queue: TopicName, positions: Vec<u64>) -> BoxFuture<'_, Result<u64>> {
        Box::pin(self.remove(queue, positions))
    }

    fn queues_dyn(&self) -> BoxFuture<'_, Result<Vec<QueueInfo>>> {
        Box::pin(self.queues())
    }

    fn lag_dyn<'a>(&'a self, subscribe: &'a Subscribe) -> BoxFuture<'a, Result<Option<u64>>> {
        Box::pin(self.lag(subscribe))
    }
}

/// Any broker. Cloning copies a pointer; a call costs one allocation more than the broker itself.
#[derive(Clone)]
pub struct AnyBroker(Arc<dyn DynBroker>);

impl AnyBroker {
    /// Erases a broker.
    #[must_use]
    pub fn new(broker: impl MessageBroker) -> Self {
        broker.erase()
    }

    pub(crate) fn of(broker: impl MessageBroker) -> Self {
        Self(Arc::new(broker))
    }

    /// The broker itself, for what only it can do; also behind a prefix, of which the broker itself knows nothing.
    #[must_use]
    pub fn downcast_ref<B: MessageBroker>(&self) -> Option<&B> {
        let broker: &dyn Any = self.0.as_ref();
        broker.downcast_ref().or_else(|| {
            let prefixed = broker.downcast_ref::<Prefixed>()?;
            prefixed.broker().downcast_ref()
        })
    }

    /// Whether both handles are the same broker.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for AnyBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AnyBroker").field(&self.kind()).finish()
    }
}

impl MessageBroker for AnyBroker {
    fn kind(&self) -> &'static str {
        self.0.kind_dyn()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities_dyn()
    }

    async fn connect(&self) -> Result<()> {
        self.0.connect_dyn().await
    }

    async fn disconnect(&self, deadline: Instant) -> Result<()> {
        self.0.disconnect_dyn(deadline).await
    }

    async fn health_check(&self) -> Result<()> {
        self.0.health_check_dyn().await
    }

    async fn publish(&self, publish: Publish) -> Result<Receipt> {
        self.0.publish_dyn(publish).await
    }

    async fn publish_batch(&self, batch: Vec<Publish>) -> Vec<Result<Receipt>> {
        self.0.publish_batch_dyn(batch).await
    }

    async fn declare(&self, destination: Destination) -> Result<()> {
        self.0.declare_dyn(destination).await
    }

    async fn subscribe(&self, subscribe: Subscribe) -> Result<Subscription> {
        self.0.subscribe_dyn(subscribe).await
    }

    async fn browse(&self, browse: Browse) -> Result<BrowsePage> {
        self.0.browse_dyn(browse).await
    }

    async fn remove(&self, queue: TopicName, positions: Vec<u64>) -> Result<u64> {
        self.0.remove_dyn(queue, positions).await
    }

    async fn queues(&self) -> Result<Vec<QueueInfo>> {
        self.0.queues_dyn().await
    }

    async fn lag(&self, subscribe: &Subscribe) -> Result<Option<u64>> {
        self.0.lag_dyn(subscribe).await
    }

    fn erase(self) -> AnyBroker {
        self
    }
}
