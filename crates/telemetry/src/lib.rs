//! Logs and metrics of Trunkline: structured logs, run-time levels, a per-manager registry.

mod config;
pub mod metrics;

pub use config::{Install, LogFormat, LogLevel, LoggingConfig, MetricsConfig};
pub use metrics::{Format, Metrics};
