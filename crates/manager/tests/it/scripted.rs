//! A broker that does what a test wants, and configurations around it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use indexmap::IndexMap;
use tokio::time::Instant;
use trunkline_core::{Error, Result};
use trunkline_discovery::ServiceDiscoveryConfig;
use trunkline_events::EventStoreConfig;
use trunkline_manager::{
    CommunicationConfig, CommunicationManager, CommunicationManagerBuilder, ConfigBuilder,
};
use trunkline_messaging::memory::MemoryBroker;
use trunkline_messaging::{
    AnyBroker, Capabilities, Destination, MessageBroker, MessageBrokerConfig, Publish, Receipt,
    Subscribe, Subscription,
};
use trunkline_telemetry::{Install, LoggingConfig};

/// A broker in memory that is away, hangs or panics when a test wants it. Clones are the same broker.
#[derive(Clone, Default)]
pub(crate) struct Scripted(Arc<Inner>);

#[derive(Default)]
struct Inner {
    broker: MemoryBroker,
    away: AtomicBool,
    hangs: AtomicBool,
    sick: AtomicBool,
    panics: AtomicBool,
    connects: AtomicU32,
    publishes: AtomicU32,
    /// Connects that fail although it is not away.
    refusals: AtomicU32,
    log: Log,
}

/// What happened, in order.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn add(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Scripted {
    pub(crate) fn logging(log: &Log) -> Self {
        Self(Arc::new(Inner {
            log: log.clone(),
            ..Inner::default()
        }))
    }

    /// Nobody is there.
    pub(crate) fn leave(&self) -> &Self {
        self.0.away.store(true, Ordering::SeqCst);
        self
    }

    pub(crate) fn come_back(&self) {
        self.0.away.store(false, Ordering::SeqCst);
    }

    /// Takes the connection and does not answer.
    pub(crate) fn hang(&self) -> &Self {
        self.0.hangs.store(true, Ordering::SeqCst);
        self
    }

    /// Answers that it does not work, though it can be connected to.
    pub(crate) fn fall_ill(&self) -> &Self {
        self.0.sick.store(true, Ordering::SeqCst);
        self
    }

    pub(crate) fn panic(&self, on: bool) {
        self.0.panics.store(on, Ordering::SeqCst);
    }

    pub(crate) fn refuse(&self, connects: u32) -> &Self {
        self.0.refusals.store(connects, Ordering::SeqCst);
        self
    }

    pub(crate) fn connects(&self) -> u32 {
        self.0.connects.load(Ordering::SeqCst)
    }

    /// Attempts to publish, the failed ones too.
    pub(crate) fn publishes(&self) -> u32 {
        self.0.publishes.load(Ordering::SeqCst)
    }

    fn check_script(&self) -> Result<()> {
        assert!(!self.0.panics.load(Ordering::SeqCst), "a driver's bug");
        if self.0.away.load(Ordering::SeqCst) {
            return Err(Error::unavailable("connection refused"));
        }
        Ok(())
    }
}

impl MessageBroker for Scripted {
    fn kind(&self) -> &'static str {
        "scripted"
    }

    fn capabilities(&self) -> Capabilities {
        self.0.broker.capabilities()
    }

    async fn connect(&self) -> Result<()> {
        self.0.connects.fetch_add(1, Ordering::SeqCst);
        if self.0.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.check_script()?;
        let one_less = |left: u32| left.checked_sub(1);
        let refusals = &self.0.refusals;
        if refusals
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
            .is_ok()
        {
            return Err(Error::unavailable("too many connections"));
        }
        self.0.log.add("broker connected");
        self.0.broker.connect().await
    }

    async fn disconnect(&self, deadline: Instant) -> Result<()> {
        if self.0.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.0.log.add("broker closed");
        self.0.broker.disconnect(deadline).await
    }

    async fn health_check(&self) -> Result<()> {
        self.check_script()?;
        if self.0.sick.load(Ordering::SeqCst) {
            return Err(Error::exhausted("the disk is full"));
        }
        self.0.broker.health_check().await
    }

    async fn publish(&self, publish: Publish) -> Result<Receipt> {
        self.0.publishes.fetch_add(1, Ordering::SeqCst);
        self.check_script()?;
        self.0.broker.publish(publish).await
    }

    async fn declare(&self, destination: Destination) -> Result<()> {
        self.0.broker.declare(destination).await
    }

    async fn subscribe(&self, subscribe: Subscribe) -> Result<Subscription> {
        self.0.broker.subscribe(subscribe).await
    }
}

/// No brokers, everything else in memory, and no subscriber installed.
pub(crate) fn config() -> ConfigBuilder {
    CommunicationConfig::builder()
        .service_name("order-service")
        .message_brokers(IndexMap::new())
        .service_discovery(ServiceDiscoveryConfig::new("memory"))
        .event_store(EventStoreConfig::memory())
        .logging(LoggingConfig::default().with_install(Install::Never))
}

/// The same without discovery and event store.
pub(crate) fn brokers_only() -> ConfigBuilder {
    let mut discovery = ServiceDiscoveryConfig::static_only();
    discovery.enabled = false;
    config()
        .service_discovery(discovery)
        .event_store(EventStoreConfig::new("none"))
}

/// One broker in memory, named `default`.
pub(crate) fn in_memory() -> CommunicationManager {
    let config = config().message_broker("default", MessageBrokerConfig::memory());
    CommunicationManager::new(config.build().unwrap())
}

/// A manager whose brokers of the kind `scripted` are this one.
pub(crate) fn with_scripted(
    config: ConfigBuilder,
    broker: &Scripted,
) -> CommunicationManagerBuilder {
    let broker = broker.clone();
    CommunicationManager::builder(config.build().unwrap())
        .broker("scripted", move |_| Ok(AnyBroker::new(broker.clone())))
}

/// A required scripted broker `orders`.
pub(crate) fn orders(broker: &Scripted) -> CommunicationManager {
    let settings = MessageBrokerConfig::new("scripted");
    with_scripted(config().message_broker("orders", settings), broker).build()
}

/// An optional scripted broker `orders`.
pub(crate) fn optional_orders(broker: &Scripted) -> CommunicationManager {
    let settings = MessageBrokerConfig::new("scripted").with_required(false);
    with_scripted(config().message_broker("orders", settings), broker).build()
}
