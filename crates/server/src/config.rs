//! Settings of a service's own HTTP side.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use trunkline_core::size::ByteSize;
use trunkline_resilience::config::ConcurrencyConfig;

use crate::ServerRateLimitConfig;

/// Settings of a service's own HTTP side: where it listens, what it accepts, which routes it has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ServerConfig {
    /// Address to listen on. Default `127.0.0.1`; `0.0.0.0` means every interface.
    #[schemars(length(min = 1))]
    pub host: String,
    /// Port to listen on; 0 takes a free one. Default 8000.
    pub port: u16,
    /// Host that other services reach this one by. Default: the address listened on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise_host: Option<String>,
    /// Port that other services reach this one by. Default: the port listened on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub advertise_port: Option<u16>,
    /// Whether the service registers itself in discovery. Default true.
    pub register: bool,
    /// Largest request body, in bytes. Default `2MiB`.
    pub body_limit: ByteSize,
    /// Time for a request that brings no deadline; a shorter one that it brings wins. Default `30s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub request_timeout: Duration,
    /// Time for a client to send the head of a request. Default `10s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub header_timeout: Duration,
    /// Time after which a connection without a request is closed. Default `75s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub keepalive_expiry: Duration,
    /// Connections open at once; further ones wait to be accepted. Default 10000.
    #[schemars(range(min = 1))]
    pub max_connections: u32,
    /// Requests handled at once; further ones get 503 with `Retry-After`. Default 1024.
    #[schemars(range(min = 1))]
    pub max_in_flight: u32,
    /// How many requests are handled at once, found out by how long they take: further ones get 503 with `Retry-After`, the
    /// least important first. All routes count together; health and metrics do not. For services whose requests take about
    /// the same time: streams and long polls would be taken for overload. Default: off, until `enabled` or `algorithm` is
    /// given.
    pub concurrency: ConcurrencyConfig,
    /// How many requests each client may send in a span of time. Default: off, until `enabled` or `limit` is given.
    pub rate_limit: ServerRateLimitConfig,
    /// Whether the baggage of a request is believed: how much it matters where not all can be served (`priority`), whether
    /// chaos may hit it, and what the application reads from it. `false` where clients reach the service without a gateway.
    /// Default true.
    pub trust_baggage: bool,
    /// Path of the health document; `/live` and `/ready` are below it. Default `/health`.
    #[schemars(extend("format" = "route-path"))]
    pub health_path: String,
    /// Path of the metrics; they exist while metrics are enabled. Default `/metrics`.
    #[schemars(extend("format" = "route-path"))]
    pub metrics_path: String,
    /// Whether `GET /circuits` shows the circuits of the process, with the addresses of instances, where a manager runs
    /// the service. Default true.
    pub circuits: bool,
    /// Whether `GET /asyncapi.json` describes the messages of the service, with its topics, groups and schemas, where a manager
    /// runs the service. Default false.
    pub asyncapi: bool,
    /// `POST /publish/{broker}/{topic}`. Default: off.
    pub publish: PublishRouteConfig,
    /// Repeated requests with an `Idempotency-Key`.
    pub idempotency: IdempotencyConfig,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 8000,
            advertise_host: None,
            advertise_port: None,
            register: true,
            body_limit: ByteSize::mib(2),
            request_timeout: Duration::from_secs(30),
            header_timeout: Duration::from_secs(10),
            keepalive_expiry: Duration::from_secs(75),
            max_connections: 10_000,
            max_in_flight: 1024,
            concurrency: ConcurrencyConfig::default(),
            rate_limit: ServerRateLimitConfig::default(),
            trust_baggage: true,
            health_path: "/health".to_owned(),
            metrics_path: "/metrics".to_owned(),
            circuits: true,
            asyncapi: false,
            publish: PublishRouteConfig::default(),
            idempotency: IdempotencyConfig::default(),
        }
    }
}

impl ServerConfig {
    /// Sets the address and port to listen on.
    #[must_use]
    pub fn with_listen(mut self, host: impl Into<String>, port: u16) -> Self {
        self.host = host.into();
        self.port = port;
        self
    }

    /// Sets the address that other services reach this one by.
    #[must_use]
    pub fn with_advertise(mut self, host: impl Into<String>, port: u16) -> Self {
        self.advertise_host = Some(host.into());
        self.advertise_port = Some(port);
        self
    }

    /// Says whether the service registers itself in discovery.
    #[must_use]
    pub fn with_register(mut self, register: bool) -> Self {
        self.register = register;
        self
    }

    /// Sets the largest request body.
    #[must_use]
    pub fn with_body_limit(mut self, limit: ByteSize) -> Self {
        self.body_limit = limit;
        self
    }

    /// Sets the time for a request that brings no deadline.
    #[must_use]
    pub fn with_request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Sets how many requests are handled at once.
    #[must_use]
    pub fn with_max_in_flight(mut self, requests: u32) -> Self {
        self.max_in_flight = requests;
        self
    }

    /// Opens `POST /publish/{broker}/{topic}` for these topics (patterns allowed).
    #[must_use]
    pub fn with_publish_topics<T: Into<String>>(
        mut self,
        topics: impl IntoIterator<Item = T>,
    ) -> Self {
        self.publish.enabled = true;
        self.publish.topics = topics.into_iter().map(Into::into).collect();
        self
    }
}

/// Settings of `POST /publish/{broker}/{topic}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct PublishRouteConfig {
    /// Whether the route exists. Default false.
    pub enabled: bool,
    /// Topics that may be published to, patterns such as `user.*` allowed. Default: none, so nothing is accepted.
    pub topics: Vec<String>,
    /// Brokers that may be published to. Default: none named, so every configured one.
    pub brokers: Vec<String>,
}

/// Settings of repeated requests with an `Idempotency-Key`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct IdempotencyConfig {
    /// How long an answer is kept for repetition. Default `24h`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub ttl: Duration,
    /// How long a request that never finished keeps its key. Default `1m`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub reservation: Duration,
    /// Largest answer that is kept, in bytes; a larger one is sent, and its repetition gets 409. Default `1MiB`.
    pub max_response: ByteSize,
}

impl Default for IdempotencyConfig {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(24 * 3600),
            reservation: Duration::from_secs(60),
            max_response: ByteSize::mib(1),
        }
    }
}
