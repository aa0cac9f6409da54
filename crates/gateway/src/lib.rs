//! The API gateway: requests from outside find the service they are meant for.
//!
//! Routes follow a convention — `/api/v1/users/*` goes to `user-service` — or the configuration. Behind a route is the
//! very client that services use among themselves: instances from discovery, balancing, retries with a budget, circuit
//! breakers, deadlines, connection limits. Bodies stream both ways. To run one as a program use `trunkline gateway`;
//! depend on this crate to put one into a program of your own.
//!
//! ```
//! use trunkline_discovery::{Discovery, ServiceConfig};
//! use trunkline_gateway::{ApiGateway, GatewayConfig};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
//! let config = GatewayConfig::default()
//!     .with_listen("127.0.0.1", 0)
//!     .with_service("user-service")?
//!     .with_service_at("order-service", ServiceConfig::at("127.0.0.1", 8001))?;
//! let discovery = Discovery::builder().build();
//! let gateway = ApiGateway::builder(config).with_discovery(&discovery)?;
//! let app = gateway.app("gateway").build()?;
//! # drop(app); Ok(()) }
//! ```
//!
//! # What is promised
//! - A request is sent again only when it provably was not processed, or when its method is idempotent or it carries an
//!   `Idempotency-Key`, and its body can be sent again: 64 KiB of a streamed body are kept for that, nothing is held back.
//! - Headers that concern one connection end here, in both directions. What a client claims in `Forwarded`,
//!   `X-Forwarded-*` and `X-Real-IP` is believed only where that is configured.
//! - A path with `.` or `..` segments is refused, however it is written: routes are prefixes, and nothing may climb out.
//! - Errors are problem documents (RFC 9457) with the correlation id: 502 no sound answer, 503 nobody to ask and nothing
//!   processed, 504 too late, 508 a service that leads back here. They name the service and never its address.
//! - The deadline is that of the answer's head; its body may stream for as long as it moves.
//!
//! # What is not
//! An upgrade (WebSocket) is not passed on in this version: a request that asks for one is passed on as a plain request.
//! `CONNECT` is answered with 501.

mod config;
mod convention;
mod failure;
mod forward;
mod gateway;
mod headers;
mod path;
mod table;
mod upload;

pub use config::{GatewayConfig, RouteConfig};
pub use convention::segment_of;
pub use gateway::{ApiGateway, ApiGatewayBuilder};
