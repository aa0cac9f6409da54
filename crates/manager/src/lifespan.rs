//! A scope in which the manager runs: initialised inside, shut down afterwards whatever happens.

use std::any::Any;
use std::convert::Infallible;

use tokio::time::timeout_at;
use trunkline_core::names::target;
use trunkline_core::task::catch_panic_raw;
use trunkline_core::{Error, Result};

use crate::CommunicationManager;
use crate::signal::{StopSignal, StopSignals};

/// How the closure ended.
enum Ending<T> {
    Returned(Result<T>),
    Panicked(Box<dyn Any + Send>),
    CutOff,
}

impl CommunicationManager {
    /// Initialises, runs the closure, and shuts down: after success, error and panic, and when Ctrl-C or SIGTERM asks.
    ///
    /// The first signal resolves [`until_shutdown`](Self::until_shutdown), turns readiness off and stops the intake,
    /// while the closure and everything it sends go on. The drain deadline drops the closure; a second signal ends the
    /// process at once.
    ///
    /// ```no_run
    /// # use trunkline_manager::{CommunicationConfig, CommunicationManager};
    /// # async fn main_() -> trunkline_core::Result<()> {
    /// let config = CommunicationConfig::load()?;
    /// CommunicationManager::new(config)
    ///     .lifespan(async |manager| {
    ///         // … serve …
    ///         manager.until_shutdown().await;
    ///         Ok(())
    ///     })
    ///     .await
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of `initialize` (`Cancelled` when a signal came meanwhile), of the closure, of `shutdown` (in this order), and `Cancelled` when the closure did not
    /// end within the drain deadline.
    ///
    /// # Panics
    /// With the closure's panic, after shutting down.
    ///
    /// # Cancel safety
    /// Not cancel safe: when dropped, parts are left running. Use a signal or
    /// [`request_shutdown`](Self::request_shutdown).
    pub async fn lifespan<T, F>(self, body: F) -> Result<T>
    where
        F: AsyncFnOnce(Self) -> Result<T>,
    {
        let signals = StopSignals::listen()
            .map_err(|error| Error::internal("cannot listen for signals").with_source(error))?;
        // Beside everything, from the start to the stop: neither may keep a signal waiting.
        tokio::select! {
            never = self.obey(signals) => match never {},
            ended = self.live(body) => ended,
        }
    }

    async fn obey(&self, mut signals: StopSignals) -> Infallible {
        let first = signals.next().await;
        tracing::info!(target: target::MANAGER, signal = first.name(), "stopping");
        self.request_shutdown();
        exit_at_once(signals.next().await)
    }

    async fn live<T, F>(&self, body: F) -> Result<T>
    where
        F: AsyncFnOnce(Self) -> Result<T>,
    {
        self.initialize().await?;
        let ending = self.run_body(body).await;
        let stopped = self.shutdown().await;
        match ending {
            Ending::Returned(Ok(value)) => stopped.map(|()| value),
            Ending::Returned(Err(error)) => {
                if let Err(stop) = stopped {
                    tracing::error!(target: target::MANAGER, error = %stop.report(), "shutdown failed as well");
                }
                Err(error)
            }
            Ending::Panicked(panic) => std::panic::resume_unwind(panic),
            Ending::CutOff => Err(Error::cancelled(
                "the closure of lifespan did not end within the drain timeout and was dropped; \
                 await until_shutdown() in it",
            )),
        }
    }

    async fn run_body<T, F>(&self, body: F) -> Ending<T>
    where
        F: AsyncFnOnce(Self) -> Result<T>,
    {
        let manager = self.clone();
        let body = catch_panic_raw(async move { body(manager).await });
        let mut body = std::pin::pin!(body);
        tokio::select! {
            ended = &mut body => return Ending::of(ended),
            () = self.until_shutdown() => {}
        }
        self.begin_drain();
        let ended = timeout_at(self.drain_deadline(), body).await;
        ended.map_or(Ending::CutOff, Ending::of)
    }
}

impl<T> Ending<T> {
    fn of(ended: std::result::Result<Result<T>, Box<dyn Any + Send>>) -> Self {
        match ended {
            Ok(result) => Self::Returned(result),
            Err(panic) => Self::Panicked(panic),
        }
    }
}

#[expect(
    clippy::exit,
    reason = "whoever sends a second signal does not want to wait"
)]
fn exit_at_once(signal: StopSignal) -> ! {
    tracing::warn!(target: target::MANAGER, signal = signal.name(), "a second signal: exit at once");
    std::process::exit(signal.exit_code())
}
