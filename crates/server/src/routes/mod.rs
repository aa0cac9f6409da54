//! Routes that every service has. Each function gives a router of its own, for people with their own axum app.

mod health;
mod metrics;
mod publish;

pub use health::health_routes;
pub use metrics::metrics_routes;
pub use publish::{BrokerSource, ToPublisher, publish_routes};
