//! CommunicationManager: configuration from every source, components by name, ordered start and stop, health.

pub mod config;

pub use config::{
    CommunicationConfig, ConfigBuilder, ConfigLoader, ConfigState, ConfigWatch, Diagnostic,
    Diagnostics, EmbeddedConfig, Environment, HealthConfig, Place, PolicyExplanation, ServiceInfo,
    Setting, Severity, Source,
};
