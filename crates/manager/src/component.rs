//! One part of a manager: connected at the start, checked in the background, disconnected at the end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use trunkline_core::health::ComponentHealth;
use trunkline_core::names::target;
use trunkline_core::{BoxFuture, Error, ErrorKind, Result, Status, duration};

/// Longest wait between two attempts to connect a part that is away.
const SLOWEST_ATTEMPT: Duration = Duration::from_secs(5);
const FIRST_ATTEMPT_AGAIN: Duration = Duration::from_millis(100);

/// What a part can do for the manager.
pub(crate) trait Part: Send + Sync + 'static {
    /// Connects; does nothing when connected. Must be cancel safe.
    fn connect(&self) -> BoxFuture<'_, Result<()>>;

    /// Says how it is now. Must be cancel safe.
    fn check(&self) -> BoxFuture<'_, Result<Finding>>;

    /// Flushes and closes.
    fn disconnect(&self, deadline: Instant) -> BoxFuture<'_, Result<()>>;
}

/// What a check that did not fail found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// It works.
    Healthy,
    /// It works less well than it should.
    Degraded(String),
}

/// A part with its name, its place in the health document and its state.
pub(crate) struct Component {
    health: ComponentHealth,
    required: bool,
    part: Box<dyn Part>,
    connected: AtomicBool,
    check_timeout: Duration,
}

impl Component {
    pub(crate) fn new(
        health: ComponentHealth,
        required: bool,
        check_timeout: Duration,
        part: impl Part,
    ) -> Self {
        let connected = AtomicBool::new(false);
        Self {
            health,
            required,
            part: Box::new(part),
            connected,
            check_timeout,
        }
    }

    pub(crate) fn key(&self) -> &str {
        self.health.key()
    }

    pub(crate) fn is_required(&self) -> bool {
        self.required
    }

    pub(crate) fn status(&self) -> Status {
        self.health
            .status()
            .map_or(Status::Unhealthy, |status| status.status)
    }

    /// The kind of system behind it, such as `embedded`.
    pub(crate) fn kind(&self) -> String {
        let metadata = self
            .health
            .status()
            .and_then(|status| status.metadata.get("type").cloned());
        metadata
            .as_ref()
            .and_then(|kind| kind.as_str())
            .unwrap_or_default()
            .to_owned()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// Connects within a deadline, trying again while that makes sense. A part that is not required is tried once and
    /// holds nobody up for longer than a check may take.
    pub(crate) async fn start(&self, deadline: Instant) -> Result<()> {
        let patience = Instant::now() + self.check_timeout;
        let deadline = if self.required {
            deadline
        } else {
            deadline.min(patience)
        };
        let mut pause = FIRST_ATTEMPT_AGAIN;
        loop {
            tracing::debug!(target: target::MANAGER, component = self.key(), "initialising");
            let error = match self.connect(deadline).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let hopeless = matches!(
                error.kind(),
                ErrorKind::Config
                    | ErrorKind::Unsupported
                    | ErrorKind::Invalid
                    | ErrorKind::Cancelled
            );
            if !self.required || hopeless || Instant::now() + pause >= deadline {
                return Err(error);
            }
            tracing::debug!(
                target: target::MANAGER, component = self.key(), error = %error.report(),
                again_in = %duration::format(pause), "not available yet; trying again"
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(SLOWEST_ATTEMPT);
        }
    }

    async fn connect(&self, deadline: Instant) -> Result<()> {
        let connected = match tokio::time::timeout_at(deadline, self.part.connect()).await {
            Ok(connected) => connected,
            Err(_) => Err(Error::timeout("it did not connect in time")),
        };
        let connected = connected.map_err(|error| self.located(error, "connect"));
        match &connected {
            Ok(()) => {
                self.connected.store(true, Ordering::Release);
                self.health.mark_healthy();
                tracing::info!(target: target::MANAGER, component = self.key(), "initialised");
            }
            Err(error) => self.health.mark_unhealthy(error),
        }
        connected
    }

    /// Checks now, connecting first where that has not succeeded yet, and reports to the health document.
    pub(crate) async fn check(&self) -> bool {
        if !self.is_connected() {
            tracing::info!(target: target::MANAGER, component = self.key(), "recovery attempt");
            return self
                .connect(Instant::now() + self.check_timeout)
                .await
                .is_ok();
        }
        let found = match timeout(self.check_timeout, self.part.check()).await {
            Ok(found) => found,
            Err(_) => {
                let allowed = duration::format(self.check_timeout);
                Err(Error::timeout(format!(
                    "the health check took longer than {allowed}"
                )))
            }
        };
        match found {
            Ok(Finding::Healthy) => {
                tracing::debug!(target: target::MANAGER, component = self.key(), "health check: healthy");
                self.health.mark_healthy();
                true
            }
            Ok(Finding::Degraded(why)) => {
                tracing::debug!(target: target::MANAGER, component = self.key(), why, "health check: degraded");
                self.health.mark_degraded(&why);
                true
            }
            Err(error) => {
                let error = self.located(error, "health check");
                tracing::warn!(
                    target: target::MANAGER, component = self.key(), error = %error.report(),
                    "health check: unhealthy"
                );
                self.health.mark_unhealthy(&error);
                false
            }
        }
    }

    /// Connects again now; does not cut a connection that works.
    pub(crate) async fn reconnect(&self) -> bool {
        tracing::info!(target: target::MANAGER, component = self.key(), "recovery attempt");
        let again = self.connect(Instant::now() + self.check_timeout).await;
        again.is_ok() && self.check().await
    }

    pub(crate) async fn stop(&self, deadline: Instant) -> Result<()> {
        self.connected.store(false, Ordering::Release);
        let stopped = match tokio::time::timeout_at(deadline, self.part.disconnect(deadline)).await
        {
            Ok(stopped) => stopped,
            Err(_) => Err(Error::timeout("it did not close in time")),
        };
        tracing::debug!(target: target::MANAGER, component = self.key(), "stopped");
        stopped.map_err(|error| self.located(error, "disconnect"))
    }

    fn located(&self, error: Error, operation: &'static str) -> Error {
        let error = match error.component() {
            Some(_) => error,
            None => error.with_component(self.key().to_owned()),
        };
        match error.operation() {
            Some(_) => error,
            None => error.with_operation(operation),
        }
    }
}

impl std::fmt::Debug for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Component")
            .field("key", &self.key())
            .field("required", &self.required)
            .field("connected", &self.is_connected())
            .finish_non_exhaustive()
    }
}
