//! The memory for answers that all HTTP clients of a manager share.

use trunkline_core::{Error, Result};
use trunkline_http::{ClientBuilder, EnhancedHttpClient, ResponseCache};
use trunkline_telemetry::Metrics;

use crate::backends::cache_tier;
use crate::config::CommunicationConfig;

/// The memory for answers, one for the process, so that one bound holds for all clients.
#[derive(Debug)]
pub(crate) struct Answers(Result<ResponseCache, String>);

impl Answers {
    /// What cannot be made says why when a client is asked for.
    pub(crate) fn new(config: &CommunicationConfig, metrics: &Metrics) -> Self {
        let settings = &config.response_cache;
        let builder = ResponseCache::builder()
            .max_size(settings.max_size)
            .max_entry_size(settings.max_entry_size)
            .tier_timeout(settings.tier_timeout)
            .metrics(metrics);
        let Some(url) = &settings.tier else {
            return Self(Ok(builder.build()));
        };
        let prefix = config.effective_prefix();
        let tier = cache_tier(url.expose(), prefix.as_deref());
        let made = tier.map(|tier| builder.tier(tier).build());
        Self(made.map_err(|error| error.message().to_owned()))
    }

    /// Keeps the answers to a client in it.
    pub(crate) fn of(
        &self,
        builder: ClientBuilder<EnhancedHttpClient>,
    ) -> Result<ClientBuilder<EnhancedHttpClient>> {
        let cache = self
            .0
            .as_ref()
            .map_err(|problem| Error::config(format!("response_cache.tier: {problem}")))?;
        Ok(builder.cache(cache.clone()))
    }

    /// Keeps nothing: what stands between strangers passes what it is given.
    #[cfg(feature = "gateway")]
    pub(crate) fn none(
        builder: ClientBuilder<EnhancedHttpClient>,
    ) -> ClientBuilder<EnhancedHttpClient> {
        builder.without_cache()
    }
}
