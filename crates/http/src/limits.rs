//! How long the parts of one exchange may take.

use std::time::Duration;

use tokio::time::Instant;
use trunkline_resilience::timeout::TimeoutSettings;

/// How long the parts of one exchange may take.
///
/// ```
/// use std::time::Duration;
/// use trunkline_http::Limits;
///
/// let limits = Limits::default().with_read(Duration::from_secs(5));
/// assert_eq!(limits.connection, Duration::from_secs(10));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Opening a connection. Default 10 s.
    pub connection: Duration,
    /// Waiting for a free connection. Default 5 s.
    pub pool: Duration,
    /// Longest silence: until the answer begins, once the request has been written, and between the parts of its body.
    /// Default 30 s.
    pub read: Duration,
    /// From the end of the request until the head of the answer is here, also while bytes of it, or informational answers,
    /// come in. Over HTTP/2 a body that is no stream counts as written at once. Default: none.
    pub first_byte: Option<Duration>,
    /// When everything has to be over, the body of the answer included. Default: never.
    pub deadline: Option<Instant>,
    /// Whoever waits for the answer gives up by then anyway: an alarm that would ring later is not set.
    pub(crate) given_up: Option<Instant>,
    /// What time it is when the request is handed over, for whoever has just looked: to look again costs as much as many a
    /// policy.
    pub(crate) now: Option<Instant>,
}

impl Default for Limits {
    fn default() -> Self {
        Self::from(&TimeoutSettings::default())
    }
}

impl From<&TimeoutSettings> for Limits {
    fn from(settings: &TimeoutSettings) -> Self {
        Self {
            connection: settings.connection,
            pool: settings.pool,
            read: settings.read,
            first_byte: settings.first_byte,
            deadline: None,
            given_up: None,
            now: None,
        }
    }
}

impl Limits {
    /// Sets the limit of opening a connection.
    #[must_use]
    pub const fn with_connection(mut self, connection: Duration) -> Self {
        self.connection = connection;
        self
    }

    /// Sets the limit of waiting for a free connection.
    #[must_use]
    pub const fn with_pool(mut self, pool: Duration) -> Self {
        self.pool = pool;
        self
    }

    /// Sets the longest silence.
    #[must_use]
    pub const fn with_read(mut self, read: Duration) -> Self {
        self.read = read;
        self
    }

    /// Sets how long the head of the answer may take once the request has been written.
    #[must_use]
    pub const fn with_first_byte(mut self, first_byte: Duration) -> Self {
        self.first_byte = Some(first_byte);
        self
    }

    /// Sets when everything has to be over, the body of the answer included.
    #[must_use]
    pub const fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

/// A point in time that can be represented, however long the span.
pub(crate) fn after(now: Instant, span: Duration) -> Instant {
    const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    now + span.min(A_YEAR)
}
