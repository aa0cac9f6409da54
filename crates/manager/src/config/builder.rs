//! Configuration in code: over the defaults, or over what was loaded.

use std::path::PathBuf;
use std::time::Duration;

use indexmap::IndexMap;
use trunkline_core::Result;
use trunkline_discovery::{ServiceConfig, ServiceDiscoveryConfig, ServiceName};
use trunkline_events::EventStoreConfig;
use trunkline_messaging::{MessageBrokerConfig, TopicPattern, TopicPolicy};
use trunkline_resilience::PolicyConfig;
use trunkline_telemetry::LoggingConfig;

use super::diagnostics::Diagnostic;
use super::model::CommunicationConfig;
use super::place::Place;

impl CommunicationConfig {
    /// Begins with the defaults.
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }

    /// Begins with this configuration: what is set in code wins over every source.
    pub fn into_builder(self) -> ConfigBuilder {
        ConfigBuilder {
            config: self,
            bad_names: Vec::new(),
        }
    }
}

/// Sets a configuration in code. Made by [`CommunicationConfig::builder`] or [`CommunicationConfig::into_builder`].
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `build`"]
pub struct ConfigBuilder {
    config: CommunicationConfig,
    bad_names: Vec<String>,
}

impl ConfigBuilder {
    /// Checks the whole and hands it out.
    ///
    /// # Errors
    /// `Config` with every problem ([`Diagnostics`](super::Diagnostics)) when something cannot be used.
    pub fn build(self) -> Result<CommunicationConfig> {
        let mut found = self.config.check();
        for error in self.bad_names {
            found.push(Diagnostic::error(&Place::code(), error));
        }
        if found.has_errors() {
            return Err(found.into_error());
        }
        Ok(self.config)
    }

    /// Changes what has no method of its own here.
    ///
    /// ```
    /// use trunkline_manager::CommunicationConfig;
    ///
    /// let builder = CommunicationConfig::builder().change(|config| config.debug_mode = true);
    /// assert!(builder.build()?.debug_mode);
    /// # Ok::<(), trunkline_core::Error>(())
    /// ```
    pub fn change(mut self, change: impl FnOnce(&mut CommunicationConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// Names this service.
    pub fn service_name(mut self, name: impl Into<String>) -> Self {
        self.config.service.name = Some(name.into());
        self
    }

    /// Sets the version of this service, free text.
    pub fn service_version(mut self, version: impl Into<String>) -> Self {
        self.config.service.version = version.into();
        self
    }

    /// Sets the prefix of topics, queues, groups and service names.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.config.prefix = Some(prefix.into());
        self
    }

    /// Sets a message broker.
    pub fn message_broker(mut self, name: impl Into<String>, broker: MessageBrokerConfig) -> Self {
        let brokers = self.config.message_brokers.get_or_insert_default();
        brokers.insert(name.into(), broker);
        self
    }

    /// Sets all message brokers; an empty map means none.
    pub fn message_brokers(mut self, brokers: IndexMap<String, MessageBrokerConfig>) -> Self {
        self.config.message_brokers = Some(brokers);
        self
    }

    /// Sets an HTTP client.
    #[cfg(feature = "http")]
    pub fn http_client(
        mut self,
        name: impl Into<String>,
        client: trunkline_http::HttpClientConfig,
    ) -> Self {
        self.config.http_clients.insert(name.into(), client);
        self
    }

    /// Sets a service: its place, if no registry knows it, and the policy of calls to it.
    pub fn service(mut self, name: impl AsRef<str>, service: ServiceConfig) -> Self {
        match ServiceName::new(name) {
            Ok(name) => {
                self.config.services.insert(name, service);
            }
            Err(error) => self.bad_names.push(error.to_string()),
        }
        self
    }

    /// Takes the settings of a service SDK: they become `policies.default`, `service_discovery` and `enable_metrics`.
    #[cfg(feature = "http")]
    #[doc(alias = "sdk_config")]
    pub fn service_sdk(mut self, sdk: &trunkline_http::ServiceSdkConfig) -> Self {
        let said = sdk.policy_config();
        let policy = self
            .config
            .policies
            .entry("default".to_owned())
            .or_default();
        lay(&mut policy.timeout.total, said.timeout.total);
        lay(&mut policy.retry.max_attempts, said.retry.max_attempts);
        let (breaker, cache) = (&mut policy.circuit_breaker, &mut policy.cache);
        lay(&mut breaker.enabled, said.circuit_breaker.enabled);
        lay(&mut cache.enabled, said.cache.enabled);
        let usual = ServiceDiscoveryConfig::default();
        let interval = sdk.health_check_interval;
        let says_discovery =
            !sdk.service_discovery_enabled || interval != usual.health_check.interval;
        if says_discovery || self.config.service_discovery.is_some() {
            let discovery = self.config.service_discovery.get_or_insert(usual);
            discovery.enabled = sdk.service_discovery_enabled;
            discovery.health_check.interval = interval;
        }
        self.config.enable_metrics = sdk.metrics_enabled;
        self
    }

    /// Sets where services are found.
    pub fn service_discovery(mut self, discovery: ServiceDiscoveryConfig) -> Self {
        self.config.service_discovery = Some(discovery);
        self
    }

    /// Sets the event store.
    #[doc(alias = "event_sourcing")]
    pub fn event_store(mut self, store: EventStoreConfig) -> Self {
        self.config.event_store = Some(store);
        self
    }

    /// Sets a policy by name; `default` is under all others.
    pub fn policy(mut self, name: impl Into<String>, policy: PolicyConfig) -> Self {
        self.config.policies.insert(name.into(), policy);
        self
    }

    /// Sets the topics under a pattern such as `orders.*`.
    pub fn topic(mut self, pattern: impl AsRef<str>, policy: TopicPolicy) -> Self {
        match TopicPattern::new(pattern) {
            Ok(pattern) => {
                self.config.topics.insert(pattern, policy);
            }
            Err(error) => self.bad_names.push(error.to_string()),
        }
        self
    }

    /// Sets what is logged and how it looks.
    pub fn logging(mut self, logging: LoggingConfig) -> Self {
        self.config.logging = logging;
        self
    }

    /// Sets the service's own HTTP side.
    #[cfg(feature = "server")]
    pub fn server(mut self, server: trunkline_server::ServerConfig) -> Self {
        self.config.server = server;
        self
    }

    /// Sets the API gateway.
    #[cfg(feature = "gateway")]
    pub fn gateway(mut self, gateway: trunkline_gateway::GatewayConfig) -> Self {
        self.config.gateway = Some(gateway);
        self
    }

    /// Sets the directory of the embedded broker, registry and event store.
    pub fn embedded_path(mut self, directory: impl Into<PathBuf>) -> Self {
        self.config.embedded.path = directory.into();
        self
    }

    /// Sets the time between two checks of a component.
    pub fn health_interval(mut self, interval: Duration) -> Self {
        self.config.health.interval = interval;
        self
    }

    /// Sets how long a start waits for required components.
    pub fn startup_timeout(mut self, timeout: Duration) -> Self {
        self.config.startup_timeout = timeout;
        self
    }

    /// Sets how long a stop lets running work finish.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.config.drain_timeout = timeout;
        self
    }

    /// Sets how long a service that stops goes on answering after it has said so.
    pub fn drain_delay(mut self, delay: Duration) -> Self {
        self.config.drain_delay = Some(delay);
        self
    }

    /// Logs every step of the manager in detail.
    pub fn debug_mode(mut self, on: bool) -> Self {
        self.config.debug_mode = on;
        self
    }

    /// Keeps metrics with more labels.
    pub fn detailed_metrics(mut self, on: bool) -> Self {
        self.config.detailed_metrics = on;
        self
    }

    /// Says whether components are checked in the background.
    pub fn enable_health_checks(mut self, on: bool) -> Self {
        self.config.enable_health_checks = on;
        self
    }

    /// Says whether metrics are kept.
    #[doc(alias = "metrics_enabled")]
    pub fn enable_metrics(mut self, on: bool) -> Self {
        self.config.enable_metrics = on;
        self
    }

    /// Says whether calls are traced.
    pub fn enable_tracing(mut self, on: bool) -> Self {
        self.config.enable_tracing = on;
        self
    }

    /// Says whether the `security` section applies to every protocol.
    #[doc(alias = "enable_security_integration")]
    pub fn security_integration(mut self, on: bool) -> Self {
        self.config.security_integration = on;
        self
    }

    /// The seeds' other word for [`ConfigBuilder::security_integration`].
    pub fn enable_security_integration(self, on: bool) -> Self {
        self.security_integration(on)
    }

    /// Switches metrics and traces on or off together; logs and health stay.
    pub fn observability_enabled(mut self, on: bool) -> Self {
        self.config.observability_enabled = on;
        self
    }
}

/// Takes what is said; what is not leaves what was there.
#[cfg(feature = "http")]
fn lay<T>(place: &mut Option<T>, said: Option<T>) {
    if said.is_some() {
        *place = said;
    }
}
