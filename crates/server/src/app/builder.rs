//! Putting an app together.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use trunkline_core::{Error, Health, Propagation, Result};
use trunkline_discovery::{Discovery, ServiceName};
use trunkline_telemetry::Metrics;

use super::registration::ThroughDiscovery;
use super::{Hook, MicroserviceApp, Registration};
use crate::ServerConfig;
use crate::layers::{RouteTemplate, TemplateOf};
use crate::routes::BrokerSource;

/// Puts a [`MicroserviceApp`] together.
#[must_use = "nothing happens before `build`"]
pub struct MicroserviceAppBuilder {
    name: String,
    version: String,
    metadata: BTreeMap<String, String>,
    config: ServerConfig,
    router: Router,
    template_of: Option<Arc<TemplateOf>>,
    health: Health,
    metrics: Metrics,
    propagation: Option<Propagation>,
    brokers: Option<Arc<dyn BrokerSource>>,
    announce: Announce,
    startup: Vec<Hook>,
    shutdown: Vec<Hook>,
    drain_delay: Option<Duration>,
}

/// Where the service announces itself.
enum Announce {
    Nowhere,
    Discovery(Discovery),
    Own(Arc<dyn Registration>),
}

impl fmt::Debug for MicroserviceAppBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MicroserviceAppBuilder")
            .field("name", &self.name)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Everything that an app consists of.
pub(super) struct Plan {
    pub(super) name: ServiceName,
    pub(super) version: String,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) config: ServerConfig,
    pub(super) router: Router,
    pub(super) template_of: Option<Arc<TemplateOf>>,
    pub(super) health: Health,
    pub(super) metrics: Metrics,
    pub(super) propagation: Propagation,
    pub(super) brokers: Option<Arc<dyn BrokerSource>>,
    pub(super) registration: Option<Arc<dyn Registration>>,
    pub(super) startup: Hooks,
    pub(super) shutdown: Hooks,
    pub(super) drain_delay: Option<Duration>,
}

/// Hooks that run once.
pub(super) struct Hooks(Mutex<Vec<Hook>>);

impl Hooks {
    pub(super) fn take(&self) -> Vec<Hook> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl MicroserviceAppBuilder {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            version: "1.0.0".to_owned(),
            metadata: BTreeMap::new(),
            config: ServerConfig::default(),
            router: Router::new(),
            template_of: None,
            health: Health::default(),
            metrics: Metrics::default(),
            propagation: None,
            brokers: None,
            announce: Announce::Nowhere,
            startup: Vec::new(),
            shutdown: Vec::new(),
            drain_delay: None,
        }
    }

    /// Sets where it listens and what it accepts.
    pub fn config(mut self, config: ServerConfig) -> Self {
        self.config = config;
        self
    }

    /// Sets the routes of the service. The app's own paths win over the same path there.
    pub fn router(mut self, router: Router) -> Self {
        self.router = router;
        self
    }

    /// Names the route of a path for log lines and metrics, where one handler of the router serves many, as that of a
    /// gateway does.
    pub fn route_templates(
        mut self,
        template_of: impl Fn(&str) -> Option<RouteTemplate> + Send + Sync + 'static,
    ) -> Self {
        self.template_of = Some(Arc::new(template_of));
        self
    }

    /// Sets the version that discovery shows. Default `1.0.0`.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// Adds a pair that discovery shows.
    pub fn metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(name.into(), value.into());
        self
    }

    /// Shares the health that `/health` answers. Default: one of its own, without components.
    pub fn health(mut self, health: Health) -> Self {
        self.health = health;
        self
    }

    /// Shares the metrics that `/metrics` answers. Default: its own.
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Sets which headers carry the context. Default: the usual ones.
    pub fn propagation(mut self, propagation: Propagation) -> Self {
        self.propagation = Some(propagation);
        self
    }

    /// Sets where the publish route finds its brokers.
    pub fn brokers(mut self, brokers: impl BrokerSource) -> Self {
        self.brokers = Some(Arc::new(brokers));
        self
    }

    /// Announces the service through discovery, unless its configuration says `register: false`.
    pub fn discovery(mut self, discovery: Discovery) -> Self {
        self.announce = Announce::Discovery(discovery);
        self
    }

    /// Announces the service in a way of one's own, unless its configuration says `register: false`.
    pub fn registration(mut self, registration: impl Registration) -> Self {
        self.announce = Announce::Own(Arc::new(registration));
        self
    }

    /// Adds what runs after the address is bound and before requests are served, in the order added.
    pub fn on_startup<F>(mut self, hook: impl FnOnce() -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.startup.push(Box::new(move || Box::pin(hook())));
        self
    }

    /// Adds what runs after the last request, the last one added first; also when the start fails.
    pub fn on_shutdown<F>(mut self, hook: impl FnOnce() -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.shutdown.push(Box::new(move || Box::pin(hook())));
        self
    }

    /// Sets how long requests are still taken after the service has said that it is not ready and drains, so that callers and
    /// load balancers see it first; half of the time there is to stop at the most. Default: a second where it is registered,
    /// else not at all.
    pub fn drain_delay(mut self, delay: Duration) -> Self {
        self.drain_delay = Some(delay);
        self
    }

    /// Checks everything and puts it together. Nothing is bound yet.
    ///
    /// # Errors
    /// `Config`, naming what is wrong: the name, a path, two paths that are the same, the topics of the publish route,
    /// a publish route without brokers.
    pub fn build(self) -> Result<MicroserviceApp> {
        let name = ServiceName::new(&self.name)
            .map_err(|cause| Error::config(cause.message().to_owned()))?;
        check(&self.config)?;
        if self.config.publish.enabled && self.brokers.is_none() {
            return Err(Error::config(
                "server.publish: the route needs brokers, and the app was given none",
            ));
        }
        let propagation = self.propagation.unwrap_or_default();
        let propagation = match propagation.service() {
            Some(_) => propagation,
            None => propagation.with_service(name.as_str()),
        };
        let registration: Option<Arc<dyn Registration>> = match self.announce {
            _ if !self.config.register => None,
            Announce::Nowhere => None,
            Announce::Own(registration) => Some(registration),
            Announce::Discovery(discovery) => Some(Arc::new(ThroughDiscovery::new(
                discovery,
                self.health.clone(),
            ))),
        };
        let plan = Plan {
            name,
            version: self.version,
            metadata: self.metadata,
            registration,
            config: self.config,
            router: self.router,
            template_of: self.template_of,
            health: self.health,
            metrics: self.metrics,
            propagation,
            brokers: self.brokers,
            startup: Hooks(Mutex::new(self.startup)),
            shutdown: Hooks(Mutex::new(self.shutdown)),
            drain_delay: self.drain_delay,
        };
        let service = super::routes::assemble(&plan)?;
        Ok(MicroserviceApp::new(plan, service))
    }
}

fn check(config: &ServerConfig) -> Result<()> {
    let mut paths = Vec::new();
    for (key, path) in [
        ("health_path", &config.health_path),
        ("metrics_path", &config.metrics_path),
    ] {
        let plain = |c: char| c.is_ascii_graphic() && !"{}*?#".contains(c);
        // So began parameters in earlier versions of axum, which refuses them now with a panic.
        let has_parameter = path.contains("/:");
        if !path.starts_with('/') || !path.chars().all(plain) || has_parameter {
            return Err(Error::config(format!(
                "server.{key}: `{path}` is no path such as /{}; it cannot have parameters",
                key.trim_end_matches("_path")
            )));
        }
        let base = path.trim_end_matches('/');
        paths.push((key, base.to_owned()));
    }
    let [(_, health), (_, metrics)] = paths.as_slice() else {
        return Ok(());
    };
    if [String::new(), "/live".to_owned(), "/ready".to_owned()]
        .iter()
        .any(|end| format!("{health}{end}") == *metrics)
    {
        return Err(Error::config(format!(
            "server.metrics_path: `{}` is taken by server.health_path",
            config.metrics_path
        )));
    }
    Ok(())
}
