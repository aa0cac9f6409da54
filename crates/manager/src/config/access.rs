//! Questions that the rest of the manager asks a configuration.

use trunkline_discovery::{ServiceConfig, ServiceName};
use trunkline_messaging::MessageBrokerConfig;

use super::diagnostics::Diagnostics;
use super::model::CommunicationConfig;
use super::place::Place;

impl CommunicationConfig {
    /// The settings of a service, under any spelling of its name.
    #[must_use]
    pub fn service_config(&self, name: &str) -> Option<&ServiceConfig> {
        self.services.get(&ServiceName::new(name).ok()?)
    }

    /// The service that a configured client leads to, unless it has a base URL: the one it names, else that of its own
    /// name. The entry `default` names none by being called so.
    #[cfg(feature = "http")]
    pub(crate) fn client_service(&self, client: &str) -> Option<ServiceName> {
        let settings = self.http_clients.get(client)?;
        let by_name = (client != crate::named::DEFAULT).then_some(client);
        let name = settings.service.as_deref().or(by_name);
        let name = name.filter(|_| settings.base_url.is_none())?;
        ServiceName::new(name).ok()
    }

    /// The tier that response caches share.
    #[cfg(feature = "http")]
    pub(crate) fn shared_tier(&self) -> Option<&trunkline_core::Secret<String>> {
        self.response_cache.tier.as_ref()
    }

    /// A build that calls nothing keeps no answers.
    #[cfg(not(feature = "http"))]
    #[expect(clippy::unused_self, reason = "as with the feature")]
    pub(crate) fn shared_tier(&self) -> Option<&trunkline_core::Secret<String>> {
        None
    }

    /// What stands before topics, queues, groups and service names, with the dot at its end, which may be left out where
    /// it is written.
    pub(crate) fn effective_prefix(&self) -> Option<String> {
        with_dot(self.prefix.as_deref()?)
    }

    /// The prefix of topics, queues and groups on a broker: its own, else that of everything.
    pub(crate) fn prefix_on(&self, broker: &MessageBrokerConfig) -> Option<String> {
        match &broker.prefix {
            Some(own) => with_dot(own),
            None => self.effective_prefix(),
        }
    }

    /// Whether metrics are kept: `enable_metrics` and `observability_enabled`.
    #[must_use]
    pub fn metrics_on(&self) -> bool {
        self.enable_metrics && self.observability_enabled
    }

    /// Whether calls are traced: `enable_tracing` and `observability_enabled`.
    #[must_use]
    pub fn tracing_on(&self) -> bool {
        self.enable_tracing && self.observability_enabled
    }

    /// Where the value under a path such as `services.user-service.port` was written; `None` if it is the default or
    /// was set in code.
    #[must_use]
    pub fn place(&self, path: &str) -> Option<&Place> {
        self.provenance.place(path)
    }

    /// What was odd when the configuration was loaded; the manager logs it.
    #[must_use]
    pub fn warnings(&self) -> &Diagnostics {
        self.provenance.warnings()
    }

    /// The files that were read.
    #[must_use]
    pub fn files(&self) -> &[std::path::PathBuf] {
        self.provenance.files()
    }
}

fn with_dot(prefix: &str) -> Option<String> {
    let name = prefix.strip_suffix('.').unwrap_or(prefix);
    (!name.is_empty()).then(|| format!("{name}."))
}
