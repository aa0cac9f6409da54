//! The API gateway, put together from what the manager has.

use tokio::time::Instant;
use trunkline_core::{AnyLifecycle, Error, Lifecycle, Result};
use trunkline_gateway::ApiGateway;
use trunkline_http::Transport;

use crate::CommunicationManager;
use crate::stages::Stage;

impl CommunicationManager {
    /// Serves the configured API gateway until the process is asked to stop, then drains it.
    ///
    /// # Errors
    /// `Config` when there is no gateway section or its routes are wrong; those of listening and of the stop.
    ///
    /// # Cancel safety
    /// When dropped, the gateway goes on until the manager is shut down.
    pub async fn serve_gateway(&self) -> Result<()> {
        let config = self.0.config.gateway.clone().ok_or_else(|| {
            Error::config("there is no gateway section; name at least the services behind it")
        })?;
        let discovery = self.service_discovery()?;
        for (name, service) in &config.services {
            if let Some(instance) = service.instance(name) {
                discovery.register_external_service(instance)?;
            }
        }
        let transport = Transport::new(&config.transport())?;
        self.attach(
            "gateway connections",
            Stage::Egress,
            AnyLifecycle::new(Connections(transport.clone())),
        );
        let gateway = ApiGateway::builder(config)
            .propagation(self.0.propagation.clone())
            .metrics(self.0.metrics.clone())
            .with_clients(|service| self.0.http.behind_gateway(service, &transport))?;
        let name = self.0.config.service.name.as_deref().unwrap_or("gateway");
        let (config, router) = (gateway.server_config(), gateway.router());
        let app = self
            .app(name, config, router)?
            .route_templates(move |path| gateway.route_template(path))
            .build()?;
        self.run_app(app).await
    }
}

/// The gateway's own connections to what is behind it.
struct Connections(Transport);

impl Lifecycle for Connections {
    async fn start(&self) -> Result<()> {
        Ok(())
    }

    async fn shutdown(&self, deadline: Instant) -> Result<()> {
        self.0.shutdown(deadline).await;
        Ok(())
    }
}
