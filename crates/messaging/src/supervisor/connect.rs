//! What a backend says about its connections.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::{Error, Result};

/// How one kind of connection is made, watched and closed.
///
/// A panic in any of these is a failed attempt or a lost connection, not the end of the attempts.
pub trait Connect: Send + Sync + 'static {
    /// A connection; its clones are the same connection.
    type Connection: Clone + Send + Sync + 'static;

    /// Makes a connection that is ready to be used.
    ///
    /// It is dropped when it takes longer than [`Reconnect::attempt_timeout`] or when the supervisor is closed.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Unauthenticated`, `Config`, …: shown to those who wait, and in health.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection>> + Send;

    /// Returns when this connection is lost, saying why. It is polled as long as the connection is kept, and must notice
    /// also a server that hangs, by the protocol's heartbeats or by its own.
    fn lost(&self, connection: &Self::Connection) -> impl Future<Output = Error> + Send;

    /// Closes a connection, lost ones too, so that nothing of it is left on either side.
    ///
    /// # Errors
    /// When what was accepted could not be flushed.
    fn close(
        &self,
        connection: Self::Connection,
        deadline: Instant,
    ) -> impl Future<Output = Result<()>> + Send;
}

/// How often to try, and how long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reconnect {
    /// Wait before the second attempt; it doubles from there, and is shortened at random by up to a half. Default 100 ms.
    pub first_delay: Duration,
    /// The longest wait between two attempts. A connection that lasted shorter than this counts as a failed attempt.
    /// Default 5 s.
    pub longest_delay: Duration,
    /// How long one attempt may take. Default 10 s.
    pub attempt_timeout: Duration,
    /// How long a caller without a deadline waits for the connection. Default 30 s.
    pub wait: Duration,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self {
            first_delay: Duration::from_millis(100),
            longest_delay: Duration::from_secs(5),
            attempt_timeout: Duration::from_secs(10),
            wait: Duration::from_secs(30),
        }
    }
}

impl Reconnect {
    /// Sets the first and the longest wait between attempts.
    #[must_use]
    pub fn with_delays(mut self, first: Duration, longest: Duration) -> Self {
        self.first_delay = first.min(longest);
        self.longest_delay = longest;
        self
    }

    /// Sets how long one attempt may take.
    #[must_use]
    pub fn with_attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = timeout;
        self
    }

    /// Sets how long a caller without a deadline waits.
    #[must_use]
    pub fn with_wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }
}
