//! Pub/Sub: messages go to whoever listens at the moment, at most once.

mod channel;
mod ear;
mod listen;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trunkline_core::task::Scope;
use trunkline_core::{Clock as _, Error, Result, SystemClock};
use trunkline_messaging::{
    Capabilities, Destination, MessageBroker, Publish, Receipt, Routed, Source, Start, Subscribe,
    Subscription, SubscriptionState, TopicName,
};

use crate::config::{Mode, RedisConfig};
use crate::link::{Failure, Line, Listeners, deadline, line};
use crate::wire::number;

use ear::{Deliveries, Ear};
use listen::Task;

const KIND: &str = "redis";
/// Messages of a batch that are sent at once, and their bytes, at most (one more message than that).
const PIPELINED: (usize, usize) = (256, 1 << 20);
/// How long `subscribe` waits for the outcome of the first attempt to attach.
const FIRST_ATTEMPT: Duration = Duration::from_secs(5);

/// Redis Pub/Sub as a message broker: at most once, to whoever listens at the moment.
///
/// A topic is a channel, `<key_prefix><name>`; a pattern listens to a pattern of channels. A publish returns when the server
/// has passed the message on. There are no groups: every subscription gets a copy. What is published while a subscriber is
/// away, or is too slow, is lost to it.
///
/// ```no_run
/// use trunkline_messaging::{Destination, Message, MessageBroker, Publish, TopicName};
/// use trunkline_redis::{Mode, RedisConfig, RedisPubSubBroker};
///
/// # async fn example() -> trunkline_core::Result<()> {
/// let config = RedisConfig::from_url("redis://localhost:6379?key_prefix=")?.with_mode(Mode::PubSub);
/// let broker = RedisPubSubBroker::new(config)?;
/// broker.connect().await?;
/// let topic = Destination::Topic(TopicName::new("price.changed")?);
/// broker.publish(Publish::new(topic, Message::new("{}"))).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisPubSubBroker(Arc<Core>);

impl fmt::Debug for RedisPubSubBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisPubSubBroker")
            .field("state", &*self.0.line.state().borrow())
            .finish_non_exhaustive()
    }
}

struct Core {
    config: RedisConfig,
    line: Line,
    listeners: Arc<Listeners>,
    /// Held by who begins or ends to listen.
    turn: tokio::sync::Mutex<()>,
    scope: Scope,
    closed: CancellationToken,
}

impl Core {
    fn check_open(&self) -> Result<()> {
        if self.closed.is_cancelled() {
            return Err(Error::cancelled("the broker was disconnected"));
        }
        Ok(())
    }

    fn explain(&self, failure: Failure) -> Error {
        self.check_open().err().unwrap_or_else(|| failure.into())
    }
}

impl RedisPubSubBroker {
    /// A broker with these settings, whatever their mode; connects nothing.
    ///
    /// # Errors
    /// `Config` when the settings are wrong; the message names every problem.
    pub fn new(config: RedisConfig) -> Result<Self> {
        let config = config.with_mode(Mode::PubSub);
        config.check()?;
        let listeners = Arc::new(Listeners::default());
        Ok(Self(Arc::new(Core {
            line: line(&config, Arc::clone(&listeners)),
            config,
            listeners,
            turn: tokio::sync::Mutex::default(),
            scope: Scope::new(),
            closed: CancellationToken::new(),
        })))
    }

    fn checked(&self, publish: Publish) -> Result<Checked> {
        self.0.check_open()?;
        let can = self.capabilities();
        let Destination::Topic(topic) = &publish.destination else {
            can.require(false, KIND, "queues with Pub/Sub; `mode=streams` has them")?;
            return Err(Error::internal("a queue was not refused"));
        };
        can.require(publish.delay.is_none(), KIND, "delays with Pub/Sub")?;
        can.require(publish.expires_in.is_none(), KIND, "expiry with Pub/Sub")?;
        can.require(!publish.mandatory, KIND, "mandatory with Pub/Sub")?;
        let (size, largest) = (publish.message.size(), self.0.config.max_message_size);
        if size > largest.as_usize() {
            return Err(Error::invalid(format!(
                "the message has {size} bytes, and the largest may have {}",
                largest.bytes()
            )));
        }
        let channel = channel::of_topic(&self.0.config.key_prefix, topic);
        let mut message = publish.message;
        message
            .published_at
            .get_or_insert_with(|| SystemClock.now());
        let bytes = wire::write(&message)?;
        let id = message.id;
        Ok(Checked { id, channel, bytes })
    }

    /// Publishes some that were checked, in their order: one outcome for each.
    async fn send(&self, some: Vec<Checked>, until: Instant) -> Vec<Result<Receipt>> {
        let core = &self.0;
        let mut commands = redis::Pipeline::with_capacity(some.len());
        let mut ids = Vec::with_capacity(some.len());
        for Checked { id, channel, bytes } in some {
            commands.cmd("PUBLISH").arg(channel).arg(bytes);
            ids.push(id);
        }
        let told = async {
            let link = crate::link::live(&core.line, until).await?;
            Ok(link.ask_all(&commands, until).await?)
        };
        let told: Result<Vec<Result<redis::Value, Failure>>> = told.await;
        match told {
            Ok(told) => {
                let each = ids.into_iter().zip(told);
                each.map(|(id, told)| self.receipt(id, told)).collect()
            }
            Err(error) => {
                let error = core.check_open().err().unwrap_or(error);
                let (kind, retry, text) = (error.kind(), error.retry(), error.message().to_owned());
                let mut first = Some(error);
                let again = || Error::new(kind, text.clone()).with_retry(retry);
                ids.iter()
                    .map(|_| Err(first.take().unwrap_or_else(again)))
                    .collect()
            }
        }
    }

    fn receipt(&self, id: String, told: Result<redis::Value, Failure>) -> Result<Receipt> {
        let heard = number(&told.map_err(|failure| self.0.explain(failure))?)?;
        // Some of those who heard it may have listened to a pattern that is wider than what they want.
        let routed = if heard == 0 {
            Routed::No
        } else {
            Routed::Unknown
        };
        Ok(Receipt::new(id, routed))
    }
}

/// A message that may be published.
struct Checked {
    id: String,
    channel: String,
    bytes: Vec<u8>,
}

impl MessageBroker for RedisPubSubBroker {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn capabilities(&self) -> Capabilities {
        let mut can = Capabilities::none();
        can.shared = true;
        can.wildcards = true;
        can.max_message_size = Some(self.0.config.max_message_size.as_usize());
        can
    }

    async fn connect(&self) -> Result<()> {
        self.0.check_open()?;
        self.0.line.connect().await
    }

    async fn disconnect(&self, deadline: Instant) -> Result<()> {
        let core = &self.0;
        if core.closed.is_cancelled() {
            return Ok(());
        }
        core.closed.cancel();
        let left = core.scope.shutdown(deadline).await;
        core.line.close(deadline).await?;
        if left > 0 {
            return Err(Error::timeout("not everything had ended by the deadline"));
        }
        Ok(())
    }

    async fn health_check(&self) -> Result<()> {
        self.0.check_open()?;
        // Not for a connection that is to come: health is about now.
        let (link, _) = self.0.line.current()?;
        let until = deadline(self.0.config.heartbeat);
        let answer = link.ask(&redis::cmd("PING"), until).await;
        answer.map(drop).map_err(|failure| self.0.explain(failure))
    }

    async fn publish(&self, publish: Publish) -> Result<Receipt> {
        let mut outcomes = self.publish_batch(vec![publish]).await;
        outcomes
            .pop()
            .unwrap_or_else(|| Err(crate::error::unexpected("a publish")))
    }

    async fn publish_batch(&self, batch: Vec<Publish>) -> Vec<Result<Receipt>> {
        let until = deadline(self.0.config.request_timeout);
        let mut outcomes: Vec<Option<Result<Receipt>>> = Vec::with_capacity(batch.len());
        let (mut some, mut places, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut batch = batch.into_iter().peekable();
        while let Some(publish) = batch.next() {
            match self.checked(publish) {
                Ok(checked) => {
                    bytes += checked.bytes.len();
                    places.push(outcomes.len());
                    outcomes.push(None);
                    some.push(checked);
                }
                Err(error) => outcomes.push(Some(Err(error))),
            }
            let is_full = some.len() >= PIPELINED.0 || bytes >= PIPELINED.1;
            if !some.is_empty() && (is_full || batch.peek().is_none()) {
                bytes = 0;
                let sent = self.send(std::mem::take(&mut some), until).await;
                for (place, outcome) in places.drain(..).zip(sent) {
                    outcomes[place] = Some(outcome);
                }
            }
        }
        outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or_else(|| Err(crate::error::unexpected("a publish"))))
            .collect()
    }

    async fn declare(&self, destination: Destination) -> Result<()> {
        self.0.check_open()?;
        // A channel is there as soon as it is used.
        let topic = matches!(destination, Destination::Topic(_));
        self.capabilities()
            .require(topic, KIND, "queues with Pub/Sub; `mode=streams` has them")
    }

    async fn subscribe(&self, subscribe: Subscribe) -> Result<Subscription> {
        let core = &self.0;
        core.check_open()?;
        let can = self.capabilities();
        let Source::Topics(pattern) = &subscribe.source else {
            can.require(false, KIND, "queues with Pub/Sub; `mode=streams` has them")?;
            return Err(Error::internal("a queue was not refused"));
        };
        if let Some(group) = &subscribe.group {
            TopicName::new(group)?;
            can.require(false, KIND, "groups with Pub/Sub; `mode=streams` has them")?;
        }
        let latest = subscribe.start == Start::Latest;
        can.require(latest, KIND, "replay with Pub/Sub; `mode=streams` has it")?;
        let config = &core.config;
        let prefix = config.key_prefix.clone();
        let channel = channel::of_pattern(&prefix, pattern);
        let room = (
            usize::try_from(config.buffer_messages).unwrap_or(usize::MAX),
            config.buffer_size.as_usize(),
        );
        let ear = Arc::new(Ear::new(prefix, pattern.clone(), room));
        let (there, reason) = match core.line.current() {
            Ok(_) => (true, "the server does not know it yet".to_owned()),
            Err(error) => (false, error.report().to_string()),
        };
        let state = watch::Sender::new(SubscriptionState::Detached { reason });
        let (mut watched, dropped) = (state.subscribe(), CancellationToken::new());
        watched.mark_unchanged();
        let task = Task {
            core: Arc::clone(core),
            ear: Arc::clone(&ear),
            channel,
            state,
            dropped: dropped.clone(),
        };
        let deliveries = Deliveries {
            ear,
            closed: core.closed.clone(),
            dropped,
        };
        let subscription = Subscription::new(deliveries, watched.clone());
        core.scope.spawn("redis subscription", task.run());
        if there {
            // With a connection it is a matter of moments; whoever publishes next expects that it is there.
            drop(tokio::time::timeout(FIRST_ATTEMPT, watched.changed()).await);
        }
        Ok(subscription)
    }
}
