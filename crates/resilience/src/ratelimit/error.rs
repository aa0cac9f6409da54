//! What a rate limit says when it refuses.

use std::fmt;
use std::time::Duration;

use trunkline_core::{Error, Retry, duration};

use super::RateLimitSettings;

/// More calls than the rate allows: this one was refused here and never left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimited {
    /// Calls that are allowed.
    pub limit: u32,
    /// In this time.
    pub per: Duration,
    /// Time until a call would pass.
    pub retry_after: Duration,
}

impl RateLimited {
    pub(super) fn new(settings: RateLimitSettings, retry_after: Duration) -> Self {
        Self {
            limit: settings.limit,
            per: settings.per,
            retry_after,
        }
    }
}

impl fmt::Display for RateLimited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whole milliseconds, rounded up: whoever comes back then is let through.
        let left = self.retry_after.as_nanos().div_ceil(1_000_000);
        let left = Duration::from_millis(u64::try_from(left).unwrap_or(u64::MAX));
        write!(
            f,
            "rate limit of {} calls in {} is used up, next try in {}",
            self.limit,
            duration::format(self.per),
            duration::format(left)
        )
    }
}

impl std::error::Error for RateLimited {}

impl From<RateLimited> for Error {
    fn from(limited: RateLimited) -> Self {
        Self::rejected(limited.to_string())
            .with_retry(Retry::Safe)
            .with_source(limited)
    }
}
