//! The broker: topics, groups and queues over exchanges and queues.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use lapin::Channel;
use lapin::options::{
    BasicQosOptions, ExchangeDeleteOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::protocol::basic::AMQPProperties;
use lapin::types::AMQPValue;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use trunkline_core::task::Scope;
use trunkline_core::{Clock as _, Context, Error, Result, Retry, SystemClock};
use trunkline_messaging::supervisor::{Connect as _, Generation, LinkState};
use trunkline_messaging::{
    Browse, BrowsePage, Capabilities, Destination, MessageBroker, MessageBrokerConfig, Publish,
    QueueInfo, Receipt, Routed, Subscribe, Subscription, TopicName,
};

use crate::config::RabbitMqConfig;
use crate::consumer::{Consumers, Shared, work_queue};
use crate::error::from_driver;
use crate::link::{Connector, FAREWELL, Link};
use crate::names;
use crate::native::{Binding, Exchange, ExchangeKind, Queue, QueueStatus};
use crate::peek::{self, Positions};
use crate::pool::{Connection, Pool};
use crate::publisher::{Envelope, Outcome, Publisher};
use crate::topology::{Item, Topology, look_at};
use crate::wire;

/// Wait before what is refused is tried again, at first and at most.
const FIRST_MENDING: Duration = Duration::from_secs(5);
const LONGEST_MENDING: Duration = Duration::from_secs(60);

/// RabbitMQ. It connects only when it is told to, and then keeps the connection for ever.
///
/// ```no_run
/// use trunkline_messaging::MessageBroker;
/// use trunkline_rabbitmq::{Exchange, ExchangeKind, RabbitMqBroker, RabbitMqConfig};
///
/// # async fn run() -> trunkline_core::Result<()> {
/// let broker = RabbitMqBroker::new(RabbitMqConfig::from_url("amqp://localhost")?)?;
/// broker.connect().await?;
/// broker.declare_exchange(Exchange::new("orders").with_kind(ExchangeKind::Fanout)).await?;
/// broker.setup_dead_letter_queue("orders.work").await?;
/// # Ok(()) }
/// ```
pub struct RabbitMqBroker {
    config: Arc<RabbitMqConfig>,
    topology: Arc<Topology>,
    pool: Pool,
    shared: Arc<Shared>,
    consumers: Consumers,
    /// Tries again what the server refuses to declare.
    mending: Scope,
    is_mending: AtomicBool,
    /// Ends that with the last handle, when nobody disconnects.
    given_up: CancellationToken,
    _last: DropGuard,
    /// For declarations and questions, one after the other.
    admin: tokio::sync::Mutex<Option<(Generation, Channel)>>,
    /// What was looked at before.
    positions: Positions,
    /// One looks at a time: two would hide messages from each other.
    looking: tokio::sync::Mutex<()>,
}

impl fmt::Debug for RabbitMqBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqBroker")
            .field("connection", &self.config.connection.display_url("amqp"))
            .field("state", &*self.pool.publishing().state().borrow())
            .finish_non_exhaustive()
    }
}

impl RabbitMqBroker {
    /// A broker that is not connected yet.
    ///
    /// # Errors
    /// `Config` that tells everything that is wrong with the settings.
    pub fn new(config: RabbitMqConfig) -> Result<Self> {
        let problems = config.problems("options");
        if !problems.is_empty() {
            return Err(Error::config(problems.join("; ")));
        }
        let config = Arc::new(config);
        let topology = Arc::new(Topology::new(Arc::clone(&config)));
        let pool = Pool::new(Arc::clone(&config), Arc::clone(&topology));
        let shared = Arc::new(Shared {
            publisher: Publisher::new(
                Arc::clone(&config),
                pool.publishing().clone(),
                Arc::clone(&topology),
            ),
            config: Arc::clone(&config),
            closed: CancellationToken::new(),
        });
        let given_up = CancellationToken::new();
        Ok(Self {
            consumers: Consumers::new(Arc::clone(&shared)),
            mending: Scope::new(),
            is_mending: AtomicBool::new(false),
            _last: given_up.clone().drop_guard(),
            given_up,
            config,
            topology,
            pool,
            shared,
            admin: tokio::sync::Mutex::default(),
            positions: Positions::default(),
            looking: tokio::sync::Mutex::default(),
        })
    }

    /// A broker by the settings of any broker.
    ///
    /// # Errors
    /// `Config` that tells everything that is wrong with the settings.
    pub fn from_config(neutral: &MessageBrokerConfig) -> Result<Self> {
        Self::new(RabbitMqConfig::from_neutral(neutral)?)
    }

    /// Declares an exchange, and again whenever a connection is made anew.
    ///
    /// # Errors
    /// `Conflict` when it exists with other properties, `Denied`, `Invalid`, `Unavailable`, `Cancelled`.
    ///
    /// # Cancel safety
    /// Cancel safe: it may be declared, and not remembered.
    pub async fn declare_exchange(&self, exchange: Exchange) -> Result<()> {
        self.declare_item(Item::Exchange(exchange)).await
    }

    /// Declares a queue, and again whenever a connection is made anew.
    ///
    /// # Errors
    /// As [`declare_exchange`](Self::declare_exchange).
    ///
    /// # Cancel safety
    /// Cancel safe: it may be declared, and not remembered.
    pub async fn declare_queue(&self, queue: Queue) -> Result<()> {
        self.declare_item(Item::Queue(queue)).await
    }

    /// Binds a queue or exchange to an exchange, and again whenever a connection is made anew.
    ///
    /// # Errors
    /// `NotFound` when one of them is not there; else as [`declare_exchange`](Self::declare_exchange).
    ///
    /// # Cancel safety
    /// Cancel safe: it may be bound, and not remembered.
    pub async fn bind(&self, binding: Binding) -> Result<()> {
        self.declare_item(Item::Binding(binding)).await
    }

    /// Declares a queue whose rejected messages go to another one, `<queue>.dlq`, through the exchange `<queue>.dlx`; returns
    /// the other queue's name.
    ///
    /// These are RabbitMQ's own dead letters: messages that a consumer rejects or that expire. What handlers of this
    /// library give up goes to the dead letters of [`trunkline_messaging::DeadLetters`], with reason and error, by itself.
    ///
    /// # Errors
    /// As [`declare_exchange`](Self::declare_exchange); `Conflict` when the queue exists without dead letters.
    ///
    /// # Cancel safety
    /// Cancel safe: a part may be declared.
    pub async fn setup_dead_letter_queue(&self, queue: &str) -> Result<String> {
        let (exchange, letters) = (format!("{queue}.dlx"), format!("{queue}.dlq"));
        let direct = Exchange::new(&exchange).with_kind(ExchangeKind::Fanout);
        self.declare_exchange(direct).await?;
        self.declare_queue(Queue::new(&letters)).await?;
        self.bind(Binding::new(&letters, &exchange, "")).await?;
        let work =
            work_queue(queue, &self.config).with_argument("x-dead-letter-exchange", exchange);
        self.declare_queue(work).await?;
        Ok(letters)
    }

    /// Deletes an exchange, and does not declare it again. One that is not there is no error.
    ///
    /// # Errors
    /// As [`declare_exchange`](Self::declare_exchange).
    ///
    /// # Cancel safety
    /// Cancel safe: it may be deleted.
    pub async fn delete_exchange(&self, name: &str) -> Result<()> {
        let short = wire::short("the exchange's name", name)?;
        self.topology.forget(|item| match item {
            Item::Exchange(exchange) => exchange.name == name,
            Item::Binding(binding) => {
                binding.exchange == name || (binding.to_exchange && binding.to == name)
            }
            Item::Queue(_) | Item::Needed(_) => false,
        });
        let deleted = async |_: &Link, channel: &Channel| {
            let deleted = channel
                .exchange_delete(short, ExchangeDeleteOptions::default())
                .await;
            deleted.map_err(|error| from_driver("delete an exchange", error))
        };
        self.administer(deleted).await
    }

    /// Deletes a queue with its messages, and does not declare it again; says how many messages. One that is not there is
    /// no error.
    ///
    /// # Errors
    /// As [`declare_exchange`](Self::declare_exchange).
    ///
    /// # Cancel safety
    /// Cancel safe: it may be deleted.
    pub async fn delete_queue(&self, name: &str) -> Result<u32> {
        let short = wire::short("the queue's name", name)?;
        self.topology.forget(|item| match item {
            Item::Queue(queue) | Item::Needed(queue) => queue.name == name,
            Item::Binding(binding) => !binding.to_exchange && binding.to == name,
            Item::Exchange(_) => false,
        });
        let deleted = async |_: &Link, channel: &Channel| {
            let deleted = channel
                .queue_delete(short, QueueDeleteOptions::default())
                .await;
            deleted.map_err(|error| from_driver("delete a queue", error))
        };
        self.administer(deleted).await
    }

    /// Removes the messages of a queue that wait for a consumer; says how many.
    ///
    /// # Errors
    /// `NotFound`; else as [`declare_exchange`](Self::declare_exchange).
    ///
    /// # Cancel safety
    /// Cancel safe: they may be removed.
    pub async fn purge_queue(&self, name: &str) -> Result<u32> {
        let short = wire::short("the queue's name", name)?;
        let purged = async |_: &Link, channel: &Channel| {
            let purged = channel
                .queue_purge(short, QueuePurgeOptions::default())
                .await;
            purged.map_err(|error| from_driver("purge a queue", error))
        };
        self.administer(purged).await
    }

    /// How many messages wait in a queue, and how many consumers it has.
    ///
    /// # Errors
    /// `NotFound`; else as [`declare_exchange`](Self::declare_exchange).
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn queue_status(&self, name: &str) -> Result<QueueStatus> {
        self.administer(async |_: &Link, channel: &Channel| look_at(channel, name).await)
            .await
    }

    /// Publishes to any exchange with any routing key, confirmed; `Routed::No` when no queue wants it.
    ///
    /// # Errors
    /// As [`MessageBroker::publish`]; an exchange that does not exist closes a channel, and with it fails what else was in
    /// flight on it.
    ///
    /// # Cancel safety
    /// The message may or may not be published.
    pub async fn publish_to(
        &self,
        exchange: &str,
        routing_key: &str,
        message: trunkline_messaging::Message,
    ) -> Result<Receipt> {
        self.check_size(message.size())?;
        let envelope = Envelope {
            exchange: wire::short("the exchange's name", exchange)?,
            routing_key: wire::short("the routing key", routing_key)?,
            properties: wire::properties(&message)?,
            payload: message.payload,
            delay: None,
        };
        let outcome = self.shared.publisher.publish(envelope).await?;
        Ok(Receipt::new(message.id, routed(outcome)))
    }

    /// Begins to try again what is refused, for as long as the broker lives.
    fn begin_mending(&self) {
        if self.shared.is_closed() || self.is_mending.swap(true, Ordering::AcqRel) {
            return;
        }
        let (config, topology) = (Arc::clone(&self.config), Arc::clone(&self.topology));
        let publishing = self.pool.publishing().clone();
        let mend = mend(config, topology, publishing, self.given_up.clone());
        self.mending
            .spawn("mending declarations", Context::new().scope(mend));
    }

    async fn declare_item(&self, item: Item) -> Result<()> {
        self.administer(async |link: &Link, channel: &Channel| {
            self.topology.declare(link, channel, item).await
        })
        .await
    }

    /// Does something on the channel for that, within the caller's time.
    async fn administer<T>(
        &self,
        work: impl AsyncFnOnce(&Link, &Channel) -> Result<T>,
    ) -> Result<T> {
        let deadline = Context::current().and_then(|context| context.deadline());
        let deadline = deadline.unwrap_or_else(|| Instant::now() + self.config.request_timeout);
        let done = async {
            let (link, generation) = self.pool.publishing().connection().await?;
            let mut admin = self.admin.lock().await;
            let channel = match admin.take() {
                Some((known, channel)) if known == generation && channel.status().connected() => {
                    channel
                }
                _ => link.channel().await?,
            };
            let done = work(&link, &channel).await;
            // A refusal closes the channel.
            if channel.status().connected() {
                *admin = Some((generation, channel));
            }
            done
        };
        match tokio::time::timeout_at(deadline, done).await {
            Ok(done) => done,
            Err(_) => {
                Err(Error::timeout("the server did not answer in time")
                    .with_retry(Retry::IfIdempotent))
            }
        }
    }

    /// Looks into a queue on a channel of its own, within the caller's time. When that is over, or the look fails, the
    /// channel is closed, and the server takes back what was fetched on it.
    async fn look<T>(&self, work: impl AsyncFnOnce(&Channel) -> Result<T>) -> Result<T> {
        if self.shared.is_closed() {
            return Err(Error::cancelled("the broker was disconnected"));
        }
        let deadline = Context::current().and_then(|context| context.deadline());
        let deadline = deadline.unwrap_or_else(|| Instant::now() + self.config.request_timeout);
        let looked = async {
            let _turn = self.looking.lock().await;
            let (link, _) = self.pool.publishing().connection().await?;
            let channel = Closing(link.channel().await?);
            link.or_gone(work(&channel.0)).await
        };
        match tokio::time::timeout_at(deadline, looked).await {
            Ok(looked) => looked,
            Err(_) => Err(
                Error::timeout("the look into the queue was not over in time")
                    .with_retry(Retry::IfIdempotent),
            ),
        }
    }

    fn check_size(&self, size: usize) -> Result<()> {
        let largest = self.config.max_message_size;
        if size > largest.as_usize() {
            return Err(Error::invalid(format!(
                "the message has {size} bytes, and the largest may have {}",
                largest.bytes()
            )));
        }
        Ok(())
    }

    fn envelope(&self, publish: Publish) -> Result<(Envelope, Asked)> {
        if self.shared.is_closed() {
            return Err(Error::cancelled("the broker was disconnected"));
        }
        let Publish {
            destination,
            mut message,
            delay,
            expires_in,
            mandatory,
            ..
        } = publish;
        self.check_size(message.size())?;
        message
            .published_at
            .get_or_insert_with(|| SystemClock.now());
        let mut properties = wire::properties(&message)?;
        if let Some(expires_in) = expires_in {
            if delay.is_some_and(|delay| expires_in <= delay) {
                return Err(Error::invalid("the message would expire before it is due"));
            }
            properties = expiring(properties, expires_in, delay.is_some());
        }
        // The answer to a client that is not ours.
        let foreign = match &destination {
            Destination::Queue(queue) => names::reply_address(queue.as_str()),
            Destination::Topic(_) => None,
        };
        let (exchange, routing_key) = match (&destination, &foreign) {
            (_, Some((address, correlation))) => {
                if let Some(correlation) = correlation {
                    let correlation = wire::short("the correlation id", correlation)?;
                    properties = properties.with_correlation_id(correlation);
                }
                ("", address.as_str())
            }
            (Destination::Topic(topic), None) => (self.config.exchange.as_str(), topic.as_str()),
            (Destination::Queue(queue), None) => ("", queue.as_str()),
        };
        let envelope = Envelope {
            exchange: wire::short("the exchange's name", exchange)?,
            routing_key: wire::short("the routing key", routing_key)?,
            properties,
            payload: message.payload,
            delay: delay
                .filter(|delay| !delay.is_zero())
                .map(names::rounded_delay),
        };
        let asked = Asked {
            id: message.id,
            mandatory: mandatory || matches!(destination, Destination::Queue(_)),
            is_delayed: envelope.delay.is_some(),
            destination,
        };
        Ok((envelope, asked))
    }
}

/// Waits until something is refused, and tries it again now and then: on a connection of its own, as the server ends some
/// over what it does not like.
async fn mend(
    config: Arc<RabbitMqConfig>,
    topology: Arc<Topology>,
    publishing: Connection,
    stop: CancellationToken,
) {
    let limit = config.request_timeout;
    let connector = Connector::new(config, "mending", None);
    let mended = async {
        loop {
            topology.failed.notified().await;
            let mut pause = FIRST_MENDING;
            loop {
                tokio::time::sleep(pause).await;
                let tried = async {
                    let link = connector.connect().await?;
                    let publishing = publishing.current().ok();
                    let publishing = publishing.as_ref().map(|(link, _)| link);
                    let left = link.or_gone(topology.mend(&link, publishing)).await;
                    connector.close(link, Instant::now() + FAREWELL).await?;
                    left
                };
                match tokio::time::timeout(limit, tried).await {
                    Ok(Ok(false)) => break,
                    Ok(Ok(true)) => {}
                    Ok(Err(error)) => {
                        tracing::debug!(target: "trunkline", error = %error.report(), "declarations were not tried again");
                    }
                    Err(_) => {
                        tracing::debug!(target: "trunkline", "declarations were not tried again in time");
                    }
                }
                pause = (pause * 2).min(LONGEST_MENDING);
            }
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = mended => {}
    }
}

/// Closes a channel, however its use ends.
struct Closing(Channel);

impl Drop for Closing {
    fn drop(&mut self) {
        if self.0.status().connected() {
            // The driver takes it at the first poll.
            drop(self.0.close(200, "done".into()).now_or_never());
        }
    }
}

/// What was asked of a publish.
struct Asked {
    id: String,
    destination: Destination,
    mandatory: bool,
    is_delayed: bool,
}

impl Asked {
    fn receipt(self, outcome: Outcome) -> Result<Receipt> {
        match outcome {
            Outcome::Unroutable if self.is_delayed => Err(Error::unavailable(
                "the queue in which it was to wait is gone",
            )
            .with_retry(Retry::Safe)),
            Outcome::Unroutable if self.mandatory => Err(Error::not_found(format!(
                "{}: nobody is there to get the message",
                self.destination
            ))),
            // Whether somebody will be there when it is due is not known.
            Outcome::Routed if self.is_delayed => Ok(Receipt::new(self.id, Routed::Unknown)),
            outcome => Ok(Receipt::new(self.id, routed(outcome))),
        }
    }
}

const fn routed(outcome: Outcome) -> Routed {
    match outcome {
        Outcome::Routed => Routed::Yes,
        Outcome::Unroutable => Routed::No,
    }
}

/// Sets when a message expires: as AMQP says it, or in a header for one that waits first, where AMQP's own would end the
/// wait.
fn expiring(properties: AMQPProperties, expires_in: Duration, waits: bool) -> AMQPProperties {
    let millis = i64::try_from(expires_in.as_millis()).unwrap_or(i64::MAX);
    if waits {
        let at = SystemClock.now().unix_millis().saturating_add(millis);
        wire::with_header(properties, wire::EXPIRES_AT, AMQPValue::LongLongInt(at))
    } else {
        // The server counts in 32 bits.
        let millis = millis.min(i64::from(u32::MAX));
        properties.with_expiration(millis.to_string().into())
    }
}

impl MessageBroker for RabbitMqBroker {
    fn kind(&self) -> &'static str {
        "rabbitmq"
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
        capabilities.mandatory = true;
        capabilities.peek = true;
        capabilities.lag = true;
        capabilities.max_message_size = Some(self.config.max_message_size.as_usize());
        capabilities
    }

    async fn connect(&self) -> Result<()> {
        self.begin_mending();
        self.pool.connect().await
    }

    async fn disconnect(&self, deadline: Instant) -> Result<()> {
        self.shared.closed.cancel();
        // Consumers may put messages off until they have ended, so the publisher ends after them.
        self.given_up.cancel();
        let consuming = self.consumers.shutdown(deadline).await;
        let mending = self.mending.shutdown(deadline).await;
        let publishing = self.shared.publisher.shutdown(deadline).await;
        if let Some((_, channel)) = self.admin.lock().await.take() {
            let patience = deadline.min(Instant::now() + FAREWELL);
            drop(tokio::time::timeout_at(patience, channel.close(200, "done".into())).await);
        }
        let closed = self.pool.close(deadline).await;
        if consuming + publishing + mending > 0 {
            return Err(Error::timeout(
                "not everything was flushed before the deadline",
            ));
        }
        closed
    }

    async fn health_check(&self) -> Result<()> {
        self.pool.publishing().current()?;
        if let Some(blocked) = self.shared.publisher.blocked() {
            return Err(blocked);
        }
        for connection in self.pool.consuming() {
            if let LinkState::Down { reason } = &*connection.state().borrow() {
                return Err(Error::unavailable(format!(
                    "a connection of consumers is down: {reason}"
                )));
            }
        }
        self.topology.check()?;
        // A question without effect: consumers have channels of their own.
        let asked = async |_: &Link, channel: &Channel| {
            let asked = channel.basic_qos(0, BasicQosOptions::default()).await;
            asked.map_err(|error| from_driver("ask the server", error))
        };
        self.administer(asked).await
    }

    async fn publish(&self, publish: Publish) -> Result<Receipt> {
        let (envelope, asked) = self.envelope(publish)?;
        let outcome = self.shared.publisher.publish(envelope).await?;
        asked.receipt(outcome)
    }

    async fn publish_batch(&self, batch: Vec<Publish>) -> Vec<Result<Receipt>> {
        let deadline = self.shared.publisher.deadline();
        let mut sent = Vec::with_capacity(batch.len());
        for publish in batch {
            let one = match self.envelope(publish) {
                Ok((envelope, asked)) => {
                    let handed = self.shared.publisher.hand_over(envelope, deadline).await;
                    handed.map(|waiting| (asked, waiting))
                }
                Err(error) => Err(error),
            };
            sent.push(one);
        }
        let mut outcomes = Vec::with_capacity(sent.len());
        for one in sent {
            outcomes.push(match one {
                Ok((asked, waiting)) => waiting.await.and_then(|outcome| asked.receipt(outcome)),
                Err(error) => Err(error),
            });
        }
        outcomes
    }

    async fn declare(&self, destination: Destination) -> Result<()> {
        match destination {
            Destination::Topic(_) => {
                let topics = Exchange::new(&self.config.exchange).with_kind(ExchangeKind::Topic);
                self.declare_exchange(topics).await
            }
            Destination::Queue(queue) => {
                let queue = work_queue(queue.as_str(), &self.config);
                self.declare_item(Item::Needed(queue)).await
            }
        }
    }

    async fn subscribe(&self, subscribe: Subscribe) -> Result<Subscription> {
        if self.shared.is_closed() {
            return Err(Error::cancelled("the broker was disconnected"));
        }
        self.consumers.subscribe(&self.pool, subscribe)
    }

    async fn browse(&self, browse: Browse) -> Result<BrowsePage> {
        let Destination::Queue(queue) = &browse.destination else {
            return Err(Error::unsupported(
                "the rabbitmq broker cannot do this: browse a topic; queues keep messages, exchanges do not",
            ));
        };
        let Browse { after, limit, .. } = browse;
        self.look(async |channel: &Channel| {
            peek::page(channel, queue, &self.positions, after, limit).await
        })
        .await
    }

    async fn remove(&self, queue: TopicName, positions: Vec<u64>) -> Result<u64> {
        self.look(async |channel: &Channel| {
            peek::remove(channel, &queue, &self.positions, positions).await
        })
        .await
    }

    async fn lag(&self, subscribe: &Subscribe) -> Result<Option<u64>> {
        self.lag_of(subscribe).await
    }

    async fn queues(&self) -> Result<Vec<QueueInfo>> {
        Err(Error::unsupported(
            "the rabbitmq broker cannot do this: list queues, for which AMQP has no word; name the queue or group",
        ))
    }
}
