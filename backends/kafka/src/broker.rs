//! The broker: what the parts are put together to.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::stream;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use trunkline_core::task::Scope;
use trunkline_core::{Error, Result};
use trunkline_messaging::{
    Browse, BrowsePage, Capabilities, Destination, MessageBroker, MessageBrokerConfig,
    OrderingGuarantee, Publish, QueueInfo, Receipt, Source, Subscribe, Subscription, TopicName,
};

use crate::browse::Browser;
use crate::catalog::Catalog;
use crate::config::KafkaConfig;
use crate::delays::Delays;
use crate::error::{closed, no_topic};
use crate::hub::Hub;
use crate::link::{Link, State};
use crate::names::{Names, is_delayed};
use crate::publish::Publisher;
use crate::topics::{TopicDescription, TopicPlan};

const KIND: &str = "kafka";

/// A durable message broker on Kafka.
///
/// A topic is a topic of Kafka, a group is a group of Kafka's in which all subscriptions of this broker are one member. What
/// is done is committed up to the first message that is not, so that nothing is lost and nothing in between is forgotten.
///
/// ```no_run
/// use std::time::Duration;
///
/// use tokio::time::Instant;
/// use trunkline_kafka::{KafkaBroker, KafkaConfig};
/// use trunkline_messaging::{Destination, Message, MessageBroker, Publish, Subscribe, TopicName};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
/// let broker = KafkaBroker::new(KafkaConfig::new("localhost:9092"))?;
/// broker.connect().await?;
/// let topic = TopicName::new("order.created")?;
/// let mut orders = broker.subscribe(Subscribe::topics(topic.clone()).with_group("mailer")).await?;
/// broker.publish(Publish::new(Destination::Topic(topic), Message::new("42"))).await?;
/// let order = orders.next().await.expect("connected");
/// order.ack().await?;
/// broker.disconnect(Instant::now() + Duration::from_secs(5)).await
/// # }
/// ```
#[derive(Debug)]
pub struct KafkaBroker {
    link: Arc<Link>,
    names: Names,
    /// Made by the first call, as the driver begins threads for it.
    parts: OnceCell<Parts>,
    hubs: Mutex<Hubs>,
    /// Of groups.
    groups: Scope,
    /// What outlives them.
    keeper: Scope,
}

/// What needs the driver.
#[derive(Clone, Debug)]
struct Parts {
    catalog: Arc<Catalog>,
    publisher: Arc<Publisher>,
    browser: Arc<Browser>,
    delays: Arc<Delays>,
}

/// The groups that have subscriptions here, and the subscribers without one.
#[derive(Debug, Default)]
struct Hubs {
    groups: HashMap<(Option<String>, Source), Arc<Hub>>,
    lone: Vec<Arc<Hub>>,
}

impl Hubs {
    fn all(&self) -> impl Iterator<Item = &Arc<Hub>> {
        self.groups.values().chain(&self.lone)
    }

    /// Forgets those that have ended.
    fn tidy(&mut self) {
        self.groups.retain(|_, hub| !hub.has_ended());
        self.lone.retain(|hub| !hub.has_ended());
    }
}

impl KafkaBroker {
    /// A broker that is not connected yet.
    ///
    /// # Errors
    /// `Config` with everything that is wrong with the settings.
    pub fn new(config: KafkaConfig) -> Result<Self> {
        let problems = config.problems("options");
        if !problems.is_empty() {
            return Err(Error::config(problems.join("; ")));
        }
        let names = Names {
            topics: config.topic_prefix.clone(),
            queues: config.queue_prefix.clone(),
            delays: config.delays(),
        };
        Ok(Self {
            link: Link::new(config),
            names,
            parts: OnceCell::new(),
            hubs: Mutex::default(),
            groups: Scope::new(),
            keeper: Scope::new(),
        })
    }

    /// A broker by the settings of any broker.
    ///
    /// # Errors
    /// `Config` when they are wrong.
    pub fn from_config(config: &MessageBrokerConfig) -> Result<Self> {
        Self::new(KafkaConfig::from_neutral(config)?)
    }

    /// Makes the topic of a topic or queue with these properties, unless it is there with them. What the plan leaves open is as
    /// configured, or as the servers say, and is not compared.
    ///
    /// ```no_run
    /// # use trunkline_kafka::{KafkaBroker, TopicPlan};
    /// # use trunkline_messaging::{Destination, TopicName};
    /// # async fn run(broker: &KafkaBroker) -> trunkline_core::Result<()> {
    /// let orders = Destination::Topic(TopicName::new("order.created")?);
    /// let plan = TopicPlan::default().with_partitions(12).with_config("retention.ms", "604800000");
    /// broker.declare_topic(orders.clone(), plan).await?;
    /// broker.add_partitions(orders.clone(), 24).await?;
    /// broker.configure_topic(orders.clone(), [("cleanup.policy", Some("compact".to_owned()))]).await?;
    /// println!("{:?}", broker.describe_topic(orders.clone()).await?);
    /// broker.delete_topic(orders).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Conflict` when it is there with other properties; `Invalid` for a setting or a number that the servers refuse, `Denied`,
    /// `Unavailable`, `Timeout`, `Cancelled`.
    ///
    /// # Cancel safety
    /// It may be made or not.
    pub async fn declare_topic(&self, destination: Destination, plan: TopicPlan) -> Result<()> {
        let (catalog, topic, deadline) = self.administered(&destination).await?;
        catalog.forget(&topic);
        if catalog.ensure_as(&topic, &plan, deadline).await? {
            return Ok(());
        }
        match catalog.describe(&topic, deadline).await? {
            Some(found) => plan.compare(&found),
            None => Err(no_topic(&topic)),
        }
    }

    /// How the topic of a topic or queue is.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, `Unavailable`, `Timeout`, `Cancelled`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn describe_topic(&self, destination: Destination) -> Result<TopicDescription> {
        let (catalog, topic, deadline) = self.administered(&destination).await?;
        let found = catalog.describe(&topic, deadline).await?;
        found.ok_or_else(|| no_topic(&topic))
    }

    /// Gives a topic so many partitions in all. Those who subscribe find them within `topic_refresh`. From then on most keys
    /// are in other partitions than before: the order of a key does not hold between what is in the old one and what comes.
    ///
    /// # Errors
    /// `Invalid` for fewer than there are; `NotFound`, `Denied`, `Unavailable`, `Timeout`, `Cancelled`.
    ///
    /// # Cancel safety
    /// They may be added or not.
    pub async fn add_partitions(&self, destination: Destination, in_all: u32) -> Result<()> {
        let (catalog, topic, deadline) = self.administered(&destination).await?;
        let found = catalog.describe(&topic, deadline).await?;
        let found = found.ok_or_else(|| no_topic(&topic))?;
        match in_all.cmp(&found.partitions) {
            Ordering::Equal => Ok(()),
            Ordering::Greater => catalog.grow(&topic, in_all, deadline).await,
            Ordering::Less => {
                let there = found.partitions;
                let text =
                    format!("the topic `{topic}` has {there} partitions, and none can be removed");
                Err(Error::invalid(text))
            }
        }
    }

    /// Changes settings of a topic by Kafka's own names, such as `retention.ms`; without a value it is again as the servers
    /// say. The other ones stay, unless somebody else changes them at the same moment.
    ///
    /// # Errors
    /// `Invalid` for a setting that the servers refuse; `Denied` also where they do not say why they did not take it; `NotFound`,
    /// `Unavailable`, `Timeout`, `Cancelled`.
    ///
    /// # Cancel safety
    /// They may be changed or not.
    pub async fn configure_topic<N: Into<String>>(
        &self,
        destination: Destination,
        changes: impl IntoIterator<Item = (N, Option<String>)>,
    ) -> Result<()> {
        let (catalog, topic, deadline) = self.administered(&destination).await?;
        let changes = changes.into_iter();
        let changes = changes.map(|(name, value)| (name.into(), value)).collect();
        catalog.configure(&topic, &changes, deadline).await
    }

    /// Deletes the topic of a topic or queue, with all that is in it. Whoever subscribes to it by its name makes it again.
    ///
    /// # Errors
    /// `NotFound`, also when a first attempt whose answer was lost has deleted it; `Denied`, `Unavailable`, `Timeout`,
    /// `Cancelled`.
    ///
    /// # Cancel safety
    /// It may be deleted or not.
    pub async fn delete_topic(&self, destination: Destination) -> Result<()> {
        let (catalog, topic, deadline) = self.administered(&destination).await?;
        catalog.delete(&topic, deadline).await
    }

    async fn administered(
        &self,
        destination: &Destination,
    ) -> Result<(Arc<Catalog>, String, Instant)> {
        self.check_open()?;
        let topic = self.names.topic(destination)?;
        let deadline = self.link.deadline();
        let parts = self.parts(deadline).await?;
        Ok((parts.catalog, topic, deadline))
    }

    fn hubs(&self) -> MutexGuard<'_, Hubs> {
        self.hubs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What needs the driver; waits until `connect` was called.
    async fn parts(&self, deadline: Instant) -> Result<Parts> {
        if let Some(parts) = self.parts.get() {
            return Ok(parts.clone());
        }
        self.link.ready(deadline).await?;
        match self.parts.get() {
            Some(parts) => Ok(parts.clone()),
            None => Err(closed()),
        }
    }

    fn check_open(&self) -> Result<()> {
        if self.link.is_closed() {
            Err(closed())
        } else {
            Ok(())
        }
    }

    /// Begins the work of a group once there is a driver to do it.
    fn start(&self, hub: &Arc<Hub>) {
        if let Some(parts) = self.parts.get() {
            hub.start_once(&parts.catalog, &parts.publisher, &self.groups);
            parts.delays.look();
        }
    }

    fn ends(&self) -> Vec<Arc<Hub>> {
        let mut hubs = self.hubs();
        let all = hubs.all().cloned().collect();
        *hubs = Hubs::default();
        all
    }
}

impl Drop for KafkaBroker {
    /// Without a farewell: threads end by themselves, and what was done and not committed comes again.
    fn drop(&mut self) {
        self.link.close();
        for hub in self.ends() {
            hub.end();
        }
        if let Some(parts) = self.parts.get() {
            parts.delays.stop();
        }
        self.groups.stop();
        self.keeper.stop();
    }
}

impl MessageBroker for KafkaBroker {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::none();
        capabilities.durable = true;
        capabilities.shared = true;
        capabilities.groups = true;
        capabilities.wildcards = true;
        capabilities.queues = true;
        capabilities.redelivery = true;
        capabilities.delayed_redelivery = true;
        capabilities.delayed_publish = true;
        capabilities.expiry = true;
        capabilities.replay = true;
        capabilities.lease_extension = true;
        capabilities.browse = true;
        capabilities.atomic_forward = self.link.config().transactions;
        capabilities.lag = true;
        capabilities.ordering = OrderingGuarantee::PerKey;
        capabilities.max_message_size = Some(self.link.config().max_message_size.as_usize());
        capabilities
    }

    async fn connect(&self) -> Result<()> {
        self.check_open()?;
        let parts = self.parts.get_or_try_init(async || {
            let scout = Arc::new(self.link.scout()?);
            let catalog = Arc::new(Catalog::new(Arc::clone(&self.link), Arc::clone(&scout)));
            let publisher = Publisher::new(
                Arc::clone(&self.link),
                Arc::clone(&catalog),
                self.names.clone(),
            );
            let publisher = Arc::new(publisher);
            let delays = Delays::new(
                Arc::clone(&self.link),
                self.names.clone(),
                Arc::clone(&catalog),
                Arc::clone(&publisher),
            );
            let browser = Browser::new(Arc::clone(&self.link), self.names.clone());
            // The first answer is this call's; the keeper asks on.
            let keep = Arc::clone(&self.link).keep(scout, self.keeper.token());
            self.keeper.spawn("kafka link", keep);
            Ok::<_, Error>(Parts {
                catalog,
                publisher,
                browser: Arc::new(browser),
                delays,
            })
        });
        let parts = parts.await?;
        let hubs: Vec<Arc<Hub>> = self.hubs().all().cloned().collect();
        for hub in hubs {
            self.start(&hub);
        }
        self.link.ask(&parts.catalog.scout()?).await
    }

    async fn disconnect(&self, deadline: Instant) -> Result<()> {
        if self.link.is_closed() {
            return Ok(());
        }
        for hub in self.ends() {
            hub.end();
        }
        // What is on its way where it is due to arrives first.
        let moved = match self.parts.get() {
            Some(parts) => parts.delays.end(deadline).await,
            None => 0,
        };
        let flushed = match self.parts.get() {
            Some(parts) => parts.publisher.close(deadline).await,
            None => Ok(()),
        };
        // Groups commit what was done, and leave.
        let left = self.groups.shutdown(deadline).await;
        self.link.close();
        let kept = self.keeper.shutdown(deadline).await;
        if let Some(parts) = self.parts.get() {
            parts.browser.close().await;
            parts.catalog.close().await;
        }
        flushed?;
        if left + kept + moved > 0 {
            let text = format!("{} parts did not end in time", left + kept + moved);
            return Err(Error::timeout(text));
        }
        Ok(())
    }

    async fn health_check(&self) -> Result<()> {
        self.check_open()?;
        let Some(parts) = self.parts.get() else {
            return Err(Error::unavailable("not connected yet"));
        };
        let aside = self.hubs().all().find_map(|hub| hub.stands_aside());
        if let Some(reason) = aside.or_else(|| parts.delays.stands_aside()) {
            return Err(Error::conflict(reason));
        }
        self.link.ask(&parts.catalog.scout()?).await?;
        let not_ready = self.hubs().all().find_map(|hub| hub.not_ready());
        not_ready
            .or_else(|| parts.delays.not_ready())
            .map_or(Ok(()), Err)
    }

    async fn publish(&self, publish: Publish) -> Result<Receipt> {
        let deadline = self.link.deadline();
        let parts = self.parts(deadline).await?;
        let is_delayed = publish.delay.is_some();
        let sent = parts.publisher.send(publish, deadline).await?;
        if is_delayed {
            parts.delays.begin();
        }
        parts.publisher.confirmed(sent, deadline).await
    }

    async fn publish_batch(&self, batch: Vec<Publish>) -> Vec<Result<Receipt>> {
        let deadline = self.link.deadline();
        let mut sent = Vec::with_capacity(batch.len());
        for publish in batch {
            let outcome = async {
                let parts = self.parts(deadline).await?;
                let is_delayed = publish.delay.is_some();
                let sent = parts.publisher.send(publish, deadline).await?;
                if is_delayed {
                    parts.delays.begin();
                }
                Ok::<_, Error>((parts, sent))
            };
            sent.push(outcome.await);
        }
        let mut outcomes = Vec::with_capacity(sent.len());
        for sent in sent {
            outcomes.push(match sent {
                Ok((parts, sent)) => parts.publisher.confirmed(sent, deadline).await,
                Err(error) => Err(error),
            });
        }
        outcomes
    }

    async fn declare(&self, destination: Destination) -> Result<()> {
        self.check_open()?;
        let topic = self.names.topic(&destination)?;
        let deadline = self.link.deadline();
        let parts = self.parts(deadline).await?;
        parts.catalog.ensure(&topic, deadline).await
    }

    async fn browse(&self, browse: Browse) -> Result<BrowsePage> {
        self.check_open()?;
        let deadline = self.link.deadline();
        let parts = self.parts(deadline).await?;
        parts.browser.page(browse, deadline).await
    }

    async fn remove(&self, queue: TopicName, positions: Vec<u64>) -> Result<u64> {
        self.check_open()?;
        let deadline = self.link.deadline();
        let parts = self.parts(deadline).await?;
        let hub = {
            let key = (None, Source::Queue(queue.clone()));
            self.hubs().groups.get(&key).cloned()
        };
        let removal = parts.browser.remove(&queue, &positions, hub, deadline);
        removal.await
    }

    async fn queues(&self) -> Result<Vec<QueueInfo>> {
        self.check_open()?;
        let deadline = self.link.deadline();
        let parts = self.parts(deadline).await?;
        parts.browser.queues(deadline).await
    }

    async fn lag(&self, subscribe: &Subscribe) -> Result<Option<u64>> {
        self.check_open()?;
        let deadline = self.link.deadline();
        let parts = self.parts(deadline).await?;
        let hub = {
            let key = (subscribe.group.clone(), subscribe.source.clone());
            self.hubs().groups.get(&key).cloned()
        };
        if let Some(hub) = hub
            && let Some(asked) = hub.lag(subscribe).await
        {
            return asked;
        }
        parts.browser.lag(subscribe, deadline).await
    }

    async fn subscribe(&self, subscribe: Subscribe) -> Result<Subscription> {
        self.check_open()?;
        match (&subscribe.source, &subscribe.group) {
            (Source::Queue(queue), _) if is_delayed(queue) => {
                let text = format!("the queue `{queue}` is the broker's own");
                return Err(Error::invalid(text));
            }
            (Source::Queue(_), Some(_)) => return Err(Error::invalid("a queue has no groups")),
            (_, Some(group)) => {
                TopicName::new(group)?;
            }
            (_, None) => {}
        }
        if let Source::Topics(pattern) = &subscribe.source
            && let Some(topic) = pattern.as_topic()
        {
            self.names.topic(&Destination::Topic(topic))?;
        }
        let lone = subscribe.group.is_none() && matches!(subscribe.source, Source::Topics(_));
        let new = || Hub::new(Arc::clone(&self.link), self.names.clone(), &subscribe);
        let (hub, member) = {
            let mut hubs = self.hubs();
            hubs.tidy();
            let key = (subscribe.group.clone(), subscribe.source.clone());
            let known = if lone { None } else { hubs.groups.get(&key) };
            let joined = known.and_then(|hub| Some((Arc::clone(hub), hub.join(&subscribe)?)));
            match joined {
                Some(joined) => joined,
                None => {
                    let hub = new();
                    let member = hub.join(&subscribe).ok_or_else(closed)?;
                    if lone {
                        hubs.lone.push(Arc::clone(&hub));
                    } else {
                        hubs.groups.insert(key, Arc::clone(&hub));
                    }
                    (hub, member)
                }
            }
        };
        // `disconnect` may have come between.
        if self.link.now() == State::Closed || self.groups.is_stopping() {
            hub.end();
            return Err(closed());
        }
        self.start(&hub);
        let state = hub.state();
        let seat = Seat { hub, member };
        let deliveries = stream::unfold(seat, |seat| async {
            let delivery = seat.hub.take(seat.member).await?;
            Some((delivery, seat))
        });
        Ok(Subscription::new(deliveries, state))
    }
}

/// A subscription's place in its group; dropping it leaves.
struct Seat {
    hub: Arc<Hub>,
    member: u64,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.hub.leave(self.member);
    }
}
