//! Makes an SDK without a manager.

use std::fmt;
use std::sync::Mutex;

use indexmap::IndexMap;
use trunkline_core::{Propagation, Result};
use trunkline_discovery::{Discovery, HealthCheckConfig, ServiceConfig, ServiceName};
use trunkline_resilience::PolicyRegistry;
use trunkline_telemetry::Metrics;

use super::clients::Standalone;
use super::{ServiceSdk, ServiceSdkConfig};
use crate::observe::PolicyMetrics;
use crate::probe::HttpProbe;
use crate::transport::{Transport, TransportConfig};

/// Makes a [`ServiceSdk`] without a manager.
///
/// ```
/// use trunkline_discovery::ServiceConfig;
/// use trunkline_http::{ServiceSdk, ServiceSdkConfig};
///
/// let sdk = ServiceSdk::builder()
///     .config(ServiceSdkConfig::default().with_default_retry_attempts(2))
///     .service("user-service", ServiceConfig::at("localhost", 8001))
///     .build()?;
/// # let _ = sdk;
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Default)]
#[must_use = "call build()"]
pub struct ServiceSdkBuilder {
    config: ServiceSdkConfig,
    services: Vec<(String, ServiceConfig)>,
    discovery: Option<Discovery>,
    transport: Option<Transport>,
    propagation: Propagation,
    metrics: Option<Metrics>,
}

impl fmt::Debug for ServiceSdkBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceSdkBuilder")
            .field("config", &self.config)
            .field("services", &self.services)
            .finish_non_exhaustive()
    }
}

impl ServiceSdkBuilder {
    /// Takes the settings.
    pub fn config(mut self, config: ServiceSdkConfig) -> Self {
        self.config = config;
        self
    }

    /// Names a service: where it is, if it has a host, and its policy.
    pub fn service(mut self, name: impl Into<String>, config: ServiceConfig) -> Self {
        self.services.push((name.into(), config));
        self
    }

    /// Where services are found that have no host here. Default: nowhere else.
    pub fn discovery(mut self, discovery: &Discovery) -> Self {
        self.discovery = Some(discovery.clone());
        self
    }

    /// Connections shared with other clients. Default: its own.
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Which headers carry the context, and the own service's name. Default: the usual headers, no name.
    pub fn propagation(mut self, propagation: Propagation) -> Self {
        self.propagation = propagation;
        self
    }

    /// Where calls are measured. Default: nowhere.
    pub fn metrics(mut self, metrics: &Metrics) -> Self {
        self.metrics = Some(metrics.clone());
        self
    }

    /// Makes the SDK. Nothing is connected yet.
    ///
    /// # Errors
    /// `Invalid`, `Config` when a service's name or place is not sound, or is given twice.
    pub fn build(self) -> Result<ServiceSdk> {
        let transport = match self.transport {
            Some(transport) => transport,
            None => Transport::new(&TransportConfig::default())?,
        };
        let mut services = IndexMap::new();
        for (name, config) in self.services {
            let name = ServiceName::new(name)?;
            if services.insert(name.clone(), config).is_some() {
                return Err(trunkline_core::Error::config(format!(
                    "service {name} is named twice"
                )));
            }
        }
        let discovery = match self.discovery {
            Some(discovery) if self.config.service_discovery_enabled => {
                // What has a host here is known by it, as in a configuration.
                for (name, config) in &services {
                    if let Some(instance) = config.instance(name) {
                        discovery.register_external_service(instance)?;
                    }
                }
                discovery
            }
            _ => Discovery::builder()
                .services(services.clone())?
                .probe(HttpProbe::new(transport.clone()))
                .health_check(
                    HealthCheckConfig::default().with_interval(self.config.health_check_interval),
                )
                .build(),
        };
        let metrics = match self.metrics {
            Some(metrics) if self.config.metrics_enabled => metrics,
            _ => Metrics::disabled(),
        };
        let registry = PolicyRegistry::builder()
            .observer(PolicyMetrics::new(&metrics))
            .build();
        Ok(ServiceSdk::with_clients(Standalone {
            config: self.config,
            services,
            discovery,
            registry,
            transport,
            propagation: self.propagation,
            metrics,
            kept: Mutex::default(),
        }))
    }
}
