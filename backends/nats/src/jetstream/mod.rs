//! JetStream: messages are kept until they are done, at least once.

mod api;
mod browse;
mod doubt;
mod inlet;
mod lag;
mod ledger;
mod pace;
mod publish;
mod pump;
mod topology;
mod untried;

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_nats::{Client, Subject};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use trunkline_core::task::Scope;
use trunkline_core::{Error, ErrorKind, Result};
use trunkline_messaging::{
    Browse, BrowsePage, Capabilities, Destination, MessageBroker, MessageBrokerConfig, Publish,
    QueueInfo, Receipt, Source, Subscribe, Subscription, SubscriptionState, TopicName,
};

use crate::config::{Mode, NatsConfig};
use crate::error::{closed, code};
use crate::link::Link;
use crate::names::Names;
use api::Api;
use browse::Browser;
use inlet::{Deliveries, Inlet};
use ledger::{Ledger, Word};
use publish::Publisher;
use pump::Pump;
use topology::Place;

const KIND: &str = "nats";
/// How long `subscribe` waits for the outcome of the first attempt to attach.
const FIRST_ATTEMPT: Duration = Duration::from_secs(5);

/// A durable message broker on NATS JetStream.
///
/// Topics are subjects of one stream, a group is a durable pull consumer of it, a queue is a stream of its own in which
/// messages are kept until they are done. A publish is confirmed when the server has stored it; one that is repeated is
/// recognised by the server.
///
/// ```no_run
/// use tokio::time::{Duration, Instant};
/// use trunkline_messaging::{Destination, Message, MessageBroker, Publish, Subscribe, TopicName};
/// use trunkline_nats::{JetStreamBroker, NatsConfig};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
/// let broker = JetStreamBroker::new(NatsConfig::new("localhost:4222"));
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
pub struct JetStreamBroker {
    link: Arc<Link>,
    api: Api,
    names: Names,
    publisher: Publisher,
    ledger: Arc<Ledger>,
    /// Taken by the task that says them.
    words: Mutex<Option<mpsc::UnboundedReceiver<(Subject, Word)>>>,
    inlets: Mutex<Vec<Weak<Inlet>>>,
    /// Of subscriptions.
    pumps: Scope,
    /// What outlives them.
    clerk: Scope,
}

impl JetStreamBroker {
    /// A broker that is not connected yet.
    #[must_use]
    pub fn new(config: NatsConfig) -> Self {
        let names = Names {
            topics: Some(
                config
                    .topic_prefix
                    .clone()
                    .unwrap_or_else(|| "topics".to_owned()),
            ),
            queues: config.queue_prefix.clone(),
            stream: config.stream.clone(),
        };
        let link = Link::new(config);
        let api = Api::new(Arc::clone(&link));
        let publisher = Publisher::new(Arc::clone(&link), api.clone(), names.clone());
        let (ledger, words) = Ledger::new();
        Self {
            link,
            api,
            names,
            publisher,
            ledger,
            words: Mutex::new(Some(words)),
            inlets: Mutex::default(),
            pumps: Scope::new(),
            clerk: Scope::new(),
        }
    }

    /// A broker by the settings of any broker.
    ///
    /// # Errors
    /// `Config` when they are wrong, or mean core NATS.
    pub fn from_config(config: &MessageBrokerConfig) -> Result<Self> {
        let config = NatsConfig::from_neutral(config)?;
        if config.mode == Mode::Core {
            return Err(Error::config("`mode` is `core`: that is CoreNatsBroker"));
        }
        Ok(Self::new(config))
    }

    /// The driver's client, for what this does not offer; `None` while there is no connection. It is another one after some
    /// reconnections, so do not keep it.
    #[must_use]
    pub fn client(&self) -> Option<Client> {
        self.link.now().map(|up| up.client)
    }

    /// Begins the task that every subscription needs.
    fn start_clerk(&self) {
        let words = self
            .words
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(words) = words {
            let (ledger, link) = (Arc::clone(&self.ledger), Arc::clone(&self.link));
            let keep = ledger::keep(ledger, link, words, self.clerk.token());
            self.clerk.spawn("nats settlements", keep);
        }
    }

    fn browser(&self) -> Browser<'_> {
        Browser {
            link: &self.link,
            api: &self.api,
            names: &self.names,
        }
    }

    fn check_open(&self) -> Result<()> {
        if self.link.is_closed() {
            Err(closed())
        } else {
            Ok(())
        }
    }

    fn inlets(&self) -> Vec<Arc<Inlet>> {
        let inlets = self.inlets.lock().unwrap_or_else(PoisonError::into_inner);
        inlets.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Drop for JetStreamBroker {
    /// Without a farewell: what is held comes again when its lease is over.
    fn drop(&mut self) {
        for inlet in self.inlets() {
            inlet.close();
        }
        self.pumps.stop();
        self.clerk.stop();
    }
}

impl MessageBroker for JetStreamBroker {
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
        capabilities.expiry = true;
        capabilities.replay = true;
        capabilities.lease_extension = true;
        capabilities.browse = true;
        capabilities.lag = true;
        capabilities.max_message_size = Some(self.link.config().max_message_size.as_usize());
        capabilities
    }

    async fn connect(&self) -> Result<()> {
        self.check_open()?;
        let problems = self.link.config().problems("nats");
        if !problems.is_empty() {
            return Err(Error::config(problems.join("; ")).with_operation("connect"));
        }
        self.link
            .connect()
            .await
            .map_err(|error| error.with_operation("connect"))
    }

    async fn disconnect(&self, deadline: Instant) -> Result<()> {
        let last = self.link.now();
        let inlets = self.inlets();
        for inlet in &inlets {
            inlet.close();
        }
        // Pulls end first: what is given back before could still come back to them.
        let late = self.pumps.shutdown(deadline).await;
        let mut held = self.ledger.close();
        let fetched = inlets.iter().flat_map(|inlet| inlet.take_back());
        held.extend(fetched.map(|fetched| fetched.token.reply));
        let mut flushed = Ok(());
        if let Some(up) = &last {
            for reply in held {
                ledger::say(up, reply, Word::Nak(None)).await;
            }
        }
        let left = self.clerk.shutdown(deadline).await;
        if let Some(up) = last {
            let flush = tokio::time::timeout_at(deadline, up.client.flush()).await;
            if flush.is_err() {
                flushed = Err(Error::timeout(
                    "the server did not take everything by the deadline",
                ));
            }
        }
        let kept = self.link.close(deadline).await;
        if late + left + kept > 0 && flushed.is_ok() {
            flushed = Err(Error::timeout("the broker was not done at the deadline"));
        }
        flushed.map_err(|error: Error| error.with_operation("disconnect"))
    }

    async fn health_check(&self) -> Result<()> {
        self.check_open()?;
        let deadline = self
            .link
            .deadline()
            .min(Instant::now() + Duration::from_secs(10));
        let Some(up) = self.link.now() else {
            return Err(self.link.down());
        };
        let account: serde_json::Value = self
            .api
            .ask(&up, deadline, "INFO", &serde_json::Value::Null)
            .await?;
        tracing::trace!(target: "trunkline", broker = KIND, %account, "healthy");
        Ok(())
    }

    async fn publish(&self, publish: Publish) -> Result<Receipt> {
        let outgoing = self.publisher.prepare(publish, &self.capabilities())?;
        self.publisher.send(&outgoing, self.link.deadline()).await
    }

    async fn publish_batch(&self, batch: Vec<Publish>) -> Vec<Result<Receipt>> {
        let (can, deadline) = (self.capabilities(), self.link.deadline());
        let prepared: Vec<_> = batch
            .into_iter()
            .map(|publish| self.publisher.prepare(publish, &can))
            .collect();
        // Each is sent before the next one, and none waits for the confirm of another. Half of the places at most, so that
        // two batches cannot hold each other up.
        let window = (self.link.config().max_in_flight / 2).max(1) as usize;
        let publisher = &self.publisher;
        let mut outcomes = Vec::with_capacity(prepared.len());
        let mut waiting = FuturesOrdered::new();
        for outgoing in &prepared {
            if waiting.len() >= window {
                outcomes.extend(waiting.next().await);
            }
            let sent =
                match outgoing {
                    Ok(outgoing) => publisher
                        .begin(outgoing, deadline)
                        .await
                        .map(|sent| (outgoing, sent)),
                    Err(error) => Err(Error::new(error.kind(), error.message().to_owned())
                        .with_retry(error.retry())),
                };
            waiting.push_back(async move {
                let (outgoing, sent) = sent?;
                publisher.finish(outgoing, deadline, sent).await
            });
        }
        while let Some(outcome) = waiting.next().await {
            outcomes.push(outcome);
        }
        outcomes
    }

    async fn declare(&self, destination: Destination) -> Result<()> {
        self.check_open()?;
        let deadline = self.link.deadline();
        let up = self.link.ready(deadline).await?;
        let config = self.link.config();
        match &destination {
            Destination::Topic(_) => {
                topology::ensure_topics(&self.api, &up, deadline, config, &self.names).await?;
            }
            Destination::Queue(queue) => {
                let stream = self.names.queue_stream(queue);
                topology::ensure_queue(&self.api, &up, deadline, config, &self.names, &stream)
                    .await?;
            }
        }
        Ok(())
    }

    async fn subscribe(&self, subscribe: Subscribe) -> Result<Subscription> {
        self.check_open()?;
        if let Some(group) = &subscribe.group {
            TopicName::new(group)?;
            if matches!(subscribe.source, Source::Queue(_)) {
                return Err(Error::invalid(
                    "a queue has no groups: all its consumers compete",
                ));
            }
        }
        self.start_clerk();
        let there = self.link.now().is_some();
        let reason = match there {
            true => "its place is being made".to_owned(),
            false => self.link.down().to_string(),
        };
        let state = watch::Sender::new(SubscriptionState::Detached { reason });
        let inlet = Inlet::new(subscribe.prefetch, subscribe.lease);
        {
            let mut inlets = self.inlets.lock().unwrap_or_else(PoisonError::into_inner);
            inlets.retain(|inlet| inlet.strong_count() > 0);
            inlets.push(Arc::downgrade(&inlet));
        }
        let mut watched = state.subscribe();
        watched.mark_unchanged();
        let pump = Pump {
            api: self.api.clone(),
            link: Arc::clone(&self.link),
            names: self.names.clone(),
            place: Place::new(&self.names, &subscribe),
            group: subscribe.group.clone(),
            lease: subscribe.lease,
            inlet: Arc::clone(&inlet),
            ledger: Arc::clone(&self.ledger),
            state,
            stop: self.pumps.token(),
        };
        self.pumps.spawn("nats subscription", pump.run());
        let deliveries = Deliveries {
            inlet,
            ledger: Arc::clone(&self.ledger),
            link: Arc::clone(&self.link),
        };
        let subscription = Subscription::new(deliveries, watched.clone());
        if there {
            // With a connection it is a matter of moments; whoever publishes next expects that it is there.
            drop(tokio::time::timeout(FIRST_ATTEMPT, watched.changed()).await);
        }
        Ok(subscription)
    }

    async fn browse(&self, browse: Browse) -> Result<BrowsePage> {
        self.check_open()?;
        self.browser().page(&browse, self.link.deadline()).await
    }

    async fn remove(&self, queue: TopicName, positions: Vec<u64>) -> Result<u64> {
        self.check_open()?;
        let deadline = self.link.deadline();
        let stream = self.names.queue_stream(&queue);
        let mut removed = 0;
        for position in positions {
            let up = self.link.ready(deadline).await?;
            match self
                .api
                .delete_message(&up, deadline, &stream, position)
                .await
            {
                Ok(()) => {
                    removed += 1;
                    self.ledger.removed(&stream, position);
                }
                Err(error) if api::is(&error, &[code::STREAM_NOT_FOUND]) => {
                    return Err(Error::not_found(format!("there is no queue `{queue}`")));
                }
                // "no message found", under one number or another.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if api::is(&error, &[10043, 10057]) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    async fn queues(&self) -> Result<Vec<QueueInfo>> {
        self.check_open()?;
        self.browser().queues(self.link.deadline()).await
    }

    async fn lag(&self, subscribe: &Subscribe) -> Result<Option<u64>> {
        self.check_open()?;
        let deadline = self.link.deadline();
        lag::of(&self.link, &self.api, &self.names, subscribe, deadline).await
    }
}
