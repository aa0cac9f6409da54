//! Rate limit, adaptive concurrency and chaos as configuration writes them.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trunkline_core::duration;

use super::is_default;

/// How many calls may begin in a span of time. Set on a service it counts that service's calls together; set on an
/// endpoint, that endpoint's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RateLimitConfig {
    /// Whether there is a limit. Default: yes once `limit` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Calls that may begin within `per`, retries included. Default 100 where it is enabled without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub limit: Option<u32>,
    /// The span of time that `limit` is about. Default `1s`.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Text>")]
    pub per: Option<Duration>,
    /// Calls that may begin at once after a pause. Default: as many as `limit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: Option<u32>,
    /// How long a call waits for its turn at most, never past its deadline; `0s` refuses at once. Default `1s`.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Text>")]
    pub max_wait: Option<Duration>,
}

/// How a concurrency limit finds itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConcurrencyAlgorithm {
    /// By how latency under load compares with latency without load.
    #[default]
    Gradient,
    /// Up by one while all is well, down by a tenth at signs of overload.
    Aimd,
}

impl ConcurrencyAlgorithm {
    /// The word that configuration uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gradient => "gradient",
            Self::Aimd => "aimd",
        }
    }
}

/// How many calls may run at once, found out by how the other side answers to load. Set on a service it counts that
/// service's calls together; set on an endpoint, that endpoint's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ConcurrencyConfig {
    /// Whether there is such a limit. Default: yes once `algorithm` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// `gradient` (latency against latency without load) or `aimd` (up by one, down by a tenth). Default `gradient`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<ConcurrencyAlgorithm>,
    /// The limit to begin with. Default 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub initial: Option<u32>,
    /// It never falls below this. Default 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min: Option<u32>,
    /// It never rises above this. Default 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max: Option<u32>,
    /// Gradient: how many times slower than without load a call may be before the limit falls. Default 1.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10))]
    pub tolerance: Option<f64>,
    /// Gradient: the latency without load, where it is known and must not be learnt. Default: it is measured.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Text>")]
    pub baseline: Option<Duration>,
    /// Gradient: how often the limit is lowered for a moment to measure the latency without load, where that does not
    /// show by itself. Default `30s`.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Text>")]
    pub recheck: Option<Duration>,
    /// AIMD: a mean latency above this counts as overload, too. Default: only timeouts and refusals do.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Text>")]
    pub max_latency: Option<Duration>,
    /// Share of the limit, in percent, that calls of low priority may fill. Default 70.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub low_percent: Option<u32>,
    /// Share of the limit, in percent, that calls of normal priority may fill. Default 90.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub normal_percent: Option<u32>,
    /// Share of the limit, in percent, that calls of high priority may fill; critical ones may fill all. Default 95.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub high_percent: Option<u32>,
}

/// What goes wrong on purpose, for tests and game days.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ChaosConfig {
    /// Whether anything does. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// In the production profile `enabled: true` is refused without this beside it. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_in_production: Option<bool>,
    /// Calls that are delayed.
    #[serde(skip_serializing_if = "is_default")]
    pub latency: ChaosLatencyConfig,
    /// Calls that fail without being sent.
    #[serde(skip_serializing_if = "is_default")]
    pub error: ChaosErrorConfig,
    /// Calls that are sent and whose answer is thrown away.
    #[serde(skip_serializing_if = "is_default")]
    pub abort: ChaosAbortConfig,
    /// Which calls it is about. Default: all.
    #[serde(skip_serializing_if = "is_default")]
    pub only: ChaosMatchConfig,
    /// Where the dice begin, so that a run can be repeated. Default: at random.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// Calls that are delayed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ChaosLatencyConfig {
    /// Share of the calls, in percent. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<f64>,
    /// How long they are delayed. Default `500ms`.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Text>")]
    pub delay: Option<Duration>,
}

/// As what an injected error shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChaosErrorKind {
    /// No connection: provably not processed.
    #[default]
    Unavailable,
    /// It ran out of time: may have been processed.
    Timeout,
    /// The other side asks for fewer requests.
    RateLimited,
    /// A fault of the other side, final.
    Internal,
}

impl ChaosErrorKind {
    /// The word that configuration uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::RateLimited => "rate_limited",
            Self::Internal => "internal",
        }
    }
}

/// Calls that fail without being sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ChaosErrorConfig {
    /// Share of the calls, in percent. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<f64>,
    /// As what they fail: `unavailable`, `timeout`, `rate_limited`, `internal`. Default `unavailable`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<ChaosErrorKind>,
}

/// Calls that are sent and whose answer is thrown away.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ChaosAbortConfig {
    /// Share of the calls, in percent. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<f64>,
}

/// Which calls chaos is about: those that fit all that is given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ChaosMatchConfig {
    /// Endpoints, `*` standing for any text at the end: `GET /users/*`. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Vec<String>>,
    /// Numbers of attempts, the first being 1. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<Vec<u32>>,
    /// Whether only calls whose context carries the baggage `chaos=on`. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marked: Option<bool>,
}
