//! What stands for the HTTP clients in a build without them.

use tokio::time::Instant;
use trunkline_core::{Health, Propagation, Result};
use trunkline_discovery::{Discovery, DiscoveryBuilder};
use trunkline_telemetry::Metrics;

use crate::named::Missing;
use crate::policies::CurrentConfig;

/// Nothing that could ask instances how they are.
pub(crate) struct Probing;

impl Probing {
    pub(crate) fn new() -> Self {
        Self
    }

    #[expect(clippy::unused_self, reason = "the same as with clients")]
    pub(crate) fn add_to(&self, discovery: DiscoveryBuilder) -> DiscoveryBuilder {
        discovery
    }
}

/// No clients.
pub(crate) struct HttpClients;

impl HttpClients {
    pub(crate) fn new(
        _: CurrentConfig,
        _: Result<Discovery, Missing>,
        _: Propagation,
        _: Metrics,
        _: Probing,
        _: &Health,
    ) -> Self {
        Self
    }

    #[expect(clippy::unused_async, reason = "the same as with clients")]
    pub(crate) async fn shutdown(&self, _: Instant) {}
}
