//! Environments that share a broker without seeing each other.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;
use trunkline_core::{BoxFuture, Error, Result};

use crate::broker::{Browse, BrowsePage, MessageBroker, QueueInfo};
use crate::capabilities::Capabilities;
use crate::delivery::{Delivery, DeliveryInfo, Settle, Settlement};
use crate::erased::AnyBroker;
use crate::message::{Publish, Receipt};
use crate::subscription::{Subscribe, Subscription};
use crate::topic::{Destination, Source, TopicName, TopicPattern};

/// What is put before every topic, queue and group: whole segments, such as `staging.`.
///
/// ```
/// use trunkline_messaging::Prefix;
///
/// let prefix: Prefix = "staging.".parse()?;
/// assert_eq!(prefix.to_string(), "staging.");
/// assert!("staging.*".parse::<Prefix>().is_err());
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Prefix(Arc<str>);

impl std::str::FromStr for Prefix {
    type Err = Error;

    /// The dot at the end may be left out.
    fn from_str(text: &str) -> Result<Self> {
        let name = TopicName::new(text.strip_suffix('.').unwrap_or(text)).map_err(|error| {
            Error::invalid(format!("`{text}` is no prefix; write it like `staging.`"))
                .with_source(error)
        })?;
        Ok(Self(format!("{name}.").into()))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Prefix {
    /// Puts itself before every name that goes to a broker, and takes itself off those that come back.
    #[must_use]
    pub fn apply(&self, broker: AnyBroker) -> AnyBroker {
        AnyBroker::new(Prefixed {
            broker,
            prefix: self.clone(),
        })
    }

    fn put(&self, name: &TopicName) -> Result<TopicName> {
        TopicName::new(format!("{}{name}", self.0))
    }

    fn put_destination(&self, destination: &Destination) -> Result<Destination> {
        Ok(match destination {
            Destination::Topic(name) => Destination::Topic(self.put(name)?),
            Destination::Queue(name) => Destination::Queue(self.put(name)?),
        })
    }

    fn put_publish(&self, mut publish: Publish) -> Result<Publish> {
        publish.destination = self.put_destination(&publish.destination)?;
        Ok(publish)
    }

    fn put_subscribe(&self, subscribe: &mut Subscribe) -> Result<()> {
        subscribe.source = match &subscribe.source {
            Source::Queue(name) => Source::Queue(self.put(name)?),
            Source::Topics(pattern) => {
                Source::Topics(TopicPattern::new(format!("{self}{pattern}"))?)
            }
        };
        let group = subscribe.group.take();
        subscribe.group = group.map(|group| format!("{self}{group}"));
        Ok(())
    }

    /// The name without the prefix; a name that has none stays.
    fn take_off(&self, name: &TopicName) -> TopicName {
        let own = name.as_str().strip_prefix(&*self.0);
        own.and_then(|own| TopicName::new(own).ok())
            .unwrap_or_else(|| name.clone())
    }

    fn take_off_info(&self, mut info: DeliveryInfo) -> DeliveryInfo {
        info.destination = match &info.destination {
            Destination::Topic(name) => Destination::Topic(self.take_off(name)),
            Destination::Queue(name) => Destination::Queue(self.take_off(name)),
        };
        info.group = info.group.map(|group| match group.strip_prefix(&*self.0) {
            Some(own) => own.to_owned(),
            None => group,
        });
        info
    }
}

/// A broker that sees only what is under the prefix.
pub(crate) struct Prefixed {
    broker: AnyBroker,
    prefix: Prefix,
}

impl Prefixed {
    pub(crate) fn broker(&self) -> &AnyBroker {
        &self.broker
    }
}

impl MessageBroker for Prefixed {
    fn kind(&self) -> &'static str {
        self.broker.kind()
    }

    fn capabilities(&self) -> Capabilities {
        self.broker.capabilities()
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

    async fn publish(&self, publish: Publish) -> Result<Receipt> {
        self.broker.publish(self.prefix.put_publish(publish)?).await
    }

    async fn publish_batch(&self, batch: Vec<Publish>) -> Vec<Result<Receipt>> {
        let (mut outcomes, mut good) = (Vec::with_capacity(batch.len()), Vec::new());
        for publish in batch {
            match self.prefix.put_publish(publish) {
                Ok(publish) => {
                    good.push(publish);
                    outcomes.push(None);
                }
                Err(error) => outcomes.push(Some(Err(error))),
            }
        }
        let mut receipts = self.broker.publish_batch(good).await.into_iter();
        let missing = || Err(Error::internal("the broker gave too few outcomes"));
        outcomes
            .into_iter()
            .map(|refused| refused.unwrap_or_else(|| receipts.next().unwrap_or_else(missing)))
            .collect()
    }

    async fn declare(&self, destination: Destination) -> Result<()> {
        let destination = self.prefix.put_destination(&destination)?;
        self.broker.declare(destination).await
    }

    async fn subscribe(&self, mut subscribe: Subscribe) -> Result<Subscription> {
        self.prefix.put_subscribe(&mut subscribe)?;
        let subscription = self.broker.subscribe(subscribe).await?;
        let (state, prefix) = (subscription.state(), self.prefix.clone());
        let deliveries = subscription.map(move |delivery| unprefixed(delivery, &prefix));
        Ok(Subscription::new(deliveries, state))
    }

    async fn browse(&self, mut browse: Browse) -> Result<BrowsePage> {
        browse.destination = self.prefix.put_destination(&browse.destination)?;
        let mut page = self.broker.browse(browse).await?;
        for stored in &mut page.messages {
            stored.info = self.prefix.take_off_info(stored.info.clone());
        }
        Ok(page)
    }

    async fn remove(&self, queue: TopicName, positions: Vec<u64>) -> Result<u64> {
        self.broker
            .remove(self.prefix.put(&queue)?, positions)
            .await
    }

    async fn queues(&self) -> Result<Vec<QueueInfo>> {
        let all = self.broker.queues().await?;
        let own = all.into_iter().filter_map(|queue| {
            let name = queue.name.as_str().strip_prefix(&*self.prefix.0)?;
            Some(QueueInfo::new(TopicName::new(name).ok()?, queue.messages))
        });
        Ok(own.collect())
    }

    async fn lag(&self, subscribe: &Subscribe) -> Result<Option<u64>> {
        let mut subscribe = subscribe.clone();
        self.prefix.put_subscribe(&mut subscribe)?;
        self.broker.lag(&subscribe).await
    }
}

fn unprefixed(delivery: Delivery, prefix: &Prefix) -> Delivery {
    let (message, info, settle) = delivery.into_parts();
    let settle = PrefixedSettle {
        inner: settle,
        prefix: prefix.clone(),
    };
    Delivery::new(message, prefix.take_off_info(info), settle)
}

struct PrefixedSettle {
    inner: Option<Box<dyn Settle>>,
    prefix: Prefix,
}

impl Settle for PrefixedSettle {
    fn settle(self: Box<Self>, settlement: Settlement) -> BoxFuture<'static, Result<()>> {
        let Self { inner, prefix } = *self;
        let Some(inner) = inner else {
            return Box::pin(async { Ok(()) });
        };
        let settlement = match settlement {
            Settlement::Forward(publish) => match prefix.put_publish(*publish) {
                Ok(publish) => Settlement::Forward(Box::new(publish)),
                Err(error) => {
                    inner.abandon();
                    return Box::pin(async { Err(error) });
                }
            },
            Settlement::ForwardAll(all) => {
                let all = all.into_iter();
                match all.map(|publish| prefix.put_publish(publish)).collect() {
                    Ok(all) => Settlement::ForwardAll(all),
                    Err(error) => {
                        inner.abandon();
                        return Box::pin(async { Err(error) });
                    }
                }
            }
            other => other,
        };
        inner.settle(settlement)
    }

    fn abandon(self: Box<Self>) {
        if let Some(inner) = self.inner {
            inner.abandon();
        }
    }

    fn extend(&self, lease: Duration) -> BoxFuture<'_, Result<()>> {
        match &self.inner {
            Some(inner) => inner.extend(lease),
            None => Box::pin(async { Ok(()) }),
        }
    }
}
