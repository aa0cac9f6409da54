//! Settings of the API gateway.

use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use trunkline_core::size::ByteSize;
use trunkline_discovery::{ServiceConfig, ServiceName};
use trunkline_http::TransportConfig;

/// Settings of the API gateway.
///
/// ```
/// use trunkline_gateway::GatewayConfig;
///
/// let config = GatewayConfig::default().with_listen("0.0.0.0", 8080).with_service("user-service")?;
/// assert_eq!(config.prefix, "/api/v1");
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct GatewayConfig {
    /// Address to listen on. Default `127.0.0.1`; `0.0.0.0` means every interface.
    #[schemars(length(min = 1))]
    pub host: String,
    /// Port to listen on; 0 takes a free one. Default 8080.
    pub port: u16,
    /// Services behind the gateway, each with a URL or the settings of a service; an empty entry is looked up in the
    /// registry. By convention `user-service` answers below `<prefix>/users`. Default: none.
    #[schemars(with = "IndexMap<String, ServiceConfig>", extend("format" = "services"))]
    pub services: IndexMap<ServiceName, ServiceConfig>,
    /// Path that the routes made by convention begin with. Default `/api/v1`.
    #[schemars(extend("format" = "url-path"))]
    pub prefix: String,
    /// Further routes; they win over those made by convention. Default: none.
    pub routes: Vec<RouteConfig>,
    /// Whether the headers `Forwarded`, `X-Forwarded-*` and `X-Real-IP` of a request are believed and handed on, because
    /// another proxy stands in front and sets them. Default false: whatever a client claims there is removed.
    pub trust_forwarded: bool,
    /// Whether the `baggage` of a request is believed and handed on, because whoever asks is one of your own. It says how much
    /// a call matters where not all can be served (`priority=critical`), whether chaos may hit it, and whatever your services
    /// read from it. Default false: it is removed.
    pub trust_baggage: bool,
    /// Whether `GET /circuits` shows the circuits of the gateway, with the addresses of instances, where a manager runs it.
    /// Default false: whoever reaches the gateway could read them.
    pub circuits: bool,
    /// Time for a whole request until its answer begins; a shorter deadline that it brings wins. Default `30s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub request_timeout: Duration,
    /// Time for a client to send the head of a request. Default `10s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub header_timeout: Duration,
    /// Time after which a client's connection without a request is closed. Default `75s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub keepalive_expiry: Duration,
    /// Largest request body, in bytes; it is streamed, not held. Default `16MiB`.
    pub body_limit: ByteSize,
    /// Clients' connections open at once; further ones wait to be accepted. Default 10000.
    #[schemars(range(min = 1))]
    pub max_connections: u32,
    /// Requests under way at once; further ones get 503 with `Retry-After`. Default 4096.
    #[schemars(range(min = 1))]
    pub max_in_flight: u32,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 8080,
            services: IndexMap::new(),
            prefix: "/api/v1".to_owned(),
            routes: Vec::new(),
            trust_forwarded: false,
            trust_baggage: false,
            circuits: false,
            request_timeout: Duration::from_secs(30),
            header_timeout: Duration::from_secs(10),
            keepalive_expiry: Duration::from_secs(75),
            body_limit: ByteSize::mib(16),
            max_connections: 10_000,
            max_in_flight: 4096,
        }
    }
}

impl GatewayConfig {
    /// Sets the address and port to listen on.
    #[must_use]
    pub fn with_listen(mut self, host: impl Into<String>, port: u16) -> Self {
        self.host = host.into();
        self.port = port;
        self
    }

    /// Puts a service behind the gateway that the registry knows.
    ///
    /// # Errors
    /// `Invalid` when the name is no service name.
    pub fn with_service(self, name: &str) -> trunkline_core::Result<Self> {
        self.with_service_at(name, ServiceConfig::default())
    }

    /// Puts a service behind the gateway, with its place and policy.
    ///
    /// # Errors
    /// `Invalid` when the name is no service name.
    pub fn with_service_at(
        mut self,
        name: &str,
        service: ServiceConfig,
    ) -> trunkline_core::Result<Self> {
        self.services.insert(ServiceName::new(name)?, service);
        Ok(self)
    }

    /// The limits of the connections to the services: as many as there may be requests under way.
    #[must_use]
    pub fn transport(&self) -> TransportConfig {
        let mut transport = TransportConfig::default();
        transport.max_connections = usize::try_from(self.max_in_flight).unwrap_or(usize::MAX);
        // Enough that a gateway under load hardly ever connects anew, few enough that a quiet one lets go of most.
        transport.max_keepalive_connections = transport.max_connections.div_ceil(4);
        transport
    }

    /// Adds a route.
    #[must_use]
    pub fn with_route(mut self, route: RouteConfig) -> Self {
        self.routes.push(route);
        self
    }

    /// Believes the headers of a proxy in front.
    #[must_use]
    pub fn with_trust_forwarded(mut self, trust: bool) -> Self {
        self.trust_forwarded = trust;
        self
    }

    /// Believes the baggage of requests.
    #[must_use]
    pub fn with_trust_baggage(mut self, trust: bool) -> Self {
        self.trust_baggage = trust;
        self
    }

    /// Shows the circuits at `GET /circuits`.
    #[must_use]
    pub fn with_circuits(mut self, shown: bool) -> Self {
        self.circuits = shown;
        self
    }

    /// Sets the path that the routes made by convention begin with.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }
}

/// A route of the gateway: requests below a path go to a service, with the path unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RouteConfig {
    /// Path that the requests begin with, by whole segments: `/shop/orders`. The longest one wins,
    /// whatever its methods.
    #[schemars(extend("format" = "url-path"))]
    pub path: String,
    /// Service that they go to.
    pub service: String,
    /// Methods that the route takes; `GET` takes `HEAD` too. Default: none named, so every method.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
}

impl RouteConfig {
    /// Requests below a path go to a service.
    #[must_use]
    pub fn new(path: impl Into<String>, service: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            service: service.into(),
            methods: Vec::new(),
        }
    }

    /// Takes only these methods.
    #[must_use]
    pub fn with_methods<M: Into<String>>(mut self, methods: impl IntoIterator<Item = M>) -> Self {
        self.methods = methods.into_iter().map(Into::into).collect();
        self
    }
}
