//! A whole service: its listener, its routes, its place in discovery, its end.

mod builder;
mod registration;
mod routes;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::Duration;

use axum::Router;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout_at};
use trunkline_core::health::Gate;
use trunkline_core::{BoxFuture, Error, Lifecycle, Result};
use trunkline_discovery::ServiceInstance;

pub use builder::MicroserviceAppBuilder;
pub use registration::Registration;

use crate::serve::{ConnectionLimits, Listener, Serving};
use builder::Plan;

const TARGET: &str = "trunkline::server";

/// Most of the grace time that is kept for the shutdown hooks.
const MOST_FOR_HOOKS: Duration = Duration::from_secs(5);

/// How long a service that is registered goes on answering after it has said that it stops: so long a registry takes to
/// tell everybody.
const DRAIN_DELAY: Duration = Duration::from_secs(1);

/// How long a registry is waited for that is to hear that the service stops.
const DRAIN_HEARD: Duration = Duration::from_secs(2);

/// What runs at the start or the end.
type Hook = Box<dyn FnOnce() -> BoxFuture<'static, Result<()>> + Send>;

/// A service with an HTTP side: context, deadlines, problem documents, log lines and metrics around your axum router,
/// and `/health`, `/health/live`, `/health/ready` and `/metrics` beside it. Clones are the same app.
///
/// It starts in this order: bind, startup hooks, serve, ready, register. It stops in this one: not ready and draining, the
/// drain delay, deregister, no new connections, running requests finish, shutdown hooks.
///
/// ```
/// use std::time::Duration;
/// use axum::{Router, routing::get};
/// use trunkline_server::{MicroserviceApp, ServerConfig};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
/// let router = Router::new().route("/orders/{id}", get(async || "an order"));
/// let app = MicroserviceApp::builder("order-service")
///     .config(ServerConfig::default().with_listen("127.0.0.1", 0))
///     .router(router)
///     .on_startup(|| async { Ok(()) })
///     .build()?;
/// let stop = async { /* a signal */ };
/// app.run_until(stop, Duration::from_secs(25)).await
/// # }
/// ```
#[derive(Clone)]
pub struct MicroserviceApp(Arc<Inner>);

struct Inner {
    plan: Plan,
    service: Router,
    gate: Gate,
    /// Held through each phase, so that phases follow each other.
    state: Mutex<State>,
    /// Read by those who must not wait.
    address: SyncMutex<Option<SocketAddr>>,
}

#[derive(Default)]
struct State {
    phase: Phase,
    serving: Option<Serving>,
    registered: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    New,
    /// Seen by others only when a start was dropped half-way.
    Starting,
    Running,
    Drained,
    Stopped,
}

impl fmt::Debug for MicroserviceApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MicroserviceApp")
            .field("name", &self.name())
            .field("address", &self.local_addr())
            .finish_non_exhaustive()
    }
}

impl MicroserviceApp {
    /// Begins with the name of the service.
    pub fn builder(name: impl Into<String>) -> MicroserviceAppBuilder {
        MicroserviceAppBuilder::new(name.into())
    }

    fn new(plan: Plan, service: Router) -> Self {
        let gate = plan.health.gate("http_server", "not started");
        Self(Arc::new(Inner {
            plan,
            service,
            gate,
            state: Mutex::default(),
            address: SyncMutex::default(),
        }))
    }

    /// The name of the service.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.plan.name.as_str()
    }

    /// The address listened on, with the real port; `None` before the start.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        *self
            .0
            .address
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts, runs until `stop` resolves, then drains and shuts down within `grace`. A fifth of it, five seconds at the
    /// most, is kept for the shutdown hooks.
    ///
    /// # Errors
    /// Those of the start; `Timeout` when requests had to be cut off at the end; those of shutdown hooks.
    ///
    /// # Cancel safety
    /// Dropping it cuts off what runs and skips the shutdown hooks; resolve `stop` instead.
    pub async fn run_until(&self, stop: impl Future<Output = ()>, grace: Duration) -> Result<()> {
        self.start().await?;
        stop.await;
        let deadline = Instant::now() + grace;
        // Requests that do not end must not take the time of the hooks, which close what the requests worked with.
        let reserved = (grace / 5).min(MOST_FOR_HOOKS);
        let drained = self.drain(deadline - reserved).await;
        self.shutdown(deadline).await.and(drained)
    }

    async fn open(&self, state: &mut State) -> Result<()> {
        let plan = &self.0.plan;
        let listener = Listener::bind(&plan.config.host, plan.config.port).await?;
        let address = listener.local_addr();
        for hook in plan.startup.take() {
            hook()
                .await
                .map_err(|error| error.with_operation("startup hook"))?;
        }
        let service = self.0.service.clone();
        let limits = ConnectionLimits::default()
            .with_max_connections(plan.config.max_connections)
            .with_header_timeout(plan.config.header_timeout)
            .with_keepalive_expiry(plan.config.keepalive_expiry);
        let serving = listener.serve(limits, move |peer| {
            routes::WithPeer::new(service.clone(), peer)
        });
        state.serving = Some(serving);
        *self
            .0
            .address
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(address);
        tracing::info!(target: TARGET, service = self.name(), %address, "listening");
        self.0.gate.open();
        if let Some(registration) = &plan.registration {
            let instance = self.instance(address);
            // Set before: a registration that is dropped half-way may stand.
            state.registered = true;
            registration.register(instance).await?;
        }
        Ok(())
    }

    fn instance(&self, address: SocketAddr) -> ServiceInstance {
        let plan = &self.0.plan;
        let host = plan.config.advertise_host.clone();
        let host = host.unwrap_or_else(|| registration::reachable(address).to_string());
        let port = plan.config.advertise_port.unwrap_or(address.port());
        let mut instance = ServiceInstance::new(plan.name.clone(), host, port);
        instance.version.clone_from(&plan.version);
        instance.metadata.clone_from(&plan.metadata);
        instance
            .health_check_path
            .clone_from(&plan.config.health_path);
        instance
    }

    async fn withdraw(&self, state: &mut State, deadline: Instant) {
        let Some(registration) = self
            .0
            .plan
            .registration
            .as_ref()
            .filter(|_| state.registered)
        else {
            return;
        };
        let error = match timeout_at(deadline, registration.deregister()).await {
            Ok(Ok(())) => {
                state.registered = false;
                return;
            }
            Ok(Err(error)) => error,
            Err(_) => Error::timeout("the registry did not answer in time"),
        };
        tracing::warn!(target: TARGET, error = %error.report(), "not deregistered; the registration will run out");
    }

    async fn close(&self, state: &mut State, deadline: Instant) -> Result<()> {
        self.0.gate.close("draining");
        let registration = self.0.plan.registration.as_ref();
        let registration = registration.filter(|_| state.registered);
        if let Some(registration) = registration {
            registration.drain();
        }
        if let Some(serving) = &state.serving {
            serving.shed();
            let usual = registration.map_or(Duration::ZERO, |_| DRAIN_DELAY);
            let delay = self.0.plan.drain_delay.unwrap_or(usual);
            // What runs needs time as well.
            let now = Instant::now();
            let half = now + deadline.saturating_duration_since(now) / 2;
            if let Some(registration) = registration.filter(|_| !delay.is_zero()) {
                heard(registration, half).await;
            }
            sleep(delay.min(half.saturating_duration_since(Instant::now()))).await;
        }
        self.withdraw(state, deadline).await;
        let Some(serving) = &state.serving else {
            return Ok(());
        };
        let cut_off = serving.stop(deadline).await;
        state.serving = None;
        if cut_off > 0 {
            return Err(Error::timeout(format!(
                "{cut_off} connections were cut off at the drain deadline"
            )));
        }
        Ok(())
    }

    async fn end(&self, deadline: Instant) -> Result<()> {
        let mut first = Ok(());
        // The last part to come is the first to go.
        for hook in self.0.plan.shutdown.take().into_iter().rev() {
            let ended = timeout_at(deadline, hook()).await;
            let ended =
                ended.unwrap_or_else(|_| Err(Error::timeout("it did not end by the deadline")));
            if let Err(error) = ended {
                tracing::warn!(target: TARGET, error = %error.report(), "a shutdown hook failed");
                first = first.and(Err(error.with_operation("shutdown hook")));
            }
        }
        first
    }
}

impl Lifecycle for MicroserviceApp {
    /// Binds, runs the startup hooks, serves and registers. If any of these fails, what was done is undone and the
    /// shutdown hooks run. When it is dropped half-way, shut it down: that undoes what was done.
    async fn start(&self) -> Result<()> {
        let mut state = self.0.state.lock().await;
        match state.phase {
            Phase::New => {}
            Phase::Running => return Ok(()),
            Phase::Starting => {
                return Err(Error::cancelled(
                    "a start of the service was given up half-way; shut it down and make a new one",
                ));
            }
            Phase::Drained | Phase::Stopped => {
                return Err(Error::cancelled(
                    "the service was stopped and cannot be started again",
                ));
            }
        }
        state.phase = Phase::Starting;
        if let Err(error) = self.open(&mut state).await {
            let deadline = Instant::now() + Duration::from_secs(5);
            drop(self.close(&mut state, deadline).await);
            drop(self.end(deadline).await);
            state.phase = Phase::Stopped;
            return Err(error);
        }
        state.phase = Phase::Running;
        Ok(())
    }

    async fn ready(&self) -> Result<()> {
        match self.0.state.lock().await.phase {
            Phase::Running => Ok(()),
            Phase::New | Phase::Starting => {
                Err(Error::unavailable("the service has not been started"))
            }
            Phase::Drained | Phase::Stopped => Err(Error::cancelled("the service was stopped")),
        }
    }

    /// Readiness off, announced as draining, the drain delay, deregistered, no new connections, running requests finish.
    ///
    /// Errors: `Timeout` when requests had to be cut off.
    async fn drain(&self, deadline: Instant) -> Result<()> {
        let mut state = self.0.state.lock().await;
        let closed = match state.phase {
            Phase::New => Ok(()),
            // A start that was dropped may have got as far as listening and being announced.
            Phase::Starting | Phase::Running => self.close(&mut state, deadline).await,
            Phase::Drained | Phase::Stopped => return Ok(()),
        };
        state.phase = Phase::Drained;
        closed
    }

    /// Drains if that has not been done, then runs the shutdown hooks, the last one first.
    async fn shutdown(&self, deadline: Instant) -> Result<()> {
        let drained = self.drain(deadline).await;
        let mut state = self.0.state.lock().await;
        if state.phase == Phase::Stopped {
            return Ok(());
        }
        state.phase = Phase::Stopped;
        self.end(deadline).await.and(drained)
    }
}

/// Waits until the registry has heard that the service drains: nobody can see it before.
async fn heard(registration: &Arc<dyn Registration>, until: Instant) {
    let until = until.min(Instant::now() + DRAIN_HEARD);
    let error = match timeout_at(until, registration.drained()).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error,
        Err(_) => Error::timeout("the registry did not answer in time"),
    };
    tracing::warn!(target: TARGET, error = %error.report(), "callers may not see that the service drains");
}
