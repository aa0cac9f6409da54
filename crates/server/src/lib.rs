//! The server side for axum: MicroserviceApp, context and deadline middleware, problem+json, idempotency keys, routes.

mod config;

pub use config::{IdempotencyConfig, PublishRouteConfig, ServerConfig};
