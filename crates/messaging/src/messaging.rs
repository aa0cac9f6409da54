//! One broker with everything above it.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use trunkline_core::health::ComponentHealth;
use trunkline_core::size::ByteSize;
use trunkline_core::{Error, Health, Lifecycle, Propagation, Result, SharedClock};
use trunkline_telemetry::Metrics;

use crate::asyncapi::{AsyncApi, Sent};
use crate::broker::MessageBroker;
use crate::claim::{AnyObjectStore, ClaimCheck, ClaimCheckConfig, FileStore, ObjectStore};
use crate::cloudevents::CloudEventsMode;
use crate::codec::AnyCodec;
use crate::compression::CompressionConfig;
use crate::dead_letters::DeadLetters;
use crate::erased::AnyBroker;
use crate::inbox::AnyInbox;
use crate::message::Receipt;
use crate::patterns::{EventBus, Requester};
use crate::policies::TopicPolicies;
use crate::prefix::Prefix;
use crate::protection::{EncryptionConfig, SigningConfig};
use crate::publisher::{Outgoing, Publisher};
use crate::router::{AnyMiddleware, Middleware, Router, Subscribing};
#[cfg(feature = "json-schema")]
use crate::schema::PayloadSchema;
use crate::schema::SchemaConfig;
use crate::surroundings::Surroundings;
use crate::topic::TopicPattern;
use crate::typed::{Listen, To};

/// One broker with everything above it: publisher, router, requests, event bus, dead letters. Clones are the same.
///
/// As a [`Lifecycle`] it connects the broker, waits for its subscriptions, drains its handlers and disconnects.
#[derive(Clone)]
pub struct Messaging(Arc<Inner>);

struct Inner {
    publisher: Publisher,
    router: Router,
    requester: Requester,
    /// What is said to be published.
    published: Mutex<Vec<Sent>>,
}

impl fmt::Debug for Messaging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messaging")
            .field("broker", self.broker())
            .field("handlers", &self.0.router.handlers().len())
            .finish_non_exhaustive()
    }
}

impl Messaging {
    /// A broker with default settings.
    #[must_use]
    pub fn new(broker: AnyBroker) -> Self {
        Self::builder(broker).build()
    }

    /// Begins with a broker.
    pub fn builder(broker: AnyBroker) -> MessagingBuilder {
        MessagingBuilder {
            around: Surroundings::new(broker),
            request_timeout: Duration::from_secs(30),
        }
    }

    /// The broker, behind its prefix.
    #[must_use]
    pub fn broker(&self) -> &AnyBroker {
        &self.0.publisher.around().broker
    }

    /// Publishes values.
    #[must_use]
    pub fn publisher(&self) -> &Publisher {
        &self.0.publisher
    }

    /// Brings messages to handlers.
    #[must_use]
    pub fn router(&self) -> &Router {
        &self.0.router
    }

    /// Asks over messages.
    #[must_use]
    pub fn requester(&self) -> &Requester {
        &self.0.requester
    }

    /// Events by name.
    #[must_use]
    pub fn event_bus(&self) -> EventBus {
        EventBus::new(self.0.publisher.clone(), self.0.router.clone())
    }

    /// Messages that no attempt could handle.
    #[must_use]
    pub fn dead_letters(&self) -> DeadLetters {
        DeadLetters::new(self.broker().clone())
    }

    /// Says, for the [document](Self::asyncapi) of this service, that messages of a type are published to a topic or queue.
    ///
    /// # Errors
    /// `Invalid` when its name is wrong.
    pub fn publishes<T: JsonSchema, D: To<T>>(&self, to: D) -> Result<()> {
        let sent = Sent::new::<T>(to.destination()?);
        let published = self.0.published.lock();
        published.unwrap_or_else(PoisonError::into_inner).push(sent);
        Ok(())
    }

    pub(crate) fn published(&self) -> Vec<Sent> {
        let published = self.0.published.lock();
        published.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Describes every handler that was begun, and what is said to be [published](Self::publishes), as a document of
    /// AsyncAPI 3.0 of this version of the service. Of which types messages are is added to it.
    #[must_use]
    pub fn asyncapi(&self, version: &str) -> AsyncApi {
        AsyncApi::of(self, version)
    }

    /// Publishes a value and waits for the confirm; see [`Publisher::publish`].
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    ///
    /// # Cancel safety
    /// As [`Publisher::publish`].
    pub fn publish<'a, T, D>(
        &'a self,
        to: D,
        value: &T,
    ) -> impl Future<Output = Result<Receipt>> + Send + use<'a, T, D>
    where
        T: Serialize + ?Sized,
        D: To<T>,
    {
        self.0.publisher.publish(to, value)
    }

    /// Begins a message with options; see [`Publisher::to`].
    #[must_use = "nothing is published before `send`"]
    pub fn to<T, D>(&self, to: D) -> Outgoing<'_, T>
    where
        T: ?Sized,
        D: To<T>,
    {
        self.0.publisher.to(to)
    }

    /// Begins a subscription; see [`Router::subscribe`].
    pub fn subscribe<S: Listen>(&self, source: S) -> Subscribing<'_, S::Payload> {
        self.0.router.subscribe(source)
    }

    /// Asks and waits for the answer; see [`Requester::request`].
    ///
    /// # Errors
    /// As [`Requester::request`].
    ///
    /// # Cancel safety
    /// As [`Requester::request`].
    pub fn request<'a, Q, A, D>(
        &'a self,
        to: D,
        question: &Q,
    ) -> impl Future<Output = Result<A>> + Send + use<'a, Q, A, D>
    where
        Q: Serialize + ?Sized,
        A: DeserializeOwned,
        D: To<Q>,
    {
        self.0.requester.request(to, question)
    }
}

impl Lifecycle for Messaging {
    async fn start(&self) -> Result<()> {
        self.broker().connect().await
    }

    async fn ready(&self) -> Result<()> {
        self.0.router.ready().await
    }

    async fn drain(&self, deadline: Instant) -> Result<()> {
        self.0.router.drain(deadline).await
    }

    async fn shutdown(&self, deadline: Instant) -> Result<()> {
        let drained = self.0.router.drain(deadline).await;
        self.0.requester.shutdown(deadline).await;
        self.broker().disconnect(deadline).await?;
        drained
    }
}

/// Settings of [`Messaging`].
#[must_use = "nothing is made before `build`"]
#[derive(Clone, Debug)]
pub struct MessagingBuilder {
    around: Surroundings,
    request_timeout: Duration,
}

impl MessagingBuilder {
    /// Names the own service: the sender in headers, and the group of handlers that name none.
    pub fn service(mut self, service: &str) -> Self {
        self.around.service = Some(service.into());
        self.around.propagation = self.around.propagation.with_service(service);
        self
    }

    /// Puts a prefix before every topic, queue and group.
    pub fn prefix(mut self, prefix: &Prefix) -> Self {
        self.around.broker = prefix.apply(self.around.broker);
        self
    }

    /// How the context travels.
    pub fn propagation(mut self, propagation: Propagation) -> Self {
        self.around.propagation = propagation;
        self
    }

    /// Where wall time comes from.
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.around.clock = clock;
        self
    }

    /// The format of payloads. Default JSON.
    pub fn codec(mut self, codec: AnyCodec) -> Self {
        self.around.codec = codec;
        self
    }

    /// How events are written, unless a message says otherwise. Default: in binary mode. Both are read.
    pub fn cloudevents(mut self, mode: CloudEventsMode) -> Self {
        self.around.wire.cloudevents = mode;
        self
    }

    /// Encrypts what is published and opens what arrives.
    ///
    /// # Errors
    /// `Config` when a key cannot be used; `Unsupported` without the feature `protection`.
    pub fn encryption(mut self, config: &EncryptionConfig) -> Result<Self> {
        self.around.wire.keys.encrypt_by(config)?;
        Ok(self)
    }

    /// Signs what is published and verifies what arrives.
    ///
    /// # Errors
    /// As [`MessagingBuilder::encryption`].
    pub fn signing(mut self, config: &SigningConfig) -> Result<Self> {
        self.around.wire.keys.sign_by(config)?;
        Ok(self)
    }

    /// Compresses large payloads, and bounds what becomes of those that arrive compressed.
    ///
    /// # Errors
    /// `Unsupported` without the feature `compression`.
    pub fn compression(mut self, config: &CompressionConfig) -> Result<Self> {
        if !crate::compression::AVAILABLE {
            return Err(Error::unsupported(
                "this build cannot compress messages: it was made without the feature `compression`",
            ));
        }
        self.around.wire.compression = Some(config.clone());
        Ok(self)
    }

    /// Puts large payloads into files beside the broker, and gets those of others from there.
    ///
    /// # Errors
    /// `Config` when a setting is wrong.
    pub fn claim_check(self, config: &ClaimCheckConfig) -> Result<Self> {
        if let Some((key, what)) = config.problems().into_iter().next() {
            return Err(Error::config(format!("{key}: {what}")));
        }
        let clock = self.around.clock.clone();
        let store = FileStore::with_clock(&config.directory, config.keep_for, clock);
        Ok(self.object_store(store.erase(), config.above, config.largest))
    }

    /// Puts payloads of more bytes than `above` into a store beside the broker, and gets those of others from there; of at
    /// most `largest` bytes.
    pub fn object_store(
        mut self,
        store: AnyObjectStore,
        above: ByteSize,
        largest: ByteSize,
    ) -> Self {
        self.around.wire.claim_check = Some(ClaimCheck {
            store,
            above,
            largest,
        });
        self
    }

    /// Which settings hold for which topic.
    pub fn policies(mut self, policies: impl TopicPolicies) -> Self {
        self.around.policies = Arc::new(policies);
        self
    }

    /// Counts under this name of the broker.
    pub fn metrics(mut self, metrics: &Metrics, broker: &str) -> Self {
        self.around.metrics = metrics.messaging(broker);
        self
    }

    /// Makes readiness ask whether every subscription is attached.
    pub fn health(mut self, health: Health) -> Self {
        self.around.health = Some(health);
        self
    }

    /// Shows in this part of the health document what is known of each handler's lag.
    pub fn component(mut self, part: ComponentHealth) -> Self {
        self.around.part = Some(part);
        self
    }

    /// How often the broker is asked how many messages wait for each handler; zero is never. Default 10 s.
    pub fn lag_interval(mut self, interval: Duration) -> Self {
        self.around.lag_interval = interval;
        self
    }

    /// Remembers handled messages, for every handler that does not say otherwise.
    pub fn inbox(mut self, inbox: AnyInbox) -> Self {
        self.around.inbox = Some(inbox);
        self
    }

    /// Adds middleware around every handler, inside of what is there.
    pub fn middleware(mut self, middleware: impl Middleware) -> Self {
        self.around.middleware.push(AnyMiddleware::new(middleware));
        self
    }

    /// Publishes nothing to the topics under a pattern whose payload breaks a JSON Schema: it fails with `Invalid` before
    /// anything is sent. Several that fit a topic apply together; queues have none.
    ///
    /// # Errors
    /// `Invalid` when the pattern is none.
    #[cfg(feature = "json-schema")]
    pub fn schema(mut self, pattern: &str, schema: PayloadSchema) -> Result<Self> {
        let pattern = TopicPattern::new(pattern)?;
        self.around.checks.push((pattern, Arc::new(schema)));
        Ok(self)
    }

    /// Promises that the payloads of the topics under a pattern keep a JSON Schema, at both edges: what breaks it is not
    /// published (`Invalid`, before anything is sent), and what others published is a dead letter at once. Handlers that
    /// have [`upgrades`](Subscribing::upgrades) are given what the upgrades made of it, and that is checked. Several that fit
    /// a topic apply together; queues have none.
    ///
    /// # Errors
    /// `Config` when the file is missing or holds no schema, and without the feature `json-schema`.
    pub fn topic_schema(mut self, pattern: &TopicPattern, schema: &SchemaConfig) -> Result<Self> {
        let check = schema.load().map_err(|error| {
            let what = error.report();
            Error::config(format!("the schema of the topics {pattern}: {what}"))
        })?;
        let around = &mut self.around;
        around.checks.push((pattern.clone(), Arc::clone(&check)));
        around.expected.push((pattern.clone(), check));
        Ok(self)
    }

    /// How long requests wait for answers. Default 30 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Puts it together. Connects nothing.
    #[must_use]
    pub fn build(self) -> Messaging {
        let publisher = Publisher::in_surroundings(self.around);
        let requester = Requester::with_timeout(publisher.clone(), self.request_timeout);
        let router = Router::with_publisher(publisher.clone());
        Messaging(Arc::new(Inner {
            publisher,
            router,
            requester,
            published: Mutex::default(),
        }))
    }
}
