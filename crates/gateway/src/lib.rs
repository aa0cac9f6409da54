//! The API gateway: requests from outside find the service they are meant for.
//!
//! Routes follow a convention — `/api/v1/users/*` goes to `user-service` — or the configuration. Behind a route are the
//! very same layers as in the HTTP client: instances from discovery, balancing, retries with a budget, circuit breakers,
//! deadlines, connection limits. Bodies stream both ways. For platform engineers who run one as a program, use
//! `trunkline gateway`; depend on this crate to put one into a program of your own.
//!
//! ```no_run
//! use std::sync::Arc;
//! use trunkline_discovery::Discovery;
//! use trunkline_gateway::{ApiGateway, DiscoveredUpstreams, GatewayConfig};
//! use trunkline_http::{Transport, TransportConfig};
//! use trunkline_server::MicroserviceApp;
//!
//! # fn main_() -> trunkline_core::Result<()> {
//! let config = GatewayConfig::default().with_service("user-service")?;
//! let upstreams = DiscoveredUpstreams::new(Discovery::builder().build());
//! let transport = Transport::new(&TransportConfig::default())?;
//! let gateway = ApiGateway::new(&config, upstreams, transport)?;
//! let app = MicroserviceApp::builder("gateway").config(gateway.server_config()).router(gateway.router()).build()?;
//! # drop(app); Ok(()) }
//! ```
//!
//! # What is promised
//! - A request is sent again only when it provably was not processed, or when its method is idempotent or it carries an
//!   `Idempotency-Key`, and its body can be sent again (64 KiB of a streamed body are kept for that).
//! - Headers that concern one connection end here, in both directions.
//! - A path with `.` or `..` segments is refused: routes are prefixes, and nothing may climb out of one.
//! - Errors are problem documents (RFC 9457) with the correlation id: 502 no sound answer, 503 nobody to ask, 504 too
//!   late.
//!
//! # What is not
//! An upgrade (WebSocket) is not passed on in this version; requests that ask for one are answered as plain requests.

mod attempt;
mod config;
mod convention;
mod failure;
mod forward;
mod gateway;
mod headers;
mod judge;
mod table;
mod upstream;

pub use config::{GatewayConfig, RouteConfig};
pub use convention::segment_of;
pub use gateway::ApiGateway;
pub use upstream::{DiscoveredUpstreams, Upstreams};
