//! API gateway: routes by convention, discovery, balancing and the client's policies, streaming both ways.

mod config;

pub use config::{GatewayConfig, RouteConfig};
