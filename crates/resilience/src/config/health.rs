//! Checks of endpoints as configuration writes them.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trunkline_core::duration;

/// How endpoints are checked whose methods are marked `#[health_check]`: every instance is asked for the endpoint now and
/// then, beside its health path and past retries and circuits. Of endpoints that are not marked nothing is asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct EndpointCheckConfig {
    /// Whether the endpoint is asked. Default: as it is marked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Time between two checks of one instance. Default `30s`.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Text>")]
    pub interval: Option<Duration>,
    /// Time for one check. Default `5s`.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Text>")]
    pub timeout: Option<Duration>,
    /// Failed checks in a row after which an instance gets no more requests; one good check brings it back. Default 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub failure_threshold: Option<u32>,
}
