//! In place of the memory for answers, in a build without the feature `cache`.

use trunkline_http::{ClientBuilder, EnhancedHttpClient};
use trunkline_telemetry::Metrics;

#[derive(Debug)]
pub(crate) struct Answers;

impl Answers {
    pub(crate) fn new(_: &Metrics) -> Self {
        Self
    }

    #[expect(clippy::unused_self, reason = "as the memory has it")]
    pub(crate) fn of(
        &self,
        builder: ClientBuilder<EnhancedHttpClient>,
    ) -> ClientBuilder<EnhancedHttpClient> {
        builder
    }

    #[cfg(feature = "gateway")]
    pub(crate) fn none(
        builder: ClientBuilder<EnhancedHttpClient>,
    ) -> ClientBuilder<EnhancedHttpClient> {
        builder
    }
}
