//! A scope in which the manager runs: initialised inside, shut down afterwards whatever happens.

use tokio::time::Instant;
use trunkline_core::names::target;
use trunkline_core::task::catch_panic_raw;
use trunkline_core::{Error, Result};

use crate::CommunicationManager;
use crate::signal::{StopSignal, StopSignals};

/// How the closure ended.
enum Ending<T> {
    Returned(Result<T>),
    Panicked(Box<dyn std::any::Any + Send>),
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
    /// Those of `initialize`, of the closure, of `shutdown` (in this order), and `Cancelled` when the closure did not
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
        self.initialize().await?;
        let ending = self.run_body(body, signals).await;
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

    async fn run_body<T, F>(&self, body: F, mut signals: StopSignals) -> Ending<T>
    where
        F: AsyncFnOnce(Self) -> Result<T>,
    {
        let body = catch_panic_raw(body(self.clone()));
        let mut body = std::pin::pin!(body);
        let mut first: Option<StopSignal> = None;
        let mut cut_off_at: Option<Instant> = None;
        let requested = self.until_shutdown();
        let mut requested = std::pin::pin!(requested);
        loop {
            tokio::select! {
                ended = &mut body => {
                    return match ended {
                        Ok(result) => Ending::Returned(result),
                        Err(panic) => Ending::Panicked(panic),
                    };
                }
                signal = signals.next() => {
                    if first.is_some() {
                        exit_at_once(signal);
                    }
                    tracing::info!(target: target::MANAGER, signal = signal.name(), "stopping");
                    first = Some(signal);
                    self.request_shutdown();
                }
                () = &mut requested, if cut_off_at.is_none() => {
                    cut_off_at = Some(Instant::now() + self.drain_timeout());
                    self.begin_drain();
                }
                () = until(cut_off_at) => return Ending::CutOff,
            }
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
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
