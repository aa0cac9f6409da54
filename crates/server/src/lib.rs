//! The server side of a service, for [`axum`].
//!
//! [`MicroserviceApp`] is a whole service around your router: it listens, opens the scope of each request's context,
//! keeps deadlines, answers errors as problem documents, logs and measures, announces itself in discovery and drains.
//! Everything it is made of works alone with an axum app of your own: [`layers`], [`routes`], [`extract`], and the
//! listener ([`serve`]). It knows no manager and no configuration file; for that use the `trunkline` facade.
//!
//! ```
//! use std::time::Duration;
//! use axum::{Router, routing::{get, post}};
//! use trunkline_core::Result;
//! use trunkline_server::{Json, MicroserviceApp, Path, ProblemResponse, ServerConfig};
//!
//! #[derive(serde::Deserialize)]
//! struct Order { quantity: u32 }
//!
//! async fn place(Json(order): Json<Order>) -> Json<u32> { Json(order.quantity) }
//! async fn show(Path(id): Path<u64>) -> Result<String, ProblemResponse> {
//!     Err(ProblemResponse::not_found(format!("there is no order {id}")))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
//! let router = Router::new().route("/orders", post(place)).route("/orders/{id}", get(show));
//! let config = ServerConfig::default().with_listen("127.0.0.1", 0);
//! let app = MicroserviceApp::builder("order-service").config(config).router(router).build()?;
//! app.run_until(async { /* a signal */ }, Duration::from_secs(25)).await
//! # }
//! ```
//!
//! # Concepts
//! - [`ProblemResponse`]: every error as RFC 9457 `application/problem+json`; [`trunkline_core::Error`] converts with `?`.
//! - [`Json`], [`Path`], [`Query`]: axum's extractors whose refusals are problem documents that name the field.
//! - [`layers::IdempotencyLayer`]: a repeated request with an `Idempotency-Key` is done once.
//! - [`Registration`]: how a service announces itself; discovery provides it.
//!
//! # Guarantees
//! A request whose client has gone, or whose deadline has passed, is dropped at its next await point. When a service
//! stops, requests under way are finished until the deadline and answers ask their clients to close; only what is left
//! at the deadline is cut off, and said to be. Connections, heads, bodies and requests at once are bounded.
//!
//! A drop at a deadline may leave the handler's work half done: what must not be, belongs in one transaction or in a
//! task of its own. TLS is not served here yet.

mod admission;
mod app;
mod config;
pub mod extract;
#[cfg(feature = "interface")]
pub mod interface;
pub mod layers;
mod problem;
pub mod routes;
pub mod serve;

pub use admission::ServerRateLimitConfig;
pub use app::{MicroserviceApp, MicroserviceAppBuilder, Registration};
pub use config::{IdempotencyConfig, PublishRouteConfig, ServerConfig};
pub use extract::{Json, Path, Query};
pub use problem::{PassedOn, ProblemResponse, status_of};
