//! Resilient HTTP client over hyper: policies, discovery, context, real connection limits.

mod body;
mod config;
mod connect;
mod error;
mod limits;
mod origin;
mod pool;
mod transport;
mod wire;

pub use body::{Body, BodyTooLarge};
pub use config::{EndpointConfig, HttpClientConfig, ServiceConfig};
pub use connect::{ConnectFailed, ConnectStage};
pub use error::{NoAnswer, Silence};
pub use limits::Limits;
pub use origin::Origin;
pub use pool::{PoolFull, PoolStats, PoolTimeout};
pub use transport::{Transport, TransportConfig};
