//! One part of a manager: connected at the start, checked in the background, disconnected at the end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use trunkline_core::health::ComponentHealth;
use trunkline_core::names::target;
use trunkline_core::task::catch_panic;
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

    /// Whether it is worth trying again when it is away.
    fn may_come_back(&self) -> bool {
        true
    }
}

/// What a check found that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// It works.
    Healthy,
    /// The part has reported by itself whether it works.
    Reported {
        /// Whether it does.
        works: bool,
    },
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

    /// Whether it is worth trying again when it is away.
    pub(crate) fn may_come_back(&self) -> bool {
        self.part.may_come_back()
    }

    /// Connects within a deadline, trying again while that makes sense. A part that is not required is tried once and
    /// holds nobody up for longer than a check may take.
    pub(crate) async fn start(&self, deadline: Instant) -> Result<()> {
        tracing::debug!(target: target::MANAGER, component = self.key(), "initialising");
        if !self.required {
            let patience = Instant::now() + self.check_timeout;
            return self.connect(deadline.min(patience)).await;
        }
        let mut pause = FIRST_ATTEMPT_AGAIN;
        let mut reason: Option<Error> = None;
        loop {
            let error = match self.connect(deadline).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if is_hopeless(&error) {
                return Err(error);
            }
            if left.is_zero() {
                // Why it failed says more than that the time for the last attempt was too short.
                return Err(reason.unwrap_or(error));
            }
            tracing::debug!(
                target: target::MANAGER, component = self.key(), error = %error.report(),
                again_in = %duration::format(pause.min(left)), "not available yet; trying again"
            );
            reason = Some(error);
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(SLOWEST_ATTEMPT);
        }
    }

    /// Checks now, connecting first where that has not succeeded yet, and reports to the health document.
    pub(crate) async fn check(&self) -> bool {
        if !self.is_connected() {
            tracing::debug!(target: target::MANAGER, component = self.key(), "recovery attempt");
            let deadline = Instant::now() + self.check_timeout;
            return self.connect(deadline).await.is_ok();
        }
        match self.look().await {
            Ok(finding) => self.found(finding),
            Err(error) => {
                self.log_failure(&error, "health check: unhealthy");
                self.health.mark_unhealthy(&error);
                false
            }
        }
    }

    /// Connects again now and checks; does not cut a connection that works. Only the end of it is reported, so that a
    /// callback that reconnects is not told of a recovery that was none.
    pub(crate) async fn reconnect(&self) -> bool {
        tracing::info!(target: target::MANAGER, component = self.key(), "recovery attempt");
        let deadline = Instant::now() + self.check_timeout;
        let outcome = match self.open(deadline).await {
            Ok(()) => self.look().await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(finding) => self.found(finding),
            Err(error) => {
                self.log_failure(&error, "recovery attempt failed");
                // No check: a callback that is told of every failed one would otherwise call itself without a pause.
                self.health.note_failure(&error);
                false
            }
        }
    }

    async fn connect(&self, deadline: Instant) -> Result<()> {
        let connected = self.open(deadline).await;
        match &connected {
            Ok(()) => {
                self.health.mark_healthy();
                tracing::info!(target: target::MANAGER, component = self.key(), "initialised");
            }
            Err(error) => {
                self.log_failure(error, "not connected");
                self.health.mark_unhealthy(error);
            }
        }
        connected
    }

    async fn open(&self, deadline: Instant) -> Result<()> {
        let attempt = contained(async { self.part.connect().await });
        let opened = tokio::time::timeout_at(deadline, attempt).await;
        let opened = opened.unwrap_or_else(|_| Err(Error::timeout("it did not connect in time")));
        if opened.is_ok() {
            self.connected.store(true, Ordering::Release);
        }
        opened.map_err(|error| self.located(error, "connect"))
    }

    async fn look(&self) -> Result<Finding> {
        let found = timeout(
            self.check_timeout,
            contained(async { self.part.check().await }),
        )
        .await;
        let found = found.unwrap_or_else(|_| {
            let allowed = duration::format(self.check_timeout);
            Err(Error::timeout(format!(
                "the health check took longer than {allowed}"
            )))
        });
        found.map_err(|error| self.located(error, "health check"))
    }

    fn found(&self, finding: Finding) -> bool {
        let works = match finding {
            Finding::Healthy => {
                self.health.mark_healthy();
                true
            }
            Finding::Reported { works } => works,
        };
        let status = self.status();
        tracing::debug!(target: target::MANAGER, component = self.key(), %status, "health check");
        works
    }

    /// Loud when it is news, and for those who want to see every step otherwise.
    fn log_failure(&self, error: &Error, what: &'static str) {
        let error = error.report();
        if self.status() == Status::Unhealthy {
            tracing::debug!(target: target::MANAGER, component = self.key(), %error, "{what}");
        } else {
            tracing::warn!(target: target::MANAGER, component = self.key(), %error, "{what}");
        }
    }

    pub(crate) async fn stop(&self, deadline: Instant) -> Result<()> {
        self.connected.store(false, Ordering::Release);
        let closing = contained(async { self.part.disconnect(deadline).await });
        let stopped = tokio::time::timeout_at(deadline, closing).await;
        let stopped = stopped.unwrap_or_else(|_| Err(Error::timeout("it did not close in time")));
        tracing::debug!(target: target::MANAGER, component = self.key(), "stopped");
        stopped.map_err(|error| self.located(error, "disconnect"))
    }

    /// The error of a start that cannot go on without this part: what, where, and how to mend it.
    pub(crate) fn refusal(&self, reason: Error) -> Error {
        let key = self.key();
        let section = match key.strip_prefix("message_broker_") {
            Some(name) => format!("message_brokers.{name}"),
            None => key.to_owned(),
        };
        let status = self.health.status();
        let url = status.as_ref().and_then(|status| {
            let url = status.metadata.get("connection_url")?.as_str()?;
            Some(format!(" at {url}"))
        });
        let place = url.unwrap_or_default();
        let remedy = if is_hopeless(&reason) {
            format!("correct `{section}`")
        } else {
            format!("start it, correct `{section}`, allow more time with `startup_timeout`")
        };
        let message = format!(
            "{key}{place} is required and not available: {}; {remedy}, or set `{section}.required` to false",
            reason.message()
        );
        Error::new(reason.kind(), message)
            .with_component(key.to_owned())
            .with_operation("initialize")
            .with_source(reason)
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

/// Another attempt would fail in the same way.
fn is_hopeless(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Config | ErrorKind::Unsupported | ErrorKind::Invalid | ErrorKind::Cancelled
    )
}

/// A part that panics has failed, and ends nobody who looks after it.
async fn contained<T>(attempt: impl Future<Output = Result<T>>) -> Result<T> {
    catch_panic(attempt).await.and_then(|outcome| outcome)
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
