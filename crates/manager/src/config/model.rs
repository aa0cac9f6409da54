//! The whole configuration as one value.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use trunkline_discovery::{ServiceConfig, ServiceDiscoveryConfig, ServiceName};
use trunkline_events::EventStoreConfig;
use trunkline_messaging::{MessageBrokerConfig, TopicPattern, TopicPolicy};
use trunkline_resilience::PolicyConfig;
use trunkline_telemetry::{LoggingConfig, MetricsConfig};

use super::provenance::Provenance;

/// The whole configuration of one manager.
///
/// It comes from files and the environment ([`CommunicationConfig::load`]) or from code
/// ([`CommunicationConfig::builder`]). `CommunicationConfig::default()` starts with nothing installed: with the feature
/// `embedded`, a broker, a registry and an event store on local disk.
///
/// ```
/// use trunkline_manager::CommunicationConfig;
/// use trunkline_messaging::MessageBrokerConfig;
///
/// let config = CommunicationConfig::builder()
///     .service_name("order-service")
///     .message_broker("default", MessageBrokerConfig::memory())
///     .build()?;
/// assert_eq!(config.service.name.as_deref(), Some("order-service"));
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct CommunicationConfig {
    /// Who this service is.
    pub service: ServiceInfo,
    /// Prefix of topics, queues, groups and service names, such as `staging.`, so that environments that share servers
    /// do not see each other. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "prefix"))]
    pub prefix: Option<String>,
    /// Message brokers by name. Default: absent, which with the feature `embedded` means one embedded broker named
    /// `default`; an empty mapping means none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_brokers: Option<IndexMap<String, MessageBrokerConfig>>,
    /// HTTP clients by name; a single one is the default as well. Default: none, services are called by their names.
    #[cfg(feature = "http")]
    pub http_clients: IndexMap<String, trunkline_http::HttpClientConfig>,
    /// The memory for answers that all HTTP clients share.
    #[cfg(feature = "http")]
    pub response_cache: super::ResponseCacheConfig,
    /// Services by name: a fixed place for those no registry knows, and the policy of calls to them. Default: none.
    #[schemars(with = "IndexMap<String, ServiceConfig>", extend("format" = "services"))]
    pub services: IndexMap<ServiceName, ServiceConfig>,
    /// Where services are found. Default: absent, which with the feature `embedded` means the embedded registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_discovery: Option<ServiceDiscoveryConfig>,
    /// The event store. Default: absent, which with the feature `embedded` means an embedded one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_store: Option<EventStoreConfig>,
    /// Policies by name; `default` is under all others. Default: none.
    pub policies: IndexMap<String, PolicyConfig>,
    /// Settings of topics by pattern, such as `orders.*`; the more specific pattern wins, of two equally
    /// specific ones the later in the alphabet. Default: none.
    #[schemars(with = "IndexMap<String, TopicPolicy>", extend("format" = "topics"))]
    pub topics: IndexMap<TopicPattern, TopicPolicy>,
    /// What is logged, how it looks, and the correlation header.
    pub logging: LoggingConfig,
    /// Settings of the metrics.
    pub metrics: MetricsConfig,
    /// The service's own HTTP side.
    #[cfg(feature = "server")]
    pub server: trunkline_server::ServerConfig,
    /// The API gateway. Default: absent, no gateway.
    #[cfg(feature = "gateway")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<trunkline_gateway::GatewayConfig>,
    /// Health checks of the components.
    pub health: HealthConfig,
    /// What the embedded broker, registry and event store share.
    pub embedded: EmbeddedConfig,
    /// How long a start waits for required components before it fails. Default `30s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub startup_timeout: Duration,
    /// How long a stop lets running requests and handlers finish. Default `25s`, below the 30 s that Kubernetes grants.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub drain_timeout: Duration,
    /// How long a service that stops goes on answering after it has said so, so that callers notice. Default: `1s` where it
    /// is registered, else nothing.
    #[serde(
        with = "trunkline_core::duration::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "Option<trunkline_core::duration::Text>")]
    pub drain_delay: Option<Duration>,
    /// Logs every step of the manager in detail; can be switched while running. Default false.
    pub debug_mode: bool,
    /// Keeps metrics with more labels; can be switched while running. Default false.
    pub detailed_metrics: bool,
    /// Whether components are checked in the background. Default true.
    pub enable_health_checks: bool,
    /// Whether metrics are kept. Default true.
    pub enable_metrics: bool,
    /// Whether calls are traced; nothing is sent unless an exporter is configured. Default true.
    pub enable_tracing: bool,
    /// Whether the `security` section applies to every protocol. Without that section it does nothing. Default true.
    pub security_integration: bool,
    /// Metrics and traces together; logs and health stay. Default true.
    pub observability_enabled: bool,
    /// The profile that was loaded, by the variable `ENVIRONMENT`. Default `development`.
    #[serde(skip)]
    pub environment: String,
    #[serde(skip)]
    pub(crate) provenance: Provenance,
}

impl Default for CommunicationConfig {
    fn default() -> Self {
        Self {
            service: ServiceInfo::default(),
            prefix: None,
            message_brokers: None,
            #[cfg(feature = "http")]
            http_clients: IndexMap::new(),
            #[cfg(feature = "http")]
            response_cache: super::ResponseCacheConfig::default(),
            services: IndexMap::new(),
            service_discovery: None,
            event_store: None,
            policies: IndexMap::new(),
            topics: IndexMap::new(),
            logging: LoggingConfig::default(),
            metrics: MetricsConfig::default(),
            #[cfg(feature = "server")]
            server: trunkline_server::ServerConfig::default(),
            #[cfg(feature = "gateway")]
            gateway: None,
            health: HealthConfig::default(),
            embedded: EmbeddedConfig::default(),
            startup_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(25),
            drain_delay: None,
            debug_mode: false,
            detailed_metrics: false,
            enable_health_checks: true,
            enable_metrics: true,
            enable_tracing: true,
            security_integration: true,
            observability_enabled: true,
            environment: super::profile::DEFAULT.to_owned(),
            provenance: Provenance::default(),
        }
    }
}

/// Who this service is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ServiceInfo {
    /// Its name, for discovery, message headers, logs and traces. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "service-name"))]
    pub name: Option<String>,
    /// Its version, free text. Default `1.0.0`.
    pub version: String,
    /// Where it runs; while a called service has instances in rotation in the same zone, only those are called. Default:
    /// not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Free pairs that its registration carries. Default: none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

impl Default for ServiceInfo {
    fn default() -> Self {
        Self {
            name: None,
            version: "1.0.0".to_owned(),
            zone: None,
            metadata: BTreeMap::new(),
        }
    }
}

/// Health checks of the components.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct HealthConfig {
    /// Time between two checks of a component. Default `30s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub interval: Duration,
    /// Time for one check. Default `5s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub timeout: Duration,
    /// Whether callbacks are told of every failed check, not only of changes. Default false.
    pub on_every_failure: bool,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
            on_every_failure: false,
        }
    }
}

/// What the embedded broker, registry and event store share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct EmbeddedConfig {
    /// Directory on a local disk, shared by the processes that talk to each other. Default `.trunkline` below the
    /// working directory.
    pub path: PathBuf,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::from(".trunkline"),
        }
    }
}
