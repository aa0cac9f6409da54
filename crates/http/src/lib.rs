//! Resilient HTTP client over hyper-util: policies, discovery, context, real connection limits.

mod config;

pub use config::{EndpointConfig, HttpClientConfig, ServiceConfig};
