//! The durable broker in the embedded directory.

mod book;
mod browse;
mod claim;
mod config;
mod consumer;
mod feeder;
mod group;
mod lag;
mod lane;
mod limits;
mod outbox;
mod outgoing;
mod retention;
mod row;
mod schedule;
mod schema;
mod settle;
#[cfg(test)]
mod simulation;
mod span;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OnceCell, oneshot, watch};
use tokio::time::{Instant, timeout_at};
use trunkline_core::task::Scope;
use trunkline_core::{Context, Error, Result, Retry, SharedClock, SystemClock};
use trunkline_messaging::{
    Browse, BrowsePage, Capabilities, Destination, MessageBroker, OrderingGuarantee, Publish,
    QueueInfo, Receipt, Source, Subscribe, Subscription, TopicName,
};

pub use browse::{DestinationStatistics, GroupStatistics};
pub use config::{EmbeddedBrokerConfig, WhenFull};
pub use limits::DestinationFull;

use crate::engine::{Database, EmbeddedDirectory, Manner, Nudge, Stop, drop_apart};
use book::Book;
use consumer::{Attached, Consumer, Consumers, Deliveries, Stage, Wish};
use feeder::Feeder;
use limits::Limits;
use outbox::Outbox;
use outgoing::{Outgoing, micros};
use retention::Retention;

const KIND: &str = "embedded";
const FILE: &str = "broker";
/// Positions removed in one transaction.
const REMOVED: usize = 500;
/// Between two attempts to attach a subscription.
const ATTACH_PAUSE: Duration = Duration::from_millis(250);

/// A durable message broker in a directory that any number of processes of this machine share.
///
/// What is confirmed is on the disk. A consumer's messages go to others when it gives them back, when its lease runs
/// out, or within a second when its process dies, however it dies. Settlements are on the disk too when they return;
/// a lease is not, so that after a power failure a message may come again with a smaller attempt.
///
/// ```
/// use tokio::time::{Duration, Instant};
/// use trunkline_messaging::{Destination, Message, MessageBroker, Publish, Subscribe, TopicName};
/// use trunkline_sqlite::{EmbeddedBroker, EmbeddedBrokerConfig};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
/// # let directory = tempfile::tempdir().expect("a directory");
/// # let directory = directory.path();
/// let broker = EmbeddedBroker::new(EmbeddedBrokerConfig::new(directory));
/// broker.connect().await?;
/// let topic = TopicName::new("order.created")?;
/// let mut orders = broker.subscribe(Subscribe::topics(topic.clone()).with_group("mailer")).await?;
/// broker.publish(Publish::new(Destination::Topic(topic), Message::new("42"))).await?;
/// let order = orders.next().await.expect("connected");
/// assert_eq!(order.message().payload, "42");
/// order.ack().await?;
/// broker.disconnect(Instant::now() + Duration::from_secs(5)).await
/// # }
/// ```
#[derive(Debug)]
pub struct EmbeddedBroker {
    config: EmbeddedBrokerConfig,
    clock: SharedClock,
    connection: watch::Sender<Connection>,
    connecting: Mutex<()>,
    consumers: Consumers,
    tasks: Scope,
}

#[derive(Clone, Debug)]
enum Connection {
    Not,
    Open(Arc<Core>),
    Closed,
}

/// What a connected broker works with.
#[derive(Debug)]
struct Core {
    database: Arc<Database>,
    outbox: Outbox,
    /// There from the first subscription on: who only publishes need not be woken.
    nudge: OnceCell<Nudge>,
}

impl Core {
    /// Begins to look for messages, unless it has begun.
    async fn feed(&self, consumers: &Consumers, clock: &SharedClock) -> Result<&Nudge> {
        let begin = || async {
            let database = Arc::clone(&self.database);
            let (consumers, clock) = (consumers.clone(), Arc::clone(clock));
            let listen = move || {
                let (directory, jobs) = (database.directory().clone(), database.queue().clone());
                database
                    .listen(|nudge| Box::new(Feeder::new(consumers, directory, jobs, clock, nudge)))
            };
            tokio::task::spawn_blocking(listen)
                .await
                .map_err(|join| Error::internal("listening panicked").with_source(join))?
        };
        self.nudge.get_or_try_init(begin).await
    }
}

impl EmbeddedBroker {
    /// A broker that is not connected yet.
    #[must_use]
    pub fn new(config: EmbeddedBrokerConfig) -> Self {
        Self::with_clock(config, SystemClock::shared())
    }

    /// A broker that takes the time from another clock. All processes of a directory must agree about the time.
    #[must_use]
    pub fn with_clock(config: EmbeddedBrokerConfig, clock: SharedClock) -> Self {
        let (connection, _) = watch::channel(Connection::Not);
        Self {
            config,
            clock,
            connection,
            connecting: Mutex::default(),
            consumers: Consumers::default(),
            tasks: Scope::new(),
        }
    }

    /// Every topic and queue in numbers, by name.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`; `Cancelled` after `disconnect`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn statistics(&self) -> Result<Vec<DestinationStatistics>> {
        let deadline = self.deadline();
        let core = self.core("statistics", deadline).await?;
        core.database
            .readers()
            .read("statistics", deadline, browse::statistics)
            .await
    }

    /// When to give up: at the caller's deadline, or after the configured time.
    fn deadline(&self) -> Instant {
        let latest = Instant::now() + self.config.request_timeout;
        let asked = Context::current().and_then(|context| context.deadline());
        asked.map_or(latest, |asked| asked.min(latest))
    }

    /// Waits for the connection.
    async fn core(&self, operation: &'static str, deadline: Instant) -> Result<Arc<Core>> {
        let mut connection = self.connection.subscribe();
        match timeout_at(deadline, opened(&mut connection)).await {
            Ok(Some(core)) => Ok(core),
            Ok(None) => Err(disconnected(operation)),
            Err(_) => Err(Error::unavailable("the embedded broker is not connected")
                .with_retry(Retry::Safe)
                .with_operation(operation)),
        }
    }

    fn open(
        config: &EmbeddedBrokerConfig,
        clock: &SharedClock,
        consumers: Consumers,
    ) -> Result<Core> {
        let directory = EmbeddedDirectory::open(&config.directory)?;
        let database = Database::open(&directory, FILE, &schema::SCHEMA)?;
        let jobs = database.queue().clone();
        let outbox = Outbox::new(jobs.clone(), Arc::clone(clock), config);
        let retention = Retention::new(jobs, Arc::clone(clock), outbox.clone(), config);
        database.every_second(retention::chore(retention, consumers));
        Ok(Core {
            database,
            outbox,
            nudge: OnceCell::new(),
        })
    }

    fn outgoing(&self, publish: Publish) -> Result<Outgoing> {
        let now = self.clock.now().unix_micros();
        Outgoing::new(publish, now, self.config.largest_message().as_usize())
            .and_then(|outgoing| outgoing.fits(&Limits::of(&self.config)))
            .map_err(|error| error.with_operation("publish"))
    }

    /// Lets go of everything that consumers of this process have.
    fn end_consumers(&self, core: Option<&Core>) {
        for consumer in self.consumers.close() {
            let (waiting, _) = consumer.end(Stage::Closed);
            settle::give_back(&consumer, &waiting);
            if consumer.attached().is_some() && core.is_some() {
                settle::remove(&consumer);
            }
        }
    }
}

impl MessageBroker for EmbeddedBroker {
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
        capabilities.attempts = true;
        capabilities.delayed_redelivery = true;
        capabilities.delayed_publish = true;
        capabilities.expiry = true;
        capabilities.mandatory = true;
        capabilities.replay = true;
        capabilities.lease_extension = true;
        capabilities.atomic_forward = true;
        capabilities.browse = true;
        capabilities.lag = true;
        capabilities.ordering = OrderingGuarantee::PerKey;
        capabilities.max_message_size = Some(self.config.largest_message().as_usize());
        capabilities
    }

    async fn connect(&self) -> Result<()> {
        let deadline = Instant::now() + self.config.connect_timeout;
        let late = || Error::timeout("the embedded directory did not open in time");
        let _one = timeout_at(deadline, self.connecting.lock())
            .await
            .map_err(|_| late())?;
        match &*self.connection.borrow() {
            Connection::Not => {}
            Connection::Open(_) => return Ok(()),
            Connection::Closed => return Err(disconnected("connect")),
        }
        let problems = self.config.problems("embedded");
        if !problems.is_empty() {
            return Err(Error::config(problems.join("; ")).with_operation("connect"));
        }
        let (config, clock) = (self.config.clone(), Arc::clone(&self.clock));
        let consumers = self.consumers.clone();
        let open = tokio::task::spawn_blocking(move || Self::open(&config, &clock, consumers));
        let core = timeout_at(deadline, open)
            .await
            .map_err(|_| late())?
            .map_err(|join| Error::internal("opening panicked").with_source(join))?
            .map_err(|error| error.with_operation("connect"))?;
        let core = Arc::new(core);
        self.connection.send_if_modified(|connection| {
            let not = matches!(connection, Connection::Not);
            if not {
                *connection = Connection::Open(core);
            }
            not
        });
        Ok(())
    }

    async fn disconnect(&self, deadline: Instant) -> Result<()> {
        let before = self.connection.send_replace(Connection::Closed);
        let Connection::Open(core) = before else {
            self.end_consumers(None);
            self.tasks.shutdown(deadline).await;
            return Ok(());
        };
        self.end_consumers(Some(&core));
        let (reply, flushed) = oneshot::channel();
        core.database.queue().errand(
            false,
            |_| Ok(()),
            move |outcome: std::result::Result<(), &crate::error::Failure>| {
                let outcome = outcome.map_err(|failure| failure.to_error("disconnect"));
                // Nobody waits any more: the deadline was reached.
                drop(reply.send(outcome));
            },
        );
        let flushed = timeout_at(deadline, flushed).await;
        self.tasks.shutdown(deadline).await;
        // The last handle waits for the threads.
        let closed = timeout_at(deadline, drop_apart(core)).await;
        let late = || {
            Error::timeout("the embedded broker was not done at the deadline")
                .with_operation("disconnect")
        };
        match flushed {
            Ok(Ok(outcome)) => outcome?,
            Ok(Err(_)) => {}
            Err(_) => return Err(late()),
        }
        closed.map_err(|_| late())
    }

    async fn health_check(&self) -> Result<()> {
        let deadline = self.deadline();
        let core = match &*self.connection.borrow() {
            Connection::Open(core) => Arc::clone(core),
            Connection::Not => {
                return Err(Error::unavailable("the embedded broker is not connected")
                    .with_operation("health_check"));
            }
            Connection::Closed => return Err(disconnected("health_check")),
        };
        core.database.health_check(deadline).await
    }

    async fn publish(&self, publish: Publish) -> Result<Receipt> {
        let deadline = self.deadline();
        let outgoing = self.outgoing(publish);
        let core = self.core("publish", deadline).await?;
        core.outbox.publish(outgoing?, deadline).await
    }

    async fn publish_batch(&self, batch: Vec<Publish>) -> Vec<Result<Receipt>> {
        let deadline = self.deadline();
        let mut items = Vec::with_capacity(batch.len());
        let mut outcomes: Vec<Option<Result<Receipt>>> = Vec::with_capacity(batch.len());
        for publish in batch {
            match self.outgoing(publish) {
                Ok(item) => {
                    items.push(item);
                    outcomes.push(None);
                }
                Err(error) => outcomes.push(Some(Err(error))),
            }
        }
        let missing = || Err(Error::internal("a publish has no outcome"));
        let mut sent = Vec::new();
        if !items.is_empty() {
            let core = match self.core("publish", deadline).await {
                Ok(core) => core,
                Err(first) => {
                    let again = || {
                        Err(Error::new(first.kind(), first.message().to_owned())
                            .with_retry(first.retry())
                            .with_operation("publish"))
                    };
                    return outcomes
                        .into_iter()
                        .map(|outcome| outcome.unwrap_or_else(again))
                        .collect();
                }
            };
            sent = core.outbox.publish_all(items, deadline).await;
        }
        let mut sent = sent.into_iter();
        outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or_else(|| sent.next().unwrap_or_else(missing)))
            .collect()
    }

    async fn declare(&self, destination: Destination) -> Result<()> {
        let deadline = self.deadline();
        let core = self.core("declare", deadline).await?;
        let Destination::Queue(name) = destination else {
            // A topic comes to be with its first message.
            return Ok(());
        };
        let clock = Arc::clone(&self.clock);
        let manner = Manner::durable("declare", deadline);
        core.database
            .calls()
            .write(manner, move |tx| {
                let now = clock.now().unix_micros();
                let (connection, book) = tx.cached::<Book>();
                book::create_queue(connection, book, &name, now)?;
                Ok(book.save(connection)?)
            })
            .await
    }

    async fn subscribe(&self, subscribe: Subscribe) -> Result<Subscription> {
        let wish = wish(subscribe)?;
        let open = match &*self.connection.borrow() {
            Connection::Closed => return Err(disconnected("subscribe")),
            Connection::Open(_) => true,
            Connection::Not => false,
        };
        let consumer = Consumer::new(wish, Arc::clone(&self.clock), "the broker is not connected");
        if !self.consumers.add(&consumer) {
            return Err(disconnected("subscribe"));
        }
        let state = consumer.state.subscribe();
        let subscription = Subscription::new(Deliveries(Arc::clone(&consumer)), state);
        let (tried, first) = oneshot::channel();
        let attach = Attaching {
            consumer,
            consumers: self.consumers.clone(),
            connection: self.connection.subscribe(),
            request_timeout: self.config.request_timeout,
            max_message_size: self.config.max_message_size.as_usize(),
        };
        self.tasks.spawn("attach", attach.run(tried));
        if open {
            // Either way the subscription is there; its state tells the rest.
            timeout_at(self.deadline(), first).await.ok();
        }
        Ok(subscription)
    }

    async fn browse(&self, browse: Browse) -> Result<BrowsePage> {
        let deadline = self.deadline();
        let core = self.core("browse", deadline).await?;
        let now = self.clock.now().unix_micros();
        let path = core.database.path().to_owned();
        core.database
            .readers()
            .read_apart("browse", deadline, move |connection| {
                browse::page(connection, &browse, now).map_err(|stop| match stop {
                    Stop::Refused(error) => error.with_operation("browse"),
                    Stop::Sql(error) => crate::error::from_sqlite("browse", error, &path),
                })
            })
            .await
    }

    async fn remove(&self, queue: TopicName, positions: Vec<u64>) -> Result<u64> {
        let deadline = self.deadline();
        let core = self.core("remove", deadline).await?;
        let mut removed = 0;
        for some in positions.chunks(REMOVED) {
            let (some, queue) = (some.to_vec(), queue.clone());
            let clock = Arc::clone(&self.clock);
            let manner = Manner::durable("remove", deadline).shrinking();
            removed += core
                .database
                .calls()
                .write(manner, move |tx| {
                    let now = clock.now().unix_micros();
                    let (connection, book) = tx.cached::<Book>();
                    let removed = browse::remove(connection, book, &queue, &some, now)?;
                    tx.ring();
                    Ok(removed)
                })
                .await?;
        }
        core.outbox.made_room();
        Ok(removed)
    }

    async fn queues(&self) -> Result<Vec<QueueInfo>> {
        let deadline = self.deadline();
        let core = self.core("queues", deadline).await?;
        core.database
            .readers()
            .read("queues", deadline, browse::queues)
            .await
    }

    async fn lag(&self, subscribe: &Subscribe) -> Result<Option<u64>> {
        let deadline = self.deadline();
        let core = self.core("lag", deadline).await?;
        let (subscribe, now) = (subscribe.clone(), self.clock.now().unix_micros());
        core.database
            .readers()
            .read("lag", deadline, move |connection| {
                lag::lag(connection, &subscribe, now)
            })
            .await
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        let before = self.connection.send_replace(Connection::Closed);
        let core = match &before {
            Connection::Open(core) => Some(&**core),
            Connection::Not | Connection::Closed => None,
        };
        self.end_consumers(core);
        self.tasks.stop();
    }
}

fn disconnected(operation: &'static str) -> Error {
    Error::cancelled("the embedded broker was disconnected").with_operation(operation)
}

fn wish(subscribe: Subscribe) -> Result<Wish> {
    if let Some(group) = &subscribe.group {
        if let Source::Queue(queue) = &subscribe.source {
            return Err(Error::invalid(format!(
                "queue {queue} has no groups: its consumers compete by themselves"
            )));
        }
        TopicName::new(group)?;
    }
    Ok(Wish {
        source: subscribe.source,
        group: subscribe.group,
        start: subscribe.start,
        prefetch: subscribe.prefetch.max(1) as usize,
        lease: micros(subscribe.lease).max(1000),
    })
}

/// Gets a subscription its place, and keeps trying.
struct Attaching {
    consumer: Arc<Consumer>,
    consumers: Consumers,
    connection: watch::Receiver<Connection>,
    request_timeout: Duration,
    max_message_size: usize,
}

impl Attaching {
    async fn run(mut self, tried: oneshot::Sender<()>) {
        let mut tried = Some(tried);
        while self.consumer.stage() == Stage::Open {
            let Some(core) = opened(&mut self.connection).await else {
                return;
            };
            let outcome = self.attach(&core).await;
            tried.take().map(|tried| tried.send(()));
            let Err(error) = outcome else { return };
            tracing::warn!(target: "trunkline", source = %self.consumer.wish.source, error = %error.report(), "cannot subscribe yet");
            self.consumer.detached(error.report().to_string());
            drop(core);
            tokio::time::sleep(ATTACH_PAUSE).await;
        }
    }

    async fn attach(&self, core: &Core) -> Result<()> {
        let deadline = Instant::now() + self.request_timeout;
        let consumer = Arc::clone(&self.consumer);
        let nudge = core.feed(&self.consumers, &consumer.clock).await?.clone();
        let liveness = core.database.directory().liveness();
        let process = Arc::clone(liveness.token());
        let manner = Manner::durable("subscribe", deadline);
        let member = core
            .database
            .calls()
            .write(manner, move |tx| {
                let now = consumer.clock.now().unix_micros();
                let (connection, book) = tx.cached::<Book>();
                let member = group::join(connection, book, &consumer.wish, &process, now)?;
                book.save(connection)?;
                // Whether somebody gets a topic's messages may have changed.
                tx.forget_cached();
                Ok(member)
            })
            .await?;
        let attached = Attached {
            member,
            jobs: core.database.queue().clone(),
            outbox: core.outbox.clone(),
            nudge: nudge.clone(),
            max_message_size: self.max_message_size,
        };
        if self.consumer.attach(attached) {
            nudge.now();
        } else {
            settle::remove(&self.consumer);
        }
        Ok(())
    }
}

/// Waits until the broker is connected; `None` when it never will be.
async fn opened(connection: &mut watch::Receiver<Connection>) -> Option<Arc<Core>> {
    let ready = connection
        .wait_for(|connection| !matches!(connection, Connection::Not))
        .await
        .ok()?;
    match &*ready {
        Connection::Open(core) => Some(Arc::clone(core)),
        Connection::Not | Connection::Closed => None,
    }
}
