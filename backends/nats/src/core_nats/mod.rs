//! Core NATS: messages go to who listens at the moment, at most once.

mod listen;

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, HeaderValue};
use bytes::Bytes;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, watch};
use tokio::time::Instant;
use trunkline_core::task::Scope;
use trunkline_core::{Clock as _, Error, ErrorKind, Id, Result, Retry, SystemClock};
use trunkline_messaging::{
    Capabilities, Destination, MessageBroker, MessageBrokerConfig, Publish, Receipt, Routed,
    Source, Start, Subscribe, Subscription, SubscriptionState, TopicName,
};

use crate::config::NatsConfig;
use crate::error::closed;
use crate::link::Link;
use crate::names::{self, Names};
use crate::replies::Answer;
use crate::wire;
use listen::{Inbound, Listener};

const KIND: &str = "nats";
/// How long `subscribe` waits for the outcome of the first attempt to attach.
const FIRST_ATTEMPT: Duration = Duration::from_secs(5);

/// A message that was sent, and waits for its confirm.
struct Sent<'a> {
    message: Answer,
    mark: Answer,
    generation: u64,
    _place: SemaphorePermit<'a>,
}

/// A message broker on core NATS: at most once, to whoever listens at the moment.
///
/// A topic is a subject, a group a queue group. A publish returns when the server has passed the message on, and says whether
/// somebody listened. A consumer that does not keep up loses messages: the server holds nothing back.
#[derive(Debug)]
pub struct CoreNatsBroker {
    link: Arc<Link>,
    names: Names,
    places: Semaphore,
    /// A subject that nobody listens to; see [`MessageBroker::publish`].
    nobody: String,
    tasks: Scope,
}

impl CoreNatsBroker {
    /// A broker that is not connected yet.
    #[must_use]
    pub fn new(config: NatsConfig) -> Self {
        let names = Names {
            topics: config.topic_prefix.clone(),
            // There are no queues; no topic has this first segment.
            queues: "$queues".to_owned(),
            stream: String::new(),
        };
        let places = Semaphore::new(config.max_in_flight as usize);
        Self {
            link: Link::new(config),
            names,
            places,
            nobody: format!("_TRUNKLINE.{}", Id::new()),
            tasks: Scope::new(),
        }
    }

    /// A broker by the settings of any broker.
    ///
    /// # Errors
    /// `Config` when they are wrong.
    pub fn from_config(config: &MessageBrokerConfig) -> Result<Self> {
        Ok(Self::new(NatsConfig::from_neutral(config)?))
    }

    /// The driver's client, for what this does not offer; `None` while there is no connection. It is another one after some
    /// reconnections, so do not keep it.
    #[must_use]
    pub fn client(&self) -> Option<Client> {
        self.link.now().map(|up| up.client)
    }

    fn check_open(&self) -> Result<()> {
        if self.link.is_closed() {
            Err(closed())
        } else {
            Ok(())
        }
    }

    /// Sends a message and a question to nobody behind it. The server takes them in their order, and says of each whether
    /// somebody listens: once it has said so of the second, it has passed on the first.
    async fn begin(&self, publish: &Publish, deadline: Instant) -> Result<Sent<'_>> {
        let place = tokio::time::timeout_at(deadline, self.places.acquire()).await;
        let place = match place {
            Ok(Ok(place)) => place,
            Ok(Err(_)) => return Err(closed()),
            Err(_) => {
                let text = "too many publishes wait for their confirms";
                return Err(Error::new(ErrorKind::Exhausted, text).with_retry(Retry::Safe));
            }
        };
        let up = self.link.ready(deadline).await?;
        let message = &publish.message;
        let at = message.published_at.unwrap_or_else(|| SystemClock.now());
        let mut headers = wire::encode(message, at, None);
        headers.insert(wire::CONFIRM.clone(), HeaderValue::from("1"));
        let subject = self.names.subject(&publish.destination);
        let both = async {
            let payload = message.payload.clone();
            let (replies, client) = (&up.replies, &up.client);
            let message = replies
                .send(client, subject, Some(headers), payload)
                .await?;
            let mark = replies.send(client, self.nobody.clone(), None, Bytes::new());
            Ok::<_, Error>((message, mark.await?))
        };
        let (message, mark) = tokio::time::timeout_at(deadline, both)
            .await
            .map_err(|_| {
                Error::timeout("NATS did not take the message in time")
                    .with_retry(Retry::IfIdempotent)
            })??;
        Ok(Sent {
            message,
            mark,
            generation: up.generation,
            _place: place,
        })
    }

    async fn finish(
        &self,
        publish: &Publish,
        deadline: Instant,
        sent: Sent<'_>,
    ) -> Result<Receipt> {
        let Sent {
            mut message,
            mark,
            generation,
            _place,
        } = sent;
        match self.link.answer(generation, deadline, mark).await {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // What the server said of the message came before.
        let routed = match message.get().now_or_never() {
            Some(Err(error)) if error.kind() == ErrorKind::NotFound => Routed::No,
            // Somebody has it, and has not answered, as nobody asked it to; or has, whatever it says; or the connection went
            // after the server had passed it on.
            None | Some(_) => Routed::Yes,
        };
        if routed == Routed::No && publish.mandatory {
            let text = format!("nobody subscribes to {}", publish.destination);
            return Err(Error::not_found(text).with_retry(Retry::Never));
        }
        Ok(Receipt::new(publish.message.id.clone(), routed))
    }

    fn check(&self, publish: &Publish) -> Result<()> {
        self.check_open()?;
        let can = self.capabilities();
        let topic = matches!(publish.destination, Destination::Topic(_));
        can.require(topic, KIND, "queues with core NATS; JetStream has them")?;
        can.require(publish.delay.is_none(), KIND, "delays")?;
        can.require(publish.expires_in.is_none(), KIND, "expiry with core NATS")?;
        let largest = can.max_message_size.unwrap_or(usize::MAX);
        let size = publish.message.size();
        if size > largest {
            return Err(Error::invalid(format!(
                "the message has {size} bytes and the broker takes {largest}"
            )));
        }
        Ok(())
    }
}

impl Drop for CoreNatsBroker {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl MessageBroker for CoreNatsBroker {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::none();
        capabilities.shared = true;
        capabilities.groups = true;
        capabilities.wildcards = true;
        capabilities.mandatory = true;
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
        let last = self.link.forbid();
        let late = self.tasks.shutdown(deadline).await;
        let mut done = Ok(());
        if let Some(up) = last {
            let flush = tokio::time::timeout_at(deadline, up.client.flush()).await;
            if flush.is_err() {
                done = Err(Error::timeout(
                    "the server did not take everything by the deadline",
                ));
            }
        }
        let kept = self.link.close(deadline).await;
        if late + kept > 0 && done.is_ok() {
            done = Err(Error::timeout("the broker was not done at the deadline"));
        }
        done.map_err(|error: Error| error.with_operation("disconnect"))
    }

    async fn health_check(&self) -> Result<()> {
        self.check_open()?;
        let Some(up) = self.link.now() else {
            return Err(self.link.down());
        };
        let deadline = self
            .link
            .deadline()
            .min(Instant::now() + Duration::from_secs(10));
        let nobody = self.nobody.clone();
        match self.link.request(&up, deadline, nobody, Bytes::new()).await {
            // That nobody listens there, the server has said.
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn publish(&self, publish: Publish) -> Result<Receipt> {
        self.check(&publish)?;
        let deadline = self.link.deadline();
        let sent = self.begin(&publish, deadline).await?;
        self.finish(&publish, deadline, sent).await
    }

    async fn publish_batch(&self, batch: Vec<Publish>) -> Vec<Result<Receipt>> {
        let deadline = self.link.deadline();
        // Each is sent before the next one, and none waits for the confirm of another. Half of the places at most, so that
        // two batches cannot hold each other up.
        let window = (self.link.config().max_in_flight / 2).max(1) as usize;
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut waiting = FuturesOrdered::new();
        for publish in &batch {
            if waiting.len() >= window {
                outcomes.extend(waiting.next().await);
            }
            let sent = match self.check(publish) {
                Ok(()) => self.begin(publish, deadline).await,
                Err(error) => Err(error),
            };
            waiting.push_back(async move { self.finish(publish, deadline, sent?).await });
        }
        while let Some(outcome) = waiting.next().await {
            outcomes.push(outcome);
        }
        outcomes
    }

    async fn declare(&self, destination: Destination) -> Result<()> {
        self.check_open()?;
        let topic = matches!(destination, Destination::Topic(_));
        self.capabilities()
            .require(topic, KIND, "queues with core NATS; JetStream has them")
    }

    async fn subscribe(&self, subscribe: Subscribe) -> Result<Subscription> {
        self.check_open()?;
        let can = self.capabilities();
        if let Some(group) = &subscribe.group {
            TopicName::new(group)?;
        }
        can.require(
            subscribe.start == Start::Latest,
            KIND,
            "replay with core NATS",
        )?;
        let Source::Topics(pattern) = &subscribe.source else {
            return Err(Error::unsupported(
                "the nats broker cannot do this: queues with core NATS; JetStream has them",
            ));
        };
        let filters = self.names.filters(pattern);
        let there = self.link.now().is_some();
        let reason = match there {
            true => "the server does not know it yet".to_owned(),
            false => self.link.down().to_string(),
        };
        let state = watch::Sender::new(SubscriptionState::Detached { reason });
        let (mut watched, (sender, receiver)) = (
            state.subscribe(),
            mpsc::channel(subscribe.prefetch.max(1) as usize),
        );
        let inbound = Inbound {
            names: self.names.clone(),
            pattern: pattern.clone(),
            group: subscribe.group.clone(),
            link: Arc::clone(&self.link),
        };
        let listener = Listener {
            link: Arc::clone(&self.link),
            subjects: filters.subjects,
            group: subscribe
                .group
                .as_ref()
                .map(|group| names::group(group, &subscribe.source)),
            nobody: self.nobody.clone(),
            inbound,
            sender,
            state,
            stop: self.tasks.token(),
        };
        watched.mark_unchanged();
        let subscription = Subscription::new(listen::deliveries(receiver), watched.clone());
        self.tasks.spawn("nats subscription", listener.run());
        if there {
            // With a connection it is a matter of moments; whoever publishes next expects that it is there.
            drop(tokio::time::timeout(FIRST_ATTEMPT, watched.changed()).await);
        }
        Ok(subscription)
    }
}
