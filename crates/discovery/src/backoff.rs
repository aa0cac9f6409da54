//! How long to wait before the registry is asked again.

use std::time::Duration;

use trunkline_resilience::retry::{RetrySettings, Schedule};

/// Waits that grow while asking fails, each shortened at random so that callers do not come back all at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    schedule: Schedule,
    failures: u32,
}

impl Backoff {
    /// From a tenth of a second up to the longest wait.
    pub(crate) fn new(longest: Duration) -> Self {
        let mut schedule = RetrySettings::default().schedule();
        schedule.delay = Duration::from_millis(100).min(longest);
        schedule.backoff = 2.0;
        schedule.max_delay = longest;
        schedule.jitter = true;
        Self {
            schedule,
            failures: 0,
        }
    }

    /// It failed again: how long to wait now.
    pub(crate) fn next(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.schedule.before(self.failures.saturating_add(1))
    }

    /// It worked.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}
