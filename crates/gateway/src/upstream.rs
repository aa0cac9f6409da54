//! The services behind the gateway: their instances and the policies of calls to them.

use std::sync::Arc;

use http::Method;
use trunkline_discovery::{Discovery, Instances, ServiceName};
use trunkline_resilience::{EffectivePolicy, Policy, PolicyRegistry, Target};

/// Where the gateway learns about the services behind it.
pub trait Upstreams: Send + Sync + 'static {
    /// The instances of a service, kept current.
    fn instances(&self, service: &ServiceName) -> Instances;

    /// The policy of a request to a service. Bounded: raw paths must not make policies of their own.
    fn policy(&self, service: &ServiceName, method: &Method, path: &str) -> Arc<Policy>;
}

/// Services found by discovery, under the default policy, one circuit each.
#[derive(Clone, Debug)]
pub struct DiscoveredUpstreams {
    discovery: Discovery,
    policies: PolicyRegistry,
}

impl DiscoveredUpstreams {
    /// Services as discovery finds them.
    #[must_use]
    pub fn new(discovery: Discovery) -> Self {
        Self {
            discovery,
            policies: PolicyRegistry::default(),
        }
    }
}

impl Upstreams for DiscoveredUpstreams {
    fn instances(&self, service: &ServiceName) -> Instances {
        self.discovery.instances(service)
    }

    fn policy(&self, service: &ServiceName, _: &Method, _: &str) -> Arc<Policy> {
        let target = Target::service(service.as_str());
        self.policies
            .policy(&target, |_| Arc::new(EffectivePolicy::default()))
    }
}
