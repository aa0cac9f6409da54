//! CommunicationManager: configuration from every source, components by name, ordered start and stop, health.

pub mod config;

pub use config::{
    CommunicationConfig, ConfigBuilder, ConfigLoader, Diagnostic, Diagnostics, EmbeddedConfig,
    Environment, HealthConfig, Place, ServiceInfo, Severity, Source,
};
