//! A policy as configuration writes it: every field may be left out, so that layers merge field by field.
//!
//! [`PolicyConfig`] is plain data. [`crate::PolicyLayers`] merges several of them over the built-in values into an
//! [`crate::EffectivePolicy`], in which every value is settled, and says where each came from.

mod cache;
mod check;
mod health;
mod hedge;
mod limits;
mod timeout;
mod versions;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trunkline_core::{ErrorKind, duration};

pub use cache::{CacheConfig, CacheMode};
pub use check::{InvalidPolicy, Problem};
pub use health::EndpointCheckConfig;
pub use hedge::HedgeConfig;
pub use limits::{
    ChaosAbortConfig, ChaosConfig, ChaosErrorConfig, ChaosErrorKind, ChaosLatencyConfig,
    ChaosMatchConfig, ConcurrencyAlgorithm, ConcurrencyConfig, RateLimitConfig,
};
pub use timeout::TimeoutConfig;
pub use versions::{VersionFailure, VersionPlace, VersionsConfig};

/// One layer of a policy: whatever it leaves out comes from the layer below.
///
/// ```
/// use std::time::Duration;
/// use trunkline_resilience::PolicyConfig;
///
/// let mut policy = PolicyConfig::default();
/// policy.request_timeout = Some(Duration::from_secs(2));
/// policy.retry.max_attempts = Some(2);
/// policy.circuit_breaker.failure_threshold = Some(3);
/// assert!(policy.problems().is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PolicyConfig {
    /// Limits of a whole call: a span of time for all of it, or a mapping of its parts.
    #[serde(skip_serializing_if = "TimeoutConfig::is_empty")]
    pub timeout: TimeoutConfig,
    /// Limit of one attempt, never past what is left of the total. Default `30s`.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Text>")]
    pub request_timeout: Option<Duration>,
    /// When and how often a failed attempt is repeated.
    #[serde(skip_serializing_if = "is_default")]
    pub retry: RetryConfig,
    /// When calls are refused here because the other side keeps failing.
    #[serde(skip_serializing_if = "is_default")]
    pub circuit_breaker: CircuitBreakerConfig,
    /// How many calls may run at once.
    #[serde(skip_serializing_if = "is_default")]
    pub bulkhead: BulkheadConfig,
    /// How many calls may begin in a span of time.
    #[serde(skip_serializing_if = "is_default")]
    pub rate_limit: RateLimitConfig,
    /// How many calls may run at once, found out by how the other side answers to load.
    #[serde(skip_serializing_if = "is_default")]
    pub concurrency: ConcurrencyConfig,
    /// What goes wrong on purpose, for tests and game days.
    #[serde(skip_serializing_if = "is_default")]
    pub chaos: ChaosConfig,
    /// When a call is asked a second time beside the first, whose answer is late.
    #[serde(skip_serializing_if = "is_default")]
    pub hedge: HedgeConfig,
    /// Which versions of the service are asked, and when the next one has its turn.
    #[serde(skip_serializing_if = "is_default")]
    pub versions: VersionsConfig,
    /// Which answers are kept, and for how long.
    #[serde(skip_serializing_if = "is_default")]
    pub cache: CacheConfig,
    /// What answers when the call has failed for good.
    #[serde(skip_serializing_if = "is_default")]
    pub fallback: FallbackConfig,
    /// How endpoints are checked whose methods are marked `health_check`.
    #[serde(skip_serializing_if = "is_default")]
    pub health_check: EndpointCheckConfig,
}

/// When and how often a failed attempt is repeated.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RetryConfig {
    /// Whether to retry at all. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Attempts altogether, the first one included. Default 3.
    #[doc(alias = "retry_attempts")]
    #[doc(alias = "max_retries")]
    #[serde(alias = "retry_attempts", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_attempts: Option<u32>,
    /// How the waits between attempts grow. Default `exponential`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// Wait before the second attempt. Default `1s`.
    #[serde(
        alias = "retry_delay",
        with = "duration::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "Option<duration::Text>")]
    pub delay: Option<Duration>,
    /// Factor by which each further wait grows where `strategy` is `exponential`. Default 2.0.
    #[serde(alias = "retry_backoff", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub backoff: Option<f64>,
    /// No wait grows beyond this. Default `30s`.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Text>")]
    pub max_delay: Option<Duration>,
    /// Whether each wait is shortened at random by up to a half, so that callers do not come back together. Default
    /// true. Waits of the `decorrelated` strategy are random in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<bool>,
    /// No attempt begins later than this after the first one. Default: the total timeout alone bounds it.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Text>")]
    pub max_elapsed: Option<Duration>,
    /// How many retries all callers of one destination may make together.
    #[serde(skip_serializing_if = "is_default")]
    pub budget: BudgetConfig,
    /// HTTP statuses that are worth another attempt. Default 429, 502, 503, 504.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_status: Option<Vec<u16>>,
    /// Kinds of errors that are worth another attempt, of those that allow one at all. Default: every kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_error: Option<Vec<RetryableKind>>,
    /// HTTP methods that may be repeated although the first request may have been processed. Default GET, HEAD,
    /// OPTIONS, TRACE, PUT, DELETE. Others need an idempotency key, or proof that nothing was processed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub methods: Option<Vec<String>>,
}

/// How the waits between attempts grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Always `delay`.
    Fixed,
    /// By `delay` each time.
    Linear,
    /// By the factor `backoff` each time.
    #[default]
    Exponential,
    /// Each drawn by chance between `delay` and three times the wait before: callers that failed together do not meet
    /// again.
    Decorrelated,
}

impl Strategy {
    /// The word that configuration uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Linear => "linear",
            Self::Exponential => "exponential",
            Self::Decorrelated => "decorrelated",
        }
    }
}

/// A kind of error that can be worth another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RetryableKind {
    /// The other side cannot be reached, or the connection to it broke.
    Unavailable,
    /// The time of an attempt ran out.
    Timeout,
    /// The other side asks for fewer requests.
    RateLimited,
    /// Refused here before anything was sent: no instance, no free connection.
    Rejected,
    /// It contradicts the present state.
    Conflict,
    /// Something is full.
    Exhausted,
    /// A fault of the other side that fits nowhere else.
    Internal,
}

impl RetryableKind {
    /// The kind as errors have it.
    #[must_use]
    pub const fn kind(self) -> ErrorKind {
        match self {
            Self::Unavailable => ErrorKind::Unavailable,
            Self::Timeout => ErrorKind::Timeout,
            Self::RateLimited => ErrorKind::RateLimited,
            Self::Rejected => ErrorKind::Rejected,
            Self::Conflict => ErrorKind::Conflict,
            Self::Exhausted => ErrorKind::Exhausted,
            Self::Internal => ErrorKind::Internal,
        }
    }
}

/// How many retries all callers of one destination may make together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BudgetConfig {
    /// Whether retries are limited together. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Retries allowed, in percent of the calls of the last ten seconds. Default 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub percent: Option<f64>,
    /// Retries a second that are always allowed, for when there are few calls. Default 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100_000))]
    pub min_per_second: Option<u32>,
}

/// When calls are refused here because the other side keeps failing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct CircuitBreakerConfig {
    /// Whether there is a breaker at all. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Takes the decision from the results of the calls: `open` refuses everything, `closed` lets everything pass, `disabled`
    /// lets everything pass and counts nothing. Default: their results decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force: Option<ForcedState>,
    /// Whose failures count together: those of an `endpoint` at all its instances, or those at one `instance`, which is then
    /// passed over while its circuit is open. Default `endpoint`. Where no instance is chosen, such as in publishing, it is
    /// `endpoint`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per: Option<CircuitPer>,
    /// Failures in a row that open the circuit (window type `consecutive`). Default 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub failure_threshold: Option<u32>,
    /// Successful probes that close it again. Default 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub success_threshold: Option<u32>,
    /// How long an open circuit refuses everything before it lets a probe through. Default `60s`.
    #[doc(alias = "timeout")]
    #[doc(alias = "resetTimeout")]
    #[serde(
        alias = "timeout",
        alias = "reset_timeout",
        with = "duration::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "Option<duration::Text>")]
    pub recovery_timeout: Option<Duration>,
    /// Probes under way at once while it is half-open. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub half_open_max_calls: Option<u32>,
    /// A probe that has not reported by then no longer blocks the next one. Default: `recovery_timeout`.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Text>")]
    pub probe_timeout: Option<Duration>,
    /// Which calls are looked at to decide that it opens.
    #[serde(skip_serializing_if = "is_default")]
    pub window: WindowConfig,
    /// Opens the circuit also when calls take too long. Off unless `duration` is given.
    #[serde(skip_serializing_if = "is_default")]
    pub slow_call: SlowCallConfig,
}

/// Who has a circuit of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CircuitPer {
    /// An endpoint, at all its instances; or all of a service, where no endpoint is named.
    #[default]
    Endpoint,
    /// The same at each instance.
    Instance,
}

impl CircuitPer {
    /// The word that configuration uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Instance => "instance",
        }
    }
}

/// How an operator holds a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ForcedState {
    /// Everything is refused.
    Open,
    /// Everything passes; results are counted and change nothing.
    Closed,
    /// Everything passes and nothing is counted. Unlike a breaker that is not `enabled`, it stays in sight of whoever looks
    /// at the circuits.
    Disabled,
}

impl ForcedState {
    /// The word that configuration uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Disabled => "disabled",
        }
    }
}

/// What a circuit breaker looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WindowKind {
    /// Failures in a row. The cheapest: a success on a closed circuit costs nothing that threads share.
    #[default]
    Consecutive,
    /// The share of failures among the last `size` calls.
    Count,
    /// The share of failures among the calls of the last `duration`.
    Time,
}

impl WindowKind {
    /// The word that configuration uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Consecutive => "consecutive",
            Self::Count => "count",
            Self::Time => "time",
        }
    }
}

/// Which calls a circuit breaker looks at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct WindowConfig {
    /// `consecutive` (failures in a row), `count` or `time` (share of failures). Default `consecutive`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<WindowKind>,
    /// Calls that a `count` window holds. Default 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub size: Option<u32>,
    /// Time that a `time` window covers. Default `60s`.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Text>")]
    pub duration: Option<Duration>,
    /// With fewer calls than this a share means nothing and opens nothing. Default 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub minimum_calls: Option<u32>,
    /// Share of failures that opens the circuit, in percent. Default 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_percent: Option<f64>,
}

/// Opens the circuit when too many calls take too long.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SlowCallConfig {
    /// Whether slow calls are looked at. Default: yes once `duration` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// A call that takes this long or longer is slow.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Text>")]
    pub duration: Option<Duration>,
    /// Share of slow calls that opens the circuit, in percent. Default 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub percent: Option<f64>,
}

/// How many calls may run at once. Set on a service it counts that service's calls together; set on an endpoint, that
/// endpoint's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BulkheadConfig {
    /// Whether there is a limit. Default: yes once `max_concurrent` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Calls under way at once. Default 100 where the bulkhead is enabled without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_concurrent: Option<u32>,
    /// Calls that may wait for a place; further ones are refused at once. Default: as many as `max_concurrent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub max_queue: Option<u32>,
    /// How long a call waits for a place at most, never past its deadline. Default `1s`.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Text>")]
    pub max_wait: Option<Duration>,
}

/// What answers when the call has failed for good: the last answer that was kept, the same request to another service,
/// or else a fixed value; the first of these that there is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct FallbackConfig {
    /// Whether it is used. Default: yes once `cache`, `service` or `value` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Whether the last answer that the cache still holds is used, however old, unless it forbids that itself
    /// (`must-revalidate`). Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<bool>,
    /// Another service that is asked the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Whether that service gets all headers of the request, tokens and keys as well. Default false: those that tell nothing
    /// of who asks, the context, and the idempotency key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_headers: Option<bool>,
    /// A fixed answer, as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<serde_json::Value>,
    /// The part of the deadline kept back for the fallback, at most a quarter of it. Default `250ms`.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Text>")]
    pub reserve: Option<Duration>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
