//! Settings of one service: where it is, should no registry know it, and the policy of calls to it.

use std::collections::BTreeMap;
use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use trunkline_resilience::config::{
    BulkheadConfig, CacheConfig, ChaosConfig, CircuitBreakerConfig, ConcurrencyConfig,
    EndpointCheckConfig, FallbackConfig, HedgeConfig, PolicyConfig, RateLimitConfig, RetryConfig,
    TimeoutConfig, VersionsConfig,
};

use super::{HealthCheckConfig, LoadBalancerConfig};
use crate::{ServiceInstance, ServiceName};

/// Settings of one service: a static registration, if it has a host, and the policy of calls to it. What the policy
/// leaves out comes from the named policy and `policies.default`.
///
/// ```
/// use trunkline_discovery::{Protocol, ServiceConfig};
///
/// let payments = ServiceConfig::at("payments.example.com", 443).with_protocol(Protocol::Https);
/// assert_eq!(payments.base_url().as_deref(), Some("https://payments.example.com:443"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ServiceConfig {
    /// Host name or address. Default: none, so the service is looked up in the registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Port. Default: 80 for http, 443 for https.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// `http` or `https`. Default `http`.
    pub protocol: Protocol,
    /// Path that every request to the service begins with. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "url-path"))]
    pub base_path: Option<String>,
    /// Version, free text. Default `1.0.0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where it answers health checks, for example `/health`. Default: none, and it is not checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "url-path"))]
    pub health_check_path: Option<String>,
    /// Where it runs. Default: not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Share of the traffic beside its siblings; 0 takes none. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Free pairs: region, team, environment. Default: none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// How an instance is chosen, by every client of this process; not in `gateway.services`. Default: as in
    /// `service_discovery`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancerConfig>,
    /// How its instances are checked, by every client of this process; not in `gateway.services`. By `tcp` and `grpc` those
    /// that name no health path are checked, too. Default: as in `service_discovery`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_check: Option<HealthCheckConfig>,
    /// One of the `policies`, by name. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Limits of a whole call.
    pub timeout: TimeoutConfig,
    /// Limit of one attempt. Default `30s`.
    #[serde(
        with = "trunkline_core::duration::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "Option<trunkline_core::duration::Text>")]
    pub request_timeout: Option<Duration>,
    /// When and how often a failed attempt is repeated.
    pub retry: RetryConfig,
    /// When calls are refused because the service keeps failing.
    pub circuit_breaker: CircuitBreakerConfig,
    /// How many calls may run at once.
    pub bulkhead: BulkheadConfig,
    /// How many calls may begin in a span of time.
    pub rate_limit: RateLimitConfig,
    /// How many calls may run at once, found out by how the other side answers to load.
    pub concurrency: ConcurrencyConfig,
    /// What goes wrong on purpose, for tests and game days.
    pub chaos: ChaosConfig,
    /// When a call is asked a second time beside the first, whose answer is late.
    pub hedge: HedgeConfig,
    /// Which versions of the service are asked, and when the next one has its turn.
    pub versions: VersionsConfig,
    /// Which answers are kept, and for how long.
    pub cache: CacheConfig,
    /// What answers when a call has failed for good.
    pub fallback: FallbackConfig,
    /// How endpoints are checked whose methods are marked `health_check`, beside the health path of the instances.
    pub health_check: EndpointCheckConfig,
    /// Settings of single endpoints, by method and template: `GET /users/{id}`. Default: none.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(extend("format" = "endpoints"))]
    pub endpoints: IndexMap<String, EndpointConfig>,
}

impl ServiceConfig {
    /// A service at a fixed place.
    #[must_use]
    pub fn at(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: Some(host.into()),
            port: Some(port),
            ..Self::default()
        }
    }

    /// The base URL of the fixed place, if there is one: `https://payments.example.com:443`.
    #[must_use]
    pub fn base_url(&self) -> Option<String> {
        let host = self.host.as_deref()?;
        let host = if host.contains(':') && !host.starts_with('[') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        let path = self.base_path.as_deref().unwrap_or_default();
        let path = path.trim_end_matches('/');
        let scheme = self.protocol.as_str();
        Some(format!("{scheme}://{host}:{}{path}", self.effective_port()))
    }

    /// The port, or the one that the protocol is used to.
    #[must_use]
    pub fn effective_port(&self) -> u16 {
        self.port.unwrap_or(match self.protocol {
            Protocol::Http => 80,
            Protocol::Https => 443,
        })
    }

    /// The static registration, if the service has a host.
    #[must_use]
    pub fn instance(&self, name: &ServiceName) -> Option<ServiceInstance> {
        let host = self.host.as_deref()?;
        let mut instance = ServiceInstance::new(name.clone(), host, self.effective_port());
        // The same place has the same id in every process and after every reload.
        instance.id = format!("{name}-{}", instance.authority());
        instance.protocol = self.protocol.as_str().to_owned();
        instance.metadata = self.metadata.clone();
        instance.zone = self.zone.clone();
        instance.weight = self.weight.unwrap_or(1);
        if let Some(version) = &self.version {
            instance.version.clone_from(version);
        }
        // Nobody asks a host that is not ours for a path that it may not have.
        instance.health_check_path = self.health_check_path.clone().unwrap_or_default();
        Some(instance)
    }

    /// The part that the policy engine merges.
    #[must_use]
    pub fn policy_config(&self) -> PolicyConfig {
        let mut policy = PolicyConfig::default();
        policy.timeout = self.timeout;
        policy.request_timeout = self.request_timeout;
        policy.retry = self.retry.clone();
        policy.circuit_breaker = self.circuit_breaker.clone();
        policy.bulkhead = self.bulkhead.clone();
        policy.rate_limit = self.rate_limit.clone();
        policy.concurrency = self.concurrency.clone();
        policy.chaos = self.chaos.clone();
        policy.hedge = self.hedge.clone();
        policy.versions = self.versions.clone();
        policy.cache = self.cache.clone();
        policy.fallback = self.fallback.clone();
        policy.health_check = self.health_check.clone();
        policy
    }

    /// Sets the protocol.
    #[must_use]
    pub fn with_protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// Chooses one of the `policies`.
    #[must_use]
    pub fn with_policy(mut self, name: impl Into<String>) -> Self {
        self.policy = Some(name.into());
        self
    }

    /// Sets the limit of a whole call.
    #[must_use]
    pub fn with_timeout(mut self, total: Duration) -> Self {
        self.timeout.total = Some(total);
        self
    }

    /// Sets when and how often a failed attempt is repeated.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryConfig) -> Self {
        self.retry = retry;
        self
    }

    /// Sets when calls are refused because the service keeps failing.
    #[must_use]
    pub fn with_circuit_breaker(mut self, breaker: CircuitBreakerConfig) -> Self {
        self.circuit_breaker = breaker;
        self
    }

    /// Sets which versions of the service are asked.
    #[must_use]
    pub fn with_versions(mut self, versions: VersionsConfig) -> Self {
        self.versions = versions;
        self
    }

    /// Sets one endpoint, such as `GET /users/{id}`.
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: impl Into<String>, config: EndpointConfig) -> Self {
        self.endpoints.insert(endpoint.into(), config);
        self
    }
}

/// `http` or `https`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Plain.
    #[default]
    Http,
    /// Over TLS.
    Https,
}

impl Protocol {
    /// The protocol as URLs write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The policy of one endpoint of a service. What it leaves out comes from the service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct EndpointConfig {
    /// One of the `policies`, by name; it replaces the one that the service names. Default: the service's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Limits of a whole call.
    pub timeout: TimeoutConfig,
    /// Limit of one attempt. Default: the service's.
    #[serde(
        with = "trunkline_core::duration::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "Option<trunkline_core::duration::Text>")]
    pub request_timeout: Option<Duration>,
    /// When and how often a failed attempt is repeated.
    pub retry: RetryConfig,
    /// When calls are refused because the endpoint keeps failing.
    pub circuit_breaker: CircuitBreakerConfig,
    /// How many calls may run at once.
    pub bulkhead: BulkheadConfig,
    /// How many calls may begin in a span of time.
    pub rate_limit: RateLimitConfig,
    /// How many calls may run at once, found out by how the other side answers to load.
    pub concurrency: ConcurrencyConfig,
    /// What goes wrong on purpose, for tests and game days.
    pub chaos: ChaosConfig,
    /// When a call is asked a second time beside the first, whose answer is late.
    pub hedge: HedgeConfig,
    /// Which versions of the service are asked, and when the next one has its turn.
    pub versions: VersionsConfig,
    /// Which answers are kept, and for how long.
    pub cache: CacheConfig,
    /// What answers when a call has failed for good.
    pub fallback: FallbackConfig,
    /// How endpoints are checked whose methods are marked `health_check`, beside the health path of the instances.
    pub health_check: EndpointCheckConfig,
}

impl EndpointConfig {
    /// The part that the policy engine merges.
    #[must_use]
    pub fn policy_config(&self) -> PolicyConfig {
        let mut policy = PolicyConfig::default();
        policy.timeout = self.timeout;
        policy.request_timeout = self.request_timeout;
        policy.retry = self.retry.clone();
        policy.circuit_breaker = self.circuit_breaker.clone();
        policy.bulkhead = self.bulkhead.clone();
        policy.rate_limit = self.rate_limit.clone();
        policy.concurrency = self.concurrency.clone();
        policy.chaos = self.chaos.clone();
        policy.hedge = self.hedge.clone();
        policy.versions = self.versions.clone();
        policy.cache = self.cache.clone();
        policy.fallback = self.fallback.clone();
        policy.health_check = self.health_check.clone();
        policy
    }
}
