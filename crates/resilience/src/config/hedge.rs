//! Hedging as configuration writes it.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trunkline_core::duration;

/// When a call is asked a second time beside the first, whose answer is late. The first good answer wins. Hedges are paid
/// from the retry budget.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct HedgeConfig {
    /// Whether calls are hedged. Default: yes once `delay` or `percentile` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// A fixed wait before the second request. Default: measured, see `percentile`.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Text>")]
    pub delay: Option<Duration>,
    /// The wait is as long as this share of the answers of the last half minute took, in percent. Default 95.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 50, max = 99.9))]
    pub percentile: Option<f64>,
    /// A measured wait is never shorter than this. Default `5ms`.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Text>")]
    pub min_delay: Option<Duration>,
    /// With fewer answers than this in the last half minute nothing is hedged, unless `delay` is given. Default 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub minimum_calls: Option<u32>,
    /// Further requests for one attempt, each after another such wait. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 5))]
    pub max_hedges: Option<u32>,
    /// HTTP methods that are hedged, where they are repeatable. Default GET, HEAD, OPTIONS, TRACE: of two requests at the
    /// same time that change something, one may be told of a conflict, and that answer may come first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub methods: Option<Vec<String>>,
}
