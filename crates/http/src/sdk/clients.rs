//! Where the SDK has its clients from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use indexmap::IndexMap;
use trunkline_core::{Error, Propagation, Result};
use trunkline_discovery::{Discovery, ServiceConfig, ServiceName};
use trunkline_resilience::config::PolicyConfig;
use trunkline_resilience::{
    CircuitStatus, Declared, EffectivePolicy, Layer, PolicyLayers, PolicyRegistry, Target,
};
use trunkline_telemetry::Metrics;

use super::config::ServiceSdkConfig;
use crate::client::{EnhancedHttpClient, Template};
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
        let layers = Layers::new(
            self.config.policy_config(),
            &own,
            over.cloned(),
            registry.clone(),
        )?;
        EnhancedHttpClient::builder()
            .service(name.as_str())
            .service_config(own)
            .discovery(&self.discovery)
            .transport(self.transport.clone())
            .propagation(self.propagation.clone())
            .metrics(&self.metrics)
            .policies(registry, move |target: &Target| layers.settle(target))
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
    service: PolicyConfig,
    endpoints: Vec<(Template, String, PolicyConfig)>,
    over: Option<PolicyConfig>,
    /// Knows what authors of interfaces wrote.
    registry: PolicyRegistry,
}

impl Layers {
    /// Every value is checked now, so that later only those of attributes can be out of their range.
    fn new(
        base: PolicyConfig,
        service: &ServiceConfig,
        over: Option<PolicyConfig>,
        registry: PolicyRegistry,
    ) -> Result<Self> {
        let endpoints = service.endpoints.iter().map(|(name, config)| {
            Ok((Template::parse(name)?, name.clone(), config.policy_config()))
        });
        let layers = Self {
            base,
            service: service.policy_config(),
            endpoints: endpoints.collect::<Result<_>>()?,
            over,
            registry,
        };
        layers.resolve(None, None)?;
        for (_, name, config) in &layers.endpoints {
            layers.resolve(Some((name, config)), None)?;
        }
        Ok(layers)
    }

    /// The values for a target, with what is written at the method that calls it.
    fn settle(&self, target: &Target) -> Arc<EffectivePolicy> {
        let declared = self.registry.declared(target);
        let second = declared.as_ref().and_then(|declared| declared.also.clone());
        let names = target.endpoint.iter().chain(&second);
        let mut asked = names.filter_map(|name| Template::parse(name).ok());
        let endpoint = asked.find_map(|asked| {
            let mut known = self.endpoints.iter();
            known.find(|(known, ..)| known.is_same_as(&asked))
        });
        let endpoint = endpoint.map(|(_, name, config)| (name, config));
        let policy = self
            .resolve(endpoint, declared.as_deref())
            .or_else(|error| {
                // What an author wrote comes when the client is there already: what cannot be used is left out, and said.
                tracing::error!(
                    target: "trunkline", %target, error = %error.report(), "the policy of an interface cannot be used"
                );
                self.resolve(endpoint, None)
            });
        Arc::new(policy.unwrap_or_default())
    }

    fn resolve(
        &self,
        endpoint: Option<(&String, &PolicyConfig)>,
        declared: Option<&Declared>,
    ) -> Result<EffectivePolicy> {
        let nowhere = |_: &str| None;
        let mut layers = PolicyLayers::new()
            .push(
                Layer::Default("service_sdk".to_owned()),
                self.base.clone(),
                nowhere,
            )
            .push(
                Layer::Service("services".to_owned()),
                self.service.clone(),
                nowhere,
            )
            .push_declared(declared);
        if let Some((name, config)) = endpoint {
            let layer = Layer::Endpoint(name.clone());
            layers = layers.push(layer, config.clone(), nowhere);
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
