//! Publishes what was appended.
//!
//! No service writes to its store and to a broker in one breath: it appends, and the relay publishes what was appended,
//! in order, behind a durable checkpoint. A crash in between publishes again, under the same ids.

mod backlog;
mod outgoing;
mod run;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};
use trunkline_core::health::ComponentHealth;
use trunkline_core::task::Scope;
use trunkline_core::{Error, Lifecycle, Propagation, Result, SharedClock, SystemClock};
use trunkline_messaging::{AnyBroker, MessageBroker, TopicName};
use trunkline_telemetry::Metrics;

use crate::config::RelayConfig;
use crate::erased::AnyEventStore;
use crate::event::RecordedEvent;
use crate::store::{EventStore, ReadAll};
use outgoing::Outgoing;
use run::Running;

/// Publishes every event of a store to a broker, once it is appended.
///
/// - **At least once**: an event counts as published when the broker confirmed it and the checkpoint is durable. The
///   message's id is the event's id, so a consumer that remembers ids handles it once.
/// - **In order**: the key of the message is the aggregate's id; of one aggregate, an event is published only when the
///   one before is confirmed. Aggregates do not wait for each other within a batch.
/// - **For ever**: while the broker is away, or refuses, the relay tries again ever more slowly and says so in health:
///   degraded when that may pass by itself, unhealthy when somebody has to help, such as for an event that is larger
///   than the broker takes. No event is ever skipped.
/// - The payload is `event_data` as JSON. Headers carry correlation id and trace of the event, and its other fields as
///   CloudEvents attributes: `ce-type` the event's type, `ce-subject` the aggregate's id, `ce-time` its timestamp.
///
/// Two relays of one name over one store share the work by the checkpoint; what both publish has the same id.
///
/// ```
/// use trunkline_core::Lifecycle;
/// use trunkline_events::{Event, EventStore, MemoryEventStore, Relay, RelayConfig, StreamName};
/// use trunkline_messaging::memory::MemoryBroker;
/// use trunkline_messaging::{MessageBroker, Subscribe, TopicName};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
/// let (store, broker) = (MemoryEventStore::new(), MemoryBroker::default());
/// broker.connect().await?;
/// let topic = TopicName::new("order.created")?;
/// let mut messages = broker.subscribe(Subscribe::topics(topic).with_group("mail")).await?;
///
/// let relay = Relay::new(store.clone(), broker.clone(), &RelayConfig::default())?;
/// relay.start().await?;
/// let created = Event::new("order.created", "42", &serde_json::json!({ "total": 1999 }))?;
/// store.append_event(&StreamName::of("order", "42")?, created.clone()).await?;
///
/// let delivery = messages.next().await.expect("the broker is connected");
/// assert_eq!(delivery.message().id, created.event_id);
/// delivery.ack().await?;
/// # Ok(()) }
/// ```
#[doc(alias = "outbox")]
#[derive(Clone)]
pub struct Relay(Arc<Inner>);

struct Inner {
    store: AnyEventStore,
    broker: AnyBroker,
    config: RelayConfig,
    metrics: Metrics,
    component: Option<ComponentHealth>,
    clock: SharedClock,
    outgoing: Outgoing,
    progress: watch::Sender<RelayProgress>,
    /// There may be something to publish.
    nudge: Notify,
    scope: Scope,
    started: Mutex<bool>,
}

/// How far a relay has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayProgress {
    /// Every event up to this position is published, and the checkpoint durable.
    pub position: u64,
    /// Events published since the start.
    pub published: u64,
    /// At most so many events are appended and not yet published.
    pub lag: u64,
    /// Age of the oldest of them; zero when there is none.
    pub age: Duration,
    /// Why it cannot go on now.
    pub error: Option<String>,
}

impl Relay {
    /// A relay, not started.
    ///
    /// # Errors
    /// `Config` when the configuration is not sound: a name of 1 to 128 bytes, at least one event at once, a topic that
    /// follows the grammar.
    pub fn new(
        store: impl EventStore,
        broker: impl MessageBroker,
        config: &RelayConfig,
    ) -> Result<Self> {
        check(config)?;
        let topic = config.topic.as_deref().map(TopicName::new).transpose();
        let topic = topic.map_err(|error| Error::config(format!("relay.topic: {error}")))?;
        Ok(Self(Arc::new(Inner {
            store: store.erase(),
            broker: broker.erase(),
            config: config.clone(),
            metrics: Metrics::disabled(),
            component: None,
            clock: SystemClock::shared(),
            outgoing: Outgoing::new(topic),
            progress: watch::Sender::new(RelayProgress::default()),
            nudge: Notify::new(),
            scope: Scope::new(),
            started: Mutex::new(false),
        })))
    }

    /// Names the service that publishes, and the headers that carry the context.
    #[must_use]
    pub fn with_propagation(self, propagation: Propagation) -> Self {
        self.edit(|inner| inner.outgoing.propagation = propagation)
    }

    /// Says to which topic an event goes, in place of the configuration. What it refuses, or panics about, stops the
    /// relay at that event.
    #[must_use]
    pub fn with_topic_of<F>(self, topic_of: F) -> Self
    where
        F: Fn(&RecordedEvent) -> Result<TopicName> + Send + Sync + 'static,
    {
        self.edit(|inner| inner.outgoing.topic_of = Box::new(topic_of))
    }

    /// Where it is measured.
    #[must_use]
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        self.edit(|inner| inner.metrics = metrics)
    }

    /// Where it reports how it is.
    #[must_use]
    pub fn with_component(self, component: ComponentHealth) -> Self {
        self.edit(|inner| inner.component = Some(component))
    }

    /// The clock by which events age.
    #[must_use]
    pub fn with_clock(self, clock: SharedClock) -> Self {
        self.edit(|inner| inner.clock = clock)
    }

    /// The name under which the checkpoint is kept.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.config.name
    }

    /// How far it has come.
    #[must_use]
    pub fn progress(&self) -> RelayProgress {
        self.0.progress.borrow().clone()
    }

    /// How far it has come, as a value to watch.
    #[must_use]
    pub fn watch_progress(&self) -> watch::Receiver<RelayProgress> {
        self.0.progress.subscribe()
    }

    /// Waits until everything is published that was appended when this was called.
    ///
    /// # Errors
    /// `Timeout` when it is not by the deadline, saying what is left and why; `Cancelled` when the relay was shut down.
    /// What is left is published after the next start.
    ///
    /// # Cancel safety
    /// Cancel safe: publishing goes on.
    pub async fn flush(&self, deadline: Instant) -> Result<()> {
        let mut progress = self.0.progress.subscribe();
        let stop = self.0.scope.token();
        let flushing = async {
            let head = self.head().await?;
            self.0.nudge.notify_one();
            tokio::select! {
                reached = progress.wait_for(|progress| progress.position >= head) => drop(reached),
                () = stop.cancelled() => return Err(self.was_shut_down()),
            }
            Ok(())
        };
        let flushed = timeout_at(deadline, flushing).await;
        flushed.unwrap_or_else(|_| Err(self.left_over()))
    }

    async fn head(&self) -> Result<u64> {
        let last = ReadAll::after(0).backwards().with_limit(1);
        let last = self.0.store.read_all(last).await?;
        Ok(last.first().map_or(0, |event| event.position))
    }

    fn left_over(&self) -> Error {
        let RelayProgress { lag, error, .. } = self.progress();
        let why = error.map_or_else(String::new, |error| format!(": {error}"));
        Error::timeout(format!(
            "relay {} has up to {lag} events left to publish{why}",
            self.name()
        ))
    }

    fn was_shut_down(&self) -> Error {
        Error::cancelled(format!("relay {} was shut down", self.name()))
    }

    /// Changes a relay that nobody else has yet; one that was shared already stays as it is.
    fn edit(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        match Arc::get_mut(&mut self.0) {
            Some(inner) => change(inner),
            None => tracing::warn!(
                target: "trunkline::events",
                relay = self.name(),
                "a relay that is in use cannot be changed"
            ),
        }
        self
    }
}

fn check(config: &RelayConfig) -> Result<()> {
    if !(1..=128).contains(&config.name.len()) {
        return Err(Error::config("relay.name: use 1 to 128 bytes"));
    }
    if !(1..=10_000).contains(&config.batch_size) {
        return Err(Error::config("relay.batch_size: use 1 to 10000"));
    }
    if config.poll_interval.is_zero() {
        return Err(Error::config("relay.poll_interval: use more than 0 s"));
    }
    Ok(())
}

impl Lifecycle for Relay {
    /// Begins to publish, whether store and broker are there yet or not.
    async fn start(&self) -> Result<()> {
        if self.0.scope.is_stopping() {
            return Err(self.was_shut_down());
        }
        let mut started = self
            .0
            .started
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *started, true) {
            self.0
                .scope
                .spawn("event-relay", Running::new(Arc::clone(&self.0)).run());
        }
        Ok(())
    }

    /// Publishes what was appended so far. A relay that was never started has nothing to finish.
    async fn drain(&self, deadline: Instant) -> Result<()> {
        let started = *self
            .0
            .started
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !started {
            return Ok(());
        }
        self.flush(deadline).await
    }

    /// Stops, and keeps as checkpoint what is confirmed. What is left is published after the next start.
    async fn shutdown(&self, deadline: Instant) -> Result<()> {
        match self.0.scope.shutdown(deadline).await {
            0 => Ok(()),
            _ => Err(Error::timeout(format!(
                "relay {} did not stop in time",
                self.name()
            ))),
        }
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("name", &self.name())
            .field("store", &self.0.store)
            .field("broker", &self.0.broker)
            .field("progress", &self.progress())
            .finish_non_exhaustive()
    }
}
