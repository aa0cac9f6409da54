//! From a configuration to the parts of a manager; nothing is connected here.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arc_swap::ArcSwap;
use indexmap::IndexMap;
use trunkline_core::health::ComponentHealth;
use trunkline_core::names::target;
use trunkline_core::task::panic_error;
use trunkline_core::{Health, Propagation, Result};
use trunkline_discovery::{
    AnyRegistry, AnyResolver, Discovery, DiscoveryBuilder, ServiceDiscoveryConfig,
};
use trunkline_events::{AnyEventStore, EventStoreConfig};
use trunkline_messaging::{AnyBroker, MessageBrokerConfig, Messaging, Prefix};
use trunkline_resilience::PolicyRegistry;
use trunkline_telemetry::Metrics;

use crate::CommunicationConfig;
use crate::backends::Backends;
use crate::brokers::{BrokerPart, MissingPart};
use crate::builder::CommunicationManagerBuilder;
use crate::circuit_metrics::CircuitMetrics;
use crate::component::{Component, Part};
use crate::http::{HttpClients, Probing};
use crate::messaging::Configured;
use crate::named::{DEFAULT, Missing, Named};
use crate::policies::{CurrentConfig, Policies};
use crate::prefix::Prefixed;
use crate::stores::{DiscoveryPart, StorePart};

pub(crate) const DISCOVERY: &str = "service_discovery";
pub(crate) const EVENT_STORE: &str = "event_store";

/// What a configuration makes.
pub(crate) struct Assembled {
    pub(crate) current: CurrentConfig,
    /// The policies of publishing to all brokers.
    pub(crate) publishing: Policies,
    pub(crate) http: Arc<HttpClients>,
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

    /// Whether instances can be announced.
    #[cfg(feature = "server")]
    pub(crate) fn has_registry(&self) -> bool {
        self.components.iter().any(|part| part.key() == DISCOVERY)
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

pub(crate) fn broker_key(name: &str) -> String {
    format!("message_broker_{name}")
}

/// Makes every part; one that cannot be made says why when it is started and when it is asked for.
pub(crate) fn assemble(builder: &CommunicationManagerBuilder, health: &Health) -> Assembled {
    let config = &builder.config;
    let current = Arc::new(ArcSwap::from_pointee(config.clone()));
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
        policies: Policies::new(
            Arc::clone(&current),
            PolicyRegistry::builder()
                .observer(CircuitMetrics::new(&metrics))
                .build(),
        ),
        current: Arc::clone(&current),
    };
    let publishing = surroundings.policies.clone();
    let brokers = brokers(&surroundings, &backends, &mut components);
    let probing = Probing::new();
    let unconnected = probing
        .add_to(Discovery::builder())
        .metrics(metrics.clone());
    let discovery = discovery(config, &backends, health, unconnected, &mut components);
    let http = Arc::new(HttpClients::new(
        Arc::clone(&current),
        discovery.clone(),
        propagation.clone(),
        metrics.clone(),
        probing,
        health,
    ));
    let parts = Parts {
        components,
        brokers,
        discovery,
        event_store,
        backends,
    };
    Assembled {
        current,
        publishing,
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
        tracing::error!(target: target::MANAGER, error = %error.report(), "the settings of the metrics are wrong; using the defaults");
        Metrics::new()
    });
    metrics.set_detailed(config.detailed_metrics);
    metrics
}

fn propagation(config: &CommunicationConfig) -> Propagation {
    let propagation = Propagation::default()
        .with_correlation_header(&config.logging.correlation_header)
        .with_format(config.logging.correlation_format)
        .with_tracing(config.tracing_on());
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
    policies: Policies,
    current: CurrentConfig,
}

impl Surroundings<'_> {
    fn messaging(
        &self,
        name: &str,
        settings: &MessageBrokerConfig,
        broker: AnyBroker,
        part: ComponentHealth,
    ) -> Result<Messaging> {
        let policies = Configured {
            broker: name.into(),
            config: Arc::clone(&self.current),
            policies: self.policies.clone(),
        };
        let mut messaging = Messaging::builder(broker)
            .propagation(self.propagation.clone())
            .metrics(self.metrics, name)
            .health(self.health.clone())
            .component(part)
            .lag_interval(settings.lag_interval)
            .cloudevents(settings.cloudevents)
            .policies(policies);
        if let Some(compression) = &settings.compression {
            messaging = messaging.compression(compression)?;
        }
        if let Some(claim_check) = &settings.claim_check {
            messaging = messaging.claim_check(claim_check)?;
        }
        if let Some(encryption) = &settings.encryption {
            messaging = messaging.encryption(encryption)?;
        }
        if let Some(signing) = &settings.signing {
            messaging = messaging.signing(signing)?;
        }
        for (pattern, policy) in &self.config.topics {
            if let Some(schema) = &policy.schema {
                messaging = messaging.topic_schema(pattern, schema)?;
            }
        }
        if let Some(service) = &self.config.service.name {
            messaging = messaging.service(service);
        }
        if let Some(prefix) = self.config.prefix_on(settings) {
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
        let kind = format!("message_broker_{}", broker.kind);
        let part = health.register(&broker_key(&name), &name, &kind, broker.required);
        part.set_metadata("connection_url", shown_url(config, &broker));
        part.set_metadata("type", broker.kind.clone());
        part.set_metadata("pool_size", broker.connection_pool_size);
        let made = made(|| {
            let made = backends.broker(&broker)?;
            Ok((
                made.clone(),
                surroundings.messaging(&name, &broker, made, part.clone())?,
            ))
        });
        let (component, entry) = match made {
            Ok((made, messaging)) => (
                component(config, part, broker.required, BrokerPart(made)),
                Ok(BrokerEntry { messaging }),
            ),
            Err(missing) => (
                component(config, part, broker.required, MissingPart(missing.clone())),
                Err(missing),
            ),
        };
        components.push(component);
        named.insert(name, entry);
    }
    named
}

/// What a factory makes; one that panics has made nothing.
fn made<T>(make: impl FnOnce() -> Result<T>) -> Result<T, Missing> {
    let made = catch_unwind(AssertUnwindSafe(make));
    let made = made.unwrap_or_else(|panic| Err(panic_error(panic.as_ref())));
    made.map_err(|error| Missing::new(&error))
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
    builder: DiscoveryBuilder,
    components: &mut Vec<Arc<Component>>,
) -> Result<Discovery, Missing> {
    let settings = match &config.service_discovery {
        Some(settings) => settings.clone(),
        None if cfg!(feature = "embedded") => ServiceDiscoveryConfig::default(),
        None => ServiceDiscoveryConfig::static_only(),
    };
    let mut builder = builder
        .config(&settings)
        .services(config.services.clone())
        .map_err(|error| Missing::new(&error))?;
    if let Some(zone) = &config.service.zone {
        builder = builder.zone(zone.as_str());
    }
    if !settings.enabled {
        return Ok(builder.build());
    }
    let kind = format!("service_discovery_{}", settings.kind);
    let part = health.register(DISCOVERY, DISCOVERY, &kind, settings.required);
    part.set_metadata("type", settings.kind.clone());
    note_security(config, &part);
    let (component, discovery) = match made(|| backends.discovery(&settings)) {
        Ok(opened) => {
            let (registry, resolver) = if only_finds(&settings.kind) {
                (opened.registry, opened.resolver)
            } else {
                prefixed(config, opened.registry, opened.resolver)
            };
            if let Some(several) = &opened.several {
                builder = builder.several(several);
            }
            let discovery = builder
                .registry(registry)
                .resolver(resolver)
                .component(part.clone())
                .build();
            let behind = DiscoveryPart {
                discovery: discovery.clone(),
                close: opened.close,
                shown: part.clone(),
            };
            let component = component(config, part, settings.required, behind);
            (component, Ok(discovery))
        }
        Err(missing) => {
            let behind = MissingPart(missing.clone());
            let component = component(config, part, settings.required, behind);
            (component, Err(missing))
        }
    };
    components.push(component);
    discovery
}

/// Whether services are called there as others named them, who know nothing of a prefix: `staging.users` would be the
/// service `staging` of the namespace `users`.
fn only_finds(kind: &str) -> bool {
    matches!(kind, "kubernetes" | "dns")
}

fn prefixed(
    config: &CommunicationConfig,
    registry: AnyRegistry,
    resolver: AnyResolver,
) -> (AnyRegistry, AnyResolver) {
    match config.effective_prefix() {
        None => (registry, resolver),
        Some(prefix) => (
            AnyRegistry::new(Prefixed::new(registry, &prefix)),
            AnyResolver::new(Prefixed::new(resolver, &prefix)),
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
    let (component, store) = match made(|| backends.event_store(&settings)) {
        Ok(opened) => {
            let store = opened.store.clone();
            let component = component(config, part, settings.required, StorePart(opened));
            (component, Ok(store))
        }
        Err(missing) => {
            let behind = MissingPart(missing.clone());
            let component = component(config, part, settings.required, behind);
            (component, Err(missing))
        }
    };
    components.push(component);
    Some(store)
}

/// asked for, and nothing there to apply.
fn note_security(config: &CommunicationConfig, part: &ComponentHealth) {
    if config.security_integration {
        part.set_metadata("security_integration", "inactive: no security section");
    }
}

fn component(
    config: &CommunicationConfig,
    health: ComponentHealth,
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
