//! The clients that users hold.

mod affinity;
mod attempt;
mod builder;
mod core;
mod destination;
mod endpoint;
mod fallback;
mod follow;
mod health;
mod inject;
mod judge;
mod log;
mod outgoing;
mod peers;
mod stack;
mod versions;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use http::{Method, Request, Response};
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;
use trunkline_core::{BoxError, BoxFuture, Error, Result};
use trunkline_resilience::{CircuitStatus, Declared, PolicyRegistry};

pub use builder::ClientBuilder;
pub(crate) use core::{Core, Endpoint, Trip};
pub(crate) use endpoint::Template;
pub use fallback::Fallback;
pub(crate) use judge::{busy_for, is_retried, refuses};
pub(crate) use outgoing::{IDEMPOTENCY_KEY, Outgoing};
pub use stack::ClientService;
pub(crate) use stack::Handle;
pub(crate) use versions::ServedVersion;

use crate::body::Body;
use crate::config::HttpClientConfig;
use crate::middleware::{Hook, MiddlewareResult, Next, ServiceRequest, hook};
use crate::options::Draft;
use crate::request::RequestBuilder;
use crate::transport::Transport;

/// Calls one service, or one base URL, within time limits: context and deadline travel along, connections are limited
/// and reused. It never repeats a request; [`EnhancedHttpClient`] does what else a policy can say. Cloning copies
/// pointers.
///
/// ```no_run
/// use trunkline_http::HttpClient;
///
/// # #[derive(serde::Deserialize)] struct User { name: String }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), trunkline_http::ServiceError> {
/// let users = HttpClient::new("http://localhost:8001/api/v1")?;
/// let user: User = users.get("/users/123").send().await?.error_for_status().await?.json().await?;
/// println!("{}", user.name);
/// # Ok(()) }
/// ```
#[doc(alias = "HTTPClient")]
#[derive(Clone)]
pub struct HttpClient {
    handle: Handle,
}

/// Calls one service, or one base URL, through a whole policy: timeouts, retry with budget, circuit breaker, bulkhead,
/// balancing over the instances, fallback; each per service, endpoint or call. It is a tower [`Service`], and takes any
/// tower [`Layer`]. Cloning copies pointers; clones share circuits, budgets and connections.
///
/// ```no_run
/// use trunkline_http::EnhancedHttpClient;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), trunkline_http::ServiceError> {
/// let client = EnhancedHttpClient::new("https://api.example.com")?;
/// let response = client.get("/users/123").await?;
/// println!("{}", response.status());
/// for circuit in client.circuit_states() {
///     println!("{}: {}", circuit.target, circuit.circuit.state);
/// }
/// # Ok(()) }
/// ```
#[doc(alias = "EnhancedHTTPClient")]
#[doc(alias = "AdvancedHTTPClient")]
#[doc(alias = "ServiceHttpClient")]
#[derive(Clone)]
pub struct EnhancedHttpClient {
    pub(crate) handle: Handle,
    registry: PolicyRegistry,
}

macro_rules! client {
    ($client:ident) => {
        impl $client {
            /// A client of a base URL, with the settings that apply where nothing is configured.
            ///
            /// # Errors
            /// `Invalid` or `Config` when it is no URL of HTTP.
            pub fn new(base_url: impl Into<String>) -> Result<Self> {
                Self::builder().base_url(base_url).build()
            }

            /// A client by its settings; `service` in them needs discovery, which [`ClientBuilder`] takes.
            ///
            /// # Errors
            /// As [`ClientBuilder`]'s `build`.
            pub fn from_config(config: HttpClientConfig) -> Result<Self> {
                Self::builder().config(config).build()
            }

            /// Starts setting one up.
            pub fn builder() -> ClientBuilder<Self> {
                ClientBuilder::new()
            }

            /// The service that requests lead to; where none is named, what the base URL leads to: `host`, `host:port`
            /// where the port is not the usual one, or the path of a Unix socket.
            #[must_use]
            pub fn service_name(&self) -> &str {
                self.handle.core().service.as_ref()
            }

            /// Asks for something.
            pub fn get(&self, path: impl AsRef<str>) -> RequestBuilder<'_> {
                self.request(Method::GET, path)
            }

            /// Sends something new. It is repeated only with an idempotency key, or where it provably was not
            /// processed.
            pub fn post(&self, path: impl AsRef<str>) -> RequestBuilder<'_> {
                self.request(Method::POST, path)
            }

            /// Replaces something.
            pub fn put(&self, path: impl AsRef<str>) -> RequestBuilder<'_> {
                self.request(Method::PUT, path)
            }

            /// Changes something. Repeated as [`Self::post`] is.
            pub fn patch(&self, path: impl AsRef<str>) -> RequestBuilder<'_> {
                self.request(Method::PATCH, path)
            }

            /// Removes something.
            pub fn delete(&self, path: impl AsRef<str>) -> RequestBuilder<'_> {
                self.request(Method::DELETE, path)
            }

            /// Any request; its path follows that of the base URL.
            pub fn request(&self, method: Method, path: impl AsRef<str>) -> RequestBuilder<'_> {
                RequestBuilder::new(&self.handle, method, path.as_ref())
            }

            /// Puts a layer around the client. The first one added is the outermost; all are outside the policy, so
            /// they see a call once, however many attempts it takes.
            #[must_use]
            pub fn layer<L, B>(mut self, layer: L) -> Self
            where
                L: Layer<ClientService> + Send + Sync + 'static,
                L::Service:
                    Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
                <L::Service as Service<Request<Body>>>::Error: Into<BoxError>,
                <L::Service as Service<Request<Body>>>::Future: Send + 'static,
                B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
                B::Error: Into<BoxError>,
            {
                self.handle.add(layer);
                self
            }

            /// Puts a middleware around every call, outside the policy. The first one added is the outermost, layers
            /// included.
            ///
            /// ```
            /// use trunkline_http::{Next, ServiceRequest};
            /// use tokio::time::Instant;
            ///
            #[doc = concat!("let client = trunkline_http::", stringify!($client), "::new(\"http://localhost:8001\")?")]
            ///     .middleware(async |request: ServiceRequest, next: Next| {
            ///         let (began, endpoint) = (Instant::now(), request.endpoint().to_owned());
            ///         let answer = next.run(request).await;
            ///         println!("{endpoint} took {:?}", began.elapsed());
            ///         answer
            ///     });
            /// # let _ = client;
            /// # Ok::<(), trunkline_core::Error>(())
            /// ```
            #[must_use]
            pub fn middleware<F, Fut>(mut self, middleware: F) -> Self
            where
                F: FnOnce(ServiceRequest, Next) -> Fut + Clone + Send + Sync + 'static,
                Fut: Future<Output = MiddlewareResult> + Send + 'static,
            {
                self.handle.add_hook(hook(middleware));
                self
            }

            /// Puts a middleware around every attempt, inside the policy: it knows the attempt's number, and its time
            /// counts. The first one added is the outermost. The other service of a fallback is not asked through it.
            #[must_use]
            pub fn attempt_middleware<F, Fut>(mut self, middleware: F) -> Self
            where
                F: FnOnce(ServiceRequest, Next) -> Fut + Clone + Send + Sync + 'static,
                Fut: Future<Output = MiddlewareResult> + Send + 'static,
            {
                self.handle.add_attempt_hook(hook(middleware));
                self
            }

            /// The connections.
            #[must_use]
            pub fn transport(&self) -> &Transport {
                &self.handle.core().transport
            }

            /// Closes the connections of the client, and of all who share them, as [`Transport::shutdown`] does: waits
            /// for those in use until the deadline. Further calls fail with `Cancelled`.
            ///
            /// # Cancel safety
            /// Dropping it stops the waiting; no further calls are made all the same.
            pub async fn shutdown(&self, deadline: Instant) {
                self.transport().shutdown(deadline).await;
            }
        }

        impl fmt::Debug for $client {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.handle.core(), f)
            }
        }

        /// Always ready; [`CallOptions`](crate::CallOptions) in the extensions of a request apply.
        impl Service<Request<Body>> for $client {
            type Response = Response<Body>;
            type Error = Error;
            type Future = BoxFuture<'static, Result<Response<Body>>>;

            fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<()>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: Request<Body>) -> Self::Future {
                let handle = self.handle.clone();
                let (draft, body) = Draft::of(request);
                Box::pin(async move { handle.call(draft, body).await.map(|reply| *reply) })
            }
        }
    };
}

client!(HttpClient);
client!(EnhancedHttpClient);

impl HttpClient {
    fn of(core: Core) -> Self {
        Self {
            handle: Handle::new(Arc::new(core)),
        }
    }
}

impl EnhancedHttpClient {
    /// A request that keeps its client.
    pub(crate) fn into_request(self, method: Method, path: &str) -> RequestBuilder<'static> {
        RequestBuilder::owned(self.handle, method, path)
    }

    pub(crate) fn add_hook(&mut self, hook: Hook) {
        self.handle.add_hook(hook);
    }

    /// The limit of a whole call to an endpoint.
    #[cfg(feature = "graphql")]
    pub(crate) fn total(&self, endpoint: Option<&str>) -> std::time::Duration {
        self.handle.core().total(endpoint)
    }

    pub(crate) fn add_attempt_hook(&mut self, hook: Hook) {
        self.handle.add_attempt_hook(hook);
    }

    fn of(core: Core, registry: PolicyRegistry) -> Self {
        Self {
            handle: Handle::new(Arc::new(core)),
            registry,
        }
    }

    /// The circuits of the service: that of the whole service, and those of its endpoints.
    #[doc(alias = "get_circuit_state")]
    #[must_use]
    pub fn circuit_states(&self) -> Vec<CircuitStatus> {
        let mut states = self.registry.circuit_states();
        states.retain(|state| *state.target.service == *self.service_name());
        states
    }

    /// How each instance is that requests lead to, as far as it is known: its own word, checks from here, and whether
    /// requests to it keep failing. A client of a base URL has one instance, which is well unless a check says otherwise.
    #[must_use]
    pub fn service_health(&self) -> trunkline_discovery::ServiceHealth {
        self.handle.core().service_health()
    }

    /// Takes what the author of an interface wrote at a method, and says by which name its endpoint goes.
    pub(crate) fn declare(&self, endpoint: &str, declared: Declared) -> Arc<str> {
        self.handle.core().declare(endpoint, declared)
    }

    /// Begins to check an endpoint, if its settings say so, at a path behind the prefix.
    pub(crate) fn check(&self, endpoint: &str, path: &str, headers: http::HeaderMap) -> Result<()> {
        self.handle.core().check(endpoint, path, headers)
    }

    /// The path that every request begins with.
    pub(crate) fn prefix(&self) -> &str {
        &self.handle.core().prefix
    }

    /// The policies that this client's calls go through, and their state.
    #[must_use]
    pub fn policies(&self) -> &PolicyRegistry {
        &self.registry
    }
}
