//! Keeping one connection to a broker, for backends: the one owner of reconnection that [`MessageBroker`] asks for.
//!
//! A backend says how to connect, how it learns that a connection is lost, and how to close one ([`Connect`]); the
//! [`Supervisor`] connects, again and again with growing waits, and never gives up. Whoever needs the connection
//! waits for it with [`Supervisor::connection`] and gets it together with its [`Generation`]: what belongs to a
//! connection — channels, topology, consumers — is made anew when the generation is another. The driver's own reconnection
//! has to be off: two recoveries stacked make two consumers of one subscription.
//!
//! [`MessageBroker`]: crate::MessageBroker

mod connect;
mod link;
mod run;

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use trunkline_core::task::Scope;
use trunkline_core::{Context, Error, Result, Retry};

pub use connect::{Connect, Reconnect};
pub use link::{Generation, LinkState};

use link::Shared;

/// Keeps one connection. Clones keep the same one. Dropping the last clone ends it without a farewell; see
/// [`Supervisor::close`].
///
/// ```
/// use tokio::time::{Duration, Instant};
/// use trunkline_core::{Error, Result};
/// use trunkline_messaging::supervisor::{Connect, Reconnect, Supervisor};
///
/// struct Line;
///
/// impl Connect for Line {
///     type Connection = &'static str;
///     async fn connect(&self) -> Result<&'static str> {
///         Ok("a connection") // of the driver, with its own reconnection off
///     }
///     async fn lost(&self, _: &&'static str) -> Error {
///         std::future::pending().await
///     }
///     async fn close(&self, _: &'static str, _: Instant) -> Result<()> {
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
/// let line = Supervisor::new(Line, Reconnect::default());
/// line.connect().await?;
/// let (connection, _generation) = line.connection().await?;
/// assert_eq!(connection, "a connection");
/// line.close(Instant::now() + Duration::from_secs(5)).await?;
/// # Ok(()) }
/// ```
pub struct Supervisor<C: Connect>(Arc<Handle<C>>);

/// What the clones share. The task holds [`Shared`] alone, so that it ends when the last clone is dropped.
struct Handle<C: Connect> {
    shared: Arc<Shared<C>>,
    scope: Scope,
}

impl<C: Connect> Drop for Handle<C> {
    fn drop(&mut self) {
        self.scope.stop();
    }
}

impl<C: Connect> Clone for Supervisor<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: Connect> fmt::Debug for Supervisor<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor")
            .field("state", &*self.0.shared.state().borrow())
            .finish_non_exhaustive()
    }
}

impl<C: Connect> Supervisor<C> {
    /// A supervisor that does nothing before [`start`](Self::start).
    #[must_use]
    pub fn new(connector: C, settings: Reconnect) -> Self {
        Self(Arc::new(Handle {
            shared: Arc::new(Shared::new(connector, settings)),
            scope: Scope::new(),
        }))
    }

    /// The connector it was made with.
    #[must_use]
    pub fn connector(&self) -> &C {
        &self.0.shared.connector
    }

    /// Begins to connect, behind the scenes. Does nothing when it began before, or was closed.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn start(&self) {
        if self.0.shared.begin() {
            let (shared, stop) = (Arc::clone(&self.0.shared), self.0.scope.token());
            self.0
                .scope
                .spawn("broker connection", run::keep(shared, stop));
        }
    }

    /// Begins to connect and waits for the outcome of the next attempt, which does not wait for its turn. Whatever it
    /// is, attempts go on. Does nothing when connected.
    ///
    /// # Errors
    /// What the attempt failed with, as `connect` of the connector says it; `Cancelled` after [`close`](Self::close).
    ///
    /// # Cancel safety
    /// Cancel safe: the attempts go on.
    pub async fn connect(&self) -> Result<()> {
        let shared = &self.0.shared;
        let outcome = shared.next_outcome();
        self.start();
        // Heard only by a task that waits for its turn.
        shared.hurry.notify_waiters();
        outcome.await
    }

    /// The connection, waited for until the deadline of the running [`Context`] or, without one, as long as
    /// [`Reconnect::wait`] says. Says also which connection it is.
    ///
    /// # Errors
    /// `Unavailable` with `Retry::Safe` and the last failure as its cause; `Cancelled` after [`close`](Self::close).
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn connection(&self) -> Result<(C::Connection, Generation)> {
        let shared = &self.0.shared;
        if let Some(there) = shared.now()? {
            return Ok(there);
        }
        let deadline = Context::current().and_then(|context| context.deadline());
        let deadline = deadline.unwrap_or_else(|| Instant::now() + shared.settings.wait);
        match tokio::time::timeout_at(deadline, shared.there()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(shared.not_connected()),
        }
    }

    /// The connection if there is one now, without waiting.
    ///
    /// # Errors
    /// As [`connection`](Self::connection).
    pub fn current(&self) -> Result<(C::Connection, Generation)> {
        let shared = &self.0.shared;
        shared.now()?.ok_or_else(|| shared.not_connected())
    }

    /// Tells that a connection cannot be used any more, whatever its driver says: it is closed and another one made.
    /// Does nothing when that connection is gone already, so that everybody who notices may tell.
    pub fn broken(&self, generation: Generation, error: Error) {
        self.0.shared.condemn(generation, error);
    }

    /// Whether there is a connection, as a value to watch.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.0.shared.state()
    }

    /// Stops connecting and closes the connection. Everybody who waits is told `Cancelled`.
    ///
    /// # Errors
    /// What `close` of the connector says; `Timeout` when that takes longer than the deadline.
    ///
    /// # Cancel safety
    /// Not cancel safe: the connection may be left to be dropped.
    pub async fn close(&self, deadline: Instant) -> Result<()> {
        let shared = &self.0.shared;
        let last = shared.end();
        self.0.scope.stop();
        let closed = match last {
            None => Ok(()),
            Some(connection) => {
                let closing = shared.connector.close(connection, deadline);
                tokio::time::timeout_at(deadline, closing)
                    .await
                    .unwrap_or_else(|_| {
                        Err(Error::timeout(
                            "the connection was not closed by the deadline",
                        ))
                    })
            }
        };
        self.0.scope.shutdown(deadline).await;
        closed
    }
}

/// An operation was under way when its connection was lost: nobody knows whether the broker did it.
#[must_use]
pub fn in_flight(cause: Error) -> Error {
    Error::unavailable("the connection was lost; it may have been processed")
        .with_retry(Retry::IfIdempotent)
        .with_source(cause)
}
