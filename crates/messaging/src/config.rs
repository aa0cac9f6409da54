//! Settings of message brokers and of single topics, whatever the broker.

use std::fmt;
use std::time::Duration;

use crate::claim::ClaimCheckConfig;
use crate::cloudevents::CloudEventsMode;
use crate::compression::CompressionConfig;
use crate::protection::{EncryptionConfig, SigningConfig};
use crate::schema::SchemaConfig;
use crate::surroundings::LAG_INTERVAL;
use serde::{Deserialize, Serialize};
use trunkline_core::{Connection, ConnectionUrl, Result};
use trunkline_resilience::config::{
    BulkheadConfig, ChaosConfig, CircuitBreakerConfig, ConcurrencyConfig, PolicyConfig,
    RateLimitConfig, RetryConfig, TimeoutConfig,
};

/// Settings of one message broker. What only one system knows is in `options`.
///
/// ```
/// use trunkline_messaging::MessageBrokerConfig;
///
/// let broker = MessageBrokerConfig::from_url("embedded:///var/lib/orders")?.with_prefetch_count(50);
/// assert_eq!(broker.kind, "embedded");
/// assert_eq!(broker.connection.path.as_deref(), Some("/var/lib/orders"));
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct MessageBrokerConfig {
    /// The system: `embedded` (durable, on local disk), `memory`, `rabbitmq`, `kafka`, `redis`, `nats`. Default
    /// `embedded`.
    #[serde(rename = "type")]
    #[schemars(extend("format" = "broker-kind"))]
    pub kind: String,
    /// Where it is and how to log in. In files the parts may stand beside `type`, or a `connection_url`.
    pub connection: Connection,
    /// Connections opened at most, as they are needed. Default 10.
    #[schemars(range(min = 1, max = 10_000))]
    pub connection_pool_size: u32,
    /// Time to open a connection. Default `10s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub connection_timeout: Duration,
    /// Whether the service is unhealthy without it; else it is degraded. Default true.
    pub required: bool,
    /// Whether messages that keep failing are put aside as dead letters. Default true.
    pub dead_letter_queue: bool,
    /// Unsettled messages that one consumer may hold. Default 10.
    #[schemars(range(min = 1, max = 65_535))]
    pub prefetch_count: u32,
    /// How often it is asked how many messages wait for each handler, where it can say; zero is never. Default `10s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub lag_interval: Duration,
    /// How failed publishes and failed handlers are repeated, unless their topic says otherwise. Default: as in
    /// `policies.default`.
    pub retry: RetryConfig,
    /// How messages are written as CloudEvents: `binary` (attributes are headers) or `structured` (one JSON object). Both are
    /// read. Default `binary`.
    pub cloudevents: CloudEventsMode,
    /// Compression of payloads (feature `compression`). Default: none; what arrives compressed is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<CompressionConfig>,
    /// Large payloads in files beside the broker. Default: none, they are in the messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim_check: Option<ClaimCheckConfig>,
    /// Encryption of payloads (feature `protection`). Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<EncryptionConfig>,
    /// Signatures of messages (feature `protection`). Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing: Option<SigningConfig>,
    /// Prefix of topics, queues and groups on this broker. Default: the prefix of the whole configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "prefix"))]
    pub prefix: Option<String>,
    /// What only this system knows, as its guide describes it. Default: none.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub options: serde_json::Map<String, serde_json::Value>,
}

impl Default for MessageBrokerConfig {
    fn default() -> Self {
        Self {
            kind: "embedded".to_owned(),
            connection: Connection::default(),
            connection_pool_size: 10,
            connection_timeout: Duration::from_secs(10),
            required: true,
            dead_letter_queue: true,
            prefetch_count: 10,
            lag_interval: LAG_INTERVAL,
            retry: RetryConfig::default(),
            cloudevents: CloudEventsMode::default(),
            compression: None,
            claim_check: None,
            encryption: None,
            signing: None,
            prefix: None,
            options: serde_json::Map::new(),
        }
    }
}

/// Shows the names of the options, not their values, which may be secret.
impl fmt::Debug for MessageBrokerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageBrokerConfig")
            .field("type", &self.kind)
            .field("connection", &self.connection)
            .field("connection_pool_size", &self.connection_pool_size)
            .field("connection_timeout", &self.connection_timeout)
            .field("required", &self.required)
            .field("dead_letter_queue", &self.dead_letter_queue)
            .field("prefetch_count", &self.prefetch_count)
            .field("lag_interval", &self.lag_interval)
            .field("retry", &self.retry)
            .field("cloudevents", &self.cloudevents)
            .field("compression", &self.compression)
            .field("claim_check", &self.claim_check)
            .field("encryption", &self.encryption)
            .field("signing", &self.signing)
            .field("prefix", &self.prefix)
            .field("options", &self.options.keys())
            .finish()
    }
}

impl MessageBrokerConfig {
    /// A broker of a system, with its defaults.
    #[must_use]
    pub fn new(kind: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            ..Self::default()
        }
    }

    /// The in-memory broker of one process.
    #[must_use]
    pub fn memory() -> Self {
        Self::new("memory")
    }

    /// The durable broker in a directory of this machine, shared by all processes that name it.
    #[must_use]
    pub fn embedded(directory: impl Into<String>) -> Self {
        let mut config = Self::new("embedded");
        config.connection = Connection::default().with_path(directory);
        config
    }

    /// A broker by its URL: the scheme names the system, options after `?` become `options`.
    ///
    /// # Errors
    /// `Config` when the text is not a URL; the error does not repeat it.
    pub fn from_url(url: &str) -> Result<Self> {
        let parsed: ConnectionUrl = url
            .parse()
            .map_err(|error| trunkline_core::Error::config(format!("{error}")))?;
        let mut config = Self::new(Self::kind_of_scheme(&parsed.scheme));
        config.connection = parsed.connection;
        for (name, value) in parsed.options {
            config.options.insert(name, value.into());
        }
        Ok(config)
    }

    /// The system that a URL scheme stands for; an unknown scheme is a system of that name.
    #[must_use]
    pub fn kind_of_scheme(scheme: &str) -> &str {
        match scheme {
            "amqp" | "amqps" => "rabbitmq",
            "redis" | "rediss" => "redis",
            "kafka" | "kafka+ssl" | "kafka+tls" => "kafka",
            "nats" | "tls" | "nats+tls" => "nats",
            other => other,
        }
    }

    /// The scheme of this broker's URLs.
    #[must_use]
    pub fn scheme(&self) -> &str {
        match (self.kind.as_str(), self.connection.ssl_enabled) {
            ("rabbitmq", false) => "amqp",
            ("rabbitmq", true) => "amqps",
            ("redis", true) => "rediss",
            ("kafka", true) => "kafka+ssl",
            ("nats", true) => "nats+tls",
            (kind, _) => kind,
        }
    }

    /// The broker's URL without credentials, as health and logs show it.
    #[must_use]
    pub fn display_url(&self) -> String {
        self.connection.display_url(self.scheme())
    }

    /// Sets where the broker is and how to log in.
    #[must_use]
    pub fn with_connection(mut self, connection: Connection) -> Self {
        self.connection = connection;
        self
    }

    /// Sets how many connections are opened at most.
    #[must_use]
    pub fn with_connection_pool_size(mut self, connections: u32) -> Self {
        self.connection_pool_size = connections;
        self
    }

    /// Says whether the service is unhealthy without it.
    #[must_use]
    pub fn with_required(mut self, required: bool) -> Self {
        self.required = required;
        self
    }

    /// Says whether messages that keep failing are put aside as dead letters.
    #[must_use]
    pub fn with_dead_letter_queue(mut self, enabled: bool) -> Self {
        self.dead_letter_queue = enabled;
        self
    }

    /// Sets how many unsettled messages one consumer may hold.
    #[must_use]
    pub fn with_prefetch_count(mut self, messages: u32) -> Self {
        self.prefetch_count = messages;
        self
    }

    /// Sets how often it is asked how many messages wait for each handler; zero is never.
    #[must_use]
    pub fn with_lag_interval(mut self, interval: Duration) -> Self {
        self.lag_interval = interval;
        self
    }

    /// Sets how failed publishes and failed handlers are repeated.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryConfig) -> Self {
        self.retry = retry;
        self
    }

    /// Sets the prefix of topics, queues and groups.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// Sets how messages are written as CloudEvents.
    #[must_use]
    pub fn with_cloudevents(mut self, mode: CloudEventsMode) -> Self {
        self.cloudevents = mode;
        self
    }

    /// Compresses large payloads.
    #[must_use]
    pub fn with_compression(mut self, compression: CompressionConfig) -> Self {
        self.compression = Some(compression);
        self
    }

    /// Puts large payloads into files beside the broker.
    #[must_use]
    pub fn with_claim_check(mut self, claim_check: ClaimCheckConfig) -> Self {
        self.claim_check = Some(claim_check);
        self
    }

    /// Encrypts payloads.
    #[must_use]
    pub fn with_encryption(mut self, encryption: EncryptionConfig) -> Self {
        self.encryption = Some(encryption);
        self
    }

    /// Signs messages.
    #[must_use]
    pub fn with_signing(mut self, signing: SigningConfig) -> Self {
        self.signing = Some(signing);
        self
    }

    /// Sets an option that only this system knows.
    #[must_use]
    pub fn with_option(
        mut self,
        name: impl Into<String>,
        value: impl Into<serde_json::Value>,
    ) -> Self {
        self.options.insert(name.into(), value.into());
        self
    }
}

/// Settings of the topics under one pattern.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct TopicPolicy {
    /// Settings of publishing to them.
    pub publish: PublishPolicy,
    /// Settings of handling their messages.
    pub consume: ConsumePolicy,
    /// A JSON Schema that their payloads keep, where they are published and where they are handled (feature `json-schema`):
    /// the path of a file, or the schema itself. All that fit a topic apply together. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<SchemaConfig>,
}

/// Settings of publishing to a topic. What is left out comes from the broker, the named policy, `policies.default`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct PublishPolicy {
    /// One of the `policies`, by name. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Limits of the whole publish.
    pub timeout: TimeoutConfig,
    /// Limit of one attempt. Default `30s`.
    #[serde(
        with = "trunkline_core::duration::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "Option<trunkline_core::duration::Text>")]
    pub request_timeout: Option<Duration>,
    /// When and how often a failed publish is repeated, under the same message id.
    pub retry: RetryConfig,
    /// When publishes are refused because the broker keeps failing.
    pub circuit_breaker: CircuitBreakerConfig,
    /// How many publishes may run at once.
    pub bulkhead: BulkheadConfig,
    /// How many calls may begin in a span of time.
    pub rate_limit: RateLimitConfig,
    /// How many calls may run at once, found out by how the other side answers to load.
    pub concurrency: ConcurrencyConfig,
    /// What goes wrong on purpose, for tests and game days.
    pub chaos: ChaosConfig,
    /// Whether it is an error when nobody listens. Default false for topics; always an error for queues.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mandatory: Option<bool>,
}

impl PublishPolicy {
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
        policy
    }
}

/// Settings of handling a topic's messages. What is left out comes from the broker, the named policy,
/// `policies.default`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ConsumePolicy {
    /// One of the `policies`, by name. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Limit of one attempt of a handler. Default `30s`.
    #[serde(
        with = "trunkline_core::duration::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "Option<trunkline_core::duration::Text>")]
    pub request_timeout: Option<Duration>,
    /// When and how often a failed handler is tried again; then the message becomes a dead letter.
    pub retry: RetryConfig,
    /// Deliveries beyond the attempts, for consumers that died or were stopped with the message in hand. Default 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000))]
    pub max_crashes: Option<u32>,
    /// When messages are held back for a while because their handler keeps failing. Default: never. It must be asked for
    /// here, as it holds back every message of the topic; what is left out comes from the policies.
    pub circuit_breaker: CircuitBreakerConfig,
    /// How many messages are handled at once.
    pub bulkhead: BulkheadConfig,
    /// Unsettled messages that one consumer may hold. Default: the broker's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub prefetch_count: Option<u32>,
    /// Whether messages that keep failing are put aside as dead letters. Default: the broker's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letter_queue: Option<bool>,
}

impl ConsumePolicy {
    /// The part that the policy engine merges.
    #[must_use]
    pub fn policy_config(&self) -> PolicyConfig {
        let mut policy = PolicyConfig::default();
        policy.request_timeout = self.request_timeout;
        policy.retry = self.retry.clone();
        policy.circuit_breaker = self.circuit_breaker.clone();
        policy.bulkhead = self.bulkhead.clone();
        policy
    }
}
