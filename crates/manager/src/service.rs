//! A service's own HTTP side, put together from what the manager has.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::task::{self, panic_error};
use trunkline_core::{AnyLifecycle, BoxFuture, Error, Health, Lifecycle, Result};
use trunkline_discovery::{Discovery, Registration, ServiceInstance};
use trunkline_server::layers::IdempotencyLayer;
use trunkline_server::{MicroserviceApp, MicroserviceAppBuilder, ServerConfig};

use crate::stages::Stage;
use crate::{CommunicationManager, circuits, elsewhere};

/// Time for the shutdown hooks of an app, after the drain deadline.
const HOOKS: Duration = Duration::from_secs(5);
/// How long a stop waits for the registry to hear of it.
const GOODBYE: Duration = Duration::from_secs(2);

impl CommunicationManager {
    /// Serves a router as this service: listens as `server` says, registers itself in discovery, serves `/health`,
    /// `/metrics` and the router until the process is asked to stop, then drains.
    ///
    /// ```no_run
    /// # async fn example(manager: trunkline_manager::CommunicationManager) -> trunkline_core::Result<()> {
    /// let router = axum::Router::new().route("/hello", axum::routing::get(async || "hello"));
    /// manager.serve(router).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Config` when the service has no name or its paths collide; those of listening; `Timeout` when requests had to
    /// be cut off at the drain deadline.
    ///
    /// # Cancel safety
    /// When dropped, the service goes on until the manager is shut down.
    pub async fn serve(&self, router: axum::Router) -> Result<()> {
        let app = self.microservice(router)?.build()?;
        self.run_app(app).await
    }

    /// The service as a builder, for hooks and settings of one's own; hand the built app to
    /// [`run_app`](Self::run_app).
    ///
    /// # Errors
    /// `Config` when the service has no name, or the router has a `/circuits` or an `/asyncapi.json` of its own although
    /// `server.circuits` or `server.asyncapi` is on, or a schema of its topics cannot be read.
    pub fn microservice(&self, router: axum::Router) -> Result<MicroserviceAppBuilder> {
        let name = self.0.config.service.name.clone().ok_or_else(|| {
            Error::config("a service that serves needs a name: set service.name, or SERVICE_NAME")
        })?;
        self.app(&name, self.0.config.server.clone(), router)
    }

    /// Starts an app, waits until the process is asked to stop, and drains it.
    ///
    /// # Errors
    /// Those of the start and of the stop.
    ///
    /// # Cancel safety
    /// When dropped, the app goes on until the manager is shut down.
    pub async fn run_app(&self, app: MicroserviceApp) -> Result<()> {
        // Before the start: a stop that comes meanwhile drains it too.
        let work = AnyLifecycle::new(app.clone());
        let name = app.name().to_owned();
        let draining = self.0.stages.attach(name, Stage::Intake, work);
        if self.0.stop_requested.is_cancelled() {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = self.until_shutdown() => {}
            started = app.start() => if !self.0.stop_requested.is_cancelled() {
                started?;
            },
        }
        self.until_shutdown().await;
        // Drained once, with everything else: a drain of its own would have another deadline.
        self.begin_drain();
        let deadline = self.drain_deadline() + HOOKS;
        let ending = task::spawn("app", async move {
            let drained = draining.ended().await;
            app.shutdown(deadline).await.and(drained)
        });
        ending.await.unwrap_or_else(|join| {
            Err(Error::internal("the end of the app panicked").with_source(join))
        })
    }

    /// Honours `Idempotency-Key` on the routes that it is put around, with answers kept in [`inbox`](Self::inbox), as
    /// `server.idempotency` and `server.body_limit` say. Keys of different scopes are different keys. A stop waits for
    /// what it goes on with although its client is gone.
    ///
    /// ```
    /// # fn router(manager: &trunkline_manager::CommunicationManager) -> axum::Router {
    /// let once = manager.idempotency("payments").required();
    /// axum::Router::new().route("/payments", axum::routing::post(async || "charged")).route_layer(once)
    /// # }
    /// ```
    pub fn idempotency(&self, scope: impl Into<String>) -> IdempotencyLayer {
        let server = &self.0.config.server;
        let layer = IdempotencyLayer::new(self.inbox(), scope)
            .with_config(server.idempotency.clone())
            .with_body_limit(server.body_limit.as_usize());
        // After the requests: those that are under way may go on with it.
        self.attach(
            "idempotency",
            Stage::Egress,
            AnyLifecycle::new(Answers(layer.clone())),
        );
        layer
    }

    pub(crate) fn app(
        &self,
        name: &str,
        server: ServerConfig,
        router: axum::Router,
    ) -> Result<MicroserviceAppBuilder> {
        let manager = self.clone();
        let router = if server.circuits {
            self.with_circuits(router)?
        } else {
            router
        };
        let router = if server.asyncapi {
            self.with_asyncapi(router)?
        } else {
            router
        };
        // Who says where others reach it is believed.
        let registry = self.0.config.service_discovery.as_ref();
        let elsewhere = registry
            .filter(|_| server.advertise_host.is_none())
            .and_then(elsewhere::registry);
        let app = MicroserviceApp::builder(name);
        let app = match self.0.config.drain_delay {
            Some(delay) => app.drain_delay(delay),
            None => app,
        };
        let mut app = app
            .config(server)
            .router(router)
            .version(self.0.config.service.version.clone())
            .health(self.0.health.clone())
            .metrics(self.0.metrics.clone())
            .propagation(self.0.propagation.clone())
            .brokers(move |broker: &str| {
                let messaging = manager.messaging_on(broker)?;
                Ok(messaging.publisher().clone())
            });
        for (name, value) in &self.0.config.service.metadata {
            app = app.metadata(name, value);
        }
        let registers = self
            .0
            .parts
            .discovery
            .as_ref()
            .ok()
            .filter(|_| self.0.parts.has_registry());
        Ok(match registers {
            Some(discovery) => app.registration(SelfRegistration {
                discovery: discovery.clone(),
                health: self.0.health.clone(),
                zone: self.0.config.service.zone.clone(),
                elsewhere,
                current: Mutex::new(None),
            }),
            None => app,
        })
    }

    /// `GET /circuits`: every circuit of this process.
    fn with_circuits(&self, router: axum::Router) -> Result<axum::Router> {
        let registries = self.registries();
        let circuits = axum::routing::get(move || {
            let circuits = circuits::list(&registries);
            async move { trunkline_server::Json(circuits) }
        });
        add(
            router,
            "/circuits",
            circuits,
            "shows the circuits of the process",
            "server.circuits",
        )
    }

    /// `GET /asyncapi.json`: what this service says and hears.
    fn with_asyncapi(&self, router: axum::Router) -> Result<axum::Router> {
        // Files are read once; handlers come and go.
        let (manager, known) = (self.clone(), self.0.config.asyncapi()?);
        let document = axum::routing::get(move || {
            let document = manager.with_handlers(known.clone()).to_json();
            async move { trunkline_server::Json(document) }
        });
        add(
            router,
            "/asyncapi.json",
            document,
            "describes its messages",
            "server.asyncapi",
        )
    }
}

/// Adds a route of ours to those of the application.
fn add(
    router: axum::Router,
    path: &str,
    route: axum::routing::MethodRouter,
    what: &str,
    switch: &str,
) -> Result<axum::Router> {
    // axum offers no way to ask for a route, and panics at the second one of a path.
    let adding = AssertUnwindSafe(|| router.route(path, route));
    catch_unwind(adding).map_err(|panic| {
        Error::config(format!(
            "the router has `{path}`, which {what}; choose another path, or set {switch} to false"
        ))
        .with_source(panic_error(panic.as_ref()))
    })
}

/// What goes on under idempotency keys although its clients are gone.
struct Answers(IdempotencyLayer);

impl Lifecycle for Answers {
    async fn start(&self) -> Result<()> {
        Ok(())
    }

    async fn drain(&self, deadline: Instant) -> Result<()> {
        match self.0.shutdown(deadline).await {
            0 => Ok(()),
            late => Err(Error::timeout(format!(
                "{late} requests with idempotency keys were cut off at the drain deadline"
            ))),
        }
    }

    async fn shutdown(&self, deadline: Instant) -> Result<()> {
        self.0.shutdown(deadline).await;
        Ok(())
    }
}

/// Announces the service through discovery, which keeps the announcement alive.
struct SelfRegistration {
    discovery: Discovery,
    health: Health,
    zone: Option<String>,
    /// The registry, if it is one of other machines.
    elsewhere: Option<String>,
    current: Mutex<Option<Registration>>,
}

impl SelfRegistration {
    fn current(&self) -> MutexGuard<'_, Option<Registration>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl trunkline_server::Registration for SelfRegistration {
    fn register(&self, mut instance: ServiceInstance) -> BoxFuture<'_, Result<()>> {
        instance.zone.clone_from(&self.zone);
        Box::pin(async {
            if let Some(registry) = &self.elsewhere {
                elsewhere::check(&instance, registry)?;
            }
            let registration = self
                .discovery
                .register_current_service(instance, &self.health)?;
            *self.current() = Some(registration);
            Ok(())
        })
    }

    fn drain(&self) {
        if let Some(registration) = &*self.current() {
            registration.set_draining();
        }
    }

    fn drained(&self) -> BoxFuture<'_, Result<()>> {
        let current = self.current().clone();
        Box::pin(async {
            match current {
                Some(registration) => registration.draining_told(Instant::now() + GOODBYE).await,
                None => Ok(()),
            }
        })
    }

    fn deregister(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            let current = self.current().take();
            match current {
                Some(registration) => registration.deregister(Instant::now() + GOODBYE).await,
                None => Ok(()),
            }
        })
    }
}
