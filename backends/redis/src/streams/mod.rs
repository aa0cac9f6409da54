//! Streams: topics, queues and groups that lose nothing.

mod browse;
mod consume;
mod desk;
mod lag;
mod lane;
mod place;
mod publish;
mod settle;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use redis::Cmd;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trunkline_core::task::Scope;
use trunkline_core::{Context, Error, Result};
use trunkline_messaging::supervisor::LinkState;
use trunkline_messaging::{
    Browse, BrowsePage, Capabilities, Destination, MessageBroker, OrderingGuarantee, Publish,
    QueueInfo, Receipt, Source, Subscribe, Subscription, TopicName,
};

use crate::config::RedisConfig;
use crate::link::{Failure, Line, Link, Listeners, NOTICE, line, millis};
use crate::script::Script;

use desk::{Deliveries, Desk};
use lane::{Lane, Waiting};
use place::Place;
use settle::{Queue, Settler};

/// Redis Streams as a message broker.
///
/// A topic is a stream, `<key_prefix>topic:<name>`; a group is a consumer group of it. A group with a pattern has a stream
/// of its own, `<key_prefix>wild:<pattern>:<group>`, into which publishing copies. A queue is a stream with one group.
/// Each message in hand has a lease with a token; all that belongs together is one script.
///
/// ```no_run
/// use trunkline_messaging::{Destination, Message, MessageBroker, Publish, TopicName};
/// use trunkline_redis::{RedisBroker, RedisConfig};
///
/// # async fn example() -> trunkline_core::Result<()> {
/// let broker = RedisBroker::new(RedisConfig::from_url("redis://localhost:6379/0")?)?;
/// broker.connect().await?;
/// let topic = Destination::Topic(TopicName::new("order.created")?);
/// broker.publish(Publish::new(topic, Message::new("{}"))).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisBroker(Arc<Core>);

impl fmt::Debug for RedisBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBroker")
            .field("state", &*self.0.line.state().borrow())
            .finish_non_exhaustive()
    }
}

/// What was configured.
struct Settings {
    config: RedisConfig,
}

impl Settings {
    fn prefix(&self) -> &str {
        &self.config.key_prefix
    }

    /// Adds the limits, as `read_limits` of the scripts reads them.
    fn limits(&self, command: &mut Cmd) {
        let config = &self.config;
        command
            .arg(config.max_messages)
            .arg(config.keep_messages)
            .arg(millis(config.keep_for))
            .arg(config.max_age.map_or(0, millis));
    }
}

struct Core {
    settings: Settings,
    line: Line,
    listeners: Arc<Listeners>,
    scope: Scope,
    closed: CancellationToken,
    settler: Settler,
    lane: Lane,
    /// Taken by the tasks that work them off, when they begin.
    queues: Mutex<Option<(Queue, Waiting)>>,
    desks: Mutex<Vec<Weak<Desk>>>,
    begun: OnceLock<()>,
}

impl Core {
    fn desks(&self) -> MutexGuard<'_, Vec<Weak<Desk>>> {
        self.desks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, for a caller: waits no longer than it may.
    async fn connection(&self) -> Result<Link> {
        self.check_open()?;
        let deadline = crate::link::deadline(self.settings.config.request_timeout);
        crate::link::live(&self.line, deadline).await
    }

    /// The connection, for a task of ours: waits as long as it takes. Fails when the broker is disconnected.
    async fn link(&self) -> Result<Link> {
        let mut state: watch::Receiver<LinkState> = self.line.state();
        loop {
            match self.line.current() {
                Ok((link, _)) if !link.is_gone() => return Ok(link),
                Ok(_) => {
                    tokio::time::sleep(NOTICE).await;
                    continue;
                }
                Err(error) if error.kind() == trunkline_core::ErrorKind::Cancelled => {
                    return Err(error);
                }
                Err(_) => {}
            }
            let up = state.wait_for(|state| matches!(state, LinkState::Up | LinkState::Closed));
            if up.await.is_err() {
                return Err(cancelled());
            }
        }
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.is_cancelled() {
            return Err(cancelled());
        }
        Ok(())
    }

    /// A disconnected broker says so, whatever its connection says.
    fn explain(&self, failure: Failure) -> Error {
        self.check_open().err().unwrap_or_else(|| failure.into())
    }

    async fn run(&self, script: Script, fill: impl Fn(&mut Cmd)) -> Result<redis::Value> {
        let link = self.connection().await?;
        let deadline = crate::link::deadline(self.settings.config.request_timeout);
        let outcome = link.run(script, self.settings.prefix(), deadline, fill);
        outcome.await.map_err(|failure| self.explain(failure))
    }

    async fn ask(&self, command: &Cmd) -> Result<redis::Value> {
        let link = self.connection().await?;
        let deadline = crate::link::deadline(self.settings.config.request_timeout);
        let outcome = link.ask(command, deadline).await;
        outcome.map_err(|failure| self.explain(failure))
    }

    /// Starts the tasks of the whole broker, once.
    fn begin(self: &Arc<Self>) {
        self.begun.get_or_init(|| {
            let queues = self
                .queues
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some((queue, waiting)) = queues {
                self.scope
                    .spawn("redis settlements", settle::work(Arc::clone(self), queue));
                // It serves everybody: the context of whoever came first is not its own.
                let publishing = lane::work(Arc::clone(self), waiting);
                self.scope
                    .spawn("redis publishing", Context::new().scope(publishing));
            }
            self.scope
                .spawn("redis places", consume::sweep(Arc::clone(self)));
        });
    }
}

fn cancelled() -> Error {
    Error::cancelled("the broker was disconnected")
}

impl RedisBroker {
    /// A broker with these settings; connects nothing.
    ///
    /// # Errors
    /// `Config` when the settings are wrong; the message names every problem.
    pub fn new(config: RedisConfig) -> Result<Self> {
        config.check()?;
        let listeners = Arc::new(Listeners::default());
        let closed = CancellationToken::new();
        let line = line(&config, Arc::clone(&listeners));
        let settings = Settings { config };
        let (settler, queue) = Settler::new(&settings, closed.clone());
        let (lane, waiting) = Lane::new();
        Ok(Self(Arc::new(Core {
            settings,
            line,
            listeners,
            scope: Scope::new(),
            closed,
            settler,
            lane,
            queues: Mutex::new(Some((queue, waiting))),
            desks: Mutex::default(),
            begun: OnceLock::new(),
        })))
    }
}

impl MessageBroker for RedisBroker {
    fn kind(&self) -> &'static str {
        "redis"
    }

    fn capabilities(&self) -> Capabilities {
        let mut can = Capabilities::none();
        can.durable = true;
        can.shared = true;
        can.groups = true;
        can.wildcards = true;
        can.queues = true;
        can.redelivery = true;
        can.attempts = true;
        can.delayed_redelivery = true;
        can.delayed_publish = true;
        can.expiry = true;
        can.mandatory = true;
        can.replay = true;
        can.lease_extension = true;
        can.atomic_forward = true;
        can.browse = true;
        can.lag = true;
        can.ordering = OrderingGuarantee::PerKey;
        can.max_message_size = Some(self.0.settings.config.max_message_size.as_usize());
        can
    }

    async fn connect(&self) -> Result<()> {
        self.0.check_open()?;
        self.0.begin();
        self.0.line.connect().await
    }

    async fn disconnect(&self, deadline: Instant) -> Result<()> {
        let core = &self.0;
        if core.closed.is_cancelled() {
            return Ok(());
        }
        core.closed.cancel();
        let (mut unseen, mut seen) = (Vec::new(), Vec::new());
        let desks: Vec<Arc<Desk>> = core
            .desks()
            .drain(..)
            .filter_map(|desk| desk.upgrade())
            .collect();
        for desk in &desks {
            let (ready, out) = desk.close();
            unseen.extend(ready);
            seen.extend(out);
        }
        let left = core.scope.shutdown(deadline).await;
        // What a last fetch has brought.
        for desk in &desks {
            unseen.extend(desk.clear());
        }
        // Without a connection the leases run out by themselves.
        let given_back = match core.line.current() {
            Ok((link, _)) => {
                let given_back = settle::release(core, &link, unseen, seen, deadline).await;
                for desk in desks.iter().filter(|desk| desk.place.temporary) {
                    consume::leave(core, &link, &desk.place, deadline).await;
                }
                given_back
            }
            Err(_) => Ok(()),
        };
        core.line.close(deadline).await?;
        if left > 0 {
            return Err(Error::timeout("not everything had ended by the deadline"));
        }
        given_back
    }

    async fn health_check(&self) -> Result<()> {
        self.0.check_open()?;
        // Not for a connection that is to come: health is about now.
        let (link, _) = self.0.line.current()?;
        let deadline = crate::link::deadline(self.0.settings.config.heartbeat);
        let answer = link.ask(&redis::cmd("PING"), deadline).await;
        answer.map(drop).map_err(|failure| self.0.explain(failure))
    }

    async fn publish(&self, publish: Publish) -> Result<Receipt> {
        publish::one(&self.0, publish).await
    }

    async fn publish_batch(&self, batch: Vec<Publish>) -> Vec<Result<Receipt>> {
        publish::all(&self.0, batch).await
    }

    async fn declare(&self, destination: Destination) -> Result<()> {
        self.0.check_open()?;
        // A topic is there as soon as it is used.
        let Destination::Queue(queue) = destination else {
            return Ok(());
        };
        let declare = Subscribe::queue(queue);
        let place = Place::of(&declare, self.0.settings.prefix());
        let made = self.0.run(Script::Attach, |command| {
            consume::attach_arguments(&place, &place.from(), command);
            command.arg("");
        });
        made.await.map(drop)
    }

    async fn subscribe(&self, subscribe: Subscribe) -> Result<Subscription> {
        let core = &self.0;
        core.check_open()?;
        if let Some(group) = &subscribe.group {
            if matches!(subscribe.source, Source::Queue(_)) {
                return Err(Error::invalid(
                    "a queue has no groups: all its consumers compete",
                ));
            }
            TopicName::new(group)?;
        }
        core.begin();
        let place = Place::of(&subscribe, core.settings.prefix());
        let desk = Arc::new(Desk::new(place, subscribe));
        {
            let mut desks = core.desks();
            desks.retain(|known| known.strong_count() > 0);
            desks.push(Arc::downgrade(&desk));
        }
        let state = desk.state.subscribe();
        core.scope.spawn(
            "redis subscription",
            consume::serve(Arc::clone(core), Arc::clone(&desk)),
        );
        let settler = core.settler.clone();
        let subscription = Subscription::new(
            Deliveries {
                desk: Arc::clone(&desk),
                settler,
            },
            state,
        );
        // Whoever subscribes and then publishes expects to get it, where there is a connection.
        if core.line.current().is_ok() {
            desk.settled_state().await;
        }
        if core.closed.is_cancelled() {
            // It was disconnected meanwhile and has not seen this one.
            drop(desk.close());
            return Err(cancelled());
        }
        Ok(subscription)
    }

    async fn browse(&self, browse: Browse) -> Result<BrowsePage> {
        browse::page(&self.0, browse).await
    }

    async fn remove(&self, queue: TopicName, positions: Vec<u64>) -> Result<u64> {
        browse::remove(&self.0, &queue, &positions).await
    }

    async fn queues(&self) -> Result<Vec<QueueInfo>> {
        browse::queues(&self.0).await
    }

    async fn lag(&self, subscribe: &Subscribe) -> Result<Option<u64>> {
        lag::of(&self.0, subscribe).await
    }
}
