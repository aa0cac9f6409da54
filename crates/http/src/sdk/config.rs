//! Settings of the SDK.

use std::time::Duration;

use trunkline_resilience::config::PolicyConfig;

/// Settings of a [`ServiceSdk`](crate::ServiceSdk) that is made without a manager. Under a manager the configuration says
/// the same, with the same words.
///
/// ```
/// use std::time::Duration;
/// use trunkline_http::ServiceSdkConfig;
///
/// let config = ServiceSdkConfig::default().with_default_timeout(Duration::from_secs(5));
/// assert_eq!(config.default_retry_attempts, 3);
/// ```
#[doc(alias = "ServiceSDKConfig")]
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceSdkConfig {
    /// Limit of a whole call. Default 30 s.
    pub default_timeout: Duration,
    /// Attempts altogether, the first one included. Default 3.
    pub default_retry_attempts: u32,
    /// Whether calls are refused while a service keeps failing. Default true.
    pub default_circuit_breaker_enabled: bool,
    /// Whether services are looked up by discovery; without it only those are known that are named here. Default true.
    pub service_discovery_enabled: bool,
    /// Time between two health checks of an instance. Default 30 s.
    pub health_check_interval: Duration,
    /// Whether answers are kept as RFC 9111 allows, where the client has a cache. Default true.
    pub cache_enabled: bool,
    /// Whether calls are measured. Default true.
    pub metrics_enabled: bool,
}

impl Default for ServiceSdkConfig {
    fn default() -> Self {
        Self {
            default_timeout: Duration::from_secs(30),
            default_retry_attempts: 3,
            default_circuit_breaker_enabled: true,
            service_discovery_enabled: true,
            health_check_interval: Duration::from_secs(30),
            cache_enabled: true,
            metrics_enabled: true,
        }
    }
}

impl ServiceSdkConfig {
    /// Sets the limit of a whole call.
    #[must_use]
    pub const fn with_default_timeout(mut self, timeout: Duration) -> Self {
        self.default_timeout = timeout;
        self
    }

    /// Sets the number of attempts, the first one included.
    #[must_use]
    pub const fn with_default_retry_attempts(mut self, attempts: u32) -> Self {
        self.default_retry_attempts = attempts;
        self
    }

    /// Switches the circuit breaker on or off.
    #[must_use]
    pub const fn with_default_circuit_breaker_enabled(mut self, enabled: bool) -> Self {
        self.default_circuit_breaker_enabled = enabled;
        self
    }

    /// Switches discovery on or off.
    #[must_use]
    pub const fn with_service_discovery_enabled(mut self, enabled: bool) -> Self {
        self.service_discovery_enabled = enabled;
        self
    }

    /// Sets the time between two health checks of an instance.
    #[must_use]
    pub const fn with_health_check_interval(mut self, interval: Duration) -> Self {
        self.health_check_interval = interval;
        self
    }

    /// Switches the cache on or off.
    #[must_use]
    pub const fn with_cache_enabled(mut self, enabled: bool) -> Self {
        self.cache_enabled = enabled;
        self
    }

    /// Switches the metrics on or off.
    #[must_use]
    pub const fn with_metrics_enabled(mut self, enabled: bool) -> Self {
        self.metrics_enabled = enabled;
        self
    }

    /// The part that is a policy: what `policies.default` would say. A value that is the default says nothing: what the author
    /// of an interface wrote at a method stands above it, and below every other value.
    #[must_use]
    pub fn policy_config(&self) -> PolicyConfig {
        let usual = Self::default();
        let mut policy = PolicyConfig::default();
        policy.timeout.total = said(self.default_timeout, usual.default_timeout);
        policy.retry.max_attempts = said(self.default_retry_attempts, usual.default_retry_attempts);
        policy.circuit_breaker.enabled = said(
            self.default_circuit_breaker_enabled,
            usual.default_circuit_breaker_enabled,
        );
        policy.cache.enabled = said(self.cache_enabled, usual.cache_enabled);
        policy
    }
}

fn said<T: PartialEq + Copy>(value: T, usual: T) -> Option<T> {
    (value != usual).then_some(value)
}

/// How a client of [`ServiceSdk::client_with`](crate::ServiceSdk::client_with) deals with failures, in one place.
///
/// ```
/// use std::time::Duration;
/// use trunkline_http::CircuitConfig;
///
/// let quick = CircuitConfig::default().with_failure_threshold(3).with_timeout(Duration::from_secs(10));
/// assert_eq!(quick.success_threshold, 2);
/// ```
#[doc(alias = "CircuitBreakerConfig")]
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CircuitConfig {
    /// Failed attempts in a row that open the circuit. Default 5.
    pub failure_threshold: u32,
    /// Successes that close it again. Default 2.
    pub success_threshold: u32,
    /// Time until the first probe after it opened. Default 60 s.
    #[doc(alias = "recovery_timeout")]
    pub timeout: Duration,
    /// Attempts altogether, the first one included. Default 3.
    pub retry_attempts: u32,
    /// Wait before the second attempt. Default 1 s.
    pub retry_delay: Duration,
    /// Factor by which each wait is longer than the one before. Default 2.
    pub retry_backoff: f64,
    /// Limit of one attempt. Default 30 s.
    pub request_timeout: Duration,
}

impl Default for CircuitConfig {
    fn default() -> Self {
        Self {
            failure_threshold: 5,
            success_threshold: 2,
            timeout: Duration::from_secs(60),
            retry_attempts: 3,
            retry_delay: Duration::from_secs(1),
            retry_backoff: 2.0,
            request_timeout: Duration::from_secs(30),
        }
    }
}

impl CircuitConfig {
    /// Sets how many failed attempts in a row open the circuit.
    #[must_use]
    pub const fn with_failure_threshold(mut self, failures: u32) -> Self {
        self.failure_threshold = failures;
        self
    }

    /// Sets how many successes close it again.
    #[must_use]
    pub const fn with_success_threshold(mut self, successes: u32) -> Self {
        self.success_threshold = successes;
        self
    }

    /// Sets the time until the first probe.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the number of attempts, the first one included.
    #[must_use]
    pub const fn with_retry_attempts(mut self, attempts: u32) -> Self {
        self.retry_attempts = attempts;
        self
    }

    /// Sets the wait before the second attempt, and the factor of the further ones.
    #[must_use]
    pub const fn with_retry_delay(mut self, delay: Duration, backoff: f64) -> Self {
        self.retry_delay = delay;
        self.retry_backoff = backoff;
        self
    }

    /// Sets the limit of one attempt.
    #[must_use]
    pub const fn with_request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }
}

impl From<CircuitConfig> for PolicyConfig {
    fn from(config: CircuitConfig) -> Self {
        let mut policy = Self::default();
        policy.circuit_breaker.enabled = Some(true);
        policy.circuit_breaker.failure_threshold = Some(config.failure_threshold);
        policy.circuit_breaker.success_threshold = Some(config.success_threshold);
        policy.circuit_breaker.recovery_timeout = Some(config.timeout);
        policy.retry.max_attempts = Some(config.retry_attempts);
        policy.retry.delay = Some(config.retry_delay);
        policy.retry.backoff = Some(config.retry_backoff);
        policy.request_timeout = Some(config.request_timeout);
        policy
    }
}
