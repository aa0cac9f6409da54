//! The `CommunicationManager`: configuration from every source, components by name, ordered start and stop, health.
//!
//! Applications use it through the `trunkline` facade. Depend on this crate directly only to build a facade of your own.
//!
//! ```
//! use trunkline_manager::{CommunicationConfig, CommunicationManager};
//! use trunkline_messaging::MessageBrokerConfig;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
//! let config = CommunicationConfig::builder()
//!     .service_name("order-service")
//!     .message_broker("default", MessageBrokerConfig::memory())
//!     .service_discovery(trunkline_discovery::ServiceDiscoveryConfig::static_only())
//!     .event_store(trunkline_events::EventStoreConfig::memory())
//!     .build()?;
//! CommunicationManager::new(config)
//!     .lifespan(async |manager| {
//!         manager.publish_message("default", "order.created", &serde_json::json!({ "id": 1 })).await
//!     })
//!     .await
//! # }
//! ```
//!
//! # Features
//!
//! | feature | what it brings |
//! |---|---|
//! | `http` | HTTP clients by name and by service |
//! | `compression` | gzip, br and zstd for HTTP clients; builds C |
//! | `server` | serving a router as a service |
//! | `gateway` | serving an API gateway |
//! | `json-schema` | JSON Schemas of topics |
//! | `embedded` | broker, registry, event store and inbox on local disk; supplies what is not configured |
//!
//! # What is promised
//! - A start connects required parts or undoes itself; optional parts are picked up when they come.
//! - A stop takes no new work, lets what runs finish, and keeps what it sends working until then.
//! - Nothing global is installed over the application's own.

#[cfg(feature = "cache")]
mod answers;
mod assemble;
mod asyncapi;
pub mod backends;
mod brokers;
mod builder;
mod callbacks;
mod circuit_metrics;
#[cfg(feature = "http")]
mod circuits;
mod component;
pub mod config;
mod conveniences;
#[cfg(feature = "server")]
mod elsewhere;
#[cfg(feature = "gateway")]
mod gateway;
mod global;
#[cfg(feature = "http")]
mod http;
mod lifespan;
mod logs;
mod manager;
mod messaging;
mod monitor;
mod named;
#[cfg(all(feature = "http", not(feature = "cache")))]
mod no_answers;
mod phase;
mod policies;
mod prefix;
mod relay;
mod reload;
#[cfg(feature = "http")]
mod sdk;
#[cfg(feature = "server")]
mod service;
mod several;
mod signal;
mod stages;
mod stores;
#[cfg(not(feature = "http"))]
mod without_http;

#[cfg(all(feature = "http", not(feature = "cache")))]
use no_answers as answers;
#[cfg(not(feature = "http"))]
use without_http as http;

pub use brokers::BrokerInfo;
pub use builder::CommunicationManagerBuilder;
pub use callbacks::CallbackOutcome;
#[cfg(feature = "http")]
pub use circuits::CircuitInfo;
#[cfg(feature = "http")]
pub use config::ResponseCacheConfig;
pub use config::{
    CommunicationConfig, ConfigBuilder, ConfigLoader, ConfigState, ConfigWatch, Diagnostic,
    Diagnostics, EmbeddedConfig, Environment, HealthConfig, Place, PolicyExplanation, ServiceInfo,
    Setting, Severity, Source,
};
pub use global::{communication_manager, initialize_communication, shutdown_communication};
pub use manager::CommunicationManager;
pub use reload::AppliedConfig;
#[cfg(feature = "http")]
pub use sdk::{call_service, typed_client};
pub use stages::Stage;
