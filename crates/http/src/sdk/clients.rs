//! Where the SDK has its clients from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use indexmap::IndexMap;
use trunkline_core::{Error, Propagation, Result};
use trunkline_discovery::{Discovery, ServiceConfig, ServiceName};
use trunkline_resilience::config::PolicyConfig;
use trunkline_resilience::{
    CircuitStatus, EffectivePolicy, Layer, PolicyLayers, PolicyRegistry, Target,
};
use trunkline_telemetry::Metrics;

use super::config::ServiceSdkConfig;
use crate::client::EnhancedHttpClient;
use crate::observe::PolicyMetrics;
use crate::transport::Transport;

/// Most services that have a client at once; names come from code, so this is only a guard.
const MOST_CLIENTS: usize = 4096;

/// Makes the clients of a [`ServiceSdk`](crate::ServiceSdk). A manager is one; without a manager the SDK's builder makes
/// one.
pub trait ServiceClients: Send + Sync + 'static {
    /// The client of a service. Asking again gives the same one.
    ///
    /// # Errors
    /// `Invalid` when it is no name of a service; `Config` when its settings are wrong.
    fn client(&self, service: &str) -> Result<EnhancedHttpClient>;

    /// A new client of a service with some values over those of the service, and with circuits of its own. What is said
    /// of an endpoint stays over both.
    ///
    /// # Errors
    /// As [`ServiceClients::client`]; `Config` when a value is out of its range.
    fn client_with(&self, service: &str, policy: &PolicyConfig) -> Result<EnhancedHttpClient>;

    /// Where services are found.
    ///
    /// # Errors
    /// `Config`, `Unavailable` when there is no discovery.
    fn discovery(&self) -> Result<Discovery>;

    /// The circuits of all services.
    fn circuit_states(&self) -> Vec<CircuitStatus>;
}

/// Clients made from what the builder was given.
pub(super) struct Standalone {
    pub(super) config: ServiceSdkConfig,
    pub(super) services: IndexMap<ServiceName, ServiceConfig>,
    pub(super) discovery: Discovery,
    pub(super) registry: PolicyRegistry,
    pub(super) transport: Transport,
    pub(super) propagation: Propagation,
    pub(super) metrics: Metrics,
    pub(super) kept: Mutex<HashMap<ServiceName, EnhancedHttpClient>>,
}

impl Standalone {
    fn make(
        &self,
        name: &ServiceName,
        registry: &PolicyRegistry,
        over: Option<&PolicyConfig>,
    ) -> Result<EnhancedHttpClient> {
        let own = self.services.get(name).cloned().unwrap_or_default();
        let layers = Layers {
            base: self.config.policy_config(),
            service: own.clone(),
            over: over.cloned(),
        };
        // Every value is checked now, so that later none can be out of its range.
        layers.resolve(None)?;
        for template in own.endpoints.keys() {
            layers.resolve(Some(template))?;
        }
        EnhancedHttpClient::builder()
            .service(name.as_str())
            .service_config(own)
            .discovery(&self.discovery)
            .transport(self.transport.clone())
            .propagation(self.propagation.clone())
            .metrics(&self.metrics)
            .policies(registry, move |target: &Target| {
                Arc::new(
                    layers
                        .resolve(target.endpoint.as_deref())
                        .unwrap_or_default(),
                )
            })
            .build()
    }

    fn registry(&self) -> PolicyRegistry {
        let observer = PolicyMetrics::new(&self.metrics);
        PolicyRegistry::builder().observer(observer).build()
    }
}

/// What a policy is merged from.
struct Layers {
    base: PolicyConfig,
    service: ServiceConfig,
    over: Option<PolicyConfig>,
}

impl Layers {
    fn resolve(&self, endpoint: Option<&str>) -> Result<EffectivePolicy> {
        let nowhere = |_: &str| None;
        let mut layers = PolicyLayers::new()
            .push(
                Layer::Default("service_sdk".to_owned()),
                self.base.clone(),
                nowhere,
            )
            .push(
                Layer::Service("services".to_owned()),
                self.service.policy_config(),
                nowhere,
            );
        if let Some(endpoint) = endpoint
            && let Some(config) = self.service.endpoints.get(endpoint)
        {
            let layer = Layer::Endpoint(endpoint.to_owned());
            layers = layers.push(layer, config.policy_config(), nowhere);
        }
        if let Some(over) = &self.over {
            // Of two layers of a service the later one is the stronger.
            let layer = Layer::Service("client_with".to_owned());
            layers = layers.push(layer, over.clone(), nowhere);
        }
        Ok(layers.resolve().map_err(Error::from)?.policy)
    }
}

impl ServiceClients for Standalone {
    fn client(&self, service: &str) -> Result<EnhancedHttpClient> {
        let name = ServiceName::new(service)?;
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = kept().get(&name) {
            return Ok(client.clone());
        }
        // Made outside the lock: it begins to watch the service.
        let client = self.make(&name, &self.registry, None)?;
        let mut kept = kept();
        if kept.len() >= MOST_CLIENTS {
            return Err(Error::exhausted(
                "there are too many services; their names are to come from code",
            ));
        }
        Ok(kept.entry(name).or_insert(client).clone())
    }

    fn client_with(&self, service: &str, policy: &PolicyConfig) -> Result<EnhancedHttpClient> {
        let name = ServiceName::new(service)?;
        self.make(&name, &self.registry(), Some(policy))
    }

    fn discovery(&self) -> Result<Discovery> {
        Ok(self.discovery.clone())
    }

    fn circuit_states(&self) -> Vec<CircuitStatus> {
        self.registry.circuit_states()
    }
}
