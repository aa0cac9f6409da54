//! When a call has to be over, and by whose word.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use super::error::{Elapsed, Limit};
use super::limited::limited;

/// When a call has to be over, and which limit says so.
///
/// ```
/// use std::time::Duration;
/// use tokio::time::Instant;
/// use trunkline_resilience::timeout::{Deadline, Limit};
///
/// let now = Instant::now();
/// let caller = now + Duration::from_secs(2);
/// let deadline = Deadline::of_call(now, Duration::from_secs(30), Some(caller));
/// assert_eq!(deadline.limit, Limit::Deadline);
/// let attempt = deadline.of_attempt(now, Duration::from_secs(1));
/// assert_eq!(attempt.limit, Limit::Attempt);
/// assert_eq!(attempt.at, now + Duration::from_secs(1));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deadline {
    /// The point in time.
    pub at: Instant,
    /// The limit that ends there.
    pub limit: Limit,
}

impl Deadline {
    /// The end of a whole call: the total timeout from now, or the caller's deadline where that is earlier.
    #[must_use]
    pub fn of_call(now: Instant, total: Duration, caller: Option<Instant>) -> Self {
        let total = Self {
            at: later(now, total),
            limit: Limit::Total,
        };
        match caller {
            Some(at) if at < total.at => Self {
                at,
                limit: Limit::Deadline,
            },
            _ => total,
        }
    }

    /// The end of an attempt that begins now: its own timeout, or this deadline where that is earlier.
    #[must_use]
    pub fn of_attempt(self, now: Instant, attempt: Duration) -> Self {
        let own = later(now, attempt);
        if own < self.at {
            Self {
                at: own,
                limit: Limit::Attempt,
            }
        } else {
            self
        }
    }

    /// Time left; zero when it is over.
    #[must_use]
    pub fn left(self, now: Instant) -> Duration {
        self.at.saturating_duration_since(now)
    }

    /// Runs a future until this end.
    ///
    /// # Errors
    /// [`Elapsed`] when it is not done by then.
    ///
    /// # Cancel safety
    /// Dropping it drops the future.
    pub async fn limit<F: Future>(self, future: F) -> Result<F::Output, Elapsed> {
        let began = Instant::now();
        let limited = limited(self.at, future).await;
        limited.map_err(|_| Elapsed::new(self.limit, self.left(began)))
    }

    /// The same end, earlier by what is kept for something else, but by no more than a quarter of what is left.
    #[must_use]
    pub fn keeping(self, now: Instant, reserve: Duration) -> Self {
        let kept = reserve.min(self.left(now) / 4);
        Self {
            at: self.at.checked_sub(kept).unwrap_or(self.at),
            limit: self.limit,
        }
    }
}

/// A point in time that can be represented, however long the span.
pub(crate) fn later(now: Instant, span: Duration) -> Instant {
    const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    now + span.min(A_YEAR)
}
