//! Settings of HTTP clients.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use trunkline_core::size::ByteSize;
use trunkline_resilience::config::{
    BulkheadConfig, CacheConfig, ChaosConfig, CircuitBreakerConfig, ConcurrencyConfig,
    FallbackConfig, HedgeConfig, PolicyConfig, RateLimitConfig, RetryConfig, TimeoutConfig,
    VersionsConfig,
};

use crate::coding::CompressionConfig;
use crate::redirect::RedirectConfig;

pub use trunkline_discovery::{EndpointConfig, ServiceConfig};

/// What of the context of a call the other side is told.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ContextHeaders {
    /// Correlation id, trace, baggage, the time that is left, and the name of this service.
    #[default]
    All,
    /// The trace alone: `traceparent` and `tracestate`. For services of others that take part in it.
    Trace,
    /// Nothing: a stranger need not know who asks, on whose behalf, or in which tenant.
    None,
}

/// Settings of one HTTP client. What its policy leaves out comes from the service's policy, the named policy and
/// `policies.default`.
///
/// ```
/// use std::time::Duration;
/// use trunkline_http::HttpClientConfig;
///
/// let config = HttpClientConfig::new("https://api.example.com").with_timeout(Duration::from_secs(5));
/// assert_eq!(config.max_connections, 100);
/// ```
#[derive(Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct HttpClientConfig {
    /// Where relative paths lead: `https://api.example.com/v1`, or a Unix socket, `unix:/run/users.sock` or
    /// `unix:/run/users.sock:/v1`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "http-url"))]
    pub base_url: Option<String>,
    /// Service that relative paths lead to, found by discovery; instead of `base_url`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "service-name"))]
    pub service: Option<String>,
    /// Connections open at once, all hosts together. Default 100.
    #[doc(alias = "connection_pool_size")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: u32,
    /// Connections kept open without a request, all hosts together. Default 20.
    #[schemars(range(max = 1_000_000))]
    pub max_keepalive_connections: u32,
    /// Time after which a connection without a request is closed. Default `30s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub keepalive_expiry: Duration,
    /// Headers sent with every request that does not set them itself. Default: none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Largest body that is read into memory, in bytes; after decompression. Default `16MiB`.
    pub max_response_size: ByteSize,
    /// Largest body of an answer that is read as a stream, in bytes, after decompression. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_stream_size: Option<ByteSize>,
    /// Largest body of a request, in bytes, before compression. A longer one is refused before anything is sent; a stream
    /// of unknown length fails when it gets there. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_request_size: Option<ByteSize>,
    /// Which bodies are compressed on their way. Default: none. For a service, give the client the service's name.
    pub compression: CompressionConfig,
    /// Which redirects are followed. Default: none. For a service, give the client the service's name.
    pub redirects: RedirectConfig,
    /// File with further root certificates, PEM. Default: none, only the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Whether the system's root certificates are trusted; without them those of `ca_file` alone are. Default true.
    pub system_roots: bool,
    /// File with the certificate that this side shows to services, and what leads from it to a root, PEM. Read again when
    /// it changes, as `ca_file` and `client_key` are. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<PathBuf>,
    /// File with the private key of `client_certificate`, PEM. Default: the file of the certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key: Option<PathBuf>,
    /// URL of a proxy: `http://user:password@proxy:3128`, `socks5://proxy:1080`, or `socks5h://proxy:1080`, where the proxy
    /// looks up names; `none` for none. Default: as HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// Hosts, domains, addresses and networks that are reached without `proxy`; this machine always is. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub no_proxy: Vec<String>,
    /// Whether connections that are not encrypted speak HTTP/2 without asking. Default false.
    pub http2_prior_knowledge: bool,
    /// Whether public addresses alone are dialled: for URLs that come from outside. Default false.
    pub deny_private_addresses: bool,
    /// Which headers of the context requests carry: `all`, `trace`, `none`. Default `all`, as among services of one owner.
    pub context_headers: ContextHeaders,
    /// Bytes of a streamed request body that are kept so that it can be sent again. Default `64KiB`.
    pub replay_limit: ByteSize,
    /// One of the `policies`, by name. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Limits of a whole call: connection `10s`, read `30s`, total `30s`, pool `5s`.
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
    /// When calls are refused because the other side keeps failing.
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
}

impl Default for HttpClientConfig {
    fn default() -> Self {
        Self {
            base_url: None,
            service: None,
            max_connections: 100,
            max_keepalive_connections: 20,
            keepalive_expiry: Duration::from_secs(30),
            headers: BTreeMap::new(),
            max_response_size: ByteSize::mib(16),
            max_stream_size: None,
            max_request_size: None,
            compression: CompressionConfig::default(),
            redirects: RedirectConfig::default(),
            ca_file: None,
            system_roots: true,
            client_certificate: None,
            client_key: None,
            proxy: None,
            no_proxy: Vec::new(),
            http2_prior_knowledge: false,
            deny_private_addresses: false,
            context_headers: ContextHeaders::All,
            replay_limit: ByteSize::kib(64),
            policy: None,
            timeout: TimeoutConfig::default(),
            request_timeout: None,
            retry: RetryConfig::default(),
            circuit_breaker: CircuitBreakerConfig::default(),
            bulkhead: BulkheadConfig::default(),
            rate_limit: RateLimitConfig::default(),
            concurrency: ConcurrencyConfig::default(),
            chaos: ChaosConfig::default(),
            hedge: HedgeConfig::default(),
            versions: VersionsConfig::default(),
            cache: CacheConfig::default(),
            fallback: FallbackConfig::default(),
        }
    }
}

/// Shows the names of headers, not their values, and no credentials: both may be secret.
impl fmt::Debug for HttpClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClientConfig")
            .field("base_url", &self.base_url.as_deref().map(without_user))
            .field("service", &self.service)
            .field("max_connections", &self.max_connections)
            .field("max_keepalive_connections", &self.max_keepalive_connections)
            .field("keepalive_expiry", &self.keepalive_expiry)
            .field("headers", &self.headers.keys())
            .field("max_response_size", &self.max_response_size)
            .field("max_stream_size", &self.max_stream_size)
            .field("max_request_size", &self.max_request_size)
            .field("compression", &self.compression)
            .field("redirects", &self.redirects)
            .field("ca_file", &self.ca_file)
            .field("system_roots", &self.system_roots)
            .field("client_certificate", &self.client_certificate)
            .field("client_key", &self.client_key)
            .field("proxy", &self.proxy.as_deref().map(without_user))
            .field("no_proxy", &self.no_proxy)
            .field("http2_prior_knowledge", &self.http2_prior_knowledge)
            .field("deny_private_addresses", &self.deny_private_addresses)
            .field("context_headers", &self.context_headers)
            .field("replay_limit", &self.replay_limit)
            .field("policy", &self.policy)
            .field("timeout", &self.timeout)
            .field("request_timeout", &self.request_timeout)
            .field("retry", &self.retry)
            .field("circuit_breaker", &self.circuit_breaker)
            .field("bulkhead", &self.bulkhead)
            .field("rate_limit", &self.rate_limit)
            .field("concurrency", &self.concurrency)
            .field("chaos", &self.chaos)
            .field("hedge", &self.hedge)
            .field("versions", &self.versions)
            .field("cache", &self.cache)
            .field("fallback", &self.fallback)
            .finish()
    }
}

/// No client takes a URL with credentials, but it may be shown before it is refused.
fn without_user(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://***@{host}{path}"),
        None => url.to_owned(),
    }
}

impl HttpClientConfig {
    /// A client of one base URL.
    #[must_use]
    pub fn new(base_url: impl Into<String>) -> Self {
        Self {
            base_url: Some(base_url.into()),
            ..Self::default()
        }
    }

    /// A client of one service, found by discovery.
    #[must_use]
    pub fn for_service(name: impl Into<String>) -> Self {
        Self {
            service: Some(name.into()),
            ..Self::default()
        }
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
        policy
    }

    /// Sets the limit of a whole call.
    #[must_use]
    pub fn with_timeout(mut self, total: Duration) -> Self {
        self.timeout.total = Some(total);
        self
    }

    /// Sets the limit of one attempt.
    #[must_use]
    pub fn with_request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = Some(timeout);
        self
    }

    /// Sets how many connections are open at once.
    #[must_use]
    pub fn with_max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections;
        self
    }

    /// Sets how many connections are kept open without a request, and for how long.
    #[must_use]
    pub fn with_keepalive(mut self, connections: u32, expiry: Duration) -> Self {
        self.max_keepalive_connections = connections;
        self.keepalive_expiry = expiry;
        self
    }

    /// Sends a header with every request.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Sets which bodies are compressed on their way.
    #[must_use]
    pub fn with_compression(mut self, compression: CompressionConfig) -> Self {
        self.compression = compression;
        self
    }

    /// Sets which redirects are followed.
    #[must_use]
    pub fn with_redirects(mut self, redirects: RedirectConfig) -> Self {
        self.redirects = redirects;
        self
    }

    /// Trusts the root certificates in a PEM file, too.
    #[must_use]
    pub fn with_ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Sets when and how often a failed attempt is repeated.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryConfig) -> Self {
        self.retry = retry;
        self
    }

    /// Switches retries on or off.
    #[must_use]
    pub fn with_retry_enabled(mut self, enabled: bool) -> Self {
        self.retry.enabled = Some(enabled);
        self
    }

    /// Sets when calls are refused because the other side keeps failing.
    #[must_use]
    pub fn with_circuit_breaker(mut self, breaker: CircuitBreakerConfig) -> Self {
        self.circuit_breaker = breaker;
        self
    }

    /// Switches the circuit breaker on or off.
    #[must_use]
    pub fn with_circuit_breaker_enabled(mut self, enabled: bool) -> Self {
        self.circuit_breaker.enabled = Some(enabled);
        self
    }

    /// Sets how many calls may run at once.
    #[must_use]
    pub fn with_bulkhead(mut self, bulkhead: BulkheadConfig) -> Self {
        self.bulkhead = bulkhead;
        self
    }

    /// Sets when a call is asked a second time beside the first.
    #[must_use]
    pub fn with_hedge(mut self, hedge: HedgeConfig) -> Self {
        self.hedge = hedge;
        self
    }

    /// Sets which versions of the service are asked.
    #[must_use]
    pub fn with_versions(mut self, versions: VersionsConfig) -> Self {
        self.versions = versions;
        self
    }

    /// Sets how many calls may begin in a span of time.
    #[must_use]
    pub fn with_rate_limit(mut self, limit: RateLimitConfig) -> Self {
        self.rate_limit = limit;
        self
    }

    /// Sets how the number of calls at once is found out.
    #[must_use]
    pub fn with_concurrency(mut self, concurrency: ConcurrencyConfig) -> Self {
        self.concurrency = concurrency;
        self
    }

    /// Sets what goes wrong on purpose.
    #[must_use]
    pub fn with_chaos(mut self, chaos: ChaosConfig) -> Self {
        self.chaos = chaos;
        self
    }

    /// Sets which answers are kept, and for how long.
    #[must_use]
    pub fn with_cache(mut self, cache: CacheConfig) -> Self {
        self.cache = cache;
        self
    }

    /// Sets what answers when a call has failed for good.
    #[must_use]
    pub fn with_fallback(mut self, fallback: FallbackConfig) -> Self {
        self.fallback = fallback;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_is_not_shown() {
        let config = HttpClientConfig::new("https://me:hunter2@api.example.com/v1@2")
            .with_header("authorization", "Bearer hunter2");
        let shown = format!("{config:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(
            shown.contains("https://***@api.example.com/v1@2"),
            "{shown}"
        );
        assert!(shown.contains("authorization"), "{shown}");
    }
}
