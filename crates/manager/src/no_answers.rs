//! In place of the memory for answers, in a build without the feature `cache`.

use trunkline_core::Result;
use trunkline_http::{ClientBuilder, EnhancedHttpClient};
use trunkline_telemetry::Metrics;

use crate::config::CommunicationConfig;

#[derive(Debug)]
pub(crate) struct Answers;

impl Answers {
    pub(crate) fn new(_: &CommunicationConfig, _: &Metrics) -> Self {
        Self
    }

    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "as the memory has it"
    )]
    pub(crate) fn of(
        &self,
        builder: ClientBuilder<EnhancedHttpClient>,
    ) -> Result<ClientBuilder<EnhancedHttpClient>> {
        Ok(builder)
    }

    #[cfg(feature = "gateway")]
    pub(crate) fn none(
        builder: ClientBuilder<EnhancedHttpClient>,
    ) -> ClientBuilder<EnhancedHttpClient> {
        builder
    }
}
