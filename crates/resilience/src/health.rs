//! Checks of single endpoints: settings alone. Who has clients and instances carries them out.

use std::time::Duration;

/// How an endpoint is checked, all of it settled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointCheckSettings {
    /// Time between two checks of one instance.
    pub interval: Duration,
    /// Time for one check.
    pub timeout: Duration,
    /// Failed checks in a row after which an instance gets no more requests.
    pub failure_threshold: u32,
}

impl Default for EndpointCheckSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
            failure_threshold: 3,
        }
    }
}
