//! The gateway as a router that any server can serve.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use trunkline_core::{Propagation, Result};
use trunkline_discovery::{Discovery, ServiceName};
use trunkline_http::{EnhancedHttpClient, Transport};
use trunkline_server::layers::RouteTemplate;
use trunkline_server::{MicroserviceApp, MicroserviceAppBuilder, ServerConfig};
use trunkline_telemetry::Metrics;

use crate::config::GatewayConfig;
use crate::forward::forward;
use crate::headers::Headers;
use crate::table::RouteTable;

/// An API gateway: routes, and a client for each service behind them. Cloning copies a pointer.
///
/// [`ApiGateway::app`] makes a whole service of it, with `/health` and `/metrics`; [`ApiGateway::router`] is for a server
/// of your own.
#[doc(alias = "APIGateway")]
#[derive(Clone)]
pub struct ApiGateway {
    shared: Arc<Shared>,
    server: Arc<ServerConfig>,
    propagation: Propagation,
    metrics: Metrics,
}

/// What every request needs.
pub(crate) struct Shared {
    pub(crate) table: RouteTable,
    /// As the table counts the services.
    pub(crate) clients: Vec<EnhancedHttpClient>,
    pub(crate) headers: Headers,
    pub(crate) trust_baggage: bool,
}

impl ApiGateway {
    /// Starts setting one up.
    pub fn builder(config: GatewayConfig) -> ApiGatewayBuilder {
        ApiGatewayBuilder {
            config,
            propagation: Propagation::default(),
            metrics: Metrics::default(),
        }
    }

    /// The settings of the server in front.
    #[must_use]
    pub fn server_config(&self) -> ServerConfig {
        ServerConfig::clone(&self.server)
    }

    /// The gateway as a router: every path that the server does not answer itself goes through it. It expects the layers
    /// of [`MicroserviceApp`] around it: they read the context, keep the deadline and bound the body.
    pub fn router(&self) -> Router {
        Router::new()
            .fallback(handle)
            .with_state(Arc::clone(&self.shared))
    }

    /// The name of the route that a path falls under, such as `/api/v1/users`, for log lines and metrics.
    #[must_use]
    pub fn route_template(&self, path: &str) -> Option<RouteTemplate> {
        self.shared.table.template(path).cloned()
    }

    /// The gateway as a service of its own, to be built, started and drained.
    pub fn app(&self, name: impl Into<String>) -> MicroserviceAppBuilder {
        let naming = self.clone();
        MicroserviceApp::builder(name)
            .config(self.server_config())
            .router(self.router())
            .route_templates(move |path| naming.route_template(path))
            .propagation(self.propagation.clone())
            .metrics(self.metrics.clone())
    }

    /// The services behind the gateway.
    pub fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.shared.table.services().iter()
    }
}

impl fmt::Debug for ApiGateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiGateway")
            .field("routes", &self.shared.table)
            .finish_non_exhaustive()
    }
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> axum::response::Response {
    forward(&shared, request).await
}

/// Sets up an [`ApiGateway`].
#[derive(Debug)]
#[must_use = "nothing happens before it is given its clients"]
pub struct ApiGatewayBuilder {
    config: GatewayConfig,
    propagation: Propagation,
    metrics: Metrics,
}

impl ApiGatewayBuilder {
    /// Sets which headers carry the context, and the gateway's name. Default: the usual ones.
    pub fn propagation(mut self, propagation: Propagation) -> Self {
        self.propagation = propagation;
        self
    }

    /// Shares metrics. Default: its own.
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Makes the gateway with clients that already exist, one for each service.
    ///
    /// # Errors
    /// `Config` when two services would answer below one path, or a route is wrong; those of `client`.
    pub fn with_clients(
        self,
        client: impl FnMut(&ServiceName) -> Result<EnhancedHttpClient>,
    ) -> Result<ApiGateway> {
        let table = RouteTable::new(&self.config)?;
        let clients = table
            .services()
            .iter()
            .map(client)
            .collect::<Result<Vec<_>>>()?;
        let headers = Headers::new(self.config.trust_forwarded, &self.propagation);
        Ok(ApiGateway {
            server: Arc::new(server_config(&self.config)),
            shared: Arc::new(Shared {
                table,
                clients,
                headers,
                trust_baggage: self.config.trust_baggage,
            }),
            propagation: self.propagation,
            metrics: self.metrics,
        })
    }

    /// Makes the gateway with clients of its own, under the policies that the configuration gives each service. A service
    /// with a place in the configuration is called there, the others are found by discovery.
    ///
    /// # Errors
    /// As [`ApiGatewayBuilder::with_clients`]; `Invalid` or `Config` when the settings of a service are wrong.
    ///
    /// # Panics
    /// Outside a Tokio runtime: the services are watched from now on.
    pub fn with_discovery(self, discovery: &Discovery) -> Result<ApiGateway> {
        let transport = Transport::new(&self.config.transport())?;
        let services = self.config.services.clone();
        let (propagation, metrics) = (self.propagation.clone(), self.metrics.clone());
        for (name, service) in &services {
            if let Some(instance) = service.instance(name) {
                discovery.register_external_service(instance)?;
            }
        }
        self.with_clients(|name| {
            EnhancedHttpClient::builder()
                .service(name.as_str())
                .service_config(services.get(name).cloned().unwrap_or_default())
                .discovery(discovery)
                .transport(transport.clone())
                .propagation(propagation.clone())
                .metrics(&metrics)
                .build()
        })
    }
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
    server.trust_baggage = config.trust_baggage;
    server.circuits = config.circuits;
    // Clients reach a gateway by its address; nobody looks it up.
    server.register = false;
    server
}
