//! A broker that can do less.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;
use trunkline_core::{BoxFuture, Error, Result};
use trunkline_messaging::{
    AnyBroker, Browse, BrowsePage, Capabilities, Delivery, Destination, MessageBroker,
    OrderingGuarantee, Publish, QueueInfo, Receipt, Settle, Settlement, Source, Start, Subscribe,
    Subscription, TopicName,
};

/// A broker without some of the capabilities of the one it wraps: what is gone is refused with `Unsupported`, attempts
/// are no longer counted, and messages of one key come at once. It shows what everything above does with a lesser
/// broker.
#[derive(Clone, Debug)]
pub struct RestrictedBroker {
    broker: AnyBroker,
    capabilities: Capabilities,
}

impl RestrictedBroker {
    /// Takes capabilities away.
    ///
    /// # Panics
    /// When one is added that the broker does not have.
    #[must_use]
    pub fn new(broker: AnyBroker, restrict: impl FnOnce(&mut Capabilities)) -> Self {
        let full = broker.capabilities();
        let mut capabilities = full.clone();
        restrict(&mut capabilities);
        let pairs = [
            (full.groups, capabilities.groups),
            (full.wildcards, capabilities.wildcards),
            (full.queues, capabilities.queues),
            (full.redelivery, capabilities.redelivery),
            (full.attempts, capabilities.attempts),
            (full.delayed_redelivery, capabilities.delayed_redelivery),
            (full.delayed_publish, capabilities.delayed_publish),
            (full.expiry, capabilities.expiry),
            (full.mandatory, capabilities.mandatory),
            (full.replay, capabilities.replay),
            (full.lease_extension, capabilities.lease_extension),
            (full.atomic_forward, capabilities.atomic_forward),
            (full.browse, capabilities.browse),
            (full.browse || full.peek, capabilities.peek),
            (full.lag, capabilities.lag),
        ];
        assert!(
            pairs.iter().all(|(has, wants)| *has || !wants),
            "capabilities can be taken away only"
        );
        Self {
            broker,
            capabilities,
        }
    }

    fn require(&self, needed: bool, has: bool, what: &str) -> Result<()> {
        if needed {
            self.capabilities.require(has, self.kind(), what)?;
        }
        Ok(())
    }

    fn check_publish(&self, publish: &Publish) -> Result<()> {
        let can = &self.capabilities;
        let is_queue = matches!(publish.destination, Destination::Queue(_));
        self.require(is_queue, can.queues, "queues")?;
        self.require(publish.delay.is_some(), can.delayed_publish, "delays")?;
        self.require(publish.expires_in.is_some(), can.expiry, "expiry")?;
        self.require(publish.mandatory && !is_queue, can.mandatory, "mandatory")
    }

    fn check_subscribe(&self, subscribe: &Subscribe) -> Result<()> {
        let can = &self.capabilities;
        self.require(subscribe.group.is_some(), can.groups, "groups")?;
        self.require(subscribe.start != Start::Latest, can.replay, "replay")?;
        match &subscribe.source {
            Source::Queue(_) => self.require(true, can.queues, "queues"),
            Source::Topics(pattern) => {
                self.require(!pattern.is_exact(), can.wildcards, "wildcards")
            }
        }
    }
}

impl MessageBroker for RestrictedBroker {
    fn kind(&self) -> &'static str {
        self.broker.kind()
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities.clone()
    }

    async fn connect(&self) -> Result<()> {
        self.broker.connect().await
    }

    async fn disconnect(&self, deadline: Instant) -> Result<()> {
        self.broker.disconnect(deadline).await
    }

    async fn health_check(&self) -> Result<()> {
        self.broker.health_check().await
    }

    async fn publish(&self, mut publish: Publish) -> Result<Receipt> {
        self.check_publish(&publish)?;
        if self.capabilities.ordering == OrderingGuarantee::None {
            hide_key(&mut publish);
        }
        self.broker.publish(publish).await
    }

    async fn declare(&self, destination: Destination) -> Result<()> {
        let is_queue = matches!(destination, Destination::Queue(_));
        self.require(is_queue, self.capabilities.queues, "queues")?;
        self.broker.declare(destination).await
    }

    async fn subscribe(&self, subscribe: Subscribe) -> Result<Subscription> {
        self.check_subscribe(&subscribe)?;
        let subscription = self.broker.subscribe(subscribe).await?;
        let (state, capabilities) = (subscription.state(), self.capabilities.clone());
        let deliveries = subscription.map(move |delivery| restricted(delivery, &capabilities));
        Ok(Subscription::new(deliveries, state))
    }

    async fn browse(&self, browse: Browse) -> Result<BrowsePage> {
        let able = self.capabilities.browse || self.capabilities.peek;
        self.require(true, able, "browsing")?;
        self.broker.browse(browse).await
    }

    async fn remove(&self, queue: TopicName, positions: Vec<u64>) -> Result<u64> {
        let able = self.capabilities.browse || self.capabilities.peek;
        self.require(true, able, "removing")?;
        self.broker.remove(queue, positions).await
    }

    async fn queues(&self) -> Result<Vec<QueueInfo>> {
        self.require(true, self.capabilities.browse, "listing queues")?;
        self.broker.queues().await
    }

    async fn lag(&self, subscribe: &Subscribe) -> Result<Option<u64>> {
        self.require(true, self.capabilities.lag, "asking what waits")?;
        self.broker.lag(subscribe).await
    }
}

const HIDDEN_KEY: &str = "restricted-key";

/// A broker that does not know of keys must not order by them.
fn hide_key(publish: &mut Publish) {
    if let Some(key) = publish.message.key.take() {
        publish.message.headers.insert(HIDDEN_KEY, key);
    }
}

fn restricted(delivery: Delivery, capabilities: &Capabilities) -> Delivery {
    let (message, mut info, settle) = delivery.into_parts();
    if !capabilities.attempts {
        info.attempt = info.attempt.min(2);
    }
    let mut message = message.as_ref().clone();
    if let Some(key) = message.headers.remove(HIDDEN_KEY) {
        message.key = Some(key.into_bytes());
    }
    let settle = RestrictedSettle {
        inner: settle,
        capabilities: capabilities.clone(),
    };
    Delivery::new(message, info, settle)
}

struct RestrictedSettle {
    inner: Option<Box<dyn Settle>>,
    capabilities: Capabilities,
}

impl Settle for RestrictedSettle {
    fn settle(self: Box<Self>, settlement: Settlement) -> BoxFuture<'static, Result<()>> {
        let Self {
            inner,
            capabilities: can,
        } = *self;
        let Some(inner) = inner else {
            return Box::pin(async { Ok(()) });
        };
        let refused = match &settlement {
            Settlement::Requeue { delay: None } => !can.redelivery,
            Settlement::Requeue { delay: Some(_) } => !can.delayed_redelivery,
            Settlement::Forward(_) => !can.atomic_forward,
            _ => false,
        };
        if refused {
            let error = Error::unsupported(format!("this broker cannot do {settlement:?}"));
            return Box::pin(async move {
                inner.abandon();
                Err(error)
            });
        }
        inner.settle(settlement)
    }

    fn abandon(self: Box<Self>) {
        if let Some(inner) = self.inner {
            inner.abandon();
        }
    }

    fn extend(&self, lease: Duration) -> BoxFuture<'_, Result<()>> {
        match &self.inner {
            Some(inner) if self.capabilities.lease_extension => inner.extend(lease),
            _ => Box::pin(async { Err(Error::unsupported("this broker has no leases to extend")) }),
        }
    }
}
