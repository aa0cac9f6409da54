//! The policies of a process, as the configuration that applies now has them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use trunkline_messaging::TopicName;
use trunkline_resilience::breaker::CircuitPer;
use trunkline_resilience::{Declared, EffectivePolicy, PolicyLayers, PolicyRegistry, Target};
#[cfg(feature = "http")]
use trunkline_resilience::{Layer, config::PolicyConfig};

use crate::CommunicationConfig;

/// The configuration that applies now; a reload replaces it.
pub(crate) type CurrentConfig = Arc<ArcSwap<CommunicationConfig>>;

/// Which part of the configuration speaks of a target.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Origin {
    /// A configured HTTP client.
    #[cfg(feature = "http")]
    Client(Arc<str>),
    /// A service that is called by its name.
    #[cfg(feature = "http")]
    Service,
    /// The same with values of its own over those of the service.
    #[cfg(feature = "http")]
    Adjusted(Arc<PolicyConfig>),
    /// A service behind the gateway.
    #[cfg(feature = "gateway")]
    Gateway,
    /// Publishing to a topic of a broker.
    Publish(Arc<str>, TopicName),
}

/// A registry of policies and where each came from, so that a reload finds its new values. Clones are the same.
#[derive(Clone)]
pub(crate) struct Policies(Arc<Inner>);

struct Inner {
    config: CurrentConfig,
    registry: PolicyRegistry,
    origins: Mutex<HashMap<Target, Origin>>,
}

impl Policies {
    pub(crate) fn new(config: CurrentConfig, registry: PolicyRegistry) -> Self {
        Self(Arc::new(Inner {
            config,
            registry,
            origins: Mutex::default(),
        }))
    }

    /// Whether they are the same.
    #[cfg(feature = "http")]
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn registry(&self) -> &PolicyRegistry {
        &self.0.registry
    }

    /// The values for a target. Where two parts of the configuration speak of it, the first one asked decides, also
    /// about later reloads.
    pub(crate) fn settings(&self, target: &Target, origin: &Origin) -> Arc<EffectivePolicy> {
        let mut origins = self
            .0
            .origins
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let first = origins
            .entry(target.clone())
            .or_insert_with(|| origin.clone());
        let first = first.clone();
        drop(origins);
        let declared = self.0.registry.declared(target);
        let config = self.0.config.load();
        let layers = first.layers(&config, target, declared.as_deref());
        let mut policy = match declared {
            None => settled(&layers),
            Some(declared) => settled(&layers.push_declared(Some(&declared))),
        };
        // Nobody chooses an instance of a broker: its circuit is that of the topic.
        if let (Origin::Publish(..), Some(breaker)) = (&first, &mut policy.circuit_breaker) {
            breaker.per = CircuitPer::Endpoint;
        }
        Arc::new(policy)
    }

    /// Gives every policy the values of the configuration that applies now. State is kept.
    pub(crate) fn reload(&self) {
        self.0.registry.reload(|target| {
            let origins = self
                .0
                .origins
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let origin = origins.get(target).cloned();
            drop(origins);
            match origin {
                Some(origin) => self.settings(target, &origin),
                // Made by the application's own code: the configuration does not speak of it.
                None => self.own_settings(target),
            }
        });
    }

    fn own_settings(&self, target: &Target) -> Arc<EffectivePolicy> {
        let policy = self.0.registry.policy(target, |_| Arc::default());
        policy.settings()
    }
}

impl Origin {
    #[cfg_attr(
        not(feature = "http"),
        expect(unused_variables, reason = "topics bring their own")
    )]
    pub(crate) fn layers<'c>(
        &self,
        config: &'c CommunicationConfig,
        target: &Target,
        declared: Option<&Declared>,
    ) -> PolicyLayers<'c> {
        // An endpoint that the author of an interface declared may be configured by its second name.
        let second = declared.and_then(|declared| declared.also.as_deref());
        let names: Vec<&str> = target
            .endpoint
            .as_deref()
            .into_iter()
            .chain(second)
            .collect();
        match self {
            #[cfg(feature = "http")]
            Self::Client(name) => config.client_policy_layers_of(name, &names),
            #[cfg(feature = "http")]
            Self::Service => config.policy_layers_of(&target.service, &names),
            #[cfg(feature = "http")]
            Self::Adjusted(over) => {
                // Of two layers of a service the later one is the stronger.
                let layer = Layer::Service("client_with".to_owned());
                let written = config.policy_layers_of(&target.service, &names);
                written.push(layer, PolicyConfig::clone(over), |_| None)
            }
            #[cfg(feature = "gateway")]
            Self::Gateway => {
                config.gateway_policy_layers(&target.service, target.endpoint.as_deref())
            }
            Self::Publish(broker, topic) => config.publish_policy_layers(broker, topic),
        }
    }
}

/// The configuration was checked when it was loaded; values set in code may still be out of range.
pub(crate) fn settled(layers: &PolicyLayers<'_>) -> EffectivePolicy {
    match layers.resolve() {
        Ok(explained) => explained.policy,
        Err(invalid) => {
            tracing::error!(
                target: trunkline_core::names::target::MANAGER, error = %invalid,
                "a policy is out of range; the built-in one applies"
            );
            EffectivePolicy::default()
        }
    }
}
