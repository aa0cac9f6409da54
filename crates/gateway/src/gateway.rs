//! The gateway as a router that any server can serve.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use trunkline_core::{Propagation, Result};
use trunkline_discovery::{Instances, ServiceName};
use trunkline_http::Transport;
use trunkline_server::ServerConfig;
use trunkline_telemetry::Metrics;
use trunkline_telemetry::metrics::HttpClientEndpointMetrics;

use crate::config::GatewayConfig;
use crate::forward::forward;
use crate::table::RouteTable;
use crate::upstream::Upstreams;

/// An API gateway: routes, and what is needed to follow them. Cloning copies a pointer.
#[doc(alias = "APIGateway")]
#[derive(Clone)]
pub struct ApiGateway {
    shared: Arc<Shared>,
    server: ServerConfig,
}

/// What every request needs.
pub(crate) struct Shared {
    pub(crate) routes: RouteTable,
    pub(crate) upstreams: Box<dyn Upstreams>,
    pub(crate) transport: Transport,
    pub(crate) propagation: Propagation,
    services: HashMap<ServiceName, Behind>,
}

/// What is kept for each service behind the gateway.
struct Behind {
    instances: Instances,
    metrics: HttpClientEndpointMetrics,
}

impl Shared {
    pub(crate) fn instances(&self, service: &ServiceName) -> &Instances {
        &self.behind(service).instances
    }

    pub(crate) fn metrics(&self, service: &ServiceName) -> &HttpClientEndpointMetrics {
        &self.behind(service).metrics
    }

    fn behind(&self, service: &ServiceName) -> &Behind {
        self.services
            .get(service)
            .expect("every route's service was put there")
    }
}

impl ApiGateway {
    /// A gateway without metrics and with the usual headers.
    ///
    /// # Errors
    /// `Config` when two services would answer below one path, or a route is wrong.
    ///
    /// # Panics
    /// Outside a Tokio runtime: the services are watched from now on.
    pub fn new(
        config: &GatewayConfig,
        upstreams: impl Upstreams,
        transport: Transport,
    ) -> Result<Self> {
        Self::with(
            config,
            upstreams,
            transport,
            Propagation::default(),
            &Metrics::disabled(),
        )
    }

    /// A gateway that measures, and carries the context as told.
    ///
    /// # Errors
    /// As [`ApiGateway::new`].
    ///
    /// # Panics
    /// As [`ApiGateway::new`].
    pub fn with(
        config: &GatewayConfig,
        upstreams: impl Upstreams,
        transport: Transport,
        propagation: Propagation,
        metrics: &Metrics,
    ) -> Result<Self> {
        let routes = RouteTable::new(config)?;
        let behind = |service: ServiceName| {
            let metrics = metrics.http_client(service.as_str()).endpoint("*");
            let instances = upstreams.instances(&service);
            (service, Behind { instances, metrics })
        };
        let services = routes.services().into_iter().map(behind).collect();
        let upstreams: Box<dyn Upstreams> = Box::new(upstreams);
        let shared = Shared {
            routes,
            upstreams,
            transport,
            propagation,
            services,
        };
        Ok(Self {
            shared: Arc::new(shared),
            server: server_config(config),
        })
    }

    /// The settings of the server in front.
    #[must_use]
    pub fn server_config(&self) -> ServerConfig {
        self.server.clone()
    }

    /// The gateway as a router: every path that the server does not answer itself goes through it.
    pub fn router(&self) -> Router {
        Router::new()
            .fallback(handle)
            .with_state(Arc::clone(&self.shared))
    }
}

impl fmt::Debug for ApiGateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiGateway")
            .field("routes", &self.shared.routes)
            .finish_non_exhaustive()
    }
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> axum::response::Response {
    forward(&shared, request).await
}

fn server_config(config: &GatewayConfig) -> ServerConfig {
    let mut server = ServerConfig::default()
        .with_listen(&config.host, config.port)
        .with_body_limit(config.body_limit)
        .with_request_timeout(config.request_timeout)
        .with_max_in_flight(config.max_in_flight);
    server.header_timeout = config.header_timeout;
    server.keepalive_expiry = config.keepalive_expiry;
    server.max_connections = config.max_connections;
    // Clients reach a gateway by its address; nobody looks it up.
    server.register = false;
    server
}
