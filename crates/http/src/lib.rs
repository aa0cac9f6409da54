//! HTTP clients for calls between services: within a policy, by name, with the context of the caller.
//!
//! Use [`EnhancedHttpClient`] to call a service: it finds the instances, limits time, connections and load, repeats what
//! may be repeated, stops calling what keeps failing, and tells the next hop who asks and how long they will wait. Use
//! [`HttpClient`] where only the time limits and the context are wanted. [`Transport`] below both sends single requests
//! to single places; the gateway is built on the same parts. Whoever wants cookies for the open web is
//! better served by a browser-like client such as reqwest.
//!
//! ```no_run
//! use std::time::Duration;
//! use trunkline_http::{EnhancedHttpClient, ServiceError};
//!
//! #[derive(serde::Deserialize)]
//! struct User { name: String }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), ServiceError> {
//! let users = EnhancedHttpClient::builder()
//!     .base_url("http://localhost:8001/api/v1")
//!     .endpoint("GET /users/{id}", Default::default())
//!     .build()?;
//! let request = users.get("/users/123").timeout(Duration::from_secs(2));
//! match request.fetch::<User>().await {
//!     Ok(user) => println!("{}", user.name),
//!     Err(ServiceError::CircuitOpen(_)) => println!("not now"),
//!     Err(error) if error.status_code().is_some_and(|status| status == 404) => println!("nobody"),
//!     Err(error) => return Err(error),
//! }
//! # Ok(()) }
//! ```
//!
//! # Concepts
//! - A *service* has *instances* (`host:port`) and *endpoints* (`METHOD /template`). Circuits and measures belong to an
//!   endpoint that is configured or named, else to the service; raw paths never become endpoints.
//! - Layers, outermost first: the user's own ([`EnhancedHttpClient::layer`]), fallback, cache, retry with budget, breaker,
//!   bulkhead, choice of an instance, context and headers (for each attempt), the attempt's time limit, connection.
//!   With the retry inside the breaker a call that failed three times would count once.
//! - Every error says whether the request may have been processed. A request that may have been is repeated only if its
//!   method is idempotent or it carries an `Idempotency-Key`; one that provably was not, always.
//!
//! - With the feature `cache` (off by default) an enhanced client keeps answers: those that say themselves how long they
//!   hold, and those that a policy gives a `ttl`. A call that is answered so is no attempt.
//!
//! # Guarantees
//! - Never more sockets than `max_connections`, and no wait for one that is longer than `timeout.pool`.
//! - A call ends by its total time and by the caller's deadline, its answer's body included. Dropping it closes its
//!   connection at once, or resets its stream.
//! - Bodies stream both ways. Nothing is read into memory beyond `max_response_size`.
//!
//! Not guaranteed: that a request that failed with [`trunkline_core::Retry::IfIdempotent`] was not processed; nobody can
//! know. Services are named by [`trunkline_discovery`], policies are those of [`trunkline_resilience`].

mod body;
#[cfg(feature = "cache")]
mod cache;
#[cfg(not(feature = "cache"))]
#[path = "no_cache.rs"]
mod cache;
mod client;
mod coding;
mod config;
mod connect;
mod error;
mod events;
#[cfg(feature = "graphql")]
pub mod graphql;
pub mod interface;
mod limits;
mod middleware;
mod multipart;
mod observe;
mod options;
mod origin;
mod pool;
mod probe;
mod query;
mod redirect;
mod request;
mod response;
mod sdk;
mod transport;
mod wire;

pub use body::{Body, BodyTooLarge, Progress};
#[cfg(feature = "cache")]
pub use cache::{CacheStats, CacheStatus, CallCache, Clear, ResponseCache, ResponseCacheBuilder};
pub use client::{ClientBuilder, ClientService, EnhancedHttpClient, Fallback, HttpClient};
pub use coding::{CompressionConfig, ContentCoding};
pub use config::{ContextHeaders, EndpointConfig, HttpClientConfig, ServiceConfig};
pub use connect::{AddressDenied, ConnectFailed, ConnectStage, ProxyRules};
pub use error::{FieldMismatch, Mismatch, NoAnswer, ServiceError, Silence, SlowHead, StatusError};
pub use events::{EventStream, ServerEvent};
/// The words of HTTP itself, as this crate's interface uses them.
pub use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
pub use interface::{Call, ServiceClient};
pub use limits::Limits;
pub use middleware::{MiddlewareResult, Next, ServiceRequest};
pub use multipart::{Multipart, Part};
pub use observe::PolicyMetrics;
pub use options::CallOptions;
pub use origin::Origin;
pub use pool::{PoolFull, PoolStats, PoolTimeout};
pub(crate) use probe::EndpointProbe;
pub use probe::HttpProbe;
pub use redirect::{FollowRedirects, RedirectConfig, TooManyRedirects};
pub use request::RequestBuilder;
pub use response::Response;
pub use sdk::{
    Batch, BatchResults, BatchTuple, CircuitConfig, ErrorContext, Job, Outcome, ServiceCall,
    ServiceClients, ServiceFetch, ServiceResult, ServiceSdk, ServiceSdkBuilder, ServiceSdkConfig,
};
pub use transport::{Transport, TransportConfig};
