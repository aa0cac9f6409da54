//! The words of the guides that Trunkline was made from, and what they mean here.

/// What happens to a value that comes under another word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// It stays.
    Same,
    /// Retries become attempts: one more.
    OneMore,
    /// A bare number is milliseconds.
    Millis,
}

/// A word of a section and the path, seen from that section, that it stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    sections: &'static [&'static str],
    pub(crate) word: &'static str,
    pub(crate) target: &'static str,
    pub(crate) how: How,
}

impl Rule {
    pub(crate) fn applies_to(&self, section: &str) -> bool {
        self.sections.contains(&section)
    }
}

const POLICY: &[&str] = &[
    "HttpClientConfig",
    "ServiceConfig",
    "EndpointConfig",
    "PolicyConfig",
    "PublishPolicy",
    "ConsumePolicy",
];
const RETRYING: &[&str] = &[
    "HttpClientConfig",
    "ServiceConfig",
    "EndpointConfig",
    "PolicyConfig",
    "PublishPolicy",
    "ConsumePolicy",
    "MessageBrokerConfig",
];
const CACHING: &[&str] = &[
    "HttpClientConfig",
    "ServiceConfig",
    "EndpointConfig",
    "PolicyConfig",
];
const TOPICS: &[&str] = &["PublishPolicy", "ConsumePolicy"];
const BREAKER: &[&str] = &["CircuitBreakerConfig"];
const RETRY: &[&str] = &["RetryConfig"];
const ROOT: &[&str] = &[crate::config::schema::ROOT];
const BROKER: &[&str] = &["MessageBrokerConfig"];
const CONNECTED: &[&str] = &[
    "MessageBrokerConfig",
    "ServiceDiscoveryConfig",
    "EventStoreConfig",
];

const fn rule(
    sections: &'static [&'static str],
    word: &'static str,
    target: &'static str,
    how: How,
) -> Rule {
    Rule {
        sections,
        word,
        target,
        how,
    }
}

/// Every word. A dotted word is a key inside a section that belongs elsewhere.
pub(crate) const RULES: &[Rule] = &[
    // Flat words of a service or client for parts of its policy.
    rule(
        POLICY,
        "circuit_breaker_enabled",
        "circuit_breaker.enabled",
        How::Same,
    ),
    rule(
        POLICY,
        "failure_threshold",
        "circuit_breaker.failure_threshold",
        How::Same,
    ),
    rule(
        POLICY,
        "failureThreshold",
        "circuit_breaker.failure_threshold",
        How::Same,
    ),
    rule(
        POLICY,
        "success_threshold",
        "circuit_breaker.success_threshold",
        How::Same,
    ),
    rule(
        POLICY,
        "recovery_timeout",
        "circuit_breaker.recovery_timeout",
        How::Same,
    ),
    rule(
        POLICY,
        "circuit_breaker.retry_attempts",
        "retry.max_attempts",
        How::Same,
    ),
    rule(
        POLICY,
        "circuit_breaker.retry_delay",
        "retry.delay",
        How::Same,
    ),
    rule(
        POLICY,
        "circuit_breaker.retry_backoff",
        "retry.backoff",
        How::Same,
    ),
    rule(
        POLICY,
        "circuit_breaker.request_timeout",
        "request_timeout",
        How::Same,
    ),
    rule(RETRYING, "retry_policy", "retry", How::Same),
    rule(RETRYING, "retry_enabled", "retry.enabled", How::Same),
    rule(RETRYING, "retry_attempts", "retry.max_attempts", How::Same),
    rule(RETRYING, "max_attempts", "retry.max_attempts", How::Same),
    rule(RETRYING, "max_retries", "retry.max_attempts", How::OneMore),
    rule(RETRYING, "retry_delay", "retry.delay", How::Same),
    rule(RETRYING, "retry_backoff", "retry.backoff", How::Same),
    rule(CACHING, "caching", "cache", How::Same),
    rule(CACHING, "caching_enabled", "cache.enabled", How::Same),
    rule(CACHING, "cache_enabled", "cache.enabled", How::Same),
    rule(&["ConsumePolicy"], "timeout", "request_timeout", How::Same),
    // Inside the sections themselves.
    rule(BREAKER, "timeout", "recovery_timeout", How::Same),
    rule(BREAKER, "reset_timeout", "recovery_timeout", How::Same),
    rule(BREAKER, "resetTimeout", "recovery_timeout", How::Millis),
    rule(BREAKER, "failureThreshold", "failure_threshold", How::Same),
    rule(RETRY, "retry_attempts", "max_attempts", How::Same),
    rule(RETRY, "max_retries", "max_attempts", How::OneMore),
    rule(RETRY, "retry_delay", "delay", How::Same),
    rule(RETRY, "retry_backoff", "backoff", How::Same),
    rule(&["TimeoutConfig"], "connect", "connection", How::Same),
    // Clients and servers.
    rule(
        &["HttpClientConfig"],
        "connection_pool_size",
        "max_connections",
        How::Same,
    ),
    rule(&["HttpClientConfig"], "service_name", "service", How::Same),
    rule(
        &["ServerConfig", "GatewayConfig"],
        "timeout",
        "request_timeout",
        How::Same,
    ),
    // Connections: the parts may stand beside `type`.
    rule(CONNECTED, "host", "connection.host", How::Same),
    rule(CONNECTED, "port", "connection.port", How::Same),
    rule(CONNECTED, "username", "connection.username", How::Same),
    rule(CONNECTED, "password", "connection.password", How::Same),
    rule(
        CONNECTED,
        "password_file",
        "connection.password_file",
        How::Same,
    ),
    rule(
        CONNECTED,
        "ssl_enabled",
        "connection.ssl_enabled",
        How::Same,
    ),
    rule(CONNECTED, "path", "connection.path", How::Same),
    rule(BROKER, "virtual_host", "connection.path", How::Same),
    rule(BROKER, "heartbeat", "options.heartbeat", How::Same),
    rule(
        BROKER,
        "confirm_delivery",
        "options.confirm_delivery",
        How::Same,
    ),
    rule(
        BROKER,
        "producer_config",
        "options.producer_config",
        How::Same,
    ),
    rule(
        BROKER,
        "consumer_config",
        "options.consumer_config",
        How::Same,
    ),
    rule(
        &["ServiceDiscoveryConfig"],
        "health_check_interval",
        "health_check.interval",
        How::Same,
    ),
    // The whole.
    rule(ROOT, "message_broker", "message_brokers.default", How::Same),
    rule(ROOT, "http_client", "http_clients.default", How::Same),
    rule(ROOT, "event_sourcing", "event_store", How::Same),
    rule(
        ROOT,
        "enable_security_integration",
        "security_integration",
        How::Same,
    ),
    rule(ROOT, "metrics_enabled", "enable_metrics", How::Same),
    rule(ROOT, "service_name", "service.name", How::Same),
    rule(ROOT, "telemetry.install", "logging.install", How::Same),
    rule(
        ROOT,
        "default_timeout",
        "policies.default.timeout",
        How::Same,
    ),
    rule(
        ROOT,
        "default_retry_attempts",
        "policies.default.retry.max_attempts",
        How::Same,
    ),
    rule(
        ROOT,
        "default_circuit_breaker_enabled",
        "policies.default.circuit_breaker.enabled",
        How::Same,
    ),
    rule(
        ROOT,
        "caching_enabled",
        "policies.default.cache.enabled",
        How::Same,
    ),
    rule(
        ROOT,
        "cache_enabled",
        "policies.default.cache.enabled",
        How::Same,
    ),
    rule(
        ROOT,
        "service_discovery_enabled",
        "service_discovery.enabled",
        How::Same,
    ),
    rule(
        ROOT,
        "health_check_interval",
        "service_discovery.health_check.interval",
        How::Same,
    ),
];

/// The key that a single value of a section stands for: `timeout: 30` is `timeout: { total: 30 }`.
pub(crate) fn short_form(section: &str, text: &str) -> Option<&'static str> {
    let is_truth = matches!(text, "true" | "false" | "yes" | "no" | "on" | "off");
    match section {
        "TimeoutConfig" => Some("total"),
        "LoadBalancerConfig" => Some("strategy"),
        "ServiceInfo" => Some("name"),
        "HttpClientConfig" => Some("base_url"),
        "EmbeddedConfig" => Some("path"),
        "ServiceConfig" => Some("url"),
        "MessageBrokerConfig" | "ServiceDiscoveryConfig" | "EventStoreConfig" => {
            Some(if text.contains(':') {
                "connection_url"
            } else {
                "type"
            })
        }
        "CircuitBreakerConfig" | "BudgetConfig" | "HealthCheckConfig" | "PublishRouteConfig"
            if is_truth =>
        {
            Some("enabled")
        }
        "CacheConfig" => Some(if is_truth { "enabled" } else { "ttl" }),
        "RetryConfig" => Some(if is_truth { "enabled" } else { "max_attempts" }),
        "RateLimitConfig" => Some(if is_truth { "enabled" } else { "limit" }),
        "ConcurrencyConfig" => Some(if is_truth { "enabled" } else { "algorithm" }),
        "ChaosConfig" if is_truth => Some("enabled"),
        "BulkheadConfig" => Some(if is_truth {
            "enabled"
        } else {
            "max_concurrent"
        }),
        _ => None,
    }
}

/// Words for values: a type's name or a format, the word, what it means.
const VALUES: &[(&str, &str, &str)] = &[
    ("LogLevel", "warning", "warn"),
    ("LogLevel", "critical", "error"),
    ("LogLevel", "fatal", "error"),
    ("LogFormat", "text", "pretty"),
    ("LogFormat", "console", "pretty"),
    ("BalanceStrategy", "p2c", "power_of_two_choices"),
    ("BalanceStrategy", "least_connections", "least_requests"),
    ("broker-kind", "in_memory", "memory"),
    ("broker-kind", "in-memory", "memory"),
    ("broker-kind", "amqp", "rabbitmq"),
    ("registry-kind", "k8s", "kubernetes"),
    ("event-store-kind", "in_memory", "memory"),
    ("event-store-kind", "in-memory", "memory"),
    ("event-store-kind", "sqlite", "embedded"),
    ("event-store-kind", "postgresql", "postgres"),
];

/// Further words for the values of a type.
pub(crate) fn values(of: &str) -> impl Iterator<Item = &'static str> + use<'_> {
    let words = VALUES.iter().filter(move |(kind, ..)| *kind == of);
    words.map(|(_, word, _)| *word)
}

/// What a word for a value means here.
pub(crate) fn value(of: &str, word: &str) -> Option<&'static str> {
    VALUES
        .iter()
        .find(|(kind, known, _)| *kind == of && *known == word)
        .map(|(_, _, meant)| *meant)
}

/// Words of a section, for suggestions and for editors.
pub(crate) fn of_section<'s>(section: &'s str) -> impl Iterator<Item = &'s str> + use<'s> {
    RULES
        .iter()
        .filter(move |rule| rule.applies_to(section) && !rule.word.contains('.'))
        .map(|rule| rule.word)
        .chain(url_words(section).iter().copied())
}

/// The words under which a section takes a URL.
pub(crate) fn url_words(section: &str) -> &'static [&'static str] {
    match section {
        "ServiceConfig" => &["url", "base_url"],
        "MessageBrokerConfig" | "ServiceDiscoveryConfig" | "EventStoreConfig" => {
            &["connection_url", "url"]
        }
        "ServerConfig" | "GatewayConfig" => &["listen"],
        _ => &[],
    }
}

/// Settings that are known and that this version does not serve: section, word, what it is.
const UNSERVED: &[(&[&str], &str, &str)] = &[
    (ROOT, "security", "the section `security`"),
    (ROOT, "grpc", "gRPC"),
    (TOPICS, "cache", "caching of messages"),
    (TOPICS, "caching", "caching of messages"),
    (TOPICS, "caching_enabled", "caching of messages"),
    (TOPICS, "cache_enabled", "caching of messages"),
    (BROKER, "security", "message security"),
];

/// What a known setting is that this version does not serve.
pub(crate) fn unserved(section: &str, word: &str) -> Option<&'static str> {
    UNSERVED
        .iter()
        .find(|(sections, known, _)| sections.contains(&section) && *known == word)
        .map(|(_, _, what)| *what)
}

/// Sections that another build serves: the key and the feature.
pub(crate) fn left_out(key: &str) -> Option<&'static str> {
    let sections = [
        ("http_clients", "http", cfg!(feature = "http")),
        ("http_client", "http", cfg!(feature = "http")),
        ("server", "server", cfg!(feature = "server")),
        ("gateway", "gateway", cfg!(feature = "gateway")),
    ];
    sections
        .into_iter()
        .find(|(known, _, built)| *known == key && !built)
        .map(|(_, feature, _)| feature)
}
