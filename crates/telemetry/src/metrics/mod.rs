//! Metrics of one manager.
//!
//! An area's accessor ([`Metrics::http_client`], [`Metrics::messaging`] …) is asked once, when a client or a
//! subscription is built; it gives handles whose labels are resolved already. The hot path then touches atomics alone:
//! no lock, no allocation, and for histograms no cache line that another thread writes.
//!
//! Label values come from configuration and templates, never from raw paths, and each metric keeps a bounded number of
//! label sets ([`MetricsConfig::max_label_sets`]); what comes later is counted under `other`.

mod cache;
mod component;
mod discovery;
mod events;
mod family;
mod histogram;
mod http_client;
mod http_server;
mod instrument;
mod messaging;
mod render;
mod resilience;
mod table;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::registry::Registry;
use trunkline_core::{Health, Result};

pub use cache::{CacheMetrics, CacheOutcome, CacheStoreMetrics};
pub use discovery::{DiscoveryMetrics, RegistrationMetrics};
pub use events::{EventStoreMetrics, RelayMetrics};
pub use http_client::{AttemptMetrics, HttpClientEndpointMetrics, HttpClientMetrics};
pub use http_server::{HttpServerMetrics, RouteMetrics};
pub use instrument::ActiveGuard;
pub use messaging::{ConsumeMetrics, MessagingMetrics, Processed, PublishMetrics};
pub use render::Format;
pub use resilience::{CircuitMetrics, CircuitPosition, Rejection, ResilienceMetrics};

use crate::MetricsConfig;
use table::Table;

/// The metrics of one manager; clones share them. Two managers in one process do not mix.
///
/// ```
/// use std::time::Duration;
/// use trunkline_telemetry::{Format, Metrics};
///
/// let metrics = Metrics::new();
/// let route = metrics.http_server().route("GET", "/users/{id}");
/// route.served(200, Duration::from_millis(3));
/// let text = metrics.render(Format::Prometheus)?;
/// assert!(text.contains("http_server_request_duration_seconds_count"));
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Metrics(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    registry: Mutex<Registry>,
    table: Table,
    detailed: Arc<AtomicBool>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics with the default settings.
    #[must_use]
    pub fn new() -> Self {
        Self::build(&MetricsConfig::default())
    }

    /// Metrics with these settings.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](trunkline_core::ErrorKind::Config) when the bounds of the buckets are not positive,
    /// finite and ascending, or there are none.
    pub fn with_config(config: &MetricsConfig) -> Result<Self> {
        config.check()?;
        Ok(Self::build(config))
    }

    /// No metrics: every handle does nothing and holds nothing.
    #[must_use]
    pub const fn disabled() -> Self {
        Self(None)
    }

    fn build(config: &MetricsConfig) -> Self {
        let mut registry = Registry::default();
        let detailed = Arc::new(AtomicBool::new(false));
        let table = Table::register(&mut registry, config, &detailed);
        Self(Some(Arc::new(Inner {
            registry: Mutex::new(registry),
            table,
            detailed,
        })))
    }

    /// Whether anything is recorded.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.0.is_some()
    }

    /// Switches the detailed metrics: attempts by instance, sizes of messages. Off at first; may be switched at any
    /// time, and what was recorded is kept while they are off.
    pub fn set_detailed(&self, on: bool) {
        if let Some(inner) = &self.0 {
            inner.detailed.store(on, Ordering::Relaxed);
        }
    }

    /// Whether the detailed metrics are recorded and shown.
    #[must_use]
    pub fn is_detailed(&self) -> bool {
        let inner = self.0.as_ref();
        inner.is_some_and(|inner| inner.detailed.load(Ordering::Relaxed))
    }

    /// What is measured about requests to a service.
    #[must_use]
    pub fn http_client(&self, service: &str) -> HttpClientMetrics {
        HttpClientMetrics::new(self.clone(), service)
    }

    /// What is measured about the cache of calls to a service.
    #[must_use]
    pub fn cache(&self, service: &str) -> CacheMetrics {
        CacheMetrics::new(self, service)
    }

    /// What is measured about the memory of a cache.
    #[must_use]
    pub fn cache_store(&self) -> CacheStoreMetrics {
        CacheStoreMetrics::new(self)
    }

    /// What is measured about requests served.
    #[must_use]
    pub fn http_server(&self) -> HttpServerMetrics {
        HttpServerMetrics::new(self.clone())
    }

    /// What is measured about the policies of a service.
    #[must_use]
    pub fn resilience(&self, service: &str) -> ResilienceMetrics {
        ResilienceMetrics::new(self.clone(), service)
    }

    /// What is measured about messages of a broker.
    #[must_use]
    pub fn messaging(&self, broker: &str) -> MessagingMetrics {
        MessagingMetrics::new(self.clone(), broker)
    }

    /// What is measured about finding a service.
    #[must_use]
    pub fn discovery(&self, service: &str) -> DiscoveryMetrics {
        DiscoveryMetrics::new(self.table(), service)
    }

    /// What is measured about announcing own instances.
    #[must_use]
    pub fn registrations(&self) -> RegistrationMetrics {
        RegistrationMetrics::new(self.table())
    }

    /// What is measured about an event store.
    #[must_use]
    pub fn events(&self, store: &str) -> EventStoreMetrics {
        EventStoreMetrics::new(self.table(), store)
    }

    /// What is measured about a relay.
    #[must_use]
    pub fn relay(&self, relay: &str) -> RelayMetrics {
        RelayMetrics::new(self.table(), relay)
    }

    /// Shows the health of every component as a metric, read when the metrics are. The first health given stays.
    pub fn show_health(&self, health: &Health) {
        if let Some(inner) = &self.0 {
            inner.table.health.set(health);
        }
    }

    /// Gives access to the registry, for metrics of the application's own. Their names must differ from those of
    /// [`trunkline_core::names::metric`]. Does nothing when metrics are disabled.
    pub fn register(&self, with: impl FnOnce(&mut Registry)) {
        if let Some(inner) = &self.0 {
            with(
                &mut inner
                    .registry
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner),
            );
        }
    }

    /// Everything recorded, as text. Disabled metrics are an empty text.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](trunkline_core::ErrorKind::Internal) when a metric that the application registered
    /// cannot be written.
    pub fn render(&self, format: Format) -> Result<String> {
        match &self.0 {
            None => Ok(format.empty()),
            Some(inner) => {
                let registry = inner
                    .registry
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                format.render(&registry)
            }
        }
    }

    fn table(&self) -> Option<&Table> {
        self.0.as_ref().map(|inner| &inner.table)
    }
}
