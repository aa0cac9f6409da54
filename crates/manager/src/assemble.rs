//! From a configuration to the parts of a manager; nothing is connected here.

use std::sync::Arc;

use indexmap::IndexMap;
use tokio::time::Instant;
use trunkline_core::{BoxFuture, Health, Propagation, Result};
use trunkline_discovery::{AnyRegistry, AnyResolver, Discovery, Registry, ServiceDiscoveryConfig};
use trunkline_events::{AnyEventStore, EventStore, EventStoreConfig};
use trunkline_messaging::{AnyBroker, MessageBrokerConfig, Messaging, Prefix};
use trunkline_resilience::PolicyRegistry;
use trunkline_telemetry::Metrics;

use crate::CommunicationConfig;
use crate::backends::Backends;
use crate::brokers::{BrokerPart, MissingPart};
use crate::builder::CommunicationManagerBuilder;
use crate::component::{Component, Finding, Part};
use crate::messaging::Configured;
use crate::named::{DEFAULT, Missing, Named};
use crate::prefix::Prefixed;

pub(crate) const DISCOVERY: &str = "service_discovery";
pub(crate) const EVENT_STORE: &str = "event_store";

/// What a configuration makes.
pub(crate) struct Assembled {
    #[cfg(feature = "http")]
    pub(crate) http: Arc<crate::http::HttpClients>,
    pub(crate) metrics: Metrics,
    pub(crate) propagation: Propagation,
    pub(crate) parts: Parts,
}

/// A broker by name.
#[derive(Debug)]
pub(crate) struct BrokerEntry {
    /// With everything above the broker, and behind the prefix.
    pub(crate) messaging: Messaging,
}

/// Everything there is, by name, and the components behind it in the order in which they start.
pub(crate) struct Parts {
    pub(crate) components: Vec<Arc<Component>>,
    pub(crate) brokers: Named<BrokerEntry>,
    pub(crate) discovery: Result<Discovery, Missing>,
    /// Whether instances can be announced.
    pub(crate) has_registry: bool,
    pub(crate) event_store: Option<Result<AnyEventStore, Missing>>,
    pub(crate) backends: Backends,
}

impl Parts {
    /// Stores first, then brokers, then discovery: each may lean on those before.
    pub(crate) fn start_order(&self) -> [Vec<Arc<Component>>; 3] {
        let of = |belongs: fn(&str) -> bool| {
            self.components
                .iter()
                .filter(|part| belongs(part.key()))
                .cloned()
                .collect()
        };
        [
            of(|key| key == EVENT_STORE),
            of(|key| key.starts_with("message_broker_")),
            of(|key| key == DISCOVERY),
        ]
    }

    pub(crate) fn broker_component(&self, name: &str) -> Option<&Arc<Component>> {
        let name = if name == DEFAULT {
            self.brokers.default_name()?
        } else {
            name
        };
        let key = broker_key(name);
        self.components
            .iter()
            .find(|component| component.key() == key)
    }
}

fn broker_key(name: &str) -> String {
    format!("message_broker_{name}")
}

/// Makes every part; one that cannot be made says why when it is started and when it is asked for.
pub(crate) fn assemble(builder: &CommunicationManagerBuilder, health: &Health) -> Assembled {
    let config = &builder.config;
    let backends = Backends::new(&config.embedded.path, builder.brokers.clone());
    let metrics = metrics(config);
    let mut components = Vec::new();
    let event_store = event_store(config, &backends, health, &mut components);
    let propagation = propagation(config);
    let surroundings = Surroundings {
        metrics: &metrics,
        propagation: &propagation,
        health,
        config,
    };
    let brokers = brokers(&surroundings, &backends, &mut components);
    let discovery = discovery(config, &backends, health, &metrics, &mut components);
    #[cfg(feature = "http")]
    let http = Arc::new(crate::http::HttpClients::new(
        Arc::new(config.clone()),
        discovery.clone(),
        propagation.clone(),
        metrics.clone(),
        health,
    ));
    let has_registry = components
        .iter()
        .any(|component| component.key() == DISCOVERY);
    let parts = Parts {
        components,
        brokers,
        discovery,
        has_registry,
        event_store,
        backends,
    };
    Assembled {
        #[cfg(feature = "http")]
        http,
        metrics,
        propagation,
        parts,
    }
}

fn metrics(config: &CommunicationConfig) -> Metrics {
    if !config.metrics_on() {
        return Metrics::disabled();
    }
    let metrics = Metrics::with_config(&config.metrics).unwrap_or_else(|error| {
        tracing::error!(error = %error.report(), "the settings of the metrics are wrong; using the defaults");
        Metrics::new()
    });
    metrics.set_detailed(config.detailed_metrics);
    metrics
}

fn propagation(config: &CommunicationConfig) -> Propagation {
    let propagation = Propagation::default()
        .with_correlation_header(&config.logging.correlation_header)
        .with_format(config.logging.correlation_format);
    match &config.service.name {
        Some(name) => propagation.with_service(name),
        None => propagation,
    }
}

/// What the parts above a broker share.
struct Surroundings<'a> {
    metrics: &'a Metrics,
    propagation: &'a Propagation,
    health: &'a Health,
    config: &'a CommunicationConfig,
}

impl Surroundings<'_> {
    fn messaging(
        &self,
        name: &str,
        settings: &MessageBrokerConfig,
        broker: AnyBroker,
    ) -> Result<Messaging> {
        let shared = Arc::new(self.config.clone());
        let policies = Configured {
            broker: name.to_owned(),
            config: shared,
            policies: PolicyRegistry::default(),
        };
        let mut messaging = Messaging::builder(broker)
            .propagation(self.propagation.clone())
            .metrics(self.metrics, name)
            .health(self.health.clone())
            .policies(policies);
        if let Some(service) = &self.config.service.name {
            messaging = messaging.service(service);
        }
        let prefix = settings.prefix.as_ref().or(self.config.prefix.as_ref());
        if let Some(prefix) = prefix.filter(|prefix| !prefix.is_empty()) {
            messaging = messaging.prefix(&prefix.parse::<Prefix>()?);
        }
        Ok(messaging.build())
    }
}

fn brokers(
    surroundings: &Surroundings<'_>,
    backends: &Backends,
    components: &mut Vec<Arc<Component>>,
) -> Named<BrokerEntry> {
    let (config, health) = (surroundings.config, surroundings.health);
    let mut named = Named::new("message broker");
    let configured = config
        .message_brokers
        .clone()
        .unwrap_or_else(brokers_unless_configured);
    for (name, broker) in configured {
        let made = backends.broker(&broker);
        let kind = format!("message_broker_{}", broker.kind);
        let part = health.register(&broker_key(&name), &name, &kind, broker.required);
        part.set_metadata("connection_url", shown_url(config, &broker));
        part.set_metadata("type", broker.kind.clone());
        part.set_metadata("pool_size", broker.connection_pool_size);
        let component = match &made {
            Ok(made) => component(config, part, broker.required, BrokerPart(made.clone())),
            Err(error) => component(
                config,
                part,
                broker.required,
                MissingPart(Missing::new(error)),
            ),
        };
        components.push(component);
        let messaging = made.and_then(|made| surroundings.messaging(&name, &broker, made));
        let entry = messaging.map(|messaging| BrokerEntry { messaging });
        named.insert(name, entry.map_err(|error| Missing::new(&error)));
    }
    named
}

/// A local broker that names no directory is shown with the one that it shares.
fn shown_url(config: &CommunicationConfig, broker: &MessageBrokerConfig) -> String {
    if broker.kind == "embedded" && broker.connection.path.is_none() {
        return format!("embedded://{}", config.embedded.path.display());
    }
    broker.display_url()
}

fn brokers_unless_configured() -> IndexMap<String, MessageBrokerConfig> {
    let embedded = cfg!(feature = "embedded");
    embedded
        .then(|| (DEFAULT.to_owned(), MessageBrokerConfig::default()))
        .into_iter()
        .collect()
}

fn discovery(
    config: &CommunicationConfig,
    backends: &Backends,
    health: &Health,
    metrics: &Metrics,
    components: &mut Vec<Arc<Component>>,
) -> Result<Discovery, Missing> {
    let settings = match &config.service_discovery {
        Some(settings) => settings.clone(),
        None if cfg!(feature = "embedded") => ServiceDiscoveryConfig::default(),
        None => ServiceDiscoveryConfig::static_only(),
    };
    let builder = Discovery::builder()
        .config(&settings)
        .metrics(metrics.clone());
    let builder = builder
        .services(config.services.clone())
        .map_err(|error| Missing::new(&error))?;
    if !settings.enabled {
        return Ok(builder.build());
    }
    let kind = format!("service_discovery_{}", settings.kind);
    let part = health.register(DISCOVERY, DISCOVERY, &kind, settings.required);
    part.set_metadata("type", settings.kind.clone());
    note_security(config, &part);
    match backends.discovery(&settings) {
        Ok((registry, resolver)) => {
            let (registry, resolver) = prefixed(config, registry, resolver);
            let builder = builder
                .registry(registry.clone())
                .resolver(resolver)
                .component(part.clone());
            components.push(component(
                config,
                part,
                settings.required,
                RegistryPart(registry),
            ));
            Ok(builder.build())
        }
        Err(error) => {
            let missing = Missing::new(&error);
            components.push(component(
                config,
                part,
                settings.required,
                MissingPart(missing.clone()),
            ));
            Err(missing)
        }
    }
}

fn prefixed(
    config: &CommunicationConfig,
    registry: AnyRegistry,
    resolver: AnyResolver,
) -> (AnyRegistry, AnyResolver) {
    match config.prefix.as_deref().filter(|prefix| !prefix.is_empty()) {
        None => (registry, resolver),
        Some(prefix) => (
            AnyRegistry::new(Prefixed::new(registry, prefix)),
            AnyResolver::new(Prefixed::new(resolver, prefix)),
        ),
    }
}

fn event_store(
    config: &CommunicationConfig,
    backends: &Backends,
    health: &Health,
    components: &mut Vec<Arc<Component>>,
) -> Option<Result<AnyEventStore, Missing>> {
    let settings = match &config.event_store {
        Some(settings) => settings.clone(),
        None if cfg!(feature = "embedded") => EventStoreConfig::default(),
        None => return None,
    };
    if settings.kind == "none" {
        return None;
    }
    let kind = format!("event_store_{}", settings.kind);
    let part = health.register(EVENT_STORE, EVENT_STORE, &kind, settings.required);
    part.set_metadata("type", settings.kind.clone());
    note_security(config, &part);
    let made = backends
        .event_store(&settings)
        .map_err(|error| Missing::new(&error));
    components.push(match &made {
        Ok(store) => component(config, part, settings.required, StorePart(store.clone())),
        Err(missing) => component(
            config,
            part,
            settings.required,
            MissingPart(missing.clone()),
        ),
    });
    Some(made)
}

/// asked for, and nothing there to apply.
fn note_security(config: &CommunicationConfig, part: &trunkline_core::health::ComponentHealth) {
    if config.security_integration {
        part.set_metadata("security_integration", "inactive: no security section");
    }
}

fn component(
    config: &CommunicationConfig,
    health: trunkline_core::health::ComponentHealth,
    required: bool,
    part: impl Part,
) -> Arc<Component> {
    Arc::new(Component::new(
        health,
        required,
        config.health.timeout,
        part,
    ))
}

/// A registry as the manager looks after it.
struct RegistryPart(AnyRegistry);

impl Part for RegistryPart {
    fn connect(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.0.health_check())
    }

    fn check(&self) -> BoxFuture<'_, Result<Finding>> {
        Box::pin(async { self.0.health_check().await.map(|()| Finding::Healthy) })
    }

    fn disconnect(&self, _: Instant) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

/// An event store as the manager looks after it.
struct StorePart(AnyEventStore);

impl Part for StorePart {
    fn connect(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.0.health_check())
    }

    fn check(&self) -> BoxFuture<'_, Result<Finding>> {
        Box::pin(async { self.0.health_check().await.map(|()| Finding::Healthy) })
    }

    fn disconnect(&self, _: Instant) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}
