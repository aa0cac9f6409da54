//! The manager itself: what there is by name, started in order, stopped in the reverse order.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use tokio::sync::{Mutex, OnceCell};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use trunkline_core::health::Gate;
use trunkline_core::names::target;
use trunkline_core::task::{self, Scope};
use trunkline_core::{AnyLifecycle, Error, Health, HealthDocument, Propagation, Result};
use trunkline_telemetry::{Logs, Metrics};

use crate::CommunicationConfig;
use crate::assemble::{Parts, assemble};
use crate::builder::CommunicationManagerBuilder;
use crate::callbacks::{CallbackOutcome, Callbacks, inside_shutdown_callback};
use crate::component::Component;
use crate::http::HttpClients;
use crate::monitor;
use crate::named::Missing;
use crate::phase::Phase;
use crate::policies::{CurrentConfig, Policies};
use crate::stages::{Stage, Stages, share};

/// Time for closing what has drained.
const CLOSING: Duration = Duration::from_secs(5);
const STOPPING: &str = "stopping";

/// Everything a service talks with, in one place: brokers, HTTP clients, discovery, the event store, health and
/// metrics, by name. Cloning copies a pointer.
///
/// ```
/// use trunkline_manager::{CommunicationConfig, CommunicationManager};
/// use trunkline_messaging::MessageBrokerConfig;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
/// let config = CommunicationConfig::builder()
///     .message_broker("default", MessageBrokerConfig::memory())
///     .service_discovery(trunkline_discovery::ServiceDiscoveryConfig::static_only())
///     .event_store(trunkline_events::EventStoreConfig::memory())
///     .build()?;
/// let manager = CommunicationManager::new(config);
/// manager.initialize().await?;
/// manager.publish_message("default", "orders.created", &serde_json::json!({ "order_id": "123" })).await?;
/// assert!(manager.health_status().is_healthy());
/// manager.shutdown().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct CommunicationManager(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    /// What it was made with.
    pub(crate) config: CommunicationConfig,
    /// What applies now.
    pub(crate) current: CurrentConfig,
    applying: std::sync::Mutex<()>,
    /// Of publishing; those of calls are with the clients.
    pub(crate) publishing: Policies,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    pub(crate) logs: Logs,
    pub(crate) propagation: Propagation,
    pub(crate) parts: Parts,
    pub(crate) http: Arc<HttpClients>,
    #[cfg(feature = "http")]
    pub(crate) sdk: trunkline_http::ServiceSdk,
    pub(crate) stages: Stages,
    callbacks: Arc<Callbacks>,
    pub(crate) tasks: Scope,
    phase: Mutex<Phase>,
    /// The same as `phase`, for those who cannot wait.
    seen_phase: std::sync::Mutex<Phase>,
    /// Cancelled when somebody wants the process to stop.
    pub(crate) stop_requested: CancellationToken,
    /// Set when the drain begins.
    drain_deadline: OnceLock<Instant>,
    /// What did not drain, once it is over.
    drained: OnceCell<Option<Missing>>,
    /// Closed unless running: no traffic before the start and after the stop was asked for.
    running: Gate,
}

impl CommunicationManager {
    /// Makes a manager. Nothing is connected before [`initialize`](Self::initialize); what is wrong with a part is told
    /// there, and by the part when it is asked for.
    #[must_use]
    pub fn new(config: CommunicationConfig) -> Self {
        Self::builder(config).build()
    }

    /// Makes a manager with factories for systems that Trunkline does not bring.
    #[must_use]
    pub fn builder(config: CommunicationConfig) -> CommunicationManagerBuilder {
        CommunicationManagerBuilder::new(config)
    }

    pub(crate) fn from_builder(builder: CommunicationManagerBuilder) -> Self {
        let health = Health::new(builder.clock.clone());
        let assembled = assemble(&builder, &health);
        let running = health.gate("manager", "not initialised yet");
        assembled.metrics.show_health(&health);
        Self(Arc::new(Inner {
            logs: crate::logs::of(&builder.config),
            config: builder.config,
            current: assembled.current,
            applying: std::sync::Mutex::default(),
            publishing: assembled.publishing,
            health,
            metrics: assembled.metrics,
            propagation: assembled.propagation,
            parts: assembled.parts,
            #[cfg(feature = "http")]
            sdk: crate::sdk::of_clients(&assembled.http),
            http: assembled.http,
            stages: Stages::default(),
            callbacks: Arc::default(),
            tasks: Scope::new(),
            phase: Mutex::new(Phase::New),
            seen_phase: std::sync::Mutex::new(Phase::New),
            stop_requested: CancellationToken::new(),
            drain_deadline: OnceLock::new(),
            drained: OnceCell::new(),
            running,
        }))
    }

    /// Connects every component, in order, required ones within the startup timeout; then health checks, relays and the
    /// startup callbacks begin. Does nothing when it is running. A failed start undoes what it started.
    ///
    /// # Errors
    /// The error of the first required component that could not be connected: what, where, and how to mend it.
    /// `Cancelled` after a shutdown or a failed start, and when a shutdown is asked for meanwhile.
    ///
    /// # Cancel safety
    /// When dropped, call [`shutdown`](Self::shutdown).
    pub async fn initialize(&self) -> Result<()> {
        let mut phase = self.0.phase.lock().await;
        if !phase.may_start()? {
            return Ok(());
        }
        // An application's own subscriber stays; then this does nothing.
        let _installed = self.0.logs.install();
        for warning in self.0.config.warnings().iter() {
            tracing::warn!(target: target::MANAGER, "{warning}");
        }
        tracing::debug!(target: target::MANAGER, components = self.0.parts.components.len(), "initialising");
        if let Err(error) = self.start_everything().await {
            tracing::error!(target: target::MANAGER, error = %error.report(), "initialisation failed");
            self.request_shutdown();
            // What cannot be undone was logged; the error of the start says more.
            drop(self.stop_everything(Instant::now() + CLOSING).await);
            self.set_phase(&mut phase, Phase::Shutdown);
            return Err(error);
        }
        self.set_phase(&mut phase, Phase::Initialized);
        self.0.running.open();
        if self.0.stop_requested.is_cancelled() {
            self.0.running.close(STOPPING);
        }
        drop(phase);
        tokio::select! {
            () = self.0.callbacks.started(self) => {}
            () = self.until_shutdown() => {}
        }
        if self.0.stop_requested.is_cancelled() {
            // As for a start that failed: what went wrong with undoing it was logged.
            drop(self.shutdown().await);
            return Err(asked_to_stop());
        }
        tracing::info!(target: target::MANAGER, status = %self.health_status().overall_status, "initialised");
        Ok(())
    }

    /// Stops: readiness off, shutdown callbacks, intake drained, egress flushed, components closed, all within the
    /// drain timeout and five seconds. Does nothing the second time. A start that is under way is given up. Afterwards
    /// it cannot be started again.
    ///
    /// Whatever is drained must not wait for it; [`request_shutdown`](Self::request_shutdown) serves there. In a
    /// shutdown callback it returns at once.
    ///
    /// # Errors
    /// The first thing that did not stop cleanly; everything else is stopped all the same.
    ///
    /// # Cancel safety
    /// Cancel safe: the stop goes on; a further call waits for its end.
    pub async fn shutdown(&self) -> Result<()> {
        self.request_shutdown();
        if inside_shutdown_callback() {
            return Ok(());
        }
        let manager = self.clone();
        let stopping = task::spawn("shutdown", async move { manager.stop().await });
        stopping
            .await
            .unwrap_or_else(|join| Err(Error::internal("the stop panicked").with_source(join)))
    }

    /// Whether it is running.
    #[must_use]
    pub fn is_initialized(&self) -> bool {
        self.seen_phase() == Phase::Initialized
    }

    /// Whether it has ended for good.
    #[must_use]
    pub fn is_shutdown(&self) -> bool {
        self.seen_phase() == Phase::Shutdown
    }

    /// Asks everything that waits in [`until_shutdown`](Self::until_shutdown) to stop. Readiness turns off at once.
    pub fn request_shutdown(&self) {
        self.0.running.close(STOPPING);
        self.0.stop_requested.cancel();
    }

    /// Waits until a signal or [`request_shutdown`](Self::request_shutdown) asks to stop.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn until_shutdown(&self) {
        self.0.stop_requested.cancelled().await;
    }

    /// Adds something that runs on top of the components, to be drained and stopped before them.
    pub fn attach(&self, name: impl Into<String>, stage: Stage, work: AnyLifecycle) {
        drop(self.0.stages.attach(name.into(), stage, work));
    }

    /// The configuration that applies: the one it was made with, or the one that [`apply`](Self::apply) took over last.
    #[must_use]
    pub fn config(&self) -> Arc<CommunicationConfig> {
        self.0.current.load_full()
    }

    /// The health of everything, as last reported.
    #[doc(alias = "get_health_status")]
    #[must_use]
    pub fn health_status(&self) -> HealthDocument {
        self.0.health.document()
    }

    /// Checks every component now and returns the health of everything. Before the start and after the stop, what was
    /// last reported.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn health_check(&self) -> HealthDocument {
        if self.is_initialized() {
            let components = &self.0.parts.components;
            join_all(components.iter().map(|component| component.check())).await;
        }
        self.health_status()
    }

    /// The shared health, for components of one's own.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.0.health
    }

    /// The metrics of this manager.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// How the context travels in headers.
    #[must_use]
    pub fn propagation(&self) -> &Propagation {
        &self.0.propagation
    }

    /// Called after a start, with the manager, in the order of addition. One that fails harms nothing.
    pub fn add_startup_callback<F, Fut>(&self, callback: F)
    where
        F: Fn(Self) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: CallbackOutcome> + Send + 'static,
    {
        self.0.callbacks.add_startup(callback);
    }

    /// Called before a stop, while everything still works; all together within half of the drain timeout.
    pub fn add_shutdown_callback<F, Fut>(&self, callback: F)
    where
        F: Fn(Self) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: CallbackOutcome> + Send + 'static,
    {
        self.0.callbacks.add_shutdown(callback);
    }

    /// Called with a component's key and status on every change, and on every failed check where the configuration asks
    /// for that (`health.on_every_failure`). It may call the manager, [`reconnect_message_broker`] too.
    ///
    /// [`reconnect_message_broker`]: Self::reconnect_message_broker
    pub fn add_health_check_callback<F, Fut>(&self, callback: F)
    where
        F: Fn(String, trunkline_core::ComponentStatus) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: CallbackOutcome> + Send + 'static,
    {
        self.0
            .callbacks
            .add_health(self.0.config.health.on_every_failure, callback);
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// When what is running is cut off: the drain timeout after the drain began, which is now if it has not.
    pub(crate) fn drain_deadline(&self) -> Instant {
        let begin = || Instant::now() + self.0.current.load().drain_timeout;
        *self.0.drain_deadline.get_or_init(begin)
    }

    /// Begins to drain while something else goes on.
    pub(crate) fn begin_drain(&self) {
        self.drain_deadline();
        let manager = self.clone();
        drop(task::spawn(
            "drain",
            async move { drop(manager.drain().await) },
        ));
    }

    /// Drains once, however often it is asked for; everybody waits for the same end.
    pub(crate) async fn drain(&self) -> Result<()> {
        let failure = self.0.drained.get_or_init(|| async {
            let deadline = self.drain_deadline();
            if self.is_initialized() {
                let half = share(deadline, 2);
                let called = timeout_at(half, self.0.callbacks.stopping(self)).await;
                if called.is_err() {
                    tracing::error!(target: target::MANAGER, "the shutdown callbacks took too long; going on without them");
                }
            }
            let drained = self.0.stages.drain(deadline).await;
            drained.err().map(|error| Missing::new(&error))
        });
        match failure.await {
            Some(failure) => Err(failure.error()),
            None => Ok(()),
        }
    }

    async fn stop(&self) -> Result<()> {
        let mut phase = self.0.phase.lock().await;
        if *phase == Phase::Shutdown {
            return Ok(());
        }
        tracing::debug!(target: target::MANAGER, "stopping");
        let drained = self.drain().await;
        let stopped = self.stop_everything(Instant::now() + CLOSING).await;
        self.set_phase(&mut phase, Phase::Shutdown);
        let outcome = drained.and(stopped);
        tracing::info!(target: target::MANAGER, clean = outcome.is_ok(), "stopped");
        outcome
    }

    async fn start_everything(&self) -> Result<()> {
        let starting = async {
            self.start_components().await?;
            self.watch_over();
            for (name, entry) in self.0.parts.brokers.iter() {
                if let Ok(entry) = entry {
                    let messaging = AnyLifecycle::new(entry.messaging.clone());
                    self.attach(format!("messaging {name}"), Stage::Intake, messaging);
                }
            }
            self.start_relay().await
        };
        tokio::select! {
            biased;
            () = self.until_shutdown() => {
                Err(asked_to_stop())
            }
            started = starting => started,
        }
    }

    /// Connects stage by stage: what others lean on comes first. Ends at the first required part that fails.
    async fn start_components(&self) -> Result<()> {
        let deadline = Instant::now() + self.0.config.startup_timeout;
        for stage in self.0.parts.start_order() {
            try_join_all(stage.iter().map(|component| start_one(component, deadline))).await?;
        }
        Ok(())
    }

    fn watch_over(&self) {
        let Inner {
            tasks,
            health,
            callbacks,
            config,
            ..
        } = &*self.0;
        monitor::tell_callbacks(tasks, health, Arc::clone(callbacks));
        let checks = config.enable_health_checks;
        for component in &self.0.parts.components {
            // Without checks, one that is away is still picked up when it comes.
            if component.may_come_back() && (checks || !component.is_connected()) {
                let component = Arc::clone(component);
                monitor::watch_component(tasks, component, config.health.interval, !checks);
            }
        }
    }

    /// Ends everything, in the reverse order of the start. Each step has a share of the time.
    async fn stop_everything(&self, deadline: Instant) -> Result<()> {
        let stages = self.0.stages.shutdown(share(deadline, 2)).await;
        let left = self.0.tasks.shutdown(share(deadline, 4)).await;
        if left > 0 {
            tracing::warn!(target: target::MANAGER, tasks = left, "tasks had to be stopped by force");
        }
        self.0.http.shutdown(share(deadline, 3)).await;
        let discovery = match &self.0.parts.discovery {
            Ok(discovery) => discovery.shutdown(share(deadline, 2)).await,
            Err(_) => Ok(()),
        };
        let components = self.stop_components(deadline).await;
        self.0.parts.backends.close();
        self.0.callbacks.clear();
        stages.and(discovery).and(components)
    }

    async fn stop_components(&self, deadline: Instant) -> Result<()> {
        let mut outcome = Ok(());
        let stages = self.0.parts.start_order();
        for (before, stage) in stages.iter().enumerate().rev() {
            let until = share(deadline, before + 1);
            for stopped in join_all(stage.iter().map(|component| component.stop(until))).await {
                if let Err(error) = stopped {
                    tracing::error!(target: target::MANAGER, error = %error.report(), "a component did not close");
                    outcome = outcome.and(Err(error));
                }
            }
        }
        outcome
    }

    /// The policies of calls and of publishing.
    #[cfg(feature = "http")]
    pub(crate) fn policies(&self) -> Vec<Policies> {
        let mut all = vec![self.0.http.policies().clone(), self.0.publishing.clone()];
        all.extend(self.0.http.other_policies());
        all
    }

    #[cfg(not(feature = "http"))]
    pub(crate) fn policies(&self) -> Vec<Policies> {
        vec![self.0.publishing.clone()]
    }

    fn set_phase(&self, phase: &mut Phase, next: Phase) {
        *phase = next;
        *self.lock_seen_phase() = next;
    }

    fn seen_phase(&self) -> Phase {
        *self.lock_seen_phase()
    }

    fn lock_seen_phase(&self) -> std::sync::MutexGuard<'_, Phase> {
        self.0
            .seen_phase
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Inner {
    pub(crate) fn lock_applying(&self) -> std::sync::MutexGuard<'_, ()> {
        self.applying
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A manager that nobody holds any more and nobody stopped leaves no tasks behind.
impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl std::fmt::Debug for CommunicationManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommunicationManager")
            .field("phase", &self.seen_phase())
            .field("components", &self.0.parts.components)
            .finish_non_exhaustive()
    }
}

fn asked_to_stop() -> Error {
    Error::cancelled("a shutdown was asked for before the start was over")
}

/// A part that is not required never fails the start; it is picked up when it returns.
async fn start_one(component: &Arc<Component>, deadline: Instant) -> Result<()> {
    match component.start(deadline).await {
        Err(error) if component.is_required() => Err(component.refusal(error)),
        Err(error) => {
            tracing::warn!(
                target: target::MANAGER, component = component.key(), error = %error.report(),
                "an optional part is away; going on without it"
            );
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
