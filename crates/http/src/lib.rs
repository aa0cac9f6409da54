//! Resilient HTTP client over hyper: policies, discovery, context, real connection limits.

mod body;
mod client;
mod config;
mod connect;
mod error;
mod limits;
mod observe;
mod options;
mod origin;
mod pool;
mod query;
mod request;
mod response;
mod transport;
mod wire;

pub use body::{Body, BodyTooLarge};
pub use client::{ClientBuilder, ClientService, EnhancedHttpClient, Fallback, HttpClient};
pub use config::{EndpointConfig, HttpClientConfig, ServiceConfig};
pub use connect::{ConnectFailed, ConnectStage};
pub use error::{NoAnswer, ServiceError, Silence, StatusError};
/// The words of HTTP itself, as this crate's interface uses them.
pub use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
pub use limits::Limits;
pub use observe::PolicyMetrics;
pub use options::CallOptions;
pub use origin::Origin;
pub use pool::{PoolFull, PoolStats, PoolTimeout};
pub use request::RequestBuilder;
pub use response::Response;
pub use transport::{Transport, TransportConfig};
