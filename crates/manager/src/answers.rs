//! The memory for answers that all HTTP clients of a manager share.

use trunkline_http::{ClientBuilder, EnhancedHttpClient, ResponseCache};
use trunkline_telemetry::Metrics;

/// The memory for answers, one for the process, so that one bound holds for all clients.
#[derive(Debug)]
pub(crate) struct Answers(ResponseCache);

impl Answers {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self(ResponseCache::builder().metrics(metrics).build())
    }

    /// Keeps the answers to a client in it.
    pub(crate) fn of(
        &self,
        builder: ClientBuilder<EnhancedHttpClient>,
    ) -> ClientBuilder<EnhancedHttpClient> {
        builder.cache(self.0.clone())
    }

    /// Keeps nothing: what stands between strangers passes what it is given.
    #[cfg(feature = "gateway")]
    pub(crate) fn none(
        builder: ClientBuilder<EnhancedHttpClient>,
    ) -> ClientBuilder<EnhancedHttpClient> {
        builder.without_cache()
    }
}
