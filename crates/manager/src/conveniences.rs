//! Short ways to what is used most.

use trunkline_core::{Error, Result};
use trunkline_discovery::Discovery;
use trunkline_events::AnyEventStore;
use trunkline_messaging::inbox::AnyInbox;

use crate::CommunicationManager;
use crate::prefix::Prefixed;

impl CommunicationManager {
    /// Where services are found.
    ///
    /// # Errors
    /// The reason why the configured registry could not be opened.
    #[doc(alias = "get_service_discovery")]
    pub fn service_discovery(&self) -> Result<Discovery> {
        self.0
            .parts
            .discovery
            .as_ref()
            .cloned()
            .map_err(|missing| missing.error())
    }

    /// The event store.
    ///
    /// # Errors
    /// `NotFound` when none is configured; the reason why the configured one could not be opened.
    #[doc(alias = "get_event_store")]
    pub fn event_store(&self) -> Result<AnyEventStore> {
        match &self.0.parts.event_store {
            Some(Ok(store)) => Ok(store.clone()),
            Some(Err(missing)) => Err(missing.error()),
            None => Err(Error::not_found(
                "there is no event store: none is configured",
            )),
        }
    }

    /// Remembers what was done: durable with the feature `embedded`, else for this process alone. It is opened when it
    /// is first used, and ends with the manager. Under a prefix it knows only what was done under that prefix.
    #[must_use]
    pub fn inbox(&self) -> AnyInbox {
        let inbox = self.0.parts.backends.inbox();
        match self.0.config.effective_prefix() {
            None => inbox,
            Some(prefix) => AnyInbox::new(Prefixed::new(inbox, &prefix)),
        }
    }

    /// Logs every step of the manager in detail, or stops doing so.
    #[doc(alias = "debug_mode")]
    pub fn set_debug_mode(&self, on: bool) {
        self.0.logs.set_debug(on);
    }

    /// Keeps metrics with more labels, or stops doing so.
    #[doc(alias = "detailed_metrics")]
    pub fn set_detailed_metrics(&self, on: bool) {
        self.0.metrics.set_detailed(on);
    }

    /// The logs: levels can be changed, and [`Logs::layer`](trunkline_telemetry::Logs::layer) goes into a subscriber of
    /// the application's own.
    #[must_use]
    pub fn logs(&self) -> &trunkline_telemetry::Logs {
        &self.0.logs
    }
}
