//! Logs and metrics of Trunkline: structured logs whose level can be changed at run time, and a metrics registry of its
//! own for every manager.
//!
//! Users of the facade configure both (`logging`, `metrics`) and rarely name this crate. Depend on it directly to record
//! into Trunkline's metrics from a backend, or to add its log layer to a subscriber of your own. It is not a general
//! metrics library: it has exactly the metrics that Trunkline's parts record, plus a door for your own
//! ([`Metrics::register`]).
//!
//! ```
//! use std::time::Duration;
//! use trunkline_core::ErrorKind;
//! use trunkline_telemetry::{Format, LogOutput, LoggingConfig, Logs, Metrics};
//!
//! // Logs: installed only where the application has no subscriber.
//! let logs = Logs::new(&LoggingConfig::default(), LogOutput::stderr().with_service("orders"));
//! let installed = logs.install();
//!
//! // Metrics: handles are made once and cost atomics after that.
//! let metrics = Metrics::new();
//! let users = metrics.http_client("user-service").endpoint("GET /users/{id}");
//! users.answered(200, Duration::from_millis(4));
//! users.failed(ErrorKind::Timeout, Duration::from_secs(1));
//! assert!(metrics.render(Format::Prometheus)?.contains("error_type=\"timeout\""));
//! # let _ = installed;
//! # Ok::<(), trunkline_core::Error>(())
//! ```
//!
//! # Concepts
//! - [`Metrics`]: one registry a manager. Names are in [`trunkline_core::names::metric`]; labels are bounded.
//! - [`Format`]: Prometheus text or OpenMetrics, chosen by the request's `Accept`.
//! - [`Logs`]: the control over what is written; [`Logs::layer`] is the writer.
//!
//! # Guarantees
//! Nothing global is installed over the application's own. Recording never blocks, allocates only when a label set is
//! seen for the first time, and cannot fail. A value that two threads record at once is counted twice, never lost; a
//! reader may see a histogram's sum a moment before its count.

mod config;
mod logs;
pub mod metrics;

pub use config::{Install, LogFormat, LogLevel, LoggingConfig, MetricsConfig};
pub use logs::{LogOutput, Logs};
pub use metrics::{
    ActiveGuard, AttemptMetrics, CircuitMetrics, CircuitPosition, ConsumeMetrics, DiscoveryMetrics,
    EventStoreMetrics, Format, HttpClientEndpointMetrics, HttpClientMetrics, HttpServerMetrics,
    MessagingMetrics, Metrics, Processed, PublishMetrics, Rejection, RelayMetrics,
    ResilienceMetrics, RouteMetrics,
};
